"""The workflows and steps that control calls read, with the few columns that they need.

Everything is read through the client's read-only sessions.
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
    """One row of ``workflow_status``; times in milliseconds since 1970."""

    workflow_id: str
    status: str
    name: str | None = None
    app_version: str | None = None
    application_name: str | None = None
    executor_id: str | None = None
    queue_name: str | None = None
    queue_partition_key: str | None = None
    deduplication_id: str | None = None
    parent_workflow_id: str | None = None
    forked_from: str | None = None
    created_at: int | None = None
    updated_at: int | None = None
    delay_until: int | None = None
    attributes: str | None = None
    completed_at: int | None = None

    @property
    def active(self) -> bool:
        """Whether it is running or waiting to run."""
        return self.status in ACTIVE_STATUSES


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One row of ``operation_outputs``; times in milliseconds since 1970."""

    function_id: int
    function_name: str
    failed: bool
    child_workflow_id: str | None
    started_at: int | None
    completed_at: int | None

    @property
    def is_system(self) -> bool:
        """Whether it is one of DBOS's own (sleep, send, getResult, …) or the start of a child."""
        return self.function_name.startswith("DBOS.") or self.child_workflow_id is not None

    @property
    def awaits(self) -> str | None:
        """The ID of the workflow whose result it read."""
        return self.child_workflow_id if self.function_name == "DBOS.getResult" else None


_FIELDS = tuple(field.name for field in dataclasses.fields(WorkflowRecord))
_COLUMNS = tuple(column for column in WORKFLOW if column.name in _FIELDS)


def _select(
    session: Session,
    queries: Queries,
    filters: dict[str, Any],
    within: sa.CTE | None = None,
    *,
    roots: bool = True,
) -> dict[str, WorkflowRecord]:
    if within is not None:
        # Related workflows are read whichever application owns them.
        queries = queries.all_applications
    statement = queries.workflow_select(_COLUMNS, filters, newest_first=None)
    if within is not None:
        statement = statement.where(queries.workflows.c.workflow_uuid == within.c.child)
        if queries.catalog.dialect == "postgresql":
            # OFFSET 0 prevents Postgres from joining whole tables: it looks up each workflow.
            rows = statement.offset(0).lateral("row")
            statement = sa.select(*rows.c).select_from(within.join(rows, sa.true()))
        if not roots:
            statement = statement.where(within.c.parent.is_not(None))
    schema = frames.transport_schema(_COLUMNS)
    table = pa.Table.from_batches(session.batches(statement, schema), schema)
    return {row["workflow_id"]: WorkflowRecord(**row) for row in table.to_pylist()}


def workflows(session: Session, queries: Queries, ids: Iterable[str]) -> dict[str, WorkflowRecord]:
    """Read workflows by ID; those that do not exist are omitted."""
    wanted = list(dict.fromkeys(ids))
    return _select(session, queries, {"workflow_ids": wanted}) if wanted else {}


def failures(session: Session, queries: Queries) -> dict[str, WorkflowRecord]:
    """Read the workflows that failed themselves, not those that were cancelled."""
    return _select(session, queries, {"status": list(ERROR_STATUSES)})


