"""A driver of another host keeps the contract, and changes nothing without the lease of its migration."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from backends.drivers.conformance import PROMISES, run_promises
from backends.drivers.errors import ConnectionLost, NotFound, NotPermitted
from backends.drivers.listening import listen
from backends.drivers.types import MIB, OpenMode
from migrations_app.models import RemoteCall, VolumeMigration
from migrations_app.remote.asking import Right
from migrations_app.remote.driver import RemoteDriver
from migrations_app.saga.step import LeaseLost
from migrations_app.states import State
from tests.acceptance.hosts import names_there, register_there, start_other

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]

#: What is the source's own host's business, and what needs another storage below.
SKIPPED = {
    "native_move_keeps_the_source_until_finished",
    "native_move_does_not_replace",
    "cancelled_move_leaves_nothing",
    "snapshots_come_and_go",
    "move_to_the_same_pool_is_declined",
}
_NAMES = [promise.__name__ for promise in PROMISES if promise.__name__ not in SKIPPED]


@pytest.fixture
def there(tmp_path, transactional_db):
    return register_there("b", "directory", tmp_path / "there")


@pytest.fixture
def migration(there, start_worker):
    start_other(start_worker, there)
    return _migration(there)


def _migration(there):
    """Return a migration that this process has the lease of, as far as anybody can tell from its row."""
    pool = there.pools.get()
    return VolumeMigration.objects.create(
        volume_name="v",
        size_bytes=MIB,
        source_pool=pool,
        source_object_name="v",
        destination_pool=pool,
        needed_bytes=MIB,
        state=State.COPYING,
        locks_volume=False,
        owner="this test",
        epoch=1,
        lease_expires_at=Now() + timedelta(hours=1),
    )


@pytest.mark.parametrize("part", range(5))
def test_remote_driver_keeps_every_promise(part, there, migration):
    right = Right(migration.pk, 1)
    results = run_promises(lambda: RemoteDriver(there, right), "main", only=_NAMES[part::5])
    broken = {r.name: r.error_text for r in results if not r.passed}
    assert broken == {}
    assert names_there(there) == set()
    assert not RemoteCall.objects.exclude(state="ended").exists()


def test_asker_whose_lease_is_over_changes_nothing(there, migration):
    driver = RemoteDriver(there, Right(migration.pk, 1))
    driver.create("main", "first", MIB)
    VolumeMigration.objects.filter(pk=migration.pk).update(epoch=2)
    for change in (
        lambda: driver.create("main", "second", MIB),
        lambda: driver.ensure("main", "second", MIB),
        lambda: driver.delete("main", "first"),
        lambda: driver.rename("main", "first", "second"),
        lambda: driver.extend("main", "first", 2 * MIB),
        lambda: driver.open("main", "first", OpenMode.WRITE),
    ):
        with pytest.raises(LeaseLost):
            change()
    assert names_there(there) == {"first"}
    # Looking needs no right.
    assert driver.describe("main", "first").size_bytes == MIB


def test_opened_volume_is_taken_away_from_an_asker_whose_lease_is_over(there, migration):
    driver = RemoteDriver(there, Right(migration.pk, 1))
    driver.create("main", "first", MIB)
    with driver.open("main", "first", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"before"))
        port.flush()
        VolumeMigration.objects.filter(pk=migration.pk).update(epoch=2)
        newer = RemoteDriver(there, Right(migration.pk, 2))
        # The new owner need not wait for anything: the old one's server is ended first.
        with newer.open("main", "first", OpenMode.WRITE) as other:
            with pytest.raises((LeaseLost, ConnectionLost)):
                port.write(0, memoryview(b"behind"))
            found = memoryview(bytearray(6))
            other.read_into(0, found)
            assert bytes(found) == b"before"


def test_volumes_are_served_on_the_ports_that_a_firewall_lets_through(there, start_worker):
    with listen("127.0.0.1") as one, listen("127.0.0.1") as two:
        first, last = sorted(listener.getsockname()[1] for listener in (one, two))
    start_other(start_worker, there, VOLMIG_STORAGE_PORTS=f"{first}-{last}")
    driver = RemoteDriver(there, Right(_migration(there).pk, 1))
    driver.create("main", "some", MIB)
    with driver.open("main", "some", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"through"))
        assert first <= RemoteCall.objects.get(operation="open").result["port"] <= last


def test_without_a_migration_one_can_only_look(there, migration):
    driver = RemoteDriver(there)
    driver.check()
    assert list(driver.list_volumes("main")) == []
    with pytest.raises(NotFound) as missing:
        driver.describe("main", "nothing")
    assert missing.value.backend == "otherhost@b"
    with pytest.raises(NotPermitted, match="without a migration"):
        driver.create("main", "some", MIB)
    assert names_there(there) == set()
