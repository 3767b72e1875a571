"""Who uses a volume is known, and kept away from others."""

from __future__ import annotations

from backends.drivers.conformance.bench import Bench, PromiseSkipped, expect, expect_error
from backends.drivers.conformance.promises.listing import pattern, promise
from backends.drivers.errors import InUse
from backends.drivers.types import OpenMode, Support


@promise
def exclusive_ports_exclude_each_other(bench: Bench) -> None:
    """While a volume is open for reading as a source or for writing, nobody else can open it as either."""
    one, other = bench.driver(), bench.driver()
    name = bench.new_volume(one)
    for first in (OpenMode.SOURCE, OpenMode.WRITE):
        with bench.open(one, name, first) as port:
            if not port.is_exclusive:
                raise PromiseSkipped("the ports of this pool do not promise to be exclusive")
            for second in (OpenMode.SOURCE, OpenMode.WRITE):
                with expect_error(InUse, when=f"open as {second.value} of what is open as {first.value}"):
                    other.open(bench.pool, name, second).close()
            # A port that was refused, and one for verifying, must not take the lock with them when they go.
            with bench.open(other, name, OpenMode.VERIFY):
                pass
            with expect_error(InUse, when=f"open for writing of what is still open as {first.value}"):
                other.open(bench.pool, name, OpenMode.WRITE).close()


@promise
def close_gives_the_volume_back(bench: Bench) -> None:
    """
    A closed port holds nothing: the volume can be opened again at once, and closing twice is closing
    once.
    """
    name = bench.new_volume(bench.driver())
    for mode in (OpenMode.WRITE, OpenMode.SOURCE, OpenMode.WRITE):
        port = bench.driver().open(bench.pool, name, mode)
        port.close()
        port.close()
    bench.driver().delete(bench.pool, name)


@promise
def open_volume_is_not_deleted(bench: Bench) -> None:
    """A volume that is open for writing is not deleted, and its data stays."""
    name = bench.new_volume(bench.driver())
    content = pattern(4096)
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        if not port.is_exclusive:
            raise PromiseSkipped("the ports of this pool do not promise to be exclusive")
        port.write(0, memoryview(content))
        port.flush()
        with expect_error(InUse, when="delete of a volume that is open for writing"):
            bench.driver().delete(bench.pool, name)
    expect(bench.read(name, 0, 4096) == content, "a refused delete changed data")


@promise
def idle_volume_has_no_users(bench: Bench) -> None:
    """A volume that nobody uses is reported as used by nobody, also when it was open before."""
    driver = bench.driver()
    if driver.capabilities.usage_detection is Support.NONE:
        raise PromiseSkipped("the driver cannot tell who uses a volume")
    name = bench.new_volume(driver)
    bench.write(name, (0, pattern(4096)))
    users = bench.driver().usage(bench.pool, name)
    expect(not users, f"a volume that nobody uses is used by {', '.join(map(str, users))}")


@promise
def new_volume_has_no_snapshots(bench: Bench) -> None:
    """A new volume has no snapshots."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    snapshots = driver.snapshots(bench.pool, name)
    expect(not snapshots, f"a new volume has the snapshots {snapshots}")
