"""Filters on what the volume's type asks for, and on what the backend's own expression says."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from migrations_app.scheduler import capacity, extra_specs
from migrations_app.scheduler.capabilities import pool_capabilities, pool_stats, volume_values
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.expressions import ExpressionError, evaluate
from migrations_app.scheduler.human import list_text, without_period
from migrations_app.scheduler.types import Category, MoveRequest, PoolView, Reason

#: How alike two names must be to suggest one for the other; difflib's own limit takes `tier` for `driver`.
_SIMILAR = 0.8


def has_capabilities(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    The pool must report what the extra specs of the volume's type ask for; each that it misses is told.

    Source: cinder `scheduler/filters/capabilities_filter.py`.
    """
    wanted = {key: spec for key, spec in request.volume.extra_specs.items() if extra_specs.is_capability(key)}
    if not wanted:
        return []
    reported = pool_capabilities(pool)
    reasons = []
    for key, requirement in wanted.items():
        found = extra_specs.look_up(reported, key)
        if found is extra_specs.MISSING:
            reasons.append(_missing(request, pool, key, requirement, reported))
        elif not extra_specs.meets(found, requirement):
            reasons.append(_differs(request, pool, key, requirement, found))
    return reasons


def _missing(
    request: MoveRequest, pool: PoolView, key: str, requirement: Any, reported: Mapping[str, Any]
) -> Reason:
    text = f"{_type(request)} asks for {key} '{requirement}', pool {pool.address} reports no {key}."
    name = key.removeprefix("capabilities:")
    similar = difflib.get_close_matches(name, reported, n=1, cutoff=_SIMILAR)
    meant = f"If {similar[0]} was meant, correct the type; otherwise a" if similar else "A"
    own = list_text(sorted(pool.capabilities), shown=6) or "none of its own"
    remedy = (
        f"{meant}dd it to the capabilities of {pool.address.without_pool} (now: {own}), or choose another "
        "pool."
    )
    return Reason(Code.MISSING_CAPABILITY, Category.TYPE, text, remedy)


def _differs(request: MoveRequest, pool: PoolView, key: str, requirement: Any, found: Any) -> Reason:
    text = f"{_type(request)} asks for {key} '{requirement}', pool {pool.address} has {_shown(found)}."
    mistaken = extra_specs.mistaken_operator(str(requirement))
    if mistaken:
        remedy = f"'{mistaken[0]}' is not an operator of extra specs; write '{mistaken[1]}' in the type."
    else:
        remedy = f"Choose a pool that meets {key} '{requirement}', or change the volume's type."
    return Reason(Code.CAPABILITY_DIFFERS, Category.TYPE, text, remedy)


def _shown(found: Any) -> str:
    if isinstance(found, (list, tuple, set, frozenset)):
        return list_text([f"'{member}'" for member in found]) or "an empty list"
    # Sizes are GiB with a fraction; nobody reads fifteen digits.
    return f"'{found:.6g}'" if isinstance(found, float) else f"'{found}'"


def has_provisioning(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    A type that asks for thick volumes needs a pool that makes them.

    Cinder does not check it and the driver fails later.  A type that asks for thin ones is not refused: the
    volume only takes more room, which is a warning.
    """
    can_be_thick = pool.thick_provisioning_support or not pool.thin_provisioning_support
    if not capacity.wants_thick(request) or can_be_thick:
        return []
    text = f"{_type(request)} asks for thick provisioning, pool {pool.address} makes thin volumes only."
    remedy = (
        f"Choose a pool with thick_provisioning_support, or change {capacity.PROVISIONING_TYPE} of the type."
    )
    return [Reason(Code.NO_THICK_PROVISIONING, Category.TYPE, text, remedy)]


def passes_filter_function(request: MoveRequest, pool: PoolView) -> list[Reason]:
    """
    The backend's own expression must be true; one that cannot be evaluated refuses, and says why.

    Source: cinder `scheduler/filters/driver_filter.py`.
    """
    if not pool.filter_function.strip():
        return []
    backend = pool.address.without_pool
    try:
        result = evaluate(pool.filter_function, variables(request, pool))
    except ExpressionError as err:
        text = (
            f"The filter_function of {backend} cannot be evaluated: "
            f"'{without_period(pool.filter_function)}': {err}."
        )
        remedy = f"Correct the filter_function of {backend}."
        return [Reason(Code.FILTER_FUNCTION_ERROR, Category.DESTINATION, text, remedy)]
    if result:
        return []
    text = (
        f"The filter_function of {backend} refuses the volume: '{without_period(pool.filter_function)}' is "
        f"{result} for "
        f"{pool.address}."
    )
    remedy = f"Choose another pool, or change the filter_function of {backend}."
    return [Reason(Code.FILTER_FUNCTION_REFUSES, Category.DESTINATION, text, remedy)]


def variables(request: MoveRequest, pool: PoolView) -> dict[str, Mapping[str, Any]]:
    """Return what an expression can name.  `qos` is empty: quality of service is not kept here."""
    return {
        "stats": pool_stats(pool),
        "capabilities": pool_capabilities(pool),
        "volume": volume_values(request.volume),
        "extra": request.volume.extra_specs,
        "qos": {},
    }


def _type(request: MoveRequest) -> str:
    return f"The volume's type '{request.volume.type_name}'"
