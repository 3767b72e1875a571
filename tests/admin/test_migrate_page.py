"""The action and the form "Migrate to backend"."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from backends import services as inventory
from backends.drivers.types import KIB, MIB
from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.errors import Busy, RequestRefused, UnknownDestination
from migrations_app.models import VolumeMigration
from migrations_app.scheduler.types import Category, Reason
from tests.admin.conftest import text_of
from tests.conftest import object_path

LIST = "/admin/backends/volume/"
B = "testhost@b#main"


@pytest.fixture
def volume(two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]) -> Volume:
    return make_volume(two_backends[0])


def form_of(*volumes: Volume) -> str:
    return reverse("admin:backends_volume_migrate") + "?" + "&".join(f"volume={v.pk}" for v in volumes)


def choice(*volumes: Volume, destination: str = B, **options: str) -> dict[str, str]:
    fields = {"verify": "full", "source": "keep", "limit": "", "limit_unit": str(MIB)}
    return {**fields, **{f"destination-{v.pk}": destination for v in volumes}, **options}


def run_action(client: Client, *volumes: Volume) -> object:
    data = {"action": "migrate_to_backend", "_selected_action": [str(v.pk) for v in volumes]}
    return client.post(LIST, data)


# -- the action -----------------------------------------------------------------------------------------------


def test_the_action_leads_to_the_form_with_the_selected_volumes(
    site: Client, two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]
) -> None:
    volumes = [make_volume(two_backends[0], f"v{i}", filled=False) for i in range(3)]
    location = run_action(site, *volumes[:2])["Location"]
    assert urlsplit(location).path == reverse("admin:backends_volume_migrate")
    assert parse_qs(urlsplit(location).query)["volume"] == [str(v.pk) for v in volumes[:2]]
    assert text_of(site.get(location)).count('<table class="choice">') == 2


def test_the_action_is_offered_only_with_its_permission(
    client_with: Callable[..., Client], volume: Volume
) -> None:
    assert b"migrate_to_backend" in client_with("view_volume", "migrate_volume").get(LIST).content
    assert b"migrate_to_backend" not in client_with("view_volume", "change_volume").get(LIST).content


def test_a_forged_post_without_the_permission_does_nothing(
    client_with: Callable[..., Client], volume: Volume
) -> None:
    client = client_with("view_volume", "change_volume", "view_volumemigration")
    assert (
        "Location" not in run_action(client, volume)
        or "migrate" not in run_action(client, volume)["Location"]
    )
    assert client.get(form_of(volume)).status_code == 403
    for step in ("review", "start"):
        assert client.post(form_of(volume), choice(volume, **{step: "1"})).status_code == 403
    assert not VolumeMigration.objects.exists()
    volume.refresh_from_db()
    assert volume.locked_by_migration is None


def test_too_many_volumes_are_told_what_to_do_instead(site: Client, volume: Volume) -> None:
    rows = [Volume(name=f"n{i}", size_bytes=1, pool=volume.pool, object_name=f"o{i}") for i in range(50)]
    Volume.objects.bulk_create(rows)
    text = text_of(
        site.post(
            LIST,
            {"action": "migrate_to_backend", "select_across": "1", "_selected_action": [str(volume.pk)]},
            follow=True,
        )
    )
    assert "51 volumes are selected; this page takes 50 at a time." in text
    assert "51 volumes are selected" in text_of(site.get(form_of(volume, *rows), follow=True))


@pytest.mark.parametrize("query", ["", "?volume=rubbish", "?volume=00000000-0000-0000-0000-000000000000"])
def test_volumes_that_are_gone_lead_back_to_the_list(site: Client, volume: Volume, query: str) -> None:
    text = text_of(site.get(reverse("admin:backends_volume_migrate") + query, follow=True))
    assert "None of the volumes is there any more" in text


# -- choosing -------------------------------------------------------------------------------------------------


def test_every_destination_is_shown_with_every_reason_and_remedy(
    site: Client, volume: Volume, make_backend: Callable[..., Backend]
) -> None:
    make_backend("c", is_enabled=False, disabled_reason="Leaves the house", availability_zone="z9")
    Backend.objects.filter(name="c").update(last_error="The shelf is off.")
    text = text_of(site.get(form_of(volume)))
    answer = services.destinations(volume)
    assert len(answer.verdicts) == 3
    for verdict in answer.verdicts:
        assert str(verdict.address) in text
        for reason in verdict.reasons:
            assert reason.text in text
            assert reason.remedy in text
    assert {"pool_disabled", "pool_down"} <= {str(r.code) for v in answer.verdicts for r in v.reasons}
    assert text.count(f'name="destination-{volume.pk}"') == 1
    assert f'value="{B}"' in text


def test_what_speaks_against_the_volume_is_shown_with_remedies(site: Client, volume: Volume) -> None:
    inventory.attach(volume, "web-1")
    text = text_of(site.get(form_of(volume)))
    assert "The volume is attached to web-1." in text
    assert "Detach it everywhere." in text
    assert 'type="radio" name="destination' not in text
    assert 'name="review"' not in text


def test_the_best_destination_is_chosen_at_first(site: Client, volume: Volume) -> None:
    [section] = site.get(form_of(volume)).context["sections"]
    assert section.chosen == B


def test_one_destination_for_all(
    site: Client, volume: Volume, make_backend: Callable[..., Backend], make_volume: Callable[..., Volume]
) -> None:
    make_backend("c")
    there = make_volume(Backend.objects.get(name="b"), "already-there", filled=False)
    data = choice(volume, there, destination="testhost@c#main", for_all="1", all_destination=B)
    sections = site.post(form_of(volume, there), data).context["sections"]
    assert [s.chosen for s in sections] == [B, "testhost@c#main"]


def test_nothing_chosen_is_said(site: Client, volume: Volume) -> None:
    text = text_of(site.post(form_of(volume), choice(review="1")))
    assert "Choose a destination first." in text


def test_an_invalid_limit_is_a_form_error(site: Client, volume: Volume) -> None:
    response = site.post(form_of(volume), choice(volume, limit="fast", start="1"))
    assert "Enter a number." in text_of(response)
    assert not VolumeMigration.objects.exists()


# -- looking once more ------------------------------------------------------------------------------------------


def test_the_review_says_what_will_happen_and_starts_nothing(site: Client, volume: Volume) -> None:
    data = choice(volume, review="1", source="delete", force_host_copy="on", limit="5")
    text = text_of(site.post(form_of(volume), data))
    for part in (
        "What will happen",
        "vol-1",
        "is copied",
        B,
        "The old copy is deleted at once.",
        "At most 5.0 MiB per second",
        "Start migration<",
    ):
        assert part in text, part
    assert not VolumeMigration.objects.exists()


@pytest.mark.parametrize("limit", ["0.0625", "0.001"])
def test_the_review_reckons_with_the_limit(
    site: Client, two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume], limit: str
) -> None:
    # At 64 KiB per second, the lowest limit that is kept, the copy takes half an hour, and reading it back another one.
    size_bytes = 1800 * 64 * KIB
    volume = make_volume(two_backends[0], size_bytes=size_bytes, filled=False)
    with object_path(volume).open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    data = choice(volume, review="1", force_host_copy="on", limit=limit)
    assert ", which takes about 1 h." in text_of(site.post(form_of(volume), data))
    del data["review"]
    # Back in the form as well.
    assert ">about 1 h<" in text_of(site.post(form_of(volume), data))


def test_the_review_shows_refusals_with_all_reasons(site: Client, volume: Volume) -> None:
    Backend.objects.filter(name="b").update(is_enabled=False, last_error="Off.")
    text = text_of(site.post(form_of(volume), choice(volume, review="1")))
    assert "The volume 'vol-1' cannot be migrated to testhost@b#main." in text
    assert 'name="start"' not in text
    with pytest.raises(RequestRefused) as caught:
        services.dry_run(volume, B)
    assert len(caught.value.reasons) >= 2
    for reason in caught.value.reasons:
        assert reason.text in text
        assert reason.remedy in text


# -- starting ---------------------------------------------------------------------------------------------------


def test_starting_one_leads_to_its_page(site: Client, volume: Volume, admin: object) -> None:
    data = choice(volume, start="1", limit="2.5", source="delete", force_host_copy="on")
    response = site.post(form_of(volume), data)
    migration = VolumeMigration.objects.get()
    assert response["Location"] == reverse("admin:migrations_app_volumemigration_change", args=[migration.pk])
    assert (migration.requested_by, migration.requested_via) == (admin, "admin")
    assert migration.bandwidth_bytes_per_second == 5 * MIB // 2
    assert (migration.delete_source, migration.force_host_copy, migration.verify) == (True, True, "full")


def test_starting_several_leads_to_the_list(
    site: Client, volume: Volume, make_volume: Callable[..., Volume]
) -> None:
    other = make_volume(volume.pool.backend, "vol-2", filled=False)
    response = site.post(form_of(volume, other), choice(volume, other, start="1"))
    assert (
        response["Location"] == reverse("admin:migrations_app_volumemigration_changelist") + "?stage=active"
    )
    assert VolumeMigration.objects.count() == 2
    assert "2 migrations were accepted." in text_of(site.get(response["Location"]))


def test_of_several_the_refused_ones_stay_on_the_page(
    site: Client, volume: Volume, make_volume: Callable[..., Volume]
) -> None:
    other = make_volume(volume.pool.backend, "vol-2", filled=False)
    inventory.attach(other, "web-1")
    text = text_of(site.post(form_of(volume, other), choice(volume, other, start="1")))
    assert [m.volume for m in VolumeMigration.objects.all()] == [volume]
    assert "Started: vol-1." in text
    assert "The volume is attached to web-1." in text


def test_starting_twice_makes_one_migration(site: Client, volume: Volume) -> None:
    site.post(form_of(volume), choice(volume, start="1"))
    text = text_of(site.post(form_of(volume), choice(volume, start="1")))
    assert VolumeMigration.objects.count() == 1
    assert "The volume 'vol-1' is being migrated already." in text


def test_an_unknown_destination_names_the_nearest(site: Client, volume: Volume) -> None:
    text = text_of(site.post(form_of(volume), choice(volume, destination="testhost@bb#main", start="1")))
    assert "There is no destination 'testhost@bb#main'." in text
    assert "Did you mean" in text


def test_leaving_out_the_verification_needs_its_permission(
    site: Client, client_with: Callable[..., Client], volume: Volume
) -> None:
    client = client_with("view_volume", "migrate_volume")
    assert "Do not verify" not in text_of(client.get(form_of(volume)))
    assert client.post(form_of(volume), choice(volume, verify="none", start="1")).status_code == 200
    assert not VolumeMigration.objects.exists()
    assert "Do not verify" in text_of(site.get(form_of(volume)))
    site.post(form_of(volume), choice(volume, verify="none", start="1"))
    assert VolumeMigration.objects.get().verify == "none"


def test_a_member_of_staff_with_the_permission_may_migrate(
    client_with: Callable[..., Client], volume: Volume
) -> None:
    client = client_with("view_volume", "migrate_volume")
    client.post(form_of(volume), choice(volume, start="1"))
    assert VolumeMigration.objects.get().requested_by == get_user_model().objects.get(is_superuser=False)


REASON = Reason("some_code", Category.VOLUME, "The <cause> has a number: 42.", "Do this & that.")


@pytest.mark.parametrize("error", [RequestRefused, Busy, UnknownDestination])
def test_every_refusal_is_rendered_with_title_message_reason_and_remedy(
    site: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch, error: type[RequestRefused]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error("It was <not> done.", [REASON])

    monkeypatch.setattr(services, "request_migration", refuse)
    response = site.post(form_of(volume), choice(volume, start="1"))
    assert b"<cause>" not in response.content
    for part in (error.title, "It was <not> done.", REASON.text, REASON.remedy):
        assert part in text_of(response)
