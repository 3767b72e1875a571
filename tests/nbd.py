"""Real NBD servers for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from backends.drivers import nbd_server
from backends.drivers.errors import NotReady
from backends.drivers.nbd_port import load_libnbd
from tests.loopfs import skip_or_fail


def require_nbd() -> None:
    """Skip or fail the test where libnbd, nbdkit or qemu-nbd are missing."""
    for command in (["nbdkit", "--version"], ["qemu-nbd", "--version"], ["setpriv", "--version"]):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError) as error:
            skip_or_fail("nbd", f"`{' '.join(command)}` failed: {error}")
    try:
        load_libnbd()
    except NotReady as error:
        skip_or_fail("nbd", str(error))


@contextmanager
def served(tool: str, path: object, *filters: str, is_read_only: bool = False) -> Iterator[str]:
    """Yield the URI of *path* served by `qemu-nbd` or `nbdkit`; *filters* are arguments of nbdkit."""
    if tool == "qemu-nbd":
        with nbd_server.qemu_nbd(str(path), is_read_only=is_read_only) as server:
            yield server.uri
    else:
        with nbd_server.nbdkit("file", str(path), *filters, is_read_only=is_read_only) as server:
            yield server.uri
