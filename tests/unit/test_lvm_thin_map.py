"""The map of a thin volume is exact, or not believed.  On real pools: `tests/vm_guest/test_lvm_thin.py`."""

from __future__ import annotations

import os
import random

import pytest

from backends.drivers import lvm_thin_map
from backends.drivers.commands import Finished
from backends.drivers.lvm_thin_map import NoMap, mapped_runs, parse_dump
from backends.drivers.lvm_thin_port import ThinVolumePort, _cut
from backends.drivers.ports import ExtentKind
from backends.drivers.types import KIB, OpenMode

BLOCK = 64 * KIB
DUMP = """<superblock uuid="" time="1" transaction="3" version="2" data_block_size="128" nr_data_blocks="400">
  <device dev_id="7" mapped_blocks="8" transaction="1" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="9" length="2" time="0"/>
    <single_mapping origin_block="2" data_block="30" time="1"/>
    <single_mapping origin_block="5" data_block="31" time="1"/>
    <range_mapping origin_begin="100" data_begin="40" length="4" time="0"/>
  </device>
</superblock>
"""


def parse(text):
    return parse_dump(text.splitlines(), 7, BLOCK)


def test_mappings_become_runs_that_are_joined():
    assert parse(DUMP) == [(0, 3 * BLOCK), (5 * BLOCK, BLOCK), (100 * BLOCK, 4 * BLOCK)]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('mapped_blocks="8"', 'mapped_blocks="9"', "`thin_dump` printed 8 of 9 blocks"),
        ('dev_id="7"', 'dev_id="8"', "`thin_dump` printed another device"),
        ('data_block_size="128"', 'data_block_size="256"', "do not agree about the size of a block"),
        ('origin_begin="100"', 'origin_begin="3"', "out of order"),
        ("</superblock>\n", "", "`thin_dump` printed 8 of 8 blocks"),
        ("<single_mapping", "<new_mapping", "something unknown: <new_mapping"),
        ("</device>", "metadata contains errors", "something unknown: metadata contains errors"),
    ],
)
def test_what_is_not_complete_is_not_believed(old, new, reason):
    with pytest.raises(NoMap, match=reason):
        parse(DUMP.replace(old, new))


def test_a_map_of_too_many_parts_is_given_up(monkeypatch):
    monkeypatch.setattr(lvm_thin_map, "_MOST_RUNS", 2)
    with pytest.raises(NoMap, match="more than 2 parts"):
        parse(DUMP)


# -- the kernel's answers ------------------------------------------------------------------------------------


class Kernel:
    """Answers for `dmsetup` and `thin_dump`; `said` is what was asked of the pool."""

    def __init__(self):
        self.thin = "0 8192 thin 253:4 7"
        self.held: int | None = None
        self.mode = "rw"
        self.dump = DUMP
        self.dump_status = 0
        self.said: list[str] = []

    def run(self, command, **options):
        match command:
            case ["dmsetup", "table", "thin-volume"]:
                out = self.thin
            case ["dmsetup", "table", "pool"]:
                out = "0 25600 thin-pool 253:2 253:3 128 0 0"
            case ["dmsetup", "status", "pool"]:
                held = "-" if self.held is None else self.held
                out = (
                    f"0 25600 thin-pool 1 12/512 8/400 {held} {self.mode} discard_passdown error_if_no_space"
                )
            case ["dmsetup", "message", "pool", "0", what]:
                self.said.append(what)
                self.held = 33 if what == "reserve_metadata_snap" else None
                out = ""
            case ["thin_dump", "--metadata-snap", "--dev-id", "7", "-o", path, "/dev/mapper/meta"]:
                self.said.append("dump")
                with open(path, "w") as file:
                    file.write(self.dump)
                return Finished(self.dump_status, "", "bad checksum")
        return Finished(0, out + "\n", "")


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    fake = Kernel()
    monkeypatch.setattr(lvm_thin_map, "run_command", fake.run)
    monkeypatch.setattr(lvm_thin_map, "_LOCKS", str(tmp_path))
    names = {(253, 5): "thin-volume", (253, 4): "pool", (253, 2): "meta"}
    monkeypatch.setattr(lvm_thin_map, "_name_of", lambda *device: names[device])
    return fake


