"""How many runs were created, started and ended, and how many ran and waited, over time.

Both are computed from the recorded times of runs. A time that DBOS erased (on cancel) or never
recorded (of an earlier life of a resumed run) is not guessed: such runs are counted in
``attrs["unknown"]``.

A level, such as the number of running runs, changes by one at each start and each end. The database
adds up these changes by bucket, with the sum of their moments, from which the mean follows exactly,
and with the highest level, from a window function.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.selections import evaluated_once, run_columns, run_rows
from dbos_notebook.errors import FilterError
from dbos_notebook.status import (
    ERROR_STATUSES,
    INTERRUPTED_STATUSES,
    TERMINAL_STATUSES,
    WAITING_STATUSES,
)
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import TableQuery, bucket_ms, read_frame
from dbos_notebook.tables.columns import Column
from dbos_notebook.tables.filters import as_seconds, as_timedelta
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.types import Duration

MAX_BUCKETS = 100_000
"""Rows of a result at most; a narrow bucket over a long time would fill the memory."""

WINDOW = ("start_time", "end_time")
UNKNOWN = "unknown"
"""The key in ``attrs`` of how many runs a column leaves out, because their times are unknown."""
LEVELS = ("waiting", "running")

Array = np.ndarray[Any, Any]


def now_ms() -> int:
    """Return the present in milliseconds since 1970."""
    return round(dt.datetime.now(dt.UTC).timestamp() * 1000)


def milliseconds(value: Duration | str, name: str) -> int:
    """Convert seconds, a timedelta or a string such as "30s" to milliseconds."""
    try:
        if isinstance(value, str):
            seconds: float | None = as_timedelta(value).total_seconds()
        else:
            seconds = as_seconds(value, name)
    except (ValueError, TypeError) as error:
        raise FilterError(
            f"{name}={value!r} is not a duration: {str(error).removesuffix('.')}. Give seconds, a "
            "timedelta, or a string such as '30s' or '28d'."
        ) from None
    if seconds is None or not 0 < seconds < 1e10:
        raise FilterError(
            f"{name}={value!r} must be longer than 0: seconds, a timedelta, or a string such as "
            "'30s' or '28d'."
        )
    return max(1, round(seconds * 1000))


@dataclass(frozen=True)
class Window:
    """The times that a result is limited to, in milliseconds since 1970; ``None``: no limit.

    Both are multiples of the width of a bucket, so that no bucket at the edges is incomplete.
    """

    start: int | None
    end: int | None
    width: int
    now: int

    @classmethod
    def take(cls, filters: Mapping[str, Any], bucket: Any, now: int) -> Window:
        """Return the window of checked filters, widened to whole buckets."""
        width = bucket_ms(bucket)
        start, end = (filters.get(name) for name in WINDOW)
        return cls(
            None if start is None else start // width * width,
            None if end is None else (end // width + 1) * width,
            width,
            now,
        )

    def inside(self, time: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
        """Return the conditions that a time is in the window."""
        conditions = [] if self.start is None else [time >= self.start]
        return conditions if self.end is None else [*conditions, time < self.end]

    def bucket(self, time: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return the start of a time's bucket."""
        width = sa.literal_column(f"({self.width})", sa.BigInteger())
        return time // width * width

    def buckets(
        self, first: int | None, last: int | None, *, active: bool, groups: int = 1
    ) -> Array:
        """Return the starts of all buckets from the first to the last event, without gaps.

        A window that was asked for is returned from its start to its end; without an end, to now.
        Without a window, the buckets extend to now if a run is still active.

        Raises
        ------
        FilterError
            There are too many.
        """
        if self.start is not None and self.start > self.now:
            return np.array([], "int64")
        # A clock of the application may be ahead, so an event may be later than now.
        begin = self.start if self.start is not None else first
        current = self.now // self.width * self.width
        end = last
        if active or self.start is not None:
            end = max(current, current if last is None else last)
        if self.end is not None:
            until = self.end - self.width
            end = min(until, current if last is None else max(current, last))
        if begin is None or end is None or end < begin:
            return np.array([], "int64")
        count = (end - begin) // self.width + 1
        if count * groups > MAX_BUCKETS:
            times = f"{_format(begin)} to {_format(end)}"
            many = f"{count * groups:,} rows" if groups > 1 else f"{count:,} buckets"
            raise FilterError(
                f"bucket={pd.Timedelta(self.width, unit='ms')} gives {many} from {times}; the "
                f"limit is {MAX_BUCKETS:,}. Use a wider bucket, or start_time= and end_time=."
            )
        return np.arange(begin, end + 1, self.width, dtype="int64")

    def lengths(self, starts: Array) -> Array:
        """Return how long each bucket is, in milliseconds: the current one ends now."""
        past = np.clip(self.now - starts, 0, self.width)
        # An event in the future of this clock: its bucket counts as a whole.
        return np.where(past > 0, past, self.width)


