"""Volumes: found, created, attached."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from backends import services
from backends.drivers.types import GIB, MIB
from backends.models import Backend, Volume
from migrations_app.models import VolumeMigration
from tests.admin.conftest import text_of
from tests.conftest import object_path

LIST = "/admin/backends/volume/"


def page_of(volume: Volume, verb: str = "change") -> str:
    return reverse(f"admin:backends_volume_{verb}", args=[volume.pk])


@pytest.fixture
def volume(two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]) -> Volume:
    return make_volume(two_backends[0], filled=False)


def test_creating_makes_the_volume_on_the_storage(site: Client, make_backend: Callable[..., Backend]) -> None:
    pool = make_backend("ssd").pools.get()
    data = {"name": "web", "size": "1.5", "unit": str(MIB), "pool": pool.pk}
    response = site.post(f"{LIST}add/", data)
    volume = Volume.objects.get()
    assert response["Location"] == page_of(volume)
    assert (volume.name, volume.size_bytes, volume.status) == ("web", 3 * MIB // 2, "available")
    assert object_path(volume).stat().st_size == volume.size_bytes
    assert LogEntry.objects.get().object_id == str(volume.pk)


def test_a_refused_creation_is_a_form_error(site: Client, make_backend: Callable[..., Backend]) -> None:
    backend = make_backend("ssd")
    backend.options["path"] = "/nowhere"
    backend.save()
    data = {"name": "web", "size": "1", "unit": str(GIB), "pool": backend.pools.get().pk}
    response = site.post(f"{LIST}add/", data)
    assert response.status_code == 200
    assert "/nowhere" in text_of(response)
    assert not Volume.objects.exists()


def test_creating_without_a_pool_says_what_to_do_first(site: Client) -> None:
    assert "There is no pool yet" in text_of(site.get(f"{LIST}add/"))


def test_a_saved_form_changes_name_and_description_only(
    site: Client, volume: Volume, two_backends: tuple[Backend, Backend]
) -> None:
    site.get(page_of(volume))
    Volume.objects.filter(pk=volume.pk).update(pool=two_backends[1].pools.get(), object_name="elsewhere")
    response = site.post(page_of(volume), {"name": "new name", "description": "d", "object_name": "forged"})
    assert response.status_code == 302
    volume.refresh_from_db()
    assert (volume.name, volume.description) == ("new name", "d")
    assert (volume.object_name, volume.pool.backend) == ("elsewhere", two_backends[1])


def test_attach_then_detach(site: Client, volume: Volume, admin: object) -> None:
    text = text_of(
        site.post(page_of(volume, "attach"), {"attached_to": "web-1", "mountpoint": "/dev/vdb"}, follow=True)
    )
    assert "'vol-1' is attached to web-1 /dev/vdb." in text
    volume.refresh_from_db()
    assert volume.status == "in-use"
    assert volume.attachments.get().attached_by == admin
    assert "It is attached to web-1 /dev/vdb." in text_of(site.get(page_of(volume, "detach")))
    volume.refresh_from_db()
    assert volume.status == "in-use", "looking must not detach"
    assert "is detached from web-1" in text_of(site.post(page_of(volume, "detach"), follow=True))
    volume.refresh_from_db()
    assert volume.status == "available"


def test_attaching_twice_says_where_it_is_attached(site: Client, volume: Volume) -> None:
    services.attach(volume, "web-1")
    text = text_of(site.post(page_of(volume, "attach"), {"attached_to": "web-2"}))
    assert "The volume 'vol-1' is attached to web-1 already. Detach it first." in text


def test_a_migrating_volume_is_neither_attached_nor_detached(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    volume = make_migration().volume
    text = text_of(site.post(page_of(volume, "attach"), {"attached_to": "web-2"}))
    assert "cannot be attached while migration" in text
    assert "cannot be detached while migration" in text_of(site.post(page_of(volume, "detach"), follow=True))


@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_attaching_needs_its_permission(
    client_with: Callable[..., Client], volume: Volume, verb: str
) -> None:
    client = client_with("view_volume", "change_volume")
    assert client.post(page_of(volume, verb), {"attached_to": "x"}).status_code == 403
    volume.refresh_from_db()
    assert volume.status == "available"


def test_search_by_the_beginning_of_the_name_and_by_id(site: Client, volume: Volume) -> None:
    Volume.objects.create(name="other", size_bytes=1, pool=volume.pool, object_name="o")
    for text in ("vol", str(volume.pk)):
        found = site.get(LIST, {"q": text}).context["cl"].result_list
        assert [v.pk for v in found] == [volume.pk], text


def test_filter_by_backend(site: Client, volume: Volume, two_backends: tuple[Backend, Backend]) -> None:
    counts = [site.get(LIST, {"backend": b.pk}).context["cl"].result_count for b in two_backends]
    assert counts == [1, 0]
    assert site.get(LIST, {"backend": "rubbish"}).status_code == 200


def test_an_id_that_is_none_is_not_found(site: Client) -> None:
    assert site.get(f"{LIST}rubbish/change/").status_code == 404
