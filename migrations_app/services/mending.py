"""Do everything that the doctor finds safe to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from backends import services as inventory
from backends.drivers.errors import DriverError
from migrations_app.services.actors import Actor
from migrations_app.services.doctor import Finding, examine, mend

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mended:
    """
    `remaining` has, beside each difference, why it could not be mended; empty when a person must look at it, or when
    it was not chosen.
    """

    mended: list[Finding] = field(default_factory=list)
    remaining: list[tuple[Finding, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "mended": [f.as_dict() for f in self.mended],
            "remaining": [{**f.as_dict(), "error": error} for f, error in self.remaining],
        }


def mend_all(
    actor: Actor, host: str | None = None, *, is_chosen: Callable[[Finding], bool] | None = None
) -> Mended:
    """
    Mend what is safe on *host* (this one) and return what was mended and what remains.

    Args:
        is_chosen: Mend only those for which it is true; all when it is left out.

    What was gone when it was looked at again is in neither list.  Safe to repeat: yes.

    Raises:
        InventoryRefused: *host* is another one; its storage can only be judged from there.
    """
    host = host or settings.VOLMIG_HOST
    if host != settings.VOLMIG_HOST:
        raise inventory.InventoryRefused(
            f"What lies on the pools of host '{host}' can be mended there only (this is '{settings.VOLMIG_HOST}')."
        )
    result = Mended()
    for finding in examine(host):
        if not finding.is_safe or (is_chosen is not None and not is_chosen(finding)):
            result.remaining.append((finding, ""))
            continue
        try:
            if mend(finding):
                logger.info("mended for %s: %s %s", actor.name, finding.text, finding.proposal)
                result.mended.append(finding)
        except DriverError as error:
            result.remaining.append((finding, str(error)))
    return result
