"""The fake driver keeps every promise."""

import uuid

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, run_promises
from backends.drivers.fake import FakeDriver, FakeOptions, FakeStore

VARIANTS = {
    "plain": {},
    "two_pools": {"pools": "main,other"},
    "slow_moves": {"pools": "main,other", "slow_move_polls": 3},
    "dirty": {"dirty_new_volumes": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_fake_driver_keeps(promise, variant):
    options = FakeOptions(store=uuid.uuid4().hex, **VARIANTS[variant])
    (result,) = run_promises(
        lambda: FakeDriver(DriverContext("h@fake", "h", options)), "main", only={promise}
    )
    assert result.passed, result.error_text
    assert FakeStore.named(options.store).volumes == {}
    if result.skipped_reason:
        assert variant != "slow_moves"
        pytest.skip(result.skipped_reason)
