"""
The migration as a list of steps, each do beside its undo.

A step gets a `Run`: the row, the lease, the drivers of both sides.  What a step needs from an earlier one it takes
from the journal; what it needs from the storage it looks up, by a name derived from the migration's id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.db.models import F, Sum
from django.db.models.functions import Now

from backends.drivers.base import Driver
from backends.drivers.errors import (
    CorruptData,
    InUse,
    NotFound,
    Permanent,
    Transient,
)
from backends.drivers.ports import Port
from backends.drivers.types import Declined, MoveStatus, OpenMode, StoredVolume
from backends.models import Volume
from migrations_app import segments
from migrations_app.copying import engine
from migrations_app.copying.digests import SEGMENT_BYTES, segment_count, volume_digest
from migrations_app.copying.engine import SegmentResult
from migrations_app.copying.read_behind import ReadBehind
from migrations_app.models import GENERIC, VolumeMigration
from migrations_app.saga.step import (
    Output,
    Parked,
    Step,
)
from migrations_app.states import MigrationStatus, State
from migrations_app.work import Run, unless_held

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_POLL_SECONDS = 1.0


class SourceNotFit(Permanent):
    """The volume on the storage is not what the record says, or not free."""


# -- check_source ---------------------------------------------------------------------------------------------


def check_source(run: Run) -> Output:
    """Look at the volume itself, before anything is made: is it there, whole, free, without snapshots?"""
    with run.source() as driver:
        driver.check()
        found = driver.describe(run.source_pool, run.source_name)
        _check_size(run, found)
        snapshots = driver.snapshots(run.source_pool, run.source_name)
        if snapshots:
            raise SourceNotFit(
                f"The storage holds snapshots of '{run.source_name}': {', '.join(snapshots)}.",
                remedy="Delete the snapshots, then migrate again.",
            )
        usage = driver.usage(run.source_pool, run.source_name)
        if usage:
            raise SourceNotFit(
                f"'{run.source_name}' is in use: {'; '.join(map(str, usage))}.",
                remedy="Stop what uses the volume, then migrate again.",
            )
        try:
            driver.open(run.source_pool, run.source_name, OpenMode.SOURCE).close()
        except InUse as error:
            raise SourceNotFit(error.message, remedy=error.remedy) from error
    with run.destination() as driver:
        driver.check()
    return {
        "identity": found.identity,
        "changed": found.changed,
        "allocated_bytes": found.allocated_bytes,
    }


def _check_size(run: Run, found: StoredVolume) -> None:
    if found.size_bytes != run.migration.size_bytes:
        raise SourceNotFit(
            f"'{found.name}' has {found.size_bytes} bytes on the storage, the record says "
            f"{run.migration.size_bytes}.",
            remedy="Find out who resized it and correct the record, then migrate again.",
        )


# -- move_natively --------------------------------------------------------------------------------------------


def move_natively(run: Run) -> Output:
    """Ask the source's driver whether it can move the volume on its own, and let it."""
    if run.migration.force_host_copy:
        return {"moved": False, "reason": "The generic copy was asked for."}
    with run.source() as driver:
        status = driver.start_move(
            run.source_pool,
            run.source_name,
            run.migration.destination_pool.location_info,
            run.destination_pool,
            run.destination_name,
        )
        if isinstance(status, Declined):
            return {"moved": False, "reason": status.reason}
        status = _wait_for_move(run, driver, status)
    with run.destination() as driver:
        # The driver's word is checked: the volume must be found at the destination, by the destination's driver.
        found = driver.describe(run.destination_pool, run.destination_name)
        _check_size(run, found)
    run.lease.write(method=status.plan.how, destination_made_at=Now())
    return {"moved": True, "how": status.plan.how, "keeps_source": status.plan.keeps_source}


def _wait_for_move(run: Run, driver: Driver, status: MoveStatus) -> MoveStatus:
    run.progress.begin(status.total_bytes, status.done_bytes or 0)
    while not status.is_finished:
        run.check()
        time.sleep(_POLL_SECONDS)
        status = driver.poll_move(
            run.source_pool,
            run.source_name,
            run.migration.destination_pool.location_info,
            run.destination_pool,
            run.destination_name,
        )
        run.progress.add((status.done_bytes or 0) - run.progress.done_bytes)
        run.has_progressed = True
    return status


