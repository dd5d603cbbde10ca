"""After a failure or Ctrl-C during a call the receipt matches the database, row by row."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import PostgresServer

import dbos_notebook as dn

COUNT = 150
_COPY = """INSERT INTO {0}workflow_status (workflow_uuid, status, name, created_at, updated_at,
        application_version, serialization)
    SELECT 'many-' || i, {1}, 'checkout', 1, 1, 'v1', 'py_pickle' FROM {2}"""


def fill(db: dn.Client, status: str) -> list[str]:
    """Add many workflows with a status and return their IDs."""
    state = f"'{status}'"
    if db.location.path:
        numbers = (
            "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
            "SELECT i FROM n)"
        )
        with sqlite3.connect(db.location.path) as connection:
            connection.execute(_COPY.format("", state, numbers.format(COUNT)))
        connection.close()
    else:
        with psycopg.connect(db.location.url()) as server:
            source = f"generate_series(1, {COUNT}) AS g(i)"
            server.execute(_COPY.format("dbos.", state, source).encode())
    return [f"many-{number}" for number in range(1, COUNT + 1)]


def forks(db: dn.Client, ids: list[str]) -> dict[str, str]:
    found = db.workflows(forked_from=ids, limit=None, load_errors=False)
    return dict(zip(found["forked_from"], found["workflow_id"], strict=True))


def assert_matches_forks(db: dn.Client, receipt: dn.Receipt, ids: list[str]) -> None:
    """Compare every line of a fork's receipt with the database."""
    new_ids = forks(db, ids)
    assert [line.workflow_id for line in receipt.lines] == ids
    for line in receipt.lines:
        assert (line.outcome == "done") == (line.workflow_id in new_ids), line
        if line.outcome == "done":
            assert line.new_workflow_id == new_ids[line.workflow_id]
        else:
            assert line.outcome in ("unchanged", "failed"), line
    assert receipt.counts["done"] == len(new_ids)


@contextmanager
def counting_forks(db: dn.Client) -> Iterator[Callable[[], int]]:
    """Count the forks of a database, often and with little work for this process."""
    if db.location.path:
        connection: Any = sqlite3.connect(db.location.path, check_same_thread=False)
        table = "workflow_status"
    else:
        connection = psycopg.connect(db.location.url(), autocommit=True)
        table = "dbos.workflow_status"
    count = f"SELECT count(*) FROM {table} WHERE forked_from LIKE 'many-%'"
    with closing(connection):
        yield lambda: int(connection.execute(count).fetchone()[0])


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Send this process Ctrl-C as soon as a condition is true."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not condition():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupted_bulk_fork_reports_what_was_done_and_can_be_continued(
    idle_db: dn.Client,
) -> None:
    ids = fill(idle_db, "ERROR")
    with counting_forks(idle_db) as count:
        thread = interrupt_when(lambda: count() > 20)
        with pytest.raises(dn.ControlInterrupt, match="interrupted") as caught:
            idle_db.fork(ids, "first", key="go on", confirm=True)
        thread.join()
    receipt = caught.value.receipt
    assert 20 < receipt.counts["done"] < COUNT
    assert_matches_forks(idle_db, receipt, ids)
    assert "not started: interrupted" in set(receipt.to_frame()["detail"])
    assert idle_db.last_receipt() is receipt
    # The same call continues where it stopped, and forks nothing twice.
    rest = idle_db.fork(ids, "first", key="go on", confirm=True)
    assert rest.counts["unchanged"] == receipt.counts["done"]
    assert rest.counts["done"] == COUNT - receipt.counts["done"]
    assert len(idle_db.workflows(forked_from=ids, limit=None)) == COUNT


@pytest.fixture
def switchable(
    corpus_postgres: Callable[[str], str], postgres_server: PostgresServer
) -> Iterator[tuple[dn.Client, Callable[[bool], None]]]:
    """A client on Postgres, and a function that closes (True) or opens (False) its database."""
    from sqlalchemy.engine import make_url

    url = corpus_postgres("3.4.0")
    name = str(make_url(url).database)

    def switch(off: bool) -> None:
        with postgres_server.admin() as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not off}".encode())
        if off:
            postgres_server.end_connections(name)

    with dn.connect(url) as client:
        yield client, switch
    switch(False)