def _format(time: int) -> str:
    return f"{pd.Timestamp(time, unit='ms', tz='UTC'):%Y-%m-%d %H:%M}"


def without_window(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that select runs: a window selects buckets."""
    return {name: value for name, value in filters.items() if name not in WINDOW}


def bounds(values: pd.Series[Any]) -> tuple[int | None, int | None]:
    """Return the least and the greatest of some integers; ``None`` if there are none."""
    return (None, None) if values.empty else (int(values.min()), int(values.max()))


def instants(starts: Array) -> pd.DatetimeIndex:
    """Convert milliseconds since 1970 to instants."""
    return pd.DatetimeIndex(starts.astype("datetime64[ms]"), tz="UTC")


def integers(*names: str) -> list[Column]:
    """Return columns of integers, as which the results of these statements are read."""
    return [Column(name, "integer", "", name) for name in names]


def numbered(count: int, name: str) -> sa.Subquery:
    """Return the numbers from 0 as rows, to get several rows of each run with one scan."""
    selects = [sa.select(sa.literal_column(str(i), sa.Integer()).label(name)) for i in range(count)]
    return sa.union_all(*selects).subquery(f"{name}s")


def shared(rows: sa.Subquery) -> sa.CTE:
    """Return the same rows for several parts of one statement, which then selects them once."""
    return sa.select(*rows.c).cte("runs")


def read_parts(session: Session, *parts: TableQuery) -> list[pd.DataFrame]:
    """Read several small results with one statement, so that it selects their runs only once.

    Columns of the same name have the same type. Others than integers are in the first part, from
    which Postgres takes their types.
    """
    columns = {column.name: column for _, shape in parts for column in shape}
    selects = []
    for number, (statement, _) in enumerate(parts):
        found = statement.subquery(f"part_{number}")
        values = [
            found.c[name]
            if name in found.c
            else sa.cast(sa.null(), sa.BigInteger())
            if column.kind == "integer"
            else sa.null()
            for name, column in columns.items()
        ]
        named = [value.label(name) for name, value in zip(columns, values, strict=True)]
        selects.append(
            sa.select(sa.literal_column(str(number), sa.Integer()).label("part"), *named)
        )
    every = sa.union_all(*selects).subquery("parts")
    frame = read_frame(session, sa.select(*every.c), [*integers("part"), *columns.values()])
    return [
        frame.loc[frame["part"] == number, [column.name for column in shape]].reset_index(drop=True)
        for number, (_, shape) in enumerate(parts)
    ]


def choose(number: sa.ColumnElement[Any], values: Sequence[sa.ColumnElement[Any]]) -> Any:
    """Return the value at a number's position."""
    return sa.case(*((number == position, value) for position, value in enumerate(values)))


# Throughput

EVENTS = ("created", "started", "succeeded", "failed", "cancelled")


def throughput(
    session: Session, queries: Queries, bucket: Any, filters: Mapping[str, Any]
) -> pd.DataFrame:
    """Count the runs that were created, started and ended in each bucket."""
    window = Window.take(filters, bucket, now_ms())
    rows = shared(run_rows(queries, run_columns("queue_name"), without_window(filters), window.now))
    counted, unknown = read_parts(
        session, event_query(rows, window, "created_at_ms"), unknown_query(rows, window)
    )
    found = dict(zip(unknown.columns, unknown.iloc[0].tolist(), strict=True))
    frame = fill_events(counted, window, active=found["active"] > 0)
    frame.attrs[UNKNOWN] = {name: int(found[name]) for name in ("created", "started", "ended")}
    return frames.mark_listing(frame, "throughput")


def event_query(
    rows: sa.FromClause, window: Window, arrival: str
) -> tuple[sa.Select[Any], list[Column]]:
    """Count arrivals (by a column of their times), starts and ends by bucket, with one scan."""
    kinds = numbered(3, "event")
    kind = kinds.c.event
    time = choose(kind, (rows.c[arrival], rows.c.started_at_ms, rows.c.ended_at_ms))
    outcome = sa.case(
        (rows.c.run_status == "SUCCESS", 2), (rows.c.run_status.in_(ERROR_STATUSES), 3), else_=4
    )
    events = (
        sa.select(time.label("time"), sa.case((kind == 2, outcome), else_=kind).label("event"))
        .select_from(rows.join(kinds, sa.true()))
        .where(time.is_not(None))
        .subquery("events")
    )
    counts = [
        sa.func.sum(sa.case((events.c.event == position, 1), else_=0)).label(name)
        for position, name in enumerate(EVENTS)
    ]
    statement = (
        sa.select(window.bucket(events.c.time).label("bucket"), *counts)
        .where(*window.inside(events.c.time))
        .group_by(sa.literal_column("1"))
    )
    return statement, integers("bucket", *EVENTS)


def fill_events(counted: pd.DataFrame, window: Window, *, active: bool) -> pd.DataFrame:
    """Return the counts of all buckets, with zeros where nothing happened."""
    indexed = counted.set_index("bucket").sort_index()
    first, last = bounds(counted["bucket"])
    starts = window.buckets(first, last, active=active)
    filled = indexed.reindex(starts).fillna(0).astype("Int64").reset_index(drop=True)
    filled.insert(0, "time", instants(starts))
    return filled


def unknown_query(rows: sa.FromClause, window: Window) -> tuple[sa.Select[Any], list[Column]]:
    """Count the runs whose times are unknown, by what would need them, and those still active.

    With a window, those that ended before it or were created after it are not counted.
    """
    status, wait, started = rows.c.run_status, rows.c.queue_wait_ms, rows.c.started_at_ms
    waits = status.in_(WAITING_STATUSES)
    # Cancelled while it waited, which only its deadline can show.
    never_ran = sa.and_(status.in_(INTERRUPTED_STATUSES), started.is_(None), wait.is_not(None))
    ran = sa.not_(sa.or_(waits, never_ran))
    queued = sa.or_(rows.c.queue_name.is_not(None), status.in_(INTERRUPTED_STATUSES))
    conditions = {
        "created": rows.c.created_at_ms.is_(None),
        "started": sa.and_(ran, started.is_(None)),
        "ended": sa.and_(status.in_(TERMINAL_STATUSES), rows.c.ended_at_ms.is_(None)),
        "running": sa.and_(ran, rows.c.duration_ms.is_(None)),
        "waiting": sa.and_(queued, status != "DELAYED", wait.is_(None)),
        "active": status.not_in(TERMINAL_STATUSES),
    }
    counts = [
        sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0).label(name)
        for name, condition in conditions.items()
    ]
    statement = sa.select(*counts).select_from(rows)
    if window.start is not None:
        ended = rows.c.ended_at_ms
        statement = statement.where(sa.or_(ended.is_(None), ended >= window.start))
    if window.end is not None:
        created = rows.c.created_at_ms
        statement = statement.where(sa.or_(created.is_(None), created < window.end))
    return statement, integers(*conditions)


