"""Try out on a real pool what every driver promises."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from backends import services
from backends.cli import Exit, VolmigCommand
from backends.drivers.conformance import NAME_PREFIX, PromiseResult, remove_leftovers, run_promises
from backends.models import Pool
from backends.services import InventoryRefused

_MARKS = {"passed": "ok", "skipped": "skipped", "broken": "FAILED"}


class Command(VolmigCommand):
    """`validate_backend`."""

    help = (
        "Try out on a pool what a driver must promise: volumes are made, written, read back and deleted. "
        f"Only objects whose names begin with '{NAME_PREFIX}' are touched, and removed again, also "
        "when it is interrupted; what a run that was killed has left is removed by a run an hour later. "
        "Run it on the backend's host before the first real volume goes there."
    )
    examples = ("manage.py validate_backend store1@ssd", "manage.py validate_backend store1@ssd#main --json")
    exits = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED, Exit.FAILED, Exit.INTERRUPTED)

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("backend", metavar="HOST@BACKEND[#POOL]")

    def perform(self, **options: Any) -> Exit:
        pool = services.find_pool(options["backend"])
        if not services.is_local(pool.backend):
            raise InventoryRefused(
                f"The pool {pool} is reached from host '{pool.backend.host}' only; run this command there "
                f"(this is '{settings.VOLMIG_HOST}')."
            )
        # Asked once beforehand: a backend that is down breaks every promise, which says nothing about it.
        with services.make_driver(pool.backend) as driver:
            driver.check()
        results = []
        # Ended by a signal, it cleans up as after Ctrl-C.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._remove_leftovers(pool)
            for result in run_promises(lambda: services.make_driver(pool.backend), pool.name):
                results.append(result)
                self._show(result)
        finally:
            signal.signal(signal.SIGTERM, before)
        return self._sum_up(str(pool), results)

    def _remove_leftovers(self, pool: Pool) -> None:
        for place in pool.backend.pools.all():
            left = remove_leftovers(lambda: services.make_driver(pool.backend), place.name)
            for name in left.removed:
                self.say(f"removed  '{name}' on {place}, which an earlier run had left")
            for problem in left.problems:
                self.warn(f"Left by an earlier run on {place}: {problem}")
            if left.kept:
                self.warn(
                    f"{len(left.kept)} objects on {place} are of another run that is under way, or was killed within "
                    "the last hour. Left alone; `manage.py doctor` shows them."
                )

    def _show(self, result: PromiseResult) -> None:
        why = result.error_text or result.skipped_reason
        name = result.name.replace("_", " ")
        self.say(f"{_MARKS[result.outcome]:>7}  {name}" + (f": {why}" if why else ""))

    def _sum_up(self, pool: str, results: list[PromiseResult]) -> Exit:
        count = {outcome: sum(r.outcome == outcome for r in results) for outcome in _MARKS}
        self.emit(
            {
                "pool": pool,
                **count,
                "promises": [{**dataclasses.asdict(r), "outcome": r.outcome} for r in results],
            }
        )
        self.say(
            f"{pool}: {count['passed']} promises kept, {count['broken']} broken, {count['skipped']} skipped."
        )
        if count["broken"]:
            self.warn("Do not put volumes there: the storage does not do what moving them relies on.")
            return Exit.FAILED
        return Exit.DONE
