"""The start page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends.models import Backend, Pool
from migrations_app.models import VolumeMigration
from migrations_app.states import State
from tests.admin.conftest import text_of


def overview(client: Client) -> str:
    return text_of(client.get(reverse("admin:index")))


def test_a_newcomer_is_told_what_to_do_first(site: Client) -> None:
    text = overview(site)
    assert "Three steps to the first move" in text
    assert reverse("admin:backends_backend_add") in text


def test_the_steps_go_away_with_the_first_migration(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration()
    assert "Three steps" not in overview(site)


def test_it_shows_what_runs_and_what_needs_a_person(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration(State.COPYING, "runs")
    make_migration(State.NEEDS_OPERATOR, "stuck", error_text="Nobody knows.", data_location="It is safe.")
    make_migration(State.FAILED, "broke", error_text="No room.", finished_at=timezone.now())
    make_migration(State.FAILED, "long-ago", finished_at=timezone.now() - timedelta(days=2))
    Backend.objects.filter(name="b").update(last_error="The shelf is off.")
    text = overview(site)
    for part in ("runs", "stuck", "Nobody knows.", "It is safe.", "broke", "No room.", "The shelf is off."):
        assert part in text
    assert "long-ago" not in text
    page = site.get(reverse("admin:index")).context["dashboard"]
    assert (page.running_count, page.attention_count, page.up_count) == (1, 3, 1)


def test_pools_show_what_running_migrations_reserve(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration(State.QUEUED)
    Pool.objects.update(total_bytes=100 * 2**30, free_bytes=50 * 2**30, provisioned_bytes=300 * 2**30)
    text = overview(site)
    assert "1.0 GiB reserved" in text
    assert "300 % promised" in text


def test_the_live_part_answers_304(site: Client, two_backends: tuple[Backend, Backend]) -> None:
    url = reverse("admin:overview_live")
    first = site.get(url)
    assert site.get(url, HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 304


def test_own_apps_come_first(site: Client) -> None:
    apps = [app["app_label"] for app in site.get(reverse("admin:index")).context["app_list"]]
    assert apps[:2] == ["backends", "migrations_app"]


def test_an_empty_list_says_what_to_do(site: Client) -> None:
    for name, text in (
        ("backends_backend", "No backend yet"),
        ("backends_pool", "No pool has reported yet"),
        ("backends_volume", "No volume yet"),
        ("migrations_app_volumemigration", "Nothing has been moved yet"),
    ):
        assert text in text_of(site.get(reverse(f"admin:{name}_changelist")))
        assert text not in text_of(site.get(reverse(f"admin:{name}_changelist"), {"q": "x"}))
