"""Debian's Chromium without a window, for pages that open without a network.

    def test_the_filter_hides_cards(browser: Browser) -> None:
        with browser.open(page, width=390, dark=True) as tab:
            tab.keyboard.press("n")
            assert tab.locator(".card").count() == 3

At the end of the block the test fails if the page wrote an error to the console, raised one, or asked for anything but
itself. While a browser is open, `asyncio.run` fails in this thread: make tables before, in fixtures of the module.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Dialog, Page, sync_playwright

INSTALL = "the pages are tested in Chromium: apt-get install chromium"


class Browser:
    """Opens files as a person would, each in a window of its own that remembers nothing."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium

    @contextlib.contextmanager
    def open(self, file: Path, *, width: int = 1280, height: int = 800, dark: bool = False) -> Iterator[Page]:
        """Yield the page that the file shows in a window of this size in pixels."""
        said: list[str] = []
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=True,
            accept_downloads=True,
        )
        try:
            page = context.new_page()
            page.on("console", lambda each: said.append(each.text) if each.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: said.append(f"raised: {error}"))
            page.on("request", lambda request: _note(said, request.url, file))
            page.on("dialog", lambda dialog: _dismiss(said, dialog))
            page.goto(file.absolute().as_uri())
            yield page
        finally:
            context.close()
        assert not said, f"{file.name}: {said}"


def _note(said: list[str], url: str, file: Path) -> None:
    if not url.startswith(("data:", "blob:")) and url.partition("#")[0] != file.absolute().as_uri():
        said.append(f"asked for {url}")


def _dismiss(said: list[str], dialog: Dialog) -> None:
    said.append(f"showed a dialog: {dialog.message}")
    dialog.dismiss()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium and end it. While it is open, `asyncio.run` fails in this thread."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail(INSTALL)
    arguments: Any = ["--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield Browser(started)
        finally:
            started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module."""
    with chromium() as started:
        yield started
