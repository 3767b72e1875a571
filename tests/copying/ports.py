"""Ports in memory that watch what the engine does to them, and volumes with a chosen layout."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from blake3 import blake3

from backends.drivers.ports import Extent, ExtentKind, Port
from migrations_app.copying import blocks, digests, engine

#: One block and one segment of most tests here: as in the real thing a segment is several blocks, and files
#: can be written directly in blocks.
BLOCK = 4096
SEGMENT = 4 * BLOCK

OLD_BYTE = b"\xa5"


@contextmanager
def small_blocks(block: int = BLOCK, segment: int = SEGMENT) -> Iterator[None]:
    """
    Let the engine work in blocks and segments so small that thousands of volumes can be copied in a test.

    The digests of zeros are remembered by length and depend on the size of a block.
    """
    patch = pytest.MonkeyPatch()
    for module in (digests, blocks, engine):
        patch.setattr(module, "BLOCK_BYTES", block)
    for module in (digests, blocks):
        patch.setattr(module, "SEGMENT_BYTES", segment)
    _forget_zeros()
    try:
        yield
    finally:
        patch.undo()
        _forget_zeros()


def _forget_zeros() -> None:
    digests.zero_block_digest.cache_clear()
    digests.zero_segment_digest.cache_clear()


@dataclass(frozen=True)
class Layout:
    """A volume: (kind, length) from the first byte on, kind one of `data`, `zeros` (written) and `hole`."""

    runs: tuple[tuple[str, int], ...]
    seed: int = 1

    @property
    def size_bytes(self) -> int:
        return sum(length for _, length in self.runs)

    def content(self) -> bytes:
        chance = random.Random(self.seed)
        return b"".join(chance.randbytes(n) if kind == "data" else bytes(n) for kind, n in self.runs)

    def extents(self) -> list[Extent]:
        result, position = [], 0
        for kind, length in self.runs:
            result.append(Extent(position, length, ExtentKind.HOLE if kind == "hole" else ExtentKind.DATA))
            position += length
        return result


def expected_digests(content: bytes, block: int = BLOCK, segment: int = SEGMENT) -> list[str]:
    """Return the digest of each segment, worked out the plain way."""
    return [
        blake3(
            b"".join(
                blake3(content[at : min(at + block, start + segment)]).digest()
                for at in range(start, min(start + segment, len(content)), block)
            )
        ).hexdigest()
        for start in range(0, len(content), segment)
    ]


class MemoryPort(Port):
    """
    Bytes in memory.

    `before` is called with the name of each operation before it is done, and may raise.  `extents_known` None means
    that everything is data.
    """

    block_size_bytes = BLOCK

    def __init__(self, content: bytes, extents_known: Sequence[Extent] | None = None) -> None:
        self.bytes = bytearray(content)
        self.size_bytes = len(content)
        self.before: Callable[[str], None] = lambda operation: None
        self._extents = extents_known
        self._lock = threading.Lock()
        #: Operations that have begun and not ended.
        self.under_way = 0
        self.begun: list[str] = []
        self.buffers: set[int] = set()
        self._flushed = bytearray(content)
        self._unflushed: set[int] = set()
        self._believed: set[int] = set()
        #: What must never happen, in words.
        self.faults: list[str] = []

    # -- the port ---------------------------------------------------------------------------------------------

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self._extents is None:
            yield Extent(offset, length, ExtentKind.DATA)
            return
        for extent in self._extents:
            start, end = max(extent.offset, offset), min(extent.end, offset + length)
            if start < end:
                yield Extent(start, end - start, extent.kind)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._operation("read"):
            self._check_range(offset, len(buffer))
            buffer[:] = self.bytes[offset : offset + len(buffer)]

    def write(self, offset: int, buffer: memoryview) -> None:
        with self._operation("write"):
            self._put(offset, bytes(buffer))

    def zero(self, offset: int, length: int) -> None:
        with self._operation("zero"):
            self._put(offset, bytes(length))

    def flush(self) -> None:
        with self._operation("flush"):
            with self._lock:
                settled, content = set(self._unflushed), bytes(self.bytes)
            with self._lock:
                self._flushed[:] = content
                self._unflushed -= settled

    def close(self) -> None:
        pass

    # -- what tests do and see ----------------------------------------------------------------------------------

    def lose_power(self) -> None:
        """Forget what was not flushed."""
        self.bytes[:] = self._flushed

    def believe(self, segments: Sequence[engine.SegmentResult], segment_bytes: int = SEGMENT) -> None:
        """Note a checkpoint: everything in *segments* must have been flushed, and stay as it is."""
        with self._lock:
            for segment in segments:
                start = segment.index * segment_bytes
                end = min(start + segment_bytes, self.size_bytes)
                if self.bytes[start:end] != self._flushed[start:end]:
                    self.faults.append(f"segment {segment.index} was believed before it was flushed")
                if segment.index in self._unflushed:
                    self.faults.append(f"segment {segment.index} was believed with an unflushed write")
                self._believed.add(segment.index)

    def _put(self, offset: int, data: bytes) -> None:
        self._check_range(offset, len(data))
        with self._lock:
            self.bytes[offset : offset + len(data)] = data
            for index in range(offset // SEGMENT, (offset + len(data) - 1) // SEGMENT + 1):
                self._unflushed.add(index)
                if index in self._believed:
                    self.faults.append(f"segment {index} was written to after its checkpoint")

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 1 or offset + length > self.size_bytes:
            self.faults.append(f"{length} bytes at {offset} of {self.size_bytes}")

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        with self._lock:
            self.under_way += 1
            self.begun.append(name)
        try:
            self.before(name)
            yield
        finally:
            with self._lock:
                self.under_way -= 1


class Countdown:
    """Called any number of times from any thread; does something at the call of number *at* (from 1 on)."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.calls = 0
        self._at = at
        self._act = act
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> object:
        with self._lock:
            self.calls += 1
            is_due = self.calls == self._at
        return self._act() if is_due else False


def copy(
    source: Port,
    destination: MemoryPort,
    *,
    first_segment: int = 0,
    reads_zero: bool = False,
    results: list[engine.SegmentResult] | None = None,
    **guards: object,
) -> tuple[engine.PassResult, list[engine.SegmentResult]]:
    """Copy with a checkpoint as often as possible; return the result and every segment that was reported."""
    saved = [] if results is None else results

    def checkpoint(segments: Sequence[engine.SegmentResult]) -> None:
        if isinstance(destination, MemoryPort):
            destination.believe(segments)
        saved.extend(segments)

    result = engine.copy(
        source,
        destination,
        first_segment=first_segment,
        destination_reads_zero=reads_zero,
        guards=engine.Guards(**{"checkpoint_seconds": 0.0, **guards}),
        checkpoint=checkpoint,
    )
    return result, saved


def read_back(port: Port, first_segment: int = 0) -> list[str]:
    """Return the digests of *port* as the engine reads it."""
    found: list[engine.SegmentResult] = []
    engine.read_back(port, first_segment=first_segment, guards=engine.Guards(), checkpoint=found.extend)
    return [segment.digest for segment in found]


def old_bytes(size: int) -> bytes:
    return OLD_BYTE * size
