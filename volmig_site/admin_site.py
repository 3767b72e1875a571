"""The admin site: its name, its start page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin import AdminSite, ModelAdmin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_safe

_OWN_APPS = ("backends", "migrations_app")
#: The queue is only a doorbell: what stands in it is no truth about a migration, and "resubmit" would run pickles.
_HIDDEN_APPS = frozenset({"django_q"})
#: Shown among the models of another app: one row of its own is no section.
_SHOWN_WITH = {"authtoken": "auth"}


class VolmigAdminSite(AdminSite):
    """Stock Django admin with a start page that says what runs and what needs a person."""

    site_title = "volmig"
    site_header = "volmig"
    index_title = "Overview"
    site_url = None

    def register(
        self,
        model_or_iterable: type[Model] | Iterable[type[Model]],
        admin_class: type[ModelAdmin] | None = None,
        **options: Any,
    ) -> None:
        models = [model_or_iterable] if isinstance(model_or_iterable, type) else model_or_iterable
        shown = [model for model in models if model._meta.app_label not in _HIDDEN_APPS]
        super().register(shown, admin_class, **options)

    def get_urls(self) -> list[URLPattern]:
        return [
            path("overview/live/", self.admin_view(_live), name="overview_live"),
            path("doctor/", self.admin_view(self.doctor), name="doctor"),
            *super().get_urls(),
        ]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[dict[str, Any]]:
        """Return the apps, this project's own first."""
        apps = super().get_app_list(request, app_label)
        if app_label is None:
            apps = _gathered(apps)
        return sorted(apps, key=lambda app: (app["app_label"] not in _OWN_APPS, app["app_label"]))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # Models cannot be imported before the apps are ready, and the site is made before that.
        from volmig_site.dashboard import dashboard

        return super().index(request, {"dashboard": dashboard(request.user), **(extra_context or {})})

    def doctor(self, request: HttpRequest) -> HttpResponse:
        """Show what differs between rows and storage.  All staff may look."""
        from migrations_app.admin.doctor_view import doctor

        return doctor(self, request)


def _gathered(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *apps* with the models of those in `_SHOWN_WITH` moved to where they are looked for."""
    by_label = {app["app_label"]: app for app in apps}
    for label, other in _SHOWN_WITH.items():
        if label in by_label and other in by_label:
            by_label[other]["models"] += by_label.pop(label)["models"]
    return list(by_label.values())


@require_safe
def _live(request: HttpRequest) -> HttpResponse:
    """Return the parts of the start page that change by themselves."""
    from backends.admin.pieces import live_response
    from volmig_site.dashboard import dashboard

    return live_response(request, "volmig/overview_parts.html", {"dashboard": dashboard(request.user)})
