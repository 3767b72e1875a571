"""What is missing skips a test and says why; on a machine whose VOLMIG_REQUIRE names it, it fails the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ceph_lab import ceph_cluster
from tests.iscsi_lab import iscsi_target
from tests.loopfs import mounted
from tests.nbd import require_nbd
from tests.vm import __main__ as vm_main
from tests.vm_guest.conftest import require_lvm
from tests.vm_guest.nfs import Server


def enter(context):
    with context:
        pass


NEEDS = {
    "loop": lambda folder: enter(mounted("ext4", folder)),
    "nbd": lambda folder: require_nbd(),
    "iscsi": lambda folder: enter(iscsi_target(folder)),
    "rbd": lambda folder: enter(ceph_cluster(folder, ["volumes"])),
    "lvm": lambda folder: require_lvm(),
    "nfs": lambda folder: Server(folder).start(),
}


@pytest.fixture
def no_tools(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("others", ["", "chromium,"])
def test_missing_tool_fails_where_it_is_required(others, name, no_tools, monkeypatch):
    monkeypatch.setenv("VOLMIG_REQUIRE", f"{others}{name}")
    with pytest.raises(pytest.fail.Exception, match=f"VOLMIG_REQUIRE names {name}, but `"):
        NEEDS[name](no_tools)


@pytest.mark.parametrize("name", NEEDS)
def test_missing_tool_skips_elsewhere(name, no_tools, monkeypatch):
    monkeypatch.setenv("VOLMIG_REQUIRE", ",".join({*NEEDS, "chromium"} - {name}))
    with pytest.raises(pytest.skip.Exception, match="`"):
        NEEDS[name](no_tools)


@pytest.fixture
def guest(monkeypatch):
    """Return a function that sets what running a command in the guest raises."""

    def fail(error):
        def run_in_guest(*args, **kwargs):
            raise error

        monkeypatch.setattr(vm_main, "run_in_guest", run_in_guest)
        monkeypatch.setattr(vm_main.os, "geteuid", lambda: 0)
        monkeypatch.setattr(vm_main.sys, "argv", ["tests.vm"])

    return fail


@pytest.mark.parametrize(("required", "status"), [("", 0), ("rbd", 0), ("lvm", 1), ("rbd,nfs", 1)])
def test_missing_machine_skips_or_fails(required, status, guest, monkeypatch, capsys):
    guest(vm_main.NoMachine("`qemu-system-x86_64` is not on this machine"))
    monkeypatch.setenv("VOLMIG_REQUIRE", required)
    assert vm_main.main() == status
    said = capsys.readouterr().out
    assert (
        f"{'Failed' if status else 'Skipped'}: no virtual machine here: `qemu-system-x86_64` is not" in said
    )


def test_machine_that_is_lost_in_the_middle_of_the_tests_fails(guest, monkeypatch, capsys):
    guest(vm_main.Lost("the machine has not ended within 2 seconds: "))
    monkeypatch.setenv("VOLMIG_REQUIRE", "")
    assert vm_main.main() == 1
    assert "Failed: the machine has not ended within 2 seconds" in capsys.readouterr().out


def test_every_file_of_the_guest_is_run_by_one_machine():
    there = sorted(path.name for path in Path("tests/vm_guest").glob("test_*.py"))
    assert sorted(f"test_{name}.py" for part in vm_main.PARTS for name in part) == there