# Concurrency


def concurrency(
    session: Session,
    queries: Queries,
    bucket: Any,
    by: str | Iterable[str] | None,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Count the runs that ran and waited: at the start of each bucket, mean and maximum in it."""
    window = Window.take(filters, bucket, now_ms())
    keys = run_columns(() if by is None else by)
    selected = list(dict.fromkeys([*keys, *run_columns("queue_name")]))
    rows = shared(run_rows(queries, selected, without_window(filters), window.now))
    changes, unknown = read_parts(
        session, level_query(rows, keys, window), unknown_query(rows, window)
    )
    names = [column.name for column in keys]
    if names:
        groups = changes[names].drop_duplicates()
        groups = groups.sort_values(names, key=lambda column: column.astype("str"))
        groups = groups.reset_index(drop=True)
        matched = changes.merge(groups.reset_index(names="_group"), on=names)
    else:
        groups, matched = pd.DataFrame(index=range(1)), changes.assign(_group=0)
    first, last = bounds(changes["bucket"])
    # What has begun and not ended is still active.
    active = bool(changes["net"].sum())
    starts = window.buckets(first, last, active=active, groups=max(1, len(groups)))
    if not len(groups):
        starts = starts[:0]
    parts = [_group_levels(part, starts, window) for _, part in matched.groupby("_group")]
    # Without changes, one without rows, for its columns.
    parts = parts or [_group_levels(matched, starts, window)]
    frame = pd.concat(parts, ignore_index=True)
    for position, name in enumerate(names, 1):
        frame.insert(position, name, groups[name].repeat(len(starts)).reset_index(drop=True))
    if names:
        frame = frame.sort_values("time", kind="stable").reset_index(drop=True)
    found = unknown.iloc[0]
    frame.attrs[UNKNOWN] = {name: int(found[name]) for name in LEVELS[::-1]}
    return frames.mark_listing(frame, "concurrency")


def level_query(
    rows: sa.FromClause, keys: Sequence[Column], window: Window
) -> tuple[sa.Select[Any], list[Column]]:
    """Add up the changes of the levels by bucket, with one scan of the runs.

    ``net`` is the sum of the changes, ``at_start`` of those at the very start of the bucket,
    ``moment`` the sum of each multiplied by the time from it to the end of the bucket, and
    ``peak`` the highest level after a change. What began before the window counts as begun at its
    start.
    """
    names = [column.name for column in keys]
    levels = numbered(len(LEVELS), "level")
    number = levels.c.level
    # A begin whose end is unknown would count for ever.
    begins = (
        sa.case((rows.c.queue_wait_ms.is_not(None), rows.c.enqueued_at_ms)),
        sa.case((rows.c.duration_ms.is_not(None), rows.c.started_at_ms)),
    )
    ends = (
        sa.case((rows.c.run_status != "ENQUEUED", rows.c.enqueued_at_ms + rows.c.queue_wait_ms)),
        sa.case((rows.c.run_status != "PENDING", rows.c.started_at_ms + rows.c.duration_ms)),
    )
    spans = evaluated_once(
        sa.select(
            *(rows.c[name] for name in names),
            number,
            choose(number, begins).label("begin"),
            choose(number, ends).label("until"),
        )
        .select_from(rows.join(levels, sa.true()))
        .subquery("spans")
    )
    until = spans.c.until
    begin: sa.ColumnElement[Any] = spans.c.begin
    conditions: list[sa.ColumnElement[bool]] = [begin.is_not(None)]
    if window.start is not None:
        conditions.append(sa.or_(until.is_(None), until > window.start))
        begin = sa.case((begin < window.start, window.start), else_=begin)
    if window.end is not None:
        conditions.append(begin < window.end)
    sides = numbered(2, "side")
    time = choose(sides.c.side, (begin, until))
    changes = (
        sa.select(
            *(spans.c[name] for name in names),
            spans.c.level,
            (1 - 2 * sides.c.side).label("delta"),
            time.label("time"),
        )
        .select_from(spans.join(sides, sa.true()))
        .where(*conditions)
        .subquery("changes")
    )
    key_columns = [changes.c[name] for name in names]
    bucket = window.bucket(changes.c.time).label("bucket")
    # The default frame includes all changes of the same time, so that one run which ends as
    # another starts is not counted as two at once.
    level = sa.func.sum(changes.c.delta).over(
        partition_by=[*key_columns, changes.c.level], order_by=changes.c.time
    )
    swept = (
        sa.select(*changes.c, bucket, level.label("height"))
        .where(changes.c.time.is_not(None), *window.inside(changes.c.time))
        .subquery("swept")
    )
    delta, at = swept.c.delta, swept.c.time
    rest = swept.c.bucket + window.width - at
    values = {
        "net": sa.func.sum(delta),
        "at_start": sa.func.sum(sa.case((at == swept.c.bucket, delta), else_=0)),
        "moment": sa.func.sum(delta * rest),
        "peak": sa.func.max(swept.c.height),
    }
    grouped = [*(swept.c[name] for name in names), swept.c.level, swept.c.bucket]
    statement = sa.select(
        *grouped,
        *(sa.cast(value, sa.BigInteger()).label(name) for name, value in values.items()),
    ).group_by(*grouped)
    shape = [Column(column.name, column.kind, "", column.name) for column in keys]
    return statement, [*shape, *integers("level", "bucket", *values)]


def _group_levels(changes: pd.DataFrame, starts: Array, window: Window) -> pd.DataFrame:
    """Return the levels of one group in all buckets."""
    columns: dict[str, Any] = {"time": instants(starts)}
    for number, name in reversed(list(enumerate(LEVELS))):
        columns |= level_columns(name, changes[changes["level"] == number], starts, window)
    return pd.DataFrame(columns)


def level_columns(
    name: str, changes: pd.DataFrame, starts: Array, window: Window
) -> dict[str, pd.Series[Any]]:
    """Return a level at the start of each bucket, its mean and its maximum there."""
    indexed = changes.set_index("bucket")[["net", "at_start", "moment", "peak"]]
    filled = indexed.reindex(starts).astype("Float64")
    net, at_start, moment = (
        filled[column].fillna(0).to_numpy("int64") for column in ("net", "at_start", "moment")
    )
    peak = filled["peak"].to_numpy("float64", na_value=-np.inf)
    before = np.cumsum(net) - net
    begin = before + at_start
    lengths = window.lengths(starts)
    # The moments are those to the end of a whole bucket; the current one is shorter.
    area = before * lengths + moment - net * (window.width - lengths)
    return {
        name: pd.Series(begin, dtype="Int64"),
        f"{name}_mean": pd.Series(area / lengths, dtype="float64"),
        f"{name}_max": pd.Series(np.maximum(begin, peak).astype("int64"), dtype="Int64"),
    }
