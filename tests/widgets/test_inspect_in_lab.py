"""``db.inspect()`` and ``db.controls()`` in JupyterLab, on a running application."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import big_runs
import pytest
from browser import WAIT_SECONDS, Opened
from control.live_executors import LiveApplication, until
from playwright.sync_api import Locator, Page, expect

import dbos_notebook as dn
from dbos_notebook.drawing.theme import DARK, LIGHT

FAILED = "parent-6-bad"
"""A workflow of the corpus that failed because a step of its child failed."""
HOSTILE = "<img src=x onerror='window.ran = 1'><script>window.ran = 2</script>"


def cell_source(database: str, call: str) -> str:
    return f"import dbos_notebook as dn\ndb = dn.connect({database!r})\nwidget = {call}\nwidget"


@pytest.fixture(scope="module")
def opened(module_notebook: Callable[..., Opened], old_sqlite: Path) -> Opened:
    cells = cell_source(str(old_sqlite), f"db.inspect({FAILED!r})"), "print(widget.selection)"
    return module_notebook(*cells, width=1300, height=1000)


@pytest.fixture
def page(opened: Opened) -> Iterator[Page]:
    """The view of the failed workflow in its initial state; fails after errors in the console."""
    page = opened.page
    view = page.locator(".dn-inspect")
    view.locator("[data-node]").first.wait_for()
    yield page
    for _ in range(3):
        page.keyboard.press("Escape")
    view.get_by_role("tab", name="Graph").click()
    assert opened.errors == []
    assert opened.beyond_the_server() == []


def node(page: Page, name: str) -> Locator:
    return page.locator(f".dn-inspect [data-node][aria-label^='{name}']").first


def side(page: Page) -> Locator:
    return page.locator(".dn-inspect .dn-side-panel")


def test_a_failed_step_shows_its_error(opened: Opened, page: Page, old_sqlite: Path) -> None:
    page.get_by_role("button", name="1 failure").click()
    side_panel = side(page)
    expect(side_panel).to_be_visible()
    with dn.connect(old_sqlite) as db:
        tree = db.tree(page.locator(".dn-run-id").inner_text())
        steps = db.steps(tree, load_output=True)
        failed = steps[(steps["status"] == "ERROR") & steps["child_workflow_id"].isna()].iloc[0]
    expect(side_panel.locator("h3")).to_have_text(failed["function_name"])
    expect(side_panel.locator(".dn-failure pre")).to_contain_text(failed["error_message"])
    expect(side_panel).to_contain_text("Fork from here")
    side_panel.get_by_text("Stored payloads").click()
    with dn.connect(old_sqlite) as db:
        (stored,) = sqlite3.connect(old_sqlite).execute(
            "SELECT error FROM operation_outputs WHERE workflow_uuid = ? AND function_id = ?",
            [failed["workflow_id"], int(failed["function_id"])],
        )
    expect(side_panel.locator(".dn-raw pre")).to_have_text(stored[0].strip())
    # The next cell has the selection.
    key = (failed["workflow_id"], int(failed["function_id"]))
    opened.run_cell(1, str(key))


def test_steps_are_navigated_by_keyboard(page: Page) -> None:
    node(page, "checkout, ERROR").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(node(page, "validate")).to_be_focused()
    page.keyboard.press("Enter")
    expect(side(page).locator("h3")).to_have_text("validate")
    expect(node(page, "validate")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(side(page)).to_be_hidden()
    expect(node(page, "validate")).to_be_focused()
    page.keyboard.press("f")
    expect(side(page)).to_be_visible()


def test_the_graph_can_be_panned_and_zoomed(page: Page) -> None:
    picture = page.locator(".dn-picture > .dn-svg-view > svg")
    frame = page.locator(".dn-picture > .dn-svg-view")
    before = picture.bounding_box()
    assert before is not None
    frame.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    page.wait_for_function(
        "wide => document.querySelector('.dn-picture > .dn-svg-view > svg')"
        ".getBoundingClientRect().width > wide * 2",
        arg=before["width"],
    )
    left = frame.evaluate("frame => frame.scrollLeft")
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 120, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert frame.evaluate("frame => frame.scrollLeft") == pytest.approx(left + 120, abs=3)
    # Dragging does not select.
    expect(side(page)).to_be_hidden()
    page.get_by_role("button", name="Fit to view").click()
    fitted = picture.bounding_box()
    assert fitted is not None
    assert fitted["width"] <= box["width"]
    page.get_by_role("button", name="Readable size").click()


def test_timeline_and_steps_show_the_same_nodes(page: Page, old_sqlite: Path) -> None:
    page.get_by_role("button", name="1 failure").click()
    name = side(page).locator("h3").inner_text()
    page.get_by_role("tab", name="Timeline").click()
    expect(page.locator(".dn-inspect svg[aria-label^=Timeline]")).to_be_visible()
    expect(page.locator("[data-node][aria-pressed=true]")).to_have_count(1)
    page.get_by_role("tab", name="Steps").click()
    expect(page.locator(".dn-step-table tr[aria-selected=true] .dn-step")).to_have_text(name)
    rows = page.locator(".dn-step-table tbody tr")
    with dn.connect(old_sqlite) as db:
        tree = db.tree(page.locator(".dn-run-id").inner_text())
        expect(rows).to_have_count(len(tree) + len(db.steps(tree)))
    page.get_by_role("combobox", name="Find in this run").fill(name)
    expect(rows).to_have_count(1)
    page.get_by_role("combobox", name="Find in this run").fill("")


def test_search_leads_to_a_step(page: Page) -> None:
    find = page.get_by_role("combobox", name="Find in this run")
    find.fill("charge")
    expect(page.locator(".dn-search-results button")).to_have_count(1)
    expect(node(page, "charge")).to_have_attribute("data-hit", "")
    find.press("Enter")
    expect(side(page).locator("h3")).to_have_text("charge")
    find.fill("")


def test_dark_and_light_follow_the_host(opened: Opened, page: Page) -> None:
    name = page.locator(".dn-picture text.ink").first
    for dark, palette in ((True, DARK), (False, LIGHT)):
        opened.set_dark(dark=dark)
        red, green, blue = (int(palette.ink[at : at + 2], 16) for at in (1, 3, 5))
        expect(name).to_have_css("fill", f"rgb({red}, {green}, {blue})")


def test_the_saved_notebook_has_a_picture_and_no_payload(opened: Opened, page: Page) -> None:
    saved = opened.save()
    state = str(saved["metadata"].get("widgets", {}))
    assert "<svg" not in state
    assert "PaymentDeclined" not in state
    html = saved["cells"][0]["outputs"][1]["data"]["text/html"]
    assert "data:image/svg+xml;base64," in html


def test_a_thousand_children_are_folded_and_opened(
    notebook: Callable[..., Opened], old_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "many.sqlite"
    shutil.copyfile(old_sqlite, path)
    big_runs.insert_children(path, 1000)
    opened = notebook(cell_source(str(path), "db.inspect('many')"), width=1300)
    page = opened.page
    # Too large to be legible at once: it opens with its kinds of workflows and steps.
    rows = page.locator(".dn-inspect [data-node]")
    expect(rows).to_have_count(4)
    rows.filter(has_text="parse").click()
    expect(side(page).locator("h3")).to_have_text("1,000 × parse")
    expect(side(page)).to_contain_text("Fork 11 failed …")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Overview").click()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    groups = page.locator(".dn-inspect [data-node]", has_text="×")
    expect(groups.first).to_be_visible()
    before = page.locator(".dn-inspect [data-node]").count()
    assert before < 100
    page.locator(".dn-inspect [data-node]", has_text="failed").last.click()
    expect(side(page).locator(".dn-members li").first).to_be_visible()
    # One plan for all that failed, which their parent survived.
    page.get_by_role("button", name="Repair 11 failed …").click()
    expect(page.locator(".dn-plan[aria-label^=Plan]")).to_contain_text("11 from parse")
    page.get_by_role("button", name="Repair 11 workflows").click()
    expect(page.locator(".dn-progress")).to_contain_text("0 of 11 succeeded, 11 enqueued")
    page.locator(".dn-plan").get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Collapse all")).to_be_visible()
    page.wait_for_function(
        "n => document.querySelectorAll('.dn-inspect [data-node]').length > n", arg=before
    )
    # "Next failure" shows the failure beside the group that it was in, although the groups are
    # not folded yet when it is clicked.
    page.keyboard.press("Escape")
    page.evaluate("""() => {
        const click = (name) => [...document.querySelectorAll(".dn-inspect button")]
            .find((button) => (button.ariaLabel ?? button.textContent).startsWith(name)).click();
        click("Collapse all");
        click("Next failure");
    }""")
    expect(side(page).locator("h3")).to_have_text("parse")
    expect(page.locator("[data-node][aria-pressed=true]")).to_have_count(1)
    assert opened.errors == []


def test_hostile_names_and_payloads_run_no_script(
    notebook: Callable[..., Opened], old_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.sqlite"
    shutil.copyfile(old_sqlite, path)
    connection = sqlite3.connect(path)
    for statement in (
        "UPDATE workflow_status SET name = ?",
        "UPDATE operation_outputs SET function_name = ? WHERE child_workflow_id IS NULL",
    ):
        connection.execute(statement, [HOSTILE])
    payload = '{"name": "%s", "message": "%s"}' % (HOSTILE, HOSTILE)  # noqa: UP031
    connection.execute(
        "UPDATE operation_outputs SET error = ?, serialization = 'portable_json' "
        "WHERE error IS NOT NULL",
        [payload],
    )
    connection.commit()
    connection.close()
    opened = notebook(cell_source(str(path), f"db.inspect({FAILED!r})"), width=1300)
    page = opened.page
    page.get_by_role("button", name="Next failure").click()
    expect(side(page).locator("h3")).to_have_text(HOSTILE)
    expect(side(page).locator(".dn-failure pre")).to_contain_text("<script>")
    for tab in ("Timeline", "Steps", "Graph"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert (
        page.locator(".dn-inspect img, .dn-inspect script, .dn-inspect foreignObject").count() == 0
    )
    assert opened.errors == []
    assert opened.beyond_the_server() == []


def test_svg_is_sanitized_in_the_browser(notebook: Callable[..., Opened], old_sqlite: Path) -> None:
    malicious_svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="window.ran=1">'
        "<script>window.ran=1</script><g onclick='window.ran=1'><rect width='5' height='5' "
        "fill='url(http://127.0.0.2:1/x)' style='background:url(//127.0.0.2/z)'/></g>"
        "<foreignObject><img xmlns='http://www.w3.org/1999/xhtml' src='x' onerror='ran=1'/>"
        "</foreignObject><a href='javascript:ran=1'><text>t</text></a>"
        "<image href='http://127.0.0.2:1/y'/><style>* {background: url(//127.0.0.2)}</style>"
        "<use href='http://127.0.0.2:1/w'/><animate onbegin='ran=1' begin='0s'/></svg>"
    )
    opened = notebook(
        cell_source(str(old_sqlite), f"db.inspect({FAILED!r})").removesuffix("widget")
        + "answer = widget.answer\n"
        "def changed(message):\n"
        "    found = answer(message)\n"
        "    if 'picture' in found:\n"
        f"        found['picture']['svg'] = {malicious_svg!r}\n"
        "    return found\n"
        "widget.answer = changed\nwidget"
    )
    page = opened.page
    page.wait_for_selector(".dn-picture svg rect", state="attached")
    cleaned = page.inner_html(".dn-picture")
    for word in ("script", "onload", "onclick", "foreignObject", "href", "127.0.0.2", "<style"):
        assert word not in cleaned
    page.locator(".dn-picture > .dn-svg-view").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert opened.errors == []
    assert opened.beyond_the_server() == []


def test_live_updates_run_while_visible_and_stop_with_the_cell(
    notebook: Callable[..., Opened], old_sqlite: Path, tmp_path: Path
) -> None:
    message_log = tmp_path / "asked"
    message_log.touch()
    counting = (
        "answer = widget.answer\n"
        "def counted(message):\n"
        f"    with open({str(message_log)!r}, 'a') as file:\n"
        "        file.write('.')\n"
        "    return answer(message)\n"
        "widget.answer = counted\nwidget"
    )
    opened = notebook(cell_source(str(old_sqlite), "db.inspect('queued-1')"), counting)
    page = opened.page
    page.locator(".dn-inspect [data-node]").last.wait_for()

    def messages_within(seconds: float) -> int:
        before = message_log.stat().st_size
        page.wait_for_timeout(seconds * 1000)
        return message_log.stat().st_size - before

    def wait_for_message() -> None:
        before = message_log.stat().st_size
        deadline = time.monotonic() + WAIT_SECONDS
        while message_log.stat().st_size == before:
            assert time.monotonic() < deadline, "nobody asked"
            page.wait_for_timeout(100)

    def wait_for_the_last_answers() -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while messages_within(1):
            assert time.monotonic() < deadline, "the questions do not end"

    wait_for_message()
    # Two views of one model. Each asks for the run at most once a second, and for its payloads and
    # for what it is doing when they are shown first.
    assert messages_within(4) <= 14
    page.get_by_role("switch", name="Live").first.click()
    wait_for_the_last_answers()
    assert messages_within(2.5) == 0
    page.get_by_role("switch", name="Live").first.click()
    wait_for_message()
    opened.command("editmenu:clear-all")
    wait_for_the_last_answers()
    assert messages_within(2.5) == 0
    assert opened.errors == []


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApplication]:
    """A DBOS application in version v1, in which steps fail, and v2, in which they do not."""
    directory = tmp_path_factory.mktemp("inspected")
    live = LiveApplication(f"sqlite:///{directory / 'live.sqlite'}", directory)
    try:
        first = live.start("v1")
        first.send("run", name="rich", ids=["broken"])
        first.send("start", name="three", ids=["long"], args=["gate"])
        time.sleep(1)  # SQLite keeps whole seconds, and the latest version is the latest's
        live.start("v2")
        yield live
    finally:
        live.stop()


def test_cancel_and_resume_with_buttons(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    opened = notebook(cell_source(live.url, "db.inspect('long')"), width=1300)
    page = opened.page
    head = page.locator(".dn-run")
    expect(head).to_contain_text("PENDING")
    resume = page.get_by_role("button", name="Resume", exact=True)
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    expect(cancel).to_be_enabled()
    expect(resume).to_be_disabled()
    # The reason is shown if no workflow would be changed.
    assert resume.get_attribute("title")
    cancel.click()
    plan = page.get_by_role("group", name="Plan: cancel")
    expect(plan).to_contain_text("long")
    plan.get_by_role("button", name="Cancel 1 workflow").click()
    expect(page.get_by_role("group", name="Receipt: cancel")).to_contain_text("done")
    expect(head).to_contain_text("CANCELLED")
    expect(resume).to_be_enabled()
    expect(cancel).to_be_disabled()
    with dn.connect(live.url) as db:
        assert db.workflow("long").status == "CANCELLED"
        live.open("gate")
        time.sleep(0.5)
        # It stopped: the running step finished, and the next did not start.
        assert "b" not in live.effects("long")
        page.get_by_role("group", name="Receipt: cancel").get_by_role(
            "button", name="Close"
        ).click()
        resume.click()
        page.get_by_role("button", name="Resume 1 workflow").click()
        # The live view shows it finish.
        expect(head).to_contain_text("SUCCESS")
        expect(page.locator(".dn-inspect [data-node][aria-label^='work']")).to_have_count(3)
        assert db.workflow("long").status == "SUCCESS"
    assert opened.errors == []


def test_a_failed_step_is_forked_onto_the_fixed_version(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    cells = cell_source(live.url, "db.inspect('broken')"), "print(widget.receipt)"
    opened = notebook(*cells, width=1300, height=1100)
    page = opened.page
    page.locator(".dn-inspect [data-node][aria-label^='fragile']").click()
    expect(side(page)).to_contain_text("fragile")
    side(page).get_by_role("button", name="Fork from here").click()
    plan = page.get_by_role("group", name="Plan: fork")
    expect(plan).to_contain_text("broken")
    version = plan.get_by_role("combobox", name="version")
    version.fill("v2")
    version.press("Tab")
    expect(plan).to_contain_text("v2")
    plan.get_by_role("button", name="Fork 1 workflow").click()
    # The fork opens in place and is followed until it succeeds.
    head = page.locator(".dn-run")
    expect(head).to_contain_text("fork of broken")
    expect(head).to_contain_text("SUCCESS")
    new = page.locator(".dn-run-id").inner_text()
    with dn.connect(live.url) as db:
        (fork,) = db.workflows(forked_from="broken")["workflow_id"]
        assert fork == new
        until(lambda: db.workflow(new).status == "SUCCESS", "the fork succeeds")
    assert live.versions(new)["b"] == "v2"
    assert "a" not in live.effects(new)
    head.get_by_role("button", name="Compare").click()
    expect(side(page)).to_contain_text("Differences")
    expect(side(page)).to_contain_text("2 repaired")
    page.get_by_role("button", name="Close comparison", exact=True).click()
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".dn-run-id")).to_have_text("broken")
    expect(head).to_contain_text("forked as")
    assert opened.errors == []


def test_a_read_only_client_has_no_buttons(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    code = cell_source(live.url, "db.inspect('broken')").replace(")", ", read_only=True)", 1)
    page = notebook(code, width=1300).page
    page.locator(".dn-inspect [data-node][aria-label^='fragile']").click()
    expect(side(page)).to_contain_text("fragile")
    for name in ("Cancel", "Resume", "Fork", "Repair", "Fork from here"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
