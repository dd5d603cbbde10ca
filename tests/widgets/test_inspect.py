"""The Python half of the inspect view, called with the browser's messages, and its HTML page."""

from __future__ import annotations

import gc
import json
import re
import sqlite3
import threading
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import big_runs
import psutil
import pytest
from widget_messages import ask

import dbos_notebook as dn
from dbos_notebook.drawing.diagram import short_id
from dbos_notebook.server.cli import main
from dbos_notebook.server.commands import report
from dbos_notebook.widgets import bundle
from dbos_notebook.widgets.details import node_details
from dbos_notebook.widgets.inspect import Inspect
from dbos_notebook.widgets.run_data import RunData
from dbos_notebook.widgets.serialize import from_json_key

HOSTILE = "</script><img src=x onerror=alert(1)>"


def show(widget: Inspect, **view: Any) -> dict[str, Any]:
    return ask(widget, "show", id=widget.workflow_id, view=view)


@pytest.fixture
def many_steps(corpus_sqlite: Callable[[str], Path]) -> Path:
    """A database in which checkout-1 has hundreds of steps of the same name."""
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
    return path


@pytest.mark.parametrize("picture_kind", ["graph", "timeline"])
def test_every_element_of_a_drawing_is_a_node(db: dn.Client, picture_kind: str) -> None:
    widget = db.inspect("checkout-1")
    answer = show(widget, picture=picture_kind)["picture"]
    parts = {element.get("data-node") for element in ET.fromstring(answer["svg"]).iter()} - {None}
    assert parts == {node["ref"] for node in answer["nodes"]}
    graph = widget.graph
    for node in answer["nodes"]:
        key = from_json_key(node["key"])
        assert node["ref"] == short_id(key)
        assert (node["name"], node["status"]) == (
            graph.nodes[key]["name"],
            graph.nodes[key]["status"],
        )
    refs = {node["ref"]: from_json_key(node["key"]) for node in answer["nodes"]}
    if picture_kind == "graph":
        drawn = {(refs[a], refs[b]) for a, b in answer["edges"]}
        assert drawn == set(graph.edges)
    # The colors follow the theme of the host, not of the browser.
    assert "prefers-color-scheme" not in answer["svg"]


def test_unchanged_data_is_not_sent_again(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as db:
        widget = db.inspect("queued-1")
        first = show(widget)
        assert first["active"] is True
        question = {"id": "queued-1", "view": {}, "anew": True, "stamp": first["stamp"]}
        again = ask(widget, "show", **question)
        assert again["same"] is True
        assert "picture" not in again
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'queued-1'"
            )
        connection.close()
        changed = ask(widget, "show", **question)
        assert changed["active"] is False
        assert changed["facts"]["row"]["status"] == "CANCELLED"
        assert changed["stamp"] != first["stamp"]


