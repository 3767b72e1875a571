"""A port over a path of this host: a regular file, or a block device."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from backends.drivers.errors import CorruptData, DriverError, InUse, NotPermitted, Unsupported
from backends.drivers.file_locks import LockHeld, lock_file
from backends.drivers.file_usage import lock_holders_text
from backends.drivers.oserrors import os_errors_translated, translate_os_error
from backends.drivers.ports import Extent, ExtentKind, Port
from backends.drivers.types import KIB, MIB, OpenMode

# Direct I/O wants multiples of the logical block (at most 4 KiB).  Whole pages besides, so that a page is
# never written directly by one thread and through the page cache by another one.
_ALIGNMENT = max(4096, mmap.PAGESIZE)
# Never written to.  Memory of its own pages, so that zeros can be written directly.
_ZEROS = memoryview(mmap.mmap(-1, MIB))

# Up to this length a write of its own, past the page cache, costs more than gathering many.
_SCATTERED_BYTES = 16 * KIB
# So much may be gathered before it is on its way to the disk.
_MOST_SCATTERED_BYTES = 4 * MIB

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_FALLOC_FL_ZERO_RANGE = 0x10
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL)

# `os.posix_fallocate` has no modes.
_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", _libc.fallocate)
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class LocalFilePort(Port):
    """
    An opened file or block device.

    Ranges that are aligned to `block_size_bytes`, in buffers whose address is aligned too, bypass the
    page cache where the file system can; everything else goes through it, and what was read is dropped
    from it again.  A read-only buffer never counts as aligned: its address cannot be had cheaply.

    SOURCE and WRITE hold the locks of `file_locks` until `close`.  VERIFY holds none, so that it can be
    opened beside the port that was written.

    Args:
        path: Absolute; or relative to *directory_fd*, with *shown_path* for the messages.
        reads_zero_when_new: The file was made by this project, or is a regular file.
    """

    def __init__(
        self,
        path: str,
        mode: OpenMode,
        *,
        directory_fd: int | None = None,
        shown_path: str = "",
        backend: str = "",
        volume: str = "",
        reads_zero_when_new: bool = False,
    ) -> None:
        self.mode = mode
        self.path = shown_path or path
        self.block_size_bytes = _ALIGNMENT
        self.reads_zero_when_new = reads_zero_when_new
        self.is_exclusive = mode is not OpenMode.VERIFY
        self._backend = backend
        self._volume = volume
        self._lock = threading.Lock()
        self._flush_error: DriverError | None = None
        self._wrote_buffered = self._wrote_direct = False
        self._can_punch = True
        self._scattered_bytes = 0
        self._lock_fd = self._direct_fd = self._fd = -1
        try:
            with os_errors_translated(f"Opening {self.path} as {mode.value}", **self._error_fields("open")):
                self._open(path, directory_fd)
        except BaseException:
            self.close()
            raise

    # -- opening ---------------------------------------------------------------------------------------------

    def _open(self, path: str, directory_fd: int | None) -> None:
        access = os.O_RDWR if self.mode is OpenMode.WRITE else os.O_RDONLY
        # O_NONBLOCK: a FIFO of that name must not block for ever; on files it means nothing.
        flags = access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        if self.is_exclusive and _is_block_device(path, directory_fd):
            # Refused while a file system, a device on top or another such opening holds the device.
            # Source: open(2), O_EXCL without O_CREAT.
            flags |= os.O_EXCL
        self._fd = os.open(path, flags, dir_fd=directory_fd)
        found = os.fstat(self._fd)
        kind = found.st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise Unsupported(
                f"{self.path} is neither a regular file nor a block device.", **self._error_fields("open")
            )
        self._is_block_device = stat.S_ISBLK(kind)
        self.device = found.st_rdev if self._is_block_device else found.st_dev
        if self.is_exclusive:
            self._take_locks()
        # Only now: who held the lock before may have changed the size.
        self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END)
        self._direct_fd = self._open_direct(access)
        if self.mode is OpenMode.VERIFY:
            # Only clean pages can be dropped from the page cache.
            os.fdatasync(self._fd)
            self._drop_cache(0, 0)

    def _take_locks(self) -> None:
        try:
            try:
                lock_file(self._fd, for_writing=self.mode is OpenMode.WRITE)
            except OSError as error:
                if error.errno != errno.EBADF or self.mode is OpenMode.WRITE:
                    raise
                # NFS: an exclusive lock needs a descriptor that could write.
                self._lock_fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
                lock_file(self._lock_fd, for_writing=False)
        except LockHeld as error:
            raise InUse(
                f"{self.path} cannot be opened as {self.mode.value}: "
                f"{lock_holders_text(self._fd)} holds a lock on it.",
                **self._error_fields("open"),
            ) from error

    def _open_direct(self, access: int) -> int:
        """
        Return a second descriptor of the same file that bypasses the page cache, -1 where there is none.
        """
        try:
            return os.open(f"/proc/self/fd/{self._fd}", access | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return -1

    def still_at(self, path: str, directory_fd: int | None = None) -> bool:
        """Tell whether *path* still leads to the file that was opened, now that it is locked."""
        try:
            found = os.stat(path, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    # -- reading ---------------------------------------------------------------------------------------------

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._check_range(offset, length)
        end = offset + length
        position = offset
        while position < end:
            with os_errors_translated(f"Looking for holes in {self.path}", **self._error_fields("extents")):
                start, stop = self._next_data(position, end)
            if start > position:
                yield Extent(position, start - position, ExtentKind.HOLE)
            if stop > start:
                yield Extent(start, stop - start, ExtentKind.DATA)
            position = stop

    def _next_data(self, position: int, end: int) -> tuple[int, int]:
        """
        Return the first run of data at or after *position*, cut to *end*; an empty run at *end* for none.
        """
        if self._is_block_device:
            return position, end
        if os.fstat(self._fd).st_size < end:
            # The kernel calls everything behind the end of a file a hole: a file cut short would be
            # copied as zeros.
            raise self._too_short(position, end - position)
        try:
            start = os.lseek(self._fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end, end
            if error.errno in _NOT_SUPPORTED:
                return position, end
            raise
        if start >= end:
            return end, end
        stop = os.lseek(self._fd, start, os.SEEK_HOLE)
        # A hole punched by somebody else in between must not make a run without bytes, and an endless loop.
        return start, min(max(stop, start + 1), end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, len(buffer))
        try:
            for is_direct, at, view in self._split(offset, buffer):
                done = self._direct_loop(os.preadv, at, view) if is_direct else 0
                if done < len(view):
                    self._read_buffered(at + done, view[done:])
        except OSError as error:
            raise self._io_error("Reading", "read", offset, len(buffer), error) from error

    def _read_buffered(self, offset: int, view: memoryview) -> None:
        start, length = offset, len(view)
        if self.mode is OpenMode.VERIFY:
            self._drop_cache(start, length)
        while view:
            count = os.preadv(self._fd, [view], offset)
            if count == 0:
                raise self._too_short(offset, len(view))
            offset += count
            view = view[count:]
        if self.mode is OpenMode.SOURCE:
            # A volume is read once; it must not push everything else out of memory.
            self._drop_cache(start, length)

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, offset: int, buffer: memoryview) -> None:
        self._check_writable("write")
        self._check_range(offset, len(buffer))
        try:
            if len(buffer) <= _SCATTERED_BYTES and not self._is_block_device:
                self._write_scattered(offset, buffer)
                return
            for is_direct, at, view in self._split(offset, buffer):
                done = 0
                if is_direct:
                    self._wrote_direct = True
                    done = self._direct_loop(os.pwritev, at, view)
                if done < len(view):
                    self._write_buffered(at + done, view[done:])
        except OSError as error:
            raise self._io_error("Writing", "write", offset, len(buffer), error) from error

    def _write_scattered(self, offset: int, buffer: memoryview) -> None:
        """Write through the page cache, which gathers small pieces; it is asked to let go of them soon."""
        self._write_buffered(offset, buffer)
        with self._lock:
            self._scattered_bytes += len(buffer)
            is_enough = self._scattered_bytes >= _MOST_SCATTERED_BYTES
            if is_enough:
                self._scattered_bytes = 0
        if is_enough:
            # Starts writing what is dirty, and forgets what was written before.
            self._drop_cache(0, 0)

    def _write_buffered(self, offset: int, view: memoryview) -> None:
        self._wrote_buffered = True
        while view:
            count = os.pwritev(self._fd, [view], offset)
            offset += count
            view = view[count:]

    def zero(self, offset: int, length: int) -> None:
        self._check_writable("zero")
        self._check_range(offset, length)
        end = offset + length
        start, stop = offset, end
        if self._is_block_device:
            # A device punches whole blocks only; a file system sees to the edges itself.
            start, stop = -(-offset // _ALIGNMENT) * _ALIGNMENT, end // _ALIGNMENT * _ALIGNMENT
        if start < stop and self._punch_hole(start, stop - start):
            self._write_zeros(offset, start - offset)
            self._write_zeros(stop, end - stop)
        else:
            self._write_zeros(offset, length)

    def expect(self, offset: int, length: int) -> bool:
        """
        Give the range its room in one piece.

        A direct write into a hole of ext4 keeps all others waiting, one into room that was given before does not.
        Source: Linux `fs/ext4/file.c`, `ext4_dio_write_checks`.
        """
        if self._is_block_device or self.keeps_allocation or self._direct_fd < 0:
            return False
        self._wrote_buffered = True
        return _fallocate(self._fd, _FALLOC_FL_KEEP_SIZE, offset, length) == 0

    def _punch_hole(self, offset: int, length: int) -> bool:
        """
        Tell whether the range now reads as zeros; if not, the storage cannot do it and nothing was
        changed.
        """
        if not self._can_punch:
            return False
        self._wrote_buffered = True
        how = _FALLOC_FL_ZERO_RANGE if self.keeps_allocation else _FALLOC_FL_PUNCH_HOLE
        if _fallocate(self._fd, how | _FALLOC_FL_KEEP_SIZE, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in _NOT_SUPPORTED:
            self._can_punch = False
            return False
        if number == errno.EINTR:
            return self._punch_hole(offset, length)
        error = OSError(number, os.strerror(number))
        raise self._io_error("Zeroing", "zero", offset, length, error) from error

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            # Up to the next boundary first, so that the rest can be written directly.
            count = min(length, len(_ZEROS) - offset % _ALIGNMENT)
            self.write(offset, _ZEROS[:count])
            offset += count
            length -= count

    # -- finishing -------------------------------------------------------------------------------------------

    def flush(self) -> None:
        with self._lock:
            if self._flush_error is not None:
                raise self._flush_error
            try:
                # Each descriptor has its own memory of write errors; what went through one is asked of
                # that one.
                if self._wrote_buffered:
                    os.fdatasync(self._fd)
                if self._wrote_direct:
                    os.fdatasync(self._direct_fd)
            except OSError as error:
                # The kernel reports a lost write once and then calls the page clean: the next call would
                # succeed.
                self._flush_error = translate_os_error(
                    error,
                    f"Flushing {self.path} (what was written since the last flush may be lost)",
                    **self._error_fields("flush"),
                )
                raise self._flush_error from error
            if self._wrote_buffered:
                self._drop_cache(0, 0)

    def close(self) -> None:
        with self._lock:
            fds = (self._direct_fd, self._fd, self._lock_fd)
            # A number that was closed may be given to another file at once: it must not be used again.
            self._direct_fd = self._fd = self._lock_fd = -1
        for fd in fds:
            if fd >= 0:
                _close_quietly(fd)

    # -- shared ----------------------------------------------------------------------------------------------

    def _split(self, offset: int, buffer: memoryview) -> Iterator[tuple[bool, int, memoryview]]:
        """
        Yield (is direct, offset, part of the buffer), in order: at most an edge, a direct middle and an
        edge.
        """
        head = -offset % _ALIGNMENT
        body = (len(buffer) - head) // _ALIGNMENT * _ALIGNMENT
        if self._direct_fd < 0 or body <= 0 or not _is_aligned(buffer, head):
            yield False, offset, buffer
            return
        if head:
            yield False, offset, buffer[:head]
        yield True, offset + head, buffer[head : head + body]
        if head + body < len(buffer):
            yield False, offset + head + body, buffer[head + body :]

    def _direct_loop(self, transfer: Callable[..., int], offset: int, view: memoryview) -> int:
        """
        Return how many bytes `os.preadv` or `os.pwritev` moved past the page cache; the caller moves the
        rest.
        """
        done = 0
        while done < len(view):
            try:
                count = transfer(self._direct_fd, [view[done:]], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system opens files for direct I/O but wants another alignment than whole pages.
                return done
            done += count
            if count == 0 or count % _ALIGNMENT:
                return done
        return done

    def _drop_cache(self, offset: int, length: int) -> None:
        """
        Forget the pages of the range (0, 0 is all); pages that are only touched at an edge count as well.
        """
        start = offset // _ALIGNMENT * _ALIGNMENT
        stop = -(-(offset + length) // _ALIGNMENT) * _ALIGNMENT
        os.posix_fadvise(self._fd, start, stop - start, os.POSIX_FADV_DONTNEED)

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            # A write behind the end would silently make the volume longer.
            raise ValueError(
                f"{length} bytes at offset {offset} are not inside {self.path} of {self.size_bytes} bytes"
            )

    def _check_writable(self, operation: str) -> None:
        if self.mode is not OpenMode.WRITE:
            raise NotPermitted(
                f"{self.path} was opened as {self.mode.value} and cannot be written.",
                remedy="",
                **self._error_fields(operation),
            )

    def _too_short(self, offset: int, length: int) -> CorruptData:
        return CorruptData(
            f"{self.path} ends inside the {length} bytes at offset {offset}; "
            f"it had {self.size_bytes} bytes when it was opened.",
            **self._error_fields("read"),
            remedy="Find out what made the file shorter; the rest of the volume is missing.",
        )

    def _io_error(self, doing: str, operation: str, offset: int, length: int, error: OSError) -> DriverError:
        what = f"{doing} {length} bytes at offset {offset} of {self.path}"
        return translate_os_error(error, what, **self._error_fields(operation))

    def _error_fields(self, operation: str) -> dict[str, str]:
        return {"backend": self._backend, "operation": operation, "volume": self._volume}


def _is_block_device(path: str, directory_fd: int | None) -> bool:
    return stat.S_ISBLK(os.stat(path, dir_fd=directory_fd, follow_symlinks=False).st_mode)


def _is_aligned(buffer: memoryview, head: int) -> bool:
    if buffer.readonly:
        return False
    return (ctypes.addressof(ctypes.c_char.from_buffer(buffer)) + head) % _ALIGNMENT == 0


def _close_quietly(fd: int) -> None:
    # On NFS close() reports what fdatasync() has reported already; `Port.close` never flushes.
    with suppress(OSError):
        os.close(fd)
