"""A port over a block device whose volume may be shorter than the device, and whose room may be given back."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable

from backends.drivers.errors import CorruptData, DriverError
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.types import KIB, MIB, OpenMode

# Source: linux/fs.h, _IO(0x12, 119), and linux/falloc.h.
_BLKDISCARD = 0x1277
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_ZERO_RANGE = 0x10
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)
_PAGE_BYTES = max(4 * KIB, mmap.PAGESIZE)
_ZEROS = bytes(MIB)
# The kernel cannot be interrupted inside one request: small enough for a slow disk to answer in time.
_LONGEST_REQUEST = 64 * MIB

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", _libc.fallocate)
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class BlockDevicePort(LocalFilePort):
    """
    An opened block device, of which the first *size_bytes* are the volume.

    Args:
        discard_bytes: The device gives back whole runs of so many bytes that are discarded, and reads them as zeros
            afterwards; 0 when it does not.  Whether it did is looked at, not believed.
        explain: Called with every error of the device; returns the error to raise in its place.
    """

    def __init__(
        self,
        path: str,
        mode: OpenMode,
        *,
        size_bytes: int,
        shown_path: str = "",
        backend: str = "",
        volume: str = "",
        reads_zero_when_new: bool = False,
        discard_bytes: int = 0,
        explain: Callable[[DriverError], DriverError] = lambda error: error,
    ) -> None:
        self._explain = explain
        self._discard_bytes = discard_bytes
        # What is not given back stays allocated; nothing of a thick volume is ever given back.
        self.keeps_allocation = discard_bytes == 0
        super().__init__(
            path,
            mode,
            shown_path=shown_path,
            backend=backend,
            volume=volume,
            reads_zero_when_new=reads_zero_when_new,
        )
        if self.size_bytes < size_bytes:
            device_bytes = self.size_bytes
            self.close()
            raise CorruptData(
                f"{self.path} has {device_bytes} bytes; the volume should have {size_bytes}.",
                **self._error_fields("open"),
                remedy="Find out who made the device smaller.",
            )
        self._device_bytes, self.size_bytes = self.size_bytes, size_bytes

    def zero(self, offset: int, length: int) -> None:
        self._check_writable("zero")
        self._check_range(offset, length)
        end = offset + length
        unit = self._discard_bytes or _PAGE_BYTES
        start = min(-(-offset // unit) * unit, end)
        # Behind the end of the volume there is nothing of value.
        whole_end = -(-end // unit) * unit if end == self.size_bytes else end // unit * unit
        stop = max(start, min(whole_end, self._device_bytes // _PAGE_BYTES * _PAGE_BYTES))
        self._zero_what_is_not(offset, start)
        if self._discard_bytes:
            self._discard(start, stop)
            self._zero_what_is_not(start, min(stop, end))
        else:
            self._zero_range(start, stop)
        self._zero_what_is_not(stop, end)

    def _discard(self, start: int, stop: int) -> None:
        for at in range(start, stop, _LONGEST_REQUEST):
            count = min(_LONGEST_REQUEST, stop - at)
            self._wrote_buffered = True
            try:
                fcntl.ioctl(self._fd, _BLKDISCARD, struct.pack("=QQ", at, count))
            except OSError as error:
                if error.errno in _NOT_SUPPORTED:
                    return
                raise self._io_error("Discarding", "zero", at, count, error) from error

    def _zero_range(self, start: int, stop: int) -> None:
        for at in range(start, stop, _LONGEST_REQUEST):
            count = min(_LONGEST_REQUEST, stop - at)
            self._wrote_buffered = True
            if _fallocate(self._fd, _FALLOC_FL_ZERO_RANGE | _FALLOC_FL_KEEP_SIZE, at, count) == 0:
                continue
            number = ctypes.get_errno()
            if number in (*_NOT_SUPPORTED, errno.EINTR):
                self._write_zeros(at, min(count, self.size_bytes - at))
                continue
            error = OSError(number, os.strerror(number))
            raise self._io_error("Zeroing", "zero", at, count, error) from error

    def _zero_what_is_not(self, start: int, stop: int) -> None:
        """Write zeros only where something else is read: a write takes room on a thin device."""
        if stop <= start:
            return
        buffer = memoryview(mmap.mmap(-1, min(MIB, -(-(stop - start) // _PAGE_BYTES) * _PAGE_BYTES)))
        for at in range(start, stop, len(buffer)):
            part = buffer[: min(len(buffer), stop - at)]
            self.read_into(at, part)
            if part != _ZEROS[: len(part)]:
                self._write_zeros(at, len(part))

    def flush(self) -> None:
        try:
            super().flush()
        except DriverError as error:
            raise self._explain(error) from error

    def _io_error(self, doing: str, operation: str, offset: int, length: int, error: OSError) -> DriverError:
        return self._explain(super()._io_error(doing, operation, offset, length, error))
