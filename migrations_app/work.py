"""One worker's work on one migration: its drivers, its lease, its limits, and what a frozen worker still holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.db.models.functions import Now

from backends import services as inventory
from backends.drivers.base import Driver
from backends.drivers.errors import InUse
from backends.drivers.ports import Port
from backends.drivers.types import OpenMode
from migrations_app.copying import engine
from migrations_app.copying.io_limit import limit_disk
from migrations_app.copying.progress import Progress
from migrations_app.copying.throttle import Throttle
from migrations_app.draining import is_draining
from migrations_app.journal import DatabaseJournal
from migrations_app.lease import Lease, Wishes, end_frozen, process_of
from migrations_app.models import VolumeMigration
from migrations_app.remote.asking import Right
from migrations_app.remote.driver import RemoteDriver, driver_for
from migrations_app.saga.step import CancelRequested, Interrupted, PauseRequested, SliceOver

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass
class Run:
    """One worker's work on one migration."""

    migration: VolumeMigration
    lease: Lease
    journal: DatabaseJournal
    slice_ends_at: float
    progress: Progress = field(default_factory=Progress)
    throttle: Throttle = field(default_factory=Throttle)
    wishes: Wishes = field(default_factory=Wishes)
    #: Something was saved that the next slice need not do again.  A slice is not over before that: with a low
    #: bandwidth limit, or a slow disk, one segment may take longer than a slice.
    has_progressed: bool = False
    #: Since when (`time.monotonic`) and at how many bytes done the storage has not answered.
    _stall: tuple[float, int] | None = None
    #: When (`time.monotonic`) it was last asked whether to go on: between any two calls of the storage.
    _asked_at: float = field(default_factory=time.monotonic)

    @property
    def source_pool(self) -> str:
        return self.migration.source_pool.name

    @property
    def destination_pool(self) -> str:
        return self.migration.destination_pool.name

    @property
    def source_name(self) -> str:
        return self.migration.source_object_name

    @property
    def destination_name(self) -> str:
        return self.migration.destination_object_name

    def source(self) -> Driver:
        return inventory.make_driver(self.migration.source_pool.backend)

    def destination(self) -> Driver:
        """Return the destination's driver; on another host it is asked of that host's worker."""
        right = Right(self.migration.pk, self.lease.epoch, self._keep_waiting)
        return driver_for(self.migration.destination_pool.backend, right)

    def _keep_waiting(self) -> None:
        """While another host is waited for: raise when this worker must stop."""
        self.lease.fence()
        if is_draining():
            raise SliceOver
        # A storage there may hang for ever; a cancel is heard all the same, until there is nothing to cancel any more.
        is_over = self.journal.undo_is_decided() or self.journal.output("switch")
        if self.wishes.cancel and not is_over:
            raise CancelRequested

    def open_source(self, driver: Driver) -> Port:
        """Return the source, opened so that nobody else can write to it."""
        pool, name = self.source_pool, self.source_name
        return _limited(
            unless_held(self, driver, pool, name, lambda: driver.open(pool, name, OpenMode.SOURCE))
        )

    def open_destination(self, driver: Driver, mode: OpenMode) -> Port:
        """Return the destination, opened to be written or to be read back."""
        pool, name = self.destination_pool, self.destination_name
        return _limited(unless_held(self, driver, pool, name, lambda: driver.open(pool, name, mode)))

    def check(self, *, is_cancellable: bool = True) -> None:
        """Raise when the work must stop here: lease lost, cancelled, slice over."""
        if self.must_stop(is_cancellable=is_cancellable):
            raise self.why_stopped(is_cancellable=is_cancellable)

    def must_stop(self, *, is_cancellable: bool = True) -> bool:
        """
        Tell whether to stop at the next checkpoint: the slice is over, or the worker is to end.

        Raises:
            LeaseLost, CancelRequested: Stop at once.
        """
        self._asked_at = time.monotonic()
        self.lease.fence()
        if self.wishes.cancel and is_cancellable:
            raise CancelRequested
        if self.wishes.pause and is_cancellable:
            return True
        return is_draining() or (self.has_progressed and time.monotonic() > self.slice_ends_at)

    def why_stopped(self, *, is_cancellable: bool = True) -> Interrupted:
        """Return what to raise after a stop at a checkpoint; after the switch nothing pauses any more."""
        return PauseRequested() if self.wishes.pause and is_cancellable else SliceOver()

    def on_wishes(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.throttle.set_limit(wishes.bandwidth_bytes_per_second)

    def progress_fields(self) -> dict[str, object]:
        """Return what each heartbeat writes into the row."""
        answered_at = Now() - timedelta(seconds=self._stalled_seconds())
        if self.progress.total_bytes is None:
            # Opening a volume may hang as well.
            return {"progress_at": answered_at, "speed_bytes_per_second": None}
        speed = self.progress.bytes_per_second()
        return {
            "phase_done_bytes": self.progress.done_bytes,
            "phase_total_bytes": self.progress.total_bytes,
            "speed_bytes_per_second": None if speed is None else int(speed),
            "progress_at": answered_at,
        }

    def _stalled_seconds(self) -> float:
        """Return for how long the storage has not answered; next to nothing when it does."""
        # Blocks are waited for, so that somebody can say that one does not come.  A flush or a close cannot be.
        seconds = time.monotonic() - self._asked_at
        if self._stall is None or self.progress.done_bytes != self._stall[1]:
            self._stall = None
            return seconds
        return max(seconds, time.monotonic() - self._stall[0])

    def guards(self) -> engine.Guards:
        # What went before this pass is no part of it.
        self._asked_at = time.monotonic()
        return engine.Guards(
            check=self.must_stop,
            fence=self.lease.fence,
            throttle=self.throttle,
            progress=self.progress,
            checkpoint_seconds=settings.VOLMIG_CHECKPOINT_SECONDS,
            on_stall=self._on_stall,
        )

    def _on_stall(self, seconds: float) -> None:
        self._stall = (time.monotonic() - seconds, self.progress.done_bytes)
        logger.warning("%s: the storage has not answered for %.0f seconds", self.migration.pk, seconds)


def _limited(port: Port) -> Port:
    """Return the port; the kernel keeps the worker to the limit of its disk, if one was set."""
    limit = settings.VOLMIG_IO_MAX_BYTES_PER_SECOND
    if limit and port.device is not None and (why := limit_disk(port.device, limit)):
        logger.warning("VOLMIG_IO_MAX_BYTES_PER_SECOND has no effect: %s", why)
    return port


def unless_held(run: Run, driver: Driver, pool: str, name: str, action: Callable[[], _T]) -> _T:
    """Do *action* on a volume; a former worker that is frozen with the volume open is ended after a while."""
    try:
        return action()
    except InUse as error:
        pid = _end_former_owner(run, driver, pool, name)
        if pid is None:
            raise
        raise InUse(
            f"The former worker (process {pid}) had stopped moving with '{name}' open and was ended.",
            remedy="The migration goes on by itself.",
        ) from error


def _end_former_owner(run: Run, driver: Driver, pool: str, name: str) -> int | None:
    """
    End the worker whose lease ran out, if it holds the volume and had time enough to notice.

    A worker that runs sees within seconds that its lease is over and lets go; one that is frozen never does.
    """
    if isinstance(driver, RemoteDriver):
        # The other host's worker has ended what an earlier lease had opened there before it answered.
        return None
    owner = run.migration.former_owner
    waited = VolumeMigration.objects.filter(
        pk=run.migration.pk,
        former_owner_at__lte=Now() - timedelta(seconds=settings.VOLMIG_LEASE_SECONDS),
    ).exists()
    if not owner or not (waited or run.journal.failures() >= settings.VOLMIG_MAX_ATTEMPTS - 2):
        return None
    holders = [usage.by for usage in driver.usage(pool, name)]
    if not any(by.startswith(f"process {process_of(owner)} ") for by in holders):
        return None
    return end_frozen(owner)
