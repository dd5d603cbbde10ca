"""Cancel, resume, fork and answer by buttons in JupyterLab, on a running application."""

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

from live_executors import LiveApplication, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONNECT = "import dbos_notebook as dn\ndb = dn.connect({!r})"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApplication]:
    """The application in versions v1 (in which some steps fail) and v2, both running."""
    directory = tmp_path_factory.mktemp("live")
    live = LiveApplication(f"sqlite:///{directory / 'live.sqlite'}", directory)
    try:
        live.start("v1")
        # SQLite stores whole seconds: the second version must be a second later to be the latest.
        time.sleep(1)
        live.start("v2")
        yield live
    finally:
        live.stop()


def confirm(page: Page) -> None:
    page.locator(".dn-plan .dn-confirm:enabled").click()
    page.wait_for_selector(".dn-plan[aria-label^=Receipt]")


def test_a_running_workflow_is_cancelled_and_resumed(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    live.send("v1", "start", name="three", ids=["runs"], args=["gate"])
    until(lambda: live.effects("runs")["held-gate"], "the second step runs")
    opened = notebook(CONNECT.format(live.url), "db.explore(live=True)")
    page = opened.page
    row = page.locator(".dn-row[data-id=runs]")
    row.locator("input").check()
    actions = page.locator(".dn-actions")
    cancel, resume = (actions.get_by_text(word, exact=True) for word in ("Cancel", "Resume"))
    page.wait_for_selector(".dn-actions button:not([aria-disabled])")
    assert (cancel.is_enabled(), resume.is_enabled()) == (True, False)
    cancel.click()
    page.wait_for_selector("text=stops at its next step")
    with dn.connect(live.url) as client:
        assert client.workflow("runs").status == "PENDING"
        confirm(page)
        page.locator(".dn-row[data-id=runs][data-status=CANCELLED]").wait_for()
        live.open("gate")
        page.wait_for_selector(".dn-actions button:not([aria-disabled]):has-text('Resume')")
        assert not cancel.is_enabled()
        resume.click()
        confirm(page)
        # The live list shows the progress.
        page.locator(".dn-row[data-id=runs][data-status=SUCCESS]").wait_for()
        assert client.workflow("runs").output == "did c"
    assert opened.errors == []


def test_a_waiting_workflow_is_answered(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    live.send("v2", "start", name="approval", ids=["asks"])
    with dn.connect(live.url) as client:
        until(lambda: "asks" in set(client.awaiting_messages()["workflow_id"]), "it waits")
        opened = notebook(CONNECT.format(live.url), "db.inspect('asks')")
        page = opened.page
        page.locator(".dn-actions .dn-awaited", has_text="Send message").click()
        page.get_by_label("Topic").fill("approval")
        page.get_by_label("Message", exact=True).fill('{"approved": true}')
        # Letters are text, not shortcuts of the notebook: "d d" would delete the cell.
        page.get_by_label("Topic").press("Enter")
        page.wait_for_selector("text=answers step 3")
        page.get_by_role("button", name="Send to 1 workflow").click()
        page.locator(".dn-progress", has_text="Ended: succeeded").wait_for()
        assert client.workflow("asks").output == {"approved": True}
    assert opened.errors == []


def test_controls_fork_workflows_without_a_list(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    live.send("v1", "run", name="rich", ids=["alone-1", "alone-2"])
    opened = notebook(
        CONNECT.format(live.url),
        "widget = db.controls(['alone-1', 'alone-2'])\nwidget",
        "print('receipt', widget.receipt)",
    )
    page = opened.page
    page.wait_for_selector(".dn-title:has-text('2 workflows')")
    page.locator(".dn-actions button:not([aria-disabled])", has_text="Fork 2").click()
    confirm(page)
    assert page.locator(".dn-plan tbody tr").count() == 2
    opened.run_cell(2, "Receipt: fork 2 workflows")
    assert opened.errors == []


def pick_all(opened: Opened, number: int) -> Page:
    """Select all rows of the page, and wait for the buttons."""
    page = opened.page
    page.wait_for_function(f"document.querySelectorAll('.dn-row').length === {number}")
    page.get_by_label("Select all on this page").check()
    page.wait_for_selector(f"text={number} selected")
    page.wait_for_selector(".dn-actions button:not([aria-disabled])")
    return page


def test_fifty_workflows_are_forked_from_the_list(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    ids = [f"fifty-{number}" for number in range(50)]
    live.send("v1", "run", name="rich", ids=ids, attributes={"lot": 50})
    opened = notebook(
        CONNECT.format(live.url), "db.explore(status='ERROR', attributes={'lot': 50}, page_size=50)"
    )
    page = pick_all(opened, 50)
    page.locator(".dn-actions button:not([aria-disabled])", has_text="Fork 50").click()
    page.wait_for_selector(".dn-plan .dn-muted:has-text('50 will be forked')")
    confirm(page)
    assert "50 done" in page.inner_text(".dn-plan-head")
    assert page.locator(".dn-plan tbody tr").count() == 50
    with dn.connect(live.url) as client:

        def ended() -> bool:
            forks = client.workflows(forked_from=ids, limit=None)
            # One fork each, run by the version in which the step is fixed.
            return sorted(forks["forked_from"]) == sorted(ids) and (
                forks["status"].eq("SUCCESS").all()
            )

        until(ended, "fifty forks succeed", 60)
    assert opened.errors == []


def test_fifty_enqueued_workflows_are_cancelled_from_the_list(
    notebook: Callable[..., Opened], live: LiveApplication
) -> None:
    # This queue runs one workflow at a time.
    live.send("v1", "enqueue", name="three", queue="busy", ids=["cork"], args=["uncork"])
    until(lambda: live.effects("cork")["held-uncork"], "the first runs")
    ids = [f"waits-{number}" for number in range(50)]
    live.send("v1", "enqueue", name="three", queue="busy", ids=ids)
    opened = notebook(
        CONNECT.format(live.url), "db.explore(status='ENQUEUED', queue_name='busy', page_size=50)"
    )
    page = pick_all(opened, 50)
    page.locator(".dn-actions button:not([aria-disabled])", has_text="Cancel 50").click()
    confirm(page)
    assert "50 done" in page.inner_text(".dn-plan-head")
    page.wait_for_selector("text=No workflow matches.")
    live.open("uncork")
    with dn.connect(live.url) as client:
        until(lambda: client.workflow("cork").status == "SUCCESS", "the first ends")
        assert set(client.workflows(ids, limit=None)["status"]) == {"CANCELLED"}
    assert not any(live.effects(one) for one in ids)
    assert opened.errors == []
