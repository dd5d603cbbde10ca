"""The host's shortcuts never act while a view has the focus: every one on every kind of part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Opened

import dbos_notebook as dn

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHORTCUTS = """() => {
    const keys = window.jupyterapp.commands.keyBindings.map((binding) => binding.keys);
    const plain = keys.filter((each) => each.every((key) => /^[A-Z0-9]$/.test(key)));
    return [...new Set(plain.map((each) => each.join("").toLowerCase()))];
}"""
"""The host's shortcuts of letters and digits alone, such as "dd", which deletes the cell."""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .map((cell) => [cell.cell_type, cell.source])"""
PRESS = """(keys) => {
    for (const key of keys) {
        const code = /[a-z]/.test(key) ? `Key${key.toUpperCase()}` : `Digit${key}`;
        const options = { key, code, bubbles: true, composed: true, cancelable: true };
        const event = new KeyboardEvent("keydown", options);
        Object.defineProperty(event, "keyCode", { value: key.toUpperCase().charCodeAt(0) });
        document.activeElement.dispatchEvent(event);
    }
}"""
"""Press keys on the part that has the focus, without a message to the browser for each."""
PRESS_ON_EVERY_KIND = """(view, keys) => {
    const focusable = "button, input, select, summary, a[href], [tabindex]";
    const kindOf = (part) =>
        [part.tagName, part.getAttribute("class"), part.getAttribute("role")].join(" ");
    const parts = () => [view, ...view.querySelectorAll(focusable)]
        .filter((part) => !part.disabled && part.checkVisibility());
    const pressed = [];
    for (const kind of new Set(parts().map(kindOf))) {
        // Looked for again, because an earlier key may have replaced the part.
        const part = parts().find((part) => kindOf(part) === kind);
        part?.focus();
        if (!part || document.activeElement !== part) continue;
        (PRESS)(keys);
        pressed.push(kind);
    }
    return pressed;
}""".replace("PRESS", PRESS)


def press_every_shortcut(page: Page, view: str, without: str = "") -> int:
    """Press every shortcut on each kind of part of a view; return the number of kinds."""
    shortcuts = page.evaluate(SHORTCUTS)
    assert {"a", "b", "dd", "00"} <= set(shortcuts)
    cells = page.evaluate(CELLS)
    keys = "".join(key for key in "".join(shortcuts) if key not in without)
    pressed = page.locator(view).evaluate(PRESS_ON_EVERY_KIND, keys)
    assert page.evaluate(CELLS) == cells, pressed
    assert page.locator(".jp-Dialog").count() == 0, pressed
    return len(pressed)


@pytest.mark.parametrize("host", ["lab", "notebook"])
def test_no_shortcut_reaches_the_notebook(
    host: str, notebook: Callable[..., Opened], shop_sqlite: Path
) -> None:
    with dn.connect(shop_sqlite) as db:
        failed = db.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
    opened = notebook(
        f"import dbos_notebook as dn\ndb = dn.connect({str(shop_sqlite)!r})",
        "db.explore(page_size=10)",
        "db.board(window='1h')",
        f"db.inspect({failed!r})",
        "db.open(page_size=10)",
        host=host,
        height=3000,
    )
    page = opened.page
    for shown in (".dn-explore .dn-row", ".dn-tile", "[data-node]", ".dn-console .dn-row"):
        page.locator(shown).first.wait_for()
    page.locator(".dn-explore .dn-row").first.press("Enter")
    page.locator(".dn-details").first.wait_for()
    page.locator(".dn-row input").first.check()
    cells = page.evaluate(CELLS)
    assert press_every_shortcut(page, ".dn-explore >> nth=0") > 10
    assert press_every_shortcut(page, ".dn-board >> nth=0") > 3
    assert press_every_shortcut(page, ".dn-inspect >> nth=0") > 8
    # These digits show its other parts.
    assert press_every_shortcut(page, ".dn-console", without="123") > 8
    # A click beside every part gives the view the focus.
    page.locator(".dn-range").first.click()
    page.keyboard.press("d")
    page.keyboard.press("d")
    assert page.evaluate(CELLS) == cells
    # Where no view has the focus, the same keys act.
    page.locator(".jp-InputPrompt").first.click()
    page.evaluate(PRESS, "dd")
    page.wait_for_function(f"({CELLS})().length === {len(cells) - 1}")
