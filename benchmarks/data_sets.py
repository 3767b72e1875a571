"""Volumes to copy: how much of them is data, and how it lies."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


def full(path: Path, size: int, chance: random.Random) -> None:
    """Random from the first byte to the last."""
    with path.open("wb") as file:
        for offset in range(0, size, 8 * MIB):
            file.write(chance.randbytes(min(8 * MIB, size - offset)))


def quarter(path: Path, size: int, chance: random.Random) -> None:
    """A quarter of the volume, in scattered extents of 64 KiB to 4 MiB."""
    with path.open("wb") as file:
        file.truncate(size)
        offset = 0
        while True:
            length = chance.randrange(64 * KIB, 4 * MIB, 4 * KIB)
            offset += chance.randrange(0, 6 * length, 4 * KIB)
            if offset + length > size:
                return
            file.seek(offset)
            file.write(chance.randbytes(length))
            offset += length


def zeros(path: Path, size: int, chance: random.Random) -> None:
    """Nothing but zeros, all of them written."""
    with path.open("wb") as file:
        for offset in range(0, size, 8 * MIB):
            file.write(bytes(min(8 * MIB, size - offset)))


def holes(path: Path, size: int, chance: random.Random) -> None:
    """4 to 16 KiB of data, a hole of the same kind, over and over (in a quarter of the size)."""
    with path.open("wb") as file:
        file.truncate(size // 4)
        offset = 0
        while offset < size // 4 - 16 * KIB:
            length = chance.randrange(4 * KIB, 20 * KIB, 4 * KIB)
            file.seek(offset)
            file.write(chance.randbytes(length))
            offset += length + chance.randrange(4 * KIB, 20 * KIB, 4 * KIB)


def image(path: Path, size: int, chance: random.Random) -> None:
    """A real file system with the files of this host's /usr/lib/python3* and /usr/share on it."""
    with path.open("wb") as file:
        file.truncate(size)
    share = Path("/usr/share")
    used = int(subprocess.run(["du", "-sk", share], capture_output=True, text=True).stdout.split()[0]) * KIB
    tree = share if used < size * 0.5 else Path("/usr/share/doc")
    # Few, large inode tables: what is compared is the copying of files, not of empty tables.
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "400000", "-d", tree, path], check=True)


MAKERS: dict[str, Callable[[Path, int, random.Random], None]] = {
    "full": full,
    "quarter": quarter,
    "zeros": zeros,
    "holes": holes,
    "image": image,
}
