"""
The wish of this process to end soon: set by a signal, read by the work at every block.

Kept apart from the work and from the supervisor because both sides of a fork need it.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

_draining = threading.Event()


def is_draining() -> bool:
    """Tell whether this process was asked to stop at the next checkpoint."""
    return _draining.is_set()


def drain() -> None:
    """Ask this process to stop at the next checkpoint."""
    _draining.set()


def drain_on_sigterm() -> None:
    """From now on SIGTERM lets this process finish its block and save a checkpoint instead of killing it."""

    def on_signal(signum: int, frame: Any) -> None:
        drain()

    signal.signal(signal.SIGTERM, on_signal)
