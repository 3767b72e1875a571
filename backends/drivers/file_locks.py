"""
Locks on a file, of the two kinds that belong to an open file description.

`flock` is what other instances of volmig and most scripts look at; OFD byte-range locks are what QEMU and
the NFS server look at.  Classic POSIX locks (`lockf`) are never used: closing *any* descriptor of the
file drops them.

QEMU's raw driver holds OFD read locks on single bytes: 100 + permission for what it does, 200 +
permission for what it forbids to others, and refuses to open when a write lock on such a byte of the
other kind would conflict.
Source: QEMU `block/file-posix.c`, `raw_check_lock_bytes`.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

# struct flock: l_type, l_whence, l_start, l_len, l_pid.  The trailing `0q` pads it as the compiler does.
_FLOCK = struct.Struct("@hhqqi0q")
# A start of 0 and a length of 0 is the whole file, however long it gets.
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)

# `has_foreign_lock` takes the flock for an instant; an open at that very moment must not be refused for it.
_FLOCK_ATTEMPTS = 4
_FLOCK_PAUSE_SECONDS = 0.04


class LockHeld(Exception):
    """Another open file description holds a lock that conflicts."""


def lock_file(fd: int, *, for_writing: bool) -> None:
    """
    Hold *fd*'s file exclusively until the last duplicate of *fd* is closed.

    For writing, the byte-range lock is a write lock and *fd* must be open for writing.  For reading, it is a
    read lock, which is all that a read-only descriptor may hold; since it does not conflict with the read
    locks of a QEMU that writes, any byte-range lock of somebody else is looked for and refused, too.

    Raises:
        LockHeld: Somebody else holds one; *fd* holds none.
        OSError: EBADF on NFS, which gives an exclusive `flock` only to a descriptor that is open for writing;
            ENOLCK, EOPNOTSUPP where the file system has no locks.
    """
    _take_flock(fd)
    kind = fcntl.F_WRLCK if for_writing else fcntl.F_RDLCK
    if not _take_range_lock(fd, kind) or has_foreign_range_lock(fd):
        _take_range_lock(fd, fcntl.F_UNLCK)
        fcntl.flock(fd, fcntl.LOCK_UN)
        raise LockHeld


def lock_file_beside_qemu(fd: int) -> None:
    """
    Hold the `flock` alone, on a file that a QEMU of this process is to open, which takes its byte ranges itself.

    Raises:
        LockHeld: Somebody else holds a lock of either kind; *fd* holds none.
    """
    _take_flock(fd)
    if has_foreign_range_lock(fd):
        fcntl.flock(fd, fcntl.LOCK_UN)
        raise LockHeld


def _take_range_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, *_WHOLE_FILE))
    except (BlockingIOError, PermissionError):
        # EAGAIN, or on some systems EACCES: fcntl(2).
        return False
    return True


def _take_flock(fd: int) -> None:
    for attempt in range(_FLOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if attempt == _FLOCK_ATTEMPTS - 1:
                raise LockHeld from error
            time.sleep(_FLOCK_PAUSE_SECONDS)


def has_foreign_range_lock(fd: int) -> bool:
    """
    Tell whether another open file description (or a process, by a POSIX lock) locks any byte of the file.
    """
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE))
    return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK


def has_foreign_lock(fd: int) -> bool:
    """
    Tell whether another open file description holds any lock on the file.

    *fd* must hold none itself.  There is no way to ask for a `flock` but to take it, for an instant.
    """
    if has_foreign_range_lock(fd):
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # NFS with a read-only descriptor: there a flock is a byte-range lock, which was just looked for.
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
