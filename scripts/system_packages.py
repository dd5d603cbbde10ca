"""Find the programs that the tests need and pip cannot install; install those that are missing.

``make test`` runs this without arguments; ``system_packages.py chromium`` provides one program. If
a program cannot be installed, a line names it, and the tests that need it are skipped or fail.
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
HEADLESS_SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
INSTALL_PATHS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
CHROMIUM = (
    "Chromium for the browser tests (install Chromium or Google Chrome, run "
    f"python -m playwright install chromium, or name one in {VARIABLE})"
)
FONT = (
    "a font with Chinese and Japanese characters for the screenshots "
    "(Debian: apt-get install fonts-noto-cjk)"
)
PGBOUNCER = "PgBouncer for the tests behind a connection pooler (Debian: apt-get install pgbouncer)"


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or ``None`` if there is none."""
    return next((path for path in _chromiums() if Path(path).is_file()), None)


def find_headless_shell() -> str | None:
    """Return the path of Chromium's headless shell, or ``None`` if there is none.

    It is the same engine without windows and opens a page in a fifth of the processor time. A
    browser that is named in the environment takes precedence.
    """
    if os.environ.get(VARIABLE):
        return None
    return next(filter(None, map(shutil.which, HEADLESS_SHELLS)), None)


def find_test_browser() -> str | None:
    """Return the path of the browser that the tests run: a headless shell, else any Chromium."""
    return find_headless_shell() or find_chromium()


def find_font() -> str | None:
    """Return the path of a font with Japanese characters, or ``None`` if there is none."""
    program = shutil.which("fc-list")
    if program is None:
        return None
    fonts = subprocess.run([program, ":lang=ja", "file"], capture_output=True, text=True).stdout
    return next(iter(fonts.splitlines()), "").rstrip(": ") or None


def find_pgbouncer() -> str | None:
    """Return the path of PgBouncer, or ``None`` if it is not installed."""
    # Debian installs it in a directory that only root has in PATH.
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _chromiums() -> Iterator[str]:
    if named := os.environ.get(VARIABLE):
        # A named browser is never replaced by another.
        yield shutil.which(named) or named
        return
    yield from filter(None, map(shutil.which, NAMES))
    yield from INSTALL_PATHS
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path


def _install(package: str, *, update: bool = True) -> bool:
    """Install a system package if that needs no password; return whether it was installed."""
    elevate = _elevation()
    if not shutil.which("apt-get") or elevate is None:
        return False
    print(f"Installing {package} for the tests (apt-get install {package})", flush=True)
    # The package's own service, if it has one, is not started.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # A stale package list names files that the mirror no longer has.
    commands = [["update", "-qq"]] if update else []
    commands.append(["install", "-y", "-qq", package])
    return not any(
        subprocess.call(
            [*elevate, "apt-get", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=None if update else subprocess.DEVNULL,
            env=environment,
        )
        for arguments in commands
    )


def provide_test_browser() -> str | None:
    """Install the headless shell, which makes the tests faster, or else Chromium."""
    if find_headless_shell() is None and not os.environ.get(VARIABLE):
        _install("chromium-headless-shell", update=False)
    return find_headless_shell() or provide_chromium()


def provide_chromium() -> str | None:
    """Install Chromium: the system's if that needs no password, else Playwright's own."""
    if find_chromium() is None and not _install("chromium"):
        print("Installing Playwright's Chromium for the browser tests", flush=True)
        subprocess.call([sys.executable, "-m", "playwright", "install", "chromium"])
    return find_chromium()


def provide_font() -> str | None:
    """Install a font with Chinese and Japanese characters, which the demo's customers have."""
    if find_font() is None:
        _install("fonts-noto-cjk")
    return find_font()


def provide_pgbouncer() -> str | None:
    """Install PgBouncer."""
    if find_pgbouncer() is None:
        _install("pgbouncer")
    return find_pgbouncer()


def _elevation() -> list[str] | None:
    """Return the prefix that runs a command as root without a password, or ``None``."""
    if not hasattr(os, "geteuid"):
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    quiet = subprocess.DEVNULL
    if sudo and subprocess.call([sudo, "-n", "true"], stdout=quiet, stderr=quiet) == 0:
        return [sudo, "-n"]
    return None


PROGRAMS: dict[str, tuple[str, Callable[[], str | None]]] = {
    "browser": (CHROMIUM, provide_test_browser),
    "chromium": (CHROMIUM, provide_chromium),
    "font": (FONT, provide_font),
    "pgbouncer": (PGBOUNCER, provide_pgbouncer),
}
TESTS = ("browser", "pgbouncer")


def main(names: list[str]) -> int:
    """Print the path of each program; fail only if all are required and one is missing."""
    missing = False
    for name in names or TESTS:
        title, provide = PROGRAMS[name]
        path = provide()
        print(path or f"Not found: {title}. The tests that need it will be skipped.")
        missing = missing or path is None
    return 1 if missing and os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
