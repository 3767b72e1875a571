"""The qcow2 driver keeps every promise, and refuses what is only a part of an image."""

import os
import subprocess

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, Peer, run_promises
from backends.drivers.errors import CorruptData, InUse, NotFound, Unsupported
from backends.drivers.pool_directory import MARKER
from backends.drivers.qcow2 import Qcow2Driver, Qcow2Options
from backends.drivers.types import MIB, OpenMode
from tests.nbd import require_nbd

SKIPPED = {
    name: "the driver has no native moves"
    for name in (
        "native_move_keeps_the_source_until_finished",
        "native_move_does_not_replace",
        "cancelled_move_leaves_nothing",
    )
} | {
    "what_was_flushed_can_be_read_beside_the_writer": "the driver does not let a volume be read while it is written",
}


@pytest.fixture(autouse=True, scope="module")
def tools():
    require_nbd()


def driver_maker(path):
    return lambda: Qcow2Driver(DriverContext("h@images", "h", Qcow2Options(path=str(path))))


@pytest.fixture
def driver(tmp_path):
    driver = driver_maker(tmp_path)()
    driver.check()
    return driver


def qemu_img(*arguments: object) -> str:
    return subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=30
    ).stdout


@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_qcow2_driver_keeps(promise, tmp_path):
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    (result,) = run_promises(driver_maker(one), "main", peer=Peer(driver_maker(two), "main"), only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == SKIPPED.get(promise)
    for directory in (one, two):
        assert set(os.listdir(directory)) <= {MARKER}


def test_qemu_reads_what_was_written_and_finds_nothing_wrong(driver, tmp_path):
    driver.create("main", "vol", 3 * MIB + 5)
    with driver.open("main", "vol", OpenMode.WRITE) as port:
        port.write(3 * MIB, memoryview(b"tail!"))
        port.flush()
    assert "No errors" in qemu_img("check", tmp_path / "vol.qcow2")
    qemu_img("convert", "-O", "raw", tmp_path / "vol.qcow2", tmp_path / "vol.img")
    raw = (tmp_path / "vol.img").read_bytes()
    assert (len(raw), raw[3 * MIB : 3 * MIB + 5]) == (3 * MIB + 512, b"tail!")


def test_exact_size_outlives_a_rewrite_of_the_header_by_qemu(driver, tmp_path):
    driver.create("main", "vol", MIB + 1)
    qemu_img("amend", "-f", "qcow2", "-o", "lazy_refcounts=on", tmp_path / "vol.qcow2")
    assert driver.describe("main", "vol").size_bytes == MIB + 1
    qemu_img("resize", "-q", "-f", "qcow2", tmp_path / "vol.qcow2", 2 * MIB)
    assert driver.describe("main", "vol").size_bytes == 2 * MIB


def test_image_made_elsewhere_is_described_with_the_size_of_its_disk(driver, tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "guest.qcow2", "1G")
    (tmp_path / "notes.qcow2").write_text("no image")
    (found,) = driver.list_volumes("main")
    assert (found.name, found.size_bytes) == ("guest", 1 << 30)
    assert found.allocated_bytes < MIB
    with pytest.raises(CorruptData, match="no qcow2 file"):
        driver.describe("main", "notes")


def test_layers_are_counted_as_snapshots_and_not_opened(driver, tmp_path):
    driver.create("main", "base", MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", tmp_path / "layer.qcow2")
    qemu_img("snapshot", "-c", "daily", tmp_path / "base.qcow2")
    assert driver.snapshots("main", "base") == ["daily", "(layer on it) layer"]
    assert driver.snapshots("main", "layer") == ["(backing file) base.qcow2"]
    with pytest.raises(Unsupported, match="only a layer on 'base.qcow2'"):
        driver.open("main", "layer", OpenMode.SOURCE)
    with pytest.raises(InUse, match="layer lies on it"):
        driver.delete("main", "base")
    driver.describe("main", "base")


def test_image_of_a_running_guest_is_in_use(driver, tmp_path):
    driver.create("main", "vol", MIB)
    path = tmp_path / "vol.qcow2"
    guest = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        guest.stdin.write("write 0 512\n")
        guest.stdin.flush()
        assert "wrote" in guest.stdout.readline() + guest.stdout.readline()
        assert any("qemu-io" in str(usage) for usage in driver.usage("main", "vol"))
        for mode in (OpenMode.SOURCE, OpenMode.WRITE):
            with pytest.raises(InUse, match="qemu-io"):
                driver.open("main", "vol", mode)
        with pytest.raises(InUse):
            driver.delete("main", "vol")
    finally:
        guest.communicate("quit\n", timeout=10)
    driver.delete("main", "vol")
    with pytest.raises(NotFound):
        driver.describe("main", "vol")
