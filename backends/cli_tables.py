"""Tables for terminals, and the same as aligned text for pipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.cli import VolmigCommand


@dataclass(frozen=True, slots=True)
class Column:
    """One column; numbers stand to the right, and a long text may be wrapped on a terminal."""

    title: str
    is_number: bool = False
    may_wrap: bool = False


def show_table(command: VolmigCommand, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows*.  Nothing is cut off in a pipe; a terminal shows `…` where there is no room."""
    if command.as_json:
        return
    if command.is_terminal:
        _show_rich(command, columns, rows)
    else:
        for line in aligned(columns, rows):
            command.say(line)


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return title and rows as lines of equally wide cells."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def _show_rich(command: VolmigCommand, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    # As in `console`: a pipe does not need it.
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # rich makes those columns narrower that may wrap: not numbers, which cut off are other numbers.
        justify = "right" if column.is_number else "left"
        table.add_column(column.title, justify=justify, no_wrap=column.is_number)
    for row in rows:
        # As plain text: a name may hold what looks like markup.
        cells = zip(row, columns, strict=True)
        table.add_row(
            *(
                Text(cell, no_wrap=not column.may_wrap, overflow="fold" if column.may_wrap else "ellipsis")
                for cell, column in cells
            )
        )
    command.console().print(table)
