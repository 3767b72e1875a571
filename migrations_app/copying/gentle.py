"""Let everybody else go first: the I/O priority of copying threads."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress

#: Neither Python nor glibc has the call.  Source: Linux `arch/*/entry/syscalls`, `include/uapi/linux/ioprio.h`.
_NUMBERS = {"x86_64": 251, "aarch64": 30, "ppc64le": 273, "s390x": 282}
_WHO_PROCESS = 1
_BEST_EFFORT = 2
_LOWEST = 7
_CLASS_SHIFT = 13


def be_gentle() -> None:
    """
    Give the calling thread the lowest best-effort I/O priority.

    Not the idle class: a busy disk would then stop the migration for as long as it is busy.  Schedulers that know no
    priorities (`none`) ignore it; where the call does not exist nothing happens.
    """
    number = _NUMBERS.get(platform.machine())
    if number is not None:
        with suppress(OSError):
            # 0 is the calling thread.  Source: ioprio_set(2).
            ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _BEST_EFFORT << _CLASS_SHIFT | _LOWEST)
