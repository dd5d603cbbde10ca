"""Send messages to workflows, such as the answer for which a workflow waits in ``DBOS.recv``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from dbos_notebook.control import permissions
from dbos_notebook.control.dbos_client import message_key
from dbos_notebook.control.operations import (
    ItemKey,
    Operation,
    PlanItem,
    ReadContext,
    Snapshot,
    Verdict,
    as_key,
    as_optional_name,
    format_time,
)
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import FilterError
from dbos_notebook.imports import WholeImports
from dbos_notebook.status import COMPLETED_STATUSES, INTERRUPTED_STATUSES
from dbos_notebook.tables.message_waits import (
    MessageWait,
    StoredMessage,
    describe_topic,
    message_waits,
    stored_messages,
)
from dbos_notebook.text import plural, sanitize

if TYPE_CHECKING:
    from dbos import DBOSClient

MAX_SHOWN_TOPICS = 3


@dataclass(frozen=True)
class SendItem(PlanItem):
    """One workflow to which a message is sent.

    Attributes
    ----------
    waits_at
        The step at which it appears to wait for a message.
    unread
        How many messages of this topic it has not received yet.
    topics
        The topics that earlier runs received at that step.
    """

    waits_at: int | None = None
    unread: int = 0
    topics: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Send(Operation):
    """Send one message to workflows.

    It is stored as portable JSON, which the SDKs of all languages read, and under an ID that is
    made of the key and the workflow's ID: DBOS stores a message with the same ID once.
    """

    action: ClassVar[str] = "send"
    planned: ClassVar[str] = "will get the message"
    needed: ClassVar[Privileges] = permissions.SEND
    raises_if_nothing_done: ClassVar[bool] = True
    message: Any = field(default=None, repr=False)
    topic: str | None = None
    idempotency_key: str | None = None
    force: bool = False
    # Of this operation alone, so that a plan sends its messages once.
    own_key: str = field(default="", repr=False)

    @classmethod
    def create(
        cls,
        message: Any,
        topic: str | None = None,
        *,
        idempotency_key: str | None = None,
        force: bool = False,
    ) -> Send:
        """Validate the arguments of ``Client.send``."""
        return cls(
            as_json(message),
            as_optional_name(topic, "topic"),
            as_key(idempotency_key, "idempotency_key"),
            force,
            str(uuid.uuid4()),
        )

    def options(self) -> dict[str, object]:
        """Return the options that are not at their defaults; of the message, its type and size."""
        options = super().options()
        return options if self.message is None else {"message": _describe(self.message), **options}

    def message_id(self, workflow_id: str) -> str:
        """Return the ID of the message to a workflow."""
        return f"{self.idempotency_key or self.own_key}::{workflow_id}"

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Return ``None``: :meth:`evaluate` compares what the workflow waits for."""
        return None

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen to the message of each workflow."""
        ids = [key.workflow_id for key in keys]
        rows = context.workflows(ids)
        running = [workflow_id for workflow_id, row in rows.items() if row.status == "PENDING"]
        session, queries = context.session, context.queries
        waits = {
            wait.workflow_id: wait
            for wait in (message_waits(session, queries, running) if running else ())
            if wait.kind != "event"
        }
        stored: dict[str, list[StoredMessage]] = {}
        for message in stored_messages(session, queries, ids):
            stored.setdefault(message.workflow_id, []).append(message)
        items: list[PlanItem] = []
        for key in keys:
            row = rows.get(key.workflow_id)
            if row is None:
                items.append(PlanItem(key.workflow_id, "not_found", self.not_found))
                continue
            messages, wait = stored.get(key.workflow_id, []), waits.get(key.workflow_id)
            items.append(self._item(row, wait, messages, before.get(key)))
        return items

    def _item(
        self,
        row: WorkflowRecord,
        wait: MessageWait | None,
        messages: Sequence[StoredMessage],
        planned: PlanItem | None,
    ) -> SendItem:
        workflow_id = row.workflow_id
        unread = sum(message.unread and message.topic == self.topic for message in messages)
        item = SendItem(
            workflow_id,
            "ready",
            self._effect(row, wait, unread),
            row,
            waits_at=wait.function_id if wait else None,
            unread=unread,
            topics=wait.topics if wait else (),
        )
        if any(message.message_id == self.message_id(workflow_id) for message in messages):
            key = self.idempotency_key
            sent = f"a message with the idempotency key {key!r} was" if key else "it was"
            return _with(item, "unchanged", f"{sent} sent to it already")
        if row.status in COMPLETED_STATUSES and not self.force:
            return _with(
                item,
                "refused",
                f"it has finished ({row.status}) and receives no more messages; force=True stores "
                "the message all the same",
            )
        if isinstance(planned, SendItem) and planned.verdict == "ready":
            # Somebody else may have answered in the meantime.
            if planned.waits_at is not None and planned.waits_at != item.waits_at:
                return _with(item, "unchanged", f"it no longer waits at step {planned.waits_at}")
            if item.waits_at is not None and unread > planned.unread:
                return _with(
                    item, "unchanged", "another message with this topic was sent since the plan"
                )
        return item

    def _effect(self, row: WorkflowRecord, wait: MessageWait | None, unread: int) -> str:
        if row.status in COMPLETED_STATUSES:
            return f"stored, but not received: it has finished ({row.status})"
        if row.status in INTERRUPTED_STATUSES:
            return f"stored; it is {row.status} and receives it only after it is resumed"
        if row.status != "PENDING":
            return f"stored until it receives it; it is {row.status}"
        if wait is None:
            return "stored until it receives it; it does not appear to wait for a message now"
        if wait.topics and self.topic not in wait.topics:
            expected = " or ".join(map(describe_topic, wait.topics))
            return (
                f"stored, but probably not received: it waits at step {wait.function_id}, where "
                f"earlier runs received {expected}, not {describe_topic(self.topic)}"
            )
        until = f" until {format_time(wait.timeout_at)}" if wait.timeout_at else ""
        first = f", after {plural(unread, 'earlier message')}" if unread else ""
        waited = "without a topic" if self.topic is None else f"for topic {self.topic!r}"
        condition = "" if wait.topics else f" only if it waits {waited}"
        unknown = "" if wait.topics else "; DBOS does not record the topic it waits for"
        return (
            f"answers step {wait.function_id}{condition}, where it appears to wait{until}{first} "
            f"({wait.evidence}){unknown}"
        )

    def notes(self, items: Sequence[PlanItem]) -> list[str]:
        """Return how many wait for another topic, judged by earlier runs, or for an unknown one."""
        others = [
            item
            for item in items
            if isinstance(item, SendItem) and item.verdict == "ready" and item.topics
            if self.topic not in item.topics
        ]
        waiting = [
            item
            for item in items
            if isinstance(item, SendItem) and item.verdict == "ready" and item.waits_at is not None
        ]
        if self.topic is None and any(not item.topics for item in waiting):
            return [
                "⚠ The topic of the wait is not known from earlier runs, and this message has "
                "none. If DBOS.recv names a topic in the workflow's code, send with that topic."
            ]
        if not others:
            return []
        topics = dict.fromkeys(topic for item in others for topic in item.topics)
        expected = " or ".join(map(describe_topic, list(topics)[:MAX_SHOWN_TOPICS]))
        return [
            f"⚠ {len(others):,} would probably not receive it: earlier runs received {expected} "
            f"there, not {describe_topic(self.topic)}."
        ]

    def describe_unread(self, context: ReadContext, ids: Sequence[str]) -> str:
        """Return how many active workflows have not received the message; ``""`` if all have."""
        rows = context.workflows(ids)
        unread = {
            message.workflow_id
            for message in stored_messages(context.session, context.queries, ids)
            if message.unread and message.message_id == self.message_id(message.workflow_id)
        }
        active = [rows[one].status for one in unread if one in rows and rows[one].active]
        if not active:
            return ""
        if len(ids) > 1:
            return f"{len(active):,} {'has' if len(active) == 1 else 'have'} not received it yet"
        waiting = "still waiting: " if active[0] == "PENDING" else ""
        return f"{waiting}the message has not been received"

    def needs_executor(self, item: PlanItem) -> bool:
        """Return whether the workflow is active: an executor must run it to receive the message."""
        return item.row is not None and item.row.active

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the version of the workflow and, unless it has started, its queue."""
        row = item.row
        if row is None:
            return None, None
        return row.app_version, None if row.status == "PENDING" else row.queue_name

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Send to one workflow after the other, as DBOS does."""
        with WholeImports():
            from dbos import WorkflowSerializationFormat

        key = self.idempotency_key or self.own_key
        for item in items:
            client.send(
                item.workflow_id,
                self.message,
                self.topic,
                message_key(key, item.workflow_id),
                serialization_type=WorkflowSerializationFormat.PORTABLE,
            )

    def reread(self, context: ReadContext, items: Sequence[PlanItem]) -> Snapshot:
        """Read the workflows and the IDs of their messages after the call."""
        after = super().reread(context, items)
        ids = [item.workflow_id for item in items]
        messages = stored_messages(context.session, context.queries, ids)
        after.message_ids = frozenset(message.message_id for message in messages)
        return after

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether the message is stored."""
        return self.message_id(item.workflow_id) in after.message_ids


