"""The page that asks before something is done with a migration."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from backends.admin.pieces import change_url
from migrations_app import services
from migrations_app.admin.verbs import Verb
from migrations_app.errors import RequestRefused
from migrations_app.models import VolumeMigration


def ask_then_do(
    site: AdminSite, request: HttpRequest, migration: VolumeMigration, verb: Verb
) -> HttpResponse:
    """Show what *verb* would do; when it is posted, do it."""
    if not request.user.has_perm(verb.permission):
        raise PermissionDenied
    here = change_url(migration)
    form = verb.make_form(migration, request.POST if request.method == "POST" else None)
    if request.method == "POST" and (form is None or form.is_valid()):
        actor = services.Actor.of(request.user, VolumeMigration.Via.ADMIN)
        try:
            result = verb.do(migration, actor, form.cleaned_data if form else {})
        except RequestRefused as error:
            if form is None:
                messages.error(request, str(error))
                return redirect(here)
            form.add_error(None, str(error))
        else:
            messages.success(request, verb.done)
            return redirect(change_url(result))
    if request.method == "GET" and verb.name not in services.verbs_for(migration):
        what = verb.label.lower()
        messages.error(request, f"This migration cannot be changed that way any more ({what}).")
        return redirect(here)
    return TemplateResponse(
        request, "volmig/confirm_page.html", _context(site, request, migration, verb, form)
    )


def _context(
    site: AdminSite, request: HttpRequest, migration: VolumeMigration, verb: Verb, form: Any
) -> dict[str, Any]:
    here = change_url(migration)
    names = {
        "volume": migration.volume_name,
        "source": migration.source_pool,
        "destination": migration.destination_pool,
    }
    return {
        **site.each_context(request),
        "opts": migration._meta,
        "title": verb.question.format(**names),
        "sentences": [sentence.format(**names) for sentence in verb.sentences],
        "form": form,
        "is_danger": verb.is_danger,
        "submit": "Cancel the migration" if verb.name == "cancel" else verb.label,
        "back_url": here,
        "back_text": "Let it run" if verb.name == "cancel" else "Back",
        "breadcrumbs": [
            ("Migrations", reverse("admin:migrations_app_volumemigration_changelist")),
            (migration.volume_name, here),
            (verb.label, None),
        ],
    }
