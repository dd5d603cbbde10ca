"""The console in JupyterLab: what the browser opens Python knows, and the reverse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from browser import Opened


def test_python_and_the_browser_show_each_other_runs(
    notebook: Callable[..., Opened], shop_sqlite: Path
) -> None:
    opened = notebook(
        f"import dbos_notebook as dn\ndb = dn.connect({str(shop_sqlite)!r})",
        "console = db.open(status='ERROR')\nconsole",
        "print('shows', console.view, console.workflow_id, console.list.selected)",
    )
    page = opened.page
    row = page.locator(".dn-row").first
    row.get_by_role("checkbox").check()
    workflow_id = row.get_attribute("data-id")
    row.get_by_role("button", name="Open").click()
    page.locator(".dn-inspect [data-node]").first.wait_for()
    page.locator(f".dn-run-id[title='{workflow_id}']").wait_for()
    # The list is kept as it was left.
    page.keyboard.press("Escape")
    page.locator(".dn-row").first.wait_for()
    assert page.locator(".dn-row[data-id] input:checked").count() == 1
    page.keyboard.press("4")
    page.locator(".dn-inspect [data-node]").first.wait_for()
    cells = page.locator(".jp-CodeCell").count()
    opened.run_cell(2, f"shows run {workflow_id} ['{workflow_id}']")
    last_cell = page.locator(".jp-CodeCell").nth(2).locator(".cm-content")
    last_cell.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("console.view = 'board'")
    page.keyboard.press("Control+Enter")
    page.locator(".dn-tile").first.wait_for()
    assert not page.locator(".dn-inspect").is_visible()
    # The notebook's shortcut for deleting a cell does not act while the console has the focus.
    page.locator(".dn-console-tab").first.focus()
    page.keyboard.press("d")
    page.keyboard.press("d")
    assert page.locator(".jp-CodeCell").count() == cells
    assert opened.errors == []
