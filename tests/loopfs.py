"""
Real file systems on loop devices, for tests.  Images are sparse; mounts and devices are removed at the
end.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.drivers.types import MIB

# The smallest sizes that the mkfs tools accept, with some room.
_IMAGE_BYTES = {"ext4": 64 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}


def skip_or_fail(what: str, reason: str) -> None:
    """Skip the test, or fail it when `VOLMIG_REQUIRE` names *what*: a machine that must have it."""
    if what in os.environ.get("VOLMIG_REQUIRE", "").split(","):
        pytest.fail(f"VOLMIG_REQUIRE names {what}, but {reason}")
    pytest.skip(reason)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError as error:
        skip_or_fail("loop", f"`{' '.join(command)}` could not be started: {error}")
    if done.returncode:
        skip_or_fail("loop", f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def mounted(kind: str, folder: Path, size_bytes: int | None = None) -> Iterator[Path]:
    """Yield an empty directory of a new file system of *kind*; the image lies in *folder*."""
    image, mount_point = folder / f"{kind}.img", folder / f"{kind}.mnt"
    mount_point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes or _IMAGE_BYTES[kind])
    options = {"ext4": ["-q", "-m", "0"], "xfs": ["-q"], "btrfs": ["-q"]}[kind]
    _run(f"mkfs.{kind}", *options, str(image))
    with loop_device(image) as device:
        _run("mount", "-t", kind, device, str(mount_point))
        try:
            yield mount_point
        finally:
            subprocess.run(["umount", str(mount_point)], check=True, timeout=60)


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """Yield the path of a loop device on the file *image*, which is removed at the end."""
    device = _run("losetup", "--find", "--show", str(image))
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=60)
        image.unlink()
