"""Every code is produced by a real cause once, and what people would read is read here."""

import re

import pytest

from backends.drivers.types import GIB
from migrations_app.scheduler.codes import Code
from migrations_app.scheduler.types import StorageFacts
from migrations_app.scheduler.verdicts import check_volume, choose, rank
from tests.unit.scheduler.values import generic_copy, make_pool, make_request


def broken(request, pool):
    raise RuntimeError("boom.")


def volume_cases():
    yield make_request(status="error")
    yield make_request(attachments=["web1"])
    yield make_request(snapshots=["nightly"])
    yield make_request(facts=StorageFacts(snapshots=["a", "b"]))
    yield make_request(locked_by_migration="m-1")
    yield make_request(migration_status="target:9a1b")
    yield make_request(migration_status="migrating")
    yield make_request(facts=StorageFacts(usage=["process 1 (dd) reads it"]))
    yield make_request(facts=StorageFacts(missing="there is no such file"))
    yield make_request(facts=StorageFacts(size_bytes=1))
    yield make_request(source_is_up=False)
    yield make_request(facts=StorageFacts(unavailable_reason="no answer"))


def pool_cases():
    request = make_request()
    yield request, make_pool("store1@hdd#main")
    yield request, make_pool(storage_id="disk-1")
    yield request, make_pool(is_enabled=False)
    yield request, make_pool(is_up=False, age_seconds=720)
    yield request, make_pool(is_read_only=True)
    yield request, make_pool("store2@ssd#fast")
    yield request, make_pool("store2@ssd#fast", worker_is_up=True)
    yield make_request(availability_zone="a"), make_pool()
    yield make_request(extra_specs={"RESKEY:availability_zones": "a"}), make_pool(availability_zone="b")
    yield request, make_pool(free_bytes=0, reserved_percentage=7, reserved_by_migrations_physical_bytes=GIB)
    yield request, make_pool(provisioned_bytes=10**15)
    yield request, make_pool(provisioned_bytes=99 * GIB, thin_provisioning_support=False)
    yield make_request(size_bytes=10**15, facts=StorageFacts()), make_pool()
    yield request, make_pool(free_bytes=None)
    yield request, make_pool(total_bytes=None, reserved_percentage=7)
    yield request, make_pool(total_bytes=0)
    yield request, make_pool(max_over_subscription_ratio=0.5)
    yield (
        make_request(extra_specs={"provisioning:type": "thick"}),
        make_pool(thick_provisioning_support=False),
    )
    yield make_request(extra_specs={"tier": "gold", "thin_provisioning_suport": "x"}), make_pool()
    yield make_request(extra_specs={"total_capacity_gb": ">= 500", "pool_name": "> 1"}), make_pool()
    yield request, make_pool(filter_function="1 == 2")
    yield request, make_pool(filter_function="1 == stats.")
    yield make_request(facts=StorageFacts()), make_pool()
    yield request, make_pool(thin_provisioning_support=False)
    yield make_request(extra_specs={"provisioning:type": "thick"}), make_pool()
    yield request, make_pool(free_bytes=5 * GIB)
    yield request, make_pool(goodness_function="stats.none")


def every_reason():
    for request in volume_cases():
        for reasons in check_volume(request):
            yield from reasons
    for request, pool in pool_cases():
        for verdict in rank(request, [pool], plan_move=generic_copy):
            yield from (*verdict.reasons, *verdict.warnings)
    pools = [make_pool()]
    for verdict in (
        *rank(make_request(), pools, plan_move=generic_copy, filters=[broken]),
        *rank(make_request(), pools, plan_move=generic_copy, weighers=[broken]),
    ):
        yield from (*verdict.reasons, *verdict.warnings)
    for address in ("store1@sdd", "nonsense", "", "store9@x#y"):
        yield from choose(make_request(), pools, address, plan_move=generic_copy).reasons
    yield from choose(make_request(), [], "store1@ssd", plan_move=generic_copy).reasons


REASONS = list(dict.fromkeys(every_reason()))


def test_every_code_is_produced():
    assert {reason.code for reason in REASONS} == set(Code)


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.code)
def test_text_and_remedy_are_sentences(reason):
    for sentence in (reason.text, reason.remedy):
        assert re.fullmatch(r"[A-Z'].*[^.]\.", sentence), sentence
        assert "  " not in sentence
        assert "None" not in sentence
        assert not re.search(r"[{}]|\.\.|<[a-z_.]+ object", sentence), sentence


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.code)
def test_a_reason_is_plain_values(reason):
    assert all(type(value) is str for value in reason.as_dict().values())
