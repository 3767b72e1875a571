"""What happens to a migration between two hosts when either side is killed, frozen or stopped."""

# ruff: noqa: F811 - fixtures are taken by their names.
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from backends.drivers import tls_front
from backends.drivers.errors import DriverError
from backends.drivers.nbd_port import NbdPort
from backends.drivers.types import OpenMode
from migrations_app import presentation, process_tree
from tests.acceptance.conftest import is_running, wait_until
from tests.acceptance.crossing import by_iscsi, crossing, full_volume, there  # noqa: F401
from tests.acceptance.hosts import names_there, start_other
from tests.acceptance.test_worker import owner_pid
from tests.conftest import digest

pytestmark = [pytest.mark.acceptance, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("victim", ["server", "export", "attendant"])
def test_kill_on_the_destination_host_is_only_a_delay(victim, crossing):
    pid = getattr(crossing, victim)
    below = process_tree.descendants_of(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, [pid, *below])), seconds=5)
    crossing.assert_arrives_whole()


def test_kill_of_the_copying_process_ends_what_it_had_open_on_the_other_host(crossing):
    export, first = crossing.export, crossing.call
    os.kill(owner_pid(crossing.migration), signal.SIGKILL)
    wait_until(lambda: not is_running(export), seconds=10)
    crossing.assert_arrives_whole()
    assert crossing.migration.remote_calls.get(pk=first.pk).epoch < crossing.migration.epoch


def test_worker_of_the_destination_that_is_killed_is_waited_for(crossing):
    tree = crossing.far.tree()
    os.kill(crossing.far.pid, signal.SIGKILL)
    crossing.far.process.wait()
    wait_until(lambda: not any(map(is_running, tree)), seconds=5)

    def waits() -> bool:
        crossing.migration.refresh_from_db()
        return crossing.migration.error_code == "host_away" and crossing.migration.retry_at is not None

    wait_until(waits, seconds=45)
    assert presentation.progress(crossing.migration).state_text == (
        "Copying: waiting for the worker of host 'otherhost'"
    )
    assert "Start `manage.py volmig_worker` on host 'otherhost'" in crossing.migration.error_text
    assert crossing.migration.copied_up_to_bytes > 0
    start_other(crossing.start_worker)
    crossing.assert_arrives_whole()


def test_worker_of_the_destination_that_is_stopped_ends_in_time_and_is_waited_for(crossing):
    tree = crossing.far.tree()
    crossing.far.process.terminate()
    started = time.monotonic()
    assert crossing.far.process.wait(6) == 0
    assert time.monotonic() - started < 5
    wait_until(lambda: not any(map(is_running, tree)), seconds=1)
    start_other(crossing.start_worker)
    crossing.assert_arrives_whole()


def test_frozen_source_worker_can_write_nothing_after_its_lease(crossing):
    tree = crossing.near.tree()
    export, server = crossing.export, crossing.server
    told = crossing.call.result
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(export) and not is_running(server), seconds=15)
    # Nobody holds the destination and nobody listens any more: whatever wakes up finds no way to it.
    (copied,) = names_there(crossing.there)
    path = Path(crossing.there.options["path"]) / f"{copied}.raw"
    at_the_end = digest(path)
    with pytest.raises(DriverError):
        NbdPort(tls_front.uri(told["address"], told["port"]), OpenMode.WRITE)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)
    assert digest(path) == at_the_end or crossing.migration.epoch > 1
    crossing.assert_arrives_whole()


def test_another_worker_takes_over_from_a_frozen_one(crossing):
    pid = owner_pid(crossing.migration)
    os.kill(pid, signal.SIGSTOP)
    crossing.assert_arrives_whole()
    if is_running(pid):
        os.kill(pid, signal.SIGCONT)


def test_killed_target_is_only_a_delay(by_iscsi):
    os.kill(by_iscsi.server, signal.SIGKILL)
    by_iscsi.assert_arrives_whole()


def test_frozen_source_worker_loses_its_lun_with_its_lease(by_iscsi):
    tree = by_iscsi.near.tree()
    export, server = by_iscsi.export, by_iscsi.server
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(export) and not is_running(server), seconds=15)
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    by_iscsi.assert_arrives_whole()


def test_frozen_export_is_replaced(crossing):
    """It neither answers nor can be asked to end; its rival is let in only when it is gone."""
    export = crossing.export
    os.kill(export, signal.SIGSTOP)
    wait_until(lambda: not is_running(export), seconds=60)
    crossing.assert_arrives_whole()
