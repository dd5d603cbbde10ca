"""The browser's half of each view in a bare page, asked and answered by its Python half.

Without a notebook between them the tests can hold answers back, and fail them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import big_runs
import pytest
from playwright.sync_api import expect

import dbos_notebook as dn
from dbos_notebook.drawing.diagram import short_id
from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


def wait_until_idle(page: Page) -> None:
    """Wait until everything that was asked for is shown."""
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def focused(page: Page) -> Any:
    return page.evaluate("(document.activeElement.title || document.activeElement.textContent)")


def test_any_string_may_be_a_status(database_copy: Path, open_view: Callable[..., Page]) -> None:
    connection = sqlite3.connect(database_copy)
    statuses = ["constructor", "__proto__", "toString", None]
    names = ["checkout-1", "checkout-2", "checkout-3", "checkout-4"]
    with connection:
        connection.executemany(
            "UPDATE workflow_status SET status = ? WHERE workflow_uuid = ?",
            list(zip(statuses, names, strict=True)),
        )
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.explore())
        for name in names:
            row = page.locator(f".dn-row[data-id='{name}']")
            row.press("Enter")
            page.locator(".dn-opened .dn-facts").first.wait_for()
            row.press("Enter")
        open_view(db.board(window="30d")).locator(".dn-tile").first.wait_for()
        for name in names:
            page = open_view(db.inspect(name))
            page.locator("[data-node]").first.wait_for()
            page.get_by_role("tab", name="Steps").click()
            page.locator(".dn-step-table tr").first.wait_for()


@pytest.mark.parametrize("view", ["explore", "board", "inspect", "controls"])
def test_an_unreachable_kernel_is_reported(
    database_copy: Path, open_view: Callable[..., Page], view: str
) -> None:
    with dn.connect(database_copy) as db:
        views: dict[str, Callable[[], View]] = {
            "explore": db.explore,
            "board": db.board,
            "inspect": lambda: db.inspect("checkout-4"),
            "controls": lambda: db.controls("queued-1"),
        }
        page = open_view(views[view]())
        page.locator(".dn-row, .dn-tile, [data-node], .dn-title code").first.wait_for()
        # As JupyterLab does after a kernel was shut down.
        page.evaluate("() => { window.model.send = () => { throw new Error('Cannot send'); }; }")
        for _ in range(2):
            page.get_by_role("button", name="Refresh").first.click()
            banner = page.locator(".dn-banner", has_text="Kernel stopped")
            banner.wait_for()
            assert "Try again" not in banner.inner_text()
            banner.get_by_label("Close").click()


def test_the_focus_is_kept(db: dn.Client, open_view: Callable[..., Page]) -> None:
    page = open_view(db.explore())
    page.locator(".dn-row").first.wait_for()
    for press in (
        page.locator(".dn-status", has_text="ERROR"),
        page.get_by_title("Sort by workflow"),
        page.get_by_role("button", name="Tree"),
        page.get_by_role("button", name="List"),
    ):
        press.focus()
        before = focused(page)
        page.keyboard.press("Enter")
        wait_until_idle(page)
        assert focused(page).rstrip(" ↑↓0123456789") == before.rstrip(" ↑↓0123456789")
    # In an expanded row too, when the list is refreshed.
    page.locator(".dn-row").first.press("Enter")
    page.locator(".dn-opened .dn-facts button").first.focus()
    assert focused(page) == "Copy the ID"
    page.evaluate("document.querySelector('[title=\"Sort by duration\"]').click()")
    wait_until_idle(page)
    assert focused(page) == "Copy the ID"
    board = open_view(db.board(window="30d"))
    board.locator(".dn-tile").first.wait_for()
    board.evaluate("window.model.holding = 'board'")
    board.get_by_role("button", name="7d").press("Enter")
    expect(board.locator(".dn-tiles")).to_have_attribute("aria-busy", "true")
    board.evaluate("window.model.release()")
    wait_until_idle(board)
    assert focused(board) == "Finished in the last 7d"


def test_a_plan_that_is_not_visible_is_not_confirmed(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls(["queued-1", "queued-2"]))
        page.get_by_role("button", name="Cancel 2").click()
        confirm = page.locator(".dn-confirm")
        confirm.wait_for()
        assert confirm.is_enabled()
        # While another plan is loading, the plan that is shown is out of date.
        page.evaluate("window.model.holding = 'plan'")
        page.get_by_label("include children").check()
        page.wait_for_function("window.model.held.length === 1")
        assert confirm.is_disabled()
        page.evaluate("document.querySelector('.dn-confirm').click()")
        assert "apply" not in page.evaluate("window.model.sent.map((one) => one.kind)")
        page.evaluate("window.model.release()")
        page.wait_for_function("!document.querySelector('.dn-confirm').disabled")
        # A plan that arrives after it was discarded is not shown.
        page.evaluate("window.model.holding = 'plan'")
        page.get_by_label("include children").uncheck()
        page.wait_for_function("window.model.held.length === 1")
        page.get_by_role("button", name="Discard").click()
        page.evaluate("window.model.release()")
        page.wait_for_timeout(100)
        assert page.locator(".dn-plan").is_hidden()
        # Two confirmations at once apply the plan once.
        page.get_by_role("button", name="Cancel 2").click()
        confirm.wait_for()
        page.evaluate("() => [1, 2].forEach(() => document.querySelector('.dn-confirm').click())")
        page.locator(".dn-plan[aria-label^=Receipt]").wait_for()
        sent = page.evaluate("window.model.sent.filter((one) => one.kind === 'apply').length")
        assert sent == 1
        assert db.workflow("queued-1").status == "CANCELLED"


def test_a_field_of_a_plan_keeps_focus_and_text_when_the_plan_is_drawn_again(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    def texts() -> list[str]:
        return [fields.nth(n).input_value() for n in range(3)]

    def wait_for_plan(**options: str) -> None:
        """Wait until a plan with these options is shown, and can be confirmed."""
        page.wait_for_function(
            """(wanted) => Object.entries(wanted).every(([key, value]) =>
              window.model.sent.findLast((one) => one.kind === "plan").options[key] === value)
              && !document.querySelector(".dn-confirm").disabled""",
            arg=options,
        )

    with dn.connect(database_copy) as db:
        page = open_view(db.controls("checkout-5-bad"))
        page.get_by_role("button", name="Fork", exact=True, disabled=False).click()
        confirm, fields = page.locator(".dn-confirm"), page.locator(".dn-plan-head input")
        confirm.wait_for()
        # The plan for the version arrives while the queue is being typed.
        page.evaluate("window.model.holding = 'plan'")
        fields.nth(1).focus()
        page.keyboard.type("2026.07")
        page.keyboard.press("Tab")
        page.keyboard.type("la.print")
        for _ in range(6):
            page.keyboard.press("ArrowLeft")
        page.wait_for_function("window.model.held.length === 1")
        page.evaluate("window.model.release()")
        page.locator(".dn-plan code", has_text="2026.07").wait_for()
        # It does not have what was typed since.
        assert confirm.is_disabled()
        page.keyboard.type("bels")
        assert texts() == ["", "2026.07", "labels.print"]
        page.keyboard.press("Enter")
        wait_for_plan(queue_name="labels.print", application_version="2026.07")
        page.keyboard.type("!")
        assert texts() == ["", "2026.07", "labels!.print"]
        assert confirm.is_disabled()
        # What is typed and taken back needs no other plan.
        page.keyboard.press("Backspace")
        assert confirm.is_enabled()
        fields.nth(1).press("End")
        page.keyboard.type(".1")
        page.keyboard.press("Enter")
        wait_for_plan(application_version="2026.07.1")
        page.keyboard.type("2")
        assert texts() == ["", "2026.07.12", "labels.print"]


def test_options_cannot_be_changed_while_a_plan_is_applied(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls(["queued-1"]))
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.evaluate("window.model.holding = 'apply'")
        page.locator(".dn-confirm").click()
        page.wait_for_function("window.model.held.length === 1")
        assert page.get_by_label("include children").is_disabled()
        page.evaluate("window.model.release()")
        page.locator(".dn-plan[aria-label^=Receipt]").wait_for()


def test_forking_from_a_step_leaves_the_buttons_of_a_child_on_the_child(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    def node(key: Hashable) -> Locator:
        return page.locator(f".dn-inspect [data-node='{short_id(key)}']")

    def planned() -> list[str]:
        """Return the workflows of the latest plan."""
        page.locator(".dn-plan[aria-label^=Plan]").wait_for()
        sent = page.evaluate("window.model.sent.filter((one) => one.kind === 'plan').at(-1).ids")
        page.get_by_role("button", name="Discard").click()
        return list(sent)

    with dn.connect(database_copy) as db:
        child = "checkout-1-4"
        page = open_view(db.inspect("checkout-1"))
        buttons = page.locator(".dn-side-panel .dn-actions")
        node(child).click()
        buttons.get_by_role("button", name="Fork", exact=True).click()
        assert planned() == [child]
        node(("checkout-1", 3)).click()
        page.get_by_role("button", name="Fork from here").click()
        assert planned() == ["checkout-1"]
        node(child).click()
        buttons.get_by_role("button", name="Fork", exact=True).click()
        assert planned() == [child]


def test_a_double_click_neither_confirms_a_plan_nor_closes_a_receipt(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls("queued-1"))
        press = page.get_by_role("button", name="Cancel", exact=True, disabled=False)
        press.press("Enter")
        confirm = page.locator(".dn-confirm")
        confirm.wait_for()
        page.keyboard.press("Enter")
        assert "apply" not in page.evaluate("window.model.sent.map((one) => one.kind)")
        # From the plan, Tab moves to the confirmation.
        page.keyboard.press("Tab")
        assert focused(page) == confirm.inner_text()
        page.get_by_role("button", name="Discard").press("Enter")
        assert focused(page) == press.get_attribute("title")
        press.press("Enter")
        confirm.wait_for()
        where = confirm.bounding_box()
        assert where is not None
        confirm.press("Enter")
        receipt = page.locator(".dn-plan[aria-label^=Receipt]")
        receipt.wait_for()
        page.keyboard.press("Enter")
        page.mouse.click(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
        assert receipt.is_visible()
        page.locator(".dn-actions button:not([aria-disabled])", has_text="Resume").wait_for()
        receipt.get_by_role("button", name="Close").press("Enter")
        assert receipt.is_hidden()
        assert page.evaluate("document.activeElement.closest('.dn-actions') !== null")


def test_a_message_is_sent_from_its_form(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls("queued-1"), width=420)
        page.get_by_role("button", name="Send message").click()
        page.get_by_label("Topic").fill("approval")
        page.get_by_label("Message", exact=True).fill("yes")
        page.get_by_role("button", name="Plan", exact=True).click()
        alert = page.get_by_role("alert").filter(has_text="Message is not JSON")
        assert "or choose Text" in alert.inner_text()
        assert "plan" not in page.evaluate("window.model.sent.map((one) => one.kind)")
        page.get_by_label("Format of the message").select_option("Text")
        page.get_by_role("button", name="Plan", exact=True).click()
        page.locator(".dn-plan[aria-label='Plan: send message']").wait_for()
        # What was entered can be changed, also after the plan was closed.
        page.get_by_role("button", name="Discard").click()
        page.get_by_role("button", name="Send message").click()
        assert page.get_by_label("Message", exact=True).input_value() == "yes"
        page.get_by_role("button", name="Plan", exact=True).click()
        page.get_by_role("button", name="Change").click()
        assert page.get_by_label("Topic").input_value() == "approval"
        page.get_by_label("Message", exact=True).fill("no <b>")
        page.get_by_label("Message", exact=True).press("Control+Enter")
        # Even here, what will be sent is seen before it is.
        code = page.locator(".dn-plan-foot code")
        assert "no <b>" in code.inner_text()
        size = (
            "each => [each.scrollWidth - each.clientWidth, each.scrollHeight - each.clientHeight]"
        )
        assert max(code.evaluate(size)) <= 1
        page.get_by_role("button", name="Send to 1 workflow").click()
        receipt = page.locator(".dn-plan[aria-label='Receipt: send message']")
        receipt.get_by_text("Now: enqueued").wait_for()
        headings = ["outcome", "workflow", "status", "as planned"]
        assert receipt.locator("th").all_text_contents() == headings
        assert receipt.locator("tbody td").nth(2).inner_text().strip() == "ENQUEUED"
        assert receipt.locator("p", has_text="executor").count() == 1
        (message,) = db.messages("queued-1").to_dict("records")
        assert (message["topic"], message["message"]) == ("approval", "no <b>")
        # The receipt is followed.
        db.cancel("queued-1")
        receipt.get_by_text("Ended: cancelled").wait_for()
        assert receipt.locator("tbody td").nth(2).inner_text().strip() == "CANCELLED"
        # Whether the work will run is not a question any more.
        assert receipt.locator("p", has_text="executor").count() == 0
        assert receipt.evaluate("(node) => node.scrollWidth <= node.clientWidth")


def test_a_deletion_needs_a_second_press(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls(["queued-1", "checkout-1", "checkout-2"]))
        page.get_by_role("button", name="More").click()
        page.get_by_role("button", name="Delete 2").click()
        # It does not look like an action that can be undone.
        color = "(node) => getComputedStyle(node).backgroundColor"
        confirm = page.get_by_role("button", name="Delete 2 workflows")
        red = confirm.evaluate(color)
        page.get_by_role("button", name="Cancel 1").click()
        assert page.get_by_role("button", name="Cancel 1 workflow").evaluate(color) != red
        page.get_by_role("button", name="Delete 2").click()
        page.get_by_role("button", name="Delete 2 workflows").dblclick()
        second = page.get_by_role("button", name="Press again: Delete 2 workflows permanently")
        assert second.is_disabled()
        page.wait_for_function("!document.querySelector('.dn-final').disabled")
        assert "apply" not in page.evaluate("window.model.sent.map((one) => one.kind)")
        second.click()
        page.locator(".dn-plan[aria-label='Receipt: delete']").wait_for()
        # Work that waits is not deleted: whoever awaits it would wait without end.
        left = db.workflows(["queued-1", "checkout-1", "checkout-2"])
        assert left["workflow_id"].tolist() == ["queued-1"]


def test_schedules_have_buttons_unless_the_client_is_read_only(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with sqlite3.connect(database_copy) as connection:
        connection.execute(
            "INSERT INTO workflow_schedules (schedule_id, schedule_name, workflow_name, schedule,"
            " status, context) VALUES ('1', '<b>nightly', 'shop.checkout', '0 0 * * *', 'ACTIVE',"
            " 'gAROLg==')"
        )
    with dn.connect(database_copy, read_only=True) as db:
        page = open_view(db.controls(schedules=True))
        page.get_by_role("group", name="<b>nightly").wait_for()
        assert page.locator(".dn-schedule button").count() == 0
        page = open_view(db.controls("queued-1"))
        page.get_by_text("queued-1").wait_for()
        assert page.locator(".dn-actions").count() == 0
    with dn.connect(database_copy) as db:
        page = open_view(db.controls(schedules=True), width=420)
        page.get_by_role("button", name="Pause <b>nightly").click()
        page.get_by_role("button", name="Pause 1 schedule").click()
        page.locator(".dn-plan[aria-label='Receipt: pause']").wait_for()
        page.get_by_role("button", name="Resume <b>nightly").wait_for()
        assert db.schedules()["status"].tolist() == ["PAUSED"]
        page.get_by_role("button", name="Backfill <b>nightly").click()
        # Escape closes a form, also from its fields, and a plan before it leaves the view.
        page.get_by_label("From").press("Escape")
        page.locator(".dn-plan").wait_for(state="hidden")
        console = open_view(db.open())
        console.locator(".dn-console-tab", has_text="Schedules").click()
        console.get_by_role("button", name="Resume <b>nightly").click()
        console.locator(".dn-controls .dn-plan tbody tr").wait_for()
        console.locator(".dn-console-tab", has_text="Schedules").press("Escape")
        console.locator(".dn-controls .dn-plan").wait_for(state="hidden")
        assert console.locator(".dn-schedule").is_visible()
        page.get_by_role("button", name="Backfill <b>nightly").click()
        page.get_by_label("From").fill("2d")
        page.get_by_label("From").press("Enter")
        page.locator(".dn-plan[aria-label='Plan: backfill']").wait_for()
        assert page.locator(".dn-plan-rows tbody tr").count() == 2
        assert page.evaluate("document.body.scrollWidth <= innerWidth")


def test_a_plan_fits_a_narrow_cell(database_copy: Path, open_view: Callable[..., Page]) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.controls("checkout-5-bad"), width=380)
        page.get_by_role("button", name="Fork", exact=True, disabled=False).click()
        rows = page.locator(".dn-plan-rows")
        rows.wait_for()
        assert rows.evaluate("(rows) => rows.scrollWidth <= rows.clientWidth")
        assert rows.locator("tr", has_text="runs again from step").is_visible()
        page.locator(".dn-confirm").click()
        receipt = page.locator(".dn-plan[aria-label^=Receipt]")
        receipt.wait_for()
        assert rows.evaluate("(rows) => rows.scrollWidth <= rows.clientWidth")
        # This view cannot show the fork.
        assert receipt.get_by_title("click-").count() == 1
        assert receipt.locator(".dn-link").count() == 0


def test_the_list_of_enqueued_workflows_fits_a_narrow_cell(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.explore(queues_only=True), width=380)
        page.locator(".dn-row").first.wait_for()
        assert page.locator(".dn-scroll").evaluate("(one) => one.scrollWidth <= one.clientWidth")


def test_the_time_fields_hold_the_filters(db: dn.Client, open_view: Callable[..., Page]) -> None:
    page = open_view(db.explore(end_time="2100-01-01T00:00:00.000Z"))
    page.get_by_title("More filters").click()
    begin, end = (page.get_by_label(each, exact=True) for each in ("Created from", "Created until"))
    assert end.input_value().startswith("2100-01-01T00:00")
    begin.fill("2020-02-03T04:05:06")
    chip = page.locator(".dn-filter", has_text="from 2020-02-03 04:05:06")
    chip.get_by_role("button").click()
    assert begin.input_value() == ""
    begin.fill("2020-02-03T04:05:06")
    chip.wait_for()
    page.get_by_label("Created", exact=True).select_option("last 24 hours")
    assert begin.input_value() == ""


def test_available_actions_are_requested_again_after_a_failure(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.controls(["queued-1"]))
    page.locator(".dn-actions button:not([aria-disabled])").first.wait_for()
    widget = db.explore()
    page = open_view(widget)
    page.locator(".dn-row[data-id='queued-1']").wait_for()
    page.evaluate("window.model.failing = 'possible'")
    page.locator(".dn-row[data-id='queued-1'] input").check()
    page.locator(".dn-banner", has_text="failed").wait_for()
    page.evaluate("window.model.failing = null")
    page.get_by_role("button", name="Refresh").first.click()
    page.locator(".dn-actions button:not([aria-disabled])").first.wait_for()


def test_a_failed_action_refreshes_the_list_and_keeps_the_error(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.explore())
        page.locator(".dn-row[data-id='queued-1'] input").check()
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.locator(".dn-confirm").wait_for()
        page.evaluate("window.model.failing = 'apply'")
        db.cancel("queued-1")  # the part that was done before it failed
        page.locator(".dn-confirm").click()
        banner = page.locator(".dn-banner")
        banner.wait_for()
        page.locator(".dn-row[data-id='queued-1'][data-status='CANCELLED']").wait_for()
        page.get_by_role("button", name="Cancel", exact=True, disabled=True).wait_for()
        page.evaluate("window.model.sent.length = 0")
        page.get_by_role("button", name="Refresh").click()
        page.wait_for_function("window.model.sent.some((one) => one.kind === 'activities')")
        assert "failed" in banner.inner_text()
        assert "Try again" not in banner.inner_text()
        banner.get_by_label("Close").click()
        assert banner.is_hidden()


def test_a_timeline_is_drawn_for_the_available_width(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.inspect("checkout-5-bad"), width=1200)
    page.get_by_role("tab", name="Timeline").click()

    def timeline_size() -> tuple[float, float]:
        """Return the width of the timeline, and its scale."""
        page.wait_for_timeout(500)  # until a change of the size is followed
        wait_until_idle(page)
        found = page.locator(".dn-picture > .dn-svg-view > svg").evaluate(
            "(svg) => [svg.clientWidth, svg.clientWidth / svg.viewBox.baseVal.width]"
        )
        return found[0], found[1]

    width_alone, scale = timeline_size()
    assert width_alone > 1050
    assert scale > 0.95
    page.get_by_role("button", name="1 failure").click()
    page.locator(".dn-side-panel h3").wait_for()
    width_beside, scale = timeline_size()
    assert width_beside < 900
    assert scale > 0.95
    page.get_by_label("Close the details").click()
    assert timeline_size()[0] == width_alone


def test_the_timeline_of_a_waiting_workflow_grows(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    svg_text = "document.querySelector('.dn-picture > .dn-svg-view > svg')?.textContent"
    with dn.connect(database_copy) as db:
        receipt = db.fork("checkout-5-bad", "failed")
        widget = db.inspect(receipt.to_frame()["new_workflow_id"].item())
        page = open_view(widget)
        page.get_by_role("tab", name="Timeline").click()
        page.wait_for_function(f"{svg_text}?.includes('has waited')")
        first = page.evaluate(svg_text)
        page.wait_for_function(f"(first) => {svg_text} !== first", arg=first)
        page.get_by_role("switch", name="Live").click()
        second = page.evaluate(svg_text)
        page.wait_for_timeout(1100)  # so that another second is told
        page.get_by_role("button", name="Refresh").click()
        page.wait_for_function(f"(second) => {svg_text} !== second", arg=second)


def test_the_mark_of_a_row_does_not_overlap_other_rows(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.inspect("checkout-5-bad"))
    page.get_by_role("tab", name="Timeline").click()
    page.get_by_role("button", name="1 failure").click()
    page.locator(".dn-side-panel h3").wait_for()
    over = page.evaluate("""() => {
        const halo = document.querySelector(".dn-halo");
        const { top, bottom } = halo.getBoundingClientRect();
        return [...document.querySelectorAll(".dn-picture [data-node]")]
          .filter((one) => !one.contains(halo)).map((one) => one.getBoundingClientRect())
          .map((one) => Math.min(bottom, one.bottom) - Math.max(top, one.top));
    }""")
    assert over
    assert max(over) <= 2


def test_a_comparison_is_not_labelled_live(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        receipt = db.fork("checkout-5-bad", "failed")
        page = open_view(db.inspect(receipt.to_frame()["new_workflow_id"].item()))
        line = page.locator(".dn-footer .dn-state")
        page.wait_for_function("document.querySelector('.dn-state').textContent === 'live'")
        page.get_by_role("button", name="Compare", exact=True).first.click()
        page.locator(".dn-differences").wait_for()
        page.wait_for_function("document.querySelector('.dn-state').textContent !== 'live'")
        assert line.inner_text().startswith("updated ")
        page.get_by_role("button", name="Close comparison", exact=True).click()
        page.wait_for_function("document.querySelector('.dn-state').textContent === 'live'")


def test_a_closed_comparison_does_not_reopen(db: dn.Client, open_view: Callable[..., Page]) -> None:
    page = open_view(db.inspect("fork-1"))
    compare = page.get_by_role("button", name="Compare", exact=True)
    compare.click()
    page.locator(".dn-side-panel", has_text="Differences").wait_for()

    def wait_for_held_answer() -> None:
        page.wait_for_function("window.model.held.length === 1")

    def release_answer() -> None:
        """Release the answer; a later question that is answered shows that it was received."""
        page.evaluate("window.model.release()")
        page.get_by_label("Find in this run").fill("charge")
        page.locator(".dn-search-results", has_text="charge").wait_for()
        assert page.locator(".dn-notice").is_hidden()
        assert page.locator(".dn-side-panel").is_hidden()
        page.get_by_label("Find in this run").press("Escape")

    page.evaluate("window.model.holding = 'compare'")
    page.get_by_role("button", name="Critical path").click()
    wait_for_held_answer()
    page.get_by_role("button", name="Close comparison", exact=True).click()
    release_answer()
    page.evaluate("window.model.holding = 'compare'")
    compare.click()
    wait_for_held_answer()
    page.locator(".dn-fact-line").get_by_role("button", name="checkout-5-bad").click()
    page.wait_for_function("document.querySelector('.dn-run-id').textContent === 'checkout-5-bad'")
    release_answer()


def test_what_is_out_of_date_is_marked_until_the_answer_comes(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    run = open_view(db.inspect("fork-1"))
    run.locator("[data-node]").first.wait_for()
    wait_until_idle(run)
    picture, steps = run.locator(".dn-picture"), run.locator(".dn-step-listing")
    run.evaluate("window.model.holding = 'show'")
    run.get_by_role("button", name="Overview").click()
    expect(picture).to_have_attribute("aria-busy", "true")
    expect(picture).to_have_css("opacity", "0.5")
    # The answer to the first of two questions is not what was chosen last.
    run.get_by_role("button", name="Overview").click()
    run.wait_for_function("window.model.held.length === 1")
    run.evaluate("window.model.tell('msg:custom', window.model.held.shift())")
    run.wait_for_function("window.model.held.length === 1")
    expect(picture).to_have_attribute("aria-busy", "true")
    run.evaluate("window.model.release()")
    wait_until_idle(run)
    expect(picture).to_have_css("opacity", "1")
    run.evaluate("window.model.holding = 'list'")
    run.get_by_role("tab", name="Steps").click()
    expect(steps).to_have_attribute("aria-busy", "true")
    run.evaluate("window.model.release()")
    wait_until_idle(run)
    run.evaluate("window.model.holding = 'show'")
    run.locator(".dn-fact-line").get_by_role("button", name="checkout-5-bad").click()
    expect(run.locator("[aria-busy=true]")).to_have_count(1)
    run.evaluate("window.model.release()")
    wait_until_idle(run)
    # An answer that is an error leaves nothing busy.
    run.get_by_role("tab", name="Graph").click()
    wait_until_idle(run)
    run.evaluate("window.model.failing = 'show'")
    run.get_by_role("button", name="Critical path").click()
    run.get_by_role("alert").wait_for()
    wait_until_idle(run)

    listing = open_view(db.explore())
    listing.locator("[role=row]").nth(1).wait_for()
    listing.evaluate("window.model.holding = 'page'")
    listing.get_by_label("Search").fill("checkout")
    expect(listing.get_by_role("grid")).to_have_attribute("aria-busy", "true")
    listing.evaluate("window.model.release()")
    wait_until_idle(listing)


def test_a_long_id_keeps_the_buttons_in_one_row(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        receipt = db.fork("checkout-5-bad", "failed")
        for width in (380, 700, 760):
            page = open_view(db.inspect(receipt.to_frame()["new_workflow_id"].item()), width=width)
            page.locator(".dn-name-line .dn-live").wait_for()
            tops = page.locator(".dn-name-line .dn-group > *").evaluate_all(
                "(all) => all.map((one) => one.getBoundingClientRect().top)"
            )
            assert len(tops) == 3
            assert len(set(tops)) == 1


def test_steps_and_graph_show_the_duration_of_a_workflow(
    shop_sqlite: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(shop_sqlite) as shop:
        root = shop.workflows(name="order", status="SUCCESS", has_parent=False)["workflow_id"][0]
        page = open_view(shop.inspect(root))
        took = page.locator(".dn-fact-line", has_text="took").locator("span").first.inner_text()
        label = page.locator("[data-node][aria-label^='order']").first.get_attribute("aria-label")
        assert label == f"order, SUCCESS, {took.removeprefix('took ')}"
        page.get_by_role("tab", name="Steps").click()
        row = page.locator(".dn-step-table tr[data-kind=workflow]").first
        row.get_by_text(took.removeprefix("took "), exact=True).wait_for()


def test_the_selected_step_is_kept_between_tabs(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.inspect("checkout-4"), width=420)
    page.get_by_role("tab", name="Steps").click()
    page.locator(".dn-step-table tr").last.click()
    page.locator(".dn-side-panel h3").wait_for()
    page.get_by_role("tab", name="Graph").click()
    page.wait_for_function("""() => {
        const frame = document.querySelector(".dn-picture > .dn-svg-view").getBoundingClientRect();
        const halo = document.querySelector(".dn-halo")?.getBoundingClientRect();
        return halo && halo.bottom > frame.top && halo.top < frame.bottom
          && halo.right > frame.left && halo.left < frame.right;
    }""")


def test_pressing_back_twice_at_once_goes_back_once(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.inspect("parent-6-bad-1"))
    page.get_by_role("button", name="parent-6-bad", exact=True).first.click()
    page.locator(".dn-run-id", has_text="parent-6-bad").wait_for()
    back = page.get_by_role("button", name="‹ Back")
    back.wait_for()
    back.evaluate("(button) => [1, 2].forEach(() => button.click())")
    page.wait_for_function("document.querySelector('.dn-run-id').textContent === 'parent-6-bad-1'")
    assert page.evaluate("window.model.get('workflow_id')") == "parent-6-bad-1"
    assert page.locator(".dn-banner").is_hidden()


UNLABELED = """() => [...document.querySelectorAll(
    "button, input, select, summary, [role=button], [role=tab], [role=grid], [role=group], svg")]
  .filter((one) => one.getClientRects().length && !one.closest("[aria-hidden=true]"))
  .filter((one) => !(one.getAttribute("aria-label") || one.title || one.textContent.trim()
    || one.closest("label")?.textContent.trim() || one.labels?.length))
  .map((one) => one.outerHTML.slice(0, 200))"""
MISNAMED = """() => [...document.querySelectorAll("button[aria-label], [role=tab][aria-label]")]
  .filter((one) => /\\p{L}{2}/u.test(one.innerText)
    && !one.getAttribute("aria-label").includes(one.innerText.trim()))
  .map((one) => one.outerHTML.slice(0, 200))"""
"""Buttons that a person who says what is written on them cannot press."""
PAGE_WIDTHS = """() => [document.scrollingElement.scrollWidth, window.innerWidth]"""


@pytest.mark.parametrize("view", ["explore", "board", "inspect", "controls"])
def test_long_names_fit_a_narrow_page_and_every_control_has_a_label(
    database_copy: Path, open_view: Callable[..., Page], view: str
) -> None:
    connection = sqlite3.connect(database_copy)
    long_name = "\u05d0\u05d1\U0001f680</script>" + "w" * 10_000
    with connection:
        connection.execute(
            "UPDATE workflow_status SET name = ?, queue_name = ?", [long_name, long_name]
        )
        connection.execute("UPDATE operation_outputs SET function_name = ?", [long_name])
    connection.close()
    with dn.connect(database_copy) as db:
        views: dict[str, Callable[[], View]] = {
            "explore": db.explore,
            "board": lambda: db.board(window="30d"),
            "inspect": lambda: db.inspect("checkout-5-bad"),
            "controls": lambda: db.controls("queued-1"),
        }
        page = open_view(views[view](), width=300)
        page.wait_for_function("document.body.textContent.length > 299")
        if view == "explore":
            page.locator(".dn-row").first.press("Enter")
            page.locator(".dn-opened .dn-facts").wait_for()
            page.locator(".dn-row input").first.check()
            page.get_by_title("More filters").click()
        if view == "inspect":
            page.locator("[data-node]").nth(2).press("Enter")
            page.locator(".dn-side-panel header").wait_for()
        if view == "controls":
            page.get_by_role("button", name="Cancel", exact=True).click()
            page.locator(".dn-confirm").wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate(UNLABELED) == []
        assert page.evaluate(MISNAMED) == []
        wide, width = page.evaluate(PAGE_WIDTHS)
        assert wide <= width
        # A closed view has no listeners.
        page.evaluate("window.close()")
        assert page.evaluate("window.model.heard.length") == 0


def test_the_columns_of_the_fallback_fit_their_content(db: dn.Client, chromium: Browser) -> None:
    host = ".jp-RenderedHTMLCommon table { table-layout: fixed; width: auto; }"
    html = db.explore(status="ERROR").static_html()
    page = chromium.new_page(viewport={"width": 800, "height": 900})
    page.set_content(f"<style>{host}</style><div class=jp-RenderedHTMLCommon>{html}</div>")
    lines = page.locator("td span[data-status=ERROR]").evaluate_all(
        "(all) => all.map((one) => one.getClientRects().length)"
    )
    page.close()
    assert lines
    assert set(lines) == {1}


def test_the_fallback_is_shown_without_a_kernel_only(
    db: dn.Client, open_view: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[dict[str, str]] = []
    monkeypatch.setattr(
        "dbos_notebook.widgets.base.publish_display_data", lambda data, _: outputs.append(data)
    )
    widget = db.controls("checkout-5-bad")
    widget._ipython_display_()
    # As Voilà and nbconvert write it. In the page of nbconvert the view is drawn, but no kernel
    # answers it.
    as_written = f"""
        <div class="jp-OutputArea-child"><div class="jupyter-widgets jp-OutputArea-output">
          <script type="application/vnd.jupyter.widget-view+json">{{}}</script>
          <div id="here"></div></div></div>
        <div class="jp-OutputArea-child"><div class="jp-RenderedHTML jp-OutputArea-output">
          {outputs[1]["text/html"]}</div></div>"""
    page = open_view(widget, body=as_written, holding="rows")
    view, fallback = page.locator(".dn-view"), page.locator("[data-dn-fallback]")
    page.wait_for_function("window.model.held.length")
    assert view.count() == 1
    assert (view.is_visible(), fallback.is_visible()) == (False, True)
    page.evaluate("window.model.release()")
    page.locator(".dn-controls code").wait_for()
    assert (view.is_visible(), fallback.is_visible()) == (True, False)
    page.evaluate("window.close()")
    assert page.evaluate("window.model.heard.length") == 0


def test_an_empty_list_shows_whether_filters_are_set(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        connection.execute("DELETE FROM workflow_status")
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.explore())
        none = page.locator(".dn-empty")
        none.get_by_text("No workflows yet.").wait_for()
        page.get_by_role("button", name="Enqueued").first.click()
        none.get_by_text("No workflow waits or runs on a queue.").wait_for()
        page.get_by_label("Search", exact=True).fill("order")
        none.get_by_text("No workflow matches.").wait_for()


@pytest.mark.parametrize("first_rows", [5_000, 2])
def test_live_updates_what_a_search_found(
    database_copy: Path,
    open_view: Callable[..., Page],
    monkeypatch: pytest.MonkeyPatch,
    first_rows: int,
) -> None:
    # The search reads its rows at once, or in several parts.
    monkeypatch.setattr("dbos_notebook.widgets.explore.FIRST_SEARCH_ROWS", first_rows)
    monkeypatch.setattr("dbos_notebook.widgets.explore.SEARCH_GROWTH", 1)
    with dn.connect(database_copy) as db:
        page = open_view(db.explore(search="queued", live=True))
        page.locator(".dn-row[data-id='queued-1'][data-status=ENQUEUED]").wait_for()
        wait_until_idle(page)
        rows = page.locator(".dn-row")
        number = rows.count()
        page.evaluate("""() => {
            window.least = Infinity;
            new MutationObserver(() => {
                const { length } = document.querySelectorAll(".dn-row");
                window.least = Math.min(window.least, length);
            }).observe(document.querySelector(".dn-scroll"), { childList: true, subtree: true });
        }""")
        db.cancel("queued-1")
        page.locator(".dn-row[data-id='queued-1'][data-status=CANCELLED]").wait_for()
        # Until all parts have been read again, all rows stay.
        assert page.evaluate("window.least") == number > 1
        parts = page.evaluate("window.model.sent.filter((one) => one.part).length")
        assert (parts > 0) == (first_rows == 2)
        database_copy.rename(database_copy.with_suffix(".gone"))
        page.locator(".dn-banner").wait_for()
        database_copy.with_suffix(".gone").rename(database_copy)
        page.locator(".dn-banner").wait_for(state="hidden")


def test_live_does_not_repeat_a_long_search_at_once(
    db: dn.Client, open_view: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.widgets.explore.FIRST_SEARCH_ROWS", 2)
    page = open_view(db.explore(live=True))
    page.locator(".dn-row").first.wait_for()
    # One part takes a second: for ten times as long nothing is asked.
    page.evaluate("window.model.holding = 'page'")
    page.get_by_label("Search", exact=True).fill("queued")
    page.wait_for_function("window.model.held.length === 1")
    page.wait_for_timeout(1000)
    page.evaluate("window.model.release()")
    page.locator(".dn-row[data-id='queued-1']").wait_for()
    wait_until_idle(page)
    asked = "window.model.sent.filter((one) => one.kind === 'page').length"
    before = page.evaluate(asked)
    page.wait_for_timeout(5000)
    assert page.evaluate(asked) == before


def test_a_comparison_names_the_original_and_the_fork(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        gone = "DELETE FROM operation_outputs WHERE workflow_uuid = ? AND function_id = ?"
        connection.executemany(gone, [("fork-1", 3), ("checkout-5-bad", 2)])
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("checkout-5-bad"))
        page.get_by_role("button", name="Compare").click()
        told = page.locator(".dn-node-details", has_text="Differences")
        told.wait_for()
        assert "1 only in the original" in told.inner_text()
        assert "1 only in the fork" in told.inner_text()
        assert "first" not in told.inner_text()


def test_the_views_of_the_console_lead_to_each_other_and_back(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        console = db.open()
        page = open_view(console)
        page.locator(".dn-row[data-id='checkout-5-bad']").get_by_role("button", name="Open").click()
        page.locator(".dn-inspect h2", has_text="checkout").wait_for()
        page.locator(".dn-inspect [data-node]").first.wait_for()
        assert not page.locator(".dn-explore").is_visible()
        # From the board to the list of what a tile counts.
        page.locator(".dn-console-tab", has_text="Board").click()
        page.locator(".dn-tile", has_text="PENDING").click()
        page.locator(".dn-row[data-status=SUCCESS]").first.wait_for(state="detached")
        assert page.locator(".dn-status[aria-pressed=true]").inner_text().startswith("PENDING")
        # Back: the board, the run, the list without a filter; the keyboard does the same.
        page.get_by_role("button", name="‹ Back").click()
        page.locator(".dn-tile").first.wait_for()
        page.keyboard.press("Escape")
        page.locator(".dn-inspect h2", has_text="checkout").wait_for()
        page.keyboard.press("Escape")
        page.locator(".dn-row[data-status=SUCCESS]").first.wait_for()
        assert page.get_by_role("button", name="‹ Back").is_disabled()


def test_who_goes_on_before_the_answer_comes_gets_what_was_chosen_last(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.open())
        run, board = page.locator(".dn-inspect"), page.locator(".dn-board")
        page.locator(".dn-row").first.wait_for()
        page.locator(".dn-console-tab", has_text="Board").click()
        # Back returns from a list that is still being read.
        page.evaluate("window.model.holding = 'page'")
        page.locator(".dn-tile", has_text="PENDING").click()
        expect(page.get_by_role("grid")).to_have_attribute("aria-busy", "true")
        page.get_by_role("button", name="‹ Back").click()
        page.locator(".dn-tile").first.wait_for()
        page.evaluate("window.model.release()")
        # A run that was left before it opened does not come up later.
        page.get_by_role("button", name="‹ Back").click()
        page.locator(".dn-row[data-status=SUCCESS]").first.wait_for()
        wait_until_idle(page)
        page.evaluate("window.model.holding = 'open'")
        page.locator(".dn-row[data-id='checkout-5-bad']").get_by_role("button", name="Open").click()
        page.wait_for_function("window.model.held.length === 1")
        page.locator(".dn-console-tab", has_text="Board").click()
        expect(board).to_be_visible()
        page.evaluate("window.model.release()")
        page.locator(".dn-tile", has_text="PENDING").click()
        page.locator(".dn-row[data-status=PENDING]").first.wait_for()
        expect(run).to_be_hidden()
        # Back leads through what was shown, and to nothing that was not.
        page.get_by_role("button", name="‹ Back").click()
        expect(board).to_be_visible()
        page.get_by_role("button", name="‹ Back").click()
        page.locator(".dn-row[data-status=SUCCESS]").first.wait_for()
        assert page.get_by_role("button", name="‹ Back").is_disabled()


def test_a_run_that_is_gone_leaves_the_console_where_it_was(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.open("checkout-1"))
        page.locator(".dn-inspect [data-node]").first.wait_for()
        place = {"view": "run", "id": "gone", "by": "kernel", "number": 9}
        page.evaluate("(place) => window.model.set('_place', place)", place)
        page.locator(".dn-banner", has_text="No workflow has the ID 'gone'").first.wait_for()
        assert page.locator(".dn-inspect .dn-run-id").inner_text() == "checkout-1"


CUT = """() => [...document.querySelectorAll(
    ".dn-row .dn-name, .dn-row .dn-chip, .dn-row time, .dn-open, .dn-actions button, .dn-status, "
    + ".dn-mark, .dn-version, .dn-tile, .dn-effect, .dn-plan-rows, .dn-step, .dn-step-listing")]
  .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
  .filter((one) => getComputedStyle(one).display !== "inline")
  .map((one) => one.closest(".dn-row")?.innerText ?? one.textContent)"""


def test_nothing_that_decides_is_cut_at_any_width(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    name = "acme.pipelines.documents.workflows.process_insurance_claim_document"
    queue = "ingestion-pipeline-high-priority-customer-documents"
    connection = sqlite3.connect(database_copy)
    with connection:
        connection.execute(
            "UPDATE workflow_status SET name = ?, queue_name = ?, forked_from = 'checkout-1', "
            "application_version = '2.4.0-rc1'",
            [name, queue],
        )
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.open(page_size=200), width=1600)
        row = page.locator(".dn-row[data-id='parent-6-bad-1']")
        row.locator("input").check()
        for width in (1600, 1000, 700, 420):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(CUT) == [], width
            scrolled, inner = page.evaluate(PAGE_WIDTHS)
            assert scrolled <= inner
            assert row.locator(".dn-name").inner_text() == "process_insurance_claim_document"
            assert row.locator(".dn-name").get_attribute("title") == name
            assert row.locator(".dn-id >> visible=true").inner_text() == "…-1"
            parent = row.locator(".dn-parent >> visible=true")
            assert parent.text_content() == "child of parent-6-bad"
            # The queue has no room beside the name in a narrow view: it stands below.
            assert row.locator(f"[title='{queue}'] >> visible=true").text_content() == queue
            error, name_box = row.locator(".dn-error").bounding_box(), row.bounding_box()
            assert error["x"] + error["width"] > name_box["x"] + name_box["width"] - 30
            # Marks keep their size; a version is whole.
            assert row.locator(".dn-mark", has_text="fork").is_visible()
            assert row.locator(".dn-version >> visible=true").inner_text() == "2.4.0-rc1"
        # A name breaks between its words, and is copied as it is.
        assert row.locator(".dn-main .dn-name wbr").count() == 3
        failure = page.locator(".dn-row[data-id='parent-6-bad-1'] .dn-error").inner_text()
        assert "PaymentDeclined" in failure


def test_the_tab_of_a_run_is_one_line(database_copy: Path, open_view: Callable[..., Page]) -> None:
    name = "acme.workflows." + "process insurance claim " * 10
    connection = sqlite3.connect(database_copy)
    with connection:
        connection.execute("UPDATE workflow_status SET name = ?", [name])
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.open("checkout-1"))
        page.locator(".dn-inspect [data-node]").first.wait_for()
        wait_until_idle(page)
        tab = page.locator(".dn-console-tab", has_text="checkout-1")
        for width in (1000, 420, 300):
            page.set_viewport_size({"width": width, "height": 900})
            shown, box = tab.locator("span"), tab.bounding_box()
            assert shown.evaluate("(one) => one.offsetHeight") < 24
            assert tab.evaluate("(one) => one.scrollHeight <= one.clientHeight")
            assert box is not None
            assert box["x"] + box["width"] <= width
            assert tab.locator("code").is_visible()
        assert name in (tab.get_attribute("title") or "")


def test_the_keyboard_reaches_why_a_button_does_nothing(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.controls("queued-1"))
    page.locator(".dn-actions button:not([aria-disabled])").first.wait_for()
    idle = page.locator(".dn-actions button[aria-disabled]").first
    page.get_by_role("button", name="Cancel", exact=True).focus()
    for _ in range(3):
        if idle.evaluate("(one) => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    reason = page.locator(".dn-actions .dn-note")
    assert reason.inner_text() == idle.get_attribute("title") != ""
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert "plan" not in page.evaluate("window.model.sent.map((one) => one.kind)")
    assert reason.inner_text() != ""
    page.get_by_role("button", name="Refresh").focus()
    assert reason.inner_text() == ""


def test_plans_tiles_and_tools_fit_at_any_width(
    old_sqlite: Path, open_view: Callable[..., Page]
) -> None:
    def tops(selector: str) -> set[float]:
        boxes = page.locator(selector).evaluate_all(
            "(all) => all.filter((one) => one.checkVisibility())"
            ".map((one) => Math.round(one.getBoundingClientRect().top))"
        )
        return set(boxes)

    with dn.connect(old_sqlite) as db:
        page = open_view(db.open("parent-6-bad"), width=1600)
        page.locator(".dn-inspect [data-node]").first.wait_for()
        for width in (1600, 1000, 900):
            page.set_viewport_size({"width": width, "height": 900})
            assert len(tops(".dn-inspect .dn-toolbar button.dn-button")) == 1, width
        assert page.get_by_role("button", name="Critical path").inner_text() == "Critical"
        page.locator(".dn-inspect .dn-actions button", has_text="Fork").first.click()
        page.locator(".dn-effect:not(:empty)").first.wait_for()
        for width in (1600, 1000, 760, 700, 420):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(CUT) == [], width
            cells = (
                page.locator(".dn-plan tbody tr")
                .first.locator("td")
                .evaluate_all(
                    "(all) => all.filter((one) => one.checkVisibility() && one.textContent)"
                    ".map((one) => one.getBoundingClientRect().width)"
                )
            )
            assert min(cells) > 20, width
        page.get_by_role("button", name="Discard").click()
        page.get_by_role("tab", name="Steps").click()
        page.locator(".dn-step", has_text=re.compile("^starts ")).first.wait_for()
        for width in (1600, 1000, 700, 420):
            page.set_viewport_size({"width": width, "height": 900})
            error = page.locator(".dn-step-table .dn-error-line:not(:empty)").first
            box, around = error.bounding_box(), page.locator(".dn-step-listing").bounding_box()
            assert box
            assert around
            assert box["x"] + box["width"] <= around["x"] + around["width"], width
        page.locator(".dn-console-tab", has_text="Board").click()
        page.locator(".dn-tile").first.wait_for()
        for width in (1600, 1000, 700, 420):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(CUT) == [], width
            sizes = page.locator(".dn-tile").evaluate_all(
                "(all) => all.map((one) => Math.round(one.getBoundingClientRect().width))"
            )
            assert max(sizes) - min(sizes) <= 1, width


def test_each_part_of_a_failure_on_the_board_leads_to_its_workflows(
    shop_sqlite: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(shop_sqlite) as db:
        page = open_view(db.open())
        for part in (".dn-name", ".dn-count", ".dn-failure-error"):
            page.locator(".dn-console-tab", has_text="Board").click()
            page.locator(f".dn-board section[aria-label=Failures] {part}").first.click()
            page.locator(".dn-row[data-status=SUCCESS]").first.wait_for(state="detached")
            page.locator(".dn-row[data-status=ERROR]").first.wait_for()
        assert page.locator(".dn-board button button").count() == 0


@pytest.mark.parametrize(
    ("affected", "targets", "label"),
    [
        (4, ["reindex-0"], "Resume reindex-0"),
        (4, ["reindex-0", "reindex-9"], "Resume reindex-0 and 1 more"),
        (4, ["reindex-1"], "Resume the oldest 1 of 4"),
        (2, ["reindex-1", "reindex-2"], "Resume 2"),
    ],
)
def test_the_button_of_a_finding_says_what_it_acts_on(
    old_sqlite: Path,
    open_view: Callable[..., Page],
    affected: int,
    targets: list[str],
    label: str,
) -> None:
    finding = {
        "severity": "critical",
        "subject": "queue bulk.reindex",
        "says": "a queue's limit on concurrency makes work wait",
        "evidence": "4 workflows wait",
        "remedy": "Resume what is stranded.",
        "affected": affected,
        "ids": ["reindex-1", "reindex-2"],
        "action": "resume",
        "targets": targets,
    }
    with dn.connect(old_sqlite) as db:
        page = open_view(db.board(), holding="attention")
        page.wait_for_function("window.model.held.length > 0")
        page.evaluate(
            "(finding) => { window.model.held[0].findings = [finding]; window.model.release(); }",
            finding,
        )
        button = page.get_by_role("button", name=label, exact=True)
        expect(button).to_have_attribute(
            "title", f"Show what this would do to {', '.join(targets)}"
        )


def test_a_range_is_selected_and_all_that_match(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.explore(page_size=10))
    boxes = page.locator(".dn-row .dn-check input")
    boxes.nth(1).click()
    boxes.nth(4).click(modifiers=["Shift"])
    page.get_by_text("4 selected").wait_for()
    page.locator(".dn-row").nth(4).press("Shift+ArrowDown")
    page.get_by_text("5 selected").wait_for()
    page.get_by_label("Select all on this page").check()
    total = len(db.workflows(limit=None))
    page.get_by_role("button", name=f"Select all {total} that match").click()
    page.get_by_text(f"All {total} that match selected").wait_for()
    page.get_by_role("button", name="Fork", exact=False).first.click()
    page.locator(".dn-plan tbody tr").first.wait_for()
    asked = page.evaluate("window.model.sent.findLast((one) => one.kind === 'plan')")
    assert asked["select_all"]
    assert asked["ids"] == []
    # Other filters select other workflows: nothing stays selected.
    page.locator(".dn-status", has_text="ERROR").click()
    page.locator(".dn-selection").wait_for(state="hidden")
    assert page.evaluate("[window.model.get('selected'), window.model.get('_select_all')]") == [
        [],
        False,
    ]


def test_a_large_payload_is_collapsed_and_searched(
    open_view: Callable[..., Page], shop: dn.Client
) -> None:
    failed = shop.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
    order = shop.workflow(failed).input.args[0]
    page = open_view(shop.explore(search=failed))
    page.locator(f".dn-row[data-id='{failed}']").press("Enter")
    shown = page.locator(".dn-payload", has=page.locator("h4", has_text="input"))
    shown.locator("pre.dn-collapsed").wait_for()
    shown.get_by_label("Find in input").fill(order.number)
    shown.locator("mark").wait_for()
    assert shown.locator("mark").inner_text() == order.number
    shown.get_by_role("button", name="Show all").click()
    shown.locator("pre:not(.dn-collapsed)").first.wait_for()
    failure = page.locator(".dn-failure pre").first.inner_text()
    assert failure.startswith("CouponError")


def test_a_big_run_is_readable_wherever_one_goes(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("many"))
        frame = page.locator(".dn-picture > .dn-svg-view")
        page.locator("[data-node]", has_text="failed at parse").wait_for()
        page.get_by_role("button", name="Overview").click()
        # The overview fits: nothing to scroll, no text smaller than 10 pixels.
        page.locator("[data-node]", has_text="4 × ValueError").wait_for()
        assert frame.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")
        assert frame.evaluate("(e) => e.scrollHeight <= e.clientHeight + 1")
        assert frame.bounding_box()["height"] >= 200  # type: ignore[index]  # it is visible
        smallest = """(e) => Math.min(...[...e.querySelectorAll("text")].map((text) =>
            parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
        assert frame.evaluate(smallest) >= 9.9
        # A row leads to its members, those that failed first.
        page.locator("[data-node]", has_text="parse").click()
        members = page.locator(".dn-members li")
        members.first.wait_for()
        assert "ValueError" in members.first.inner_text()
        members.first.get_by_role("button").click()
        chosen = page.locator("[data-node][aria-pressed=true]")
        chosen.wait_for()
        # From a scale at which nothing can be read, a failure is shown at one at which it can.
        for _ in range(8):
            page.get_by_role("button", name="Zoom out").click()
        assert frame.evaluate(smallest) < 9
        page.get_by_role("button", name="Next failure").click()
        page.wait_for_function(
            "() => document.querySelector('[data-node][aria-pressed=true] text')"
            "?.getScreenCTM().a > 0.9"
        )
        box, around = chosen.bounding_box(), frame.bounding_box()
        assert box is not None
        assert around is not None
        assert around["x"] <= box["x"] + box["width"] / 2 <= around["x"] + around["width"]
        assert around["y"] <= box["y"] + box["height"] / 2 <= around["y"] + around["height"]


def test_a_late_picture_does_not_hide_the_failure_that_was_gone_to(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("many"))
        overview = page.get_by_role("button", name="Overview")
        page.locator("[data-node]").first.wait_for()
        overview.click()
        page.locator("[data-node]", has_text="4 × ValueError").wait_for()
        wait_until_idle(page)
        # The overview is drawn again, as it is when the run changes or the window is resized.
        page.evaluate("window.model.holding = 'show'")
        page.get_by_role("button", name="Refresh").click()
        page.wait_for_function("window.model.held.length === 1")
        page.get_by_role("button", name="Next failure").click()
        chosen = page.locator("[data-node][aria-pressed=true]")
        expect(chosen).to_have_count(1)
        page.evaluate("window.model.release()")
        wait_until_idle(page)
        expect(chosen).to_have_count(1)
        expect(overview).to_have_attribute("aria-pressed", "false")
        # Nor does a failure that is found late take the place of a tab that was opened since.
        overview.click()
        page.locator("[data-node]", has_text="4 × ValueError").wait_for()
        page.evaluate("window.model.holding = 'reveal'")
        page.get_by_role("button", name="Next failure").click()
        page.wait_for_function("window.model.held.length === 1")
        page.get_by_role("tab", name="Timeline").click()
        page.locator(".dn-svg-view > svg[aria-label^=Timeline]").wait_for()
        picture = page.locator(".dn-picture > .dn-svg-view > svg")
        before = picture.locator("[data-node]").count()
        page.evaluate("window.model.release()")
        wait_until_idle(page)
        page.locator(".dn-side-panel h3").wait_for()
        assert picture.locator("[data-node]").count() == before
        # The overview outlives the tab of steps, also where the run is read again meanwhile.
        page.get_by_role("tab", name="Steps").click()
        page.locator(".dn-step-table").wait_for()
        page.get_by_role("button", name="Refresh").click()
        wait_until_idle(page)
        page.get_by_role("tab", name="Graph").click()
        wait_until_idle(page)
        expect(overview).to_have_attribute("aria-pressed", "true")


def test_a_group_opens_in_place(database_copy: Path, open_view: Callable[..., Page]) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("many"), width=1400)
        group = page.locator("[data-node]", has_text="× part").last
        group.wait_for()
        group.focus()
        # The panel is open already, so that the picture keeps its width.
        page.locator("[data-node]").first.click()
        page.locator(".dn-node-details").wait_for()
        known = page.locator("[data-node]").evaluate_all("(all) => all.map((e) => e.dataset.node)")
        group.scroll_into_view_if_needed()
        before = group.bounding_box()
        group.click()
        page.wait_for_function(
            "(n) => document.querySelectorAll('[data-node]').length > n", arg=len(known)
        )
        found = """(known) => {
            const first = [...document.querySelectorAll("[data-node]")]
              .find((e) => !known.includes(e.dataset.node));
            const { x, y, width, height } = first.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }"""
        x, y = page.evaluate(found, known)
        assert before is not None
        assert abs(x - before["x"] - before["width"] / 2) < 80
        assert abs(y - before["y"] - before["height"] / 2) < 80


def test_an_active_run_opens_at_its_end(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        connection.execute(
            "INSERT INTO workflow_status (workflow_uuid, name, status, created_at, updated_at,"
            " priority) VALUES ('long', 'long', 'PENDING', 1785000000000, 1785000000000, 0)"
        )
        connection.executemany(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output,"
            " started_at_epoch_ms, completed_at_epoch_ms) VALUES ('long', ?, ?, NULL, ?, ?)",
            [(n, f"step_{n}", 1785000000000 + n, 1785000000000 + n) for n in range(1, 60)],
        )
    connection.close()
    with dn.connect(database_copy) as db:
        page = open_view(db.inspect("long"))
        now = page.locator("[data-node]", has_text="after step 59")
        now.wait_for()
        frame = page.locator(".dn-picture > .dn-svg-view")
        page.wait_for_function(
            "() => { const e = document.querySelector('.dn-picture > .dn-svg-view');"
            " return e.scrollLeft + e.scrollTop > 0; }"
        )
        box, around = now.bounding_box(), frame.bounding_box()
        assert box is not None
        assert around is not None
        assert box["y"] + box["height"] <= around["y"] + around["height"]
        assert box["x"] + box["width"] <= around["x"] + around["width"]


def test_a_silent_kernel_is_reported_until_it_answers(
    database_copy: Path, open_view: Callable[..., Page]
) -> None:
    with dn.connect(database_copy) as db:
        page = open_view(db.board())
        page.locator(".dn-tile").first.wait_for()
        page.evaluate("() => { window.model.holding = 'board'; }")
        page.clock.install()
        page.get_by_role("button", name="Refresh").click()
        page.clock.fast_forward(15_000)
        assert not page.locator(".dn-banner").is_visible()
        page.clock.fast_forward(6_000)
        page.locator(".dn-banner", has_text="has not answered for 20 s").wait_for()
        page.wait_for_function("() => window.model.held.length")
        page.evaluate("() => window.model.release()")
        page.locator(".dn-banner").wait_for(state="hidden")


def test_escape_closes_a_plan_before_it_leaves_the_view(
    db: dn.Client, open_view: Callable[..., Page]
) -> None:
    page = open_view(db.open())
    row = page.locator(".dn-row[data-id='checkout-5-bad']")
    row.get_by_role("button", name="Open").click()
    page.locator(".dn-inspect [data-node]").first.wait_for()
    page.locator(".dn-inspect .dn-run").get_by_role("button", name="Fork", exact=True).click()
    page.locator(".dn-inspect .dn-plan tbody tr").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".dn-inspect .dn-plan >> visible=true").wait_for(state="hidden")
    assert page.locator(".dn-inspect").is_visible()
    page.keyboard.press("Escape")
    row.wait_for()
    # The focus is on the row that was opened.
    page.wait_for_function("document.activeElement.dataset.id === 'checkout-5-bad'")
    row.get_by_role("checkbox").check()
    page.locator(".dn-explore").get_by_role("button", name="Fork").first.click()
    page.locator(".dn-explore .dn-plan tbody tr").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".dn-explore .dn-plan >> visible=true").wait_for(state="hidden")
    assert row.is_visible()
    page.locator(".dn-explore").get_by_role("button", name="More", exact=True).click()
    page.keyboard.press("Escape")
    page.locator(".dn-explore").get_by_role("button", name="Less").wait_for(state="hidden")
    assert row.is_visible()
    # The selection outlives the rows, and says so.
    page.get_by_role("button", name="Enqueued", exact=True).click()
    page.locator(".dn-selection", has_text="none shown here").wait_for()
