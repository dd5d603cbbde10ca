"""Rules about active work: stranded, without progress, recovered again and again, or not dequeued.

They group what :mod:`~dbos_notebook.tables.activity` infers of the workflows that are active
longest in each group of alike ones: of one executor and version, or of one queue and version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.analysis import overdue_rules
from dbos_notebook.analysis.findings import (
    MAX_NAME_IN_SUBJECT,
    ControlCall,
    DiagnosisLimits,
    Finding,
    Severity,
    earliest,
    instant,
)
from dbos_notebook.tables import timing
from dbos_notebook.tables.activity import Activity, activities
from dbos_notebook.tables.queue_state import describe_last_dequeued, last_dequeued, named_holder
from dbos_notebook.tables.timing import INTERNAL_QUEUE
from dbos_notebook.text import duration, leaf_name, plural, sanitize

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

MAX_PENDING = 100
"""PENDING workflows of one executor and version that are examined, the oldest first."""
MAX_ENQUEUED = 20
"""Enqueued workflows of one queue and version that are examined, in the order of dequeuing."""
MAX_EXAMINED = 2_000
MAX_HISTORY_RUNS, MIN_HISTORY_RUNS = 5_000, 5
"""Among how many of the newest workflows earlier runs are searched, and how many are needed."""
FAR_LONGER = 10
"""A run is without progress if it takes this many times the longest of its earlier runs."""
DEFAULT_RECOVERIES = 100
"""DBOS's ``max_recovery_attempts``, unless a workflow has its own."""


@dataclass(frozen=True)
class ActiveRow:
    """An active workflow that is examined, and the size of its group of alike ones."""

    workflow_id: str
    status: str
    name: str
    queue: str | None
    partition: str | None
    executor: str | None
    version: str | None
    application: str | None
    started: pd.Timestamp | None
    enqueued: pd.Timestamp | None
    attempts: int
    alike: int

    @property
    def group(self) -> tuple[str | None, ...]:
        """What those alike have in common."""
        if self.status == "PENDING":
            return ("PENDING", self.executor, self.version, self.application)
        keyed = "key" if self.partition is not None else "no key"
        return ("ENQUEUED", self.queue, self.version, self.application, keyed)


def find_active(
    session: Session,
    queries: Queries,
    limits: DiagnosisLimits,
    now: pd.Timestamp,
    location: Location | None,
) -> list[Finding]:
    """Apply the rules about active work.

    Call it last in a session: its transaction fails if the role may not read the evidence of live
    executors.
    """
    rows = _read_rows(session, queries, now)
    dequeued = _last_dequeued(session, queries, rows, now)
    running = [row for row in rows if row.status == "PENDING"]
    ids = [row.workflow_id for row in running]
    found = overdue_rules.find_overdue(session, queries, limits, now, ids)
    # Before the evidence of executors is read, though only some of these turn out to be alive.
    history = _earlier_gaps(session, queries, running)
    known = activities(session, queries, [row.workflow_id for row in rows], location)
    examined = [(row, known[row.workflow_id]) for row in rows if row.workflow_id in known]
    pending = [pair for pair in examined if pair[0].status == "PENDING"]
    enqueued = [pair for pair in examined if pair[0].status == "ENQUEUED"]
    return [
        *found,
        *_stranded(pending),
        *_repeated_recovery(pending, limits),
        *_no_progress(pending, history, limits, now),
        *overdue_rules.near_timeouts([(r.workflow_id, r.name, a) for r, a in pending], limits, now),
        *_not_dequeued(enqueued, pending, dequeued, limits, now),
    ]


