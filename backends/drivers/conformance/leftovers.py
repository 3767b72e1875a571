"""What a validation that was killed has left on a pool."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from backends.drivers.base import Driver
from backends.drivers.conformance.bench import NAME_PREFIX
from backends.drivers.errors import DriverError

#: No validation takes so long: what is older was left behind, what is younger may be in use by another one.
OLD_SECONDS = 3600
_MADE_AT = re.compile(re.escape(NAME_PREFIX) + r"([0-9a-f]{8,12})-")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """`removed` and `kept` are names; `problems` says what could not be removed and why."""

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    problems: tuple[str, ...]


def remove_leftovers(make_driver: Callable[[], Driver], pool: str) -> Leftovers:
    """
    Remove what earlier validations have left, and return what was done.

    Raises:
        DriverError: The pool cannot be listed.
    """
    removed, kept, problems = [], [], []
    with make_driver() as driver:
        driver.check()
        found = [volume.name for volume in driver.list_volumes(pool)]
        for name in sorted(name for name in found if name.startswith(NAME_PREFIX)):
            if not is_left(name):
                kept.append(name)
                continue
            try:
                driver.delete(pool, name)
                removed.append(name)
            except DriverError as error:
                problems.append(f"'{name}' could not be removed: {error}")
    return Leftovers(tuple(removed), tuple(kept), tuple(problems))


def is_left(name: str) -> bool:
    """Tell whether *name* is that of something which no validation uses any more."""
    match = _MADE_AT.match(name)
    return match is not None and time.time() - int(match[1], 16) > OLD_SECONDS
