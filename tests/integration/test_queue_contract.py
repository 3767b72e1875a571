"""What this project relies on in django-q2: an upgrade that changes it is noticed here, not by a lost migration."""

from __future__ import annotations

import inspect

import pytest
from django.conf import settings
from django.db import transaction
from django_q import cluster, scheduler, worker
from django_q.models import OrmQ, Schedule
from django_q.signals import post_spawn

from migrations_app import dispatch
from migrations_app.cluster import DrainingSentinel
from migrations_app.schedules import ensure_schedules

pytestmark = pytest.mark.django_db(transaction=True)


def test_message_goes_into_the_queue_of_its_host_and_carries_the_id_alone() -> None:
    dispatch.ring("7d23dead-8ad1-4422-bf29-71d901f3302d", "some-host")
    message = OrmQ.objects.get()
    assert message.key == "some-host"
    assert message.task["func"] == "migrations_app.tasks.advance"
    assert message.task["args"] == ("7d23dead-8ad1-4422-bf29-71d901f3302d",)


def test_bell_of_a_transaction_that_was_rolled_back_is_not_heard() -> None:
    with transaction.atomic():
        dispatch.ring("7d23dead-8ad1-4422-bf29-71d901f3302d", "some-host")
        transaction.set_rollback(True)
    assert not OrmQ.objects.exists()


def test_settings_are_those_that_were_measured() -> None:
    q = settings.Q_CLUSTER
    assert q["cluster_name"] == settings.VOLMIG_HOST
    assert "ALT_CLUSTERS" in q
    assert (q["queue_limit"], q["bulk"], q["ack_failures"], q["max_attempts"]) == (1, 1, True, 1)
    assert q["guard_cycle"] in (0.5, 1)


def test_schedules_are_for_their_host_and_made_once() -> None:
    for _ in range(2):
        ensure_schedules("some-host")
    assert {(s.func, s.cluster, s.minutes) for s in Schedule.objects.all()} == {
        ("migrations_app.tasks.refresh", "some-host", 1),
        ("migrations_app.tasks.sweep", "some-host", 1),
    }
    assert "cluster" in inspect.getsource(scheduler.scheduler)


def test_sentinel_is_started_as_the_draining_one_expects() -> None:
    assert DrainingSentinel.__mro__[1] is cluster.Sentinel
    assert list(inspect.signature(cluster.Sentinel.__init__).parameters)[1:6] == [
        *("stop_event", "start_event", "cluster_id", "broker", "timeout")
    ]
    source = inspect.getsource(cluster.Sentinel.__init__)
    # Its own handler is set before start(), which is where ours replaces it.
    assert source.index("signal.signal(signal.SIGTERM") < source.index("self.start()")


def test_worker_tells_of_its_start_before_its_first_task() -> None:
    source = inspect.getsource(worker.worker)
    assert source.index("post_spawn.send") < source.index("task_queue.get")
    assert post_spawn is not None
