"""
The inventory's verbs: register, refresh, create, attach.

Nothing here knows migrations; a volume that one of them owns carries its id in `locked_by_migration`, and every
verb that would change the volume refuses then, by compare-and-set.
"""

from backends.services.attaching import attach, detach
from backends.services.backends import (
    masked_options,
    refresh_backend,
    refresh_host,
    register_backend,
    set_options,
)
from backends.services.driving import is_local, make_driver
from backends.services.errors import InventoryRefused, UnknownName, VolumeBusy
from backends.services.finding import find_backend, find_pool, find_snapshot, find_volume, find_volume_type
from backends.services.health import Health, health
from backends.services.volumes import (
    create_snapshot,
    create_volume,
    create_volume_type,
    delete_snapshot,
    delete_volume,
    extend_volume,
    inspect_volume,
)

__all__ = [
    "Health",
    "InventoryRefused",
    "UnknownName",
    "VolumeBusy",
    "attach",
    "create_snapshot",
    "create_volume",
    "create_volume_type",
    "delete_snapshot",
    "delete_volume",
    "detach",
    "extend_volume",
    "find_backend",
    "find_pool",
    "find_snapshot",
    "find_volume",
    "find_volume_type",
    "health",
    "inspect_volume",
    "is_local",
    "make_driver",
    "masked_options",
    "refresh_backend",
    "refresh_host",
    "register_backend",
    "set_options",
]
