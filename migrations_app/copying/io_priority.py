"""Let everybody else go first: the I/O priority of whoever copies."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress

#: Neither Python nor glibc has the call.  Source: Linux `arch/*/entry/syscalls`, `include/uapi/linux/ioprio.h`.
_NUMBERS = {"x86_64": 251, "aarch64": 30, "ppc64le": 273, "s390x": 282}
_WHO_PROCESS = 1
_CLASS_SHIFT = 13
#: Class and level.  "low" is the lowest best-effort priority.
_PRIORITIES = {"low": 2 << _CLASS_SHIFT | 7, "idle": 3 << _CLASS_SHIFT}


def set_io_priority(name: str) -> None:
    """
    Give the calling thread, and what it starts from now on, the I/O priority *name*.

    Any name but "low" and "idle" changes nothing.  With "idle" a busy disk stops the migration for as long as it is
    busy.  I/O schedulers that know no priorities (`none`) ignore it; where the call does not exist nothing happens.

    Safe to repeat: yes.
    """
    priority, number = _PRIORITIES.get(name), _NUMBERS.get(platform.machine())
    if priority is not None and number is not None:
        with suppress(OSError):
            # 0 is the calling thread; new threads and processes inherit it.  Source: ioprio_set(2).
            ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, priority)
