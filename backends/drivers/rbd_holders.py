"""
Which processes of this host hold which image: notes on the local disk that outlive a process that was killed.

Ceph counts a killed client as a watcher for half a minute more, and tells of a living one nothing but an address.
With the notes the next worker sees at once that a watcher is dead, and which process a living one is.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.drivers.errors import DriverError
from backends.drivers.private_directory import PrivateDirectory, private_directories, sweep
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.types import Usage

_PREFIX = "volmig-rbd-"
_NOTE = "holder"
#: Ceph has forgotten a dead client long before.
_OLD_SECONDS = 3600.0
#: A cluster that does not answer keeps a connection from being closed; whoever gives the volume back need not wait.
_CLOSE_SECONDS = 2.0
# Dead clients are forgotten a moment after they were fenced.
_FORGET_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of this host, and the addresses of its clients in the cluster."""

    pid: int
    addresses: frozenset[str]
    is_alive: bool


class ImageHold:
    """
    A watch on an image, by a connection of its own: a port may outlive the driver object.

    Attributes:
        users: Who else watched the image when it was opened, except for processes that are known to be dead.
    """

    def __init__(self, cluster: Cluster, pool: str, name: str) -> None:
        self._cluster = cluster
        self._addresses: list[str] = []
        self._resources = ExitStack()
        self._resources.callback(cluster.close)
        sweep(_PREFIX, _OLD_SECONDS)
        self._directory = PrivateDirectory(_PREFIX)
        with ExitStack() as until_it_works:
            until_it_works.callback(self.close)
            self._image = self._resources.enter_context(cluster.image(pool, name, "open", is_read_only=False))
            # Before the image is closed.
            self._resources.callback(self._fence_server)
            own = cluster.handle.get_instance_id()
            self._write([w["addr"] for w in self._image.watchers_list() if w["id"] == own])
            self.users = users_of(cluster, self._image, is_fencing=True)
            until_it_works.pop_all()

    def note_server(self) -> None:
        """
        Count the server that has just opened the image as part of this process.

        QEMU watches what it has opened, also when it only reads, so that one new watcher is the server.  When there are
        more, a guest among them perhaps, none is noted: what is noted may be fenced.
        """
        watchers = [watcher["addr"] for watcher in self._image.watchers_list()]
        if len(watchers) == 2:
            self._write(watchers)

    def _write(self, addresses: list[str]) -> None:
        self._addresses = addresses
        note = self._directory.path / _NOTE
        text = json.dumps({"pid": os.getpid(), "fsid": self._cluster.fsid, "addresses": addresses})
        beside = note.with_suffix(".new")
        beside.write_text(text)
        beside.replace(note)

    def _fence_server(self) -> None:
        """The server has ended by now; one that had to be killed has left its watch behind."""
        fence_watchers(self._cluster, self._image, self._addresses)

    def close(self) -> None:
        """
        Let the image go.  Safe to repeat: yes.

        Where the cluster does not answer it is only left, as if this process had been killed: the note stays, and the
        next one fences what is left.
        """

        def close() -> None:
            with suppress(DriverError, self._cluster.rbd.Error):
                self._resources.close()
                self._directory.remove()

        thread = threading.Thread(target=close, name="let the image go", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)
        self._directory.leave()


def holders(fsid: str) -> Iterator[Holder]:
    """Yield what the processes of this host have noted about the cluster."""
    for path, is_alive in private_directories(_PREFIX):
        with suppress(OSError, ValueError, KeyError):
            said = json.loads(Path(path, _NOTE).read_text())
            if said["fsid"] == fsid:
                yield Holder(said["pid"], frozenset(said["addresses"]), is_alive)


def users_of(cluster: Cluster, image: Any, *, is_fencing: bool = False) -> list[Usage]:
    """
    Return who watches the image, except for *cluster* itself and for processes of this host that are dead.

    Args:
        is_fencing: The dead are fenced, so that the cluster forgets them, and lets nothing through that was under way.
    """
    by_address = {address: holder for holder in holders(cluster.fsid) for address in holder.addresses}
    if is_fencing:
        dead = {address for address, holder in by_address.items() if not holder.is_alive}
        fence_watchers(cluster, image, dead)
    own = cluster.handle.get_instance_id()
    users = []
    for watcher in image.watchers_list():
        holder = by_address.get(watcher["addr"])
        client = f"client {watcher['id']} at {watcher['addr']}"
        if watcher["id"] == own:
            continue
        if holder is None:
            users.append(Usage(client, "watches it"))
        elif holder.is_alive:
            users.append(Usage(f"process {holder.pid} (volmig), {client},", "watches it"))
        elif is_fencing:
            users.append(Usage(f"{client}, which is dead,", "is not yet forgotten by the cluster"))
    return users


def fence_watchers(cluster: Cluster, image: Any, addresses: Collection[str] | None = None) -> None:
    """Fence the watchers of the image, or those at *addresses*, and return when the cluster has forgotten them."""
    own = cluster.handle.get_instance_id()

    def left() -> list[str]:
        return [
            watcher["addr"]
            for watcher in image.watchers_list()
            if watcher["id"] != own and (addresses is None or watcher["addr"] in addresses)
        ]

    fenced = [cluster.fence(address) for address in left()]
    ends_at = time.monotonic() + _FORGET_SECONDS
    while fenced and all(fenced) and left() and time.monotonic() < ends_at:
        time.sleep(0.02)
