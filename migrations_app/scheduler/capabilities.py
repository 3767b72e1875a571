"""
The Cinder-compatible edge: a pool as the flat dictionary that extra specs and expressions are written
against.

The only place of the scheduler where sizes are GiB: `_gb` means GiB in Cinder and may be a word.  Source:
cinder `interface/volume_driver.py` (`get_volume_stats`) and `scheduler/host_manager.py` (`PoolState`).
"""

from __future__ import annotations

from typing import Any

from backends.drivers.types import GIB
from migrations_app.scheduler import capacity
from migrations_app.scheduler.types import PoolView, VolumeView

INFINITE = "infinite"
UNKNOWN = "unknown"

#: Spellings of one protocol: types are written with any of them.  Source: cinder `common/constants.py`.
_PROTOCOL_VARIANTS = (
    ("iSCSI", "iscsi"),
    ("FC", "fibre_channel", "fc"),
    ("NFS", "nfs"),
    ("NVMe-oF", "NVMeOF", "nvmeof"),
)


def pool_capabilities(pool: PoolView) -> dict[str, Any]:
    """
    Return what extra specs are matched with.

    The backend's name and the vendor's may be given by the driver; what this application measures and
    calculates with may not, or a type would be matched with other numbers than the capacity filter's.
    """
    return {
        "volume_backend_name": pool.address.backend,
        **pool.capabilities,
        "pool_name": pool.address.pool or "",
        "driver": pool.driver,
        "storage_protocol": _protocol(pool.storage_protocol),
        "location_info": dict(pool.location_info),
        "availability_zone": pool.availability_zone,
        "thin_provisioning_support": pool.thin_provisioning_support,
        "thick_provisioning_support": pool.thick_provisioning_support,
        "max_over_subscription_ratio": pool.max_over_subscription_ratio,
        "reserved_percentage": pool.reserved_percentage,
        "total_capacity_gb": _gib(pool.total_bytes, is_infinite=pool.is_infinite),
        "free_capacity_gb": _gib(pool.free_bytes, is_infinite=pool.is_infinite),
        "provisioned_capacity_gb": _gib(pool.provisioned_bytes),
        # Cinder counts the volumes that it made itself; every volume of a pool is known here, so it is one
        # number.
        "allocated_capacity_gb": _gib(pool.provisioned_bytes),
        "total_volumes": pool.volume_count,
    }


def pool_stats(pool: PoolView) -> dict[str, Any]:
    """Return what expressions call `stats`: the capabilities, and whose they are."""
    return {
        **pool_capabilities(pool),
        "storage_protocol": pool.storage_protocol,
        "host": str(pool.address),
        "backend_id": str(pool.address),
        "active_migrations": pool.active_migrations,
        "virtual_free_gb": _gib(capacity.provisioned_room(pool, is_thin=pool.thin_provisioning_support)),
    }


def volume_values(volume: VolumeView) -> dict[str, Any]:
    """Return what expressions call `volume`.  `size` is GiB, as in Cinder's request."""
    return {
        "id": volume.id,
        "name": volume.name,
        "display_name": volume.name,
        "size": volume.size_bytes / GIB,
        "size_bytes": volume.size_bytes,
        "status": volume.status,
        "host": str(volume.pool),
        "availability_zone": volume.availability_zone,
        "volume_type": volume.type_name,
    }


def _gib(size_bytes: int | None, *, is_infinite: bool = False) -> float | str:
    if is_infinite:
        return INFINITE
    return UNKNOWN if size_bytes is None else size_bytes / GIB


def _protocol(name: str) -> str | list[str]:
    return next((list(variants) for variants in _PROTOCOL_VARIANTS if name in variants), name)
