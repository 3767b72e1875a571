"""What the pages say of the workers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from migrations_app.admin.worker_hosts import worker_hosts
from migrations_app.models import VolumeMigration, WorkerHost
from migrations_app.states import State
from tests.admin.conftest import text_of

NOBODY = 'No worker of host <b class="address">testhost</b> is running.'


def beat(host: str = "testhost", seconds: int = 0, **fields: object) -> WorkerHost:
    """Write the row of a worker whose last heartbeat is so many seconds old."""
    now = timezone.now()
    return WorkerHost.objects.create(
        host=host, started_at=now, heartbeat_at=now - timedelta(seconds=seconds), pid=1, slots=2, **fields
    )


def health(client: Client) -> str:
    return text_of(client.get(reverse("admin:index"))).split('id="overview-health"')[1].split("</section>")[0]


def test_a_living_worker_shows_its_slots_and_what_its_supervisor_did(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    later = timezone.now() + timedelta(minutes=1)
    make_migration(State.COPYING, owner="elsewhere x 1 2 3", lease_expires_at=later)
    make_migration(State.QUEUED, "next")
    beat(restarts=2, note="The cluster was started again.", storage_address="192.0.2.7")
    text = health(site)
    for part in (
        ">running<",
        "1 of 2 slots busy",
        "1 waiting",
        "started again 2 times",
        "serves volumes on",
        "192.0.2.7",
        "was started again.",
    ):
        assert part in text
    assert "volmig_worker" not in text


def test_without_a_worker_it_says_what_to_start(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration(State.QUEUED)
    text = health(site)
    assert ">not running<" in text
    assert "1 migration waits and no worker of this host is running. Start it there:" in text
    assert "manage.py volmig_worker" in text


def test_a_silent_worker_is_not_believed(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration(State.QUEUED)
    beat(seconds=600)
    text = health(site)
    assert ">silent<" in text
    assert "last heard of 10\xa0minutes ago" in text
    assert "volmig_worker" in text


def test_nothing_is_said_to_be_missing_where_nothing_waits(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    make_migration(State.DONE)
    text = health(site)
    assert ">not running<" in text
    assert "volmig_worker" not in text


def test_a_worker_that_stops_says_so(site: Client) -> None:
    beat(is_draining=True)
    assert ">stopping<" in health(site)


def test_the_doctor_is_found_from_the_overview(client_with: Callable[..., Client]) -> None:
    assert reverse("admin:doctor") in health(client_with())


def test_the_live_part_has_the_workers_too(site: Client) -> None:
    beat()
    assert "overview-health" in text_of(site.get(reverse("admin:overview_live")))


@pytest.mark.parametrize("name", ["change", "live"])
def test_a_migration_says_that_nobody_works_on_its_host(
    site: Client, make_migration: Callable[..., VolumeMigration], name: str
) -> None:
    url = reverse(f"admin:migrations_app_volumemigration_{name}", args=[make_migration(State.QUEUED).pk])
    assert NOBODY in text_of(site.get(url))
    beat()
    assert NOBODY not in text_of(site.get(url))


@pytest.mark.parametrize("state", [State.PAUSED, State.DONE, State.FAILED])
def test_what_needs_no_worker_does_not_ask_for_one(
    site: Client, make_migration: Callable[..., VolumeMigration], state: State
) -> None:
    url = reverse("admin:migrations_app_volumemigration_change", args=[make_migration(state).pk])
    assert NOBODY not in text_of(site.get(url))


def test_hosts_with_backends_and_hosts_with_workers_are_listed_once(
    make_migration: Callable[..., VolumeMigration],
) -> None:
    make_migration(State.QUEUED)
    beat("another")
    assert [(view.host, view.is_alive) for view in worker_hosts()] == [("another", True), ("testhost", False)]
