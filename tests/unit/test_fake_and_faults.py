"""What the fake driver and the faulty driver add to the contract, for the tests that build on them."""

import time
import uuid

import pytest

from backends.drivers.base import Driver, DriverContext
from backends.drivers.conformance import run_promises
from backends.drivers.errors import ConnectionLost, CorruptData, InUse, NoSpace, NotFound, TimedOut
from backends.drivers.fake import PAGE_BYTES, FakeDriver, FakeOptions
from backends.drivers.types import OpenMode, Usage
from tests.faults import CutReads, CutWrites, Delay, DoThenRaise, FailFlush, FaultPlan, FaultyDriver, Raise

SIZE = 10 * PAGE_BYTES


@pytest.fixture
def make_driver():
    store = uuid.uuid4().hex

    def make(**options):
        return FakeDriver(DriverContext("h@fake", "h", FakeOptions(store=store, **options)))

    return make


@pytest.fixture
def plan():
    return FaultPlan()


@pytest.fixture
def faulty(make_driver, plan):
    make_driver().create("main", "a", SIZE)
    return FaultyDriver(make_driver(), plan)


def test_power_loss_takes_what_was_not_flushed(make_driver):
    driver = make_driver()
    driver.create("main", "a", SIZE)
    port = driver.open("main", "a", OpenMode.WRITE)
    port.write(0, memoryview(b"kept"))
    port.flush()
    port.write(2, memoryview(b"lost"))
    port.write(PAGE_BYTES, memoryview(b"lost"))
    port.zero(0, 1)
    driver.store.lose_power()
    with driver.open("main", "a", OpenMode.WRITE) as fresh:
        port.close()
        buffer = bytearray(PAGE_BYTES + 4)
        fresh.read_into(0, memoryview(buffer))
        assert bytes(buffer[:8]) == b"kept\0\0\0\0"
        assert bytes(buffer[-4:]) == bytes(4)
        with pytest.raises(InUse):
            driver.open("main", "a", OpenMode.WRITE)


def test_full_pool_is_no_space(make_driver):
    driver = make_driver(capacity_bytes=2 * PAGE_BYTES)
    driver.create("main", "a", SIZE)
    with driver.open("main", "a", OpenMode.WRITE) as port:
        port.write(0, memoryview(bytes(2 * PAGE_BYTES)))
        with pytest.raises(NoSpace):
            port.write(2 * PAGE_BYTES, memoryview(b"x"))
        port.write(PAGE_BYTES, memoryview(b"room that it has already"))
    with pytest.raises(NoSpace):
        driver.create("main", "b", SIZE, thin=False)


def test_snapshots_and_users_are_set_by_tests(make_driver):
    driver = make_driver()
    driver.create("main", "a", SIZE)
    volume = driver.store.volume("main", "a")
    volume.snapshots.append("daily")
    volume.usage.append(Usage("process 1 (init)", "has it open"))
    assert driver.snapshots("main", "a") == ["daily"]
    assert driver.usage("main", "a") == volume.usage
    with pytest.raises(InUse, match="process 1"):
        driver.delete("main", "a")


def test_slow_move_is_finished_after_as_many_polls_as_asked_for(make_driver):
    driver = make_driver(pools="main,other", slow_move_polls=2)
    there = driver.pools()[1].location_info
    driver.create("main", "a", SIZE)
    move = ("main", "a", there, "other", "b")
    with pytest.raises(NotFound):
        driver.poll_move(*move)
    assert not driver.start_move(*move).is_finished
    with pytest.raises(NotFound):
        driver.describe("other", "b")
    # Another driver object sees the same move, as after the end of the process that started it.
    driver = make_driver(pools="main,other", slow_move_polls=2)
    assert [driver.poll_move(*move).is_finished for _ in range(3)] == [False, True, True]
    assert driver.describe("other", "b").size_bytes == SIZE


def test_faulty_driver_without_faults_keeps_every_promise(make_driver, plan):
    results = list(run_promises(lambda: FaultyDriver(make_driver(), plan), "main"))
    assert [result.error_text for result in results if not result.passed] == []
    assert isinstance(FaultyDriver(make_driver(), plan), Driver)


def test_faults_come_in_order_and_once(faulty, plan):
    plan.add("describe", None, Raise(ConnectionLost("gone")))
    faulty.describe("main", "a")
    with pytest.raises(ConnectionLost):
        faulty.describe("main", "a")
    faulty.describe("main", "a")
    assert plan.is_used_up
    assert [name for name, _ in plan.calls] == ["describe"] * 3


def test_lost_reply_is_a_call_that_was_done(faulty, plan, make_driver):
    plan.add("delete", DoThenRaise(TimedOut("no answer")))
    with pytest.raises(TimedOut):
        faulty.delete("main", "a")
    with pytest.raises(NotFound):
        make_driver().describe("main", "a")


def test_lost_reply_of_an_open_holds_nothing(faulty, plan, make_driver):
    plan.add("open", DoThenRaise(TimedOut("no answer")))
    with pytest.raises(TimedOut):
        faulty.open("main", "a", OpenMode.WRITE)
    make_driver().open("main", "a", OpenMode.WRITE).close()


def test_delay_takes_time(faulty, plan):
    plan.add("check", Delay(0.05))
    started = time.monotonic()
    faulty.check()
    assert time.monotonic() - started >= 0.05


def test_cut_write_writes_what_comes_before_the_cut(faulty, plan, make_driver):
    plan.add("open", CutWrites(6, ConnectionLost("cut")))
    with faulty.open("main", "a", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"abcd"))
        with pytest.raises(ConnectionLost):
            port.write(4, memoryview(b"efgh"))
        with pytest.raises(ConnectionLost):
            port.zero(0, 1)
    buffer = bytearray(8)
    with make_driver().open("main", "a", OpenMode.VERIFY) as port:
        port.read_into(0, memoryview(buffer))
    assert bytes(buffer) == b"abcdef\0\0"


def test_cut_read_fails_after_so_many_bytes(faulty, plan):
    plan.add("open", CutReads(4, CorruptData("cut")))
    with faulty.open("main", "a", OpenMode.SOURCE) as port:
        port.read_into(0, memoryview(bytearray(4)))
        with pytest.raises(CorruptData):
            port.read_into(4, memoryview(bytearray(1)))


def test_failing_flush_fails_for_ever(faulty, plan):
    plan.add("open", FailFlush(CorruptData("lost"), successes=1))
    with faulty.open("main", "a", OpenMode.WRITE) as port:
        port.flush()
        for _ in range(2):
            with pytest.raises(CorruptData):
                port.flush()
