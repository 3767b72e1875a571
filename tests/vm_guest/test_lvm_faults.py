"""What goes wrong with logical volumes: clear errors in bounded time, the source untouched, nothing left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from backends.drivers.errors import InUse, NotReady
from backends.drivers.types import MIB, OpenMode
from migrations_app import services
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.vm_guest.conftest import SPARE_DISK, Place, require_lvm
from tests.vm_guest.shell import sh, try_sh

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def small():
    """The thin pool `vg-small/thin` of 48 MiB on a disk of its own, which fails at once when it is full."""
    require_lvm()
    sh("vgcreate", "-q", "vg-small", SPARE_DISK)
    try:
        pool = ("--type", "thin-pool", "--name", "thin", "--poolmetadatasize", "2M", "--size", "48M")
        sh("lvcreate", "-q", "--yes", *pool, "vg-small")
        sh("lvchange", "-q", "--errorwhenfull", "y", "vg-small/thin")
        yield Place("vg-small", is_thin=True)
    finally:
        try_sh("vgremove", "-q", "-f", "--yes", "vg-small")
        try_sh("wipefs", "-aq", SPARE_DISK)


def names(vg):
    return set(sh("lvs", "--noheadings", "-o", "lv_name", vg).split()) - {"thin"}


def test_thin_pool_that_fills_up_fails_with_the_reason_and_keeps_the_source(small, random_volume, run_to_end):
    volume = random_volume(32 * MIB)
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


def test_thin_pool_that_waits_for_room_fails_when_the_kernel_gives_up(small, random_volume, run_to_end):
    timeout = Path("/sys/module/dm_thin_pool/parameters/no_space_timeout")
    timeout.write_text("4")
    sh("lvchange", "-q", "--errorwhenfull", "n", "vg-small/thin")
    volume = random_volume(44 * MIB)
    moving.register("small", "lvm", small.options)
    migration = services.request_migration(volume, "testhost@small", moving.ACTOR, Options())
    sh("lvcreate", "-q", "--yes", "--virtualsize", "24M", "--name", "other", "--thin", "vg-small/thin")
    sh("dd", "if=/dev/urandom", "of=/dev/vg-small/other", "bs=1M", "count=24", "oflag=direct")
    started = time.monotonic()
    migration = run_to_end(migration)
    assert time.monotonic() - started < 120
    assert (migration.state, migration.error_code) == (State.FAILED, "no_space")
    assert "The thin pool 'thin' is full" in migration.error_text
    assert names("vg-small") == {"other"}


def test_thin_pool_without_room_for_metadata_says_so(small, random_volume, run_to_end):
    volume = random_volume(8 * MIB)
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


def test_bad_blocks_of_the_destination_fail_the_migration_and_not_the_source(
    faulty_disk, random_volume, run_to_end
):
    volume = random_volume(16 * MIB)
    before = moving.digest_of(volume)
    moving.register("faulty", "lvm", {"vg": "vg-faulty"})
    migration = services.request_migration(volume, "testhost@faulty", moving.ACTOR, Options())
    # The metadata at the beginning stays readable; the volume's second half is broken.
    faulty_disk.fail_behind(10 * MIB)
    migration = run_to_end(migration)
    assert migration.state == State.FAILED
    assert "Input/output error" in migration.error_text
    assert names("vg-faulty") == set()
    assert moving.digest_of(volume) == before


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
