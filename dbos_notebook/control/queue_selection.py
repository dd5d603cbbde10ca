"""Choose the queue of enqueued work, and the partition key that a partitioned queue needs.

DBOS dequeues from a partitioned queue by partition key: a workflow without one waits there forever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from dbos_notebook.control.records import INTERNAL_QUEUE, WorkflowRecord
from dbos_notebook.status import INTERRUPTED_STATUSES

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

ORIGINAL = "original"
"""As ``queue_name``: each workflow goes back to its own queue."""
_PARTITION_LIMITS = (
    "partition_concurrency",
    "partition_worker_concurrency",
    "partition_rate_limit_max",
)


@dataclass(frozen=True)
class KnownQueues:
    """The queues that are registered in the database, and those that a cancel cleared.

    Attributes
    ----------
    cleared
        By workflow: the queue that it was on before this client cancelled it (``None``: on none),
        as long as it has not changed since. DBOS clears the queue of a cancelled workflow.
    """

    registered: frozenset[str] = frozenset()
    partitioned: frozenset[str] = frozenset()
    cleared: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Destination:
    """Where work is enqueued, or why it cannot be.

    Attributes
    ----------
    queue_name
        ``None``: DBOS's internal queue.
    effect
        What a plan says of the queue; empty where nothing needs to be said.
    problem
        ``None`` where there is none.
    """

    queue_name: str | None = None
    queue_partition_key: str | None = None
    effect: str = ""
    problem: str | None = None


def read_queues(session: Session, queries: Queries) -> KnownQueues:
    """Read which queues are registered, and which of them are partitioned."""
    table, column = queries.catalog.table("queues"), queries.column
    if "name" not in table.c:
        return KnownQueues()
    # DBOS partitions by any of these limits; other SDKs still write the flag instead.
    limits = [column(table, name).is_not(None) for name in _PARTITION_LIMITS if name in table.c]
    if not limits and "partition_queue" in table.c:
        limits = [table.c.partition_queue.is_(sa.true())]
    partitioned = sa.or_(*limits) if limits else sa.false()
    rows = session.rows(
        sa.select(
            table.c.name.label("name"), sa.case((partitioned, 1), else_=0).label("partitioned")
        )
    )
    return KnownQueues(
        frozenset(row["name"] for row in rows),
        frozenset(row["name"] for row in rows if row["partitioned"]),
    )


def choose(
    row: WorkflowRecord, queue_name: str | None, key: str | None, queues: KnownQueues
) -> Destination:
    """Choose the queue of a fork or a rewind, which accept any partition key.

    Examples
    --------
    >>> row = WorkflowRecord(
    ...     "order-1", "ERROR", queue_name="tenants", queue_partition_key="t1"
    ... )
    >>> queues = KnownQueues(partitioned=frozenset({"tenants"}))
    >>> choose(row, "original", None, queues).queue_partition_key
    't1'
    >>> choose(row, "tenants", None, queues).problem
    "queue 'tenants' is partitioned, and a workflow without a partition key waits there for..."
    """
    if queue_name == ORIGINAL:
        return _choose_original(row, queues)
    if key is None and queue_name in queues.partitioned:
        problem = f"{_describe_partitioned(queue_name)}: pass queue_partition_key=…"
        if row.queue_name == queue_name and row.queue_partition_key is not None:
            problem += f", or queue_name='original' to keep its own, {row.queue_partition_key!r}"
        return Destination(problem=problem)
    effect = ""
    cleared = queues.cleared.get(row.workflow_id)
    if queue_name is None and row.queue_name not in (None, INTERNAL_QUEUE):
        effect = f"on DBOS's internal queue instead of {row.queue_name!r}"
    elif queue_name is None and cleared not in (None, INTERNAL_QUEUE):
        effect = (
            f"on DBOS's internal queue instead of {cleared!r}, on which it was before it was "
            f"cancelled: choose queue {cleared!r} to keep it"
        )
    elif queue_name is None and row.queue_name is None and _is_forgotten(row, queues):
        effect = (
            f"on DBOS's internal queue: DBOS clears the queue of a {row.status} workflow, so "
            "choose one if it was on one"
        )
    return Destination(queue_name, key, effect)


def choose_for_resume(
    row: WorkflowRecord, queue_name: str | None, queues: KnownQueues
) -> Destination:
    """Choose the queue of a resumed workflow, which keeps its partition key."""
    if queue_name == ORIGINAL:
        return _choose_original(row, queues)
    if queue_name in queues.partitioned and row.queue_partition_key is None:
        return Destination(
            problem=f"{_describe_partitioned(queue_name)}, and DBOS cannot set one on resume: "
            "resume it onto another queue, or fork it with queue_partition_key=…"
        )
    return Destination(queue_name, row.queue_partition_key)


def _choose_original(row: WorkflowRecord, queues: KnownQueues) -> Destination:
    """Choose a workflow's own queue."""
    if ORIGINAL in queues.registered:
        return Destination(
            problem="queue_name='original' means the queue that each workflow came from, but a "
            "queue of this database has that name"
        )
    key, queue = row.queue_partition_key, row.queue_name
    known = queue is not None or row.workflow_id in queues.cleared
    queue = queue if queue is not None else queues.cleared.get(row.workflow_id)
    if queue == INTERNAL_QUEUE:
        queue = None
    if queue is not None:
        if queue in queues.partitioned and key is None:
            return Destination(problem=f"{_describe_partitioned(queue)}, and this one has none")
        partition = f", partition {key!r}" if key is not None else ""
        return Destination(queue, key, f"onto queue {queue!r}{partition}")
    cleared = row.status in INTERRUPTED_STATUSES
    if known or not cleared:
        return Destination(None, key, "onto DBOS's internal queue, as it was on no queue")
    reason = f"DBOS clears the queue of a {row.status} workflow, and this client did not see it"
    if key is not None:
        return Destination(
            problem=f"it has the partition key {key!r}, but its queue is not known: {reason}. Pass "
            "queue_name=…"
        )
    return Destination(None, None, f"onto DBOS's internal queue: its own is not known ({reason})")


def _is_forgotten(row: WorkflowRecord, queues: KnownQueues) -> bool:
    """Return whether a workflow may have been on a queue that nothing records any more."""
    return row.status in INTERRUPTED_STATUSES and row.workflow_id not in queues.cleared


def _describe_partitioned(queue: str | None) -> str:
    return (
        f"queue {queue!r} is partitioned, and a workflow without a partition key waits there "
        "forever"
    )


def schedule_queue_problem(queue_name: str | None, queues: KnownQueues) -> str | None:
    """Return why a schedule's runs would wait forever; ``None``: they would not."""
    if queue_name not in queues.partitioned:
        return None
    return f"{_describe_partitioned(queue_name)}. The runs of a schedule have none"
