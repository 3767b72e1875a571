"""Storage that does not answer is seen while it lasts."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app import presentation, services
from migrations_app.journal import DatabaseJournal
from migrations_app.lease import Lease
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from migrations_app.work import Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(two_backends, make_volume, actor):
    """Return a worker's copy that began two minutes ago."""
    a, b = two_backends
    volume = make_volume(a, "v", 1 << 20, filled=False)
    migration = services.request_migration(volume, b.address, actor, Options(force_host_copy=True))
    lease = Lease.claim(migration.pk)
    entry = JournalEntry.objects.create(migration=migration, epoch=lease.epoch, step="copy", kind="started")
    JournalEntry.objects.filter(pk=entry.pk).update(at=timezone.now() - timedelta(minutes=2))
    lease.write(state=State.COPYING)
    run = Run(migration, lease, DatabaseJournal(lease), slice_ends_at=time.monotonic() + 300)
    run.progress.begin(1 << 20, 4096)
    return run


def _state_text(run):
    run.lease.renew(**run.progress_fields())
    return presentation.progress(VolumeMigration.objects.get(pk=run.migration.pk)).state_text


def test_stall_is_told_with_its_length_and_ends_with_the_next_bytes(work):
    assert _state_text(work) == "Copying"
    work.guards().on_stall(45.0)
    assert _state_text(work) == "Copying: the storage has not answered for 45 seconds"
    work.progress.add(4096)
    assert _state_text(work) == "Copying"


def test_call_that_does_not_return_is_told_while_it_lasts(work):
    """No block is waited for while the destination is flushed or closed."""
    assert _state_text(work) == "Copying"
    work._asked_at -= 45
    assert _state_text(work) == "Copying: the storage has not answered for 45 seconds"
    work.must_stop()
    assert _state_text(work) == "Copying"


def test_opening_that_does_not_return_is_told(work):
    work.progress.begin(None)
    work._asked_at -= 45
    assert _state_text(work) == "Copying: the storage has not answered for 45 seconds"


def test_no_stall_is_told_of_the_time_before_a_worker_went_on(work):
    work.guards().on_stall(45.0)
    assert "has not answered" in _state_text(work)
    work.lease.release()
    assert Lease.claim(work.migration.pk) is not None
    migration = VolumeMigration.objects.get(pk=work.migration.pk)
    assert presentation.progress(migration).state_text == "Copying"


def test_disk_of_an_opened_volume_is_limited_and_told_why_not(work, settings, caplog, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "migrations_app.work.limit_disk", lambda device, limit: seen.append((device, limit)) or "no cgroup v2"
    )
    settings.VOLMIG_IO_MAX_BYTES_PER_SECOND = 5_000_000
    with work.source() as driver, work.open_source(driver) as port:
        assert seen == [(port.device, 5_000_000)]
    assert "VOLMIG_IO_MAX_BYTES_PER_SECOND has no effect: no cgroup v2" in caplog.text
