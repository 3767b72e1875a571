"""Moves between the pools of one cluster; see docs/decisions/0020-rbd-moves.md for why they are copies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from backends.drivers import rbd_copy
from backends.drivers.errors import AlreadyExists, ConnectionLost, NotFound
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.rbd_note import Note
from backends.drivers.types import Declined, MovePlan, MoveStatus

PLAN = MovePlan(how="rbd deep copy", keeps_source=True, is_instant=False)


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
        note = Note(cluster, copy.destination_pool, copy.new_name)
        if _is_finished(cluster, copy):
            note.remove()
            return MoveStatus(PLAN, is_finished=True, done_bytes=size_bytes, total_bytes=size_bytes)
        said = note.look()
        if may_start and (said is None or not said.is_alive):
            _end(cluster, copy, note)
            rbd_copy.start(cluster, copy)
            said = note.look()
        if said is None or not said.is_alive:
            # Finished between the two looks.
            if _is_finished(cluster, copy):
                return status(cluster, copy, size_bytes, may_start=False)
            why = said.error if said and said.error else "The process that copied is gone."
            raise ConnectionLost(
                f"The copy of '{copy.name}' inside the cluster ended early: {why}", volume=copy.name
            )
        return MoveStatus(PLAN, is_finished=False, done_bytes=said.done_bytes, total_bytes=size_bytes)


def cancel(cluster: Cluster, copy: rbd_copy.Copy) -> None:
    """
    Return when nobody can work on the copy any more and nothing of it is left.

    Raises:
        InUse: This client may not fence another, and the cluster still counts a killed one as a user; trying again
            later helps.
    """
    with cluster.errors(f"Cancelling the copy of '{copy.name}'", "cancel_move", copy.name):
        note = Note(cluster, copy.destination_pool, copy.new_name)
        _end(cluster, copy, note)
        with suppress(AlreadyExists):
            if _is_finished(cluster, copy):
                cluster.rbd.RBD().remove(cluster.pool(copy.destination_pool), copy.new_name)


def _end(cluster: Cluster, copy: rbd_copy.Copy, note: Note) -> None:
    """End whoever works on the copy, wherever it runs, also when it was only taken for dead."""
    if client := note.end():
        cluster.fence(client)
    rbd_copy.remove_unfinished(cluster, copy, is_fencing=True)


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
