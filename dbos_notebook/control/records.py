"""What control reads before it acts and after: few columns of the workflows it was asked about.

Everything goes through the client's read-only sessions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.status import ACTIVE_STATUSES, ERROR_STATUSES
from dbos_notebook.tables import frames
from dbos_notebook.tables.columns import STEP, WORKFLOW
from dbos_notebook.tables.timing import INTERNAL_QUEUE as INTERNAL_QUEUE

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """One workflow as the database has it; times in milliseconds since 1970."""

    workflow_id: str
    status: str
    name: str | None
    app_version: str | None
    application_name: str | None
    executor_id: str | None
    queue_name: str | None
    queue_partition_key: str | None
    parent_workflow_id: str | None
    forked_from: str | None
    created_at: int | None
    updated_at: int | None
    delay_until: int | None
    attributes: str | None
    completed_at: int | None = None

    @property
    def active(self) -> bool:
        """Whether it runs or waits to run."""
        return self.status in ACTIVE_STATUSES


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One recorded step; times in milliseconds since 1970."""

    function_id: int
    function_name: str
    failed: bool
    child_workflow_id: str | None
    started_at: int | None
    completed_at: int | None

    @property
    def bookkeeping(self) -> bool:
        """Whether it is DBOS's own (sleep, send, getResult, …) or started a child."""
        return self.function_name.startswith("DBOS.") or self.child_workflow_id is not None

    @property
    def awaits(self) -> str | None:
        """The workflow whose result it took."""
        return self.child_workflow_id if self.function_name == "DBOS.getResult" else None


_FIELDS = tuple(field.name for field in dataclasses.fields(WorkflowRecord))
_COLUMNS = tuple(column for column in WORKFLOW if column.name in _FIELDS)


def _found(
    session: Session, queries: Queries, filters: dict[str, Any], within: sa.CTE | None = None
) -> dict[str, WorkflowRecord]:
    if within is not None:
        # What is related to a workflow is looked up by ID, whoever owns it.
        queries = queries.of_all_applications
    statement = queries.workflow_select(_COLUMNS, filters, load_errors=False, newest_first=None)
    if within is not None:
        statement = statement.where(queries.workflows.c.workflow_uuid == within.c.child)
    schema = frames.transport_schema(_COLUMNS)
    table = pa.Table.from_batches(session.batches(statement, schema), schema)
    return {row["workflow_id"]: WorkflowRecord(**row) for row in table.to_pylist()}


def workflows(session: Session, queries: Queries, ids: Iterable[str]) -> dict[str, WorkflowRecord]:
    """Read workflows by ID; those that do not exist are left out."""
    wanted = list(dict.fromkeys(ids))
    return _found(session, queries, {"workflow_ids": wanted}) if wanted else {}


def failures(session: Session, queries: Queries) -> dict[str, WorkflowRecord]:
    """Read the workflows that failed by themselves: not those that were cancelled."""
    return _found(session, queries, {"status": list(ERROR_STATUSES)})


def forks(
    session: Session, queries: Queries, originals: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read the workflows that were forked from any of these, the forks of those, and so on."""
    if not originals:
        return {}
    found = _found(session, queries, {}, queries.forks_below(originals))
    return {one: row for one, row in found.items() if row.forked_from}


def with_failures_below(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read workflows, and of those that failed what they started or awaited, down to the last."""
    return _found(session, queries, {}, queries.below_failed(ids)) if ids else {}


def with_ancestors(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read workflows and those that started them, up to the first."""
    return _found(session, queries, {}, queries.above(ids)) if ids else {}


def steps(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, list[StepRecord]]:
    """Read the recorded steps of workflows, in order; every ID is a key."""
    found: dict[str, list[StepRecord]] = {workflow_id: [] for workflow_id in ids}
    if not ids:
        return found
    names = ("workflow_id", "function_id", "function_name", "status", "child_workflow_id")
    columns = [c for c in STEP if c.name in (*names, "started_at", "completed_at")]
    wide = queries.step_select(columns, list(ids)).subquery("step")
    # Without the texts of errors, which can be long and are not needed.
    statement = sa.select(*(wide.c[column.name] for column in columns)).order_by(
        wide.c.workflow_id, wide.c.function_id
    )
    schema = frames.transport_schema(columns)
    for row in pa.Table.from_batches(session.batches(statement, schema), schema).to_pylist():
        found[row["workflow_id"]].append(
            StepRecord(
                row["function_id"],
                row["function_name"] or "",
                row["status"] == "ERROR",
                row["child_workflow_id"],
                row["started_at"],
                row["completed_at"],
            )
        )
    return found


def children(session: Session, queries: Queries, parents: Sequence[str]) -> list[str]:
    """Find what DBOS takes for the workflows below these: by ``parent_workflow_id`` alone.

    ``Client.tree`` knows more children (a fork's replacements among them); DBOS's own
    ``cancel_children`` and ``delete_children`` do not reach those, and a plan must not say so.
    """
    below = queries.below(parents, named_alone=True)
    found = session.rows(sa.select(below.c.child).where(below.c.parent.is_not(None)))
    asked = set(parents)
    return list(dict.fromkeys(row["child"] for row in found if row["child"] not in asked))
