import pytest

from backends.drivers.types import GIB, MIB
from migrations_app.scheduler import capacity
from migrations_app.scheduler.filters import DEFAULT_FILTERS, is_reachable, load
from migrations_app.scheduler.types import StorageFacts
from tests.unit.scheduler.values import codes, make_pool, make_request


def reasons_for(request, pool):
    return [reason for filter_ in DEFAULT_FILTERS for reason in filter_(request, pool)]


def only_reason(request, pool, code):
    (reason,) = reasons_for(request, pool)
    assert reason.code == code
    return reason


def test_a_pool_that_fits_has_no_reason_against():
    assert reasons_for(make_request(), make_pool()) == []


# -- the pool as it stands --------------------------------------------------------------------------------


def test_the_same_address_is_already_there():
    only_reason(make_request(), make_pool("store1@hdd#main"), "already_there")


def test_the_same_storage_under_another_name_is_the_same_place():
    reason = only_reason(make_request(), make_pool("store1@old#main", storage_id="disk-1"), "same_place")
    assert "under another name" in reason.text


def test_two_pools_without_identity_are_not_the_same_place():
    assert reasons_for(make_request(storage_id=""), make_pool(storage_id="")) == []


def test_a_disabled_pool_says_who_said_why():
    reason = only_reason(
        make_request(), make_pool(is_enabled=False, disabled_reason="disks are replaced."), "pool_disabled"
    )
    assert reason.text == "Backend store1@ssd is disabled: disks are replaced."


@pytest.mark.parametrize(
    ("down_reason", "age_seconds", "text"),
    [
        ("", 720.0, "Pool store1@ssd#fast is down: its last report is about 12 min old."),
        ("", None, "Pool store1@ssd#fast is down: it has never reported."),
        ("not mounted.", 5.0, "Pool store1@ssd#fast is down: not mounted."),
        (
            "Its last report is about 2 h old. Is the worker running?",
            7200.0,
            "Pool store1@ssd#fast is down: Its last report is about 2 h old. Is the worker running?",
        ),
    ],
)
def test_a_pool_that_is_down_says_why_or_how_old_its_report_is(down_reason, age_seconds, text):
    pool = make_pool(is_up=False, down_reason=down_reason, age_seconds=age_seconds)
    reason = only_reason(make_request(), pool, "pool_down")
    assert reason.text == text
    assert "host store1" in reason.remedy
    assert "manage.py refresh_backends" in reason.remedy


def test_another_host_without_a_worker_is_refused_with_both_names():
    reason = only_reason(make_request(), make_pool("store2@ssd#fast"), "host_away")
    assert reason.text == (
        "The volume is on host store1 and pool store2@ssd#fast on host store2, whose worker is not running."
    )
    assert reason.remedy == "Start `manage.py volmig_worker` on host store2."


def test_another_host_that_serves_nowhere_is_refused_with_the_setting():
    pool = make_pool("store2@ssd#fast", worker_is_up=True)
    reason = only_reason(make_request(), pool, "no_storage_address")
    assert reason.text == (
        "The volume is on host store1 and pool store2@ssd#fast on host store2, which has no address on which it "
        "serves volumes to other hosts."
    )
    assert "VOLMIG_STORAGE_ADDRESS on host store2" in reason.remedy


def test_another_host_that_serves_is_no_reason_against():
    pool = make_pool("store2@ssd#fast", worker_is_up=True, storage_address="192.0.2.2")
    assert is_reachable(make_request(), pool) == []


def test_a_native_move_needs_no_address_on_the_network():
    pool = make_pool("store2@ssd#fast", worker_is_up=True)
    assert is_reachable(make_request(native_how="rbd copy"), pool) == []


def test_a_read_only_pool_is_refused():
    only_reason(make_request(), make_pool(is_read_only=True), "read_only")


# -- zones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume_zone", "pool_zone", "fits"),
    [("", "", True), ("", "b", True), ("a", "a", True), ("a", "b", False), ("a", "", False)],
)
def test_a_volume_stays_in_its_zone(volume_zone, pool_zone, fits):
    reasons = reasons_for(make_request(availability_zone=volume_zone), make_pool(availability_zone=pool_zone))
    assert codes(reasons) == ([] if fits else ["other_zone"])


