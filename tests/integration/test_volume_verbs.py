"""Verbs that change a volume: they work, and are refused while a migration owns it."""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.errors import Unsupported
from backends.drivers.fake import FakeStore
from backends.drivers.types import MIB
from backends.models import Backend, Volume
from migrations_app import services
from tests.conftest import object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fake_backend() -> Backend:
    FakeStore.forget_all()
    return inventory.register_backend("testhost@fake", "fake", {"store": "verbs"})


def test_extended_volume_has_its_new_size_on_the_storage_too(two_backends, make_volume):
    volume = inventory.extend_volume(make_volume(two_backends[0]), 30 * MIB)
    assert volume.size_bytes == object_path(volume).stat().st_size == 30 * MIB
    with pytest.raises(inventory.InventoryRefused, match="it can only grow"):
        inventory.extend_volume(volume, 30 * MIB)


def test_snapshot_comes_and_goes_and_blocks_migration_and_deletion(fake_backend, make_volume, actor):
    volume = make_volume(fake_backend, filled=False)
    snapshot = inventory.create_snapshot(volume, "before the upgrade")
    reasons = {r.code for r in services.destinations(volume).reasons}
    assert reasons == {"has_snapshots", "snapshots_on_storage"}
    with pytest.raises(inventory.VolumeBusy, match="has snapshots"):
        inventory.delete_volume(volume)
    inventory.delete_snapshot(snapshot)
    assert services.destinations(volume).reasons == ()
    inventory.delete_volume(volume)
    assert not Volume.objects.exists()


def test_storage_without_snapshots_says_so(two_backends, make_volume):
    with pytest.raises(Unsupported, match="has no snapshots"):
        inventory.create_snapshot(make_volume(two_backends[0]), "s")


def test_every_change_is_refused_while_the_volume_migrates(two_backends, make_volume, actor):
    volume = make_volume(two_backends[0])
    migration = services.request_migration(volume, "testhost@b", actor)
    path = object_path(volume)
    for change in (
        lambda: inventory.extend_volume(volume, 30 * MIB),
        lambda: inventory.create_snapshot(volume, "s"),
        lambda: inventory.delete_volume(volume),
        lambda: inventory.attach(volume, "server"),
        lambda: inventory.detach(volume),
    ):
        with pytest.raises(inventory.VolumeBusy, match=f"while migration {migration.pk} works on it"):
            change()
    assert path.stat().st_size == 20 * MIB


def test_volume_that_the_storage_does_not_give_up_is_marked(two_backends, make_volume, monkeypatch):
    volume = make_volume(two_backends[0])
    with object_path(volume).open("rb"):
        pass
    path = object_path(volume)
    import fcntl

    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Exception, match="lock"):
            inventory.delete_volume(volume)
    volume.refresh_from_db()
    assert (volume.status, path.exists()) == ("error_deleting", True)
    inventory.delete_volume(volume)
    assert not path.exists()
