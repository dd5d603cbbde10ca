"""The rows that analyses aggregate: one per run or one per step, with times in milliseconds.

Analyses select from these subqueries, so that all of them agree about which rows count: a step that
a fork copied from its original ran once, and a time that the database no longer has is NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
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

BUCKET_BITS = 6
"""Logarithmic buckets divide the interval between two powers of two into 2**6 parts, so that their
middle differs from each of their durations by at most 1/128."""
_MAX_BITS = 49
"""No duration between two times in the years 1 to 9999 has more bits."""


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


def log_bucket(
    queries: Queries, expression: sa.ColumnElement[Any], bits: int = BUCKET_BITS
) -> sa.ColumnElement[Any]:
    """Return the logarithmic bucket of a duration in whole milliseconds, as an SQL expression.

    The buckets are those of a log-linear histogram: a bucket for each duration below
    ``2 ** (bits + 1)``, then ``2 ** bits`` of equal width between two powers of two. Only integers
    are compared and shifted, so both databases give the same bucket, and counts per bucket add up.
    Buckets of fewer bits are unions of those of more.

    Parameters
    ----------
    queries
        Composes SQL for the database.
    expression
        A duration in milliseconds, an integer. It is evaluated several times.
    bits
        Binary digits after the first that the durations in a bucket share. With 6, the middle of a
        bucket differs by at most 1/128 from the duration, with 1 by at most 1/4.

    Returns
    -------
    sqlalchemy.ColumnElement
        The number of the bucket; -1 for a negative duration, NULL for an unknown one.
    """
    if queries.catalog.dialect == "postgresql":
        limits = ",".join(str(1 << bit) for bit in range(bits + 1, _MAX_BITS))
        # Floats are exact here, and Postgres compares them without a function call.
        limit_array: sa.ColumnElement[Any] = sa.literal_column(f"'{{{limits}}}'::float8[]")
        shift: sa.ColumnElement[Any] = sa.func.width_bucket(
            sa.cast(expression, sa.Double()), limit_array
        )
        first = sa.literal_column(str(1 << bits), sa.BigInteger()) * shift
        bucket = first + expression.op(">>")(shift)
        return sa.case((expression < 0, sa.literal_column("-1")), else_=bucket)

    def shifted(low: int, high: int) -> sa.ColumnElement[Any]:
        # SQLite has no function for it: a binary search among the shifts from low to high.
        if low == high:
            offset, shift = (sa.literal_column(str(n), sa.BigInteger()) for n in (low << bits, low))
            return offset + expression.op(">>")(shift)
        middle = (low + high) // 2
        limit = sa.literal_column(str(1 << (middle + bits + 1)), sa.BigInteger())
        return sa.case((expression < limit, shifted(low, middle)), else_=shifted(middle + 1, high))

    return sa.case(
        (expression < 0, sa.literal_column("-1")),
        (expression.is_not(None), shifted(0, _MAX_BITS - bits - 1)),
    )


def bucket_limits(
    buckets: npt.ArrayLike, bits: int = BUCKET_BITS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the least duration in each bucket of :func:`log_bucket`, and that of the next bucket.

    Examples
    --------
    >>> bucket_limits([0, 5, 7], bits=1)
    (array([ 0,  6, 12]), array([ 1,  8, 16]))
    """
    numbers = np.asarray(buckets, np.int64)
    shift = np.maximum((numbers >> bits) - 1, 0)
    first = (numbers - (shift << bits)) << shift
    return first, first + (1 << shift)


def bucket_value(buckets: npt.ArrayLike, bits: int = BUCKET_BITS) -> npt.NDArray[np.float64]:
    """Return the middle of each bucket of :func:`log_bucket` in milliseconds.

    With the default ``bits`` it differs by at most 1/128 from every duration in the bucket. It is
    NaN for the bucket of negative durations.

    Examples
    --------
    >>> bucket_value([-1, 0, 100, 500])
    array([   nan,    0. ,  100. , 7455.5])
    """
    numbers = np.asarray(buckets, np.int64)
    first, following = bucket_limits(numbers, bits)
    return np.where(numbers < 0, np.nan, (first + following - 1) / 2)
