"""Real migrations between backends of any driver, compared from end to end through the drivers themselves."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable

from backends import services as inventory
from backends.drivers.types import MIB, OpenMode
from backends.models import Backend, Volume
from migrations_app import services
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State

HOST = "testhost"
ACTOR = services.Actor("tester")
#: No multiple of anything, larger than one segment of a checkpoint is not needed here.
SIZE_BYTES = 24 * MIB + 4097


def register(name: str, driver: str, options: dict[str, str]) -> Backend:
    return inventory.register_backend(f"{HOST}@{name}", driver, options)


def scattered(size_bytes: int, seed: int = 1) -> list[tuple[int, bytes]]:
    """Return pieces of random data with holes and zeros between them, up to the last byte."""
    chance = random.Random(seed)
    places = [0, size_bytes // 3 + 17, size_bytes // 2, size_bytes - 70_001]
    return [(at, chance.randbytes(70_001)) for at in places] + [(size_bytes // 4, bytes(MIB))]


def new_volume(backend: Backend, name: str, size_bytes: int = SIZE_BYTES, pool: str | None = None) -> Volume:
    """Return a volume with scattered data, zero everywhere else."""
    place = backend.pools.get(name=pool) if pool else backend.pools.get()
    volume = inventory.create_volume(name, size_bytes, place)
    with inventory.make_driver(backend) as driver:
        driver.check()
        with driver.open(place.name, volume.object_name, OpenMode.WRITE) as port:
            if not port.reads_zero_when_new:
                port.zero(0, size_bytes)
            for offset, content in scattered(size_bytes):
                port.write(offset, memoryview(content))
            port.flush()
    return volume


def write_random(volume: Volume, lengths: dict[int, int]) -> None:
    """Write so many random bytes at each offset; whole pieces of 4 MiB."""
    pool = volume.pool
    with inventory.make_driver(pool.backend) as driver:
        driver.check()
        with driver.open(pool.name, volume.object_name, OpenMode.WRITE) as port:
            for offset, length in lengths.items():
                for at in range(offset, offset + length, 4 * MIB):
                    port.write(at, memoryview(os.urandom(4 * MIB)))
            port.flush()


def digest_of(volume: Volume) -> str:
    """Return the digest of what the volume's record points at, read past all caches."""
    volume.refresh_from_db()
    digest = hashlib.sha256()
    with inventory.make_driver(volume.pool.backend) as driver:
        driver.check()
        assert driver.describe(volume.pool.name, volume.object_name).size_bytes == volume.size_bytes
        with driver.open(volume.pool.name, volume.object_name, OpenMode.VERIFY) as port:
            buffer = memoryview(bytearray(MIB))
            for offset in range(0, port.size_bytes, MIB):
                part = buffer[: min(MIB, port.size_bytes - offset)]
                port.read_into(offset, part)
                digest.update(part)
    return digest.hexdigest()


def names_on(backend: Backend) -> set[str]:
    """Return the names of everything that lies on the backend."""
    with inventory.make_driver(backend) as driver:
        driver.check()
        return {v.name for pool in backend.pools.all() for v in driver.list_volumes(pool.name)}


def move(
    run_to_end: Callable[[VolumeMigration], VolumeMigration],
    volume: Volume,
    destination: str,
    **options: object,
) -> VolumeMigration:
    """Move the volume, check that every byte arrived and that nothing else is left anywhere; return the migration."""
    before, source = digest_of(volume), volume.pool.backend
    chosen = Options(delete_source=True, **options)
    migration = run_to_end(services.request_migration(volume, destination, ACTOR, chosen))
    assert (migration.state, migration.error_text) == (State.DONE, "")
    assert digest_of(volume) == before
    assert volume.pool.backend.address == destination.split("#")[0]
    assert volume.object_name in names_on(volume.pool.backend)
    if source.pk != volume.pool.backend.pk:
        assert names_on(source) == set()
    assert names_on(volume.pool.backend) == {volume.object_name}
    return migration
