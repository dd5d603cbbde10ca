"""Ctrl-C, locks and threads in the moments between a call and its receipt."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from by_hand import write
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control.verbs import Cancel


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def before(plan: dn.Plan, method: str, act: Callable[[], object]) -> None:
    """Do something once before a method of a plan's verb is called."""
    own = getattr(plan.verb, method)

    def first(*arguments: object) -> object:
        object.__setattr__(plan.verb, method, own)
        act()
        return own(*arguments)

    object.__setattr__(plan.verb, method, first)


def test_ctrl_c_pressed_twice_while_the_receipt_is_read(db: dn.Client) -> None:
    plan = db.fork(["checkout-1", "checkout-2"], "first", plan=True)
    before(plan, "again", lambda: (press(), press()))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert caught.value.receipt.counts["done"] == 2
    assert db.last_receipt is caught.value.receipt
    assert plan.apply().counts["unchanged"] == 2


def test_ctrl_c_before_the_first_call_begins_none(db: dn.Client) -> None:
    plan = db.cancel(["queued-1", "queued-2"], plan=True)
    before(plan, "look", press)
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    assert set(caught.value.receipt.to_frame()["detail"]) == {"not begun: interrupted"}
    assert set(db.workflows(["queued-1", "queued-2"])["status"]) == {"ENQUEUED"}


def test_ctrl_c_while_it_is_logged_loses_no_line(db: dn.Client) -> None:
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


def test_a_third_press_ends_it_whatever_it_was_about_to_tell(db: dn.Client) -> None:
    plan = db.cancel("queued-1", plan=True)
    before(plan, "again", lambda: [press() for _ in range(3)])
    with pytest.raises(KeyboardInterrupt):
        plan.apply()


def test_children_that_went_along_with_their_parent_are_told_of(
    db: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, "UPDATE {}workflow_status SET status = 'ENQUEUED' WHERE name <> 'x'")
    monkeypatch.setattr(Cancel, "batch", 1)
    plan = db.cancel("checkout-1", cancel_children=True, plan=True)
    # In the first call's thread, so that no second begins.
    before(plan, "call", lambda: (press(), time.sleep(0.5)))
    with pytest.raises(dn.ControlInterrupt) as caught:
        plan.apply()
    for line in caught.value.receipt.lines:
        assert (line.outcome, line.status_after) == ("done", "CANCELLED")
    assert len(caught.value.receipt) == 3


def test_a_plan_applied_by_four_threads_is_carried_out_once(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    threads = [threading.Thread(target=plan.apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


def test_a_trigger_whose_connection_was_lost_is_unknown_and_not_repeated(db: dn.Client) -> None:
    add(db)
    plan = db.trigger_schedule("daily", plan=True)
    call = plan.verb.call

    def call_then_lose(client: object, items: object) -> None:
        call(client, items)  # type: ignore[arg-type]
        raise dn.DatabaseConnectionError("the line was cut")

    object.__setattr__(plan.verb, "call", call_then_lose)
    with pytest.raises(dn.BrokenOffError) as caught:
        plan.apply()
    assert [line.outcome for line in caught.value.receipt.lines] == ["unknown"]
    (line,) = plan.apply().lines
    assert (line.outcome, line.detail) == ("unchanged", "this plan has done it, or may have")
    assert len(db.workflows(workflow_id_prefix="sched-")) == 1


@pytest.mark.parametrize("verb", ["cancel", "resume", "delete", "rewind"])
def test_a_file_that_stays_locked_ends_the_call(db: dn.Client, verb: str) -> None:
    one = {"rewind": "checkout-1", "delete": "checkout-1"}.get(verb, "queued-1")
    plan = getattr(db, verb)(one, plan=True)
    # DBOS waits 30 s for a lock, which a test need not.
    door = db._steer.door
    client = door.submit(door.client).result()
    with client._sys_db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 100")
    blocker = sqlite3.connect(str(db.location.path), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(dn.BrokenOffError, match="stayed locked") as caught:
            plan.apply(confirm=True)
    finally:
        blocker.close()
    assert caught.value.receipt.counts["failed"] == 1
    assert plan.apply(confirm=True).counts["done"] == 1
