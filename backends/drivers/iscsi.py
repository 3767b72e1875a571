"""LUNs of an iSCSI target that somebody else runs: adopted, read, and migrated away."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from backends.drivers import iscsi_luns
from backends.drivers.base import Driver
from backends.drivers.commands import run_command
from backends.drivers.errors import (
    ConnectionLost,
    DriverError,
    InUse,
    NotFound,
    NotPermitted,
    NotReady,
    TimedOut,
    Unsupported,
)
from backends.drivers.nbd_port import NbdPort
from backends.drivers.nbd_server import ServerEnded, qemu_nbd
from backends.drivers.options import Options, option
from backends.drivers.ports import Port
from backends.drivers.qemu_img import qemu_error
from backends.drivers.served_port import opened
from backends.drivers.types import Capabilities, OpenMode, PoolStats, StoredVolume, Support, Usage

_POOL = "luns"
_PACKAGE = "libiscsi-bin"
_NAME = re.compile(r"lun-(\d{1,5})")
_PORTAL = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")
# RFC 3721 and 3722: iqn., eui. and naa. names.
_IQN = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9.:-]{1,219}")
# libiscsi tries to connect for ever.
_TOOL_SECONDS = 15.0

# What libiscsi and QEMU say, and what it means.  The first that fits counts.
_MEANINGS: tuple[tuple[type[DriverError], str], ...] = (
    (NotPermitted, "Authentication failure"),
    (NotPermitted, "Authorization failure"),
    (NotReady, "Target not found"),
    (InUse, "reservation conflict"),
    (InUse, "RESERVATION"),
    (NotFound, "LOGICAL_UNIT_NOT_SUPPORTED"),
    (NotFound, "LUN"),
    (ConnectionLost, "Failed to connect"),
    (ConnectionLost, "failed to connect"),
    (ConnectionLost, "Connection refused"),
    (ConnectionLost, "timed out"),
)


@dataclass(frozen=True)
class IscsiOptions(Options):
    """Options of the iSCSI driver."""

    portal: str = option("Address of the target, HOST or HOST:PORT.", example="192.0.2.10:3260")
    iqn: str = option("Name of the target.", example="iqn.2026-01.com.example:array1")
    chap_user: str = option("CHAP user; empty when the target asks for none.", default="")
    chap_secret: str = option("CHAP secret.", default="", secret=True)

    def __post_init__(self) -> None:
        problems = []
        if not _PORTAL.fullmatch(self.portal):
            problems.append(f"portal: '{self.portal}' is no address, such as 192.0.2.10:3260")
        if not _IQN.fullmatch(self.iqn):
            problems.append(
                f"iqn: '{self.iqn}' is no name of a target, such as iqn.2026-01.com.example:array1"
            )
        if bool(self.chap_user) != bool(self.chap_secret):
            problems.append("chap_user and chap_secret belong together")
        if problems:
            raise ValueError("; ".join(problems))


class IscsiDriver(Driver):
    """
    The LUNs of one target, one pool; the LUN 3 is the volume `lun-3`.

    A target has no commands for making and deleting LUNs, and nobody can tell whether another host uses one:
    volumes are adopted here, and migrated away.  Their end on the array is for its administrator.
    """

    name = "iscsi"
    label = "LUNs of an iSCSI target (sources only)"
    storage_protocol = "iSCSI"
    options_class = IscsiOptions
    capabilities = Capabilities(usage_detection=Support.NONE)

    # -- the backend -----------------------------------------------------------------------------------------

    def check(self) -> None:
        for number in self._luns("check")[:1]:
            # With another program than the list.
            self._size(number, "check")

    def pools(self) -> list[PoolStats]:
        luns = self._luns("pools")
        sizes = [self._size(number, "pools") for number in luns]
        storage_id = f"{self.options.iqn}@{self._portal}"
        return [
            PoolStats(
                name=_POOL,
                storage_id=storage_id,
                total_bytes=sum(sizes),
                free_bytes=0,
                provisioned_bytes=sum(sizes),
                volume_count=len(luns),
                thin_provisioning_support=False,
                thick_provisioning_support=True,
                # Nothing can be made here, so that the scheduler never chooses it.
                is_read_only=True,
                location_info={"driver": self.name, "version": 1, "storage_id": storage_id},
            )
        ]

    @property
    def _portal(self) -> str:
        portal = self.options.portal
        return portal if re.search(r":\d+$", portal) else f"{portal}:3260"

    def _url(self, rest: str = "") -> str:
        return f"iscsi://{self._portal}/{rest}"

    @property
    def _secret(self) -> dict[str, str]:
        """
        Where libiscsi finds the secret: every user of the host can read a URL among the arguments.

        Source: libiscsi, `iscsi_parse_url`.
        """
        if not self.options.chap_secret:
            return {}
        return {
            "LIBISCSI_CHAP_USERNAME": self.options.chap_user,
            "LIBISCSI_CHAP_PASSWORD": self.options.chap_secret,
        }

    def _luns(self, operation: str) -> list[int]:
        """Return the numbers of the target's LUNs that are disks."""
        command = [sys.executable, "-P", iscsi_luns.__file__, self._url(f"{self.options.iqn}/0")]
        said = self._tool(operation, "", *command, what="REPORT LUNS")
        return [int(number) for number in said.split()]

    def _size(self, number: int, operation: str) -> int:
        url = self._url(f"{self.options.iqn}/{number}")
        said = self._tool(operation, f"lun-{number}", "iscsi-readcapacity16", url)
        match = re.search(r"Total size:\s*(\d+)", said)
        if match is None:
            raise NotFound(f"The LUN {number} does not say how large it is.", **self._fields(operation))
        return int(match[1])

    def _tool(self, operation: str, volume: str, *command: str, what: str = "") -> str:
        """Return what the command printed; *what* is its name in the messages, if not that of the program."""
        what = what or f"`{command[0]}`"
        try:
            finished = run_command(
                command,
                timeout_seconds=_TOOL_SECONDS,
                package=_PACKAGE,
                environment=self._secret,
                **self._fields(operation, volume),
            )
        except TimedOut as error:
            raise TimedOut(
                f"The portal {self._portal} has not answered {what} within {_TOOL_SECONDS:.0f} seconds.",
                remedy="The step is tried again by itself. Check the target, and the network to it.",
                **self._fields(operation, volume),
            ) from error
        if finished.status:
            raise self._error(what, finished.said, operation, volume)
        return finished.stdout

    def _error(self, what: str, said: str, operation: str, volume: str) -> DriverError:
        kind = next((kind for kind, text in _MEANINGS if text in said), ConnectionLost)
        if kind is NotPermitted:
            why = (
                f"it does not know the CHAP user '{self.options.chap_user}' with this secret"
                if self.options.chap_user
                else "it asks for a CHAP user and secret, and the backend has none"
            )
            return NotPermitted(
                f"{what}: the target at {self._portal} refused the login: {why} (Authentication failure).",
                remedy="Correct the options 'chap_user' and 'chap_secret', or the target's access list.",
                **self._fields(operation, volume),
            )
        if iscsi_luns.LIBRARY in said:
            return NotReady(
                f"The library '{iscsi_luns.LIBRARY}' is not on this host.",
                remedy=f"On Debian: apt-get install {_PACKAGE}",
                **self._fields(operation, volume),
            )
        if kind is NotReady:
            return NotReady(
                f"The portal {self._portal} has no target '{self.options.iqn}'.",
                remedy="Correct the option 'iqn', or let the target show itself to this host.",
                **self._fields(operation, volume),
            )
        if "Unknown protocol" in said:
            # From QEMU.
            return qemu_error(what, said, self._fields(operation, volume))
        return kind(f"{what} on {self._portal} failed: {said}", **self._fields(operation, volume))

    # -- volumes ---------------------------------------------------------------------------------------------

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        self._require_pool(pool, "list_volumes")
        return iter([self._stored(number, "list_volumes") for number in self._luns("list_volumes")])

    def _stored(self, number: int, operation: str) -> StoredVolume:
        url = self._url(f"{self.options.iqn}/{number}")
        said = self._tool(operation, f"lun-{number}", "iscsi-inq", "--evpd", "1", "--pagecode", "131", url)
        # The designators of the device, which no two devices share.  Source: SPC-4, page 83h.
        designators = re.findall(r"^Designator:\s*\[([ -~]+)\]", said, re.MULTILINE)
        identity = " ".join([f"{self.options.iqn}/{number}", *sorted(designators)])
        return StoredVolume(f"lun-{number}", self._size(number, operation), None, identity)

    def _number(self, pool: str, name: str, operation: str) -> int:
        self._require_pool(pool, operation, name)
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) not in self._luns(operation):
            raise NotFound(f"The target has no '{name}'.", **self._fields(operation, name))
        return int(match[1])

    def _describe(self, pool: str, name: str) -> StoredVolume:
        return self._stored(self._number(pool, name, "describe"), "describe")

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        raise self._cannot("make", "create", name)

    def _delete(self, pool: str, name: str) -> None:
        self._number(pool, name, "delete")
        raise self._cannot("delete", "delete", name)

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        self._number(pool, name, "rename")
        raise self._cannot("rename", "rename", name)

    def _cannot(self, what: str, operation: str, name: str) -> Unsupported:
        return Unsupported(
            f"A plain iSCSI target cannot {what} LUNs.",
            remedy="Do it on the array." if operation != "create" else "Choose another destination.",
            **self._fields(operation, name),
        )

    def _usage(self, pool: str, name: str) -> list[Usage]:
        self._number(pool, name, "usage")
        return []

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        number = self._number(pool, name, "open")
        if mode is OpenMode.WRITE:
            raise Unsupported("LUNs are sources only.", **self._fields("open", name))
        size_bytes = self._size(number, "open")
        shown = f"{self._portal}/{self.options.iqn}/{number}"

        def serve(stack: ExitStack) -> Port:
            url = self._url(f"{self.options.iqn}/{number}")
            server = stack.enter_context(qemu_nbd(url, is_read_only=True, environment=self._secret))
            return NbdPort(server.uri, mode, shown=shown, backend=self.context.backend, volume=name)

        try:
            return opened(serve, size_bytes, ExitStack(), is_exclusive=False)
        except ServerEnded as error:
            raise self._error(f"Opening {shown}", error.message, "open", name) from error

    # -- shared ----------------------------------------------------------------------------------------------

    def _require_pool(self, pool: str, operation: str, name: str = "") -> None:
        if pool != _POOL:
            raise NotReady(
                f"There is no pool '{pool}'; the pool is '{_POOL}'.", **self._fields(operation, name)
            )

    def _fields(self, operation: str, name: str = "") -> dict[str, str]:
        return {"backend": self.context.backend, "operation": operation, "volume": name}
