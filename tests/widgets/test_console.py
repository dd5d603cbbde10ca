"""The Python half of the console: its parts, its place, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from widget_messages import ask

import dbos_notebook as dn


def test_the_browser_sets_the_traits_of_parts(db: dn.Client) -> None:
    console = db.open()
    console.set_state({"_list": {**console._list, "selected": ["checkout-1"]}})
    assert console.list.selection["workflow_id"].tolist() == ["checkout-1"]
    console.set_state({"_board": {**console._board, "window": "7d"}})
    assert console.board.window == "7d"
    console.list.selected = []
    assert console._list["selected"] == []


def test_a_message_is_answered_by_the_part_that_it_is_for(db: dn.Client) -> None:
    console = db.open(status="ERROR")
    message = {"kind": "page", "to": "list", "request": "r1", "view": {"status": ["ERROR"]}}
    answer = console._recipient(message).answer(message)
    assert {row["status"] for row in answer["rows"]} == {"ERROR"}
    # A part that does not exist, or is not open yet, is the console itself.
    assert console._recipient({"kind": "show", "to": "run"}) is console
    assert console._recipient({"kind": "show", "to": "<script>"}) is console


def test_python_shows_another_run(db: dn.Client) -> None:
    console = db.open()
    console.workflow_id = "checkout-1"
    assert (console.view, console._run["workflow_id"]) == ("run", "checkout-1")
    first = console._place["number"]
    console.view = "board"
    console.run.show("checkout-5-bad")
    assert (console.view, console.workflow_id) == ("run", "checkout-5-bad")
    assert console._place["number"] > first
    assert console._place["by"] == "kernel"


def test_the_browser_shows_another_run_without_being_sent_to_it_again(db: dn.Client) -> None:
    console = db.open("checkout-1")
    place = {"view": "run", "id": "checkout-5-bad", "by": "browser", "number": 1}
    assert "start" in ask(console, "open", id="checkout-5-bad")
    console.set_state({"_run": {**console._run, "workflow_id": "checkout-5-bad"}, "_place": place})
    assert console.workflow_id == "checkout-5-bad"
    assert console._place == place


def test_a_run_that_is_gone_is_an_error_and_changes_nothing(db: dn.Client) -> None:
    console = db.open("checkout-1")
    assert ask(console, "open", id="gone")["type"] == "WorkflowNotFoundError"
    with pytest.raises(dn.WorkflowNotFoundError, match="gone"):
        console.workflow_id = "gone"
    assert console.workflow_id == "checkout-1"
    with pytest.raises(dn.WorkflowNotFoundError, match="gone"):
        db.open("gone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "graph"}, "view='graph' does not exist"),
        ({"view": "run"}, "view='run' needs a workflow"),
        ({"status": "BROKEN"}, "BROKEN"),
        ({"page_size": 0}, "page_size"),
    ],
)
def test_wrong_arguments_are_refused_in_the_cell(
    db: dn.Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(dn.FilterError, match=message):
        db.open(**options)


def test_a_part_is_not_announced_to_the_browser_by_itself(db: dn.Client) -> None:
    console = db.open("checkout-1")
    assert console.comm is not None
    parts = (console.list, console.board, console.run)
    assert [part.comm for part in parts] == [None] * 3
    # marimo announces every widget by itself, and cannot store a script outside of a cell.
    assert [part._esm for part in parts] == [""] * 3
    assert "dn-svg-view" in console.run._html_page()


def test_the_page_without_a_kernel_is_that_of_what_is_shown(db: dn.Client) -> None:
    console = db.open()
    assert without_time(console.static_html()) == without_time(console.list.static_html())
    console.workflow_id = "checkout-5-bad"
    assert console.run is not None
    assert without_time(console.static_html()) == without_time(console.run.static_html())


def without_time(html: str) -> str:
    """Remove the times of reading, which differ."""
    return re.sub(r"\d\d:\d\d:\d\d UTC", "", html)
