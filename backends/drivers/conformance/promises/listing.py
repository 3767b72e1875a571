"""What makes a function a promise."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from types import ModuleType

from backends.drivers.conformance.bench import Bench

Promise = Callable[[Bench], None]

_BY_MODULE: dict[str, list[Promise]] = collections.defaultdict(list)


def promise(function: Promise) -> Promise:
    """Put the function on the list of its module."""
    _BY_MODULE[function.__module__].append(function)
    return function


def promises_of(module: ModuleType) -> list[Promise]:
    """Return the promises of a module, in the order in which they are written."""
    return list(_BY_MODULE[module.__name__])


def pattern(length: int, seed: str = "") -> bytes:
    """Return *length* bytes that are nowhere zero for long and differ from place to place."""
    return hashlib.shake_128(f"volmig {seed}".encode()).digest(length)