def _read_rows(session: Session, queries: Queries, now: pd.Timestamp) -> list[ActiveRow]:
    """Read the oldest active workflows of each group, with the size of the group."""
    table, column = queries.workflows, queries.column
    status = table.c.status
    running = status == "PENDING"
    enqueued = timing.sql_times(queries, round(now.timestamp() * 1000))["enqueued_at"]
    columns: dict[str, sa.ColumnElement[Any]] = {
        "workflow_id": table.c.workflow_uuid,
        "status": status,
        "name": column(table, "name"),
        "queue": column(table, "queue_name"),
        "partition": column(table, "queue_partition_key"),
        "executor": column(table, "executor_id"),
        "version": column(table, "application_version"),
        "application": column(table, "application_name"),
        "started": sa.func.coalesce(column(table, "started_at_epoch_ms"), table.c.created_at),
        "enqueued": enqueued,
        "attempts": column(table, "recovery_attempts"),
    }
    missing_key = sa.case((columns["partition"].is_(None), 1), else_=0)
    groups = [
        status,
        # An enqueued workflow has the executor that enqueued it.
        sa.case((running, columns["executor"]), else_=columns["queue"]),
        *(columns[name] for name in ("version", "application")),
        sa.case((running, 0), else_=missing_key),
    ]
    groups = [group for group in groups if not isinstance(group, Null)]
    priority = column(table, "priority")
    order = [
        *([] if isinstance(priority, Null) else [sa.case((running, 0), else_=priority)]),
        table.c.created_at,
        table.c.workflow_uuid,
    ]
    ranked = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            running.label("runs"),
            sa.func.row_number().over(partition_by=groups, order_by=order).label("rank"),
            sa.func.count().over(partition_by=groups).label("alike"),
        )
        # As literals, because SQLite uses partial indexes only for literals.
        .where(*queries.where({"status": ["ENQUEUED", "PENDING"]}))
        .subquery("ranked")
    )
    limit = sa.case((ranked.c.runs, MAX_PENDING), else_=MAX_ENQUEUED)
    chosen = (
        sa.select(ranked.c.id, ranked.c.rank, ranked.c.alike)
        .where(ranked.c.rank <= limit)
        .order_by(ranked.c.rank)
        .limit(MAX_EXAMINED)
        .subquery("chosen")
    )
    # The other columns of these alone, because a queue may hold a million workflows.
    statement = (
        sa.select(*(value.label(name) for name, value in columns.items()), chosen.c.alike)
        .select_from(chosen.join(table, table.c.workflow_uuid == chosen.c.id))
        .order_by(chosen.c.rank)
    )
    return [_active_row(row) for row in session.rows(statement)]


def _active_row(row: Mapping[str, Any]) -> ActiveRow:
    # SQLite stores any value in any column.
    def string(name: str) -> str | None:
        return row[name] if isinstance(row[name], str) else None

    return ActiveRow(
        row["workflow_id"],
        row["status"],
        string("name") or "workflow",
        string("queue"),
        string("partition"),
        string("executor"),
        string("version"),
        string("application"),
        instant(row["started"]),
        instant(row["enqueued"]),
        row["attempts"] if isinstance(row["attempts"], int) else 0,
        int(row["alike"]),
    )


def _last_dequeued(
    session: Session, queries: Queries, rows: Sequence[ActiveRow], now: pd.Timestamp
) -> dict[str, pd.Timestamp]:
    """Read when each queue with waiting work dequeued something last, within an hour."""
    names = sorted({row.queue for row in rows if row.status == "ENQUEUED" and row.queue})
    return last_dequeued(session, queries, names, now)


Examined = Sequence[tuple[ActiveRow, Activity]]


def _grouped(
    pairs: Iterable[tuple[ActiveRow, Activity]],
    key: Callable[[ActiveRow, Activity], Any],
) -> list[list[tuple[ActiveRow, Activity]]]:
    groups: dict[Any, list[tuple[ActiveRow, Activity]]] = {}
    for row, activity in pairs:
        groups.setdefault(key(row, activity), []).append((row, activity))
    return list(groups.values())


def _ids(pairs: Examined) -> tuple[str, ...]:
    return tuple(row.workflow_id for row, _ in pairs)


