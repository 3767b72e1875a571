"""Two volume groups on the guest's disks, each with a thin pool, and a third disk for what goes wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.lvm import LvmDriver, LvmOptions

IS_GUEST = Path("/run/guest/command").exists()
collect_ignore_glob = [] if IS_GUEST else ["test_*.py"]

SPARE_DISK = "/dev/vdc"


def sh(*command: str, seconds: int = 60) -> str:
    """Return what a command printed; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


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


@pytest.fixture(scope="session")
def volume_groups() -> tuple[str, str]:
    """`vg-one` on the first disk and `vg-two` on the second; half of each is the thin pool `thin`."""
    for vg, disk in (("vg-one", "/dev/vda"), ("vg-two", "/dev/vdb")):
        sh("vgcreate", "-q", vg, disk)
        sh("lvcreate", "-q", "--yes", "--type", "thin-pool", "--name", "thin", "--extents", "50%VG", vg)
    return "vg-one", "vg-two"


@pytest.fixture
def volumes_left(volume_groups: tuple[str, str]) -> Callable[[], set[str]]:
    """Return a function that names everything in both groups but the thin pools."""
    return lambda: set(sh("lvs", "--noheadings", "-o", "lv_name", *volume_groups).split()) - {"thin"}
