"""The page of the doctor."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends.drivers.errors import NotPermitted
from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.admin.doctor_view import TITLES
from migrations_app.models import VolumeMigration
from migrations_app.services import doctor
from migrations_app.states import State
from tests.admin.conftest import text_of
from tests.conftest import object_path

PAGE = "/admin/doctor/"


@pytest.fixture
def volume(two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]) -> Volume:
    return make_volume(two_backends[0], filled=False)


@pytest.fixture
def leftover(volume: Volume) -> Path:
    """What an interrupted validation has left."""
    path = object_path(volume).with_name("volmig-validate-60000000-abcdef-a1.raw")
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture
def locked(volume: Volume) -> Volume:
    """Lock the volume for a migration that is not there."""
    Volume.objects.filter(pk=volume.pk).update(locked_by_migration="0" * 32)
    return volume


def keys(text: str) -> list[str]:
    return re.findall(r'name="finding" value="(\w+)"', text)


def test_it_says_when_everything_agrees(site: Client, volume: Volume) -> None:
    text = text_of(site.get(PAGE))
    assert "Rows and storage agree" in text
    assert "Only the pools of this host" in text
    assert "<form method=" not in text.split('id="content"')[1]


def test_it_names_the_hosts_whose_pools_it_does_not_look_at(site: Client, volume: Volume) -> None:
    Backend.objects.create(host="far", name="x", driver="directory", options={"path": "/x"})
    assert 'For the pools of <b class="address">far</b> run' in text_of(site.get(PAGE))


def test_every_kind_has_a_title() -> None:
    assert set(TITLES) == set(doctor.Kind)


def test_a_finding_has_text_proposal_and_links(
    site: Client, make_migration: Callable[..., VolumeMigration], locked: Volume
) -> None:
    migration = make_migration(
        State.NEEDS_OPERATOR, "stuck", error_text="Nobody knows.", data_location="It is safe."
    )
    object_path(migration.volume).write_bytes(b"")
    text = text_of(site.get(PAGE))
    for part in (
        "waits for a decision: Nobody knows.",
        "It is safe. Decide on its page",
        "Take the lock away.",
    ):
        assert part in text
    assert reverse("admin:migrations_app_volumemigration_change", args=[migration.pk]) in text
    assert reverse("admin:backends_volume_change", args=[locked.pk]) in text
    assert len(keys(text)) == 1, "only what is safe has a button"


def test_one_finding_is_mended_and_the_others_are_left(site: Client, leftover: Path, locked: Volume) -> None:
    text = text_of(site.get(PAGE))
    assert len(keys(text)) == 2
    assert "Mend all that is safe (2)" in text
    lock = next(key for key in keys(text) if key in text.split("Locks that nobody holds")[1][:2000])
    answer = text_of(site.post(PAGE, {"finding": lock}, follow=True))
    assert "Mended: The volume 'vol-1' is locked by migration" in answer
    locked.refresh_from_db()
    assert locked.locked_by_migration is None
    assert leftover.exists()


def test_all_that_is_safe_is_mended(site: Client, leftover: Path, locked: Volume) -> None:
    stranger = leftover.with_name("somebodys.raw")
    stranger.write_bytes(b"precious")
    answer = text_of(site.post(PAGE, {"all": "1"}, follow=True))
    assert answer.count("Mended: ") == 2
    assert not leftover.exists()
    assert stranger.read_bytes() == b"precious"
    assert "Objects without a record" in answer
    assert not keys(answer)


def test_what_is_gone_meanwhile_is_not_mended(site: Client, leftover: Path) -> None:
    (key,) = keys(text_of(site.get(PAGE)))
    leftover.unlink()
    assert "Nothing was done: it is not there any more" in text_of(
        site.post(PAGE, {"finding": key}, follow=True)
    )


def test_another_proposal_than_the_one_shown_is_not_carried_out(site: Client, volume: Volume) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    Volume.objects.filter(pk=volume.pk).update(status="creating", updated_at=long_ago)
    text = text_of(site.get(PAGE))
    assert "Set it to 'available'." in text
    object_path(volume).unlink()
    site.post(PAGE, {"finding": keys(text)[0]})
    assert Volume.objects.filter(pk=volume.pk, status="creating").exists()


def test_what_the_storage_says_is_a_message(
    site: Client, leftover: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise NotPermitted("The disk is write-protected.", backend="testhost@a")

    monkeypatch.setattr("migrations_app.services.mending.mend", refuse)
    answer = text_of(site.post(PAGE, {"all": "1"}, follow=True))
    assert "could not be mended: " in answer
    assert "The disk is write-protected." in answer


def test_looking_is_for_all_staff_and_mending_needs_its_permission(
    client_with: Callable[..., Client], client: Client, leftover: Path
) -> None:
    assert client.get(PAGE).status_code == 302
    looker = client_with()
    text = text_of(looker.get(PAGE))
    assert "was left by an interrupted validation" in text
    assert not keys(text)
    assert "mending needs the permission" in text
    assert looker.post(PAGE, {"all": "1"}).status_code == 403
    assert leftover.exists()
    client_with("decide_migration").post(PAGE, {"all": "1"})
    assert not leftover.exists()


def test_mending_needs_the_token_of_the_page(admin: object, leftover: Path) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin)
    assert client.post(PAGE, {"all": "1"}).status_code == 403
    assert leftover.exists()


def test_it_says_that_ringing_helps_nobody_without_a_worker(site: Client, volume: Volume) -> None:
    services.request_migration(volume, "testhost@b", services.Actor("tester"))
    text = text_of(site.get(PAGE))
    assert "Ring for a worker" in text
    assert "manage.py volmig_worker" in text
