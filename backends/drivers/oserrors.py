"""The one place where an errno of the kernel becomes an error of the driver contract."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from backends.drivers.errors import (
    AlreadyExists,
    ConnectionLost,
    CorruptData,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    Permanent,
    TimedOut,
    Transient,
    Unsupported,
)

_CLASSES: dict[type[DriverError], tuple[int, ...]] = {
    NoSpace: (errno.ENOSPC, errno.EDQUOT),
    # EUCLEAN is how ext4, xfs and btrfs report damaged metadata, EBADMSG a failed checksum.
    CorruptData: (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EREMOTEIO),
    NotPermitted: (errno.EROFS, errno.EACCES, errno.EPERM),
    ConnectionLost: (
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ESHUTDOWN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENXIO,
    ),
    TimedOut: (errno.ETIMEDOUT,),
    NotFound: (errno.ENOENT,),
    AlreadyExists: (errno.EEXIST,),
    InUse: (errno.EBUSY, errno.ETXTBSY, errno.EAGAIN),
    Unsupported: (errno.EOPNOTSUPP, errno.ENOSYS, errno.EFBIG),
    # Limits of this process or host at this moment, nothing about the volume.
    Transient: (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOLCK),
}
_CLASS_OF_ERRNO = {number: cls for cls, numbers in _CLASSES.items() for number in numbers}


def translate_os_error(
    error: OSError, what: str, *, backend: str = "", operation: str = "", volume: str = ""
) -> DriverError:
    """
    Return the contract's error for *error*, to be raised `from` it.

    Args:
        what: What was tried on which path, as the beginning of a sentence (`Writing 4096 bytes at 0 of
            /x.raw`).
    """
    cls = _CLASS_OF_ERRNO.get(error.errno or 0, Permanent)
    name = errno.errorcode.get(error.errno or 0, "no errno")
    return cls(
        f"{what} failed: {error.strerror or error} ({name}).",
        backend=backend,
        operation=operation,
        volume=volume,
    )


@contextmanager
def os_errors_translated(
    what: str, *, backend: str = "", operation: str = "", volume: str = ""
) -> Iterator[None]:
    """Raise every `OSError` of the block as the contract's error; see `translate_os_error`."""
    try:
        yield
    except OSError as error:
        raise translate_os_error(error, what, backend=backend, operation=operation, volume=volume) from error
