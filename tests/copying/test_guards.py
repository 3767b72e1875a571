"""The engine obeys: it stops, gives up, flushes before it promises, and needs little memory."""

from __future__ import annotations

import ctypes
import threading
import time
import tracemalloc

import pytest

from backends.drivers.errors import ConnectionLost, CorruptData, NoSpace
from backends.drivers.ports import Extent, ExtentKind
from backends.drivers.types import MIB, TIB
from migrations_app.copying import digests, engine
from migrations_app.saga.step import CancelRequested, LeaseLost
from tests.copying.ports import (
    BLOCK,
    SEGMENT,
    Countdown,
    Layout,
    MemoryPort,
    copy,
    expected_digests,
    old_bytes,
    small_blocks,
)

LAYOUT = Layout((("data", 5 * SEGMENT), ("hole", 2 * SEGMENT + 7), ("zeros", SEGMENT), ("data", 3 * SEGMENT)))
CONTENT = LAYOUT.content()


def _ports() -> tuple[MemoryPort, MemoryPort]:
    return MemoryPort(CONTENT, LAYOUT.extents()), MemoryPort(old_bytes(LAYOUT.size_bytes))


def _raise(error: Exception) -> object:
    raise error


ERRORS = {
    "check": CancelRequested(),
    "fence": LeaseLost("taken"),
    "read": ConnectionLost("gone"),
    "write": NoSpace("full"),
    "zero": NoSpace("full"),
    "flush": CorruptData("lost"),
    "checkpoint": RuntimeError("no database"),
}


@pytest.mark.parametrize("at", [1, 2, 7, 13])
@pytest.mark.parametrize("where", ERRORS)
def test_nothing_is_written_any_more_when_the_error_has_left_the_copy(where, at):
    source, destination = _ports()
    error = ERRORS[where]
    broken = Countdown(at, lambda: _raise(error))

    def before(operation: str) -> None:
        if operation == "write":
            # Slow enough that other threads are in the middle of a write when the error comes.
            time.sleep(0.002)
        if operation == where:
            broken()

    source.before = destination.before = before
    guards = {where: broken} if where in ("check", "fence") else {}
    if where == "checkpoint":
        destination.believe = lambda segments: broken()
    with small_blocks():
        raised = None
        try:
            copy(source, destination, **guards)
        except type(error) as caught:
            raised = caught
        # A short copy may end before its turn comes; an error that came is never swallowed.
        assert raised is (error if broken.calls >= at else None)
        begun, under_way = len(destination.begun), destination.under_way
        time.sleep(0.02)
    assert under_way == 0
    assert len(destination.begun) == begun
    assert not [t for t in threading.enumerate() if t.name.startswith("copy")]


def test_fence_is_asked_before_each_write_in_the_writing_thread():
    source, destination = _ports()
    asked: dict[int, int] = {}
    faults = []

    def fence() -> None:
        asked[threading.get_ident()] = 1

    def before(operation: str) -> None:
        if operation != "read" and not asked.pop(threading.get_ident(), 0):
            faults.append(operation)

    source.before = destination.before = before
    with small_blocks():
        copy(source, destination, fence=fence)
    assert faults == []
    assert destination.begun.count("write") > 10


def test_failed_flush_is_never_a_checkpoint():
    source, destination = _ports()
    destination.before = lambda operation: _raise(CorruptData("lost")) if operation == "flush" else None
    segments: list = []
    with small_blocks(), pytest.raises(CorruptData):
        copy(source, destination, results=segments)
    assert segments == []


def test_checkpoints_come_no_more_often_than_asked_for():
    source, destination = _ports()
    with small_blocks():
        _, segments = copy(source, destination, checkpoint_seconds=1000.0)
    assert destination.begun.count("flush") == 1
    assert [s.digest for s in segments] == expected_digests(CONTENT)


def test_stop_is_obeyed_within_one_block():
    source, destination = _ports()
    with small_blocks():
        result, segments = copy(source, destination, check=lambda: True)
    assert not result.is_complete
    assert segments == []
    assert "write" not in destination.begun


def test_readers_do_not_run_ahead_of_a_slow_destination():
    source, destination = _ports()
    go_on = threading.Event()
    started = threading.Lock()

    def before(operation: str) -> None:
        # The first block waits; all others may overtake it.
        if operation == "write" and started.acquire(blocking=False):
            go_on.wait(5)

    destination.before = before
    with small_blocks():
        thread = threading.Thread(target=copy, args=(source, destination))
        thread.start()
        time.sleep(0.2)
        ahead = source.begun.count("read")
        go_on.set()
        thread.join()
    assert 1 < ahead <= 2 * engine.THREADS
    assert bytes(destination.bytes) == CONTENT


def test_memory_does_not_grow_with_the_volume():
    """One tebibyte, 640 GiB of it in front of a block that takes long."""

    class Endless(MemoryPort):
        def __init__(self) -> None:
            super().__init__(b"")
            self.size_bytes = TIB

        def extents(self, offset, length):
            if offset < 2 * MIB:
                yield Extent(offset, MIB, ExtentKind.DATA)
                yield Extent(offset + MIB, length - MIB, ExtentKind.HOLE)
            else:
                yield Extent(offset, length, ExtentKind.HOLE)

        def read_into(self, offset, buffer):
            time.sleep(0.05)
            self.buffers.add(len(buffer))

    counted = 0

    def count(segments) -> None:
        nonlocal counted
        counted += len(segments)

    port = Endless()
    tracemalloc.start()
    try:
        engine.read_back(
            port, first_segment=0, guards=engine.Guards(checkpoint_seconds=0.01), checkpoint=count
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted == TIB // digests.SEGMENT_BYTES
    assert peak < 8 * MIB
    assert port.buffers == {MIB}


def test_each_thread_has_one_block_of_memory_whatever_the_volume():
    source, destination = _ports()
    seen: set[int] = set()
    real = source.read_into

    def read_into(offset, buffer):
        seen.add(ctypes.addressof(ctypes.c_char.from_buffer(buffer.obj)))
        real(offset, buffer)

    source.read_into = read_into
    with small_blocks():
        copy(source, destination)
    assert len(seen) <= engine.THREADS


def test_zeros_are_not_written_where_zeros_are_read_already():
    source, destination = MemoryPort(CONTENT, LAYOUT.extents()), MemoryPort(bytes(LAYOUT.size_bytes))
    with small_blocks():
        result, _ = copy(source, destination, reads_zero=True)
    assert "zero" not in destination.begun
    assert destination.begun.count("write") <= 8 * SEGMENT // BLOCK + 2
    assert result.zero_bytes > 0
    assert bytes(destination.bytes) == CONTENT


def test_progress_ends_at_what_there_was_to_do():
    source, destination = _ports()
    progress = engine.Progress()
    with small_blocks():
        progress.begin(engine.data_bytes(source))
        copy(source, destination, progress=progress)
    assert progress.done_bytes == progress.total_bytes == 9 * SEGMENT
