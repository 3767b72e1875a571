"""What the inventory refuses."""

from __future__ import annotations

from backends.drivers.errors import VolmigError


class InventoryRefused(VolmigError):
    """The inventory cannot do that now; the text says why and what to do."""

    code = "refused"


class VolumeBusy(InventoryRefused):
    """The volume is in a state in which this may not be done."""

    code = "volume_busy"


class UnknownName(InventoryRefused):
    """There is nothing of that name; the text lists what there is."""

    code = "unknown"
