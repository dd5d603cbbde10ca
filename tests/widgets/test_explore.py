"""The Python half of the list, called with the browser's messages, on real databases."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from widget_messages import ask

import dbos_notebook as dn
from dbos_notebook.widgets import query_form, serialize
from dbos_notebook.widgets.explore import Explore


def iter_pages(widget: Explore, **view: Any) -> Iterator[list[str]]:
    """Yield the IDs of each page, as the browser requests them."""
    after: list[Any] = []
    while True:
        answer = ask(widget, "page", view={"size": 25, **view}, after=after)
        assert answer["kind"] == "page", answer
        yield [row["id"] for row in answer["rows"]]
        if not answer["more"]:
            return
        after = answer["last"]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(
    "sort",
    [
        "created_at",
        "workflow_id",
        "name",
        "status",
        "duration",
        "completed_at",
        "queue_name",
        "queue_position",
        "priority",
        "authenticated_user",
    ],
)
def test_pages_hold_every_row_once_and_in_order(
    shop: dn.Client, sort: str, descending: bool
) -> None:
    id_pages = list(iter_pages(shop.explore(), sort=sort, descending=descending))
    ids = [row_id for page in id_pages for row_id in page]
    everything = shop.workflows(limit=None).set_index("workflow_id")
    assert len(id_pages) > 2
    assert len(ids) == len(set(ids)) == len(everything)
    if sort in everything and sort != "queue_position":
        values = everything.loc[ids, sort]
        known = values.dropna()
        # Missing values are last in both directions.
        assert values.iloc[: len(known)].notna().all()
        if sort not in ("name", "queue_name", "authenticated_user"):  # a server's own order
            assert known.is_monotonic_decreasing if descending else known.is_monotonic_increasing


def test_a_page_equals_the_listing_of_the_client(db: dn.Client) -> None:
    widget = db.explore(status="ERROR")
    answer = ask(widget, "page", view=widget._view)
    assert [row["id"] for row in answer["rows"]] == widget.frame["workflow_id"].tolist()
    assert (
        widget.frame["workflow_id"].tolist() == db.workflows(status="ERROR")["workflow_id"].tolist()
    )
    row = next(row for row in answer["rows"] if row["id"] == "checkout-5-bad")
    assert (row["status"], row["name"]) == ("ERROR", "checkout")
    assert row["error_type"] == "__main__.PaymentDeclined"
    assert "input" not in row


def test_filters_are_those_of_the_client(db: dn.Client) -> None:
    widget = db.explore()
    view = {
        "search": " Checkout ",
        "status": ["SUCCESS", "ERROR"],
        "name": ["checkout"],
        "start_time": "3650d",
        "end_time": "2100-01-01T00:00:00.000Z",
        "attributes": "",
    }
    ids = [row["id"] for row in ask(widget, "page", view=view)["rows"]]
    assert widget.filters == {
        "search": "Checkout",
        "status": ["SUCCESS", "ERROR"],
        "name": ["checkout"],
        "start_time": "3650d",
        "end_time": "2100-01-01T00:00:00.000Z",
    }
    assert ids == db.workflows(**widget.filters)["workflow_id"].tolist()
    # The code is the same call.
    assert eval(widget.code, {"db": db})["workflow_id"].tolist() == ids


@pytest.mark.parametrize(
    "value",
    [
        "\"'\\ \n\r\t\x00\x1b\x7f\x85\u2028\u2029{}%",
        "exe\u202etxt.\u2066\u200b\ufeff",
        "half a character: \ud800",
        ["one", "two"],
        {"tags": ["x"], "deep": [[1], [None, True, 1.5]]},
    ],
)
def test_a_filter_value_written_as_code_evaluates_to_itself(value: Any) -> None:
    written = query_form.literal(value)
    assert eval(written) == value
    # No invisible characters: what is pasted is what was shown.
    assert written.isprintable()
    assert eval(query_form.list_code({"name": [value]}, {}).replace("db.workflows", "dict")) == {
        "name": str(value)
    }


def test_numbers_outside_json_are_strings_or_refused() -> None:
    assert query_form.to_filters({"attributes": "a=NaN, b=1e400, c=-1.5e2"}) == {
        "attributes": {"a": "NaN", "b": "1e400", "c": -150.0}
    }
    with pytest.raises(dn.FilterError, match="1e400 is not a JSON number"):
        query_form.to_filters({"attributes": '{"a": 1e400}'})


def test_initial_filters_are_kept_and_can_be_changed(db: dn.Client) -> None:
    widget = db.explore(status="error", has_parent=False, start_time="3650d")
    assert widget._start["view"]["status"] == ["ERROR"]
    assert widget._start["view"]["start_time"] == "3650d"
    assert widget._start["fixed"] == ["has_parent=False"]
    everything = ask(widget, "page", view={"status": []})["rows"]
    assert {row["id"] for row in everything} == set(
        db.workflows(has_parent=False, limit=None)["workflow_id"]
    )
    with pytest.raises(dn.FilterError, match="Did you mean 'status'"):
        db.explore(statsu="ERROR")
    for size in (0, 1001, True, "all"):
        with pytest.raises(dn.FilterError, match=f"page_size={size!r} .* from 1 to 1,000"):
            db.explore(page_size=size)
    widget = db.explore(page_size=7)
    assert widget._start["sizes"] == [7, 10, 25, 50, 100, 200]
    assert len(ask(widget, "page", view=widget._start["view"])["rows"]) == len(widget.frame) == 7


def test_the_error_filter_searches_errors_only(db: dn.Client) -> None:
    rows = ask(db.explore(), "page", view={"error": "PaymentDeclined"})["rows"]
    assert {row["id"] for row in rows} == set(
        db.workflows(limit=None).query("error_type == '__main__.PaymentDeclined'")["workflow_id"]
    )
    assert db.workflows(error="checkout-5").empty
    assert not db.workflows(search="checkout-5").empty


def search_ids(widget: Explore, **view: Any) -> tuple[list[str], int]:
    """Return the IDs that a search finds in parts, as the browser does, and the number of parts."""
    view = {"size": 25, **view}
    answer = ask(widget, "page", view=view)
    matches = answer["rows"]
    part = 0
    while answer["searched_to"] and len(matches) < 25:
        part += 1
        question = {"after": answer["last"], "limit": 25 - len(matches), "part": part}
        answer = ask(widget, "page", view=view, **question)
        matches += answer["rows"]
    return [row["id"] for row in matches], part + 1


def test_search_proceeds_in_growing_parts(shop: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbos_notebook.widgets.explore.MAX_SEARCH_ROWS", 7)
    part_counts = []
    for first in (7, 2):
        monkeypatch.setattr("dbos_notebook.widgets.explore.FIRST_SEARCH_ROWS", first)
        for descending in (True, False):
            widget = shop.explore()
            matches, parts = search_ids(widget, search="ship", descending=descending)
            expected = shop.workflows(search="ship", sort_desc=descending, limit=25)
            assert matches == expected["workflow_id"].tolist()
            assert widget.frame["workflow_id"].tolist() == matches
            assert widget.frame.dtypes.astype(str).tolist() == expected.dtypes.astype(str).tolist()
            part_counts.append(parts)
    assert part_counts[0] > 2
    # A small first part costs at most one part more.
    assert part_counts[0] <= part_counts[2] <= part_counts[0] + 1


def test_a_workflow_found_by_its_id_is_listed_first_and_once(
    shop: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = shop.workflows(has_parent=False, limit=None)
    oldest = next(
        row_id
        for row_id in reversed(parents["workflow_id"])
        if len(shop.workflows(search=row_id, limit=None)) > 1
    )
    expected = shop.workflows(search=oldest, limit=None)["workflow_id"].tolist()
    assert expected[0] != oldest, "its children are newer, and their IDs hold its own"
    monkeypatch.setattr("dbos_notebook.widgets.explore.FIRST_SEARCH_ROWS", 2)
    widget = shop.explore()
    assert ask(widget, "page", view={"search": oldest})["rows"][0]["id"] == oldest
    matches, _ = search_ids(widget, search=oldest)
    assert matches == [oldest, *(row_id for row_id in expected if row_id != oldest)]
    # The other filters apply to it too.
    assert oldest not in search_ids(widget, search=oldest, status=["DELAYED"])[0]
    assert search_ids(widget, search=oldest, mode="tree")[0][0] == oldest


def test_the_tree_has_roots_and_their_children(shop: dn.Client) -> None:
    widget = shop.explore(tree=True)
    roots = [row_id for page in iter_pages(widget, mode="tree") for row_id in page]
    assert set(roots) == set(shop.workflows(has_parent=False, limit=None)["workflow_id"])
    answer = ask(widget, "page", view={"mode": "tree", "size": 200})
    parent = next(row for row in answer["rows"] if row.get("children"))
    below = ask(widget, "children", id=parent["id"])["rows"]
    assert len(below) == parent["children"]
    assert {row["id"] for row in below} == set(shop.workflow(parent["id"]).children["workflow_id"])
    # A failure below a root that did not fail is found too.
    failed = [
        row_id for page in iter_pages(widget, mode="tree", status=["ERROR"]) for row_id in page
    ]
    errors = shop.workflows(status="ERROR", limit=None).set_index("workflow_id")
    roots_only = errors[~errors["parent_workflow_id"].isin(errors.index)]
    assert set(failed) == set(roots_only.index)


def test_enqueued_workflows_show_their_queue_position(db: dn.Client) -> None:
    widget = db.explore(queues_only=True)
    rows = ask(widget, "page", view=widget._view)["rows"]
    places = {row["id"]: (row.get("position"), row.get("queue_length")) for row in rows}
    assert places["queued-1"] == (1, 2)
    assert places["queued-2"] == (2, 2)
    assert places["holder"] == (None, None)
    assert widget.code == "db.queued(sort_desc=False)"
    assert set(eval(widget.code, {"db": db})["workflow_id"]) == set(places)


def test_a_failure_with_a_fork_that_succeeded_is_marked(
    corpus_sqlite: Callable[[str], Path], tmp_path: Path
) -> None:
    path = Path(shutil.copyfile(corpus_sqlite("3.4.0"), tmp_path / "forked.sqlite"))
    repaired: list[set[str]] = []
    for status in ("ERROR", "SUCCESS"):
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE workflow_status SET status = ? WHERE forked_from IS NOT NULL", [status]
            )
        with dn.connect(path) as db:
            rows = ask(db.explore(), "page", view={"size": 1000})["rows"]
            repaired.append({row["id"] for row in rows if row.get("repaired")})
            frame = db.repair_status()
            assert repaired[-1] == set(frame[frame["state"] == "repaired"]["workflow_id"])
    assert not repaired[0]
    assert repaired[1]


def test_an_opened_row_has_all_details(db: dn.Client) -> None:
    result = ask(db.explore(), "details", id="checkout-5-bad")
    assert "order-5-bad" in result["input"]["text"]
    assert result["error"]["type"] == "__main__.PaymentDeclined"
    assert [step["name"] for step in result["steps"]] == db.steps("checkout-5-bad")[
        "function_name"
    ].tolist()
    assert result["steps"][-1]["status"] == "ERROR"
    assert result["forks"] == [{"id": "fork-1", "status": db.workflow("fork-1").status}]
    assert ask(db.explore(), "details", id="checkout-5-bad", stamp=result["stamp"])["same"] is True
    missing = ask(db.explore(), "details", id="nobody")
    assert (missing["kind"], missing["type"]) == ("error", "WorkflowNotFoundError")


def test_many_steps_are_sent_in_parts(
    corpus_sqlite: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.widgets.details.STEPS_PER_PAGE", 2)
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        widget = client.explore()
        result = ask(widget, "details", id="checkout-1")
        numbers = [step["number"] for step in result["steps"]]
        while result["more_steps"]:
            result = ask(widget, "steps", id="checkout-1", after=numbers[-1])
            numbers += [step["number"] for step in result["steps"]]
        assert numbers == client.steps("checkout-1")["function_id"].tolist()
        assert len(numbers) > 4


def test_long_values_are_truncated_and_marked(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE workflow_output SET output = ?, error = NULL", ['"' + "x" * 1_000_000 + '"']
        )
        connection.execute("UPDATE workflow_status SET serialization = 'portable_json'")
    connection.close()
    with dn.connect(path) as client:
        result = ask(client.explore(), "details", id="checkout-1")
        assert result["output"]["left_out"] > 900_000
        assert len(json.dumps(result)) < 100_000


def test_nothing_is_sent_when_nothing_changed(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with dn.connect(path) as client:
        widget = client.explore(live=True)
        first = ask(widget, "page", view={})
        again = ask(widget, "page", view={}, stamp=first["stamp"])
        assert again["same"] is True
        assert "rows" not in again
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'queued-1'"
            )
        connection.close()
        changed = ask(widget, "page", view={}, stamp=first["stamp"])
        row = next(row for row in changed["rows"] if row["id"] == "queued-1")
        assert row["status"] == "CANCELLED"


def test_counts_and_filter_choices(db: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = db.explore()
    view = {"name": ["checkout"], "status": ["ERROR"]}
    page = ask(widget, "page", view=view, counts=True)
    assert page["counts"] == {"SUCCESS": 5, "ERROR": 3}
    assert len(page["rows"]) == 3
    same = ask(widget, "page", view=view, counts=True, stamp=page["stamp"])
    assert same["same"]
    assert same["counts"] == page["counts"]
    assert "counts" not in ask(widget, "page", view=view)
    found = {"search": "checkout-", "status": ["ERROR"]}
    expected = (
        db.workflows(search="checkout-", limit=None)["status"].astype(str).value_counts().to_dict()
    )
    assert ask(widget, "page", view=found, counts=True)["counts"] == expected
    # In a large database, a search that counts would read every row.
    monkeypatch.setattr("dbos_notebook.widgets.explore.MAX_COUNTED_ROWS", 5)
    assert ask(widget, "page", view=found, counts=True)["counts"] is None
    assert ask(widget, "page", view=view, counts=True)["counts"]
    choices = ask(widget, "choices")["choices"]
    assert set(choices) == set(query_form.CHOICE_FILTERS)
    assert choices["name"][0] in db.workflows(limit=None)["name"].unique()
    assert "slow" in choices["queue_name"]


def test_a_payload_is_copied_whole_and_searched(shop: dn.Client) -> None:
    widget = shop.explore()
    failed = shop.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
    flow = shop.workflow(failed)
    texts = {
        form: ask(widget, "payload", key=failed, name="input", form=form)["text"]
        for form in ("text", "json", "python")
    }
    assert json.loads(texts["json"])["args"][0]["type"] == flow.input.args[0].type
    assert texts["python"] == texts["text"]
    assert flow.input.args[0].number in texts["python"]
    error = ask(widget, "payload", key=failed, name="error", form="text")["text"]
    assert error.splitlines()[-1].startswith(flow.error.type)
    found = ask(widget, "payload", key=failed, name="input", find=flow.input.args[0].number.upper())
    assert found["count"] == 1
    number, line = found["lines"][0]
    assert flow.input.args[0].number in line
    assert texts["python"].splitlines()[number - 1].strip() == line
    step = shop.steps(failed, load_output=True).iloc[0]
    key = [failed, int(step["function_id"])]
    output = ask(widget, "payload", key=key, name="output", form="python")["text"]
    assert output == serialize.whole_text(step["output"])
    for wrong in ({"name": "__class__", "form": "text"}, {"name": "input", "form": "pickle"}):
        answer = widget.answer({"kind": "payload", "key": failed, **wrong})
        assert answer["type"] == "FilterError"


def test_details_have_events_and_the_newest_values_of_streams(db: dn.Client) -> None:
    events = db.events()
    streams = db.streams()
    widget = db.explore()
    details = ask(widget, "details", id=events["workflow_id"].iloc[0])
    own = events[events["workflow_id"] == events["workflow_id"].iloc[0]]
    assert [event["name"] for event in details["events"]] == own["key"].tolist()
    writer = streams["workflow_id"].iloc[0]
    own = streams[(streams["workflow_id"] == writer) & (streams["key"] == streams["key"].iloc[0])]
    stream = ask(widget, "details", id=writer)["streams"][0]
    assert stream["name"] == own["key"].iloc[0]
    assert stream["closed"] == bool(own["closed"].iloc[0])
    assert [value["offset"] for value in stream["values"]] == own["offset"].tolist()[::-1]
    assert stream["values"][0]["value"] == serialize.value_payload(own["value"].iloc[-1])


def test_an_action_takes_all_that_match(db: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = db.explore(status="ERROR", page_size=2)
    failed = db.workflows(status="ERROR", limit=None)["workflow_id"].tolist()
    everything = {"ids": [], "select_all": True, "view": widget._start["view"]}
    plan = ask(widget, "plan", action="fork", options={}, key="all", **everything)
    assert [row["workflow_id"] for row in plan["rows"]] == failed
    assert ask(widget, "possible", **everything)["possible"]["fork"]["count"] == len(failed)
    widget.set_trait("_select_all", True)
    assert widget.selection["workflow_id"].tolist() == failed
    assert ask(widget, "code", view=widget._start["view"], selection=True)["text"] == widget.code
    monkeypatch.setattr("dbos_notebook.widgets.query_form.MAX_ALL", 3)
    plan = ask(widget, "plan", action="fork", options={}, key="first", **everything)
    assert [row["workflow_id"] for row in plan["rows"]] == failed[:3]


def test_the_selection_is_a_frame(db: dn.Client) -> None:
    widget = db.explore()
    assert widget.selection.empty
    widget.selected = ["queued-1", "checkout-1", "queued-1"]
    assert widget.selected == ["queued-1", "checkout-1"]
    assert set(widget.selection["workflow_id"]) == {"queued-1", "checkout-1"}
    code = ask(widget, "code", view={}, selection=True)["text"]
    assert set(eval(code, {"db": db})["workflow_id"]) == {"queued-1", "checkout-1"}


def test_an_error_is_sent_and_the_next_request_works(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    client = dn.connect(path)
    widget = client.explore()
    moved_path = path.with_suffix(".away")
    os.rename(path, moved_path)
    answer = ask(widget, "page", view={})
    assert (answer["kind"], answer["type"]) == ("error", "DatabaseConnectionError")
    assert "There is no file" in answer["text"]
    assert isinstance(widget.last_error, dn.DatabaseConnectionError)
    # Displaying it does not fail either: the browser shows the error.
    data, _ = widget._repr_mimebundle_()
    assert "text/plain" in data
    os.rename(moved_path, path)
    assert len(ask(widget, "page", view={})["rows"]) == 26
    broken = ask(widget, "page", view={"attributes": "{no json"})
    assert broken["type"] == "FilterError"
    assert ask(widget, "page", view={"size": "x", "sort": "priority; DROP"})["kind"] == "error"
    assert widget.answer({"kind": "page", "after": ["x"], "request": 1})["type"] == "FilterError"


def test_lone_surrogates_and_interrupts_are_answered(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = db.explore()
    result = ask(widget, "plan", action="cancel", ids=["queued-1"], key="half \ud800")
    assert result["key"] == "half ?"
    assert ask(widget, "details", id="half \ud800")["type"] == "FilterError"
    assert ask(widget, "page", view={}, limit=-7)["rows"]
    assert ask(widget, "page", view={"size": 50.0})["rows"]

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    # Without an answer the browser would wait forever.
    monkeypatch.setattr("dbos_notebook.tables.pages.page", interrupted)
    answer = ask(widget, "page", view={})
    assert (answer["kind"], answer["type"]) == ("error", "KeyboardInterrupt")
    assert isinstance(widget.last_error, KeyboardInterrupt)


def test_missing_and_unknown_statuses_are_shown(
    corpus_sqlite: Callable[[str], Path], tmp_path: Path
) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    query = "UPDATE workflow_status SET status = ?, name = NULL WHERE workflow_uuid = ?"
    statuses = {"checkout-1": None, "checkout-2": "constructor", "queued-1": "__proto__"}
    with connection:
        connection.executemany(query, [(status, row_id) for row_id, status in statuses.items()])
    connection.close()
    with dn.connect(path) as client:
        widget = client.explore()
        rows = {row["id"]: row for row in ask(widget, "page", view={})["rows"]}
        for workflow_id, status in statuses.items():
            assert rows[workflow_id]["status"] == (status or "")
            assert ask(widget, "details", id=workflow_id)["kind"] == "details"
            single = client.inspect(workflow_id)
            assert ask(single, "show", id=workflow_id, view={})["kind"] == "show"
            assert ask(single, "list", id=workflow_id)["kind"] == "list"
            single.save_html(tmp_path / "one.html")
            assert "text/html" in single._repr_mimebundle_()[0]
        widget.save_html(tmp_path / "all.html")
        assert ask(client.board(window="30d"), "board")["kind"] == "board"


def test_a_page_that_ends_at_a_row_without_a_valid_time(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE workflow_status SET created_at = 'then' WHERE workflow_uuid = 'checkout-1'"
        )
    connection.close()
    with dn.connect(path) as client:
        answer = ask(client.explore(), "page", view={"descending": False})
        assert len(answer["rows"]) == 26
        assert (answer["more"], answer["last"]) == (False, [])


def test_invalid_messages_are_ignored(db: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = db.explore()
    sent: list[Any] = []
    monkeypatch.setattr(widget, "send", sent.append)
    for content in ("text", None, {}, {"kind": "close"}, {"kind": "__init__"}, {"kind": []}):
        widget._on_message(widget, content, [])
    assert sent == []
    widget._on_message(widget, {"kind": "page", "view": {}, "request": 7}, [])
    assert sent[0]["request"] == 7


def test_fifty_reruns_leak_no_thread_and_no_connection(db: dn.Client) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def rerun() -> None:
        widget = db.explore(live=True)
        widget._repr_mimebundle_()
        ask(widget, "page", view={})
        ask(widget, "details", id="checkout-1")

    rerun()
    threads, files = threading.active_count(), open_files()
    for _ in range(50):
        rerun()
    assert threading.active_count() <= threads
    assert open_files() <= files + 1


def test_the_saved_widget_state_holds_no_row(db: dn.Client) -> None:
    widget = db.explore()
    ask(widget, "page", view={})
    ask(widget, "details", id="checkout-5-bad")
    state = {name: value for name, value in widget.get_state().items() if name[:4] != "_esm"}
    state_json = json.dumps({n: v for n, v in state.items() if n != "_css"}, default=str)
    assert "checkout" not in state_json
    assert len(state_json) < 3_000
    assert len(widget._esm) + len(widget._css) < 150_000


@pytest.fixture
def hostile(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    path = corpus_sqlite("3.4.0")
    markup = "<img src=x onerror='window.ran=1'></style><script>window.ran=1</script>"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE workflow_status SET name = ?, queue_name = ?", [markup, markup])
        connection.execute("UPDATE workflow_status SET authenticated_user = ?", [markup])
        connection.execute("UPDATE operation_outputs SET function_name = ?", [markup])
        connection.execute("UPDATE workflow_status SET serialization = 'portable_json'")
        connection.execute("UPDATE workflow_output SET output = ?", [json.dumps(markup)])
    connection.close()
    with dn.connect(path) as client:
        yield client


def test_static_html_escapes_values_of_the_database(hostile: dn.Client, tmp_path: Path) -> None:
    widget = hostile.explore()
    data, _ = widget._repr_mimebundle_()
    page = widget.save_html(tmp_path / "page.html").read_text()
    for html in (data["text/html"], page):
        assert "<img" not in html
        assert "<script" not in html
        assert "&lt;img" in html
    assert page.count("</style>") == 2
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "checkout-5-bad" in page


def test_the_fallback_is_limited_and_holds_no_payload(shop: dn.Client) -> None:
    data, _ = shop.explore(page_size=200)._repr_mimebundle_()
    assert set(data) >= {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert data["text/html"].count("<tr>") <= 22
    assert len(data["text/html"]) < 20_000
    assert "Ada Lovelace" not in data["text/html"]
    assert data["text/plain"].startswith("<Explore ")


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0"])
def test_databases_of_old_versions(corpus_sqlite: Callable[[str], Path], version: str) -> None:
    with dn.connect(corpus_sqlite(version)) as client:
        widget = client.explore()
        ids = [row_id for page in iter_pages(widget, sort="queue_name") for row_id in page]
        assert set(ids) == set(client.workflows(limit=None)["workflow_id"])
        assert ask(widget, "details", id=ids[0])["row"]["id"] == ids[0]
        assert ask(widget, "choices")["kind"] == "choices"
        assert ask(widget, "page", view={"mode": "queued"})["kind"] == "page"
        possible = ask(widget, "possible", ids=ids)["possible"]
        assert possible["cancel"]["count"] == 0
        assert "cannot be controlled" in possible["cancel"]["why"]
