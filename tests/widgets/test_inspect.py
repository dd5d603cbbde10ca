"""One workflow's view: its Python half, asked with the browser's messages."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from asking_widgets import ask

import dbos_notebook as dn


@pytest.mark.parametrize("what", ["graph", "timeline"])
def test_every_part_of_a_picture_is_a_node(db: dn.Client, what: str) -> None:
    widget = db.inspect("checkout-1")
    answer = ask(widget, "picture", id="checkout-1", what=what, theme="dark")
    drawn = {element.get("id") for element in ET.fromstring(answer["svg"]).iter()}
    assert set(answer["nodes"]) <= drawn
    steps = {(node["id"], node.get("step")) for node in answer["nodes"].values()}
    assert ("checkout-1", None) in steps
    recorded = db.steps("checkout-1")
    if what == "timeline":
        # A step that starts a child is the child's row there.
        recorded = recorded[recorded["child_workflow_id"].isna()]
    assert {("checkout-1", number) for number in recorded["function_id"]} <= steps
    names = {node["name"] for node in answer["nodes"].values()}
    assert {"checkout", "charge"} <= names
    assert "prefers-color-scheme" not in answer["svg"]


def test_what_has_not_changed_is_not_drawn_again(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as client:
        widget = client.inspect("queued-1")
        asked = {"id": "queued-1", "what": "graph"}
        first = ask(widget, "picture", **asked)
        assert (first["status"], first["unfinished"]) == ("ENQUEUED", True)
        again = ask(widget, "picture", **asked, stamp=first["stamp"])
        assert again["same"] is True
        assert "svg" not in again
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'queued-1'"
            )
        connection.close()
        changed = ask(widget, "picture", **asked, stamp=first["stamp"])
        assert (changed["status"], changed["unfinished"]) == ("CANCELLED", False)
        assert "svg" in changed
        # Another theme is another picture.
        assert "svg" in ask(widget, "picture", **asked, theme="dark", stamp=changed["stamp"])


def test_one_step_is_told_however_far_it_is(db: dn.Client) -> None:
    widget = db.inspect("checkout-5-bad")
    steps = db.steps("checkout-5-bad")
    last = int(steps["function_id"].iloc[-1])
    told = ask(widget, "details", id="checkout-5-bad", step=last)
    (step,) = told["steps"]
    assert (step["number"], step["status"]) == (last, "ERROR")
    assert "PaymentDeclined" in step["result"]["text"]


def test_a_fork_is_compared_with_its_original(db: dn.Client) -> None:
    widget = db.inspect("fork-1")
    answer = ask(widget, "picture", id="fork-1", what="comparison")
    assert answer["kind"] == "picture", answer
    assert len(answer["nodes"]) > 2
    # One that is no fork says so, and breaks nothing.
    assert ask(widget, "picture", id="checkout-1", what="comparison")["kind"] == "error"


def test_a_folded_group_opens(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output,"
            " started_at_epoch_ms, completed_at_epoch_ms, retention_timestamp)"
            " WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
            " SELECT 'checkout-1', i, 'polish', NULL, 1790000000000 + i, 1790000000001 + i, 0"
            " FROM n"
        )
    connection.close()
    with dn.connect(path) as client:
        widget = client.inspect("checkout-1")
        asked = {"id": "checkout-1", "what": "graph"}
        folded = ask(widget, "picture", **asked)
        groups = [node for node in folded["nodes"].values() if "group" in node]
        assert groups
        assert len(folded["nodes"]) < 200
        opened = ask(widget, "picture", **asked, open=[groups[0]["group"]])
        assert opened["stamp"] != folded["stamp"]
        assert set(map(str, opened["nodes"].values())) != set(map(str, folded["nodes"].values()))


def test_unknown_workflows_and_pictures(db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError, match="checkout-99"):
        db.inspect("checkout-99")
    with pytest.raises(dn.FilterError, match="one workflow"):
        db.inspect(["checkout-1", "checkout-2"])  # type: ignore[arg-type]
    widget = db.inspect("checkout-1")
    assert ask(widget, "picture", id="checkout-1", what="painting")["type"] == "FilterError"
    assert isinstance(widget.last_error, dn.FilterError)


def test_it_leaves_something_to_read_without_a_kernel(db: dn.Client, tmp_path: Path) -> None:
    widget = db.inspect("checkout-5-bad")
    data, _ = widget._repr_mimebundle_()
    assert "<svg" in data["text/html"]
    assert "Order(" not in data["text/html"]
    assert data["text/plain"].endswith('db.inspect("checkout-5-bad")>')
    page = widget.save_html(tmp_path / "one.html").read_text()
    assert page.count("<svg") == 2
    assert "PaymentDeclined" in page
    assert "Order(" in page
    assert "<script" not in page
    state = widget.get_state()
    assert len(str({n: v for n, v in state.items() if n not in ("_esm", "_css")})) < 3_000
    assert len(widget._esm) + len(widget._css) < 150_000
