"""The rows that analyses aggregate: one per run or one per step, with times in milliseconds.

Analyses select from these subqueries, so that all of them agree about which rows count: a step that
a fork copied from its original ran once, and a time that the database no longer has is NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.aggregates import GROUPABLE, select_columns
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, STEP, Column

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

_STEP_COLUMNS = {column.name: column for column in STEP}
STEP_KEYS = {
    name: _STEP_COLUMNS[name]
    for name in ("function_name", "function_id", "workflow_id", "application_name")
}
"""Columns of steps by which they can be grouped."""
WORKFLOW_KEYS = {
    name: column
    for name, column in GROUPABLE.items()
    if column.kind != "instant" and name not in _STEP_COLUMNS
}
"""Columns of their workflows by which steps can be grouped."""

_TIMES = ("started_at_epoch_ms", "completed_at_epoch_ms")
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
    queries: Queries, columns: Iterable[Column], filters: Mapping[str, Any], now: int | None
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
        Milliseconds since 1970, to which the durations of running workflows and the waits of
        enqueued ones extend. ``None``: they are NULL.

    Returns
    -------
    sqlalchemy.Subquery
        ``columns``; ``workflow_uuid``, ``run_status``, ``failed`` and ``active`` (0 or 1; active
        ones wait or run), ``created_at_ms``; and
        the columns of :class:`~dbos_notebook.tables.timing.RunTimes`: ``enqueued_at_ms``,
        ``started_at_ms``, ``ended_at_ms``, ``queue_wait_ms``, ``duration_ms``, NULL where unknown.
    """
    table = queries.workflows
    keys = [_key(queries, table, column) for column in columns]
    times = [value.label(f"{name}_ms") for name, value in timing.sql_times(queries, now).items()]
    # Most workflows succeeded, and comparing strings takes most of the time.
    failed, active = (
        sa.case((table.c.status == "SUCCESS", 0), (table.c.status.in_(group), 1), else_=0)
        for group in (FAILED_STATUSES, ACTIVE_STATUSES)
    )
    created = sa.cast(queries.valid_time(table, "created_at"), sa.BigInteger())
    return (
        sa.select(
            *keys,
            table.c.workflow_uuid,
            table.c.status.label("run_status"),
            failed.label("failed"),
            active.label("active"),
            created.label("created_at_ms"),
            *times,
        )
        .select_from(table)
        .where(*queries.where(filters))
        .subquery("run")
    )


def step_rows(
    queries: Queries,
    columns: Iterable[Column],
    filters: Mapping[str, Any],
    *,
    forks: bool = True,
) -> sa.Subquery:
    """Return one row for each step of the selected workflows that ran, not those that were copied.

    Parameters
    ----------
    queries
        Composes SQL for the database.
    columns
        Columns by which the steps are grouped, as :func:`step_columns` returns them, or others of
        :data:`STEP`.
    filters
        Checked filters of workflows.
    forks
        Whether there may be forks, as :func:`has_forks` returns it. Without any, no step is
        compared with those that were copied.

    Returns
    -------
    sqlalchemy.Subquery
        ``columns``; ``workflow_uuid``, ``function_id``, ``failed`` (0 or 1), ``started_at_ms``,
        ``ended_at_ms``, ``duration_ms``, NULL where unknown.
    """
    queries.catalog.require("operation_outputs", ("workflow_uuid",))
    steps, workflows = queries.steps, queries.workflows
    columns = list(columns)
    own = [column.name in _STEP_COLUMNS for column in columns]
    keys = [
        _key(queries, steps if is_own else workflows, column)
        for column, is_own in zip(columns, own, strict=True)
    ]
    if not any(column.name == "function_id" for column in columns):
        keys.append(queries.column(steps, "function_id").label("function_id"))
    begun, ended = (
        sa.cast(queries.valid_time(steps, f"{word}_at_epoch_ms"), sa.BigInteger())
        for word in ("started", "completed")
    )
    failed = sa.case((queries.recorded_error(steps).is_not(None), 1), else_=0).label("failed")
    rows = sa.select(
        *keys,
        steps.c.workflow_uuid,
        failed,
        begun.label("started_at_ms"),
        ended.label("ended_at_ms"),
        _step_duration(queries).label("duration_ms"),
    )
    conditions = queries.where(filters)
    if conditions or not all(own):
        same = workflows.c.workflow_uuid == steps.c.workflow_uuid
        rows = rows.select_from(steps.join(workflows, same)).where(*conditions)
    if forks and _shows_copies(queries):
        copied = _copies(queries, filters)
        key = [steps.c[name] for name in ("workflow_uuid", "function_id")]
        if queries.catalog.dialect == "postgresql":
            equal = [copy == own for copy, own in zip(copied.c, key, strict=True)]
            rows = rows.where(~sa.exists(sa.select(sa.literal_column("1")).where(*equal)))
        else:
            # For EXISTS, SQLite would look up the workflow of each step.
            rows = rows.where(sa.tuple_(*key).not_in(sa.select(*copied.c)))
    return rows.subquery("step")


