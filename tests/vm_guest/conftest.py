"""Two volume groups on the guest's disks, each with a thin pool; a third disk for what goes wrong; an NFS server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.lvm import LvmDriver, LvmOptions
from tests.loopfs import skip_or_fail
from tests.vm_guest.nfs import Server
from tests.vm_guest.shell import sh

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

    def driver(self, **more: str) -> LvmDriver:
        options = LvmOptions(**self.options, **more)
        return LvmDriver(DriverContext(f"guest@{options.pool}", "guest", options))


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


@pytest.fixture(scope="session")
def nfs_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    server = Server(tmp_path_factory.mktemp("nfs"))
    server.start()
    return server
