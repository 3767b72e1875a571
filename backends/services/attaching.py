"""Attach and detach, and why a volume cannot be changed now."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import transaction
from django.utils import timezone

from backends.models import Attachment, Volume
from backends.services.errors import VolumeBusy


def attach(volume: Volume, attached_to: str, *, mountpoint: str = "", user: Any = None) -> Attachment:
    """
    Return the new attachment; the volume is `in-use` from now on.

    Raises:
        VolumeBusy: It migrates, is attached already, or is not `available`.
    """
    with transaction.atomic():
        taken = Volume.objects.filter(
            pk=volume.pk, status=Volume.Status.AVAILABLE, locked_by_migration=None
        ).update(status=Volume.Status.IN_USE)
        if not taken:
            raise VolumeBusy(why_not(volume.pk, "attached"))
        return Attachment.objects.create(
            volume_id=volume.pk, attached_to=attached_to, mountpoint=mountpoint, attached_by=user
        )


def detach(volume: Volume) -> Attachment:
    """
    Return the attachment that has just ended; the volume is `available` again.

    Raises:
        VolumeBusy: It migrates, or is not attached.
    """
    with transaction.atomic():
        freed = Volume.objects.filter(
            pk=volume.pk, status=Volume.Status.IN_USE, locked_by_migration=None
        ).update(status=Volume.Status.AVAILABLE)
        attachment = Attachment.objects.filter(volume_id=volume.pk, detached_at=None).first()
        if not freed or attachment is None:
            raise VolumeBusy(why_not(volume.pk, "detached"))
        attachment.detached_at = timezone.now()
        attachment.save(update_fields=["detached_at"])
        return attachment


def why_not(volume_id: uuid.UUID, what: str) -> str:
    volume = Volume.objects.get(pk=volume_id)
    if volume.locked_by_migration:
        return (
            f"The volume '{volume.name}' cannot be {what} while migration {volume.locked_by_migration} works on it. "
            "Wait until it has ended, or cancel it."
        )
    current = volume.attachments.filter(detached_at=None).first()
    if current and what == "attached":
        return f"The volume '{volume.name}' is attached to {current} already. Detach it first."
    return f"The volume '{volume.name}' cannot be {what}: its status is '{volume.status}'."
