"""Volumes as sparse raw files in one directory of the host: a local file system, or a mounted NFS share."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backends.drivers.base import Driver, DriverContext
from backends.drivers.errors import (
    AlreadyExists,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
)
from backends.drivers.file_locks import LockHeld, has_foreign_range_lock, lock_file
from backends.drivers.file_usage import lock_holders_text, users_of_file
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.mounts import file_system_of
from backends.drivers.options import Options, check_directory_options, option
from backends.drivers.oserrors import os_errors_translated
from backends.drivers.pool_directory import MARKER, PoolDirectory, clone_file, file_name, temporary_name
from backends.drivers.ports import Port
from backends.drivers.types import (
    Capabilities,
    Declined,
    MovePlan,
    MoveStatus,
    OpenMode,
    PoolStats,
    StoredVolume,
    Support,
    Usage,
)

#: Extended attribute of a clone: whose clone it is.  Tells a finished move from another file of that name.
_CLONE_OF = "user.volmig.clone_of"

_LINK = MovePlan(how="rename", keeps_source=False)
_REFLINK = MovePlan(how="reflink", keeps_source=True)

_CANNOT = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOSYS)
_OPEN_ATTEMPTS = 3


@dataclass(frozen=True)
class DirectoryOptions(Options):
    """Options of the directory driver."""

    path: str = option("Directory that holds the volumes; it must exist.", example="/srv/volumes")
    pool: str = option("Name of the one pool of this backend.", default="main")

    def __post_init__(self) -> None:
        check_directory_options(self.path, self.pool, example="/srv/volumes")


class DirectoryDriver(Driver):
    """
    One directory, one pool.

    A volume is `<name>.raw`.  The marker `.volmig-pool` tells this directory from an empty mount point.
    """

    name = "directory"
    label = "Raw files in a directory (ext4, xfs, btrfs, NFS)"
    storage_protocol = "file"
    options_class = DirectoryOptions
    capabilities = Capabilities(
        thin=Support.NATIVE,
        thick=Support.NATIVE,
        reads_zero_when_new=True,
        move=Support.NATIVE,
        usage_detection=Support.NATIVE,
    )

    def __init__(self, context: DriverContext) -> None:
        super().__init__(context)
        self._abilities: dict[str, bool] | None = None

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        with self._directory(self.options.pool, "check", may_make_marker=True) as directory:
            if _is_read_only(directory):
                return
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=True):
                raise NotPermitted(
                    f"The directory {directory.path} cannot be written by user {os.geteuid()}.",
                    **self._fields("check"),
                )
            if not self._probe(directory)["hardlink"]:
                raise NotReady(
                    f"The file system of {directory.path} has no hard links; "
                    "volumes cannot be made safely on it.",
                    remedy="Choose a directory on ext4, xfs, btrfs or NFS.",
                    **self._fields("check"),
                )

    def pools(self) -> list[PoolStats]:
        with self._directory(self.options.pool, "pools", may_make_marker=True) as directory:
            volumes = directory.volumes()
            space = os.fstatvfs(directory.fd)
            storage_id = directory.storage_id() or ""
            return [
                PoolStats(
                    name=self.options.pool,
                    storage_id=storage_id,
                    total_bytes=space.f_blocks * space.f_frsize,
                    free_bytes=space.f_bavail * space.f_frsize,
                    # A file with two names takes its room once.
                    provisioned_bytes=sum({v.identity: v.size_bytes for v in volumes}.values()),
                    volume_count=len(volumes),
                    thin_provisioning_support=True,
                    thick_provisioning_support=True,
                    is_read_only=_is_read_only(directory),
                    location_info=self._location_info(directory, storage_id),
                    capabilities=self._capabilities(directory),
                )
            ]

    @staticmethod
    def _capabilities(directory: PoolDirectory) -> dict[str, Any]:
        file_system = file_system_of(directory.fd)
        return {"file_system": file_system.kind, "keeps_holes": file_system.keeps_holes}

    def _location_info(self, directory: PoolDirectory, storage_id: str) -> dict[str, Any]:
        return {
            "driver": self.name,
            "version": 1,
            "host": self.context.host,
            "path": os.path.realpath(directory.path),
            "device": directory.device,
            "storage_id": storage_id,
            **self._probe(directory),
        }

    def _probe(self, directory: PoolDirectory) -> dict[str, bool]:
        if self._abilities is None:
            self._abilities = {"reflink": directory.has_reflink(), "hardlink": directory.has_hardlink()}
        return self._abilities

    # -- volumes ---------------------------------------------------------------------------------------------

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        with self._directory(pool, "list_volumes") as directory:
            return iter(directory.volumes())

    def _describe(self, pool: str, name: str) -> StoredVolume:
        with self._directory(pool, "describe", name) as directory:
            return self._find(directory, name, "describe")

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        with self._directory(pool, "create", name) as directory:
            if _exists(directory, file_name(name)):
                raise self._exists_already(directory, name, "create")
            # The name is given last, so that a file of the wrong size never carries it.
            with directory.new_file(temporary_name(name)) as made:
                os.ftruncate(made.fd, size_bytes)
                if not thin:
                    self._allocate(directory, made.fd, name, size_bytes)
                self._publish(directory, made, name, "create")
            return directory.volume(name)

    def _allocate(self, directory: PoolDirectory, fd: int, name: str, size_bytes: int) -> None:
        space = os.fstatvfs(directory.fd)
        free = space.f_bavail * space.f_frsize
        if free < size_bytes:
            # Asked first: an allocation that must fail fills the file system up before it does.
            raise NoSpace(
                f"{directory.path} has {free} bytes free; '{name}' needs {size_bytes}.",
                **self._fields("create", name),
            )
        os.posix_fallocate(fd, 0, size_bytes)

    def _publish(self, directory: PoolDirectory, made: Any, name: str, operation: str) -> None:
        try:
            made.publish(file_name(name))
        except FileExistsError as error:
            raise self._exists_already(directory, name, operation) from error

    def _delete(self, pool: str, name: str) -> None:
        with self._directory(pool, "delete", name) as directory:
            directory.remove_leftover(temporary_name(name))
            try:
                fd = os.open(file_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
            except FileNotFoundError:
                # The delete that took the name away may have been killed before this made it durable.
                directory.sync()
                return
            try:
                self._refuse_if_used(directory, fd, name)
                os.unlink(file_name(name), dir_fd=directory.fd)
            finally:
                os.close(fd)
            directory.sync()

    def _refuse_if_used(self, directory: PoolDirectory, fd: int, name: str) -> None:
        """Return holding the locks on *fd*, or, when the file has another name, at once: its data stays."""
        if os.fstat(fd).st_nlink > 1:
            return
        users = users_of_file(fd)
        try:
            self._lock_for_delete(fd)
        except LockHeld as error:
            raise self._in_use(directory, name, f"{lock_holders_text(fd)} holds a lock on it") from error
        if users:
            raise self._in_use(directory, name, "; ".join(map(str, users)))

    @staticmethod
    def _lock_for_delete(fd: int) -> None:
        try:
            lock_file(fd, for_writing=False)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # NFS gives no exclusive lock to a read-only descriptor, and there every lock is a byte-range lock.
            # This process's own ports are asked for here; `users_of_file` leaves them out.
            if has_foreign_range_lock(fd):
                raise LockHeld from error

    def _in_use(self, directory: PoolDirectory, name: str, why: str) -> InUse:
        return InUse(
            f"{directory.shown(file_name(name))} was not deleted: {why}.", **self._fields("delete", name)
        )

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        # A second name and then one less: a rename would replace a file of the new name, and the system
        # call that does not is unknown to NFS.  Killed in between, both names lead to the same file, and
        # a repetition sees it.
        with self._directory(pool, "rename", name) as directory:
            old, new = file_name(name), file_name(new_name)
            identity = self._find(directory, name, "rename").identity
            try:
                os.link(old, new, src_dir_fd=directory.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
            except FileExistsError as error:
                # One name only: the two spellings are the same entry (a directory that ignores case, or
                # old == new).
                is_half_done = (
                    directory.volume(new_name).identity == identity and directory.stat(old).st_nlink > 1
                )
                if old == new or not is_half_done:
                    raise self._exists_already(directory, new_name, "rename") from error
            directory.sync()
            os.unlink(old, dir_fd=directory.fd)
            directory.sync()

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        with self._directory(pool, "extend", name) as directory:
            fd = os.open(file_name(name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
            try:
                self._refuse_if_used(directory, fd, name)
                os.ftruncate(fd, size_bytes)
                os.fsync(fd)
            finally:
                os.close(fd)
            return directory.volume(name)

    @property
    def reads_beside_writer(self) -> bool:
        return True

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        with self._directory(pool, "open", name) as directory:
            for _ in range(_OPEN_ATTEMPTS):
                self._find(directory, name, "open")
                port = LocalFilePort(
                    file_name(name),
                    mode,
                    directory_fd=directory.fd,
                    shown_path=directory.shown(file_name(name)),
                    backend=self.context.backend,
                    volume=name,
                    reads_zero_when_new=True,
                )
                # Between opening and locking, the file may have been deleted, and another one made.
                if port.still_at(file_name(name), directory.fd):
                    return port
                port.close()
        raise InUse(
            f"{directory.shown(file_name(name))} is being replaced all the time.",
            **self._fields("open", name),
        )

    def _usage(self, pool: str, name: str) -> list[Usage]:
        with self._directory(pool, "usage", name) as directory:
            self._find(directory, name, "usage")
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(file_name(name), flags, dir_fd=directory.fd)
            try:
                return users_of_file(fd)
            finally:
                os.close(fd)

    # -- native moves ----------------------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        if source.get("driver") != cls.name or destination.get("driver") != cls.name:
            return Declined("Only a move from one directory to another can be made by the file system.")
        if source.get("version") != 1 or destination.get("version") != 1:
            return Declined("One of the directories was described by another version of the driver.")
        if source.get("host") != destination.get("host"):
            return Declined(
                f"The directories are on two hosts, {source.get('host')} and {destination.get('host')}."
            )
        if source.get("storage_id") == destination.get("storage_id"):
            return Declined("Source and destination are the same directory.")
        if source.get("device") != destination.get("device"):
            return Declined(f"{source.get('path')} and {destination.get('path')} are on two file systems.")
        if source.get("reflink") and destination.get("reflink"):
            return _REFLINK
        if source.get("hardlink") and destination.get("hardlink"):
            return _LINK
        return Declined(f"The file system of {source.get('path')} has neither reflinks nor hard links.")

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        with self._directory(pool, "start_move", name) as source:
            storage_id = source.storage_id() or ""
            plan = self.plan_move(self._location_info(source, storage_id), destination)
            if isinstance(plan, Declined):
                return plan
            volume = self._find(source, name, "start_move")
            try:
                target = PoolDirectory(destination["path"])
            except OSError as error:
                return Declined(f"{destination['path']} cannot be opened on this host: {error.strerror}.")
            with target:
                return self._move_between(source, target, destination, plan, volume, new_name)

    def _move_between(
        self,
        source: PoolDirectory,
        target: PoolDirectory,
        destination: Mapping[str, Any],
        plan: MovePlan,
        volume: StoredVolume,
        new_name: str,
    ) -> MoveStatus | Declined:
        if target.storage_id() != destination["storage_id"]:
            return Declined(f"{target.path} does not hold the pool that the move is meant for.")
        if target.device != source.device:
            return Declined(f"{source.path} and {target.path} are on two file systems.")
        done = self._found_at(source, target, volume, new_name)
        if done is None:
            try:
                (_link if plan is _LINK else self._reflink)(source, target, volume, new_name)
            except OSError as error:
                if error.errno in _CANNOT:
                    return Declined(
                        f"The file system refuses a {plan.how} from {source.path} to {target.path}: "
                        f"{error.strerror}."
                    )
                raise
        target.sync()
        return MoveStatus(
            plan=done or plan, is_finished=True, done_bytes=volume.size_bytes, total_bytes=volume.size_bytes
        )

    def _found_at(
        self, source: PoolDirectory, target: PoolDirectory, volume: StoredVolume, new_name: str
    ) -> MovePlan | None:
        """
        Return the plan by which an earlier call has finished the move, None when there is no *new_name*.
        """
        try:
            found = target.volume(new_name)
        except FileNotFoundError:
            return None
        if found.identity == volume.identity:
            return _LINK
        # A file of the same size may be a copy that was broken off: only the mark says that it is complete.
        is_current = _clone_mark(target, new_name) == _mark_for(source, volume)
        if is_current and found.size_bytes == volume.size_bytes:
            return _REFLINK
        raise self._exists_already(target, new_name, "start_move")

    def _reflink(
        self, source: PoolDirectory, target: PoolDirectory, volume: StoredVolume, new_name: str
    ) -> None:
        # The lock of a source: a clone taken while somebody writes would not be any state the volume ever
        # had.
        with self._open(self.options.pool, volume.name, OpenMode.SOURCE):
            from_fd = os.open(
                file_name(volume.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source.fd
            )
            try:
                with target.new_file(temporary_name(new_name)) as made:
                    clone_file(from_fd, made.fd)
                    os.setxattr(made.fd, _CLONE_OF, _mark_for(source, volume).encode())
                    size = os.fstat(made.fd).st_size
                    if size != volume.size_bytes:
                        raise NotReady(
                            f"The clone of {volume.name} has {size} bytes instead of {volume.size_bytes}.",
                            **self._fields("start_move", volume.name),
                        )
                    self._publish(target, made, new_name, "start_move")
            finally:
                os.close(from_fd)

    def finish_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        """
        Delete the old name, unless it is the only one left and nothing of *new_name* is at the
        destination.
        """
        self._check_names(pool, name)
        self._check_names(destination_pool, new_name)
        with self._directory(pool, "finish_move", name) as source:
            try:
                is_last_name = source.stat(file_name(name)).st_nlink < 2
            except FileNotFoundError:
                is_last_name = False
            if is_last_name and not _is_at(destination, new_name):
                raise NotFound(
                    f"'{new_name}' is not in {destination.get('path')}; "
                    f"{source.shown(file_name(name))} was kept.",
                    remedy="Find out where the volume is before deleting anything.",
                    **self._fields("finish_move", name),
                )
        self.delete(pool, name)

    # -- shared ----------------------------------------------------------------------------------------------

    @contextmanager
    def _directory(
        self, pool: str, operation: str, name: str = "", *, may_make_marker: bool = False
    ) -> Iterator[PoolDirectory]:
        """
        Open the pool's directory for one operation, after its marker was found to be the registered one.
        """
        if pool != self.options.pool:
            raise NotReady(
                f"There is no pool '{pool}'; the pool is '{self.options.pool}'.",
                **self._fields(operation, name),
            )
        path = self.options.path
        what = f"{operation.replace('_', ' ').capitalize()} in {path}" + (f" of '{name}'" if name else "")
        with os_errors_translated(what, **self._fields(operation, name)):
            try:
                opened = self._open_directory(path, operation)
                with opened as directory:
                    self._require_marker(directory, may_make_marker)
                    yield directory
            except DriverError as error:
                # The helpers below do not know the backend's name.
                error.backend = error.backend or self.context.backend
                error.operation = error.operation or operation
                error.volume = error.volume or name
                raise

    def _open_directory(self, path: str, operation: str) -> PoolDirectory:
        try:
            return PoolDirectory(path)
        except FileNotFoundError as error:
            raise NotReady(
                f"The directory {path} does not exist.",
                remedy="Create it, or mount the file system that holds it.",
                **self._fields(operation),
            ) from error
        except NotADirectoryError as error:
            raise NotReady(
                f"{path} is not a directory.", remedy="Correct the option 'path'.", **self._fields(operation)
            ) from error

    def _require_marker(self, directory: PoolDirectory, may_make_marker: bool) -> None:
        known = self.context.known_storage_ids.get(self.options.pool)
        found = directory.storage_id()
        if found is None and known is None and may_make_marker:
            directory.make_marker()
            return
        if found is None or known not in (None, found):
            seen = "marker missing" if found is None else "its marker is that of another pool"
            raise NotReady(
                f"The directory {directory.path} does not hold the pool that was registered ({seen}): "
                "is the file system mounted?",
                remedy=f"Mount it, or restore {directory.shown(MARKER)}.",
            )

    def _find(self, directory: PoolDirectory, name: str, operation: str) -> StoredVolume:
        try:
            return directory.volume(name)
        except FileNotFoundError as error:
            raise NotFound(
                f"There is no {directory.shown(file_name(name))}.", **self._fields(operation, name)
            ) from error

    def _exists_already(self, directory: PoolDirectory, name: str, operation: str) -> AlreadyExists:
        return AlreadyExists(
            f"{directory.shown(file_name(name))} exists already.",
            remedy="Nothing was changed.",
            **self._fields(operation, name),
        )

    def _fields(self, operation: str, name: str = "") -> dict[str, str]:
        return {"backend": self.context.backend, "operation": operation, "volume": name}


def _link(source: PoolDirectory, target: PoolDirectory, volume: StoredVolume, new_name: str) -> None:
    """
    Give the file its new name beside the old one.

    Not a rename: the record points at the old name until it has moved, and must point at complete data at
    every instant.  The old name is taken away by `finish_move`.
    """
    os.link(
        file_name(volume.name),
        file_name(new_name),
        src_dir_fd=source.fd,
        dst_dir_fd=target.fd,
        follow_symlinks=False,
    )


def _mark_for(source: PoolDirectory, volume: StoredVolume) -> str:
    """
    Return what a clone of the volume, as it is now, is marked with: a source written to since has another
    one.
    """
    return f"{volume.identity}@{source.stat(file_name(volume.name)).st_mtime_ns}"


def _clone_mark(directory: PoolDirectory, name: str) -> str:
    fd = os.open(file_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        return os.getxattr(fd, _CLONE_OF).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _is_at(location: Mapping[str, Any], name: str) -> bool:
    try:
        with PoolDirectory(location["path"]) as directory:
            return directory.storage_id() == location["storage_id"] and _exists(directory, file_name(name))
    except FileNotFoundError:
        return False


def _exists(directory: PoolDirectory, file: str) -> bool:
    try:
        directory.stat(file)
    except FileNotFoundError:
        return False
    return True


def _is_read_only(directory: PoolDirectory) -> bool:
    return bool(os.fstatvfs(directory.fd).f_flag & os.ST_RDONLY)
