"""
What can go wrong, by what the caller may do about it.

The class decides (retry or not), the fields inform, the text is for people: what was tried, on what, what came
back, what to do.
"""

from __future__ import annotations


class VolmigError(Exception):
    """Everything that this project raises on purpose."""


class DriverError(VolmigError):
    """
    A driver could not do what it was asked.

    Args:
        message: One sentence for the administrator.
        backend: `host@backend` that was asked, when known.
        operation: The contract's name for what was tried, such as `create`.
        volume: Name of the volume on the storage.
        remedy: What the administrator can do about it.
    """

    default_remedy = ""

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        operation: str = "",
        volume: str = "",
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.backend = backend
        self.operation = operation
        self.volume = volume
        self.remedy = self.default_remedy if remedy is None else remedy

    @property
    def code(self) -> str:
        """Stable name of the kind of error, for JSON: `NoSpace` is `no_space`."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    def __str__(self) -> str:
        where = f"[{self.backend}] " if self.backend else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class Transient(DriverError):
    """Trying again may help."""


class ConnectionLost(Transient):
    """The storage went away; nothing is known to be wrong with the volume."""

    default_remedy = "The step is tried again by itself."


class TimedOut(Transient):
    """No answer in time: the outcome is unknown; look, then go on."""

    default_remedy = "The step is tried again by itself."


class HostAway(Transient):
    """
    The worker of the host that reaches the storage is not there: nothing was done, nothing is wrong.

    No failure of what was tried: it is waited for.
    """

    default_remedy = "Start `manage.py volmig_worker` there."


class InUse(Transient):
    """Somebody else holds the volume at this moment."""

    default_remedy = "Stop what uses the volume, then try again."


class Permanent(DriverError):
    """Trying the same again will fail the same."""


class NotFound(Permanent):
    """There is no volume of that name."""


class AlreadyExists(Permanent):
    """There is another volume of that name."""


class NoSpace(Permanent):
    """The pool is full."""

    default_remedy = "Free room in the pool or choose another destination."


class NotPermitted(Permanent):
    """The storage refuses: read-only, wrong credentials, missing rights."""

    default_remedy = "Check the rights of the volmig user and whether the pool is writable."


class Unsupported(Permanent):
    """The driver does not do this."""


class CorruptData(Permanent):
    """The storage returned an input/output error, or data that cannot be right."""

    default_remedy = "Check the device and the kernel log of the host."


class NotReady(Permanent):
    """The backend cannot be used as it is configured: a missing directory, a file system that is not mounted."""


class BadOptions(Permanent):
    """The driver options are wrong; the message names each wrong option."""
