"""``db.board()``: its counts, its errors, and the live view in JupyterLab."""

from __future__ import annotations

import base64
import pickle
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Opened

import dbos_notebook as dn
from dbos_notebook.widgets.board import WINDOWS, Board, board_facts


def ask(board: Board, **question: Any) -> dict[str, Any]:
    return board.answer({"kind": "board", "request": 1, **question})


def test_the_board_begins_with_what_is_wrong(shop: dn.Client, old_sqlite: Path) -> None:
    answer = shop.board().answer({"kind": "attention", "request": 1})
    stranded = [each for each in answer["findings"] if "appears to be dead" in each["says"]]
    # The executors of the shop ended seconds or minutes ago: the runs may still seem to wait.
    ids = [key for each in stranded for key in each["ids"]]
    ids += [line["row"]["id"] for line in answer["rows"]]
    # Not those that wait until their delay ends: these go on by themselves.
    assert {key.partition("-")[0] for key in ids} == {"unpaid", "waiting"}
    with dn.connect(old_sqlite) as db:
        answer = db.board().answer({"kind": "attention", "request": 1})
        subjects = [each.subject for each in db.diagnose()]
    assert [each["subject"] for each in answer["findings"]] == subjects
    found = {key for each in answer["findings"] for key in each["ids"]}
    assert {"holder", "queued-1"} <= found
    assert {each["severity"] for each in answer["findings"]} <= {"critical", "warning", "info"}


def test_the_action_of_a_finding_has_the_plan_of_the_diagnosis(old_sqlite: Path) -> None:
    with dn.connect(old_sqlite) as db:
        board, diagnosis = db.board(), db.diagnose()
        answer = board.answer({"kind": "attention", "request": 1})
        number, finding = next(
            (number, each) for number, each in enumerate(answer["findings"]) if "action" in each
        )
        assert (finding["action"], finding["options"]) == ("resume", {"force": True})
        question = {name: finding[name] for name in ("action", "options")}
        question |= {"kind": "plan", "request": 2, "key": "click-1", "ids": finding["targets"]}
        plan = board.answer(question)
        assert plan["counts"]["ready"] == finding["affected"]
        assert diagnosis.plan(number).counts["ready"] == finding["affected"]
        assert "force=True" in plan["code"]


def test_the_board_counts_equal_those_of_the_listing(shop: dn.Client) -> None:
    board = shop.board(window="1h")
    reading = ask(board)
    frame = shop.workflows(limit=None)
    counts = frame["status"].astype(str).value_counts().to_dict()
    active = {name: counts[name] for name in ("DELAYED", "ENQUEUED", "PENDING")}
    assert reading["active"] == active
    ended = {status: sum(bars) for status, bars in reading["series"].items()}
    assert ended == {name: number for name, number in counts.items() if name not in active}
    assert {len(bars) for bars in reading["series"].values()} == {reading["bars"]} == {60}
    deepest = board.queues.nlargest(1, "enqueued")["queue_name"].item()
    assert reading["queues"][0]["name"] == deepest


def test_the_board_lists_the_causes_of_failures_and_durations(shop: dn.Client) -> None:
    board = shop.board(window="1h")
    reading = board.answer({"kind": "causes", "request": 1})
    causes = shop.failures(completed_after="1h")
    assert [row["id"] for row in reading["failures"]] == causes["example"].tolist()[:12]
    assert [row["count"] for row in reading["failures"]] == causes["count"].tolist()[:12]
    assert [row["unaddressed"] for row in reading["failures"]] == causes["unaddressed"].tolist()[
        :12
    ]
    assert reading["more_failures"] == max(0, len(causes) - 12)
    for row, ids, ancestors in zip(
        reading["failures"], causes["workflow_ids"], causes["ancestor_ids"], strict=False
    ):
        assert row["ids"] == [*ids, *ancestors]
    assert board.failures["count"].tolist() == causes["count"].tolist()
    statistics = shop.workflow_statistics(completed_after="1h").set_index("name")
    for row in reading["durations"]:
        assert row["count"] == statistics.loc[row["name"], "count"]
        found = statistics.loc[row["name"]]
        assert pd.Timedelta(row["p50"], unit="ms") == found["p50"]
        fractions = (found["total"] % pd.Timedelta("1s"), found["max"] % pd.Timedelta("1s"))
        assert row.get("coarse", False) == (not any(fractions))
    again = board.answer({"kind": "causes", "request": 2, "stamp": reading["stamp"]})
    assert again["same"] is True
    assert "failures" not in again


