"""
A driver for an array with a REST interface that moves its own volumes: the example of docs/writing-a-driver.md.

The tests run it through the conformance suite, against a small array of their own (`tests/rest_array.py`).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from backends.drivers.base import Driver
from backends.drivers.errors import (
    AlreadyExists,
    ConnectionLost,
    DriverError,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
    Permanent,
    TimedOut,
    Transient,
)
from backends.drivers.nbd_port import NbdPort
from backends.drivers.options import Options, option
from backends.drivers.ports import Port
from backends.drivers.served_port import opened
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

_ANSWER_SECONDS = 20.0

# -- talking to the array ---------------------------------------------------------------------------------------

_ERRORS: dict[int, type[DriverError]] = {
    401: NotPermitted,
    403: NotPermitted,
    404: NotFound,
    409: AlreadyExists,
    423: InUse,
    429: Transient,
    503: Transient,
    507: NoSpace,
}


@dataclass(frozen=True)
class ArrayOptions(Options):
    """Options of the array's driver."""

    url: str = option("Address of the array's interface.", example="https://array.example.com/api")
    token: str = option("Token of the array's user for volmig.", secret=True)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: '{self.url}' is no address of a REST interface")


class ArrayDriver(Driver):
    """The pools of one array."""

    name = "array"
    label = "An array with a REST interface"
    storage_protocol = "nbd"
    options_class = ArrayOptions
    capabilities = Capabilities(
        thin=Support.NATIVE,
        reads_zero_when_new=True,
        move=Support.NATIVE,
        usage_detection=Support.NATIVE,
        is_shared=True,
    )

    def _ask(self, operation: str, volume: str, method: str, *path: str, **body: object) -> Any:
        """Return the array's answer; the one place where its errors are translated."""
        fields = {"backend": self.context.backend, "operation": operation, "volume": volume}
        where = "/".join(urllib.parse.quote(part, safe="") for part in path)
        what = f"{method} /{where} on {self.options.url}"
        request = urllib.request.Request(  # noqa: S310 - the options allow nothing but http
            f"{self.options.url}/{where}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {self.options.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            kind = _ERRORS.get(error.code, Permanent)
            said = error.read(300).decode(errors="replace").strip()
            raise kind(f"{what} failed: {said} ({error.code}).", **fields) from error
        except TimeoutError as error:
            raise TimedOut(f"{what} was not answered in {_ANSWER_SECONDS:.0f} seconds.", **fields) from error
        except OSError as error:
            raise ConnectionLost(f"{what} failed: {error}.", **fields) from error

    # -- pools and volumes ------------------------------------------------------------------------------------

    def check(self) -> None:
        for pool in self.pools():
            if self.context.known_storage_ids.get(pool.name, pool.storage_id) != pool.storage_id:
                raise NotReady(f"Pool '{pool.name}' is on another array than the one that was registered.")

    def pools(self) -> list[PoolStats]:
        array = self._ask("pools", "", "GET", "array")
        return [self._stats(array["serial"], pool) for pool in array["pools"]]

    def _stats(self, serial: str, pool: Mapping[str, Any]) -> PoolStats:
        return PoolStats(
            name=pool["name"],
            storage_id=f"{serial}/{pool['name']}",
            total_bytes=pool["total_bytes"],
            free_bytes=pool["free_bytes"],
            provisioned_bytes=pool["provisioned_bytes"],
            volume_count=pool["volume_count"],
            thin_provisioning_support=True,
            thick_provisioning_support=False,
            location_info={"driver": self.name, "version": 1, "array": serial, "pool": pool["name"]},
        )

    def _list_volumes(self, pool: str) -> Iterator[StoredVolume]:
        return iter([_stored(found) for found in self._ask("list_volumes", "", "GET", "volumes", pool)])

    def _describe(self, pool: str, name: str) -> StoredVolume:
        return _stored(self._ask("describe", name, "GET", "volumes", pool, name))

    def _create(self, pool: str, name: str, size_bytes: int, thin: bool) -> StoredVolume:
        return _stored(self._ask("create", name, "PUT", "volumes", pool, name, size_bytes=size_bytes))

    def _delete(self, pool: str, name: str) -> None:
        self._ask("delete", name, "DELETE", "volumes", pool, name)

    def _rename(self, pool: str, name: str, new_name: str) -> None:
        self._ask("rename", name, "PATCH", "volumes", pool, name, name=new_name)

    def _extend(self, pool: str, name: str, size_bytes: int) -> StoredVolume:
        return _stored(self._ask("extend", name, "PATCH", "volumes", pool, name, size_bytes=size_bytes))

    def _usage(self, pool: str, name: str) -> list[Usage]:
        found = self._ask("usage", name, "GET", "volumes", pool, name)
        return [Usage(f"host {host}", "is mapped to it") for host in found["hosts"]]

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self, pool: str, name: str, mode: OpenMode) -> Port:
        size_bytes = self._describe(pool, name).size_bytes
        is_exclusive = mode is not OpenMode.VERIFY
        # The array ends an export when its client is gone, so that a killed worker leaves nothing.
        export = self._ask(
            *("open", name, "POST", "exports", pool, name),
            is_read_only=mode is not OpenMode.WRITE,
            is_exclusive=is_exclusive,
        )
        resources = ExitStack()
        resources.callback(self._end_export, export["id"])

        def connect(_: ExitStack) -> Port:
            return NbdPort(
                export["uri"], mode, shown=name, backend=self.context.backend, reads_zero_when_new=True
            )

        return opened(connect, size_bytes, resources, is_exclusive=is_exclusive)

    def _end_export(self, number: str) -> None:
        # What cannot be ended now ends by itself.
        with suppress(DriverError):
            self._ask("close", "", "DELETE", "exports", number)

    # -- moves that the array makes ---------------------------------------------------------------------------

    @classmethod
    def plan_move(cls, source: Mapping[str, Any], destination: Mapping[str, Any]) -> MovePlan | Declined:
        if any((info.get("driver"), info.get("version")) != (cls.name, 1) for info in (source, destination)):
            return Declined("One of the two pools is not on such an array.")
        if source["array"] != destination["array"]:
            return Declined("The pools are on two arrays.")
        if source["pool"] == destination["pool"]:
            return Declined("Source and destination are the same pool.")
        return MovePlan(how="copy inside the array", keeps_source=True, is_instant=False)

    def _start_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus | Declined:
        here = next(stats for stats in self.pools() if stats.name == pool)
        plan = self.plan_move(here.location_info, destination)
        if isinstance(plan, Declined):
            return plan
        return self._look(plan, pool, name, destination_pool, new_name, may_start=True)

    def poll_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> MoveStatus:
        plan = MovePlan(how="copy inside the array", keeps_source=True, is_instant=False)
        return self._look(plan, pool, name, destination_pool, new_name, may_start=False)

    def _look(
        self, plan: MovePlan, pool: str, name: str, destination_pool: str, new_name: str, *, may_start: bool
    ) -> MoveStatus:
        source = self._describe(pool, name)
        if self._is_finished(source, destination_pool, new_name):
            return MoveStatus(
                plan, is_finished=True, done_bytes=source.size_bytes, total_bytes=source.size_bytes
            )
        # The task has a name that the next worker can make up again, too.
        path = ("tasks", f"volmig-{new_name}")
        task = {"state": "none"}
        with suppress(NotFound):
            task = self._ask("start_move", name, "GET", *path)
        if task["state"] in ("none", "failed") and may_start:
            where = {"source_pool": pool, "source": name, "pool": destination_pool, "name": new_name}
            task = self._ask("start_move", name, "PUT", *path, **where)
        if task["state"] != "running":
            if self._is_finished(source, destination_pool, new_name):
                return self._look(plan, pool, name, destination_pool, new_name, may_start=False)
            raise ConnectionLost(f"The array has given up the move of '{name}': {task.get('error', '')}.")
        return MoveStatus(
            plan, is_finished=False, done_bytes=task["done_bytes"], total_bytes=source.size_bytes
        )

    def _is_finished(self, source: StoredVolume, destination_pool: str, new_name: str) -> bool:
        try:
            found = self._ask("start_move", new_name, "GET", "volumes", destination_pool, new_name)
        except NotFound:
            return False
        if found["copied_from"] != source.identity:
            raise AlreadyExists(f"There is another volume '{new_name}' in pool '{destination_pool}'.")
        return True

    def cancel_move(
        self, pool: str, name: str, destination: Mapping[str, Any], destination_pool: str, new_name: str
    ) -> None:
        with suppress(NotFound):
            # The array answers when nothing works on it any more.
            self._ask("cancel_move", name, "DELETE", "tasks", f"volmig-{new_name}")
        with suppress(NotFound, AlreadyExists):
            if self._is_finished(self._describe(pool, name), destination_pool, new_name):
                self._delete(destination_pool, new_name)


def _stored(found: Mapping[str, Any]) -> StoredVolume:
    return StoredVolume(found["name"], found["size_bytes"], found["allocated_bytes"], found["identity"])
