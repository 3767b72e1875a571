"""Pools: what the storage reports of itself, read-only."""

from __future__ import annotations

import json

from django.contrib import admin
from django.utils.safestring import SafeString

from backends.admin.pieces import CappedPaginator, PlainTitle, ReadOnlyAdmin, piece, pool_cell
from backends.models import Pool
from migrations_app.scheduler.human import bytes_text


@admin.register(Pool)
class PoolAdmin(PlainTitle, ReadOnlyAdmin, admin.ModelAdmin):
    """Read-only."""

    list_display = ["address_text", "room", "promised", "volume_count", "state", "reported"]
    list_select_related = ["backend"]
    search_fields = ["name__startswith", "backend__name__startswith", "backend__host__startswith"]
    empty_title = "No pool has reported yet"
    empty_text = "Pools come with their backend: add a backend, and they appear here."
    search_help_text = "Beginning of the pool's, the backend's or the host's name."
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ["backend__host", "backend__name", "name"]
    fieldsets = [
        (None, {"fields": ["address_text", "state", "room"]}),
        (
            "Room",
            {
                "fields": [
                    "total",
                    "free",
                    "promised",
                    "volume_count",
                    "thin_provisioning_support",
                    "thick_provisioning_support",
                    "is_infinite",
                    "is_read_only",
                ]
            },
        ),
        ("As the driver reports it", {"fields": ["reported", "storage_id", "location", "capabilities_text"]}),
    ]
    readonly_fields = [
        "address_text",
        "state",
        "room",
        "total",
        "free",
        "promised",
        "reported",
        "location",
        "capabilities_text",
    ]

    @admin.display(description="pool", ordering="name")
    def address_text(self, pool: Pool) -> str:
        return str(pool.address)

    @admin.display(description="room")
    def room(self, pool: Pool) -> SafeString:
        return pool_cell(pool)

    @admin.display(description="backend is")
    def state(self, pool: Pool) -> SafeString:
        return piece("volmig/backend_cell.html", backend=pool.backend)

    @admin.display(description="total")
    def total(self, pool: Pool) -> str:
        return "without limit" if pool.is_infinite else bytes_text(pool.total_bytes)

    @admin.display(description="free")
    def free(self, pool: Pool) -> str:
        return "without limit" if pool.is_infinite else bytes_text(pool.free_bytes)

    @admin.display(description="promised", ordering="provisioned_bytes")
    def promised(self, pool: Pool) -> str:
        return bytes_text(pool.provisioned_bytes)

    @admin.display(description="last report", ordering="reported_at")
    def reported(self, pool: Pool) -> SafeString:
        return piece("volmig/ago.html", moment=pool.reported_at, never="never")

    @admin.display(description="location info")
    def location(self, pool: Pool) -> SafeString:
        return piece("volmig/json.html", text=json.dumps(pool.location_info, indent=2))

    @admin.display(description="capabilities")
    def capabilities_text(self, pool: Pool) -> SafeString:
        return piece("volmig/json.html", text=json.dumps(pool.capabilities, indent=2))


class PoolInline(ReadOnlyAdmin, admin.TabularInline):
    """The pools on their backend's page."""

    model = Pool
    template = "volmig/pools_inline.html"
    fields = ["name"]
    extra = 0
