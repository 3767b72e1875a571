"""What kind of file system an open directory lies on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileSystem:
    """`kind` is the kernel's name (`ext4`, `nfs4`); `keeps_holes`: holes can be found and punched there."""

    kind: str
    keeps_holes: bool


def file_system_of(fd: int, mountinfo: str | None = None) -> FileSystem:
    """
    Return the file system of the open directory *fd*; kind `unknown` when the kernel does not say.

    Args:
        mountinfo: In place of this process's own, for tests.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    # Source: proc(5): id, parent, major:minor, root, mount point, options, optional…, -, type, source, super options.
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 9 and fields[2] == wanted and "-" in fields:
            kind, options = fields[fields.index("-") + 1], fields[-1]
            return FileSystem(kind, keeps_holes=_keeps_holes(kind, options))
    return FileSystem("unknown", keeps_holes=True)


def _keeps_holes(kind: str, options: str) -> bool:
    if not kind.startswith("nfs"):
        return True
    # SEEK_HOLE and hole punching came with version 4.2: RFC 7862.
    version = re.search(r"(?:^|,)vers=(\d+)(?:\.(\d+))?", options)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (4, 2)
