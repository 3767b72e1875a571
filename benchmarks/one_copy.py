"""
One copy by volmig's engine, as a worker makes it: `one_copy.py SOURCE DESTINATION [--verify]`.

Each is a path, or the URI of an NBD server.  The destination must be new and read as zeros.  Django is loaded, so
that the memory is that of a worker.  Prints, as JSON, the seconds from opening both to the end of the last flush (a
worker is running already when a migration comes) and the CPU seconds of that time.
"""

# ruff: noqa: E402 - the path must be right before anything else is imported.
from __future__ import annotations

import os
import sys

# The project in place of this folder, whose `copy.py` would be taken for the standard library's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


import json
import time
from collections.abc import Sequence
from contextlib import closing

import django

from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.nbd_port import NbdPort, load_libnbd
from backends.drivers.ports import Port
from backends.drivers.types import OpenMode
from migrations_app.copying import engine
from migrations_app.copying.read_behind import ReadBehind


def open_port(where: str, mode: OpenMode) -> Port:
    if "://" in where:
        return NbdPort(where, mode, reads_zero_when_new=True)
    return LocalFilePort(where, mode, reads_zero_when_new=True)


def main(source_at: str, destination_at: str, is_verified: bool) -> None:
    written: list[str] = []
    read: list[str] = []
    guards = engine.Guards()
    with open_port(source_at, OpenMode.SOURCE) as source:
        with (
            open_port(destination_at, OpenMode.WRITE) as destination,
            closing(ReadBehind(lambda: open_port(destination_at, OpenMode.VERIFY), 0, guards)) as behind,
        ):
            guards.progress.begin(engine.data_bytes(source))

            def keep(segments: Sequence[engine.SegmentResult]) -> None:
                written.extend(s.digest for s in segments)
                if is_verified:
                    behind.offer(len(written))

            engine.copy(
                source,
                destination,
                first_segment=0,
                destination_reads_zero=True,
                guards=guards,
                checkpoint=keep,
            )
        read.extend(s.digest for s in behind.take())
        if is_verified:
            with open_port(destination_at, OpenMode.VERIFY) as port:
                engine.read_back(
                    port,
                    first_segment=len(read),
                    guards=guards,
                    checkpoint=lambda segments: read.extend(s.digest for s in segments),
                )
            if read != written:
                raise SystemExit("the copy differs")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "volmig_site.settings")
    django.setup()
    if any("://" in argument for argument in sys.argv[1:]):
        # A worker loads it once.
        load_libnbd()
    started, cpu = time.monotonic(), time.process_time()
    main(sys.argv[1], sys.argv[2], "--verify" in sys.argv)
    print(json.dumps({"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}))
