"""Zeros are found where they lie, thick volumes stay thick, and a port that hangs is told about."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.drivers.errors import ConnectionLost
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.types import KIB, MIB, OpenMode
from migrations_app.copying import engine
from migrations_app.copying.buffers import Buffers, data_runs
from migrations_app.copying.throttle import Throttle
from migrations_app.saga.step import CancelRequested
from tests.copying.ports import BLOCK, Layout, MemoryPort, copy, small_blocks

SEGMENT = 512 * KIB

_PIECES = st.lists(
    st.tuples(st.booleans(), st.sampled_from([1, 4095, 4 * KIB, 60 * KIB, 64 * KIB, 200 * KIB])), max_size=9
)


@settings(deadline=None, max_examples=200)
@given(pieces=_PIECES, start=st.integers(0, 70 * KIB))
def test_whatever_is_left_out_is_zeros(pieces, start):
    buffers = Buffers(MIB)
    content = b"".join((b"x" if is_data else b"\0") * length for is_data, length in pieces)[: MIB - start]
    end = start + len(content)
    buffers.view[start:end] = content
    runs = data_runs(buffers.address, start, end)
    assert all(start <= a < b <= end for a, b in runs)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(runs))
    left = bytearray(buffers.view[start:end])
    for a, b in runs:
        left[a - start : b - start] = bytes(b - a)
    assert not any(left)


@pytest.mark.parametrize("at", [0, 64 * KIB, 5 * 64 * KIB])
def test_64_kib_of_zeros_between_data_are_found(at):
    buffers = Buffers(MIB)
    buffers.view[:] = b"x" * MIB
    buffers.clear(at, at + 64 * KIB)
    runs = data_runs(buffers.address, 0, MIB)
    assert sum(b - a for a, b in runs) == MIB - 64 * KIB


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.close(fd)
    return str(path)


@pytest.mark.parametrize("is_thick", [True, False])
def test_thick_destination_keeps_its_room(tmp_path, is_thick):
    size = 12 * MIB
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, size)
    with source.open("r+b") as file:
        file.write(b"data")
    destination = tmp_path / "destination"
    _write(destination, b"\xa5" * size)
    with (
        LocalFilePort(str(source), OpenMode.SOURCE) as one,
        LocalFilePort(str(destination), OpenMode.WRITE) as two,
    ):
        two.keeps_allocation = is_thick
        copy(one, two)
    assert destination.read_bytes() == source.read_bytes()
    assert (_allocated(destination) >= size) is is_thick


def test_zeros_in_expected_room_give_it_back(tmp_path):
    """Random data for a segment, so that the next one is expected; that one has zeros in it."""
    size = 192 * MIB
    content = bytearray(random.Random(3).randbytes(80 * MIB))
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(content)
        file.write(bytes(size - len(content)))
    destination = tmp_path / "destination"
    destination.touch()
    os.truncate(destination, size)
    with (
        LocalFilePort(str(source), OpenMode.SOURCE) as one,
        LocalFilePort(str(destination), OpenMode.WRITE) as two,
    ):
        copy(one, two, reads_zero=True)
    assert subprocess.run(["cmp", source, destination], check=False).returncode == 0
    assert _allocated(destination) <= 81 * MIB


def test_scattered_small_writes_leave_nothing_in_the_page_cache(tmp_path):
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, 64 * MIB)
    with LocalFilePort(str(path), OpenMode.WRITE) as port:
        buffer = Buffers(4 * KIB).view
        buffer[:] = b"y" * len(buffer)
        for offset in range(0, 64 * MIB, 16 * KIB):
            port.write(offset, buffer)
        port.flush()
    resident = subprocess.run(["fincore", "-b", "-n", "-o", "RES", path], capture_output=True, text=True)
    if resident.returncode:
        pytest.skip(f"`fincore {path}` failed: {resident.stderr}")
    assert int(resident.stdout or 0) <= MIB


# -- ports that hang ----------------------------------------------------------------------------------------------


class HangingPort(MemoryPort):
    """A port whose reads come back only when it is interrupted."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.interrupted = threading.Event()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert self.interrupted.wait(20)
        raise ConnectionLost("broken off")

    def interrupt(self) -> None:
        self.interrupted.set()


