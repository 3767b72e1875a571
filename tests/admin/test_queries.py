"""Lists ask the database as often for thirty rows as for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from backends.models import Backend, Pool, Volume, VolumeType
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.states import State

PAGES = ["index", "backends_backend_changelist", "backends_pool_changelist", "backends_volume_changelist"]
PAGES += ["backends_volumetype_changelist", "migrations_app_volumemigration_changelist"]


def queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


@pytest.fixture
def add_rows(make_migration: Callable[..., VolumeMigration]) -> Callable[[int], None]:
    """Return a function that adds so many rows of everything."""

    def add(number: int) -> None:
        for _ in range(number):
            index = VolumeMigration.objects.count()
            migration = make_migration(list(State)[index % len(State)], f"v{index}")
            JournalEntry.objects.create(migration=migration, kind="started", step="copy")
            kind = VolumeType.objects.create(name=f"t{index}")
            Volume.objects.filter(pk=migration.volume_id).update(volume_type=kind, migration_status="success")
            backend = Backend.objects.create(host="h", name=f"x{index}", driver="directory")
            Pool.objects.create(backend=backend, name="main", total_bytes=10, free_bytes=5)

    return add


@pytest.mark.parametrize("page", PAGES)
def test_the_number_of_queries_does_not_grow(
    site: Client, add_rows: Callable[[int], None], page: str
) -> None:
    url = reverse(f"admin:{page}")
    add_rows(15)
    few = queries(site, url)
    add_rows(15)
    many = queries(site, url)
    # The overview counts what it does not show, once there is more than it shows.
    assert len(many) <= len(few) + (2 if page == "index" else 0), "\n".join(many)


def test_the_live_rows_take_as_many_queries_for_thirty_as_for_one(
    site: Client, add_rows: Callable[[int], None]
) -> None:
    add_rows(30)
    ids = [f"id={pk}" for pk in VolumeMigration.objects.values_list("pk", flat=True)]
    url = reverse("admin:migrations_app_volumemigration_live_rows") + "?"
    assert len(queries(site, url + ids[0])) == len(queries(site, url + "&".join(ids)))


@pytest.mark.parametrize("page", PAGES[1:])
def test_no_list_looks_for_distinct_values(site: Client, add_rows: Callable[[int], None], page: str) -> None:
    add_rows(2)
    assert not [sql for sql in queries(site, reverse(f"admin:{page}")) if "DISTINCT" in sql.upper()]


def test_counting_stops_where_nobody_turns_pages(site: Client, add_rows: Callable[[int], None]) -> None:
    add_rows(1)
    counts = [sql for sql in queries(site, reverse("admin:backends_volume_changelist")) if "COUNT(" in sql]
    assert counts
    assert all("LIMIT 10001" in sql for sql in counts)
