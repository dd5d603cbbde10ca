"""The view of one run in a bare page: where its picture is, where the focus is, what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import dbos_notebook as dn

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARGINS = """() => {
    const frame = document.querySelector(".dn-picture > .dn-svg-view");
    const outer = frame.getBoundingClientRect();
    const inner = frame.querySelector("svg").getBoundingClientRect();
    return [inner.left - outer.left, outer.right - inner.right,
        inner.top - outer.top, outer.bottom - inner.bottom];
}"""
"""The space on each side of the picture in its frame."""


def is_centered(page: Page) -> bool:
    left, right, top, bottom = page.evaluate(MARGINS)
    return abs(left - right) < 3 and abs(top - bottom) < 3 and left > 0


def test_the_picture_of_each_run_is_centered(db: dn.Client, open_view: Callable[..., Page]) -> None:
    page = open_view(db.inspect("checkout-5-bad"), width=1400)
    page.locator("[data-node]").first.wait_for()
    assert is_centered(page)
    # The place of one picture is not that of the next: another run, the overview, a comparison.
    page.evaluate("window.model.set('workflow_id', 'checkout-1-4-1')")
    page.locator(".dn-run-id", has_text="checkout-1-4-1").wait_for()
    assert is_centered(page)
    page.get_by_role("button", name="Overview").click()
    page.locator(".dn-picture text", has_text="median").first.wait_for()
    assert is_centered(page)
    # The next run is drawn as it would be had it been opened first.
    page.evaluate("window.model.set('workflow_id', 'fork-1')")
    page.locator(".dn-run-id", has_text="fork-1").wait_for()
    assert page.get_by_role("button", name="Overview").get_attribute("aria-pressed") == "false"
    assert is_centered(page)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".dn-side-panel h3", has_text="Differences").wait_for()
    left, right, *_ = page.evaluate(MARGINS)
    assert abs(left - right) < 3
