"""Ctrl-C, locks and threads between a call and its receipt."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from raw_rows import write
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control.operations import Cancel


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def write_locked(db: dn.Client) -> Iterator[None]:
    """Hold the write lock of a SQLite file until the block ends."""
    with closing(sqlite3.connect(str(db.location.path), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def read_locked(db: dn.Client) -> Iterator[None]:
    """Hold a read lock of a SQLite file until the block ends, so that nobody can commit."""
    with closing(sqlite3.connect(str(db.location.path), isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM workflow_status").fetchone()
        yield


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def run_before(plan: dn.Plan, method: str, act: Callable[[], object]) -> None:
    """Call a function once before the next call of a method of a plan's operation."""
    own = getattr(plan.operation, method)

    def first(*arguments: object) -> object:
        object.__setattr__(plan.operation, method, own)
        act()
        return own(*arguments)

    object.__setattr__(plan.operation, method, first)


def test_pressing_ctrl_c_twice_while_the_receipt_is_read(db: dn.Client) -> None:
    plan = db.fork(["checkout-1", "checkout-2"], "first", plan=True)
    run_before(plan, "reread", lambda: (press_ctrl_c(), press_ctrl_c()))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert caught.value.receipt.counts["done"] == 2
    assert db.last_receipt() is caught.value.receipt
    assert plan.apply().counts["unchanged"] == 2


def test_waiting_stops_though_a_callback_of_a_weak_reference_got_the_ctrl_c(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python discards what such a callback raises, and SQLAlchemy has many of them."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    reads = []
    read = type(db._controller).read

    class Referent:
        pass

    def read_interrupted(controller: object, ids: object) -> object:
        reads.append(ids)
        assert len(reads) < 5, "Ctrl-C was lost"
        referent = Referent()
        reference = weakref.ref(referent, lambda _: signal.raise_signal(signal.SIGINT))
        del referent
        assert reference() is None
        return read(controller, ids)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(type(db._controller), "read", read_interrupted)
    with pytest.raises(dn.ControlInterrupt, match="the workflows continue"):
        db.wait(["queued-1", "checkout-1"])
    assert len(reads) == 1


def test_ctrl_c_before_the_first_call_prevents_all_calls(db: dn.Client) -> None:
    plan = db.cancel(["queued-1", "queued-2"], plan=True)
    run_before(plan, "read", press_ctrl_c)
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert set(caught.value.receipt.to_frame()["detail"]) == {"not started: interrupted"}
    assert set(db.workflows(["queued-1", "queued-2"])["status"]) == {"ENQUEUED"}


def test_ctrl_c_while_the_receipt_is_logged_loses_no_log_line(db: dn.Client) -> None:
    lines: list[str] = []

    class InterruptingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if len(lines) == 1:
                press_ctrl_c()

    logger = logging.getLogger("dbos_notebook.control")
    handler, level = InterruptingHandler(), logger.level
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


def test_a_third_ctrl_c_ends_the_call_without_a_receipt(db: dn.Client) -> None:
    plan = db.cancel("queued-1", plan=True)
    run_before(plan, "reread", lambda: [press_ctrl_c() for _ in range(3)])
    with pytest.raises(KeyboardInterrupt):
        plan.apply()


def test_children_cancelled_with_their_parent_are_in_the_receipt(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, "UPDATE {}workflow_status SET status = 'ENQUEUED' WHERE name <> 'x'")
    monkeypatch.setattr(Cancel, "batch_size", 1)
    plan = db.cancel("checkout-1", cancel_children=True, plan=True)
    # In the thread of the first call, so that no second call starts.
    run_before(plan, "call", lambda: (press_ctrl_c(), time.sleep(0.1)))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    for line in caught.value.receipt.lines:
        assert (line.outcome, line.status_after) == ("done", "CANCELLED")
    assert len(caught.value.receipt) == 3


def test_a_plan_applied_by_four_threads_is_executed_once(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    threads = [threading.Thread(target=plan.apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


def test_a_trigger_whose_response_was_lost_is_reported_and_not_repeated(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    call = plan.operation.call

    def call_then_fail(client: Any, items: Any) -> None:
        call(client, items)
        raise dn.DatabaseConnectionError("the line was cut")

    object.__setattr__(plan.operation, "call", call_then_fail)
    with pytest.raises(dn.PartialFailureError) as caught:
        plan.apply()
    (line,) = caught.value.receipt.lines
    # Its transaction was committed, so the new workflow is known.
    assert (line.outcome, "did not return: the line was cut" in line.detail) == ("done", True)
    (line,) = plan.apply().lines
    assert (line.outcome, line.detail) == (
        "unchanged",
        "already done by this plan, or possibly done",
    )
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


@pytest.mark.parametrize("operation", ["cancel", "resume", "delete", "rewind"])
def test_a_file_that_stays_locked_stops_the_call(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr("dbos_notebook.control.transactions.BUSY_TIMEOUT_SECONDS", 0.2)
    workflow_id = {"rewind": "checkout-1", "delete": "checkout-1"}.get(operation, "queued-1")
    plan = getattr(db, operation)(workflow_id, plan=True)
    with write_locked(db), pytest.raises(dn.PartialFailureError, match="stayed locked") as caught:
        plan.apply(confirm=True)
    assert caught.value.receipt.counts["failed"] == 1
    assert plan.apply(confirm=True).counts["done"] == 1


@pytest.mark.parametrize("lock", [write_locked, read_locked])
def test_ctrl_c_on_a_locked_file_stops_the_call_and_nothing_is_written_later(
    db: dn.Client, lock: Callable[[dn.Client], AbstractContextManager[None]]
) -> None:
    db.cancel("queued-1")  # imports dbos
    plan = db.cancel("queued-2", plan=True)
    with lock(db):
        threading.Timer(0.3, press_ctrl_c).start()
        started = time.monotonic()
        with pytest.raises(dn.ControlInterrupt) as caught:
            plan.apply()
        assert time.monotonic() - started < 0.3 + 1.0 + 0.5  # 0.5 s for a busy machine
        (line,) = caught.value.receipt.lines
        assert (line.outcome, line.detail) == ("failed", "not done: interrupted")
    time.sleep(0.2)
    assert set(db.workflows("queued-2")["status"]) == {"ENQUEUED"}
    assert plan.apply().counts["done"] == 1


@pytest.mark.parametrize("lock", [write_locked, read_locked])
def test_a_closed_client_writes_nothing_later(
    db: dn.Client, lock: Callable[[dn.Client], AbstractContextManager[None]]
) -> None:
    path = str(db.location.path)
    db.cancel("queued-1")
    plan = db.cancel("queued-2", plan=True)
    with lock(db):
        threading.Timer(0.3, db.close).start()
        with pytest.raises(dn.PartialFailureError, match="closed"):
            plan.apply()
    time.sleep(0.2)
    with dn.connect(path) as reopened:
        assert set(reopened.workflows("queued-2")["status"]) == {"ENQUEUED"}


def test_the_statement_timeout_limits_the_wait_for_a_locked_file(db: dn.Client) -> None:
    with dn.connect(str(db.location.path), statement_timeout=0.3) as impatient:
        plan = impatient.cancel("queued-2", plan=True)
        impatient.cancel("queued-1")
        with write_locked(db):
            started = time.monotonic()
            with pytest.raises(dn.PartialFailureError, match="stayed locked"):
                plan.apply()
            assert 0.3 <= time.monotonic() - started < 1.5


def test_a_slow_statement_on_a_file_is_interrupted(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        # This requires that no other connection is open.
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    db.cancel("queued-2")
