"""
The note about a copy inside a cluster: an object in the destination's pool that everybody finds by the copy's name.

The process that copies holds a lock on it that runs out, and writes down how far it is.  Who removes the note ends the
process; who asks shows interest.  Every note has a token of its own, and nothing is written to another one: a process
that was given up does not disturb the one that was started after it, nor make a note again that was removed.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

from backends.drivers.rbd_cluster import Cluster

_PREFIX = "volmig.move."
_TEXT = "A copy by volmig; remove this to end it. {}\n"
_TOKEN_BYTES = 8
_LOCK = "alive"
_LOCK_SECONDS = 20
# Somebody may be looking just now.
_BUSY_SECONDS = 5.0
# librados.h: take the lock again if it is mine already.
_MAY_RENEW = 1
# Source: Ceph, `cmpext`: an error of this number or more says where the content differs.
_DIFFERENT = 4095


class NoteLost(Exception):
    """The note was removed, or another one lies in its place."""


@dataclass(frozen=True)
class Said:
    """
    What the note says: how many bytes of the source are done, and why it ended.

    `interest` changes whenever somebody looks.
    """

    is_alive: bool
    done_bytes: int
    error: str
    interest: str


class Note:
    """The note about the copy that is to be called *new_name*; with a *token*, that one note alone."""

    def __init__(self, cluster: Cluster, pool: str, new_name: str, token: str = "") -> None:
        self._cluster = cluster
        self._rados = cluster.rados
        self._io = cluster.pool(pool)
        self._name = _PREFIX + new_name
        self._token = token
        self._cookie = f"pid {os.getpid()}"

    # -- for who wants the copy ---------------------------------------------------------------------------------

    def make(self) -> str:
        """Return the token of a new note, in the place of any other."""
        self.remove()
        self._token = secrets.token_hex(_TOKEN_BYTES)
        self._io.write_full(self._name, _TEXT.format(self._token).encode())
        return self._token

    def look(self) -> Said | None:
        """Return what the note says, `None` when there is none."""
        try:
            # The lock is an attribute, too, and no text.
            found = {key: value.decode(errors="replace") for key, value in self._io.get_xattrs(self._name)}
        except self._rados.ObjectNotFound:
            return None
        is_alive = not self._can_lock()
        text = self._text()
        if not text:
            # Removed meanwhile; a lock makes an empty object.
            self.remove()
            return None
        self._token = text.split()[-1]
        with suppress(NoteLost):
            self.write("interest", secrets.token_hex(4))
        return Said(
            is_alive=is_alive,
            done_bytes=int(found.get("done", 0)),
            error=found.get("error", ""),
            interest=found.get("interest", ""),
        )

    def has_begun(self) -> bool:
        """Tell whether a process works on it, or has; without the short lock of `look`, which it may run into."""
        with suppress(self._rados.Error):
            return bool(self._io.get_xattr(self._name, "pid"))
        return False

    def end(self) -> str:
        """
        Remove the note; return the address of what copies, empty when it has not begun and cannot begin any more.

        Between the two nobody can write to it: a process that has not told its address yet hears that it is not wanted.
        """
        try:
            self._io.stat(self._name)
        except self._rados.ObjectNotFound:
            return ""
        self._io.write_full(self._name, b"")
        try:
            client = self._io.get_xattr(self._name, "client").decode(errors="replace")
        except self._rados.NoData:
            client = ""
        self.remove()
        return client

    def remove(self) -> None:
        with suppress(self._rados.ObjectNotFound):
            self._io.remove_object(self._name)

    def _can_lock(self) -> bool:
        try:
            self._io.lock_exclusive(self._name, _LOCK, "looking", duration=2)
        except (self._rados.ObjectBusy, self._rados.ObjectExists):
            return False
        with suppress(self._rados.Error):
            self._io.unlock(self._name, _LOCK, "looking")
        return True

    def _text(self) -> str:
        try:
            return self._io.read(self._name).decode(errors="replace")
        except self._rados.ObjectNotFound:
            return ""

    # -- for the process that copies ----------------------------------------------------------------------------

    def lock(self) -> None:
        """
        Take the lock, or renew it.

        Raises:
            NoteLost: Somebody else has it, or the note is not there any more.
        """
        ends_at = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._io.lock_exclusive(
                    self._name, _LOCK, self._cookie, duration=_LOCK_SECONDS, flags=_MAY_RENEW
                )
                break
            except (self._rados.ObjectBusy, self._rados.ObjectExists) as error:
                if time.monotonic() > ends_at:
                    raise NoteLost("Another process has the lock.") from error
                time.sleep(0.1)
        if not self._text():
            # A lock makes an empty object.
            self.remove()
        self.require()

    def unlock(self) -> None:
        with suppress(self._rados.Error):
            self._io.unlock(self._name, _LOCK, self._cookie)

    def require(self) -> None:
        """Raise `NoteLost` when it is not this note."""
        if self._text() != _TEXT.format(self._token):
            raise NoteLost("The note was removed.")

    def interest(self) -> str:
        """Return what changes whenever somebody looks."""
        with suppress(self._rados.Error):
            return self._io.get_xattr(self._name, "interest").decode(errors="replace")
        return ""

    def write(self, key: str, value: object) -> None:
        """Write one thing down.  Raises `NoteLost`; nothing is made then."""
        try:
            with self._rados.WriteOpCtx() as operation:
                operation.cmpext(_TEXT.format(self._token).encode(), 0)
                operation.set_xattr(key, str(value).encode())
                self._io.operate_write_op(operation, self._name)
        except self._rados.Error as error:
            if abs(error.errno or 0) < _DIFFERENT:
                raise
            raise NoteLost("The note was removed.") from error
