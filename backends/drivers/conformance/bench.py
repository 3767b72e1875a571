"""The bench on which a promise is tried: fresh driver objects, fresh names, and cleaning up."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backends.drivers.base import Driver
from backends.drivers.errors import DriverError
from backends.drivers.ports import Port
from backends.drivers.types import MIB, OpenMode, PoolStats

NAME_PREFIX = "volmig-validate-"


class PromiseBroken(AssertionError):
    """The driver did not keep a promise; the text says what was expected and what came."""


class PromiseSkipped(Exception):
    """The promise does not concern this pool; the text says why."""


@dataclass(frozen=True)
class Peer:
    """Where native moves are tried to: another pool, of the same or another backend of the driver."""

    make_driver: Callable[[], Driver]
    pool: str


class Bench:
    """
    What a promise works with.

    Args:
        make_driver: Returns a new, unchecked driver object at each call.
        size_bytes: Size of the volumes that are made, where the promise does not need another one.
    """

    def __init__(
        self, make_driver: Callable[[], Driver], pool: str, *, size_bytes: int, peer: Peer | None
    ) -> None:
        self.make_driver = make_driver
        self.pool = pool
        self.size_bytes = size_bytes
        self.peer = peer
        # When it was made tells a later run whether it was left behind.
        self.prefix = f"{NAME_PREFIX}{int(time.time()):x}-{secrets.token_hex(3)}-"
        self._names: list[str] = []
        self._drivers: list[Driver] = []
        self._ports: list[Port] = []
        self._moves: list[tuple[str, dict, str, str]] = []
        self._was_peer_used = False
        self._is_thin: bool | None = None

    # -- what promises ask for -------------------------------------------------------------------------------

    def driver(self) -> Driver:
        """Return a new driver object, checked; it is closed after the promise."""
        return self._checked(self.make_driver())

    def peer_driver(self) -> Driver:
        """Return a new driver object of the peer, checked."""
        if self.peer is None:
            raise PromiseSkipped("there is no second pool to move to")
        self._was_peer_used = True
        return self._checked(self.peer.make_driver())

    def _checked(self, driver: Driver) -> Driver:
        self._drivers.append(driver)
        driver.check()
        return driver

    def name(self, hint: str = "a") -> str:
        """Return a name that is not in use; whatever carries it is deleted after the promise."""
        name = f"{self.prefix}{hint}{len(self._names)}"
        self._names.append(name)
        return name

    def new_volume(self, driver: Driver, size_bytes: int | None = None) -> str:
        """Return the name of a new thin volume, or a thick one where there are no thin ones."""
        name = self.name()
        driver.create(self.pool, name, size_bytes or self.size_bytes, thin=self.is_thin(driver))
        return name

    def is_thin(self, driver: Driver) -> bool:
        # Asked once: it does not change, and statistics take long on some storage.
        if self._is_thin is None:
            self._is_thin = self.stats(driver).thin_provisioning_support
        return self._is_thin

    def stats(self, driver: Driver, pool: str | None = None) -> PoolStats:
        """Return the statistics of the pool under test, or of *pool*."""
        wanted = pool or self.pool
        for stats in driver.pools():
            if stats.name == wanted:
                return stats
        raise PromiseBroken(f"pools() does not name the pool '{wanted}'")

    @contextmanager
    def open(self, driver: Driver, name: str, mode: OpenMode, pool: str | None = None) -> Iterator[Port]:
        """Open a port that is closed at the end, however the promise ends."""
        with driver.open(pool or self.pool, name, mode) as port:
            self._ports.append(port)
            yield port

    def read(
        self, name: str, offset: int = 0, length: int | None = None, mode: OpenMode = OpenMode.VERIFY
    ) -> bytes:
        """Return bytes of the volume, read by a driver object that has never seen it."""
        with self.open(self.driver(), name, mode) as port:
            return read_range(port, offset, port.size_bytes - offset if length is None else length)

    def write(self, name: str, *pieces: tuple[int, bytes]) -> None:
        """Write the (offset, bytes) pieces and flush."""
        with self.open(self.driver(), name, OpenMode.WRITE) as port:
            for offset, content in pieces:
                port.write(offset, memoryview(content))
            port.flush()

    def will_move(self, name: str, there: dict, pool: str, new_name: str) -> None:
        """Note a native move, which may run by itself: it is cancelled when the promise ends before it."""
        self._moves.append((name, there, pool, new_name))

    # -- cleaning up -----------------------------------------------------------------------------------------

    def clean_up(self) -> list[str]:
        """
        Delete everything that was named, and return what could not be deleted and why.

        Safe to repeat: yes, also after it was interrupted.
        """
        for port in self._ports:
            port.close()
        problems = self._cancel_moves()
        problems += self._delete(self.make_driver, self.pool, self._names)
        if self.peer is not None and self._was_peer_used:
            problems += self._delete(self.peer.make_driver, self.peer.pool, self._names)
        for driver in self._drivers:
            driver.close()
        return problems

    def _cancel_moves(self) -> list[str]:
        problems = []
        for name, *where in self._moves:
            try:
                with self.make_driver() as driver:
                    driver.check()
                    driver.cancel_move(self.pool, name, *where)
            except DriverError as error:
                problems.append(f"the move of '{name}' could not be cancelled: {error}")
        return problems

    def _delete(self, make_driver: Callable[[], Driver], pool: str, names: list[str]) -> list[str]:
        problems = []
        if not names:
            return problems
        with make_driver() as driver:
            driver.check()
            for name in names:
                try:
                    driver.delete(pool, name)
                except DriverError as error:
                    problems.append(f"'{name}' in pool '{pool}' could not be deleted: {error}")
        return problems


def read_range(port: Port, offset: int, length: int) -> bytes:
    """Return bytes of the port, read in pieces that do not need much memory each."""
    content = bytearray(length)
    view = memoryview(content)
    for start in range(0, length, MIB):
        port.read_into(offset + start, view[start : start + MIB])
    return bytes(content)


def expect(condition: bool, broken: str) -> None:
    """Go on when *condition* holds; *broken* says what is wrong when it does not."""
    if not condition:
        raise PromiseBroken(broken)


@contextmanager
def expect_error(*kinds: type[DriverError], when: str) -> Iterator[None]:
    """Go on when the block raises one of *kinds*."""
    wanted = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds:
        return
    except DriverError as error:
        raise PromiseBroken(f"{when} raised {type(error).__name__} instead of {wanted}: {error}") from error
    raise PromiseBroken(f"{when} did not raise {wanted}")
