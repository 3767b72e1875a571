"""Who may see and do what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib import admin as django_admin
from django.test import Client
from django.urls import reverse

from backends.models import Backend, Volume, VolumeType
from migrations_app.models import VolumeMigration

CHANGELISTS = ["backends_backend", "backends_pool", "backends_volumetype", "backends_volume"]
CHANGELISTS.append("migrations_app_volumemigration")


@pytest.fixture
def addresses(
    make_migration: Callable[..., VolumeMigration], two_backends: tuple[Backend, Backend]
) -> list[str]:
    """Every page of the admin that shows something."""
    migration = make_migration()
    kind = VolumeType.objects.create(name="gold", extra_specs={"tier": "gold"})
    backend, volume = two_backends[0], migration.volume
    pages = [reverse("admin:index"), reverse("admin:overview_live")]
    pages += [reverse(f"admin:{name}_changelist") for name in CHANGELISTS]
    pages += [
        reverse("admin:backends_backend_add"),
        reverse("admin:backends_backend_add") + "?driver=directory",
        reverse("admin:backends_volume_add"),
        reverse("admin:backends_volumetype_add"),
        reverse("admin:backends_backend_change", args=[backend.pk]),
        reverse("admin:backends_pool_change", args=[backend.pools.get().pk]),
        reverse("admin:backends_volumetype_change", args=[kind.pk]),
        reverse("admin:backends_volume_change", args=[volume.pk]),
        reverse("admin:backends_volume_history", args=[volume.pk]),
        reverse("admin:backends_volume_attach", args=[volume.pk]),
        reverse("admin:backends_volume_detach", args=[volume.pk]),
        reverse("admin:backends_volume_extend", args=[volume.pk]),
        reverse("admin:backends_volume_snapshot", args=[volume.pk]),
        reverse("admin:backends_volume_delete", args=[volume.pk]),
        reverse("admin:backends_volume_migrate") + f"?volume={volume.pk}",
        reverse("admin:migrations_app_volumemigration_change", args=[migration.pk]),
        reverse("admin:migrations_app_volumemigration_live", args=[migration.pk]),
        reverse("admin:migrations_app_volumemigration_live_rows") + f"?id={migration.pk}",
        reverse("admin:migrations_app_volumemigration_cancel", args=[migration.pk]),
        reverse("admin:migrations_app_volumemigration_report", args=[migration.pk]),
        reverse("admin:migrations_app_volumemigration_report_file", args=[migration.pk]),
    ]
    return pages


def test_every_page_opens_for_an_administrator(site: Client, addresses: list[str]) -> None:
    assert {url: site.get(url).status_code for url in addresses} == dict.fromkeys(addresses, 200)


def test_every_page_asks_strangers_to_log_in(client: Client, addresses: list[str]) -> None:
    for url in addresses:
        response = client.get(url)
        assert response.status_code == 302, url
        assert response["Location"].startswith(reverse("admin:login")), url


def test_staff_without_permissions_see_only_an_empty_overview(
    client_with: Callable[..., Client], addresses: list[str]
) -> None:
    client = client_with()
    overview = (reverse("admin:index"), reverse("admin:overview_live"))
    for url in addresses:
        assert client.get(url).status_code == (200 if url in overview else 403), url
    text = client.get(overview[0]).content.decode()
    assert "vol-1" not in text
    assert "testhost@a" not in text


def test_people_who_may_only_look_are_offered_no_verbs(
    client_with: Callable[..., Client], make_migration: Callable[..., VolumeMigration], addresses: list[str]
) -> None:
    client = client_with(
        "view_volume", "view_volumemigration", "view_backend", "view_pool", "view_volumetype"
    )
    migration = VolumeMigration.objects.get()
    page = client.get(reverse("admin:migrations_app_volumemigration_change", args=[migration.pk]))
    assert page.status_code == 200
    assert b"Cancel" not in page.content
    volume = client.get(reverse("admin:backends_volume_change", args=[migration.volume_id]))
    assert volume.status_code == 200
    assert b"Migrate to backend" not in volume.content
    for verb in (b"Attach</a>", b"Extend", b"Snapshot\xe2\x80\xa6", b"Delete"):
        assert verb not in volume.content
    volumes = client.get(reverse("admin:backends_volume_changelist"))
    assert b"migrate_to_backend" not in volumes.content


@pytest.mark.parametrize("name", ["backends_pool", "migrations_app_volumemigration"])
def test_what_only_services_write_is_not_deleted_through_the_admin(
    site: Client, make_migration: Callable[..., VolumeMigration], name: str
) -> None:
    migration = make_migration()
    row = {
        "backends_pool": migration.source_pool_id,
        "migrations_app_volumemigration": migration.pk,
    }[name]
    assert site.post(reverse(f"admin:{name}_delete", args=[row]), {"post": "yes"}).status_code == 403
    assert Volume.objects.count() == 1


def test_home_leads_to_the_overview(client: Client) -> None:
    assert client.get("/")["Location"] == reverse("admin:index")


def test_the_queue_is_not_shown(site: Client) -> None:
    """What stands in it is a doorbell, no truth about a migration; nothing must be run again from there."""
    labels = {model._meta.app_label for model in django_admin.site._registry}
    assert "django_q" not in labels
    assert site.get("/admin/django_q/").status_code == 404


def test_tokens_are_listed_beside_the_users(site: Client) -> None:
    apps = {app["app_label"]: app for app in site.get(reverse("admin:index")).context["app_list"]}
    assert "authtoken" not in apps
    assert [model["object_name"] for model in apps["auth"]["models"]] == ["Group", "User", "TokenProxy"]
