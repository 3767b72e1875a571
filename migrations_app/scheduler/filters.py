"""
May the volume be moved to this pool?  Every filter is asked, and returns a reason for each cause against.

A filter is a function of the request and the pool, without state.  An administrator adds one by its dotted
path in the settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from migrations_app.scheduler.capacity_filter import has_capacity
from migrations_app.scheduler.placement import (
    is_elsewhere,
    is_enabled,
    is_in_zone,
    is_in_zone_of_type,
    is_reachable,
    is_up,
    is_writable,
)
from migrations_app.scheduler.type_filters import has_capabilities, has_provisioning, passes_filter_function
from migrations_app.scheduler.types import MoveRequest, PoolView, Reason

Filter = Callable[[MoveRequest, PoolView], list[Reason]]

#: In the order in which the reasons are shown.
DEFAULT_FILTERS: tuple[Filter, ...] = (
    is_elsewhere,
    is_enabled,
    is_up,
    is_reachable,
    is_in_zone,
    is_in_zone_of_type,
    is_writable,
    has_capacity,
    has_provisioning,
    has_capabilities,
    passes_filter_function,
)


def load(paths: Sequence[str]) -> list[Any]:
    """
    Return the filters or weighers that the dotted *paths* name, in their order.

    Raises:
        ValueError: A path names nothing that can be called; the text says which and why.
    """
    return [_load(path) for path in paths]


def _load(path: str) -> Any:
    module_name, dot, name = path.rpartition(".")
    if not dot:
        raise ValueError(
            f"'{path}' is not a dotted path. Write MODULE.NAME, for example site_rules.not_on_fridays."
        )
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ImportError as err:
        raise ValueError(f"'{path}' cannot be loaded: {err}.") from err
    except AttributeError as err:
        raise ValueError(f"'{path}' cannot be loaded: module {module_name} has no '{name}'.") from err
    if not callable(found):
        raise ValueError(f"'{path}' cannot be called, so it is neither a filter nor a weigher.")
    return found