@pytest.mark.parametrize(
    ("zones", "pool_zone", "fits"),
    [("a", "a", True), ("a, b", "b", True), ("a,b", "c", False), ("a", "", False), ("", "c", True)],
)
def test_the_zones_of_the_type_hold(zones, pool_zone, fits):
    request = make_request(extra_specs={"RESKEY:availability_zones": zones})
    assert codes(reasons_for(request, make_pool(availability_zone=pool_zone))) == (
        [] if fits else ["zone_not_allowed"]
    )


# -- room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "free", "provisioned", "thin_support", "ratio", "percentage", "thin", "expected"),
    [
        (100, 60, 40, False, 1, 0, True, 60),
        (100, 60, 40, False, 1, 10, True, 50),
        (100, 30, 40, False, 1, 10, True, 30),
        (100, 60, 150, True, 2.0, 10, True, 30),
        (100, 60, 150, True, 2.0, 10, False, -60),
        (100, 60, 190, True, 2.0, 5, True, 0),
        (100, 10, 40, True, 20.0, 0, True, 1960),
        (33.3, 20.5, 12.8, False, 1, 7, True, 18.5),
    ],
)
def test_virtual_free_is_as_in_cinder(
    total, free, provisioned, thin_support, ratio, percentage, thin, expected
):
    """The vectors were measured with Cinder's `calculate_virtual_free_capacity`, whose numbers are GiB."""
    result = capacity.virtual_free(
        total,
        free,
        provisioned,
        is_thin=thin and thin_support,
        ratio=ratio,
        reserved_percentage=percentage,
    )
    assert round(result, 2) == expected


def test_too_little_free_space_is_told_with_every_deduction():
    pool = make_pool(
        total_bytes=30 * GIB,
        free_bytes=37 * GIB // 10,
        thin_provisioning_support=False,
        provisioned_bytes=26 * GIB,
        reserved_percentage=1,
        reserved_by_migrations_physical_bytes=GIB,
        active_migrations=1,
    )
    reason = only_reason(make_request(), pool, "no_space")
    assert reason.text == (
        "Pool store1@ssd#fast has too little free space: the volume needs 4.0 GiB, 2.4 GiB are free after "
        "307.2 MiB reserved and 1.0 GiB promised to 1 running migration."
    )
    assert reason.remedy == (
        "Free 1.7 GiB there, or lower its reserved percentage, or wait until the running migrations have "
        "ended."
    )


def test_a_thin_pool_needs_room_for_the_data_only():
    pool = make_pool(free_bytes=2 * GIB)
    assert reasons_for(make_request(), pool) == []
    assert codes(reasons_for(make_request(facts=StorageFacts(size_bytes=4 * GIB)), pool)) == ["no_space"]


def test_what_fits_to_the_byte_fits():
    thick = {"thin_provisioning_support": False, "total_bytes": 8 * GIB}
    assert (
        reasons_for(make_request(), make_pool(**thick, free_bytes=4 * GIB, provisioned_bytes=4 * GIB)) == []
    )
    assert codes(
        reasons_for(make_request(), make_pool(**thick, free_bytes=4 * GIB - 1, provisioned_bytes=4 * GIB))
    ) == ["no_space"]
    assert codes(
        reasons_for(make_request(), make_pool(**thick, free_bytes=4 * GIB, provisioned_bytes=4 * GIB + 1))
    ) == ["over_provisioned"]


def test_half_a_byte_is_not_promised():
    pool = make_pool(total_bytes=3, free_bytes=3, provisioned_bytes=0, max_over_subscription_ratio=1.5)
    facts = StorageFacts(allocated_bytes=1)
    assert reasons_for(make_request(size_bytes=4, facts=facts), pool) == []
    only_reason(make_request(size_bytes=5, facts=facts), pool, "over_provisioned")


def test_of_a_thick_pool_one_shortage_is_told_once():
    pool = make_pool(thin_provisioning_support=False, free_bytes=GIB, provisioned_bytes=99 * GIB)
    only_reason(make_request(), pool, "no_space")