def _affected(pairs: Examined, examined: int) -> int:
    """Return how many are affected: all of the group if all that were examined are."""
    return pairs[0][0].alike if len(pairs) == examined else len(pairs)


def describe_names(names: Iterable[str]) -> str:
    """Return the most frequent names with their counts.

    Examples
    --------
    >>> describe_names(["shop.order", "shop.order", "refund"])
    '2 order, 1 refund'
    """
    counted = Counter(sanitize(leaf_name(name), 60) for name in names)
    parts = [f"{count:,} {name}" for name, count in counted.most_common(3)]
    more = len(counted) - len(parts)
    return ", ".join(parts) + (f" and {plural(more, 'other name')}" if more else "")


def _version(version: str | None) -> str:
    return f"version {sanitize(version, 60)}" if version else "the latest version"


# PENDING workflows


def _stranded(pending: Examined) -> list[Finding]:
    sizes = Counter(row.group for row, _ in pending)
    found = []
    stranded = (pair for pair in pending if pair[1].kind == "stranded")
    for pairs in _grouped(stranded, lambda row, _: row.group):
        row, first = pairs[0]
        affected = _affected(pairs, sizes[row.group])
        same_version = "resume with force=True" in first.remedy
        # Some also have what they were waiting for.
        evidence = min((activity.evidence for _, activity in pairs), key=len)
        call = ControlCall(
            "resume",
            _ids(pairs),
            {
                "status": "PENDING",
                "executor_id": row.executor,
                **({"app_version": row.version} if row.version else {}),
            },
            {"force": True},
        )
        start = (
            f"Start an executor of {_version(row.version)}: with the executor ID "
            f"{sanitize(repr(row.executor), 80)} it recovers them; with another one, resume them "
            "with force=True"
        )
        found.append(
            Finding(
                "stranded",
                "critical",
                f"executor {sanitize(row.executor, 80)}, {_version(row.version)}",
                affected,
                earliest([activity.since for _, activity in pairs]),
                f"{plural(affected, 'PENDING workflow')} "
                f"({describe_names(row.name for row, _ in pairs)}"
                f"{' among those examined' if affected > len(pairs) else ''}); inferred, because "
                f"DBOS records no heartbeat: {evidence}",
                f"{first.remedy or start}.",
                # Where only another version is alive, resuming would not make them run.
                call if same_version or not first.remedy else None,
                _ids(pairs),
            )
        )
    return found


def _repeated_recovery(pending: Examined, limits: DiagnosisLimits) -> list[Finding]:
    found = []
    repeated = [pair for pair in pending if pair[0].attempts > limits.recoveries]
    for pairs in _grouped(repeated, lambda row, _: row.name):
        most = max(row.attempts for row, _ in pairs)
        near = most > 0.8 * DEFAULT_RECOVERIES
        found.append(
            Finding(
                "repeated_recovery",
                "critical" if near else "warning",
                f"workflow {sanitize(pairs[0][0].name, MAX_NAME_IN_SUBJECT)}",
                len(pairs),
                earliest([row.started for row, _ in pairs]),
                f"started up to {most:,} times without an end. Perhaps it ends its process each "
                f"time. DBOS stops it at max_recovery_attempts, {DEFAULT_RECOVERIES} by default",
                "Look at what runs after its last recorded step; cancel it to stop the repetition.",
                ControlCall("cancel", _ids(pairs)),
                _ids(pairs),
            )
        )
    return found


@dataclass(frozen=True)
class Gaps:
    """How long earlier runs took from one recorded step to the next, in milliseconds."""

    spans: tuple[int, ...]

    @property
    def longest(self) -> int:
        """The longest time."""
        return max(self.spans)


_Gaps = Mapping[tuple[str, int | None], Gaps]


