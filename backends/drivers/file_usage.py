"""Who on this host uses a file: loop devices, processes that have it open, holders of locks."""

from __future__ import annotations

import fcntl
import glob
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from backends.drivers.file_locks import has_foreign_lock
from backends.drivers.types import Usage

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO64_BYTES = 232


@dataclass(frozen=True, slots=True)
class FileUser:
    """A process that has the file open."""

    pid: int
    command: str
    holds_lock: bool


@dataclass(frozen=True, slots=True)
class _Identity:
    """`kernel_inode` is what fdinfo shows, which on stacked file systems is another number than `st_ino`."""

    device: int
    inode: int
    kernel_inode: str | None

    @classmethod
    def of(cls, fd: int) -> _Identity:
        info = os.fstat(fd)
        return cls(info.st_dev, info.st_ino, _fdinfo_inode(_read_text(f"/proc/self/fdinfo/{fd}")))

    def is_at(self, path: str) -> bool:
        info = os.stat(path)
        return (info.st_dev, info.st_ino) == (self.device, self.inode)


def users_of_file(fd: int) -> list[Usage]:
    """
    Return who uses the open file *fd*, this process excepted.  *fd* must hold no lock.

    Processes of other users can be seen by root only; their locks are seen by anybody, without a name.
    """
    identity = _Identity.of(fd)
    usages = [Usage(f"loop device {name}", "is backed by it") for name in _loop_devices(identity)]
    users = list(_processes(identity))
    usages += [
        Usage(f"process {user.pid} ({user.command})", "holds a lock" if user.holds_lock else "has it open")
        for user in users
        if user.pid != os.getpid()
    ]
    if not any(user.holds_lock for user in users) and has_foreign_lock(fd):
        usages.append(Usage("another process or host", "holds a lock"))
    return usages


def lock_holders_text(fd: int) -> str:
    """Return for people who holds the locks on the open file *fd*, as far as it can be found out."""
    users = [user for user in _processes(_Identity.of(fd)) if user.holds_lock]
    names = [
        "this process itself" if user.pid == os.getpid() else f"process {user.pid} ({user.command})"
        for user in users
    ]
    return ", ".join(dict.fromkeys(names)) or "another process or host"


def _processes(identity: _Identity) -> Iterator[FileUser]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        descriptions = list(_descriptors_of(pid, identity))
        if descriptions:
            holds_lock = any("\nlock:" in text for text in descriptions)
            yield FileUser(int(pid), _read_text(f"/proc/{pid}/comm").strip() or "?", holds_lock)


def _descriptors_of(pid: str, identity: _Identity) -> Iterator[str]:
    """Yield the fdinfo of every descriptor of the file in process *pid*; what may not be seen is left out."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for number in numbers:
        link = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(link).startswith("/"):
                continue
            text = _read_text(f"/proc/{pid}/fdinfo/{number}")
            # The number is compared before stat() because stat() of a file on a dead NFS server never
            # returns.
            if identity.kernel_inode is not None and _fdinfo_inode(text) != identity.kernel_inode:
                continue
            if identity.is_at(link):
                yield text
        except OSError:
            continue


def _loop_devices(identity: _Identity) -> Iterator[str]:
    for attribute in glob.glob("/sys/block/loop*/loop/backing_file"):
        name = attribute.split("/")[3]
        if _is_loop_on(name, attribute, identity):
            yield f"/dev/{name}"


def _is_loop_on(name: str, attribute: str, identity: _Identity) -> bool:
    # The ioctl is right also when the path belongs to another mount namespace; it needs rights on the device.
    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64_BYTES))
        finally:
            os.close(fd)
        return struct.unpack_from("=QQ", status) == (identity.device, identity.inode)
    except OSError:
        pass
    try:
        return identity.is_at(_read_text(attribute).rstrip("\n"))
    except OSError:
        return False


def _fdinfo_inode(text: str) -> str | None:
    """Return the `ino` line of an fdinfo text; kernels before 5.14 have none."""
    for line in text.splitlines():
        if line.startswith("ino:"):
            return line[4:].strip()
    return None


def _read_text(path: str) -> str:
    """Return the beginning of a small file of the kernel, empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
