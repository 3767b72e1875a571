"""`python -m tests.vm [pytest arguments]`: run the tests of `tests/vm_guest` in the machine."""

from __future__ import annotations

import os
import shlex
import sys

from backends.drivers.types import GIB
from tests.vm.initramfs import NoMachine
from tests.vm.machine import run_in_guest

_LIMIT_SECONDS = 900
#: Names in VOLMIG_REQUIRE that mean: these tests must run.
_REQUIRED = {"vm", "lvm", "nfs"}


def main() -> int:
    """Return the status of pytest in the guest; 0 where there can be no guest and none is required."""
    required = os.environ.get("VOLMIG_REQUIRE", "")
    arguments = sys.argv[1:] or ["tests/vm_guest"]
    pytest = [
        sys.executable,
        "-u",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-q",
        *arguments,
    ]
    command = f"VOLMIG_REQUIRE={shlex.quote(required)} PYTHONDONTWRITEBYTECODE=1 exec {shlex.join(pytest)}"
    try:
        if os.geteuid() != 0:
            raise NoMachine("`id -u` is not 0, and the root file system can be shared by root only")
        return run_in_guest(command, disks=[2 * GIB] * 3, limit_seconds=_LIMIT_SECONDS)
    except NoMachine as error:
        is_required = bool(_REQUIRED & set(required.split(",")))
        print(f"{'Failed' if is_required else 'Skipped'}: no virtual machine here: {error}")
        return 1 if is_required else 0


if __name__ == "__main__":
    sys.exit(main())
