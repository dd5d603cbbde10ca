"""Control characters, bidirectional overrides and invisible characters in pages and reprs.

Names, IDs and payloads of a database may hold any of them. A terminal would obey them, and a
browser would hide or reorder what is beside them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dbos_notebook as dn
from dbos_notebook.graphs.comparison import compare
from dbos_notebook.payloads import Opaque, RecordedError, Reference, Undecoded
from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = "x\x1b[31mRED\u202eevil\u2066\u200b\x9b"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u206f]")
ROOT = "checkout-1"


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    """A client of a database whose strings hold unsafe characters."""
    path = corpus_sqlite("3.4.0")
    names = {
        "workflow_status": ("name", "application_version", "queue_name", "executor_id"),
        "operation_outputs": ("function_name",),
        "workflow_schedules": ("schedule_name",),
        "application_versions": ("version_name",),
    }
    ids = {
        "workflow_status": ("workflow_uuid", "parent_workflow_id", "forked_from"),
        "operation_outputs": ("workflow_uuid", "child_workflow_id"),
        "workflow_input": ("workflow_uuid",),
        "workflow_output": ("workflow_uuid",),
    }
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in names.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = {column} || ?", [EVIL])
        for table, columns in ids.items():
            for column in columns:
                change = f"UPDATE {table} SET {column} = {column} || ? WHERE {column} = ?"
                connection.execute(change, [EVIL, ROOT])
        now = "CAST(strftime('%s', 'now') AS INTEGER) * 1000"
        connection.execute(f"UPDATE workflow_status SET completed_at = {now}, updated_at = {now}")
    with dn.connect(path) as client:
        yield client


VIEWS: dict[str, Callable[[dn.Client], View]] = {
    "explore": lambda db: db.explore(),
    "inspect": lambda db: db.inspect(ROOT + EVIL),
    "board": lambda db: db.board(window="7d"),
    "open": lambda db: db.open(),
    "open a run": lambda db: db.open(ROOT + EVIL),
    "controls": lambda db: db.controls([ROOT + EVIL]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_and_their_pages_hold_none(db: dn.Client, tmp_path: Path, name: str) -> None:
    view = VIEWS[name](db)
    page = view.save_html(tmp_path / "page.html").read_text(encoding="utf-8")
    outputs, _ = view._repr_mimebundle_()
    shown = {"page": page, "repr": repr(view), "output": outputs["text/html"]}
    assert {part: UNSAFE.findall(text) for part, text in shown.items()} == {
        part: [] for part in shown
    }
    assert "RED\\u202eevil" in page
    if name in ("inspect", "open a run"):
        assert "RED\\u202eevil" in repr(view)


def test_a_view_shows_them_escaped_and_keeps_the_value(
    db: dn.Client, open_view: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_view(db.explore(name="checkout" + EVIL))
    page.wait_for_function("document.body.innerText.includes('RED')")
    shown = page.evaluate("document.body.innerText")
    assert not UNSAFE.findall(shown)
    assert "RED\\u202eevil" in shown
    saved = db.inspect(ROOT + EVIL).save_html(tmp_path / "run.html")
    page.goto(saved.as_uri())
    page.wait_for_function("document.body.innerText.includes('RED')")
    assert not UNSAFE.findall(page.evaluate("document.body.innerText + document.title"))
    recorded = page.evaluate("JSON.parse(document.getElementById('recorded').textContent)")
    assert recorded["workflow_id"] == ROOT + EVIL


def test_reprs_of_results_hold_none(db: dn.Client) -> None:
    flow = db.workflow(ROOT + EVIL)
    plan = db.fork(ROOT + EVIL, 1, plan=True)
    graph = db.graph(ROOT + EVIL)
    values: list[object] = [
        db,
        db.catalog,
        db.diagnose(),
        flow,
        plan,
        plan.apply(),
        compare(graph, graph),
        dn.draw(graph),
        Opaque(f"shop.{EVIL}", state={EVIL: EVIL}),
        Reference(f"shop.{EVIL}"),
        Undecoded(EVIL, EVIL),
        RecordedError(f"shop.{EVIL}", (EVIL,)),
    ]
    found = {type(value).__name__: UNSAFE.findall(repr(value)) for value in values}
    assert found == {type(value).__name__: [] for value in values}
