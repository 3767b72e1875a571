"""What `make demo` sets up: directory backends, volumes that hold a real file system, an administrator."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model

from backends import services as inventory
from backends.drivers.types import MIB
from backends.models import Backend, Volume, VolumeType
from migrations_app.schedules import ensure_schedules

ADMIN = "admin"
#: Name -> fields of the backend.  The last two are there to be refused.
BACKENDS: dict[str, dict[str, object]] = {
    "ssd": {"availability_zone": "zone-1", "extra_capabilities": {"tier": "fast"}},
    "hdd": {"availability_zone": "zone-1", "extra_capabilities": {"tier": "slow"}, "reserved_percentage": 5},
    "archive": {"availability_zone": "zone-2", "extra_capabilities": {"tier": "slow"}},
    "old": {
        "availability_zone": "zone-1",
        "is_enabled": False,
        "disabled_reason": "to be switched off at the end of the year",
    },
}
#: Name -> (backend, size, megabytes of files, type).
VOLUMES: dict[str, tuple[str, int, int, str | None]] = {
    "files": ("ssd", 1024 * MIB, 300, None),
    "mail": ("ssd", 256 * MIB, 20, None),
    "database": ("hdd", 512 * MIB, 60, "fast-only"),
}
_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


def create_administrator() -> str | None:
    """Return the password of the new administrator; `None` when there is one already."""
    users = get_user_model().objects
    if users.filter(username=ADMIN).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    return password


def register_backends() -> list[Backend]:
    """Return the demo's backends, made now or by an earlier run."""
    host = settings.VOLMIG_HOST
    for name, fields in BACKENDS.items():
        path = settings.VOLMIG_STATE_DIR / "pools" / name
        path.mkdir(parents=True, exist_ok=True)
        if not Backend.objects.filter(host=host, name=name).exists():
            inventory.register_backend(f"{host}@{name}", "directory", {"path": str(path)}, **fields)
    ensure_schedules(host)
    inventory.refresh_host(host)
    return list(Backend.objects.filter(host=host, name__in=BACKENDS))


def create_volumes() -> list[Volume]:
    """Return the demo's volumes, each with a file system full of files, made now or by an earlier run."""
    VolumeType.objects.get_or_create(
        name="fast-only",
        defaults={"description": "Only on fast backends", "extra_specs": {"tier": "fast"}},
    )
    result = []
    for name, (backend, size_bytes, megabytes, type_name) in VOLUMES.items():
        volume = Volume.objects.filter(name=name).first()
        if volume is None:
            pool = inventory.find_pool(f"{settings.VOLMIG_HOST}@{backend}")
            volume_type = VolumeType.objects.get(name=type_name) if type_name else None
            volume = inventory.create_volume(name, size_bytes, pool, volume_type=volume_type)
        if not volume.migrations.exists() and file_system_errors(volume_path(volume)):
            make_file_system(volume_path(volume), name, megabytes)
        result.append(volume)
    return result


def volume_path(volume: Volume) -> Path:
    """Return the file that holds *volume* now."""
    volume = Volume.objects.select_related("pool__backend").get(pk=volume.pk)
    return Path(volume.pool.backend.options["path"]) / f"{volume.object_name}.raw"


def make_file_system(path: Path, label: str, megabytes: int) -> None:
    """Make an ext4 file system in *path* with that many megabytes of real files in it."""
    with tempfile.TemporaryDirectory(prefix="volmig-demo-") as directory:
        _write_files(Path(directory), megabytes * MIB)
        _run(["mkfs.ext4", "-q", "-F", "-L", label[:16], "-d", directory, str(path)])


def _write_files(directory: Path, total_bytes: int) -> None:
    """Fill *directory* with the sources of Python's library (they compress and differ) and with noise."""
    written = 0
    library = Path(sysconfig.get_paths()["stdlib"])
    for source in sorted(library.glob("*.py")):
        if written > total_bytes // 4:
            break
        shutil.copy(source, directory / source.name)
        written += source.stat().st_size
    number = 0
    while written < total_bytes:
        size = min(8 * MIB, total_bytes - written)
        (directory / f"noise-{number:03}.bin").write_bytes(secrets.token_bytes(size))
        written, number = written + size, number + 1


def file_system_errors(path: Path) -> str:
    """Return what `e2fsck -f` says against the file system in *path*; empty when it is sound."""
    done = subprocess.run(
        ["e2fsck", "-f", "-n", str(path)], capture_output=True, text=True, env=_ENVIRONMENT, check=False
    )
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip()


@dataclass(frozen=True, slots=True)
class Contents:
    """What a volume holds: digest of the whole, digest of each file, room that it takes."""

    digest: str
    files: dict[str, str]
    allocated_bytes: int


def contents(path: Path) -> Contents:
    """Return what lies in the file system in *path*, read by `debugfs` without mounting it."""
    with tempfile.TemporaryDirectory(prefix="volmig-demo-") as directory:
        _run(["debugfs", "-R", f"rdump / {directory}", str(path)])
        files = {
            str(f.relative_to(directory)): _digest(f)
            for f in sorted(Path(directory).rglob("*"))
            if f.is_file()
        }
    return Contents(_digest(path), files, path.stat().st_blocks * 512)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    except FileNotFoundError:
        raise DemoFailed(f"'{command[0]}' is missing. As root: apt-get install e2fsprogs") from None
    if done.returncode != 0:
        raise DemoFailed(f"'{' '.join(command)}' failed with status {done.returncode}: {done.stderr.strip()}")
