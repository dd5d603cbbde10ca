"""Each operation and DBOS's own client leave every row of every table the same."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbos import DBOSClient, SetWorkflowID, WorkflowSerializationFormat

import dbos_notebook as dn


class Twin:
    """One of two databases that were alike, and a look at all of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.dbos = DBOSClient(system_database_url=url)
        self.dbos.enqueue(
            {
                "workflow_name": "pack",
                "queue_name": "slow",
                "workflow_id": "delayed-1",
                "delay_seconds": 3600,
            }
        )
        self.dbos.create_schedule(
            schedule_name="daily", workflow_name="tidy", schedule="0 0 * * *", context={"a": [1]}
        )

    def rows(self) -> dict[str, list[str]]:
        """Return all rows, but for moments of now, and IDs that are drawn by lot."""
        if self.url.startswith("sqlite"):
            connection: Any = sqlite3.connect(self.url.removeprefix("sqlite:///"))
            prefix, listing = "", "SELECT name FROM sqlite_master WHERE type = 'table'"
        else:
            connection = psycopg.connect(self.url)
            prefix = "dbos."
            listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'dbos'"
        names = sorted(row[0] for row in connection.execute(listing).fetchall())
        found = {}
        for name in names:
            if not name.startswith("sqlite_"):
                cursor = connection.execute(f'SELECT * FROM {prefix}"{name}"')
                columns = [column[0] for column in cursor.description]
                found[name] = sorted(
                    repr([self._masked(*pair) for pair in zip(columns, row, strict=True)])
                    for row in cursor.fetchall()
                )
        connection.close()
        return found

    def _masked(self, column: str, value: Any) -> Any:
        if isinstance(value, int) and abs(value / 1000 - time.time()) < 7200:
            return "soon or just now"
        drawn = ("owner_xid", "creator_xid", "schedule_id", "version_id")
        return "an ID" if value is not None and column in drawn else value


