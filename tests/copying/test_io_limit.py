"""The kernel's ceiling: what is written where, and what is said when it cannot be."""

from __future__ import annotations

import os

import pytest

from migrations_app.copying.io_limit import limit_disk

DISK = os.makedev(254, 0)
PARTITION = os.makedev(254, 1)


@pytest.fixture
def host(tmp_path):
    """A host with one disk of one partition, whose worker may write its own `io.max`."""
    disk = tmp_path / "sys/devices/virtio/vda"
    (disk / "vda1").mkdir(parents=True)
    (disk / "dev").write_text("254:0\n")
    (disk / "vda1/dev").write_text("254:1\n")
    (disk / "vda1/partition").write_text("1\n")
    numbers = tmp_path / "sys/dev/block"
    numbers.mkdir(parents=True)
    (numbers / "254:0").symlink_to(disk)
    (numbers / "254:1").symlink_to(disk / "vda1")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("7:blkio:/\n0::/system.slice/volmig.service\n")
    (tmp_path / "proc/self/mounts").write_text(
        "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
    )
    group = tmp_path / "sys/fs/cgroup/system.slice/volmig.service"
    group.mkdir(parents=True)
    (group / "io.max").touch()
    return tmp_path


@pytest.mark.parametrize("device", [DISK, PARTITION])
def test_whole_disk_is_limited_both_ways(host, device):
    assert limit_disk(device, 5_000_000, root=host) == ""
    written = (host / "sys/fs/cgroup/system.slice/volmig.service/io.max").read_text()
    assert written == "254:0 rbps=5000000 wbps=5000000\n"


def test_file_system_on_no_single_disk_is_named(host):
    assert limit_disk(os.makedev(0, 42), 1, root=host) == "device 0:42 is no disk of this host"


def test_host_with_the_old_control_groups_is_named(host):
    (host / "proc/self/mounts").write_text("cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n")
    assert limit_disk(DISK, 1, root=host) == "this host has no cgroup v2"


def test_group_that_was_not_given_to_the_worker_is_named_with_the_remedy(host):
    (host / "sys/fs/cgroup/system.slice/volmig.service/io.max").unlink()
    said = limit_disk(DISK, 1, root=host)
    assert said.endswith(
        "io.max cannot be written (No such file or directory); let systemd delegate it: Delegate=io"
    )


def test_refusal_of_the_kernel_is_told(host):
    group = host / "sys/fs/cgroup/system.slice/volmig.service"
    (group / "io.max").unlink()
    (group / "io.max").symlink_to("/dev/full")
    said = limit_disk(DISK, 7, root=host)
    assert "writing '254:0 rbps=7 wbps=7'" in said
    assert said.endswith("failed (No space left on device)")
