"""The page of the doctor: what differs between rows and storage, and mending what is safe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from backends.models import Backend
from migrations_app import services
from migrations_app.admin.worker_hosts import worker_hosts
from migrations_app.models import VolumeMigration
from migrations_app.services.doctor import Kind

PERMISSION = "migrations_app.decide_migration"
#: More messages than this nobody reads.
_MOST_MESSAGES = 5

#: What is worst comes first.
TITLES = {
    Kind.MISSING: "Volumes whose object is missing",
    Kind.NEEDS_DECISION: "Migrations that wait for a decision",
    Kind.UNFINISHED: "Migrations that nobody works on",
    Kind.STUCK: "Volumes stuck half-way",
    Kind.SIZE_DIFFERS: "Sizes that differ",
    Kind.STALE_LOCK: "Locks that nobody holds",
    Kind.NOT_EXAMINED: "Pools that could not be looked at",
    Kind.LEFTOVER: "Leftovers",
    Kind.SOURCE_LEFT: "Old copies left behind",
    Kind.UNKNOWN_OBJECT: "Objects without a record",
}
_RED = frozenset({Kind.MISSING, Kind.NEEDS_DECISION, Kind.NOT_EXAMINED})


@dataclass(frozen=True, slots=True)
class Group:
    """The findings of one kind, each with the key that its button sends."""

    title: str
    is_red: bool
    findings: list[tuple[str, services.Finding]]


def doctor(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Show every difference on this host; when it is posted, mend one or all that are safe."""
    may_mend = request.user.has_perm(PERMISSION)
    if request.method == "POST":
        if not may_mend:
            raise PermissionDenied
        _mend(request)
        return redirect("admin:doctor")
    findings = services.examine()
    this = settings.VOLMIG_HOST
    others = set(Backend.objects.exclude(host=this).values_list("host", flat=True))
    context: dict[str, Any] = {
        **site.each_context(request),
        "title": "Doctor",
        "groups": _groups(findings),
        "count": len(findings),
        "safe_count": sum(finding.is_safe for finding in findings),
        "may_mend": may_mend,
        "host": this,
        "other_hosts": sorted(others),
        "needs_worker": any(view.needs_worker for view in worker_hosts() if view.host == this),
        "looked_at": timezone.now(),
        "breadcrumbs": [("Doctor", None)],
    }
    return TemplateResponse(request, "volmig/doctor.html", context)


def _groups(findings: list[services.Finding]) -> list[Group]:
    groups = []
    for kind, title in TITLES.items():
        own = [(_key(finding), finding) for finding in findings if finding.kind == kind]
        if own:
            groups.append(Group(title, kind in _RED, own))
    return groups


def _key(finding: services.Finding) -> str:
    """
    Return what names the finding when it is looked for again.

    Without its text, in which sizes and times change; with the proposal, so that nothing else is done than what was
    read.
    """
    parts = (finding.kind, finding.subject, finding.migration_id, finding.volume_id, finding.proposal)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def _mend(request: HttpRequest) -> None:
    actor = services.Actor.of(request.user, VolumeMigration.Via.ADMIN)
    wanted = request.POST.get("finding")
    if wanted:
        result = services.mend_all(actor, is_chosen=lambda finding: _key(finding) == wanted)
    elif "all" in request.POST:
        result = services.mend_all(actor)
    else:
        return
    failed = [(finding, error) for finding, error in result.remaining if error]
    if not result.mended and not failed:
        messages.info(request, "Nothing was done: it is not there any more, or has changed meanwhile.")
    for finding in result.mended[:_MOST_MESSAGES]:
        messages.success(request, f"Mended: {finding.text} {finding.proposal}")
    if len(result.mended) > _MOST_MESSAGES:
        messages.success(request, f"And {len(result.mended) - _MOST_MESSAGES} more were mended.")
    for finding, error in failed:
        messages.error(request, f"{finding.subject} could not be mended: {error}")
