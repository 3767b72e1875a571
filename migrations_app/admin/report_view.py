"""The report of one migration: a page to print, and a file."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from migrations_app import presentation
from migrations_app.models import VolumeMigration
from migrations_app.report import report
from migrations_app.states import WORKING, State

#: Of these the volume has not moved: there is no copy left that could be good or bad.
_NOT_MOVED = frozenset({State.FAILED, State.CANCELLED, State.ROLLED_BACK})


def report_page(request: HttpRequest, migration: VolumeMigration) -> HttpResponse:
    """Return the report as a page of its own, without navigation: black on white, made for paper."""
    context: dict[str, Any] = {
        "migration": migration,
        "report": report(migration),
        "steps": presentation.steps(migration),
        "progress": presentation.progress(migration),
        "journal": list(migration.journal.all()),
        "proof": proof(migration),
        "printed_at": timezone.now(),
        "printed_by": request.user.get_username(),
    }
    return TemplateResponse(request, "volmig/report.html", context)


def report_file(migration: VolumeMigration) -> HttpResponse:
    """Return the report as a file, with the digests of every segment."""
    name = f"volmig-report-{migration.pk}.json"
    return JsonResponse(
        report(migration, with_segments=True),
        json_dumps_params={"indent": 2, "ensure_ascii": False},
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def proof(migration: VolumeMigration) -> tuple[str, str, str]:
    """Return the result of the verification: its tone (green, red, grey), in capitals, and in a sentence."""
    state = State(migration.state)
    result = presentation.verification(migration)
    if state in _NOT_MOVED:
        had = " The copy had been read back and was equal." if result == "equal" else ""
        return "grey", "NOT MOVED", f"The volume is where it was.{had}"
    if result == "equal":
        return (
            "green",
            "VERIFIED: EQUAL",
            "The copy was read back from the device and is equal to the source.",
        )
    if result == "moved by the storage":
        text = "The storage moved the volume itself; no bytes were copied that could differ."
        return "green", "MOVED BY THE STORAGE", text
    if result == "not verified" or migration.verify == VolumeMigration.Verify.NONE:
        return "red", "NOT VERIFIED", "As asked, nobody has compared the copy with the source."
    if state in WORKING or state is State.PAUSED:
        return (
            "grey",
            "NOT VERIFIED YET",
            "The migration is under way; the copy is compared after it is complete.",
        )
    return "red", "NOT VERIFIED", "The copy has not been compared with the source to its end."
