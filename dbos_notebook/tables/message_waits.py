"""Which running workflows wait for a message: inferred from the steps that they have recorded.

``DBOS.recv`` records its timeout, as a ``DBOS.sleep``, before it waits, and itself only when it has
ended. So a step that is not recorded, directly before a recorded sleep, is a ``DBOS.recv`` that
waits. ``DBOS.get_event`` looks the same, unless earlier runs tell what the workflow does there; and
so does a step that runs at the same time as a sleep.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.tables.activity import peers_at, wake_time
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, MESSAGE_WAIT, STRING_DTYPE

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.sql import Queries

NO_TOPIC = "__null__topic__"
"""What DBOS stores as the topic of a message that has none."""
MAX_WAITS = 1_000


@dataclass(frozen=True)
class MessageWait:
    """A running workflow that appears to wait for a message; times in milliseconds since 1970.

    Attributes
    ----------
    function_id
        The step that is not recorded.
    timeout_at
        When the wait ends without a message.
    topics
        The topic that earlier runs of this workflow received most often at this step, if any;
        ``None`` is a message without a topic. DBOS does not record the topic of a wait.
    """

    workflow_id: str
    function_id: int
    name: str | None = None
    since: int | None = None
    timeout_at: int | None = None
    topics: tuple[str | None, ...] = ()

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
        return found


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
    """Read which running workflows appear to wait for a message, the longest wait first.

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
            _milliseconds(wake_time(decode_inert(row["output"], row["serialization"], "output")))
            if row["output"]
            else None,
        )
        waits.setdefault(wait.workflow_id, wait)
    named = [(wait.name, wait.function_id) for wait in waits.values() if wait.name is not None]
    peers = peers_at(session, queries, named) if named else {}
    found = []
    for wait in waits.values():
        operation, topic, _ = peers.get((wait.name or "", wait.function_id), ("recv", None, 0))
        if operation == "recv":
            known = () if topic is None else (None if topic == NO_TOPIC else topic,)
            found.append(replace(wait, topics=known))
    return sorted(found, key=lambda wait: (wait.since or LAST_MS, wait.workflow_id))


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
    waits = message_waits(session, queries)
    ids = [wait.workflow_id for wait in waits]
    rows = _rows(session, queries, ids)
    events = _last_events(session, queries, ids)
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


def _last_events(
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


def _valid(milliseconds: int | None) -> int | None:
    return (
        milliseconds if milliseconds is not None and FIRST_MS <= milliseconds <= LAST_MS else None
    )


def _milliseconds(instant: pd.Timestamp | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1000)


def _instant(milliseconds: int | None) -> dt.datetime | None:
    if milliseconds is None:
        return None
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
