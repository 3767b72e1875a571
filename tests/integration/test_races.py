"""Many at once: one worker wins, one request is accepted, and room is given away once."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection

from backends import services as inventory
from backends.drivers.fake import FakeStore
from backends.drivers.types import GIB
from migrations_app import services
from migrations_app.errors import Busy, NoValidPool
from migrations_app.lease import Lease
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 8


def _at_once(function: Callable[[int], object], count: int = THREADS) -> list[object]:
    """Call *function* from many threads in the same instant; return what came back or was raised."""
    barrier, results = threading.Barrier(count), [None] * count

    def call(index: int) -> None:
        try:
            barrier.wait(10)
            results[index] = function(index)
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=call, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def small_store(db):
    """A pool with room for two volumes of a GiB and not for three, and one that has them."""
    FakeStore.forget_all()
    source = inventory.register_backend("testhost@s", "fake", {"store": "s"})
    inventory.register_backend("testhost@d", "fake", {"store": "d", "capacity_bytes": int(2.5 * GIB)})
    thick = inventory.create_volume_type("thick", {"provisioning:type": "thick"})
    pool = source.pools.get()
    yield [inventory.create_volume(f"v{i}", GIB, pool, volume_type=thick) for i in range(3)]
    FakeStore.forget_all()


@pytest.mark.parametrize("attempt", range(3))
def test_one_of_eight_workers_gets_the_lease(two_backends, make_volume, actor, attempt):
    volume = make_volume(two_backends[0])
    migration = services.request_migration(volume, "testhost@b", actor)
    leases = _at_once(lambda _: Lease.claim(migration.pk))
    won = [lease for lease in leases if isinstance(lease, Lease)]
    assert len(won) == 1
    assert leases.count(None) == THREADS - 1
    migration.refresh_from_db()
    assert (migration.owner, migration.epoch, migration.failures) == (won[0].owner, 1, 0)


def test_one_of_eight_workers_takes_over_from_a_dead_one(two_backends, make_volume, actor, monkeypatch):
    migration = services.request_migration(make_volume(two_backends[0]), "testhost@b", actor)
    dead = Lease.claim(migration.pk)
    monkeypatch.setattr("migrations_app.lease.is_dead", lambda owner: owner == dead.owner)
    leases = _at_once(lambda _: Lease.claim(migration.pk))
    assert len([lease for lease in leases if isinstance(lease, Lease)]) == 1
    migration.refresh_from_db()
    assert (migration.epoch, migration.failures) == (2, 1)
    assert JournalEntry.objects.filter(kind="interrupted").count() == 1


@pytest.mark.parametrize("attempt", range(3))
def test_one_of_eight_requests_is_accepted_and_the_others_are_told_why(
    two_backends, make_volume, actor, attempt
):
    volume = make_volume(two_backends[0])
    answers = _at_once(lambda _: services.request_migration(volume, "testhost@b", actor))
    kinds = Counter(type(answer) for answer in answers)
    assert kinds == {VolumeMigration: 1, Busy: THREADS - 1}
    for refusal in answers:
        if isinstance(refusal, Busy):
            assert [str(r.code) for r in refusal.reasons] == ["already_migrating"]
            assert volume.name in str(refusal)
    volume.refresh_from_db()
    (migration,) = VolumeMigration.objects.all()
    assert volume.locked_by_migration == migration.pk
    assert JournalEntry.objects.filter(kind="requested").count() == 1


@pytest.mark.parametrize("together", [True, False])
def test_room_for_two_is_not_given_to_three(small_store, actor, together):
    def ask(index: int) -> object:
        return services.request_migration(small_store[index], "testhost@d", actor, Options())

    if together:
        answers = _at_once(ask, 3)
    else:
        answers = [ask(0), ask(1)]
        with pytest.raises(NoValidPool) as refusal:
            ask(2)
        answers.append(refusal.value)
    assert Counter(type(answer) for answer in answers) == {VolumeMigration: 2, NoValidPool: 1}
    (refused,) = [answer for answer in answers if isinstance(answer, NoValidPool)]
    assert refused.reasons
    assert "GiB" in str(refused)


def test_cancel_and_claim_at_once_end_in_one_of_both(two_backends, make_volume, actor, run_to_end):
    volume = make_volume(two_backends[0])
    migration = services.request_migration(volume, "testhost@b", actor, Options(force_host_copy=True))

    def cancel_or_work(index: int) -> object:
        return services.cancel_migration(migration, actor) if index % 2 else run_to_end(migration)

    _at_once(cancel_or_work, 2)
    VolumeMigration.objects.filter(owner="").update(retry_at=None)
    migration.refresh_from_db()
    if migration.is_working:
        migration = run_to_end(migration)
    assert migration.state == (State.CANCELLED if migration.cancel_requested_at else State.RETAINED)


def test_claim_of_a_migration_that_is_not_there_is_nothing_to_do(db):
    assert Lease.claim(uuid.uuid4()) is None
