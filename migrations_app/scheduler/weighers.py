"""
Which of the pools that fit is the best?  Each weigher measures one thing, the score is the sum of the
weighted parts.

The sum is Cinder's: measured values are brought to 0..1 among the candidates, all equal is 0, times a
multiplier; a negative one makes less better.  Source: cinder `scheduler/base_weight.py`,
`scheduler/weights/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backends.drivers.types import GIB
from migrations_app.scheduler import capacity
from migrations_app.scheduler.expressions import ExpressionError, evaluate
from migrations_app.scheduler.type_filters import variables
from migrations_app.scheduler.types import MoveRequest, PoolView, ScorePart

Measure = Callable[[MoveRequest, PoolView], float]

BEST_GOODNESS = 100


@dataclass(frozen=True, slots=True)
class Weigher:
    """
    One thing that is measured; *label* is shown beside the points, *multiplier* holds unless one is set.
    """

    name: str
    label: str
    measure: Measure
    multiplier: float = 1.0

    def __call__(self, request: MoveRequest, pool: PoolView) -> float:
        return self.measure(request, pool)


def free_space_after(request: MoveRequest, pool: PoolView) -> float:
    """Return the share of the pool that is physically free when the move is done, promises kept."""
    if pool.is_infinite:
        return 1.0
    room = capacity.physical_room(pool)
    if room is None or not pool.total_bytes:
        return 0.0
    return (room - capacity.need(request, pool).physical_bytes) / pool.total_bytes


def virtual_capacity(request: MoveRequest, pool: PoolView) -> float:
    """Return how many GiB may still be promised; without end for infinite pools, which Cinder puts last."""
    if pool.is_infinite:
        return math.inf
    room = capacity.provisioned_room(pool, is_thin=capacity.need(request, pool).is_thin)
    return 0.0 if room is None else room / GIB


def native_move(request: MoveRequest, pool: PoolView) -> float:
    """Return 1 when the driver would move the volume itself: done at once, and no data is copied."""
    return 1.0 if request.native_how else 0.0


def volume_number(request: MoveRequest, pool: PoolView) -> float:
    """Return how many volumes the pool holds."""
    return float(pool.volume_count)


def active_migrations(request: MoveRequest, pool: PoolView) -> float:
    """Return how many migrations are on their way to the pool: they share its bandwidth."""
    return float(pool.active_migrations)


def goodness(request: MoveRequest, pool: PoolView) -> float:
    """Return what the backend's `goodness_function` says, 0 when there is none or it is of no use."""
    try:
        return checked_goodness(request, pool)
    except ExpressionError:
        return 0.0


def checked_goodness(request: MoveRequest, pool: PoolView) -> float:
    """
    Return what the backend's `goodness_function` says: 0 to 100, a boolean counts as one of the two.

    Raises:
        ExpressionError: It cannot be evaluated, or says something else.

    Source: cinder `scheduler/weights/goodness.py`.
    """
    if not pool.goodness_function.strip():
        return 0.0
    result = evaluate(pool.goodness_function, variables(request, pool))
    if isinstance(result, bool):
        return float(BEST_GOODNESS) if result else 0.0
    if not isinstance(result, (int, float)) or not 0 <= result <= BEST_GOODNESS:
        raise ExpressionError(f"it says {result!r}, not a number from 0 to {BEST_GOODNESS}")
    return float(result)


DEFAULT_WEIGHERS: tuple[Weigher, ...] = (
    Weigher("native_move", "moved by the storage itself", native_move, 2.0),
    Weigher("free_space_after", "free space after the move", free_space_after, 1.0),
    Weigher("goodness", "goodness function of the backend", goodness, 1.0),
    Weigher("virtual_capacity", "room for more volumes", virtual_capacity, 0.5),
    Weigher("active_migrations", "migrations on their way there", active_migrations, -0.5),
    Weigher("volume_number", "volumes in the pool", volume_number, -0.1),
)


def as_weigher(weigher: Weigher | Measure) -> Weigher:
    """Return *weigher*; an administrator's plain function gets its own name as name and label."""
    if isinstance(weigher, Weigher):
        return weigher
    name = getattr(weigher, "__name__", type(weigher).__name__)
    return Weigher(name, name.replace("_", " "), weigher)


def check_multipliers(multipliers: Mapping[str, float], weighers: Sequence[Weigher | Measure]) -> None:
    """
    Return when every multiplier can be used.  For the check of the settings, and before anything is ranked.

    Raises:
        ValueError: It names no weigher, or is no finite number.
    """
    names = [as_weigher(weigher).name for weigher in weighers]
    for name, multiplier in multipliers.items():
        if name not in names:
            raise ValueError(f"There is no weigher '{name}'. There are: {', '.join(names)}.")
        if not math.isfinite(multiplier):
            raise ValueError(f"The multiplier of '{name}' is {multiplier}; it must be a finite number.")


def normalise(values: Sequence[float]) -> list[float]:
    """Return *values* brought to 0..1, in their order; all equal is 0."""
    usable = usable_values(values)
    lowest, highest = min(usable, default=0.0), max(usable, default=0.0)
    # Halves first: the difference of two huge numbers would be infinite.
    span = highest / 2 - lowest / 2
    if span <= 0:
        return [0.0] * len(usable)
    return [min(1.0, max(0.0, (value / 2 - lowest / 2) / span)) for value in usable]


def usable_values(values: Sequence[float]) -> list[float]:
    """
    Return *values* without what cannot be calculated with: nothing is 0, without end is as good as the best.
    """
    finite = [value for value in values if math.isfinite(value)]
    best, worst = max(finite, default=0.0), min(finite, default=0.0)
    return [_usable(value, best, worst) for value in values]


def _usable(value: float, best: float, worst: float) -> float:
    if math.isfinite(value):
        return float(value)
    return 0.0 if math.isnan(value) else best if value > 0 else worst


def score_parts(
    measured: Mapping[str, Sequence[float]],
    weighers: Sequence[Weigher],
    multipliers: Mapping[str, float],
) -> list[tuple[ScorePart, ...]]:
    """
    Return the parts of each candidate's score; *measured* holds, by weigher, one value for each candidate.
    """
    columns = []
    for weigher in weighers:
        raw = usable_values(measured[weigher.name])
        factor = float(multipliers.get(weigher.name, weigher.multiplier))
        columns.append(
            [
                ScorePart(weigher.name, weigher.label, value, normalised, factor)
                for value, normalised in zip(raw, normalise(raw), strict=True)
            ]
        )
    return list(zip(*columns, strict=True))
