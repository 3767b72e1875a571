"""Backends: added, changed, refreshed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backends import services
from backends.models import Backend, Pool, Volume, VolumeType
from tests.admin.conftest import text_of

ADD = "/admin/backends/backend/add/"


def values(**changes: object) -> dict[str, object]:
    return {
        "host": "testhost",
        "name": "new",
        "option_path": "",
        "option_pool": "main",
        "is_enabled": "on",
        "reserved_percentage": "0",
        "extra_capabilities": "{}",
        **changes,
    }


def test_first_the_driver_is_chosen(site: Client) -> None:
    text = text_of(site.get(ADD))
    assert "?driver=directory" in text
    assert "?driver=fake" not in text


def test_adding_registers_the_backend_with_its_pools(site: Client, tmp_path: Path) -> None:
    response = site.post(f"{ADD}?driver=directory", values(option_path=str(tmp_path)))
    assert response.status_code == 302
    backend = Backend.objects.get()
    assert (backend.address, backend.driver) == ("testhost@new", "directory")
    assert backend.pools.get().total_bytes


def test_what_the_driver_says_is_a_form_error(site: Client) -> None:
    response = site.post(f"{ADD}?driver=directory", values(option_path="/nowhere/at/all"))
    assert response.status_code == 200
    assert "/nowhere/at/all" in text_of(response)
    assert "errornote" in text_of(response)
    assert not Backend.objects.exists()


def test_a_taken_address_is_a_form_error(site: Client, make_backend: Callable[..., Backend]) -> None:
    backend = make_backend("ssd")
    response = site.post(f"{ADD}?driver=directory", values(name="ssd", option_path=backend.options["path"]))
    assert response.status_code == 200
    assert "There is a backend 'testhost@ssd' already" in text_of(response)


def test_secrets_are_never_echoed_and_kept_when_left_empty(site: Client) -> None:
    fields = values(option_store="s", option_pools="main", option_capacity_bytes=str(2**30))
    fields |= {"option_slow_move_polls": "0", "option_password": "hush-hush"}
    assert site.post(f"{ADD}?driver=fake", fields).status_code == 302
    backend = Backend.objects.get()
    assert "hush-hush" not in f"{backend.options}{backend.secret_options}"
    page = reverse("admin:backends_backend_change", args=[backend.pk])
    assert "hush-hush" not in text_of(site.get(page))
    assert "It is set" in text_of(site.get(page))
    assert site.post(page, _with_inline(fields | {"option_password": ""})).status_code == 302
    backend.refresh_from_db()
    assert services.make_driver(backend).options.password == "hush-hush"


def _with_inline(fields: dict[str, object]) -> dict[str, object]:
    return {**fields, "pools-TOTAL_FORMS": "0", "pools-INITIAL_FORMS": "0"}


def test_changing_writes_only_what_the_form_holds(site: Client, make_backend: Callable[..., Backend]) -> None:
    backend = make_backend("ssd")
    path = backend.options["path"]
    page = reverse("admin:backends_backend_change", args=[backend.pk])
    site.get(page)
    moment = timezone.now().replace(year=2031)
    Backend.objects.filter(pk=backend.pk).update(reported_at=moment, last_error="it broke meanwhile")
    fields = values(option_path=path, is_enabled="", disabled_reason="Moves out")
    assert site.post(page, _with_inline(fields)).status_code == 302
    backend.refresh_from_db()
    assert (backend.is_enabled, backend.disabled_reason) == (False, "Moves out")
    assert (backend.reported_at, backend.last_error) == (moment, "it broke meanwhile")


def test_bad_options_of_an_old_backend_are_a_form_error(
    site: Client, make_backend: Callable[..., Backend]
) -> None:
    backend = make_backend("ssd")
    page = reverse("admin:backends_backend_change", args=[backend.pk])
    response = site.post(page, _with_inline(values(option_path="relative")))
    assert "'relative' is not an absolute path" in text_of(response)


def test_capabilities_must_be_an_object(site: Client, tmp_path: Path) -> None:
    response = site.post(
        f"{ADD}?driver=directory", values(option_path=str(tmp_path), extra_capabilities='["gold"]')
    )
    assert "Capabilities are an object" in text_of(response)
    assert not Backend.objects.exists()


def test_the_list_says_why_a_backend_is_down(site: Client, make_backend: Callable[..., Backend]) -> None:
    backend = make_backend("ssd")
    Backend.objects.filter(pk=backend.pk).update(last_error="The disk shelf is off.")
    text = text_of(site.get(reverse("admin:backends_backend_changelist")))
    assert "The disk shelf is off." in text
    assert ">down<" in text


def refresh(site: Client, *backends: Backend) -> str:
    url = reverse("admin:backends_backend_changelist")
    data = {"action": "refresh_statistics", "_selected_action": [b.pk for b in backends]}
    return text_of(site.post(url, data, follow=True))


def test_refreshing_says_how_it_went(site: Client, make_backend: Callable[..., Backend]) -> None:
    good, bad = make_backend("good"), make_backend("bad")
    away = Backend.objects.create(host="other", name="away", driver="directory", options={"path": "/x"})
    Path(bad.options["path"], ".volmig-pool").unlink()
    Path(bad.options["path"]).rmdir()
    text = refresh(site, good, bad, away)
    assert "testhost@good: refreshed." in text
    assert "testhost@bad:" in text
    assert "the worker of host 'other' refreshes it" in text
    bad.refresh_from_db()
    assert bad.last_error


def test_refreshing_needs_the_permission_to_change(
    client_with: Callable[..., Client], make_backend: Callable[..., Backend]
) -> None:
    backend = make_backend("ssd")
    Backend.objects.update(reported_at=None)
    refresh(client_with("view_backend"), backend)
    backend.refresh_from_db()
    assert backend.reported_at is None


def test_an_empty_backend_can_be_deleted_and_a_used_one_not(
    site: Client, two_backends: tuple[Backend, Backend], make_volume: Callable[..., Volume]
) -> None:
    used, empty = two_backends
    make_volume(used, filled=False)
    for backend in (used, empty):
        site.post(reverse("admin:backends_backend_delete", args=[backend.pk]), {"post": "yes"})
    assert list(Backend.objects.all()) == [used]
    assert Pool.objects.count() == 1


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ('["gold"]', "Extra specs are an object"),
        ('{"free_capacity_gb": 5}', 'write it as text, "5"'),
        ('{"free_capacity_gb": "> 5"}', "'>' is not an operator; write '>='"),
        ('{"tier": }', "Enter a valid JSON"),
    ],
)
def test_extra_specs_are_checked(site: Client, specs: str, message: str) -> None:
    response = site.post(reverse("admin:backends_volumetype_add"), {"name": "gold", "extra_specs": specs})
    assert message in text_of(response)
    assert not VolumeType.objects.exists()


def test_a_volume_type_is_saved(site: Client) -> None:
    url = reverse("admin:backends_volumetype_add")
    assert site.post(url, {"name": "gold", "extra_specs": '{"tier": "gold"}'}).status_code == 302
    assert VolumeType.objects.get().extra_specs == {"tier": "gold"}


def test_people_who_may_only_look_see_masked_options(client_with: Callable[..., Client]) -> None:
    backend = services.register_backend("testhost@f", "fake", {"store": "x1", "password": "hush-hush"})
    text = text_of(
        client_with("view_backend").get(reverse("admin:backends_backend_change", args=[backend.pk]))
    )
    assert "store = x1" in text
    assert "********" in text
    assert "hush-hush" not in text
