"""Volumes: list, page, creation, their verbs.  Migrating them is added by `migrations_app.admin`."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from backends.admin import volume_changes, volume_views
from backends.admin.pieces import CappedPaginator, PlainTitle, piece
from backends.drivers.errors import BadOptions
from backends.drivers.registry import driver_class
from backends.drivers.types import Support
from backends.models import Backend, Volume
from migrations_app.scheduler.human import bytes_text

#: In the other statuses the service would refuse.
_DELETABLE = frozenset({Volume.Status.AVAILABLE, Volume.Status.ERROR, Volume.Status.ERROR_DELETING})


class BackendFilter(admin.SimpleListFilter):
    """By backend, from the list of backends: Django's own filter would look through all volumes for it."""

    title = "backend"
    parameter_name = "backend"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(b.pk), b.address) for b in Backend.objects.order_by("host", "name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Volume]) -> QuerySet[Volume]:
        if self.value() and str(self.value()).isdigit():
            return queryset.filter(pool__backend_id=self.value())
        return queryset


class VolumeAdmin(PlainTitle, admin.ModelAdmin):
    """Name and description may be changed here; everything else only by services."""

    change_form_template = "volmig/volume_page.html"
    list_display = ["name", "size", "place", "volume_type", "status_text"]
    list_filter = ["status", "migration_status", BackendFilter]
    list_select_related = ["pool__backend", "volume_type"]
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 100
    list_max_show_all = 500
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ["-created_at", "-id"]
    search_fields = ["name__startswith"]
    empty_title = "No volume yet"
    empty_text = "A volume is somebody's disk in a pool of a backend. Create one to have something to move."
    search_help_text = "Beginning of the name, or the whole id."
    fieldsets = [("Name and description", {"fields": ["name", "description"]})]

    # -- list --------------------------------------------------------------------------------------------

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Volume], search_term: str
    ) -> tuple[QuerySet[Volume], bool]:
        try:
            return queryset.filter(pk=uuid.UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Volume | None:
        return (
            self.model.objects.select_related("pool__backend", "volume_type")
            .filter(pk=_uuid(object_id))
            .first()
        )

    @admin.display(description="size", ordering="size_bytes")
    def size(self, volume: Volume) -> str:
        return bytes_text(volume.size_bytes)

    @admin.display(description="pool")
    def place(self, volume: Volume) -> SafeString:
        return piece("volmig/pool_link.html", pool=volume.pool)

    @admin.display(description="status", ordering="status")
    def status_text(self, volume: Volume) -> SafeString:
        return piece("volmig/volume_cell.html", volume=volume)

    # -- page --------------------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        volume = self.get_object(request, object_id)
        context = {
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            "attachments": volume.attachments.select_related("attached_by")[:20] if volume else [],
            "snapshots": volume.snapshots.all()[:50] if volume else [],
            "can_snapshot": bool(volume) and _has_snapshots(volume.pool.backend),
            "may_be_deleted": bool(volume) and volume.status in _DELETABLE and not volume.locked_by_migration,
            "may_attach": request.user.has_perm(volume_views.ATTACH),
            **(extra_context or {}),
        }
        return super().change_view(request, object_id, form_url, context)

    def save_model(self, request: HttpRequest, obj: Volume, form: Any, change: bool) -> None:
        # Never the whole row: a migration may move the record while the form is open.
        obj.save(update_fields=["name", "description", "updated_at"])

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return volume_views.add(self, request)

    def get_urls(self) -> list[URLPattern]:
        def view(function: Any) -> Any:
            return self.admin_site.admin_view(lambda request, **ids: function(self, request, **ids))

        return [
            path("<uuid:pk>/attach/", view(volume_views.attach), name="backends_volume_attach"),
            path("<uuid:pk>/detach/", view(volume_views.detach), name="backends_volume_detach"),
            path("<uuid:pk>/extend/", view(volume_changes.extend), name="backends_volume_extend"),
            path("<uuid:pk>/snapshot/", view(volume_changes.snapshot), name="backends_volume_snapshot"),
            path(
                "<uuid:pk>/snapshots/<uuid:snapshot>/delete/",
                view(volume_changes.delete_snapshot),
                name="backends_volume_delete_snapshot",
            ),
            *super().get_urls(),
        ]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return volume_changes.delete(self, request, _uuid(object_id))

    def has_delete_permission(self, request: HttpRequest, obj: Volume | None = None) -> bool:
        """
        Django's own deletion, of many at once, is not offered: a record must not go while its data stays, nor the data
        by a slip of the mouse.  `delete_view` asks for the name.
        """
        return False


def _has_snapshots(backend: Backend) -> bool:
    """Tell whether the storage can hold snapshots at all."""
    try:
        return driver_class(backend.driver).capabilities.snapshots is not Support.NONE
    except BadOptions:
        return False


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(str(text))
    except ValueError:
        raise Http404(f"'{text}' is not the id of a volume.") from None
