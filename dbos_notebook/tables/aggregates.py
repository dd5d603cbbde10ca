"""Aggregates that the database computes: counts, queues, executors, statistics, health."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import ACTIVE_STATUSES, ERROR_STATUSES, TERMINAL_STATUSES
from dbos_notebook.tables import aggregates, frames, listings, timing
from dbos_notebook.tables.columns import EXECUTOR, FRAMES, QUEUE, QUEUE_WORK, STEP, WORKFLOW, Column
from dbos_notebook.tables.filters import as_timedelta
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.sql import Queries

_GROUPABLE = {column.name: column for column in WORKFLOW if column.source and column.kind != "json"}
_TIMES = {name: column for name, column in _GROUPABLE.items() if column.kind == "instant"}
_COUNT = Column("count", "integer", "How many workflows.", "count")


def _pick(names: str | Iterable[str], known: Mapping[str, Column], what: str) -> list[Column]:
    picked: list[Column] = []
    for name in [names] if isinstance(names, str) else list(names):
        if name not in known:
            raise FilterError(
                f"{what}={name!r} is no column that can be used here."
                f"{nearest(name, known)} These can: {', '.join(known)}."
            )
        if known[name] not in picked:
            picked.append(known[name])
    return picked


def bucket_ms(bucket: Any) -> int:
    """Turn a bucket width ("1h", "15min", "1d", a timedelta) into milliseconds.

    Examples
    --------
    >>> bucket_ms("1h")
    3600000
    """
    try:
        length = as_timedelta(bucket) if isinstance(bucket, str) else pd.Timedelta(bucket)
        width = int(length.total_seconds() * 1000)
    except (ValueError, TypeError) as error:
        raise FilterError(
            f"bucket={bucket!r} is no width of time: {error}. Give '15min', '1h', '1d' or a "
            "timedelta."
        ) from None
    if width < 1:
        raise FilterError(f"bucket={bucket!r} must be at least a millisecond.")
    return width


Question = tuple[sa.Select[Any], Sequence[Column]]
"""A statement of few rows, and the columns of its result."""


def _frames(session: Session, *questions: Question) -> list[pd.DataFrame]:
    """Read several small results, asking the database once."""
    now = dt.datetime.now(dt.UTC)
    found = session.tables(
        *((statement, frames.transport_schema(columns)) for statement, columns in questions)
    )
    return [
        frames.to_frame([frames.derive(batch, columns, now) for batch in batches], columns)
        for batches, (_, columns) in zip(found, questions, strict=True)
    ]


def _frame(session: Session, statement: sa.Select[Any], columns: Sequence[Column]) -> pd.DataFrame:
    return _frames(session, (statement, columns))[0]


def counts(
    session: Session,
    queries: Queries,
    by: str | Iterable[str],
    bucket: Any,
    time: str,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Count workflows by columns and, with a bucket, by time; times that are missing drop out."""
    return all_counts(session, queries, (by, bucket, time, filters))[0]


def all_counts(
    session: Session,
    queries: Queries,
    *counted: tuple[str | Iterable[str], Any, str, Mapping[str, Any]],
) -> list[pd.DataFrame]:
    """Count several times at once; each as :func:`counts` takes it: by, bucket, time, filters."""
    questions = [_counting(queries, *each) for each in counted]
    found = _frames(session, *questions)
    return [
        _sorted_counts(frame, columns) for frame, (_, columns) in zip(found, questions, strict=True)
    ]