def _with(item: SendItem, verdict: Verdict, effect: str) -> SendItem:
    return replace(item, verdict=verdict, effect=effect)


def _describe(message: Any) -> str:
    """Return the type and the size of a message: its text may be a secret, and logs are kept.

    Examples
    --------
    >>> _describe({"approved": True}), _describe(True)
    ('dict, 18 bytes of JSON', 'bool')
    """
    name = type(message).__name__
    if not isinstance(message, str | list | dict):
        return name  # the size of True is its value
    size = len(json.dumps(message, ensure_ascii=False).encode())
    return f"{name}, {plural(size, 'byte')} of JSON"


def as_json(message: Any) -> Any:
    """Return a message as it is stored: as JSON, in which a tuple is a list.

    Examples
    --------
    >>> as_json({"approved": True, "by": ("ann", "bob")})
    {'approved': True, 'by': ['ann', 'bob']}
    """
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False)
        text.encode()  # no database stores a lone surrogate
    except (TypeError, ValueError, RecursionError) as error:
        raise FilterError(
            f"The message, of type {sanitize(type(message).__name__)}, cannot be stored as JSON: "
            f"{error}. Pass None, booleans, numbers, strings, lists and dicts; DBOSClient.send "
            "sends other objects."
        ) from None
    return json.loads(text)
