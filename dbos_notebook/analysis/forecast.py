"""When queues will be empty at the rates of the recent past, and what holds them back.

The window before now is divided into equal parts. In each, the backlog shrank by the runs that
started less those that arrived. Their mean and their variance give the time until the backlog is
gone, with a range: where a sum of as many further parts, with the error of the mean itself, reaches
the backlog with 90 % probability, if the parts are independent and the rates stay what they were.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.queue_history import DEFAULT_EXECUTOR, Limits, require_known
from dbos_notebook.analysis.selections import evaluated_once, run_columns, run_rows
from dbos_notebook.analysis.throughput import (
    choose,
    integers,
    milliseconds,
    now_ms,
    numbered,
)
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import aggregates, frames
from dbos_notebook.tables.aggregates import read_frame, read_frames
from dbos_notebook.tables.availability import ExecutorAvailability
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.filters import as_name
from dbos_notebook.tables.sql import Queries
from dbos_notebook.text import duration, plural

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.types import Duration

PARTS = 12
"""Parts of the window, whose variability gives the range."""
STUDENT = 1.796
"""Student's t for a two-sided 90 % with 11 degrees of freedom."""
MIN_STARTS = 10
"""With fewer starts in the window, no time is estimated."""
MAX_VERSIONS = 3
"""Versions of waiting work, the most frequent first, for which a live executor is looked for."""

_DURATIONS = ("oldest_wait", "drain_time", "drain_time_low", "drain_time_high")
_COUNTS = ("backlog", "delayed", "running")
_RATES = ("arrivals_per_hour", "starts_per_hour", "completions_per_hour")
_EVENTS = ("arrivals", "starts", "completions", "unknown")


class DrainTime(NamedTuple):
    """How many parts of the window a backlog will last; ``inf``: perhaps for ever."""

    expected: float
    low: float
    high: float


def drain_time(backlog: int, changes: Any) -> DrainTime | None:
    """Return how long a backlog lasts that shrank by ``changes`` in equal parts of time.

    Returns ``None`` if it does not shrink.

    Examples
    --------
    >>> [round(value, 1) for value in drain_time(100, [9, 11, 10, 10, 8, 12, 10, 9, 11, 10, 9, 11])]
    [10.0, 9.2, 10.9]
    >>> drain_time(100, [0, -2, 2]) is None
    True
    """
    count = len(changes)
    rate = float(np.mean(changes))
    if rate <= 0:
        return None
    # The change over k further parts has the mean k · rate and the variance
    # v · (k + k² / count), where k² / count is the error of the mean. The ends of the range are
    # the solutions of (backlog - k · rate)² = STUDENT² · v · (k + k² / count).
    spread = STUDENT**2 * float(np.var(changes, ddof=1))
    a, b, c = rate**2 - spread / count, 2 * backlog * rate + spread, float(backlog) ** 2
    root = math.sqrt(max(0.0, b**2 - 4 * a * c))
    expected = backlog / rate
    if a <= 0:
        # The rate is not above zero with this probability.
        return DrainTime(expected, 2 * c / (b + root), math.inf)
    return DrainTime(expected, 2 * c / (b + root), (b + root) / (2 * a))


def forecast(
    session: Session,
    queries: Queries,
    queue: str | None,
    window: str | Duration,
    location: Location | None,
) -> pd.DataFrame:
    """Return a row for each queue: its backlog, rates, drain time, and what holds it back."""
    length, now = milliseconds(window, "window"), now_ms()
    if length < PARTS * 1000:
        raise FilterError(f"window={window!r} must be at least {PARTS} seconds.")
    settings = aggregates.queues(session, queries)
    if queue is not None:
        name = as_name(queue, "queue")
        require_known(session, queries, name, settings)
        names = [name]
    else:
        names = settings["queue_name"].dropna().unique().tolist()
    events = _recent_events(session, queries, names, length, now)
    waiting = _waiting_versions(session, queries, names)
    limits = {}
    for name in names:
        own = settings[settings["queue_name"] == name]
        limits[name] = Limits() if own.empty else Limits.take(own.iloc[0])
    recent = {
        name: _recent_starts(session, queries, name, each.period, now)
        for name, each in limits.items()
        if each.rate and each.period
    }
    executors = _busy_executors(session, queries, names)
    # Last, because the transaction fails if the role may not read this evidence.
    availability = ExecutorAvailability(session, queries, location)
    rows = []
    for name in names:
        own = settings[settings["queue_name"] == name]
        state = _State(
            backlog=int(own["enqueued"].sum()),
            running=int(own["running"].sum()),
            limits=limits[name],
            executors=executors.get(name, set()),
            recent=recent.get(name, 0),
            events={kind: events[name, kind] for kind in _EVENTS},
        )
        row = {
            "queue_name": name,
            "backlog": state.backlog,
            "delayed": int(own["delayed"].sum()),
            "running": state.running,
            "oldest_wait": own["oldest_wait"].max(),
            **state.rates(length),
            **state.drain(length),
        }
        bottleneck, evidence = state.bottleneck(waiting.get(name, []), availability, length)
        row |= {"bottleneck": bottleneck, "evidence": evidence}
        rows.append(row)
    return frames.mark_listing(_typed(rows), "forecast")


