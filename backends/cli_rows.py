"""Rows of the inventory as the commands' JSON shows them."""

from __future__ import annotations

from typing import Any

from backends.models import Snapshot, Volume


def volume_dict(volume: Volume) -> dict[str, Any]:
    """Return *volume* (with pool, backend and type loaded) as values for JSON."""
    return {
        "id": volume.pk,
        "name": volume.name,
        "size_bytes": volume.size_bytes,
        "pool": str(volume.pool),
        "object_name": volume.object_name,
        "volume_type": volume.volume_type.name if volume.volume_type else None,
        "status": str(volume.status),
        "migration_status": volume.migration_status,
        "active_migration": volume.locked_by_migration,
        "created_at": volume.created_at,
    }


def snapshot_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Return *snapshot* as values for JSON."""
    return {
        "id": snapshot.pk,
        "volume": snapshot.volume_id,
        "name": snapshot.name,
        "created_at": snapshot.created_at,
    }