def test_the_table_and_the_graph_show_the_same_duration(shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as shop:
        root = shop.workflows(name="order", status="SUCCESS", has_parent=False)["workflow_id"][0]
        widget = shop.inspect(root)
        picture = show(widget)["picture"]
        listed = ask(widget, "list", id=root)["rows"]
    drawn = [node for node in picture["nodes"] if node["kind"] == "workflow"]
    assert drawn
    for node in drawn:
        assert f"succeeded after {node['took']}<" in picture["svg"].replace("&lt;", "<")
        assert [row["took"] for row in listed if row["key"] == node["key"]] == [node["took"]]


def test_the_header_counts_the_steps_that_are_recorded(shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        for status in ("PENDING", "SUCCESS"):
            root = db.workflows(status=status, name="order", limit=1)["workflow_id"].item()
            counts = show(db.inspect(root))["facts"]["counts"]
            assert counts.endswith(f"{len(db.steps(root, children=True))} steps"), status


def test_a_step_shows_its_output_or_error(db: dn.Client) -> None:
    widget = db.inspect("checkout-5-bad")
    steps = db.steps("checkout-5-bad", load_output=True)
    for step in steps.to_dict("records"):
        key = ["checkout-5-bad", step["function_id"]]
        result = ask(widget, "node", id="checkout-5-bad", key=key, view={})
        assert result["kind"] == "step"
        assert result["step"]["name"] == step["function_name"]
        if step["status"] == "ERROR":
            assert result["error"]["type"] == step["error"].type
            assert result["error"]["message"] == step["error"].message
        else:
            assert result["output"]["text"] == repr(step["output"])
    root = ask(widget, "node", id="checkout-5-bad", key="checkout-5-bad", view={})
    assert root["kind"] == "workflow"
    assert "order-5-bad" in root["input"]["text"]


def test_stored_payloads_are_shown_as_stored(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    query = "SELECT error FROM operation_outputs WHERE workflow_uuid = ? AND error IS NOT NULL"
    ((stored,),) = sqlite3.connect(path).execute(query, ["checkout-5-bad"]).fetchall()
    with dn.connect(path) as db:
        widget = db.inspect("checkout-5-bad")
        (payload,) = ask(widget, "raw", key=["checkout-5-bad", 3])["payloads"]
        assert payload["text"] == stored
        assert (payload["name"], payload["format"]) == ("error", "py_pickle")
        names = [
            stored_payload["name"]
            for stored_payload in ask(widget, "raw", key="checkout-5-bad")["payloads"]
        ]
        assert names == ["input", "error"]


def test_a_string_with_a_lone_surrogate_is_shown(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE operation_outputs SET output = ?, serialization = 'portable_json'"
            " WHERE workflow_uuid = 'checkout-1'",
            [r'"half: \ud800"'],
        )
        connection.execute("UPDATE operation_outputs SET output = NULL WHERE function_id = 1")
    connection.close()
    with dn.connect(path) as db:
        widget = db.inspect("checkout-1")
        answer = ask(widget, "node", id="checkout-1", key=["checkout-1", 3], view={})
        assert answer["output"]["text"].startswith("'half: ")
        outputs = db.steps("checkout-1", load_output=True)["output"]
        assert outputs.dtype == object
        assert outputs.tolist()[:2] == [None, "half: \ud800"]
        assert "half: " in widget.save_html(path.with_suffix(".html")).read_text()


def test_failures_lead_to_their_origin(db: dn.Client) -> None:
    facts = show(db.inspect("parent-6-bad"))["facts"]
    # The parent and its getResult failed because a step of the child failed.
    assert [failure["key"] for failure in facts["failures"]] == [["parent-6-bad-1", 3]]
    # No step failed, but the function raised.
    (only,) = show(db.inspect("portable-13"))["facts"]["failures"]
    assert only["key"] == "portable-13"
    assert show(db.inspect("checkout-1"))["facts"]["failures"] == []


def test_search_finds_names_numbers_ids_and_errors(db: dn.Client) -> None:
    widget = db.inspect("parent-6-bad")

    def found(text: str) -> list[Any]:
        answer = ask(widget, "search", id="parent-6-bad", text=text)
        assert answer["count"] == len(answer["found"])
        return [node["key"] for node in answer["found"]]

    assert found("CHARGE") == [["parent-6-bad-1", 3]]
    assert ["parent-6-bad-1", 3] in found("#3")
    assert "parent-6-bad-1" in found("parent-6-bad-1")
    assert ["parent-6-bad-1", 3] in found("PaymentDeclined")
    assert found("no such thing") == found("") == []


def test_a_group_opens_to_reach_a_node_in_it(many_steps: Path) -> None:
    with dn.connect(many_steps) as db:
        widget = db.inspect("checkout-1")
        overview = show(widget)["picture"]
        assert overview["overview"]  # 300 steps are not legible at once
        polish = next(node for node in overview["nodes"] if node["name"] == "polish")
        result = ask(widget, "node", id="checkout-1", key=polish["key"], view={})
        assert result["count"] == len(result["members"]) + result["left_out"] == 301
        assert result["title"] == "301 × polish"
        folded = show(widget, overview=False)["picture"]
        (group,) = (node for node in folded["nodes"] if node["kind"] == "group")
        result = ask(widget, "node", id="checkout-1", key=group["key"], view={})
        assert result["count"] == len(result["members"]) + result["left_out"] == 301
        opened = show(widget, open=[group["group"]])["picture"]
        assert not opened["overview"]
        assert len(opened["nodes"]) > len(folded["nodes"])
        hidden = ["checkout-1", 250]
        assert hidden not in [node["key"] for node in opened["nodes"] + folded["nodes"]]
        for picture in ("graph", "timeline"):
            reached = ask(
                widget, "reveal", id="checkout-1", key=hidden, view={"picture": picture, "open": []}
            )
            assert hidden in [node["key"] for node in reached["picture"]["nodes"]]
            assert reached["open"][0] == group["group"]


def test_opening_groups_does_not_turn_the_graph(database_copy: Path) -> None:
    big_runs.insert_children(database_copy, 300)
    with dn.connect(database_copy) as db:
        widget = db.inspect("many")
        view = {"picture": "graph", "width": 700, "overview": False, "open": []}
        failures = show(widget, **view)["facts"]["failures"]
        assert len(failures) > 2
        for failure in failures:
            answer = ask(widget, "reveal", id="many", key=failure["key"], view=view)
            view["open"] = answer["open"]
            assert answer["picture"] == show(widget, **view, direction="LR")["picture"]


def test_a_failure_is_shown_alone_beside_those_of_its_kind(old_sqlite: Path) -> None:
    graph = big_runs.fan_out(300)
    run = RunData(big_runs.ROOT, graph, {}, [])
    assert run.opens_with_overview()
    assert run.picture_message({})["overview"]
    failures = [from_json_key(node["key"]) for node in run.facts()["failures"]]
    assert len(failures) == 23
    opened = run.groups_to_open(failures[0], {})
    assert opened == [failures[0][0]]
    picture = run.picture_message({"open": opened, "overview": False})
    keys = [from_json_key(node["key"]) for node in picture["nodes"]]
    assert failures[0] in keys
    assert not {failure for failure in failures[1:] if failure in keys}
    with dn.connect(old_sqlite) as db:
        kind = ("workflow", graph.nodes[failures[0][0]]["name"])
        details = node_details(db._store, run, kind, {})
    failed = [member["status"] for member in details["members"]]
    assert failed[:5] == ["ERROR"] * 5
    assert len(details["failed"]) == 5


def test_steps_are_listed_in_tree_order(db: dn.Client) -> None:
    rows = ask(db.inspect("parent-6-bad"), "list", id="parent-6-bad")["rows"]
    assert [(row["key"], row["depth"]) for row in rows] == [
        ("parent-6-bad", 0),
        (["parent-6-bad", 1], 1),
        ("parent-6-bad-1", 2),
        (["parent-6-bad-1", 1], 3),
        (["parent-6-bad-1", 2], 3),
        (["parent-6-bad-1", 3], 3),
        (["parent-6-bad", 2], 1),
    ]


def test_a_child_is_listed_as_starting_after_the_step_that_started_it(
    database_copy: Path,
) -> None:
    connection = sqlite3.connect(database_copy)
    with connection:
        times = ("created_at", "updated_at", "started_at_epoch_ms", "completed_at")
        whole = ", ".join(f"{time} = {time} / 1000 * 1000" for time in times)
        connection.execute(f"UPDATE workflow_status SET {whole}")
    connection.close()
    with dn.connect(database_copy) as db:
        rows = ask(db.inspect("parent-6-bad"), "list", id="parent-6-bad")["rows"]
    begun = [row["started_at"] for row in rows if row["kind"] == "workflow" or row["number"] == 1]
    assert len(begun) > 2
    assert begun == sorted(begun)


def test_a_fork_is_compared_with_its_original(db: dn.Client) -> None:
    original = db.workflow("fork-1").forked_from
    widget = db.inspect("fork-1")
    answer = ask(widget, "compare", first=original, second="fork-1", view={})
    from dbos_notebook import graphs

    frame = graphs.compare(*(db.graph(i, load_output=True) for i in (original, "fork-1"))).frame
    counted = frame["difference"].value_counts()
    assert answer["counts"] == {word: n for word, n in counted.items() if n}
    assert len(answer["rows"]) == (frame["difference"] != "same").sum()
    assert any("first" in node or "second" in node for node in answer["picture"]["nodes"])


def test_the_selection_is_a_key_of_the_graph(db: dn.Client) -> None:
    widget = db.inspect("checkout-1")
    assert widget.selection is None
    assert widget.code == 'db.inspect("checkout-1")'
    for key in ("checkout-1", ("checkout-1", 3)):
        widget._selected = [key] if isinstance(key, str) else list(key)
        assert widget.selection == key
        assert widget.selection in widget.graph
        widget.selection = None
        widget.selection = key
        assert widget.selection == key
    assert eval(widget.code, {"db": db})["function_name"] == "charge"


def test_invalid_arguments_raise_in_the_calling_cell(db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError, match="checkout-99"):
        db.inspect("checkout-99")
    with pytest.raises(dn.FilterError, match="one workflow"):
        db.inspect(["checkout-1", "checkout-2"])  # type: ignore[arg-type]
    with pytest.raises(dn.FilterError, match="tab='pie'"):
        db.inspect("checkout-1", tab="pie")
    widget = db.inspect("checkout-1")
    missing = ask(widget, "node", id="checkout-1", key=["checkout-1", 99], view={})
    assert (missing["kind"], missing["type"]) == ("error", "StepNotFoundError")
    assert isinstance(widget.last_error, dn.StepNotFoundError)


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
def test_databases_of_old_versions(corpus_sqlite: Callable[[str], Path], version: str) -> None:
    with dn.connect(corpus_sqlite(version)) as db:
        for workflow_id in db.workflows()["workflow_id"]:
            widget = db.inspect(workflow_id)
            assert show(widget, picture="timeline")["picture"]["nodes"]
            assert ask(widget, "node", id=workflow_id, key=workflow_id, view={})["kind"] != "error"


def test_the_saved_widget_state_is_small(db: dn.Client) -> None:
    widget = db.inspect("checkout-5-bad")
    show(widget)
    state = {n: v for n, v in widget.get_state().items() if n not in ("_esm", "_css")}
    assert len(json.dumps(state, default=str)) < 3_000
    assert "PaymentDeclined" not in str(state)
    scripts: dict[str, str] = {}
    for view in ("board", "console", "controls", "explore", "inspect", "offline"):
        bundle._scopes(view, scripts)
    assert len(scripts) > 20
    assert sum(len(each.encode()) for each in scripts.values()) < 220_000
    assert "import " not in bundle.module("inspect")


def test_a_notebook_without_a_kernel_shows_the_graph(db: dn.Client) -> None:
    data, _ = db.inspect("checkout-5-bad")._repr_mimebundle_()
    html = data["text/html"]
    assert "data:image/svg+xml;base64," in html
    assert "PaymentDeclined" in html
    assert "Order(" not in html
    assert data["text/plain"].startswith("<Inspect 'checkout-5-bad' ")


def read_recording(page: Path) -> dict[str, Any]:
    text = page.read_text()
    (data,) = re.findall(
        r'<script type="application/json" id="recorded">(.*?)</script>', text, re.S
    )
    return dict(json.loads(data))


def test_a_saved_page_holds_every_answer(many_steps: Path, tmp_path: Path) -> None:
    with dn.connect(many_steps) as db:
        page = db.inspect("checkout-1").save_html(tmp_path / "one.html")
        result = read_recording(page)
        keys = {json.dumps(row["key"], separators=(",", ":")) for row in result["list"]["rows"]}
        assert keys == set(result["nodes"])
        (group,) = (
            node for node in result["pictures"]['["graph"]']["nodes"] if node["kind"] == "group"
        )
        opened = result["pictures"][json.dumps(["graph", group["group"]], separators=(",", ":"))]
        assert len(opened["nodes"]) > len(result["pictures"]['["graph"]']["nodes"])
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org/", "")


def test_a_saved_page_escapes_values_of_the_database(
    corpus_sqlite: Callable[[str], Path], tmp_path: Path
) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE workflow_status SET name = ?", [HOSTILE])
        connection.execute("UPDATE operation_outputs SET function_name = ?", [HOSTILE])
    connection.close()
    with dn.connect(path) as db:
        widget = db.inspect("parent-6-bad")
        page = widget.save_html(tmp_path / "hostile.html")
        fallback = widget.static_html()
    assert read_recording(page)["list"]["rows"][0]["name"] == HOSTILE
    for text in (page.read_text(), fallback):
        assert "<img src=x" not in text


def test_fifty_reruns_leak_no_thread_no_connection_and_no_view(db: dn.Client) -> None:
    widget = db.inspect("checkout-1")
    show(widget)
    widget.close()
    process = psutil.Process()
    before = threading.active_count(), process.num_fds()
    views = []
    for _ in range(50):
        widget = db.inspect("checkout-1")
        show(widget)
        views.append(weakref.ref(widget))
        widget.close()
    del widget
    gc.collect()
    assert (threading.active_count(), process.num_fds()) <= before
    assert sum(view() is not None for view in views) == 0


def test_the_report_of_the_command_line(
    old_sqlite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    arguments = ["report", "parent-6-bad", "--database", str(old_sqlite), "--output", str(target)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert read_recording(target)["workflow_id"] == "parent-6-bad"
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    with pytest.raises(dn.OutputError, match="cannot be written"):
        report("parent-6-bad", str(old_sqlite), output=tmp_path / "no" / "folder.html")
    with pytest.raises(dn.WorkflowNotFoundError):
        report("nothing", str(old_sqlite), output=tmp_path / "nothing.html")