def test_a_lost_database_makes_only_unprovable_outcomes_unknown(
    switchable: tuple[dn.Client, Callable[[bool], None]],
) -> None:
    db, switch = switchable
    ids = fill(db, "ERROR")
    with counting_forks(db) as count:

        def watch() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and count() <= 20:
                time.sleep(0.005)
            switch(True)

        thread = threading.Thread(target=watch)
        thread.start()
        with pytest.raises(dn.PartialFailureError, match="did not complete") as caught:
            db.fork(ids, "first", key="gone", confirm=True)
        thread.join()
    receipt = caught.value.receipt
    counts = receipt.counts
    assert counts["done"] > 20
    assert counts["unchanged"] > 0
    assert counts["unknown"] <= 2 * db._controller.pool.max_calls
    # Without a COMMIT a call was provably not done.
    assert counts["failed"] + counts["unknown"] > 0
    if counts["unknown"]:
        assert "receipt.check()" in repr(receipt)
    switch(False)
    settled = receipt.check()
    assert settled.counts["unknown"] == 0
    assert_matches_forks(db, settled, ids)
    # The first receipt was correct, too.
    for early, late in zip(receipt.lines, settled.lines, strict=True):
        assert early.outcome in (late.outcome, "unknown")
    rest = db.fork(ids, "first", key="gone", confirm=True)
    assert rest.ok
    assert len(forks(db, ids)) == COUNT


