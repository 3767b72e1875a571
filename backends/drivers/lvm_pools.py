"""What a volume group or a thin pool reports of itself."""

from __future__ import annotations

from collections.abc import Sequence

from backends.drivers.lvm_commands import LogicalVolume, VolumeGroup
from backends.drivers.types import PoolStats, StoredVolume

# From here on LVM itself refuses to make thin volumes, whatever room there is for data; and the kernel makes the pool
# read-only when its metadata is full, which takes `thin_repair` to mend.
_METADATA_FULL_PERCENT = 95.0
_METADATA_WARN_PERCENT = 75.0


def identity(group: VolumeGroup, pool: LogicalVolume | None) -> str:
    """Return what tells this pool from every other, whatever it is called."""
    return group.uuid if pool is None else f"{group.uuid}/{pool.uuid}"


def pool_stats(
    name: str, host: str, group: VolumeGroup, pool: LogicalVolume | None, volumes: Sequence[StoredVolume]
) -> PoolStats:
    """Return the statistics of the volume group, or of the thin pool *pool* in it."""
    total, free = group.size_bytes, group.free_bytes
    is_read_only = not group.is_writable or group.is_partial
    capabilities: dict[str, object] = {"extent_bytes": group.extent_bytes}
    problem = f"The volume group '{group.name}' misses a physical volume." if group.is_partial else ""
    if pool is not None:
        total = pool.device_bytes
        free = int(total * (1 - (pool.data_percent or 0.0) / 100))
        problem = problem or health_of_thin_pool(pool)
        is_read_only = is_read_only or pool.health in ("failed", "metadata_read_only")
        if (pool.metadata_percent or 0.0) >= _METADATA_FULL_PERCENT:
            # Room for data that cannot be reached any more is no room.
            free = 0
        capabilities["thin_data_percent"] = pool.data_percent
        capabilities["thin_metadata_percent"] = pool.metadata_percent
    if problem:
        capabilities["warning"] = problem
    storage_id = identity(group, pool)
    return PoolStats(
        name=name,
        storage_id=storage_id,
        total_bytes=total,
        free_bytes=free,
        provisioned_bytes=sum(volume.size_bytes for volume in volumes),
        volume_count=len(volumes),
        thin_provisioning_support=pool is not None,
        thick_provisioning_support=pool is None,
        is_read_only=is_read_only,
        location_info={
            "driver": "lvm",
            "version": 1,
            "host": host,
            "vg": group.name,
            "vg_uuid": group.uuid,
            "thin_pool": pool.name if pool is not None else "",
            "storage_id": storage_id,
        },
        capabilities=capabilities,
    )


def health_of_thin_pool(pool: LogicalVolume) -> str:
    """Return what is wrong with the thin pool, empty when nothing is."""
    data, metadata = pool.data_percent or 0.0, pool.metadata_percent or 0.0
    which = f"The thin pool '{pool.name}'"
    if pool.health == "failed":
        return f"{which} has failed."
    if pool.health == "metadata_read_only":
        return f"{which} is read-only: its metadata ({metadata:g} % full) must be repaired."
    if pool.health == "out_of_data" or data >= 100:
        return f"{which} is full: {data:g} % of its data room is taken."
    if metadata >= _METADATA_WARN_PERCENT:
        return f"{which} has {metadata:g} % of its metadata room taken."
    return ""
