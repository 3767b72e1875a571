"""
Copy a volume from port to port, and read one back.

Both are one pass over the blocks of a port: read the data extents, hash, and (when copying) write.  Several
threads work on blocks at the same time; their results are collected in order, so that "everything before this
segment is done" is always known.  Holes are not read.  Zeros are not written to a destination that reads zeros
already, and are zeroed on one that may not.

The figures behind the constants: `docs/decisions/0010-copy-engine.md`.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field

from backends.drivers.ports import Extent, ExtentKind, Port
from backends.drivers.types import KIB, MIB
from migrations_app.copying.blocks import Block, Segment, cut_into_blocks, cut_into_segments, gaps, joined
from migrations_app.copying.buffers import Buffers, data_runs
from migrations_app.copying.digests import (
    BLOCK_BYTES,
    block_digest,
    segment_count,
    segment_digest,
    zero_block_digest,
    zero_segment_digest,
)
from migrations_app.copying.progress import Progress
from migrations_app.copying.throttle import Throttle

#: Enough to keep a disk busy both ways; each thread owns one block of memory.
THREADS = 32
#: So many blocks may be ahead of the oldest one that is not finished: one slow request must not stop the others.
_MOST_AHEAD = 2 * THREADS
#: A hole that is shorter is read with its neighbours: one long read costs less than two short ones.
_READ_GAP_BYTES = 64 * KIB
#: Zeros that are shorter are written with their neighbours, for the same reason; this is what sparseness costs.
_WRITE_GAP_BYTES = 16 * KIB
#: From this length on the destination is told that data is coming.
_EXPECT_BYTES = MIB
#: How often somebody who waits for a block asks whether to give up.
_TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """One finished segment.  `data_bytes` lay in data extents, of them `zero_bytes` were found to be zeros."""

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
class Waits:
    """For how many seconds a pass has waited for its storage, added up over its threads."""

    source_seconds: float = 0.0
    destination_seconds: float = 0.0


@dataclass(slots=True)
class Guards:
    """
    How the engine asks its surroundings, and what it tells them while it works.

    `check` is called between blocks: it raises to give the pass up, and returns true to stop it at a checkpoint.
    `fence` is called right before each write, from the writing thread, and raises when the right to write is gone.
    `on_stall` is called when a block has not come back for so many seconds, again and again while it lasts.
    """

    check: Callable[[], bool] = lambda: False
    fence: Callable[[], None] = lambda: None
    throttle: Throttle = field(default_factory=Throttle)
    progress: Progress = field(default_factory=Progress)
    waits: Waits = field(default_factory=Waits)
    checkpoint_seconds: float = 5.0
    on_stall: Callable[[float], None] = lambda seconds: None
    stall_seconds: float = 30.0


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
    segments = cut_into_segments(source, first_segment, segment_count(source.size_bytes))
    return _run_pass(source, segments, guards, checkpoint, writer, THREADS)


def read_back(
    port: Port,
    *,
    first_segment: int,
    end_segment: int | None = None,
    guards: Guards,
    checkpoint: Checkpoint,
    threads: int = THREADS,
) -> PassResult:
    """
    Read everything from *first_segment* on, up to *end_segment* or the end; *checkpoint* gets the digests.

    Holes are known to be zeros.
    """
    end = segment_count(port.size_bytes) if end_segment is None else end_segment
    return _run_pass(port, cut_into_segments(port, first_segment, end), guards, checkpoint, None, threads)


@dataclass(frozen=True, slots=True)
class _BlockResult:
    digest: bytes
    data_bytes: int
    zero_bytes: int
    read_seconds: float = 0.0
    write_seconds: float = 0.0


class _Writer:
    """The destination's side of a block."""

    def __init__(self, port: Port, reads_zero: bool, fence: Callable[[], None]) -> None:
        self.port = port
        self.reads_zero = reads_zero
        #: The last data extent that was looked at held no zeros: the next one will not, either.
        self.is_dense = False
        self._fence = fence

    def expect(self, runs: Sequence[Extent]) -> bool:
        """Announce long runs of data, if they probably are no zeros; tell whether room was given to any."""
        if not self.is_dense:
            return False
        has_room = False
        for run in runs:
            if run.length >= _EXPECT_BYTES:
                self._fence()
                has_room = self.port.expect(run.offset, run.length) or has_room
        return has_room

    def write(self, block: Block, view: memoryview, runs: Sequence[tuple[int, int]]) -> None:
        """Write the *runs* (start and end in the block) and zero what lies between them."""
        for start, end in runs:
            self._fence()
            self.port.write(block.offset + start, view[start:end])
        for start, end in self._to_zero(block, runs):
            self._fence()
            self.port.zero(block.offset + start, end - start)

    def zero(self, offset: int, length: int) -> None:
        if not self.reads_zero:
            self._fence()
            self.port.zero(offset, length)

    def _to_zero(self, block: Block, runs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield what lies between *runs* and may not read as zeros, or has room that it does not need."""
        if not self.reads_zero:
            yield from gaps(runs, 0, block.length)
        elif block.has_room:
            # Only data was given room.  Each hole that is punched stops all writes for a moment.
            for run in block.runs:
                yield from gaps(runs, run.offset - block.offset, run.end - block.offset)


def _run_pass(
    source: Port,
    segments: Iterable[Segment],
    guards: Guards,
    checkpoint: Checkpoint,
    writer: _Writer | None,
    threads: int,
) -> PassResult:
    collector = _Collector(guards, checkpoint, writer)
    buffers = Buffers(BLOCK_BYTES)
    stop = threading.Event()

    def work(block: Block) -> _BlockResult:
        if stop.is_set():
            return _BlockResult(b"", 0, 0)
        return _process_block(block, source, writer, buffers)

    with ThreadPoolExecutor(threads, thread_name_prefix="copy") as pool:
        try:
            for item in segments:
                if not _submit(item, guards, collector, writer, lambda block: pool.submit(work, block)):
                    collector.result.is_complete = False
                    break
            collector.finish()
        except BaseException:
            # The pool waits for what is running when the block is left; what waits in the queue does nothing.
            stop.set()
            source.interrupt()
            if writer is not None:
                writer.port.interrupt()
            raise
    return collector.result


def _submit(
    item: Segment,
    guards: Guards,
    collector: _Collector,
    writer: _Writer | None,
    start: Callable[[Block], Future[_BlockResult]],
) -> bool:
    """Hand one segment to the threads; false when the pass is to stop here."""
    if not item.runs:
        # Whole volumes of holes cost little.
        if collector.must_stop():
            return False
        if writer is not None:
            writer.zero(item.offset, item.length)
        collector.add(item)
        return True
    has_room = writer is not None and writer.expect(item.runs)
    for block in cut_into_blocks(item, has_room):
        if collector.must_stop() or not guards.throttle.take(block.data_bytes, collector.must_stop):
            return False
        if not block.runs and (writer is None or writer.reads_zero):
            # Costs neither a thread nor a place in the window, which is there to keep the disk busy.
            collector.add(_BlockResult(zero_block_digest(block.length), 0, 0))
            continue
        while collector.in_flight >= _MOST_AHEAD:
            collector.collect_one()
        collector.add(start(block))
    collector.add(item)
    return True


def _process_block(block: Block, source: Port, writer: _Writer | None, buffers: Buffers) -> _BlockResult:
    if not block.runs:
        if writer is not None:
            writer.zero(block.offset, block.length)
        return _BlockResult(zero_block_digest(block.length), 0, 0)
    started = time.monotonic()
    view = buffers.view[: block.length]
    position = 0
    reads = joined([(r.offset - block.offset, r.end - block.offset) for r in block.runs], _READ_GAP_BYTES)
    for start, end in reads:
        buffers.clear(position, start)
        source.read_into(block.offset + start, view[start:end])
        position = end
    buffers.clear(position, block.length)
    was_read = time.monotonic()
    found, runs = [], []
    for run in block.runs:
        in_run = data_runs(buffers.address, run.offset - block.offset, run.end - block.offset)
        found += in_run
        # Never across a hole of the source: a volume takes the same room as before.
        runs += joined(in_run, _WRITE_GAP_BYTES)
    data = block.data_bytes
    write_seconds = 0.0
    if writer is not None:
        writer.is_dense = len(runs) == len(block.runs) and sum(end - start for start, end in runs) >= data
        writes_from = time.monotonic()
        writer.write(block, view, runs)
        write_seconds = time.monotonic() - writes_from
    digest = block_digest(view) if found else zero_block_digest(block.length)
    zero = max(0, data - sum(end - start for start, end in found))
    return _BlockResult(digest, data, zero, was_read - started, write_seconds)


#: What is collected in order: blocks, under way or without anything to do, and the segments that end there.
_Item = Future[_BlockResult] | _BlockResult | Segment


class _Collector:
    """Takes block results in order, makes segments of them, and writes checkpoints."""

    def __init__(
        self,
        guards: Guards,
        checkpoint: Checkpoint,
        writer: _Writer | None,
    ) -> None:
        self.result = PassResult()
        self._guards = guards
        self._checkpoint = checkpoint
        self._writer = writer
        self._waiting: collections.deque[_Item] = collections.deque()
        self._digests: list[bytes] = []
        self._data = 0
        self._zero = 0
        self._unsaved: list[SegmentResult] = []
        self._saved_at = time.monotonic()
        self._is_stopped = False
        #: The oldest block when it was last looked at, since when it is that, and when a stall was told last.
        self._oldest: Future[_BlockResult] | None = None
        self._oldest_since = self._told_at = self._saved_at
        self.in_flight = 0

    def must_stop(self) -> bool:
        """Tell whether to stop at the next checkpoint; asked between blocks, and while one is waited for."""
        # Not only by whoever waits for a block: behind a low limit nobody does for a long time.
        self._look_for_stall()
        self._is_stopped = self._is_stopped or self._guards.check()
        return self._is_stopped

    def add(self, item: _Item) -> None:
        """Take the next block, or the segment that ends here; save what is ready."""
        self._waiting.append(item)
        self.in_flight += isinstance(item, Future)
        # At once, not only when there are too many: a slow copy shows its progress and saves it in time.
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
            if isinstance(head, Future) and not head.done():
                return
            self._take()

    def _take(self) -> None:
        item = self._waiting[0]
        result = self._wait_for(item) if isinstance(item, Future) else item
        self._waiting.popleft()
        self.in_flight -= isinstance(item, Future)
        if isinstance(result, _BlockResult):
            self._take_block(result)
        elif not result.runs:
            self._unsaved.append(SegmentResult(result.index, zero_segment_digest(result.length), 0, 0))
        else:
            self._unsaved.append(
                SegmentResult(result.index, segment_digest(self._digests), self._data, self._zero)
            )
            self._digests, self._data, self._zero = [], 0, 0
        if self._unsaved and time.monotonic() - self._saved_at >= self._guards.checkpoint_seconds:
            self._save()

    def _wait_for(self, future: Future[_BlockResult]) -> _BlockResult:
        """Return the block's result; a port may hang, so whoever waits goes on asking whether to give up."""
        while True:
            try:
                return future.result(_TICK_SECONDS)
            except NotYet:
                if future.done():
                    raise
            self.must_stop()

    def _look_for_stall(self) -> None:
        oldest = self._waiting[0] if self._waiting else None
        if not isinstance(oldest, Future) or oldest.done():
            return
        now = time.monotonic()
        if oldest is not self._oldest:
            self._oldest, self._oldest_since, self._told_at = oldest, now, now
        elif now - self._told_at >= self._guards.stall_seconds:
            self._told_at = now
            self._guards.on_stall(now - self._oldest_since)

    def _take_block(self, result: _BlockResult) -> None:
        self._digests.append(result.digest)
        self._data += result.data_bytes
        self._zero += result.zero_bytes
        self.result.data_bytes += result.data_bytes
        self.result.zero_bytes += result.zero_bytes
        self._guards.waits.source_seconds += result.read_seconds
        self._guards.waits.destination_seconds += result.write_seconds
        self._guards.progress.add(result.data_bytes)

    def _save(self) -> None:
        if self._writer is not None:
            self._guards.fence()
            self._writer.port.flush()
        if self._unsaved:
            self._checkpoint(self._unsaved)
            self._unsaved = []
        self._saved_at = time.monotonic()
