"""The bandwidth limit, on a clock that only the test moves."""

from __future__ import annotations

import pytest

from backends.drivers.types import MIB
from migrations_app.copying.throttle import Throttle
from tests.copying.ports import BLOCK, SEGMENT, MemoryPort, copy, small_blocks


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        # As with a real clock, no sleep takes no time at all.
        self.now += max(seconds, 1e-6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _throttle(clock: Clock, limit: int | None) -> Throttle:
    return Throttle(limit, clock=clock, sleep=clock.sleep)


def _never() -> bool:
    return False


@pytest.mark.parametrize("limit", [1000, 300_000, 10 * MIB, 1000 * MIB])
@pytest.mark.parametrize("count", [65_536, MIB])
def test_long_run_rate_is_the_limit_within_one_percent(clock, limit, count):
    throttle = _throttle(clock, limit)
    started = clock.now
    rounds = 300
    for _ in range(rounds):
        assert throttle.take(count, _never)
        # The work itself takes a little time too, less than the limit allows.
        clock.now += 0.3 * count / limit
    # What was taken last is still owed.
    elapsed = clock.now - started - 0.3 * count / limit + count / limit
    assert rounds * count / elapsed == pytest.approx(limit, rel=0.01)


def test_rest_gives_a_burst_of_a_quarter_of_a_second_at_most(clock):
    throttle = _throttle(clock, 1000)
    clock.now += 3600
    taken = 0
    while not clock.sleeps:
        throttle.take(10, _never)
        taken += 10
    assert taken <= 250 + 20


def test_debt_is_waited_off_by_the_next(clock):
    throttle = _throttle(clock, MIB)
    assert throttle.take(5 * MIB, _never)
    assert clock.sleeps == []
    started = clock.now
    assert throttle.take(1, _never)
    assert clock.now - started == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("new_limit", [100 * MIB, None])
def test_raised_limit_acts_on_who_is_waiting(clock, new_limit):
    throttle = _throttle(clock, 1000)
    throttle.take(MIB, _never)
    waited = 0

    def raise_after_a_second() -> bool:
        nonlocal waited
        waited += 1
        if waited == 10:
            throttle.set_limit(new_limit)
        return False

    started = clock.now
    assert throttle.take(MIB, raise_after_a_second)
    assert clock.now - started <= 1.2


def test_lowered_limit_acts_at_once(clock):
    throttle = _throttle(clock, 1000 * MIB)
    clock.now += 10
    throttle.take(MIB, _never)
    throttle.set_limit(MIB)
    started = clock.now
    for _ in range(10):
        throttle.take(MIB, _never)
    # No burst that was saved up at the old limit is spent at the new one.
    assert clock.now - started >= 8.9


def test_limit_that_is_set_again_and_again_is_the_same_limit(clock):
    throttle = _throttle(clock, MIB)
    started = clock.now
    for _ in range(50):
        throttle.set_limit(MIB)
        throttle.take(MIB, _never)
    assert clock.now - started == pytest.approx(49, rel=0.01)


def test_limit_set_after_unlimited_work_owes_nothing_for_it(clock):
    throttle = _throttle(clock, None)
    for _ in range(1000):
        throttle.take(MIB, _never)
    throttle.set_limit(MIB)
    throttle.take(MIB, _never)
    assert clock.sleeps == []


def test_stop_while_waiting_is_obeyed_within_a_tenth_of_a_second(clock):
    throttle = _throttle(clock, 1)
    throttle.take(MIB, _never)
    started = clock.now
    assert not throttle.take(1, lambda: clock.now - started >= 1.0)
    assert clock.now - started <= 1.1 + 1e-6
    assert max(clock.sleeps) <= 0.1


def test_error_while_waiting_is_passed_on(clock):
    throttle = _throttle(clock, 1)
    throttle.take(MIB, _never)

    def cancelled() -> bool:
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        throttle.take(1, cancelled)


def test_throttled_copy_takes_its_time_and_stops_in_the_middle_of_a_wait(clock):
    content = b"x" * (4 * SEGMENT)
    with small_blocks():
        started = clock.now
        copy(MemoryPort(content), MemoryPort(bytes(len(content))), throttle=_throttle(clock, BLOCK))
        assert clock.now - started == pytest.approx(4 * SEGMENT // BLOCK, abs=1.1)
        started = clock.now
        result, segments = copy(
            MemoryPort(content),
            MemoryPort(bytes(len(content))),
            throttle=_throttle(clock, BLOCK),
            check=lambda: clock.now - started > 10.5,
        )
    assert not result.is_complete
    assert len(segments) == 2
    assert clock.now - started < 10.7
