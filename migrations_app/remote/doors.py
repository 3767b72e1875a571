"""
How another host gets at a volume that is open here: NBD with TLS, or iSCSI with CHAP.

A door is open for as long as its `with` block.  What it tells goes to the asker through the call's row; the secret
came the same way, encrypted.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from backends.drivers import iscsi_front, tls_front
from backends.drivers.block_device_port import BlockDevicePort
from backends.drivers.errors import DriverError
from backends.drivers.listening import listen
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.mounts import file_system_of
from backends.drivers.port_server import PortServer
from backends.drivers.ports import Port
from backends.drivers.types import OpenMode

NBD, ISCSI = "nbd", "iscsi"
#: What VOLMIG_EXPORT may be.
KINDS = (NBD, ISCSI)


@dataclass(frozen=True, slots=True)
class Door:
    """`told`: what the asker needs to come in, besides the secret.  When `process` ends, nobody can."""

    told: dict[str, Any]
    process: subprocess.Popen[bytes]


def secrets_for_any_door() -> dict[str, str]:
    """Return new secrets; the asker makes them without knowing which door it will be."""
    return {NBD: tls_front.new_key(), ISCSI: iscsi_front.new_secret()}


@contextmanager
def door(
    port: Port,
    mode: OpenMode,
    secrets: dict[str, str],
    name: str,
    fence: Callable[[], None],
    on_error: Callable[[DriverError], None],
) -> Iterator[Door]:
    """
    Yield the door to *port*: the one that VOLMIG_EXPORT names, or NBD where that is not possible.

    iSCSI serves paths only, in whole sectors, and where holes can be punched.

    Raises:
        NotReady: A tool or the address is missing.
        InUse: No port is free.
    """
    with ExitStack() as opened:
        folder = opened.enter_context(tls_front.private_folder())
        path = _path_for_iscsi(port) if settings.VOLMIG_EXPORT == ISCSI else ""
        if path:
            target = opened.enter_context(
                iscsi_front.iscsi_front(
                    path,
                    settings.VOLMIG_STORAGE_ADDRESS,
                    folder,
                    secrets[ISCSI],
                    name,
                    settings.VOLMIG_STORAGE_PORTS,
                )
            )
            told = {"kind": ISCSI, "iqn": target.iqn, "address": target.address, "port": target.port}
            process = target.process
        else:
            socket_path = str(folder / "socket")
            listener = opened.enter_context(
                listen(settings.VOLMIG_STORAGE_ADDRESS, settings.VOLMIG_STORAGE_PORTS)
            )
            process = opened.enter_context(tls_front.tls_front(socket_path, listener, secrets[NBD]))
            server = PortServer(port, socket_path, mode, fence=fence, on_error=on_error)
            # Closed before everything else: from then on nothing reaches the port.
            opened.callback(server.close)
            address, number = listener.getsockname()[:2]
            told = {"kind": NBD, "address": address, "port": number}
        yield Door(
            {
                **told,
                "size_bytes": port.size_bytes,
                "reads_zero_when_new": port.reads_zero_when_new,
                "is_exclusive": port.is_exclusive,
                "keeps_allocation": port.keeps_allocation,
            },
            process,
        )


def _path_for_iscsi(port: Port) -> str:
    """Return the path by which a target reaches what *port* has open, empty when there is none."""
    if not isinstance(port, LocalFilePort):
        return ""
    if port.still_at(port.path):
        path = port.path
    elif isinstance(port, BlockDevicePort):
        # A logical volume is shown by a name that is a link, and opened by another one.
        path = os.path.realpath(port.path)
    else:
        return ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    try:
        found = os.fstat(fd)
        if stat.S_ISBLK(found.st_mode):
            is_fit = found.st_rdev == port.device
        else:
            is_fit = found.st_size % iscsi_front.SECTOR_BYTES == 0
        return path if is_fit and (port.keeps_allocation or _gives_back_zeros(fd)) else ""
    finally:
        os.close(fd)


def _gives_back_zeros(fd: int) -> bool:
    """
    Tell whether a hole can be punched into what is open.

    `tgtd` fails a request to give room back where the kernel cannot, instead of writing zeros.
    """
    found = os.fstat(fd)
    if not stat.S_ISBLK(found.st_mode):
        return file_system_of(fd).keeps_holes
    # A thin volume cannot: it knows how to discard only, which promises no zeros.
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    try:
        return int(Path(f"/sys/dev/block/{number}/queue/write_zeroes_max_bytes").read_text()) > 0
    except (OSError, ValueError):
        return False
