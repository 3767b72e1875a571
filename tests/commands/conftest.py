"""Running commands as a person does, without starting a process for each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from migrations_app.cli import follow as cli_follow


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails when there is anything else."""
        return json.loads(self.out)


@pytest.fixture
def run() -> Callable[..., Ran]:
    """Return a function that runs a command: `run("list_volumes", "--json").document`."""

    def run_command(name: str, *arguments: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        code = 0
        try:
            call_command(name, *arguments, stdout=out, stderr=err)
        except SystemExit as exit_:
            code = exit_.code
        except CommandError as error:
            # What the command line makes of wrong arguments.
            err.write(str(error))
            code = 2
        return Ran(code, out.getvalue(), err.getvalue())

    return run_command


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a waiting command do the work itself at once."""
    monkeypatch.setattr(cli_follow, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(cli_follow, "_LOOK_SECONDS", 0.05)
