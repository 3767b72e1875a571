"""The promises of the driver contract: one function each, its docstring is the promise."""

from __future__ import annotations

from backends.drivers.conformance.promises import backend, data, extents, native_moves, use, volumes
from backends.drivers.conformance.promises.listing import Promise, promises_of

#: In the order in which they are asked: what everything else needs comes first.
PROMISES: list[Promise] = [
    promise
    for module in (backend, volumes, data, extents, use, native_moves)
    for promise in promises_of(module)
]

__all__ = ["PROMISES", "Promise"]
