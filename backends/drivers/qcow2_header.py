"""
The header of a qcow2 file, read and, for one field of our own, written.

Reading 4 KiB is enough to describe an image, needs no tool, and takes no lock from a running guest.
Source of the format: QEMU `docs/interop/qcow2.txt`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from backends.drivers.errors import CorruptData

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_MAGIC = b"QFI\xfb"
_EXTENSION = struct.Struct(">II")
# QEMU keeps extensions that it does not know when it rewrites a header.  "VOLM".
_SIZE_EXTENSION = 0x564F4C4D
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
_READ_BYTES = 64 * 1024
_V2_BYTES = 72


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """
    What a header says.

    `size_bytes` is the volume's size: QEMU counts in sectors of 512 bytes, and the exact size of a volume that was
    made here stands in an extension.
    """

    size_bytes: int
    virtual_bytes: int
    backing_file: str
    snapshot_count: int
    is_encrypted: bool
    is_corrupt: bool
    has_external_data: bool
    # Where the list of extensions ends, and where it may grow to.
    extensions_end: int
    room_end: int
    own_extension: int | None


def read_header(fd: int, shown: str) -> Qcow2Header:
    """
    Return what the header of the open file says.

    Raises:
        CorruptData: It is no qcow2 file, or damaged.
    """
    raw = os.pread(fd, _READ_BYTES, 0)
    try:
        return _parse(raw)
    except (struct.error, ValueError, IndexError) as error:
        raise CorruptData(
            f"{shown} is no qcow2 file: {error}.", remedy="Look at what it is; nothing was changed."
        ) from error


def _parse(raw: bytes) -> Qcow2Header:
    fields = _HEADER.unpack_from(raw.ljust(_HEADER.size, b"\0"))
    magic, version, backing_offset, backing_length, cluster_bits, virtual = fields[:6]
    if magic != _MAGIC:
        raise ValueError("it does not begin with the magic of the format")
    features, header_bytes = (fields[13], fields[17]) if version >= 3 else (0, _V2_BYTES)
    room_end = min(backing_offset or 1 << cluster_bits, len(raw))
    size, end, own = virtual, header_bytes, None
    while True:
        kind, length = _EXTENSION.unpack_from(raw, end)
        if kind == 0:
            break
        if kind == _SIZE_EXTENSION and length == 8:
            own = end
            (size,) = struct.unpack_from(">Q", raw, end + _EXTENSION.size)
        end += _EXTENSION.size + -(-length // 8) * 8
        if end > room_end:
            raise ValueError("its extensions have no end")
    if not 0 <= virtual - size < 512:
        # Somebody resized the image with another tool.
        size = virtual
    return Qcow2Header(
        size_bytes=size,
        virtual_bytes=virtual,
        backing_file=raw[backing_offset : backing_offset + backing_length].decode(errors="replace")
        if backing_offset
        else "",
        snapshot_count=fields[11],
        is_encrypted=fields[6] != 0,
        is_corrupt=bool(features & _CORRUPT),
        has_external_data=bool(features & _EXTERNAL_DATA),
        extensions_end=end,
        room_end=room_end,
        own_extension=own,
    )


def write_size(fd: int, size_bytes: int, shown: str) -> None:
    """
    Store the exact size in the header of the open file, which nobody else may have open.  Not durable before fsync.

    Raises:
        CorruptData: It is no qcow2 file, or its header has no room.
    """
    header = read_header(fd, shown)
    body = _EXTENSION.pack(_SIZE_EXTENSION, 8) + struct.pack(">Q", size_bytes)
    at = header.own_extension
    if at is None:
        at = header.extensions_end
        body += _EXTENSION.pack(0, 0)
    if at + len(body) > header.room_end:
        raise CorruptData(f"The header of {shown} has no room for the volume's size.", remedy="")
    os.pwrite(fd, body, at)
