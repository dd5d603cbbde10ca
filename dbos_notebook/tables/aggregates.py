"""Aggregates computed by the database: counts, queues, executors, health."""

from __future__ import annotations

import datetime as dt
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import ACTIVE_STATUSES, TERMINAL_STATUSES
from dbos_notebook.tables import frames, listings, timing
from dbos_notebook.tables.columns import EXECUTOR, FRAMES, QUEUE, QUEUE_WORK, WORKFLOW, Column
from dbos_notebook.tables.filters import as_list, as_timedelta
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session

GROUPABLE = {column.name: column for column in WORKFLOW if column.source and column.kind != "json"}
_TIMES = {name: column for name, column in GROUPABLE.items() if column.kind == "instant"}
_COUNT = Column("count", "integer", "How many workflows.", "count")


def select_columns(
    names: str | Iterable[str], known: Mapping[str, Column], what: str
) -> list[Column]:
    """Return the named columns in their order, each once; raise FilterError for an unknown one."""
    picked: list[Column] = []
    for name in as_list(names, what):
        if name not in known:
            raise FilterError(
                f"{what}={name!r} is not one of the possible columns.{nearest(name, known)} "
                f"The columns are: {', '.join(known)}."
            )
        if known[name] not in picked:
            picked.append(known[name])
    return picked


def bucket_ms(bucket: Any) -> int:
    """Convert a bucket width ("1h", "15min", "1d", seconds, a timedelta) to milliseconds.

    Examples
    --------
    >>> bucket_ms("1h")
    3600000
    """
    try:
        if isinstance(bucket, str):
            length = as_timedelta(bucket)
        elif isinstance(bucket, numbers.Real) and not isinstance(bucket, bool | np.timedelta64):
            length = pd.Timedelta(seconds=float(bucket))
        else:
            length = pd.Timedelta(bucket)
        width = round(length.total_seconds() * 1000)
    except (ValueError, TypeError, OverflowError) as error:
        raise FilterError(
            f"bucket={bucket!r} is not a duration: {str(error).removesuffix('.')}. Give "
            "'15min', '1h', '1d', seconds or a timedelta."
        ) from None
    if width < 1:
        raise FilterError(f"bucket={bucket!r} must be at least a millisecond.")
    return width


TableQuery = tuple[sa.Select[Any], Sequence[Column]]
"""A statement with a small result, and the columns of the result."""


def read_frames(session: Session, *table_queries: TableQuery) -> list[pd.DataFrame]:
    """Read several small results with one request to the database."""
    now = dt.datetime.now(dt.UTC)
    results = session.tables(
        *((statement, frames.transport_schema(columns)) for statement, columns in table_queries)
    )
    return [
        frames.to_frame([frames.derive(batch, columns, now) for batch in batches], columns)
        for batches, (_, columns) in zip(results, table_queries, strict=True)
    ]


def read_frame(
    session: Session, statement: sa.Select[Any], columns: Sequence[Column]
) -> pd.DataFrame:
    """Read one small result."""
    return read_frames(session, (statement, columns))[0]


