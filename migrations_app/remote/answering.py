"""What one child of the attendant does: one call of the driver contract, with the real driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django.db.models.functions import Now

from backends import services as inventory
from backends.drivers.base import Driver
from migrations_app.models import RemoteCall
from migrations_app.remote import exporting
from migrations_app.remote.rights import check_right
from migrations_app.remote.values import pack, pack_error
from migrations_app.saga.step import LeaseLost

logger = logging.getLogger(__name__)

_State = RemoteCall.State

#: Operations and what is called for them.  Only what stands here can be asked of a host.
OPERATIONS: dict[str, Callable[[Driver, Mapping[str, Any]], Any]] = {
    "check": lambda driver, a: driver.check(),
    "pools": lambda driver, a: driver.pools(),
    "list_volumes": lambda driver, a: list(driver.list_volumes(a["pool"])),
    "describe": lambda driver, a: driver.describe(a["pool"], a["name"]),
    "usage": lambda driver, a: driver.usage(a["pool"], a["name"]),
    "snapshots": lambda driver, a: driver.snapshots(a["pool"], a["name"]),
    "create": lambda driver, a: driver.create(a["pool"], a["name"], a["size_bytes"], thin=a["thin"]),
    "ensure": lambda driver, a: driver.ensure(a["pool"], a["name"], a["size_bytes"], thin=a["thin"]),
    "delete": lambda driver, a: driver.delete(a["pool"], a["name"]),
    "rename": lambda driver, a: driver.rename(a["pool"], a["name"], a["new_name"]),
    "extend": lambda driver, a: driver.extend(a["pool"], a["name"], a["size_bytes"]),
    "create_snapshot": lambda driver, a: driver.create_snapshot(a["pool"], a["name"], a["snapshot"]),
    "delete_snapshot": lambda driver, a: driver.delete_snapshot(a["pool"], a["name"], a["snapshot"]),
}


def answer(call: RemoteCall) -> None:
    """
    Do what *call* asks and write down what came of it.  Never raises for what the storage says.

    The right is looked at right before the driver is called.
    """
    try:
        check_right(call)
        if call.operation == "open":
            exporting.serve(call)
            end(call)
            return
        with inventory.make_driver(call.backend) as driver:
            result = OPERATIONS[call.operation](driver, call.arguments)
    except LeaseLost as error:
        logger.warning("%s for migration %s: %s", call, call.migration_id, error)
        end(call, error)
    except Exception as error:
        logger.info("%s for migration %s: %s", call, call.migration_id, error, exc_info=True)
        end(call, error)
    else:
        end(call, result=result)


def end(call: RemoteCall, error: BaseException | None = None, result: Any = None) -> None:
    """Write the end of *call*, if nobody has done so; what it has said before is kept."""
    fields: dict[str, Any] = {"state": _State.ENDED, "ended_at": Now(), "secret": ""}
    if error is not None and not RemoteCall.objects.filter(pk=call.pk, error__isnull=False).exists():
        fields["error"] = pack_error(error, call.host)
    if result is not None:
        fields["result"] = pack(result)
    RemoteCall.objects.filter(pk=call.pk).exclude(state=_State.ENDED).update(**fields)
