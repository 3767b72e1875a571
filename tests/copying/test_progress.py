"""Progress says nothing before it knows something, and never makes up the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.drivers.types import GIB, MIB
from migrations_app.copying.progress import Progress, remaining_seconds
from tests.copying.test_throttle import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_speed_is_unknown_until_a_second_has_passed_and_something_has_moved(clock):
    progress = Progress(100 * MIB, clock)
    assert progress.bytes_per_second() is None
    progress.add(MIB)
    clock.now += 0.9
    assert progress.bytes_per_second() is None
    clock.now += 0.1
    assert progress.bytes_per_second() == pytest.approx(MIB)


def test_speed_of_nothing_is_unknown_and_not_zero(clock):
    progress = Progress(100 * MIB, clock)
    clock.now += 100
    assert progress.bytes_per_second() is None


def test_speed_is_that_of_the_last_seconds(clock):
    progress = Progress(GIB, clock)
    for speed in (100 * MIB, MIB):
        for _ in range(300):
            clock.now += 0.1
            progress.add(speed // 10)
    assert progress.bytes_per_second() == pytest.approx(MIB, rel=0.05)


def test_stalled_copy_becomes_slow_and_does_not_keep_its_speed(clock):
    progress = Progress(GIB, clock)
    for _ in range(100):
        clock.now += 0.1
        progress.add(MIB)
    clock.now += 600
    assert progress.bytes_per_second() < MIB


def test_earlier_runs_count_as_done_and_not_as_speed(clock):
    progress = Progress(None, clock)
    progress.begin(100 * MIB, 40 * MIB)
    clock.now += 2
    progress.add(2 * MIB)
    assert progress.done_bytes == 42 * MIB
    assert progress.bytes_per_second() == pytest.approx(MIB)


@pytest.mark.parametrize(
    ("done", "total", "speed", "elapsed"),
    [
        (0, None, None, None),
        (50, None, 10.0, 100.0),
        (50, 0, 10.0, 100.0),
        (50, 100, None, 100.0),
        (50, 100, 0.0, 100.0),
        (50, 100, 10.0, None),
        (50, 100, 10.0, 2.9),
        (1, 100, 10.0, 100.0),
    ],
)
def test_remaining_time_is_unknown_while_nobody_can_know(done, total, speed, elapsed):
    assert remaining_seconds(done, total, speed, elapsed) is None


def test_remaining_time_is_the_rest_at_the_present_speed():
    assert remaining_seconds(50, 100, 10.0, 3.0) == 5.0


@given(
    done=st.integers(0, 2**50),
    total=st.one_of(st.none(), st.integers(0, 2**50)),
    speed=st.one_of(st.none(), st.floats(0, 1e12)),
    elapsed=st.one_of(st.none(), st.floats(0, 1e9)),
)
def test_remaining_time_is_never_negative(done, total, speed, elapsed):
    remaining = remaining_seconds(done, total, speed, elapsed)
    assert remaining is None or remaining >= 0
