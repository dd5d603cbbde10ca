"""What goes wrong half way: afterwards the receipt is exactly true, row by row."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from servers import PostgresServer

import dbos_notebook as dn

COUNT = 150
_COPY = """INSERT INTO {0}workflow_status (workflow_uuid, status, name, created_at, updated_at,
        application_version, serialization)
    SELECT 'many-' || i, {1}, 'checkout', 1, 1, 'v1', 'py_pickle' FROM {2}"""


def fill(db: dn.Client, status: str) -> list[str]:
    """Add many workflows of a status, and return their IDs."""
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


def assert_true_of_forks(db: dn.Client, receipt: dn.Receipt, ids: list[str]) -> None:
    """Hold every line of a fork's receipt against the database."""
    made = forks(db, ids)
    assert [line.workflow_id for line in receipt.lines] == ids
    for line in receipt.lines:
        assert (line.outcome == "done") == (line.workflow_id in made), line
        if line.outcome == "done":
            assert line.new_workflow_id == made[line.workflow_id]
        else:
            assert line.outcome in ("unchanged", "failed"), line
    assert receipt.counts["done"] == len(made)


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Send this process Ctrl-C as soon as something is true."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not condition():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupted_bulk_fork_reports_what_was_done_and_can_continue(
    static_db: dn.Client,
) -> None:
    ids = fill(static_db, "ERROR")
    with dn.connect(static_db.location.path or static_db.location.url()) as other:
        thread = interrupt_when(lambda: len(forks(other, ids)) > 20)
        with pytest.raises(dn.ControlInterrupt, match="interrupted") as caught:
            static_db.fork(ids, "first", key="go on", confirm=True)
        thread.join()
    receipt = caught.value.receipt
    assert 20 < receipt.counts["done"] < COUNT
    assert_true_of_forks(static_db, receipt, ids)
    assert "not begun: interrupted" in set(receipt.to_frame()["detail"])
    assert static_db.last_receipt() is receipt
    # The same call goes on where it was stopped, and makes none twice.
    rest = static_db.fork(ids, "first", key="go on", confirm=True)
    assert rest.counts["unchanged"] == receipt.counts["done"]
    assert rest.counts["done"] == COUNT - receipt.counts["done"]
    assert len(static_db.workflows(forked_from=ids, limit=None)) == COUNT


@pytest.fixture
def shut(
    corpus_postgres: Callable[[str], str], postgres_server: PostgresServer
) -> Iterator[tuple[dn.Client, Callable[[bool], None]]]:
    """A Postgres database, and what shuts it off and opens it again."""
    from sqlalchemy.engine import make_url

    url = corpus_postgres("3.4.0")
    name = str(make_url(url).database)

    def switch(off: bool) -> None:
        with postgres_server.admin() as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not off}".encode())
            if off:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )

    with dn.connect(url) as client:
        yield client, switch
    switch(False)


def test_losing_the_database_during_a_call_gives_unknown_outcomes(
    shut: tuple[dn.Client, Callable[[bool], None]],
) -> None:
    db, switch = shut
    ids = fill(db, "ERROR")
    with dn.connect(db.location.url()) as other:

        def watch() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and len(forks(other, ids)) <= 20:
                time.sleep(0.005)
            switch(True)

        thread = threading.Thread(target=watch)
        thread.start()
        with pytest.raises(dn.PartialFailureError, match="broke off") as caught:
            db.fork(ids, "first", key="gone", confirm=True)
        thread.join()
    receipt = caught.value.receipt
    counts = receipt.counts
    assert counts["done"] > 20
    assert counts["unchanged"] > 0
    assert counts["unknown"] <= 2 * db._controller.pool.width
    # What was not asked to commit was not done, and that is proven.
    assert counts["failed"] + counts["unknown"] > 0
    if counts["unknown"]:
        assert "receipt.check()" in repr(receipt)
    switch(False)
    settled = receipt.check()
    assert settled.counts["unknown"] == 0
    assert_true_of_forks(db, settled, ids)
    # What was said before the database was back was true, too.
    for early, late in zip(receipt.lines, settled.lines, strict=True):
        assert early.outcome in (late.outcome, "unknown")
    rest = db.fork(ids, "first", key="gone", confirm=True)
    assert rest.ok
    assert len(forks(db, ids)) == COUNT