def test_hanging_port_is_told_about_and_can_be_cancelled():
    layout = Layout((("data", 100_000),))
    source, told = HangingPort(layout.content()), []

    def check() -> bool:
        if told:
            raise CancelRequested
        return False

    started = time.monotonic()
    with small_blocks(), pytest.raises(CancelRequested):
        copy(source, MemoryPort(bytes(100_000)), check=check, on_stall=told.append, stall_seconds=0.3)
    assert source.interrupted.is_set()
    assert 0.3 <= told[0] < 5
    assert time.monotonic() - started < 5


def test_hanging_port_is_told_about_behind_a_limit():
    """Nobody waits for a block as long as the limit keeps others back."""
    layout = Layout((("data", 100 * BLOCK),))
    source, told = HangingPort(layout.content()), []

    def check() -> bool:
        if told:
            raise CancelRequested
        return False

    # The next block may go after two seconds; as many as may be under way, after minutes.
    throttle = Throttle(BLOCK // 2)
    started = time.monotonic()
    with small_blocks(), pytest.raises(CancelRequested):
        copy(
            source,
            MemoryPort(bytes(layout.size_bytes)),
            check=check,
            on_stall=told.append,
            stall_seconds=0.3,
            throttle=throttle,
        )
    assert 0.3 <= told[0] < 5
    assert time.monotonic() - started < 5


def test_stop_that_comes_while_waiting_is_not_forgotten():
    layout = Layout((("data", 600_000),))
    source = MemoryPort(layout.content())
    source.before = lambda operation: time.sleep(0.5)
    asked = []

    def check() -> bool:
        asked.append(1)
        # Once only, and not the first time.
        return len(asked) == 40

    with small_blocks():
        result, _ = copy(source, MemoryPort(bytes(600_000)), check=check)
    assert not result.is_complete


def test_only_room_that_was_given_is_given_back(monkeypatch):
    """Each hole that is punched stops all writes: never where the source has a hole, and nothing was given."""

    class Roomy(MemoryPort):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.zeroed: list[tuple[int, int]] = []

        def expect(self, offset, length):
            return True

        def zero(self, offset, length):
            self.zeroed.append((offset, length))
            super().zero(offset, length)

    monkeypatch.setattr(engine, "_EXPECT_BYTES", SEGMENT // 2)
    with small_blocks(block=64 * KIB, segment=SEGMENT):
        layout = Layout(
            (
                *(("data", SEGMENT), ("data", SEGMENT // 2), ("hole", 24 * KIB), ("data", SEGMENT // 2)),
                *(("zeros", 64 * KIB), ("data", SEGMENT), ("hole", SEGMENT)),
            )
        )
        source, destination = MemoryPort(layout.content(), layout.extents()), Roomy(bytes(layout.size_bytes))
        monkeypatch.setattr(engine, "THREADS", 1)
        copy(source, destination, reads_zero=True)
    assert bytes(destination.bytes) == layout.content()
    hole = 2 * SEGMENT - SEGMENT // 2
    assert not [z for z in destination.zeroed if z[0] < hole + 24 * KIB and z[0] + z[1] > hole]
    assert sum(length for _, length in destination.zeroed) in (0, 64 * KIB)


def test_empty_blocks_take_no_place_in_the_queue():
    """However many holes lie between them, as many blocks of data are under way as there are threads."""
    together = threading.Barrier(engine.THREADS, timeout=20)
    met = []

    class Meeting(MemoryPort):
        """Answers nobody before as many reads as there are threads have been asked for, or time is up."""

        def read_into(self, offset, buffer):
            if not met and not together.broken:
                with contextlib.suppress(threading.BrokenBarrierError):
                    together.wait()
                    met.append(offset)
            super().read_into(offset, buffer)

    with small_blocks():
        layout = Layout((("data", BLOCK), ("hole", 3 * BLOCK)) * 64)
        source, destination = (
            Meeting(layout.content(), layout.extents()),
            MemoryPort(bytes(layout.size_bytes)),
        )
        copy(source, destination, reads_zero=True)
    assert bytes(destination.bytes) == layout.content()
    assert len(met) == engine.THREADS
