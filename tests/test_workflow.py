"""``Workflow``: its values, its relatives and its representations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.payloads import RecordedError


def test_a_workflow_has_the_values_of_its_row(db: dn.Client) -> None:
    flow = db.workflow("checkout-5-bad")
    assert (flow.id, flow.status, flow.name) == ("checkout-5-bad", "ERROR", "checkout")
    assert flow.input.args[0].id == "order-5-bad"
    assert flow.input.kwargs == {}
    assert flow.output is None
    assert isinstance(flow.error, RecordedError)
    assert flow.error.args[0] == "order-5-bad"
    assert flow.steps["status"].tolist()[-1] == "ERROR"
    assert flow.events["status"]["order"] == "order-5-bad"
    assert db.workflow("portable-13").input.args == (13,)


def test_a_workflow_leads_to_steps_children_and_forks(db: dn.Client) -> None:
    flow = db.workflow("checkout-1")
    assert flow.parent is None
    assert flow.original is None
    assert flow.children["workflow_id"].tolist() == ["checkout-1-4"]
    child = db.workflow("checkout-1-4")
    assert child.parent is not None
    assert child.parent.id == "checkout-1"
    assert db.workflow("checkout-5-bad").forks["workflow_id"].tolist() == ["fork-1"]
    original = db.workflow("fork-1").original
    assert original is not None
    assert original.id == "checkout-5-bad"


def test_streams_and_messages_are_those_of_the_tables(shop: dn.Client) -> None:
    stream_rows = shop.streams(limit=None)
    writer_id = stream_rows["workflow_id"].iloc[0]
    own_rows = stream_rows[stream_rows["workflow_id"] == writer_id]
    flow = shop.workflow(writer_id)
    assert sum(map(len, flow.streams.values())) == len(own_rows)
    receiver_id = shop.messages(limit=None)["workflow_id"].iloc[0]
    assert len(shop.workflow(receiver_id).messages) > 0


def test_a_workflow_draws_its_timeline(db: dn.Client) -> None:
    flow = db.workflow("checkout-1")
    rows = flow.timeline_rows
    assert rows["kind"].tolist() == ["workflow"] + ["step"] * len(flow.steps)
    assert rows["name"].iloc[0] == "checkout"
    assert str(rows["started_at"].dtype) == "datetime64[ms, UTC]"
    assert str(rows["duration"].dtype) == "timedelta64[ms]"
    assert (rows["completed_at"].iloc[1:] >= rows["started_at"].iloc[1:]).all()


def test_a_workflow_without_steps_has_a_repr(db: dn.Client) -> None:
    flow = db.workflow("queued-1")
    assert flow.steps.empty
    assert len(flow.timeline_rows) == 1
    assert "No step has been recorded" in flow._repr_html_()
    assert "ENQUEUED" in str(flow)


def test_an_unknown_id_suggests_ids_with_the_same_prefix(db: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError, match=r"'checkout-99'.*'checkout-1'"):
        db.workflow("checkout-99")


def test_dir_and_repr_of_a_workflow(db: dn.Client) -> None:
    flow = db.workflow("checkout-1")
    assert {"input", "steps", "children", "forks", "status", "created_at"} <= set(dir(flow))
    assert repr(flow) == "<Workflow 'checkout-1' checkout SUCCESS>"
    assert "validate" in str(flow)
    with pytest.raises(AttributeError, match="'colour'"):
        flow.colour  # noqa: B018


@pytest.fixture
def hostile(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    markup = "<img src=x onerror=alert(1)>"
    with connection:
        connection.execute("UPDATE workflow_status SET name = ?, queue_name = ?", [markup, markup])
        connection.execute("UPDATE operation_outputs SET function_name = ?", [markup])
        connection.execute("UPDATE workflow_output SET output = ?", ['"</details><script>"'])
        connection.execute("UPDATE workflow_input SET inputs = ?", ["not a payload"])
    connection.close()
    with dn.connect(path) as client:
        yield client


def test_values_of_the_database_are_escaped(hostile: dn.Client) -> None:
    html = hostile.workflow("checkout-1")._repr_html_()
    assert "<img" not in html
    assert "<script" not in html
    assert "&lt;img" in html
    assert "undecoded" in html


def test_long_values_are_truncated(db: dn.Client, corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    connection = sqlite3.connect(path)
    with connection:
        long = '"' + "x" * 1_000_000 + '"'
        connection.execute("UPDATE workflow_output SET output = ?, error = NULL", [long])
        connection.execute("UPDATE workflow_status SET serialization = 'portable_json'")
    connection.close()
    with dn.connect(path) as client:
        flow = client.workflow("checkout-1")
        assert len(flow.output) == 1_000_000
        assert len(flow._repr_html_()) < 100_000
        assert len(str(flow)) < 10_000


def test_errors_by_class(db: dn.Client) -> None:
    failed = db.workflows(status="ERROR")
    counts = failed.groupby("error_type", observed=True).size().to_dict()
    assert counts == {"__main__.PaymentDeclined": 4, "ValueError": 1}
    assert db.workflows(status="SUCCESS")["error_type"].isna().all()
    steps = db.steps(failed)
    assert (steps["error_type"].notna() == (steps["status"] == "ERROR")).all()


def test_errors_of_long_and_short_listings_are_the_same(shop: dn.Client) -> None:
    # A long listing reads errors with a query of their own.
    short = shop.workflows(limit=1_000)[["workflow_id", "error_type", "error_message"]]
    long = shop.workflows(limit=None)[["workflow_id", "error_type", "error_message"]]
    assert short["error_type"].notna().sum() > 0
    ordered = [frame.sort_values("workflow_id", ignore_index=True) for frame in (short, long)]
    pd.testing.assert_frame_equal(*ordered, check_categorical=False)
    without = shop.workflows(limit=None, load_errors=False)
    assert without["error_type"].isna().all()
    streamed = pd.concat(shop.iter_workflows(chunksize=7))
    assert streamed["error_message"].notna().sum() == short["error_message"].notna().sum()


def test_steps_of_the_typescript_sdk_are_numbered_from_0(
    corpus_postgres: Callable[[str], str],
) -> None:
    with dn.connect(corpus_postgres("ts-5.3.0")) as client:
        frame = client.workflows(limit=None, load_input=True, load_output=True)
        assert len(frame) > 0
        steps = client.steps(frame, load_output=True)
        assert steps["function_id"].min() == 0
        for workflow_id in frame["workflow_id"]:
            assert "undecoded" not in str(client.workflow(workflow_id))


def test_a_name_cannot_forge_lines_or_terminal_sequences(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("3.4.0")
    forged = "pay\x1b[2J SUCCESS\n  output: 'paid'\u202e"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE workflow_status SET name = ?, workflow_uuid = ?, queue_name = ? "
            "WHERE workflow_uuid = 'queued-1'",
            [forged, "a\x1b]0;t\x07b", forged],
        )
        connection.execute(
            "UPDATE workflow_status SET name = ?1 WHERE name = 'checkout'", ["N" * 10**6]
        )
        connection.execute("UPDATE operation_outputs SET function_name = ?", [forged])
    connection.close()
    with dn.connect(path) as client:
        flow = client.workflow("a\x1b]0;t\x07b")
        for text in (repr(flow), str(flow), flow._repr_html_(), client._repr_html_()):
            assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert "\n  output" not in str(flow)
        long = client.workflow("checkout-1")
        assert "\x1b" not in str(long) + long._repr_html_()
        assert len(repr(long)) < 300
        assert len(long._repr_html_()) < 50_000


def test_a_long_traceback_is_truncated() -> None:
    from dbos_notebook.text import sanitize_lines

    shown = sanitize_lines("first\n" + "\x1b" + "T" * 5_000_000, 20_000)
    assert shown.startswith("first\n\\x1bTTT")
    assert len(shown) < 20_010