def forks(
    session: Session, queries: Queries, originals: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read the workflows that were forked from any of these, the forks of those, and so on."""
    if not originals:
        return {}
    # Without the originals, which have no fork in most cases.
    return _select(session, queries, {}, queries.forks_of(originals), roots=False)


def with_failures_below(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read workflows and, below those that failed, all that they started or awaited."""
    return _select(session, queries, {}, queries.failed_descendants(ids)) if ids else {}


def with_ancestors(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read workflows and their ancestors."""
    return _select(session, queries, {}, queries.ancestors(ids)) if ids else {}


def steps(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, list[StepRecord]]:
    """Read the recorded steps of workflows, in order; every ID is a key."""
    records: dict[str, list[StepRecord]] = {workflow_id: [] for workflow_id in ids}
    if not ids:
        return records
    names = ("workflow_id", "function_id", "function_name", "status", "child_workflow_id")
    columns = [c for c in STEP if c.name in (*names, "started_at", "completed_at")]
    all_steps = queries.step_select(columns, list(ids)).subquery("step")
    # Without error messages, which can be long and are not needed.
    statement = sa.select(*(all_steps.c[column.name] for column in columns)).order_by(
        all_steps.c.workflow_id, all_steps.c.function_id
    )
    schema = frames.transport_schema(columns)
    for row in pa.Table.from_batches(session.batches(statement, schema), schema).to_pylist():
        records[row["workflow_id"]].append(
            StepRecord(
                row["function_id"],
                row["function_name"] or "",
                row["status"] == "ERROR",
                row["child_workflow_id"],
                row["started_at"],
                row["completed_at"],
            )
        )
    return records


def waiting_parents(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Read which active workflows may still await these: the parents' statuses, by ID.

    A parent started the workflow, or was forked from one that did, and has not recorded its result
    yet. Whether it will await it is not known.
    """
    steps, workflows = queries.steps, queries.workflows
    if not ids or "child_workflow_id" not in steps.c:
        return {}
    # Few workflows are active, and no index has the children of steps.
    active = (
        sa.select(workflows.c.workflow_uuid.label("id"), workflows.c.status.label("status"))
        .where(queries.has_status(ACTIVE_STATUSES))
        .cte("active")
    )
    child = steps.c.child_workflow_id
    started: sa.FromClause = (
        sa.select(steps.c.workflow_uuid.label("parent"), child.label("child"))
        .where(queries.member(child, ids), steps.c.function_name != "DBOS.getResult")
        .subquery("started")
    )
    condition: sa.ColumnElement[bool] = started.c.parent == active.c.id
    if queries.catalog.dialect == "postgresql":
        # OFFSET 0 prevents Postgres from reading all steps: it looks up those of each workflow.
        started = (
            sa.select(active.c.id.label("parent"), child.label("child"))
            .where(
                steps.c.workflow_uuid == active.c.id,
                queries.member(child, ids),
                steps.c.function_name != "DBOS.getResult",
            )
            .correlate(active)
            .offset(0)
            .lateral("started")
        )
        condition = sa.true()
    pairs = [
        sa.select(started.c.child, active.c.id, active.c.status).select_from(
            active.join(started, condition)
        )
    ]
    if "parent_workflow_id" in workflows.c:
        # The child's row is written before the step of the parent.
        pairs.append(
            sa.select(workflows.c.workflow_uuid.label("child"), active.c.id, active.c.status)
            .select_from(workflows.join(active, active.c.id == workflows.c.parent_workflow_id))
            .where(queries.member(workflows.c.workflow_uuid, ids))
        )
    found = sa.union(*pairs).subquery("found")
    result = sa.exists(
        sa.select(sa.literal(1)).where(
            steps.c.workflow_uuid == found.c.id,
            steps.c.function_name == "DBOS.getResult",
            child == found.c.child,
        )
    )
    parents: dict[str, dict[str, str]] = {}
    for row in session.rows(sa.select(found).where(~result).order_by(found.c.child, found.c.id)):
        parents.setdefault(row["child"], {})[row["id"]] = row["status"]
    return parents


def children(session: Session, queries: Queries, parents: Sequence[str]) -> list[str]:
    """Read the IDs of the workflows below these as DBOS finds them: by ``parent_workflow_id`` only.

    ``Client.tree`` finds more children (such as a fork's replacements). DBOS's ``cancel_children``
    and ``delete_children`` do not include those, so a plan must not either.
    """
    below = queries.descendants(parents, named_alone=True)
    rows = session.rows(sa.select(below.c.child).where(below.c.parent.is_not(None)))
    requested = set(parents)
    return list(dict.fromkeys(row["child"] for row in rows if row["child"] not in requested))
