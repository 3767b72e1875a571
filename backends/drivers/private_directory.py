"""
Directories of one process that others find after it was killed.

Only this user can enter one.  It is locked for as long as its process lives; one that is not locked was left behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A directory that was just made is not yet locked.
_SURELY_LEFT_SECONDS = 60.0


class PrivateDirectory:
    """A new directory, locked from now on."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._fd: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Leave it as if this process had been killed.  Safe to repeat: yes."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Safe to repeat: yes."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()


@contextmanager
def private_directory(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new directory in *parent* (default: the temporary files'), locked while it is in use, then removed."""
    directory = PrivateDirectory(prefix, parent)
    try:
        yield directory.path
    finally:
        directory.remove()


def private_directories(prefix: str, parent: Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Yield the directories of this user, and of each whether its process is alive."""
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    yield path, _is_locked(fd)
            finally:
                os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        # Shared, so that two who ask at once do not see each other; let go when the descriptor is closed.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def sweep(prefix: str, older_than_seconds: float = _SURELY_LEFT_SECONDS, parent: Path | None = None) -> None:
    """Remove the directories of processes that were killed."""
    for path, is_alive in private_directories(prefix, parent):
        with suppress(OSError):
            if not is_alive and time.time() - path.stat().st_mtime > older_than_seconds:
                shutil.rmtree(path, ignore_errors=True)
