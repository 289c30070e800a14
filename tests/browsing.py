"""What tests that drive headless Chromium share.

Set ``TRIFRONT_SCREENSHOTS`` to a folder to keep what the browser saw.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 60_000  # of a busy machine; the page itself takes a second
TRIALS = "40"
IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.timeout(300),  # a browser on a busy machine
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: scripts/browser-install"),
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from optimizer.cli import main; main()", *arguments]


def keep(page: "Page", name: str) -> None:
    folder = os.environ.get("TRIFRONT_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
