"""
The iSCSI driver, on a real target in user space.

It makes no volumes, so the promises about made ones do not concern it; what it does is held here.
"""

import os
import time
from pathlib import Path

import pytest

from backends.drivers import iscsi_luns
from backends.drivers.base import DriverContext
from backends.drivers.conformance import run_promises
from backends.drivers.errors import ConnectionLost, NotFound, NotPermitted, NotReady, Unsupported
from backends.drivers.iscsi import IscsiDriver, IscsiOptions
from backends.drivers.ports import ExtentKind
from backends.drivers.types import MIB, OpenMode
from tests.iscsi_lab import IQN, SECRET, USER, iscsi_target
from tests.nbd import require_nbd


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    require_nbd()
    folder = tmp_path_factory.mktemp("iscsi")
    with iscsi_target(folder) as target:
        with (folder / "disk.raw").open("wb") as file:
            file.truncate(20 * MIB)
            file.seek(4 * MIB)
            file.write(b"content" * 1000)
        target.add_lun(3, folder / "disk.raw")
        yield target


def make_driver(portal, **changed):
    options = {"portal": portal, "iqn": IQN, "chap_user": USER, "chap_secret": SECRET, **changed}
    return IscsiDriver(DriverContext("h@array", "h", IscsiOptions(**options)))


@pytest.fixture
def driver(target):
    return make_driver(target.portal)


@pytest.mark.parametrize(
    "promise",
    ["check_can_be_repeated", "statistics_are_sane", "storage_id_is_stable", "location_info_is_json"],
)
def test_iscsi_driver_keeps(promise, target):
    (result,) = run_promises(lambda: make_driver(target.portal), "luns", only={promise})
    assert result.passed, result.error_text


def test_luns_are_listed_and_read(driver):
    (found,) = driver.list_volumes("luns")
    assert (found.name, found.size_bytes) == ("lun-3", 20 * MIB)
    assert driver.describe("luns", "lun-3") == found
    with driver.open("luns", "lun-3", OpenMode.SOURCE) as port:
        assert port.size_bytes == 20 * MIB
        buffer = bytearray(7000)
        port.read_into(4 * MIB, memoryview(buffer))
        assert bytes(buffer) == b"content" * 1000
        assert ExtentKind.HOLE in {extent.kind for extent in port.extents(0, port.size_bytes)}


def test_other_targets_of_the_portal_are_left_alone(target, tmp_path):
    """They ask for another secret, and stand before and behind the one that is wanted."""
    disk = tmp_path / "far.raw"
    disk.write_bytes(bytes(3 * MIB))
    target.add_lun(300, disk)
    others = (("2", "iqn.2026-01.test:aaa"), ("3", "iqn.2026-01.test:zzz"))
    try:
        for number, iqn in others:
            target.iscsi("new", "target", "--tid", number, "-T", iqn)
            target.iscsi("new", "account", "--user", f"user{number}", "--password", "another-secret-0")
            target.iscsi("bind", "account", "--tid", number, "--user", f"user{number}")
            target.iscsi("bind", "target", "--tid", number, "-I", "ALL")
        driver = make_driver(target.portal)
        driver.check()
        found = {volume.name: volume.size_bytes for volume in driver.list_volumes("luns")}
        # From 256 on the address has a mark.  Source: SAM-5, "Flat space addressing method".
        far = f"lun-{0x4000 | 300}"
        assert found == {"lun-3": 20 * MIB, far: 3 * MIB}
        with driver.open("luns", far, OpenMode.SOURCE) as port:
            assert port.size_bytes == 3 * MIB
    finally:
        for number, _ in others:
            target.iscsi("delete", "target", "--tid", number, "--force")
        target.iscsi("delete", "logicalunit", "--tid", "1", "--lun", "300")


def test_missing_library_is_named_with_its_package(target, tmp_path, monkeypatch):
    monkeypatch.setattr(iscsi_luns, "LIBRARY", "libiscsi.so.999")
    script = Path(iscsi_luns.__file__)
    copy = tmp_path / "luns.py"
    copy.write_text(script.read_text().replace("libiscsi.so.7", "libiscsi.so.999"))
    monkeypatch.setattr(iscsi_luns, "__file__", str(copy))
    with pytest.raises(NotReady) as missing:
        make_driver(target.portal).check()
    assert "The library 'libiscsi.so.999' is not on this host. On Debian: apt-get install" in str(
        missing.value
    )


def test_nothing_is_made_written_or_deleted(driver):
    with pytest.raises(Unsupported, match="cannot make LUNs"):
        driver.create("luns", "lun-7", MIB)
    with pytest.raises(Unsupported, match="cannot delete LUNs"):
        driver.delete("luns", "lun-3")
    with pytest.raises(Unsupported, match="sources only"):
        driver.open("luns", "lun-3", OpenMode.WRITE)
    driver.delete("luns", "lun-9")
    with pytest.raises(NotFound):
        driver.describe("luns", "lun-9")


def test_secret_is_in_no_process_list(driver):
    with driver.open("luns", "lun-3", OpenMode.SOURCE):
        seen = b""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    seen += file.read()
            except OSError:
                continue
    assert b"qemu-nbd" in seen
    assert SECRET.encode() not in seen


def test_wrong_secret_and_wrong_names_are_told_apart(target):
    wrong = make_driver(target.portal, chap_secret="wrong-secret-0123")
    with pytest.raises(NotPermitted, match="Authentication failure") as caught:
        wrong.describe("luns", "lun-3")
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(NotReady, match="has no target"):
        make_driver(target.portal, iqn="iqn.2026-01.test:other").check()
    started = time.monotonic()
    with pytest.raises(ConnectionLost):
        make_driver("127.0.0.1:1").check()
    assert time.monotonic() - started < 30