def counts(
    session: Session,
    queries: Queries,
    by: str | Iterable[str],
    bucket: Any,
    time: str,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Count workflows by columns and, with a bucket, by time; rows without a time are dropped."""
    return counts_many(session, queries, (by, bucket, time, filters))[0]


def counts_many(
    session: Session,
    queries: Queries,
    *counted: tuple[str | Iterable[str], Any, str, Mapping[str, Any]],
) -> list[pd.DataFrame]:
    """Run several counts in one request; each has the arguments by, bucket, time and filters."""
    table_queries = [_count_query(queries, *each) for each in counted]
    results = read_frames(session, *table_queries)
    return [
        _sorted_counts(frame, columns)
        for frame, (_, columns) in zip(results, table_queries, strict=True)
    ]


def _count_query(
    queries: Queries, by: str | Iterable[str], bucket: Any, time: str, filters: Mapping[str, Any]
) -> TableQuery:
    columns = select_columns(by, GROUPABLE, "by")
    table = queries.workflows
    keys = [queries.column(table, column.source or "").label(column.name) for column in columns]
    conditions = queries.where(filters)
    if bucket is not None:
        (moment,) = select_columns(time, _TIMES, "time")
        width = bucket_ms(bucket)
        source = queries.valid_time(table, moment.source or "")
        # A literal, because Postgres would see two parameters as different GROUP BY expressions.
        start = sa.literal_column(f"({width})", sa.BigInteger())
        column = sa.cast(source, sa.BigInteger())
        # Keep the name of the bucketed column, which shows what the times are.
        keys.append((column // start * start).label(moment.name))
        columns.append(Column(moment.name, "instant", "Start of the bucket, UTC.", moment.source))
        conditions.append(source.is_not(None))
    counted = sa.func.count().label("count")
    statement = sa.select(*keys, counted).select_from(table).where(*conditions)
    if keys:
        # By position, because GROUP BY does not accept the NULL of an absent column.
        statement = statement.group_by(*(sa.literal_column(str(i + 1)) for i in range(len(keys))))
    return statement, [*columns, _COUNT]


def _sorted_counts(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    if len(columns) > 1:
        order = [c.name for c in columns[:-1] if c.kind == "instant"]
        order += [c.name for c in columns[:-1] if c.kind != "instant"]
        frame = frame.sort_values(order).reset_index(drop=True)
    return frame


def queues(session: Session, queries: Queries) -> pd.DataFrame:
    """List registered queues and queues with work, with a row for each partition with work."""
    table = queries.catalog.table("queues")
    now = pd.Timestamp.now(tz="UTC").as_unit("ms")
    if table.c:
        statement = sa.select(*queries.select(table, QUEUE)).where(*queries.owned(table))
        settings, work = read_frames(session, (statement, QUEUE), _queue_work(queries, now))
    else:
        settings = frames.to_frame([listings.empty(QUEUE)], QUEUE)
        (work,) = read_frames(session, _queue_work(queries, now))
    work["oldest_wait"] = (now - work["oldest_enqueued_at"]).astype("timedelta64[ms]")
    merged = settings.merge(work, on="queue_name", how="outer")
    for name in ("delayed", "enqueued", "running"):
        merged[name] = merged[name].fillna(0).astype("Int64")
    order = [column.name for column in FRAMES["queues"]]
    return merged[order].sort_values(["queue_name", "queue_partition_key"]).reset_index(drop=True)


def _queue_work(queries: Queries, now: pd.Timestamp) -> TableQuery:
    table = queries.workflows
    name, partition = (queries.column(table, c) for c in ("queue_name", "queue_partition_key"))
    status = table.c.status
    enqueued = timing.sql_times(queries, round(now.timestamp() * 1000))["enqueued_at"]

    def count(status_name: str) -> Any:
        return sa.func.sum(sa.case((status == status_name, 1), else_=0))

    columns = (
        Column("queue_name", "text", "", "queue_name"),
        *(Column(c.name, c.kind, c.meaning, c.name) for c in QUEUE_WORK if c.name != "oldest_wait"),
    )
    statement = (
        sa.select(
            name.label("queue_name"),
            partition.label("queue_partition_key"),
            count("DELAYED").label("delayed"),
            count("ENQUEUED").label("enqueued"),
            count("PENDING").label("running"),
            sa.func.min(sa.case((status == "ENQUEUED", enqueued))).label("oldest_enqueued_at"),
        )
        .where(name.is_not(None), *queries.where({"status": ACTIVE_STATUSES}))
        .group_by(sa.literal_column("1"), sa.literal_column("2"))
    )
    return statement, columns


def executors(session: Session, queries: Queries) -> pd.DataFrame:
    """List executors that ran workflows, by version and application, latest activity first.

    An executor that only enqueued workflows is not listed: see :func:`timing.sql_never_ran`.
    """
    table = queries.workflows
    who = ("executor_id", "application_version", "application_name")
    keys = [queries.column(table, name) for name in who]
    status = table.c.status

    def count(status_name: str) -> Any:
        return sa.func.sum(sa.case((status == status_name, 1), else_=0))

    # Activity of the executor itself, not changes from outside, such as a cancellation.
    ended = sa.case(
        (
            status.in_(("SUCCESS", "ERROR")),
            sa.func.coalesce(
                queries.valid_time(table, "completed_at"), queries.valid_time(table, "updated_at")
            ),
        )
    )
    started_at = sa.case((status == "PENDING", queries.valid_time(table, "created_at")))
    started = queries.valid_time(table, "started_at_epoch_ms")
    # max() of an absent column has no type, so it cannot be compared.
    activity = [
        sa.func.max(each) for each in (ended, started, started_at) if not isinstance(each, Null)
    ]
    columns = tuple(Column(c.name, c.kind, c.meaning, c.name) for c in EXECUTOR)
    statement = (
        sa.select(
            *(key.label(column.name) for key, column in zip(keys, columns, strict=False)),
            sa.func.count().label("workflows"),
            count("PENDING").label("running"),
            count("ERROR").label("failed"),
            sa.func.min(queries.valid_time(table, "created_at")).label("first_seen"),
            _latest(queries, activity).label("last_seen"),
        )
        .where(keys[0].is_not(None), ~timing.sql_never_ran(queries), *queries.where({}))
        .group_by(*(sa.literal_column(str(i + 1)) for i in range(len(who))))
    )
    frame = read_frame(session, statement, columns)
    return frame.sort_values("last_seen", ascending=False).reset_index(drop=True)


def _latest(queries: Queries, moments: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    """Return the latest of several times, ignoring NULL."""
    # SQLite's max() of several arguments is NULL if one is; Postgres' greatest() ignores NULL.
    least = sa.literal_column("0", sa.BigInteger())
    filled = [sa.func.coalesce(moment, least) for moment in moments]
    postgres = queries.catalog.dialect == "postgresql"
    return sa.func.nullif((sa.func.greatest if postgres else sa.func.max)(*filled), least)


def summary(session: Session, queries: Queries) -> dict[str, Any]:
    """Return the data of the client's HTML repr, in one snapshot."""
    now = dt.datetime.now(dt.UTC)
    day_ago = int((now - dt.timedelta(days=1)).timestamp() * 1000)
    by_status = counts(session, queries, "status", None, "created_at", {})
    table = queries.workflows
    ended = queries.column(table, "completed_at")
    since = sa.func.coalesce(ended, table.c.updated_at)
    failing = (
        sa.select(queries.column(table, "name").label("name"), sa.func.count().label("count"))
        .where(table.c.status == "ERROR", since >= day_ago, *queries.where({}))
        .group_by(sa.literal_column("1"))
        .order_by(sa.literal_column("2").desc())
    )
    return {
        "counts": dict(zip(by_status["status"].astype(str), by_status["count"], strict=True)),
        "failures": session.rows(failing),
        "queues": queues(session, queries),
        "read_at": now,
    }


@dataclass(frozen=True)
class Health:
    """The state of an application at one time.

    Attributes
    ----------
    read_at
        The end of the window.
    window
        The length of the window.
    bucket
        The width of a bar.
    active
        The number of DELAYED, ENQUEUED and PENDING workflows now, by status.
    ended
        Columns ``status``, ``completed_at`` (start of the bucket), ``count``.
    queues
        The DataFrame of :meth:`Client.queues`.
    """

    read_at: dt.datetime
    window: dt.timedelta
    bucket: dt.timedelta
    active: dict[str, int]
    ended: pd.DataFrame
    queues: pd.DataFrame


def ended_since(queries: Queries, since: int) -> dict[str, Any]:
    """Return the filter for workflows that ended since a time in milliseconds since 1970.

    If the database has no ``completed_at``, it is the filter for those that were created since.
    """
    recorded = queries.catalog.has("workflow_status", "completed_at")
    return {"completed_after" if recorded else "start_time": since}


def health(
    session: Session, queries: Queries, window: dt.timedelta, bucket: dt.timedelta
) -> Health:
    """Read the state of an application in one snapshot.

    The end of a workflow is ``completed_at`` or, if the database lacks it, ``updated_at``.
    """
    now = dt.datetime.now(dt.UTC)
    since = int((now - window).timestamp() * 1000)
    recorded = queries.catalog.has("workflow_status", "completed_at")
    moment = "completed_at" if recorded else "updated_at"
    statuses = list(TERMINAL_STATUSES)
    active, ended = counts_many(
        session,
        queries,
        ("status", None, "created_at", {"status": list(ACTIVE_STATUSES)}),
        ("status", bucket, moment, {"status": statuses} | ended_since(queries, since)),
    )
    return Health(
        now,
        window,
        bucket,
        dict(zip(active["status"].astype(str), map(int, active["count"]), strict=True)),
        ended.rename(columns={moment: "completed_at"}),
        queues(session, queries),
    )
