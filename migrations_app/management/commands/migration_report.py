"""Write the report of a migration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from backends.cli import UsageError, VolmigCommand
from migrations_app import services
from migrations_app.cli.report_text import report_lines
from migrations_app.cli.text import short_id
from migrations_app.models import VolumeMigration
from migrations_app.report import report


class Command(VolmigCommand):
    """`migration_report`."""

    help = (
        "Show the report of a migration, for the file: what was copied and compared, who asked, when, every step and "
        "attempt. With --output it is written to a file as JSON, the same that the API gives."
    )
    examples = (
        "manage.py migration_report 3f2a9c10",
        "manage.py migration_report 3f2a9c10 --segments --output web-1.json",
        "manage.py migration_report 3f2a9c10 --json",
    )

    def add_options(self, parser: CommandParser) -> None:
        parser.add_argument("migration", metavar="ID", help="The id, or its beginning.")
        parser.add_argument(
            "--segments",
            action="store_true",
            help="Also the digests of every segment (with --output or --json).",
        )
        parser.add_argument(
            "--output", metavar="FILE", help="Write it as JSON to a file that does not exist yet."
        )

    def perform(self, **options: Any) -> None:
        migration = services.find_migration(options["migration"])
        document = report(migration, with_segments=options["segments"])
        if options["output"]:
            self._write(Path(options["output"]), migration, document)
            return
        self.emit(document)
        if not self.as_json:
            for line in report_lines(migration, document):
                self.say(line)

    def _write(self, path: Path, migration: VolumeMigration, document: dict[str, Any]) -> None:
        text = json.dumps(document, cls=DjangoJSONEncoder, indent=2, ensure_ascii=False) + "\n"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError(f"The file '{path}' exists already. Choose another name or remove it.") from None
        except OSError as error:
            raise UsageError(f"The file '{path}' cannot be written: {error.strerror}.") from None
        self.emit({"migration": migration.pk, "file": str(path), "size_bytes": len(text.encode())})
        self.say(f"Wrote the report of migration {short_id(migration)} to {path}.")