def _earlier_gaps(session: Session, queries: Queries, rows: Sequence[ActiveRow]) -> _Gaps:
    """Read how long the newest runs of these workflows took after each step that is a last one.

    By name and step (``None``: before the first one). Workflows have no index on their names, so
    runs are searched among the newest workflows.
    """
    table, steps = queries.workflows, queries.steps
    names = ("function_id", "started_at_epoch_ms", "completed_at_epoch_ms")
    if not rows or not set(names) <= set(steps.c.keys()):
        return {}
    lasts = _last_numbers(session, queries, [row.workflow_id for row in rows])
    wanted = {(row.name, lasts.get(row.workflow_id)) for row in rows}
    numbers = sorted({n for _, n in wanted if n is not None})
    following = {number + 1 for number in numbers} | ({0, 1} if (None in lasts.values()) else set())
    if any(number is None for _, number in wanted):
        following |= {0, 1}
    newest = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            queries.column(table, "name").label("name"),
            sa.func.coalesce(
                queries.column(table, "started_at_epoch_ms"), table.c.created_at
            ).label("started"),
        )
        .where(*queries.where({}))
        .order_by(table.c.created_at.desc())
        .limit(MAX_HISTORY_RUNS)
        .subquery("newest")
    )
    statement = (
        sa.select(
            newest.c.id,
            newest.c.name,
            newest.c.started,
            steps.c.function_id.label("number"),
            steps.c.completed_at_epoch_ms.label("completed"),
        )
        .select_from(newest.join(steps, steps.c.workflow_uuid == newest.c.id))
        .where(
            queries.member(newest.c.name, sorted({name for name, _ in wanted})),
            steps.c.function_id.in_(sorted({*numbers, *following})),
        )
    )
    completed: dict[str, dict[int, int]] = {}
    runs: dict[str, tuple[str, Any]] = {}
    for row in session.rows(statement):
        if isinstance(row["number"], int) and isinstance(row["completed"], int):
            completed.setdefault(row["id"], {})[row["number"]] = row["completed"]
            runs[row["id"]] = row["name"], row["started"]
    spans: dict[tuple[str, int | None], list[int]] = {}
    for key, ends in completed.items():
        name, started = runs[key]
        for number in {number for known, number in wanted if known == name}:
            before = started if number is None else ends.get(number)
            after = ends.get(min(ends)) if number is None else ends.get(number + 1)
            if number is None and min(ends) > 1:
                continue  # not its first step
            if isinstance(before, int) and after is not None and after >= before:
                spans.setdefault((name, number), []).append(after - before)
    return {key: Gaps(tuple(found)) for key, found in spans.items()}


def _last_numbers(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, int]:
    steps = queries.steps
    statement = (
        sa.select(steps.c.workflow_uuid.label("id"), sa.func.max(steps.c.function_id).label("last"))
        .where(queries.member(steps.c.workflow_uuid, ids))
        .group_by(steps.c.workflow_uuid)
    )
    return {
        row["id"]: row["last"] for row in session.rows(statement) if isinstance(row["last"], int)
    }


def _no_progress(
    pending: Examined, history: _Gaps, limits: DiagnosisLimits, now: pd.Timestamp
) -> list[Finding]:
    late: list[tuple[ActiveRow, Activity]] = []
    for row, activity in pending:
        gaps = history.get((row.name, activity.step_id))
        if activity.kind != "running" or activity.since is None or gaps is None:
            continue
        elapsed = (now - activity.since).total_seconds()
        far = FAR_LONGER * gaps.longest / 1000
        if len(gaps.spans) >= MIN_HISTORY_RUNS and elapsed > max(far, limits.no_progress):
            late.append((row, activity))
    found = []
    for pairs in _grouped(late, lambda row, activity: (row.name, activity.step_id)):
        row, activity = pairs[0]
        gaps = history[row.name, activity.step_id]
        since = earliest([activity.since for _, activity in pairs])
        after = (
            "before its first recorded step"
            if activity.step_name is None
            else f"after step {activity.step_id} {sanitize(leaf_name(activity.step_name), 60)}"
        )
        executor = f" (executor {sanitize(row.executor, 60)})" if row.executor else ""
        found.append(
            Finding(
                "no_progress",
                "warning",
                f"workflow {sanitize(row.name, MAX_NAME_IN_SUBJECT)}",
                len(pairs),
                since,
                f"{after}, nothing was recorded for "
                f"{duration(now - since) if since is not None else 'long'}{executor}; in "
                f"{plural(len(gaps.spans), 'earlier run')} the next step ended after at most "
                f"{duration(gaps.longest / 1000)}. Inferred, because DBOS records a step when it "
                "ends",
                "Look at what the process does. If it hangs, restart it, or cancel the workflow "
                "and fork it.",
                ControlCall("cancel", _ids(pairs)),
                _ids(pairs),
            )
        )
    return found


