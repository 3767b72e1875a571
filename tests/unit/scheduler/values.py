"""A volume that may be moved and a pool that it fits, and what a test changes of them."""

from __future__ import annotations

from typing import Any

from backends.drivers.types import GIB, PoolAddress
from migrations_app.scheduler.types import MoveRequest, PoolView, StorageFacts, VolumeView

SOURCE = PoolAddress("store1", "hdd", "main")


def make_volume(**changes: Any) -> VolumeView:
    values: dict[str, Any] = {
        "id": "7f6c",
        "name": "data-7",
        "size_bytes": 4 * GIB,
        "pool": SOURCE,
        "storage_id": "disk-1",
        "location_info": {},
        "status": "available",
        "migration_status": None,
        "type_name": "gold",
        "facts": StorageFacts(size_bytes=4 * GIB, allocated_bytes=GIB),
    }
    return VolumeView(**{**values, **changes})


def make_request(
    *, force_host_copy: bool = False, speed: float | None = None, native_how: str = "", **volume: Any
) -> MoveRequest:
    return MoveRequest(make_volume(**volume), force_host_copy, speed, native_how=native_how)


def make_pool(address: str = "store1@ssd#fast", **changes: Any) -> PoolView:
    values: dict[str, Any] = {
        "address": PoolAddress.parse(address),
        "driver": "directory",
        "storage_protocol": "file",
        "storage_id": f"disk-of-{address}",
        "location_info": {"driver": "directory", "version": 1},
        "total_bytes": 100 * GIB,
        "free_bytes": 60 * GIB,
        "provisioned_bytes": 40 * GIB,
        "is_infinite": False,
        "is_read_only": False,
        "thin_provisioning_support": True,
        "thick_provisioning_support": True,
        "reserved_percentage": 0,
        "max_over_subscription_ratio": 20.0,
        "availability_zone": "",
        "is_enabled": True,
        "disabled_reason": "",
        "is_up": True,
        "down_reason": "",
        "age_seconds": 12.0,
        "volume_count": 3,
    }
    return PoolView(**{**values, **changes})


def generic_copy(volume: VolumeView, pool: PoolView) -> tuple[str, str]:
    return "", "the pools lie on different file systems"


def reflink(volume: VolumeView, pool: PoolView) -> tuple[str, str]:
    return "reflink", ""


def codes(reasons: Any) -> list[str]:
    return [str(reason.code) for reason in reasons]
