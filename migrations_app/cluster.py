"""
The django-q2 cluster as this project runs it: it dies as one, and it drains.

What bare `qcluster` does instead (orphans that go on working, a main process that hangs after SIGTERM to the group) and
how it was measured: `docs/decisions/0003-a-supervised-worker.md`.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from multiprocessing import Event
from typing import Any

from django_q.cluster import Cluster, Sentinel, get_mp_context
from django_q.signals import post_spawn

from migrations_app import process_tree
from migrations_app.draining import drain_on_sigterm

logger = logging.getLogger(__name__)

#: After this the rest of the tree is killed: what it had not saved is done again from the last checkpoint.
GRACE_SECONDS = 4.0
_POLL_SECONDS = 0.1


class DrainingSentinel(Sentinel):
    """A sentinel that SIGTERM to the whole process group does not kill."""

    def start(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().start()


def _drain_this_worker(**kwargs: Any) -> None:
    drain_on_sigterm()


def run_cluster() -> int:
    """
    Run the cluster of this host until SIGTERM or SIGINT, then drain it; return the exit status.

    The caller is a process of its own, and dies with its parent.
    """
    process_tree.die_with_parent()
    process_tree.children_die_too()
    # Sent by django-q2 in each new worker process, before its first task: the only moment to set its signals.
    post_spawn.connect(_drain_this_worker, dispatch_uid="volmig_drain")
    wants_stop: list[int] = []
    cluster = Cluster()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: wants_stop.append(signum))
    sentinel = _start(cluster)
    while not wants_stop:
        if not sentinel.is_alive():
            logger.error("the cluster's sentinel has died")
            return 1
        time.sleep(_POLL_SECONDS)
    _drain(cluster, sentinel)
    return 0


def _start(cluster: Cluster) -> Any:
    cluster.stop_event = Event()
    cluster.start_event = Event()
    sentinel = get_mp_context().Process(
        target=DrainingSentinel,
        name=f"Process-{uuid.uuid4().hex}",
        args=(cluster.stop_event, cluster.start_event, cluster.cluster_id, cluster.broker, cluster.timeout),
    )
    cluster.sentinel = sentinel
    sentinel.start()
    return sentinel


def _drain(cluster: Cluster, sentinel: Any) -> None:
    """Let running migrations save a checkpoint, then end; what does not end in time is killed."""
    for pid in process_tree.children_of(sentinel.pid):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    cluster.stop_event.set()
    sentinel.join(GRACE_SECONDS)
    if sentinel.is_alive():
        sentinel.kill()
