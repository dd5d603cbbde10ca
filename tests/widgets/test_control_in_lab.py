"""Buttons in a real JupyterLab on a live application: cancel, resume, fork, and follow the fork."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Opened

import dbos_notebook as dn

sys.path.insert(0, str(Path(__file__).parents[1] / "control"))

from control_live import Live, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONNECT = "import dbos_notebook as dn\ndb = dn.connect({!r})"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The application in versions v1 (in which some steps fail) and v2, both running."""
    directory = tmp_path_factory.mktemp("live")
    live = Live(f"sqlite:///{directory / 'live.sqlite'}", directory)
    try:
        live.start("v1")
        # SQLite keeps whole seconds, and the latest version is the one of the latest.
        time.sleep(1)
        live.start("v2")
        yield live
    finally:
        live.stop()


def confirm(page: Page) -> None:
    page.locator(".dn-plan .dn-confirm:enabled").click()
    page.wait_for_selector(".dn-plan[aria-label^=Receipt]")


def test_cancel_a_running_one_see_it_stop_and_resume_it(
    notebook: Callable[..., Opened], live: Live
) -> None:
    live._processes["v1"].ask("start", name="three", ids=["runs"], args=["gate"])
    until(lambda: live.effects("runs")["held-gate"], "the second step runs")
    opened = notebook(CONNECT.format(live.url), "db.explore(live=True)")
    page = opened.page
    row = page.locator(".dn-row[data-id=runs]")
    row.locator("input").check()
    actions = page.locator(".dn-actions")
    cancel, resume = (actions.get_by_text(word, exact=True) for word in ("Cancel", "Resume"))
    page.wait_for_selector(".dn-actions button:enabled")
    assert (cancel.is_enabled(), resume.is_enabled()) == (True, False)
    cancel.click()
    page.wait_for_selector("text=stops at its next step")
    with dn.connect(live.url) as client:
        assert client.workflow("runs").status == "PENDING"
        confirm(page)
        page.locator(".dn-row[data-id=runs][data-status=CANCELLED]").wait_for()
        live.open("gate")
        page.wait_for_selector(".dn-actions button:enabled:has-text('Resume')")
        assert not cancel.is_enabled()
        resume.click()
        confirm(page)
        # The live list shows by itself how it goes on.
        page.locator(".dn-row[data-id=runs][data-status=SUCCESS]").wait_for()
        assert client.workflow("runs").output == "did c"
    assert opened.errors == []


def test_fork_a_failed_step_onto_the_fixed_version_and_see_it_succeed(
    notebook: Callable[..., Opened], live: Live
) -> None:
    live._processes["v1"].ask("run", name="rich", ids=["broken"])
    opened = notebook(
        CONNECT.format(live.url), "widget = db.inspect('broken')\nwidget", height=1300
    )
    page = opened.page
    page.wait_for_selector(".dn-picture svg .dn-node")
    page.get_by_label("Go to the next part that failed").click()
    page.get_by_label("Go to the next part that failed").click()
    page.wait_for_selector(".dn-part:has-text('b is broken in v1')")
    # And by a click in the picture itself.
    nodes = page.locator(".dn-picture .dn-node", has_text="fragile")
    nodes.first.click()
    page.wait_for_selector(".dn-node.dn-chosen")
    page.get_by_role("button", name="Fork from here").click()
    page.get_by_label("version").fill("v2")
    page.get_by_label("version").press("Enter")
    page.wait_for_selector(".dn-plan code:has-text('application_version=\"v2\"')")
    confirm(page)
    page.locator(".dn-plan .dn-link").click()
    # It opens in place, and the view follows it to its end.
    page.wait_for_selector(".dn-title .dn-chip[data-status=SUCCESS]")
    with dn.connect(live.url) as client:
        (fork,) = client.workflows(forked_from="broken")["workflow_id"]
        assert page.inner_text(".dn-title code") == fork
        assert client.workflow(fork).app_version == "v2"
    page.get_by_role("tab", name="Against the original").click()
    page.wait_for_selector(".dn-picture svg text:has-text('changed error')")
    page.get_by_role("tab", name="Timeline").click()
    page.wait_for_selector(".dn-picture svg text:has-text('copied from the original')")
    page.get_by_label("Back to the workflow before").click()
    page.wait_for_selector(".dn-title .dn-chip[data-status=ERROR]")
    assert opened.errors == []
    assert opened.beyond_the_server() == []


