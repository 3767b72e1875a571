"""One volume moves between real directories, worked on in this process."""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.errors import Busy, NotNow
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.conftest import digest, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("size_bytes", [1, 4097, 20 * MIB, 130 * MIB + 511])
def test_generic_copy_moves_every_byte(two_backends, make_volume, actor, run_to_end, size_bytes):
    a, _ = two_backends
    volume = make_volume(a, size_bytes=size_bytes)
    source = object_path(volume)
    before, allocated = digest(source), source.stat().st_blocks
    migration = services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))
    volume.refresh_from_db()
    assert volume.migration_status == "starting"
    migration = run_to_end(migration)
    assert (migration.state, migration.error_text) == (State.RETAINED, "")
    destination = object_path(volume)
    assert destination != source
    assert destination.parent.name == "b"
    assert digest(destination) == before
    assert destination.stat().st_blocks <= allocated * 1.02 + 8
    assert volume.migration_status == "success"
    assert volume.locked_by_migration is None
    assert migration.source_digest == migration.destination_digest != ""
    assert source.exists()
    assert "kept" in migration.data_location


def test_native_move_on_one_file_system_copies_nothing(two_backends, make_volume, actor, run_to_end):
    a, _ = two_backends
    volume = make_volume(a)
    source = object_path(volume)
    before, inode = digest(source), source.stat().st_ino
    migration = run_to_end(services.request_migration(volume, "testhost@b#main", actor))
    assert migration.method in ("rename", "reflink")
    if migration.method == "rename":
        assert migration.state == State.DONE
        assert not source.exists()
        assert object_path(volume).stat().st_ino == inode
    assert digest(object_path(volume)) == before


def test_source_is_deleted_at_once_when_asked(two_backends, make_volume, actor, run_to_end):
    a, _ = two_backends
    volume = make_volume(a)
    source = object_path(volume)
    migration = run_to_end(
        services.request_migration(
            volume, "testhost@b", actor, Options(force_host_copy=True, delete_source=True)
        )
    )
    assert migration.state == State.DONE
    assert not source.exists()
    assert migration.data_location.endswith("The source was deleted.")


def test_kept_source_is_purged_when_its_time_is_over(two_backends, make_volume, actor, run_to_end):
    a, _ = two_backends
    volume = make_volume(a)
    source = object_path(volume)
    migration = run_to_end(
        services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))
    )
    assert services.purge_expired_sources() == []
    VolumeMigration.objects.update(purge_after=migration.created_at)
    assert [m.pk for m in services.purge_expired_sources()] == [migration.pk]
    migration = run_to_end(migration)
    assert (migration.state, migration.source_state) == (State.DONE, "deleted")
    assert not source.exists()
    assert object_path(volume).exists()


def test_flipped_byte_at_the_destination_is_found_and_nothing_switches(
    two_backends, make_volume, actor, run_to_end, monkeypatch
):
    a, _ = two_backends
    volume = make_volume(a, size_bytes=80 * MIB)
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))

    from migrations_app import steps

    real = steps.engine.copy

    def copy_then_flip(*args: object, **kwargs: object) -> object:
        result = real(*args, **kwargs)
        path = object_path(volume).parent.parent / "b" / f"{migration.destination_object_name}.raw"
        with path.open("r+b") as file:
            file.seek(70 * MIB + 3)
            file.write(b"x")
        return result

    monkeypatch.setattr(steps.engine, "copy", copy_then_flip)
    migration = run_to_end(migration)
    assert migration.state == State.FAILED
    assert "differs from the source between 64.0 MiB and 80.0 MiB" in migration.error_text
    assert digest(object_path(volume)) == before
    assert list((object_path(volume).parent.parent / "b").glob("volmig-*")) == []
    volume.refresh_from_db()
    assert (volume.migration_status, volume.locked_by_migration) == ("error", None)


def test_cancel_before_the_worker_starts_leaves_nothing(two_backends, make_volume, actor, run_to_end):
    a, _ = two_backends
    volume = make_volume(a)
    before = digest(object_path(volume))
    migration = services.request_migration(volume, "testhost@b", actor)
    services.cancel_migration(migration, actor)
    services.cancel_migration(migration, actor)
    migration = run_to_end(migration)
    assert migration.state == State.CANCELLED
    assert digest(object_path(volume)) == before
    volume.refresh_from_db()
    assert (volume.migration_status, volume.locked_by_migration) == (None, None)
    services.cancel_migration(migration, actor)
    assert JournalEntry.objects.filter(migration=migration, kind="wish").count() == 1


def test_cancel_after_the_end_says_that_it_is_too_late(two_backends, make_volume, actor, run_to_end):
    volume = make_volume(two_backends[0])
    migration = run_to_end(
        services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))
    )
    with pytest.raises(NotNow, match="cannot be cancelled any more"):
        services.cancel_migration(migration, actor)


def test_second_request_is_busy(two_backends, make_volume, actor):
    volume = make_volume(two_backends[0])
    services.request_migration(volume, "testhost@b", actor)
    with pytest.raises(Busy) as refusal:
        services.request_migration(volume, "testhost@b", actor)
    assert [r.code for r in refusal.value.reasons] == ["already_migrating"]


def test_attach_and_detach_are_refused_while_it_migrates(two_backends, make_volume, actor, run_to_end):
    volume = make_volume(two_backends[0])
    migration = services.request_migration(volume, "testhost@b", actor)
    with pytest.raises(inventory.VolumeBusy, match=f"while migration {migration.pk} works on it"):
        inventory.attach(volume, "server-1")
    run_to_end(migration)
    inventory.attach(volume, "server-1", mountpoint="/dev/vdb")
    with pytest.raises(inventory.VolumeBusy, match="attached to server-1 /dev/vdb already"):
        inventory.attach(volume, "server-2")
    inventory.detach(volume)
    with pytest.raises(inventory.VolumeBusy, match="cannot be detached"):
        inventory.detach(volume)


def test_volume_can_migrate_back_while_its_old_source_is_kept(two_backends, make_volume, actor, run_to_end):
    volume = make_volume(two_backends[0])
    before = digest(object_path(volume))
    for destination in ("testhost@b", "testhost@a", "testhost@b"):
        migration = run_to_end(
            services.request_migration(volume, destination, actor, Options(force_host_copy=True))
        )
        assert migration.state == State.RETAINED, migration.error_text
    assert digest(object_path(volume)) == before
