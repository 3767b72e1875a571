"""Volumes, with what migrating adds to their list and page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from backends.admin import VolumeAdmin
from backends.admin.pieces import piece
from backends.models import Volume
from migrations_app.admin import migrate_view
from migrations_app.models import VolumeMigration


@admin.register(Volume)
class MigratableVolumeAdmin(VolumeAdmin):
    """Registered here and not beside its base: storage knows nothing of migrations."""

    change_form_template = "volmig/volume_page_with_migrations.html"
    actions = ["migrate_to_backend"]
    list_display = [*VolumeAdmin.list_display, "migration"]

    @admin.display(description="migration", ordering="migration_status")
    def migration(self, volume: Volume) -> SafeString:
        return piece("volmig/volume_migration_cell.html", volume=volume)

    @admin.action(description="Migrate to backend…", permissions=["migrate"])
    def migrate_to_backend(self, request: HttpRequest, queryset: QuerySet[Volume]) -> HttpResponse | None:
        ids = list(
            queryset.order_by("name", "pk").values_list("pk", flat=True)[: migrate_view.MOST_VOLUMES + 1]
        )
        if len(ids) > migrate_view.MOST_VOLUMES:
            self.message_user(request, migrate_view.too_many_text(queryset.count()), messages.ERROR)
            return None
        query = urlencode([("volume", pk) for pk in ids])
        return redirect(f"{reverse('admin:backends_volume_migrate')}?{query}")

    def has_migrate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(migrate_view.PERMISSION)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(lambda request: migrate_view.migrate(self.admin_site, request))
        return [path("migrate/", view, name="backends_volume_migrate"), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {"may_migrate": self.has_migrate_permission(request), **(extra_context or {})}
        if request.user.has_perm("migrations_app.view_volumemigration"):
            volume = self.get_object(request, object_id)
            rows = VolumeMigration.objects.select_related("source_pool__backend", "destination_pool__backend")
            context["may_see_migrations"] = True
            context["migrations"] = (
                rows.prefetch_related("journal").filter(volume=volume)[:10] if volume else []
            )
        return super().change_view(request, object_id, form_url, context)
