"""Fixtures that are used everywhere: real directories as backends, real files as volumes."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Backend, Volume
from migrations_app import services, worker
from migrations_app.models import VolumeMigration

HOST = "testhost"


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what the fault matrix did, from all workers of the run."""
    total: dict[str, Counter[str]] = {}
    lost = 0
    # Reports of a quiet teardown, where the fixture has counted, stand under the empty name.
    for report in terminalreporter.stats.get("", []):
        for name, value in report.user_properties if report.when == "teardown" else ():
            if name == "faults":
                vendor, counted = value
                total.setdefault(vendor, Counter()).update(counted)
    for report in terminalreporter.stats.get("failed", []):
        lost += "test_faults.py" in report.nodeid
    for vendor, counted in total.items():
        terminalreporter.write_line(
            f"fault matrix on {vendor}: {counted['lives']} migrations, hit at {counted['boundaries']} boundaries, "
            f"{counted['deaths']} deaths; {counted['lives'] - lost} survived, {lost} lost"
        )


@pytest.fixture
def make_backend(tmp_path: Path) -> Callable[..., Backend]:
    """Return a function that registers a directory backend: `make_backend("ssd")` is `testhost@ssd#main`."""

    def make(name: str, path: Path | None = None, **fields: object) -> Backend:
        directory = path or tmp_path / name
        directory.mkdir(exist_ok=True)
        return inventory.register_backend(f"{HOST}@{name}", "directory", {"path": str(directory)}, **fields)

    return make


@pytest.fixture
def two_backends(make_backend: Callable[..., Backend]) -> tuple[Backend, Backend]:
    return make_backend("a"), make_backend("b")


def object_path(volume: Volume) -> Path:
    """Return the file that holds *volume* on its directory backend."""
    volume.refresh_from_db()
    return Path(volume.pool.backend.options["path"]) / f"{volume.object_name}.raw"


def fill(path: Path, *, seed: int = 1, runs: int = 6) -> None:
    """Write scattered random data into the sparse file *path*, some of it zeros, unaligned at the ends."""
    size = path.stat().st_size
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for index in range(runs):
            length = min(size, chance.choice([1, 4096, 70_000, MIB, 3 * MIB + 17]))
            file.seek(chance.randrange(0, max(1, size - length)))
            file.write(bytes(length) if index % 4 == 3 else chance.randbytes(length))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def make_volume(db: None) -> Callable[..., Volume]:
    """Return a function that makes a volume with scattered data on a backend's only pool."""

    def make(
        backend: Backend,
        name: str = "vol-1",
        size_bytes: int = 20 * MIB,
        *,
        filled: bool = True,
        **fields: object,
    ) -> Volume:
        volume = inventory.create_volume(name, size_bytes, backend.pools.get(), **fields)
        if filled:
            fill(object_path(volume))
        return volume

    return make


@pytest.fixture
def actor() -> services.Actor:
    return services.Actor("tester")


@pytest.fixture
def admin(db: None) -> object:
    return get_user_model().objects.create_superuser("admin", password="a-long-password-1")


@pytest.fixture
def run_to_end() -> Callable[[VolumeMigration], VolumeMigration]:
    """Return a function that works on a migration in this process until nothing is left to do."""

    def run(migration: VolumeMigration, rounds: int = 20) -> VolumeMigration:
        for _ in range(rounds):
            VolumeMigration.objects.filter(pk=migration.pk).update(retry_at=None)
            worker.advance(migration.pk)
            migration.refresh_from_db()
            if not migration.is_working:
                return migration
        raise AssertionError(f"still {migration.state}: {migration.error_text}")

    return run
