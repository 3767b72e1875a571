"""
What all commands have in common: `--json`, exit codes, and errors that say what to do.

A command says what it does in `help`, shows `examples`, declares `add_options` and works in `perform`.
"""

from __future__ import annotations

import argparse
import enum
import getpass
import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter, SystemCheckError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError, ProgrammingError

from backends.drivers.errors import DriverError, VolmigError


class Exit(enum.IntEnum):
    """How a command ended, for scripts."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    CANCELLED = 5
    DIFFERENCES = 7
    INTERRUPTED = 130


#: What the codes mean, for `--help`.
EXIT_TEXTS = {
    Exit.DONE: "done, or accepted",
    Exit.UNEXPECTED: "something unexpected",
    Exit.USAGE: "wrong arguments",
    Exit.REFUSED: "refused; every reason is printed",
    Exit.FAILED: "failed",
    Exit.CANCELLED: "cancelled",
    Exit.DIFFERENCES: "differences remain",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
}


_HELP_WIDTH = 79


class UsageError(VolmigError):
    """Arguments that are wrong in a way that only shows when they are put together."""

    code = "usage"
    title = "Wrong arguments"


class _HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's order of the options, and examples as they are written."""


class VolmigCommand(BaseCommand):
    """Base of every command of this project."""

    #: Shown at the end of `--help`, one command a line.
    examples: ClassVar[tuple[str, ...]] = ()
    #: What else is worth reading there.
    notes: ClassVar[tuple[str, ...]] = ()
    #: The exit codes that this command can end with.
    exits: ClassVar[tuple[Exit, ...]] = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.REFUSED)

    as_json = False

    # -- what a command writes ------------------------------------------------------------------------------

    def add_options(self, parser: CommandParser) -> None:
        """Declare the arguments."""

    def perform(self, **options: Any) -> Exit | None:
        """Do the work and return how it ended; `None` is `Exit.DONE`."""
        raise NotImplementedError

    # -- what it uses ---------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """Tell a person *text*: on stdout, or on stderr when stdout belongs to the JSON document."""
        (self.stderr if self.as_json else self.stdout).write(text, self._plain)

    def alarm(self, text: str) -> None:
        """Tell as `say` does what must not be overlooked: red on a terminal."""
        (self.stderr if self.as_json else self.stdout).write(text, self.style.ERROR)

    def warn(self, text: str) -> None:
        """Tell a person *text* on stderr."""
        self.stderr.write(text, self._plain)

    def emit(self, document: Any) -> None:
        """Write the one JSON document; does nothing without `--json`."""
        if self.as_json:
            self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))

    @property
    def is_terminal(self) -> bool:
        return not self.as_json and self.stdout.isatty()

    def console(self) -> Any:
        """Return a rich console on stdout; ask `is_terminal` first."""
        # Imported here: it takes longer than all the rest of a command that needs none.
        from rich.console import Console

        # Not the wrapper, which would end every fragment with a newline.
        return Console(file=self.stdout._out)

    @staticmethod
    def _plain(text: str) -> str:
        return text

    # -- inside ---------------------------------------------------------------------------------------------

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("epilog", self._epilog())
        kwargs.setdefault("formatter_class", _HelpFormatter)
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # The epilog keeps its lines, so argparse leaves this one's as they are too.
        parser.description = textwrap.fill(self.help, _HELP_WIDTH)
        complain = parser.error

        def error(message: str) -> None:
            if self._called_from_command_line and "--json" in sys.argv:
                self.as_json = True
                self.emit({"error": {"code": "usage", "title": "Wrong arguments", "text": message}})
            complain(message)

        parser.error = error
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_options(parser)
        parser.add_argument(
            "--json", action="store_true", help="Write one JSON document to stdout and nothing else."
        )

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except SystemCheckError as error:
            # Raised before `handle`: settings under which nothing may be started.
            self.as_json = options.get("json", False)
            self.emit(
                {"error": {"code": "settings", "title": "Settings refused", "text": str(error).strip()}}
            )
            raise

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json = options["json"]
        with _quiet(options["verbosity"]):
            code = self._perform(options)
        if code:
            sys.exit(int(code))

    def _perform(self, options: dict[str, Any]) -> Exit:
        try:
            code = self.perform(**options) or Exit.DONE
            self.stdout.flush()
        except UsageError as error:
            return self.show_refusal(error, Exit.USAGE)
        except VolmigError as error:
            if options["traceback"]:
                raise
            return self.show_refusal(error)
        except (OperationalError, ProgrammingError) as error:
            if options["traceback"]:
                raise
            return self._show_database(error)
        except KeyboardInterrupt:
            self.emit({"error": {"code": "interrupted", "title": "Interrupted", "text": "Ctrl-C"}})
            self.warn("Interrupted.")
            return Exit.INTERRUPTED
        except BrokenPipeError:
            # The reader has seen enough (`| head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.UNEXPECTED
        except Exception as error:
            self.emit({"error": {"code": "unexpected", "title": "Unexpected", "text": str(error)}})
            raise
        return code

    def show_refusal(self, error: VolmigError, code: Exit = Exit.REFUSED) -> Exit:
        """Tell *error* with all its reasons, on stderr and as JSON, and return *code*."""
        reasons = tuple(getattr(error, "reasons", ()))
        text = getattr(error, "message", "") if reasons else str(error)
        default_title = "The storage refused" if isinstance(error, DriverError) else "Refused"
        title = getattr(error, "title", default_title)
        self.emit(
            {
                "error": {
                    "code": getattr(error, "code", "refused"),
                    "title": title,
                    "text": text,
                    "reasons": [reason.as_dict() for reason in reasons],
                }
            }
        )
        self.warn(f"{'Wrong arguments' if code is Exit.USAGE else 'Refused'}: {text}")
        self.warn_reasons(reasons)
        return code

    def warn_reasons(self, reasons: Any) -> None:
        """Tell *reasons* with what would mend each, on stderr."""
        for reason in reasons:
            self.warn(f"  - {reason.text}")
            if reason.remedy:
                self.warn(f"    {reason.remedy}")

    def _show_database(self, error: Exception) -> Exit:
        text = f"The database cannot be used: {str(error).strip()}. Was `manage.py migrate` run?"
        self.emit({"error": {"code": "database_unavailable", "title": "Database", "text": text}})
        self.warn(text)
        return Exit.UNEXPECTED

    def _epilog(self) -> str:
        lines = ["examples:", *(f"  {example}" for example in self.examples)] if self.examples else []
        notes = ["", *self.notes] if self.notes else []
        return "\n".join(
            [*lines, *notes, "", "exit codes:", *(f"  {c:<3} {EXIT_TEXTS[c]}" for c in self.exits)]
        )


@contextmanager
def _quiet(verbosity: int) -> Iterator[None]:
    """Keep the application's log off the terminal, unless `-v 2` asks for it."""
    loggers = [logging.getLogger(name) for name in ("backends", "migrations_app")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.INFO if verbosity > 1 else logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def user_name() -> str:
    """Return who runs the command, for the journal."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.geteuid()}"


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return *parse* as an argument's type: its `ValueError` becomes argparse's message."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def key_value(text: str) -> tuple[str, str]:
    """Return `K=V` as a pair.  Raises `ValueError`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"'{text}' is not of the form KEY=VALUE")
    return key.strip(), value


def as_dict(pairs: Sequence[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Return *pairs* as a dictionary.  Raises `UsageError` when a key is given twice."""
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"{what} given twice: {', '.join(twice)}.")
    return dict(pairs)
