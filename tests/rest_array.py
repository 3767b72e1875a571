"""A small array with a REST interface, for the example of docs/writing-a-driver.md: files, nbdkit and http.server."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from backends.drivers import nbd_server
from backends.drivers.types import GIB, MIB

TOKEN = "token-0123456789"


class Refused(Exception):
    """Answered with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class _Volume:
    path: Path
    identity: str
    copied_from: str = ""
    hosts: list[str] = field(default_factory=list)


@dataclass
class _Export:
    volume: _Volume
    is_exclusive: bool
    server: nbd_server.NbdServer
    resources: ExitStack


@dataclass
class _Task:
    thread: threading.Thread | None = None
    state: str = "running"
    done_bytes: int = 0
    error: str = ""
    is_cancelled: bool = False


class Array:
    """The array's state; `pause_seconds` after each MiB of a move."""

    def __init__(self, folder: Path, pools: tuple[str, ...]) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.volumes: dict[tuple[str, str], _Volume] = {}
        self.pools = pools
        self.exports: dict[str, _Export] = {}
        self.tasks: dict[str, _Task] = {}
        self.numbers = itertools.count(1)
        self.pause_seconds = 0.02

    def _new_path(self) -> Path:
        return self.folder / f"object-{next(self.numbers)}"

    def _find(self, pool: str, name: str) -> _Volume:
        if (pool, name) not in self.volumes:
            raise Refused(404, f"no volume '{name}' in pool '{pool}'")
        return self.volumes[pool, name]

    def _require_free(self, volume: _Volume) -> None:
        if any(export.volume is volume for export in self._running()):
            raise Refused(423, "the volume is exported")

    def _running(self) -> list[_Export]:
        """An export ends when its client is gone."""
        for number, export in list(self.exports.items()):
            if export.server.process.poll() is not None:
                self.exports.pop(number).resources.close()
        return list(self.exports.values())

    # -- the interface ----------------------------------------------------------------------------------------

    def get_array(self) -> dict[str, Any]:
        return {"serial": "array-1", "pools": [self._pool(pool) for pool in self.pools]}

    def _pool(self, pool: str) -> dict[str, Any]:
        sizes = [self._shown(*key)["size_bytes"] for key in self.volumes if key[0] == pool]
        room = {"total_bytes": 10 * GIB, "free_bytes": 5 * GIB, "provisioned_bytes": sum(sizes)}
        return {"name": pool, "volume_count": len(sizes), **room}

    def _shown(self, pool: str, name: str) -> dict[str, Any]:
        volume = self._find(pool, name)
        info = volume.path.stat()
        return {
            "name": name,
            "size_bytes": info.st_size,
            "allocated_bytes": info.st_blocks * 512,
            "identity": volume.identity,
            "copied_from": volume.copied_from,
            "hosts": volume.hosts,
        }

    def get_volumes(self, pool: str, name: str = "") -> Any:
        if name:
            return self._shown(pool, name)
        return [self._shown(*key) for key in self.volumes if key[0] == pool]

    def put_volumes(self, pool: str, name: str, *, size_bytes: int) -> dict[str, Any]:
        if (pool, name) in self.volumes:
            raise Refused(409, f"'{name}' exists")
        if size_bytes > 6 * GIB:
            raise Refused(507, "the pool is full")
        path = self._new_path()
        path.touch()
        os.truncate(path, size_bytes)
        self.volumes[pool, name] = _Volume(path, path.name)
        return self._shown(pool, name)

    def patch_volumes(self, pool: str, old: str, *, name: str = "", size_bytes: int = 0) -> dict[str, Any]:
        volume = self._find(pool, old)
        if name and (pool, name) in self.volumes:
            raise Refused(409, f"'{name}' exists")
        if name:
            self.volumes[pool, name] = self.volumes.pop((pool, old))
        if size_bytes:
            self._require_free(volume)
            os.truncate(volume.path, size_bytes)
        return self._shown(pool, name or old)

    def delete_volumes(self, pool: str, name: str) -> dict[str, Any]:
        volume = self._find(pool, name)
        self._require_free(volume)
        volume.path.unlink()
        del self.volumes[pool, name]
        return {}

    def post_exports(self, pool: str, name: str, *, is_read_only: bool, is_exclusive: bool) -> dict[str, Any]:
        volume = self._find(pool, name)
        if is_exclusive and any(e.volume is volume and e.is_exclusive for e in self._running()):
            raise Refused(423, f"'{name}' is exported to another client")
        with ExitStack() as resources:
            server = resources.enter_context(
                # Of a thread of its own: the server ends with the thread that started it.
                _in_a_thread(str(volume.path), is_read_only=is_read_only)
            )
            number = str(next(self.numbers))
            self.exports[number] = _Export(volume, is_exclusive, server, resources.pop_all())
        return {"id": number, "uri": server.uri}

    def delete_exports(self, number: str) -> dict[str, Any]:
        if number in self.exports:
            self.exports.pop(number).resources.close()
        return {}

    def get_tasks(self, number: str) -> dict[str, Any]:
        if number not in self.tasks:
            raise Refused(404, f"no task '{number}'")
        task = self.tasks[number]
        return {"state": task.state, "done_bytes": task.done_bytes, "error": task.error}

    def put_tasks(
        self, number: str, *, source_pool: str, source: str, pool: str, name: str
    ) -> dict[str, Any]:
        volume = self._find(source_pool, source)
        self._require_free(volume)
        task = self.tasks[number] = _Task()
        task.thread = threading.Thread(target=self._copy, args=(task, volume, pool, name))
        task.thread.start()
        return self.get_tasks(number)

    def delete_tasks(self, number: str) -> dict[str, Any]:
        if number not in self.tasks:
            raise Refused(404, f"no task '{number}'")
        self.tasks[number].is_cancelled = True
        thread = self.tasks.pop(number).thread
        # The task takes the lock at its end.
        self.lock.release()
        try:
            if thread is not None:
                thread.join()
        finally:
            self.lock.acquire()
        return {}

    def _copy(self, task: _Task, source: _Volume, pool: str, name: str) -> None:
        path = self._new_path()
        with source.path.open("rb") as reader, path.open("wb") as writer:
            while (piece := reader.read(MIB)) and not task.is_cancelled and not task.error:
                writer.write(piece)
                task.done_bytes += len(piece)
                time.sleep(self.pause_seconds)
        with self.lock:
            if task.is_cancelled or task.error or (pool, name) in self.volumes:
                path.unlink()
                task.state = "failed"
                return
            self.volumes[pool, name] = _Volume(path, path.name, copied_from=source.identity)
            task.state = "finished"


@contextmanager
def _in_a_thread(path: str, *, is_read_only: bool) -> Iterator[nbd_server.NbdServer]:
    begun, over, servers = threading.Event(), threading.Event(), []

    def serve() -> None:
        with nbd_server.nbdkit("--filter=exitlast", "file", path, is_read_only=is_read_only) as server:
            servers.append(server)
            begun.set()
            over.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    begun.wait(20)
    try:
        yield servers[0]
    finally:
        over.set()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    array: Array

    def _answer(self) -> None:
        kind, *arguments = [urllib.parse.unquote(part) for part in self.path.strip("/").split("/")]
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "the token is wrong")
            with self.array.lock:
                method = getattr(self.array, f"{self.command.lower()}_{kind}")
                status, answer = 200, json.dumps(method(*arguments, **body))
        except Refused as error:
            status, answer = error.status, str(error)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def rest_array(folder: Path, pools: tuple[str, ...] = ("gold", "silver")) -> Iterator[tuple[str, Array]]:
    """Yield the address of a running array, and the array."""
    array = Array(folder, pools)
    handler = type("Handler", (_Handler,), {"array": array})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", array
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for number in list(array.exports):
            array.delete_exports(number)
