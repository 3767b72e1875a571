"""Quiet, and with the numbers at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.saga import world


@pytest.fixture(autouse=True)
def _no_log_of_errors_made_on_purpose() -> Iterator[None]:
    logging.getLogger("migrations_app.saga.runner").disabled = True
    yield
    logging.getLogger("migrations_app.saga.runner").disabled = False


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counted = world.COUNTED
    terminalreporter.write_line(
        f"saga: {counted['sagas']} lives, {counted['deaths']} deaths, {counted['boundaries']} boundaries passed"
    )
