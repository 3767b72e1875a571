"""What is called a hole holds no data."""

from __future__ import annotations

from backends.drivers.conformance.bench import Bench, PromiseSkipped, expect, read_range
from backends.drivers.conformance.promises.listing import pattern, promise
from backends.drivers.ports import Extent, ExtentKind
from backends.drivers.types import MIB, OpenMode


@promise
def extents_cover_the_range(bench: Bench) -> None:
    """The extents of any range follow each other without a gap, are not empty, and end with the range."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    size = bench.size_bytes
    bench.write(name, (size // 4, pattern(5000)), (size // 2 + 1, pattern(70_000)))
    with bench.open(driver, name, OpenMode.SOURCE) as port:
        expect(port.size_bytes == size, f"the port has {port.size_bytes} bytes, the volume {size}")
        for offset, length in (
            (0, size),
            (0, 1),
            (size - 1, 1),
            (size // 4 + 7, 3),
            (4097, size // 2),
            (5, 0),
        ):
            extents = list(port.extents(offset, length))
            _expect_cover(extents, offset, length)


def _expect_cover(extents: list[Extent], offset: int, length: int) -> None:
    position = offset
    for extent in extents:
        expect(extent.offset == position, f"an extent begins at {extent.offset} instead of {position}")
        expect(extent.length > 0, f"the extent at {position} has {extent.length} bytes")
        position = extent.end
    expect(position == offset + length, f"the extents end at {position} instead of {offset + length}")


@promise
def holes_hold_no_data(bench: Bench) -> None:
    """Whatever is reported as a hole reads as zeros: data is never in a hole, also after a zero."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    size = bench.size_bytes
    bench.write(name, (0, pattern(100)), (size // 4, pattern(70_001)), (size - 100, pattern(100)))
    with bench.open(driver, name, OpenMode.WRITE) as port:
        port.write(size // 2, memoryview(pattern(40_000)))
        port.zero(size // 4 + 20_000, 30_000)
        # Not flushed: the report must be true of what was written a moment ago, too.
        for extent in port.extents(0, size):
            if extent.kind is ExtentKind.HOLE:
                content = read_range(port, extent.offset, extent.length)
                expect(not any(content), f"the hole at {extent.offset} ({extent.length} bytes) holds data")


@promise
def sparse_volumes_stay_sparse(bench: Bench) -> None:
    """A thin volume takes room for what was written, not for its size."""
    driver = bench.driver()
    if not bench.is_thin(driver):
        raise PromiseSkipped("the pool has no thin volumes")
    size = max(bench.size_bytes, 64 * MIB)
    name = bench.new_volume(driver, size)
    bench.write(name, (size // 2, pattern(4096)))
    allocated = bench.driver().describe(bench.pool, name).allocated_bytes
    if allocated is None:
        raise PromiseSkipped("the storage does not say what a volume takes")
    expect(allocated > 0, "4096 bytes were written and nothing is allocated")
    expect(allocated <= size // 2, f"{allocated} bytes are allocated for 4096 written of {size}")
