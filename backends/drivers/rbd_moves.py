"""Moves between the pools of one cluster; see docs/decisions/0020-rbd-moves.md for why they are copies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.drivers import rbd_copy
from backends.drivers.errors import AlreadyExists, ConnectionLost, InUse, NotFound
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.types import Declined, MovePlan, MoveStatus

PLAN = MovePlan(how="rbd deep copy", keeps_source=True, is_instant=False)
# A client that was killed counts as a watcher until Ceph has missed it for so long (osd_client_watch_timeout).
_WATCH_SECONDS = 45.0


def plan(source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
    """Return the plan for two `location_info` of the RBD driver."""
    if source.get("driver") != "rbd" or destination.get("driver") != "rbd":
        return Declined("One of the two pools is not Ceph RBD.")
    if source.get("version") != 1 or destination.get("version") != 1:
        return Declined("One of the pools was described by another version of the driver.")
    if source.get("storage_id") == destination.get("storage_id"):
        return Declined("Source and destination are the same pool.")
    same = all(source.get(key) == destination.get(key) for key in ("fsid", "monitors"))
    return PLAN if same else Declined("The pools are in two clusters.")


def status(cluster: Cluster, copy: rbd_copy.Copy, size_bytes: int, *, may_start: bool) -> MoveStatus:
    """
    Return how far the copy is; start it when nobody works on it and *may_start*.

    Raises:
        AlreadyExists: Another image has the name.
        ConnectionLost: It has ended early; a new start begins anew.
    """
    with cluster.errors(f"Copying '{copy.name}' to pool '{copy.destination_pool}'", "start_move", copy.name):
        if _is_finished(cluster, copy):
            rbd_copy.stop(cluster, copy)
            return MoveStatus(PLAN, is_finished=True, done_bytes=size_bytes, total_bytes=size_bytes)
        note = rbd_copy.look(cluster, copy)
        if may_start and (note is None or not note.is_alive):
            rbd_copy.stop(cluster, copy)
            _remove_unfinished(cluster, copy)
            rbd_copy.start(cluster, copy)
            note = rbd_copy.look(cluster, copy)
        if note is None or not note.is_alive:
            # Finished between the two looks.
            if _is_finished(cluster, copy):
                return status(cluster, copy, size_bytes, may_start=False)
            raise ConnectionLost(
                f"The copy of '{copy.name}' inside the cluster ended early: {note.error if note else ''}",
                volume=copy.name,
            )
        return MoveStatus(PLAN, is_finished=False, done_bytes=note.done_bytes, total_bytes=size_bytes)


def cancel(cluster: Cluster, copy: rbd_copy.Copy) -> None:
    """
    Return when nobody works on the copy and nothing of it is left.

    Raises:
        InUse: The cluster still counts the killed process as a user; trying again later helps.
    """
    with cluster.errors(f"Cancelling the copy of '{copy.name}'", "cancel_move", copy.name):
        note = rbd_copy.look(cluster, copy)
        rbd_copy.stop(cluster, copy)
        if note is not None and note.is_alive:
            _wait_for_end(note.pid)
        _remove_unfinished(cluster, copy)
        with suppress(AlreadyExists):
            if _is_finished(cluster, copy):
                cluster.rbd.RBD().remove(cluster.pool(copy.destination_pool), copy.new_name)


def _is_finished(cluster: Cluster, copy: rbd_copy.Copy) -> bool:
    try:
        with cluster.image(copy.destination_pool, copy.new_name, "start_move") as image:
            try:
                if image.metadata_get(rbd_copy.MOVED_FROM) == copy.identity:
                    return True
            except KeyError:
                pass
    except NotFound:
        return False
    raise AlreadyExists(
        f"There is another image '{copy.new_name}' in pool '{copy.destination_pool}'.",
        remedy="Nothing was changed.",
        volume=copy.name,
    )


def _wait_for_end(pid: int) -> None:
    """The process sees within a second that its note is gone; here it is ended if it does not."""
    for attempt in range(30):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return
        # It may run on another host, and the number belong to somebody else here.
        if b"rbd_copy" not in command:
            return
        if attempt == 20:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _remove_unfinished(cluster: Cluster, copy: rbd_copy.Copy) -> None:
    ends_at = time.monotonic() + _WATCH_SECONDS
    while True:
        try:
            cluster.rbd.RBD().remove(cluster.pool(copy.destination_pool), copy.unfinished)
            return
        except cluster.rbd.ImageNotFound:
            return
        except cluster.rbd.ImageBusy as error:
            if time.monotonic() > ends_at:
                raise InUse(f"The unfinished copy '{copy.unfinished}' is still watched.") from error
            time.sleep(0.5)
