"""An NFS server in the guest's kernel, and mounts of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.drivers.types import MIB
from tests.loopfs import skip_or_fail
from tests.vm_guest.shell import sh, try_sh

_IMAGE_BYTES = 160 * MIB
_TOOLS = ("rpcbind", "rpc.statd", "exportfs", "rpc.nfsd", "rpc.mountd")


class Server:
    """An ext4 file system, served as a whole; its directory on the server is `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "served"
        self._image = folder / "image"

    def start(self) -> None:
        """Make the file system and serve it."""
        for tool in _TOOLS:
            if shutil.which(tool) is None:
                skip_or_fail("nfs", f"`{tool}` is not on this machine")
        sh("modprobe", "-a", "loop", "ext4", "nfsd", "nfsv4", "nfsv3")
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        sh("mkfs.ext4", "-q", str(self._image))
        self.folder.mkdir()
        sh("mount", "-o", "loop", str(self._image), str(self.folder))
        for name in ("/var/lib/nfs/rpc_pipefs", "/var/lib/nfs/v4recovery", "/run/rpcbind"):
            os.makedirs(name, exist_ok=True)
        # Version 3 finds its helpers through rpcbind, and keeps its locks with statd.
        sh("rpcbind", "-w")
        sh("rpc.statd", "--no-notify")
        sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        # For so long after each start, former clients may claim their locks, and nobody else gets any.
        for name in ("/proc/fs/nfsd/nfsv4leasetime", "/proc/fs/nfsd/nfsv4gracetime"):
            Path(name).write_text("10")
        for name in ("nlm_timeout", "nlm_grace_period"):
            Path(f"/sys/module/lockd/parameters/{name}").write_text("3")
        self.export()
        self.answer()
        # There are none yet.
        Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")
        sh("rpc.mountd")

    def export(self) -> None:
        options = "rw,no_root_squash,insecure,fsid=0,no_subtree_check,sync"
        Path("/etc/exports").write_text(f"{self.folder} *({options})\n")
        sh("exportfs", "-ra")

    def unexport(self) -> None:
        """Serve nothing from now on: what is open at a client is stale."""
        sh("exportfs", "-ua")
        sh("exportfs", "-f")

    def answer(self) -> None:
        sh("rpc.nfsd", "2")

    def be_silent(self) -> None:
        """Stop to answer, as a server that has lost its power."""
        sh("rpc.nfsd", "0")

    def serve_another(self) -> None:
        """Come back with an empty file system in place of the one that is served: every handle is stale."""
        self.be_silent()
        # A server that has been switched off has forgotten its locks; this one's `lockd` runs on for its client.
        Path("/proc/fs/nfsd/unlock_filesystem").write_text(f"{self.folder}\n")
        sh("mount", "-t", "tmpfs", "-o", "size=64m", "none", str(self.folder))
        # The kernel remembers which file system it serves.
        sh("exportfs", "-f")
        self.answer()

    def serve_own(self) -> None:
        """Come back with the own file system after `serve_another`."""
        self.be_silent()
        sh("exportfs", "-f")
        sh("umount", "-l", str(self.folder))
        self.answer()

    @contextmanager
    def mounted(self, point: Path, version: str, options: str = "hard") -> Iterator[Path]:
        """Mount the whole of it at the new directory *point*."""
        point.mkdir()
        # Version 4 has a root of its own.
        source = f"127.0.0.1:{self.folder}" if version == "3" else "127.0.0.1:/"
        sh("mount", "-t", "nfs", "-o", f"vers={version},{options}", source, str(point))
        try:
            yield point
        finally:
            if subprocess.run(["umount", str(point)], capture_output=True, timeout=60).returncode:
                # A server that is gone does not answer; the kernel forgets the mount when nobody uses it any more.
                try_sh("umount", "-f", "-l", str(point))
