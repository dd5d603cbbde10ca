"""Statistics of workflows and steps: counts, failures and durations by group, over time.

Quantiles are computed from counts per duration (exact) or per logarithmic bucket of durations, both
in the database: one pass over the rows, of which only the groups are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis import selections
from dbos_notebook.analysis.selections import bucket_limits, bucket_value, log_bucket
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import bucket_ms, read_frame, select_columns
from dbos_notebook.tables.columns import STEP, WORKFLOW, Column
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session

Subject = Literal["workflow", "step"]

PERCENTS = (50, 90, 99)
WAIT_PERCENTS = (50, 99)
"""The percentiles of durations, and those of the time on a queue."""
HISTOGRAM_BITS = 1
"""A latency histogram has two buckets between two powers of two: seven per factor of ten."""
WORK_MEMORY = "64MB"
"""What Postgres may use for the groups of a statement, if its own limit is lower; by default it is
4 MB, for which it would sort all rows instead of keeping the groups in memory."""

_TIMES = {
    "workflow": {c.name: c for c in WORKFLOW if c.source and c.kind == "instant"},
    "step": {c.name: c for c in STEP if c.kind == "instant"},
}
_DEFAULT_TIME = {"workflow": "created_at", "step": "started_at"}


def workflow_statistics(
    session: Session,
    queries: Queries,
    by: str | Iterable[str],
    bucket: Any,
    time: str,
    exact: bool,  # noqa: FBT001 - Store.read passes it on
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Summarize the durations, waits and failures of the selected workflows by group."""
    columns = selections.run_columns(by)
    return _statistics(session, queries, "workflow", columns, bucket, time, exact, filters)


