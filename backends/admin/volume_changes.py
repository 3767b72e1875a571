"""Pages of what changes a volume's data: extend, snapshot, delete.  Each parses, calls one service, and shows."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.models import DELETION, LogEntry
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from backends import services
from backends.admin.pieces import change_url
from backends.admin.volume_forms import DeleteForm, ExtendForm, SnapshotForm, refusal_text
from backends.admin.volume_views import log_change, verb_context, volume_for
from backends.drivers.errors import VolmigError
from migrations_app.scheduler.human import bytes_text

if TYPE_CHECKING:
    from backends.admin.volume import VolumeAdmin

CHANGE = "backends.change_volume"
DELETE = "backends.delete_volume"
ADD_SNAPSHOT = "backends.add_snapshot"
DELETE_SNAPSHOT = "backends.delete_snapshot"


def extend(page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Make the volume larger."""
    volume = volume_for(request, pk, CHANGE)
    form = ExtendForm(request.POST or None, volume=volume)
    if request.method == "POST" and form.is_valid():
        try:
            volume = services.extend_volume(volume, form.size_bytes())
        except VolmigError as error:
            form.add_error(None, refusal_text(error))
        else:
            size = bytes_text(volume.size_bytes)
            log_change(request, volume, f"Extended to {volume.size_bytes} bytes.")
            page.message_user(request, f"'{volume.name}' has {size} now.", messages.SUCCESS)
            return redirect(change_url(volume))
    context = {
        **verb_context(page, request, volume, "Extend"),
        "title": f"Extend '{volume.name}'",
        "intro": f"It has {bytes_text(volume.size_bytes)} now. A volume can only grow; the new part reads as zeros.",
        "adminform": AdminForm(form, form.fieldsets, {}),
        "submit": "Extend",
    }
    return TemplateResponse(request, "volmig/form_page.html", context)


def snapshot(page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Make a snapshot."""
    volume = volume_for(request, pk, ADD_SNAPSHOT)
    form = SnapshotForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        try:
            services.create_snapshot(volume, name)
        except VolmigError as error:
            form.add_error(None, refusal_text(error))
        else:
            log_change(request, volume, f"Snapshot '{name}' made.")
            page.message_user(request, f"The snapshot '{name}' was made.", messages.SUCCESS)
            return redirect(change_url(volume))
    context = {
        **verb_context(page, request, volume, "Snapshot"),
        "title": f"Make a snapshot of '{volume.name}'",
        "intro": "A volume with snapshots cannot be moved or deleted until they are deleted.",
        "adminform": AdminForm(form, form.fieldsets, {}),
        "submit": "Make the snapshot",
    }
    return TemplateResponse(request, "volmig/form_page.html", context)


def delete_snapshot(
    page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID, snapshot: uuid.UUID
) -> HttpResponse:
    """Ask, then delete a snapshot."""
    volume = volume_for(request, pk, DELETE_SNAPSHOT)
    row = get_object_or_404(volume.snapshots, pk=snapshot)
    if request.method == "POST":
        try:
            services.delete_snapshot(row)
        except VolmigError as error:
            page.message_user(request, refusal_text(error), messages.ERROR)
        else:
            log_change(request, volume, f"Snapshot '{row.name}' deleted.")
            page.message_user(request, f"The snapshot '{row.name}' was deleted.", messages.SUCCESS)
        return redirect(change_url(volume))
    context = {
        **verb_context(page, request, volume, "Delete a snapshot"),
        "title": f"Delete the snapshot '{row.name}'?",
        "sentences": [f"What '{volume.name}' held then is gone for good; the volume itself is not changed."],
        "submit": "Delete the snapshot",
        "is_danger": True,
    }
    return TemplateResponse(request, "volmig/confirm_page.html", context)


def delete(page: VolumeAdmin, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask for the volume's name, then delete its data and its record."""
    volume = volume_for(request, pk, DELETE)
    form = DeleteForm(request.POST if request.method == "POST" else None, name=volume.name)
    if request.method == "POST" and form.is_valid():
        try:
            services.delete_volume(volume)
        except VolmigError as error:
            form.add_error(None, refusal_text(error))
            volume.refresh_from_db()
        else:
            LogEntry.objects.log_actions(request.user.pk, [volume], DELETION, single_object=True)
            page.message_user(request, f"'{volume.name}' and its data were deleted.", messages.SUCCESS)
            return redirect(reverse("admin:backends_volume_changelist"))
    size = bytes_text(volume.size_bytes)
    context = {
        **verb_context(page, request, volume, "Delete"),
        "title": f"Delete '{volume.name}' and its data?",
        "sentences": [
            f"The {size} at {volume.pool} ('{volume.object_name}') are deleted on the storage, then the record.",
            "There is no way back.",
        ],
        "form": form,
        "submit": "Delete the volume",
        "is_danger": True,
    }
    return TemplateResponse(request, "volmig/confirm_page.html", context)
