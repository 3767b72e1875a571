"""The progress of one migration on a terminal, or as lines now and then where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from backends.cli import VolmigCommand
from migrations_app.cli.text import RESTING, progress_text
from migrations_app.models import VolumeMigration
from migrations_app.presentation import ProgressView

_LINE_SECONDS = 10.0


class Screen:
    """Use in a `with` block; `show` may be called as often as one likes."""

    def __init__(self, command: VolmigCommand) -> None:
        self._command = command
        self._bar: Any = None
        self._task: Any = None
        self._last_state = ""
        self._last_line_at = 0.0

    def __enter__(self) -> Self:
        if self._command.is_terminal:
            self._start_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, migration: VolumeMigration, view: ProgressView) -> None:
        """Show where *migration* stands."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=view.state_text,
                completed=view.percent or 0,
                total=None if view.percent is None and migration.state not in RESTING else 100,
                numbers=progress_text(view),
            )
            return
        now = time.monotonic()
        if view.state_text == self._last_state and now - self._last_line_at < _LINE_SECONDS:
            return
        self._last_state, self._last_line_at = view.state_text, now
        numbers = progress_text(view)
        self._command.say(f"{view.state_text}: {numbers}" if numbers else view.state_text)
        self._flush()

    def tell(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._command.say(text)
            self._flush()

    def _flush(self) -> None:
        # A pipe would keep the lines until the end.
        self._command.stdout.flush()

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=self._command.console(),
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=None, numbers="")