def _counting(
    queries: Queries, by: str | Iterable[str], bucket: Any, time: str, filters: Mapping[str, Any]
) -> Question:
    columns = _pick(by, _GROUPABLE, "by")
    table = queries.workflows
    keys = [queries.column(table, column.source or "").label(column.name) for column in columns]
    conditions = queries.where(filters)
    if bucket is not None:
        (moment,) = _pick(time, _TIMES, "time")
        width = bucket_ms(bucket)
        source = queries.moment(table, moment.source or "")
        # Whole-number division in both dialects; a parameter would make the two uses differ.
        start = sa.literal_column(f"({width})", sa.BigInteger())
        column = sa.cast(source, sa.BigInteger())
        # The name of the column that was bucketed, so the frame says what its times are.
        keys.append((column // start * start).label(moment.name))
        columns.append(Column(moment.name, "instant", "Start of the bucket, UTC.", moment.source))
        conditions.append(source.is_not(None))
    counted = sa.func.count().label("count")
    statement = sa.select(*keys, counted).select_from(table).where(*conditions)
    if keys:
        # By place: a NULL standing for an absent column cannot be named in GROUP BY.
        statement = statement.group_by(*(sa.literal_column(str(i + 1)) for i in range(len(keys))))
    return statement, [*columns, _COUNT]


def _sorted_counts(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    if len(columns) > 1:
        order = [c.name for c in columns[:-1] if c.kind == "instant"]
        order += [c.name for c in columns[:-1] if c.kind != "instant"]
        frame = frame.sort_values(order).reset_index(drop=True)
    return frame


def queues(session: Session, queries: Queries) -> pd.DataFrame:
    """List registered queues and those that hold work, a row for each partition with work."""
    table = queries.catalog.table("queues")
    now = pd.Timestamp.now(tz="UTC").as_unit("ms")
    if table.c:
        statement = sa.select(*queries.select(table, QUEUE)).where(*queries.owned(table))
        settings, work = _frames(session, (statement, QUEUE), _queue_work(queries, now))
    else:
        settings = frames.to_frame([listings.empty(QUEUE)], QUEUE)
        (work,) = _frames(session, _queue_work(queries, now))
    work["oldest_wait"] = (now - work["oldest_enqueued_at"]).astype("timedelta64[ms]")
    merged = settings.merge(work, on="queue_name", how="outer")
    for name in ("delayed", "enqueued", "running"):
        merged[name] = merged[name].fillna(0).astype("Int64")
    order = [column.name for column in FRAMES["queues"]]
    return merged[order].sort_values(["queue_name", "queue_partition_key"]).reset_index(drop=True)


def _queue_work(queries: Queries, now: pd.Timestamp) -> Question:
    table = queries.workflows
    name, partition = (queries.column(table, c) for c in ("queue_name", "queue_partition_key"))
    status = table.c.status
    enqueued = timing.sql_times(queries, round(now.timestamp() * 1000))["enqueued_at"]

    def count(of: str) -> Any:
        return sa.func.sum(sa.case((status == of, 1), else_=0))

    columns = (
        Column("queue_name", "text", "", "queue_name"),
        *(
            Column(c.name, c.kind, c.meaning, c.name if c.name != "oldest_wait" else None)
            for c in QUEUE_WORK
            if c.name != "oldest_wait"
        ),
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
        .where(name.is_not(None), status.in_(ACTIVE_STATUSES), *queries.where({}))
        .group_by(sa.literal_column("1"), sa.literal_column("2"))
    )
    return statement, columns


def executors(session: Session, queries: Queries) -> pd.DataFrame:
    """List who ran workflows, by executor, version and application, latest activity first.

    Who only enqueued a workflow ran none: see :func:`timing.sql_never_ran`.
    """
    table = queries.workflows
    who = ("executor_id", "application_version", "application_name")
    keys = [queries.column(table, name) for name in who]
    status = table.c.status

    def count(of: str) -> Any:
        return sa.func.sum(sa.case((status == of, 1), else_=0))

    # What it did, and not what was done to its workflows from outside, such as a cancel.
    ended = sa.case(
        (
            status.in_(("SUCCESS", "ERROR")),
            sa.func.coalesce(
                queries.moment(table, "completed_at"), queries.moment(table, "updated_at")
            ),
        )
    )
    began = sa.case((status == "PENDING", queries.moment(table, "created_at")))
    started = queries.moment(table, "started_at_epoch_ms")
    # The largest of an absent column has no type that could be compared.
    deeds = [sa.func.max(each) for each in (ended, started, began) if not isinstance(each, Null)]
    columns = tuple(Column(c.name, c.kind, c.meaning, c.name) for c in EXECUTOR)
    statement = (
        sa.select(
            *(key.label(column.name) for key, column in zip(keys, columns, strict=False)),
            sa.func.count().label("workflows"),
            count("PENDING").label("running"),
            count("ERROR").label("failed"),
            sa.func.min(queries.moment(table, "created_at")).label("first_seen"),
            _latest(queries, deeds).label("last_seen"),
        )
        .where(keys[0].is_not(None), ~timing.sql_never_ran(queries), *queries.where({}))
        .group_by(*(sa.literal_column(str(i + 1)) for i in range(len(who))))
    )
    frame = _frame(session, statement, columns)
    return frame.sort_values("last_seen", ascending=False).reset_index(drop=True)


def _latest(queries: Queries, moments: Sequence[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    """Return the latest of some moments, of which any may be missing."""
    # SQLite's max of many is missing where one is; Postgres' greatest is not.
    least = sa.literal_column("0", sa.BigInteger())
    filled = [sa.func.coalesce(moment, least) for moment in moments]
    postgres = queries.catalog.dialect == "postgresql"
    return sa.func.nullif((sa.func.greatest if postgres else sa.func.max)(*filled), least)


def step_statistics(
    session: Session, queries: Queries, by: str | Iterable[str], filters: Mapping[str, Any]
) -> pd.DataFrame:
    """Summarise step durations and failures of the workflows that filters pick.

    Steps that a fork has from its original are left out: they ran once. Quantiles interpolate
    linearly, as pandas and PostgreSQL's percentile_cont do. SQLite has none, so there the durations
    travel and pandas computes.
    """
    known = {c.name: c for c in STEP if c.name in ("function_name", "application_name")}
    of_workflow = {
        c.name: c
        for c in WORKFLOW
        if c.name in ("name", "app_version", "queue_name", "executor_id", "class_name")
    }
    columns = _pick(by, known | of_workflow, "by")
    if not columns:
        raise FilterError("by=[] names no column to group by. Use by='function_name'.")
    queries.catalog.require("operation_outputs", ("workflow_uuid",))
    steps, workflows = queries.steps, queries.workflows
    keys = [
        queries.column(steps if column.name in known else workflows, column.source or "").label(
            column.name
        )
        for column in columns
    ]
    joined = steps.join(workflows, workflows.c.workflow_uuid == steps.c.workflow_uuid)
    begun, ended = (
        queries.moment(steps, f"{word}_at_epoch_ms") for word in ("started", "completed")
    )
    took = (sa.cast(ended, sa.BigInteger()) - sa.cast(begun, sa.BigInteger())).label("took")
    failed = sa.case((queries.recorded_error(steps).is_not(None), 1), else_=0).label("failed")
    rows = sa.select(*keys, took, failed).select_from(joined).where(*queries.where(filters))
    if (copied := _copied(queries)) is not None:
        rows = rows.where(~copied)
    if queries.catalog.dialect == "postgresql":
        frame = _percentiles(session, rows.subquery("step"), columns)
    else:
        frame = _quantiles(session, rows, columns)
    frame = frame.sort_values(["total", "count"], ascending=False)
    return frame.reset_index(drop=True)


def _copied(queries: Queries) -> sa.ColumnElement[bool] | None:
    """Return SQL that is true for a step that a fork has from its original, times and all.

    ``None``: this database has no times of steps, or no forks.
    """
    steps, workflows = queries.steps, queries.workflows
    times = ("started_at_epoch_ms", "completed_at_epoch_ms")
    if "forked_from" not in workflows.c or not all(name in steps.c for name in times):
        return None
    theirs = steps.alias("theirs")
    same = [theirs.c[name] == steps.c[name] for name in ("function_id", *times)]
    # In whole seconds, a fork may seem to be older than what was copied; the original knows,
    # while it has not been deleted. It is looked up by the primary key.
    recorded = sa.exists(
        sa.select(sa.literal_column("1"))
        .select_from(theirs)
        .where(theirs.c.workflow_uuid == workflows.c.forked_from, *same)
        .correlate(steps, workflows)
    )
    ended, created = queries.moment(steps, times[1]), queries.moment(workflows, "created_at")
    before = sa.cast(ended, sa.BigInteger()) < sa.cast(created, sa.BigInteger())
    return sa.and_(
        workflows.c.forked_from.is_not(None),
        sa.or_(sa.func.coalesce(before, sa.false()), recorded),
    )


_STATISTICS = ("total", "mean", "p50", "p95", "max")


def _percentiles(session: Session, rows: sa.Subquery, columns: Sequence[Column]) -> pd.DataFrame:
    took = rows.c.took

    def quantile(share: float) -> Any:
        return sa.func.percentile_cont(share).within_group(took)

    values = (
        sa.func.sum(took),
        sa.func.avg(took),
        quantile(0.5),
        quantile(0.95),
        sa.func.max(took),
    )
    statement = sa.select(
        *(rows.c[column.name] for column in columns),
        sa.func.count().label("count"),
        sa.func.sum(rows.c.failed).label("errors"),
        *(
            sa.cast(value, sa.Double()).label(name)
            for name, value in zip(_STATISTICS, values, strict=True)
        ),
    ).group_by(*(rows.c[column.name] for column in columns))
    shape = [Column(c.name, c.kind, "", c.name) for c in columns]
    shape += [Column(name, "integer", "", name) for name in ("count", "errors")]
    shape += [Column(name, "number", "", name) for name in _STATISTICS]
    return _as_durations(_frame(session, statement, shape))


def _quantiles(session: Session, rows: sa.Select[Any], columns: Sequence[Column]) -> pd.DataFrame:
    shape = [Column(c.name, c.kind, "", c.name) for c in columns]
    shape += [Column(name, "integer", "", name) for name in ("took", "failed")]
    frame = _frame(session, rows, shape)
    groups = frame.groupby([c.name for c in columns], observed=True, dropna=False)
    took = groups["took"]
    result = pd.DataFrame(
        {
            "count": groups.size(),
            "errors": groups["failed"].sum(),
            "total": took.sum(min_count=1),
            "mean": took.mean(),
            "p50": took.quantile(0.5),
            "p95": took.quantile(0.95),
            "max": took.max(),
        }
    ).reset_index()
    return _as_durations(result.astype({"count": "Int64", "errors": "Int64"}))


def _as_durations(frame: pd.DataFrame) -> pd.DataFrame:
    for name in _STATISTICS:
        milliseconds = frame[name].astype("Float64").round().astype("Int64")
        frame[name] = pd.to_timedelta(milliseconds.astype("float64"), unit="ms").astype(
            "timedelta64[ms]"
        )
    return frame


def summary(session: Session, queries: Queries) -> dict[str, Any]:
    """Gather what the client's card shows, in one snapshot."""
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


MOST_FAILURES = 500
"""Failed workflows whose errors are looked up, the newest: more would not be read by anyone."""


@dataclass(frozen=True)
class Health:
    """One moment of an application.

    Attributes
    ----------
    read_at
        The end of the window.
    window
        Its length.
    bucket
        The width of a bar.
    active
        How many workflows are DELAYED, ENQUEUED, PENDING now, by status.
    ended
        Columns ``status``, ``completed_at`` (start of the bucket), ``count``.
    queues
        As :meth:`Client.queues`.
    failures
        Columns ``name``, ``error_type``, ``error_message`` (the newest), ``messages`` (how many
        different ones, no message among them), ``count``, ``last`` and ``workflow_id`` (the
        newest); most first.
    cut
        Whether more failed than were looked at.
    """

    read_at: dt.datetime
    window: dt.timedelta
    bucket: dt.timedelta
    active: dict[str, int]
    ended: pd.DataFrame
    queues: pd.DataFrame
    failures: pd.DataFrame
    cut: bool


def health(
    session: Session,
    queries: Queries,
    window: dt.timedelta,
    bucket: dt.timedelta,
    decoder: Decoder,
) -> Health:
    """Read it, in one snapshot.

    The times of endings are ``completed_at`` where the database has it, else ``updated_at``.
    """
    now = dt.datetime.now(dt.UTC)
    since = int((now - window).timestamp() * 1000)
    recorded = queries.catalog.has("workflow_status", "completed_at")
    moment = "completed_at" if recorded else "updated_at"
    statuses = list(TERMINAL_STATUSES)
    after = {"completed_after": since} if recorded else {"start_time": since}
    active, ended = aggregates.all_counts(
        session,
        queries,
        ("status", None, "created_at", {"status": list(ACTIVE_STATUSES)}),
        ("status", bucket, moment, {"status": statuses} | after),
    )
    failed, cut = listings.workflows(
        session,
        queries,
        {"status": list(ERROR_STATUSES)} | after,
        MOST_FAILURES,
        None,
        decoder,
        sort_desc=True,
        load_input=False,
        load_output=False,
        load_errors=True,
        normalize=False,
    )
    return Health(
        now,
        window,
        bucket,
        dict(zip(active["status"].astype(str), map(int, active["count"]), strict=True)),
        ended.rename(columns={moment: "completed_at"}),
        aggregates.queues(session, queries),
        _failures(failed, moment),
        cut,
    )


def _failures(failed: pd.DataFrame, moment: str) -> pd.DataFrame:
    keys = ["name", "error_type"]
    columns = [*keys, "error_message", "messages", "count", "last", "workflow_id"]
    if failed.empty:
        return pd.DataFrame(columns=columns)
    newest = failed.sort_values(moment, ascending=False).rename(columns={moment: "last"})
    said = newest["error_message"].astype("object")
    newest["error_message"] = said.where(said != "")
    newest["messages"] = said.where(said.notna(), "")
    groups = newest.groupby(keys, observed=True, dropna=False, sort=False)
    found = groups[["error_message", "last", "workflow_id"]].first()
    found["messages"] = groups["messages"].nunique()
    found["count"] = groups.size()
    found = found.reset_index().sort_values(["count", "last"], ascending=False)
    return found[columns].reset_index(drop=True)
