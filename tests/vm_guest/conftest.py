"""Two volume groups on the guest's disks, each with a thin pool; a third disk for what goes wrong; an NFS server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.lvm import LvmDriver, LvmOptions
from backends.drivers.types import MIB
from backends.models import Volume
from tests import moving
from tests.loopfs import skip_or_fail
from tests.vm_guest.nfs import Server
from tests.vm_guest.shell import sh, try_sh

IS_GUEST = Path("/run/guest/command").exists()
collect_ignore_glob = [] if IS_GUEST else ["test_*.py"]

SPARE_DISK = "/dev/vdc"


@dataclass(frozen=True)
class Place:
    """A volume group, or the thin pool `thin` in it."""

    vg: str
    is_thin: bool

    @property
    def options(self) -> dict[str, str]:
        return {"vg": self.vg, **({"thin_pool": "thin"} if self.is_thin else {})}

    @property
    def pool(self) -> str:
        return LvmOptions(**self.options).pool

    def driver(self, kind: type[LvmDriver] = LvmDriver, **more: str) -> LvmDriver:
        options = LvmOptions(**self.options, **more)
        return kind(DriverContext(f"guest@{options.pool}", "guest", options))


def require_lvm() -> None:
    """Skip or fail the test where the guest's tools for logical volumes are missing."""
    for tool in ("lvm", "dmsetup", "thin_dump"):
        if shutil.which(tool) is None:
            skip_or_fail("lvm", f"`{tool}` is not on this machine")


@pytest.fixture(scope="session")
def volume_groups() -> tuple[str, str]:
    """`vg-one` on the first disk and `vg-two` on the second; half of each is the thin pool `thin`."""
    require_lvm()
    for vg, disk in (("vg-one", "/dev/vda"), ("vg-two", "/dev/vdb")):
        sh("vgcreate", "-q", vg, disk)
        sh("lvcreate", "-q", "--yes", "--type", "thin-pool", "--name", "thin", "--extents", "50%VG", vg)
    return "vg-one", "vg-two"


@pytest.fixture
def volumes_left(volume_groups: tuple[str, str]) -> Callable[[], set[str]]:
    """Return a function that names everything in both groups but the thin pools."""
    return lambda: set(sh("lvs", "--noheadings", "-o", "lv_name", *volume_groups).split()) - {"thin"}


@dataclass(frozen=True)
class FaultyDisk:
    """The spare disk behind a device that can be told what to do."""

    name: str = "faulty"
    path: str = "/dev/mapper/faulty"
    sectors: int = 200 * MIB // 512

    def table(self, good_bytes: int) -> str:
        """Return the device's table: input/output errors behind the first *good_bytes*."""
        # Not from the beginning of the disk, where LVM would find the same label on both devices.
        good = min(good_bytes // 512, self.sectors)
        parts = [(0, good, f"linear {SPARE_DISK} 2048"), (good, self.sectors - good, "error")]
        return "\n".join(f"{start} {length} {target}" for start, length, target in parts if length)

    def fail_behind(self, good_bytes: int) -> None:
        self._become(self.table(good_bytes))

    def answer_late(self, milliseconds: int) -> None:
        """Answer each request so much later."""
        self._become(f"0 {self.sectors} delay {SPARE_DISK} 2048 {milliseconds}")

    def refuse_writes(self, how: str) -> None:
        """Do not write any more: *how* is `error_writes`, or `drop_writes`, which says that it has written."""
        # Up for no second, down for an hour, again and again.
        self._become(f"0 {self.sectors} flakey {SPARE_DISK} 2048 0 3600 1 {how}")

    def be_well(self) -> None:
        self.fail_behind(self.sectors * 512)

    def stop_answering(self) -> None:
        """Answer nothing until `go_on`; what was asked for meanwhile is done then."""
        sh("dmsetup", "suspend", "--nolockfs", "--noflush", self.name)

    def go_on(self) -> None:
        sh("dmsetup", "resume", self.name)

    def _become(self, table: str) -> None:
        sh("dmsetup", "load", self.name, "--table", table)
        # Suspended and resumed, the device takes the new table.
        sh("dmsetup", "resume", self.name)


@pytest.fixture
def faulty_disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    """A disk with the volume group `vg-faulty`."""
    require_lvm()
    disk = FaultyDisk()
    sh("dmsetup", "create", disk.name, "--table", disk.table(disk.sectors * 512))
    try:
        sh("vgcreate", "-q", "vg-faulty", disk.path)
        yield disk
    finally:
        try_sh("dmsetup", "resume", disk.name)
        try_sh("blockdev", "--setrw", disk.path)
        try_sh("vgremove", "-q", "-f", "--yes", "vg-faulty")
        sh("dmsetup", "remove", "--retry", disk.name)
        try_sh("wipefs", "-aq", SPARE_DISK)


@pytest.fixture
def random_volume(tmp_path: Path, db: None) -> Callable[..., Volume]:
    """Return a function that returns a volume in a directory, full of data but for a hole behind its beginning."""

    def make(size_bytes: int, hole_until: int = 0) -> Volume:
        (tmp_path / "files").mkdir()
        backend = moving.register("files", "directory", {"path": str(tmp_path / "files")})
        volume = moving.new_volume(backend, "vol", size_bytes)
        with (tmp_path / f"files/{volume.object_name}.raw").open("wb") as file:
            file.truncate(size_bytes)
            file.write(os.urandom(min(4 * MIB, size_bytes)))
            file.seek(max(4 * MIB, hole_until))
            file.write(os.urandom(max(0, size_bytes - file.tell())))
        return volume

    return make


@pytest.fixture(scope="session")
def nfs_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    server = Server(tmp_path_factory.mktemp("nfs"))
    server.start()
    return server
