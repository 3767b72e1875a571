"""
Every place at which a migration can be hit: around each journal write, driver call, block, checkpoint and release.

`Boundaries.watch` wraps the real things; at the boundary of the chosen number something is done or raised.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backends import services as inventory
from backends.drivers.base import Driver
from backends.drivers.ports import Port
from backends.drivers.types import KIB
from migrations_app import journal, lease, segments, steps
from migrations_app.saga.step import Step
from migrations_app.states import State, may_follow
from tests.copying.ports import small_blocks

_JOURNAL = ("started", "done", "failed", "decide_undo", "undo_started", "undone", "undo_failed")
_PORT = ("write", "zero", "flush", "close")
_SEGMENTS = ("save", "compare")


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Boundaries:
    """Counts what is passed; calls `act` at number *at*."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.passed: list[str] = []
        self.at = 0
        self.act: Callable[[], object] = lambda: None
        self.is_hit = False
        self._step = ""
        self.illegal_moves: list[tuple[str, str]] = []

    def reset(self, at: int = 0, act: Callable[[], object] = lambda: None) -> None:
        self.passed, self.at, self.act, self.is_hit = [], at, act, False
        self._step = ""

    def cross(self, label: str) -> None:
        with self._lock:
            self.passed.append(f"{self._step}: {label}")
            is_due = len(self.passed) == self.at
            self.is_hit = self.is_hit or is_due
        if is_due:
            self.act()

    @property
    def label(self) -> str:
        return self.passed[self.at - 1] if 0 < self.at <= len(self.passed) else "beyond the end"

    # -- wrapping -------------------------------------------------------------------------------------------------

    def around(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._step = next((a.name for a in args if isinstance(a, Step)), self._step)
            if name != "port close":
                # The death of a process closes what it had open.
                self.cross(f"before {name}")
            result = function(*args, **kwargs)
            try:
                self.cross(f"after {name}")
            except BaseException:
                if isinstance(result, Port):
                    # A process that dies, or never got the reply, holds nothing open.
                    result.close()
                raise
            return result

        return wrapped

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        for name in _JOURNAL:
            real = getattr(journal.DatabaseJournal, name)
            patch.setattr(journal.DatabaseJournal, name, self.around(f"journal {name}", real))
        for name in _SEGMENTS:
            patch.setattr(segments, name, self.around(f"{name} segments", getattr(segments, name)))
        patch.setattr(lease.Lease, "release", self.around("release", lease.Lease.release))
        patch.setattr(inventory, "make_driver", self._driver_maker(inventory.make_driver))
        self._watch_moves(patch)

    def _driver_maker(self, real: Callable[..., Driver]) -> Callable[..., Any]:
        return lambda backend: _WatchedDriver(real(backend), self)

    def _watch_moves(self, patch: pytest.MonkeyPatch) -> None:
        real = lease.Lease.write

        def write(held: lease.Lease, **fields: Any) -> None:
            if "state" in fields:
                before = State(
                    lease.VolumeMigration.objects.values_list("state", flat=True).get(pk=held.migration_id)
                )
                after = State(fields["state"])
                if before != after and not may_follow(before, after):
                    self.illegal_moves.append((before, after))
            real(held, **fields)

        patch.setattr(lease.Lease, "write", write)


class _WatchedDriver:
    def __init__(self, driver: Driver, boundaries: Boundaries) -> None:
        self._driver = driver
        self._boundaries = boundaries

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._driver, name)
        if name.startswith("_") or not callable(value) or isinstance(value, type):
            return value
        if name == "open":
            return self._boundaries.around("open", lambda *args: self._watched_port(value(*args)))
        return self._boundaries.around(name, value)

    def _watched_port(self, port: Port) -> Port:
        for name in _PORT:
            setattr(port, name, self._boundaries.around(f"port {name}", getattr(port, name)))
        return port

    def __enter__(self) -> _WatchedDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.close()


BLOCK = 64 * KIB
SEGMENT = 4 * BLOCK


@contextmanager
def small_segments() -> Iterator[None]:
    """Let volumes of a megabyte have several segments and checkpoints."""
    with small_blocks(BLOCK, SEGMENT), pytest.MonkeyPatch.context() as patch:
        for module in (segments, steps):
            patch.setattr(module, "SEGMENT_BYTES", SEGMENT)
        yield
