"""What was copied and flushed is read back beside the copying, while the copy waits for its source."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from backends.drivers.errors import ConnectionLost
from migrations_app.copying import engine
from migrations_app.copying.read_behind import ReadBehind
from migrations_app.copying.throttle import Throttle
from tests.copying.ports import SEGMENT, Layout, MemoryPort, expected_digests, old_bytes, small_blocks

LAYOUT = Layout((("data", 9 * SEGMENT), ("hole", 2 * SEGMENT + 7), ("data", 5 * SEGMENT)))
CONTENT = LAYOUT.content()


@pytest.fixture(autouse=True)
def blocks():
    with small_blocks():
        yield


def _slow(port: MemoryPort, operation: str) -> MemoryPort:
    port.before = lambda name: time.sleep(0.004) if name == operation else None
    return port


def _copy(source, destination, open_port=None, at_checkpoint=lambda end: None, **guards):
    """Copy; return what was copied, and what was read back before the copy had ended."""
    told = engine.Guards(checkpoint_seconds=0.0, **guards)
    copied: list[engine.SegmentResult] = []
    read: list[engine.SegmentResult] = []
    with closing(ReadBehind(open_port or (lambda: destination), 0, told)) as behind:

        def checkpoint(segments):
            copied.extend(segments)
            destination.believe(segments)
            behind.offer(copied[-1].index + 1)
            at_checkpoint(len(copied))
            read.extend(behind.take())

        engine.copy(
            source,
            destination,
            first_segment=0,
            destination_reads_zero=False,
            guards=told,
            checkpoint=checkpoint,
        )
    read.extend(behind.take())
    return copied, read


def test_copy_that_waits_for_its_source_is_read_back_meanwhile():
    source = _slow(MemoryPort(CONTENT, LAYOUT.extents()), "read")
    destination = MemoryPort(old_bytes(len(CONTENT)))
    copied, read = _copy(source, destination, at_checkpoint=lambda count: time.sleep(0.02))
    assert bytes(destination.bytes) == CONTENT
    assert len(read) > len(copied) // 2
    assert [r.index for r in read] == list(range(len(read)))
    assert [r.digest for r in read] == expected_digests(CONTENT)[: len(read)]
    assert destination.faults == []


def test_copy_that_waits_for_its_destination_is_left_alone():
    destination = _slow(MemoryPort(old_bytes(len(CONTENT))), "write")
    opened = []
    _, read = _copy(MemoryPort(CONTENT, LAYOUT.extents()), destination, lambda: opened.append(1))
    assert (read, opened) == ([], [])
    assert bytes(destination.bytes) == CONTENT


def test_limited_copy_keeps_its_bandwidth_for_itself():
    source = _slow(MemoryPort(CONTENT, LAYOUT.extents()), "read")
    opened = []
    _, read = _copy(
        source, MemoryPort(old_bytes(len(CONTENT))), lambda: opened.append(1), throttle=Throttle(1 << 30)
    )
    assert (read, opened) == ([], [])


def test_bytes_that_differ_are_seen_before_everything_is_copied():
    class Forgetful(MemoryPort):
        def read_into(self, offset, buffer):
            super().read_into(offset, buffer)
            if offset <= 3 * SEGMENT < offset + len(buffer):
                buffer[3 * SEGMENT - offset] ^= 1

    source = _slow(MemoryPort(CONTENT, LAYOUT.extents()), "read")
    seen_at = []

    def look(count):
        time.sleep(0.02)

    copied, read = _copy(source, Forgetful(old_bytes(len(CONTENT))), at_checkpoint=look)
    seen_at = [r.index for r, c in zip(read, copied, strict=False) if r.digest != c.digest]
    assert seen_at == [3]


@pytest.mark.parametrize("when", ["open", "read"])
def test_whatever_fails_here_is_left_to_the_pass_that_follows(when, caplog):
    class Broken(MemoryPort):
        def read_into(self, offset, buffer):
            raise ConnectionLost("gone")

    def open_port():
        if when == "open":
            raise ConnectionLost("gone")
        return Broken(CONTENT)

    source = _slow(MemoryPort(CONTENT, LAYOUT.extents()), "read")
    destination = MemoryPort(old_bytes(len(CONTENT)))
    copied, read = _copy(source, destination, open_port, at_checkpoint=lambda count: time.sleep(0.01))
    assert (len(copied), read) == (len(expected_digests(CONTENT)), [])
    assert bytes(destination.bytes) == CONTENT
    assert "while it is written" in caplog.text


def test_reading_ends_with_the_copy():
    """A destination that does not come back is not waited for longer than its port takes to give up."""
    hanging, ended = threading.Event(), threading.Event()

    class Hanging(MemoryPort):
        def read_into(self, offset, buffer):
            hanging.set()
            ended.wait(30)
            raise ConnectionLost("interrupted")

        def interrupt(self):
            ended.set()

    source = _slow(MemoryPort(CONTENT, LAYOUT.extents()), "read")
    destination = MemoryPort(old_bytes(len(CONTENT)))
    port = Hanging(CONTENT)
    copied, read = _copy(
        source, destination, lambda: port, lambda count: hanging.wait(5) if count == 4 else None
    )
    assert hanging.is_set()
    assert ended.is_set()
    assert (len(copied), read) == (len(expected_digests(CONTENT)), [])
    assert not [t for t in threading.enumerate() if t.name == "read-behind"]
