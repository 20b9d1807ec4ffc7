"""A real browser without a window, for what is only true if one says so.

Chromium, or Chrome, is taken from the system (on Debian ``apt-get install chromium``) and driven by playwright.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Where the system has a browser; None if it has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser.

    Raises:
        ValueError: If the system has none.
    """
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        raise ValueError(f"there is no browser: install one of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        # Its sandbox does not start for root, as in most containers; it only sees pages of ours.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()
