"""Who on this host uses a block device: file systems, swap, devices built on it, processes."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from backends.drivers.types import Usage

Device = tuple[int, int]


def users_of_device(device: Device) -> tuple[list[Usage], bool]:
    """
    Return who uses the block device (major, minor), this process excepted, and whether this process has it open.

    Processes of other users can be seen by root only.
    """
    found = [*_holders(device), *_mounts(device), *_swaps(device), *_loop_devices(device)]
    is_mine = False
    for pid, command in _processes(device):
        if pid == os.getpid():
            is_mine = True
        else:
            found.append(Usage(f"process {pid} ({command})", "has it open"))
    return found, is_mine


def _holders(device: Device) -> Iterator[Usage]:
    folder = f"/sys/dev/block/{device[0]}:{device[1]}/holders"
    for path in glob.glob(f"{folder}/*"):
        name = _read(f"{path}/dm/name").strip() or os.path.basename(path)
        yield Usage(f"device {name}", "is built on it")


def _mounts(device: Device) -> Iterator[Usage]:
    # Source: proc(5), mountinfo: id, parent, major:minor, root, mount point, options, optional…, -, type, source.
    # Process 1 has the mounts of the host when this process has a view of its own.
    seen = set()
    for line in (_read("/proc/self/mountinfo") + _read("/proc/1/mountinfo")).splitlines():
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields:
            continue
        source = fields[fields.index("-") + 2]
        # btrfs shows a device number that belongs to no device, only its source leads there.
        if fields[2] == f"{device[0]}:{device[1]}" or _device_of(source) == device:
            seen.add(fields[4])
    for point in sorted(seen):
        yield Usage(f"the file system at {point}", "is mounted from it")


def _swaps(device: Device) -> Iterator[Usage]:
    for line in _read("/proc/swaps").splitlines()[1:]:
        if _device_of(line.split()[0]) == device:
            yield Usage("the kernel", "swaps to it")


def _loop_devices(device: Device) -> Iterator[Usage]:
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        if _device_of(_read(path).rstrip("\n")) == device:
            yield Usage(f"loop device /dev/{path.split('/')[3]}", "is backed by it")


def _processes(device: Device) -> Iterator[tuple[int, str]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if any(_device_of(link) == device for link in _open_devices(pid)):
            yield int(pid), _read(f"/proc/{pid}/comm").strip() or "?"


def _open_devices(pid: str) -> Iterator[str]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers:
        link = f"/proc/{pid}/fd/{number}"
        try:
            # Only what looks like a device is asked for: stat() of a file on a dead NFS server never returns.
            if os.readlink(link).startswith("/dev/"):
                yield link
        except OSError:
            continue


def _device_of(path: str) -> Device | None:
    if not path.startswith(("/dev/", "/proc/")):
        return None
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(info.st_mode):
        return None
    return os.major(info.st_rdev), os.minor(info.st_rdev)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
