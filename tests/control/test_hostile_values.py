"""Hostile strings and values control neither the page, nor the log, nor control itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_rows import add_workflow, write

import dbos_notebook as dn

EVIL = "x\nINFO root: delete of all \x1b[2J\u202edone"


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client


def test_a_log_line_stays_one_line(db: dn.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dbos_notebook.control")
    add_workflow(db, EVIL, status=EVIL)
    db.cancel(EVIL)
    db.fork(EVIL, "first", queue_name=EVIL, application_version=EVIL, key=EVIL)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 4
    for message in logged:
        assert not set("\n\x1b\u202e") & set(message)


def test_bidirectional_controls_are_escaped_in_html(db: dn.Client) -> None:
    add_workflow(db, EVIL)
    plan = db.fork(EVIL, "first", queue_name=EVIL, plan=True)
    for shown in (plan._repr_html_(), repr(plan), plan.apply()._repr_html_()):
        assert "\u202e" not in shown
        assert "\x1b" not in shown
        assert "\\u202edone" in shown


def test_long_options_are_truncated_in_plans(db: dn.Client) -> None:
    add_workflow(db, "one")
    many = {f"child-{number}": "one" for number in range(10_000)}
    plan = db.fork("one", "first", replacement_children=many, plan=True)
    assert len(plan._repr_html_()) < 10_000
    assert len(repr(plan)) < 2_000
    attributes = db.set_attributes("one", {"a": "x" * 1_000_000}, plan=True)
    assert len(attributes.items[0].effect) < 2_000


def test_ten_thousand_workflows_are_planned_and_shown_quickly(db: dn.Client) -> None:
    write(
        db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, created_at, updated_at) "
        "SELECT 'm' || i, 'ERROR', 'w', 1, 1 FROM n",
    )
    began = time.process_time()
    plan = db.fork([f"m{number}" for number in range(1, 10_001)], "first", plan=True)
    assert plan.counts["ready"] == 10_000
    assert len(plan._repr_html_()) < 100_000
    assert "… and 9,950 more" in repr(plan)
    assert time.process_time() - began < 10


def test_values_of_wrong_types_do_not_break_a_plan(db: dn.Client) -> None:
    write(db, "UPDATE {}queues SET rate_limit_max = 5, rate_limit_period_sec = 'often'")
    write(db, "UPDATE {}workflow_status SET started_at_epoch_ms = 'late' WHERE status = 'SUCCESS'")
    write(db, "UPDATE {}workflow_status SET completed_at = ?", 2**63 - 1)
    (queue,) = write(db, "SELECT name FROM {}queues LIMIT 1")
    plan = db.fork("checkout-1", "first", queue_name=queue[0], plan=True)
    assert plan.counts["ready"] == 1
    assert "starts 5 per often s" in str(plan.items[0].will_run)
    write(db, "UPDATE {}queues SET rate_limit_period_sec = NULL")
    assert plan.apply().counts["done"] == 1
