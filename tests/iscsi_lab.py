"""An iSCSI target in user space, for tests: `tgtd` with a control socket of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.loopfs import skip_or_fail

IQN = "iqn.2026-01.test:array"
USER, SECRET = "volmig", "chap-secret-0123"


class IscsiTarget:
    """A running target with CHAP; `portal` is its address."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self.portal = f"{address}:{port}"
        # The number of the control port names a file in a directory that all targets of a host share.
        self._control = str(port % 32768)
        self._environment = {**os.environ, "TGT_IPC_SOCKET": str(folder / "control")}
        self.process = subprocess.Popen(
            ["tgtd", "-f", "-C", self._control, "--iscsi", f"portal={self.portal}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )

    def admin(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tgtadm", "-C", self._control, *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env=self._environment,
        )
        if done.returncode:
            raise RuntimeError(f"tgtadm {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def wait(self) -> None:
        ends_at = time.monotonic() + 20
        while True:
            with suppress(RuntimeError):
                self.admin("--mode", "system", "--op", "show")
                return
            if time.monotonic() > ends_at or self.process.poll() is not None:
                skip_or_fail("iscsi", f"`tgtd` did not start (status {self.process.poll()})")
            time.sleep(0.05)

    def iscsi(self, operation: str, mode: str, *arguments: str) -> None:
        self.admin("--lld", "iscsi", "--op", operation, "--mode", mode, *arguments)

    def add_lun(self, number: int, path: Path) -> None:
        self.iscsi("new", "logicalunit", "--tid", "1", "--lun", str(number), "-b", str(path))
        # Without it, zeros are written sector by sector, and holes are not told of.
        lun = ("--tid", "1", "--lun", str(number))
        self.iscsi("update", "logicalunit", *lun, "--params", "thin_provisioning=1")


@contextmanager
def iscsi_target(folder: Path, address: str = "127.0.0.1") -> Iterator[IscsiTarget]:
    """Yield a target without LUNs that listens on *address*."""
    for tool in ("tgtd", "tgtadm", "iscsi-readcapacity16"):
        if shutil.which(tool) is None:
            skip_or_fail("iscsi", f"`{tool}` is not on this machine")
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    target = IscsiTarget(folder, address, port)
    try:
        target.wait()
        target.iscsi("new", "target", "--tid", "1", "-T", IQN)
        target.iscsi("new", "account", "--user", USER, "--password", SECRET)
        target.iscsi("bind", "account", "--tid", "1", "--user", USER)
        target.iscsi("bind", "target", "--tid", "1", "-I", "ALL")
        yield target
    finally:
        target.process.kill()
        target.process.wait(10)
