"""What active workflows are doing now: running, sleeping, waiting, in a queue, or stranded.

DBOS records a step when it ends, so what a workflow does now is inferred from its last steps, its
children, its queue and the evidence of live executors. All workflows are read together, with a
bounded number of statements.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables import pages
from dbos_notebook.tables.availability import ExecutorAvailability
from dbos_notebook.tables.message_waits import (
    MessageWait,
    last_events,
    message_waits,
    with_article,
)
from dbos_notebook.tables.queue_state import BlockReason, QueueBlock, QueueState
from dbos_notebook.tables.timing import INTERNAL_QUEUE, operation, wake_time
from dbos_notebook.text import duration, leaf_name, plural, sanitize, timestamp

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

ActivityKind = Literal[
    "running",
    "sleeping",
    "message",
    "event",
    "message or event",
    "children",
    "queued",
    "delayed",
    "stranded",
]
"""What a workflow does; ``message`` and ``event`` are what it waits for."""

MAX_EVENT_VALUE = 80
_TAIL = 2
"""Last steps of a run that are read: a timeout is recorded after the step that it belongs to."""


@dataclass(frozen=True)
class Activity:
    """What an active workflow is doing now.

    Attributes
    ----------
    kind
        ``running``, ``sleeping``, ``message``, ``event`` or ``message or event`` (what it waits
        for), ``children``, ``queued``, ``delayed`` or ``stranded``.
    text
        The activity in one line of plain words.
    since, until
        When it began, as far as known, and when it ends: the end of a sleep, a timeout or a delay.
    evidence
        What an inferred activity is inferred from; ``""`` where DBOS records it.
    step_id, step_name
        The last recorded step; ``None`` before the first one.
    topics
        The topics of the messages that earlier runs received there, the most frequent first;
        ``None`` is a message without a topic. DBOS does not record the topic of a wait.
    event
        The event that it set last, as ``key = value``; ``""`` if none.
    children
        The number of children that have not ended.
    position, queue_length
        Its place in its queue, from 1, and the number of workflows that wait there.
    reason
        Why it is still in its queue.
    remedy
        What would make it run, if no live executor does.
    before
        What a stranded workflow was doing; see ``doing``.
    holder
        The workflow that holds the only slot of its queue.

    Examples
    --------
    >>> print(Activity("running", "running after step 3 charge", step_id=3, step_name="charge"))
    running after step 3 charge
    """

    kind: ActivityKind
    text: str
    since: pd.Timestamp | None = None
    until: pd.Timestamp | None = None
    evidence: str = ""
    step_id: int | None = None
    step_name: str | None = None
    topics: tuple[str | None, ...] = ()
    event: str = ""
    children: int = 0
    position: int | None = None
    queue_length: int | None = None
    reason: BlockReason | None = None
    remedy: str = ""
    before: ActivityKind | None = None
    holder: str | None = None

    @property
    def doing(self) -> ActivityKind:
        """What a stranded workflow was doing; otherwise ``kind``."""
        return self.before or self.kind

    def __str__(self) -> str:
        return self.text


def activities(
    session: Session, queries: Queries, ids: Sequence[str], location: Location | None = None
) -> dict[str, Activity]:
    """Return what workflows are doing now, by ID; those that have ended are omitted.

    Call it last in a session: its transaction fails if the role may not read the evidence of live
    executors.

    Parameters
    ----------
    location
        Where a SQLite file is, to find the processes that have it open.
    """
    queries = queries.all_applications
    rows = _active(session, queries, ids)
    if not rows:
        return {}
    now = pd.Timestamp.now("UTC")
    pending = [key for key, row in rows.items() if row["status"] == "PENDING"]
    enqueued = {key: row for key, row in rows.items() if row["status"] == "ENQUEUED"}
    found: dict[str, Activity] = {
        key: _delayed(row, now) for key, row in rows.items() if row["status"] == "DELAYED"
    }
    if pending:
        found |= _pending(session, queries, {key: rows[key] for key in pending}, now)
    queues = {row["queue_name"] for row in enqueued.values() if row["queue_name"]}
    queued = QueueState.read(session, queries, queues, now) if enqueued else None
    positions = _positions(session, queries, enqueued) if enqueued else {}
    # Last, because a missing privilege makes the transaction fail.
    availability = ExecutorAvailability(session, queries, location)
    for key in pending:
        found[key] = _if_stranded(found[key], rows[key], availability)
    if queued is not None:
        for key, row in enqueued.items():
            found[key] = _queued(row, positions.get(key, (None, None)), queued, availability)
    return {key: found[key] for key in rows}


# Reading


_COLUMNS = {
    "name": "name",
    "queue_name": "queue_name",
    "partition": "queue_partition_key",
    "created": "created_at",
    "started": "started_at_epoch_ms",
    "executor": "executor_id",
    "version": "application_version",
    "application": "application_name",
    "delay_until": "delay_until_epoch_ms",
}


def _active(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    table = queries.workflows
    statement = sa.select(
        table.c.workflow_uuid.label("id"),
        table.c.status.label("status"),
        *(queries.column(table, source).label(name) for name, source in _COLUMNS.items()),
    ).where(queries.member(table.c.workflow_uuid, ids), table.c.status.in_(ACTIVE_STATUSES))
    rows = session.rows(statement) if ids else []
    # SQLite stores any value in any column.
    strings = ("queue_name", "partition", "executor", "version", "application")
    for row in rows:
        row |= {name: row[name] if isinstance(row[name], str) else None for name in strings}
    return {row["id"]: row for row in rows}


class _Tail(NamedTuple):
    """The end of a run: its last recorded step, and when it ends if it is a sleep."""

    number: int
    name: str
    child: str | None
    completed: int | None
    wake: pd.Timestamp | None


def _tails(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, _Tail]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in session.rows(queries.last_steps_select(ids, _TAIL)):
        if not isinstance(row["function_id"], int):
            continue  # SQLite stores any value in any column
        rows.setdefault(row["workflow_id"], []).append(row)
    tails = {}
    for key, steps in rows.items():
        steps.sort(key=lambda step: int(step["function_id"]))
        last = steps[-1]
        if len(steps) > 1 and steps[-2]["function_id"] == last["function_id"] - 1:
            waited = operation(str(steps[-2]["function_name"])) in ("recv", "get_event")
            if waited and operation(str(last["function_name"])) == "sleep":
                # The timeout of a wait that has ended.
                last = steps[-2]
        number = last["function_id"]
        wake = None
        if operation(str(last["function_name"])) == "sleep" and last["output"] is not None:
            wake = wake_time(queries.decoder(last["output"], last["serialization"], "output"))
        tails[key] = _Tail(
            number, str(last["function_name"]), last["child_workflow_id"], last["completed"], wake
        )
    return tails


def _active_children(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, int]:
    """Count the children that have not ended; workflows without any are omitted."""
    selects = queries.child_selects(list(ids))
    if not selects:
        return {}
    pairs = sa.union(*selects).subquery("pairs")
    table = queries.workflows
    statement = (
        sa.select(pairs.c.parent, sa.func.count().label("n"))
        .select_from(pairs.join(table, table.c.workflow_uuid == pairs.c.child))
        .where(queries.has_status(ACTIVE_STATUSES))
        .group_by(pairs.c.parent)
    )
    return {row["parent"]: int(row["n"]) for row in session.rows(statement)}


# PENDING workflows


def _pending(
    session: Session, queries: Queries, rows: Mapping[str, dict[str, Any]], now: pd.Timestamp
) -> dict[str, Activity]:
    ids = list(rows)
    tails = _tails(session, queries, ids)
    children = _active_children(session, queries, ids)
    waits = {
        wait.workflow_id: wait
        for wait in message_waits(session, queries, ids)
        if (until := _instant(wait.timeout_at)) is not None and until > now
    }
    events = {
        key: f"{sanitize(name, 60)} = "
        f"{sanitize(repr(queries.decoder(value, serialization, 'value')), MAX_EVENT_VALUE)}"
        for key, (name, value, serialization) in last_events(session, queries, list(waits)).items()
    }
    return {
        key: _pending_activity(
            row, tails.get(key), children.get(key, 0), waits.get(key), events.get(key, ""), now
        )
        for key, row in rows.items()
    }


def _pending_activity(
    row: Mapping[str, Any],
    tail: _Tail | None,
    children: int,
    wait: MessageWait | None,
    event: str,
    now: pd.Timestamp,
) -> Activity:
    if tail is None:
        since = _instant(row["started"]) or _instant(row["created"])
        return Activity(
            "running",
            "running before its first recorded step" + _of_children(children),
            since=since,
            children=children,
        )
    name = leaf_name(tail.name)
    step: dict[str, Any] = {
        "since": _instant(tail.completed),
        "step_id": tail.number,
        "step_name": tail.name,
        "children": children,
    }
    if wait is not None:
        return _waiting(wait, event, step)
    if tail.wake is not None and tail.wake > now:
        until = timestamp(tail.wake.to_pydatetime(), milliseconds=False)
        return Activity("sleeping", f"sleeping until {until}", until=tail.wake, **step)
    if children and (tail.child is not None or operation(tail.name) == "get_result"):
        started = operation(tail.name) != "get_result"
        return Activity(
            "children",
            f"waiting for {plural(children, 'child', 'children')}",
            evidence=(
                f"its last recorded step, {tail.number}, "
                f"{'started' if started else 'returned the result of'} a child, and "
                f"{plural(children, 'child has', 'children have')} not ended"
            ),
            **step,
        )
    return Activity(
        "running",
        f"running after step {tail.number} {sanitize(name, 80)}" + _of_children(children),
        **step,
    )


def _of_children(children: int) -> str:
    return f"; {plural(children, 'child', 'children')} active" if children else ""


def _waiting(wait: MessageWait, event: str, step: Mapping[str, Any]) -> Activity:
    """Return the activity of a run whose timeout is recorded, but not the step before it."""
    kind: ActivityKind = wait.kind or "message or event"
    text = "waiting for a message or an event" if wait.kind is None else ""
    text = text or f"waiting for {with_article(wait.kind or '')}"
    if wait.topics:
        topic = wait.topics[0]
        text += " without a topic" if topic is None else f" on topic {sanitize(repr(topic), 60)}"
    until = _instant(wait.timeout_at)
    if until is not None:
        text += f" until {timestamp(until.to_pydatetime(), milliseconds=False)}"
    if event:
        text += f"; last event: {event}"
    return Activity(
        kind,
        text,
        until=until,
        evidence=wait.evidence,
        topics=wait.topics,
        event=event,
        **{**step, "since": _instant(wait.since) or step["since"]},
    )


def _if_stranded(
    activity: Activity, row: Mapping[str, Any], availability: ExecutorAvailability
) -> Activity:
    """Return the activity, or that the executor of the workflow appears to be dead."""
    if row["executor"] is None:
        return activity
    last = max(
        (
            round(time.timestamp() * 1000)
            for time in (activity.since, _instant(row["started"]), _instant(row["created"]))
            if time is not None
        ),
        default=None,
    )
    silence = availability.silence(row["executor"], row["version"], row["application"], last)
    if silence is None:
        return activity
    since = _instant(silence.last)
    when = "" if since is None else f" since {timestamp(since.to_pydatetime(), milliseconds=False)}"
    return replace(
        activity,
        kind="stranded",
        before=activity.kind,
        text=f"stranded: executor {sanitize(row['executor'], 80)} silent{when}; "
        f"it was {activity.text}",
        since=since,
        evidence="; ".join(filter(None, (silence.evidence, activity.evidence))),
        remedy=silence.remedy,
    )


# DELAYED and ENQUEUED workflows


def _delayed(row: Mapping[str, Any], now: pd.Timestamp) -> Activity:
    until = _instant(row["delay_until"])
    since = _instant(row["created"])
    if until is None:
        return Activity("delayed", "delayed", since=since)
    end = timestamp(until.to_pydatetime(), milliseconds=False)
    text = f"delayed until {end}"
    if until <= now:
        text = f"delayed until {end}, which has passed: no executor has enqueued it yet"
    return Activity("delayed", text, since=since, until=until)


def _positions(
    session: Session, queries: Queries, rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[int, int]]:
    """Return the places of enqueued workflows in their queues, and the lengths of these."""
    frame = pd.DataFrame(
        {
            "workflow_id": list(rows),
            "status": "ENQUEUED",
            "queue_name": [row["queue_name"] for row in rows.values()],
        }
    )
    return pages.queue_positions(session, queries, frame[frame["queue_name"].notna()])


def _queued(
    row: Mapping[str, Any],
    place_of: tuple[int | None, int | None],
    state: QueueState,
    availability: ExecutorAvailability,
) -> Activity:
    position, length = place_of
    block = _block(row, position, state, availability)
    queue = sanitize(row["queue_name"] or "", 80)
    place = "" if position is None else f", place {position:,} of {length:,}"
    on = "in DBOS's internal queue" if row["queue_name"] == INTERNAL_QUEUE else f"in queue {queue}"
    return Activity(
        "queued",
        f"{on}{place}: {block.words}",
        since=_instant(row["created"]),
        until=block.until,
        evidence=block.evidence,
        position=position,
        queue_length=length,
        reason=block.reason,
        remedy=block.remedy,
        holder=block.holder,
    )


def _block(
    row: Mapping[str, Any],
    position: int | None,
    state: QueueState,
    availability: ExecutorAvailability,
) -> QueueBlock:
    queue, partition = row["queue_name"], row["partition"]
    if state.lacks_key(queue, partition):
        return QueueBlock(
            "no_partition_key",
            "the queue is partitioned and the workflow has no partition key, so it is never "
            "dequeued",
        )
    version, application = row["version"], row["application"]
    # That nothing dequeues the queue has its own words.
    estimate = availability.estimate(version, application, queue, active=True, check_queue=False)
    if estimate.likelihood == "unlikely":
        return QueueBlock(
            "no_executor",
            f"no live executor appears to run version {sanitize(version, 60)}"
            if version
            else "no live executor appears to run the latest version",
            remedy=estimate.remedy,
            evidence=estimate.evidence,
        )
    block = state.limit(queue, partition) or _unregistered(queue, state)
    if block is not None:
        return block
    before = f"{plural((position or 1) - 1, 'workflow')} before it"
    first = position in (None, 1)
    stuck = state.not_dequeued(
        queue, lambda each: (each.version, each.application) == (version, application)
    )
    if stuck is not None:
        words = (
            "nothing has dequeued "
            f"{'it' if first else 'the first one'} for {duration(stuck.waited, approximate=True)}"
        )
        words = words if first else f"{before}, and {words}"
        return QueueBlock("not_dequeued", words, evidence=stuck.evidence)
    return QueueBlock("next", "next to be dequeued") if first else QueueBlock("order", before)


def _unregistered(queue: str, state: QueueState) -> QueueBlock | None:
    if not state.registered or queue in state.settings or queue == INTERNAL_QUEUE:
        return None
    return QueueBlock(
        "no_queue",
        "no queue of this name is registered in the database, so only a process whose code "
        "declares it dequeues it",
    )


def _instant(milliseconds: object) -> pd.Timestamp | None:
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return pd.Timestamp(milliseconds, unit="ms", tz=dt.UTC)
