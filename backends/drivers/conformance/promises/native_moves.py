"""A driver that moves volumes on its own loses nothing, and can be stopped."""

from __future__ import annotations

from backends.drivers.base import Driver
from backends.drivers.conformance.bench import Bench, Peer, PromiseSkipped, expect, expect_error, read_range
from backends.drivers.conformance.promises.listing import pattern, promise
from backends.drivers.errors import AlreadyExists, NotFound
from backends.drivers.types import Declined, MoveStatus, OpenMode, Support


@promise
def move_to_the_same_pool_is_declined(bench: Bench) -> None:
    """A native move of a pool onto itself is declined, with a reason; nothing is made."""
    driver = bench.driver()
    here = bench.stats(driver).location_info
    answer = driver.plan_move(here, here)
    expect(isinstance(answer, Declined), "plan_move would move a volume onto its own pool")
    expect(bool(answer.reason), "plan_move declines without a reason")
    name, new_name = bench.new_volume(driver), bench.name("new")
    answer = driver.start_move(bench.pool, name, here, bench.pool, new_name)
    expect(isinstance(answer, Declined), "start_move did move a volume onto its own pool")
    with expect_error(NotFound, when="describe of the destination of a declined move"):
        driver.describe(bench.pool, new_name)


@promise
def native_move_keeps_the_source_until_finished(bench: Bench) -> None:
    """
    A native move makes a complete volume, leaves the source readable until it is finished, and can be
    repeated.
    """
    driver, peer, there = _movable(bench)
    name, new_name = bench.new_volume(driver), bench.name("moved")
    content = pattern(bench.size_bytes)
    bench.write(name, (0, content))
    bench.will_move(name, there, peer.pool, new_name)
    for _ in range(2):
        status = _move(driver, bench.pool, name, there, peer.pool, new_name)
        expect(bench.read(name) == content, "the source is not what it was before the move")
        with bench.open(bench.peer_driver(), new_name, OpenMode.SOURCE, peer.pool) as port:
            expect(read_range(port, 0, port.size_bytes) == content, "the destination holds other bytes")
    for _ in range(2):
        driver.finish_move(bench.pool, name, there, peer.pool, new_name)
    if not status.plan.keeps_source:
        with expect_error(NotFound, when="describe of the source after the move was finished"):
            driver.describe(bench.pool, name)
    found = bench.peer_driver().describe(peer.pool, new_name)
    expect(found.size_bytes == bench.size_bytes, f"the moved volume has {found.size_bytes} bytes")


@promise
def native_move_does_not_replace(bench: Bench) -> None:
    """A native move to a name that is taken by another volume is refused, and that volume stays as it was."""
    driver, peer, there = _movable(bench)
    name, taken = bench.new_volume(driver), bench.name("taken")
    other = bench.peer_driver()
    other.create(
        peer.pool, taken, bench.size_bytes, thin=bench.stats(other, peer.pool).thin_provisioning_support
    )
    content = pattern(4096, "taken")
    with bench.open(other, taken, OpenMode.WRITE, peer.pool) as port:
        port.write(0, memoryview(content))
        port.flush()
    with expect_error(AlreadyExists, when="start_move to a name that is taken"):
        driver.start_move(bench.pool, name, there, peer.pool, taken)
    with bench.open(other, taken, OpenMode.SOURCE, peer.pool) as port:
        expect(read_range(port, 0, 4096) == content, "the volume that was in the way was changed")


@promise
def cancelled_move_leaves_nothing(bench: Bench) -> None:
    """A native move that was cancelled leaves the source as it was, and nothing at the destination."""
    driver, peer, there = _movable(bench)
    name, new_name = bench.new_volume(driver), bench.name("moved")
    content = pattern(4096)
    bench.write(name, (0, content))
    bench.will_move(name, there, peer.pool, new_name)
    driver.start_move(bench.pool, name, there, peer.pool, new_name)
    other = bench.peer_driver()
    for _ in range(2):
        driver.cancel_move(bench.pool, name, there, peer.pool, new_name)
        other.delete(peer.pool, new_name)
    with expect_error(NotFound, when="describe of the destination of a cancelled move"):
        other.describe(peer.pool, new_name)
    expect(bench.read(name, 0, 4096) == content, "the cancelled move changed the source")


def _movable(bench: Bench) -> tuple[Driver, Peer, dict]:
    """Return the driver, the other pool and where that is; skip when there is no native move to it."""
    driver = bench.driver()
    if driver.capabilities.move is Support.NONE:
        raise PromiseSkipped("the driver has no native moves")
    other = bench.peer_driver()
    assert bench.peer is not None, "peer_driver() has skipped otherwise"
    there = dict(bench.stats(other, bench.peer.pool).location_info)
    plan = driver.plan_move(bench.stats(driver).location_info, there)
    if isinstance(plan, Declined):
        raise PromiseSkipped(plan.reason)
    return driver, bench.peer, there


def _move(driver: Driver, pool: str, name: str, there: dict, other_pool: str, new_name: str) -> MoveStatus:
    status = driver.start_move(pool, name, there, other_pool, new_name)
    if isinstance(status, Declined):
        raise PromiseSkipped(status.reason)
    for _ in range(1000):
        if status.is_finished:
            return status
        status = driver.poll_move(pool, name, there, other_pool, new_name)
    expect(False, "the move is not finished after it was looked at 1000 times")
    return status
