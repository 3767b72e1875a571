"""
A ceiling that the kernel keeps: `io.max` of the worker's own control group (cgroup v2).

The throttle counts what migrations copy; this one counts everything that the worker and its children read from, and
write to, a disk.  Source: Linux `Documentation/admin-guide/cgroup-v2.rst`, "IO".
"""

from __future__ import annotations

import os
from pathlib import Path

_SYSTEM = Path("/")


def limit_disk(device: int, bytes_per_second: int, *, root: Path = _SYSTEM) -> str:
    """
    Let this process's control group read and write at most so much of the disk; return why it could not be done.

    Args:
        device: `st_dev` of a file, or `st_rdev` of a block device; of a partition, the whole disk is meant.
        root: Where /proc, /sys and the control groups are.

    Returns:
        Nothing when the limit stands, otherwise a sentence for the log.

    Safe to repeat: yes.
    """
    disk = _disk(device, root)
    if disk is None:
        return f"device {os.major(device)}:{os.minor(device)} is no disk of this host"
    group = _own_group(root)
    if group is None:
        return "this host has no cgroup v2"
    line = f"{disk} rbps={bytes_per_second} wbps={bytes_per_second}\n"
    try:
        # Without O_CREAT: where the io controller is not given to the group, there is no such file.
        fd = os.open(group / "io.max", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"{group}/io.max cannot be written ({error.strerror}); let systemd delegate it: Delegate=io"
    try:
        os.write(fd, line.encode())
    except OSError as error:
        return f"writing '{line.strip()}' to {group}/io.max failed ({error.strerror})"
    finally:
        os.close(fd)
    return ""


def _disk(device: int, root: Path) -> str | None:
    """Return MAJOR:MINOR of the whole disk; `None` for what lies on no single disk (btrfs, NFS, tmpfs)."""
    found = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if (found / "partition").exists():
        found = found.resolve().parent
    try:
        return (found / "dev").read_text().strip()
    except OSError:
        return None


def _own_group(root: Path) -> Path | None:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    point = next((fields[1] for fields in map(str.split, mounts) if fields[2:3] == ["cgroup2"]), None)
    if path is None or point is None:
        return None
    return root / point.lstrip("/") / path.lstrip("/")
