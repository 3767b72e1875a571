"""The rows of a migration's segments: what is copied and safe, and what was read back and found to be right."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from backends.drivers.errors import CorruptData
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.copying.engine import SegmentResult
from migrations_app.models import MigrationSegment
from migrations_app.scheduler.human import bytes_text
from migrations_app.work import Run


def save(run: Run, copied: Sequence[SegmentResult]) -> None:
    """Write down what is copied and flushed; a later run goes on behind it."""
    with transaction.atomic():
        end = min((copied[-1].index + 1) * SEGMENT_BYTES, run.migration.size_bytes)
        run.lease.write(copied_up_to_bytes=end, failures=0)
        MigrationSegment.objects.bulk_create(
            [
                MigrationSegment(
                    migration_id=run.migration.pk,
                    index=s.index,
                    source_digest=s.digest,
                    data_bytes=s.data_bytes,
                    zero_bytes=s.zero_bytes,
                )
                for s in copied
            ]
        )
    run.has_progressed = True


def compare(run: Run, read: Sequence[SegmentResult]) -> None:
    """
    Compare what was read back with what was copied, and write down that it is right.

    Raises:
        CorruptData: It is not; the message says where.
    """
    if not read:
        return
    digests = {s.index: s.digest for s in read}
    rows = list(run.migration.segments.filter(index__in=digests))
    for row in rows:
        if row.source_digest != digests[row.index]:
            start = row.index * SEGMENT_BYTES
            end = min(start + SEGMENT_BYTES, run.migration.size_bytes)
            raise CorruptData(
                f"The copy differs from the source between {bytes_text(start)} and {bytes_text(end)} "
                f"(segment {row.index}): read back {digests[row.index][:16]}…, copied "
                f"{row.source_digest[:16]}….",
                backend=run.migration.destination_pool.backend.address,
                operation="verify",
                volume=run.destination_name,
                remedy="The source was not touched. Check the destination's disks before trying again.",
            )
        row.destination_digest = digests[row.index]
    with transaction.atomic():
        run.lease.write(failures=0)
        MigrationSegment.objects.bulk_update(rows, ["destination_digest"])
    run.has_progressed = True


def count_compared(run: Run) -> int:
    """Return how many segments, from the first on, were read back and found to be right."""
    return run.migration.segments.exclude(destination_digest="").count()