# ENQUEUED workflows


def _not_dequeued(
    enqueued: Examined,
    pending: Examined,
    dequeued: Mapping[str, pd.Timestamp],
    limits: DiagnosisLimits,
    now: pd.Timestamp,
) -> list[Finding]:
    sizes = Counter(row.group for row, _ in enqueued)
    found = []
    for pairs in _grouped(enqueued, lambda row, activity: (row.group, activity.reason)):
        row, activity = pairs[0]
        affected = _affected(pairs, sizes[row.group])
        since = earliest([row.enqueued or activity.since for row, activity in pairs])
        waited = (now - since).total_seconds() if since is not None else 0.0
        late = waited > limits.queue_wait
        if activity.reason == "no_executor":
            found.append(_no_executor(pairs, affected, since))
        elif activity.reason == "no_partition_key":
            found.append(_no_partition_key(pairs, affected, since))
        elif not late:
            continue
        elif activity.reason == "rate_limit":
            found.append(_rate_limit(pairs, since, waited))
        elif activity.reason in ("next", "not_dequeued", "no_queue"):
            last = dequeued.get(row.queue or "")
            if last is not None and (now - last).total_seconds() <= limits.queue_wait:
                continue  # it is served, also a queue that only code declares
            if activity.reason != "no_queue":
                found.append(_starved(pairs, affected, since, waited, last))
            else:
                found.append(_no_queue(pairs, affected, since))
        elif activity.reason != "order":
            holders = [pair for pair in pending if pair[0].queue == row.queue]
            found.append(_full(pairs, holders, since, waited, now))
    return found


def _queue(row: ActiveRow) -> str:
    return f"queue {sanitize(row.queue or '', 80)}"


def _selection(row: ActiveRow) -> dict[str, Any]:
    filters: dict[str, Any] = {"status": "ENQUEUED", "queue_name": row.queue}
    return filters | ({"app_version": row.version} if row.version else {})


def _resuming(pairs: Examined, affected: int) -> str:
    """Return what resuming those that were examined does, which may not be all."""
    these = "these" if len(pairs) >= affected else f"the first {len(pairs):,} of these"
    return f"Resuming starts {these} on DBOS's internal queue."


def _no_executor(pairs: Examined, affected: int, since: pd.Timestamp | None) -> Finding:
    row, activity = pairs[0]
    return Finding(
        "no_executor",
        "critical",
        f"{_version(row.version)}, {_queue(row)}",
        affected,
        since,
        f"{plural(affected, 'enqueued workflow')} ({describe_names(row.name for row, _ in pairs)}) "
        f"for {_version(row.version)}; inferred, because DBOS records no heartbeat: "
        f"{activity.evidence}",
        f"{activity.remedy or f'Start an executor of {_version(row.version)}'}.",
        None,
        _ids(pairs),
    )


def _no_partition_key(pairs: Examined, affected: int, since: pd.Timestamp | None) -> Finding:
    row, _ = pairs[0]
    return Finding(
        "no_partition_key",
        "critical",
        _queue(row),
        affected,
        since,
        f"{plural(affected, 'workflow')} ({describe_names(row.name for row, _ in pairs)}) without "
        "a partition key: the queue is partitioned, and DBOS never dequeues them",
        f"Enqueue with a queue_partition_key. {_resuming(pairs, affected)}",
        ControlCall("resume", _ids(pairs)),
        _ids(pairs),
    )


