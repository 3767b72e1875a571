"""The report of a migration, and the list of kept sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import State
from tests.admin.conftest import text_of

LIST = "/admin/migrations_app/volumemigration/"
Make = Callable[..., VolumeMigration]


def page_of(migration: VolumeMigration, name: str = "report") -> str:
    return reverse(f"admin:migrations_app_volumemigration_{name}", args=[migration.pk])


@pytest.fixture
def moved(
    two_backends: tuple[Backend, Backend],
    make_volume: Callable[..., Volume],
    run_to_end: Callable[[VolumeMigration], VolumeMigration],
) -> VolumeMigration:
    """
    Return a migration that has really copied and compared something.

    Needs `transaction=True`: a worker's heartbeat writes through a connection of its own.
    """
    volume = make_volume(two_backends[0])
    options = services.Options(force_host_copy=True)
    return run_to_end(services.request_migration(volume, "testhost@b", services.Actor("ann"), options))


@pytest.mark.django_db(transaction=True)
def test_the_report_of_a_move_says_all_that_is_known(site: Client, moved: VolumeMigration) -> None:
    text = text_of(site.get(page_of(moved)))
    for part in (
        "VERIFIED: EQUAL",
        "1 of 1 segments compared equal.",
        moved.source_digest,
        moved.source_object_name,
        moved.destination_object_name,
        f"{moved.data_bytes} of data",
        f"{moved.hole_bytes} of holes",
        "by <b>ann</b> (command)",
        "1 attempt",
        "read back and compare; keep the source for a while; copy byte by byte",
        "The source is kept at",
        "Read back and equal",
    ):
        assert part in text, part
    assert text.count("<tr>") == 2 + 7 + moved.journal.count()
    assert 'class="proof is-green"' in text
    assert 'id="nav-sidebar"' not in text
    assert "report.css" in text


@pytest.mark.django_db(transaction=True)
def test_the_file_holds_the_digests_of_every_segment(site: Client, moved: VolumeMigration) -> None:
    response = site.get(page_of(moved, "report_file"))
    assert response["Content-Disposition"] == f'attachment; filename="volmig-report-{moved.pk}.json"'
    document = json.loads(response.content)
    assert document["verification"]["result"] == "equal"
    assert [s["source_digest"] for s in document["segments"]] == [moved.segments.get().source_digest]


@pytest.mark.parametrize(
    ("state", "fields", "verified", "tone", "words"),
    [
        (State.DONE, {"destination_digest": "a", "source_digest": "a"}, "yes", "green", "VERIFIED: EQUAL"),
        (State.DONE, {}, "by the storage", "green", "MOVED BY THE STORAGE"),
        (State.DONE, {"verify": "none"}, "no", "red", "NOT VERIFIED<"),
        (State.COPYING, {"verify": "none"}, "", "red", "NOT VERIFIED<"),
        (State.RETAINED, {}, "", "red", "NOT VERIFIED<"),
        (State.NEEDS_OPERATOR, {}, "", "red", "NOT VERIFIED<"),
        (State.COPYING, {}, "", "grey", "NOT VERIFIED YET"),
        (State.PAUSED, {}, "", "grey", "NOT VERIFIED YET"),
        (State.FAILED, {"verify": "none"}, "", "grey", "NOT MOVED"),
        (State.ROLLED_BACK, {"destination_digest": "a"}, "yes", "grey", "NOT MOVED"),
    ],
)
def test_the_result_stands_out(
    site: Client, make_migration: Make, state: State, fields: dict, verified: str, tone: str, words: str
) -> None:
    migration = make_migration(state, **fields)
    if verified:
        JournalEntry.objects.create(migration=migration, step="verify", kind="started")
        JournalEntry.objects.create(
            migration=migration, step="verify", kind="done", output={"verified": verified}
        )
    text = text_of(site.get(page_of(migration)))
    assert f'class="proof is-{tone}"><strong>{words}' in text


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_report_and_its_page_a_button(
    site: Client, make_migration: Make, state: State
) -> None:
    migration = make_migration(state, error_code="x", error_text="It <broke>.", data_location="It is <here>.")
    response = site.get(page_of(migration))
    assert b"<broke>" not in response.content
    assert "It <broke>." in text_of(response)
    assert "It is <here>." in text_of(response)
    assert page_of(migration) in text_of(site.get(page_of(migration, "change")))
    assert site.get(page_of(migration, "report_file")).json()["state"] == state


def test_a_report_is_only_read(site: Client, make_migration: Make) -> None:
    assert site.post(page_of(make_migration())).status_code == 405


# -- kept sources -------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(make_migration: Make) -> dict[str, VolumeMigration]:
    now = timezone.now()
    return {
        "late": make_migration(State.RETAINED, "late", purge_after=now + timedelta(days=9)),
        "soon": make_migration(State.RETAINED, "soon", purge_after=now + timedelta(hours=3, minutes=1)),
        "open": make_migration(State.RETAINED, "open", purge_after=None),
        "back": make_migration(State.ROLLED_BACK, "back", purge_after=now + timedelta(days=2)),
        "gone": make_migration(State.ROLLED_BACK, "gone"),
        "done": make_migration(State.DONE, "done"),
        "runs": make_migration(State.COPYING, "runs"),
    }


@pytest.mark.parametrize(
    ("value", "names"),
    [("any", ["soon", "back", "late", "open"]), ("soon", ["soon"]), ("open", ["open"])],
)
def test_kept_sources_are_listed_in_the_order_in_which_they_go(
    site: Client, kept: dict[str, VolumeMigration], value: str, names: list[str]
) -> None:
    response = site.get(LIST, {"kept": value})
    assert [m.volume_name for m in response.context["cl"].result_list] == names
    text = text_of(response)
    assert "until" in text
    if "soon" in names:
        assert f"{kept['soon'].purge_after:%Y-%m-%d %H:%M}" in text
    if "open" in names:
        assert "somebody deletes it" in text


def test_the_list_counts_down(site: Client, kept: dict[str, VolumeMigration]) -> None:
    text = text_of(site.get(LIST))
    assert "for about 3 h 1 min" in text or "for about 3 h<" in text
    assert "for about 9 days" in text
    assert "?kept=any" in text
    assert reverse("admin:migrations_app_volumemigration_changelist") + "?kept=any" in text_of(
        site.get(reverse("admin:index"))
    )
