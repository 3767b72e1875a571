"""Print the table of settings for docs/configuration.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from volmig_site.config import SETTINGS


def table() -> str:
    """Return the Markdown table of every setting."""
    lines = ["| variable | default | unit | meaning |", "|---|---|---|---|"]
    for s in SETTINGS:
        default = f"`{s.default}`" if s.default != "" else "(empty)"
        lines.append(f"| `{s.name}` | {default} | {s.unit or '-'} | {s.help_text} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
