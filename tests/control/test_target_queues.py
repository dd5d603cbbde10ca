"""The queue that work is enqueued on, and the partition keys of partitioned queues."""

from __future__ import annotations

from typing import Any

import pytest
from raw_rows import add_workflow, write
from test_schedules import add

import dbos_notebook as dn
from dbos_notebook.control.queue_selection import KnownQueues, choose
from dbos_notebook.control.records import WorkflowRecord


@pytest.fixture
def queued(idle_db: dn.Client) -> dn.Client:
    """A client on a database with a queue, a partitioned queue, and failures of both."""
    for name, limit in (("plain", None), ("tenants", 1)):
        write(
            idle_db,
            "INSERT INTO {}queues (queue_id, name, partition_concurrency, created_at, updated_at) "
            "VALUES (?, ?, ?, 1, 1)",
            name,
            name,
            limit,
        )
    for name, queue, key, status in (
        ("plain-1", "plain", None, "ERROR"),
        ("tenant-1", "tenants", "t1", "ERROR"),
        ("tenant-2", "tenants", "t2", "ENQUEUED"),
        ("alone", None, None, "ERROR"),
        ("loose", None, None, "CANCELLED"),
        ("lost", None, "t9", "CANCELLED"),
        ("waits", "plain", None, "ENQUEUED"),
    ):
        if name != "waits":
            add_workflow(idle_db, name, ("call", status == "ERROR", None), status=status)
        write(
            idle_db,
            "UPDATE {}workflow_status SET queue_name = ?, queue_partition_key = ?, status = ? "
            "WHERE workflow_uuid = ?",
            queue,
            key,
            status,
            name,
        )
    return idle_db


def places(db: dn.Client, ids: list[str]) -> list[tuple[Any, Any]]:
    found = db.workflows(ids).set_index("workflow_id").loc[ids]
    return [
        (queue if isinstance(queue, str) else None, key if isinstance(key, str) else None)
        for queue, key in zip(found["queue_name"], found["queue_partition_key"], strict=True)
    ]


def test_a_fork_onto_a_partitioned_queue_needs_a_key(queued: dn.Client) -> None:
    plan = queued.fork(["tenant-1", "plain-1"], "failed", queue_name="tenants", plan=True)
    frame = plan.to_frame().set_index("workflow_id")
    assert set(frame["verdict"]) == {"refused"}
    assert "pass queue_partition_key=…" in frame["effect"]["plain-1"]
    assert "queue_name='original' to keep its own, 't1'" in frame["effect"]["tenant-1"]
    with pytest.raises(dn.RefusedError, match="waits there forever"):
        queued.rewind("tenant-1", "failed", queue_name="tenants")
    receipt = queued.fork("plain-1", "failed", queue_name="tenants", queue_partition_key="t7")
    assert places(queued, [receipt.lines[0].new_workflow_id]) == [("tenants", "t7")]


def test_a_fork_says_that_a_cancel_cleared_the_queue() -> None:
    row = WorkflowRecord("migration", "CANCELLED")
    known = choose(row, None, None, KnownQueues(cleared={"migration": "tenants"}))
    assert known.effect.startswith("on DBOS's internal queue instead of 'tenants'")
    unknown = choose(row, None, None, KnownQueues())
    assert "DBOS clears the queue of a CANCELLED workflow" in unknown.effect
    assert choose(row, None, None, KnownQueues(cleared={"migration": None})).effect == ""
    assert choose(row, "tenants", None, KnownQueues()).effect == ""


@pytest.mark.parametrize("operation", ["fork", "rewind"])
def test_original_sends_each_workflow_to_its_own_queue(queued: dn.Client, operation: str) -> None:
    ids = ["plain-1", "tenant-1", "alone"]
    call = getattr(queued, operation)
    plan = call(ids, "failed", queue_name="original", plan=True)
    assert plan.items[1].effect.endswith("; onto queue 'tenants', partition 't1'")
    assert plan.items[2].effect.endswith("; onto DBOS's internal queue, as it was on no queue")
    receipt = plan.apply()
    assert receipt.counts["done"] == 3
    made = [line.new_workflow_id or line.workflow_id for line in receipt.lines]
    expected = [("plain", None), ("tenants", "t1"), ("_dbos_internal_queue", None)]
    assert places(queued, made) == expected


def test_a_resume_onto_a_partitioned_queue_without_a_key_is_refused(queued: dn.Client) -> None:
    plan = queued.resume("loose", queue_name="tenants", plan=True)
    assert plan.items[0].verdict == "refused"
    assert "fork it with queue_partition_key" in plan.items[0].effect
    assert plan.apply().lines[0].outcome == "unchanged"
    # The key stays in the row, and DBOS goes by it.
    assert queued.resume("lost", queue_name="tenants").counts["done"] == 1
    assert places(queued, ["lost"]) == [("tenants", "t9")]


def test_a_workflow_cancelled_by_this_client_returns_to_its_queue(queued: dn.Client) -> None:
    ids = ["waits", "tenant-2", "queued-1"]
    assert queued.cancel(ids).counts["done"] == 3
    assert places(queued, ids) == [(None, None), (None, "t2"), (None, None)]
    queued.set_attributes("waits", {"seen": True})
    assert queued.resume(ids, queue_name="original").counts["done"] == 3
    assert places(queued, ids) == [("plain", None), ("tenants", "t2"), ("slow", None)]


def test_a_queue_erased_by_cancelling_is_reported_as_unknown(queued: dn.Client) -> None:
    plan = queued.resume(["loose", "lost"], queue_name="original", plan=True)
    loose, lost = plan.items
    assert loose.verdict == "ready"
    assert "its own is not known (DBOS clears the queue of a CANCELLED workflow" in loose.effect
    assert (lost.verdict, "Pass queue_name=…" in lost.effect) == ("refused", True)
    # Nor is what somebody else did after this client's own cancel.
    queued.cancel("waits")
    write(
        queued,
        "UPDATE {}workflow_status SET completed_at = 5 WHERE workflow_uuid = ?",
        "waits",
    )
    item = queued.resume("waits", queue_name="original", plan=True).items[0]
    assert "is not known" in item.effect


def test_original_is_refused_if_a_queue_has_that_name(queued: dn.Client) -> None:
    write(queued, "UPDATE {}queues SET name = 'original' WHERE name = 'plain'")
    with pytest.raises(dn.RefusedError, match="has that name"):
        queued.fork("plain-1", "failed", queue_name="original")


def test_original_keeps_the_partition_key(queued: dn.Client) -> None:
    with pytest.raises(dn.FilterError, match="its own partition key"):
        queued.fork("tenant-1", "failed", queue_name="original", queue_partition_key="t3")


@pytest.mark.parametrize("operation", ["trigger", "backfill"])
def test_a_schedule_on_a_partitioned_queue_is_not_triggered(
    queued: dn.Client, operation: str
) -> None:
    add(queued)
    write(queued, "UPDATE {}workflow_schedules SET queue_name = 'tenants'")
    call = {
        "trigger": lambda: queued.trigger_schedule("daily"),
        "backfill": lambda: queued.backfill_schedule("daily", "25h"),
    }[operation]
    with pytest.raises(dn.RefusedError, match="'tenants' is partitioned"):
        call()
