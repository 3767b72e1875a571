"""The progress of a migration on a terminal and in a pipe."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from backends.cli import VolmigCommand
from backends.cli_tables import Column, show_table
from migrations_app.cli.screen import Screen
from migrations_app.presentation import ProgressView

HALF = ProgressView("Copying", "Copy", 512, 1024, 50, 100, 5.0, 1, False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    """Return a terminal of 60 columns."""
    for name, value in {"COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_a_pipe_gets_a_line_when_the_state_changes():
    out = io.StringIO()
    with Screen(VolmigCommand(stdout=out)) as screen:
        for view in (HALF, HALF, HALF):
            screen.show(SimpleNamespace(state="copying"), view)
        screen.tell("a word")
    assert out.getvalue() == "Copying: 50 %, 512 B of 1.0 KiB, 100 B/s, about 5 s left\na word\n"


def test_a_terminal_gets_a_bar(terminal):
    with Screen(VolmigCommand(stdout=terminal)) as screen:
        screen.show(SimpleNamespace(state="copying"), HALF)
        screen.tell("a [red]word")
    assert "━" in terminal.getvalue()
    assert "50 %, 512 B of 1.0 KiB" in terminal.getvalue().replace("\n", " ")
    assert "a [red]word" in terminal.getvalue()


def test_long_names_are_cut_on_a_terminal_only(terminal):
    columns, row = (Column("NAME"), Column("SIZE", is_number=True)), ["[b]" + "long" * 30, "1"]
    show_table(VolmigCommand(stdout=terminal), columns, [row])
    assert "…" in terminal.getvalue()
    assert "[b]long" in terminal.getvalue()
    assert "SIZE" in terminal.getvalue()
    pipe = io.StringIO()
    show_table(VolmigCommand(stdout=pipe), columns, [row])
    assert row[0] in pipe.getvalue()
