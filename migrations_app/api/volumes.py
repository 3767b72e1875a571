"""Volumes: looking, moving, attaching, extending, snapshots, deleting."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from backends import services as inventory
from backends.models import Attachment, Snapshot, Volume
from migrations_app import services
from migrations_app.api import bodies, filters, permissions, schema, serializers
from migrations_app.api.migration_serializers import MigrationSerializer
from migrations_app.api.pagination import NewestFirst
from migrations_app.api.problems import CONTENT_TYPE
from migrations_app.api.resource import Resource, accepted, query
from migrations_app.models import VolumeMigration

_LONGEST_KEY = 255


class VolumeViewSet(ListModelMixin, RetrieveModelMixin, Resource):
    """Volumes, and what is done with them."""

    queryset = Volume.objects.select_related("pool__backend", "volume_type").prefetch_related(
        Prefetch("attachments", Attachment.objects.filter(detached_at=None), to_attr="current_attachments")
    )
    serializer_class = serializers.VolumeSerializer
    filterset_class = filters.VolumeFilter
    action_permissions = {
        "migrate": permissions.MIGRATE,
        "attach": permissions.ATTACH,
        "detach": permissions.ATTACH,
        "extend": permissions.CHANGE_VOLUME,
        "create_snapshot": permissions.ADD_SNAPSHOT,
        "destroy": permissions.DELETE_VOLUME,
    }

    @extend_schema(
        operation_id="volumes_destinations",
        parameters=[bodies.DestinationsQuery],
        responses={200: schema.DestinationsSchema},
    )
    @action(detail=True, pagination_class=None, filterset_class=None)
    def destinations(self, request: Request, pk: str) -> Response:
        """Where the volume may go: every pool with all reasons for and against, best first."""
        wishes = query(request, bodies.DestinationsQuery)
        return Response(services.destinations(self.get_object(), services.Options(**wishes)).as_dict())

    @extend_schema(
        operation_id="volumes_migrate",
        request=bodies.MigrateBody,
        parameters=[schema.IDEMPOTENCY_KEY, schema.LOCATION, schema.RETRY_AFTER, schema.REPLAYED],
        responses={
            202: MigrationSerializer,
            200: schema.DryRunSchema,
            (400, CONTENT_TYPE): schema.problem("The body was not understood."),
            (409, CONTENT_TYPE): schema.problem("Refused, with every reason."),
            (422, CONTENT_TYPE): schema.problem("The idempotency key was sent with another request."),
        },
    )
    @action(detail=True, methods=["post"])
    def migrate(self, request: Request, pk: str) -> Response:
        """Move the volume to a backend or pool.  `dry_run`: 200 with the verdict, nothing is changed."""
        body = self.read(bodies.MigrateBody)
        options = body.options()
        if options.verify == VolumeMigration.Verify.NONE:
            permissions.require(request, permissions.SKIP_VERIFICATION, "verify=none")
        volume, destination = self.get_object(), body.validated_data["destination"]
        if body.validated_data["dry_run"]:
            return Response(services.dry_run(volume, destination, options).as_dict())
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return accepted(services.request_migration(volume, destination, self.actor(), options))
        if not 1 <= len(key) <= _LONGEST_KEY:
            raise ValidationError(f"The header Idempotency-Key has 1 to {_LONGEST_KEY} characters.")
        migration, is_known = services.request_once(volume, destination, self.actor(), options, key=key)
        return accepted(migration, **({"Idempotent-Replayed": "true"} if is_known else {}))

    @extend_schema(
        operation_id="volumes_attach",
        request=bodies.AttachBody,
        responses={
            201: serializers.AttachmentSerializer,
            (409, CONTENT_TYPE): schema.problem("The volume is busy."),
        },
    )
    @action(detail=True, methods=["post"])
    def attach(self, request: Request, pk: str) -> Response:
        """Record that a machine uses the volume; it cannot be migrated from now on."""
        body = self.read(bodies.AttachBody).validated_data
        attachment = inventory.attach(
            self.get_object(), body["attached_to"], mountpoint=body["mountpoint"], user=request.user
        )
        return Response(serializers.AttachmentSerializer(attachment).data, status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="volumes_detach",
        request=bodies.EmptyBody,
        responses={
            200: serializers.AttachmentSerializer,
            (409, CONTENT_TYPE): schema.problem("The volume is busy or not attached."),
        },
    )
    @action(detail=True, methods=["post"])
    def detach(self, request: Request, pk: str) -> Response:
        """Record that nobody uses the volume any more."""
        self.read(bodies.EmptyBody)
        return Response(serializers.AttachmentSerializer(inventory.detach(self.get_object())).data)

    @extend_schema(
        operation_id="volumes_extend",
        request=bodies.ExtendBody,
        responses={
            200: serializers.VolumeSerializer,
            (400, CONTENT_TYPE): schema.problem("The body was not understood."),
            (409, CONTENT_TYPE): schema.problem("The volume is busy, or as large already."),
        },
    )
    @action(detail=True, methods=["post"])
    def extend(self, request: Request, pk: str) -> Response:
        """Make the volume larger; the new part reads as zeros."""
        size_bytes = self.read(bodies.ExtendBody).validated_data["size_bytes"]
        inventory.extend_volume(self.get_object(), size_bytes)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        operation_id="volumes_snapshots", responses={200: serializers.SnapshotSerializer(many=True)}
    )
    @action(detail=True, pagination_class=NewestFirst, filterset_class=None)
    def snapshots(self, request: Request, pk: str) -> Response:
        """The volume's snapshots, newest first."""
        page = self.paginate_queryset(self.get_object().snapshots.all())
        return self.get_paginated_response(serializers.SnapshotSerializer(page, many=True).data)

    @extend_schema(
        operation_id="volumes_create_snapshot",
        request=bodies.SnapshotBody,
        responses={
            201: serializers.SnapshotSerializer,
            (400, CONTENT_TYPE): schema.problem("The body was not understood."),
            (409, CONTENT_TYPE): schema.problem("The volume is busy, or its storage has no snapshots."),
        },
    )
    @snapshots.mapping.post
    def create_snapshot(self, request: Request, pk: str) -> Response:
        """Make a snapshot.  A volume with snapshots cannot be migrated."""
        name = self.read(bodies.SnapshotBody).validated_data["name"]
        snapshot = inventory.create_snapshot(self.get_object(), name)
        return Response(serializers.SnapshotSerializer(snapshot).data, status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="volumes_delete",
        responses={204: None, (409, CONTENT_TYPE): schema.problem("The volume is busy or has snapshots.")},
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete the volume and its data.  There is no way back."""
        inventory.delete_volume(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


class SnapshotViewSet(Resource):
    """Snapshots; they are listed with their volume."""

    queryset = Snapshot.objects.select_related("volume")
    serializer_class = serializers.SnapshotSerializer
    action_permissions = {"destroy": permissions.DELETE_SNAPSHOT}

    @extend_schema(
        operation_id="snapshots_delete",
        responses={204: None, (409, CONTENT_TYPE): schema.problem("The volume is busy.")},
    )
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete the snapshot; the volume is not changed."""
        inventory.delete_snapshot(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)
