"""Drivers by name.  A driver's module is imported when it is first asked for."""

from __future__ import annotations

import importlib

from backends.drivers.base import Driver
from backends.drivers.errors import BadOptions

_DRIVERS = {
    "directory": "backends.drivers.directory:DirectoryDriver",
    "fake": "backends.drivers.fake:FakeDriver",
    "iscsi": "backends.drivers.iscsi:IscsiDriver",
    "lvm": "backends.drivers.lvm:LvmDriver",
    "qcow2": "backends.drivers.qcow2:Qcow2Driver",
    "rbd": "backends.drivers.rbd:RbdDriver",
}


def driver_names() -> list[str]:
    """Return the names of all drivers, sorted."""
    return sorted(_DRIVERS)


def driver_class(name: str) -> type[Driver]:
    """
    Return the driver called *name*.

    Raises:
        BadOptions: There is none; the message lists those that there are.
    """
    try:
        module_name, class_name = _DRIVERS[name].split(":")
    except KeyError:
        raise BadOptions(f"There is no driver '{name}'. There are: {', '.join(driver_names())}.") from None
    return getattr(importlib.import_module(module_name), class_name)