@pytest.fixture(params=["sqlite", "postgres"])
def twins(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Iterator[tuple[Twin, Twin]]:
    def make() -> Twin:
        if request.param == "sqlite":
            return Twin(f"sqlite:///{corpus_sqlite('3.4.0')}")
        return Twin(corpus_postgres("3.4.0"))

    pair = make(), make()
    yield pair
    for twin in pair:
        twin.dbos.destroy()


def dbos_fork(dbos: DBOSClient, workflow_id: str, step: int, new: str, **options: Any) -> None:
    with SetWorkflowID(new):
        dbos.fork_workflow(workflow_id, step, **options)


CASES: dict[str, tuple[Callable[[dn.Client], Any], Callable[[DBOSClient, Any], Any]]] = {
    "cancel": (
        lambda db: db.cancel(["queued-1", "holder", "checkout-1", "delayed-1"]),
        lambda dbos, _: dbos.cancel_workflows(["queued-1", "holder", "checkout-1", "delayed-1"]),
    ),
    "cancel with children": (
        lambda db: db.cancel("attributed", cancel_children=True),
        lambda dbos, _: dbos.cancel_workflow("attributed", cancel_children=True),
    ),
    "resume": (
        lambda db: db.resume(["cancelled-1", "queued-2", "checkout-1", "delayed-1"]),
        lambda dbos, _: dbos.resume_workflows(
            ["cancelled-1", "queued-2", "checkout-1", "delayed-1"]
        ),
    ),
    "resume on a queue, by force": (
        lambda db: db.resume("holder", queue_name="slow", force=True),
        lambda dbos, _: dbos.resume_workflow("holder", queue_name="slow"),
    ),
    "fork": (
        lambda db: db.fork("checkout-1", "charge", application_version="v9"),
        lambda dbos, new: dbos_fork(dbos, "checkout-1", 3, new, application_version="v9"),
    ),
    "fork from step 0": (
        lambda db: db.fork("checkout-1", 0),
        lambda dbos, new: dbos_fork(dbos, "checkout-1", 0, new),
    ),
    "fork with everything": (
        lambda db: db.fork(
            "parent-6-bad",
            2,
            queue_name="slow",
            queue_partition_key="p",
            timeout=60,
            replacement_children={"parent-6-bad-1": "checkout-1"},
            key="all",
        ),
        lambda dbos, new: dbos_fork(
            dbos,
            "parent-6-bad",
            2,
            new,
            queue_name="slow",
            queue_partition_key="p",
            timeout_seconds=60,
            replacement_children={"parent-6-bad-1": "checkout-1"},
        ),
    ),
    "fork with streams": (
        lambda db: db.fork("waits", 5),
        lambda dbos, new: dbos_fork(dbos, "waits", 5, new),
    ),
    "fork of an attributed one": (
        lambda db: db.fork("attributed", "last"),
        lambda dbos, new: dbos_fork(dbos, "attributed", 6, new),
    ),
    "rewind": (
        lambda db: db.rewind("waits", 4, application_version="v9", queue_name="slow"),
        lambda dbos, _: dbos.rewind_workflow(
            "waits", start_step=4, application_version="v9", queue_name="slow"
        ),
    ),
    "rewind to the first": (
        lambda db: db.rewind("checkout-5-bad"),
        lambda dbos, _: dbos.rewind_workflow("checkout-5-bad"),
    ),
    "delete": (
        lambda db: db.delete(["checkout-1", "waits"], confirm=True),
        lambda dbos, _: dbos.delete_workflows(["checkout-1", "waits"]),
    ),
    "delete with children": (
        lambda db: db.delete("checkout-1", delete_children=True, confirm=True),
        lambda dbos, _: dbos.delete_workflow("checkout-1", delete_children=True),
    ),
    "send a message": (
        lambda db: db.send("queued-1", {"a": [1, None]}, "topic", idempotency_key="key"),
        lambda dbos, _: dbos.send(
            "queued-1",
            {"a": [1, None]},
            "topic",
            "key",
            serialization_type=WorkflowSerializationFormat.PORTABLE,
        ),
    ),
    "set a delay": (
        lambda db: db.set_delay("delayed-1", until="2035-01-01T00:00:00Z"),
        lambda dbos, _: dbos.set_workflow_delay("delayed-1", delay_until_epoch_ms=2051222400000),
    ),
    "replace attributes": (
        lambda db: db.set_attributes("attributed", {"a": [1, None]}),
        lambda dbos, _: dbos.update_workflow_attributes("attributed", {"a": [1, None]}),
    ),
    "merge attributes": (
        lambda db: db.set_attributes("attributed", {"tier": {"x": 1}}, merge=True),
        lambda dbos, _: dbos.update_workflow_attributes(
            "attributed", {"tier": {"x": 1}}, merge=True
        ),
    ),
    "clear attributes": (
        lambda db: db.set_attributes("attributed", None),
        lambda dbos, _: dbos.update_workflow_attributes("attributed", None),
    ),
    "pause a schedule": (
        lambda db: db.pause_schedule("daily"),
        lambda dbos, _: dbos.pause_schedule("daily"),
    ),
    "backfill a schedule": (
        lambda db: db.backfill_schedule("daily", "2023-12-30T12:00:00Z", "2024-01-02T00:00:00Z"),
        lambda dbos, _: dbos.backfill_schedule(
            "daily",
            dt.datetime.fromisoformat("2023-12-30T12:00:00+00:00"),
            dt.datetime.fromisoformat("2024-01-02T00:00:00+00:00"),
        ),
    ),
    "delete a schedule": (
        lambda db: db.delete_schedule("daily", confirm=True),
        lambda dbos, _: dbos.delete_schedule("daily"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_operation_writes_the_rows_that_dbos_writes(
    twins: tuple[Twin, Twin], name: str
) -> None:
    mine, theirs = twins
    ours, dbos = CASES[name]
    before = mine.rows()
    assert before == theirs.rows()
    with dn.connect(mine.url) as db:
        receipt = ours(db)
    assert receipt.counts["failed"] + receipt.counts["not_found"] == 0
    dbos(theirs.dbos, receipt.lines[0].new_workflow_id)
    after = mine.rows()
    assert after == theirs.rows()
    if receipt.counts["done"]:
        assert after != before


def test_a_triggered_schedule_enqueues_the_same_workflow_as_dbos(twins: tuple[Twin, Twin]) -> None:
    mine, theirs = twins
    with dn.connect(mine.url) as db:
        new = db.trigger_schedule("daily").lines[0].new_workflow_id
    other = theirs.dbos.trigger_schedule("daily").get_workflow_id()
    rows = []
    for twin, one in ((mine, new), (theirs, other)):
        found = twin.dbos.list_workflows(workflow_ids=[str(one)])[0]
        (when, context) = found.input["args"]
        assert str(one).endswith(when.isoformat())
        rows.append((found.name, found.queue_name, found.app_version, context, found.schedule_name))
    assert rows[0] == rows[1]
