"""Find a Chromium for the browser tests, or install one; the last line printed says where it is.

``make test`` runs this. What the tests do where there is none is for ``tests/browser.py`` to say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "DBOS_NOTEBOOK_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
USUAL = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
ADVICE = (
    "Chromium for the browser tests (install Chromium or Google Chrome, run "
    f"python -m playwright install chromium, or name one in {VARIABLE})"
)


def find() -> str | None:
    """Return the path of a Chromium that is installed here; ``None``: there is none."""
    return next((path for path in _candidates() if Path(path).is_file()), None)


def _candidates() -> Iterator[str]:
    if named := os.environ.get(VARIABLE):
        # Whoever names one means that one.
        yield shutil.which(named) or named
        return
    yield from filter(None, map(shutil.which, NAMES))
    yield from USUAL
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path


def install() -> None:
    """Install Chromium: the system's where that needs no password, else Playwright's own."""
    elevate = _elevation()
    if shutil.which("apt-get") and elevate is not None:
        print("Installing Chromium for the browser tests (apt-get install chromium)", flush=True)
        # A stale package list names files that the mirror no longer has.
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "chromium"]):
            if subprocess.call([*elevate, "apt-get", *arguments], stdout=subprocess.DEVNULL):
                break
        else:
            return
    print("Installing Playwright's Chromium for the browser tests", flush=True)
    subprocess.call([sys.executable, "-m", "playwright", "install", "chromium"])


def _elevation() -> list[str] | None:
    """Return what makes a command run as root without a question; ``None``: nothing does."""
    if not hasattr(os, "geteuid"):
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    quiet = subprocess.DEVNULL
    if sudo and subprocess.call([sudo, "-n", "true"], stdout=quiet, stderr=quiet) == 0:
        return [sudo, "-n"]
    return None


def main() -> int:
    """Print where Chromium is; fail only where every real part is required."""
    found = find()
    if found is None:
        install()
        found = find()
    print(found or f"Not found: {ADVICE}. The browser tests will be skipped.")
    return 1 if found is None and os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL") else 0


if __name__ == "__main__":
    sys.exit(main())