def _key(queries: Queries, table: sa.FromClause, column: Column) -> sa.Label[Any]:
    value = queries.column(table, column.source or "")
    if isinstance(value, Null) and column.transport == pa.int64():
        # The NULL of a column that this database lacks would be a string on Postgres.
        value = sa.cast(value, sa.BigInteger())
    return value.label(column.name)


def _step_duration(queries: Queries) -> sa.ColumnElement[Any]:
    """Return the duration of a step, by the same rule as those of runs.

    Most steps need only the first condition, which implies that both times are valid.
    """
    begun, ended = (
        sa.cast(queries.column(queries.steps, f"{word}_at_epoch_ms"), sa.BigInteger())
        for word in ("started", "completed")
    )
    first, last = (sa.literal_column(str(end), sa.BigInteger()) for end in (FIRST_MS, LAST_MS))
    skewed = sa.and_(ended >= first, begun <= last, begun - ended < timing.SECOND_MS)
    return sa.case(
        (sa.and_(ended >= begun, begun >= first, ended <= last), ended - begun),
        (sa.and_(begun > ended, skewed), 0),
    )


def has_forks(session: Session, queries: Queries) -> bool:
    """Return whether the database has a fork, whose steps may be copies."""
    forked_from = queries.column(queries.workflows, "forked_from")
    return bool(session.rows(sa.select(sa.literal(1)).where(forked_from.is_not(None)).limit(1)))


def copied_steps(queries: Queries) -> sa.ColumnElement[bool] | None:
    """Return a condition for steps that a fork copied from its original, with the same times.

    Each step is looked up. Returns ``None`` if this database has no times of steps, or no forks.
    """
    steps, workflows = queries.steps, queries.workflows
    if not _shows_copies(queries):
        return None
    theirs = steps.alias("theirs")
    recorded = sa.exists(
        sa.select(sa.literal_column("1"))
        .select_from(theirs)
        .where(_same_step(theirs, steps, workflows))
        .correlate(steps, workflows)
    )
    before = _ended_before(queries, steps, workflows)
    return sa.and_(
        workflows.c.forked_from.is_not(None),
        sa.or_(sa.func.coalesce(before, sa.false()), recorded),
    )


def _copies(queries: Queries, filters: Mapping[str, Any]) -> sa.Subquery:
    """Return the workflow and number of each step that :func:`copied_steps` is true for.

    It joins, because Postgres does not split a query that looks up each row among its workers.
    """
    workflows = queries.workflows
    fork = (
        sa.select(workflows.c.workflow_uuid, workflows.c.forked_from, workflows.c.created_at)
        .where(workflows.c.forked_from.is_not(None), *queries.where(filters))
        .subquery("fork")
    )
    copied, theirs = (queries.steps.alias(name) for name in ("copied", "theirs"))
    joined = fork.join(copied, copied.c.workflow_uuid == fork.c.workflow_uuid).outerjoin(
        theirs, _same_step(theirs, copied, fork)
    )
    recorded = theirs.c.workflow_uuid.is_not(None)
    return (
        sa.select(copied.c.workflow_uuid, copied.c.function_id)
        .select_from(joined)
        .where(sa.or_(_ended_before(queries, copied, fork), recorded))
        .subquery("copies")
    )


