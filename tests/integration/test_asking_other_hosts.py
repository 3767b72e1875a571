"""What the side that asks does when the other host is away, falls silent, or loses its answer."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import transaction
from django.db.models.functions import Now

from backends import services as inventory
from backends.drivers.errors import (
    ConnectionLost,
    HostAway,
    NoSpace,
    NotPermitted,
    NotReady,
    Permanent,
    TimedOut,
)
from backends.models import Pool
from migrations_app import presentation, services, worker
from migrations_app.errors import NotNow
from migrations_app.models import JournalEntry, RemoteCall, VolumeMigration, WorkerHost
from migrations_app.remote import asking
from migrations_app.remote.asking import Right
from migrations_app.remote.driver import RemoteDriver
from migrations_app.remote.port import RemotePort
from migrations_app.remote.values import pack_error
from migrations_app.services import Options
from migrations_app.states import State
from tests.copying.ports import MemoryPort

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def far(transactional_db):
    """A backend of another host, which has reported once."""
    backend = inventory.register_backend("far@disk", "directory", {"path": "/nowhere"})
    Pool.objects.create(
        backend=backend,
        name="main",
        storage_id="far-disk",
        total_bytes=2**40,
        free_bytes=2**40,
        provisioned_bytes=0,
        thin_provisioning_support=True,
        location_info={"driver": "directory", "version": 1, "host": "far"},
        reported_at=Now(),
    )
    type(backend).objects.filter(pk=backend.pk).update(reported_at=Now())
    return backend


@pytest.fixture
def alive(far):
    return WorkerHost.objects.create(
        host="far", started_at=Now(), heartbeat_at=Now(), pid=1, slots=2, storage_address="192.0.2.2"
    )


@pytest.fixture
def no_patience(settings, monkeypatch):
    settings.VOLMIG_SILENCE_SECONDS = 0
    monkeypatch.setattr(asking, "_LOOK_FOR_HOST_SECONDS", 0.0)


def test_host_without_a_worker_is_away_at_once(far):
    with pytest.raises(HostAway) as away:
        RemoteDriver(far).check()
    assert str(away.value) == (
        "[far@disk] The worker of host 'far' is not running. Start `manage.py volmig_worker` on host 'far'; "
        "the work then goes on by itself."
    )
    assert not RemoteCall.objects.exists()


def test_host_that_was_heard_of_long_ago_is_away(far, alive):
    WorkerHost.objects.update(heartbeat_at=Now() - timedelta(minutes=3))
    with pytest.raises(HostAway, match="has not been heard of for 3 min"):
        RemoteDriver(far).check()


def test_host_that_does_not_answer_is_away_and_the_call_is_withdrawn(far, alive, no_patience):
    with pytest.raises(HostAway, match="The worker of host 'far' has not answered for 0 s."):
        RemoteDriver(far).check()
    call = RemoteCall.objects.get()
    assert (call.state, call.is_wanted) == ("ended", False)


def answering(monkeypatch, **fields):
    """Let every call be written to as soon as it is there, as another host's worker would."""
    real = asking._wait

    def wait(call, *rest):
        RemoteCall.objects.filter(pk=call.pk).update(**fields)
        return real(call, *rest)

    monkeypatch.setattr(asking, "_wait", wait)


def test_host_that_falls_silent_leaves_the_outcome_unknown(far, alive, no_patience, monkeypatch):
    answering(monkeypatch, state="running", heard_at=Now() - timedelta(minutes=1))
    with pytest.raises(TimedOut, match="has fallen silent for 0 s during 'check'"):
        RemoteDriver(far).check()


def test_error_is_raised_with_the_words_of_the_other_host(far, alive, monkeypatch):
    error = pack_error(NotReady("There is no disk.", backend="far@disk", remedy="Put one in."), "far")
    answering(monkeypatch, state="ended", error=error)
    with pytest.raises(NotReady) as raised:
        RemoteDriver(far).check()
    assert str(raised.value) == "[far@disk] There is no disk. Put one in."


def test_whoever_must_stop_waiting_withdraws_the_call(far, alive):
    class MustStopError(Exception):
        pass

    def guard():
        raise MustStopError

    with pytest.raises(MustStopError):
        asking.ask(far, "check", {}, Right(None, 0, guard))
    assert RemoteCall.objects.get().state == "ended"


def test_nothing_is_asked_inside_a_transaction(far, alive):
    with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
        RemoteDriver(far).check()


