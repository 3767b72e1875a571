"""Whether a call of another host may still change something: the lease, looked at from the side that is asked."""

from __future__ import annotations

import threading
from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from backends.drivers.errors import NotPermitted
from migrations_app.lease import boot_time
from migrations_app.models import RemoteCall, VolumeMigration
from migrations_app.saga.step import LeaseLost

#: What may be asked without a migration: it changes nothing.
LOOKING = frozenset({"check", "pools", "list_volumes", "describe", "usage", "snapshots"})


def lease_left(call: RemoteCall) -> float:
    """Return for how many seconds the lease under which *call* was made still runs; 0 when it is over."""
    row = (
        VolumeMigration.objects.filter(pk=call.migration_id, epoch=call.epoch, lease_expires_at__gt=Now())
        .annotate(left=ExpressionWrapper(F("lease_expires_at") - Now(), output_field=DurationField()))
        .values_list("left", flat=True)
        .first()
    )
    return max(row or timedelta(0), timedelta(0)).total_seconds()


def check_right(call: RemoteCall) -> None:
    """
    Return when *call* may be done.

    Raises:
        NotPermitted: It would change something without a migration.
        LeaseLost: Its migration is worked on by somebody else by now.
    """
    if call.operation in LOOKING:
        return
    if call.migration_id is None:
        raise NotPermitted(
            f"'{call.operation}' was asked of host '{call.host}' without a migration.",
            operation=call.operation,
            remedy="Do it on that host.",
        )
    if not lease_left(call):
        raise _lost(call)


def _lost(call: RemoteCall) -> LeaseLost:
    return LeaseLost(f"Migration {call.migration_id} is worked on by somebody else.")


class RemoteFence:
    """
    The lease of another host's worker, as the process that writes for it sees it.

    `renew` looks at the database; `check` only at this host's clock, so that it can be asked before each block, and so
    that nothing is written once the lease has run out even when the database cannot be reached.
    """

    def __init__(self, call: RemoteCall) -> None:
        self._call = call
        self._is_lost = threading.Event()
        self._ends_at = 0.0

    def renew(self) -> None:
        """Look at the lease.  Raises `LeaseLost`."""
        asked_at = boot_time()
        left = lease_left(self._call)
        if not left:
            self._is_lost.set()
            raise _lost(self._call)
        self._ends_at = asked_at + left

    def check(self) -> None:
        """Return while the lease surely runs.  Raises `LeaseLost`."""
        if self._is_lost.is_set() or boot_time() >= self._ends_at:
            self._is_lost.set()
            raise _lost(self._call)
