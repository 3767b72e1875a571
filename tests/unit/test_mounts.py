"""The file system of a pool's directory is told from the kernel's list of mounts."""

import os

import pytest

from backends.drivers.mounts import file_system_of


@pytest.mark.parametrize(
    ("kind", "options", "keeps_holes"),
    [
        ("ext4", "rw", True),
        ("nfs4", "rw,vers=4.2,rsize=1048576", True),
        ("nfs4", "rw,vers=4.1", False),
        ("nfs", "rw,vers=3,nolock", False),
        ("nfs", "rw", False),
    ],
)
def test_holes_are_kept_by_everything_but_old_nfs(kind, options, keeps_holes, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        device = os.fstat(fd).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = (
            "21 1 0:1 / /else rw - tmpfs tmpfs rw\n"
            f"22 1 {number} / /srv rw,noatime shared:1 - {kind} server:/x {options}\n"
        )
        found = file_system_of(fd, lines)
        assert (found.kind, found.keeps_holes) == (kind, keeps_holes)
        assert file_system_of(fd, "").kind == "unknown"
        assert file_system_of(fd).kind
    finally:
        os.close(fd)