def test_the_snapshot_is_held_for_the_dump_only(kernel):
    for _ in range(2):
        assert mapped_runs((253, 5)) == parse(DUMP)
    assert kernel.said == ["reserve_metadata_snap", "dump", "release_metadata_snap"] * 2


def test_a_failed_dump_releases_the_snapshot(kernel):
    kernel.dump_status = 1
    with pytest.raises(NoMap, match="`thin_dump` failed: bad checksum"):
        mapped_runs((253, 5))
    assert kernel.held is None


def test_the_snapshot_of_somebody_else_is_left_alone(kernel):
    kernel.held = 33
    with pytest.raises(NoMap, match="Somebody holds the metadata snapshot of the thin pool 'pool'"):
        mapped_runs((253, 5))
    assert kernel.said == []


def test_the_snapshot_that_a_killed_process_left_is_released(kernel, tmp_path):
    kernel.held = 33
    (tmp_path / "volmig-thin-pool").write_text("33\n")
    assert mapped_runs((253, 5)) == parse(DUMP)
    assert kernel.said == ["release_metadata_snap", "reserve_metadata_snap", "dump", "release_metadata_snap"]


def test_two_migrations_do_not_ask_at_once(kernel, monkeypatch):
    monkeypatch.setattr(lvm_thin_map, "_LOCK_SECONDS", 0.1)
    with lvm_thin_map._lock_of("pool"), pytest.raises(NoMap, match="another migration is reading it"):
        mapped_runs((253, 5))
    assert kernel.said == []


@pytest.mark.parametrize(
    "table", ["0 8192 thin 253:4 7 253:9", "0 8192 linear 253:4 0", "0 8192 snapshot-origin 253:9", ""]
)
def test_a_volume_with_another_origin_or_of_another_kind_has_no_map(table, kernel):
    kernel.thin = table
    with pytest.raises(NoMap, match="the device is not a thin volume of one pool and without another origin"):
        mapped_runs((253, 5))
    assert kernel.said == []


def test_a_pool_that_is_read_only_has_no_map(kernel):
    kernel.mode = "ro"
    with pytest.raises(NoMap, match="the pool 'pool' is ro"):
        mapped_runs((253, 5))


# -- the port ------------------------------------------------------------------------------------------------


def test_extents_follow_the_map_at_any_place():
    chance = random.Random(5)
    runs = [(10, 20), (50, 1), (60, 40), (200, 100)]
    has = [any(start <= at < start + length for start, length in runs) for at in range(300)]
    for _ in range(300):
        offset = chance.randrange(300)
        end = chance.randrange(offset, 301)
        seen = []
        for extent in _cut(runs, offset, end):
            assert extent.offset == offset + len(seen)
            assert extent.length > 0
            seen += [extent.kind is ExtentKind.DATA] * extent.length
        assert seen == has[offset:end]


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(os.urandom(4 * BLOCK))
    return str(path)


def test_only_a_source_has_a_map_and_it_is_read_once(volume):
    asked = []

    def read_map():
        asked.append(1)
        return [(BLOCK, BLOCK)]

    for mode, expected in ((OpenMode.VERIFY, 1), (OpenMode.WRITE, 1), (OpenMode.SOURCE, 3)):
        with ThinVolumePort(volume, mode, size_bytes=4 * BLOCK, read_map=read_map) as port:
            for _ in range(2):
                assert len(list(port.extents(0, 4 * BLOCK))) == expected
    assert len(asked) == 1


def test_without_a_map_everything_is_data_and_the_log_says_why(volume, caplog):
    def read_map():
        raise NoMap("the pool is ro")

    with ThinVolumePort(volume, OpenMode.SOURCE, size_bytes=4 * BLOCK, read_map=read_map) as port:
        (extent,) = port.extents(0, 4 * BLOCK)
    assert (extent.offset, extent.length, extent.kind) == (0, 4 * BLOCK, ExtentKind.DATA)
    assert f"{volume} is read as a whole, with what was never written: the pool is ro" in caplog.text
