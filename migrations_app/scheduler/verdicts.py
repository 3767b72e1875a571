"""
The scheduler's entry points: one pool judged, many ranked, an address resolved to a pool.

Pure functions over plain values: the same call serves the form, the API, the command, `--dry-run`, and the
check that is made again under lock when a migration starts.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence

from backends.drivers.types import PoolAddress
from migrations_app.scheduler import capacity
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.expressions import ExpressionError
from migrations_app.scheduler.filters import DEFAULT_FILTERS, Filter, load
from migrations_app.scheduler.human import bytes_text, list_text, without_period
from migrations_app.scheduler.placement import is_elsewhere
from migrations_app.scheduler.types import (
    Category,
    Choice,
    MoveRequest,
    PlanMove,
    PoolView,
    Reason,
    ScorePart,
    Verdict,
)
from migrations_app.scheduler.volume_rules import check_volume
from migrations_app.scheduler.weighers import (
    DEFAULT_WEIGHERS,
    Measure,
    Weigher,
    as_weigher,
    check_multipliers,
    checked_goodness,
    score_parts,
)

__all__ = ["DEFAULT_FILTERS", "DEFAULT_WEIGHERS", "check_volume", "choose", "judge", "load", "rank"]

HOST_COPY_WAS_ASKED_FOR = "the generic copy was asked for"
NATIVE_MOVE_SECONDS = 1.0
NEARLY_FULL_PERCENT = 90
_KNOWN_SHOWN = 8


def judge(
    request: MoveRequest, pool: PoolView, *, plan_move: PlanMove, filters: Sequence[Filter] = DEFAULT_FILTERS
) -> Verdict:
    """
    Return the verdict on moving the volume to *pool*, without a score: that needs the other candidates.

    The reasons are the pool's only; what stands against moving the volume anywhere is told by `check_volume`.
    """
    return _judge(request, pool, plan_move, filters).verdict


def rank(
    request: MoveRequest,
    pools: Iterable[PoolView],
    *,
    plan_move: PlanMove,
    filters: Sequence[Filter] = DEFAULT_FILTERS,
    weighers: Sequence[Weigher | Measure] = DEFAULT_WEIGHERS,
    multipliers: Mapping[str, float] | None = None,
) -> list[Verdict]:
    """
    Return the verdict on every pool: those that fit by score, best first, then those that do not.

    Equal scores stand by address, refused pools by how little is against them: nothing is left to chance.

    Raises:
        ValueError: *multipliers* names no weigher or holds what is no finite number.
    """
    check_multipliers(multipliers or {}, weighers)
    judged = [_judge(request, pool, plan_move, filters) for pool in pools]
    fitting = _scored(
        [one for one in judged if one.verdict.fits],
        [as_weigher(weigher) for weigher in weighers],
        multipliers or {},
    )
    refused = [one.verdict for one in judged if not one.verdict.fits]
    fitting.sort(key=lambda verdict: (-verdict.score, str(verdict.address)))
    refused.sort(key=lambda verdict: (len(verdict.reasons), str(verdict.address)))
    return fitting + refused


def choose(
    request: MoveRequest,
    pools: Iterable[PoolView],
    address_text: str,
    *,
    plan_move: PlanMove,
    filters: Sequence[Filter] = DEFAULT_FILTERS,
    weighers: Sequence[Weigher | Measure] = DEFAULT_WEIGHERS,
    multipliers: Mapping[str, float] | None = None,
) -> Choice:
    """
    Return the pool that *address_text* means: `HOST@BACKEND#POOL` that one, `HOST@BACKEND` its best.

    Raises:
        ValueError: As `rank`.
    """
    known = list(pools)
    try:
        wanted = PoolAddress.parse(address_text)
    except ValueError:
        return Choice(None, (_unknown(address_text, known, is_address=False),))
    meant = [pool for pool in known if wanted in (pool.address, pool.address.without_pool)]
    if not meant:
        return Choice(None, (_unknown(address_text, known, is_address=True),))
    verdicts = rank(
        request,
        meant,
        plan_move=plan_move,
        filters=filters,
        weighers=weighers,
        multipliers=multipliers,
    )
    if verdicts[0].fits:
        return Choice(verdicts[0], (), tuple(verdicts))
    # Pools of one backend share causes (it is disabled, its expression is broken): each is told once.
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    return Choice(None, tuple(reasons), tuple(verdicts))


# -- one pool ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """A verdict with what it was made from: the weighers need the request with the plan in it."""

    request: MoveRequest
    pool: PoolView
    verdict: Verdict


def _judge(request: MoveRequest, pool: PoolView, plan_move: PlanMove, filters: Sequence[Filter]) -> _Judged:
    # A volume that is there already would be counted twice by every other filter, so their reasons would be
    # wrong.
    there = is_elsewhere(request, pool) if is_elsewhere in filters else []
    how, declined = ("", "") if there else _plan(request, pool, plan_move)
    request = dataclasses.replace(request, native_how=how)
    reasons = there or [reason for filter_ in filters for reason in _ask(filter_, request, pool)]
    free_after = None if there else capacity.free_after(request, pool)
    verdict = Verdict(
        address=pool.address,
        reasons=tuple(reasons),
        warnings=() if there else tuple(_warnings(request, pool, free_after)),
        native_how=how,
        native_declined=declined,
        network="" if how or there else _network(request, pool),
        free_bytes=pool.free_bytes,
        free_after_bytes=free_after,
        estimate_seconds=None if there else _estimate_seconds(request, pool),
    )
    return _Judged(request, pool, verdict)


def _network(request: MoveRequest, pool: PoolView) -> str:
    """Return which way the bytes go when that is from one host to another one."""
    here, there = request.volume.pool.host, pool.address.host
    return "" if here == there else f"from host {here} to host {there}"


def _plan(request: MoveRequest, pool: PoolView, plan_move: PlanMove) -> tuple[str, str]:
    if request.force_host_copy:
        return "", HOST_COPY_WAS_ASKED_FOR
    return plan_move(request.volume, pool)


def _ask(filter_: Filter, request: MoveRequest, pool: PoolView) -> list[Reason]:
    """Return what the filter says; one that breaks refuses: nobody knows what it would have said."""
    try:
        return filter_(request, pool)
    except Exception as err:
        # Filters come from the settings too, and one broken function must not take the whole page away.
        name = getattr(filter_, "__qualname__", repr(filter_))
        text = (
            f"The filter '{name}' failed for pool {pool.address}: {type(err).__name__}: "
            f"{without_period(str(err))}."
        )
        remedy = f"Correct the filter '{name}', or take it out of the settings."
        return [Reason(Code.FILTER_FAILED, Category.DESTINATION, text, remedy)]


def _estimate_seconds(request: MoveRequest, pool: PoolView) -> float | None:
    if request.native_how:
        return NATIVE_MOVE_SECONDS
    size, speed = capacity.need(request, pool).physical_bytes, request.copy_bytes_per_second
    limits = filter(None, (request.bandwidth_bytes_per_second, pool.max_bandwidth_bytes_per_second))
    passes = 2 if request.is_verified else 1
    # Whatever is slower; without a measured speed the limit alone tells how long it takes at least.
    times = [size / speed] if speed and speed > 0 else []
    times += [passes * size / limit for limit in limits]
    return max(times, default=None)


def _warnings(request: MoveRequest, pool: PoolView, free_after: int | None) -> list[Reason]:
    return [
        *_allocation_warnings(request, pool),
        *_fill_warnings(request, pool, free_after),
        *_goodness_warnings(request, pool),
    ]


def _allocation_warnings(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """Tell when the volume will take more room than now, or when nobody knows."""
    if capacity.writes_nothing(request):
        return []
    size = request.volume.size_bytes
    if capacity.need(request, pool).is_thin:
        if request.volume.facts.allocated_bytes is not None:
            return []
        text = (
            f"How much data the volume holds is not known, so room for all of its {bytes_text(size)} is "
            "asked of "
        )
        text += f"pool {pool.address}."
        remedy = (
            f"Have the volume checked by the worker of host {request.volume.pool.host} to count its data "
            "only."
        )
        return [Reason(Code.ALLOCATION_UNKNOWN, Category.CAPACITY, text, remedy)]
    before, after = bytes_text(capacity.data_bytes(request)), bytes_text(size)
    if before == after:
        return []
    text = (
        f"The volume will be fully allocated in pool {pool.address}: it will take {after} instead of "
        f"{before}."
    )
    remedy = "Choose a pool with thin_provisioning_support to keep it thin."
    if capacity.wants_thick(request) and pool.thin_provisioning_support:
        remedy = f"Take {capacity.PROVISIONING_TYPE} 'thick' from the volume's type to keep it thin."
    return [Reason(Code.BECOMES_FULLY_ALLOCATED, Category.CAPACITY, text, remedy)]


def _fill_warnings(request: MoveRequest, pool: PoolView, free_after: int | None) -> list[Reason]:
    """Tell when the pool will be nearly full; when the volume does not even fit, the filter has said so."""
    total = pool.total_bytes
    if free_after is None or free_after < 0 or not total or capacity.writes_nothing(request):
        return []
    left = max(0, free_after - pool.reserved_by_migrations_physical_bytes)
    used_percent = (total - left) * 100 / total
    if used_percent <= NEARLY_FULL_PERCENT:
        return []
    text = (
        f"Pool {pool.address} will be {used_percent:.0f} % full: {bytes_text(left)} of {bytes_text(total)} "
        "stay free."
    )
    remedy = "Choose a pool with more free space, or free some there."
    return [Reason(Code.NEARLY_FULL, Category.CAPACITY, text, remedy)]


def _goodness_warnings(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """Tell when the goodness function is of no use; Cinder takes 0 and only writes it to a log."""
    try:
        checked_goodness(request, pool)
    except ExpressionError as err:
        backend = pool.address.without_pool
        text = (
            f"The goodness_function of {backend} counts as 0: '{without_period(pool.goodness_function)}': "
            f"{err}."
        )
        remedy = f"Correct the goodness_function of {backend}."
        return [Reason(Code.GOODNESS_FUNCTION_ERROR, Category.DESTINATION, text, remedy)]
    return []


# -- many pools ----------------------------------------------------------------------------------------------


def _scored(
    judged: Sequence[_Judged], weighers: Sequence[Weigher], multipliers: Mapping[str, float]
) -> list[Verdict]:
    if not judged:
        return []
    failed: list[list[Reason]] = [[] for _ in judged]
    measured = {
        weigher.name: [_measure(weigher, one, warnings) for one, warnings in zip(judged, failed, strict=True)]
        for weigher in weighers
    }
    parts = score_parts(measured, weighers, multipliers) if weighers else [()] * len(judged)
    return [
        _with_score(one.verdict, own_parts, warnings)
        for one, own_parts, warnings in zip(judged, parts, failed, strict=True)
    ]


def _measure(weigher: Weigher, judged: _Judged, warnings: list[Reason]) -> float:
    try:
        return float(weigher(judged.request, judged.pool))
    except Exception as err:
        # As with filters; but a missing preference is no reason against a pool.
        text = f"The weigher '{weigher.name}' failed for pool {judged.pool.address} and counts as 0: "
        text += f"{type(err).__name__}: {without_period(str(err))}."
        remedy = f"Correct the weigher '{weigher.name}', or take it out of the settings."
        warnings.append(Reason(Code.WEIGHER_FAILED, Category.DESTINATION, text, remedy))
        return 0.0


def _with_score(verdict: Verdict, parts: tuple[ScorePart, ...], warnings: Sequence[Reason]) -> Verdict:
    return dataclasses.replace(
        verdict,
        score=sum(part.points for part in parts),
        parts=parts,
        warnings=(*verdict.warnings, *warnings),
    )


# -- addresses -----------------------------------------------------------------------------------------------


def _unknown(address_text: str, pools: Sequence[PoolView], *, is_address: bool) -> Reason:
    """Return the reason for an address that means no pool, with what may have been meant."""
    written = without_period(address_text)
    text = f"There is no destination '{written}'." if written else "No destination was given."
    parts = []
    backends = sorted({str(pool.address.without_pool) for pool in pools})
    addresses = sorted(str(pool.address) for pool in pools)
    if similar := _similar(written, backends + addresses):
        parts.append(f"Did you mean {similar}?")
    elif not is_address:
        parts.append("Write HOST@BACKEND or HOST@BACKEND#POOL.")
    if addresses:
        # The pools of the backend that was written first: who misspells a pool needs to see those.
        addresses.sort(key=lambda address: not address.startswith(written.partition("#")[0] + "#"))
        parts.append(f"There are: {list_text(addresses, shown=_KNOWN_SHOWN)}.")
    else:
        parts.append("There is none yet: register one with `manage.py add_backend`.")
    return Reason(Code.UNKNOWN_DESTINATION, Category.DESTINATION, text, " ".join(parts))


def _similar(text: str, known: Sequence[str]) -> str:
    # Without regard to case: "SSD" for "ssd" is a common slip, and to difflib a wholly different word.
    by_lower_case = {name.lower(): name for name in reversed(known)}
    found = difflib.get_close_matches(text.strip().lower(), list(by_lower_case), n=1)
    return by_lower_case[found[0]] if found else ""
