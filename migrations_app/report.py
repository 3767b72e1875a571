"""The migration report: what was copied, what was compared, who asked, every step and attempt.  For the file."""

from __future__ import annotations

from typing import Any

from migrations_app import presentation
from migrations_app.copying.digests import ALGORITHM, BLOCK_BYTES, SEGMENT_BYTES
from migrations_app.models import VolumeMigration
from migrations_app.step_views import StepView

#: Grows when a field changes its meaning.
REPORT_VERSION = 1


def report(migration: VolumeMigration, *, with_segments: bool = False) -> dict[str, Any]:
    """
    Return the report as JSON values.

    Args:
        with_segments: Also the digests of every segment: 128 characters for each 64 MiB.
    """
    segments = migration.segments.order_by("index")
    compared = sum(s.source_digest == s.destination_digest for s in segments)
    result: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "migration": str(migration.pk),
        "volume": {
            "id": str(migration.volume_id or ""),
            "name": migration.volume_name,
            "size_bytes": migration.size_bytes,
        },
        "source": {"pool": str(migration.source_pool), "object": migration.source_object_name},
        "destination": {"pool": str(migration.destination_pool), "object": migration.destination_object_name},
        "state": migration.state,
        "data_location": migration.data_location,
        "source_state": migration.source_state,
        "method": migration.method,
        "requested": {
            "by": migration.requested_by_name,
            "via": migration.requested_via,
            "at": migration.created_at.isoformat(),
            "options": {
                "force_host_copy": migration.force_host_copy,
                "delete_source": migration.delete_source,
                "verify": migration.verify,
                "bandwidth_bytes_per_second": migration.bandwidth_bytes_per_second,
            },
        },
        "started_at": migration.started_at.isoformat() if migration.started_at else None,
        "finished_at": migration.finished_at.isoformat() if migration.finished_at else None,
        "copied": {
            "data_bytes": migration.data_bytes,
            "zero_bytes": migration.zero_bytes,
            "hole_bytes": migration.hole_bytes,
        },
        "verification": _verification(migration, compared, len(segments)),
        "error": {"code": migration.error_code, "text": migration.error_text}
        if migration.error_code
        else None,
        "attempts": presentation.progress(migration).attempts,
        "steps": [_step(s) for s in presentation.steps(migration)],
        "journal": [
            {
                "at": e.at.isoformat(),
                "step": e.step,
                "kind": e.kind,
                "epoch": e.epoch,
                "actor": e.actor,
                "text": e.text,
                "output": e.output,
            }
            for e in migration.journal.all()
        ],
        "verdict": migration.verdict,
    }
    if with_segments:
        result["segments"] = [
            {"index": s.index, "source_digest": s.source_digest, "destination_digest": s.destination_digest}
            for s in segments
        ]
    return result


def _verification(migration: VolumeMigration, compared: int, count: int) -> dict[str, Any]:
    return {
        "result": presentation.verification(migration),
        "algorithm": f"{ALGORITHM} over segments of {SEGMENT_BYTES} bytes, of blocks of {BLOCK_BYTES} bytes",
        "source_digest": migration.source_digest,
        "destination_digest": migration.destination_digest,
        "segments_compared": compared,
        "segments": count,
    }


def _step(step: StepView) -> dict[str, Any]:
    return {
        "name": step.name,
        "label": step.label,
        "status": step.status,
        "started_at": step.started_at.isoformat() if step.started_at else None,
        "finished_at": step.finished_at.isoformat() if step.finished_at else None,
        "text": step.text,
    }
