"""Looking at backends, pools, types and volumes; attaching."""

from __future__ import annotations

import pytest

from backends.drivers.types import MIB
from backends.models import Backend, Pool, Volume, VolumeType
from tests.conftest import HOST

pytestmark = pytest.mark.django_db


def names(response) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


def test_a_backend_shows_its_health_and_why(api, make_backend):
    backend = make_backend("a")
    row = api.get(f"/api/backends/{backend.pk}/").json()
    assert row["address"] == f"{HOST}@a"
    assert row["health"]["state"] == "up"
    assert row["pools"] == [f"{HOST}@a#main"]
    Backend.objects.update(last_error="The disk is gone.")
    row = api.get("/api/backends/").json()["results"][0]
    assert row["health"] == {**row["health"], "state": "down", "reason": "The disk is gone."}


def test_a_pool_shows_its_capacity(api, make_backend):
    make_backend("a")
    make_backend("b")
    row = api.get("/api/pools/").json()["results"][0]
    assert row["address"] == f"{HOST}@a#main"
    assert row["free_bytes"] > 0
    only_b = api.get("/api/pools/", {"backend": f"{HOST}@b"}).json()["results"]
    assert [r["address"] for r in only_b] == [f"{HOST}@b#main"]
    assert api.get(f"/api/pools/{Pool.objects.first().pk}/").status_code == 200


def test_volume_types_are_listed_by_name(api):
    VolumeType.objects.create(name="silver")
    gold = VolumeType.objects.create(name="gold", extra_specs={"tier": "gold"})
    assert names(api.get("/api/volume-types/")) == ["gold", "silver"]
    assert api.get(f"/api/volume-types/{gold.pk}/").json()["extra_specs"] == {"tier": "gold"}


def test_volumes_are_filtered(api, two_backends, make_volume):
    a, b = two_backends
    for name, backend in (("web-1", a), ("web-2", b), ("db-1", b)):
        make_volume(backend, name, MIB, filled=False)
    Volume.objects.filter(name="db-1").update(status="in-use", migration_status="error")
    assert names(api.get("/api/volumes/")) == ["db-1", "web-2", "web-1"]
    assert names(api.get("/api/volumes/?search=web")) == ["web-2", "web-1"]
    assert names(api.get("/api/volumes/?name=web")) == []
    assert names(api.get("/api/volumes/?status=in-use")) == ["db-1"]
    assert names(api.get("/api/volumes/?migration_status=error")) == ["db-1"]
    assert names(api.get("/api/volumes/?migration_status=none")) == ["web-2", "web-1"]
    assert names(api.get("/api/volumes/", {"backend": f"{HOST}@b"})) == ["db-1", "web-2"]
    assert names(api.get("/api/volumes/", {"pool": f"{HOST}@a#main"})) == ["web-1"]


def test_pages_follow_each_other(api, make_backend, make_volume):
    backend = make_backend("a")
    for index in range(5):
        make_volume(backend, f"v{index}", MIB, filled=False)
    first = api.get("/api/volumes/?limit=2").json()
    second = api.get(first["next"]).json()
    assert [r["name"] for r in first["results"] + second["results"]] == ["v4", "v3", "v2", "v1"]


def test_the_number_of_queries_does_not_grow_with_the_rows(
    api, make_backend, make_volume, django_assert_max_num_queries
):
    backend = make_backend("a")
    for index in range(12):
        make_volume(backend, f"v{index}", MIB, filled=False)
    with django_assert_max_num_queries(4):
        api.get("/api/volumes/")


def test_attach_and_detach(api, make_backend, make_volume):
    volume = make_volume(make_backend("a"), filled=False)
    path = f"/api/volumes/{volume.pk}"
    response = api.post(f"{path}/attach/", {"attached_to": "web-1", "mountpoint": "/dev/vdb"})
    assert response.status_code == 201
    row = api.get(f"{path}/").json()
    assert row["status"] == "in-use"
    assert row["attachments"][0]["attached_to"] == "web-1"
    again = api.post(f"{path}/attach/", {"attached_to": "web-2"})
    assert again.status_code == 409
    assert again.json()["code"] == "volume_busy"
    assert "web-1" in again.json()["detail"]
    assert api.post(f"{path}/detach/").status_code == 200
    assert api.post(f"{path}/detach/").status_code == 409
    assert api.get(f"{path}/").json()["attachments"] == []


def test_attaching_needs_its_permission(make_user, client_of, make_backend, make_volume):
    path = f"/api/volumes/{make_volume(make_backend('a'), filled=False).pk}"
    clerk = client_of(make_user("clerk", "migrate_volume"))
    for verb in ("attach", "detach"):
        response = clerk.post(f"{path}/{verb}/", {"attached_to": "web-1"})
        assert response.status_code == 403
        assert "backends.attach_volume" in response.json()["detail"]
    allowed = client_of(make_user("operator", "attach_volume"))
    assert allowed.post(f"{path}/attach/", {"attached_to": "web-1"}).status_code == 201
