"""
The copy of one image inside a cluster, as a process of its own: `python -m backends.drivers.rbd_copy ARGUMENTS`.

It outlives the worker that started it, and whoever looks next finds it by a note: an object in the destination's pool,
locked for as long as the process is alive, with what it has done.  Who removes the note ends the process in a second.
The copy lies under another name until it is complete, and gets its own in one operation that replaces nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.drivers.errors import DriverError
from backends.drivers.rbd_cluster import Cluster

#: Key of a finished copy's metadata: whose copy it is.
MOVED_FROM = "volmig.moved_from"
#: A copy that is not yet complete.
MOVING = "volmig-moving."
_NOTE = "volmig.move."
_LOCK = "alive"
_LOCK_SECONDS = 20
_BEAT_SECONDS = 0.5
_MEASURE_SECONDS = 2.0
_START_SECONDS = 20.0
# librados.h: take the lock again if it is mine already; only if it is.
_MAY_RENEW, _MUST_RENEW = 1, 2
_CODE_FOLDER = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Copy:
    """What is copied where.  `identity` is that of the source image."""

    conf: str
    user: str
    pool: str
    name: str
    identity: str
    destination_pool: str
    new_name: str

    @property
    def note(self) -> str:
        return _NOTE + self.new_name

    @property
    def unfinished(self) -> str:
        return MOVING + self.new_name


@dataclass(frozen=True)
class Note:
    """What the note says: how many bytes of the source are done, and why it ended."""

    is_alive: bool
    pid: int
    done_bytes: int
    error: str


def look(cluster: Cluster, copy: Copy) -> Note | None:
    """Return the note of a copy that was started, None when there is none."""
    io, rados = cluster.pool(copy.destination_pool), cluster.rados
    try:
        # The lock is an attribute, too, and no text.
        said = {key: value.decode(errors="replace") for key, value in io.get_xattrs(copy.note)}
    except rados.ObjectNotFound:
        return None
    return Note(
        is_alive=not _can_lock(cluster, copy),
        pid=int(said.get("pid", 0)),
        done_bytes=int(said.get("done", 0)),
        error=said.get("error", ""),
    )


def _can_lock(cluster: Cluster, copy: Copy) -> bool:
    io, rados = cluster.pool(copy.destination_pool), cluster.rados
    try:
        io.lock_exclusive(copy.note, _LOCK, "looking", duration=2)
    except (rados.ObjectBusy, rados.ObjectExists):
        return False
    with suppress(rados.Error):
        io.unlock(copy.note, _LOCK, "looking")
    return True


def start(cluster: Cluster, copy: Copy) -> None:
    """Return when a process works on *copy*, or has ended; the note says which."""
    io = cluster.pool(copy.destination_pool)
    io.write_full(copy.note, b"A copy by volmig; remove this to end it.\n")
    io.set_xattr(copy.note, "pid", b"0")
    # A session of its own: the copy goes on when the worker's slice is over, or the worker dies.
    process = subprocess.Popen(
        [sys.executable, "-m", "backends.drivers.rbd_copy", json.dumps(asdict(copy))],
        cwd=_CODE_FOLDER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Reaped when it ends, so that it never stays behind as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    ends_at = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends_at and process.poll() is None:
        note = look(cluster, copy)
        if note is None or note.pid:
            return
        time.sleep(0.05)


def stop(cluster: Cluster, copy: Copy) -> None:
    """End the process that works on *copy*, if there is one."""
    io = cluster.pool(copy.destination_pool)
    with suppress(cluster.rados.ObjectNotFound):
        io.remove_object(copy.note)


class _Worker:
    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self.cluster = Cluster(copy.conf, copy.user, "")
        self.io = self.cluster.pool(copy.destination_pool)
        self.is_done = threading.Event()

    def run(self) -> None:
        """Copy to the end, or leave the reason in the note."""
        cookie = f"pid {os.getpid()}"
        self.io.lock_exclusive(self.copy.note, _LOCK, cookie, duration=_LOCK_SECONDS, flags=_MAY_RENEW)
        self._write("pid", os.getpid())
        threading.Thread(target=self._beat, args=(cookie,), daemon=True).start()
        try:
            self._copy()
        except DriverError as error:
            self._write("error", error.message)
        finally:
            self.is_done.set()
            with suppress(self.cluster.rados.Error):
                self.io.unlock(self.copy.note, _LOCK, cookie)

    def _copy(self) -> None:
        copy, rbd = self.copy, self.cluster.rbd
        own = self.cluster.handle.get_instance_id()
        # Opened for writing, it is watched: nobody of this project opens or deletes it meanwhile.
        with self.cluster.image(copy.pool, copy.name, "copy", is_read_only=False) as image:
            others = [watcher["addr"] for watcher in image.watchers_list() if watcher["id"] != own]
            if others:
                self._write("error", f"'{copy.name}' is watched by {', '.join(others)}.")
                return
            if image.id() != copy.identity:
                self._write("error", f"'{copy.name}' was replaced by another image.")
                return
            size, full = image.size(), _allocated(image)
            threading.Thread(target=self._measure, args=(size, full), daemon=True).start()
            image.deep_copy(self.io, copy.unfinished)
        # The source is let go before the copy can be found.
        with self.cluster.image(copy.destination_pool, copy.unfinished, "copy", is_read_only=False) as made:
            made.metadata_set(MOVED_FROM, copy.identity)
        with self.cluster.errors(f"Naming the copy '{copy.new_name}'", "copy", copy.new_name):
            # The note is asked for once more: after a cancel nothing may appear under the name.
            self.io.stat(copy.note)
            rbd.RBD().rename(self.io, copy.unfinished, copy.new_name)

    def _beat(self, cookie: str) -> None:
        while not self.is_done.wait(_BEAT_SECONDS):
            try:
                self.io.stat(self.copy.note)
                self.io.lock_exclusive(
                    self.copy.note, _LOCK, cookie, duration=_LOCK_SECONDS, flags=_MUST_RENEW
                )
            except self.cluster.rados.Error:
                # Cancelled, or taken for dead: nothing more may be written.  librbd cannot be interrupted.
                if not self.is_done.is_set():
                    os._exit(3)

    def _measure(self, size: int, full: int) -> None:
        while not self.is_done.wait(_MEASURE_SECONDS):
            with (
                suppress(DriverError),
                self.cluster.image(self.copy.destination_pool, self.copy.unfinished, "copy") as made,
            ):
                self._write("done", min(size, size * _allocated(made) // max(full, 1)))

    def _write(self, key: str, value: object) -> None:
        with suppress(self.cluster.rados.Error):
            self.io.set_xattr(self.copy.note, key, str(value).encode())


def _allocated(image: Any) -> int:
    lengths: list[int] = []

    def count(_offset: int, length: int, exists: bool) -> None:
        lengths.append(length if exists else 0)

    image.diff_iterate(0, image.size(), None, count, whole_object=True)
    return sum(lengths)


if __name__ == "__main__":
    _Worker(Copy(**json.loads(sys.argv[1]))).run()
    # Threads of this module may still be inside librbd.
    os._exit(0)
