"""The admin site: its name, its start page."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_safe

_OWN_APPS = ("backends", "migrations_app")


class VolmigAdminSite(AdminSite):
    """Stock Django admin with a start page that says what runs and what needs a person."""

    site_title = "volmig"
    site_header = "volmig"
    index_title = "Overview"
    site_url = None

    def get_urls(self) -> list[URLPattern]:
        return [path("overview/live/", self.admin_view(_live), name="overview_live"), *super().get_urls()]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[dict[str, Any]]:
        """Return the apps, this project's own first."""
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: (app["app_label"] not in _OWN_APPS, app["app_label"]))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # Models cannot be imported before the apps are ready, and the site is made before that.
        from volmig_site.dashboard import dashboard

        return super().index(request, {"dashboard": dashboard(request.user), **(extra_context or {})})


@require_safe
def _live(request: HttpRequest) -> HttpResponse:
    """Return the parts of the start page that change by themselves."""
    from backends.admin.pieces import live_response
    from volmig_site.dashboard import dashboard

    return live_response(request, "volmig/overview_live.html", {"dashboard": dashboard(request.user)})
