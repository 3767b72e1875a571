"""Migrations from one host to another one, with a real worker for each."""

from __future__ import annotations

import os

import pytest

from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.models import RemoteCall
from migrations_app.services import Options
from migrations_app.states import State
from tests.acceptance.conftest import wait_for_end
from tests.acceptance.hosts import digest_there, names_there, register_there, start_other
from tests.conftest import digest, object_path

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("driver", ["directory", "qcow2"])
def test_volume_moves_to_another_host_whole(driver, start_worker, make_backend, make_volume, actor, tmp_path):
    here, there = make_backend("a"), register_there("b", driver, tmp_path / "there")
    start_other(start_worker, there)
    start_worker()
    volume = make_volume(here, size_bytes=150 * MIB + 4097)
    source, before = object_path(volume), digest(object_path(volume))
    answer = services.dry_run(volume, "otherhost@b")
    assert answer.verdict.method_text == "generic copy over the network from host testhost to host otherhost"
    migration = services.request_migration(volume, "otherhost@b", actor, Options(delete_source=True))
    wait_for_end(migration)
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert digest_there(volume) == before
    assert names_there(there) == {volume.object_name}
    assert not source.exists()
    assert not RemoteCall.objects.exclude(state="ended").exists()
    assert not RemoteCall.objects.exclude(secret="").exists()
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("volmig-export-")]
