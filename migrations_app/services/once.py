"""Ask once, however often the request arrives."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import timedelta

from django.db.models.functions import Now

from backends.models import Volume
from migrations_app.errors import KeyReused, RequestRefused
from migrations_app.idempotency import ApiRequest
from migrations_app.models import VolumeMigration
from migrations_app.services.actors import Actor, reload
from migrations_app.services.asking import Options
from migrations_app.services.requesting import request_migration

_REMEMBERED = timedelta(hours=24)


def request_once(
    volume: Volume, destination: str, actor: Actor, options: Options, *, key: str
) -> tuple[VolumeMigration, bool]:
    """
    Return the migration, and whether it had been accepted for this *key* before.

    A refusal is not remembered: after its cause is mended the same key may be sent again.

    Raises:
        KeyReused: The user sent this key with another request.
        RequestRefused: As `request_migration`.
    """
    fingerprint = _fingerprint(volume, destination, options)
    if (earlier := _earlier(actor, key, fingerprint)) is not None:
        return earlier, True

    def remember(migration: VolumeMigration) -> None:
        ApiRequest.objects.create(user=actor.user, key=key, fingerprint=fingerprint, migration=migration)

    try:
        return request_migration(volume, destination, actor, options, in_transaction=remember), False
    except RequestRefused:
        # What it found in its way may be its own twin, which was faster.
        earlier = _earlier(actor, key, fingerprint)
        if earlier is None:
            raise
        return earlier, True


def forget_old_requests() -> int:
    """Forget the keys that are too old to be sent again; return how many."""
    return ApiRequest.objects.filter(created_at__lt=Now() - _REMEMBERED).delete()[0]


def _earlier(actor: Actor, key: str, fingerprint: str) -> VolumeMigration | None:
    row = ApiRequest.objects.select_related("migration").filter(user=actor.user, key=key).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise KeyReused(
            f"The Idempotency-Key '{key}' was sent before with another request, which became migration "
            f"{row.migration_id}. Send a new key with a new request."
        )
    return reload(row.migration)


def _fingerprint(volume: Volume, destination: str, options: Options) -> str:
    text = json.dumps([str(volume.pk), destination, asdict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
