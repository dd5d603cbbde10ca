"""Applying a plan skips refused workflows and those that have changed since the plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from raw_rows import set_status, write

import dbos_notebook as dn


def test_a_child_whose_deletion_is_refused_is_not_deleted_with_its_parent(
    idle_db: dn.Client,
) -> None:
    set_status(idle_db, "checkout-1-4", "PENDING")
    receipt = idle_db.delete("checkout-1", delete_children=True, plan=True).apply(confirm=True)
    outcomes = {line.workflow_id: line.outcome for line in receipt.lines}
    assert outcomes == {"checkout-1": "done", "checkout-1-4": "unchanged", "checkout-1-4-1": "done"}
    left = idle_db.workflows(list(outcomes))
    assert left[["workflow_id", "status"]].values.tolist() == [["checkout-1-4", "PENDING"]]


def test_a_child_started_since_the_plan_is_not_deleted_with_its_parent(
    idle_db: dn.Client,
) -> None:
    plan = idle_db.delete("checkout-1", delete_children=True, plan=True)
    set_status(idle_db, "checkout-1-4-1", "PENDING")
    write(
        idle_db,
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, parent_workflow_id, "
        "created_at, updated_at) VALUES (?, 'PENDING', 'pack', 'checkout-1-4', 1, 1)",
        "unplanned",
    )
    receipt = plan.apply(confirm=True)
    assert receipt.counts == {"done": 2, "unchanged": 1, "not_found": 0, "failed": 0, "unknown": 0}
    left = idle_db.workflows(["checkout-1", "checkout-1-4", "checkout-1-4-1", "unplanned"])
    assert set(left["workflow_id"]) == {"checkout-1-4-1", "unplanned"}


@pytest.mark.parametrize(
    "make",
    [
        lambda db: db.delete("cancelled-1", force=True, plan=True),
        lambda db: db.resume("cancelled-1", force=True, plan=True),
        lambda db: db.fork("cancelled-1", "first", force=True, plan=True),
    ],
)
@pytest.mark.parametrize("status", ["ENQUEUED", "PENDING"])
def test_a_workflow_started_since_the_plan_is_skipped(
    idle_db: dn.Client, make: Callable[[dn.Client], dn.Plan], status: str
) -> None:
    plan = make(idle_db)
    set_status(idle_db, "cancelled-1", status)
    (line,) = plan.apply(confirm=True).lines
    assert line.outcome == "unchanged"
    assert f"it is {status} now (when it was planned: CANCELLED)" in line.detail
    assert idle_db.workflows("cancelled-1")["status"].tolist() == [status]
    assert idle_db.workflows(forked_from="cancelled-1").empty


@pytest.mark.parametrize(
    "make",
    [
        lambda db: db.rewind("checkout-1", "charge", plan=True),
        lambda db: db.fork("checkout-1", "charge", plan=True),
    ],
)
def test_a_workflow_that_ran_again_since_the_plan_is_skipped(
    idle_db: dn.Client, make: Callable[[dn.Client], dn.Plan]
) -> None:
    plan = make(idle_db)
    ended = "UPDATE {}workflow_status SET completed_at = completed_at + 5 WHERE workflow_uuid = ?"
    write(idle_db, ended, "checkout-1")
    (line,) = plan.apply().lines
    assert (line.outcome, line.status_after) == ("unchanged", "SUCCESS")
    assert "it has run again since the plan" in line.detail
    # What does not concern the run does not concern the plan either.
    plan = make(idle_db)
    assert idle_db.set_attributes("checkout-1", {"incident": 42}).ok
    assert plan.apply().counts["done"] == 1


def test_a_workflow_that_starts_after_the_plan_can_still_be_cancelled(idle_db: dn.Client) -> None:
    plan = idle_db.cancel(["queued-1", "cancelled-1"], plan=True)
    set_status(idle_db, "queued-1", "PENDING")
    set_status(idle_db, "cancelled-1", "ENQUEUED")
    receipt = plan.apply()
    assert [line.outcome for line in receipt.lines] == ["done", "unchanged"]
