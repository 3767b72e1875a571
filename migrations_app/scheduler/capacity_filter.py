"""The filter on room: what is really free, and what may be promised."""

from __future__ import annotations

from migrations_app.scheduler import capacity
from migrations_app.scheduler.capacity import Need
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.human import at_least_text, bytes_text, count_text, differing_texts
from migrations_app.scheduler.types import Category, MoveRequest, PoolView, Reason


def has_capacity(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    The pool must hold the data that will be written, and may promise the volume's size.

    Differs from Cinder: physical free space counts for thin pools too, running migrations are taken off,
    and unknown free space refuses.  Source: cinder `scheduler/filters/capacity_filter.py`.
    """
    if pool.is_infinite:
        return []
    need = capacity.need(request, pool)
    broken = _broken_report(pool, need)
    if broken:
        return broken
    reasons = _physical(pool, need)
    # A pool without thin volumes has one room, told twice: free, and not yet provisioned.  One reason is
    # enough.
    return reasons if reasons and not need.is_thin else reasons + _provisioned(pool, need)


def _broken_report(pool: PoolView, need: Need) -> list[Reason]:
    """Refuse what cannot be calculated with."""
    report_again = (
        f"Run `manage.py refresh_backends` on host {pool.address.host} and look at what the driver reports."
    )
    reasons = []
    if pool.free_bytes is None and need.physical_bytes:
        # Cinder lets unknown pass, and the copy then fails when the pool is full.
        text = f"Pool {pool.address} does not report its free space, and the volume needs "
        text += f"{bytes_text(need.physical_bytes)}."
        reasons.append(Reason(Code.UNKNOWN_FREE_SPACE, Category.CAPACITY, text, report_again))
    if pool.total_bytes is None and pool.reserved_percentage:
        text = (
            f"Pool {pool.address} does not report its size, so its reserve of {pool.reserved_percentage} % "
            "is "
        )
        text += "unknown."
        remedy = (
            f"Set the reserved percentage of {pool.address.without_pool} to 0, or mend the driver's report."
        )
        reasons.append(Reason(Code.UNKNOWN_TOTAL_SPACE, Category.CAPACITY, text, remedy))
    if pool.total_bytes is not None and pool.total_bytes <= 0:
        text = f"Pool {pool.address} reports a size of {bytes_text(pool.total_bytes)}."
        reasons.append(Reason(Code.NO_CAPACITY, Category.CAPACITY, text, report_again))
    if need.is_thin and pool.max_over_subscription_ratio < 1:
        text = (
            f"Pool {pool.address} has an over-subscription ratio of {pool.max_over_subscription_ratio:g}, "
            "below 1."
        )
        remedy = f"Set max_over_subscription_ratio of {pool.address.without_pool} to 1 or more."
        reasons.append(Reason(Code.RATIO_BELOW_ONE, Category.CAPACITY, text, remedy))
    return reasons


def _physical(pool: PoolView, need: Need) -> list[Reason]:
    room = capacity.physical_room(pool)
    if room is None or need.physical_bytes == 0 or room >= need.physical_bytes:
        return []
    needed_text, room_text = differing_texts(need.physical_bytes, max(0, room))
    text = (
        f"Pool {pool.address} has too little free space: the volume needs {needed_text}, {room_text} are free"
    )
    text += _deductions(pool) + "."
    return [Reason(Code.NO_SPACE, Category.CAPACITY, text, _how_to_make_room(pool, need, room))]


def _deductions(pool: PoolView) -> str:
    parts = []
    if reserve := capacity.reserved_bytes(pool):
        parts.append(f"{bytes_text(reserve)} reserved")
    if promised := pool.reserved_by_migrations_physical_bytes:
        migrations = count_text(max(1, pool.active_migrations), "running migration")
        parts.append(f"{bytes_text(promised)} promised to {migrations}")
    return " after " + " and ".join(parts) if parts else ""


def _how_to_make_room(pool: PoolView, need: Need, room: int) -> str:
    if pool.total_bytes is not None and need.physical_bytes > pool.total_bytes - capacity.reserved_bytes(
        pool
    ):
        return (
            f"Choose a pool with {at_least_text(need.physical_bytes)} free; this one is too small even when "
            "empty."
        )
    ways = [f"Free {at_least_text(need.physical_bytes - room)} there"]
    if pool.reserved_percentage:
        ways.append("lower its reserved percentage")
    if pool.reserved_by_migrations_physical_bytes:
        ways.append("wait until the running migrations have ended")
    return ", or ".join(ways) + "."


def _provisioned(pool: PoolView, need: Need) -> list[Reason]:
    """
    Refuse when more would be promised than the pool may.

    Cinder also compares the ratio after the move with the limit; that test can never be the one that refuses,
    for its divisor holds the limit already.
    """
    room = capacity.provisioned_room(pool, is_thin=need.is_thin)
    if room is None or room >= need.provisioned_bytes:
        return []
    provisioned = capacity.provisioned_bytes(pool)
    needed_text, room_text = differing_texts(need.provisioned_bytes, max(0, room))
    text = f"Pool {pool.address} may promise {room_text} more and the volume's size is {needed_text}: "
    text += f"{bytes_text(provisioned)} are promised of {bytes_text(provisioned + room)}"
    if need.provisioned_bytes > provisioned + room:
        ways = [f"Choose a pool that may promise {at_least_text(need.provisioned_bytes)}"]
    else:
        ways = [f"Delete volumes of {at_least_text(need.provisioned_bytes - room)} there"]
    usable = (pool.total_bytes or 0) - capacity.reserved_bytes(pool)
    if need.is_thin:
        text += f" ({bytes_text(usable)} oversubscribed {pool.max_over_subscription_ratio:g} times)"
        if usable > 0:
            # Tenths, rounded up, in whole numbers for the same reason as in `human`.
            tenths = -(-(provisioned + need.provisioned_bytes) * 10 // usable)
            ways.append(f"raise max_over_subscription_ratio to {tenths // 10}.{tenths % 10}")
    elif pool.reserved_percentage:
        ways.append("lower its reserved percentage")
    return [Reason(Code.OVER_PROVISIONED, Category.CAPACITY, text + ".", ", or ".join(ways) + ".")]
