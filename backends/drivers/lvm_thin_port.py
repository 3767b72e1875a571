"""A port over a thin volume: what was never written to the source is not read."""

from __future__ import annotations

import bisect
import logging
import os
from collections.abc import Callable, Iterator

from backends.drivers.block_device_port import BlockDevicePort
from backends.drivers.lvm_thin_map import NoMap, Run
from backends.drivers.oserrors import os_errors_translated
from backends.drivers.ports import Extent, ExtentKind
from backends.drivers.types import OpenMode

logger = logging.getLogger(__name__)


class ThinVolumePort(BlockDevicePort):
    """
    An opened thin volume.

    Args:
        read_map: Returns the (offset, length) of what has blocks; called once, after a flush, while nobody can write.
            Raises `NoMap` when it cannot tell.
    """

    def __init__(self, path: str, mode: OpenMode, *, read_map: Callable[[], list[Run]], **options) -> None:
        self._read_map = read_map
        self._map: list[Run] | None = None
        super().__init__(path, mode, **options)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        # Only a source cannot change while it is open.  A destination is read back whole, whatever has blocks there:
        # that is the proof.
        if self.mode is not OpenMode.SOURCE:
            return super().extents(offset, length)
        self._check_range(offset, length)
        if self._map is None:
            self._map = self._ask()
        return _cut(self._map, offset, offset + length)

    def _ask(self) -> list[Run]:
        # What somebody wrote through the page cache has no blocks before it is written back.
        with os_errors_translated(f"Flushing {self.path}", **self._error_fields("extents")):
            os.fdatasync(self._fd)
        try:
            return self._read_map()
        except NoMap as reason:
            logger.warning("%s is read as a whole, with what was never written: %s", self.path, reason)
            return [(0, self.size_bytes)]


def _cut(runs: list[Run], offset: int, end: int) -> Iterator[Extent]:
    """Yield the extents from *offset* to *end*: data where there are runs."""
    first = bisect.bisect_right(runs, offset, key=sum)
    position = offset
    for start, length in runs[first:]:
        if max(start, position) >= end:
            break
        if start > position:
            yield Extent(position, start - position, ExtentKind.HOLE)
            position = start
        stop = min(start + length, end)
        yield Extent(position, stop - position, ExtentKind.DATA)
        position = stop
    if position < end:
        yield Extent(position, end - position, ExtentKind.HOLE)
