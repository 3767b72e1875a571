"""The REST API: parse, call one service, show."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.http import Http404
from django.urls import Resolver404, resolve, reverse
from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ReadOnlyModelViewSet

from backends import services as inventory
from backends.models import Attachment, Backend, Pool, Volume, VolumeType
from migrations_app import services
from migrations_app.api import bodies, filters, permissions, schema, serializers
from migrations_app.api.pagination import ByName, NewestFirst, OldestFirst
from migrations_app.api.problems import CONTENT_TYPE
from migrations_app.models import VolumeMigration

_LOOK_AGAIN_SECONDS = "2"


class Resource(ReadOnlyModelViewSet):
    """A list and its rows, for staff."""

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


class BackendViewSet(Resource):
    """Storage systems, with their health."""

    queryset = Backend.objects.prefetch_related("pools")
    serializer_class = serializers.BackendSerializer


class PoolViewSet(Resource):
    """Places for volumes, with their capacity."""

    queryset = Pool.objects.select_related("backend")
    serializer_class = serializers.PoolSerializer
    filterset_class = filters.PoolFilter
    pagination_class = OldestFirst


class VolumeTypeViewSet(Resource):
    """Classes of volumes."""

    queryset = VolumeType.objects.all()
    serializer_class = serializers.VolumeTypeSerializer
    pagination_class = ByName


class VolumeViewSet(Resource):
    """Volumes, and moving them."""

    queryset = Volume.objects.select_related("pool__backend", "volume_type").prefetch_related(
        Prefetch("attachments", Attachment.objects.filter(detached_at=None), to_attr="current_attachments")
    )
    serializer_class = serializers.VolumeSerializer
    filterset_class = filters.VolumeFilter
    action_permissions = {
        "migrate": permissions.MIGRATE,
        "attach": permissions.ATTACH,
        "detach": permissions.ATTACH,
    }

    @extend_schema(
        operation_id="volumes_destinations",
        parameters=[bodies.DestinationsQuery],
        responses={200: schema.DestinationsSchema},
    )
    @action(detail=True, pagination_class=None, filterset_class=None)
    def destinations(self, request: Request, pk: str) -> Response:
        """Where the volume may go: every pool with all reasons for and against, best first."""
        query = bodies.DestinationsQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        volume = self.get_object()
        return Response(services.destinations(volume, **query.validated_data).as_dict())

    @extend_schema(
        operation_id="volumes_migrate",
        request=bodies.MigrateBody,
        parameters=[schema.LOCATION, schema.RETRY_AFTER],
        responses={
            202: serializers.MigrationSerializer,
            200: schema.DryRunSchema,
            (400, CONTENT_TYPE): schema.problem("The body was not understood."),
            (409, CONTENT_TYPE): schema.problem("Refused, with every reason."),
        },
    )
    @action(detail=True, methods=["post"])
    def migrate(self, request: Request, pk: str) -> Response:
        """Move the volume to a backend or pool.  `dry_run`: 200 with the verdict, nothing is changed."""
        body = self.read(bodies.MigrateBody)
        options = body.options()
        is_unverified = options.verify == VolumeMigration.Verify.NONE
        if is_unverified and not request.user.has_perm(permissions.SKIP_VERIFICATION):
            raise PermissionDenied(f"verify=none needs the permission '{permissions.SKIP_VERIFICATION}'.")
        volume, destination = self.get_object(), body.validated_data["destination"]
        if body.validated_data["dry_run"]:
            return Response(services.dry_run(volume, destination, options).as_dict())
        migration = services.request_migration(volume, destination, self.actor(), options)
        return _accepted(migration)

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


class MigrationViewSet(Resource):
    """Migrations: how far they are, what was done, and stopping them."""

    queryset = VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend"
    ).prefetch_related("journal")
    serializer_class = serializers.MigrationSerializer
    filterset_class = filters.MigrationFilter
    action_permissions = {"cancel": permissions.CANCEL}

    @extend_schema(
        parameters=[schema.IF_NONE_MATCH, schema.ETAG],
        responses={200: serializers.MigrationSerializer, 304: OpenApiResponse(description="Nothing has changed.")},
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One migration.  Send the last `ETag` as `If-None-Match`: 304 while nothing changes."""
        migration = self.get_object()
        etag = _etag(migration)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        asked = parse_etags(request.headers.get("If-None-Match", ""))
        if etag in asked or asked == ["*"]:
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(self.get_serializer(migration).data, headers=headers)

    @extend_schema(
        operation_id="migrations_events", responses={200: serializers.JournalEntrySerializer(many=True)}
    )
    @action(detail=True, pagination_class=OldestFirst, filterset_class=None)
    def events(self, request: Request, pk: str) -> Response:
        """The journal: everything that was done and decided, in order."""
        page = self.paginate_queryset(self.get_object().journal.all())
        return self.get_paginated_response(serializers.JournalEntrySerializer(page, many=True).data)

    @extend_schema(
        operation_id="migrations_cancel",
        request=bodies.EmptyBody,
        parameters=[schema.LOCATION, schema.RETRY_AFTER],
        responses={
            202: serializers.MigrationSerializer,
            (409, CONTENT_TYPE): schema.problem("It cannot be cancelled any more."),
        },
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Undo what was done: destination removed, volume as it was.  May be repeated."""
        self.read(bodies.EmptyBody)
        return _accepted(services.cancel_migration(self.get_object(), self.actor()))


class UnknownPath(APIView):
    """Answers for every address under `/api/` that does not exist."""

    permission_classes = [permissions.StaffWithPermission]
    schema = None

    def _answer(self, request: Request, **kwargs: Any) -> Response:
        raise NotFound(f"There is nothing at {request.path}.{_hint(request.path)}")

    get = post = put = patch = delete = _answer


def _hint(path: str) -> str:
    try:
        is_known = resolve(f"{path}/").url_name != "api-unknown"
    except Resolver404:
        is_known = False
    if is_known:
        return f" Did you mean {path}/ (with the slash)?"
    return f" What there is stands at {reverse('api-docs')}."


def _accepted(migration: VolumeMigration) -> Response:
    headers = {
        "Location": reverse("migration-detail", args=[migration.pk]),
        "Retry-After": _LOOK_AGAIN_SECONDS,
    }
    data = serializers.MigrationSerializer(migration).data
    return Response(data, status.HTTP_202_ACCEPTED, headers=headers)


def _etag(migration: VolumeMigration) -> str:
    """Return a weak validator: what a person would call a change, not each tick of the speed."""
    entries = migration.journal.all()
    parts = [
        migration.state,
        migration.epoch,
        migration.phase_done_bytes,
        entries[len(entries) - 1].pk if entries else 0,
        *(int(t.timestamp()) if t else 0 for t in (migration.cancel_requested_at, migration.retry_at)),
    ]
    return 'W/"' + "-".join(map(str, parts)) + '"'