def test_of_a_thin_pool_both_shortages_are_told():
    pool = make_pool(free_bytes=0, provisioned_bytes=99 * GIB, max_over_subscription_ratio=1.0)
    assert codes(reasons_for(make_request(), pool)) == ["no_space", "over_provisioned"]


def test_book_keeping_of_the_storage_is_not_copied():
    request = make_request(facts=StorageFacts(size_bytes=4 * GIB, allocated_bytes=5 * GIB))
    assert reasons_for(request, make_pool(free_bytes=4 * GIB)) == []


def test_oversubscription_does_not_make_physical_room_unlike_in_cinder():
    """Cinder puts 500 GB of data into 10 GB of free space when the ratio allows."""
    request = make_request(
        size_bytes=500 * GIB, facts=StorageFacts(size_bytes=500 * GIB, allocated_bytes=500 * GIB)
    )
    pool = make_pool(total_bytes=1000 * GIB, free_bytes=10 * GIB, provisioned_bytes=40 * GIB)
    only_reason(request, pool, "no_space")


def test_a_volume_larger_than_the_pool_is_sent_elsewhere():
    request = make_request(size_bytes=200 * GIB, facts=StorageFacts())
    pool = make_pool(thin_provisioning_support=False)
    assert "too small even when empty" in only_reason(request, pool, "no_space").remedy


def test_running_migrations_are_taken_off():
    pool = make_pool(thin_provisioning_support=False, free_bytes=5 * GIB, provisioned_bytes=10 * GIB)
    assert reasons_for(make_request(), pool) == []
    promised = make_pool(
        thin_provisioning_support=False,
        free_bytes=5 * GIB,
        provisioned_bytes=10 * GIB,
        reserved_by_migrations_physical_bytes=2 * GIB,
    )
    only_reason(make_request(), promised, "no_space")


def test_thin_promises_have_a_limit():
    pool = make_pool(max_over_subscription_ratio=1.5, provisioned_bytes=148 * GIB)
    reason = only_reason(make_request(), pool, "over_provisioned")
    assert reason.text == (
        "Pool store1@ssd#fast may promise 2.0 GiB more and the volume's size is 4.0 GiB: 148.0 GiB are "
        "promised of 150.0 GiB (100.0 GiB oversubscribed 1.5 times)."
    )
    assert "raise max_over_subscription_ratio to 1.6" in reason.remedy


def test_the_ratio_that_the_remedy_names_is_enough():
    pool = make_pool(max_over_subscription_ratio=1.6, provisioned_bytes=148 * GIB)
    assert reasons_for(make_request(), pool) == []


def test_a_size_beyond_the_limit_is_sent_elsewhere():
    pool = make_pool(max_over_subscription_ratio=1.0)
    reason = only_reason(make_request(size_bytes=200 * GIB), pool, "over_provisioned")
    assert reason.remedy.startswith("Choose a pool that may promise 200.0 GiB, or raise")


def test_volumes_not_yet_made_count_as_promised():
    pool = make_pool(
        max_over_subscription_ratio=1.0,
        provisioned_bytes=94 * GIB,
        reserved_by_migrations_provisioned_bytes=3 * GIB,
    )
    only_reason(make_request(), pool, "over_provisioned")


def test_a_thick_pool_may_not_promise_more_than_it_has():
    pool = make_pool(thin_provisioning_support=False, provisioned_bytes=98 * GIB)
    only_reason(make_request(), pool, "over_provisioned")


def test_infinite_room_fits_whatever_else_is_unknown():
    pool = make_pool(is_infinite=True, total_bytes=None, free_bytes=None, provisioned_bytes=None)
    assert reasons_for(make_request(), pool) == []


def test_unknown_free_space_is_refused_unlike_in_cinder():
    only_reason(make_request(), make_pool(free_bytes=None), "unknown_free_space")


def test_unknown_size_is_refused_only_when_a_reserve_is_to_be_kept():
    assert reasons_for(make_request(), make_pool(total_bytes=None)) == []
    only_reason(make_request(), make_pool(total_bytes=None, reserved_percentage=5), "unknown_total_space")


def test_a_pool_without_size_is_refused():
    only_reason(make_request(), make_pool(total_bytes=0, free_bytes=0), "no_capacity")


