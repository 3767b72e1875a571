"""Migrations: the list, the page of one, cancelling.  Read-only but for the verbs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from backends.admin.pieces import CappedPaginator, PlainTitle, ReadOnlyAdmin, live_response, piece
from migrations_app.admin.migration_page import KEPT, page_context
from migrations_app.admin.report_view import report_file, report_page
from migrations_app.admin.verb_view import ask_then_do
from migrations_app.admin.verbs import VERBS
from migrations_app.models import VolumeMigration
from migrations_app.states import ENDED, WORKING, State

#: One request asks for the live parts of so many rows.
_LIVE_ROWS = 100
_SOON_HOURS = 24


class StageFilter(admin.SimpleListFilter):
    """The states in three heaps, as people look for them."""

    title = "stage"
    parameter_name = "stage"

    _STATES = {
        "active": [*WORKING, State.PAUSED],
        "person": [State.NEEDS_OPERATOR, State.FAILED],
        "kept": [State.RETAINED],
        "ended": [*ENDED],
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("active", "running or waiting"),
            ("person", "failed or needs a decision"),
            ("kept", "moved, source kept"),
            ("ended", "over"),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[VolumeMigration]
    ) -> QuerySet[VolumeMigration]:
        states = self._STATES.get(self.value() or "")
        return queryset.filter(state__in=states) if states else queryset


class KeptFilter(admin.SimpleListFilter):
    """Where an old copy still lies, and how long it stays: the way back."""

    title = "sources kept"
    parameter_name = "kept"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("any", "kept now"),
            ("soon", f"deleted within {_SOON_HOURS} h"),
            ("open", "until somebody deletes them"),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[VolumeMigration]
    ) -> QuerySet[VolumeMigration]:
        kept = queryset.filter(KEPT)
        match self.value():
            case "any":
                return kept
            case "soon":
                return kept.filter(purge_after__lte=timezone.now() + timedelta(hours=_SOON_HOURS))
            case "open":
                return kept.filter(purge_after=None)
        return queryset


class StateFilter(admin.ChoicesFieldListFilter):
    """The states in words."""

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        for choice in super().choices(changelist):
            yield {**choice, "display": str(choice["display"]).replace("_", " ")}


@admin.register(VolumeMigration)
class MigrationAdmin(PlainTitle, ReadOnlyAdmin, admin.ModelAdmin):
    """Rows are written by services and workers only."""

    change_list_template = "volmig/migration_list.html"
    list_display = ["volume_name", "route", "state_cell", "progress", "asked", "duration"]
    list_filter = [StageFilter, KeptFilter, ("state", StateFilter)]
    show_facets = admin.ShowFacets.NEVER
    list_select_related = ["source_pool__backend", "destination_pool__backend"]
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ["-created_at", "-id"]
    search_fields = ["volume_name__startswith"]
    empty_title = "Nothing has been moved yet"
    empty_text = (
        "Select volumes in their list and choose 'Migrate to backend…': every move appears here with its progress, "
        "its proof and its story."
    )
    search_help_text = "Beginning of the volume's name, or the whole id of a migration or a volume."
    actions = None

    # -- list --------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[VolumeMigration]:
        return super().get_queryset(request).prefetch_related("journal")

    def get_list_display(self, request: HttpRequest) -> list[str]:
        if KeptFilter.parameter_name in request.GET:
            return ["volume_name", "route", "state_cell", "kept_until", "asked"]
        return self.list_display

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        if KeptFilter.parameter_name in request.GET:
            return [F("purge_after").asc(nulls_last=True), "-id"]
        return self.ordering

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[VolumeMigration], search_term: str
    ) -> tuple[QuerySet[VolumeMigration], bool]:
        try:
            wanted = uuid.UUID(search_term.strip())
        except ValueError:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(pk=wanted) | queryset.filter(volume_id=wanted), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        page: ChangeList | None = getattr(response, "context_data", {}).get("cl")
        if page is not None:
            active = [str(m.pk) for m in page.result_list if m.state in WORKING]
            if active:
                query = "&".join(f"id={pk}" for pk in active[:_LIVE_ROWS])
                response.context_data["live_url"] = (
                    f"{reverse('admin:migrations_app_volumemigration_live_rows')}?{query}"
                )
        return response

    @admin.display(description="from → to")
    def route(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/route.html", migration=migration)

    @admin.display(description="state", ordering="state")
    def state_cell(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/migration_state_cell.html", migration=migration)

    @admin.display(description="progress")
    def progress(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/migration_progress_cell.html", migration=migration)

    @admin.display(description="asked", ordering="created_at")
    def asked(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/asked_by.html", migration=migration)

    @admin.display(description="took")
    def duration(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/migration_took_cell.html", migration=migration)

    @admin.display(description="source kept until", ordering="purge_after")
    def kept_until(self, migration: VolumeMigration) -> SafeString:
        return piece("volmig/migration_kept_cell.html", migration=migration)

    # -- page --------------------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            migration = self._get(uuid.UUID(object_id))
        except ValueError:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{migration.volume_name} to {migration.destination_pool}",
            **page_context(migration, request.user),
        }
        return TemplateResponse(request, "volmig/migration.html", context)

    def _get(self, pk: uuid.UUID) -> VolumeMigration:
        rows = VolumeMigration.objects.select_related(
            "source_pool__backend", "destination_pool__backend", "volume"
        )
        return get_object_or_404(rows.prefetch_related("journal"), pk=pk)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        name = "migrations_app_volumemigration"
        return [
            path("live/", wrap(require_safe(self.live_rows)), name=f"{name}_live_rows"),
            path("<uuid:pk>/live/", wrap(require_safe(self.live)), name=f"{name}_live"),
            path("<uuid:pk>/report/", wrap(require_safe(self.report)), name=f"{name}_report"),
            path("<uuid:pk>/report.json", wrap(require_safe(self.report_file)), name=f"{name}_report_file"),
            *(
                path(f"<uuid:pk>/{verb}/", wrap(self.ask), {"name": verb}, name=f"{name}_{verb}")
                for verb in VERBS
            ),
            *super().get_urls(),
        ]

    def live(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Return the parts of one migration's page that change by themselves."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return live_response(request, "volmig/migration_live.html", page_context(self._get(pk), request.user))

    def live_rows(self, request: HttpRequest) -> HttpResponse:
        """Return the cells of the rows whose ids are asked, all with one request."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            ids = [uuid.UUID(text) for text in request.GET.getlist("id")[:_LIVE_ROWS]]
        except ValueError:
            raise BadRequest("An id is not a UUID.") from None
        rows = list(VolumeMigration.objects.filter(pk__in=ids).prefetch_related("journal"))
        context = {"rows": rows, "is_over": all(m.state not in WORKING for m in rows)}
        return live_response(request, "volmig/migration_rows_live.html", context)

    def report(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Return the report to print."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return report_page(request, self._get(pk))

    def report_file(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Return the report to keep."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return report_file(self._get(pk))

    # -- verbs ---------------------------------------------------------------------------------------------

    def ask(self, request: HttpRequest, pk: uuid.UUID, name: str) -> HttpResponse:
        """Ask, then do what the verb *name* says."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return ask_then_do(self.admin_site, request, self._get(pk), VERBS[name])