def undo_move(run: Run) -> None:
    with run.source() as driver:
        driver.cancel_move(
            run.source_pool,
            run.source_name,
            run.migration.destination_pool.location_info,
            run.destination_pool,
            run.destination_name,
        )
    if run.journal.output("move_natively").get("moved") is not False:
        # After a driver has declined nothing was made, and a host that is away need not be waited for.
        delete_destination(run)


# -- create_destination -----------------------------------------------------------------------------------------


def create_destination(run: Run) -> Output:
    """Make the volume at the destination, under its derived name."""
    if _was_moved(run):
        return {"skipped": "moved natively"}
    with run.destination() as driver:
        driver.ensure(
            run.destination_pool,
            run.destination_name,
            run.migration.size_bytes,
            thin=run.migration.destination_is_thin,
        )
    run.lease.write(method=GENERIC, destination_made_at=Now())
    return {"name": run.destination_name}


def delete_destination(run: Run) -> None:
    """Delete what the migration made at the destination; never what a record points at."""
    if Volume.objects.filter(pool=run.migration.destination_pool, object_name=run.destination_name).exists():
        raise Permanent(
            f"'{run.destination_name}' is not deleted: a volume's record points at it.",
            remedy="Nothing was lost; look at the volume's page.",
        )
    run.lease.fence()
    with run.destination() as driver:
        unless_held(
            run,
            driver,
            run.destination_pool,
            run.destination_name,
            lambda: driver.delete(run.destination_pool, run.destination_name),
        )
    run.lease.write(destination_made_at=None)


# -- copy -----------------------------------------------------------------------------------------------------


def copy(run: Run) -> Output:
    """Copy what is not yet copied; goes on from the last checkpoint."""
    if _was_moved(run):
        return {"skipped": "moved natively"}
    first_segment = run.migration.segments.count()
    with run.source() as source_driver, run.destination() as destination_driver:
        _check_identity(run, source_driver)
        with (
            run.open_source(source_driver) as source,
            run.open_destination(destination_driver, OpenMode.WRITE) as destination,
        ):
            _check_port(run, source)
            _check_port(run, destination)
            if not run.migration.destination_is_thin:
                destination.keeps_allocation = True
            offset = min(first_segment * SEGMENT_BYTES, source.size_bytes)
            to_do = engine.data_bytes(source, offset)
            done = run.migration.segments.aggregate(total=Sum("data_bytes"))["total"] or 0
            run.progress.begin(done + to_do, done)
            guards = run.guards()
            with _read_behind(run, destination_driver, guards) as behind:
                result = engine.copy(
                    source,
                    destination,
                    first_segment=first_segment,
                    # After an interruption something may have been written behind the checkpoint.
                    destination_reads_zero=destination.reads_zero_when_new and _is_first_attempt(run),
                    guards=guards,
                    checkpoint=lambda copied: _keep(run, behind, copied),
                )
        if behind is not None:
            segments.compare(run, behind.take())
    if not result.is_complete:
        raise run.why_stopped()
    return _copy_summary(run)


def _read_behind(
    run: Run, driver: Driver, guards: engine.Guards
) -> AbstractContextManager[ReadBehind | None]:
    """Return what reads the copy back while it is made; `None` where nobody wants that, or it cannot be."""
    if run.migration.verify == VolumeMigration.Verify.NONE or not driver.reads_beside_writer:
        return nullcontext()
    return closing(
        ReadBehind(
            lambda: driver.open(run.destination_pool, run.destination_name, OpenMode.VERIFY),
            segments.count_compared(run),
            guards,
        )
    )


def _keep(run: Run, behind: ReadBehind | None, copied: Sequence[SegmentResult]) -> None:
    """Save what is copied and flushed; compare what was read back of it by now."""
    segments.save(run, copied)
    end = copied[-1].index + 1
    if behind is None or end == segment_count(run.migration.size_bytes):
        return
    behind.offer(end)
    # A destination that does not keep what is written to it is found out before all of it is written.
    segments.compare(run, behind.take())