class _State(NamedTuple):
    """What is known of a queue now, and of the parts of the window."""

    backlog: int
    running: int
    limits: Limits
    executors: set[str]
    recent: int
    events: dict[str, Any]

    def rates(self, length: int) -> dict[str, float]:
        hours = length / 3_600_000
        kinds = zip(_RATES, _EVENTS, strict=False)
        return {column: float(self.events[kind].sum()) / hours for column, kind in kinds}

    def drain(self, length: int) -> dict[str, Any]:
        """Return the outlook, and the time until the queue is empty with its range."""
        if not self.backlog:
            return {"outlook": "empty", **dict.fromkeys(_DURATIONS[1:], 0.0)}
        starts = int(self.events["starts"].sum())
        found = drain_time(self.backlog, self.events["starts"] - self.events["arrivals"])
        if not starts:
            return {"outlook": "stalled"}
        if found is None:
            growing = self.events["arrivals"].sum() > starts
            return {"outlook": "growing" if growing else "steady"}
        if starts < MIN_STARTS:
            return {"outlook": "too few"}
        part = length / PARTS
        values = (value * part if math.isfinite(value) else None for value in found)
        return {"outlook": "draining", **dict(zip(_DURATIONS[1:], values, strict=True))}

    def bottleneck(
        self,
        waiting: list[tuple[str | None, str | None, int]],
        availability: ExecutorAvailability,
        length: int,
    ) -> tuple[str, str]:
        """Return what holds the queue back, and the evidence for it."""
        starts, arrivals = (int(self.events[kind].sum()) for kind in ("starts", "arrivals"))
        pace = (
            f"{plural(starts, 'start')} and {plural(arrivals, 'arrival')} in the last "
            f"{duration(length / 1000)}"
        )
        if unknown := int(self.events["unknown"].sum()):
            pace += f", without {plural(unknown, 'start')} whose arrival is unknown"
        if not self.backlog:
            return "none", f"nothing waits; {pace}"
        dead, evidence = self._without_executor(waiting, availability)
        if dead == self.backlog:
            return "no executor", evidence
        bottleneck, reason = self._limit()
        if dead:
            reason += f"; {dead} of {self.backlog} have no executor: {evidence}"
        return bottleneck, f"{reason}; {pace}"

    def _without_executor(
        self, waiting: list[tuple[str | None, str | None, int]], availability: ExecutorAvailability
    ) -> tuple[int, str]:
        """Return how many wait for an executor that appears not to be alive, and the evidence."""
        dead, reasons = 0, []
        for version, application, count in waiting[:MAX_VERSIONS]:
            estimate = availability.estimate(version, application, None)
            if estimate.likelihood == "unlikely":
                dead += count
                remedy = f" ({estimate.remedy})" if estimate.remedy else ""
                reasons.append(estimate.evidence + remedy)
        return dead, "; ".join(reasons)

    def _limit(self) -> tuple[str, str]:
        limits, running = self.limits, self.running
        if limits.concurrency is not None and running >= limits.concurrency:
            return "concurrency limit", f"{running} of {limits.concurrency} are running"
        if limits.rate is not None and self.recent >= limits.rate:
            return "rate limit", (
                f"{self.recent} of {limits.rate} started within the last "
                f"{duration(limits.period or 0)}"
            )
        if limits.worker_concurrency is not None:
            # One executor ID may stand for many processes.
            if self.executors and DEFAULT_EXECUTOR not in self.executors:
                slots = limits.worker_concurrency * len(self.executors)
                if running >= slots:
                    many = plural(len(self.executors), "busy executor")
                    return "worker concurrency limit", (
                        f"{running} of {slots} are running: {limits.worker_concurrency} on each of "
                        f"{many}"
                    )
            elif running and running % limits.worker_concurrency == 0:
                return "unknown", (
                    f"{running} are running, {limits.worker_concurrency} are allowed per executor, "
                    f"and all executors have the ID {DEFAULT_EXECUTOR!r}, so that their number is "
                    "unknown"
                )
        if limits.partitioned:
            return "unknown", "limits apply to each partition; db.queues() lists the partitions"
        growing = self.events["arrivals"].sum() > self.events["starts"].sum()
        if growing or not self.events["starts"].sum():
            return "unknown", "no limit of the queue is reached"
        return "none", "no limit of the queue is reached, and it keeps up"


