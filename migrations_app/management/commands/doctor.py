"""Compare the rows with the storage."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from backends.cli import Exit, VolmigCommand, user_name
from backends.cli_tables import Column, show_table
from backends.models import Backend
from backends.services import UnknownName
from migrations_app import services
from migrations_app.services import Actor, Finding

_COLUMNS = (
    Column("KIND"),
    Column("SUBJECT", may_wrap=True),
    Column("TEXT", may_wrap=True),
    Column("PROPOSAL", may_wrap=True),
    Column("SAFE"),
)


class Command(VolmigCommand):
    """`doctor`."""

    help = (
        "Compare the rows with what really lies on this host's pools: migrations that nobody works on, leftovers, "
        "volumes whose object is missing, objects without a row. Says for each what it would do. With --fix it does "
        "what is safe, after looking again; nothing that could be the only copy of anything is ever touched."
    )
    examples = ("manage.py doctor", "manage.py doctor --fix", "manage.py doctor store2 --json")
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, Exit.DIFFERENCES)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "host", nargs="?", metavar="HOST", help="Another host: its rows, and the storage seen from here."
        )
        parser.add_argument("--fix", action="store_true", help="Do what is safe; on the host itself only.")

    def perform(self, **options: Any) -> Exit:
        host = options["host"] or settings.VOLMIG_HOST
        hosts = sorted(set(Backend.objects.values_list("host", flat=True)))
        if host not in hosts:
            # Agreement would be a false comfort where there is nothing to compare.
            listed = ", ".join(hosts) or "none yet"
            raise UnknownName(f"Host '{host}' has no backends. Hosts with backends: {listed}.")
        if options["fix"]:
            return self._fix(host)
        findings = services.examine(host)
        self.emit({"host": host, "findings": [finding.as_dict() for finding in findings]})
        if not findings:
            self.say(f"Nothing found on host '{host}': rows and storage agree.")
            return Exit.DONE
        self._show(findings)
        if any(finding.is_safe for finding in findings):
            self.say("What is safe is done with: manage.py doctor --fix")
        return Exit.DIFFERENCES

    def _fix(self, host: str) -> Exit:
        result = services.mend_all(Actor(user_name()), host)
        self.emit({"host": host, **result.as_dict()})
        for finding in result.mended:
            self.say(f"Mended: {finding.text} {finding.proposal}")
        if not result.remaining:
            self.say(f"Nothing is left to mend on host '{host}'.")
            return Exit.DONE
        self.say("What remains:")
        self._show([finding for finding, _ in result.remaining])
        for finding, error in result.remaining:
            if error:
                self.warn(f"{finding.subject} could not be mended: {error}")
        return Exit.DIFFERENCES

    def _show(self, findings: list[Finding]) -> None:
        rows = [[f.kind.value, f.subject, f.text, f.proposal, "yes" if f.is_safe else "no"] for f in findings]
        show_table(self, _COLUMNS, rows)