def _is_first_attempt(run: Run) -> bool:
    return run.migration.copied_up_to_bytes == 0 and run.migration.epoch <= 1


def _check_port(run: Run, port: Port) -> None:
    if port.size_bytes < run.migration.size_bytes:
        raise CorruptData(
            f"A volume of {run.migration.size_bytes} bytes opened with {port.size_bytes} bytes.",
            remedy="Find out who resized it; nothing was changed by this migration.",
        )


def _check_identity(run: Run, driver: Driver) -> None:
    """The volume must still be the one that was looked at in the first step."""
    found = driver.describe(run.source_pool, run.source_name)
    _check_size(run, found)
    first = run.journal.output("check_source")
    if found.identity != first.get("identity", found.identity):
        raise SourceNotFit(
            f"'{run.source_name}' was replaced by another object while it was migrated.",
            remedy="Find out who did it. The copy is not used; the source was not touched.",
        )
    if found.changed != first.get("changed", found.changed):
        raise SourceNotFit(
            f"Somebody wrote to '{run.source_name}' while it was migrated.",
            remedy="Find out who did it. The copy is not used; the source was not touched.",
        )


def _copy_summary(run: Run) -> Output:
    sums = run.migration.segments.aggregate(data=Sum("data_bytes"), zero=Sum("zero_bytes"))
    data, zero = sums["data"] or 0, sums["zero"] or 0
    digest = volume_digest(
        run.migration.segments.order_by("index").values_list("source_digest", flat=True).iterator()
    )
    hole = run.migration.size_bytes - data
    run.lease.write(
        data_bytes=data - zero,
        zero_bytes=zero,
        hole_bytes=hole,
        source_digest=digest,
        **run.progress_fields(),
    )
    return {"data_bytes": data - zero, "zero_bytes": zero, "hole_bytes": hole, "source_digest": digest}


# -- verify ---------------------------------------------------------------------------------------------------


def verify(run: Run) -> Output:
    """Read the destination back from the device and compare every digest."""
    if _was_moved(run):
        how = run.journal.output("move_natively")["how"]
        return {"verified": "by the storage", "how": how}
    if run.migration.verify == VolumeMigration.Verify.NONE:
        return {"verified": "no"}
    run.progress.begin(None)
    first_segment = segments.count_compared(run)
    with run.source() as source_driver, run.destination() as destination_driver:
        _check_identity(run, source_driver)
        with (
            # Held so that nobody writes to the source between the comparison and the switch.
            run.open_source(source_driver),
            run.open_destination(destination_driver, OpenMode.VERIFY) as port,
        ):
            offset = min(first_segment * SEGMENT_BYTES, port.size_bytes)
            to_do = engine.data_bytes(port, offset)
            done = engine.data_bytes(port) - to_do if offset else 0
            run.progress.begin(done + to_do, done)
            result = engine.read_back(
                port,
                first_segment=first_segment,
                guards=run.guards(),
                checkpoint=lambda read: segments.compare(run, read),
            )
    if not result.is_complete:
        raise run.why_stopped()
    if segments.count_compared(run) != segment_count(run.migration.size_bytes):
        raise CorruptData("The comparison is not complete although it ended; nothing was switched.")
    digest = volume_digest(
        run.migration.segments.order_by("index").values_list("destination_digest", flat=True).iterator()
    )
    run.lease.write(destination_digest=digest, **run.progress_fields())
    return {"verified": "yes", "destination_digest": digest}


# -- switch ---------------------------------------------------------------------------------------------------


def look_before_switch(run: Run) -> StoredVolume:
    """Return the destination as it lies there, after a last look at both sides."""
    # Since the row says `switching` nobody can ask for a cancel any more; what was accepted before is honoured.
    run.on_wishes(run.lease.wishes())
    run.check()
    with run.source() as driver:
        _check_identity(run, driver)
    with run.destination() as driver:
        found = driver.describe(run.destination_pool, run.destination_name)
        _check_size(run, found)
    return found


