"""Rules about what is due: recovery limits, deadlines, delays, schedules, messages and timeouts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.analysis.findings import (
    MAX_NAME_IN_SUBJECT,
    ControlCall,
    DiagnosisLimits,
    Finding,
    earliest,
    instant,
)
from dbos_notebook.tables.cron import next_run
from dbos_notebook.tables.message_waits import describe_topic, message_waits, stored_messages
from dbos_notebook.text import duration, plural, sanitize, timestamp

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.activity import Activity
    from dbos_notebook.tables.sql import Queries

MAX_ROWS = 1_000
GRACE_SECONDS = 30.0
"""How late a deadline or a delay may be acted upon: executors poll, and clocks differ."""
SCHEDULE_GRACE_SECONDS = 60.0
"""DBOS fires up to 10 s late, and looks for new schedules every half a minute."""
NEAR_SHARE = 0.2
"""Only the last fifth of a timeout is near its end."""
MAX_MISSED = 100
MAX_ENDED = 2_000
"""Ended workflows, the newest first, whose unread messages are looked for."""

_ACTIVE = ("ENQUEUED", "PENDING", "DELAYED")
_WAITS = ("message", "event", "message or event")


def find_overdue(
    session: Session,
    queries: Queries,
    limits: DiagnosisLimits,
    now: pd.Timestamp,
    running: Sequence[str],
) -> list[Finding]:
    """Apply the rules that need no evidence of executors; ``running`` are PENDING workflows."""
    return [
        *_recovery_limit(session, queries),
        *_deadlines(session, queries, limits, now),
        *_late_delays(session, queries, now),
        *_missed_schedules(session, queries, now),
        *_unread_messages(session, queries, running),
    ]


def _milliseconds(time: pd.Timestamp) -> int:
    return round(time.timestamp() * 1000)


def _by(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row[name] or "workflow"), []).append(row)
    return groups


def _ids(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(row["id"] for row in rows)


def _recovery_limit(session: Session, queries: Queries) -> list[Finding]:
    """Find the newest workflows that ran out of recovery attempts and were not forked."""
    table, column = queries.workflows, queries.column
    forks = table.alias("fork")
    origin = column(forks, "forked_from")
    forked = sa.exists(sa.select(sa.literal(1)).where(origin == table.c.workflow_uuid))
    statement = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            column(table, "name").label("name"),
            column(table, "recovery_attempts").label("attempts"),
            column(table, "executor_id").label("executor"),
            table.c.updated_at.label("ended"),
        )
        .where(
            *queries.where({"status": ["MAX_RECOVERY_ATTEMPTS_EXCEEDED"]}),
            *([] if isinstance(origin, Null) else [~forked]),
        )
        .order_by(table.c.created_at.desc())
        .limit(MAX_ROWS)
    )
    found = []
    for name, rows in _by(session.rows(statement), "name").items():
        attempts = max((r["attempts"] for r in rows if isinstance(r["attempts"], int)), default=0)
        found.append(
            Finding(
                "recovery_limit",
                "critical",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len(rows),
                earliest([instant(row["ended"]) for row in rows]),
                f"{plural(len(rows), 'workflow')} in MAX_RECOVERY_ATTEMPTS_EXCEEDED"
                + (f", started up to {attempts:,} times" if attempts else "")
                + ". A workflow that ends its process each time looks like this",
                "Repair the cause, then resume them: their attempts are counted anew.",
                ControlCall(
                    "resume",
                    _ids(rows),
                    {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "name": name},
                ),
                _ids(rows),
            )
        )
    return found


def _deadlines(
    session: Session, queries: Queries, limits: DiagnosisLimits, now: pd.Timestamp
) -> list[Finding]:
    table, column = queries.workflows, queries.column
    deadline = column(table, "workflow_deadline_epoch_ms")
    if isinstance(deadline, Null):
        return []
    latest = _milliseconds(now + pd.Timedelta(seconds=limits.ends_within))
    statement = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            column(table, "name").label("name"),
            table.c.status.label("status"),
            deadline.label("deadline"),
            column(table, "workflow_timeout_ms").label("timeout"),
        )
        .where(
            deadline.is_not(None),
            deadline <= latest,
            # As in the index, which SQLite uses only for the same literals.
            table.c.status.in_([sa.literal_column(f"'{name}'") for name in _ACTIVE]),
            *queries.where({}),
        )
        .order_by(deadline)
        .limit(MAX_ROWS)
    )
    passed, near = [], []
    for row in session.rows(statement):
        end = instant(row["deadline"])
        if end is None:
            continue
        left = (end - now).total_seconds()
        if left < -GRACE_SECONDS:
            passed.append(row)
        # A short timeout is always near its end.
        elif isinstance(row["timeout"], int) and 0 < left * 1000 <= NEAR_SHARE * row["timeout"]:
            near.append(row)
    found = []
    for name, rows in _by(passed, "name").items():
        first = instant(rows[0]["deadline"])
        late = duration(now - first) if first is not None else ""
        statuses = ", ".join(sorted({row["status"] for row in rows}))
        found.append(
            Finding(
                "deadline_passed",
                "warning",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len(rows),
                first,
                f"{plural(len(rows), 'workflow')} still {statuses}, up to {late} after the "
                "deadline. DBOS cancels a workflow at its next step, or when it is dequeued: its "
                "step takes long, or no executor runs it",
                "Cancel them, as their deadline would have.",
                ControlCall("cancel", _ids(rows)),
                _ids(rows),
            )
        )
    for name, rows in _by(near, "name").items():
        first = instant(rows[0]["deadline"])
        found.append(
            Finding(
                "deadline_near",
                "info",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len(rows),
                None,
                f"the deadline of {plural(len(rows), 'workflow')} is near; the first is at "
                f"{timestamp(first, milliseconds=False)}",
                "DBOS will cancel them then. A deadline cannot be changed; fork them with another "
                "timeout if they are cancelled.",
                None,
                _ids(rows),
            )
        )
    return found


def _late_delays(session: Session, queries: Queries, now: pd.Timestamp) -> list[Finding]:
    table, column = queries.workflows, queries.column
    until = column(table, "delay_until_epoch_ms")
    if isinstance(until, Null):
        return []
    statement = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            column(table, "queue_name").label("queue"),
            until.label("until"),
        )
        .where(
            until <= _milliseconds(now - pd.Timedelta(seconds=GRACE_SECONDS)),
            *queries.where({"status": ["DELAYED"]}),
        )
        .order_by(until)
        .limit(MAX_ROWS)
    )
    found = []
    for queue, rows in _by(session.rows(statement), "queue").items():
        found.append(
            Finding(
                "late_delay",
                "critical",
                f"queue {sanitize(queue, 80)}",
                len(rows),
                instant(rows[0]["until"]),
                f"the delay of {plural(len(rows), 'workflow')} has ended, and they are still "
                "DELAYED. Inferred: no executor is alive, because every executor enqueues them",
                "Start an executor.",
                None,
                _ids(rows),
            )
        )
    return found


def _missed_schedules(session: Session, queries: Queries, now: pd.Timestamp) -> list[Finding]:
    """Find active schedules that fired before, and not when they were due since.

    A schedule that has never fired is not judged: its row does not say since when it exists.
    """
    table, column = queries.catalog.table("workflow_schedules"), queries.column
    fired = column(table, "last_fired_at")
    if isinstance(fired, Null) or "schedule_name" not in table.c:
        return []
    names = ("schedule_name", "status", "schedule", "cron_timezone", "automatic_backfill")
    statement = sa.select(
        *(column(table, name).label(name) for name in names), fired.label("fired")
    ).where(fired.is_not(None), *queries.owned(table))
    found = []
    for row in session.rows(statement):
        if row["status"] not in (None, "ACTIVE"):
            continue
        try:
            last = dt.datetime.fromisoformat(row["fired"])
        except (TypeError, ValueError):
            continue  # a row can hold any string
        last = last if last.tzinfo is not None else last.replace(tzinfo=dt.UTC)
        missed = _due_since(row["schedule"] or "", row["cron_timezone"], last, now)
        if not missed:
            continue
        count = f"{MAX_MISSED} or more" if len(missed) == MAX_MISSED else f"{len(missed):,}"
        backfill = (
            " It backfills them when an executor starts." if row["automatic_backfill"] else ""
        )
        found.append(
            Finding(
                "missed_schedule",
                "warning",
                f"schedule {sanitize(row['schedule_name'], 80)}",
                len(missed),
                pd.Timestamp(missed[0]).tz_convert("UTC"),
                f"{count} runs of {sanitize(row['schedule'], 60)!r} are missing: it fired last for "
                f"{timestamp(last, milliseconds=False)}, and was due at "
                f"{timestamp(missed[0], milliseconds=False)}. Inferred from last_fired_at: it was "
                f"paused until recently, or no executor is alive.{backfill}",
                "Check the executors, then backfill what is still useful.",
                ControlCall(
                    "backfill_schedule",
                    (row["schedule_name"],),
                    options={"start": last.isoformat(), "end": now.floor("s").isoformat()},
                ),
            )
        )
    return found


def _due_since(
    cron: str, timezone: str | None, last: dt.datetime, now: pd.Timestamp
) -> list[dt.datetime]:
    """Return when a schedule was due after it fired last, long enough ago to have fired."""
    until = now - pd.Timedelta(seconds=SCHEDULE_GRACE_SECONDS)
    times: list[dt.datetime] = []
    while len(times) < MAX_MISSED:
        due = next_run(cron, timezone, times[-1] if times else last)
        if due is None or due > until:
            break
        times.append(due)
    return times


def _unread_messages(session: Session, queries: Queries, running: Sequence[str]) -> list[Finding]:
    """Find messages that nobody received: to the newest ended workflows, and to those that wait."""
    found = []
    waits = {wait.workflow_id: wait for wait in message_waits(session, queries, running)}
    waiting = [wait for wait in waits.values() if wait.kind != "event"]
    messages = stored_messages(session, queries, [wait.workflow_id for wait in waiting])
    unread = [message for message in messages if message.unread]
    # What waits for a message receives it within a second, unless it has another topic.
    others = [
        message
        for message in unread
        if waits[message.workflow_id].topics
        and message.topic not in waits[message.workflow_id].topics
    ]
    if others:
        first = others[0]
        expected = " or ".join(map(describe_topic, waits[first.workflow_id].topics))
        ids = tuple(dict.fromkeys(message.workflow_id for message in others))
        found.append(
            Finding(
                "unread_message",
                "warning",
                f"topic {sanitize(repr(first.topic), 80)}",
                len(others),
                None,
                f"{plural(len(others), 'unread message')} to {plural(len(ids), 'workflow')} that "
                f"wait for another topic, such as {sanitize(first.workflow_id, 80)}: it waits for "
                f"{sanitize(expected, 100)}. Inferred: {waits[first.workflow_id].evidence}",
                "Send the message again with the topic that it waits for: db.send(…, topic=…).",
                None,
                ids,
            )
        )
    ended = _unread_by_ended(session, queries)
    if ended:
        names = sorted({str(row["name"] or "workflow") for row in ended})
        found.append(
            Finding(
                "unread_message",
                "info",
                f"workflow {', '.join(sanitize(name, MAX_NAME_IN_SUBJECT) for name in names[:3])}",
                len(ended),
                earliest([instant(row["sent"]) for row in ended]),
                f"{plural(len(ended), 'message')} to workflows that have ended without receiving "
                f"them, such as {sanitize(ended[0]['id'], 80)}; among the {MAX_ENDED:,} that ended "
                "last",
                "The sender may believe that they were received: check what it sent them for.",
                None,
                tuple(dict.fromkeys(_ids(ended))),
            )
        )
    return found


def _unread_by_ended(session: Session, queries: Queries) -> list[dict[str, Any]]:
    messages, table, column = (
        queries.catalog.table("notifications"),
        queries.workflows,
        queries.column,
    )
    consumed, completed = column(messages, "consumed"), column(table, "completed_at")
    # Before dbos 2.20 a message disappears when it is received. The newest are found by an index.
    if "destination_uuid" not in messages.c or isinstance(completed, Null):
        return []
    newest = (
        sa.select(table.c.workflow_uuid.label("id"), column(table, "name").label("name"))
        .where(completed.is_not(None), *queries.where({}))
        .order_by(completed.desc())
        .limit(MAX_ENDED)
        .subquery("newest")
    )
    statement = (
        sa.select(
            newest.c.id,
            newest.c.name,
            column(messages, "created_at_epoch_ms").label("sent"),
        )
        .select_from(newest.join(messages, messages.c.destination_uuid == newest.c.id))
        .limit(MAX_ROWS)
    )
    if not isinstance(consumed, Null):
        statement = statement.where(sa.not_(consumed.is_(sa.true())))
    return session.rows(statement)


def near_timeouts(
    running: Sequence[tuple[str, str, Activity]], limits: DiagnosisLimits, now: pd.Timestamp
) -> list[Finding]:
    """Find the waits for a message or an event, of running workflows, that soon time out."""
    near: dict[str, list[tuple[str, Activity]]] = {}
    for workflow_id, name, activity in running:
        if activity.kind not in _WAITS or activity.until is None or activity.since is None:
            continue
        left = (activity.until - now).total_seconds()
        whole = (activity.until - activity.since).total_seconds()
        if left <= min(limits.ends_within, NEAR_SHARE * whole):
            near.setdefault(name, []).append((workflow_id, activity))
    found = []
    for name, waits in near.items():
        first_id, first = min(waits, key=lambda wait: wait[1].until or now)
        found.append(
            Finding(
                "timeout_near",
                "info",
                f"workflow {sanitize(name, MAX_NAME_IN_SUBJECT)}",
                len(waits),
                earliest([activity.since for _, activity in waits]),
                f"{plural(len(waits), 'wait')} will soon end without an answer; the first at "
                f"{timestamp(first.until, milliseconds=False)} ({sanitize(first_id, 80)}). "
                f"Inferred: {first.evidence}",
                "Answer with db.send(…), or let it time out.",
                None,
                tuple(workflow_id for workflow_id, _ in waits),
            )
        )
    return found
