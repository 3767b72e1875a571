"""`kill -9` of a real worker in the middle of a copy: the next one goes on, every byte arrives, nothing is left."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.vm_guest.conftest import Place
from tests.vm_guest.worker import killed_after_checkpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def make(volume_groups, request, tmp_path):
    """Return a function that registers the destination of a kind."""

    def make(kind: str):
        if kind != "nfs":
            return moving.register("there", "lvm", Place(volume_groups[0], kind == "thin").options)
        server = request.getfixturevalue("nfs_server")
        path = mounts.enter_context(server.mounted(tmp_path / "nfs", "4.2")) / "killed"
        path.mkdir()
        return moving.register("there", "directory", {"path": str(path)})

    with ExitStack() as mounts:
        yield make


@pytest.mark.parametrize("kind", ["thick", "thin", "nfs"])
def test_copy_goes_on_after_kill_9(kind, make, random_volume, tmp_path, run_to_end, volumes_left):
    # The first segment is there soon; the second takes a minute, and half of it may be under way by then.
    volume, there = random_volume(SEGMENT_BYTES + 60 * MIB, hole_until=SEGMENT_BYTES), make(kind)
    before = moving.digest_of(volume)
    options = Options(bandwidth_bytes_per_second=MIB, delete_source=True)
    migration = run_to_end(killed_after_checkpoint(volume, there.address, options, tmp_path))
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    assert moving.names_on(there) == {volume.object_name}
    inventory.delete_volume(volume)
    assert moving.names_on(there) == volumes_left() == set()
