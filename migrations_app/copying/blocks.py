"""What a volume is cut into: segments, whose digests are kept, and in them the blocks that threads work on."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backends.drivers.ports import Extent, ExtentKind, Port
from migrations_app.copying.digests import BLOCK_BYTES, SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class Block:
    """`runs` lie in data extents.  `has_room`: the destination gave them room before they are written."""

    offset: int
    length: int
    runs: tuple[Extent, ...]
    has_room: bool = False

    @property
    def data_bytes(self) -> int:
        return sum(run.length for run in self.runs)


@dataclass(frozen=True, slots=True)
class Segment:
    """`runs` lie in data extents; a segment without any costs next to nothing."""

    index: int
    offset: int
    length: int
    runs: tuple[Extent, ...]


def cut_into_segments(port: Port, first_segment: int, end_segment: int) -> Iterator[Segment]:
    """Yield the segments in order, those without any data as well."""
    for index in range(first_segment, end_segment):
        offset = index * SEGMENT_BYTES
        length = min(SEGMENT_BYTES, port.size_bytes - offset)
        runs = tuple(e for e in port.extents(offset, length) if e.kind is ExtentKind.DATA)
        yield Segment(index, offset, length, runs)


def cut_into_blocks(segment: Segment, has_room: bool) -> Iterator[Block]:
    """Yield the blocks in order, those without any data as well."""
    by_block: Mapping[int, list[Extent]] = _split(segment.runs)
    end = segment.offset + segment.length
    for start in range(segment.offset, end, BLOCK_BYTES):
        size = min(BLOCK_BYTES, end - start)
        yield Block(start, size, tuple(by_block.get(start, ())), has_room)


def _split(runs: Sequence[Extent]) -> dict[int, list[Extent]]:
    """Return the runs cut at block boundaries, by the offset of their block."""
    result: dict[int, list[Extent]] = collections.defaultdict(list)
    for run in runs:
        position = run.offset
        while position < run.end:
            block = position - position % BLOCK_BYTES
            end = min(run.end, block + BLOCK_BYTES)
            result[block].append(Extent(position, end - position, ExtentKind.DATA))
            position = end
    return result


def joined(runs: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Return the runs, those with less than *gap* between them as one."""
    result: list[tuple[int, int]] = []
    for start, end in runs:
        if result and start - result[-1][1] < gap:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result


def gaps(runs: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what of the range from *start* to *end* is in none of the runs, which are in order."""
    for run_start, run_end in runs:
        if run_start >= end:
            break
        if run_start > start:
            yield start, run_start
        start = max(start, run_end)
    if start < end:
        yield start, end
