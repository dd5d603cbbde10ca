"""The columns of all DataFrames: name, source, type and description.

SELECT lists, Arrow types, DataFrame dtypes and the reference page are derived from these tables.
Names are those of DBOS (``WorkflowStatus`` and ``StepInfo`` of dbos 3.4), without the suffixes
``_epoch_ms`` and ``_ms``, because the values are converted to times and durations.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import pyarrow as pa

Kind = Literal[
    "text",
    "category",
    "status",
    "instant",
    "duration",
    "integer",
    "number",
    "boolean",
    "json",
    "payload",
]

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999 in milliseconds since 1970, the range that Python can format."""

_TRANSPORT: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "status": pa.dictionary(pa.int32(), pa.string()),
    "instant": pa.int64(),
    "duration": pa.int64(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "json": pa.large_string(),
    "payload": pa.large_string(),
}
_ARROW: dict[Kind, pa.DataType] = _TRANSPORT | {
    "instant": pa.timestamp("ms", tz="UTC"),
    "duration": pa.duration("ms"),
}
PANDAS_3 = int(version("pandas").partition(".")[0]) >= 3
STRING_DTYPE: Any = "str" if PANDAS_3 else object
"""The dtype for strings. Before pandas 3, ``astype("str")`` converts missing values to 'None'."""
DTYPES: dict[Kind, str] = {
    "text": "str",
    "category": "category",
    "status": "category (ordered)",
    "instant": "datetime64[ms, UTC]",
    "duration": "timedelta64[ms]",
    "integer": "Int64",
    "number": "float64",
    "boolean": "boolean",
    "json": "object",
    "payload": "object",
}


