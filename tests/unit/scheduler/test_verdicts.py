import dataclasses
import json
import math

import pytest

from backends.drivers.types import GIB
from migrations_app.scheduler.filters import DEFAULT_FILTERS
from migrations_app.scheduler.types import Category, Reason, StorageFacts
from migrations_app.scheduler.verdicts import choose, judge, rank
from migrations_app.scheduler.weighers import DEFAULT_WEIGHERS
from tests.unit.scheduler.values import codes, generic_copy, make_pool, make_request, reflink


def order(verdicts):
    return [str(verdict.address) for verdict in verdicts]


# -- judge ------------------------------------------------------------------------------------------------


def test_a_generic_copy_is_estimated_by_its_data():
    verdict = judge(make_request(speed=GIB / 2), make_pool(), plan_move=generic_copy)
    assert verdict.fits
    assert verdict.native_how == ""
    assert verdict.native_declined == "the pools lie on different file systems"
    assert verdict.estimate_seconds == 2.0
    assert (verdict.free_bytes, verdict.free_after_bytes) == (60 * GIB, 59 * GIB)


def test_a_thick_copy_is_estimated_by_its_size():
    pool = make_pool(thin_provisioning_support=False)
    verdict = judge(make_request(speed=GIB / 2), pool, plan_move=generic_copy)
    assert verdict.estimate_seconds == 8.0
    assert verdict.free_after_bytes == 56 * GIB


@pytest.mark.parametrize("speed", [None, 0.0])
def test_without_a_measured_speed_there_is_no_estimate(speed):
    assert judge(make_request(speed=speed), make_pool(), plan_move=generic_copy).estimate_seconds is None


