"""Ask another host's worker, and wait for what it answers: the side that has the question."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Coalesce, Now

from backends import secrets
from backends.drivers.errors import HostAway, TimedOut
from backends.models import Backend
from migrations_app import hosts
from migrations_app.models import RemoteCall
from migrations_app.remote.values import unpack_error

_State = RemoteCall.State

# The first answers come within milliseconds; a long wait need not ask often.
_SHORTEST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.3
_LOOK_FOR_HOST_SECONDS = 2.0
#: What has ended is of no use after this.
_KEPT_SECONDS = 3600
_CLOSING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Right:
    """
    The right to change something: a migration under the epoch of its lease.

    `guard` is called while an answer is waited for; it raises when the asker must stop waiting.
    """

    migration_id: UUID
    epoch: int
    guard: Callable[[], None] = lambda: None


def ask(
    backend: Backend,
    operation: str,
    arguments: Mapping[str, Any],
    right: Right | None,
    *,
    secret: Mapping[str, Any] | None = None,
) -> RemoteCall:
    """
    Return the call as it was answered: ended, or serving an opened volume.

    Raises:
        HostAway: The other host's worker is not running, or has not taken the call in time; nothing was done.
        TimedOut: It took the call and fell silent; the outcome is unknown.
        DriverError: What the driver there says, with its words.
        LeaseLost: The migration is worked on by somebody else.
    """
    if not hosts.is_alive(backend.host):
        raise _away(backend, hosts.absence_text(backend.host))
    if connection.in_atomic_block:
        # The other host would not see the row, and on SQLite could not answer.
        raise RuntimeError(f"'{operation}' was asked of another host inside a transaction.")
    call = RemoteCall.objects.create(
        host=backend.host,
        backend=backend,
        operation=operation,
        arguments=dict(arguments),
        secret=secrets.seal(dict(secret or {})),
        migration_id=right.migration_id if right else None,
        epoch=right.epoch if right else 0,
        asked_by=settings.VOLMIG_HOST,
        asked_at=Now(),
    )
    try:
        return _wait(call, backend, right)
    except BaseException:
        # Nobody waits for the answer any more: what was not begun is not begun, what is served is closed.
        withdraw(call)
        raise


def _wait(call: RemoteCall, backend: Backend, right: Right | None) -> RemoteCall:
    pause, looked_at = _SHORTEST_PAUSE_SECONDS, time.monotonic()
    while True:
        call.refresh_from_db()
        if call.state == _State.ENDED:
            if call.error:
                raise unpack_error(call.error)
            return call
        if call.state == _State.SERVING:
            return call
        if right is not None:
            right.guard()
        if time.monotonic() - looked_at > _LOOK_FOR_HOST_SECONDS:
            looked_at = time.monotonic()
            _look_for_host(call, backend)
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 1.3)


def _look_for_host(call: RemoteCall, backend: Backend) -> None:
    seconds = settings.VOLMIG_SILENCE_SECONDS
    limit = Now() - timedelta(seconds=seconds)
    rows = RemoteCall.objects.filter(pk=call.pk).annotate(last=Coalesce("heard_at", "asked_at"))
    is_silent = rows.filter(last__lt=limit).exists()
    if call.state == _State.RUNNING and is_silent:
        raise TimedOut(
            f"The worker of host '{backend.host}' has fallen silent for {seconds} s during '{call.operation}'.",
            backend=backend.address,
            operation=call.operation,
            remedy="The step is tried again by itself. Look at that host's worker.",
        )
    if call.state != _State.ASKED:
        return
    if is_silent:
        raise _away(backend, f"The worker of host '{backend.host}' has not answered for {seconds} s.")
    if not hosts.is_alive(backend.host):
        raise _away(backend, hosts.absence_text(backend.host))


def _away(backend: Backend, text: str) -> HostAway:
    return HostAway(
        text,
        backend=backend.address,
        remedy=f"Start `manage.py volmig_worker` on host '{backend.host}'; the work then goes on by itself.",
    )


def withdraw(call: RemoteCall) -> None:
    """Tell the other host that the answer, or what it serves, is not wanted any more.  Safe to repeat: yes."""
    RemoteCall.objects.filter(pk=call.pk).update(is_wanted=False)
    RemoteCall.objects.filter(pk=call.pk, state=_State.ASKED).update(
        state=_State.ENDED, ended_at=Now(), secret=""
    )


def close(call: RemoteCall) -> None:
    """Return when the volume is served no more, or after a while: then it ends with the lease."""
    withdraw(call)
    ends_at = time.monotonic() + _CLOSING_SECONDS
    while time.monotonic() < ends_at:
        if not RemoteCall.objects.filter(pk=call.pk).exclude(state=_State.ENDED).exists():
            return
        time.sleep(_SHORTEST_PAUSE_SECONDS)


def is_over(call: RemoteCall) -> bool:
    """Tell whether the volume is served no more: it was said so, or nobody has said anything for too long."""
    limit = Now() - timedelta(seconds=settings.VOLMIG_SILENCE_SECONDS)
    return not RemoteCall.objects.filter(pk=call.pk, state=_State.SERVING, heard_at__gte=limit).exists()


def what_went_wrong(call: RemoteCall) -> Exception | None:
    """Return why the other host does not serve the volume any more, in its own words; `None` when it did not say."""
    row = RemoteCall.objects.filter(pk=call.pk).values("error").first()
    return unpack_error(row["error"]) if row and row["error"] else None


def forget_old_calls() -> int:
    """Delete the calls that ended long ago, and those of hosts that do not come back; return how many."""
    old = Now() - timedelta(seconds=_KEPT_SECONDS)
    never = Now() - timedelta(seconds=24 * _KEPT_SECONDS)
    rows = RemoteCall.objects.annotate(last=Coalesce("heard_at", "asked_at"))
    return rows.filter(Q(state=_State.ENDED, ended_at__lt=old) | Q(last__lt=never)).delete()[0]
