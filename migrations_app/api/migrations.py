"""Migrations: how far they are, what was done, and what a person decides about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils.http import parse_etags
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from migrations_app import services
from migrations_app.api import bodies, filters, permissions, schema
from migrations_app.api.migration_serializers import (
    JournalEntrySerializer,
    MigrationSerializer,
)
from migrations_app.api.pagination import OldestFirst
from migrations_app.api.problems import CONTENT_TYPE
from migrations_app.api.resource import Resource, accepted, query
from migrations_app.models import VolumeMigration
from migrations_app.report import report
from migrations_app.states import ENDED

_View = Callable[..., Response]


def _verb(
    name: str, refused: str, body: type[bodies.StrictBody] = bodies.EmptyBody, *, may_patch: bool = False
) -> Callable[[_View], _View]:
    """Return a decorator: a POST at `<name>/` that answers 202 with the migration, described."""
    answers = {
        202: MigrationSerializer,
        (400, CONTENT_TYPE): schema.problem("The body was not understood."),
        (409, CONTENT_TYPE): schema.problem(refused),
    }

    def decorate(view: _View) -> _View:
        methods = ["post", "patch"] if may_patch else ["post"]
        view = action(detail=True, methods=methods, url_path=name)(view)
        for method in methods:
            # Two operations need two ids.
            suffix = "" if method == "post" else f"_{method}"
            view = extend_schema(
                methods=[method],
                operation_id=f"migrations_{view.__name__}{suffix}",
                request=body,
                parameters=[schema.LOCATION, schema.RETRY_AFTER],
                responses=answers,
            )(view)
        return view

    return decorate


class MigrationViewSet(ListModelMixin, RetrieveModelMixin, Resource):
    """Migrations: how far they are, what was done, and what can be decided."""

    queryset = VolumeMigration.objects.select_related(
        "source_pool__backend", "destination_pool__backend"
    ).prefetch_related("journal")
    serializer_class = MigrationSerializer
    filterset_class = filters.MigrationFilter
    action_permissions = {
        **dict.fromkeys(("cancel", "pause", "resume", "bandwidth"), permissions.CANCEL),
        "retry": permissions.MIGRATE,
        **dict.fromkeys(("finish", "roll_back", "resolve", "purge_now", "keep_longer"), permissions.DECIDE),
    }

    @extend_schema(
        parameters=[schema.IF_NONE_MATCH, schema.ETAG],
        responses={200: MigrationSerializer, 304: OpenApiResponse(description="Nothing has changed.")},
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One migration.  Send the last `ETag` as `If-None-Match`: 304 while nothing changes."""
        migration = self.get_object()
        etag = _etag(migration)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        asked = parse_etags(request.headers.get("If-None-Match", ""))
        if etag in asked or asked == ["*"]:
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(MigrationSerializer(migration).data, headers=headers)

    @extend_schema(operation_id="migrations_events", responses={200: JournalEntrySerializer(many=True)})
    @action(detail=True, pagination_class=OldestFirst, filterset_class=None)
    def events(self, request: Request, pk: str) -> Response:
        """The journal: everything that was done and decided, in order."""
        page = self.paginate_queryset(self.get_object().journal.all())
        return self.get_paginated_response(JournalEntrySerializer(page, many=True).data)

    @extend_schema(
        operation_id="migrations_report",
        parameters=[bodies.ReportQuery, schema.DISPOSITION],
        responses={200: OpenApiTypes.OBJECT},
    )
    @action(detail=True, pagination_class=None, filterset_class=None)
    def report(self, request: Request, pk: str) -> Response:
        """The migration report, for the file: what was copied and compared, who asked, every step and attempt."""
        with_segments = query(request, bodies.ReportQuery)["segments"]
        migration = self.get_object()
        headers = {"Content-Disposition": f'attachment; filename="migration-{migration.pk}.json"'}
        return Response(report(migration, with_segments=with_segments), headers=headers)

    # -- while it runs ------------------------------------------------------------------------------------------

    @_verb("cancel", "It cannot be cancelled any more.")
    def cancel(self, request: Request, pk: str) -> Response:
        """Undo what was done: destination removed, volume as it was.  May be repeated."""
        self.read(bodies.EmptyBody)
        return accepted(services.cancel_migration(self.get_object(), self.actor()))

    @_verb("pause", "It has moved, has ended, or is being undone.")
    def pause(self, request: Request, pk: str) -> Response:
        """Stand still at the next checkpoint.  The volume stays locked.  May be repeated."""
        self.read(bodies.EmptyBody)
        return accepted(services.pause_migration(self.get_object(), self.actor()))

    @_verb("resume", "It has ended.")
    def resume(self, request: Request, pk: str) -> Response:
        """Go on from the checkpoint; also takes back a pause that has not happened yet.  May be repeated."""
        self.read(bodies.EmptyBody)
        return accepted(services.resume_migration(self.get_object(), self.actor()))

    @_verb("bandwidth", "It does not copy any more.", bodies.BandwidthBody, may_patch=True)
    def bandwidth(self, request: Request, pk: str) -> Response:
        """Change the limit; a running copy feels it within a second."""
        limit = self.read(bodies.BandwidthBody).validated_data["bandwidth_bytes_per_second"]
        return accepted(services.set_bandwidth(self.get_object(), limit, self.actor()))

    # -- when it has stopped ------------------------------------------------------------------------------------

    @_verb("retry", "It neither failed nor waits for a decision, or the volume cannot go there any more.")
    def retry(self, request: Request, pk: str) -> Response:
        """
        Try again.  One that failed or was cancelled is asked for anew: `Location` is the new migration.  One that
        waits for a decision goes on where it stopped.
        """
        self.read(bodies.EmptyBody)
        migration = self.get_object()
        if migration.verify == VolumeMigration.Verify.NONE and migration.state in ENDED:
            permissions.require(request, permissions.SKIP_VERIFICATION, "Retrying it without verification")
        return accepted(services.retry_migration(migration, self.actor()))

    @_verb("finish", "It does not wait for a decision, or has no complete copy.")
    def finish(self, request: Request, pk: str) -> Response:
        """Go forward from the complete copy: switch the record to it."""
        self.read(bodies.EmptyBody)
        return accepted(services.finish_migration(self.get_object(), self.actor()))

    @_verb(
        "roll-back",
        "The source is not kept, the volume was moved on or is in use, or it was written to since.",
        bodies.RollBackBody,
    )
    def roll_back(self, request: Request, pk: str) -> Response:
        """Point the record at the kept source again, at once.  What was written since the move would be lost."""
        accepts_loss = self.read(bodies.RollBackBody).validated_data["accepts_loss"]
        return accepted(services.roll_back(self.get_object(), self.actor(), accepts_loss=accepts_loss))

    @_verb(
        "resolve",
        "It does not wait for a decision, or the name or the word does not fit.",
        bodies.ResolveBody,
    )
    def resolve(self, request: Request, pk: str) -> Response:
        """End it by an operator's word about where the data is.  Deletes nothing."""
        body = self.read(bodies.ResolveBody).validated_data
        truth, typed_name = services.Truth(body["truth"]), body["typed_name"]
        return accepted(
            services.resolve_migration(self.get_object(), truth, self.actor(), typed_name=typed_name)
        )

    @_verb("purge-now", "Nothing is kept.")
    def purge_now(self, request: Request, pk: str) -> Response:
        """Delete the kept source now; after a roll-back the kept copy."""
        self.read(bodies.EmptyBody)
        return accepted(services.purge_now(self.get_object(), self.actor()))

    @_verb("keep-longer", "Nothing is kept for a limited time.", bodies.KeepLongerBody)
    def keep_longer(self, request: Request, pk: str) -> Response:
        """Keep the source longer than planned; after a roll-back the copy."""
        hours = self.read(bodies.KeepLongerBody).validated_data["hours"]
        return accepted(services.keep_longer(self.get_object(), hours, self.actor()))


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
