"""The devices of active logical volumes: opened as ports, and who uses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from backends.drivers.block_device_port import BlockDevicePort
from backends.drivers.device_usage import users_of_device
from backends.drivers.errors import DriverError, InUse
from backends.drivers.lvm_commands import LogicalVolume
from backends.drivers.lvm_thin_map import mapped_runs
from backends.drivers.lvm_thin_port import ThinVolumePort
from backends.drivers.types import OpenMode, Usage

# udev and LVM's own scans open a device for an instant whenever somebody has closed it.
_USAGE_ATTEMPTS = 3
_USAGE_PAUSE_SECONDS = 0.15


def open_device(
    lv: LogicalVolume,
    mode: OpenMode,
    *,
    size_bytes: int,
    shown_path: str,
    is_thin: bool,
    explain: Callable[[DriverError], DriverError],
    fields: Mapping[str, str],
) -> BlockDevicePort:
    """
    Return the active volume *lv* as a port of its first *size_bytes*.

    Raises:
        InUse: Somebody holds the device; the message says who.
    """
    assert lv.device is not None, "it was activated"
    # A thin pool that does not zero what it hands out shows old data around the first write to a block.
    reads_zero = is_thin and lv.is_zeroed
    device = lv.device
    make_port = partial(ThinVolumePort, read_map=lambda: mapped_runs(device)) if is_thin else BlockDevicePort
    try:
        port = make_port(
            f"/dev/dm-{device[1]}",
            mode,
            size_bytes=size_bytes,
            shown_path=shown_path,
            backend=fields["backend"],
            volume=lv.name,
            reads_zero_when_new=reads_zero,
            discard_bytes=_discard_bytes(lv) if reads_zero else 0,
            explain=explain,
        )
    except InUse as error:
        users = "; ".join(map(str, users_of_device(lv.device)[0]))
        raise InUse(
            f"'{lv.name}' cannot be opened as {mode.value}: {users or error.message}.", **fields
        ) from error
    # The number may have been given to another device before it was opened; now it cannot be any more.
    if _dm_uuid(lv) != lv.dm_uuid:
        port.close()
        raise InUse(f"'{lv.name}' is being replaced.", **fields)
    return port


def users_of_volume(lv: LogicalVolume, is_still_open: Callable[[], bool]) -> list[Usage]:
    """Return who uses the volume, this process excepted; LVM says that somebody does even where it cannot say who."""
    if lv.device is None:
        return []
    users: list[Usage] = []
    for attempt in range(_USAGE_ATTEMPTS):
        if attempt:
            time.sleep(_USAGE_PAUSE_SECONDS)
        users, is_mine = users_of_device(lv.device)
        if not users and lv.is_open and not is_mine and is_still_open():
            users = [Usage("the kernel or a hidden process", "has the device open")]
        if not users:
            return []
    return users


def _sys(lv: LogicalVolume) -> Path:
    assert lv.device is not None, "only of an active volume"
    return Path(f"/sys/dev/block/{lv.device[0]}:{lv.device[1]}")


def _dm_uuid(lv: LogicalVolume) -> str:
    try:
        return (_sys(lv) / "dm/uuid").read_text().strip()
    except OSError:
        return ""


def _discard_bytes(lv: LogicalVolume) -> int:
    """Return the size of what the thin pool gives back, 0 when it gives nothing back."""
    try:
        queue = _sys(lv) / "queue"
        most = int((queue / "discard_max_bytes").read_text())
        return int((queue / "discard_granularity").read_text()) if most else 0
    except (OSError, ValueError):
        return 0
