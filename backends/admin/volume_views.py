"""Pages of a volume's verbs: create, attach, detach.  Each parses, calls one service, and shows."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from backends import services
from backends.admin.pieces import change_url
from backends.admin.volume_forms import AttachForm, VolumeAddForm, refusal_text
from backends.drivers.errors import VolmigError
from backends.models import Pool, Volume

if TYPE_CHECKING:
    from backends.admin.volume import VolumeAdmin

ATTACH = "backends.attach_volume"


def add(page: VolumeAdmin, request: HttpRequest) -> HttpResponse:
    """
    Create a volume.

    Not Django's own add page: that runs in one transaction, and the row must be there before the object is.
    """
    if not page.has_add_permission(request):
        raise PermissionDenied
    form = VolumeAddForm(request.POST or None, initial={"pool": request.GET.get("pool")})
    if request.method == "POST" and form.is_valid():
        volume = form.save()
        if volume is not None:
            page.log_addition(request, volume, [{"added": {}}])
            page.message_user(request, f"The volume '{volume.name}' was created.", messages.SUCCESS)
            return redirect(change_url(volume))
    changelist = reverse("admin:backends_volume_changelist")
    context = {
        **page.admin_site.each_context(request),
        "title": "Create a volume",
        "opts": page.opts,
        "adminform": AdminForm(form, form.fieldsets, {}),
        "submit": "Create",
        "back_url": changelist,
        "has_pools": Pool.objects.exists(),
        "breadcrumbs": [("Storage", None), ("Volumes", changelist), ("Create", None)],
    }
    return TemplateResponse(request, "volmig/volume_add.html", context)


def attach(page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Write down that somebody uses the volume."""
    volume = volume_for(request, pk, ATTACH)
    form = AttachForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            attachment = services.attach(
                volume, data["attached_to"], mountpoint=data["mountpoint"], user=request.user
            )
        except VolmigError as error:
            form.add_error(None, refusal_text(error))
        else:
            log_change(request, volume, f"Attached to {attachment}.")
            page.message_user(request, f"'{volume.name}' is attached to {attachment}.", messages.SUCCESS)
            return redirect(change_url(volume))
    context = {
        **verb_context(page, request, volume, "Attach"),
        "title": f"Attach '{volume.name}'",
        "adminform": AdminForm(form, form.fieldsets, {}),
        "submit": "Attach",
    }
    return TemplateResponse(request, "volmig/form_page.html", context)


def detach(page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask, then end the attachment."""
    volume = volume_for(request, pk, ATTACH)
    if request.method == "POST":
        try:
            attachment = services.detach(volume)
        except VolmigError as error:
            page.message_user(request, refusal_text(error), messages.ERROR)
        else:
            log_change(request, volume, f"Detached from {attachment}.")
            page.message_user(request, f"'{volume.name}' is detached from {attachment}.", messages.SUCCESS)
        return redirect(change_url(volume))
    current = volume.attachments.filter(detached_at=None).first()
    where = f"It is attached to {current}." if current else "No attachment is known."
    context = {
        **verb_context(page, request, volume, "Detach"),
        "title": f"Detach '{volume.name}'?",
        "sentences": [where, "Make sure that nothing writes to the volume any more before it is detached."],
        "submit": "Detach",
    }
    return TemplateResponse(request, "volmig/confirm_page.html", context)


def volume_for(request: HttpRequest, pk: uuid.UUID, permission: str) -> Volume:
    """Return the volume, if this user may see it and has *permission*."""
    if not (request.user.has_perm(permission) and request.user.has_perm("backends.view_volume")):
        raise PermissionDenied
    return get_object_or_404(Volume.objects.select_related("pool__backend"), pk=pk)


def log_change(request: HttpRequest, volume: Volume, text: str) -> None:
    """Write what was done into the volume's history."""
    LogEntry.objects.log_actions(request.user.pk, [volume], CHANGE, change_message=text, single_object=True)


def verb_context(page: VolumeAdmin, request: HttpRequest, volume: Volume, verb: str) -> dict:
    """Return what every page of a verb needs."""
    return {
        **page.admin_site.each_context(request),
        "opts": page.opts,
        "back_url": change_url(volume),
        "breadcrumbs": [
            ("Storage", None),
            ("Volumes", reverse("admin:backends_volume_changelist")),
            (volume.name, change_url(volume)),
            (verb, None),
        ],
    }
