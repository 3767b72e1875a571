"""
A driver that fails on purpose: wraps any driver, keeps its interface, and goes wrong where the plan says.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backends.drivers.base import Driver
from backends.drivers.ports import Extent, Port


@dataclass(frozen=True)
class Raise:
    """The call fails; nothing was done."""

    error: Exception


@dataclass(frozen=True)
class Delay:
    """The call takes *seconds* longer."""

    seconds: float


@dataclass(frozen=True)
class DoThenRaise:
    """The call is done and its reply gets lost."""

    error: Exception


@dataclass(frozen=True)
class CutWrites:
    """The port that this `open` returns writes (or zeroes) this many bytes and then fails with *error*."""

    after_bytes: int
    error: Exception


@dataclass(frozen=True)
class CutReads:
    """The port that this `open` returns reads this many bytes and then fails with *error*."""

    after_bytes: int
    error: Exception


@dataclass(frozen=True)
class FailFlush:
    """The port that this `open` returns flushes *successes* times; then every flush fails with *error*."""

    error: Exception
    successes: int = 0


Fault = Raise | Delay | DoThenRaise | CutWrites | CutReads | FailFlush
_PORT_FAULTS = (CutWrites, CutReads, FailFlush)


class FaultPlan:
    """
    The faults to come, in order, per method of the driver.  One plan may serve many driver objects.

    `None` in a queue is a call that goes well.  Faults of ports are queued under `open`; an `open` takes one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, deque[Fault | None]] = defaultdict(deque)
        #: Every (method, arguments) that was called, for assertions.
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def add(self, method: str, *faults: Fault | None) -> FaultPlan:
        """Queue *faults* for the next calls of *method*; returns the plan."""
        with self._lock:
            self._faults[method].extend(faults)
        return self

    def next_fault(self, method: str, arguments: tuple[Any, ...]) -> Fault | None:
        with self._lock:
            self.calls.append((method, arguments))
            queue = self._faults[method]
            return queue.popleft() if queue else None

    @property
    def is_used_up(self) -> bool:
        """Whether every fault has happened."""
        return not any(self._faults.values())


class FaultyDriver:
    """A driver that does what *driver* does, but for the faults of *plan*."""

    def __init__(self, driver: Driver, plan: FaultPlan) -> None:
        self._driver = driver
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._driver, name)
        if name.startswith("_") or not callable(value) or isinstance(value, type):
            return value
        return lambda *args, **kwargs: self._call(name, value, args, kwargs)

    def _call(self, name: str, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fault = self._plan.next_fault(name, args)
        if isinstance(fault, Raise):
            raise fault.error
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        result = method(*args, **kwargs)
        if isinstance(fault, DoThenRaise):
            if isinstance(result, Port):
                result.close()
            raise fault.error
        return FaultyPort(result, fault) if isinstance(fault, _PORT_FAULTS) else result

    def __enter__(self) -> FaultyDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Driver.register(FaultyDriver)


class FaultyPort(Port):
    """A port with one fault."""

    def __init__(self, port: Port, fault: CutWrites | CutReads | FailFlush) -> None:
        self._port = port
        self._fault = fault
        self._lock = threading.Lock()
        self._moved_bytes = self._flushes = 0
        self.size_bytes = port.size_bytes
        self.block_size_bytes = port.block_size_bytes
        self.reads_zero_when_new = port.reads_zero_when_new
        self.is_exclusive = port.is_exclusive

    @property
    def keeps_allocation(self) -> bool:
        return self._port.keeps_allocation

    @keeps_allocation.setter
    def keeps_allocation(self, wanted: bool) -> None:
        self._port.keeps_allocation = wanted

    def expect(self, offset: int, length: int) -> bool:
        return self._port.expect(offset, length)

    def interrupt(self) -> None:
        self._port.interrupt()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._port.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        allowed = self._allowed(CutReads, len(buffer))
        self._port.read_into(offset, buffer[:allowed])
        self._fail_if_short(allowed, len(buffer))

    def write(self, offset: int, buffer: memoryview) -> None:
        allowed = self._allowed(CutWrites, len(buffer))
        self._port.write(offset, buffer[:allowed])
        self._fail_if_short(allowed, len(buffer))

    def zero(self, offset: int, length: int) -> None:
        allowed = self._allowed(CutWrites, length)
        self._port.zero(offset, allowed)
        self._fail_if_short(allowed, length)

    def flush(self) -> None:
        with self._lock:
            self._flushes += 1
            if isinstance(self._fault, FailFlush) and self._flushes > self._fault.successes:
                raise self._fault.error
        self._port.flush()

    def close(self) -> None:
        self._port.close()

    def _allowed(self, kind: type, length: int) -> int:
        """Return how many of *length* bytes may still be moved; the part before the cut is really moved."""
        if not isinstance(self._fault, kind):
            return length
        with self._lock:
            allowed = max(0, min(length, self._fault.after_bytes - self._moved_bytes))
            self._moved_bytes += length
            return allowed

    def _fail_if_short(self, allowed: int, length: int) -> None:
        if allowed < length:
            raise self._fault.error
