"""The view of one run in a bare page: where its picture is, where the focus is, what it says."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import big_runs
import pytest

import dbos_notebook as dn
from dbos_notebook.drawing.diagram import short_id

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

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


BOX = """(part) => {
    const { left, right, top, bottom } = document.querySelector(part).getBoundingClientRect();
    return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
}"""
"""Whether a part of the page is within the window."""
FOCUSED = "document.activeElement.dataset?.node"
CHOSEN = "document.querySelector('[data-node][aria-pressed=true]')?.dataset.node"


def test_failures_are_visited_by_key(database_copy: Path, open_view: Callable[..., Page]) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("many"), width=1400)
        page.locator("[data-node]").first.wait_for()
        page.get_by_role("tab", name="Graph").focus()
        for number in (1, 2):
            page.keyboard.press("f")
            page.get_by_role("button", name=f"{number} of 4").wait_for()
            page.wait_for_function(f"{FOCUSED} && {FOCUSED} === {CHOSEN}")
        # Escape leaves the focus on the same node, which is visible in the wider picture.
        node = page.evaluate(CHOSEN)
        page.keyboard.press("Escape")
        page.locator(".dn-side-panel").wait_for(state="hidden")
        page.wait_for_function(f"{FOCUSED} === {json.dumps(node)}")
        page.wait_for_function("""() => {
            const node = document.activeElement.getBoundingClientRect();
            const { left, right, top, bottom } =
              document.querySelector(".dn-picture > .dn-svg-view").getBoundingClientRect();
            return node.left >= left && node.right <= right
              && node.top >= top && node.bottom <= bottom;
        }""")
        # Where the details are below the picture, they are brought into the window.
        page.set_viewport_size({"width": 700, "height": 900})
        page.evaluate("document.body.style.marginTop = '300px'")
        page.keyboard.press("f")
        page.locator(".dn-node-details").wait_for()
        page.wait_for_function(BOX, arg=".dn-node-actions")


def test_the_focus_follows_a_link_in_the_details(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        page = open_view(db.open("many"), width=1400)
        group = page.locator(".dn-inspect [data-node]", has_text="× part").last
        group.press("Enter")
        member = page.locator(".dn-members li button").nth(3)
        member.press("Enter")
        page.wait_for_function(f"{FOCUSED} && {FOCUSED} === {CHOSEN}")
        # The keys of the view keep working.
        page.keyboard.press("Escape")
        page.locator(".dn-side-panel").wait_for(state="hidden")
        assert page.locator(".dn-inspect").is_visible()
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"
        page.get_by_role("tab", name="Graph").focus()
        page.keyboard.press("f")
        page.get_by_role("button", name="1 of 4").wait_for()
        # So they do in the table of steps.
        page.get_by_role("tab", name="Steps").click()
        page.locator(".dn-step-table tr[data-kind=step]").first.press("Enter")
        page.locator(".dn-facts button").first.press("Enter")
        page.locator(".dn-side-panel header", has_text="workflow").wait_for()
        page.wait_for_function("document.activeElement.ariaSelected === 'true'")
        # What is gone from the details leaves the focus on their heading.
        page.evaluate("document.querySelector('.dn-side-panel header button').focus()")
        page.evaluate("document.querySelector('.dn-step-table tr[data-kind=step]').click()")
        page.locator(".dn-side-panel header", has_text="#").wait_for()
        assert page.evaluate("document.activeElement.closest('.dn-side-panel') !== null")


@pytest.mark.parametrize("is_page", [True, False])
def test_keys_act_without_the_focus_in_a_web_page_alone(
    db: dn.Client, open_view: Callable[..., Page], is_page: bool
) -> None:
    def press(key: str, target: str) -> bool:
        """Press a key while nothing has the focus; return whether it acted."""
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate("document.activeElement === document.body")
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        return bool(page.evaluate(target))

    page = open_view(db.open(sync_url=is_page))
    page.locator(".dn-row").first.wait_for()
    assert press("/", "document.activeElement.matches('.dn-explore input[type=search]')") is is_page
    # On a tab of the console the focus is in the view.
    page.locator(".dn-console-tab", has_text="Workflows").focus()
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.matches('.dn-explore input[type=search]')")
    assert page.locator(".dn-explore .dn-search").input_value() == ""
    page.locator(".dn-row[data-id='checkout-5-bad']").get_by_role("button", name="Open").click()
    page.locator(".dn-inspect [data-node]").first.wait_for()
    assert press("f", "document.querySelector('.dn-side-panel').checkVisibility()") is is_page
    page.keyboard.press("Escape")
    page.locator(".dn-side-panel").wait_for(state="hidden")
    assert page.locator(".dn-inspect").is_visible()
    assert press("/", "document.activeElement.matches('.dn-inspect input[type=search]')") is is_page


def test_what_had_the_focus_gets_it_back(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("fork-1"))
        fork = page.get_by_role("button", name="Fork", exact=True)
        fork.click(trial=True)  # it is enabled
        fork.press("Enter")
        page.locator(".dn-plan table").wait_for()
        page.keyboard.press("Escape")
        page.wait_for_function("document.activeElement.textContent === 'Fork'")
        # A link to another run is not there any more: the heading has the focus, visibly.
        page.locator(".dn-fact-line").get_by_role("button", name="checkout-5-bad").press("Enter")
        page.wait_for_function("document.activeElement.tagName === 'H2'")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_a_change_of_the_theme_is_followed(db: dn.Client, open_view: Callable[..., Page]) -> None:
    body = "<style>:root { color-scheme: light dark } body { background: Canvas }</style>"
    page = open_view(db.inspect("checkout-5-bad"), body=body + "<div id=here></div>")
    page.emulate_media(color_scheme="light")
    page.wait_for_selector(".dn-inspect[data-theme=light]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector(".dn-inspect[data-theme=dark]")


def test_what_covers_others_has_the_background_that_is_shown(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    body = "<style>:root { --jp-layout-color0: #111 } body { background: rgb(28, 28, 28) }</style>"
    page = open_view(db.inspect("checkout-5-bad"), body=body + "<div id=here></div>")
    page.locator("[data-node]").first.click()
    title = page.locator(".dn-node-details > header")
    title.wait_for()
    color = "(part) => getComputedStyle(part).backgroundColor"
    assert title.evaluate(color) == "rgb(28, 28, 28)"


def test_a_comparison_is_readable_and_has_the_durations_of_the_runs(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        # As an application on Python 3.11 stores them: in whole seconds.
        times = ("created_at", "updated_at", "started_at_epoch_ms", "completed_at")
        whole = ", ".join(f"{time} = {time} / 1000 * 1000" for time in times)
        connection.execute(f"UPDATE workflow_status SET {whole}")
        connection.execute(
            "UPDATE workflow_status SET status = 'SUCCESS', error = NULL"
            " WHERE workflow_uuid = 'fork-1'"
        )
        begin = "(SELECT started_at_epoch_ms FROM workflow_status WHERE workflow_uuid = 'fork-1')"
        connection.execute(
            f"UPDATE operation_outputs SET started_at_epoch_ms = {begin} + 100 + function_id,"
            f" completed_at_epoch_ms = {begin} + 140 + function_id, error = NULL"
            " WHERE workflow_uuid = 'fork-1'"
        )
        connection.execute(
            "UPDATE operation_outputs SET function_name = function_name || '_of_all'"
            " WHERE workflow_uuid = 'fork-1' AND function_id = 3"
        )
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("fork-1"), width=1200)
        took = page.locator(".dn-fact-line", has_text="took").locator("span").first.inner_text()
        page.get_by_role("button", name="Compare", exact=True).click()
        table = page.locator(".dn-differences")
        table.wait_for()
        assert took.removeprefix("took ") in table.inner_text()
        card = page.locator("[data-node]", has_text="succeeded after").first
        assert f"succeeded after {took.removeprefix('took ')}" in (card.text_content() or "")
        assert "only in fork" in (page.locator(".dn-legend").text_content() or "")
        assert table.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")
        panel = page.locator(".dn-side-panel")
        assert panel.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")


def test_what_is_known_is_said(database_copy: Path, open_view: Callable[..., Page]) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        connection.execute(
            "INSERT INTO workflow_status (workflow_uuid, name, status, inputs, created_at,"
            " updated_at, started_at_epoch_ms, completed_at, priority, serialization) VALUES"
            " ('none', 'bare', 'SUCCESS', '{\"positionalArgs\": [], \"namedArgs\": {}}',"
            " 1785000000000, 1785000003000, 1785000000000, 1785000003000, 0, 'portable_json'),"
            " ('active', 'bare', 'PENDING', NULL, ?, ?, NULL, NULL, 0, 'portable_json')",
            [round(time.time() * 1000) - 90_000] * 2,
        )
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.open("none"))
        # After a reload the tab has the name of the run, and its ID.
        page.locator(".dn-console-tab", has_text="bare").wait_for()
        page.locator(".dn-run-data", has_text="no arguments").wait_for()
        page.locator(".dn-console-tab", has_text="Workflows").click()
        assert "about 3 s" in page.locator(".dn-row[data-id=none]").inner_text()
        page.locator(".dn-row[data-id=active]").get_by_role("button", name="Open").click()
        # The node counts on, as the header does.
        since = page.locator("[data-node] tspan[data-since]")
        since.wait_for()
        before = since.text_content()
        page.wait_for_function(
            "(before) => document.querySelector('[data-node] tspan').textContent !== before",
            arg=before,
        )
        assert since.text_content() == page.locator(".dn-fact-line .dn-running").text_content()


def test_a_run_that_was_deleted_says_so_and_offers_nothing_more(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    def delete(within: Locator) -> None:
        within.get_by_role("button", name="More", exact=True).click()
        within.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete 1 workflow", exact=True).click()
        page.wait_for_function("document.querySelector('.dn-final')?.disabled === false")
        page.locator(".dn-inspect .dn-confirm >> visible=true").press("Enter")
        receipt = page.locator(".dn-inspect .dn-plan[aria-label='Receipt: delete'] tbody tr")
        receipt.get_by_text("→ deleted").wait_for()
        page.wait_for_timeout(300)
        assert page.locator(".dn-banner >> visible=true").count() == 0

    with dn.connect(database_copy) as db:
        page = open_view(db.open("checkout-1"), width=1400)
        page.locator(f".dn-inspect [data-node='{short_id('checkout-1-4')}']").click()
        panel = page.locator(".dn-inspect .dn-side-panel")
        delete(panel.locator(".dn-actions"))
        panel.wait_for(state="hidden")
        # The run itself is still there, and so are its buttons.
        header = page.locator(".dn-inspect .dn-run")
        page.get_by_role("button", name="Close", exact=True).click()
        delete(header)
        header.get_by_text("This run was deleted.").wait_for()
        receipt = page.locator(".dn-inspect .dn-plan >> visible=true")
        names = page.locator(".dn-inspect button >> visible=true").all_text_contents()
        assert [name for name in names if name] == ["Close"]
        assert receipt.evaluate("(node) => node.contains(document.activeElement)")
        for key in ("f", "/"):
            page.keyboard.press(key)
        receipt.get_by_role("button", name="Close").press("Enter")
        assert page.evaluate("document.activeElement.closest('.dn-view') !== null")
        # Another run has all of it again.
        page.evaluate("window.model.set('_place', { view: 'run', id: 'fork-1', by: 'kernel' })")
        page.locator(".dn-inspect [data-node]").first.wait_for()
        header.get_by_role("button", name="Fork", exact=True, disabled=False).wait_for()
        assert page.locator(".dn-banner >> visible=true").count() == 0
