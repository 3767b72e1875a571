"""Two hosts on one machine: two workers of two names on one database, each with storage of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backends import services as inventory
from backends.drivers.base import Driver, DriverContext
from backends.drivers.options import build_options
from backends.drivers.registry import driver_class
from backends.drivers.types import MIB, OpenMode
from backends.models import Backend, Volume
from migrations_app.models import WorkerHost
from tests.acceptance.conftest import Worker, wait_until
from tests.moving import scattered

OTHER = "otherhost"
ADDRESS = "127.0.0.1"


def register_there(name: str, driver: str, folder: Path) -> Backend:
    """Return a backend of the other host; its worker reports on it."""
    folder.mkdir(exist_ok=True)
    return inventory.register_backend(f"{OTHER}@{name}", driver, {"path": str(folder)})


def start_other(start_worker, backend: Backend | None = None, **env: str) -> Worker:
    """Return the other host's worker, once it runs and has reported on *backend*."""
    worker = start_worker(
        **{"VOLMIG_HOST": OTHER, "VOLMIG_STORAGE_ADDRESS": ADDRESS, "VOLMIG_SILENCE_SECONDS": "10", **env}
    )
    wait_until(lambda: WorkerHost.objects.filter(host=OTHER, pid=worker.pid).exists())
    if backend is not None:
        wait_until(lambda: backend.pools.exists())
    return worker


def driver_there(backend: Backend) -> Driver:
    """Return the real driver of the other host's backend, as that host's worker would make it."""
    cls = driver_class(backend.driver)
    return cls(DriverContext(backend.address, OTHER, build_options(cls.options_class, backend.options)))


def names_there(backend: Backend) -> set[str]:
    """Return the names of everything that lies on the other host's backend."""
    with driver_there(backend) as driver:
        driver.check()
        return {v.name for pool in backend.pools.all() for v in driver.list_volumes(pool.name)}


def digest_there(volume: Volume) -> str:
    """Return the digest of a volume that lies on the other host."""
    volume.refresh_from_db()
    result = hashlib.sha256()
    with driver_there(volume.pool.backend) as driver:
        driver.check()
        with driver.open(volume.pool.name, volume.object_name, OpenMode.VERIFY) as port:
            buffer = memoryview(bytearray(MIB))
            for offset in range(0, port.size_bytes, MIB):
                part = buffer[: min(MIB, port.size_bytes - offset)]
                port.read_into(offset, part)
                result.update(part)
    return result.hexdigest()


def volume_there(backend: Backend, name: str, size_bytes: int = 20 * MIB) -> Volume:
    """Return a volume of the other host, as that host's administrator would have made it."""
    pool = backend.pools.get()
    with driver_there(backend) as driver:
        driver.check()
        driver.create(pool.name, name, size_bytes)
        with driver.open(pool.name, name, OpenMode.WRITE) as port:
            for offset, content in scattered(size_bytes):
                port.write(offset, memoryview(content))
            port.flush()
    return Volume.objects.create(name=name, size_bytes=size_bytes, pool=pool, object_name=name)
