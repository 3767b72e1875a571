"""Clients of the admin pages, and migrations in any state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from backends.models import Backend, Volume
from migrations_app.models import VolumeMigration
from migrations_app.states import WORKING, State


@pytest.fixture
def site(admin: object, client: Client) -> Client:
    """Return a client of a superuser."""
    client.force_login(admin)
    return client


@pytest.fixture
def client_with(db: None) -> Callable[..., Client]:
    """Return a function that makes a client of a member of staff: `client_with("view_volume")`."""

    def make(*codenames: str, is_staff: bool = True) -> Client:
        number = get_user_model().objects.count()
        user = get_user_model().objects.create_user(f"user-{number}", is_staff=is_staff)
        permissions = Permission.objects.filter(
            codename__in=codenames, content_type__app_label__in=["backends", "migrations_app"]
        )
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def make_migration(
    make_volume: Callable[..., Volume], two_backends: tuple[Backend, Backend]
) -> Callable[..., VolumeMigration]:
    """Return a function that writes the row of a migration in a state, without any work done."""

    def make(state: State = State.COPYING, name: str = "vol-1", **fields: object) -> VolumeMigration:
        a, b = two_backends
        volume = Volume.objects.create(
            name=name, size_bytes=2**30, pool=a.pools.get(), object_name=f"o-{Volume.objects.count()}"
        )
        is_locked = state in {*WORKING, State.PAUSED, State.NEEDS_OPERATOR}
        values = {
            "volume": volume,
            "volume_name": name,
            "size_bytes": volume.size_bytes,
            "source_pool": a.pools.get(),
            "source_object_name": volume.object_name,
            "destination_pool": b.pools.get(),
            "needed_bytes": volume.size_bytes,
            "requested_by_name": "ann",
            "requested_via": VolumeMigration.Via.API,
            "state": state,
            "locks_volume": is_locked,
            "started_at": timezone.now() - timedelta(minutes=5),
            **fields,
        }
        migration = VolumeMigration.objects.create(**values)
        if is_locked:
            Volume.objects.filter(pk=volume.pk).update(locked_by_migration=migration.pk)
        return migration

    return make


def text_of(response: object) -> str:
    """Return the page with everything that templates escape turned back."""
    text = response.content.decode()
    for escaped, plain in (("&#x27;", "'"), ("&quot;", '"'), ("&gt;", ">"), ("&lt;", "<"), ("&amp;", "&")):
        text = text.replace(escaped, plain)
    return text
