"""Volumes as qcow2 files in one directory, read and written by QEMU."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from backends.drivers.base import Driver
from backends.drivers.errors import (
    AlreadyExists,
    CorruptData,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
    Unsupported,
)
from backends.drivers.file_locks import LockHeld, lock_file, lock_file_beside_qemu
from backends.drivers.file_usage import lock_holders_text, users_of_file
from backends.drivers.nbd_port import NbdPort
from backends.drivers.nbd_server import ServerEnded, qemu_nbd
from backends.drivers.options import Options, check_directory_options, option
from backends.drivers.oserrors import os_errors_translated
from backends.drivers.pool_directory import PoolDirectory
from backends.drivers.ports import Port
from backends.drivers.qcow2_header import Qcow2Header, read_header, write_size
from backends.drivers.qemu_img import qemu_error, qemu_img
from backends.drivers.served_port import opened
from backends.drivers.types import (
    Capabilities,
    OpenMode,
    PoolStats,
    StoredVolume,
    Support,
    Usage,
    is_object_name,
)

_SUFFIX = ".qcow2"
_SECTOR_BYTES = 512


@dataclass(frozen=True)
class Qcow2Options(Options):
    """Options of the qcow2 driver."""

    path: str = option("Directory that holds the images; it must exist.", example="/var/lib/libvirt/images")
    pool: str = option("Name of the one pool of this backend.", default="main")

    def __post_init__(self) -> None:
        check_directory_options(self.path, self.pool, example="/srv/images")


@dataclass(frozen=True, slots=True)
class _Image:
    volume: StoredVolume
    header: Qcow2Header


class Qcow2Driver(Driver):
    """
    One directory, one pool; a volume is `<name>.qcow2`.

    The size of a volume is the guest's disk, not the file.  An image that is only a layer (it has a backing file, or is
    one) or keeps its data elsewhere is listed, but not opened.
    """

    name = "qcow2"
    label = "qcow2 images in a directory"
    storage_protocol = "file"
    options_class = Qcow2Options
    capabilities = Capabilities(
        thin=Support.NATIVE,
        thick=Support.NATIVE,
        reads_zero_when_new=True,
        snapshots=Support.NATIVE,
        usage_detection=Support.NATIVE,
    )

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        with self._directory(self.options.pool, "check", may_make_marker=True) as directory:
            if not os.fstatvfs(directory.fd).f_flag & os.ST_RDONLY and not os.access(
                ".", os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=True
            ):
                raise NotPermitted(
                    f"The directory {directory.path} cannot be written by user {os.geteuid()}.",
                    **self._fields("check"),
                )

    def pools(self) -> list[PoolStats]:
        with self._directory(self.options.pool, "pools", may_make_marker=True) as directory:
            images = list(self._images(directory))
            space = os.fstatvfs(directory.fd)
            storage_id = self._storage_id(directory)
            return [
                PoolStats(
                    name=self.options.pool,
                    storage_id=storage_id,
                    total_bytes=space.f_blocks * space.f_frsize,
                    free_bytes=space.f_bavail * space.f_frsize,
                    provisioned_bytes=sum(image.volume.size_bytes for image in images),
                    volume_count=len(images),
                    thin_provisioning_support=True,
                    thick_provisioning_support=True,
                    is_read_only=bool(space.f_flag & os.ST_RDONLY),
                    location_info={
                        "driver": self.name,
                        "version": 1,
                        "host": self.context.host,
                        "path": os.path.realpath(directory.path),
                        "storage_id": storage_id,
                    },
                )
            ]

    @staticmethod
    def _storage_id(directory: PoolDirectory) -> str:
        # Raw files beside the images are another pool: a volume may move from one to the other.
        return f"{directory.storage_id() or ''}/qcow2"

    # -- volumes ---------------------------------------------------------------------------------------------

    def _images(self, directory: PoolDirectory) -> Iterator[_Image]:
        for file in os.listdir(directory.fd):
            name = file.removesuffix(_SUFFIX)
            if name != file and is_object_name(name):
                # Deleted since the directory was read; a link, or something that is no image.
                with suppress(FileNotFoundError, DriverError):
                    yield self._image(directory, name, "list_volumes")

    def _image(self, directory: PoolDirectory, name: str, operation: str) -> _Image:
        with self._opened(directory, name, operation) as fd:
            header = read_header(fd, directory.shown(name + _SUFFIX))
            info = os.fstat(fd)
        volume = StoredVolume(
            name, header.size_bytes, info.st_blocks * 512, f"inode {info.st_ino}", str(info.st_mtime_ns)
        )
        return _Image(volume, header)

    @contextmanager
    def _opened(
        self, directory: PoolDirectory, name: str, operation: str, flags: int = os.O_RDONLY
    ) -> Iterator[int]:
        shown = directory.shown(name + _SUFFIX)
        try:
            fd = os.open(
                name + _SUFFIX, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory.fd
            )
        except FileNotFoundError as error:
            raise NotFound(f"There is no {shown}.", **self._fields(operation, name)) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unsupported(f"{shown} is not a regular file.", **self._fields(operation, name))
            yield fd
        finally:
            os.close(fd)

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        with self._directory(pool, "list_volumes") as directory:
            return iter([image.volume for image in self._images(directory)])

    def _describe(self, pool: str, name: str) -> StoredVolume:
        with self._directory(pool, "describe", name) as directory:
            return self._image(directory, name, "describe").volume

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        with self._directory(pool, "create", name) as directory:
            self._refuse_existing(directory, name, "create")
            space = os.fstatvfs(directory.fd)
            free = space.f_bavail * space.f_frsize
            if not thin and free < size_bytes:
                raise NoSpace(
                    f"{directory.path} has {free} bytes free; '{name}' needs {size_bytes}.",
                    **self._fields("create", name),
                )
            # The name is given last, so that an image of the wrong size never carries it.
            with directory.new_file(f".{name}{_SUFFIX}.making") as made:
                virtual = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
                kind = f"preallocation={'off' if thin else 'falloc'}"
                path = f"/proc/{os.getpid()}/fd/{made.fd}"
                qemu_img(
                    self._fields("create", name),
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-o",
                    kind,
                    path,
                    str(virtual),
                )
                write_size(made.fd, size_bytes, directory.shown(name + _SUFFIX))
                try:
                    made.publish(name + _SUFFIX)
                except FileExistsError as error:
                    raise self._exists(directory, name, "create") from error
            return self._image(directory, name, "create").volume

    def _refuse_existing(self, directory: PoolDirectory, name: str, operation: str) -> None:
        with suppress(FileNotFoundError):
            directory.stat(name + _SUFFIX)
            raise self._exists(directory, name, operation)

    def _exists(self, directory: PoolDirectory, name: str, operation: str) -> AlreadyExists:
        return AlreadyExists(
            f"{directory.shown(name + _SUFFIX)} exists already.",
            remedy="Nothing was changed.",
            **self._fields(operation, name),
        )

    def _delete(self, pool: str, name: str) -> None:
        with self._directory(pool, "delete", name) as directory:
            directory.remove_leftover(f".{name}{_SUFFIX}.making")
            with self._locked(directory, name, "delete"):
                dependants = self._layers_on(directory, name)
                if dependants:
                    raise InUse(
                        f"'{name}' was not deleted: {', '.join(dependants)} lies on it.",
                        **self._fields("delete", name),
                    )
                os.unlink(name + _SUFFIX, dir_fd=directory.fd)
            directory.sync()

    @contextmanager
    def _locked(self, directory: PoolDirectory, name: str, operation: str) -> Iterator[int]:
        """Yield a descriptor of the image that nobody else uses, and that holds the locks."""
        with self._opened(directory, name, operation) as fd:
            users = users_of_file(fd)
            why = "; ".join(map(str, users))
            try:
                lock_file(fd, for_writing=False)
            except LockHeld:
                why = why or f"{lock_holders_text(fd)} holds a lock on it"
            if why:
                raise InUse(f"'{name}' is in use: {why}.", **self._fields(operation, name))
            yield fd

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        # A second name and then one less, as in the directory driver: a rename would replace an image.
        with self._directory(pool, "rename", name) as directory:
            old, new = name + _SUFFIX, new_name + _SUFFIX
            identity = self._image(directory, name, "rename").volume.identity
            try:
                os.link(old, new, src_dir_fd=directory.fd, dst_dir_fd=directory.fd, follow_symlinks=False)
            except FileExistsError as error:
                found = directory.stat(new)
                if old == new or f"inode {found.st_ino}" != identity or found.st_nlink < 2:
                    raise self._exists(directory, new_name, "rename") from error
            directory.sync()
            os.unlink(old, dir_fd=directory.fd)
            directory.sync()

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        with self._directory(pool, "extend", name) as directory:
            self._refuse_layers(self._image(directory, name, "extend").header, name, "extend")
            virtual = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
            path = directory.shown(name + _SUFFIX)
            qemu_img(self._fields("extend", name), "resize", "-q", "-f", "qcow2", path, str(virtual))
            with self._opened(directory, name, "extend", os.O_RDWR) as fd:
                write_size(fd, size_bytes, path)
                os.fsync(fd)
            return self._image(directory, name, "extend").volume

    # -- opening and usage -----------------------------------------------------------------------------------

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        with self._directory(pool, "open", name) as directory, ExitStack() as resources:
            image = self._image(directory, name, "open")
            self._refuse_layers(image.header, name, "open")
            path = os.path.join(os.path.realpath(directory.path), name + _SUFFIX)
            if mode is not OpenMode.VERIFY:
                # QEMU lets two readers in; this lock keeps another worker out.
                self._hold(directory, name, mode, resources)

            def serve(stack: ExitStack) -> Port:
                server = stack.enter_context(
                    qemu_nbd(
                        _shared_source(path) if mode is OpenMode.VERIFY else path,
                        image_format="qcow2",
                        is_read_only=mode is not OpenMode.WRITE,
                    )
                )
                return NbdPort(
                    server.uri,
                    mode,
                    shown=path,
                    backend=self.context.backend,
                    volume=name,
                    reads_zero_when_new=True,
                )

            try:
                return opened(
                    serve,
                    image.header.size_bytes,
                    resources.pop_all(),
                    is_exclusive=mode is not OpenMode.VERIFY,
                )
            except ServerEnded as error:
                raise qemu_error(f"Opening {path}", error.message, self._fields("open", name)) from error

    def _hold(self, directory: PoolDirectory, name: str, mode: OpenMode, resources: ExitStack) -> None:
        fd = resources.enter_context(self._opened(directory, name, "open"))
        try:
            lock_file_beside_qemu(fd)
        except LockHeld as error:
            raise InUse(
                f"'{name}' cannot be opened as {mode.value}: {lock_holders_text(fd)} holds a lock on it.",
                **self._fields("open", name),
            ) from error

    def _refuse_layers(self, header: Qcow2Header, name: str, operation: str) -> None:
        reason = ""
        if header.backing_file:
            reason = f"it is only a layer on '{header.backing_file}'"
        elif header.has_external_data:
            reason = "it keeps its data in another file"
        elif header.is_encrypted:
            reason = "it is encrypted"
        elif header.is_corrupt:
            raise CorruptData(f"'{name}' is marked as corrupt.", **self._fields(operation, name))
        if reason:
            raise Unsupported(f"'{name}' cannot be used: {reason}.", **self._fields(operation, name))

    def _usage(self, pool: str, name: str) -> list[Usage]:
        with (
            self._directory(pool, "usage", name) as directory,
            self._opened(directory, name, "usage") as fd,
        ):
            return users_of_file(fd)

    # -- snapshots -------------------------------------------------------------------------------------------

    def _snapshots(self, pool: str, name: str) -> list[str]:
        with self._directory(pool, "snapshots", name) as directory:
            header = self._image(directory, name, "snapshots").header
            found = self._internal_snapshots(directory, name) if header.snapshot_count else []
            if header.backing_file:
                found.append(f"(backing file) {header.backing_file}")
            return found + [f"(layer on it) {other}" for other in self._layers_on(directory, name)]

    def _internal_snapshots(self, directory: PoolDirectory, name: str) -> list[str]:
        path = directory.shown(name + _SUFFIX)
        said = qemu_img(self._fields("snapshots", name), "info", "-U", "-f", "qcow2", "--output=json", path)
        return sorted(snapshot["name"] for snapshot in json.loads(said).get("snapshots", []))

    def _layers_on(self, directory: PoolDirectory, name: str) -> list[str]:
        """Return the images of this directory whose backing file is *name*."""
        return sorted(
            image.volume.name
            for image in self._images(directory)
            if os.path.basename(image.header.backing_file) == name + _SUFFIX
        )

    def _create_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with self._directory(pool, "create_snapshot", name) as directory:
            self._image(directory, name, "create_snapshot")
            if snapshot not in self._internal_snapshots(directory, name):
                path = directory.shown(name + _SUFFIX)
                qemu_img(self._fields("create_snapshot", name), "snapshot", "-q", "-c", snapshot, path)

    def _delete_snapshot(self, pool: str, name: str, snapshot: str) -> None:
        with self._directory(pool, "delete_snapshot", name) as directory:
            self._image(directory, name, "delete_snapshot")
            if snapshot in self._internal_snapshots(directory, name):
                path = directory.shown(name + _SUFFIX)
                qemu_img(self._fields("delete_snapshot", name), "snapshot", "-q", "-d", snapshot, path)

    # -- shared ----------------------------------------------------------------------------------------------

    @contextmanager
    def _directory(
        self, pool: str, operation: str, name: str = "", *, may_make_marker: bool = False
    ) -> Iterator[PoolDirectory]:
        """Open the pool's directory for one operation, after its marker was found to be the registered one."""
        if pool != self.options.pool:
            raise NotReady(
                f"There is no pool '{pool}'; the pool is '{self.options.pool}'.",
                **self._fields(operation, name),
            )
        what = f"{operation} in {self.options.path}" + (f" of '{name}'" if name else "")
        with os_errors_translated(what, **self._fields(operation, name)):
            try:
                directory = PoolDirectory(self.options.path)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotReady(
                    f"The directory {self.options.path} does not exist.",
                    remedy="Create it, or mount the file system that holds it.",
                    **self._fields(operation),
                ) from error
            with directory:
                self._require_marker(directory, may_make_marker)
                yield directory

    def _require_marker(self, directory: PoolDirectory, may_make_marker: bool) -> None:
        known = self.context.known_storage_ids.get(self.options.pool)
        if known is None and may_make_marker and directory.storage_id() is None:
            directory.make_marker()
        if directory.storage_id() is None or known not in (None, self._storage_id(directory)):
            raise NotReady(
                f"The directory {directory.path} does not hold the pool that was registered: "
                "is the file system mounted?",
                remedy="Mount it, or restore its marker.",
                **self._fields("check"),
            )

    def _fields(self, operation: str, name: str = "") -> dict[str, str]:
        return {"backend": self.context.backend, "operation": operation, "volume": name}


def _shared_source(path: str) -> str:
    """Return what makes QEMU read beside a writer: what that has flushed is complete."""
    return "json:" + json.dumps({"force-share": True, "file": {"driver": "file", "filename": path}})
