"""
`python -m tests.vm.storage`: a Ceph cluster and an iSCSI target for the guest, until standard input ends.

They run beside the machine: in it, they would be emulated.  They have a network namespace of their own, which ends with
them, for an address that is the same for them and the guest: a daemon of Ceph tells its own address to its clients.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backends.drivers.types import MIB
from migrations_app.copying.digests import SEGMENT_BYTES
from tests.ceph_lab import ceph_cluster
from tests.iscsi_lab import iscsi_target
from tests.vm.initramfs import tool

#: In this variable the guest finds how each kind of storage is reached, or why it is `missing`, as JSON.
VARIABLE = "VOLMIG_GUEST_STORAGE"
POOL = "volumes"
SCATTERED, LARGE = "lun-1", "lun-2"
# Size, and offset and length of what is data, up to the last byte.
_LUNS = {
    SCATTERED: (12 * MIB, [(0, 70_001), (4 * MIB + 17, 70_001), (12 * MIB - 70_001, 70_001)]),
    # A hole lasts up to the second segment.
    LARGE: (SEGMENT_BYTES + 60 * MIB, [(0, 4 * MIB), (SEGMENT_BYTES, 60 * MIB)]),
}
# Of a network that is for documentation, so that nobody has it (RFC 5737).
_ADDRESS = "198.51.100.1"


@contextmanager
def serve() -> Iterator[tuple[dict[str, str], int | None]]:
    """Yield what the guest must find in its environment, and a process in the servers' network."""
    command = [tool("unshare"), "--net", sys.executable, "-m", __name__]
    # Its standard input ends with this block, and with this process.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as servers:
        assert servers.stdout is not None, "it was asked for"
        line = servers.stdout.readline()
        missing = {"missing": f"`python -m {__name__}` ended before it served anything"}
        served = line.decode().strip() or json.dumps(dict.fromkeys(_SERVERS, missing))
        yield {VARIABLE: served}, servers.pid if line else None


def main() -> None:
    # What is missing here skips or fails tests in the guest.
    os.environ.pop("VOLMIG_REQUIRE", None)
    for command in (["link", "set", "lo", "up"], ["addr", "add", f"{_ADDRESS}/32", "dev", "lo"]):
        subprocess.run([tool("busybox"), "ip", *command], check=True)
    answer = os.fdopen(os.dup(1), "w")
    # Whoever reads the answer reads nothing else.
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="volmig-vm-storage-") as name, ExitStack() as servers:
        served = {kind: _try(start, servers, Path(name)) for kind, start in _SERVERS.items()}
        print(json.dumps(served), file=answer, flush=True)
        sys.stdin.read()


def _try(
    start: Callable[[ExitStack, Path], dict[str, object]], servers: ExitStack, folder: Path
) -> dict[str, object]:
    try:
        return start(servers, folder)
    except pytest.skip.Exception as error:
        return {"missing": str(error)}


def _serve_rbd(servers: ExitStack, folder: Path) -> dict[str, object]:
    (folder / "ceph").mkdir()
    lab = servers.enter_context(ceph_cluster(folder / "ceph", [POOL], address=_ADDRESS))
    return {"mon_host": lab.mon_host}


def _serve_iscsi(servers: ExitStack, folder: Path) -> dict[str, object]:
    target = servers.enter_context(iscsi_target(folder, _ADDRESS))
    luns = {}
    for number, (name, (size_bytes, pieces)) in enumerate(_LUNS.items(), 1):
        with (folder / name).open("w+b") as disk:
            disk.truncate(size_bytes)
            for offset, length in pieces:
                disk.seek(offset)
                disk.write(os.urandom(length))
            disk.seek(0)
            digest = hashlib.file_digest(disk, "sha256").hexdigest()
        target.add_lun(number, folder / name)
        luns[name] = {"size_bytes": size_bytes, "digest": digest}
    return {"portal": target.portal, "luns": luns}


_SERVERS = {"rbd": _serve_rbd, "iscsi": _serve_iscsi}


if __name__ == "__main__":
    main()
