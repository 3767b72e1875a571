"""What a request may say.  Unknown fields are refused: a misspelt one must not be ignored."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from migrations_app.models import VolumeMigration
from migrations_app.services import Options, Truth

_LARGEST_BIGINT = 2**63 - 1


class StrictBooleanField(serializers.BooleanField):
    """True or false; not the words for them, which JSON has no need of."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class StrictBody(serializers.Serializer):
    """A JSON object with known fields only; every mistake is told at once."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = {}
        if isinstance(data, Mapping):
            unknown = {str(n): [_unknown_field(str(n), self.fields)] for n in data if n not in self.fields}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            raise ValidationError({**error.detail, **unknown}) from None
        if unknown:
            raise ValidationError(unknown)
        return value


def _unknown_field(name: str, known: Mapping[str, Any]) -> ErrorDetail:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known) or 'none'}."
    return ErrorDetail(f"There is no field '{name}'. {meant}", code="unknown_field")


class MigrateBody(StrictBody):
    """Where to, and how."""

    destination = serializers.CharField(
        max_length=400, help_text="HOST@BACKEND (its best pool is taken) or HOST@BACKEND#POOL."
    )
    force_host_copy = StrictBooleanField(
        default=False, help_text="Copy even when the storage could move it on its own."
    )
    delete_source = StrictBooleanField(
        default=False, help_text="Delete the source at once instead of keeping it for a while."
    )
    verify = serializers.ChoiceField(
        choices=VolumeMigration.Verify.choices,
        default=VolumeMigration.Verify.FULL,
        help_text="`none` needs the permission migrations_app.skip_verification.",
    )
    bandwidth_bytes_per_second = serializers.IntegerField(
        min_value=1,
        max_value=_LARGEST_BIGINT,
        allow_null=True,
        default=None,
        help_text="Null is as fast as it goes.",
    )
    dry_run = StrictBooleanField(default=False, help_text="Answer what would happen and change nothing.")

    def options(self) -> Options:
        """Return the validated wishes as the service takes them."""
        data = self.validated_data
        return Options(
            force_host_copy=data["force_host_copy"],
            delete_source=data["delete_source"],
            verify=data["verify"],
            bandwidth_bytes_per_second=data["bandwidth_bytes_per_second"],
        )


class AttachBody(StrictBody):
    """Which machine uses the volume, and as what."""

    attached_to = serializers.CharField(max_length=255)
    mountpoint = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)


class EmptyBody(StrictBody):
    """Nothing to say."""


class DestinationsQuery(StrictBody):
    """Query of the destinations."""

    force_host_copy = serializers.BooleanField(default=False)


class RollBackBody(StrictBody):
    """Whether what was written since the move may be lost."""

    accepts_loss = StrictBooleanField(
        default=False, help_text="Roll back although the volume was written to since it was moved."
    )


class ResolveBody(StrictBody):
    """Where the data is, by an operator's word."""

    truth = serializers.ChoiceField(
        choices=[t.value for t in Truth],
        help_text="Before the switch at_source or at_destination, after it settled.",
    )
    typed_name = serializers.CharField(
        max_length=255,
        trim_whitespace=False,
        help_text="The volume's name, so that it is not done by a slip.",
    )


class KeepLongerBody(StrictBody):
    """How much longer."""

    hours = serializers.IntegerField(
        min_value=1, max_value=8760, help_text="Added to the time planned so far."
    )


class BandwidthBody(StrictBody):
    """How fast it may be."""

    bandwidth_bytes_per_second = serializers.IntegerField(
        min_value=1, max_value=_LARGEST_BIGINT, allow_null=True, help_text="Null is as fast as it goes."
    )


class ExtendBody(StrictBody):
    """How large it shall be."""

    size_bytes = serializers.IntegerField(
        min_value=1, max_value=_LARGEST_BIGINT, help_text="The whole new size; a volume can only grow."
    )


class SnapshotBody(StrictBody):
    """What it shall be called."""

    name = serializers.CharField(max_length=255)


class ReportQuery(StrictBody):
    """Query of the report."""

    segments = serializers.BooleanField(
        default=False, help_text="Also the digests of every segment: 128 characters for each 64 MiB."
    )
