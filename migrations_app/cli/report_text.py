"""The migration report for people."""

from __future__ import annotations

from typing import Any

from migrations_app.cli.text import time_text
from migrations_app.models import VolumeMigration
from migrations_app.presentation import steps
from migrations_app.scheduler.human import bytes_text

_KINDS = {"data": "data", "zero": "zeros", "hole": "holes"}


def report_lines(migration: VolumeMigration, document: dict[str, Any]) -> list[str]:
    """Return *document*, the report of *migration*, as lines of text."""
    asked, copied, compared = (document[key] for key in ("requested", "copied", "verification"))
    lines = [
        f"Report of migration {migration.pk}",
        f"  Volume:       {migration.volume_name}, {bytes_text(migration.size_bytes)}"
        f" ({migration.size_bytes} bytes), id {document['volume']['id'] or 'gone'}",
        f"  From:         {document['source']['pool']} '{document['source']['object']}'",
        f"  To:           {document['destination']['pool']} '{document['destination']['object']}'",
        f"  Asked:        {time_text(migration.created_at)} by {asked['by']} ({asked['via']})",
        f"  Began, ended: {time_text(migration.started_at) or 'not yet'}, "
        f"{time_text(migration.finished_at) or 'not yet'}",
        f"  State:        {document['state']}, attempts: {document['attempts']}",
        f"  Where:        {document['data_location'] or 'at the source'}",
        f"  Method:       {document['method'] or 'not chosen yet'}",
        f"  Copied:       {', '.join(_amount(copied, kind) for kind in _KINDS)}",
        f"  Compared:     {compared['result']}, {compared['segments_compared']} of {compared['segments']} segments",
        f"                {compared['algorithm']}",
        f"  Source:       {compared['source_digest'] or 'no digest'}",
        f"  Destination:  {compared['destination_digest'] or 'no digest'}",
    ]
    if document["error"]:
        lines.append(f"  Error:        {document['error']['text']}")
    lines += ["", "Steps:"]
    for step in steps(migration):
        times = " - ".join(filter(None, (time_text(step.started_at), time_text(step.finished_at))))
        lines.append("  " + "  ".join(filter(None, (step.label, step.status, times, step.text))))
    lines += ["", "Journal:"]
    for entry in migration.journal.all():
        words = " ".join(filter(None, [entry.step, str(entry.kind), entry.actor and f"by {entry.actor}"]))
        lines.append(f"  {time_text(entry.at)}  {words}" + (f": {entry.text}" if entry.text else ""))
    return lines


def _amount(copied: dict[str, int | None], kind: str) -> str:
    amount = copied[f"{kind}_bytes"]
    return f"{'unknown' if amount is None else bytes_text(amount)} of {_KINDS[kind]}"
