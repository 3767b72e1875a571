"""`manage.py volmig_worker`: run this host's worker."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    """Run the supervised worker of this storage host."""

    help = (
        "Run the worker of this storage host (VOLMIG_HOST): it does the migrations whose source is here, answers the "
        "hosts whose volumes come here, refreshes the statistics of its backends, and goes on with what an earlier "
        "worker left unfinished. "
        "Runs in the foreground until SIGTERM or Ctrl-C; running copies then save a checkpoint and end within five "
        "seconds. Start one per host, under a service manager that restarts it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--cluster-only",
            action="store_true",
            help="Run the cluster without its supervisor; used by the supervisor itself.",
        )

        parser.add_argument(
            "--attendant-only",
            action="store_true",
            help="Run only what answers other hosts; used by the supervisor itself.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["cluster_only"]:
            from migrations_app.cluster import run_cluster

            sys.exit(run_cluster())
        if options["attendant_only"]:
            from migrations_app.remote.attendant import run_attendant

            sys.exit(run_attendant())
        from migrations_app.supervisor import run_supervisor

        sys.exit(run_supervisor())
