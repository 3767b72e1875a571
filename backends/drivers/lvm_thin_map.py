"""
Which parts of a thin volume have blocks of its pool.  What has none reads as zeros and need not be read.

The kernel keeps a frozen copy of a pool's metadata for reading, one at a time; `thin_dump` reads it.  Every doubt
ends in `NoMap`, and the volume is then read as a whole.
Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst in Linux, thin_dump(8).
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.drivers.commands import run_command
from backends.drivers.errors import DriverError

Run = tuple[int, int]

_DMSETUP_SECONDS = 20.0
_DUMP_SECONDS = 120.0
# Another migration from the same pool needs the snapshot for as long as its dump takes.
_LOCK_SECONDS = 60.0
_SECTOR_BYTES = 512
#: A map of more parts than this is no help, and takes memory.
_MOST_RUNS = 1_000_000
_LOCKS = "/run/lock"
_HELD = "Somebody holds the metadata snapshot of the thin pool"

_THIN = re.compile(r"0 \d+ thin (\d+:\d+) (\d+)")
_POOL = re.compile(r"0 \d+ thin-pool (\d+):(\d+) \d+:\d+ (\d+) .*")
_POOL_STATUS = re.compile(r"0 \d+ thin-pool \d+ \d+/\d+ \d+/\d+ (-|\d+) (\S+) .*")
_ATTRIBUTE = re.compile(r'(\w+)="(\d+)"')


class NoMap(Exception):
    """It is not known which parts have blocks; the text is why."""


def mapped_runs(device: tuple[int, int]) -> list[Run]:
    """
    Return the (offset, length) of what has blocks of the pool, in bytes and in order, joined where they touch.

    Called when nobody can write to the volume, and after its device was flushed.

    Args:
        device: Major and minor number of the active thin volume.

    Raises:
        NoMap.
    """
    try:
        return _mapped_runs(device)
    except (DriverError, OSError) as error:
        raise NoMap(str(error)) from error


def _mapped_runs(device: tuple[int, int]) -> list[Run]:
    thin = _match(
        _THIN, _dmsetup("table", _name_of(*device)), "a thin volume of one pool and without another origin"
    )
    pool_name = _name_of(*map(int, thin[1].split(":")))
    pool = _match(_POOL, _dmsetup("table", pool_name), "a thin pool")
    metadata, block_bytes = (
        f"/dev/mapper/{_name_of(int(pool[1]), int(pool[2]))}",
        int(pool[3]) * _SECTOR_BYTES,
    )
    with tempfile.TemporaryDirectory(prefix="volmig-thin-") as folder:
        dump = Path(folder) / "dump"
        with _metadata_snapshot(pool_name):
            command = ["thin_dump", "--metadata-snap", "--dev-id", thin[2], "-o", str(dump), metadata]
            done = run_command(command, timeout_seconds=_DUMP_SECONDS, package="thin-provisioning-tools")
        if done.status:
            raise NoMap(f"`thin_dump` failed: {done.said}")
        with dump.open() as lines:
            return parse_dump(lines, int(thin[2]), block_bytes)


def parse_dump(lines: Iterable[str], device_id: int, block_bytes: int) -> list[Run]:
    """
    Return the runs of the one device in the output of `thin_dump`.

    Raises:
        NoMap: It is not complete, or not what was expected.
    """
    runs: list[Run] = []
    mapped = expected = ended = None
    for line in lines:
        element, fields = _element(line)
        if element == "superblock" and fields.get("data_block_size", 0) * _SECTOR_BYTES != block_bytes:
            raise NoMap("`thin_dump` and the kernel do not agree about the size of a block")
        elif element == "device":
            if expected is not None or fields.get("dev_id") != device_id:
                raise NoMap("`thin_dump` printed another device")
            mapped, expected = 0, fields["mapped_blocks"]
        elif element in ("single_mapping", "range_mapping"):
            if mapped is None:
                raise NoMap("`thin_dump` printed a mapping of no device")
            begin, length = fields.get("origin_block", fields.get("origin_begin")), fields.get("length", 1)
            if begin is None or length < 1 or (runs and begin * block_bytes < sum(runs[-1])):
                raise NoMap("`thin_dump` printed mappings out of order")
            mapped += length
            _append(runs, begin * block_bytes, length * block_bytes)
        elif element in ("/superblock", "superblock", "/device"):
            ended = element
        else:
            raise NoMap(f"`thin_dump` printed something unknown: {line.strip()[:80]}")
    if ended != "/superblock" or expected is None or mapped != expected:
        raise NoMap(f"`thin_dump` printed {mapped} of {expected} blocks")
    return runs


def _element(line: str) -> tuple[str, dict[str, int]]:
    text = line.strip()
    if not (text.startswith("<") and text.endswith(">")):
        raise NoMap(f"`thin_dump` printed something unknown: {text[:80]}")
    name = text.strip("<>").split(" ")[0]
    return name, {key: int(value) for key, value in _ATTRIBUTE.findall(text)}


def _append(runs: list[Run], offset: int, length: int) -> None:
    if runs and sum(runs[-1]) == offset:
        runs[-1] = (runs[-1][0], runs[-1][1] + length)
        return
    if len(runs) >= _MOST_RUNS:
        raise NoMap(f"the volume has more than {_MOST_RUNS} parts")
    runs.append((offset, length))


# -- the kernel ----------------------------------------------------------------------------------------------


@contextmanager
def _metadata_snapshot(pool: str) -> Iterator[None]:
    """Hold the pool's metadata snapshot.  One that a killed process of this project left is released first."""
    with _lock_of(pool) as marker:
        held = _held_root(pool)
        if held is not None:
            if os.pread(marker, 64, 0).decode(errors="replace") != f"{held}\n":
                raise NoMap(f"{_HELD} '{pool}'")
            _dmsetup("message", pool, "0", "release_metadata_snap")
        _dmsetup("message", pool, "0", "reserve_metadata_snap")
        try:
            os.pwrite(marker, f"{_held_root(pool)}\n".encode(), 0)
            yield
        finally:
            _dmsetup("message", pool, "0", "release_metadata_snap")
            os.ftruncate(marker, 0)


@contextmanager
def _lock_of(pool: str) -> Iterator[int]:
    """Yield a descriptor of the file that says which snapshot is this project's; one process at a time has it."""
    fd = os.open(f"{_LOCKS}/volmig-thin-{pool}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        ends_at = time.monotonic() + _LOCK_SECONDS
        while not _is_locked(fd):
            if time.monotonic() > ends_at:
                raise NoMap(f"{_HELD} '{pool}': another migration is reading it")
            time.sleep(0.2)
        yield fd
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_root(pool: str) -> int | None:
    status = _match(_POOL_STATUS, _dmsetup("status", pool), "a working thin pool")
    if status[2] != "rw":
        raise NoMap(f"the pool '{pool}' is {status[2]}")
    return None if status[1] == "-" else int(status[1])


def _name_of(major: int, minor: int) -> str:
    with suppress(OSError):
        return Path(f"/sys/dev/block/{major}:{minor}/dm/name").read_text().strip()
    return ""


def _dmsetup(*arguments: str) -> str:
    done = run_command(["dmsetup", *arguments], timeout_seconds=_DMSETUP_SECONDS, package="dmsetup")
    if done.status:
        raise NoMap(f"`dmsetup {' '.join(arguments)}` failed: {done.said}")
    return done.stdout.strip()


def _match(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise NoMap(f"the device is not {what}: {text[:200]}")
    return found
