"""A port over a server of this host, shorter than what is served where the server rounds sizes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from backends.drivers.errors import CorruptData
from backends.drivers.ports import Extent, Port


class ServedPort(Port):
    """
    The first *size_bytes* of another port, and whatever must be given back with it.

    Args:
        resources: Closed after the port: the server, a lock.
    """

    def __init__(self, port: Port, size_bytes: int, resources: ExitStack, *, is_exclusive: bool) -> None:
        self._port = port
        self._resources = resources
        self.size_bytes = size_bytes
        self.block_size_bytes = port.block_size_bytes
        self.reads_zero_when_new = port.reads_zero_when_new
        self.keeps_allocation = port.keeps_allocation
        self.is_exclusive = is_exclusive
        if port.size_bytes < size_bytes:
            self.close()
            raise CorruptData(
                f"What is served has {port.size_bytes} bytes; the volume should have {size_bytes}.",
                operation="open",
                remedy="Find out who made it smaller.",
            )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._check_range(offset, length)
        return self._port.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, len(buffer))
        self._port.read_into(offset, buffer)

    def write(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, len(buffer))
        self._port.write(offset, buffer)

    def zero(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        if length and offset + length == self.size_bytes:
            # What lies behind the end is nobody's, and whole blocks can be given back.
            length = self._port.size_bytes - offset
        # Whoever opened this port may have changed its mind about the room.
        self._port.keeps_allocation = self.keeps_allocation
        self._port.zero(offset, length)

    def flush(self) -> None:
        self._port.flush()

    def interrupt(self) -> None:
        self._port.interrupt()

    def close(self) -> None:
        self._port.close()
        self._resources.close()

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(f"{length} bytes at offset {offset} are not inside {self.size_bytes} bytes")


def opened(
    open_port: Callable[[ExitStack], Port], size_bytes: int, resources: ExitStack, *, is_exclusive: bool
) -> ServedPort:
    """Return the port that *open_port* makes with the help of *resources*, which it may add to."""
    with resources as until_it_works:
        port = open_port(until_it_works)
        return ServedPort(port, size_bytes, until_it_works.pop_all(), is_exclusive=is_exclusive)