@pytest.mark.parametrize(
    ("speed", "limit", "of_the_pool", "is_verified", "seconds"),
    [
        # What is read back goes past the limit once more.
        (GIB, GIB // 8, None, True, 16.0),
        (GIB, GIB // 8, None, False, 8.0),
        (GIB, GIB // 8, GIB // 16, True, 32.0),
        (GIB, None, GIB // 4, True, 8.0),
        (GIB, 8 * GIB, None, True, 1.0),
        (None, GIB // 8, None, True, 16.0),
    ],
)
def test_a_limited_copy_is_estimated_by_its_limit(speed, limit, of_the_pool, is_verified, seconds):
    request = dataclasses.replace(
        make_request(speed=speed), bandwidth_bytes_per_second=limit, is_verified=is_verified
    )
    pool = make_pool(max_bandwidth_bytes_per_second=of_the_pool)
    assert judge(request, pool, plan_move=generic_copy).estimate_seconds == seconds


def test_a_native_move_is_done_at_once_and_takes_nothing():
    verdict = judge(make_request(), make_pool(free_bytes=GIB // 2), plan_move=reflink)
    assert verdict.fits
    assert verdict.native_how == "reflink"
    assert verdict.estimate_seconds == 1.0
    assert verdict.free_after_bytes == GIB // 2
    assert verdict.warnings == ()


def test_the_generic_copy_can_be_asked_for():
    verdict = judge(make_request(force_host_copy=True), make_pool(), plan_move=reflink)
    assert verdict.native_how == ""
    assert verdict.native_declined == "the generic copy was asked for"


def test_every_filter_is_asked():
    pool = make_pool(
        "store2@ssd#fast",
        is_enabled=False,
        is_up=False,
        is_read_only=True,
        free_bytes=0,
        availability_zone="b",
        filter_function="1 == 2",
    )
    request = make_request(
        availability_zone="a",
        extra_specs={
            "missing": "1",
            "volume_backend_name": "x",
            "RESKEY:availability_zones": "a",
            "provisioning:type": "thin",
        },
    )
    assert codes(judge(request, pool, plan_move=generic_copy).reasons) == [
        "pool_disabled",
        "pool_down",
        "host_away",
        "other_zone",
        "zone_not_allowed",
        "read_only",
        "no_space",
        "missing_capability",
        "capability_differs",
        "filter_function_refuses",
    ]


def test_a_copy_between_hosts_says_which_way_it_goes():
    pool = make_pool("store2@ssd#fast", worker_is_up=True, storage_address="192.0.2.2")
    verdict = judge(make_request(), pool, plan_move=generic_copy)
    assert verdict.fits
    assert verdict.as_dict()["network"] == "from host store1 to host store2"
    assert verdict.as_dict()["method"] == "generic copy over the network from host store1 to host store2"
    assert judge(make_request(), make_pool(), plan_move=generic_copy).as_dict()["network"] == ""
    assert judge(make_request(), pool, plan_move=reflink).as_dict()["method"] == "native (reflink)"


def test_a_volume_that_is_there_already_is_not_counted_twice():
    pool = make_pool("store1@hdd#main", free_bytes=0)
    verdict = judge(make_request(), pool, plan_move=reflink)
    assert codes(verdict.reasons) == ["already_there"]
    assert (verdict.native_how, verdict.estimate_seconds, verdict.free_after_bytes) == ("", None, None)


def test_what_is_against_the_volume_itself_is_not_told_for_each_pool():
    assert judge(make_request(status="error"), make_pool(), plan_move=generic_copy).fits


def test_a_thin_volume_that_will_be_fully_allocated_is_told():
    pool = make_pool(thin_provisioning_support=False)
    request = make_request(facts=StorageFacts(size_bytes=4 * GIB, allocated_bytes=GIB // 4))
    (warning,) = judge(request, pool, plan_move=generic_copy).warnings
    assert warning.code == "becomes_fully_allocated"
    assert "it will take 4.0 GiB instead of 256.0 MiB" in warning.text


def test_a_move_that_writes_nothing_keeps_the_volume_as_it_is():
    pool = make_pool(thin_provisioning_support=False, free_bytes=5 * GIB)
    assert judge(make_request(), pool, plan_move=reflink).warnings == ()
    unknown = make_request(facts=StorageFacts())
    assert judge(unknown, make_pool(), plan_move=reflink).warnings == ()


def test_a_pool_that_does_not_fit_is_not_called_nearly_full():
    verdict = judge(make_request(), make_pool(free_bytes=GIB // 2), plan_move=generic_copy)
    assert codes(verdict.reasons) == ["no_space"]
    assert verdict.warnings == ()


def test_a_full_volume_is_not_warned_about():
    request = make_request(facts=StorageFacts(size_bytes=4 * GIB, allocated_bytes=4 * GIB))
    pool = make_pool(thin_provisioning_support=False)
    assert judge(request, pool, plan_move=generic_copy).warnings == ()


def test_a_pool_that_will_be_nearly_full_is_told():
    pool = make_pool(free_bytes=8 * GIB, reserved_by_migrations_physical_bytes=2 * GIB)
    (warning,) = judge(make_request(), pool, plan_move=generic_copy).warnings
    assert warning.code == "nearly_full"
    assert "95 % full: 5.0 GiB of 100.0 GiB" in warning.text


def test_unknown_allocation_is_told():
    request = make_request(facts=StorageFacts(unavailable_reason="busy"))
    (warning,) = judge(request, make_pool(), plan_move=generic_copy).warnings
    assert warning.code == "allocation_unknown"


def test_a_useless_goodness_function_is_told():
    pool = make_pool(goodness_function="200")
    (warning,) = judge(make_request(), pool, plan_move=generic_copy).warnings
    assert warning.code == "goodness_function_error"
    assert "it says 200" in warning.text


def test_a_filter_of_the_administrator_is_asked_too():
    def never(request, pool):
        return [Reason("not_on_fridays", Category.DESTINATION, "It is Friday.", "Wait.")]

    verdict = judge(make_request(), make_pool(), plan_move=generic_copy, filters=[*DEFAULT_FILTERS, never])
    assert codes(verdict.reasons) == ["not_on_fridays"]


def test_a_filter_that_breaks_refuses_and_names_itself():
    def broken(request, pool):
        raise KeyError("zone")

    verdict = judge(make_request(), make_pool(), plan_move=generic_copy, filters=[broken])
    assert codes(verdict.reasons) == ["filter_failed"]
    assert "broken" in verdict.reasons[0].text
    assert "KeyError: 'zone'" in verdict.reasons[0].text


def test_a_verdict_is_json():
    verdicts = rank(
        make_request(),
        [make_pool(is_infinite=True), make_pool("store1@b#c"), make_pool("store1@hdd#main")],
        plan_move=generic_copy,
    )
    text = json.dumps([verdict.as_dict() for verdict in verdicts], allow_nan=False)
    assert '"code": "already_there"' in text


# -- rank -------------------------------------------------------------------------------------------------


def test_the_emptier_pool_is_better():
    pools = [make_pool("store1@a#full", free_bytes=20 * GIB), make_pool("store1@b#empty")]
    assert order(rank(make_request(), pools, plan_move=generic_copy)) == ["store1@b#empty", "store1@a#full"]


def test_a_native_move_is_preferred():
    pools = [make_pool("store1@a#empty"), make_pool("store1@b#native", free_bytes=20 * GIB)]

    def plan(volume, pool):
        return ("rename", "") if pool.address.pool == "native" else ("", "another file system")

    best = rank(make_request(), pools, plan_move=plan)[0]
    assert str(best.address) == "store1@b#native"
    part = next(part for part in best.parts if part.name == "native_move")
    assert (part.raw, part.normalised, part.points) == (1.0, 1.0, part.multiplier)
    assert best.score == pytest.approx(sum(part.points for part in best.parts))


def test_a_busy_pool_is_worse():
    pools = [make_pool("store1@a#busy", active_migrations=2), make_pool("store1@b#idle")]
    assert order(rank(make_request(), pools, plan_move=generic_copy))[0] == "store1@b#idle"


def test_multipliers_change_the_order():
    pools = [make_pool("store1@a#full", free_bytes=20 * GIB), make_pool("store1@b#empty")]
    ranked = rank(
        make_request(),
        pools,
        plan_move=generic_copy,
        multipliers={"free_space_after": -1.0},
    )
    assert order(ranked)[0] == "store1@a#full"


def test_equal_pools_stand_by_address():
    pools = [make_pool(f"store1@b{number}#p") for number in (3, 1, 2)]
    assert order(rank(make_request(), pools, plan_move=generic_copy)) == [
        "store1@b1#p",
        "store1@b2#p",
        "store1@b3#p",
    ]


def test_refused_pools_come_last_the_nearest_miss_first():
    pools = [
        make_pool("store1@a#two", is_enabled=False, is_read_only=True),
        make_pool("store1@b#one", is_enabled=False),
        make_pool("store1@c#fits"),
    ]
    ranked = rank(make_request(), pools, plan_move=generic_copy)
    assert order(ranked) == ["store1@c#fits", "store1@b#one", "store1@a#two"]
    assert [verdict.fits for verdict in ranked] == [True, False, False]
    assert ranked[1].parts == ()


def test_refused_pools_do_not_take_part_in_the_comparison():
    huge = make_pool("store1@a#huge", total_bytes=10**18, free_bytes=10**18, is_enabled=False)
    full = make_pool("store1@b#full", free_bytes=20 * GIB)
    best = rank(make_request(), [huge, full, make_pool("store1@c#empty")], plan_move=generic_copy)[0]
    part = next(part for part in best.parts if part.name == "free_space_after")
    assert part.normalised == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_is_always_a_number(value):
    def odd(request, pool):
        return value if pool.address.pool == "p1" else 1.0

    pools = [make_pool("store1@b#p1"), make_pool("store1@b#p2")]
    for verdict in rank(make_request(), pools, plan_move=generic_copy, weighers=[odd]):
        assert math.isfinite(verdict.score)
        assert all(math.isfinite(part.raw) for part in verdict.parts)


def test_a_weigher_that_breaks_counts_as_nothing_and_is_told():
    def broken(request, pool):
        raise ZeroDivisionError("division by zero")

    (verdict,) = rank(
        make_request(), [make_pool()], plan_move=generic_copy, weighers=[*DEFAULT_WEIGHERS, broken]
    )
    assert verdict.fits
    assert codes(verdict.warnings) == ["weigher_failed"]


def test_no_pools_and_no_weighers_are_no_error():
    assert rank(make_request(), [], plan_move=generic_copy) == []
    (verdict,) = rank(make_request(), [make_pool()], plan_move=generic_copy, weighers=[])
    assert (verdict.score, verdict.parts) == (0, ())


# -- choose -----------------------------------------------------------------------------------------------

POOLS = [
    make_pool("store1@ssd#small", free_bytes=20 * GIB),
    make_pool("store1@ssd#large"),
    make_pool("store1@nvme#main", is_enabled=False),
]


def chosen(address, request=None):
    return choose(request or make_request(), POOLS, address, plan_move=generic_copy)


def test_a_pool_is_taken_by_its_name():
    choice = chosen("store1@ssd#small")
    assert str(choice.verdict.address) == "store1@ssd#small"
    assert choice.reasons == ()
    assert len(choice.candidates) == 1


def test_of_a_backend_the_best_pool_is_taken():
    choice = chosen(" store1@ssd ")
    assert str(choice.verdict.address) == "store1@ssd#large"
    assert order(choice.candidates) == ["store1@ssd#large", "store1@ssd#small"]


def test_a_pool_that_does_not_fit_is_not_replaced_by_another():
    choice = chosen("store1@nvme#main")
    assert choice.verdict is None
    assert codes(choice.reasons) == ["pool_disabled"]


def test_when_no_pool_fits_the_reasons_of_all_are_told():
    choice = chosen("store1@ssd", make_request(size_bytes=90 * GIB, facts=StorageFacts()))
    assert choice.verdict is None
    assert codes(choice.reasons) == ["no_space", "no_space"]
    assert "#large" in choice.reasons[0].text
    assert "#small" in choice.reasons[1].text


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("store1@sdd", "store1@ssd"),
        ("STORE1@SSD", "store1@ssd"),
        ("store1@ssd#larg", "store1@ssd#large"),
        ("store1:ssd", "store1@ssd"),
    ],
)
def test_a_misspelt_address_is_corrected(address, meant):
    (reason,) = chosen(address).reasons
    assert reason.code == "unknown_destination"
    assert f"'{address}'" in reason.text
    assert f"Did you mean {meant}?" in reason.remedy
    assert "store1@nvme#main" in reason.remedy


def test_what_all_pools_of_a_backend_share_is_told_once():
    pools = [make_pool(f"store1@ssd#p{number}", is_enabled=False) for number in range(3)]
    choice = choose(make_request(), pools, "store1@ssd", plan_move=generic_copy)
    assert codes(choice.reasons) == ["pool_disabled"]
    assert len(choice.candidates) == 3


def test_the_pools_of_the_backend_that_was_written_are_listed_first():
    pools = [make_pool(f"store1@a#p{number}") for number in range(20)] + [make_pool("store1@z#only")]
    (reason,) = choose(make_request(), pools, "store1@z#qqqqqq", plan_move=generic_copy).reasons
    assert "There are: store1@z#only, store1@a#p0" in reason.remedy
    assert "and 13 more." in reason.remedy


def test_an_address_like_none_is_answered_with_the_list():
    (reason,) = chosen("zzz").reasons
    assert "Did you mean" not in reason.remedy
    assert "HOST@BACKEND" in reason.remedy
    assert "There are: store1@nvme#main, store1@ssd#large and store1@ssd#small." in reason.remedy


def test_no_address_and_no_pools_are_told():
    (reason,) = chosen("").reasons
    assert reason.text == "No destination was given."
    (reason,) = choose(make_request(), [], "store1@ssd", plan_move=generic_copy).reasons
    assert "add_backend" in reason.remedy
