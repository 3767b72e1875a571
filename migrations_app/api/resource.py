"""What the views have in common: parse, call one service, show."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.urls import reverse
from rest_framework import status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from migrations_app import services
from migrations_app.api import bodies, filters, permissions, schema
from migrations_app.api.migration_serializers import MigrationSerializer
from migrations_app.api.pagination import NewestFirst
from migrations_app.models import VolumeMigration

_LOOK_AGAIN_SECONDS = "2"


class Resource(GenericViewSet):
    """Rows of one kind, for staff."""

    permission_classes = [permissions.StaffWithPermission]
    filter_backends = [filters.StrictFilterBackend]
    pagination_class = NewestFirst
    schema = schema.Schema()
    #: Permission that an action needs beyond being staff.
    action_permissions: dict[str, str] = {}

    def actor(self) -> services.Actor:
        return services.Actor.of(self.request.user, VolumeMigration.Via.API)

    def read(self, kind: type[bodies.StrictBody]) -> Any:
        """Return the request's body as *kind*; every mistake in it is answered at once."""
        body = kind(data=self.request.data)
        body.is_valid(raise_exception=True)
        return body

    def get_object(self) -> Any:
        try:
            return super().get_object()
        except Http404:
            noun = self.queryset.model._meta.verbose_name
            raise NotFound(f"There is no {noun} '{self.kwargs['pk']}'.") from None


def accepted(migration: VolumeMigration, **more_headers: str) -> Response:
    """Return 202 with *migration* and where to look."""
    headers = {
        "Location": reverse("migration-detail", args=[migration.pk]),
        "Retry-After": _LOOK_AGAIN_SECONDS,
        **more_headers,
    }
    data = MigrationSerializer(migration).data
    return Response(data, status.HTTP_202_ACCEPTED, headers=headers)


def query(request: Request, kind: type[bodies.StrictBody]) -> dict[str, Any]:
    """Return the request's query as *kind* has it; every mistake in it is answered at once."""
    found = kind(data=request.query_params.dict())
    found.is_valid(raise_exception=True)
    return found.validated_data
