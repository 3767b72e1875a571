"""Backends: add, change, see whether they are up."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from backends import services
from backends.admin.backend_form import OPTION_PREFIX, OWN_FIELDS, BackendForm, form_for_driver
from backends.admin.pieces import PlainTitle, piece
from backends.admin.pool import PoolInline
from backends.drivers.errors import DriverError, VolmigError
from backends.drivers.registry import driver_class, driver_names
from backends.models import Backend, Pool

_PLACE = ["availability_zone", "is_enabled", "disabled_reason"]
_LIMITS = ["reserved_percentage", "max_over_subscription_ratio", "max_bandwidth_bytes_per_second"]
_SCHEDULING = ["filter_function", "goodness_function", "extra_capabilities"]
#: Its volumes live in one process and die with it: nobody wants it by accident.
_ONLY_FOR_TESTS = frozenset({"fake"})


@admin.register(Backend)
class BackendAdmin(PlainTitle, admin.ModelAdmin):
    """A backend is added in two steps: which driver, then its options."""

    list_display = ["address", "state", "driver", "availability_zone", "is_enabled", "room"]
    list_filter = ["is_enabled"]
    search_fields = ["host__startswith", "name__startswith"]
    empty_title = "No backend yet"
    empty_text = "A backend is a storage system as one host reaches it. Add two, then volumes can move."
    search_help_text = "Beginning of the host or of the backend's name."
    show_full_result_count = False
    ordering = ["host", "name"]
    actions = ["refresh_statistics"]
    inlines = [PoolInline]

    # -- list --------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Backend]:
        return super().get_queryset(request).prefetch_related("pools")

    @admin.display(description="backend", ordering="host")
    def address(self, backend: Backend) -> str:
        return backend.address

    @admin.display(description="state")
    def state(self, backend: Backend) -> SafeString:
        return piece("volmig/backend_cell.html", backend=backend)

    @admin.display(description="room")
    def room(self, backend: Backend) -> SafeString:
        return piece("volmig/pools_cell.html", pools=backend.pools.all())

    @admin.action(description="Refresh statistics", permissions=["change"])
    def refresh_statistics(self, request: HttpRequest, queryset: QuerySet[Backend]) -> None:
        for backend in queryset:
            if not services.is_local(backend):
                text = f"Backend {backend}: the worker of host '{backend.host}' refreshes it; this is another host."
                self.message_user(request, text, messages.WARNING)
                continue
            try:
                services.refresh_backend(backend)
                self.message_user(request, f"Backend {backend}: refreshed.", messages.SUCCESS)
            except DriverError as error:
                self.message_user(
                    request, f"Backend {backend}: {error.message} {error.remedy}", messages.ERROR
                )

    # -- form --------------------------------------------------------------------------------------------

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if self.has_add_permission(request) and _asked_driver(request) is None:
            drivers = [
                {"name": name, "label": driver_class(name).label}
                for name in driver_names()
                if name not in _ONLY_FOR_TESTS
            ]
            context = {
                **self.admin_site.each_context(request),
                "title": "Add a backend: which kind of storage?",
                "opts": self.opts,
                "drivers": drivers,
                "breadcrumbs": [("Storage", None), ("Backends", ".."), ("Add", None)],
            }
            return TemplateResponse(request, "volmig/choose_driver.html", context)
        return super().add_view(request, form_url, extra_context)

    def get_form(
        self, request: HttpRequest, obj: Backend | None = None, change: bool = False, **kwargs: Any
    ) -> type[BackendForm]:
        driver = obj.driver if obj else _asked_driver(request)
        return form_for_driver(driver or driver_names()[0], obj)

    def get_fieldsets(
        self, request: HttpRequest, obj: Backend | None = None
    ) -> list[tuple[str | None, dict]]:
        names = list(self.get_form(request, obj, change=obj is not None).base_fields)
        options = [name for name in names if name.startswith(OPTION_PREFIX)]
        driver = obj.driver if obj else _asked_driver(request) or ""
        identity = ["address", "state", "driver"] if obj else ["host", "name"]
        if obj and not self.has_change_permission(request, obj):
            options = ["options_text"]
        return [
            (None, {"fields": identity}),
            (f"Options of the driver '{driver}'", {"fields": options}),
            ("Where it stands", {"fields": _PLACE}),
            ("Limits", {"fields": _LIMITS}),
            ("For the scheduler", {"fields": _SCHEDULING, "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Backend | None = None) -> list[str]:
        return ["address", "state", "driver", "options_text"] if obj else []

    def get_inlines(self, request: HttpRequest, obj: Backend | None) -> list[type]:
        return [PoolInline] if obj else []

    def save_model(self, request: HttpRequest, obj: Backend, form: BackendForm, change: bool) -> None:
        if change:
            # Only what the form holds: the worker writes its report into the same row meanwhile.
            obj.save(update_fields=[*OWN_FIELDS, "options", "secret_options"])

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list, dict, set, list]:
        """Pools go with their backend's record; volumes and migrations protect both.  No data is touched."""
        rows, counts, needed, protected = super().get_deleted_objects(objs, request)
        return rows, counts, needed - {Pool._meta.verbose_name}, protected

    @admin.display(description="options")
    def options_text(self, backend: Backend) -> SafeString:
        return piece("volmig/specs.html", specs=services.masked_options(backend))


def _asked_driver(request: HttpRequest) -> str | None:
    """Return the driver in the address, if there is one of that name."""
    name = request.GET.get("driver", "")
    try:
        return driver_class(name).name if name else None
    except VolmigError:
        return None
