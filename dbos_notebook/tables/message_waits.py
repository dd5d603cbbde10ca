"""Which running workflows wait for a message: inferred from the steps that they have recorded.

``DBOS.recv`` records its timeout, as a ``DBOS.sleep``, before it waits, and itself only when it has
ended. So a step that is not recorded, directly before a recorded sleep, is a ``DBOS.recv`` that
waits. ``DBOS.get_event``, and a step that runs at the same time as a sleep, look the same; what
earlier runs of the workflow recorded at that step distinguishes them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, MESSAGE_WAIT, STRING_DTYPE
from dbos_notebook.tables.timing import operation, wake_time

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.sql import Queries

NO_TOPIC = "__null__topic__"
"""What DBOS stores as the topic of a message that has none."""
MAX_WAITS = 1_000
MAX_RUNS, MAX_ROWS = 100, 5_000
"""Of how many earlier runs of a workflow, among the newest rows, the step is looked up. Workflows
have no index on their names."""


@dataclass(frozen=True)
class MessageWait:
    """A running workflow that appears to wait for a message or an event; times in milliseconds.

    Attributes
    ----------
    function_id
        The step that is not recorded.
    timeout_at
        When the wait ends without a message.
    topics
        The topics that earlier runs of this workflow received at this step, the most frequent
        first; ``None`` is a message without a topic. DBOS does not record the topic of a wait.
    kind
        What earlier runs waited for at this step; ``None`` if no earlier run shows it.
    """

    workflow_id: str
    function_id: int
    name: str | None = None
    since: int | None = None
    timeout_at: int | None = None
    topics: tuple[str | None, ...] = ()
    kind: Literal["message", "event"] | None = None

    @property
    def evidence(self) -> str:
        """What the inference rests on.

        Examples
        --------
        >>> MessageWait("order-7", 3).evidence
        'step 3 is not recorded, but its timeout is (step 4)'
        """
        step = self.function_id
        found = f"step {step} is not recorded, but its timeout is (step {step + 1})"
        if self.topics:
            names = " or ".join(map(describe_topic, self.topics))
            found += f"; earlier runs received {names} there"
        elif self.kind is not None:
            found += f"; earlier runs waited for {with_article(self.kind)} there"
        return found


def with_article(kind: str) -> str:
    """Return what is waited for as a sentence names it.

    Examples
    --------
    >>> with_article("event")
    'an event'
    """
    return f"an {kind}" if kind == "event" else f"a {kind}"


def describe_topic(topic: str | None) -> str:
    """Return a topic as a sentence names it.

    Examples
    --------
    >>> describe_topic("approval"), describe_topic(None)
    ("'approval'", 'a message without a topic')
    """
    return "a message without a topic" if topic is None else repr(topic)


def message_waits(
    session: Session, queries: Queries, ids: Sequence[str] | None = None
) -> list[MessageWait]:
    """Read which running workflows appear to wait for a message or an event, the longest first.

    Parameters
    ----------
    ids
        Only these workflows, whichever application owns them; ``None``: all of the application.
    """
    steps, table, column = queries.steps, queries.workflows, queries.column
    if not {"function_id", "function_name"} <= set(steps.c.keys()):
        return []
    before = steps.alias("before")
    missing = ~sa.exists(
        sa.select(sa.literal(1))
        .select_from(before)
        .where(
            before.c.workflow_uuid == steps.c.workflow_uuid,
            before.c.function_id == steps.c.function_id - 1,
        )
    )
    # The first step of Python is 1, that of TypeScript 0.
    first = sa.case((column(steps, "serialization") == "js_superjson", 0), else_=1)
    owner = queries.where({}) if ids is None else [queries.member(table.c.workflow_uuid, ids)]
    statement = (
        sa.select(
            table.c.workflow_uuid.label("workflow_id"),
            column(table, "name").label("name"),
            steps.c.function_id.label("function_id"),
            column(steps, "output").label("output"),
            column(steps, "serialization").label("serialization"),
            column(steps, "started_at_epoch_ms").label("started_at"),
        )
        .join(steps, steps.c.workflow_uuid == table.c.workflow_uuid)
        .where(
            table.c.status == "PENDING",
            steps.c.function_name == "DBOS.sleep",
            steps.c.function_id > first,
            missing,
            *owner,
        )
        .order_by(steps.c.function_id.desc())
        .limit(MAX_WAITS)
    )
    waits: dict[str, MessageWait] = {}
    for row in session.rows(statement):
        wait = MessageWait(
            row["workflow_id"],
            row["function_id"] - 1,
            row["name"],
            _valid(row["started_at"]),
            _wake(row["output"], row["serialization"]),
        )
        waits.setdefault(wait.workflow_id, wait)
    earlier = _earlier_runs(session, queries, waits.values()) if waits else {}
    found = []
    for wait in waits.values():
        kind, topics = earlier.get((wait.name, wait.function_id), (None, ()))
        found.append(replace(wait, kind=kind, topics=topics))
    return sorted(found, key=lambda wait: (wait.since or LAST_MS, wait.workflow_id))


_Earlier = tuple[Literal["message", "event"], tuple[str | None, ...]]


def _earlier_runs(
    session: Session, queries: Queries, waits: Iterable[MessageWait]
) -> dict[tuple[str | None, int], _Earlier]:
    """Read what the newest runs of these workflows waited for, and which topics they received.

    By name and step, where a run has recorded a ``DBOS.recv`` or a ``DBOS.get_event`` there.
    """
    wanted = {(wait.name, wait.function_id) for wait in waits if wait.name is not None}
    table, steps = queries.workflows, queries.steps
    newest = (
        sa.select(
            table.c.workflow_uuid.label("id"),
            queries.column(table, "name").label("name"),
            table.c.created_at.label("created"),
        )
        .order_by(table.c.created_at.desc())
        .limit(MAX_ROWS)
        .subquery("newest")
    )
    numbers = sorted({number for _, number in wanted})
    joined: sa.FromClause = newest.join(
        steps, sa.and_(steps.c.workflow_uuid == newest.c.id, steps.c.function_id.in_(numbers))
    )
    messages = queries.catalog.table("notifications")
    recorded = {"topic", "consumed_by_function_id"} <= set(messages.c.keys())
    if recorded:
        joined = joined.outerjoin(
            messages,
            sa.and_(
                messages.c.destination_uuid == newest.c.id,
                messages.c.consumed_by_function_id == steps.c.function_id,
            ),
        )
    rank = sa.func.row_number().over(
        partition_by=(newest.c.name, steps.c.function_id), order_by=newest.c.created.desc()
    )
    ranked = (
        sa.select(
            newest.c.name.label("name"),
            steps.c.function_id.label("function_id"),
            steps.c.function_name.label("function_name"),
            (messages.c.topic if recorded else sa.null()).label("topic"),
            rank.label("rank"),
        )
        .select_from(joined)
        .where(queries.member(newest.c.name, sorted({str(name) for name, _ in wanted})))
        .subquery("ranked")
    )
    kinds: dict[tuple[str | None, int], Counter[Literal["message", "event"]]] = {}
    topics: dict[tuple[str | None, int], Counter[str | None]] = {}
    for row in session.rows(sa.select(ranked).where(ranked.c.rank <= MAX_RUNS)):
        key = row["name"], int(row["function_id"])
        kind = _KINDS.get(operation(str(row["function_name"])))
        if key in wanted and kind is not None:
            kinds.setdefault(key, Counter())[kind] += 1
            counter = topics.setdefault(key, Counter())
            if kind == "message" and row["topic"] is not None:
                counter[None if row["topic"] == NO_TOPIC else row["topic"]] += 1
    return {
        key: (
            counter.most_common(1)[0][0],
            tuple(topic for topic, _ in topics[key].most_common()),
        )
        for key, counter in kinds.items()
    }


_KINDS: dict[str, Literal["message", "event"]] = {"recv": "message", "get_event": "event"}


@dataclass(frozen=True)
class StoredMessage:
    """A message that was sent to a workflow, without its content."""

    message_id: str
    workflow_id: str
    topic: str | None
    unread: bool


def stored_messages(
    session: Session, queries: Queries, workflow_ids: Sequence[str]
) -> list[StoredMessage]:
    """Read the messages that were sent to workflows; before dbos 2.20, received ones are gone."""
    table, column = queries.catalog.table("notifications"), queries.column
    if not table.c or not workflow_ids:
        return []
    statement = sa.select(
        column(table, "message_uuid").label("message_id"),
        table.c.destination_uuid.label("workflow_id"),
        table.c.topic.label("topic"),
        sa.case((column(table, "consumed").is_(sa.true()), 0), else_=1).label("unread"),
    ).where(queries.member(table.c.destination_uuid, workflow_ids))
    return [
        StoredMessage(
            row["message_id"] or "",
            row["workflow_id"],
            None if row["topic"] in (None, NO_TOPIC) else row["topic"],
            bool(row["unread"]),
        )
        for row in session.rows(statement)
    ]


def awaiting_messages(session: Session, queries: Queries, decoder: Decoder) -> pd.DataFrame:
    """Return the workflows that appear to wait for a message, the longest wait first."""
    waits = [wait for wait in message_waits(session, queries) if wait.kind != "event"]
    ids = [wait.workflow_id for wait in waits]
    rows = _rows(session, queries, ids)
    events = last_events(session, queries, ids)
    unread = Counter(
        message.workflow_id for message in stored_messages(session, queries, ids) if message.unread
    )
    records = []
    for wait in waits:
        row = rows.get(wait.workflow_id, {})
        key, value, serialization = events.get(wait.workflow_id, (None, None, None))
        records.append(
            (
                wait.workflow_id,
                wait.name,
                wait.function_id,
                wait.topics[0] if wait.topics else None,
                _instant(wait.since),
                _instant(wait.timeout_at),
                key,
                None if value is None else decoder(value, serialization, "value"),
                unread[wait.workflow_id],
                row.get("app_version"),
                row.get("executor_id"),
                wait.evidence,
            )
        )
    frame = pd.DataFrame(records, columns=[column.name for column in MESSAGE_WAIT])
    return frame.astype(
        {
            column.name: STRING_DTYPE if column.kind == "text" else column.dtype
            for column in MESSAGE_WAIT
            if column.kind != "payload"
        }
    )


def _rows(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    table, column = queries.workflows, queries.column
    statement = sa.select(
        table.c.workflow_uuid.label("workflow_id"),
        column(table, "application_version").label("app_version"),
        column(table, "executor_id").label("executor_id"),
    ).where(queries.member(table.c.workflow_uuid, ids))
    return {row["workflow_id"]: row for row in session.rows(statement)} if ids else {}


def last_events(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, tuple[str, str, str | None]]:
    """Read the event that each workflow set last: key, value and format, not decoded."""
    table, column = queries.catalog.table("workflow_events_history"), queries.column
    if not table.c or not ids:
        return {}
    statement = (
        sa.select(
            table.c.workflow_uuid.label("workflow_id"),
            table.c.key.label("key"),
            table.c.value.label("value"),
            column(table, "serialization").label("serialization"),
        )
        .where(queries.member(table.c.workflow_uuid, ids))
        .order_by(table.c.function_id)
    )
    return {
        row["workflow_id"]: (row["key"], row["value"], row["serialization"])
        for row in session.rows(statement)
    }


def _wake(output: str | None, serialization: str | None) -> int | None:
    """Return when a sleep ends; its stored output is that time."""
    wake = None if output is None else wake_time(decode_inert(output, serialization, "output"))
    return None if wake is None else round(wake.timestamp() * 1000)


def _valid(milliseconds: int | None) -> int | None:
    return (
        milliseconds if milliseconds is not None and FIRST_MS <= milliseconds <= LAST_MS else None
    )


def _instant(milliseconds: int | None) -> dt.datetime | None:
    if milliseconds is None:
        return None
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
