"""Rules that compare the recent runs with the week before, and rules about sizes.

They read a bounded number of the newest rows, so that a busy database costs no more than a small
one. A difference must be certain (its interval excludes chance) and large enough to matter.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.analysis.findings import DiagnosisLimits, Finding, instant
from dbos_notebook.status import COMPLETED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.aggregates import TableQuery, read_frames
from dbos_notebook.tables.columns import Column
from dbos_notebook.text import duration, leaf_name, plural, sanitize

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

BASELINE = pd.Timedelta("7D")
MAX_RECENT, MAX_BASELINE = 20_000, 30_000
"""The newest runs of the window and of the week before it that are compared."""
MIN_RUNS, MIN_FAILURES = 20, 5
MIN_RATE_CHANGE, CRITICAL_RATE_CHANGE = 0.05, 0.25
"""The lower bound of the change of a failure rate from which on it is a finding, or critical."""
MIN_SLOWDOWN = 1.5
"""The lower bound of the quotient of the medians from which on a latency is a finding."""
MIN_LATENCY_MS = 100.0
"""Medians that differ by less are not worth a finding."""
Z = 2.58
"""Intervals of 99 %, because many names are compared, and again with each call."""

MAX_RUNS_MEASURED = 500
"""The newest workflows whose steps are counted and whose payloads are measured."""
MAX_RUNS_MEASURED_SQLITE = 100
"""SQLite reads a payload to measure it."""
MAX_STEPS_MEASURED = 200
"""Steps of each of them that are measured."""


def newcombe(failed: int, runs: int, failed_before: int, runs_before: int) -> tuple[float, float]:
    """Return the interval of the change of a failure rate, by Newcombe's hybrid score method.

    Examples
    --------
    >>> low, high = newcombe(30, 100, 10, 1000)
    >>> round(low, 2), round(high, 2)
    (0.19, 0.42)
    """
    rate, rate_before = failed / runs, failed_before / runs_before
    low, high = _wilson(failed, runs)
    low_before, high_before = _wilson(failed_before, runs_before)
    change = rate - rate_before
    return (
        change - math.hypot(rate - low, high_before - rate_before),
        change + math.hypot(high - rate, rate_before - low_before),
    )


def _wilson(hits: int, total: int) -> tuple[float, float]:
    rate, square = hits / total, Z * Z
    middle = rate + square / (2 * total)
    spread = Z * math.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    scale = 1 + square / total
    return (middle - spread) / scale, (middle + spread) / scale


def median_interval(values: pd.Series[Any]) -> tuple[float, float, float]:
    """Return the median with its interval, from the order of the values.

    Examples
    --------
    >>> median_interval(pd.Series(range(1, 100)))
    (37.0, 50.0, 63.0)
    """
    ordered = values.sort_values().to_numpy("float64")
    count = len(ordered)
    reach = Z * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return float(ordered[low]), float(values.median()), float(ordered[high])


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
    found = []
    for key, runs in recent.groupby("name", observed=True):
        name = str(key)
        past = earlier.get(name)
        if past is None or min(len(runs), len(past)) < MIN_RUNS:
            continue
        found += _failure_rate(name, runs, past, limits)
        found += _latency(name, runs, past, limits)
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
    name: str, runs: pd.DataFrame, past: pd.DataFrame, limits: DiagnosisLimits
) -> list[Finding]:
    failed, failed_before = int(runs["failed"].sum()), int(past["failed"].sum())
    if failed < MIN_FAILURES:
        return []
    low, high = newcombe(failed, len(runs), failed_before, len(past))
    if low < MIN_RATE_CHANGE:
        return []
    since = instant(int(runs.loc[runs["failed"] == 1, "ended"].min()))
    return [
        Finding(
            "failure_rate",
            "critical" if low >= CRITICAL_RATE_CHANGE else "warning",
            f"workflow {sanitize(leaf_name(name), 80)}",
            failed,
            since,
            f"{failed:,} of {plural(len(runs), 'run')} failed {_in_window(limits)} "
            f"({failed / len(runs):.1%}); in the week before, {failed_before:,} of {len(past):,} "
            f"({failed_before / len(past):.1%}). The change is {low * 100:+.1f} to "
            f"{high * 100:+.1f} percentage points (99 % interval)",
            f"See why: db.workflows(name={name!r}, status='ERROR').",
        )
    ]


def _latency(
    name: str, runs: pd.DataFrame, past: pd.DataFrame, limits: DiagnosisLimits
) -> list[Finding]:
    times, times_before = (
        frame.loc[frame["failed"] == 0, "duration_ms"].dropna() for frame in (runs, past)
    )
    if min(len(times), len(times_before)) < MIN_RUNS:
        return []
    low, median, high = median_interval(times)
    low_before, median_before, high_before = median_interval(times_before)
    if low < MIN_SLOWDOWN * high_before or median - median_before < MIN_LATENCY_MS:
        return []
    return [
        Finding(
            "latency",
            "warning",
            f"workflow {sanitize(leaf_name(name), 80)}",
            int((times > high_before).sum()),
            instant(int(runs.loc[times.index, "ended"].min())),
            f"half of {plural(len(times), 'run')} {_in_window(limits)} took more than "
            f"{duration(median / 1000)} ({duration(low / 1000)} to {duration(high / 1000)}, 99 % "
            f"interval of the median); of {len(times_before):,} in the week before, "
            f"{duration(median_before / 1000)} ({duration(low_before / 1000)} to "
            f"{duration(high_before / 1000)}). Waits in queues are not part of it",
            f"See where: db.step_statistics(name={name!r}).",
        )
    ]


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
        *_many_steps(session, queries, newest, limits),
        *_large_payloads(session, queries, newest, limits),
    ]


def _many_steps(
    session: Session, queries: Queries, newest: sa.Subquery, limits: DiagnosisLimits
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
                f"workflow {sanitize(leaf_name(name), 80)}",
                len(rows),
                None,
                f"{plural(len(rows), 'run')} among the newest {_limit(newest):,} workflows "
                f"with up to {int(most['steps']):,} steps ({sanitize(most['id'], 80)}). Each "
                "recovery and each fork reads or copies all of them",
                "Split the work into child workflows.",
                None,
                tuple(row["id"] for row in rows),
            )
        )
    return found


def _limit(newest: sa.Subquery) -> int:
    clause: Any = newest.element
    return int(clause._limit)


def _large_payloads(
    session: Session, queries: Queries, newest: sa.Subquery, limits: DiagnosisLimits
) -> list[Finding]:
    catalog, column = queries.catalog, queries.column
    measure = sa.func.octet_length
    if catalog.dialect == "sqlite" and sqlite3.sqlite_version_info < (3, 43):
        measure = sa.func.length  # octet_length is newer
    steps = queries.steps
    selects = []
    if "output" in steps.c and "function_id" in steps.c:
        length = measure(steps.c.output)
        selects.append(
            sa.select(
                newest.c.id,
                newest.c.name,
                sa.cast(column(steps, "function_name"), sa.Text()).label("what"),
                length.label("bytes"),
            )
            .select_from(newest.join(steps, steps.c.workflow_uuid == newest.c.id))
            .where(steps.c.function_id <= MAX_STEPS_MEASURED, length >= limits.payload_bytes)
        )
    # Since dbos 3.0, payloads have their own tables; older rows keep theirs.
    for what, own, stored in (
        ("its input", "workflow_input", "inputs"),
        ("its output", "workflow_output", "output"),
    ):
        for name in (own, "workflow_status"):
            if not catalog.has(name, stored):
                continue
            source = catalog.table(name).alias(f"{name}_{stored}")
            length = measure(source.c[stored])
            selects.append(
                sa.select(
                    newest.c.id,
                    newest.c.name,
                    sa.cast(sa.literal(what), sa.Text()).label("what"),
                    length.label("bytes"),
                )
                .select_from(newest.join(source, source.c.workflow_uuid == newest.c.id))
                .where(length >= limits.payload_bytes)
            )
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
                f"workflow {sanitize(leaf_name(name), 80)}",
                len({row["id"] for row in rows}),
                None,
                f"{plural(len(rows), 'payload')} among those of the newest {_limit(newest):,} "
                f"workflows of up to {_megabytes(int(largest['bytes']))} as stored: "
                f"{sanitize(what, 100)} ({sanitize(largest['id'], 80)})",
                "Store it elsewhere, and return its address.",
                None,
                tuple(dict.fromkeys(row["id"] for row in rows)),
            )
        )
    return found


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
