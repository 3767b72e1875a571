import math

import pytest

from backends.drivers.types import GIB
from migrations_app.scheduler import weighers
from migrations_app.scheduler.expressions import ExpressionError
from migrations_app.scheduler.weighers import (
    DEFAULT_WEIGHERS,
    Weigher,
    as_weigher,
    check_multipliers,
    normalise,
)
from tests.unit.scheduler.values import make_pool, make_request


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([5], [0.0]),
        ([3, 3], [0.0, 0.0]),
        ([0, 5, 10], [0.0, 0.5, 1.0]),
        ([-10, 0], [0.0, 1.0]),
        ([1, 3, math.inf], [0.0, 1.0, 1.0]),
        ([1, 3, -math.inf], [0.0, 1.0, 0.0]),
        ([math.inf, math.inf], [0.0, 0.0]),
        ([math.nan, 2.0], [0.0, 1.0]),
        ([-1e308, 1e308], [0.0, 1.0]),
    ],
)
def test_values_are_brought_between_0_and_1(values, expected):
    assert normalise(values) == expected


def test_free_space_after_the_move_keeps_reserve_and_promises():
    pool = make_pool(
        reserved_percentage=10,
        reserved_by_migrations_physical_bytes=9 * GIB,
        reserved_by_migrations_provisioned_bytes=0,
    )
    assert weighers.free_space_after(make_request(), pool) == pytest.approx(0.40)
    assert weighers.free_space_after(make_request(native_how="reflink"), pool) == pytest.approx(0.41)
    assert weighers.free_space_after(make_request(), make_pool(is_infinite=True)) == 1.0
    assert weighers.free_space_after(make_request(), make_pool(total_bytes=None)) == 0.0


def test_virtual_capacity_is_what_may_still_be_promised():
    assert weighers.virtual_capacity(make_request(), make_pool(max_over_subscription_ratio=2.0)) == 160.0
    assert weighers.virtual_capacity(make_request(), make_pool(total_bytes=None)) == 0.0
    assert weighers.virtual_capacity(make_request(), make_pool(is_infinite=True)) == math.inf


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("", 0.0),
        ("stats.free_capacity_gb > 50 ? 80 : 20", 80.0),
        ("volume.size < 5", 100.0),
        ("volume.size > 5", 0.0),
        ("100 / 3", pytest.approx(100 / 3)),
    ],
)
def test_goodness_is_0_to_100(function, expected):
    assert weighers.checked_goodness(make_request(), make_pool(goodness_function=function)) == expected


@pytest.mark.parametrize("function", ["101", "-1", "'good'", "stats.nothing", "1 +"])
def test_goodness_that_is_of_no_use_counts_as_0(function):
    pool = make_pool(goodness_function=function)
    assert weighers.goodness(make_request(), pool) == 0.0
    with pytest.raises(ExpressionError):
        weighers.checked_goodness(make_request(), pool)


def test_names_of_weighers_are_unique():
    names = [weigher.name for weigher in DEFAULT_WEIGHERS]
    assert len(set(names)) == len(names)


def test_a_plain_function_is_a_weigher():
    def fridays_only(request, pool):
        return 7

    weigher = as_weigher(fridays_only)
    assert (weigher.name, weigher.label, weigher.multiplier) == ("fridays_only", "fridays only", 1.0)
    assert as_weigher(weigher) is weigher
    assert isinstance(weigher, Weigher)


@pytest.mark.parametrize(
    ("multipliers", "part"),
    [
        ({"goodnes": 1.0}, "no weigher 'goodnes'"),
        ({"goodness": math.inf}, "finite"),
        ({"goodness": math.nan}, "finite"),
    ],
)
def test_multipliers_that_cannot_be_used_are_refused(multipliers, part):
    with pytest.raises(ValueError, match=part):
        check_multipliers(multipliers, DEFAULT_WEIGHERS)
