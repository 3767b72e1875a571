"""What the OpenAPI description says beyond what the views say themselves."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from migrations_app.api.problems import CONTENT_TYPE
from migrations_app.scheduler.types import Category


class ReasonSchema(serializers.Serializer):
    """Why not, and what would mend it."""

    code = serializers.CharField()
    category = serializers.ChoiceField(choices=[c.value for c in Category])
    text = serializers.CharField()
    remedy = serializers.CharField()


class FieldErrorSchema(serializers.Serializer):
    """One mistake in the request."""

    pointer = serializers.CharField(required=False, help_text="Where in the body, as a JSON pointer.")
    parameter = serializers.CharField(required=False, help_text="Which query parameter.")
    detail = serializers.CharField()
    code = serializers.CharField()


class ProblemSchema(serializers.Serializer):
    """An error (RFC 9457)."""

    type = serializers.CharField(help_text="urn:volmig:problem:<code>")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    instance = serializers.CharField(required=False)
    reasons = ReasonSchema(many=True, required=False, help_text="Of a refusal: all of them.")
    errors = FieldErrorSchema(many=True, required=False, help_text="Of a bad request: all of them.")


class ScorePartSchema(serializers.Serializer):
    """One weigher's share of a score."""

    name = serializers.CharField()
    label = serializers.CharField()
    raw = serializers.FloatField()
    normalised = serializers.FloatField()
    multiplier = serializers.FloatField()


class VerdictSchema(serializers.Serializer):
    """The scheduler's answer for one pool."""

    destination = serializers.CharField(help_text="HOST@BACKEND#POOL")
    fits = serializers.BooleanField()
    reasons = ReasonSchema(many=True)
    warnings = ReasonSchema(many=True)
    method = serializers.CharField()
    native_declined = serializers.CharField()
    network = serializers.CharField(help_text="Which way the bytes go between two hosts; empty for one host.")
    free_bytes = serializers.IntegerField(allow_null=True)
    free_after_bytes = serializers.IntegerField(allow_null=True)
    estimate_seconds = serializers.FloatField(allow_null=True)
    score = serializers.FloatField()
    score_parts = ScorePartSchema(many=True)


class MovedVolumeSchema(serializers.Serializer):
    """The volume that is asked about."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    size_bytes = serializers.IntegerField()
    pool = serializers.CharField()


class DestinationsSchema(serializers.Serializer):
    """Every pool with its verdict, best first."""

    volume = MovedVolumeSchema()
    can_move = serializers.BooleanField()
    reasons = ReasonSchema(many=True, help_text="What speaks against moving it at all.")
    warnings = ReasonSchema(many=True)
    destinations = VerdictSchema(many=True)


class DryRunSchema(serializers.Serializer):
    """What a request would have been answered."""

    volume = serializers.UUIDField()
    accepted = serializers.BooleanField()
    verdict = VerdictSchema()
    warnings = ReasonSchema(many=True)


class FindingSchema(serializers.Serializer):
    """One difference between the rows and the storage."""

    kind = serializers.CharField()
    subject = serializers.CharField()
    text = serializers.CharField(help_text="What was found.")
    proposal = serializers.CharField(help_text="What mending would do, or what a person should.")
    is_safe = serializers.BooleanField(help_text="Mending does it.")
    migration = serializers.UUIDField(allow_null=True)
    volume = serializers.UUIDField(allow_null=True)


class FindingsSchema(serializers.Serializer):
    """Every difference on one host."""

    host = serializers.CharField()
    findings = FindingSchema(many=True)


class RemainingSchema(FindingSchema):
    """One difference that was not mended."""

    error = serializers.CharField(help_text="Why it could not be mended; empty: a person must look at it.")


class MendedSchema(serializers.Serializer):
    """What was mended and what remains."""

    host = serializers.CharField()
    mended = FindingSchema(many=True)
    remaining = RemainingSchema(many=True)


def problem(description: str) -> OpenApiResponse:
    """Return the description of an error answer."""
    return OpenApiResponse(ProblemSchema, description=description)


LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.URI_REF, OpenApiParameter.HEADER, response=[202], description="The migration."
)
RETRY_AFTER = OpenApiParameter(
    "Retry-After", int, OpenApiParameter.HEADER, response=[202], description="Seconds to wait before looking."
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Up to 255 characters of your choice, remembered for 24 hours. The same request with the same key is "
    "answered with the migration that the first one made.",
)
REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    response=[202],
    enum=["true"],
    description="The key was known: this migration was accepted before.",
)
DISPOSITION = OpenApiParameter("Content-Disposition", str, OpenApiParameter.HEADER, response=[200])
ETAG = OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200])
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, OpenApiParameter.HEADER, description="The last ETag; 304 when nothing has changed."
)


class Schema(AutoSchema):
    """Adds the errors that every operation may answer."""

    _ALWAYS = {"401": "Not authenticated.", "403": "Not permitted.", "404": "Nothing there."}

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        for code, description in self._ALWAYS.items():
            if code not in bodies:
                bodies[code] = self._get_response_for_code(
                    problem(description), code, [CONTENT_TYPE], direction
                )
        return bodies
