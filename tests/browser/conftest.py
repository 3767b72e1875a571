"""A real Chromium and the site it looks at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """
    Return a running browser.

    Not for the whole session: as long as it runs, its event loop stands in this thread, in which Django then
    refuses to touch the database unless it is told that nothing else runs there.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        _missing(f"import playwright: {error}")
    if path is None:
        _missing("which chromium: not found")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


def _missing(what: str) -> None:
    if "chromium" in os.environ.get("VOLMIG_REQUIRE", ""):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def open_page(chromium: object) -> Iterator[Callable[..., object]]:
    """Return a function that opens a window: `open_page(420, "dark")`; its complaints are in `page.complaints`."""
    contexts = []

    def make(width: int = 1400, scheme: str = "light", **options: object) -> object:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on(
            "console", lambda m: page.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