def test_a_ratio_below_one_is_refused_for_thin_volumes():
    pool = make_pool(max_over_subscription_ratio=0.5)
    only_reason(make_request(), pool, "ratio_below_one")
    assert reasons_for(make_request(extra_specs={"provisioning:type": "thick"}), pool) == []


def test_unknown_provisioned_size_is_taken_from_what_is_used():
    pool = make_pool(provisioned_bytes=None, free_bytes=10 * GIB, max_over_subscription_ratio=1.0)
    assert capacity.provisioned_bytes(pool) == 90 * GIB


@pytest.mark.parametrize("how", ["rename", "reflink"])
def test_a_move_that_writes_nothing_needs_no_free_space(how):
    request = make_request(native_how=how)
    assert reasons_for(request, make_pool(free_bytes=MIB)) == []
    assert reasons_for(request, make_pool(free_bytes=None)) == []
    promised = make_pool(max_over_subscription_ratio=1.0, provisioned_bytes=98 * GIB)
    assert codes(reasons_for(request, promised)) == ["over_provisioned"]


def test_a_native_move_that_writes_needs_free_space():
    assert codes(reasons_for(make_request(native_how="lvconvert"), make_pool(free_bytes=MIB))) == ["no_space"]


# -- the type ---------------------------------------------------------------------------------------------


def test_a_missing_capability_is_told_with_what_there_is():
    request = make_request(extra_specs={"compresion": "<is> True"})
    pool = make_pool(capabilities={"compression": True, "tier": "gold"})
    reason = only_reason(request, pool, "missing_capability")
    assert (
        "'gold' asks for compresion '<is> True', pool store1@ssd#fast reports no compresion." in reason.text
    )
    assert "If compression was meant" in reason.remedy
    assert "compression and tier" in reason.remedy


def test_every_extra_spec_that_is_not_met_is_told():
    request = make_request(
        extra_specs={"volume_backend_name": "hdd", "tier": "> 5", "vendor:mode": "x", "pool_name": "fast"}
    )
    reasons = reasons_for(request, make_pool(capabilities={"tier": 3}))
    assert codes(reasons) == ["capability_differs", "capability_differs"]
    assert "has 'ssd'" in reasons[0].text
    assert "write '>='" in reasons[1].remedy


def test_thick_volumes_need_a_pool_that_makes_them():
    request = make_request(extra_specs={"provisioning:type": "thick"})
    only_reason(request, make_pool(thick_provisioning_support=False), "no_thick_provisioning")
    assert reasons_for(request, make_pool()) == []
    neither = make_pool(thick_provisioning_support=False, thin_provisioning_support=False)
    assert reasons_for(request, neither) == []


def test_the_filter_function_decides():
    assert reasons_for(make_request(), make_pool(filter_function="volume.size <= 4")) == []
    reason = only_reason(
        make_request(), make_pool(filter_function="volume.size < 4"), "filter_function_refuses"
    )
    assert "'volume.size < 4' is False" in reason.text


def test_a_broken_filter_function_refuses_and_is_quoted():
    reason = only_reason(
        make_request(), make_pool(filter_function="volume.sise < 4"), "filter_function_error"
    )
    assert "'volume.sise < 4'" in reason.text
    assert "there is no 'volume.sise'" in reason.text


def test_the_filter_function_sees_the_extra_specs():
    request = make_request(extra_specs={"vendor:x": "1", "iops": "500"})
    pool = make_pool(filter_function="extra.iops <= capabilities.iops", capabilities={"iops": 500})
    assert reasons_for(request, pool) == []


# -- loading ----------------------------------------------------------------------------------------------


def test_filters_are_loaded_by_dotted_path():
    assert load(["migrations_app.scheduler.placement.is_up"]) == [DEFAULT_FILTERS[2]]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("is_up", "not a dotted path"),
        ("no_such_module.f", "No module named 'no_such_module'"),
        ("migrations_app.scheduler.placement.is_upp", "has no 'is_upp'"),
        ("migrations_app.scheduler.capacity.PROVISIONING_TYPE", "cannot be called"),
    ],
)
def test_a_path_that_cannot_be_loaded_says_why(path, part):
    with pytest.raises(ValueError, match=part):
        load([path])
