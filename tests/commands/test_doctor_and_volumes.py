"""The doctor; extending, snapshots and deleting."""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.errors import ConnectionLost
from backends.drivers.fake import FakeStore
from backends.drivers.types import MIB
from backends.models import Backend, Snapshot, Volume
from migrations_app import services
from migrations_app.services import mending
from tests.conftest import HOST, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


def put(volume: Volume, name: str):
    path = object_path(volume).parent / f"{name}.raw"
    with path.open("wb") as file:
        file.truncate(MIB)
    return path


# -- the doctor -------------------------------------------------------------------------------------------------


def test_a_healthy_host_exits_0(run, volume):
    ran = run("doctor")
    assert ran.code == 0
    assert f"Nothing found on host '{HOST}'" in ran.out
    assert run("doctor", "--json").document == {"host": HOST, "findings": []}
    assert run("doctor", "--fix", "--json").document == {"host": HOST, "mended": [], "remaining": []}


def test_differences_exit_7_until_they_are_mended(run, volume):
    leftover = put(volume, "volmig-validate-60000000-abcdef-a0")
    ran = run("doctor")
    assert ran.code == 7
    assert "leftover" in ran.out
    assert "left by an interrupted validation" in ran.out
    assert "manage.py doctor --fix" in ran.out
    assert leftover.exists()
    assert [f["kind"] for f in run("doctor", "--json").document["findings"]] == ["leftover"]
    ran = run("doctor", "--fix")
    assert ran.code == 0
    assert "Mended: 'volmig-validate-60000000-abcdef-a0'" in ran.out
    assert not leftover.exists()


def test_what_a_person_must_look_at_stays(run, volume):
    unknown = put(volume, "somebody-elses")
    ran = run("doctor", "--fix", "--json")
    assert ran.code == 7
    assert [f["kind"] for f in ran.document["remaining"]] == ["object_without_row"]
    assert "It is never deleted from here." in run("doctor", "--fix").out
    assert unknown.exists()


def test_what_the_storage_refuses_is_told(run, volume, monkeypatch):
    put(volume, "volmig-validate-60000000-abcdef-a0")

    def fail(finding):
        raise ConnectionLost("The storage went away.")

    monkeypatch.setattr(mending, "mend", fail)
    ran = run("doctor", "--fix")
    assert ran.code == 7
    assert "could not be mended: The storage went away." in ran.err


def test_a_migration_that_nobody_works_on_is_rung_for(run, volume, actor):
    services.request_migration(volume, f"{HOST}@b", actor)
    assert run("doctor", "--json").document["findings"][0]["kind"] == "unfinished_migration"
    ran = run("doctor", "--fix")
    assert ran.code == 0
    assert "Ring for a worker" in ran.out


def test_another_host_is_examined_but_mended_there(run, volume):
    inventory.register_backend("elsewhere@c", "directory", {"path": "/nowhere"})
    Backend.objects.get(host="elsewhere").pools.create(name="main")
    ran = run("doctor", "elsewhere", "--json")
    assert ran.code == 7
    assert [f["kind"] for f in ran.document["findings"]] == ["not_examined"]
    ran = run("doctor", "elsewhere", "--fix", "--json")
    assert ran.code == 3
    assert "can be mended there only" in ran.document["error"]["text"]


def test_a_host_without_backends_is_not_called_healthy(run, volume):
    ran = run("doctor", "nowhere", "--json")
    assert ran.code == 3
    assert f"Hosts with backends: {HOST}." in ran.document["error"]["text"]


# -- volumes ----------------------------------------------------------------------------------------------------


def test_extend_volume(run, volume):
    ran = run("extend_volume", volume.name, "--size", "30MiB")
    assert "has 30.0 MiB now" in ran.out
    assert object_path(volume).stat().st_size == 30 * MIB
    again = run("extend_volume", volume.name, "--size", "30MiB", "--json")
    assert again.code == 3
    assert "it can only grow" in again.document["error"]["text"]
    assert run("extend_volume", volume.name, "--size", "31MiB", "--json").document["size_bytes"] == 31 * MIB
    assert run("extend_volume", volume.name, "--size", "31M").code == 2


def test_snapshots_come_and_go(run, make_volume):
    FakeStore.forget_all()
    backend = inventory.register_backend(f"{HOST}@fake", "fake", {"store": "commands"})
    volume = make_volume(backend, filled=False)
    assert "Made the snapshot 'monday'" in run("create_snapshot", volume.name, "--name", "monday").out
    made = run("create_snapshot", volume.name, "--name", "monday", "--json").document
    assert made["volume"] == str(volume.pk)
    twice = run("delete_snapshot", volume.name, "monday")
    assert twice.code == 3
    assert made["id"] in twice.err
    assert run("delete_snapshot", volume.name, made["id"], "--json").document == {**made, "deleted": True}
    unknown = run("delete_snapshot", volume.name, "tuesday")
    assert "It has: 'monday'." in unknown.err
    refused = run("delete_volume", volume.name, "--yes-delete-the-data")
    assert (refused.code, "has snapshots" in refused.err) == (3, True)
    assert "Deleted the snapshot 'monday'" in run("delete_snapshot", volume.name, "monday").out
    assert not Snapshot.objects.exists()


def test_a_storage_without_snapshots_says_so(run, volume):
    ran = run("create_snapshot", volume.name, "--name", "monday", "--json")
    assert ran.code == 3
    assert "has no snapshots" in ran.document["error"]["text"]
    for wrong in (" ", "x" * 256):
        assert run("create_snapshot", volume.name, "--name", wrong).code == 2


def test_delete_volume_says_first_what_would_go(run, volume):
    stored = object_path(volume)
    ran = run("delete_volume", volume.name, "--json")
    assert ran.code == 2
    assert "'vol-1' (20.0 MiB on testhost@a#main)" in ran.document["error"]["text"]
    assert stored.exists()
    ran = run("delete_volume", volume.name, "--yes-delete-the-data", "--json")
    assert ran.document["deleted"] is True
    assert not stored.exists()
    assert not Volume.objects.exists()


def test_nothing_changes_a_volume_that_migrates(run, volume, actor):
    migration = services.request_migration(volume, f"{HOST}@b", actor)
    for arguments in (
        ("extend_volume", volume.name, "--size", "30MiB"),
        ("create_snapshot", volume.name, "--name", "monday"),
        ("delete_volume", volume.name, "--yes-delete-the-data"),
    ):
        ran = run(*arguments, "--json")
        assert ran.code == 3
        assert f"while migration {migration.pk} works on it" in ran.document["error"]["text"]
