"""
NBD servers of this host that live as long as a `with` block: how everything that is not a local path becomes a port.

The socket lies in a directory that only this user can enter.  The server ends with its parent, also when the parent
is killed; the directory that is then left is removed when the next server starts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from backends.drivers.errors import ConnectionLost, NotReady
from backends.drivers.private_directory import private_directory, sweep

_PREFIX = "volmig-nbd-"
_START_SECONDS = 20.0
# What was flushed is safe, and a server that hangs must not keep a cancel waiting.
_STOP_SECONDS = 2.0
_PACKAGES = {"qemu-nbd": "qemu-utils", "nbdkit": "nbdkit", "setpriv": "util-linux"}


class ServerEnded(NotReady):
    """The server ended at once; the message has what it said."""


@dataclass(frozen=True)
class NbdServer:
    """A server that is running.  `uri` is what `NbdPort` and every other NBD client opens."""

    uri: str
    process: subprocess.Popen[bytes]


@contextmanager
def qemu_nbd(
    source: str,
    *,
    image_format: str = "raw",
    is_read_only: bool = False,
    connections: int = 8,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[NbdServer]:
    """
    Yield a server of *source*: a path, or what QEMU opens (`rbd:pool/image`, `iscsi://…`, a qcow2 file).

    It bypasses the page cache, so that what is read back comes from the storage, and a flush is one.  The format is
    never guessed: a guest can write a qcow2 header into a raw volume.  Source: qemu-nbd(8), `--format`.

    Args:
        environment: Added to this process's; for secrets, which must not stand among the arguments.

    Raises:
        NotReady: `qemu-nbd` is missing.
        ServerEnded: It cannot open the source.
    """
    command = ["qemu-nbd", "--persistent", f"--shared={connections}", f"--format={image_format}"]
    command += ["--cache=none", "--discard=unmap", "--detect-zeroes=off"]
    command += ["--read-only"] if is_read_only else []
    full = command + list(options)
    with _running(full, ["--socket={socket}", "--", source], environment) as server:
        yield server


@contextmanager
def nbdkit(*arguments: str, is_read_only: bool = False) -> Iterator[NbdServer]:
    """
    Yield nbdkit with *arguments*: a plugin with its parameters, such as `file`, `/srv/volume.raw`, and filters.

    Raises:
        NotReady: `nbdkit` is missing.
        ServerEnded: It cannot open what it should serve.
    """
    command = ["nbdkit", "--foreground"]
    command += ["--readonly"] if is_read_only else []
    with _running(command, ["--unix={socket}", *arguments]) as server:
        yield server


@contextmanager
def _running(
    command: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[NbdServer]:
    sweep(_PREFIX)
    with private_directory(_PREFIX) as directory:
        path = directory / "socket"
        full = [*command, *(argument.replace("{socket}", str(path)) for argument in arguments)]
        with (directory / "said").open("w+b") as said:
            process = _start(full, said.fileno(), environment or {})
            try:
                _wait_until_ready(process, path, full[0], said.fileno())
                yield NbdServer(f"nbd+unix:///?socket={quote(str(path))}", process)
            finally:
                _stop(process)


def _start(command: Sequence[str], said_fd: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    for tool in (command[0], "setpriv"):
        if shutil.which(tool) is None:
            raise NotReady(
                f"The tool '{tool}' is not on this host.",
                remedy=f"On Debian: apt-get install {_PACKAGES[tool]}",
            )
    # The kernel sends the signal when the thread that started the process ends, not only when all do: a server
    # belongs to the thread of its `with` block.  Source: prctl(2), PR_SET_PDEATHSIG.
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=said_fd,
        stderr=said_fd,
        env={**os.environ, **environment},
    )


def _wait_until_ready(process: subprocess.Popen[bytes], path: Path, tool: str, said_fd: int) -> None:
    ends_at = time.monotonic() + _START_SECONDS
    while not _greets(path):
        if process.poll() is not None:
            said = os.pread(said_fd, 4000, 0).decode(errors="replace").strip()
            raise ServerEnded(
                f"{tool} ended at once with status {process.returncode}: {said or 'no message'}"
            )
        if time.monotonic() > ends_at:
            raise ConnectionLost(f"{tool} has not answered within {_START_SECONDS:.0f} seconds.")
        time.sleep(0.01)


def _greets(path: Path) -> bool:
    """Tell whether a server answers: qemu-nbd opens its socket before it has opened what it serves."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
            return probe.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < ends_at:
        # More than once: qemu-nbd ignores the signal until it has entered its main loop.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
            return
    # A stopped or hanging server; nothing but what was flushed was believed.
    process.kill()
    process.wait()
