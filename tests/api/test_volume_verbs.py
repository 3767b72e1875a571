"""Extending, snapshots and deleting over the API; the doctor."""

from __future__ import annotations

import pytest

from backends import services as inventory
from backends.drivers.errors import ConnectionLost
from backends.drivers.fake import FakeStore
from backends.drivers.types import MIB
from backends.models import Backend, Snapshot, Volume
from migrations_app import services
from migrations_app.services import doctor, mending
from tests.conftest import HOST, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def fake_volume(make_volume) -> Volume:
    FakeStore.forget_all()
    backend = inventory.register_backend(f"{HOST}@fake", "fake", {"store": "api"})
    return make_volume(backend, filled=False)


def path(volume: Volume, verb: str = "") -> str:
    return f"/api/volumes/{volume.pk}/" + (f"{verb}/" if verb else "")


def refusal(response, code) -> str:
    assert response.status_code == 409, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    return response.json()["detail"]


def test_extend_makes_it_larger(api, volume):
    response = api.post(path(volume, "extend"), {"size_bytes": 30 * MIB})
    assert response.status_code == 200, response.content
    assert response.json()["size_bytes"] == 30 * MIB
    assert object_path(volume).stat().st_size == 30 * MIB
    assert "it can only grow" in refusal(api.post(path(volume, "extend"), {"size_bytes": MIB}), "refused")
    for wrong in ({}, {"size_bytes": 0}, {"size_bytes": 2**63}, {"size": 1}):
        assert api.post(path(volume, "extend"), wrong).status_code == 400


def test_snapshots_come_and_go(api, fake_volume):
    made = api.post(path(fake_volume, "snapshots"), {"name": "monday"})
    assert made.status_code == 201, made.content
    listed = api.get(path(fake_volume, "snapshots")).json()["results"]
    assert listed == [made.json()]
    assert api.get(path(fake_volume)).json()["_links"]["snapshots"] == path(fake_volume, "snapshots")
    assert "has snapshots" in refusal(api.delete(path(fake_volume)), "volume_busy")
    gone = api.delete(f"/api/snapshots/{made.json()['id']}/")
    assert gone.status_code == 204
    assert not gone.content
    assert api.delete(f"/api/snapshots/{made.json()['id']}/").status_code == 404
    assert api.delete(path(fake_volume)).status_code == 204
    assert api.get(path(fake_volume)).status_code == 404


def test_a_storage_without_snapshots_is_a_refusal(api, volume):
    answer = api.post(path(volume, "snapshots"), {"name": "monday"})
    assert "has no snapshots" in refusal(answer, "unsupported")
    assert api.post(path(volume, "snapshots"), {"name": ""}).status_code == 400
    assert api.get(path(volume, "snapshots")).json()["results"] == []


def test_delete_removes_the_data(api, volume):
    stored = object_path(volume)
    assert api.delete(path(volume)).status_code == 204
    assert not stored.exists()
    assert not Volume.objects.exists()


def test_everything_is_refused_while_it_migrates(api, volume, actor):
    migration = services.request_migration(volume, f"{HOST}@b", actor)
    for response in (
        api.post(path(volume, "extend"), {"size_bytes": 30 * MIB}),
        api.post(path(volume, "snapshots"), {"name": "monday"}),
        api.delete(path(volume)),
    ):
        assert f"while migration {migration.pk} works on it" in refusal(response, "volume_busy")


def test_each_needs_its_permission(api, make_user, client_of, volume):
    snapshot = Snapshot.objects.create(volume=volume, name="monday")
    clerk = client_of(make_user("clerk", "attach_volume"))
    assert clerk.get(path(volume, "snapshots")).status_code == 200
    for response, needed in (
        (clerk.post(path(volume, "extend"), {"size_bytes": 30 * MIB}), "change_volume"),
        (clerk.post(path(volume, "snapshots"), {"name": "x"}), "add_snapshot"),
        (clerk.delete(f"/api/snapshots/{snapshot.pk}/"), "delete_snapshot"),
        (clerk.delete(path(volume)), "delete_volume"),
    ):
        assert response.status_code == 403
        assert f"backends.{needed}" in response.json()["detail"]
    operator = client_of(make_user("operator", "change_volume"))
    assert operator.post(path(volume, "extend"), {"size_bytes": 30 * MIB}).status_code == 200


# -- the doctor -------------------------------------------------------------------------------------------------


@pytest.fixture
def leftovers(volume):
    """Something that is safe to mend and something that is not."""
    directory = object_path(volume).parent
    for name in ("volmig-validate-60000000-abcdef-a0", "somebody-elses"):
        with (directory / f"{name}.raw").open("wb") as file:
            file.truncate(MIB)
    return directory


def test_the_doctor_finds_nothing_where_nothing_is(api, volume):
    assert api.get("/api/doctor/").json() == {"host": HOST, "findings": []}
    assert api.post("/api/doctor/mend/").json() == {"host": HOST, "mended": [], "remaining": []}


def test_the_doctor_shows_and_mends_what_is_safe(api, leftovers):
    findings = api.get("/api/doctor/").json()["findings"]
    assert [(f["kind"], f["is_safe"]) for f in findings] == [
        ("object_without_row", False),
        ("leftover", True),
    ]
    assert all(f["text"] and f["proposal"] for f in findings)
    body = api.post("/api/doctor/mend/").json()
    assert [f["kind"] for f in body["mended"]] == ["leftover"]
    assert [(f["kind"], f["error"]) for f in body["remaining"]] == [("object_without_row", "")]
    assert not (leftovers / "volmig-validate-60000000-abcdef-a0.raw").exists()
    assert (leftovers / "somebody-elses.raw").exists()


def test_the_doctor_tells_what_could_not_be_mended(api, leftovers, monkeypatch):
    def fail(finding: doctor.Finding) -> bool:
        raise ConnectionLost("The storage went away.")

    monkeypatch.setattr(mending, "mend", fail)
    remaining = api.post("/api/doctor/mend/").json()["remaining"]
    assert [f["error"][:22] for f in remaining] == ["", "The storage went away."]


def test_mending_needs_its_permission(make_user, client_of, volume):
    clerk = client_of(make_user("clerk", "migrate_volume"))
    assert clerk.get("/api/doctor/").status_code == 200
    assert "decide_migration" in clerk.post("/api/doctor/mend/").json()["detail"]
    assert client_of(make_user("operator", "decide_migration")).post("/api/doctor/mend/").status_code == 200
    guest = client_of(make_user("guest", is_staff=False))
    assert guest.get("/api/doctor/").status_code == 403


def test_the_doctor_of_another_host_is_asked_there(actor):
    Backend.objects.create(host="elsewhere", name="c", driver="directory", options={"path": "/srv"})
    with pytest.raises(inventory.InventoryRefused, match="host 'elsewhere' can be mended there only"):
        services.mend_all(actor, "elsewhere")
