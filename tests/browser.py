"""A headless Chromium for tests: what a page asked for outside this machine, what it complained of."""

import atexit
import contextlib
import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None, reason="needs Chromium (apt install chromium) and playwright"
)
_HERE = ("file:", "data:", "blob:", "http://127.0.0.1:")


@dataclass
class Tab:
    """An open page; ``left``: addresses elsewhere that it asked for (refused), ``said``: console errors."""

    page: Any
    left: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@functools.cache
def _browser() -> Any:
    """One for the whole session: playwright drives no two at a time, and starting one takes a second."""
    from playwright.sync_api import sync_playwright

    driver = sync_playwright().start()
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    atexit.register(driver.stop)
    atexit.register(browser.close)
    return browser


@contextlib.contextmanager
def tab(width: int = 1300, height: int = 1000, **options: Any) -> Iterator[Tab]:
    """A page of its own; ``options`` as of playwright's ``new_page`` (color_scheme, reduced_motion ...)."""
    opened = Tab(_browser().new_page(viewport={"width": width, "height": height}, **options))
    opened.page.route("**/*", lambda route: _answer(opened, route))
    opened.page.on("console", lambda line: opened.said.append(line.text) if line.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
    try:
        yield opened
    finally:
        opened.page.close()


def _answer(opened: Tab, route: Any) -> None:
    address = route.request.url
    if address.startswith(_HERE):
        route.continue_()
    else:
        opened.left.append(address)
        route.abort()
