"""The page of a sweep in a real browser: Debian's Chromium, driven by Playwright. Without it tests skip."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DRAW_TIMEOUT_MS = 60_000


def chromium() -> str | None:
    """The path of the browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


needs_chromium = pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium")


@dataclass
class OpenedPage:
    """A page that is drawn.

    Attributes:
        errors: of the console and of scripts.
        requests: all that were made.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    seconds_until_drawn: float = 0.0


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """One browser for several pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, address: str, **context: Any) -> OpenedPage:
    """Opens a page and waits until its figures are drawn.

    Args:
        context: of the browser, such as viewport and color_scheme.
    """
    page = browser.new_context(**context).new_page()
    opened = OpenedPage(page)
    page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("html[data-drawn]", timeout=DRAW_TIMEOUT_MS)
    opened.seconds_until_drawn = time.perf_counter() - started
    return opened
