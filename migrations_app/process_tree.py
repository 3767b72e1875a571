"""A process tree that dies together: Linux's parent-death signal, inherited by nobody and so set after every fork."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies.  Source: prctl(2), PR_SET_PDEATHSIG."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def children_die_too() -> None:
    """Do the same in every process that this one, or a child of it, forks from now on."""
    os.register_at_fork(after_in_child=die_with_parent)


def children_of(pid: int) -> list[int]:
    """Return the process numbers of the children of *pid*; empty when it is gone."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    """Return the process numbers of all descendants of *pid*."""
    direct = children_of(pid)
    return direct + [grandchild for child in direct for grandchild in descendants_of(child)]
