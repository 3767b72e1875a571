"""Refusals: what an administrator asked for cannot be done now, with every reason."""

from __future__ import annotations

from collections.abc import Sequence

from backends.drivers.errors import VolmigError
from migrations_app.scheduler.types import Reason


class RequestRefused(VolmigError):
    """
    The request was refused before anything was made.

    `reasons` has every cause, each with a code, a sentence and what would mend it.
    """

    code = "refused"
    title = "Refused"

    def __init__(self, message: str, reasons: Sequence[Reason] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        return " ".join([self.message, *(r.text for r in self.reasons)])


class Busy(RequestRefused):
    """Somebody else was first."""

    code = "busy"
    title = "Busy"


class NoValidPool(RequestRefused):
    """The volume may not go there."""

    code = "no_valid_pool"
    title = "The volume cannot go there"


class UnknownDestination(RequestRefused):
    """There is no such backend or pool."""

    code = "unknown_destination"
    title = "Unknown destination"


class KeyReused(RequestRefused):
    """The same idempotency key was sent with another request."""

    code = "key_reused"
    title = "The key belongs to another request"


class NotNow(RequestRefused):
    """The migration is in a state in which this cannot be done."""

    code = "not_now"
    title = "Not in this state"
