"""
The copy of one image inside a cluster, as a process of its own: `python -m backends.drivers.rbd_copy ARGUMENTS`.

It outlives the worker that started it, and whoever looks next finds it by its note (`rbd_note.py`).  It ends by itself,
and removes what it made, when the note is removed, when another one lies in its place, or when nobody has asked how far
it is for a while.  The copy lies under another name until it is complete, and gets its own in one operation that
replaces nothing.

Two connections: one for the note, where everything has an end, and one for the images, which waits for as long as the
cluster needs.  librbd cannot be interrupted; a copy is broken off by fencing the second connection, after which nothing
of it reaches the cluster any more.
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

from backends.drivers.errors import DriverError, InUse, NotFound
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.rbd_holders import fence_watchers, users_of
from backends.drivers.rbd_note import Note, NoteLost

#: Key of a finished copy's metadata: whose copy it is.
MOVED_FROM = "volmig.moved_from"
#: A copy that is not yet complete.
MOVING = "volmig-moving."
#: A copy that nobody has asked about for so long ends.  A worker asks every second, after a restart, too.
INTEREST_SECONDS = 600.0
_BEAT_SECONDS = 0.5
_FIRST_MEASURE_SECONDS = 0.1
_MEASURE_SECONDS = 2.0
_START_SECONDS = 20.0
_REMOVE_SECONDS = 10.0
# A copy that was broken off removes what it made; then the process ends in any case.
_CLEAN_UP_SECONDS = 20.0
_MODULE = "backends.drivers.rbd_copy"
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
    def unfinished(self) -> str:
        return MOVING + self.new_name


def start(cluster: Cluster, copy: Copy) -> None:
    """Return when a process works on *copy*, or has ended; the note says which."""
    note = Note(cluster, copy.destination_pool, copy.new_name)
    token = note.make()
    # A session of its own: the copy goes on when the worker's slice is over, or the worker dies.
    process = subprocess.Popen(
        [sys.executable, "-m", _MODULE, json.dumps(asdict(copy)), token, str(INTEREST_SECONDS)],
        cwd=_CODE_FOLDER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Reaped when it ends, so that it never stays behind as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    ends_at = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends_at and process.poll() is None and not note.has_begun():
        time.sleep(0.05)


def remove_unfinished(cluster: Cluster, copy: Copy, *, is_fencing: bool) -> None:
    """
    Return when there is no unfinished copy.

    Args:
        is_fencing: Whoever still works on it is fenced.

    Raises:
        InUse: The cluster does not let this client fence another, and has not yet forgotten a dead one.
    """
    ends_at = time.monotonic() + _REMOVE_SECONDS
    while True:
        try:
            if is_fencing:
                with cluster.image(copy.destination_pool, copy.unfinished, "cancel_move") as made:
                    fence_watchers(cluster, made)
            with cluster.errors(f"Removing '{copy.unfinished}'", "cancel_move", copy.name):
                cluster.rbd.RBD().remove(cluster.pool(copy.destination_pool), copy.unfinished)
        except NotFound:
            return
        except InUse:
            # Somebody else may be removing it.
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.2)


class _Worker:
    def __init__(self, copy: Copy, token: str, interest_seconds: float) -> None:
        self.copy = copy
        self.interest_seconds = interest_seconds
        self.images = Cluster(copy.conf, copy.user, "", is_patient=True)
        self.io = self.images.pool(copy.destination_pool)
        self.control = Cluster(copy.conf, copy.user, "")
        self.note = Note(self.control, copy.destination_pool, copy.new_name, token)
        self.client = ""
        self.is_done = threading.Event()
        self.is_broken_off = False

    def run(self) -> None:
        """Copy to the end, or leave the reason in the note."""
        self.note.lock()
        self.note.write("pid", os.getpid())
        threading.Thread(target=self._beat, daemon=True).start()
        error = ""
        try:
            self._copy()
        except NoteLost:
            self.is_broken_off = True
        except DriverError as caught:
            error = caught.message
        if error or self.is_broken_off:
            with suppress(DriverError):
                remove_unfinished(self.control, self.copy, is_fencing=False)
        self.is_done.set()
        self._say_how_it_ended(error)

    def _say_how_it_ended(self, error: str) -> None:
        with suppress(NoteLost, self.control.rados.Error):
            if self.is_broken_off:
                # Nobody wants it; a note that is not this one stays.
                self.note.require()
                self.note.remove()
            elif error:
                self.note.write("error", error)
            self.note.unlock()

    def _copy(self) -> None:
        copy, rbd = self.copy, self.images.rbd
        own = self.images.handle.get_instance_id()
        # Opened for writing, it is watched: nobody of this project opens or deletes it meanwhile.
        with self.images.image(copy.pool, copy.name, "copy", is_read_only=False) as image:
            if users := users_of(self.images, image, is_fencing=True):
                raise InUse(f"'{copy.name}' is in use: {'; '.join(map(str, users))}.")
            if image.id() != copy.identity:
                raise NotFound(f"'{copy.name}' was replaced by another image.")
            self.client = next(w["addr"] for w in image.watchers_list() if w["id"] == own)
            self.note.write("client", self.client)
            size, full = image.size(), _allocated(image)
            threading.Thread(target=self._measure, args=(size, full), daemon=True).start()
            image.deep_copy(self.io, copy.unfinished)
        # The source is let go before the copy can be found.
        with self.images.image(copy.destination_pool, copy.unfinished, "copy", is_read_only=False) as made:
            made.metadata_set(MOVED_FROM, copy.identity)
        # Once more: after a cancel nothing may appear under the name.
        self.note.require()
        with self.images.errors(f"Naming the copy '{copy.new_name}'", "copy", copy.new_name):
            rbd.RBD().rename(self.io, copy.unfinished, copy.new_name)

    def _beat(self) -> None:
        """Keep the lock, until the copy is done or nobody wants it any more."""
        interest, wanted_at = "", time.monotonic()
        while not self.is_done.wait(_BEAT_SECONDS):
            try:
                self.note.lock()
                found = self.note.interest()
            except NoteLost:
                break
            except self.control.rados.Error:
                # The cluster does not answer, and nobody else gets an answer.
                found = interest
            if found != interest:
                interest, wanted_at = found, time.monotonic()
            elif time.monotonic() - wanted_at > self.interest_seconds:
                break
        if not self.is_done.is_set():
            self._break_off()

    def _break_off(self) -> None:
        self.is_broken_off = True
        # What librbd does now fails soon, and what was made is removed; see `run`.
        if self.client and self.control.fence(self.client):
            self.is_done.wait(_CLEAN_UP_SECONDS)
            time.sleep(_BEAT_SECONDS)
        os._exit(3)

    def _measure(self, size: int, full: int) -> None:
        # A short copy is seen to move, too.
        pause = _FIRST_MEASURE_SECONDS
        while not self.is_done.wait(pause):
            pause = min(2 * pause, _MEASURE_SECONDS)
            with (
                suppress(DriverError, NoteLost, self.control.rados.Error),
                self.control.image(self.copy.destination_pool, self.copy.unfinished, "copy") as made,
            ):
                self.note.write("done", min(size, size * _allocated(made) // max(full, 1)))


def _allocated(image: Any) -> int:
    lengths: list[int] = []

    def count(_offset: int, length: int, exists: bool) -> None:
        lengths.append(length if exists else 0)

    image.diff_iterate(0, image.size(), None, count, whole_object=True)
    return sum(lengths)


if __name__ == "__main__":
    with suppress(NoteLost):
        _Worker(Copy(**json.loads(sys.argv[1])), sys.argv[2], float(sys.argv[3])).run()
    # Threads of this module may still be inside librbd.
    os._exit(0)
