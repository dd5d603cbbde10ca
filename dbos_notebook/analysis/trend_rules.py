"""Rules that compare the recent runs with the week before, and rules about sizes.

They read a bounded number of the newest rows, so that a busy database costs no more than a small
one. A difference must be certain (its interval excludes chance) and large enough to matter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.analysis.confidence import (
    IntervalEstimate,
    Sample,
    compare_rates,
    quantile_interval,
)
from dbos_notebook.analysis.findings import MAX_NAME_IN_SUBJECT, DiagnosisLimits, Finding, instant
from dbos_notebook.status import COMPLETED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.aggregates import TableQuery, read_frames
from dbos_notebook.tables.columns import Column
from dbos_notebook.text import duration, leaf_name, plural, sanitize

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

BASELINE = pd.Timedelta("7D")
MAX_RECENT, MAX_BASELINE = 10_000, 20_000
"""The newest runs of the window and of the week before it that are compared."""
MIN_RUNS, MIN_FAILURES = 20, 5
MIN_RATE_CHANGE, CRITICAL_RATE_CHANGE = 0.05, 0.25
"""The lower bound of the change of a failure rate from which on it is a finding, or critical."""
MIN_SLOWDOWN = 1.5
"""The lower bound of the quotient of the medians from which on a latency is a finding."""
MIN_LATENCY_MS = 100.0
"""Medians that differ by less are not worth a finding."""
CONFIDENCE = 0.99
"""Because many names are compared, and again with each call."""

MAX_RUNS_MEASURED = 500
"""The newest workflows whose steps are counted and whose payloads are measured."""
MAX_RUNS_MEASURED_SQLITE = 100
"""SQLite reads a payload to measure it."""
MAX_STEPS_MEASURED = 200
"""Steps of each of them that are measured."""


def find_trends(
    session: Session, queries: Queries, limits: DiagnosisLimits, now: pd.Timestamp
) -> list[Finding]:
    """Find workflows that fail more often, or take longer, than in the week before."""
    begin = now - pd.Timedelta(seconds=limits.window)
    recent, before = read_frames(
        session,
        _ended(queries, begin, now, now, MAX_RECENT),
        _ended(queries, begin - BASELINE, begin, now, MAX_BASELINE),
    )
    if recent.empty or before.empty:
        return []
    earlier = dict(iter(before.groupby("name", observed=True)))
    words = "in the week before"
    if len(before) == MAX_BASELINE:
        words = f"among the newest {MAX_BASELINE:,} runs of the week before"
    found = []
    for key, runs in recent.groupby("name", observed=True):
        name = str(key)
        past = earlier.get(name)
        if past is None or len(runs) < MIN_FAILURES or len(past) < MIN_RUNS:
            continue
        found += _failure_rate(name, runs, past, limits, words)
        found += _latency(name, runs, past, limits, words)
    return found


def _ended(
    queries: Queries, begin: pd.Timestamp, end: pd.Timestamp, now: pd.Timestamp, limit: int
) -> TableQuery:
    """Select the newest runs that ended in a period: name, whether it failed, duration and end."""
    table, column = queries.workflows, queries.column
    moment = column(table, "completed_at")
    if isinstance(moment, Null):
        # Before dbos 2.31 the end has no index.
        moment = table.c.created_at
    first, last = (round(time.timestamp() * 1000) for time in (begin, end))
    duration_ms = timing.sql_times(queries, round(now.timestamp() * 1000))["duration"]
    statement = (
        sa.select(
            column(table, "name").label("name"),
            sa.case((table.c.status == "ERROR", 1), else_=0).label("failed"),
            duration_ms.label("duration_ms"),
            moment.label("ended"),
        )
        .where(
            moment >= first,
            moment < last,
            table.c.status.in_(COMPLETED_STATUSES),
            *queries.where({}),
        )
        .order_by(moment.desc())
        .limit(limit)
    )
    return statement, (
        Column("name", "text", "", "name"),
        Column("failed", "integer", "", "failed"),
        Column("duration_ms", "integer", "", "duration_ms"),
        Column("ended", "integer", "", "ended"),
    )


def _in_window(limits: DiagnosisLimits) -> str:
    return f"within the last {duration(limits.window)}"


def _failure_rate(
    name: str, runs: pd.DataFrame, past: pd.DataFrame, limits: DiagnosisLimits, words: str
) -> list[Finding]:
    failed, failed_before = int(runs["failed"].sum()), int(past["failed"].sum())
    if failed < MIN_FAILURES:
        return []
    change = compare_rates(failed_before, len(past), failed, len(runs), CONFIDENCE)
    if change.lower < MIN_RATE_CHANGE:
        return []
    since = instant(int(runs.loc[runs["failed"] == 1, "ended"].min()))
    return [
        Finding(
            "failure_rate",
            "critical" if change.lower >= CRITICAL_RATE_CHANGE else "warning",
            f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
            failed,
            since,
            f"{failed:,} of {plural(len(runs), 'run')} failed {_in_window(limits)} "
            f"({failed / len(runs):.1%}); {words}, {failed_before:,} of {len(past):,} "
            f"({failed_before / len(past):.1%}). The change is "
            f"{change.lower * 100:+.1f} to {change.upper * 100:+.1f} percentage points (99 % "
            "interval)",
            f"See why: db.workflows(name={name!r}, status='ERROR').",
        )
    ]


def _latency(
    name: str, runs: pd.DataFrame, past: pd.DataFrame, limits: DiagnosisLimits, words: str
) -> list[Finding]:
    times, times_before = (
        frame.loc[frame["failed"] == 0, "duration_ms"].dropna() for frame in (runs, past)
    )
    if min(len(times), len(times_before)) < MIN_RUNS:
        return []
    now, past_median = (
        quantile_interval(Sample.of(each.to_numpy("float64")), 0.5, CONFIDENCE)
        for each in (times, times_before)
    )
    slower = now.lower >= MIN_SLOWDOWN * past_median.upper
    if not slower or now.value - past_median.value < MIN_LATENCY_MS:
        return []
    return [
        Finding(
            "latency",
            "warning",
            f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
            int((times > past_median.upper).sum()),
            instant(int(runs.loc[times.index, "ended"].min())),
            f"half of {plural(len(times), 'run')} {_in_window(limits)} took more than "
            f"{_interval(now)} (99 % interval of the median); {words}, half of "
            f"{len(times_before):,} took more than {_interval(past_median)}. Waits in queues are "
            "not part of it",
            f"See where: db.step_statistics(name={name!r}).",
        )
    ]


def _interval(median: IntervalEstimate) -> str:
    value, low, high = (duration(each / 1000) for each in median[:3])
    return f"{value}, {low} to {high}"


def find_bloat(session: Session, queries: Queries, limits: DiagnosisLimits) -> list[Finding]:
    """Find runs with very many steps, and very large payloads, among the newest workflows."""
    table, column = queries.workflows, queries.column
    sqlite = queries.catalog.dialect == "sqlite"
    size = MAX_RUNS_MEASURED_SQLITE if sqlite else MAX_RUNS_MEASURED
    newest = (
        sa.select(table.c.workflow_uuid.label("id"), column(table, "name").label("name"))
        .where(*queries.where({}))
        .order_by(table.c.created_at.desc())
        .limit(size)
        .subquery("newest")
    )
    return [
        *_many_steps(session, queries, newest, size, limits),
        *_large_payloads(session, queries, newest, size, limits),
    ]


def _many_steps(
    session: Session, queries: Queries, newest: sa.Subquery, size: int, limits: DiagnosisLimits
) -> list[Finding]:
    steps = queries.steps
    if "function_id" not in steps.c:
        return []
    last = (
        sa.select(sa.func.max(steps.c.function_id))
        .where(steps.c.workflow_uuid == newest.c.id)
        .scalar_subquery()
    )
    counted = sa.select(newest.c.id, newest.c.name, last.label("steps")).subquery("counted")
    statement = sa.select(counted).where(counted.c.steps >= limits.steps)
    found = []
    for name, rows in _by_name(session.rows(statement)).items():
        most = max(rows, key=lambda row: int(row["steps"]))
        found.append(
            Finding(
                "many_steps",
                "warning",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len(rows),
                None,
                f"{plural(len(rows), 'run')} among the newest {size:,} workflows "
                f"with up to {int(most['steps']):,} steps ({sanitize(most['id'], 80)}). Each "
                "recovery and each fork reads or copies all of them",
                "Split the work into child workflows.",
                None,
                tuple(row["id"] for row in rows),
            )
        )
    return found


def _large_payloads(
    session: Session, queries: Queries, newest: sa.Subquery, size: int, limits: DiagnosisLimits
) -> list[Finding]:
    catalog, column = queries.catalog, queries.column
    measure = sa.func.octet_length
    if catalog.dialect == "sqlite" and sqlite3.sqlite_version_info < (3, 43):
        measure = sa.func.length  # octet_length is newer
    steps, smallest = queries.steps, limits.payload_bytes
    selects = []
    if {"output", "function_id"} <= set(steps.c.keys()):
        step = sa.cast(column(steps, "function_name"), sa.Text())
        few = steps.c.function_id <= MAX_STEPS_MEASURED
        length = measure(steps.c.output)
        selects.append(_sizes(queries, newest, steps, step, length, smallest, few))
    # Since dbos 3.0, payloads have their own tables; older rows keep theirs.
    for what, own, stored in (
        ("its input", "workflow_input", "inputs"),
        ("its output", "workflow_output", "output"),
    ):
        for name in (own, "workflow_status"):
            if catalog.has(name, stored):
                source = catalog.table(name).alias(f"{name}_{stored}")
                label = sa.cast(sa.literal(what), sa.Text())
                length = measure(source.c[stored])
                selects.append(_sizes(queries, newest, source, label, length, smallest))
    if not selects:
        return []
    found = []
    for name, rows in _by_name(session.rows(sa.union_all(*selects))).items():
        largest = max(rows, key=lambda row: int(row["bytes"]))
        what = str(largest["what"])
        what = what if what.startswith("its ") else f"the result of its step {leaf_name(what)}"
        found.append(
            Finding(
                "large_payload",
                "warning",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len({row["id"] for row in rows}),
                None,
                f"{plural(len(rows), 'payload')} among those of the newest {size:,} "
                f"workflows of up to {_megabytes(int(largest['bytes']))} as stored: "
                f"{sanitize(what, 100)} ({sanitize(largest['id'], 80)})",
                "Store it elsewhere, and return its address.",
                None,
                tuple(dict.fromkeys(row["id"] for row in rows)),
            )
        )
    return found


def _sizes(
    queries: Queries,
    newest: sa.Subquery,
    source: sa.FromClause,
    what: sa.ColumnElement[Any],
    length: sa.ColumnElement[Any],
    smallest: int,
    *conditions: sa.ColumnElement[bool],
) -> sa.Select[Any]:
    """Select the sizes of the large payloads of the newest workflows in one table."""
    mine = source.c.workflow_uuid == newest.c.id
    values = (what.label("what"), length.label("bytes"))
    if queries.catalog.dialect == "sqlite":
        joined = newest.join(source, mine)
        selected = sa.select(newest.c.id, newest.c.name, *values).select_from(joined)
        return selected.where(length >= smallest, *conditions)
    # OFFSET 0 prevents Postgres from reading the whole table: it looks up each workflow.
    rows = sa.select(*values).where(mine, *conditions).offset(0).lateral("sizes")
    joined = newest.join(rows, sa.true())
    selected = sa.select(newest.c.id, newest.c.name, rows.c.what, rows.c.bytes)
    return selected.select_from(joined).where(rows.c.bytes >= smallest)


def _by_name(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["name"] or "workflow"), []).append(row)
    return groups


def _megabytes(size: int) -> str:
    """Write a size.

    Examples
    --------
    >>> _megabytes(12_345_678), _megabytes(1_234)
    ('12.3 MB', '1.2 kB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"