def _recent_events(
    session: Session, queries: Queries, names: list[str], length: int, now: int
) -> dict[tuple[str, str], Any]:
    """Count arrivals, starts and ends in the parts of the window, by queue and kind.

    A start whose arrival is unknown, after a resume or recovery, is counted apart: among the starts
    it would make the backlog seem to shrink faster.
    """
    rows = evaluated_once(run_rows(queries, run_columns("queue_name"), {"queue_name": names}, now))
    kinds = numbered(4, "event")
    started = rows.c.started_at_ms
    arrived = rows.c.enqueued_at_ms
    times = (
        arrived,
        sa.case((arrived.is_not(None), started)),
        rows.c.ended_at_ms,
        sa.case((arrived.is_(None), started)),
    )
    since = now - length
    time = choose(kinds.c.event, times)
    events = (
        sa.select(rows.c.queue_name, kinds.c.event, time.label("time"))
        .select_from(rows.join(kinds, sa.true()))
        .where(time >= since, time < now)
        .subquery("events")
    )
    part = (events.c.time - sa.literal_column(str(since), sa.BigInteger())) * PARTS
    part = part // sa.literal_column(str(length), sa.BigInteger())
    statement = sa.select(
        events.c.queue_name, events.c.event, part.label("part"), sa.func.count().label("count")
    ).group_by(events.c.queue_name, events.c.event, sa.literal_column("3"))
    shape = [Column("queue_name", "text", "", "queue_name"), *integers("event", "part", "count")]
    counted = read_frame(session, statement, shape)
    result = {(name, kind): np.zeros(PARTS, "int64") for name in names for kind in _EVENTS}
    for name, event, position, count in counted.itertuples(index=False):
        result[name, _EVENTS[event]][position] = count
    return result


def _waiting_versions(
    session: Session, queries: Queries, names: list[str]
) -> dict[str, list[tuple[str | None, str | None, int]]]:
    """Return the versions and applications of the waiting work, the most frequent first."""
    table = queries.workflows
    keys = ("queue_name", "application_version", "application_name")
    statement = (
        sa.select(
            *(queries.column(table, key).label(key) for key in keys),
            sa.func.count().label("count"),
        )
        .where(*queries.where({"queue_name": names, "status": ["ENQUEUED"]}))
        .group_by(*(sa.literal_column(str(number)) for number in (1, 2, 3)))
    )
    shape = [*(Column(key, "text", "", key) for key in keys), *integers("count")]
    found = read_frame(session, statement, shape).sort_values("count", ascending=False)
    result: dict[str, list[tuple[str | None, str | None, int]]] = {}
    for name, version, application, count in found.itertuples(index=False):
        texts = [value if isinstance(value, str) else None for value in (version, application)]
        result.setdefault(name, []).append((texts[0], texts[1], int(count)))
    return result


def _recent_starts(session: Session, queries: Queries, name: str, period: float, now: int) -> int:
    """Count what DBOS counts towards a rate limit now."""
    rows = run_rows(queries, (), {"queue_name": [name]}, now)
    statement = sa.select(sa.func.count().label("count")).where(
        rows.c.started_at_ms > now - int(period * 1000)
    )
    return int(read_frame(session, statement, integers("count"))["count"].iloc[0])


def _busy_executors(session: Session, queries: Queries, names: list[str]) -> dict[str, set[str]]:
    """Return the executors that run work of each queue."""
    filters = {"queue_name": names, "status": ["PENDING"]}
    rows = run_rows(queries, run_columns(("queue_name", "executor_id")), filters, 0)
    columns = [Column(name, "text", "", name) for name in ("queue_name", "executor_id")]
    statement = sa.select(*(rows.c[column.name] for column in columns)).distinct()
    result: dict[str, set[str]] = {}
    for name, executor in read_frames(session, (statement, columns))[0].itertuples(index=False):
        if isinstance(executor, str):
            result.setdefault(name, set()).add(executor)
    return result


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows with the same dtypes however many there are."""
    texts = ("outlook", "bottleneck", "evidence")
    names = ("queue_name", "outlook", *_COUNTS, *_DURATIONS, *_RATES, *texts[1:])
    frame = pd.DataFrame(rows, columns=list(names))
    for name in names:
        if name in _COUNTS:
            frame[name] = frame[name].astype("Int64")
        elif name == "oldest_wait":
            waits = [row[name] for row in rows]
            frame[name] = pd.Series(waits, frame.index, dtype="timedelta64[ms]")
        elif name in _DURATIONS:
            values = frame[name].astype("float64").round()
            frame[name] = pd.to_timedelta(values, unit="ms").astype("timedelta64[ms]")
        elif name in _RATES:
            frame[name] = frame[name].astype("float64")
        else:
            frame[name] = frame[name].astype(STRING_DTYPE)
    return frame
