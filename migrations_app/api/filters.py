"""What lists can be filtered by.  A filter that does not exist is an error, not ignored."""

from __future__ import annotations

import difflib
from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ErrorDetail, ValidationError

from backends.drivers.types import PoolAddress
from backends.models import Pool, Volume
from migrations_app.models import VolumeMigration
from migrations_app.states import MigrationStatus, State

_PAGING = ("cursor", "limit", "format")


class StrictFilterBackend(DjangoFilterBackend):
    """Refuses unknown query parameters: a slip would otherwise show every row."""

    def filter_queryset(self, request: Any, queryset: QuerySet, view: Any) -> QuerySet:
        if view.detail:
            return queryset
        filterset = self.get_filterset_class(view, queryset)
        known = [*(filterset.base_filters if filterset else ()), *_PAGING]
        unknown = {name: [_unknown(name, known)] for name in request.query_params if name not in known}
        if unknown:
            raise ValidationError(unknown)
        return super().filter_queryset(request, queryset, view)


def _unknown(name: str, known: list[str]) -> ErrorDetail:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known)}."
    return ErrorDetail(f"There is no parameter '{name}'. {meant}", code="unknown_parameter")


def filter_by_address(queryset: QuerySet, prefix: str, text: str) -> QuerySet:
    """Return the rows whose pool, found under *prefix*, is at the address *text* (a backend or a pool)."""
    try:
        address = PoolAddress.parse(text)
    except ValueError as error:
        raise ValidationError({"pool" if "#" in text else "backend": [str(error)]}) from None
    wanted = {f"{prefix}backend__host": address.host, f"{prefix}backend__name": address.backend}
    if address.pool:
        wanted[f"{prefix}name"] = address.pool
    return queryset.filter(**wanted)


class PoolFilter(django_filters.FilterSet):
    """Pools of one backend."""

    backend = django_filters.CharFilter(method="by_address", help_text="HOST@BACKEND")

    class Meta:
        model = Pool
        fields: list[str] = []

    def by_address(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return filter_by_address(queryset, "", value)


class VolumeFilter(django_filters.FilterSet):
    """Volumes by status, by place and by name."""

    status = django_filters.ChoiceFilter(choices=Volume.Status.choices)
    migration_status = django_filters.ChoiceFilter(
        choices=[(s.value, s.value) for s in MigrationStatus],
        null_value="none",
        null_label="none",
        help_text="`none`: never migrated, or as it was before.",
    )
    pool = django_filters.CharFilter(method="by_address", help_text="HOST@BACKEND#POOL")
    backend = django_filters.CharFilter(method="by_address", help_text="HOST@BACKEND")
    name = django_filters.CharFilter(help_text="The whole name.")
    search = django_filters.CharFilter("name", "startswith", help_text="How the name begins.")

    class Meta:
        model = Volume
        fields: list[str] = []

    def by_address(self, queryset: QuerySet, name: str, value: str) -> QuerySet:
        return filter_by_address(queryset, "pool__", value)


class MigrationFilter(django_filters.FilterSet):
    """Migrations by state and volume."""

    state = django_filters.MultipleChoiceFilter(choices=[(s.value, s.value) for s in State])
    volume = django_filters.UUIDFilter("volume_id")

    class Meta:
        model = VolumeMigration
        fields: list[str] = []
