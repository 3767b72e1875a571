"""Every verb of a migration: asked first, done by its service, only with its permission."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.admin.verbs import VERBS
from migrations_app.errors import NotNow
from migrations_app.models import VolumeMigration
from migrations_app.states import State
from tests.admin.conftest import text_of

DATA = {
    "set_bandwidth": {"limit": "2", "unit": "1048576"},
    "keep_longer": {"hours": "5"},
    "resolve": {"truth": "at_source", "typed_name": "vol-1"},
}
STATES = {
    "pause": State.COPYING,
    "cancel": State.COPYING,
    "set_bandwidth": State.COPYING,
    "resume": State.PAUSED,
    "retry": State.NEEDS_OPERATOR,
    "resolve": State.NEEDS_OPERATOR,
}


def url_of(migration: VolumeMigration, verb: str) -> str:
    return reverse(f"admin:migrations_app_volumemigration_{verb}", args=[migration.pk])


@pytest.mark.parametrize("name", list(VERBS))
def test_a_verb_needs_its_permission(
    client_with: Callable[..., Client], make_migration: Callable[..., VolumeMigration], name: str
) -> None:
    migration = make_migration(STATES.get(name, State.RETAINED))
    others = {"migrate_volume", "cancel_migration", "decide_migration"}
    others.discard(VERBS[name].permission.split(".")[1])
    client = client_with("view_volumemigration", "change_volumemigration", *others)
    assert client.get(url_of(migration, name)).status_code == 403
    assert client.post(url_of(migration, name), DATA.get(name, {})).status_code == 403
    assert not migration.journal.exists()


@pytest.mark.parametrize("name", list(STATES))
def test_looking_changes_nothing_and_posting_does_it(
    site: Client, make_migration: Callable[..., VolumeMigration], name: str
) -> None:
    fields = {"owner": "somebody"} if name == "pause" else {}
    migration = make_migration(
        STATES[name], pause_requested_at="2026-01-01T00:00Z" if name == "resume" else None, **fields
    )
    before = VolumeMigration.objects.values().get()
    assert site.get(url_of(migration, name)).status_code == 200
    assert VolumeMigration.objects.values().get() == before
    text = text_of(site.post(url_of(migration, name), DATA.get(name, {}), follow=True))
    assert VERBS[name].done in text
    assert VolumeMigration.objects.values().get() != before
    assert migration.journal.filter(actor="admin").exists()


@pytest.mark.parametrize("name", list(VERBS))
def test_a_refusal_is_shown(
    site: Client,
    make_migration: Callable[..., VolumeMigration],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise NotNow("Somebody was <faster>.")

    functions = {"set_bandwidth", "roll_back", "purge_now", "keep_longer"}
    monkeypatch.setattr(services, name if name in functions else f"{name}_migration", refuse)
    migration = make_migration(STATES.get(name, State.RETAINED))
    text = text_of(site.post(url_of(migration, name), DATA.get(name, {}), follow=True))
    assert "Somebody was <faster>." in text


def test_a_limit_is_stored_in_bytes_and_can_be_taken_away(
    site: Client, make_migration: Callable[..., VolumeMigration]
) -> None:
    migration = make_migration()
    for limit, stored in (("2.5", 5 * 2**19), ("", None)):
        site.post(url_of(migration, "set_bandwidth"), {"limit": limit, "unit": "1048576"})
        migration.refresh_from_db()
        assert migration.bandwidth_bytes_per_second == stored


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("set_bandwidth", {"limit": "fast", "unit": "1048576"}),
        ("keep_longer", {"hours": "0"}),
        ("resolve", {"truth": "settled", "typed_name": "vol-1"}),
        ("resolve", {"truth": "at_source", "typed_name": "another"}),
    ],
)
def test_bad_values_are_form_errors(
    site: Client, make_migration: Callable[..., VolumeMigration], name: str, data: dict[str, str]
) -> None:
    migration = make_migration(STATES.get(name, State.RETAINED))
    response = site.post(url_of(migration, name), data)
    assert response.status_code == 200
    assert "errorlist" in text_of(response)


@pytest.mark.django_db(transaction=True)
def test_roll_back_of_a_real_migration(
    site: Client,
    two_backends: tuple[Backend, Backend],
    make_volume: Callable[..., Volume],
    run_to_end: Callable[[VolumeMigration], VolumeMigration],
    actor: services.Actor,
) -> None:
    volume = make_volume(two_backends[0])
    options = services.Options(force_host_copy=True)
    migration = run_to_end(services.request_migration(volume, "testhost@b", actor, options))
    site.post(url_of(migration, "roll_back"))
    volume.refresh_from_db()
    assert volume.pool.backend == two_backends[0]
    assert run_to_end(migration).state == State.ROLLED_BACK