def step_statistics(
    session: Session,
    queries: Queries,
    by: str | Iterable[str],
    bucket: Any,
    time: str,
    exact: bool,  # noqa: FBT001 - Store.read passes it on
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Summarize the durations and failures of the steps of the selected workflows by group."""
    columns = selections.step_columns(by)
    return _statistics(session, queries, "step", columns, bucket, time, exact, filters)


def latency_histogram(
    session: Session,
    queries: Queries,
    subject: Subject,
    by: str | Iterable[str],
    bucket: Any,
    time: str | None,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Count the selected workflows or steps by time and by duration."""
    if subject not in _TIMES:
        raise FilterError(f"of={subject!r} is neither 'workflow' nor 'step'.")
    keys = selections.run_columns if subject == "workflow" else selections.step_columns
    columns = _with_time(keys(by), subject, bucket, time)
    rows = _rows(session, queries, subject, columns, bucket, filters)
    level = log_bucket(rows.c.duration, HISTOGRAM_BITS).label("level")
    statement = sa.select(
        *(rows.c[column.name] for column in columns),
        level,
        sa.func.count().label("count"),
        sa.func.sum(rows.c.failed).label("errors"),
    ).group_by(*(rows.c[column.name] for column in columns), level)
    _allow_memory(session, queries)
    frame = read_frame(
        session,
        statement,
        [
            *_plain(columns),
            *(Column(name, "integer", "", name) for name in ("level", "count", "errors")),
        ],
    )
    known = frame["level"].notna()
    limits = bucket_limits(frame["level"].fillna(0).to_numpy("int64"), HISTOGRAM_BITS)
    for place, (name, limit) in enumerate(
        zip(("duration_from", "duration_to"), limits, strict=True)
    ):
        durations = pd.Series(limit.astype("timedelta64[ms]"), index=frame.index)
        frame.insert(len(columns) + place, name, durations.where(known))
    frame = _sorted(frame.drop(columns="level"), columns, ["duration_from"], ascending=True)
    return frames.mark_listing(frame, "latency_histogram")


def _statistics(
    session: Session,
    queries: Queries,
    subject: Subject,
    by: Sequence[Column],
    bucket: Any,
    time: str,
    exact: bool,  # noqa: FBT001 - Store.read passes it on
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    columns = _with_time(by, subject, bucket, time)
    rows = _rows(session, queries, subject, columns, bucket, filters)
    _allow_memory(session, queries)
    statement, shape = _quantiles(rows, columns, exact=exact)
    found = read_frame(session, statement, shape)
    # Without a column to group by, there is a row even if nothing is selected.
    found = found[found["count"].notna()].reset_index(drop=True)
    names = [column.name for column in columns]
    frame = found[[*names, "count"]].copy()
    ended = found["count"]
    if "active" in found:
        frame["active"] = found["active"]
        ended = ended - found["active"]
    frame["errors"] = found["failed"]
    frame["error_rate"] = _ratio(found["failed"], ended)
    frame["total"] = found["total"]
    total = found["total"].to_numpy("float64", na_value=np.nan)
    frame["share"] = _ratio(found["total"], pd.Series(np.nansum(total), index=found.index))
    frame["mean"] = _ratio(found["total"], found["measured"])
    for percent in PERCENTS:
        frame[f"p{percent}"] = _quantile(found, f"p{percent}", "", exact=exact)
    frame["max"] = found["max"]
    durations = ["total", "mean", *(f"p{percent}" for percent in PERCENTS), "max"]
    if "wait_max" in found:
        for percent in WAIT_PERCENTS:
            name = f"queue_wait_p{percent}"
            frame[name] = _quantile(found, f"wait_p{percent}", "wait_", exact=exact)
            durations.append(name)
    for name in durations:
        frame[name] = _durations(frame[name])
    frame = _sorted(frame, columns, ["total", "count"], ascending=False)
    return frames.mark_listing(frame, f"{subject}_statistics")


def _with_time(
    columns: Sequence[Column], subject: Subject, bucket: Any, time: str | None
) -> list[Column]:
    """Return the columns of the groups; the last is the time that is bucketed, if any is."""
    if bucket is None:
        return list(columns)
    wanted = _DEFAULT_TIME[subject] if time is None else time
    (moment,) = select_columns(wanted, _TIMES[subject], "time")
    if moment in columns:
        raise FilterError(
            f"by has {moment.name!r}, which bucket={bucket!r} groups already. Remove it from by, "
            "or give another time."
        )
    return [*columns, moment]


def _rows(
    session: Session,
    queries: Queries,
    subject: Subject,
    columns: Sequence[Column],
    bucket: Any,
    filters: Mapping[str, Any],
) -> sa.Subquery:
    """Select the columns of the groups and the measures of each selected workflow or step.

    The measures are ``failed`` and ``duration``, for workflows also ``active`` and ``wait``.
    Durations and waits that did not end are NULL.
    """
    if subject == "workflow":
        rows = selections.run_rows(queries, columns, filters, None)
        measures = [
            rows.c.active,
            rows.c.duration_ms.label("duration"),
            rows.c.queue_wait_ms.label("wait"),
        ]
    else:
        forks = selections.has_forks(session, queries)
        rows = selections.step_rows(queries, columns, filters, forks=forks)
        measures = [rows.c.duration_ms.label("duration")]
    keys: list[sa.ColumnElement[Any]] = [rows.c[column.name] for column in columns]
    selected = sa.select(rows.c.failed, *measures)
    if bucket is not None:
        moment = queries.valid_time(rows, columns[-1].name)
        width = sa.literal_column(f"({bucket_ms(bucket)})", sa.BigInteger())
        start = sa.cast(moment, sa.BigInteger()) // width * width
        keys[-1] = start.label(columns[-1].name)
        selected = selected.where(moment.is_not(None))
    return selections.evaluated_once(selected.add_columns(*keys).subquery("measured"))


def _quantiles(
    rows: sa.Subquery, columns: Sequence[Column], *, exact: bool
) -> tuple[sa.Select[Any], list[Column]]:
    """Select the statistics of each group, with the levels of its percentiles.

    A level is a duration, or its logarithmic bucket.
    """
    keys = [column.name for column in columns]
    waits = "wait" in rows.c
    measures = ["failed", "active"] if waits else ["failed"]
    if waits:
        rows = _twice(rows, [*keys, *measures])
    groups = [*keys, "is_wait"] if waits else keys
    level = rows.c.duration if exact else log_bucket(rows.c.duration)
    selected = {
        **{name: rows.c[name] for name in groups},
        "level": level,
        "rows": sa.func.count(),
        **{name: sa.func.sum(rows.c[name]) for name in measures},
    }
    if not exact:
        selected["total"] = sa.func.sum(rows.c.duration)
        selected["least"] = sa.func.min(rows.c.duration)
        selected["most"] = sa.func.max(rows.c.duration)
    positions: list[sa.ColumnElement[Any]] = [
        sa.literal_column(str(place + 1)) for place in range(len(groups) + 1)
    ]
    levels = _labelled(selected).group_by(*positions).subquery("levels")

    # The number of durations up to each level, and of all in its group.
    measured = sa.case((levels.c.level.is_not(None), levels.c.rows), else_=0)
    partition = [levels.c[name] for name in groups] or None
    ranks = {
        name: sa.cast(
            sa.func.sum(measured).over(partition_by=partition, order_by=order), sa.BigInteger()
        )
        for name, order in (("reached", levels.c.level), ("durations", None))
    }
    ranked = _labelled({**levels.c, **ranks}).subquery("ranked")
    of_duration, of_wait = ([ranked.c.is_wait == number] if waits else [] for number in (0, 1))

    def among(item: sa.ColumnElement[Any], *conditions: Any) -> sa.ColumnElement[Any]:
        return sa.case((sa.and_(*conditions), item)) if conditions else item

    def percentile(percent: int, *conditions: Any) -> sa.ColumnElement[Any]:
        reached = ranked.c.reached * 100 >= ranked.c.durations * percent
        return sa.func.min(among(ranked.c.level, reached, *conditions))

    amount = ranked.c.level * ranked.c.rows if exact else ranked.c.total
    least, most = (ranked.c.level if exact else ranked.c[name] for name in ("least", "most"))
    results = {
        "count": sa.func.sum(among(ranked.c.rows, *of_duration)),
        **{name: sa.func.sum(among(ranked.c[name], *of_duration)) for name in measures},
        "measured": sa.func.max(among(ranked.c.durations, *of_duration)),
        "total": sa.func.sum(among(amount, *of_duration)),
        "min": sa.func.min(among(least, *of_duration)),
        "max": sa.func.max(among(most, *of_duration)),
        **{f"p{percent}": percentile(percent, *of_duration) for percent in PERCENTS},
    }
    if waits:
        results["wait_min"] = sa.func.min(among(least, *of_wait))
        results["wait_max"] = sa.func.max(among(most, *of_wait))
        results |= {f"wait_p{percent}": percentile(percent, *of_wait) for percent in WAIT_PERCENTS}
    by = {name: ranked.c[name] for name in keys}
    statement = _labelled(by | results).group_by(*by.values())
    return statement, [*_plain(columns), *(Column(name, "integer", "", name) for name in results)]


def _twice(rows: sa.Subquery, names: Sequence[str]) -> sa.Subquery:
    """Return each row for its duration and, if it is known, for its wait, as ``duration``."""
    numbers = (sa.literal_column(number, sa.Integer()).label("is_wait") for number in "01")
    which = sa.union_all(*(sa.select(number) for number in numbers)).subquery("which")
    duration = sa.case((which.c.is_wait == 0, rows.c.duration), else_=rows.c.wait)
    each = (
        sa.select(*(rows.c[name] for name in names), which.c.is_wait, duration.label("duration"))
        .select_from(rows.join(which, sa.or_(which.c.is_wait == 0, rows.c.wait.is_not(None))))
        .subquery("each")
    )
    return selections.evaluated_once(each)


def _labelled(columns: Mapping[str, sa.ColumnElement[Any]]) -> sa.Select[Any]:
    return sa.select(*(column.label(name) for name, column in columns.items()))


def _plain(columns: Iterable[Column]) -> list[Column]:
    """Return the columns as they are read from a result that has their names."""
    return [Column(column.name, column.kind, "", column.name) for column in columns]


def _allow_memory(session: Session, queries: Queries) -> None:
    if queries.catalog.dialect == "postgresql":
        limit = sa.func.set_config("work_mem", WORK_MEMORY, sa.true())
        lower = sa.text(
            f"pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('{WORK_MEMORY}')"
        )
        session.rows(sa.select(limit).where(lower))


def _quantile(found: pd.DataFrame, name: str, kind: str, *, exact: bool) -> pd.Series[float]:
    """Return durations in milliseconds; of buckets their middle, within the known extremes."""
    level = found[name]
    if exact:
        return level
    middle = pd.Series(bucket_value(level.fillna(0).to_numpy("int64")), index=found.index)
    low, high = (found[f"{kind}{end}"].astype("Float64") for end in ("min", "max"))
    return middle.astype("Float64").clip(low, high).where(level.notna())


def _ratio(part: pd.Series[Any], whole: pd.Series[Any]) -> pd.Series[float]:
    divisor = whole.astype("float64").replace(0, np.nan)
    return part.astype("float64") / divisor


def _durations(milliseconds: pd.Series[Any]) -> pd.Series[Any]:
    whole = milliseconds.astype("Float64").round()
    known = whole.notna().to_numpy()
    durations = np.where(known, whole.fillna(0).to_numpy("int64"), 0).astype("timedelta64[ms]")
    return pd.Series(durations, index=milliseconds.index).where(known)


def _sorted(
    frame: pd.DataFrame, columns: Sequence[Column], then: list[str], *, ascending: bool
) -> pd.DataFrame:
    """Sort by time, if it is grouped, then by ``then``; ties by the columns of the groups."""
    moments = [column.name for column in columns if column.kind == "instant"]
    names = [column.name for column in columns if column.kind != "instant"]
    if names:
        frame = frame.sort_values(names, key=lambda column: column.astype(str))
    for name in (*reversed(then), *reversed(moments)):
        frame = frame.sort_values(name, ascending=ascending or name in moments, kind="stable")
    return frame.reset_index(drop=True)
