"""Who copies goes last: what the kernel says of the threads and processes of a worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86_64"
)

# Begins at the default, whatever the tests themselves run at; then says what a thread and a child were given.
_SCRIPT = """
import ctypes, subprocess, sys, threading
from migrations_app.copying.io_priority import set_io_priority
call = ctypes.CDLL(None).syscall
call(251, 1, 0, 2 << 13 | 4)
set_io_priority(sys.argv[1])
seen = []
thread = threading.Thread(target=lambda: seen.append(call(252, 1, 0)))
thread.start(); thread.join()
child = "import ctypes; print(ctypes.CDLL(None).syscall(252, 1, 0))"
seen.append(int(subprocess.check_output([sys.executable, "-c", child])))
print([(value >> 13, value & 7) for value in seen])
"""


@pytest.mark.parametrize(
    ("name", "priority"),
    [("normal", (2, 4)), ("low", (2, 7)), ("idle", (3, 0))],
    ids=lambda value: str(value),
)
def test_threads_and_children_of_a_worker_have_its_priority(name, priority):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, name], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == str([priority, priority])


def test_an_unknown_priority_is_refused_with_those_there_are(monkeypatch):
    from volmig_site import config

    monkeypatch.setenv("VOLMIG_IO_PRIORITY", "lowest")
    with pytest.raises(ValueError, match="'lowest': write one of normal, low, idle"):
        config.read("VOLMIG_IO_PRIORITY")
