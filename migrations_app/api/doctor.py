"""The doctor: what differs between the rows and the storage of this host, and mending what is safe."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from migrations_app import services
from migrations_app.api import bodies, permissions, schema
from migrations_app.api.resource import Resource


class DoctorViewSet(Resource):
    """Differences on the host that answers."""

    filter_backends: list[type] = []
    action_permissions = {"mend": permissions.DECIDE}

    @extend_schema(operation_id="doctor_examine", responses={200: schema.FindingsSchema})
    def examine(self, request: Request) -> Response:
        """Every difference, with what would be done about it.  Changes nothing."""
        findings = [finding.as_dict() for finding in services.examine()]
        return Response({"host": settings.VOLMIG_HOST, "findings": findings})

    @extend_schema(operation_id="doctor_mend", request=bodies.EmptyBody, responses={200: schema.MendedSchema})
    def mend(self, request: Request) -> Response:
        """Mend what is safe, after looking again; tells what was mended and what remains."""
        self.read(bodies.EmptyBody)
        return Response({"host": settings.VOLMIG_HOST, **services.mend_all(self.actor()).as_dict()})
