"""
The other door: a path of this host as an iSCSI LUN, by a `tgtd` of its own, with a CHAP secret made for one use.

iSCSI does not encrypt: this door is for storage networks that are trusted, and for whoever may not let NBD through.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backends.drivers.commands import run_command
from backends.drivers.errors import ConnectionLost, NotReady
from backends.drivers.listening import listen
from backends.drivers.nbd_port import NbdPort
from backends.drivers.nbd_server import qemu_nbd
from backends.drivers.ports import Port
from backends.drivers.served_port import opened
from backends.drivers.types import OpenMode

USER = "volmig"
#: A LUN is made of these.
SECTOR_BYTES = 512
_SECRET_BYTES = 16
_LUN = 1
_START_SECONDS = 10.0
_COMMAND_SECONDS = 10.0
_STOP_SECONDS = 2.0
_PACKAGES = {"tgtd": "tgt", "tgtadm": "tgt", "setpriv": "util-linux"}

# What `tgtadm` sends: mode, op, driver, length, tid, sid, lun, and six numbers; then the parameters.
# Source: tgt, usr/tgtadm.h, `struct tgtadm_req` and `struct tgtadm_rsp`.
_REQUEST = struct.Struct("=II64sIiQQ6I")
_ANSWER = struct.Struct("=II")
_MODE_ACCOUNT, _OP_NEW, _NO_LUN = 7, 0, 2**64 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """A target that is running."""

    iqn: str
    address: str
    port: int
    process: subprocess.Popen[bytes]


def new_secret() -> str:
    """Return a new CHAP secret."""
    return secrets.token_hex(_SECRET_BYTES)


@contextmanager
def iscsi_front(
    path: str, address: str, folder: Path, secret: str, name: str, ports: Sequence[int] = ()
) -> Iterator[Target]:
    """
    Yield a target with *path* as its only LUN, for whoever knows the secret.

    Args:
        folder: A directory that only this user can enter.
        name: The end of the target's name; no two targets of a host may have the same.
        ports: As `listen`.

    Raises:
        As `listen`.
        NotReady: A tool is missing, or did not do what it was asked; with what it said.
    """
    for tool, package in _PACKAGES.items():
        if shutil.which(tool) is None:
            raise NotReady(
                f"The tool '{tool}' is not on this host; without it no volume can come over iSCSI.",
                remedy=f"On Debian: apt-get install {package}",
            )
    with listen(address, ports) as probe:
        port = int(probe.getsockname()[1])
    host = f"[{address}]" if ":" in address else address
    environment = {"TGT_IPC_SOCKET": str(folder / "control")}
    # The number of the control port names a file in a directory that all targets of a host share.
    control = str(port % 32768)
    with (folder / "said").open("w+b") as said:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *("tgtd", "-f", "-C", control, "--iscsi", f"portal={host}:{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
        )
        try:
            _wait_until_ready(process, control, environment, folder / "said")
            iqn = f"iqn.2026-01.invalid.volmig:{name.lower()}"
            _make_target(iqn, path, control, environment, secret)
            yield Target(iqn, address, port, process)
        finally:
            # No gentle end: tgtd waits for its clients, and what was flushed is flushed.
            process.kill()
            process.wait(_STOP_SECONDS)


def _wait_until_ready(
    process: subprocess.Popen[bytes], control: str, environment: Mapping[str, str], said: Path
) -> None:
    ends_at = time.monotonic() + _START_SECONDS
    while True:
        with suppress(NotReady):
            _admin(control, environment, "--mode", "system", "--op", "show")
            return
        if process.poll() is not None:
            text = said.read_text(errors="replace").strip()[-500:]
            raise NotReady(f"tgtd ended at once with status {process.returncode}: {text or 'no message'}")
        if time.monotonic() > ends_at:
            raise ConnectionLost(f"tgtd has not answered within {_START_SECONDS:.0f} seconds.")
        time.sleep(0.05)


def _make_target(iqn: str, path: str, control: str, environment: Mapping[str, str], secret: str) -> None:
    def admin(operation: str, mode: str, *arguments: str) -> None:
        _admin(control, environment, "--lld", "iscsi", "--op", operation, "--mode", mode, *arguments)

    target, lun = ("--tid", "1"), ("--tid", "1", "--lun", str(_LUN))
    admin("new", "target", *target, "-T", iqn)
    _new_account(f"{environment['TGT_IPC_SOCKET']}.{control}", secret)
    admin("bind", "account", *target, "--user", USER)
    admin("new", "logicalunit", *lun, "-b", path)
    # Without it, zeros are written sector by sector, and holes are not told of.
    admin("update", "logicalunit", *lun, "--params", "thin_provisioning=1")
    # Last: from now on initiators are let in, if they know the secret.
    admin("bind", "target", *target, "-I", "ALL")


def _admin(control: str, environment: Mapping[str, str], *arguments: str) -> None:
    done = run_command(
        ["tgtadm", "-C", control, *arguments],
        timeout_seconds=_COMMAND_SECONDS,
        package="tgt",
        environment=environment,
        operation="open",
    )
    if done.status:
        raise NotReady(f"`tgtadm {' '.join(arguments[:6])}` failed: {done.said}", operation="open")


def _new_account(control_path: str, secret: str) -> None:
    """Make the account as `tgtadm` does; that takes the secret as an argument, which every user can read."""
    parameters = f"user={USER},password={secret}".encode() + b"\0"
    request = _REQUEST.pack(
        _MODE_ACCOUNT, _OP_NEW, b"iscsi", _REQUEST.size + len(parameters), -1, 0, _NO_LUN, *[0] * 6
    )
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_COMMAND_SECONDS)
        try:
            control.connect(control_path)
            control.sendall(request + parameters)
            number, _ = _ANSWER.unpack(control.recv(_ANSWER.size, socket.MSG_WAITALL))
        except (OSError, struct.error) as error:
            raise NotReady(f"tgtd does not take the account: {error}", operation="open") from error
    if number:
        raise NotReady(f"tgtd refused the account (error {number}).", operation="open")


def open_lun(
    iqn: str,
    address: str,
    port: int,
    secret: str,
    mode: OpenMode,
    *,
    size_bytes: int,
    shown: str,
    backend: str,
    volume: str,
    reads_zero_when_new: bool,
    is_exclusive: bool,
) -> Port:
    """
    Return the LUN as a port, attached in user space by libiscsi in a `qemu-nbd` of this host.

    Raises:
        NotReady: `qemu-nbd` is missing, or the target does not let it in; with what it said.
    """
    host = f"[{address}]" if ":" in address else address

    def serve(stack: ExitStack) -> Port:
        server = stack.enter_context(
            qemu_nbd(
                f"iscsi://{host}:{port}/{iqn}/{_LUN}",
                is_read_only=mode is not OpenMode.WRITE,
                # Where libiscsi looks for it; a URL among the arguments can be read by every user.
                environment={"LIBISCSI_CHAP_USERNAME": USER, "LIBISCSI_CHAP_PASSWORD": secret},
            )
        )
        return NbdPort(
            server.uri,
            mode,
            shown=shown,
            backend=backend,
            volume=volume,
            reads_zero_when_new=reads_zero_when_new,
        )

    return opened(serve, size_bytes, ExitStack(), is_exclusive=is_exclusive)
