"""Ask the storage how it is, now."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from backends import services
from backends.cli import Exit, VolmigCommand
from backends.drivers.errors import VolmigError
from backends.models import Backend


class Command(VolmigCommand):
    """`refresh_backends`."""

    help = (
        "Ask the storage of this host's backends for room and state, and store the answer. "
        "The worker does the same every minute."
    )
    examples = ("manage.py refresh_backends", "manage.py refresh_backends store1@ssd store1@hdd")

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument(
            "backends", nargs="*", metavar="HOST@BACKEND", help="Only these; all of this host if not given."
        )

    def perform(self, **options: Any) -> Exit:
        chosen = [services.find_backend(address) for address in options["backends"]]
        if not options["backends"]:
            chosen = list(Backend.objects.filter(host=settings.VOLMIG_HOST))
        errors = {backend.address: self._refresh(backend) for backend in chosen}
        self.emit(
            [{"backend": address, "ok": not error, "error": error} for address, error in errors.items()]
        )
        if not errors:
            self.say(f"Host '{settings.VOLMIG_HOST}' has no backends.")
        for address, error in errors.items():
            if error:
                self.warn(f"{address}: FAILED: {error}")
            else:
                self.say(f"{address}: ok")
        return Exit.REFUSED if any(errors.values()) else Exit.DONE

    def _refresh(self, backend: Backend) -> str:
        if not services.is_local(backend):
            return f"It is reached from host '{backend.host}' only; this is '{settings.VOLMIG_HOST}'."
        try:
            services.refresh_backend(backend)
        except VolmigError as error:
            return str(error)
        return ""
