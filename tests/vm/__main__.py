"""`python -m tests.vm [pytest arguments]`: run the tests of `tests/vm_guest`, in two machines beside each other."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from backends.drivers.types import MIB
from tests.vm.initramfs import NoMachine
from tests.vm.machine import Lost, run_in_guest
from tests.vm.storage import serve

# More than twice what a machine takes beside other work.
_LIMIT_SECONDS = 2400
_DISKS = [512 * MIB] * 2 + [256 * MIB]
#: Names in VOLMIG_REQUIRE that mean: these tests must run.
_REQUIRED = {"vm", "lvm", "nfs"}
#: Part of the names of the files of tests that need the storage of `tests/vm/storage.py`.
_NETWORKED = "networked"
#: What each machine runs.  Emulation is slow, and uses one core a machine; both take about the same time.
PARTS = (
    ("lvm_conformance", "lvm_faults", "lvm_thin", "networked_storage", "lvm_between_hosts"),
    (
        "lvm_matrix",
        "lvm_unreachable",
        "lvm_sick_disks",
        "killed_worker",
        "nfs",
        "nfs_faults",
        "nfs_lost_server",
    ),
)
# Each takes a second to load, and none is used.
_PLUGINS = ("pytest_django.plugin", "pytest_timeout")


def main() -> int:
    """Return the status of pytest in the guest; 0 where there can be no guest and none is required."""
    arguments = sys.argv[1:]
    try:
        if os.geteuid() != 0:
            raise NoMachine("`id -u` is not 0, and the root file system can be shared by root only")
        if arguments:
            return _run(arguments, sys.stdout.buffer)
        with ThreadPoolExecutor(len(PARTS)) as machines:
            return max(machines.map(_run_part, PARTS))
    except NoMachine as error:
        is_required = bool(_REQUIRED & set(os.environ.get("VOLMIG_REQUIRE", "").split(",")))
        print(f"{'Failed' if is_required else 'Skipped'}: no virtual machine here: {error}")
        return 1 if is_required else 0
    except Lost as error:
        print(f"Failed: {error}")
        return 1


def _run_part(names: Sequence[str]) -> int:
    """Print what the tests printed when they are done, so that two machines do not talk at once."""
    files = [f"tests/vm_guest/test_{name}.py" for name in names]
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        try:
            return _run(files, output)
        finally:
            output.seek(0)
            said = output.read().decode(errors="replace")
            print(f"== {', '.join(names)}: {time.monotonic() - started:.0f} seconds\n{said}", flush=True)


def _run(arguments: Sequence[str], output: BinaryIO) -> int:
    # The tables are made from the models: running the schema migrations takes ten seconds here.
    pytest = [sys.executable, "-u", "-m", "pytest", "-q", "--no-migrations", "--durations=8", "--timeout=600"]
    for plugin in ("no:cacheprovider", *_PLUGINS):
        pytest += ["-p", plugin]
    settings = {
        "VOLMIG_REQUIRE": os.environ.get("VOLMIG_REQUIRE", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    beside = serve() if any(_NETWORKED in argument for argument in arguments) else None
    return run_in_guest(
        shlex.join([*pytest, *arguments]),
        environment=settings,
        disks=_DISKS,
        limit_seconds=_LIMIT_SECONDS,
        output=output,
        beside=beside,
    )


if __name__ == "__main__":
    sys.exit(main())
