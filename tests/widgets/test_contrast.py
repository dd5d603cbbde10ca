"""Text contrasts with its background, in the views and in their static HTML, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_model import MODEL

import dbos_notebook as dn
from dbos_notebook.status import STATUSES, status_css
from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MINIMUM = 4.5
"""Of WCAG 2.2, level AA, for text of ordinary size."""
THEMES = {
    "light": "--jp-ui-font-color1: rgba(0, 0, 0, 0.87); --jp-layout-color1: #fff;",
    "dark": "--jp-ui-font-color1: #fff; --jp-layout-color1: #111;",
}
"""What JupyterLab's two themes set."""
LEAST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parse = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (below, [r, g, b, a], share) =>
    [r, g, b].map((part, i) => below[i] + (part - below[i]) * a * share);
  const luminance = (color) => {
    const [r, g, b] = color.map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const owner = text.parentElement;
    if (!text.data.trim() || owner.closest("style, script, svg, option, .dn-visually-hidden")
      || !owner.checkVisibility()) continue;
    const path = [];
    for (let node = owner; node; node = node.parentElement) path.unshift(node);
    let [below, share] = [[255, 255, 255], 1];
    for (const node of path) {
      const style = getComputedStyle(node);
      share *= Number(style.opacity);
      below = over(below, parse(style.backgroundColor), share);
    }
    const color = over(below, parse(getComputedStyle(owner).color), share);
    const [low, high] = [luminance(below), luminance(color)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text.data.trim().slice(0, 40), owner.className]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


def check(page: Page) -> None:
    contrasts: list[tuple[float, str, str]] = page.evaluate(LEAST_CONTRAST)
    assert len(contrasts) > 5
    assert [each for each in contrasts if each[0] < MINIMUM] == []


@pytest.fixture(params=list(THEMES))
def page(chromium: Browser, request: pytest.FixtureRequest) -> Any:
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    theme = THEMES[request.param]
    page.set_content(
        f"<!doctype html><style>:root {{ {theme} }} body {{ color: var(--jp-ui-font-color1); "
        "background: var(--jp-layout-color1) }</style><body></body>"
    )
    yield page
    page.close()


def show(page: Page, widget: View) -> None:
    page.add_style_tag(content=widget._css)
    page.expose_function("answered", lambda message: widget.answer(message))
    state = widget.get_state()
    code = state.pop("_esm")
    traits = {name: value for name, value in state.items() if name not in ("_css", "layout")}
    traits = json.loads(json.dumps(traits, default=str))
    page.evaluate(f"async ([code, traits]) => {{{MODEL}}}", [code, traits])


def test_the_list(page: Page, shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        show(page, db.explore(page_size=25))
        page.locator(".dn-status b").first.wait_for()
        page.get_by_role("button", name="Filter", exact=True).click()
        page.locator(".dn-status", has_text="ERROR").click()
        page.locator(".dn-row[data-status=ERROR]").first.press("Enter")
        page.locator(".dn-steps tbody tr").first.wait_for()
        page.locator(".dn-check input").first.check()
        page.get_by_role("button", name="Fork", exact=False).first.click()
        page.locator(".dn-plan tbody tr").first.wait_for()
        check(page)


def test_the_board(page: Page, shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        show(page, db.board(window="1h"))
        page.locator(".dn-second-line").first.wait_for()
        check(page)


def test_one_run(page: Page, shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        failed = db.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
        show(page, db.inspect(failed))
        page.locator("[data-node]").first.wait_for()
        page.get_by_role("button", name="1 failure").click()
        page.locator(".dn-side-panel h3").wait_for()
        check(page)


def test_static_html(page: Page, shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        failed = db.workflows(status="ERROR")["workflow_id"].iloc[0]
        views = [db.explore(page_size=100), db.board(window="1h"), db.inspect(failed)]
        html = "".join(view.static_html() for view in views)
    colors = "".join(f"<i class={status}>{status}</i>" for status in STATUSES)
    colors = f"<style>{status_css('.all .{}')}</style><p class=all>{colors}</p>"
    page.evaluate("(html) => { document.body.innerHTML = html; }", html + colors)
    check(page)