def _shows_copies(queries: Queries) -> bool:
    return "forked_from" in queries.workflows.c and all(name in queries.steps.c for name in _TIMES)


def _same_step(
    theirs: sa.FromClause, steps: sa.FromClause, fork: sa.FromClause
) -> sa.ColumnElement[bool]:
    # With whole seconds, a fork may seem older than its copied steps. The original, unless it was
    # deleted, has the same steps; the lookup uses the primary key.
    same = [theirs.c[name] == steps.c[name] for name in ("function_id", *_TIMES)]
    return sa.and_(theirs.c.workflow_uuid == fork.c.forked_from, *same)


def _ended_before(
    queries: Queries, steps: sa.FromClause, fork: sa.FromClause
) -> sa.ColumnElement[bool]:
    ended, created = queries.valid_time(steps, _TIMES[1]), queries.valid_time(fork, "created_at")
    return sa.cast(ended, sa.BigInteger()) < sa.cast(created, sa.BigInteger())


def evaluated_once(rows: sa.Subquery) -> sa.Subquery:
    """Return the same rows, such that each of their columns is evaluated once for each row.

    Otherwise, both databases evaluate an expression again wherever an outer query names its column.
    Aggregate from this subquery: Postgres also expects few groups then, and splits the aggregation
    among its workers. For a plain subquery it expects as many groups as rows.
    """
    # A union with no rows, because the planner does not look through a union.
    none = sa.select(*(sa.null().label(column.name) for column in rows.c)).where(sa.false())
    return sa.union_all(sa.select(*rows.c), none).subquery(f"{rows.name}_once")


def log_bucket(expression: sa.ColumnElement[Any], bits: int = BUCKET_BITS) -> sa.ColumnElement[Any]:
    """Return the logarithmic bucket of a duration in whole milliseconds, as an SQL expression.

    The buckets are those of a log-linear histogram: a bucket for each duration below
    ``2 ** (bits + 1)``, then ``2 ** bits`` of equal width between two powers of two. Only integers
    are compared and shifted, so both databases give the same bucket, and counts per bucket add up.
    Buckets of fewer bits are unions of those of more.

    Parameters
    ----------
    expression
        A duration in milliseconds, an integer. It is evaluated several times: use a column of
        :func:`evaluated_once`.
    bits
        Binary digits after the first that the durations in a bucket share. With 6, the middle of a
        bucket differs by at most 1/128 from the duration, with 1 by at most 1/4.

    Returns
    -------
    sqlalchemy.ColumnElement
        The number of the bucket, NULL for an unknown duration. A negative duration is its own
        bucket.
    """

    def number(value: int) -> sa.ColumnElement[Any]:
        return sa.literal_column(str(value), sa.BigInteger())

    def shifted(low: int, high: int) -> sa.ColumnElement[Any]:
        # Neither database has a fast function for the number of bits. Search the shift between low
        # and high by comparing, in fewer steps for short durations.
        if low == high:
            return number(low << bits) + expression.op(">>")(number(low)) if low else expression
        middle = low + (high - low) // 3
        limit = number(1 << (middle + bits + 1))
        return sa.case((expression < limit, shifted(low, middle)), else_=shifted(middle + 1, high))

    return sa.case((expression.is_not(None), shifted(0, _MAX_BITS - bits - 1)))


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

    With the default ``bits`` it differs by at most 1/128 from every duration in the bucket.

    Examples
    --------
    >>> bucket_value([0, 100, 500])
    array([   0. ,  100. , 7455.5])
    """
    first, following = bucket_limits(buckets, bits)
    return (first + following - 1) / 2
