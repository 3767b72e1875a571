import pytest

from backends.drivers.types import GIB
from migrations_app.scheduler.types import Category, StorageFacts
from migrations_app.scheduler.verdicts import check_volume
from tests.unit.scheduler.values import codes, make_request


def reasons_of(**volume):
    return check_volume(make_request(**volume))[0]


def test_an_available_unused_volume_may_be_moved():
    assert check_volume(make_request()) == ((), ())


@pytest.mark.parametrize(
    "status", ["creating", "error", "reserved", "in-use", "maintenance", "backing-up", "something-new"]
)
def test_only_available_volumes_are_moved(status):
    (reason,) = reasons_of(status=status)
    assert reason.code == "volume_not_available"
    assert f"'{status}'" in reason.text


def test_an_attachment_explains_the_status_in_use():
    (reason,) = reasons_of(status="in-use", attachments=["web1:/dev/vdb"])
    assert reason.code == "attached"
    assert "web1:/dev/vdb" in reason.text


def test_a_migration_explains_the_status_maintenance():
    (reason,) = reasons_of(status="maintenance", migration_status="migrating", locked_by_migration="m-42")
    assert reason.code == "already_migrating"
    assert "m-42" in reason.text


def test_the_destination_of_a_migration_is_not_moved():
    (reason,) = reasons_of(migration_status="target:9a1b")
    assert reason.code == "already_migrating"
    assert "9a1b" in reason.text


def test_a_migration_that_nobody_runs_is_told():
    assert codes(reasons_of(migration_status="completing")) == ["unfinished_migration"]


@pytest.mark.parametrize("status", [None, "success", "error"])
def test_an_ended_migration_does_not_matter(status):
    assert reasons_of(migration_status=status) == ()


def test_every_cause_is_told_at_once():
    reasons = reasons_of(
        status="error",
        migration_status="starting",
        attachments=["web1"],
        snapshots=["nightly"],
        source_is_up=False,
        source_down_reason="no heartbeat for 5 min.",
        facts=StorageFacts(
            size_bytes=5 * GIB,
            usage=["process 4711 (qemu) holds a lock", "process 4712 (dd) reads it"],
            snapshots=["data-7@old"],
        ),
    )
    assert set(codes(reasons)) == {
        "volume_not_available",
        "unfinished_migration",
        "attached",
        "has_snapshots",
        "source_down",
        "size_differs",
        "in_use_on_storage",
        "snapshots_on_storage",
    }
    assert {reason.category for reason in reasons} == {Category.VOLUME}
    usage = next(reason for reason in reasons if reason.code == "in_use_on_storage")
    assert "'process 4711 (qemu) holds a lock' and 'process 4712 (dd) reads it'" in usage.text


def test_a_missing_volume_is_told():
    (reason,) = reasons_of(facts=StorageFacts(missing="there is no file data-7.img"))
    assert reason.code == "missing_on_storage"
    assert "there is no file data-7.img." in reason.text


def test_sizes_that_differ_by_a_byte_are_told_in_bytes():
    (reason,) = reasons_of(facts=StorageFacts(size_bytes=4 * GIB - 1))
    assert "4294967295 B" in reason.text


def test_storage_that_could_not_be_asked_is_a_warning():
    reasons, warnings = check_volume(
        make_request(facts=StorageFacts(unavailable_reason="the worker is busy"))
    )
    assert reasons == ()
    assert codes(warnings) == ["not_checked"]
    assert "the worker of host store1 checks it before anything is made" in warnings[0].text
