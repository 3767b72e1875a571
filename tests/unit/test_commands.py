"""Outside programs end in bounded time, and what they say becomes an error that tells what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.commands import run_command
from backends.drivers.errors import (
    AlreadyExists,
    BadOptions,
    CorruptData,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
    Permanent,
    TimedOut,
)
from backends.drivers.lvm import LvmDriver, LvmOptions
from backends.drivers.lvm_commands import Lvm
from backends.drivers.options import build_options


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a shell script called *name* first on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def test_missing_program_is_named_with_its_package():
    with pytest.raises(NotReady, match="apt-get install no-such-package"):
        run_command(["no-such-program"], timeout_seconds=5, package="no-such-package")


def test_program_that_hangs_and_ignores_signals_is_given_up(program, monkeypatch):
    monkeypatch.setattr("backends.drivers.commands._GRACE_SECONDS", 0.3)
    program("hangs", "trap '' TERM INT\nsleep 60 & wait\nsleep 60")
    started = time.monotonic()
    with pytest.raises(TimedOut, match="`hangs now` has not ended within 0 seconds"):
        run_command(["hangs", "now", "secret"], timeout_seconds=0.2, package="x")
    assert time.monotonic() - started < 5


def test_program_speaks_english_and_cannot_ask(program):
    program("asks", 'echo "$LC_ALL"; read answer || echo nobody >&2; exit 3')
    finished = run_command(["asks"], timeout_seconds=5, package="x")
    assert (finished.status, finished.stdout, finished.said) == (3, "C\n", "nobody")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('Logical Volume "v" already exists in volume group "vg"', AlreadyExists),
        ('Volume group "vg" not found', NotReady),
        ('Failed to find logical volume "vg/v"', NotFound),
        ('Existing logical volume "v" not found in volume group "vg"', NotFound),
        ('Volume group "vg" has insufficient free space (402 extents): 3000 required.', NoSpace),
        ("Error writing device /dev/sdx at 5632 length 1536. Failed to write VG vg.", CorruptData),
        ("Error reading device /dev/sdx at 0 length 512.", CorruptData),
        ("Cannot create new thin volume, free space in thin pool vg/thin reached threshold.", NoSpace),
        ("Logical volume vg/v in use.", InUse),
        ("/dev/mapper/control: open failed: No such device", NotReady),
        ("/run/lock/lvm/V_vg:aux: open failed: Permission denied", NotPermitted),
        ('Names including "_tdata" are reserved. Please choose a different LV name.', Permanent),
    ],
)
def test_what_lvm_says_is_understood(said, kind, program):
    program(
        "lvchange",
        f"echo '  WARNING: This metadata update is NOT backed up.' >&2; echo '  {said}' >&2; exit 5",
    )
    with pytest.raises(kind) as caught:
        Lvm("vg", "h@b").change("create", "v", "lvchange")
    assert type(caught.value) is kind
    assert said in caught.value.message
    assert "WARNING" not in caught.value.message
    assert (caught.value.backend, caught.value.operation, caught.value.volume) == ("h@b", "create", "v")


def test_report_that_is_none_is_an_error_and_no_crash(program):
    program("lvm", "echo hello")
    with pytest.raises(Permanent, match="printed something that is no report: hello"):
        LvmDriver(DriverContext("h@b", "h", LvmOptions(vg="vg"))).check()


@pytest.mark.parametrize(
    "options", [{"vg": "-rf"}, {"vg": "a/b"}, {"vg": "vg", "thin_pool": "a b"}, {"vg": "vg", "wipe": "x"}]
)
def test_names_that_could_be_flags_or_paths_are_refused(options):
    with pytest.raises(BadOptions):
        build_options(LvmOptions, options)


def test_groups_of_two_hosts_or_of_one_are_told_apart():
    here = {"driver": "lvm", "storage_id": "a", "host": "h"}
    assert "device to device" in LvmDriver.plan_move(here, {**here, "storage_id": "b"}).reason
    assert "same pool" in LvmDriver.plan_move(here, here).reason
    assert "two hosts" in LvmDriver.plan_move(here, {**here, "storage_id": "b", "host": "i"}).reason
