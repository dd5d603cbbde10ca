"""The queue that work is put on, and the partition key that a partitioned queue needs.

DBOS takes work from a partitioned queue by its partition keys: what has none waits there for ever.
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
"""As ``queue_name``: each workflow goes back onto its own queue."""
_LIMITS = ("partition_concurrency", "partition_worker_concurrency", "partition_rate_limit_max")


@dataclass(frozen=True)
class KnownQueues:
    """The queues that are registered in the database, and what was on a queue until a cancel.

    Attributes
    ----------
    erased
        The queues that workflows were on before this client cancelled them (``None``: on none), as
        far as nothing has happened to them since. DBOS erases the queue of what it cancels.
    """

    registered: frozenset[str] = frozenset()
    partitioned: frozenset[str] = frozenset()
    erased: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Destination:
    """Where work goes, or why it cannot go there.

    Attributes
    ----------
    queue_name
        ``None``: DBOS's own queue.
    effect
        What a plan says of it; empty where there is nothing to say.
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
    # DBOS partitions by any of these limits; the flag is what other SDKs still write.
    limits = [column(table, name).is_not(None) for name in _LIMITS if name in table.c]
    if not limits and "partition_queue" in table.c:
        limits = [table.c.partition_queue.is_(sa.true())]
    partitioned = sa.or_(*limits) if limits else sa.false()
    statement = sa.select(
        table.c.name.label("name"), sa.case((partitioned, 1), else_=0).label("partitioned")
    )
    found = session.rows(statement)
    return KnownQueues(
        frozenset(row["name"] for row in found),
        frozenset(row["name"] for row in found if row["partitioned"]),
    )


def choose(
    row: WorkflowRecord, queue_name: str | None, key: str | None, queues: KnownQueues
) -> Destination:
    """Choose the queue of a fork or a rewind, which may be given any key.

    Examples
    --------
    >>> row = WorkflowRecord("order-1", "ERROR", *[None] * 4, "tenants", "t1", *[None] * 6)
    >>> queues = KnownQueues(partitioned=frozenset({"tenants"}))
    >>> choose(row, "original", None, queues).queue_partition_key
    't1'
    >>> choose(row, "tenants", None, queues).problem
    "queue 'tenants' is partitioned, and what has no partition key waits there for ever: pass ..."
    """
    if queue_name == ORIGINAL:
        return _back(row, queues)
    if key is None and queue_name in queues.partitioned:
        problem = f"{_partitioned(queue_name)}: pass queue_partition_key=…"
        if row.queue_name == queue_name and row.queue_partition_key is not None:
            problem += f", or queue_name='original' to keep its own, {row.queue_partition_key!r}"
        return Destination(problem=problem)
    return Destination(queue_name, key)


def choose_for_resume(
    row: WorkflowRecord, queue_name: str | None, queues: KnownQueues
) -> Destination:
    """Choose the queue of a workflow that is resumed, which keeps the key that it has."""
    if queue_name == ORIGINAL:
        found = _back(row, queues)
    elif queue_name in queues.partitioned and row.queue_partition_key is None:
        found = Destination(
            problem=f"{_partitioned(queue_name)}, and DBOS can give it none when it resumes: "
            "resume it onto another queue, or fork it with queue_partition_key=…"
        )
    else:
        found = Destination(queue_name, row.queue_partition_key)
    return found


def _back(row: WorkflowRecord, queues: KnownQueues) -> Destination:
    """Find a workflow's own queue."""
    if ORIGINAL in queues.registered:
        return Destination(
            problem="queue_name='original' means the queue that each workflow came from, and a "
            "queue of this database has that very name"
        )
    key, queue = row.queue_partition_key, row.queue_name
    known = queue is not None or row.workflow_id in queues.erased
    queue = queue if queue is not None else queues.erased.get(row.workflow_id)
    if queue == INTERNAL_QUEUE:
        queue = None
    if queue is not None:
        if queue in queues.partitioned and key is None:
            return Destination(problem=f"{_partitioned(queue)}: it has none itself")
        partition = f", partition {key!r}" if key is not None else ""
        return Destination(queue, key, f"onto queue {queue!r}{partition}")
    erased = row.status in INTERRUPTED_STATUSES
    if known or not erased:
        return Destination(None, key, "onto DBOS's own queue, as it was on none")
    why = f"DBOS erases the queue of what is {row.status}, and this client did not see it"
    if key is not None:
        return Destination(
            problem=f"it has the partition key {key!r}, but its queue is not known: {why}. Pass "
            "queue_name=…"
        )
    return Destination(None, None, f"onto DBOS's own queue, since its own is not known: {why}")


def _partitioned(queue: str | None) -> str:
    return f"queue {queue!r} is partitioned, and what has no partition key waits there for ever"


def problem_of_schedule(queue_name: str | None, queues: KnownQueues) -> str | None:
    """Say why a schedule's runs would wait for ever, if they would."""
    if queue_name not in queues.partitioned:
        return None
    return f"{_partitioned(queue_name)}. The runs of a schedule have none"
