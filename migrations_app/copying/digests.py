"""
What is hashed, so that the checkpoint, the comparison and the proof are one thing.

A volume is cut into blocks, blocks into segments.  A block's digest is the BLAKE3 of its bytes; a segment's is
the BLAKE3 of its blocks' digests; the volume's is the BLAKE3 of its segments' digests.  All are about the logical
content: a hole and written zeros have the same digest, and a block of zeros need not be read to know it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from blake3 import blake3

from backends.drivers.types import MIB

#: Named in the report.
ALGORITHM = "BLAKE3"
BLOCK_BYTES = MIB
SEGMENT_BLOCKS = 64
SEGMENT_BYTES = SEGMENT_BLOCKS * BLOCK_BYTES


def block_digest(data: memoryview) -> bytes:
    return blake3(data).digest()


@functools.lru_cache(maxsize=16)
def zero_block_digest(length: int) -> bytes:
    return blake3(bytes(length)).digest()


def segment_digest(blocks: Iterable[bytes]) -> str:
    return blake3(b"".join(blocks)).hexdigest()


@functools.lru_cache(maxsize=16)
def zero_segment_digest(length: int) -> str:
    """Return the digest of a segment of zeros."""
    lengths = (min(BLOCK_BYTES, length - offset) for offset in range(0, length, BLOCK_BYTES))
    return segment_digest(zero_block_digest(size) for size in lengths)


def volume_digest(segments: Iterable[str]) -> str:
    """Return the digest of a volume from its segments' digests, in order."""
    digest = blake3()
    for segment in segments:
        digest.update(bytes.fromhex(segment))
    return digest.hexdigest()


def segment_count(size_bytes: int) -> int:
    return -(-size_bytes // SEGMENT_BYTES)
