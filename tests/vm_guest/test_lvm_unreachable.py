"""Volume groups that cannot be used any more, and devices that stop answering: told in bounded time, nothing left."""

from __future__ import annotations

import time

import pytest

from backends import services as inventory
from backends.drivers import commands, lvm_commands
from backends.drivers.errors import TimedOut
from backends.drivers.types import MIB
from migrations_app import services
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.vm_guest.conftest import Place
from tests.vm_guest.shell import sh, try_sh
from tests.vm_guest.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

SIZE_BYTES = 8 * MIB


def hide_tools(disk, monkeypatch):
    monkeypatch.setattr(commands, "_SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")


def rename_group(disk, monkeypatch):
    sh("vgrename", "-q", "vg-faulty", "vg-elsewhere")


def export_group(disk, monkeypatch):
    sh("vgexport", "-q", "vg-faulty")


def make_read_only(disk, monkeypatch):
    sh("blockdev", "--setro", disk.path)


def break_disk(disk, monkeypatch):
    disk.fail_behind(0)


def restore(disk, monkeypatch):
    monkeypatch.undo()
    sh("blockdev", "--setrw", disk.path)
    disk.fail_behind(disk.sectors * 512)
    for command in (["vgrename", "-q", "vg-elsewhere", "vg-faulty"], ["vgimport", "-q", "vg-faulty"]):
        try_sh(*command)


@pytest.mark.parametrize(
    ("happens", "text"),
    [
        (hide_tools, "The tool 'lvm' is not on this host. On Debian: apt-get install lvm2"),
        (rename_group, 'Volume group "vg-faulty" not found'),
        (export_group, "The volume group 'vg-faulty' is exported. Run `vgimport vg-faulty`."),
        (make_read_only, "Error writing device /dev/mapper/faulty"),
        (break_disk, 'Volume group "vg-faulty" not found'),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unusable_group_is_told_and_nothing_is_left(
    happens, text, faulty_disk, random_volume, run_to_end, monkeypatch
):
    volume = random_volume(SIZE_BYTES)
    before = moving.digest_of(volume)
    there = moving.register("faulty", "lvm", {"vg": "vg-faulty"})
    migration = services.request_migration(volume, there.address, moving.ACTOR, Options())
    happens(faulty_disk, monkeypatch)
    started = time.monotonic()
    migration = run_to_end(migration)
    assert time.monotonic() - started < 60
    print(happens.__name__, migration.state, migration.error_code, migration.error_text)
    restore(faulty_disk, monkeypatch)
    assert migration.state == State.FAILED
    assert text in migration.error_text
    assert moving.names_on(there) == set()
    assert moving.digest_of(volume) == before


def test_disk_that_does_not_answer_ends_a_report_in_bounded_time(faulty_disk, monkeypatch):
    driver = Place("vg-faulty", is_thin=False).driver()
    driver.check()
    monkeypatch.setattr(lvm_commands, "_REPORT_SECONDS", 2.0)
    sh("dmsetup", "suspend", "--nolockfs", faulty_disk.name)
    try:
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"`lvm fullreport` has not ended within 2 seconds"):
            driver.check()
        assert time.monotonic() - started < 15
    finally:
        sh("dmsetup", "resume", faulty_disk.name)
    monkeypatch.undo()
    driver.check()


@pytest.mark.parametrize("kind", ["thick", "thin"])
def test_device_that_does_not_answer_is_told_and_the_copy_goes_on_when_it_does(
    kind, random_volume, volume_groups, tmp_path
):
    volume = random_volume(24 * MIB)
    before = moving.digest_of(volume)
    there = moving.register("there", "lvm", Place(volume_groups[0], kind == "thin").options)
    worker = Worker.slow(volume, there.address, tmp_path)
    (name,) = moving.names_on(there)
    device = f"/dev/{volume_groups[0]}/{name}"
    sh("dmsetup", "suspend", "--nolockfs", device)
    try:
        worker.wait_for_stall()
    finally:
        sh("dmsetup", "resume", device)
    worker.hurry()
    worker.end()
    assert (worker.migration.state, worker.migration.error_text) == (State.DONE, "")
    assert moving.digest_of(volume) == before
    inventory.delete_volume(volume)
    assert moving.names_on(there) == set()
