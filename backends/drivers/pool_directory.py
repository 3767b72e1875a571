"""
A directory that holds volumes as files, opened for one operation.

Everything is done relative to one descriptor of the directory, whose marker was looked at through that same
descriptor: a file system that is unmounted in between cannot lead a write to the directory below it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from backends.drivers.errors import InUse, NotReady, Unsupported
from backends.drivers.types import StoredVolume, is_object_name

MARKER = ".volmig-pool"
SUFFIX = ".raw"

_HARDLINK_PROBE = ".volmig-probe"
_FICLONE = 0x40049409
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)


def file_name(name: str) -> str:
    """Return the file of the volume *name*."""
    return name + SUFFIX


def temporary_name(name: str) -> str:
    """
    Return the name of a file that is to become the volume *name*, where files without a name are not
    possible.
    """
    return f".{name}.making"


class PoolDirectory:
    """
    An open directory.  Raises plain `OSError`s; the driver translates them.

    Args:
        path: Absolute.
    """

    #: Turned off by a test to take the way of file systems that have no O_TMPFILE (NFS).
    can_make_unnamed = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self.fd).st_dev

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def shown(self, file: str) -> str:
        """Return the full path of *file*, for messages."""
        return os.path.join(self.path, file)

    # -- the marker ------------------------------------------------------------------------------------------

    def storage_id(self) -> str | None:
        """
        Return the identity written in the marker, None when there is no marker.

        Raises:
            NotReady: There is a marker that cannot be understood.
        """
        try:
            fd = os.open(MARKER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            text = os.read(fd, 65536)
        finally:
            os.close(fd)
        try:
            return str(uuid.UUID(json.loads(text)["storage_id"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotReady(
                f"The marker {self.shown(MARKER)} is damaged.",
                remedy="Restore it from a backup, or write "
                '{"version": 1, "storage_id": "<the pool\'s storage id>"} into it.',
            ) from error

    def make_marker(self) -> None:
        """Write a marker with a new identity; when somebody else was quicker, theirs stays."""
        storage_id = str(uuid.uuid4())
        with self.new_file(f"{MARKER}.{storage_id}.making") as made:
            os.write(made.fd, json.dumps({"version": 1, "storage_id": storage_id}).encode() + b"\n")
            # The marker says nothing secret, and other users' tools may want to know what the directory is.
            os.fchmod(made.fd, 0o644)
            with suppress(FileExistsError):
                made.publish(MARKER)

    # -- looking ---------------------------------------------------------------------------------------------

    def stat(self, file: str) -> os.stat_result:
        """Return the status of *file*, not following links."""
        return os.stat(file, dir_fd=self.fd, follow_symlinks=False)

    def volume(self, name: str) -> StoredVolume:
        """
        Return the volume *name*.

        Raises:
            FileNotFoundError, Unsupported (something else than a regular file has that name).
        """
        info = self.stat(file_name(name))
        if not stat.S_ISREG(info.st_mode):
            raise Unsupported(f"{self.shown(file_name(name))} is not a regular file.")
        return _stored_volume(name, info)

    def volumes(self) -> list[StoredVolume]:
        """Return every volume of the directory, a file with two names twice."""
        found = []
        for file in os.listdir(self.fd):
            name = file.removesuffix(SUFFIX)
            if name == file or not is_object_name(name):
                continue
            # Deleted since the directory was read.
            with suppress(FileNotFoundError):
                info = self.stat(file)
                if stat.S_ISREG(info.st_mode):
                    found.append(_stored_volume(name, info))
        return found

    # -- making and removing ---------------------------------------------------------------------------------

    @contextmanager
    def new_file(self, temporary: str) -> Iterator[NewFile]:
        """
        Open an empty file that has no name in the pool until it is published, and vanishes if it is not.

        Without O_TMPFILE it is called *temporary* meanwhile; what a killed process left there is removed
        first.

        Raises:
            InUse: Another process is making that file at this moment.
        """
        made = self._open_unnamed() or self._open_named(temporary)
        try:
            yield made
        finally:
            made.close()

    def _open_unnamed(self) -> NewFile | None:
        if not self.can_make_unnamed:
            return None
        try:
            return NewFile(
                self, os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self.fd), None
            )
        except OSError as error:
            if error.errno in _NO_TMPFILE:
                return None
            raise

    def _open_named(self, temporary: str) -> NewFile:
        self.remove_leftover(temporary)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
        except FileExistsError as error:
            raise self._is_being_made(temporary) from error
        made = NewFile(self, fd, temporary)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_same(os.fstat(fd), self.stat(temporary)):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            # Another process took the file for a leftover before it was locked.
            made.temporary = None
            made.close()
            raise self._is_being_made(temporary) from error
        return made

    def remove_leftover(self, temporary: str) -> None:
        """
        Remove what a killed process left under the name *temporary*, if there is anything.

        It is never written to again: the kill may have come between giving it its final name and taking away
        this one, and then it is a volume in use.

        Raises:
            InUse: Another process is making that file at this moment.
        """
        try:
            fd = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return
        try:
            if os.fstat(fd).st_nlink < 2:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(temporary, dir_fd=self.fd)
        except BlockingIOError as error:
            raise self._is_being_made(temporary) from error
        except FileNotFoundError:
            return
        finally:
            os.close(fd)

    def _is_being_made(self, temporary: str) -> InUse:
        return InUse(f"Another process is making {self.shown(temporary)} at this moment.", remedy="")

    def sync(self) -> None:
        """Make names that were given and taken durable."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            # Some network and FUSE file systems have no fsync of directories.
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise

    # -- what the file system can do -------------------------------------------------------------------------

    def has_reflink(self) -> bool:
        """Tell whether two files can share their blocks here.  Leaves nothing behind, also when killed."""
        try:
            with (
                self.new_file(".volmig-probe-a.making") as one,
                self.new_file(".volmig-probe-b.making") as two,
            ):
                os.write(one.fd, bytes(65536))
                clone_file(one.fd, two.fd)
                return True
        except (OSError, InUse):
            return False

    def has_hardlink(self) -> bool:
        """Tell whether a file can have two names here; the marker is the file."""
        try:
            os.link(MARKER, _HARDLINK_PROBE, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            # A killed or another probe: it had worked.
            pass
        except OSError:
            return False
        with suppress(FileNotFoundError):
            os.unlink(_HARDLINK_PROBE, dir_fd=self.fd)
        return True


class NewFile:
    """A file that is being made.  See `PoolDirectory.new_file`."""

    def __init__(self, directory: PoolDirectory, fd: int, temporary: str | None) -> None:
        self.fd = fd
        self.directory = directory
        self.temporary = temporary

    def publish(self, file: str) -> None:
        """
        Give the file its name, durably.

        A link, not a rename: a rename would replace a file of that name.

        Raises:
            FileExistsError: There is another one; nothing was changed.
        """
        os.fsync(self.fd)
        parent = self.directory.fd
        try:
            if self.temporary is None:
                os.link(f"/proc/self/fd/{self.fd}", file, dst_dir_fd=parent, follow_symlinks=True)
            else:
                os.link(self.temporary, file, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            # NFS answers so when the reply to a link that was made got lost.
            if not _is_same(os.fstat(self.fd), self.directory.stat(file)):
                raise
        self._unlink_temporary()
        self.directory.sync()

    def close(self) -> None:
        """Close the file; without a published name it is gone."""
        if self.fd >= 0:
            with suppress(OSError):
                self._unlink_temporary()
            os.close(self.fd)
            self.fd = -1

    def _unlink_temporary(self) -> None:
        if self.temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.temporary, dir_fd=self.directory.fd)
            self.temporary = None


def clone_file(source_fd: int, destination_fd: int) -> None:
    """Let the empty destination share all blocks of the source: ioctl_ficlonerange(2)."""
    fcntl.ioctl(destination_fd, _FICLONE, source_fd)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _stored_volume(name: str, info: os.stat_result) -> StoredVolume:
    return StoredVolume(
        name=name,
        size_bytes=info.st_size,
        # st_blocks counts 512 bytes whatever the file system's block is: stat(2).
        allocated_bytes=info.st_blocks * 512,
        # Without the device: its number may be another one after a reboot, and the marker proves the file system.
        identity=f"inode {info.st_ino}",
        changed=str(info.st_mtime_ns),
    )
