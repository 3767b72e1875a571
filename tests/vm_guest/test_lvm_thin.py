"""What was never written to a thin volume is not read; what was, always is."""

from __future__ import annotations

import os

import pytest

from backends.drivers import lvm_thin_map
from backends.drivers.lvm_thin_map import NoMap, mapped_runs
from backends.drivers.ports import ExtentKind
from backends.drivers.types import GIB, KIB, MIB, OpenMode
from tests.vm_guest.conftest import Place
from tests.vm_guest.shell import sh, try_sh

SIZE_BYTES = GIB + 4097


@pytest.fixture
def place(volume_groups):
    return Place(volume_groups[0], is_thin=True)


@pytest.fixture
def driver(place):
    driver = place.driver()
    driver.create(place.pool, "vol", SIZE_BYTES, thin=True)
    yield driver
    sh("lvremove", "-q", "--yes", f"{place.vg}/vol")


@pytest.fixture
def pieces(driver, place):
    """Data at both ends of the volume and around the middle, and a piece that was given back."""
    pieces = {0: os.urandom(100), 500 * MIB - 7: os.urandom(300 * KIB), SIZE_BYTES - 9: os.urandom(9)}
    with driver.open(place.pool, "vol", OpenMode.WRITE) as port:
        for offset, content in {**pieces, 100 * MIB: os.urandom(4 * MIB)}.items():
            port.write(offset, memoryview(content))
        port.flush()
        port.zero(100 * MIB, 4 * MIB)
        port.flush()
    return pieces


def data_of(port):
    extents = list(port.extents(0, SIZE_BYTES))
    assert sum(extent.length for extent in extents) == SIZE_BYTES
    return [(e.offset, e.end) for e in extents if e.kind is ExtentKind.DATA]


def held(place):
    return sh("dmsetup", "status", f"{place.vg.replace('-', '--')}-thin-tpool").split()[6]


def test_data_is_where_it_was_written_and_hardly_anywhere_else(driver, place, pieces):
    with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
        data = data_of(port)
        for offset, content in pieces.items():
            assert any(start <= offset and offset + len(content) <= end for start, end in data)
            buffer = bytearray(len(content))
            port.read_into(offset, memoryview(buffer))
            assert buffer == content
    assert sum(end - start for start, end in data) < 4 * MIB
    assert held(place) == "-"


def test_every_hole_reads_as_zeros(driver, place, pieces):
    buffer = bytearray(MIB)
    with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
        for extent in port.extents(90 * MIB, 30 * MIB):
            assert extent.kind is ExtentKind.HOLE
            for at in range(extent.offset, extent.end, MIB):
                port.read_into(at, memoryview(buffer))
                assert not any(buffer)


def test_data_that_was_written_through_the_page_cache_is_seen(driver, place):
    with driver.open(place.pool, "vol", OpenMode.SOURCE):
        pass
    device = f"/dev/{place.vg}/vol"
    # Somebody keeps it open: the page cache is not written back by the last close.
    with open(device, "r+b", buffering=0) as somebody:
        os.pwrite(somebody.fileno(), b"late", 700 * MIB)
        with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
            ((start, end),) = data_of(port)
    assert start <= 700 * MIB < end


def test_snapshot_has_the_blocks_of_its_origin(driver, place, pieces):
    sh("lvcreate", "-q", "--snapshot", "--name", "copy", f"{place.vg}/vol")
    try:
        with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
            expected = data_of(port)
        with driver.open(place.pool, "copy", OpenMode.SOURCE) as port:
            assert data_of(port) == expected
    finally:
        sh("lvremove", "-q", "--yes", f"{place.vg}/copy")


def test_volume_with_an_origin_outside_of_the_pool_is_read_as_a_whole(place, caplog):
    driver = place.driver()
    sh("lvcreate", "-q", "--yes", "--name", "outside", "--size", "16M", place.vg)
    sh("dd", "if=/dev/urandom", f"of=/dev/{place.vg}/outside", "bs=1M", "count=16", "oflag=direct")
    try:
        sh("lvchange", "-q", "--activate", "n", "--permission", "r", f"{place.vg}/outside")
        thin = ("--thinpool", f"{place.vg}/thin", "--name", "inside", f"{place.vg}/outside")
        sh("lvcreate", "-q", "--yes", "--type", "thin", *thin)
        with driver.open(place.pool, "inside", OpenMode.SOURCE) as port:
            ((start, end),) = [(e.offset, e.end) for e in port.extents(0, port.size_bytes)]
            assert (start, end) == (0, 16 * MIB)
        assert "is read as a whole" in caplog.text
        assert "without another origin" in caplog.text
    finally:
        try_sh("lvremove", "-q", "--yes", f"{place.vg}/inside")
        sh("lvremove", "-q", "--yes", f"{place.vg}/outside")


def test_snapshot_of_the_metadata_that_somebody_holds_is_left_to_them(driver, place, pieces, caplog):
    pool = f"{place.vg.replace('-', '--')}-thin-tpool"
    sh("dmsetup", "message", pool, "0", "reserve_metadata_snap")
    try:
        with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
            assert data_of(port) == [(0, SIZE_BYTES)]
        assert "Somebody holds the metadata snapshot of the thin pool" in caplog.text
        assert held(place) != "-"
    finally:
        sh("dmsetup", "message", pool, "0", "release_metadata_snap")


def test_missing_tool_means_reading_everything(driver, place, pieces, monkeypatch, caplog):
    real = lvm_thin_map.run_command

    def run(command, **options):
        return real(
            [f"{command[0]}-is-gone" if command[0] == "thin_dump" else command[0], *command[1:]], **options
        )

    monkeypatch.setattr(lvm_thin_map, "run_command", run)
    with driver.open(place.pool, "vol", OpenMode.SOURCE) as port:
        assert data_of(port) == [(0, SIZE_BYTES)]
    assert "apt-get install thin-provisioning-tools" in caplog.text
    assert held(place) == "-"


def test_thick_volume_has_no_map(volume_groups):
    place = Place(volume_groups[0], is_thin=False)
    driver = place.driver()
    driver.create(place.pool, "thick", 8 * MIB, thin=False)
    with driver.open(place.pool, "thick", OpenMode.SOURCE) as port:
        assert len(list(port.extents(0, 8 * MIB))) == 1
    device = driver.lvm.volume("thick", "test").device
    with pytest.raises(NoMap):
        mapped_runs(device)
    driver.delete(place.pool, "thick")
