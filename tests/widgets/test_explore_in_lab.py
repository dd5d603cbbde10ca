"""The list in JupyterLab: search, paging, keyboard, selection, live updates."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Opened

import dbos_notebook as dn

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CONNECT = "import dbos_notebook as dn\ndb = dn.connect({!r})"


@pytest.fixture(scope="module")
def opened(module_notebook: Callable[..., Opened], shop_sqlite: Path) -> Opened:
    """A notebook with the list, which each test runs anew."""
    return module_notebook(
        CONNECT.format(str(shop_sqlite)),
        "widget = db.explore(page_size=25)\nwidget",
        "print(sorted(widget.selected), len(widget.frame), widget.code)",
    )


@pytest.fixture
def page(opened: Opened) -> Iterator[Page]:
    opened.command("notebook:clear-all-cell-outputs")
    opened.run()
    opened.page.wait_for_function("document.querySelectorAll('.dn-row').length === 25")
    yield opened.page
    assert opened.errors == []
    assert opened.beyond_the_server() == []


@pytest.fixture
def client(shop_sqlite: Path) -> Iterator[dn.Client]:
    with dn.connect(shop_sqlite) as db:
        yield db


def rows(page: Page) -> Locator:
    return page.locator(".dn-view .dn-row")


def ids(page: Page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.dn-row')].map((row) => row.dataset.id)")


def wait_for_ids(page: Page, expected_ids: list[str]) -> None:
    """Wait until the list shows exactly these workflows."""
    page.wait_for_function(
        "(wanted) => JSON.stringify([...document.querySelectorAll('.dn-row')]"
        ".map((row) => row.dataset.id)) === JSON.stringify(wanted)",
        arg=expected_ids,
    )


def test_search_updates_while_typing(page: Page, client: dn.Client) -> None:
    search = page.get_by_label("Search", exact=True)
    search.type("coup", delay=20)
    wait_for_ids(page, client.workflows(search="coup")["workflow_id"].tolist())
    search.fill("nothing is called so")
    page.wait_for_selector("text=No workflow matches.")
    search.press("Escape")
    page.wait_for_function("document.querySelectorAll('.dn-row').length === 25")


def test_paging_forward_and_back(page: Page, client: dn.Client) -> None:
    everything = client.workflows(limit=None)["workflow_id"].tolist()
    wait_for_ids(page, everything[:25])
    page.wait_for_selector(f"text=1–25 of {len(everything)}")
    page.get_by_label("Next page").click()
    wait_for_ids(page, everything[25:50])
    page.get_by_label("Next page").click()
    wait_for_ids(page, everything[50:75])
    assert page.get_by_label("Next page").is_disabled()
    page.get_by_label("Previous page").click()
    wait_for_ids(page, everything[25:50])


def test_statuses_filter_and_headings_sort(page: Page, client: dn.Client) -> None:
    page.locator(".dn-status", has_text="ERROR").click()
    failed = client.workflows(status="ERROR", limit=None)
    wait_for_ids(page, failed["workflow_id"].tolist())
    page.locator("thead button", has_text="workflow").click()
    page.wait_for_selector("th[aria-sort=ascending]")
    names = page.locator(".dn-row .dn-name").all_inner_texts()
    assert names == sorted(names)
    assert len(names) == len(failed)


def test_a_row_opens_and_shows_its_steps(page: Page, client: dn.Client) -> None:
    failed = client.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
    page.get_by_label("Search", exact=True).fill(failed)
    # The IDs of its children contain its own; the exact match is first.
    matches = client.workflows(search=failed)["workflow_id"]
    wait_for_ids(page, [failed, *matches[matches != failed]])
    row = page.locator(f".dn-row[data-id='{failed}']")
    row.locator(".dn-name").click()
    details = page.locator(".dn-details").first
    details.wait_for()
    text = details.inner_text()
    assert "CouponError" in text
    assert "Order(" in text
    steps = client.steps(failed)
    assert details.locator(".dn-steps tbody tr").count() == len(steps)
    row.locator(".dn-name").click()
    details.wait_for(state="detached")


def test_the_list_works_by_keyboard(page: Page) -> None:
    page.get_by_label("Search", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.dataset.id"
    second = ids(page)[1]
    assert page.evaluate(focused) == second
    page.keyboard.press("Enter")
    page.wait_for_selector(".dn-details")
    assert page.evaluate(focused) == second
    page.keyboard.press(" ")
    page.wait_for_selector("text=1 selected")
    # JupyterLab's shortcuts are suppressed: two d's would delete the cell.
    page.keyboard.press("d")
    page.keyboard.press("d")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".dn-details", state="detached")
    page.keyboard.press("End")
    assert page.evaluate(focused) == ids(page)[-1]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 3


def test_the_action_bar_stays_visible(page: Page) -> None:
    page.locator(".dn-row input").nth(1).check()
    page.set_viewport_size({"width": 1100, "height": 500})
    page.evaluate("[...document.querySelectorAll('.dn-row')].at(-1).scrollIntoView()")
    top = "document.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect().top"
    first = "document.querySelector('.dn-row').getBoundingClientRect().bottom"
    page.wait_for_function(f"{first} < {top}")
    page.wait_for_function("""() => {
        const box = document.querySelector(".dn-selection").getBoundingClientRect();
        const shown = document.elementFromPoint(box.x + 60, box.y + 10);
        return shown?.closest(".dn-selection");
    }""")
    page.set_viewport_size({"width": 1100, "height": 900})


def test_children_are_nested_below_their_parents(page: Page, client: dn.Client) -> None:
    page.get_by_role("button", name="Tree", exact=True).click()
    wait_for_ids(page, client.workflows(has_parent=False, limit=25)["workflow_id"].tolist())
    assert page.locator("table[role=treegrid]").count() == 1
    parent = page.locator(".dn-row", has=page.locator(".dn-toggle .dn-icon")).first
    workflow_id = parent.get_attribute("data-id")
    parent.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".dn-row[aria-level='2']")
    below = [row.get_attribute("data-id") for row in page.locator(".dn-row[aria-level='2']").all()]
    assert set(below) == set(client.workflow(str(workflow_id)).children["workflow_id"])


def test_the_selection_reaches_python(opened: Opened, page: Page) -> None:
    expected_ids = sorted(ids(page)[1:3])
    for row_id in expected_ids:
        page.get_by_label(f"Select {row_id}", exact=True).check()
    page.wait_for_selector("text=2 selected")
    page.locator(".dn-status", has_text="SUCCESS").click()
    page.wait_for_function(
        "document.querySelectorAll('.dn-row[data-status=SUCCESS]').length === 25"
    )
    opened.run_cell(2, f'{expected_ids!r} 25 db.workflows(status="SUCCESS")')


def test_dark_and_light_follow_the_host(opened: Opened, page: Page) -> None:
    for dark in (True, False):
        opened.set_dark(dark=dark)
        page.wait_for_selector(f".dn-view[data-theme={'dark' if dark else 'light'}]")
        colour = page.evaluate("getComputedStyle(document.querySelector('.dn-name')).color")
        lightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        assert lightness > 150 if dark else lightness < 110
        ground = page.evaluate("getComputedStyle(document.querySelector('.dn-view')).background")
        assert "rgba(0, 0, 0, 0)" in ground


def test_a_narrow_cell_keeps_the_important_columns(page: Page) -> None:
    page.set_viewport_size({"width": 520, "height": 800})
    page.wait_for_timeout(300)
    assert rows(page).first.locator(".dn-name").is_visible()
    assert not page.locator("th[data-rank='3']").is_visible()
    page.set_viewport_size({"width": 1100, "height": 900})


def test_the_saved_notebook_holds_no_row_and_a_fallback(opened: Opened, page: Page) -> None:
    rows(page).first.locator(".dn-name").click()
    page.wait_for_selector(".dn-details")
    saved = opened.save()
    view, fallback = (output["data"] for output in saved["cells"][1]["outputs"])
    assert "application/vnd.jupyter.widget-view+json" in view
    assert "text/html" not in view
    assert "dn-static" in fallback["text/html"]
    assert fallback["text/plain"].startswith("<Explore ")
    assert "Ada Lovelace" not in json.dumps(saved)


def test_live_updates_stop_when_the_cell_is_rerun(
    notebook: Callable[..., Opened], corpus_sqlite: Callable[[str], Path]
) -> None:
    path = corpus_sqlite("3.4.0")
    opened = notebook(
        CONNECT.format(str(path)),
        "asked = []\n"
        "widget = db.explore(live=True)\n"
        "answer = widget.answer\n"
        "widget.answer = lambda message: (asked.append(message['kind']), answer(message))[1]\n"
        "widget",
        "print('asked', asked.count('page'))",
    )
    page = opened.page
    queued = page.locator(".dn-row[data-id='queued-1']")
    queued.wait_for()
    assert queued.get_attribute("data-status") == "ENQUEUED"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'queued-1'"
        )
    connection.close()
    page.locator(".dn-row[data-id='queued-1'][data-status='CANCELLED']").wait_for()
    # While the database is gone, the list shows an error, keeps its rows, and then recovers.
    away = path.rename(path.with_suffix(".away"))
    page.wait_for_selector(".dn-banner:has-text('There is no file')")
    assert rows(page).count() == 26
    away.rename(path)
    page.wait_for_selector(".dn-banner", state="hidden")
    # Without its output, the view sends no messages.
    opened.command("notebook:clear-all-cell-outputs")
    counts = []
    for _ in range(2):
        counts.append(opened.run_cell(2, "asked"))
        page.wait_for_timeout(2600)
    assert counts[0] == counts[1]
    assert opened.errors == []


def test_hostile_names_run_no_script_in_the_list(
    notebook: Callable[..., Opened], corpus_sqlite: Callable[[str], Path]
) -> None:
    path = corpus_sqlite("3.4.0")
    markup = "\"'><img src=x onerror='window.ran=1'><script>window.ran=1</script><svg onload=ran=1>"
    connection = sqlite3.connect(path)
    with connection:
        for column in ("name", "queue_name", "authenticated_user", "application_version"):
            connection.execute(f"UPDATE workflow_status SET {column} = ?", [markup])
        connection.execute("UPDATE operation_outputs SET function_name = ?", [markup])
        connection.execute("UPDATE workflow_status SET serialization = 'portable_json'")
        connection.execute("UPDATE workflow_output SET output = ?", [json.dumps(markup)])
        connection.execute(
            "UPDATE workflow_status SET workflow_uuid = ? WHERE workflow_uuid = 'queued-1'",
            [markup],
        )
    connection.close()
    opened = notebook(CONNECT.format(str(path)), "db.explore()", width=900)
    page = opened.page
    page.locator(".dn-row[data-id='checkout-1']").locator(".dn-name").click()
    page.wait_for_selector(".dn-details")
    page.get_by_title("More filters").click()
    page.wait_for_function("document.querySelectorAll('.dn-panel datalist option').length > 2")
    page.get_by_role("button", name="Enqueued", exact=True).click()
    page.wait_for_function("document.querySelectorAll('.dn-row').length < 20")
    page.locator(".dn-row input").first.check()
    page.get_by_title("Show and copy the Python code that returns the selected rows").click()
    page.wait_for_selector(".dn-code pre")
    assert page.locator(".dn-view img, .dn-view script").count() == 0
    assert page.evaluate("window.ran") is None
    # A long name does not make the list wider than its cell.
    assert page.evaluate(
        "document.querySelector('.dn-view').scrollWidth"
        " <= document.querySelector('.dn-view').clientWidth"
    )
    assert opened.errors == []
    assert opened.beyond_the_server() == []
