"""One connection to a Ceph cluster, with an end for everything that waits, and Ceph's errors as ours."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from backends.drivers.errors import (
    AlreadyExists,
    ConnectionLost,
    DriverError,
    InUse,
    NotFound,
    NotPermitted,
    NotReady,
    Permanent,
    TimedOut,
)
from backends.drivers.oserrors import translate_os_error

# librados waits for ever by default.
_CONNECT_SECONDS = 15
_ANSWER_SECONDS = 20
# By then the cluster has forgotten the client.
_FENCED_SECONDS = 3600


def load_modules() -> tuple[ModuleType, ModuleType]:
    """
    Return the modules `rados` and `rbd`.

    Raises:
        NotReady: They are missing; the remedy names the packages.
    """
    try:
        import rados
        import rbd
    except ImportError as error:
        raise NotReady(
            "This needs Ceph's Python modules 'rados' and 'rbd', which are not there.",
            remedy="On Debian: apt-get install python3-rados python3-rbd, then `make install` again.",
        ) from error
    return rados, rbd


class Cluster:
    """
    A connected client of the cluster that *conf* describes.

    Args:
        is_patient: Wait for as long as it takes; for who has another way to end.

    Raises:
        NotReady: The configuration file or the key cannot be read.
        NotPermitted: The key is wrong.
        ConnectionLost, TimedOut: No monitor answers.
    """

    def __init__(self, conf: str, user: str, backend: str, *, is_patient: bool = False) -> None:
        self.rados, self.rbd = load_modules()
        self.backend = backend
        self._pools: dict[str, Any] = {}
        answer_seconds = "0" if is_patient else str(_ANSWER_SECONDS)
        settings = {
            "client_mount_timeout": str(_CONNECT_SECONDS),
            "rados_mon_op_timeout": answer_seconds,
            "rados_osd_op_timeout": answer_seconds,
        }
        with self.errors(f"Connecting to the cluster of {conf} as client.{user}", "check"):
            try:
                self.handle = self.rados.Rados(conffile=conf, rados_id=user, conf=settings)
            except self.rados.ObjectNotFound as error:
                raise NotReady(
                    f"The configuration file {conf} cannot be read.",
                    remedy="Copy it from the cluster, or correct the option 'conf'.",
                    backend=backend,
                    operation="check",
                ) from error
            try:
                self.handle.connect(timeout=_CONNECT_SECONDS)
            except self.rados.ObjectNotFound as error:
                raise NotReady(
                    f"There is no key of client.{user} on this host that can be read.",
                    remedy=f"`ceph auth get client.{user}` writes it; put it into the keyring that {conf} names, or "
                    f"into /etc/ceph/ceph.client.{user}.keyring, readable by the user of the worker.",
                    backend=backend,
                    operation="check",
                ) from error
            except self.rados.PermissionDeniedError as error:
                raise NotPermitted(
                    f"The cluster of {conf} refuses client.{user}: it knows no such user, or the key is another one.",
                    remedy=f"Compare the keyring of this host with `ceph auth get client.{user}`.",
                    backend=backend,
                    operation="check",
                ) from error

    @property
    def fsid(self) -> str:
        return self.handle.get_fsid()

    def fence(self, address: str) -> bool:
        """
        Let the cluster refuse everything from the client at *address*, which must be dead or is to be.

        Returns:
            Whether it did; the user may not be allowed to.  Its watches are gone a moment later.

        Source: Ceph, `ceph osd blocklist`; allowed by `mon 'profile rbd'`.
        """
        with suppress(self.rados.Error):
            self.handle.blocklist_add(address, _FENCED_SECONDS)
            self.handle.wait_for_latest_osdmap()
            return True
        return False

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools = {}
        self.handle.shutdown()

    def pool(self, name: str) -> Any:
        """
        Return the I/O context of the pool.

        Raises:
            NotReady: There is no such pool.
        """
        if name not in self._pools:
            try:
                self._pools[name] = self.handle.open_ioctx(name)
            except self.rados.ObjectNotFound as error:
                raise NotReady(
                    f"There is no pool '{name}' in the cluster.",
                    remedy="Make it (`ceph osd pool create`, `rbd pool init`), or correct the option 'pools'.",
                    backend=self.backend,
                ) from error
        return self._pools[name]

    def ask(self, prefix: str) -> Any:
        """Return the monitors' answer to a command."""
        with self.errors(f"`ceph {prefix}`", "pools"):
            status, answer, said = self.handle.mon_command(
                json.dumps({"prefix": prefix, "format": "json"}), b"", timeout=_ANSWER_SECONDS
            )
            if status:
                raise OSError(-status, said)
            return json.loads(answer)

    @contextmanager
    def image(self, pool: str, name: str, operation: str, *, is_read_only: bool = True) -> Iterator[Any]:
        """
        Open an image for the block.  Opened for writing it is watched, which others see.

        Raises:
            NotFound, and whatever goes wrong in the block, translated.
        """
        with (
            self.errors(f"{operation} of '{name}' in pool '{pool}'", operation, name),
            self.rbd.Image(self.pool(pool), name, read_only=is_read_only) as image,
        ):
            yield image

    @contextmanager
    def errors(self, what: str, operation: str, volume: str = "") -> Iterator[None]:
        """Raise the errors of both modules as those of the contract."""
        fields = {"backend": self.backend, "operation": operation, "volume": volume}
        try:
            yield
        except DriverError:
            raise
        except self.rbd.ImageNotFound as error:
            raise NotFound(f"{what}: there is no such image.", **fields) from error
        except self.rbd.ImageExists as error:
            raise AlreadyExists(
                f"{what}: an image of that name exists.", remedy="Nothing was changed.", **fields
            ) from error
        except (self.rbd.ImageBusy, self.rbd.ImageHasSnapshots) as error:
            raise InUse(f"{what}: {error}.", **fields) from error
        except (self.rados.Error, self.rbd.Error, OSError) as error:
            number = abs(getattr(error, "errno", 0) or 0)
            if number == errno.ETIMEDOUT:
                raise TimedOut(
                    f"{what}: the cluster has not answered in time.",
                    remedy="The step is tried again by itself. See `ceph status`.",
                    **fields,
                ) from error
            if number in (errno.EPERM, errno.EACCES):
                raise NotPermitted(
                    f"{what} was refused by the cluster.",
                    remedy="See `ceph auth get` for what the client may do; docs/drivers.md lists what it needs.",
                    **fields,
                ) from error
            if number == errno.ESHUTDOWN:
                raise ConnectionLost(f"{what}: the cluster has fenced this client.", **fields) from error
            if number == errno.ENOENT:
                raise NotReady(f"{what} failed: {error}.", **fields) from error
            if not number:
                raise Permanent(f"{what} failed: {error}.", **fields) from error
            raise translate_os_error(OSError(number, str(error)), what, **fields) from error
