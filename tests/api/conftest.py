"""Clients of the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient


@pytest.fixture
def make_user(db: None) -> Callable[..., object]:
    """Return a function that makes a user: `make_user("ann", "migrate_volume", is_staff=True)`."""

    def make(name: str, *codenames: str, is_staff: bool = True) -> object:
        user = get_user_model().objects.create_user(name, password="a-long-password-1", is_staff=is_staff)
        permissions = Permission.objects.filter(codename__in=codenames)
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        return user

    return make


@pytest.fixture
def client_of() -> Callable[[object], APIClient]:
    """Return a function that makes a client which sends the user's token."""

    def make(user: object) -> APIClient:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
        return client

    return make


@pytest.fixture
def api(admin: object, client_of: Callable[[object], APIClient]) -> APIClient:
    """Return a client of a superuser."""
    return client_of(admin)
