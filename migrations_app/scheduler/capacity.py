"""
Room in a pool: what a move takes, and what there is.

The arithmetic of reserve and over-subscription is Cinder's, so that a pool set up for Cinder promises as much
here.  Source: cinder `sched_utils.py` (`calculate_capacity_factors`) and
`scheduler/filters/capacity_filter.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from migrations_app.scheduler.types import MoveRequest, PoolView

#: Native moves that write no data: the blocks stay where they are.
MOVES_WITHOUT_ROOM = frozenset({"rename", "reflink"})

PROVISIONING_TYPE = "provisioning:type"
_THICK = "thick"


def reserved(total: float, percentage: float) -> float:
    """Return the share of *total* that is kept free, rounded down to whole units of *total*."""
    return total * percentage // 100


def virtual_free(
    total: float,
    free: float,
    provisioned: float,
    *,
    is_thin: bool,
    ratio: float,
    reserved_percentage: float,
) -> float:
    """
    Return how much more may be provisioned, in the unit of the arguments; negative when too much is already.

    *is_thin*: the volume is to be thin and the pool can make it so; otherwise *ratio* is of no account.
    A thin pool's answer does not look at *free*, in Cinder neither; `physical_room` does.
    """
    usable = total - reserved(total, reserved_percentage)
    if is_thin:
        return usable * ratio - provisioned
    return min(free, usable - provisioned)


@dataclass(frozen=True, slots=True)
class Need:
    """What a move takes of its destination: data that will be written, and size that will be promised."""

    physical_bytes: int
    provisioned_bytes: int
    is_thin: bool


def wants_thick(request: MoveRequest) -> bool:
    """Tell whether the type asks for all room at once.  Thin is the default, as in Cinder."""
    return request.volume.extra_specs.get(PROVISIONING_TYPE) == _THICK


def writes_nothing(request: MoveRequest) -> bool:
    """Tell whether the move to the pool under judgement leaves the blocks where they are."""
    return request.native_how in MOVES_WITHOUT_ROOM


def need(request: MoveRequest, pool: PoolView) -> Need:
    """Return what moving the volume to *pool* takes there."""
    size = request.volume.size_bytes
    is_thin = pool.thin_provisioning_support and not wants_thick(request)
    if writes_nothing(request):
        return Need(0, size, is_thin)
    return Need(data_bytes(request) if is_thin else size, size, is_thin)


def data_bytes(request: MoveRequest) -> int:
    """Return how much data the volume holds; all of its size when the storage does not say."""
    allocated = request.volume.facts.allocated_bytes
    # The storage may count its own book-keeping too; a copy never writes more than the size.
    return request.volume.size_bytes if allocated is None else min(allocated, request.volume.size_bytes)


def reserved_bytes(pool: PoolView) -> int:
    """Return the pool's reserve; 0 when its size is unknown."""
    return 0 if pool.total_bytes is None else int(reserved(pool.total_bytes, pool.reserved_percentage))


def physical_room(pool: PoolView) -> int | None:
    """Return what may still be written; negative when too much is promised, `None` when unknown."""
    if pool.free_bytes is None:
        return None
    return pool.free_bytes - reserved_bytes(pool) - pool.reserved_by_migrations_physical_bytes


def provisioned_bytes(pool: PoolView) -> int:
    """Return the sizes of what lies in the pool and of what running migrations will make there."""
    known = pool.provisioned_bytes
    if known is None:
        # The room taken is the best guess: exact for thick pools, too low for thin ones, where the physical
        # check still holds.  Cinder takes 0 when nothing is reported.
        known = max(0, (pool.total_bytes or 0) - (pool.free_bytes or 0)) if pool.free_bytes is not None else 0
    return known + pool.reserved_by_migrations_provisioned_bytes


def provisioned_room(pool: PoolView, *, is_thin: bool) -> int | None:
    """
    Return how much more size may be promised, free space left aside; `None` when the pool's size is unknown.
    """
    if pool.total_bytes is None:
        return None
    room = virtual_free(
        pool.total_bytes,
        math.inf,
        provisioned_bytes(pool),
        is_thin=is_thin,
        ratio=pool.max_over_subscription_ratio,
        reserved_percentage=pool.reserved_percentage,
    )
    return math.floor(room)


def free_after(request: MoveRequest, pool: PoolView) -> int | None:
    """Return the physical free space when this move is done; `None` when unknown or without end."""
    if pool.free_bytes is None or pool.is_infinite:
        return None
    return pool.free_bytes - need(request, pool).physical_bytes