def test_a_picture_moves_zooms_and_takes_the_hosts_colours(
    notebook: Callable[..., Opened], live: Live
) -> None:
    with dn.connect(live.url) as client:
        one = client.workflows(limit=1)["workflow_id"].iloc[0]
    opened = notebook(CONNECT.format(live.url), f"db.inspect({one!r})")
    page = opened.page
    drawing = page.locator(".dn-picture svg")
    drawing.wait_for()
    before = drawing.get_attribute("style")
    page.get_by_label("Larger", exact=True).click()
    larger = drawing.get_attribute("style")
    assert larger != before
    page.locator(".dn-picture").focus()
    page.keyboard.press("ArrowRight")
    assert drawing.get_attribute("style") != larger
    page.keyboard.press("0")
    assert drawing.get_attribute("style") == before
    box = page.locator(".dn-picture").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 50, steps=3)
    page.mouse.up()
    assert drawing.get_attribute("style") != before
    ground = "document.querySelector('.dn-picture svg rect').getAttribute('fill')"
    light = page.evaluate(ground)
    opened.set_dark(dark=True)
    page.wait_for_function(f"{ground} !== {light!r}")
    assert opened.errors == []


def test_a_picture_is_cleaned_whoever_drew_it(notebook: Callable[..., Opened], live: Live) -> None:
    evil = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10" onload="window.ran=1">'
        "<script>window.ran=1</script><g data-node='a' onclick='window.ran=1' id='a'>"
        "<rect fill='url(http://127.0.0.2:1234/x)' width='5' height='5'/></g>"
        "<foreignObject><img xmlns='http://www.w3.org/1999/xhtml' src='x' onerror='ran=1'/>"
        "</foreignObject><a href='javascript:ran=1'><text>t</text></a>"
        "<image href='http://127.0.0.2:1234/y'/><style>* {background: url(//z)}</style>"
        "<use href='http://127.0.0.2:1234/w'/><animate onbegin='ran=1' begin='0s'/></svg>"
    )
    with dn.connect(live.url) as client:
        one = client.workflows(limit=1)["workflow_id"].iloc[0]
    opened = notebook(
        CONNECT.format(live.url),
        f"widget = db.inspect({one!r})\n"
        f"evil = {{'kind': 'picture', 'svg': {evil!r}, 'nodes': {{}}, 'status': 'SUCCESS',"
        " 'stamp': 'x', 'now': 0, 'took': 1, 'unfinished': False}\n"
        "answer = widget.answer\n"
        "widget.answer = lambda m: {**evil, 'request': m['request']} if m['kind'] == 'picture'"
        " else answer(m)\n"
        "widget",
    )
    page = opened.page
    page.wait_for_selector(".dn-picture svg rect", state="attached")
    kept = page.inner_html(".dn-picture")
    for word in ("script", "onload", "onclick", "foreignObject", "href", "127.0.0.2", "style>"):
        assert word not in kept
    page.locator(".dn-picture").click()
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert opened.beyond_the_server() == []


def test_the_buttons_alone(notebook: Callable[..., Opened], live: Live) -> None:
    live._processes["v1"].ask("run", name="rich", ids=["alone-1", "alone-2"])
    opened = notebook(
        CONNECT.format(live.url),
        "widget = db.controls(['alone-1', 'alone-2'])\nwidget",
        "print('receipt', widget.receipt)",
    )
    page = opened.page
    page.wait_for_selector(".dn-title:has-text('2 workflows')")
    page.locator(".dn-actions button:enabled", has_text="Fork 2").click()
    confirm(page)
    assert page.locator(".dn-plan tbody tr").count() == 2
    last = page.locator(".jp-CodeCell").last
    last.locator(".cm-content").click()
    opened.command("notebook:run-cell")
    last.locator(".jp-OutputArea-output", has_text="Receipt: fork 2 workflows").wait_for()
    assert opened.errors == []
