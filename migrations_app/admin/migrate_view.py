"""
The page "Migrate to backend": choose, look once more, start.

One address for all three; what is posted says how far the person is.  The verdicts are taken anew each time,
and once more under lock by the service when the migration starts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from backends.models import Pool, Volume
from migrations_app import services
from migrations_app.admin.migrate_form import MOST_VOLUMES, OptionsForm, Section
from migrations_app.errors import RequestRefused
from migrations_app.models import VolumeMigration

PERMISSION = "migrations_app.migrate_volume"
_SKIP_PERMISSION = "migrations_app.skip_verification"


def migrate(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Answer every step of the form."""
    if not (request.user.has_perm(PERMISSION) and request.user.has_perm("backends.view_volume")):
        raise PermissionDenied
    volumes = _volumes(request)
    changelist = reverse("admin:backends_volume_changelist")
    if not volumes:
        messages.warning(request, "None of the volumes is there any more; select others.")
        return redirect(changelist)
    if len(volumes) > MOST_VOLUMES:
        messages.error(request, too_many_text(len(volumes)))
        return redirect(changelist)
    form = OptionsForm(request.POST or None, may_skip=request.user.has_perm(_SKIP_PERMISSION))
    is_valid = form.is_valid() if form.is_bound else False
    options = form.options() if is_valid else services.Options()
    sections = [_section(request, volume, options) for volume in volumes]
    if "for_all" in request.POST:
        _choose_for_all(sections, request.POST.get("all_destination", ""))
    elif is_valid and "start" in request.POST:
        answer = _start(request, sections, form)
        if answer is not None:
            return answer
    elif is_valid and "review" in request.POST and _review(request, sections, form):
        return _page(site, request, sections, form, is_review=True)
    return _page(site, request, sections, form, is_review=False)


def too_many_text(number: int) -> str:
    """Return why so many volumes cannot be migrated from the page, and what to do."""
    return (
        f"{number} volumes are selected; this page takes {MOST_VOLUMES} at a time. Select fewer, or use the API "
        "or `manage.py migrate_volume`."
    )


# -- what is asked ---------------------------------------------------------------------------------------


def _volumes(request: HttpRequest) -> list[Volume]:
    """Return the volumes named in the address, in that order, each once."""
    ids = dict.fromkeys(filter(None, map(_as_uuid, request.GET.getlist("volume"))))
    found = Volume.objects.select_related("pool__backend", "volume_type").in_bulk(
        list(ids)[: MOST_VOLUMES + 1]
    )
    return [found[key] for key in ids if key in found]


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _section(request: HttpRequest, volume: Volume, options: services.Options) -> Section:
    section = Section(volume, services.destinations(volume, options))
    asked = request.POST.get(section.field, "")
    if asked:
        # What no longer fits stays chosen, so that the service can say why.
        section.chosen = asked
    elif request.method == "GET" and section.can_move:
        section.chosen = section.fitting[0]
    return section


def _choose_for_all(sections: Sequence[Section], address: str) -> None:
    for section in sections:
        if address in section.fitting and section.can_move:
            section.chosen = address


# -- what is done ----------------------------------------------------------------------------------------


def _review(request: HttpRequest, sections: Sequence[Section], form: OptionsForm) -> bool:
    """Ask the service what it would answer; return whether there is anything to start."""
    chosen = [section for section in sections if section.chosen]
    for section in chosen:
        try:
            section.plan = services.dry_run(section.volume, section.chosen, form.options())
        except RequestRefused as error:
            section.refusal = error
    if not chosen:
        messages.error(request, "Choose a destination first.")
    return bool(chosen) and all(section.plan for section in chosen)


def _start(request: HttpRequest, sections: Sequence[Section], form: OptionsForm) -> HttpResponse | None:
    """Ask for each migration; return where to go, `None` when a refusal has to be shown."""
    actor = services.Actor.of(request.user, VolumeMigration.Via.ADMIN)
    accepted: list[VolumeMigration] = []
    for section in sections:
        if not section.chosen:
            continue
        try:
            accepted.append(services.request_migration(section.volume, section.chosen, actor, form.options()))
            section.chosen = ""
        except RequestRefused as error:
            section.refusal = error
    if any(section.refusal for section in sections):
        if accepted:
            names = ", ".join(m.volume_name for m in accepted)
            messages.success(request, f"Started: {names}. What was refused is shown below.")
        return None
    if not accepted:
        messages.error(request, "Choose a destination first.")
        return None
    if len(accepted) == 1:
        messages.success(request, "The migration was accepted.")
        return redirect("admin:migrations_app_volumemigration_change", accepted[0].pk)
    messages.success(request, f"{len(accepted)} migrations were accepted.")
    return redirect(f"{reverse('admin:migrations_app_volumemigration_changelist')}?stage=active")


# -- what is shown ---------------------------------------------------------------------------------------


def _page(
    site: AdminSite, request: HttpRequest, sections: list[Section], form: OptionsForm, *, is_review: bool
) -> HttpResponse:
    one = len(sections) == 1
    what = f"'{sections[0].volume.name}'" if one else f"{len(sections)} volumes"
    changelist = reverse("admin:backends_volume_changelist")
    shared = sorted({address for section in sections if section.can_move for address in section.fitting})
    context: dict[str, Any] = {
        **site.each_context(request),
        "title": f"Migrate {what}",
        "sections": sections,
        "chosen": [section for section in sections if section.chosen],
        # A rename leaves nothing that could be kept, whatever was asked.
        "native_leaves_nothing": any(s.plan and s.plan.verdict.native_how for s in sections),
        "left_out": [section for section in sections if not section.chosen],
        "shared_page": not one,
        "form": form,
        "is_review": is_review,
        "can_start": any(section.can_move for section in sections),
        "shared": [] if one else shared,
        "totals": {str(p.address): p.total_bytes for p in Pool.objects.select_related("backend")},
        "back_url": changelist,
        "breadcrumbs": [("Storage", None), ("Volumes", changelist), ("Migrate", None)],
    }
    return TemplateResponse(request, "volmig/migrate.html", context)
