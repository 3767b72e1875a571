"""`qemu-img`, with its messages turned into errors of the driver contract."""

from __future__ import annotations

from collections.abc import Mapping

from backends.drivers.commands import run_command
from backends.drivers.errors import (
    ConnectionLost,
    CorruptData,
    DriverError,
    InUse,
    NoSpace,
    NotPermitted,
    NotReady,
    Permanent,
)

_SECONDS = 120.0
# What QEMU 7 says, and what it means.  The first that fits counts.
_MEANINGS: tuple[tuple[type[DriverError], str], ...] = (
    (InUse, "Failed to get"),
    (InUse, "Is another process using the image"),
    (NotPermitted, "Permission denied"),
    (NotPermitted, "Read-only file system"),
    (NotPermitted, "Operation not permitted"),
    (ConnectionLost, "Connection timed out"),
    (NoSpace, "No space left"),
    (CorruptData, "corrupt"),
    (CorruptData, "Input/output error"),
)


def qemu_img(fields: Mapping[str, str], *arguments: str) -> str:
    """
    Return what `qemu-img` printed.

    Args:
        fields: `backend`, `operation` and `volume`, for the error.

    Raises:
        NotReady: It is not on this host.
        TimedOut, and what its message means.
    """
    finished = run_command(["qemu-img", *arguments], timeout_seconds=_SECONDS, package="qemu-utils", **fields)
    if finished.status:
        raise qemu_error(f"`qemu-img {arguments[0]}` of '{fields['volume']}'", finished.said, fields)
    return finished.stdout


def qemu_error(what: str, said: str, fields: Mapping[str, str]) -> DriverError:
    """Return the error that QEMU's message means, to be raised."""
    if "Unknown protocol" in said or "Unknown driver" in said:
        return NotReady(
            f"{what} failed: QEMU has no driver for it on this host.",
            remedy="On Debian: apt-get install qemu-block-extra",
            **fields,
        )
    kind = next((kind for kind, text in _MEANINGS if text in said), Permanent)
    return kind(f"{what} failed: {said}", **fields)