def test_losing_the_database_while_a_repair_waits(
    shut: tuple[dn.Client, Callable[[bool], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbos_notebook.control.display.PATIENCE_SECONDS", 0.5)
    db, switch = shut
    # Nobody runs v9, so the repair waits for the child's fork.
    timer = threading.Timer(1.0, switch, [True])
    timer.start()
    with pytest.raises(dn.PartialFailureError, match="broke off") as caught:
        db.repair("parent-6-bad", application_version="v9", timeout=60)
    timer.join()
    child, parent = caught.value.receipt.lines
    assert (child.outcome, parent.outcome) == ("done", "unchanged")
    assert parent.detail == "not begun: it broke off; the same call again goes on"
    switch(False)
    assert caught.value.receipt.check().counts["done"] == 1
    assert forks(db, ["parent-6-bad-1", "parent-6-bad"]) == {
        "parent-6-bad-1": child.new_workflow_id
    }


def test_an_interrupted_bulk_cancel_has_an_exact_receipt(static_db: dn.Client) -> None:
    ids = fill(static_db, "ENQUEUED")
    plan = static_db.cancel(ids, plan=True)
    static_db._controller.pool.submit(
        lambda: time.sleep(0.2)
    )  # keeps SQLite's one thread busy a little
    with dn.connect(static_db.location.path or static_db.location.url()) as other:

        def begun() -> bool:
            return not other.workflows(ids, status="CANCELLED", limit=1).empty

        thread = interrupt_when(begun)
        try:
            receipt = plan.apply()
        except dn.ControlInterrupt as error:
            receipt = error.receipt
        except KeyboardInterrupt:
            receipt = static_db.last_receipt()
        try:
            thread.join()
            time.sleep(0.05)
        except KeyboardInterrupt:
            # It had finished before the signal came.
            thread.join()
    now = static_db.workflows(ids, limit=None, load_errors=False).set_index("workflow_id")["status"]
    for line in receipt.lines:
        assert line.status_after == now[line.workflow_id]
        assert (line.outcome == "done") == (now[line.workflow_id] == "CANCELLED")
    assert receipt.counts["done"] > 0


def test_ctrl_c_during_wait_stops_only_the_waiting(static_db: dn.Client) -> None:
    begun = time.monotonic()
    thread = interrupt_when(lambda: time.monotonic() > begun + 0.5)
    with pytest.raises(dn.ControlInterrupt, match="the workflows go on") as caught:
        static_db.wait(["queued-1", "checkout-1"])
    thread.join()
    assert caught.value.workflows["status"].tolist() == ["ENQUEUED", "SUCCESS"]
    assert static_db.workflows("queued-1")["status"].tolist() == ["ENQUEUED"]


def test_a_workflow_deleted_meanwhile_does_not_stop_its_batch(static_db: dn.Client) -> None:
    ids = fill(static_db, "CANCELLED")
    plan = static_db.resume(ids, plan=True)
    look, gone = plan.operation.look, ids[7]
    looked = []

    def look_then_lose(*arguments: object) -> object:
        # Between the plan's last look and the call, somebody deletes one.
        known = look(*arguments)  # type: ignore[arg-type]
        looked.append(gone)
        return known

    object.__setattr__(plan.operation, "look", look_then_lose)
    call = plan.operation.call

    def lose_then_call(client: object, items: object) -> object:
        if looked:
            looked.clear()
            client.delete_workflow(gone)  # type: ignore[attr-defined]
        return call(client, items)  # type: ignore[arg-type]

    object.__setattr__(plan.operation, "call", lose_then_call)
    receipt = plan.apply()
    assert receipt.counts["done"] == COUNT - 1
    assert [line.workflow_id for line in receipt.lines if line.outcome == "not_found"] == [gone]


def test_a_fault_in_a_split_batch_is_reported(static_db: dn.Client) -> None:
    ids = fill(static_db, "CANCELLED")[:10]
    plan = static_db.resume(ids, plan=True)
    call, calls = plan.operation.call, []

    def lose_then_fail(client: object, items: Sequence[object]) -> object:
        calls.append(len(items))
        if len(items) > 1:
            client.delete_workflow(ids[3])  # type: ignore[attr-defined]
        elif len(calls) > 6:
            raise dn.DatabaseConnectionError("the line was cut")
        return call(client, items)  # type: ignore[arg-type]

    object.__setattr__(plan.operation, "call", lose_then_fail)
    with pytest.raises(dn.PartialFailureError, match="the line was cut") as caught:
        plan.apply()
    outcomes = caught.value.receipt.to_frame()["outcome"].tolist()
    assert outcomes == ["done"] * 3 + ["not_found"] + ["done"] + ["failed"] * 5
    now = static_db.workflows(ids).set_index("workflow_id")["status"]
    assert [now.get(one) for one in ids] == (
        ["ENQUEUED"] * 3 + [None] + ["ENQUEUED"] + ["CANCELLED"] * 5
    )


def test_control_follows_a_replaced_sqlite_file(
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
