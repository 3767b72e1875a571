"""What changes a volume's data: extend, snapshots, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends import services
from backends.drivers.types import GIB, MIB
from backends.models import Backend, Snapshot, Volume
from migrations_app.models import VolumeMigration
from tests.admin.conftest import text_of
from tests.conftest import object_path

VERBS = ["extend", "snapshot", "delete"]


def page_of(volume: Volume, verb: str = "change") -> str:
    return reverse(f"admin:backends_volume_{verb}", args=[volume.pk])


@pytest.fixture
def volume(two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def fake_volume(db: None, request: pytest.FixtureRequest) -> Volume:
    """A volume on storage that has snapshots."""
    options = {"store": request.node.name, "pools": "main", "capacity_bytes": 10 * GIB}
    backend = services.register_backend("testhost@fake", "fake", options)
    return services.create_volume("vol-1", 4 * MIB, backend.pools.get())


def data(verb: str, **changes: str) -> dict[str, str]:
    values = {
        "extend": {"size": "30", "unit": str(MIB)},
        "snapshot": {"name": "before"},
        "delete": {"typed_name": "vol-1"},
    }
    return values[verb] | changes


def test_extending_keeps_the_data_and_grows_the_object(site: Client, volume: Volume) -> None:
    before = object_path(volume).read_bytes()
    text = text_of(site.get(page_of(volume, "extend")))
    assert 'value="20"' in text
    answer = text_of(site.post(page_of(volume, "extend"), data("extend"), follow=True))
    assert "'vol-1' has 30.0 MiB now." in answer
    volume.refresh_from_db()
    assert volume.size_bytes == 30 * MIB
    assert object_path(volume).read_bytes() == before + bytes(10 * MIB)
    assert "Extended to" in LogEntry.objects.get().change_message


@pytest.mark.parametrize(
    ("size", "unit", "message"),
    [
        ("20", MIB, "it can only grow"),
        ("1", MIB, "it can only grow"),
        (str(2**40), 2**40, "No volume can be that large."),
        ("much", MIB, "Enter a number."),
    ],
)
def test_a_size_that_cannot_be_is_a_form_error(
    site: Client, volume: Volume, size: str, unit: int, message: str
) -> None:
    response = site.post(page_of(volume, "extend"), data("extend", size=size, unit=str(unit)))
    assert message in text_of(response)
    volume.refresh_from_db()
    assert volume.size_bytes == 20 * MIB


def test_a_snapshot_is_made_listed_and_deleted(site: Client, fake_volume: Volume) -> None:
    assert "Snapshot…" in text_of(site.get(page_of(fake_volume)))
    answer = text_of(site.post(page_of(fake_volume, "snapshot"), data("snapshot"), follow=True))
    assert "The snapshot 'before' was made." in answer
    snapshot = Snapshot.objects.get()
    assert services.inspect_volume(fake_volume).snapshots == (f"snapshot-{snapshot.pk}",)
    url = reverse("admin:backends_volume_delete_snapshot", args=[fake_volume.pk, snapshot.pk])
    assert url in answer
    assert "Delete the snapshot 'before'?" in text_of(site.get(url))
    assert Snapshot.objects.exists(), "looking must not delete"
    refused = text_of(site.post(page_of(fake_volume, "delete"), data("delete")))
    assert "has snapshots. Delete them first." in refused
    assert "The snapshot 'before' was deleted." in text_of(site.post(url, follow=True))
    assert services.inspect_volume(fake_volume).snapshots == ()


def test_a_snapshot_of_another_volume_is_not_found(site: Client, fake_volume: Volume, volume: Volume) -> None:
    snapshot = services.create_snapshot(fake_volume, "before")
    url = reverse("admin:backends_volume_delete_snapshot", args=[volume.pk, snapshot.pk])
    assert site.post(url).status_code == 404
    assert Snapshot.objects.exists()


def test_a_refusal_to_delete_a_snapshot_is_a_message(site: Client, fake_volume: Volume) -> None:
    snapshot = services.create_snapshot(fake_volume, "before")
    services.attach(fake_volume, "web-1")
    url = reverse("admin:backends_volume_delete_snapshot", args=[fake_volume.pk, snapshot.pk])
    assert "cannot be changed: its status is 'in-use'" in text_of(site.post(url, follow=True))


def test_storage_without_snapshots_says_so(site: Client, volume: Volume) -> None:
    text = text_of(site.get(page_of(volume)))
    assert "Snapshot…" not in text
    assert "this kind of storage has no snapshots" in text
    assert "has no snapshots" in text_of(site.post(page_of(volume, "snapshot"), data("snapshot")))


def test_deleting_asks_for_the_name(site: Client, volume: Volume) -> None:
    url, path = page_of(volume, "delete"), object_path(volume)
    assert volume.object_name in text_of(site.get(url))
    for wrong in ("", "vol-2", "VOL-1"):
        text = text_of(site.post(url, {"typed_name": wrong, "post": "yes"}))
        assert ("Type 'vol-1' to delete it." if wrong else "This field is required.") in text
    assert path.exists()
    response = site.post(url, data("delete"))
    assert response["Location"] == reverse("admin:backends_volume_changelist")
    assert "'vol-1' and its data were deleted." in text_of(site.get(response["Location"]))
    assert not path.exists()
    assert not Volume.objects.exists()
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.object_id) == (DELETION, str(volume.pk))


def test_a_deletion_that_the_storage_refuses_can_be_tried_again(site: Client, volume: Volume) -> None:
    path = object_path(volume)
    path.parent.rename(path.parent.with_name("away"))
    text = text_of(site.post(page_of(volume, "delete"), data("delete")))
    assert "does not exist" in text
    path.parent.with_name("away").rename(path.parent)
    assert "error deleting" in text_of(site.get(page_of(volume)))
    assert "Delete…" in text_of(site.get(page_of(volume)))
    site.post(page_of(volume, "delete"), data("delete"))
    assert not Volume.objects.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_a_migrating_volume_is_not_changed(
    site: Client, make_migration: Callable[..., VolumeMigration], verb: str
) -> None:
    volume = make_migration().volume
    text = text_of(site.get(page_of(volume)))
    assert not any(page_of(volume, other) in text for other in VERBS)
    answer = text_of(
        site.post(page_of(volume, verb), data(verb, **({"size": "3000"} if verb == "extend" else {})))
    )
    assert "while migration" in answer
    assert Volume.objects.filter(pk=volume.pk, size_bytes=volume.size_bytes).exists()


@pytest.mark.parametrize("verb", VERBS)
def test_an_attached_volume_is_not_changed(site: Client, volume: Volume, verb: str) -> None:
    services.attach(volume, "web-1")
    text = text_of(site.get(page_of(volume)))
    assert not any(page_of(volume, other) in text for other in VERBS)
    assert "its status is 'in-use'" in text_of(site.post(page_of(volume, verb), data(verb)))
    assert object_path(volume).stat().st_size == 20 * MIB


@pytest.mark.parametrize("verb", VERBS)
def test_storage_of_another_host_is_left_to_that_host(site: Client, volume: Volume, verb: str) -> None:
    Backend.objects.filter(pk=volume.pool.backend_id).update(
        host="far", reported_at=timezone.now() - timedelta(seconds=1)
    )
    assert "is reached from host 'far'" in text_of(site.post(page_of(volume, verb), data(verb)))
    assert Volume.objects.filter(status="available").exists()


@pytest.mark.parametrize(
    ("verb", "permission"),
    [("extend", "change_volume"), ("snapshot", "add_snapshot"), ("delete", "delete_volume")],
)
def test_each_verb_needs_its_permission(
    client_with: Callable[..., Client], fake_volume: Volume, verb: str, permission: str
) -> None:
    others = {"change_volume", "add_snapshot", "delete_volume", "delete_snapshot"} - {permission}
    without = client_with("view_volume", *others)
    assert without.post(page_of(fake_volume, verb), data(verb)).status_code == 403
    assert page_of(fake_volume, verb) not in text_of(without.get(page_of(fake_volume)))
    able = client_with("view_volume", permission)
    assert page_of(fake_volume, verb) in text_of(able.get(page_of(fake_volume)))
    assert able.post(page_of(fake_volume, verb), data(verb)).status_code == 302
    assert client_with(permission).post(page_of(fake_volume, verb), data(verb)).status_code == 403


def test_deleting_a_snapshot_needs_its_permission(
    client_with: Callable[..., Client], fake_volume: Volume
) -> None:
    snapshot = services.create_snapshot(fake_volume, "before")
    url = reverse("admin:backends_volume_delete_snapshot", args=[fake_volume.pk, snapshot.pk])
    client = client_with("view_volume", "delete_volume", "change_volume")
    assert client.post(url).status_code == 403
    assert url not in text_of(client.get(page_of(fake_volume)))
    assert client_with("view_volume", "delete_snapshot").post(url).status_code == 302
    assert not Snapshot.objects.exists()
