"""Imports run one way.  The order is the architecture; see docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("backends", "migrations_app", "volmig_site")

#: From the bottom up; a module may import from its own line and from those above it here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("backends.drivers", "migrations_app.draining", "migrations_app.process_tree", "volmig_site.config"),
    ("migrations_app.states", "migrations_app.scheduler", "migrations_app.saga", "migrations_app.copying"),
    ("backends.models", "backends.secrets", "backends.quantities", "backends.migrations"),
    ("backends.services",),
    (
        "migrations_app.models",
        "migrations_app.idempotency",
        "migrations_app.remote_call",
        "migrations_app.errors",
        "migrations_app.migrations",
    ),
    (
        "migrations_app.bandwidth",
        "migrations_app.dispatch",
        "migrations_app.lease",
        "migrations_app.journal",
        "migrations_app.schedules",
        "migrations_app.hosts",
    ),
    ("migrations_app.remote",),
    ("migrations_app.work",),
    ("migrations_app.steps", "migrations_app.segments"),
    (
        "migrations_app.sentences",
        "migrations_app.views_of_rows",
        "migrations_app.worker",
        "migrations_app.step_views",
        "migrations_app.presentation",
        "migrations_app.report",
    ),
    ("migrations_app.services",),
    ("migrations_app.cluster", "migrations_app.supervisor"),
    (
        *("backends.admin", "backends.management", "backends.apps", "backends.cli", "backends.cli_rows"),
        *("backends.cli_tables", "migrations_app.tasks", "migrations_app.admin", "migrations_app.api"),
        *("migrations_app.management", "migrations_app.cli", "migrations_app.checks", "migrations_app.apps"),
    ),
    ("volmig_site",),
)

SKINS = ("admin", "api", "management")
DRIVERS = ("backends.drivers.directory", "backends.drivers.fake")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> int | None:
    """Return the line of LAYERS with the longest name that *module* begins with."""
    best: tuple[int, int] | None = None
    for number, names in enumerate(LAYERS):
        for name in names:
            if module == name or module.startswith(name + "."):
                best = max(best or (0, 0), (len(name), number))
    return best[1] if best else None


def skin_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in SKINS and parts[0] != "volmig_site" else ""


ALL = [pytest.param(name, path, id=name) for name, path in modules()]


@pytest.mark.parametrize(("module", "path"), ALL)
def test_module_imports_only_from_below(module: str, path: Path) -> None:
    if module in PACKAGES:
        return
    own = layer_of(module)
    assert own is not None, f"{module} stands in no layer: put it into LAYERS"
    for imported in imports_of(path):
        if imported.split(".")[0] in PACKAGES:
            theirs = layer_of(imported)
            assert theirs is not None, f"{imported} stands in no layer"
            assert theirs <= own, f"{module} must not import {imported}"


@pytest.mark.parametrize(("module", "path"), ALL)
def test_skins_import_neither_each_other_nor_a_driver(module: str, path: Path) -> None:
    own = skin_of(module)
    for imported in imports_of(path) if own else ():
        assert skin_of(imported) in ("", own), f"{module} must not import {imported}"
        assert not imported.startswith(DRIVERS), f"{module} must not import the driver {imported}"


@pytest.mark.parametrize(
    ("module", "path"),
    [
        pytest.param(n, p, id=n)
        for n, p in modules()
        if n.startswith(
            ("backends.drivers", *(f"migrations_app.{x}" for x in ("scheduler", "saga", "copying")))
        )
    ],
)
def test_pure_parts_know_no_django(module: str, path: Path) -> None:
    assert not [i for i in imports_of(path) if i.split(".")[0] in ("django", "rest_framework", "django_q")]


def test_a_wrong_import_would_be_found() -> None:
    assert layer_of("migrations_app.services.request_migration") > layer_of("migrations_app.steps.STEPS")
    assert layer_of("backends.drivers.base.Driver") < layer_of("backends.services")
    assert skin_of("migrations_app.admin.views") == "admin"
