"""
The door through which another host reaches a served volume: nbdkit, which asks for TLS with a key made for one use.

The key lies in memory (a file of /dev/shm that only this user can read): neither on a disk, nor among arguments, nor in
an environment.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backends.drivers.errors import ConnectionLost, NotReady
from backends.drivers.private_directory import private_directory
from backends.drivers.private_directory import sweep as remove_left

#: The name under which the key is known to both sides.
USER = "volmig"
_KEY_BYTES = 32
_MEMORY = Path("/dev/shm")  # noqa: S108
_PREFIX = "volmig-export-"
_START_SECONDS = 10.0
_STOP_SECONDS = 2.0
_PACKAGES = {"nbdkit": "nbdkit", "setpriv": "util-linux"}

# nbdkit takes over a socket that listens already (systemd's socket activation), so that the port is known and nobody
# else can take it in between.  LISTEN_PID must be the number of the process itself.
# Source: nbdkit-service(1), sd_listen_fds(3).
_HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execvp(sys.argv[2], sys.argv[2:])"
)


def new_key() -> str:
    """Return a new key, in the letters in which GnuTLS wants it."""
    return secrets.token_hex(_KEY_BYTES)


@contextmanager
def key_file(key: str) -> Iterator[str]:
    """Yield the path of a file with the key, which GnuTLS reads anew for each connection."""
    with private_folder() as folder:
        path = folder / "key"
        path.touch(mode=0o600)
        path.write_text(f"{USER}:{key}\n")
        yield str(path)


@contextmanager
def private_folder() -> Iterator[Path]:
    """
    Yield a directory that only this user can enter, in memory where the host has such a place.

    Locked while it is in use: those of processes that were killed are removed when the next one is made.
    """
    sweep()
    with private_directory(_PREFIX, _parent()) as path:
        yield path


def _parent() -> Path:
    return _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def sweep() -> None:
    """Remove the directories of processes that were killed, keys and all.  Safe to repeat: yes."""
    remove_left(_PREFIX, parent=_parent())


@contextmanager
def tls_front(socket_path: str, listener: socket.socket, key: str) -> Iterator[subprocess.Popen[bytes]]:
    """
    Yield the process that lets whoever has the key in from *listener* to the NBD server on *socket_path*.

    Everybody else, and whoever speaks no TLS, is refused before the first option.

    Raises:
        NotReady: A tool is missing, or it ended; with what it said.
    """
    for tool, package in _PACKAGES.items():
        if shutil.which(tool) is None:
            raise NotReady(
                f"The tool '{tool}' is not on this host; without it no volume can come from another host.",
                remedy=f"On Debian: apt-get install {package}",
            )
    with key_file(key) as path, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *(sys.executable, "-I", "-S", "-c", _HAND_OVER, str(listener.fileno())),
                # Not `--exit-with-parent`: it asks nbdkit to end in peace, which waits for the client.
                *("nbdkit", "--foreground", "--log=stderr"),
                *("--tls=require", f"--tls-psk={path}", "nbd", f"socket={socket_path}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(listener.fileno(),),
        )
        try:
            _wait_until_ready(process, listener, said)
            yield process
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], listener: socket.socket, said: Any) -> None:
    ends_at = time.monotonic() + _START_SECONDS
    while not _greets(listener):
        if process.poll() is not None:
            said.seek(0)
            text = said.read(4000).decode(errors="replace").strip()
            raise NotReady(f"nbdkit ended at once with status {process.returncode}: {text or 'no message'}")
        if time.monotonic() > ends_at:
            raise ConnectionLost(f"nbdkit has not answered within {_START_SECONDS:.0f} seconds.")
        time.sleep(0.01)


def _greets(listener: socket.socket) -> bool:
    with socket.socket(listener.family) as probe:
        probe.settimeout(1)
        try:
            probe.connect(listener.getsockname()[:2])
            return probe.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
        return
    process.kill()
    process.wait()


def uri(address: str, port: int) -> str:
    """Return what `NbdPort` opens; the key is given to it by `use_key`."""
    host = f"[{address}]" if ":" in address else address
    return f"nbds://{USER}@{host}:{port}/"


def use_key(handle: Any, path: str, required: int) -> None:
    """Let a libnbd handle speak TLS only, with the key in the file *path*."""
    handle.set_tls(required)
    handle.set_tls_username(USER)
    handle.set_tls_psk_file(path)
