"""Runs the promises one by one and reports each."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from backends.drivers.base import Driver
from backends.drivers.conformance.bench import Bench, Peer, PromiseBroken, PromiseSkipped
from backends.drivers.conformance.promises import PROMISES
from backends.drivers.errors import DriverError
from backends.drivers.types import MIB


@dataclass(frozen=True, slots=True)
class PromiseResult:
    """
    How one promise fared.

    `passed` is False only for a broken promise; one that was skipped has passed, and says why it was skipped.
    """

    name: str
    promise: str
    passed: bool
    skipped_reason: str | None
    error_text: str | None
    seconds: float

    @property
    def outcome(self) -> str:
        """`passed`, `skipped` or `broken`."""
        if not self.passed:
            return "broken"
        return "skipped" if self.skipped_reason else "passed"


def run_promises(
    make_driver: Callable[[], Driver],
    pool: str,
    *,
    size_bytes: int = 4 * MIB,
    peer: Peer | None = None,
    only: Collection[str] | None = None,
) -> Iterator[PromiseResult]:
    """
    Try the promises on *pool* and yield the result of each as it is known; whatever was made is removed
    again.

    Args:
        make_driver: Returns a new driver object of the backend at each call.
        size_bytes: Size of most volumes that are made, 1 MiB or more.
        peer: Where native moves are tried to; if not given, the backend's next pool, when it has two.
        only: Names of the promises to try; all if not given.
    """
    if size_bytes < MIB:
        raise ValueError(f"volumes of {size_bytes} bytes are too small to try every promise; 1 MiB is enough")
    for promise in PROMISES:
        if only is None or promise.__name__ in only:
            bench = Bench(make_driver, pool, size_bytes=size_bytes, peer=peer)
            yield _run(promise, bench)


def _run(promise: Callable[[Bench], None], bench: Bench) -> PromiseResult:
    started = time.monotonic()
    skipped = error_text = None
    leftovers: list[str] = []
    try:
        bench.peer = bench.peer or _second_pool(bench)
        promise(bench)
    except PromiseSkipped as error:
        skipped = str(error)
    except (PromiseBroken, DriverError) as error:
        error_text = str(error) if isinstance(error, PromiseBroken) else f"{type(error).__name__}: {error}"
    except Exception as error:  # Anything else that leaves a driver breaks the contract as well.
        error_text = f"the driver raised {type(error).__name__}, which is no DriverError: {error}"
    finally:
        try:
            leftovers = _clean_up(bench)
        except KeyboardInterrupt:
            _clean_up(bench)
            raise
    if leftovers:
        error_text = "; ".join(filter(None, [error_text, *leftovers]))
    return PromiseResult(
        name=promise.__name__,
        promise=" ".join(inspect.getdoc(promise).split()) if inspect.getdoc(promise) else "",
        passed=error_text is None,
        skipped_reason=skipped,
        error_text=error_text,
        seconds=time.monotonic() - started,
    )


def _second_pool(bench: Bench) -> Peer | None:
    others = [stats.name for stats in bench.driver().pools() if stats.name != bench.pool]
    return Peer(bench.make_driver, others[0]) if others else None


def _clean_up(bench: Bench) -> list[str]:
    try:
        return bench.clean_up()
    except Exception as error:  # A driver that cannot even be made must still be reported, not end the run.
        return [f"cleaning up failed: {error}"]
