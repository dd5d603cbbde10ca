"""Find the programs that tests need and pip does not have, and install what is missing.

``make test`` runs this for all of them; ``system_packages.py chromium`` is for one. Where one can
not be installed a line names it; the tests say by themselves what they do without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

VARIABLE = "DBOS_NOTEBOOK_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
USUAL = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
CHROMIUM = (
    "Chromium for the browser tests (install Chromium or Google Chrome, run "
    f"python -m playwright install chromium, or name one in {VARIABLE})"
)
PGBOUNCER = "PgBouncer for the tests behind a connection pooler (Debian: apt-get install pgbouncer)"


def find_chromium() -> str | None:
    """Return the path of a Chromium that is installed here; ``None``: there is none."""
    return next((path for path in _chromiums() if Path(path).is_file()), None)


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer; ``None``: there is none."""
    # Debian installs it where only root's PATH looks.
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _chromiums() -> Iterator[str]:
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


def _install(package: str) -> bool:
    """Install a package of the system, where that needs no password; return whether it was."""
    elevate = _elevation()
    if not shutil.which("apt-get") or elevate is None:
        return False
    print(f"Installing {package} for the tests (apt-get install {package})", flush=True)
    # The package's own service, if it has one, is not started.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # A stale package list names files that the mirror no longer has.
    return not any(
        subprocess.call(
            [*elevate, "apt-get", *arguments], stdout=subprocess.DEVNULL, env=environment
        )
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", package])
    )


def _install_chromium() -> None:
    """Install Chromium: the system's where that needs no password, else Playwright's own."""
    if not _install("chromium"):
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


PACKAGES: dict[str, tuple[str, Callable[[], str | None], Callable[[], object]]] = {
    "chromium": (CHROMIUM, find_chromium, _install_chromium),
    "pgbouncer": (PGBOUNCER, find_pgbouncer, lambda: _install("pgbouncer")),
}


def main(names: list[str]) -> int:
    """Print where each program is; fail only where every real part is required."""
    missing = False
    for name in names or PACKAGES:
        title, find, install = PACKAGES[name]
        found = find()
        if found is None:
            install()
            found = find()
        print(found or f"Not found: {title}. The tests that need it will be skipped.")
        missing = missing or found is None
    return 1 if missing and os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
