"""Take the screenshots of the docs: the views in JupyterLab, on the demo's database."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Opened, notebooks, running_chromium, running_jupyter  # noqa: E402

import dbos_notebook as dn  # noqa: E402
from dbos_notebook import demo  # noqa: E402
from scripts.system_packages import CHROMIUM, find_chromium  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREENSHOTS = ROOT / "docs" / "screenshots"
COLORS = 220
WIDTH = 1060


def main() -> int:
    """Take the screenshots; return the exit status."""
    browser = find_chromium()
    if browser is None:
        print(f"Not found: {CHROMIUM}.")
        return 1
    SCREENSHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        database = home / "shop.sqlite"
        demo.run(database, workflows=200, history=6_000)
        with dn.connect(database) as client:
            failed = client.workflows(status="ERROR", error="CouponError", limit=1)
            tree = client.workflows(status="ERROR", error="OutOfStock", has_parent=False, limit=1)
            night = client.workflows(
                name="documents.workflows.nightly_ingestion", app_version="1.4.2", limit=1
            )
        connect = f"import dbos_notebook as dn\ndb = dn.connect({str(database)!r})"
        with (
            running_jupyter(home) as jupyter,
            running_chromium(browser) as chromium,
            notebooks(jupyter, chromium) as open_notebook,
        ):

            def show(cell: str, **options: Any) -> Opened:
                return open_notebook(connect, cell, width=WIDTH, height=2400, **options)

            _open(show("db.open(page_size=10, start_time='24h')"))
            _explore(show("db.explore(page_size=25)"))
            _board(show("db.board(window='24h')"))
            _many(show(f"db.inspect({night['workflow_id'].iloc[0]!r})"))
            _listing(show("db.workflows(status='ERROR', limit=8)"))
            _inspect(show(f"db.inspect({tree['workflow_id'].iloc[0]!r})"))
            _fork(show(f"db.inspect({failed['workflow_id'].iloc[0]!r})"))
    return 0


def _open(opened: Opened) -> None:
    page = opened.page
    page.wait_for_selector(".dn-row")
    page.wait_for_selector(".dn-status b")
    opened.set_dark(dark=False)
    _save(page, "open")


def _many(opened: Opened) -> None:
    opened.page.wait_for_selector(".dn-picture [data-node]")
    opened.set_dark(dark=False)
    _save(opened.page, "inspect-many")


def _listing(opened: Opened) -> None:
    opened.page.wait_for_selector(".dbos-notebook-frame")
    opened.set_dark(dark=False)
    _save(opened.page, "listing", ".dbos-notebook-frame")


def _explore(opened: Opened) -> None:
    page = opened.page
    page.wait_for_selector(".dn-row")
    page.wait_for_selector(".dn-status b")
    _save(page, "explore")
    page.locator(".dn-status", has_text="ERROR").click()
    page.wait_for_selector(".dn-row[data-status=SUCCESS]", state="detached")
    page.locator(".dn-row[data-status=ERROR] .dn-name").first.click()
    page.wait_for_selector(".dn-steps tbody tr")
    opened.set_dark(dark=True)
    _save(page, "explore-opened-dark")


def _board(opened: Opened) -> None:
    opened.page.wait_for_selector(".dn-tile")
    opened.set_dark(dark=False)
    _save(opened.page, "board")


def _inspect(opened: Opened) -> None:
    page = opened.page
    page.wait_for_selector(".dn-picture [data-node]")
    opened.set_dark(dark=False)
    page.get_by_role("button", name="1 failure").click()
    page.wait_for_selector(".dn-side-panel h3")
    page.get_by_role("button", name="Fit to view").click()
    _save(page, "inspect")
    page.get_by_role("tab", name="Timeline").click()
    page.wait_for_selector("svg[aria-label^=Timeline]")
    _save(page, "inspect-timeline")


def _fork(opened: Opened) -> None:
    page = opened.page
    page.wait_for_selector(".dn-picture [data-node]")
    page.get_by_role("button", name="1 failure").click()
    page.get_by_role("button", name="Fork from here").click()
    page.wait_for_selector(".dn-plan tbody tr")
    opened.set_dark(dark=True)
    _save(page, "inspect-fork-dark")


def _save(page: Page, name: str, view: str = ".dn-view") -> None:
    from PIL import Image

    page.mouse.move(0, 0)
    page.wait_for_timeout(900)  # the colors of a theme fade in
    path = SCREENSHOTS / f"{name}.png"
    page.locator(".jp-OutputArea-output", has=page.locator(view)).screenshot(path=path)
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=0)
    reduced.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
