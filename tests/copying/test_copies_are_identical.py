"""Whatever the volume looks like and whenever the copy was broken off: in the end both are the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.drivers.base import DriverContext
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.types import MIB, OpenMode
from migrations_app.copying import digests, engine
from tests.copying.ports import (
    BLOCK,
    SEGMENT,
    Countdown,
    Layout,
    MemoryPort,
    copy,
    expected_digests,
    old_bytes,
    read_back,
    small_blocks,
)

_LENGTHS = st.one_of(
    st.sampled_from([1, 511, BLOCK - 1, BLOCK, BLOCK + 1, SEGMENT, SEGMENT + 3]),
    st.integers(1, 3 * SEGMENT),
)
LAYOUTS = st.builds(
    Layout,
    runs=st.lists(
        st.tuples(st.sampled_from(["data", "zeros", "hole"]), _LENGTHS), min_size=1, max_size=8
    ).map(tuple),
    seed=st.integers(0, 1000),
)
quick = settings(deadline=None, max_examples=150)


def _destination(layout: Layout, *, is_dirty: bool) -> MemoryPort:
    size = layout.size_bytes
    return MemoryPort(old_bytes(size) if is_dirty else bytes(size))


@quick
@given(layout=LAYOUTS, knows_holes=st.booleans(), is_dirty=st.booleans())
def test_copy_is_identical_also_on_a_destination_full_of_old_bytes(layout, knows_holes, is_dirty):
    content = layout.content()
    source = MemoryPort(content, layout.extents() if knows_holes else None)
    destination = _destination(layout, is_dirty=is_dirty)
    with small_blocks():
        result, segments = copy(source, destination, reads_zero=not is_dirty)
        assert bytes(destination.bytes) == content
        assert [s.digest for s in segments] == expected_digests(content)
        assert [s.index for s in segments] == list(range(len(segments)))
        assert read_back(destination) == [s.digest for s in segments]
    assert result.is_complete
    assert destination.faults == source.faults == []
    data = sum(n for kind, n in layout.runs if kind != "hole" or not knows_holes)
    assert result.data_bytes == sum(s.data_bytes for s in segments) == data


@quick
@given(layout=LAYOUTS)
def test_holes_have_the_digest_of_written_zeros(layout):
    written = Layout(tuple(("zeros" if kind == "hole" else kind, n) for kind, n in layout.runs), layout.seed)
    with small_blocks():
        assert read_back(MemoryPort(layout.content(), layout.extents())) == read_back(
            MemoryPort(written.content(), written.extents())
        )


@quick
@given(layout=LAYOUTS, stop_at=st.integers(1, 60), loses_power=st.booleans())
def test_stopped_copy_ends_at_a_checkpoint_and_goes_on_from_there(layout, stop_at, loses_power):
    content = layout.content()
    source = MemoryPort(content, layout.extents())
    destination = _destination(layout, is_dirty=True)
    expected = expected_digests(content)
    segments: list = []
    with small_blocks():
        for _ in range(1 + len(expected) * 6):
            check = Countdown(stop_at, lambda: True)
            before = len(segments)
            result, _ = copy(source, destination, first_segment=before, results=segments, check=check)
            assert result.is_complete == (check.calls < stop_at)
            if loses_power:
                destination.lose_power()
            if result.is_complete:
                break
            if len(segments) == before:
                # Stopped within the first segment each time: the caller must let it go further.
                stop_at += 3
        assert read_back(destination) == expected
    assert [s.digest for s in segments] == expected
    assert bytes(destination.bytes) == content
    assert destination.faults == []


class Broken(Exception):
    pass


@quick
@given(
    layout=LAYOUTS,
    where=st.sampled_from(["check", "fence", "read", "write", "zero", "flush", "checkpoint"]),
    at=st.integers(1, 40),
    loses_power=st.booleans(),
)
def test_broken_off_copy_goes_on_from_its_last_checkpoint(layout, where, at, loses_power):
    content = layout.content()
    source = MemoryPort(content, layout.extents())
    destination = _destination(layout, is_dirty=True)
    segments: list = []

    def fail() -> None:
        raise Broken

    broken = Countdown(at, fail)
    source.before = destination.before = lambda operation: broken() if operation == where else None
    guards = {where: broken} if where in ("check", "fence") else {}
    with small_blocks():
        try:
            if where == "checkpoint":
                real = destination.believe
                destination.believe = lambda segments, size=SEGMENT: (broken(), real(segments, size))
            copy(source, destination, results=segments, **guards)
        except Broken:
            assert source.under_way == destination.under_way == 0
            if loses_power:
                destination.lose_power()
            source.before = destination.before = lambda operation: None
            destination.believe = MemoryPort.believe.__get__(destination)
            copy(source, destination, first_segment=len(segments), results=segments)
        destination.before = lambda operation: None
        assert read_back(destination) == [s.digest for s in segments] == expected_digests(content)
    assert bytes(destination.bytes) == content
    assert destination.faults == []


@pytest.mark.parametrize("first_segment", range(8))
def test_every_checkpoint_is_a_place_to_go_on_from(first_segment):
    layout = Layout((("data", SEGMENT + 5), ("hole", 2 * SEGMENT), ("zeros", SEGMENT), ("data", 3 * SEGMENT)))
    content = layout.content()
    destination = MemoryPort(content[: first_segment * SEGMENT].ljust(len(content), b"\xa5"))
    with small_blocks():
        _, segments = copy(MemoryPort(content, layout.extents()), destination, first_segment=first_segment)
    assert [s.digest for s in segments] == expected_digests(content)[first_segment:]
    assert bytes(destination.bytes) == content


# -- real files -------------------------------------------------------------------------------------------------


def _write_layout(path: Path, layout: Layout) -> None:
    content = layout.content()
    with path.open("wb") as file:
        file.truncate(layout.size_bytes)
        for extent, (kind, _) in zip(layout.extents(), layout.runs, strict=True):
            if kind != "hole":
                file.seek(extent.offset)
                file.write(content[extent.offset : extent.end])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUTS, is_dirty=st.booleans(), stop_at=st.integers(1, 40))
def test_copy_between_real_files_is_identical(tmp_path, layout, is_dirty, stop_at):
    one, two = tmp_path / "one", tmp_path / "two"
    _write_layout(one, layout)
    two.write_bytes(old_bytes(layout.size_bytes) if is_dirty else b"")
    os.truncate(two, layout.size_bytes)
    segments: list = []
    with small_blocks():
        with (
            LocalFilePort(str(one), OpenMode.SOURCE) as source,
            LocalFilePort(str(two), OpenMode.WRITE) as to,
        ):
            result, _ = copy(
                source, to, reads_zero=not is_dirty, results=segments, check=Countdown(stop_at, lambda: True)
            )
            if not result.is_complete:
                copy(source, to, first_segment=len(segments), results=segments)
        with LocalFilePort(str(two), OpenMode.VERIFY) as port:
            assert read_back(port) == [s.digest for s in segments]
    assert two.read_bytes() == layout.content()
    if not is_dirty and stop_at > 30:
        assert two.stat().st_blocks <= one.stat().st_blocks + 8


@pytest.mark.parametrize("size", [1, 4097, 200 * MIB + 511])
def test_sparse_volume_of_a_directory_is_copied_in_real_blocks(tmp_path, size):
    drivers = []
    for name in "ab":
        (tmp_path / name).mkdir()
        driver = DirectoryDriver(DriverContext(f"h@{name}", "h", DirectoryOptions(path=str(tmp_path / name))))
        driver.check()
        driver.create("main", "v", size)
        drivers.append(driver)
    with (tmp_path / "a" / "v.raw").open("r+b") as file:
        for offset in (0, 70 * MIB + 3, 128 * MIB - 1, size - 1):
            if offset < size:
                file.seek(offset)
                file.write(b"data"[: size - offset])
    with (
        drivers[0].open("main", "v", OpenMode.SOURCE) as source,
        drivers[1].open("main", "v", OpenMode.WRITE) as destination,
    ):
        result, segments = copy(source, destination, reads_zero=destination.reads_zero_when_new)
    assert result.is_complete
    assert len(segments) == digests.segment_count(size)
    with drivers[1].open("main", "v", OpenMode.VERIFY) as port:
        assert read_back(port) == [s.digest for s in segments]
    with (tmp_path / "a" / "v.raw").open("rb") as one, (tmp_path / "b" / "v.raw").open("rb") as two:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(two, "sha256").digest()
    assert (tmp_path / "b" / "v.raw").stat().st_blocks * 512 <= 4 * MIB


def test_proof_of_the_volume_depends_on_every_segment():
    with small_blocks():
        whole = digests.volume_digest(expected_digests(bytes(3 * SEGMENT)))
        other = digests.volume_digest(expected_digests(bytes(3 * SEGMENT - 1) + b"\1"))
        swapped = digests.volume_digest(expected_digests(b"\1" + bytes(3 * SEGMENT - 1)))
    assert len({whole, other, swapped}) == 3


def test_digest_of_zeros_is_that_of_a_volume_read_in_real_blocks():
    size = digests.SEGMENT_BYTES + 12345
    port = MemoryPort(bytes(size))
    assert read_back(port) == [digests.zero_segment_digest(n) for n in (digests.SEGMENT_BYTES, 12345)]
    assert engine.data_bytes(port) == size
