"""
Each failure that was measured with Cinder 29, and what happens here instead.

The rows and their names are those of docs/compared-with-cinder.md.
"""

from __future__ import annotations

import pytest
from django_q.models import OrmQ

from backends import services as inventory
from backends.drivers.types import GIB, MIB
from backends.models import Attachment, Pool, Snapshot, Volume, VolumeType
from migrations_app import services
from migrations_app.errors import NoValidPool, UnknownDestination
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.conftest import digest, object_path
from tests.loopfs import mounted

pytestmark = pytest.mark.django_db(transaction=True)

COPY = Options(force_host_copy=True)


def reasons(volume: Volume, destination: str, actor, error=NoValidPool) -> dict[str, str]:
    """Return the reasons of a refusal by code; nothing may have been made or locked."""
    with pytest.raises(error) as refusal:
        services.request_migration(volume, destination, actor)
    volume.refresh_from_db()
    assert (volume.locked_by_migration, volume.migration_status) == (None, None)
    assert not VolumeMigration.objects.exists()
    return {r.code: r.text for r in refusal.value.reasons}


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.mark.parametrize("destination", ["testhost@nope#main", "testhost@bb", "garbage", "testhost@b#wrong"])
def test_a1_a2_unknown_destination_is_refused_at_once_with_what_there_is(destination, volume, actor):
    (text,) = reasons(volume, destination, actor, UnknownDestination).values()
    assert destination in text


def test_a3_the_place_where_it_is_has_a_reason_of_its_own(volume, actor):
    assert set(reasons(volume, "testhost@a#main", actor)) == {"already_there"}


def test_a3_the_same_directory_under_another_name_is_noticed(volume, make_backend, tmp_path, actor):
    make_backend("again", tmp_path / "a")
    assert set(reasons(volume, "testhost@again", actor)) == {"same_place"}


def test_a4_disabled_destination_is_refused(volume, two_backends, actor):
    two_backends[1].is_enabled = False
    two_backends[1].disabled_reason = "to be scrapped"
    two_backends[1].save()
    assert "to be scrapped" in reasons(volume, "testhost@b", actor)["pool_disabled"]


def test_a5_type_that_fits_only_elsewhere_is_refused_with_the_capability(two_backends, make_volume, actor):
    pinned = VolumeType.objects.create(name="pinned", extra_specs={"volume_backend_name": "a"})
    volume = make_volume(two_backends[0], volume_type=pinned)
    assert "volume_backend_name" in reasons(volume, "testhost@b", actor)["capability_differs"]


def test_a6_backend_without_pool_takes_its_best_pool(volume, actor):
    migration = services.request_migration(volume, "testhost@b", actor)
    assert str(migration.destination_pool) == "testhost@b#main"


def test_b1_snapshot_is_named(volume, actor):
    Snapshot.objects.create(volume=volume, name="before-upgrade")
    assert "before-upgrade" in reasons(volume, "testhost@b", actor)["has_snapshots"]


def test_b3_destination_that_fills_up_during_the_copy_fails_with_the_reason_and_leaves_nothing(
    two_backends, make_backend, make_volume, actor, run_to_end, tmp_path
):
    volume = make_volume(two_backends[0], size_bytes=48 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        file.write(b"x" * (40 * MIB))
    before = digest(object_path(volume))
    with mounted("ext4", tmp_path, size_bytes=64 * MIB) as small:
        make_backend("small", small)
        migration = services.request_migration(volume, "testhost@small", actor, COPY)
        (small / "somebody-else").write_bytes(b"y" * (30 * MIB))
        migration = run_to_end(migration)
        assert (migration.state, migration.error_code) == (State.FAILED, "no_space")
        assert "No space left on device" in migration.error_text
        assert "Free room in the pool" in migration.error_text
        assert not list(small.glob("*volmig-?*-*"))
    assert digest(object_path(volume)) == before
    assert run_to_end(services.request_migration(volume, "testhost@b", actor, COPY)).state == State.RETAINED
    assert digest(object_path(volume)) == before


def test_b4_d1_volume_that_does_not_fit_is_refused_with_the_numbers(
    two_backends, make_volume, make_backend, actor, tmp_path
):
    volume = make_volume(two_backends[0], size_bytes=GIB, filled=False)
    with mounted("ext4", tmp_path, size_bytes=64 * MIB) as small:
        make_backend("small", small, max_over_subscription_ratio=1.0)
        text = reasons(volume, "testhost@small", actor)["over_provisioned"]
    assert "1.0 GiB" in text


def test_d1b_three_that_do_not_fit_together_are_not_all_accepted(
    two_backends, make_volume, make_backend, actor, tmp_path
):
    volumes = [make_volume(two_backends[0], f"v{i}", 25 * MIB, filled=False) for i in range(3)]
    for volume in volumes:
        with object_path(volume).open("r+b") as file:
            file.write(b"x" * (25 * MIB))
    with mounted("ext4", tmp_path, size_bytes=80 * MIB) as small:
        make_backend("small", small)
        free = Pool.objects.get(backend__name="small").free_bytes
        assert 2 * 25 * MIB < free < 3 * 25 * MIB
        for volume in volumes[:2]:
            services.request_migration(volume, "testhost@small", actor, COPY)
        with pytest.raises(NoValidPool) as refusal:
            services.request_migration(volumes[2], "testhost@small", actor, COPY)
    assert "promised to 2 running migrations" in refusal.value.reasons[0].text


def test_d3_attached_volume_is_refused_with_its_place(volume, actor):
    inventory.attach(volume, "server-7", mountpoint="/dev/vdb")
    assert "server-7" in reasons(volume, "testhost@b", actor)["attached"]
    assert Attachment.objects.get().detached_at is None


def test_many_causes_are_all_told_at_once(volume, two_backends, actor):
    Snapshot.objects.create(volume=volume, name="s")
    inventory.attach(volume, "server")
    Volume.objects.filter(pk=volume.pk).update(availability_zone="zone-1")
    two_backends[1].is_enabled = False
    two_backends[1].availability_zone = "zone-2"
    two_backends[1].save()
    assert set(reasons(volume, "testhost@b", actor)) >= {
        *("attached", "has_snapshots", "pool_disabled", "other_zone")
    }


def test_s1_lost_queue_loses_no_migration(volume, actor):
    migration = services.request_migration(volume, "testhost@b", actor)
    OrmQ.objects.all().delete()
    assert [m.pk for m in services.resume_migrations()] == [migration.pk]
    assert OrmQ.objects.count() == 1


def test_sparse_volume_stays_sparse_at_four_kibibytes(two_backends, make_volume, actor, run_to_end):
    volume = make_volume(two_backends[0], size_bytes=256 * MIB, filled=False)
    with object_path(volume).open("r+b") as file:
        for index in range(256):
            file.seek(index * MIB + 12288)
            file.write(b"d" * 4096)
    allocated = object_path(volume).stat().st_blocks
    run_to_end(services.request_migration(volume, "testhost@b", actor, COPY))
    assert object_path(volume).stat().st_blocks <= allocated * 1.02
