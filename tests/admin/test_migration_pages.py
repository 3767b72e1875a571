"""The page of a migration, the list, cancelling, and their live parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends.models import Volume
from migrations_app import services
from migrations_app.admin.verbs import VERBS
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import WORKING, State
from tests.admin.conftest import text_of

LIST = "/admin/migrations_app/volumemigration/"


def page_of(migration: VolumeMigration, verb: str = "change") -> str:
    return reverse(f"admin:migrations_app_volumemigration_{verb}", args=[migration.pk])


@pytest.mark.parametrize("state", list(State))
def test_the_page_shows_every_state(
    site: Client, make_migration: Callable[..., VolumeMigration], state: State
) -> None:
    migration = make_migration(state, data_location="The data is here.", error_text="It broke.")
    text = text_of(site.get(page_of(migration)))
    assert "vol-1" in text
    assert "testhost@a#main" in text
    assert state.replace("_", " ") in text
    assert ("live.js" in text) == (state in WORKING)
    for verb in VERBS.values():
        is_offered = f'id="verb-{verb.name}"' in text
        assert is_offered == (verb.name in services.verbs_for(migration)), verb.name
    assert f'data-live="{"go" if state in WORKING else "stop"}"' in text


@pytest.mark.parametrize("state", [State.FAILED, State.NEEDS_OPERATOR])
def test_trouble_says_what_happened_where_the_data_is_and_what_to_do(
    site: Client, make_migration: Callable[..., VolumeMigration], state: State
) -> None:
    migration = make_migration(state, data_location="The data is <here>.", error_text="It broke.")
    text = text_of(site.get(page_of(migration)))
    for part in (
        "What happened",
        "It broke.",
        "Where the data is now",
        "The data is <here>.",
        "What to do next",
    ):
        assert part in text


def test_a_failed_migration_offers_to_migrate_again(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(State.FAILED)
    url = reverse("admin:backends_volume_migrate") + f"?volume={migration.volume_id}"
    assert url in text_of(site.get(page_of(migration)))


def test_a_kept_source_has_a_countdown(site: Client, make_migration: Callable[..., VolumeMigration]) -> None:
    migration = make_migration(
        State.RETAINED,
        purge_after=timezone.now() + timedelta(hours=5, seconds=30),
        finished_at=timezone.now(),
    )
    for url in (page_of(migration), LIST, reverse("admin:index")):
        assert "about 5 h" in text_of(site.get(url)), url


def test_a_source_that_is_kept_without_an_end_says_so(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(State.RETAINED, finished_at=timezone.now())
    for url in (page_of(migration), reverse("admin:index")):
        assert "until somebody deletes it" in text_of(site.get(url)), url


def test_never_100_percent_before_it_is_done(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    total = 10**12
    for state in (State.COPYING, State.VERIFYING, State.MOVING):
        migration = make_migration(state, phase_done_bytes=total, phase_total_bytes=total)
        for url in (page_of(migration), LIST):
            numbers = re.findall(r'aria-valuenow="(\d+)"', text_of(site.get(url)))
            assert numbers
            assert max(map(int, numbers)) == 99


def test_the_time_left_is_estimated_until_it_is_known(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(phase_done_bytes=1, phase_total_bytes=100)
    assert "estimating …" in text_of(site.get(page_of(migration)))


def test_a_failure_that_passes_is_shown_meanwhile(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(error_text="The server is away.", retry_at=timezone.now() + timedelta(hours=1))
    text = text_of(site.get(page_of(migration)))
    assert "Trying again" in text
    assert "The server is away." in text


def test_the_page_shows_digests_journal_and_verdict(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(
        State.DONE,
        source_digest="ab" * 32,
        destination_digest="ab" * 32,
        verdict={
            "destination": "testhost@b#main",
            "method": "generic copy",
            "native_declined": "Other disks.",
        },
    )
    JournalEntry.objects.create(migration=migration, kind="requested", text="Asked <for>.", actor="ann")
    text = text_of(site.get(page_of(migration)))
    for part in ("abababababab…", "ab" * 32, "equal to the source", "Asked <for>.", "Other disks."):
        assert part in text


def test_a_page_of_a_volume_that_is_gone_still_opens(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(State.DONE)
    Volume.objects.all().delete()
    assert site.get(page_of(migration)).status_code == 200
    assert site.get(LIST).status_code == 200


@pytest.mark.parametrize("pk", ["rubbish", "00000000-0000-0000-0000-000000000000"])
def test_a_migration_that_is_not_there(site: Client, pk: str) -> None:
    assert site.get(f"{LIST}{pk}/change/").status_code in (302, 404)


# -- live -----------------------------------------------------------------------------------------------------


def test_the_live_part_answers_304_until_something_changes(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    # Not started: nothing on the page counts seconds.
    migration = make_migration(State.QUEUED, started_at=None)
    first = site.get(page_of(migration, "live"))
    assert first.status_code == 200
    etag = {"HTTP_IF_NONE_MATCH": first["ETag"]}
    assert site.get(page_of(migration, "live"), **etag).status_code == 304
    VolumeMigration.objects.filter(pk=migration.pk).update(state=State.PREPARING)
    assert site.get(page_of(migration, "live"), **etag).status_code == 200


def test_the_live_part_says_when_it_is_over(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    for state in State:
        text = text_of(site.get(page_of(make_migration(state), "live")))
        assert ('data-live="stop"' in text) == (state not in WORKING), state


def test_one_request_updates_all_rows(site: Client, make_migration: Callable[..., VolumeMigration]) -> None:
    rows = [make_migration(State.COPYING, f"v{i}") for i in range(3)] + [make_migration(State.DONE, "old")]
    text = text_of(site.get(LIST))
    assert "live.js" in text
    url = reverse("admin:migrations_app_volumemigration_live_rows")
    answer = text_of(site.get(url + "?" + "&".join(f"id={m.pk}" for m in rows)))
    for migration in rows:
        assert f'id="progress-{migration.pk}"' in answer
        assert f'id="progress-{migration.pk}"' in text
    assert 'data-live="go"' in answer
    VolumeMigration.objects.update(state=State.DONE)
    assert 'data-live="stop"' in text_of(site.get(f"{url}?id={rows[0].pk}"))
    assert "live.js" not in text_of(site.get(LIST))


def test_a_forged_id_of_a_row_is_refused(site: Client) -> None:
    assert (
        site.get(reverse("admin:migrations_app_volumemigration_live_rows") + "?id=rubbish").status_code == 400
    )


# -- list -----------------------------------------------------------------------------------------------------


def test_stages_part_the_states(site: Client, make_migration: Callable[..., VolumeMigration]) -> None:
    for state in State:
        make_migration(state, state.value)
    counts = {
        stage: site.get(LIST, {"stage": stage}).context["cl"].result_count
        for stage in ("active", "person", "kept", "ended")
    }
    # A failed one is over and wants a person.
    assert sum(counts.values()) == len(State) + 1
    assert site.get(LIST, {"state__exact": "done"}).context["cl"].result_count == 1


def test_search_by_name_by_id_and_by_volume(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration(name="web-1")
    make_migration(name="other")
    for text in ("web", str(migration.pk), str(migration.volume_id)):
        assert [m.pk for m in site.get(LIST, {"q": text}).context["cl"].result_list] == [migration.pk]


def test_an_empty_list_says_how_to_begin(site: Client) -> None:
    assert "Nothing has been moved yet" in text_of(site.get(LIST))


# -- cancelling -----------------------------------------------------------------------------------------------


def test_cancelling_asks_first(site: Client, make_migration: Callable[..., VolumeMigration]) -> None:
    migration = make_migration()
    text = text_of(site.get(page_of(migration, "cancel")))
    assert "Cancel the migration of 'vol-1'?" in text
    migration.refresh_from_db()
    assert migration.cancel_requested_at is None
    text = text_of(site.post(page_of(migration, "cancel"), follow=True))
    assert "Cancelling" in text
    assert "Cancel…" not in text
    migration.refresh_from_db()
    assert migration.cancel_requested_by == "admin"


def test_cancelling_needs_its_permission(
    client_with: Callable[..., Client], make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration()
    client = client_with("view_volumemigration", "change_volumemigration", "migrate_volume")
    assert b"Cancel" not in client.get(page_of(migration)).content
    assert client.post(page_of(migration, "cancel")).status_code == 403
    migration.refresh_from_db()
    assert migration.cancel_requested_at is None


@pytest.mark.parametrize("state", [State.DONE, State.RETAINED, State.SWITCHING])
def test_what_is_past_cancelling_is_refused(
    site: Client, make_migration: Callable[..., VolumeMigration], state: State
) -> None:
    migration = make_migration(state)
    text = text_of(site.get(page_of(migration, "cancel"), follow=True))
    assert "cannot be changed that way any more (cancel)" in text
    assert "cannot be cancelled any more" in text_of(site.post(page_of(migration, "cancel"), follow=True))


@pytest.mark.django_db(transaction=True)
def test_a_real_migration_from_form_to_end(
    site: Client,
    make_volume: Callable[..., Volume],
    two_backends: tuple,
    run_to_end: Callable[[VolumeMigration], VolumeMigration],
    admin: object,
) -> None:
    volume = make_volume(two_backends[0])
    actor = services.Actor.of(admin, "admin")
    migration = services.request_migration(
        volume, "testhost@b", actor, services.Options(force_host_copy=True)
    )
    assert run_to_end(migration).state == State.RETAINED
    text = text_of(site.get(page_of(migration)))
    assert "The copy was read back from the device and is equal to the source." in text
    assert text.count('class="is-done"') == 6
    assert "is kept and deleted in" in text
