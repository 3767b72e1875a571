"""The doctor finds every difference between rows and storage, and mends only what is safe."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Pool, Volume
from migrations_app import services
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.conftest import digest, object_path

pytestmark = pytest.mark.django_db(transaction=True)

COPY = Options(force_host_copy=True)


def kinds() -> list[tuple[str, bool]]:
    return [(f.kind.value, f.is_safe) for f in services.examine()]


def make_object(pool: Pool, name: str, size_bytes: int = MIB) -> None:
    with inventory.make_driver(pool.backend) as driver:
        driver.create(pool.name, name, size_bytes)


def objects(pool: Pool) -> set[str]:
    with inventory.make_driver(pool.backend) as driver:
        return {o.name for o in driver.list_volumes(pool.name)}


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def pool_b(two_backends) -> Pool:
    return two_backends[1].pools.select_related("backend").get()


def test_nothing_is_found_where_everything_is_right(volume, actor, run_to_end):
    assert kinds() == []
    migration = services.request_migration(volume, "testhost@b", actor, COPY)
    run_to_end(migration)
    assert kinds() == []
    run_to_end(services.request_migration(volume, "testhost@a", actor, COPY))
    assert kinds() == []


def test_migration_that_nobody_works_on_is_rung_for(volume, actor):
    services.request_migration(volume, "testhost@b", actor)
    (finding,) = services.examine()
    assert finding.kind == "unfinished_migration"
    assert finding.text == "The migration of 'vol-1' is 'queued' and nobody works on it."
    from django_q.models import OrmQ

    before = OrmQ.objects.count()
    assert services.mend(finding)
    assert OrmQ.objects.count() == before + 1


def test_leftover_of_a_failed_migration_is_deleted(volume, pool_b, actor, run_to_end):
    migration = services.request_migration(volume, "testhost@b", actor)
    run_to_end(services.cancel_migration(migration, actor))
    make_object(pool_b, migration.destination_object_name)
    (finding,) = services.examine()
    assert (finding.kind, finding.is_safe) == ("leftover", True)
    assert "made by the migration of 'vol-1', which is 'cancelled'" in finding.text
    assert services.mend(finding)
    assert objects(pool_b) == set()
    assert not services.mend(finding) or objects(pool_b) == set()


def test_leftover_may_be_the_only_copy_when_the_volume_is_missing(volume, pool_b, actor, run_to_end):
    migration = services.request_migration(volume, "testhost@b", actor)
    run_to_end(services.cancel_migration(migration, actor))
    make_object(pool_b, migration.destination_object_name)
    object_path(volume).unlink()
    assert kinds() == [("missing_object", False), ("leftover", False)]
    for finding in services.examine():
        assert not services.mend(finding)
    assert objects(pool_b) == {migration.destination_object_name}


def test_kept_source_and_running_destination_are_no_leftovers(volume, pool_b, actor, run_to_end):
    first = run_to_end(services.request_migration(volume, "testhost@b", actor, COPY))
    second = services.request_migration(volume, "testhost@a", actor, COPY)
    make_object(Pool.objects.get(backend__name="a"), second.destination_object_name, volume.size_bytes)
    assert [f.kind for f in services.examine()] == ["unfinished_migration"]
    run_to_end(second)
    # The first destination is now the kept source of the second migration.
    assert first.destination_object_name in objects(pool_b)
    assert kinds() == []


def test_object_of_nobody_is_told_and_never_touched(volume, pool_b):
    for name in ("precious", f"volmig-{uuid.uuid4()}"):
        make_object(pool_b, name)
    assert kinds() == [("object_without_row", False)] * 2
    for finding in services.examine():
        assert not services.mend(finding)
    assert len(objects(pool_b)) == 2


def test_leftover_of_a_validation_is_deleted(volume, pool_b):
    make_object(pool_b, "volmig-validate-60000000-abcdef-a0")
    (finding,) = services.examine()
    assert services.mend(finding)
    assert objects(pool_b) == set()


def test_validation_that_may_still_run_is_told_and_left_alone(volume, pool_b):
    make_object(pool_b, f"volmig-validate-{int(time.time()):x}-abcdef-a0")
    (finding,) = services.examine()
    assert "belongs to a validation of the last hour, which may still run" in finding.text
    assert finding.proposal == "Examine again in an hour."
    assert not services.mend(finding)
    assert len(objects(pool_b)) == 1


def test_resized_volume_is_told(volume):
    with object_path(volume).open("r+b") as file:
        file.truncate(30 * MIB)
    (finding,) = services.examine()
    assert (finding.kind, finding.is_safe) == ("size_differs", False)
    assert "30.0 MiB (31457280 bytes) on the storage, the record says 20.0 MiB" in finding.text


@pytest.mark.parametrize(
    ("status", "has_object", "after"),
    [
        ("creating", True, "available"),
        ("creating", False, None),
        ("deleting", True, "error_deleting"),
        ("deleting", False, None),
    ],
)
def test_volume_stuck_by_a_crash_is_mended(status, has_object, after, volume):
    if not has_object:
        object_path(volume).unlink()
    long_ago = timezone.now() - timedelta(hours=1)
    Volume.objects.filter(pk=volume.pk).update(status=status, updated_at=timezone.now())
    assert kinds() == []
    Volume.objects.filter(pk=volume.pk).update(updated_at=long_ago)
    (finding,) = services.examine()
    assert services.mend(finding)
    found = Volume.objects.filter(pk=volume.pk).first()
    assert (found.status if found else None) == after


def test_lock_of_an_ended_migration_is_taken_away(volume, actor, run_to_end):
    migration = services.request_migration(volume, "testhost@b", actor)
    run_to_end(services.cancel_migration(migration, actor))
    Volume.objects.filter(pk=volume.pk).update(locked_by_migration=migration.pk)
    (finding,) = services.examine()
    assert finding.kind == "stale_lock"
    assert services.mend(finding)
    assert kinds() == []


def test_pool_that_does_not_answer_is_told(volume, two_backends, tmp_path):
    (tmp_path / "b").rename(tmp_path / "elsewhere")
    (finding,) = services.examine()
    assert (finding.kind, finding.is_safe) == ("not_examined", False)
    (tmp_path / "elsewhere").rename(tmp_path / "b")
    before = digest(object_path(volume))
    assert kinds() == []
    assert digest(object_path(volume)) == before


def test_waiting_decision_is_told_with_the_place_of_the_data(volume, actor):
    migration = services.request_migration(volume, "testhost@b", actor)
    VolumeMigration.objects.filter(pk=migration.pk).update(
        state=State.NEEDS_OPERATOR, error_text="The disk is on fire.", data_location="It is at A."
    )
    (finding,) = services.examine()
    assert finding.kind == "needs_decision"
    assert "waits for a decision: The disk is on fire." in finding.text
    assert finding.proposal.startswith("It is at A.")
