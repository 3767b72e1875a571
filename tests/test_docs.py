"""What the documentation says of the code is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from migrations_app.states import State
from migrations_app.steps import STEPS
from volmig_site.config import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_settings_table_is_current() -> None:
    table = subprocess.run(
        [sys.executable, ROOT / "tools/settings_table.py"], capture_output=True, text=True, check=True
    ).stdout
    assert table.strip() in (ROOT / "docs/configuration.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_setting_is_used(setting) -> None:
    code = "".join((ROOT / f"volmig_site/{name}.py").read_text() for name in ("settings", "config"))
    assert code.count(f'"{setting.name}"') >= 2


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.name)
def test_step_is_explained(step) -> None:
    assert f"`{step.name}`" in (ROOT / "docs/migration-steps.md").read_text()


@pytest.mark.parametrize("state", State)
def test_state_is_explained_for_operators(state) -> None:
    assert f"`{state}`" in (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_files_exist(path: Path) -> None:
    pattern = (
        r"`((?:backends|migrations_app|volmig_site|tests|tools|docs|benchmarks)/[\w./-]+\.(?:py|sh|md))`"
    )
    for name in re.findall(pattern, path.read_text()):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_commands_exist(path: Path) -> None:
    from django.core.management import get_commands

    for name in re.findall(r"manage\.py ([a-z_]+)", path.read_text()):
        assert name in get_commands(), f"{path.name} names the command {name}"