def _no_queue(pairs: Examined, affected: int, since: pd.Timestamp | None) -> Finding:
    row, _ = pairs[0]
    return Finding(
        "no_queue",
        "warning",
        _queue(row),
        affected,
        since,
        f"{plural(affected, 'workflow')} ({describe_names(row.name for row, _ in pairs)}) wait, "
        "and no queue of this name is registered in the database, so only a process whose code "
        "declares it dequeues them. None has lately",
        f"Register the queue. {_resuming(pairs, affected)}",
        ControlCall("resume", _ids(pairs), _selection(row)),
        _ids(pairs),
    )


def _rate_limit(pairs: Examined, since: pd.Timestamp | None, waited: float) -> Finding:
    row, activity = pairs[0]
    length = activity.queue_length or len(pairs)
    return Finding(
        "rate_limit",
        "warning",
        _queue(row),
        length,
        since,
        f"{plural(length, 'workflow')} wait, the longest for {duration(waited)}: "
        f"{_reason(activity)}",
        "Raise the limit of the queue, or enqueue less.",
        None,
        _ids(pairs),
    )


def _starved(
    pairs: Examined,
    affected: int,
    since: pd.Timestamp | None,
    waited: float,
    last: pd.Timestamp | None,
) -> Finding:
    row, activity = pairs[0]
    # Those examined may be of several partitions, or beside those of other versions.
    length = affected if len(pairs) > 1 else activity.queue_length or affected
    internal = row.queue == INTERNAL_QUEUE
    resume = "" if internal else f" {_resuming(pairs, length)}"
    return Finding(
        "starved_queue",
        "critical",
        _queue(row),
        length,
        since,
        f"{plural(length, 'workflow')} wait, the first for {duration(waited)}, and no limit of the "
        f"queue is reached; {describe_last_dequeued(last)}. Inferred: no executor listens to this "
        "queue, or its process hangs",
        f"Check that an executor listens to the queue.{resume}",
        None if internal else ControlCall("resume", _ids(pairs), _selection(row)),
        _ids(pairs),
    )


def _full(
    pairs: Examined,
    holders: Examined,
    since: pd.Timestamp | None,
    waited: float,
    now: pd.Timestamp,
) -> Finding:
    row, activity = pairs[0]
    length = activity.queue_length or len(pairs)
    stranded = [pair for pair in holders if pair[1].kind == "stranded"]
    severity: Severity = "critical" if stranded else "warning"
    held = ""
    if holders:
        longest = min(holders, key=lambda pair: pair[0].started or now)
        held = (
            f"; held by {describe_names(row.name for row, _ in holders)}, the longest is "
            f"{sanitize(longest[0].workflow_id, 80)}"
        )
        if longest[0].started is not None:
            held += f", for {duration(now - longest[0].started)}"
        if stranded:
            held += f"; {len(stranded):,} of these appear to be stranded"
    call = ControlCall("resume", _ids(stranded), {}, {"force": True}) if stranded else None
    return Finding(
        "queue_full",
        severity,
        _queue(row),
        length,
        since,
        f"{plural(length, 'workflow')} wait, the longest for {duration(waited)}: "
        f"{_reason(activity)}{held}"
        + (f". Inferred: {activity.evidence}" if activity.evidence else ""),
        "Resume what is stranded, so that it leaves the queue."
        if stranded
        else "Raise the limit of the queue, add executors, or end what holds it.",
        call,
        _ids(pairs),
    )


def _reason(activity: Activity) -> str:
    """Return why a workflow is in its queue, without its place and what holds the only slot."""
    return activity.text.partition(": ")[2].removesuffix(named_holder(activity.holder))
