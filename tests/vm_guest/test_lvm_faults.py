"""What goes wrong with logical volumes: clear errors in bounded time, the source untouched, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from django.db import connection

from backends.drivers.errors import InUse, NotReady
from backends.drivers.types import MIB, OpenMode
from migrations_app import services
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.vm_guest.conftest import SPARE_DISK, Place
from tests.vm_guest.shell import sh

pytestmark = pytest.mark.django_db(transaction=True)

_ADVANCE = (
    "import django, sys; django.setup(); from migrations_app import worker; worker.advance(sys.argv[1])"
)


@pytest.fixture
def small():
    """The thin pool `vg-small/thin` of 48 MiB on a disk of its own, which fails at once when it is full."""
    sh("vgcreate", "-q", "vg-small", SPARE_DISK)
    try:
        pool = ("--type", "thin-pool", "--name", "thin", "--poolmetadatasize", "2M", "--size", "48M")
        sh("lvcreate", "-q", "--yes", *pool, "vg-small")
        sh("lvchange", "-q", "--errorwhenfull", "y", "vg-small/thin")
        yield Place("vg-small", is_thin=True)
    finally:
        _forget_small()


def _forget_small():
    subprocess.run(["vgremove", "-q", "-f", "--yes", "vg-small"], capture_output=True, timeout=60)
    subprocess.run(["pvremove", "-q", "-ff", "--yes", SPARE_DISK], capture_output=True, timeout=60)


def random_volume(tmp_path, size_bytes):
    (tmp_path / "files").mkdir()
    backend = moving.register("files", "directory", {"path": str(tmp_path / "files")})
    volume = moving.new_volume(backend, "vol", size_bytes)
    (tmp_path / f"files/{volume.object_name}.raw").write_bytes(os.urandom(size_bytes))
    return volume


def names(vg):
    return set(sh("lvs", "--noheadings", "-o", "lv_name", vg).split()) - {"thin"}


def test_thin_pool_that_fills_up_fails_with_the_reason_and_keeps_the_source(small, tmp_path, run_to_end):
    volume = random_volume(tmp_path, 32 * MIB)
    before = moving.digest_of(volume)
    moving.register("small", "lvm", small.options)
    migration = services.request_migration(volume, "testhost@small", moving.ACTOR, Options())
    # Somebody else was quicker.
    sh("lvcreate", "-q", "--yes", "--virtualsize", "32M", "--name", "other", "--thin", "vg-small/thin")
    sh("dd", "if=/dev/urandom", "of=/dev/vg-small/other", "bs=1M", "count=32", "oflag=direct")
    started = time.monotonic()
    migration = run_to_end(migration)
    assert time.monotonic() - started < 120
    assert migration.state == State.FAILED
    assert migration.error_code == "no_space"
    assert "The thin pool 'thin' is full" in migration.error_text
    assert names("vg-small") == {"other"}
    assert moving.digest_of(volume) == before


def test_thin_pool_without_room_for_metadata_says_so(small, tmp_path, run_to_end):
    volume = random_volume(tmp_path, 8 * MIB)
    before = moving.digest_of(volume)
    backend = moving.register("small", "lvm", small.options)
    migration = services.request_migration(volume, "testhost@small", moving.ACTOR, Options())
    sh("lvcreate", "-q", "--yes", "--virtualsize", "4M", "--name", "other", "--thin", "vg-small/thin")
    # Each thin device takes a block of metadata, mapped or not; the pool's own numbers stay below these.
    fill = (
        'n=100000; while dmsetup message vg--small-thin-tpool 0 "create_thin $n"; do n=$((n + 1)); done 2>&1'
    )
    assert "message" in sh("sh", "-c", fill, seconds=120)
    migration = run_to_end(migration)
    assert migration.state in (State.FAILED, State.NEEDS_OPERATOR)
    assert "thin" in migration.error_text
    assert moving.digest_of(volume) == before
    with small.driver() as driver:
        (stats,) = driver.pools()
    assert stats.free_bytes == 0 or stats.is_read_only
    assert "metadata" in stats.capabilities["warning"]
    assert backend.pools.get().name == "vg-small.thin"


def test_bad_blocks_of_the_destination_fail_the_migration_and_not_the_source(tmp_path, run_to_end):
    # Not from the beginning, where LVM would find the same label on both devices.
    sectors = int(sh("blockdev", "--getsz", SPARE_DISK)) - 2048
    whole = f"0 {sectors} linear {SPARE_DISK} 2048"
    sh("dmsetup", "create", "faulty", "--table", whole)
    try:
        sh("vgcreate", "-q", "vg-faulty", "/dev/mapper/faulty")
        volume = random_volume(tmp_path, 16 * MIB)
        before = moving.digest_of(volume)
        moving.register("faulty", "lvm", {"vg": "vg-faulty"})
        migration = services.request_migration(volume, "testhost@faulty", moving.ACTOR, Options())
        # The metadata at the beginning stays readable; the volume's second half is broken.
        good = 10 * MIB // 512
        broken = f"0 {good} linear {SPARE_DISK} 2048\n{good} {sectors - good} error"
        sh("dmsetup", "suspend", "faulty")
        sh("dmsetup", "load", "faulty", "--table", broken)
        sh("dmsetup", "resume", "faulty")
        migration = run_to_end(migration)
        assert migration.state == State.FAILED
        assert "Input/output error" in migration.error_text
        assert names("vg-faulty") == set()
        assert moving.digest_of(volume) == before
    finally:
        subprocess.run(["vgremove", "-q", "-f", "--yes", "vg-faulty"], capture_output=True, timeout=60)
        sh("dmsetup", "remove", "faulty")


@pytest.mark.parametrize("kind", ["thick", "thin"])
def test_killed_worker_is_replaced_and_the_copy_goes_on(kind, volume_groups, tmp_path, run_to_end):
    volume = random_volume(tmp_path, SEGMENT_BYTES + 24 * MIB)
    before = moving.digest_of(volume)
    place = Place(volume_groups[0], kind == "thin")
    moving.register("lvm", "lvm", place.options)
    options = Options(bandwidth_bytes_per_second=24 * MIB, delete_source=True)
    migration = services.request_migration(volume, "testhost@lvm", moving.ACTOR, options)
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "DJANGO_SETTINGS_MODULE": "volmig_site.settings",
        "VOLMIG_CHECKPOINT_SECONDS": "1",
    }
    worker = subprocess.Popen([sys.executable, "-c", _ADVANCE, str(migration.pk)], env=environment)
    ends_at = time.monotonic() + 150
    while not migration.copied_up_to_bytes:
        assert time.monotonic() < ends_at, "no checkpoint"
        assert worker.poll() is None, "the worker has ended"
        time.sleep(0.2)
        migration.refresh_from_db()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    checkpoint = migration.copied_up_to_bytes
    VolumeMigration.objects.filter(pk=migration.pk).update(
        bandwidth_bytes_per_second=None, lease_expires_at=migration.created_at
    )
    migration.refresh_from_db()
    migration = run_to_end(migration)
    assert migration.copied_up_to_bytes >= checkpoint > 0
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    assert names(place.vg) == {volume.object_name}
    with place.driver() as driver:
        driver.delete(place.pool, volume.object_name)


def test_mounted_volume_is_in_use_and_a_group_that_is_gone_is_named(volume_groups, tmp_path):
    place = Place(volume_groups[0], is_thin=False)
    driver = place.driver()
    driver.create(place.pool, "mounted", 16 * MIB, thin=False)
    sh("mkfs.ext4", "-q", f"/dev/{place.vg}/mounted")
    sh("mount", f"/dev/{place.vg}/mounted", str(tmp_path))
    try:
        assert str(tmp_path) in "; ".join(map(str, driver.usage(place.pool, "mounted")))
        for mode in (OpenMode.SOURCE, OpenMode.WRITE):
            with pytest.raises(InUse, match="is mounted from it"):
                driver.open(place.pool, "mounted", mode)
        with pytest.raises(InUse):
            driver.delete(place.pool, "mounted")
    finally:
        sh("umount", str(tmp_path))
    driver.delete(place.pool, "mounted")
    with pytest.raises(NotReady, match="vg-nowhere"):
        Place("vg-nowhere", is_thin=False).driver().check()


def test_wiped_volume_leaves_no_data_in_its_extents(volume_groups):
    place = Place(volume_groups[0], is_thin=False)
    driver = place.driver(wipe="zero")
    driver.create(place.pool, "secret", 8 * MIB - 5, thin=False)
    with driver.open(place.pool, "secret", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"secret!!" * (MIB - 1)))
        port.flush()
    driver.delete(place.pool, "secret")
    driver.create(place.pool, "next", 8 * MIB, thin=False)
    with driver.open(place.pool, "next", OpenMode.VERIFY) as port:
        content = bytearray(8 * MIB)
        port.read_into(0, memoryview(content))
    driver.delete(place.pool, "next")
    assert not any(content)
