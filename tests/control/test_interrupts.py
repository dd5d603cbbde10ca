"""Ctrl-C, locks and threads in the moments between a call and its receipt."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from raw_rows import write
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control.operations import Cancel


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def locked(db: dn.Client) -> Iterator[None]:
    """Let somebody else write to a SQLite file, until the block ends."""
    with closing(sqlite3.connect(str(db.location.path), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def read(db: dn.Client) -> Iterator[None]:
    """Let somebody else read from a SQLite file, until the block ends: nobody can commit."""
    with closing(sqlite3.connect(str(db.location.path), isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM workflow_status").fetchone()
        yield


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def before(plan: dn.Plan, method: str, act: Callable[[], object]) -> None:
    """Do something once before a method of a plan's operation is called."""
    own = getattr(plan.operation, method)

    def first(*arguments: object) -> object:
        object.__setattr__(plan.operation, method, own)
        act()
        return own(*arguments)

    object.__setattr__(plan.operation, method, first)


def test_pressing_ctrl_c_twice_while_the_receipt_is_read(db: dn.Client) -> None:
    plan = db.fork(["checkout-1", "checkout-2"], "first", plan=True)
    before(plan, "again", lambda: (press(), press()))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert caught.value.receipt.counts["done"] == 2
    assert db.last_receipt() is caught.value.receipt
    assert plan.apply().counts["unchanged"] == 2


def test_ctrl_c_before_the_first_call_changes_nothing(db: dn.Client) -> None:
    plan = db.cancel(["queued-1", "queued-2"], plan=True)
    before(plan, "look", press)
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert set(caught.value.receipt.to_frame()["detail"]) == {"not begun: interrupted"}
    assert set(db.workflows(["queued-1", "queued-2"])["status"]) == {"ENQUEUED"}


def test_ctrl_c_during_logging_loses_no_log_line(db: dn.Client) -> None:
    lines: list[str] = []

    class Presser(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if len(lines) == 1:
                press()

    logger = logging.getLogger("dbos_notebook.control")
    handler, level = Presser(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(dn.ControlInterrupt) as caught:
            db.cancel(["queued-1", "queued-2"])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert caught.value.receipt.counts["done"] == 2
    assert len(lines) == 3


def test_a_third_ctrl_c_raises_at_once(db: dn.Client) -> None:
    plan = db.cancel("queued-1", plan=True)
    before(plan, "again", lambda: [press() for _ in range(3)])
    with pytest.raises(KeyboardInterrupt):
        plan.apply()


def test_children_cancelled_with_their_parent_are_in_the_receipt(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, "UPDATE {}workflow_status SET status = 'ENQUEUED' WHERE name <> 'x'")
    monkeypatch.setattr(Cancel, "batch", 1)
    plan = db.cancel("checkout-1", cancel_children=True, plan=True)
    # In the first call's thread, so that no second begins.
    before(plan, "call", lambda: (press(), time.sleep(0.1)))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    for line in caught.value.receipt.lines:
        assert (line.outcome, line.status_after) == ("done", "CANCELLED")
    assert len(caught.value.receipt) == 3


def test_a_plan_applied_by_four_threads_is_applied_once(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    threads = [threading.Thread(target=plan.apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


def test_a_trigger_whose_answer_was_lost_is_not_repeated(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    call = plan.operation.call

    def call_then_lose(client: object, items: object) -> None:
        call(client, items)  # type: ignore[arg-type]
        raise dn.DatabaseConnectionError("the line was cut")

    object.__setattr__(plan.operation, "call", call_then_lose)
    with pytest.raises(dn.PartialFailureError) as caught:
        plan.apply()
    (line,) = caught.value.receipt.lines
    # Its transaction was committed, so the workflow that it started is known.
    assert (line.outcome, "though: the line was cut" in line.detail) == ("done", True)
    (line,) = plan.apply().lines
    assert (line.outcome, line.detail) == ("unchanged", "this plan has done it, or may have")
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


@pytest.mark.parametrize("operation", ["cancel", "resume", "delete", "rewind"])
def test_a_locked_sqlite_file_ends_the_call(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr("dbos_notebook.control.transactions.BUSY_TIMEOUT_SECONDS", 0.2)
    one = {"rewind": "checkout-1", "delete": "checkout-1"}.get(operation, "queued-1")
    plan = getattr(db, operation)(one, plan=True)
    with locked(db), pytest.raises(dn.PartialFailureError, match="stayed locked") as caught:
        plan.apply(confirm=True)
    assert caught.value.receipt.counts["failed"] == 1
    assert plan.apply(confirm=True).counts["done"] == 1


@pytest.mark.parametrize("other", [locked, read])
def test_ctrl_c_on_a_locked_sqlite_file_ends_the_call_and_writes_nothing_later(
    db: dn.Client, other: Callable[[dn.Client], AbstractContextManager[None]]
) -> None:
    db.cancel("queued-1")  # so that dbos is loaded
    plan = db.cancel("queued-2", plan=True)
    with other(db):
        threading.Timer(0.3, press).start()
        begun = time.monotonic()
        with pytest.raises(dn.ControlInterrupt) as caught:
            plan.apply()
        assert time.monotonic() - begun < 0.3 + 2.5  # it would wait for 3 s
        (line,) = caught.value.receipt.lines
        assert (line.outcome, line.detail) == ("failed", "not done: interrupted")
    time.sleep(0.2)
    assert set(db.workflows("queued-2")["status"]) == {"ENQUEUED"}
    assert plan.apply().counts["done"] == 1


@pytest.mark.parametrize("other", [locked, read])
def test_a_closed_client_writes_nothing_later(
    db: dn.Client, other: Callable[[dn.Client], AbstractContextManager[None]]
) -> None:
    path = str(db.location.path)
    db.cancel("queued-1")
    plan = db.cancel("queued-2", plan=True)
    with other(db):
        threading.Timer(0.3, db.close).start()
        with pytest.raises(dn.PartialFailureError, match="closed"):
            plan.apply()
    time.sleep(0.2)
    with dn.connect(path) as again:
        assert set(again.workflows("queued-2")["status"]) == {"ENQUEUED"}


def test_the_statement_timeout_limits_the_wait_for_a_locked_file(db: dn.Client) -> None:
    with dn.connect(str(db.location.path), statement_timeout=0.3) as hasty:
        plan = hasty.cancel("queued-2", plan=True)
        hasty.cancel("queued-1")
        with locked(db):
            begun = time.monotonic()
            with pytest.raises(dn.PartialFailureError, match="stayed locked"):
                plan.apply()
            assert 0.3 <= time.monotonic() - begun < 2.5  # it would wait for 3 s


def test_a_slow_sqlite_statement_times_out(db: dn.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbos_notebook.control.transactions.time_limit", lambda _: 0.2)
    write(
        db,
        "CREATE TRIGGER slow BEFORE UPDATE ON workflow_status BEGIN SELECT count(*) FROM ("
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000)"
        " SELECT i FROM n); END",
    )
    with pytest.raises(dn.PartialFailureError, match="statement_timeout") as caught:
        db.cancel("queued-1")
    assert caught.value.receipt.counts["failed"] == 1
    assert set(db.workflows("queued-1")["status"]) == {"ENQUEUED"}


def test_no_connection_to_a_file_is_open_after_a_call(db: dn.Client) -> None:
    path = db.location.path
    assert path is not None
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    db.cancel("queued-1")
    assert list(path.parent.glob(path.name + "-*")) == []
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        # Only who has the file alone can do that.
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    db.cancel("queued-2")