def test_a_database_lost_while_a_repair_waits(
    switchable: tuple[dn.Client, Callable[[bool], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.control.display.RECONNECT_SECONDS", 0.5)
    db, switch = switchable
    # No executor runs v9, so the repair waits for the child's fork.
    with dn.connect(db.location.url()) as other:

        def close_after_the_fork() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not forks(other, ["parent-6-bad-1"]):
                time.sleep(0.02)
            time.sleep(0.5)  # the repair reads the fork and begins to wait
            switch(True)

        thread = threading.Thread(target=close_after_the_fork)
        thread.start()
        with pytest.raises(dn.PartialFailureError, match="did not complete") as caught:
            db.repair("parent-6-bad", application_version="v9", timeout=60)
        thread.join()
    child, parent = caught.value.receipt.lines
    assert (child.outcome, parent.outcome) == ("done", "unchanged")
    assert (
        parent.detail
        == "not started: the repair failed before it; repeat the same call to continue"
    )
    switch(False)
    assert caught.value.receipt.check().counts["done"] == 1
    assert forks(db, ["parent-6-bad-1", "parent-6-bad"]) == {
        "parent-6-bad-1": child.new_workflow_id
    }


def test_the_receipt_of_an_interrupted_bulk_cancel_matches_the_database(idle_db: dn.Client) -> None:
    ids = fill(idle_db, "ENQUEUED")
    plan = idle_db.cancel(ids, plan=True)
    idle_db._controller.pool.submit(lambda: time.sleep(0.2))  # keeps SQLite's only thread busy
    with dn.connect(idle_db.location.path or idle_db.location.url()) as other:

        def started() -> bool:
            return not other.workflows(ids, status="CANCELLED", limit=1).empty

        thread = interrupt_when(started)
        try:
            receipt = plan.apply()
        except dn.ControlInterrupt as error:
            receipt = error.receipt
        except KeyboardInterrupt:
            receipt = idle_db.last_receipt()
        try:
            thread.join()
            time.sleep(0.05)
        except KeyboardInterrupt:
            # The call had finished before the signal arrived.
            thread.join()
    now = idle_db.workflows(ids, limit=None, load_errors=False).set_index("workflow_id")["status"]
    for line in receipt.lines:
        assert line.status_after == now[line.workflow_id]
        assert (line.outcome == "done") == (now[line.workflow_id] == "CANCELLED")
    assert receipt.counts["done"] > 0


def test_ctrl_c_while_waiting_does_not_stop_the_workflows(idle_db: dn.Client) -> None:
    started = time.monotonic()
    thread = interrupt_when(lambda: time.monotonic() > started + 0.5)
    with pytest.raises(dn.ControlInterrupt, match="the workflows continue") as caught:
        idle_db.wait(["queued-1", "checkout-1"])
    thread.join()
    assert caught.value.workflows["status"].tolist() == ["ENQUEUED", "SUCCESS"]
    assert idle_db.workflows("queued-1")["status"].tolist() == ["ENQUEUED"]


def test_a_deleted_workflow_does_not_stop_the_rest_of_its_batch(idle_db: dn.Client) -> None:
    ids = fill(idle_db, "CANCELLED")
    plan = idle_db.resume(ids, plan=True)
    read, deleted_id = plan.operation.read, ids[7]
    pending = []

    def read_then_prepare(*arguments: Any) -> Any:
        # Somebody deletes a workflow after it was read and before the call.
        known = read(*arguments)
        pending.append(deleted_id)
        return known

    object.__setattr__(plan.operation, "read", read_then_prepare)
    call = plan.operation.call

    def delete_then_call(client: Any, items: Any) -> Any:
        if pending:
            pending.clear()
            client.delete_workflow(deleted_id)
        return call(client, items)

    object.__setattr__(plan.operation, "call", delete_then_call)
    receipt = plan.apply()
    assert receipt.counts["done"] == COUNT - 1
    assert [line.workflow_id for line in receipt.lines if line.outcome == "not_found"] == [
        deleted_id
    ]


def test_a_failure_in_a_batch_repeated_item_by_item_is_reported(idle_db: dn.Client) -> None:
    ids = fill(idle_db, "CANCELLED")[:10]
    plan = idle_db.resume(ids, plan=True)
    call, calls = plan.operation.call, []

    def delete_then_fail(client: Any, items: Sequence[Any]) -> Any:
        calls.append(len(items))
        if len(items) > 1:
            client.delete_workflow(ids[3])
        elif len(calls) > 6:
            raise dn.DatabaseConnectionError("the line was cut")
        return call(client, items)

    object.__setattr__(plan.operation, "call", delete_then_fail)
    with pytest.raises(dn.PartialFailureError, match="the line was cut") as caught:
        plan.apply()
    outcomes = caught.value.receipt.to_frame()["outcome"].tolist()
    assert outcomes == ["done"] * 3 + ["not_found"] + ["done"] + ["failed"] * 5
    now = idle_db.workflows(ids).set_index("workflow_id")["status"]
    assert [now.get(one) for one in ids] == (
        ["ENQUEUED"] * 3 + [None] + ["ENQUEUED"] + ["CANCELLED"] * 5
    )


def test_control_uses_the_file_that_replaced_another(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path, another = corpus_sqlite("3.4.0"), corpus_sqlite("3.4.0")
    with dn.connect(path) as db:
        assert db.cancel("queued-1").counts["done"] == 1
        another.replace(path)
        assert db.workflow("queued-1").status == "ENQUEUED"
        assert db.cancel("queued-1").counts["done"] == 1
        assert db.workflow("queued-1").status == "CANCELLED"
        path.unlink()
        with pytest.raises(dn.DatabaseConnectionError, match="no file"):
            db.cancel("queued-2")


def test_a_closed_client_refuses_control(corpus_sqlite: Callable[[str], Path]) -> None:
    db = dn.connect(corpus_sqlite("3.4.0"))
    plan = db.cancel("queued-1", plan=True)
    db.close()
    with pytest.raises(dn.DatabaseConnectionError, match="closed"):
        plan.apply()


def test_no_thread_and_no_connection_is_left_behind(
    corpus_postgres: Callable[[str], str], postgres_server: PostgresServer
) -> None:
    from sqlalchemy.engine import make_url

    url = corpus_postgres("3.4.0")
    with dn.connect(url) as db:
        db.cancel("queued-1")

    def left() -> int:
        with postgres_server.admin() as admin:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s",
                [make_url(url).database],
            ).fetchone()
        assert row is not None
        return int(row[0])

    deadline = time.monotonic() + 5
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left() == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("dbos_control")]
