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


def fork_families(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, WorkflowRecord]:
    """Read the originals of workflows, those of these, and so on, and all forks of any of them.

    A workflow that was not forked from another is not read for itself: in most cases it has no
    fork either.
    """
    return _select(session, queries, {}, queries.fork_family(ids), roots=False) if ids else {}


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
    parent, child = workflows.c.workflow_uuid, steps.c.child_workflow_id
    active = [queries.has_status(ACTIVE_STATUSES)]
    statuses: dict[str, str] = {}
    started: set[tuple[str, str]] = set()
    if "parent_workflow_id" in workflows.c:
        own = workflows.alias("own")
        for row in session.rows(
            sa.select(
                own.c.workflow_uuid.label("child"), parent.label("parent"), workflows.c.status
            )
            .join_from(own, workflows, parent == own.c.parent_workflow_id)
            .where(queries.member(own.c.workflow_uuid, ids), *active)
        ):
            started.add((row["parent"], row["child"]))
            statuses[row["parent"]] = row["status"]
        # Others await it only if they have recorded the step that started it: they have run, or
        # were forked. Most of those that wait in a queue have not.
        columns = workflows.c
        active.append(
            sa.or_(
                columns.status == "PENDING",
                columns.forked_from.is_not(None),
                columns.updated_at > columns.created_at,
            )
        )
    # By the workflow, because no index has the children of steps.
    statement = sa.select(parent.label("parent"), workflows.c.status).where(*active)
    statuses |= {row["parent"]: row["status"] for row in session.rows(statement)}
    results: set[tuple[str, str]] = set()
    for row in session.rows(
        sa.select(
            steps.c.workflow_uuid.label("parent"), child.label("child"), steps.c.function_name
        ).where(queries.member(steps.c.workflow_uuid, list(statuses)), queries.member(child, ids))
    ):
        pairs = results if row["function_name"] == "DBOS.getResult" else started
        pairs.add((row["parent"], row["child"]))
    parents: dict[str, dict[str, str]] = {}
    for parent_id, child_id in sorted(started - results):
        parents.setdefault(child_id, {})[parent_id] = statuses[parent_id]
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
