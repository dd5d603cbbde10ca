"""The rows that analyses aggregate: one per run or one per step, with times in milliseconds.

Analyses select from these subqueries, so that all of them agree about which rows count: a step that
a fork copied from its original ran once, and a time that the database no longer has is NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.status import FAILED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.aggregates import GROUPABLE, select_columns
from dbos_notebook.tables.columns import STEP, WORKFLOW, Column

if TYPE_CHECKING:
    from dbos_notebook.tables.sql import Queries

STEP_KEYS = {c.name: c for c in STEP if c.name in ("function_name", "application_name")}
"""Columns of steps by which they can be grouped."""
WORKFLOW_KEYS = {
    c.name: c
    for c in WORKFLOW
    if c.name in ("name", "app_version", "queue_name", "executor_id", "class_name")
}
"""Columns of their workflows by which steps can be grouped."""


def run_columns(by: str | Iterable[str]) -> list[Column]:
    """Return the columns by which runs are grouped; raise FilterError for an unknown one."""
    return select_columns(by, GROUPABLE, "by")


def step_columns(by: str | Iterable[str]) -> list[Column]:
    """Return the columns by which steps are grouped; raise FilterError for an unknown one."""
    return select_columns(by, STEP_KEYS | WORKFLOW_KEYS, "by")


def run_rows(
    queries: Queries, columns: Iterable[Column], filters: Mapping[str, Any], now: int
) -> sa.Subquery:
    """Return one row for each run.

    Parameters
    ----------
    queries
        Composes SQL for the database.
    columns
        Columns of workflows by which the runs are grouped, selected under their names.
    filters
        Checked filters.
    now
        Milliseconds since 1970, to which the durations of running workflows extend.

    Returns
    -------
    sqlalchemy.Subquery
        ``columns``; ``workflow_uuid``, ``run_status``, ``failed`` (0 or 1), ``created_at_ms``; and
        the columns of :class:`~dbos_notebook.tables.timing.RunTimes`: ``enqueued_at_ms``,
        ``started_at_ms``, ``ended_at_ms``, ``queue_wait_ms``, ``duration_ms``, NULL where unknown.
    """
    table = queries.workflows
    keys = [queries.column(table, column.source or "").label(column.name) for column in columns]
    times = [value.label(f"{name}_ms") for name, value in timing.sql_times(queries, now).items()]
    failed = sa.case((table.c.status.in_(FAILED_STATUSES), 1), else_=0).label("failed")
    created = sa.cast(queries.valid_time(table, "created_at"), sa.BigInteger())
    return (
        sa.select(
            *keys,
            table.c.workflow_uuid,
            table.c.status.label("run_status"),
            failed,
            created.label("created_at_ms"),
            *times,
        )
        .select_from(table)
        .where(*queries.where(filters))
        .subquery("run")
    )


def step_rows(
    queries: Queries, columns: Iterable[Column], filters: Mapping[str, Any]
) -> sa.Subquery:
    """Return one row for each step of the selected workflows that ran, not those that were copied.

    Parameters
    ----------
    queries
        Composes SQL for the database.
    columns
        Columns by which the steps are grouped, as :func:`step_columns` returns them.
    filters
        Checked filters of workflows.

    Returns
    -------
    sqlalchemy.Subquery
        ``columns``; ``workflow_uuid``, ``function_id``, ``failed`` (0 or 1), ``started_at_ms``,
        ``ended_at_ms``, ``duration_ms``, NULL where unknown.
    """
    queries.catalog.require("operation_outputs", ("workflow_uuid",))
    steps, workflows = queries.steps, queries.workflows
    keys = [
        queries.column(steps if column.name in STEP_KEYS else workflows, column.source or "").label(
            column.name
        )
        for column in columns
    ]
    joined = steps.join(workflows, workflows.c.workflow_uuid == steps.c.workflow_uuid)
    begun, ended = (
        sa.cast(queries.valid_time(steps, f"{word}_at_epoch_ms"), sa.BigInteger())
        for word in ("started", "completed")
    )
    failed = sa.case((queries.recorded_error(steps).is_not(None), 1), else_=0).label("failed")
    rows = (
        sa.select(
            *keys,
            steps.c.workflow_uuid,
            queries.column(steps, "function_id").label("function_id"),
            failed,
            begun.label("started_at_ms"),
            ended.label("ended_at_ms"),
            (ended - begun).label("duration_ms"),
        )
        .select_from(joined)
        .where(*queries.where(filters))
    )
    if (copied := copied_steps(queries)) is not None:
        rows = rows.where(~copied)
    return rows.subquery("step")


def copied_steps(queries: Queries) -> sa.ColumnElement[bool] | None:
    """Return a condition for steps that a fork copied from its original, with the same times.

    Returns ``None`` if this database has no times of steps, or no forks.
    """
    steps, workflows = queries.steps, queries.workflows
    times = ("started_at_epoch_ms", "completed_at_epoch_ms")
    if "forked_from" not in workflows.c or not all(name in steps.c for name in times):
        return None
    theirs = steps.alias("theirs")
    same = [theirs.c[name] == steps.c[name] for name in ("function_id", *times)]
    # With whole seconds, a fork may seem older than its copied steps. The original, unless it was
    # deleted, has the same steps; the lookup uses the primary key.
    recorded = sa.exists(
        sa.select(sa.literal_column("1"))
        .select_from(theirs)
        .where(theirs.c.workflow_uuid == workflows.c.forked_from, *same)
        .correlate(steps, workflows)
    )
    ended, created = (
        queries.valid_time(steps, times[1]),
        queries.valid_time(workflows, "created_at"),
    )
    before = sa.cast(ended, sa.BigInteger()) < sa.cast(created, sa.BigInteger())
    return sa.and_(
        workflows.c.forked_from.is_not(None),
        sa.or_(sa.func.coalesce(before, sa.false()), recorded),
    )
