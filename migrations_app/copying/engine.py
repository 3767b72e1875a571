"""
Copy a volume from port to port, and read one back.

Both are one pass over the blocks of a port: read the data extents, hash, and (when copying) write.  Several
threads work on blocks at the same time; their results are collected in order, so that "everything before this
segment is done" is always known.  Holes are not read.  A block of zeros is not written to a destination that reads
zeros already, and is zeroed on one that may not.
"""

from __future__ import annotations

import collections
import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from backends.drivers.ports import Extent, ExtentKind, Port
from migrations_app.copying.digests import (
    BLOCK_BYTES,
    SEGMENT_BYTES,
    block_digest,
    segment_digest,
    zero_block_digest,
    zero_segment_digest,
)
from migrations_app.copying.progress import Progress
from migrations_app.copying.throttle import Throttle

#: Enough to keep a disk busy both ways; each thread owns one block of memory.
THREADS = 6

_ZEROS = bytes(BLOCK_BYTES)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_zeros_address = ctypes.cast(ctypes.c_char_p(_ZEROS), ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """One finished segment.  `data_bytes` were read, of them `zero_bytes` were in blocks of nothing but zeros."""

    index: int
    digest: str
    data_bytes: int
    zero_bytes: int


@dataclass(slots=True)
class PassResult:
    """What one pass did (after a resume: this run of it alone).  `is_complete`: it reached the end."""

    data_bytes: int = 0
    zero_bytes: int = 0
    is_complete: bool = True


#: Called with the segments that were finished since the last call and, when copying, flushed.
Checkpoint = Callable[[Sequence[SegmentResult]], None]


@dataclass(slots=True)
class Guards:
    """
    How the engine asks its surroundings.

    `check` is called between blocks: it raises to give the pass up, and returns true to stop it at a checkpoint.
    `fence` is called right before each write, from the writing thread, and raises when the right to write is gone.
    """

    check: Callable[[], bool] = lambda: False
    fence: Callable[[], None] = lambda: None
    throttle: Throttle = field(default_factory=Throttle)
    progress: Progress = field(default_factory=Progress)
    checkpoint_seconds: float = 5.0


def data_bytes(port: Port, offset: int = 0) -> int:
    """Return how many bytes from *offset* on lie in data extents."""
    return sum(
        extent.length
        for extent in port.extents(offset, port.size_bytes - offset)
        if extent.kind is ExtentKind.DATA
    )


def copy(
    source: Port,
    destination: Port,
    *,
    first_segment: int,
    destination_reads_zero: bool,
    guards: Guards,
    checkpoint: Checkpoint,
) -> PassResult:
    """
    Copy everything from *first_segment* on and return what was done.

    Before each call of *checkpoint* the destination has been flushed.  *destination_reads_zero*: what was never
    written there reads as zeros; when false, holes and zeros are written as zeros.

    Raises:
        Whatever `guards` and the ports raise.  No write is under way any more when it is raised, or returned.

    Safe to repeat: yes, from any segment up to the last checkpoint.
    """
    writer = _Writer(destination, destination_reads_zero, guards.fence)
    return _run_pass(source, first_segment, guards, checkpoint, writer)


def read_back(port: Port, *, first_segment: int, guards: Guards, checkpoint: Checkpoint) -> PassResult:
    """Read everything from *first_segment* on and return its digests.  Holes are known to be zeros."""
    return _run_pass(port, first_segment, guards, checkpoint, None)


@dataclass(frozen=True, slots=True)
class _Block:
    offset: int
    length: int
    runs: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class _BlockResult:
    digest: bytes
    data_bytes: int
    is_zero: bool


class _Writer:
    """The destination's side of a block."""

    def __init__(self, port: Port, reads_zero: bool, fence: Callable[[], None]) -> None:
        self.port = port
        self.reads_zero = reads_zero
        self._fence = fence

    def write_block(self, block: _Block, view: memoryview) -> None:
        position = block.offset
        for run in block.runs:
            self._gap(position, run.offset)
            self._fence()
            start = run.offset - block.offset
            self.port.write(run.offset, view[start : start + run.length])
            position = run.end
        self._gap(position, block.offset + block.length)

    def zero(self, offset: int, length: int) -> None:
        self._gap(offset, offset + length)

    def _gap(self, start: int, end: int) -> None:
        if end > start and not self.reads_zero:
            self._fence()
            self.port.zero(start, end - start)


class _Buffers(threading.local):
    """One page-aligned block of memory for each thread: direct I/O needs the alignment."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BLOCK_BYTES)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.view = memoryview(self.memory)


def _run_pass(
    source: Port, first_segment: int, guards: Guards, checkpoint: Checkpoint, writer: _Writer | None
) -> PassResult:
    collector = _Collector(source.size_bytes, first_segment, guards, checkpoint, writer)
    buffers = _Buffers()
    stop = threading.Event()

    def work(block: _Block) -> _BlockResult:
        if stop.is_set():
            return _BlockResult(b"", 0, False)
        return _process_block(block, source, writer, buffers)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="copy") as pool:
        try:
            for item in _segments(source, first_segment):
                if not _submit(item, guards, collector, writer, lambda block: pool.submit(work, block)):
                    collector.result.is_complete = False
                    break
            collector.finish()
        except BaseException:
            # The pool waits for what is running when the block is left; what waits in the queue does nothing.
            stop.set()
            raise
    return collector.result


def _submit(
    item: _Segment | _EmptySegment,
    guards: Guards,
    collector: _Collector,
    writer: _Writer | None,
    start: Callable[[_Block], Future[_BlockResult]],
) -> bool:
    """Hand one segment to the threads; false when the pass is to stop here."""
    if isinstance(item, _EmptySegment):
        if guards.check():
            return False
        if writer is not None:
            writer.zero(item.offset, item.length)
        collector.add_empty(item)
        return True
    for block in item.blocks:
        wanted = sum(run.length for run in block.runs)
        if guards.check() or not guards.throttle.take(wanted, guards.check):
            return False
        while collector.in_flight >= 2 * THREADS:
            collector.collect_one()
        collector.add(block, start(block))
    collector.end_segment(item)
    return True


def _process_block(block: _Block, source: Port, writer: _Writer | None, buffers: _Buffers) -> _BlockResult:
    view = buffers.view[: block.length]
    data = sum(run.length for run in block.runs)
    if data < block.length:
        view[:] = _ZEROS[: block.length]
    for run in block.runs:
        start = run.offset - block.offset
        source.read_into(run.offset, view[start : start + run.length])
    if _memcmp(buffers.address, _zeros_address, block.length) == 0:
        if writer is not None:
            writer.zero(block.offset, block.length)
        return _BlockResult(zero_block_digest(block.length), data, True)
    if writer is not None:
        writer.write_block(block, view)
    return _BlockResult(block_digest(view), data, False)


@dataclass(frozen=True, slots=True)
class _Segment:
    index: int
    offset: int
    length: int
    blocks: tuple[_Block, ...]


@dataclass(frozen=True, slots=True)
class _EmptySegment:
    index: int
    offset: int
    length: int


def _segments(port: Port, first_segment: int) -> Iterator[_Segment | _EmptySegment]:
    """Yield the segments in order; those without any data are told apart, whole volumes of holes cost little."""
    for index in range(first_segment, -(-port.size_bytes // SEGMENT_BYTES)):
        offset = index * SEGMENT_BYTES
        length = min(SEGMENT_BYTES, port.size_bytes - offset)
        runs = [e for e in port.extents(offset, length) if e.kind is ExtentKind.DATA]
        if runs:
            yield _Segment(index, offset, length, tuple(_blocks(offset, length, runs)))
        else:
            yield _EmptySegment(index, offset, length)


def _blocks(offset: int, length: int, runs: Sequence[Extent]) -> Iterator[_Block]:
    by_block: Mapping[int, list[Extent]] = _split(runs)
    for start in range(offset, offset + length, BLOCK_BYTES):
        size = min(BLOCK_BYTES, offset + length - start)
        yield _Block(start, size, tuple(by_block.get(start, ())))


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


class _Collector:
    """Takes block results in order, makes segments of them, and writes checkpoints."""

    def __init__(
        self,
        size_bytes: int,
        first_segment: int,
        guards: Guards,
        checkpoint: Checkpoint,
        writer: _Writer | None,
    ) -> None:
        self.result = PassResult()
        self._guards = guards
        self._checkpoint = checkpoint
        self._writer = writer
        self._waiting: collections.deque[tuple[_Block, Future[_BlockResult]] | _Segment | _EmptySegment] = (
            collections.deque()
        )
        self._digests: list[bytes] = []
        self._data = 0
        self._zero = 0
        self._unsaved: list[SegmentResult] = []
        self._saved_at = time.monotonic()
        self.in_flight = 0

    def add(self, block: _Block, future: Future[_BlockResult]) -> None:
        self._waiting.append((block, future))
        self.in_flight += 1

    def add_empty(self, segment: _EmptySegment) -> None:
        self._waiting.append(segment)
        self._drain_ready()

    def end_segment(self, segment: _Segment) -> None:
        self._waiting.append(segment)
        self._drain_ready()

    def collect_one(self) -> None:
        """Wait for the oldest block."""
        self._take()
        self._drain_ready()

    def finish(self) -> None:
        while self._waiting:
            self._take()
        self._save()

    def _drain_ready(self) -> None:
        while self._waiting:
            head = self._waiting[0]
            if isinstance(head, tuple) and not head[1].done():
                return
            self._take()

    def _take(self) -> None:
        item = self._waiting.popleft()
        if isinstance(item, tuple):
            _, future = item
            self.in_flight -= 1
            self._take_block(future.result())
        elif isinstance(item, _EmptySegment):
            self._unsaved.append(SegmentResult(item.index, zero_segment_digest(item.length), 0, 0))
        else:
            self._unsaved.append(
                SegmentResult(item.index, segment_digest(self._digests), self._data, self._zero)
            )
            self._digests, self._data, self._zero = [], 0, 0
        if self._unsaved and time.monotonic() - self._saved_at >= self._guards.checkpoint_seconds:
            self._save()

    def _take_block(self, result: _BlockResult) -> None:
        self._digests.append(result.digest)
        self._data += result.data_bytes
        self._zero += result.data_bytes if result.is_zero else 0
        self.result.data_bytes += result.data_bytes
        self.result.zero_bytes += result.data_bytes if result.is_zero else 0
        self._guards.progress.add(result.data_bytes)

    def _save(self) -> None:
        if self._writer is not None:
            self._guards.fence()
            self._writer.port.flush()
        if self._unsaved:
            self._checkpoint(self._unsaved)
            self._unsaved = []
        self._saved_at = time.monotonic()