@dataclass(frozen=True)
class Column:
    """One column of a DataFrame.

    Attributes
    ----------
    name
        The name in the DataFrame.
    kind
        The kind of values, which determines the Arrow type and the dtype.
    meaning
        The description for the reference page, one or two sentences.
    source
        The column of the database; ``None`` for a derived column.
    """

    name: str
    kind: Kind
    meaning: str
    source: str | None = None

    @property
    def transport(self) -> pa.DataType:
        """The Arrow type of the values as read from the database."""
        return _TRANSPORT[self.kind]

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type in results."""
        return _ARROW[self.kind]

    @property
    def dtype(self) -> str:
        """The dtype in DataFrames."""
        return DTYPES[self.kind]


def _column(name: str, kind: Kind, meaning: str, source: str | None = "") -> Column:
    return Column(name, kind, meaning, name if source == "" else source)


ERROR = (
    _column(
        "error_type",
        "category",
        "The class of the recorded error; if it wraps another error, the class of that one.",
        None,
    ),
    _column("error_message", "text", "The message of the same error.", None),
    _column(
        "error_wrapper",
        "category",
        "The class that wraps it, such as DBOSMaxStepRetriesExceeded; missing if none does.",
        None,
    ),
    _column(
        "error_attempts",
        "integer",
        "How often the step was attempted, where the recorded error says it.",
        None,
    ),
)
FAILED_STEP = (
    _column(
        "failed_step",
        "category",
        "The step whose failure made it fail, also that of a child; missing if the workflow's own "
        "code failed.",
        None,
    ),
    _column("failed_step_id", "integer", "The function_id of that step.", None),
    _column(
        "failed_workflow_id",
        "text",
        "The workflow that failed first: itself, or the child that made it fail.",
        None,
    ),
)
"""Columns of failed workflows that are derived from their steps and those of their children."""
RECORDED = (
    _column("_error", "text", "The recorded error, for ERROR's columns.", "error"),
    _column("_serialization", "category", "Its format.", "serialization"),
)
"""Hidden columns from which the columns of ERROR are derived."""

WAIT = _column(
    "queue_wait",
    "duration",
    "How long it waited on its queue before its latest run; until now while it is ENQUEUED. "
    "Does not include a delay. Missing if it was never enqueued, or was resumed or recovered "
    "since, or cancelled (unless a deadline shows that it was never resumed).",
    None,
)

WORKFLOW = (
    _column("workflow_id", "text", "The workflow's ID.", "workflow_uuid"),
    _column("status", "status", "One of DBOS's seven statuses."),
    _column("name", "category", "The workflow function."),
    _column("created_at", "instant", "When it was started or enqueued."),
    _column(
        "duration",
        "duration",
        "How long its latest run took; until now while it runs. Missing if it never ran, or was "
        "cancelled and its start is unknown.",
        None,
    ),
    WAIT,
    *ERROR[:2],
    *FAILED_STEP,
    *ERROR[2:],
    _column(
        "app_version",
        "category",
        "The application version that runs it; missing if any version can.",
        "application_version",
    ),
    _column("queue_name", "category", "The queue it is or was on. Cancelling clears it."),
    _column(
        "executor_id",
        "category",
        "The executor that last ran it; until its first start, the process that enqueued it.",
    ),
    _column("parent_workflow_id", "text", "The workflow that started it as a child."),
    _column("forked_from", "text", "The workflow that it was forked from."),
    _column("completed_at", "instant", "When it succeeded, failed or was cancelled."),
    _column("class_name", "category", "The class it is a method of."),
    _column("config_name", "category", "The configured instance of that class."),
    _column(
        "application_name",
        "category",
        "The application that owns it; missing if any application can run it.",
    ),
    _column("queue_partition_key", "text", "Its partition of a partitioned queue."),
    _column("priority", "integer", "Its priority on the queue; 0 is dequeued first."),
    _column("deduplication_id", "text", "Its deduplication ID on the queue."),
    _column("updated_at", "instant", "When its row last changed."),
    _column("dequeued_at", "instant", "When it last left its queue.", "started_at_epoch_ms"),
    _column("delay_until", "instant", "When its delay ends.", "delay_until_epoch_ms"),
    _column(
        "workflow_deadline",
        "instant",
        "When DBOS cancels it if it is still running.",
        "workflow_deadline_epoch_ms",
    ),
    _column("workflow_timeout", "duration", "Its timeout.", "workflow_timeout_ms"),
    _column("was_forked_from", "boolean", "Whether other workflows were forked from it."),
    _column("schedule_name", "category", "The schedule that enqueued it."),
    _column("authenticated_user", "text", "The user who started it."),
    _column("assumed_role", "category", "The role it ran with."),
    _column("authenticated_roles", "json", "The list of roles that the user could assume."),
    _column("app_id", "category", "The ID of the application's deployment.", "application_id"),
    _column("recovery_attempts", "integer", "How often its execution was attempted."),
    _column("attributes", "json", "Custom attributes, a dict."),
)

ACTIVITY = _column(
    "activity",
    "text",
    "What an active workflow is doing now, inferred from its steps, children, queue and executors.",
    None,
)
"""A column that is read on request only, because it takes a few more statements."""

INTERNAL = (
    _column("rate_limited", "boolean", "Whether it counts towards its queue's rate limit."),
    _column("is_debounced", "boolean", "Whether a debouncer enqueued it, to wait for more calls."),
    _column(
        "debounce_deadline",
        "instant",
        "The latest start of a debounced workflow.",
        "debounce_deadline_epoch_ms",
    ),
    _column(
        "owner_xid", "text", "DBOS's token of the execution that owns it; missing if none does."
    ),
    _column("creator_xid", "text", "DBOS's token of the call that created it."),
)
"""Internal columns of DBOS, read on request only, because they make a listing slower."""

PAYLOAD = (
    _column("serialization", "category", "The format of the payloads; missing for the default."),
    _column("input", "payload", "The inputs, decoded.", "inputs"),
    _column("output", "payload", "The result, decoded."),
    _column("error", "payload", "The error, decoded."),
)

TREE = (
    _column("root_workflow_id", "text", "The requested root of the tree.", None),
    _column("depth", "integer", "0 for the root, 1 for its children, and so on.", None),
)

STEP = (
    _column("workflow_id", "text", "The workflow that the step belongs to.", "workflow_uuid"),
    _column(
        "function_id", "integer", "The step's number. Python counts from 1, TypeScript from 0."
    ),
    _column("function_name", "category", "The step function; DBOS's own steps start with DBOS."),
    _column("status", "category", "SUCCESS or ERROR; a running step has no row.", "error"),
    _column("started_at", "instant", "When it started.", "started_at_epoch_ms"),
    _column("completed_at", "instant", "When its result was recorded.", "completed_at_epoch_ms"),
    _column("duration", "duration", "From started_at to completed_at.", None),
    _column("child_workflow_id", "text", "The child that it started or awaited."),
    *ERROR,
    _column("application_name", "category", "The application that ran it."),
)

QUEUE = (
    _column("queue_name", "text", "The queue's name.", "name"),
    _column("concurrency", "integer", "Maximum workflows that run at once on all executors."),
    _column("worker_concurrency", "integer", "Maximum workflows that run at once per executor."),
    _column("rate_limit_max", "integer", "Maximum workflows started in a rate limit period."),
    _column(
        "rate_limit_period",
        "number",
        "The rate limit period in seconds.",
        "rate_limit_period_sec",
    ),
    _column("priority_enabled", "boolean", "Whether priorities are used."),
    _column("partition_queue", "boolean", "Whether limits apply per partition."),
    _column(
        "polling_interval",
        "number",
        "The polling interval of workers in seconds.",
        "polling_interval_sec",
    ),
    _column(
        "partition_concurrency", "integer", "Maximum workflows that run at once per partition."
    ),
    _column(
        "partition_worker_concurrency",
        "integer",
        "Maximum workflows that run at once per partition and executor.",
    ),
    _column(
        "partition_rate_limit_max",
        "integer",
        "Maximum workflows started in a rate limit period per partition.",
    ),
    _column(
        "partition_rate_limit_period",
        "number",
        "The rate limit period per partition in seconds.",
        "partition_rate_limit_period_sec",
    ),
    _column("application_name", "text", "The application that owns the queue."),
    _column("created_at", "instant", "When it was registered."),
    _column("updated_at", "instant", "When its settings last changed."),
)

QUEUE_WORK = (
    _column(
        "queue_partition_key", "text", "The partition; missing on an unpartitioned queue.", None
    ),
    _column("delayed", "integer", "Workflows with the status DELAYED.", None),
    _column("enqueued", "integer", "Workflows with the status ENQUEUED: the queue depth.", None),
    _column("running", "integer", "Workflows with the status PENDING.", None),
    _column("oldest_enqueued_at", "instant", "When the oldest waiting one was enqueued.", None),
    _column("oldest_wait", "duration", "How long the oldest waiting one has waited.", None),
)

EVENT = (
    _column("workflow_id", "text", "The workflow that set the event.", "workflow_uuid"),
    _column("key", "text", "The event's key."),
    _column("value", "payload", "Its latest value, decoded."),
    _column("serialization", "category", "The format of the payload."),
)

EVENT_HISTORY = (
    *EVENT[:2],
    _column("function_id", "integer", "The step that set it."),
    _column("value", "payload", "The value that it set, decoded."),
    EVENT[-1],
)

MESSAGE = (
    _column("workflow_id", "text", "The workflow that it was sent to.", "destination_uuid"),
    _column("message_id", "text", "The message's ID.", "message_uuid"),
    _column("topic", "category", "The topic; missing if none was given."),
    _column("message", "payload", "The message, decoded."),
    _column("created_at", "instant", "When it was sent.", "created_at_epoch_ms"),
    _column("consumed", "boolean", "Whether it was received."),
    _column("consumed_by_function_id", "integer", "The step that received it."),
    _column("serialization", "category", "The format of the payload."),
)

STREAM = (
    _column("workflow_id", "text", "The workflow that wrote it.", "workflow_uuid"),
    _column("key", "text", "The stream's key."),
    _column("offset", "integer", "Its position in the stream, from 0."),
    _column("value", "payload", "The value, decoded."),
    _column("function_id", "integer", "The step that wrote it."),
    _column("serialization", "category", "The format of the payload."),
    _column(
        "closed",
        "boolean",
        "Whether the stream was closed, so that it gets no more values.",
        "value",
    ),
)

SCHEDULE = (
    _column("schedule_name", "text", "The schedule's name."),
    _column("schedule_id", "text", "Its ID."),
    _column("workflow_name", "text", "The workflow that it starts."),
    _column("workflow_class_name", "text", "That workflow's class."),
    _column("schedule", "text", "The crontab expression."),
    _column("status", "category", "ACTIVE or PAUSED."),
    _column("last_fired_at", "text", "When it last fired, as an ISO 8601 string."),
    _column("context", "payload", "The context that is passed to its workflows, decoded."),
    _column("automatic_backfill", "boolean", "Whether missed runs are backfilled."),
    _column("cron_timezone", "text", "The time zone of the expression."),
    _column("queue_name", "text", "The queue on which it enqueues workflows."),
    _column("application_name", "text", "The application that owns it."),
)

VERSION = (
    _column("version_name", "text", "The application version."),
    _column("version_id", "text", "Its ID."),
    _column("version_timestamp", "instant", "The version with the newest one is the latest."),
    _column("created_at", "instant", "When it was registered."),
    _column("application_name", "text", "The application."),
)

EXECUTOR = (
    _column("executor_id", "text", "The executor.", None),
    _column("app_version", "text", "The application version that it ran.", None),
    _column("application_name", "text", "The application.", None),
    _column("workflows", "integer", "Workflows whose last run was on it; no waiting ones.", None),
    _column("running", "integer", "Those with the status PENDING.", None),
    _column("failed", "integer", "Those with the status ERROR.", None),
    _column("first_seen", "instant", "When its oldest workflow was created.", None),
    _column(
        "last_seen",
        "instant",
        "When one of its workflows last started or ended; not a heartbeat.",
        None,
    ),
)

MESSAGE_WAIT = (
    _column("workflow_id", "text", "The workflow that appears to wait for a message.", None),
    _column("name", "text", "Its name.", None),
    _column("function_id", "integer", "The step that waits.", None),
    _column(
        "topic",
        "text",
        "The topic that earlier runs received most often at this step; missing if they received "
        "none, or a message without a topic. DBOS does not record the topic of a wait.",
        None,
    ),
    _column("since", "instant", "When it began to wait.", None),
    _column("timeout_at", "instant", "When the wait ends without a message.", None),
    _column("event_key", "text", "The key of the event that it set last.", None),
    _column("event", "payload", "That event's value, decoded.", None),
    _column("unread", "integer", "Messages that were sent to it and not received.", None),
    _column("app_version", "text", "The application version that it runs.", None),
    _column("executor_id", "text", "The executor that it runs on.", None),
    _column("evidence", "text", "Why it appears to wait.", None),
)

FRAMES: dict[str, tuple[Column, ...]] = {
    "workflows": WORKFLOW,
    "activity": (ACTIVITY,),
    "internals": INTERNAL,
    "payloads": PAYLOAD,
    "tree": TREE,
    "steps": STEP,
    "queues": QUEUE[:1] + QUEUE_WORK + QUEUE[1:],
    "events": EVENT,
    "events_history": EVENT_HISTORY,
    "messages": MESSAGE,
    "awaiting_messages": MESSAGE_WAIT,
    "streams": STREAM,
    "schedules": SCHEDULE,
    "versions": VERSION,
    "executors": EXECUTOR,
}
"""The columns of each DataFrame in order, also for the reference page."""

SOURCES: dict[str, tuple[Column, ...]] = {
    "workflow_status": (*WORKFLOW, *INTERNAL, *PAYLOAD[:1]),
    "workflow_input": PAYLOAD[1:2],
    "workflow_output": PAYLOAD[2:],
    "operation_outputs": (*STEP, *PAYLOAD[:1], *PAYLOAD[2:]),
    "queues": QUEUE,
    "workflow_events": EVENT,
    "workflow_events_history": EVENT_HISTORY,
    "notifications": MESSAGE,
    "streams": STREAM,
    "workflow_schedules": SCHEDULE,
    "application_versions": VERSION,
}
"""The columns that are read from each table of the database."""


def expected_columns() -> dict[str, list[str]]:
    """Return the columns of dbos 3.4 that are read, by table.

    Examples
    --------
    >>> expected_columns()["workflow_input"]
    ['inputs']
    """
    return {
        table: list(dict.fromkeys(column.source for column in columns if column.source))
        for table, columns in SOURCES.items()
    }