def switch(run: Run, found: StoredVolume) -> Output:
    """
    Let the record point at the destination.  Runs in one transaction with the journal: the point of no return.
    """
    run.check()
    migration = run.migration
    moved = Volume.objects.filter(
        pk=migration.volume_id,
        locked_by_migration=migration.pk,
        pool=migration.source_pool,
        object_name=migration.source_object_name,
    ).update(
        pool=migration.destination_pool,
        object_name=migration.destination_object_name,
        migration_status=MigrationStatus.SUCCESS,
        locked_by_migration=None,
        updated_at=Now(),
    )
    if moved != 1:
        raise Permanent(
            f"The record of '{migration.volume_name}' was changed by somebody else; it was not switched.",
            remedy="The copy is kept. Compare the record with both storages before going on.",
        )
    run.lease.write(locks_volume=False, source_state=VolumeMigration.Source.KEPT)
    return {
        "pool": str(migration.destination_pool),
        "object_name": migration.destination_object_name,
        "changed": found.changed,
    }


# -- delete_source ----------------------------------------------------------------------------------------------


def delete_source(run: Run) -> Output:
    """Delete the source: at once when it was asked for or cannot be kept, otherwise when its time has come."""
    migration = run.migration
    keeps_source = run.journal.output("move_natively").get("keeps_source", True)
    is_due = VolumeMigration.objects.filter(pk=migration.pk, purge_after__lte=Now()).exists()
    if keeps_source and not migration.delete_source and not is_due:
        raise Parked
    if Volume.objects.filter(pool=migration.source_pool, object_name=migration.source_object_name).exists():
        raise Permanent(
            f"'{migration.source_object_name}' is not deleted: a volume's record points at it.",
            remedy="Nothing was lost; look at the volume's page.",
        )
    _check_proof(run)
    run.lease.fence()
    is_here = Volume.objects.filter(
        pool=migration.destination_pool, object_name=run.destination_name
    ).exists()
    if is_here:
        with run.destination() as driver:
            # The last look before the other copy goes.
            driver.describe(run.destination_pool, run.destination_name)
    with run.source() as driver:
        if _was_moved(run) and (is_here or not keeps_source):
            driver.finish_move(
                run.source_pool,
                run.source_name,
                migration.destination_pool.location_info,
                run.destination_pool,
                run.destination_name,
            )
        else:
            # Two independent volumes; the one at the destination may have moved on, or been deleted, since.
            driver.delete(run.source_pool, run.source_name)
        _check_gone(run, driver)
    run.lease.write(source_state=VolumeMigration.Source.DELETED, purge_after=None)
    return {"deleted": migration.source_object_name}


def _check_proof(run: Run) -> None:
    """The source is deleted only when what proves the copy is stored, or nobody wanted a proof."""
    proof = run.journal.output("verify").get("verified", "")
    if proof in ("no", "by the storage"):
        return
    compared = run.migration.segments.filter(destination_digest=F("source_digest")).count()
    if proof != "yes" or compared != segment_count(run.migration.size_bytes):
        raise Permanent(
            f"The source '{run.source_name}' is not deleted: the proof that the copy equals it is not complete.",
            remedy="Compare both by hand; nothing was deleted.",
        )


def _check_gone(run: Run, driver: Driver) -> None:
    try:
        driver.describe(run.source_pool, run.source_name)
    except NotFound:
        return
    raise Transient(
        f"'{run.source_name}' is still there after it was deleted.",
        operation="delete",
        volume=run.source_name,
    )


def _was_moved(run: Run) -> bool:
    return bool(run.journal.output("move_natively").get("moved"))


def retention() -> timedelta:
    return timedelta(hours=settings.VOLMIG_RETENTION_HOURS)


STEPS: tuple[Step, ...] = (
    Step("check_source", "Look at the volume", State.PREPARING, check_source),
    Step("move_natively", "Ask the driver to move it", State.MOVING, move_natively, undo=undo_move),
    Step(
        "create_destination",
        "Create the destination",
        State.PREPARING,
        create_destination,
        undo=delete_destination,
    ),
    Step("copy", "Copy", State.COPYING, copy),
    Step("verify", "Read back and compare", State.VERIFYING, verify, completes_copy=True),
    Step("switch", "Switch the record", State.SWITCHING, switch, final=True, look=look_before_switch),
    Step("delete_source", "Delete the source", State.DELETING_SOURCE, delete_source),
)