def test_the_static_board_shows_templates_of_messages(shop_sqlite: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(shop_sqlite, tmp_path / "shop.sqlite"))
    with dn.connect(path) as db:
        ids = db.workflows(status="SUCCESS", limit=3)["workflow_id"].tolist()
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, workflow_id in enumerate(ids):
            stored = base64.b64encode(pickle.dumps(RuntimeError(f"lost {number} <b>"))).decode()
            connection.execute(
                "UPDATE workflow_status SET error = ?, name = 'pay', status = 'ERROR', "
                "output = NULL, serialization = 'py_pickle' WHERE workflow_uuid = ?",
                [stored, workflow_id],
            )
    with dn.connect(path) as db:
        board = db.board(window="30d")
        rows = board.answer({"kind": "causes", "request": 1})["failures"]
        (row,) = [row for row in rows if row["name"] == "pay"]
        assert (row["message"], row["count"]) == ("lost <int> <b>", 3)
        page = board.static_html()
    assert 'data-status="ERROR">RuntimeError: lost &lt;int&gt; &lt;b&gt;' in page
    assert '.dn-static [data-status="ERROR"]{color:#' in page
    assert ".dn-static [data-status]" not in page


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
def test_every_version_has_a_board(corpus_sqlite: Callable[[str], Path], version: str) -> None:
    with dn.connect(corpus_sqlite(version)) as db:
        board = db.board(window="30d")
        reading = ask(board)
        assert sum(reading["active"].values()) > 0
        assert "running kernel" in board.static_html()


def test_an_unchanged_board_sends_one_word(shop_sqlite: Path) -> None:
    with dn.connect(shop_sqlite) as db:
        board = db.board(window="30d")
        first = ask(board)
        again = ask(board, stamp=first["stamp"])
    assert again["same"] is True
    assert "queues" not in again


def test_another_window_is_refused(db: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match="'2h' is not supported"):
        db.board(window="2h")
    board = db.board()
    for window in WINDOWS:
        board.window = window
        assert board_facts(board.read())["width"] * board_facts(board.read())["bars"] == int(
            WINDOWS[window][0].total_seconds() * 1000
        )


def test_errors_are_sent_to_the_browser(tmp_path: Path, shop_sqlite: Path) -> None:
    path = tmp_path / "gone.sqlite"
    shutil.copyfile(shop_sqlite, path)
    with dn.connect(path) as db:
        board = db.board()
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE workflow_status")
        connection.commit()
        connection.close()
        reading = ask(board)
    assert reading["kind"] == "error"
    assert board.last_error is not None
    assert "workflow_status" in reading["text"]


def test_hostile_names_are_escaped(tmp_path: Path, old_sqlite: Path) -> None:
    path = tmp_path / "hostile.sqlite"
    shutil.copyfile(old_sqlite, path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE workflow_status SET name = '<img src=x onerror=alert(1)>'")
    connection.commit()
    connection.close()
    with dn.connect(path) as db:
        html = db.board(window="30d").static_html()
    assert "<img" not in html


def test_the_board_refreshes_in_jupyterlab(
    notebook: Callable[..., Opened], shop_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "live.sqlite"
    shutil.copyfile(shop_sqlite, path)
    connection = sqlite3.connect(path)
    hostile = "<img src=x onerror='window.ran = true'>"
    connection.execute("UPDATE workflow_status SET name = ? WHERE status = 'ERROR'", [hostile])
    connection.commit()
    opened = notebook(
        f"import dbos_notebook as dn\ndb = dn.connect({str(path)!r})",
        "board = db.board(window='1h', live=True)\nboard",
    )
    page = opened.page
    failures = page.locator(".dn-board section[aria-label=Failures]")
    failures.get_by_text(hostile).first.wait_for()
    assert page.evaluate("window.ran") is None
    queued = page.locator(".dn-tile", has_text="ENQUEUED").locator("b")
    before = int(queued.inner_text())
    assert before > 0
    connection.execute("UPDATE workflow_status SET status = 'CANCELLED' WHERE status = 'ENQUEUED'")
    connection.commit()
    connection.close()
    # Live: updated without a click.
    page.locator(".dn-tile", has_text="ENQUEUED").locator(
        "b", has_text=re.compile("^0$")
    ).wait_for()
    page.get_by_role("button", name="7d").click()
    page.get_by_text("per 3 h").wait_for()
    saved = opened.save()
    assert hostile not in str(saved["metadata"].get("widgets"))
    assert opened.errors == []
    assert opened.beyond_the_server() == []
