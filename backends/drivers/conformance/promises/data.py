"""What is written is read back, and nothing else."""

from __future__ import annotations

import threading

from backends.drivers.conformance.bench import Bench, PromiseSkipped, expect, expect_error, read_range
from backends.drivers.conformance.promises.listing import pattern, promise
from backends.drivers.errors import NoSpace, NotPermitted, Unsupported
from backends.drivers.ports import ExtentKind
from backends.drivers.types import GIB, KIB, MIB, OpenMode


@promise
def new_volume_reads_as_zeros(bench: Bench) -> None:
    """A new volume reads as zeros from end to end, if its port says so, also where a deleted one lay."""
    driver = bench.driver()
    used = bench.new_volume(driver)
    bench.write(used, (0, pattern(bench.size_bytes, "old data")))
    driver.delete(bench.pool, used)
    name = bench.new_volume(driver)
    with bench.open(driver, name, OpenMode.SOURCE) as port:
        if not port.reads_zero_when_new:
            raise PromiseSkipped("the pool does not promise that new volumes read as zeros")
        expect(not any(read_range(port, 0, port.size_bytes)), "a new volume holds something else than zeros")


@promise
def flushed_data_is_read_back(bench: Bench) -> None:
    """What was written and flushed is read back from end to end by another driver object, in every mode."""
    name = bench.new_volume(bench.driver())
    content = pattern(bench.size_bytes)
    bench.write(name, *((at, content[at : at + MIB]) for at in range(0, len(content), MIB)))
    for mode in OpenMode:
        expect(
            bench.read(name, mode=mode) == content, f"as {mode.value}, other bytes are read than were written"
        )


@promise
def data_is_read_back_while_open(bench: Bench) -> None:
    """What was written and flushed can be verified while the port that wrote it is still open."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    content = pattern(256 * KIB)
    with bench.open(driver, name, OpenMode.WRITE) as port:
        port.write(0, memoryview(content))
        port.flush()
        expect(bench.read(name, 0, len(content)) == content, "other bytes are verified than were written")
        expect(read_range(port, 0, len(content)) == content, "other bytes are read than were written")


@promise
def edges_are_kept(bench: Bench) -> None:
    """A write or a zero of any length at any offset changes those bytes and no others."""
    name = bench.new_volume(bench.driver(), MIB + 511)
    expected = bytearray(pattern(MIB + 511, "ground"))
    bench.write(name, (0, bytes(expected)))
    places = [(0, 1), (1, 511), (4095, 2), (8191, 4097), (100_001, 70_003), (MIB + 510, 1), (MIB - 3, 514)]
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        for offset, length in places:
            piece = pattern(length, f"edge {offset}")
            port.write(offset, memoryview(piece))
            expected[offset : offset + length] = piece
        for offset, length in ((20_001, 3), (30_000, 9_001), (200_123, 300_000), (MIB + 500, 11)):
            port.zero(offset, length)
            expected[offset : offset + length] = bytes(length)
        port.flush()
    found = bench.read(name)
    wrong = next((at for at in range(len(expected)) if found[at] != expected[at]), None)
    expect(wrong is None, f"the byte at {wrong} is not what was written")


@promise
def zero_makes_zeros(bench: Bench) -> None:
    """A range that was zeroed in the middle of data reads as zeros, durably, and its neighbours stay."""
    name = bench.new_volume(bench.driver())
    content = bytearray(pattern(bench.size_bytes))
    bench.write(name, (0, bytes(content)))
    start, length = bench.size_bytes // 4, bench.size_bytes // 2
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        port.zero(start, length)
        port.flush()
    content[start : start + length] = bytes(length)
    expect(not any(bench.read(name, start, length)), "the range does not read as zeros")
    expect(bench.read(name) == content, "zeroing changed bytes outside the range")


@promise
def threads_do_not_disturb_each_other(bench: Bench) -> None:
    """Several threads may write, zero and read one port at the same time, on ranges of their own."""
    name = bench.new_volume(bench.driver())
    share = bench.size_bytes // 4
    content = pattern(bench.size_bytes)
    failures: list[str] = []

    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:

        def work(start: int) -> None:
            try:
                for at in range(start, start + share, 33_333):
                    piece = content[at : min(at + 33_333, start + share)]
                    port.zero(at, len(piece))
                    port.write(at, memoryview(piece))
                    if read_range(port, at, len(piece)) != piece:
                        failures.append(f"other bytes were read at {at} than were written")
            except Exception as error:  # Reported by the promise, whatever it is.
                failures.append(str(error))

        threads = [threading.Thread(target=work, args=(share * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        port.flush()
    expect(not failures, "; ".join(failures[:3]))
    expect(bench.read(name, 0, share * 4) == content[: share * 4], "other bytes are read than were written")


@promise
def far_offsets_are_reached(bench: Bench) -> None:
    """Bytes beyond 4 GiB are where they belong."""
    driver = bench.driver()
    if not bench.is_thin(driver):
        raise PromiseSkipped("a volume that large would take its room; the pool has no thin ones")
    size = 5 * GIB + 12_345
    try:
        name = bench.new_volume(driver, size)
    except (NoSpace, Unsupported) as error:
        raise PromiseSkipped(f"a volume of {size} bytes does not fit: {error.message}") from error
    content = pattern(8 * KIB, "far")
    places = (0, 4 * GIB - 4 * KIB, size - len(content))
    bench.write(name, *((at, content) for at in places))
    for at in places:
        expect(bench.read(name, at, len(content)) == content, f"the bytes written at {at} are not there")


@promise
def writing_needs_the_write_mode(bench: Bench) -> None:
    """A port that was opened for reading refuses to write, zero, or go beyond the end."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    content = pattern(4096)
    bench.write(name, (0, content))
    for mode in (OpenMode.SOURCE, OpenMode.VERIFY):
        with bench.open(driver, name, mode) as port:
            with expect_error(NotPermitted, Unsupported, when=f"write on a port opened as {mode.value}"):
                port.write(0, memoryview(bytes(4096)))
            with expect_error(NotPermitted, Unsupported, when=f"zero on a port opened as {mode.value}"):
                port.zero(0, 4096)
    expect(bench.read(name, 0, 4096) == content, "a refused write changed data")


@promise
def what_was_flushed_can_be_read_beside_the_writer(bench: Bench) -> None:
    """Where the driver says so: a VERIFY port that is open meanwhile sees the bytes, and no hole in their place."""
    driver = bench.driver()
    if not driver.reads_beside_writer:
        raise PromiseSkipped("the driver does not let a volume be read while it is written")
    name = bench.new_volume(driver)
    with (
        bench.open(driver, name, OpenMode.WRITE) as writer,
        bench.open(driver, name, OpenMode.VERIFY) as reader,
    ):
        for at in (0, bench.size_bytes // 2):
            content = pattern(64 * KIB, str(at))
            writer.write(at, memoryview(content))
            writer.flush()
            kinds = {extent.kind for extent in reader.extents(at, len(content))}
            expect(kinds == {ExtentKind.DATA}, f"what was written and flushed at {at} is called a hole")
            expect(read_range(reader, at, len(content)) == content, f"other bytes are read at {at}")
