"""One queue over time: what came, started and ended, what waited and how long, how full it was.

What is measured follows from the recorded times of the runs whose row still names the queue. DBOS
clears the queue of a cancelled run, and resumes runs on its internal queue unless another is given,
so both are missing here. The limits of a queue are those of now: DBOS keeps no history of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.selections import run_columns, run_rows
from dbos_notebook.analysis.throughput import (
    LEVELS,
    UNKNOWN,
    Array,
    Window,
    choose,
    event_query,
    fill_events,
    integers,
    level_columns,
    level_query,
    now_ms,
    numbered,
    read_parts,
    shared,
    unknown_query,
    without_window,
)
from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.tables import aggregates, frames
from dbos_notebook.tables.aggregates import read_frame
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.filters import as_name
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session

QUANTILES = {"queue_wait_p50": 50, "queue_wait_p99": 99}
"""Columns of quantiles, in percent."""
DEFAULT_EXECUTOR = "local"
"""The executor ID of every process that was given none, so that their number is unknown."""


class Limits(NamedTuple):
    """The limits of a queue; ``None``: no limit."""

    concurrency: int | None = None
    worker_concurrency: int | None = None
    rate: int | None = None
    period: float | None = None
    partitioned: bool = False

    @classmethod
    def take(cls, row: pd.Series[Any]) -> Limits:
        """Return the limits in a row of ``Client.queues``."""

        def number(name: str) -> Any:
            return None if pd.isna(row[name]) else row[name].item()

        of_partitions = ("partition_concurrency", "partition_worker_concurrency")
        by_partition = any(
            number(name) is not None for name in (*of_partitions, "partition_rate_limit_max")
        )
        partitioned = row["partition_queue"] is not pd.NA and bool(row["partition_queue"])
        if partitioned and not by_partition:
            # Before dbos 3.3, these limits were those of each partition.
            return cls(partitioned=True)
        period = number("rate_limit_period")
        rate = number("rate_limit_max") if period else None
        return cls(number("concurrency"), number("worker_concurrency"), rate, period, by_partition)


def queue_history(
    session: Session, queries: Queries, queue: str, bucket: Any, filters: Mapping[str, Any]
) -> pd.DataFrame:
    """Return what happened on a queue in each bucket."""
    name = as_name(queue, "queue")
    if "queue_name" in filters:
        raise FilterError(
            f"queue_name={filters['queue_name']!r} and queue={name!r} both select queues. "
            "Omit queue_name."
        )
    settings = aggregates.queues(session, queries)
    require_known(session, queries, name, settings)
    window = Window.take(filters, bucket, now_ms())
    selected = {**without_window(filters), "queue_name": [name]}
    columns = run_columns(("queue_name", "executor_id"))
    rows = shared(run_rows(queries, columns, selected, window.now))
    counted, changes, waits, executors, unknown = read_parts(
        session,
        event_query(rows, window, "enqueued_at_ms"),
        level_query(rows, (), window),
        _wait_query(rows, window),
        _executor_query(rows, window),
        unknown_query(rows, window),
    )
    found = unknown.iloc[0]
    frame = fill_events(counted, window, active=found["active"] > 0)
    # A cancelled run no longer names its queue.
    frame = frame.rename(columns={"created": "enqueued"}).drop(columns="cancelled")
    starts = frame["time"].to_numpy("datetime64[ms]").astype("int64")
    for number, level in enumerate(LEVELS):
        part = changes[changes["level"] == number]
        frame = frame.assign(**level_columns(level, part, starts, window))
    frame = frame.assign(**_quantiles(waits, starts))
    used = executors.set_index("bucket")["executors"].reindex(starts)
    frame["executors"] = pd.Series(used.to_numpy(), dtype="Int64")
    own = settings[settings["queue_name"] == name]
    limits = Limits() if own.empty else Limits.take(own.iloc[0])
    frame = frame.assign(**_utilization(frame, limits, window.lengths(starts)))
    frame.attrs[UNKNOWN] = {
        "enqueued": int(found["waiting"]),
        **{column: int(found[column]) for column in ("started", "ended", "running", "waiting")},
        # Their rows no longer name a queue, so some of them may have been on this one.
        "cancelled": _cancelled(session, queries, window, filters),
    }
    frame.attrs["limits"] = limits._asdict()
    return frames.mark_listing(frame, "queue_history")


def require_known(session: Session, queries: Queries, name: str, settings: pd.DataFrame) -> None:
    """Raise FilterError for a queue that neither the settings nor a run name."""
    known = settings["queue_name"].dropna().unique().tolist()
    if name in known or not _other_queues(session, queries, [name]).empty:
        return
    known += _other_queues(session, queries)["queue_name"].astype("str").tolist()
    listed = ", ".join(sorted(set(known))[:10]) or "none"
    raise FilterError(
        f"No queue is named {name!r}.{nearest(name, known)} The queues are: {listed}."
    )


def _other_queues(
    session: Session, queries: Queries, names: list[str] | None = None
) -> pd.DataFrame:
    """Return the queues that runs name, with ``names`` only those."""
    column = queries.column(queries.workflows, "queue_name")
    filters = {} if names is None else {"queue_name": names}
    statement = sa.select(column.label("queue_name")).where(
        column.is_not(None), *queries.where(filters)
    )
    statement = statement.limit(1) if names else statement.distinct()
    return read_frame(session, statement, (Column("queue_name", "text", "", "queue_name"),))


def _cancelled(
    session: Session, queries: Queries, window: Window, filters: Mapping[str, Any]
) -> int:
    """Count the cancelled runs in the window whose row names no queue."""
    table = queries.workflows
    times = (queries.valid_time(table, name) for name in ("completed_at", "updated_at"))
    statement = sa.select(sa.func.count().label("count")).where(
        queries.column(table, "queue_name").is_(None),
        *window.inside(sa.func.coalesce(*times)),
        *queries.where({**without_window(filters), "status": ["CANCELLED"]}),
    )
    return int(read_frame(session, statement, integers("count"))["count"].iloc[0])


def _wait_query(rows: sa.FromClause, window: Window) -> tuple[sa.Select[Any], list[Column]]:
    """Select the quantiles of the waits that ended in each bucket.

    By rank, because SQLite has no quantiles: as ``percentile_disc``, which statistics use.
    """
    bucket = window.bucket(rows.c.started_at_ms).label("bucket")
    wait = rows.c.queue_wait_ms
    rank = sa.func.row_number().over(partition_by=bucket, order_by=wait)
    ranked = (
        sa.select(
            bucket,
            wait.label("wait"),
            rank.label("rank"),
            sa.func.count().over(partition_by=bucket).label("waits"),
        )
        .where(wait.is_not(None), rows.c.started_at_ms.is_not(None))
        .where(*window.inside(rows.c.started_at_ms))
        .subquery("ranked")
    )
    values = []
    for name, percent in QUANTILES.items():
        is_quantile = ranked.c.rank == (ranked.c.waits * percent + 99) // 100
        values.append(sa.func.max(sa.case((is_quantile, ranked.c.wait))).label(name))
    statement = sa.select(ranked.c.bucket, sa.func.count().label("waits"), *values).group_by(
        ranked.c.bucket
    )
    return statement, integers("bucket", "waits", *(value.name for value in values))


def _quantiles(waits: pd.DataFrame, starts: Array) -> dict[str, Any]:
    indexed = waits.set_index("bucket").reindex(starts).reset_index(drop=True)
    columns: dict[str, Any] = {"waits": indexed["waits"].fillna(0).astype("Int64")}
    for name in QUANTILES:
        value = indexed[name].astype("float64")
        columns[name] = pd.to_timedelta(value, unit="ms").astype("timedelta64[ms]")
    return columns


def _executor_query(rows: sa.FromClause, window: Window) -> tuple[sa.Select[Any], list[Column]]:
    """Count the executors that started or ended runs in each bucket; NULL if that is unknown."""
    kinds = numbered(2, "event")
    time = choose(kinds.c.event, (rows.c.started_at_ms, rows.c.ended_at_ms))
    seen = (
        sa.select(window.bucket(time).label("bucket"), rows.c.executor_id)
        .select_from(rows.join(kinds, sa.true()))
        .where(time.is_not(None), *window.inside(time))
        .where(rows.c.started_at_ms.is_not(None), rows.c.executor_id.is_not(None))
        .distinct()
        .subquery("seen")
    )
    unnamed = sa.func.max(sa.case((seen.c.executor_id == DEFAULT_EXECUTOR, 1), else_=0))
    count = sa.case((unnamed == 0, sa.func.count()))
    statement = sa.select(seen.c.bucket, count.label("executors")).group_by(seen.c.bucket)
    return statement, integers("bucket", "executors")


def _utilization(frame: pd.DataFrame, limits: Limits, lengths: Array) -> dict[str, Any]:
    """Return the use of the limit that was used most in each bucket, and which one it is."""
    running = frame["running_mean"]
    used: dict[str, pd.Series[Any]] = {}
    if limits.concurrency:
        used["concurrency"] = running / limits.concurrency
    if limits.worker_concurrency:
        slots = frame["executors"].astype("float64") * limits.worker_concurrency
        used["worker_concurrency"] = running / slots.where(slots > 0)
    if limits.rate and limits.period:
        allowed = limits.rate * lengths / (limits.period * 1000)
        used["rate_limit"] = frame["started"].astype("float64") / allowed
    if not used:
        missing = pd.Series(np.nan, frame.index, "float64")
        return {"utilization": missing, "limit": pd.Series(None, frame.index, STRING_DTYPE)}
    table = pd.DataFrame(used, index=frame.index, dtype="float64")
    highest = table.max(axis="columns")
    names = [
        None if pd.isna(value) else str(row.idxmax())
        for value, (_, row) in zip(highest, table.iterrows(), strict=True)
    ]
    return {"utilization": highest, "limit": pd.Series(names, frame.index, STRING_DTYPE)}