def test_old_calls_are_forgotten(far):
    for state, hours, heard in (
        ("ended", 2, 2),
        ("ended", 0, 0),
        ("asked", 30, None),
        ("serving", 30, 0),
        ("serving", 30, 29),
    ):
        then = Now() - timedelta(hours=hours)
        heard_at = None if heard is None else Now() - timedelta(hours=heard)
        values = {"state": state, "asked_at": then, "ended_at": then, "heard_at": heard_at}
        RemoteCall.objects.create(host="far", backend=far, operation="check", **values)
    assert asking.forget_old_calls() == 3
    assert sorted(RemoteCall.objects.values_list("state", flat=True)) == ["ended", "serving"]


def test_migration_waits_for_a_host_without_counting_and_without_filling_the_journal(
    far, alive, make_backend, make_volume, actor
):
    volume = make_volume(make_backend("a"))
    migration = services.request_migration(volume, "far@disk", actor, Options(force_host_copy=True))
    alive.delete()
    for _ in range(4):
        migration.refresh_from_db()
        type(migration).objects.filter(pk=migration.pk).update(retry_at=None)
        assert worker.advance(migration.pk) == "try_later"
    migration.refresh_from_db()
    assert (migration.failures, migration.error_code) == (0, "host_away")
    assert [e.text for e in migration.journal.filter(kind="waiting")] == [migration.error_text]
    shown = presentation.progress(migration)
    assert shown.state_text == "Preparing: waiting for the worker of host 'far'"
    assert shown.attempts == 1
    (running,) = [step for step in presentation.steps(migration) if step.status == "running"]
    assert running.text == migration.error_text
    services.cancel_migration(migration, actor)
    type(migration).objects.filter(pk=migration.pk).update(retry_at=None)
    worker.advance(migration.pk)
    migration.refresh_from_db()
    assert migration.state == State.CANCELLED


def test_roll_back_is_refused_while_nobody_can_say_whether_the_volume_was_written_to(
    far, make_backend, make_volume, actor
):
    volume = make_volume(make_backend("a"))
    pool = far.pools.get()
    migration = VolumeMigration.objects.create(
        volume=volume,
        volume_name=volume.name,
        size_bytes=volume.size_bytes,
        source_pool=volume.pool,
        source_object_name=volume.object_name,
        destination_pool=pool,
        needed_bytes=1,
        state=State.RETAINED,
        locks_volume=False,
        finished_at=Now(),
    )
    JournalEntry.objects.create(migration=migration, step="switch", kind="done", output={"changed": "x"})
    with pytest.raises(NotNow, match="could not be asked whether it was written to"):
        services.roll_back(migration, actor)


def test_cancel_is_heard_while_the_other_host_does_not_answer(
    far, alive, make_backend, make_volume, actor, monkeypatch
):
    volume = make_volume(make_backend("a"))
    migration = services.request_migration(volume, "far@disk", actor, Options(force_host_copy=True))
    sleep, asked = time.sleep, []

    def sleep_and_cancel(seconds):
        if not asked:
            asked.append(services.cancel_migration(migration, actor))
        sleep(seconds)

    monkeypatch.setattr(asking, "time", SimpleNamespace(sleep=sleep_and_cancel, monotonic=time.monotonic))
    started = time.monotonic()
    worker.advance(migration.pk)
    assert time.monotonic() - started < 20
    migration.refresh_from_db()
    assert (migration.state, RemoteCall.objects.get().state) == (State.CANCELLED, "ended")


class _FailingPort(MemoryPort):
    def write(self, offset, buffer):
        number = OSError(errno.EINVAL, "Invalid argument")
        raise Permanent("Writing failed: Invalid argument (EINVAL).", operation="write") from number

    def zero(self, offset, length):
        raise NotPermitted("It was opened as source and cannot be written.", operation="zero")


@pytest.fixture
def failing(far):
    """Return a function that makes a port of the other host whose writes fail with a bare number."""
    call = RemoteCall.objects.create(host="far", backend=far, operation="open", arguments={}, asked_at=Now())

    def make(tells_all: bool) -> RemotePort:
        return RemotePort(_FailingPort(bytes(4096)), call, ExitStack(), tells_all=tells_all)

    return make, call


def test_number_without_words_is_a_server_that_ends(failing):
    make, call = failing
    with pytest.raises(ConnectionLost) as caught:
        make(tells_all=True).write(0, memoryview(bytes(512)))
    assert caught.value.message == (
        "The server of the volume on host 'far' ended in the middle: Writing failed: Invalid argument (EINVAL)."
    )
    # What is refused on this side has no number.
    with pytest.raises(NotPermitted):
        make(tells_all=True).zero(0, 512)
    # Whoever does not tell everything may mean it.
    with pytest.raises(Permanent):
        make(tells_all=False).write(0, memoryview(bytes(512)))
    RemoteCall.objects.filter(pk=call.pk).update(error=pack_error(NoSpace("The disk is full."), "far"))
    with pytest.raises(NoSpace, match="The disk is full"):
        make(tells_all=True).write(0, memoryview(bytes(512)))
