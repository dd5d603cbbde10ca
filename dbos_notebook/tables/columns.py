"""Every column of every DataFrame, once: name, source, type, meaning.

SELECT lists, Arrow types, DataFrame dtypes and the reference page all come from here.
Names are DBOS's own (``WorkflowStatus`` and ``StepInfo`` of dbos 3.4); a ``_epoch_ms`` or
``_ms`` suffix goes when the value becomes a real time.
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
"""The years 1 to 9999, in milliseconds since 1970: what pandas and Python can show."""

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
TEXT: Any = "str" if PANDAS_3 else object
"""What text is cast to. Before pandas 3, ``astype("str")`` makes 'None' of a missing one."""
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
        The name that a person sees.
    kind
        What it holds; decides the Arrow type and the dtype.
    meaning
        One sentence, for the reference page.
    source
        The column of the database; ``None`` for one that is derived.
    """

    name: str
    kind: Kind
    meaning: str
    source: str | None = None

    @property
    def transport(self) -> pa.DataType:
        """The type in which the database's value travels."""
        return _TRANSPORT[self.kind]

    @property
    def arrow(self) -> pa.DataType:
        """The type in Arrow results."""
        return _ARROW[self.kind]

    @property
    def dtype(self) -> str:
        """The dtype in DataFrames."""
        return DTYPES[self.kind]


def _column(name: str, kind: Kind, meaning: str, source: str | None = "") -> Column:
    return Column(name, kind, meaning, name if source == "" else source)


ERROR = (
    _column("error_type", "category", "The class of the recorded error.", None),
    _column("error_message", "text", "What the recorded error says.", None),
)
RECORDED = (
    _column("_error", "text", "The recorded error, for ERROR's columns.", "error"),
    _column("_serialization", "category", "Its format.", "serialization"),
)
"""What ERROR's columns are derived from; it travels, and is not shown."""

WAIT = _column(
    "queue_wait",
    "duration",
    "How long it waited on its queue before its latest run; until now while it is ENQUEUED. "
    "A delay is no wait. Missing if it was never queued, or resumed or recovered since, or "
    "cancelled (unless a deadline shows that it was never resumed).",
    None,
)

WORKFLOW = (
    _column("workflow_id", "text", "The workflow's ID.", "workflow_uuid"),
    _column("status", "status", "One of DBOS's seven statuses."),
    _column("name", "category", "The workflow function."),
    _column("class_name", "category", "The class it is a method of."),
    _column("config_name", "category", "The configured instance of that class."),
    _column(
        "app_version",
        "category",
        "The application version that runs it; missing: any may.",
        "application_version",
    ),
    _column(
        "application_name",
        "category",
        "The application that owns it; missing: unclaimed, any application may run it.",
    ),
    _column(
        "executor_id",
        "category",
        "The executor that last ran it. Until it first starts, the process that enqueued it.",
    ),
    _column("queue_name", "category", "The queue it is or was on. Cancelling clears it."),
    _column("queue_partition_key", "text", "Its partition of a partitioned queue."),
    _column("priority", "integer", "Its priority on the queue: 0 first."),
    _column("deduplication_id", "text", "Its deduplication ID on the queue."),
    _column("created_at", "instant", "When it was started or enqueued."),
    _column("updated_at", "instant", "When its row last changed."),
    _column("dequeued_at", "instant", "When it last left its queue.", "started_at_epoch_ms"),
    _column("completed_at", "instant", "When it succeeded, failed or was cancelled."),
    _column("delay_until", "instant", "Not dequeued before this.", "delay_until_epoch_ms"),
    _column(
        "workflow_deadline",
        "instant",
        "When DBOS cancels it if it still runs.",
        "workflow_deadline_epoch_ms",
    ),
    _column("workflow_timeout", "duration", "Its timeout.", "workflow_timeout_ms"),
    _column(
        "duration",
        "duration",
        "How long its latest run took; until now while it runs. Missing if it never ran, or was "
        "cancelled at a time when nothing holds when it began.",
        None,
    ),
    WAIT,
    *ERROR,
    _column("parent_workflow_id", "text", "The workflow that started it as a child."),
    _column("forked_from", "text", "The workflow that it was forked from."),
    _column("was_forked_from", "boolean", "Whether others were forked from it."),
    _column("schedule_name", "category", "The schedule that enqueued it."),
    _column("authenticated_user", "text", "The user who started it."),
    _column("assumed_role", "category", "The role it ran with."),
    _column("authenticated_roles", "json", "The roles that user could assume: a list."),
    _column("app_id", "category", "The ID of the application's deployment.", "application_id"),
    _column("recovery_attempts", "integer", "How often its execution was attempted."),
    _column("attributes", "json", "Custom key-value pairs: a dict."),
)

INTERNAL = (
    _column("rate_limited", "boolean", "Whether it counts towards its queue's rate limit."),
    _column("is_debounced", "boolean", "Whether a debouncer enqueued it, to wait for more calls."),
    _column(
        "debounce_deadline",
        "instant",
        "When a debounced workflow starts at the latest.",
        "debounce_deadline_epoch_ms",
    ),
    _column(
        "owner_xid", "text", "DBOS's token of the execution that owns it now; missing: none does."
    ),
    _column("creator_xid", "text", "DBOS's token of the call that created it."),
)
"""What DBOS keeps for itself: read on request, because few ask and a listing takes longer."""

PAYLOAD = (
    _column("serialization", "category", "The format of the stored texts; missing: the default."),
    _column("input", "payload", "The inputs, decoded.", "inputs"),
    _column("output", "payload", "The result, decoded."),
    _column("error", "payload", "The error, decoded."),
)

TREE = (
    _column("root_workflow_id", "text", "The workflow that the tree was asked for.", None),
    _column("depth", "integer", "0 for the root, 1 for its children, and so on.", None),
)

STEP = (
    _column("workflow_id", "text", "The workflow that the step belongs to.", "workflow_uuid"),
    _column(
        "function_id", "integer", "The step's number. Python counts from 1, TypeScript from 0."
    ),
    _column("function_name", "category", "The step function; DBOS's own begin with DBOS."),
    _column("status", "category", "SUCCESS or ERROR; a step that still runs has no row.", "error"),
    _column("started_at", "instant", "When it began.", "started_at_epoch_ms"),
    _column("completed_at", "instant", "When its result was recorded.", "completed_at_epoch_ms"),
    _column("duration", "duration", "Began to recorded.", None),
    _column("child_workflow_id", "text", "The child that it started or awaited."),
    *ERROR,
    _column("application_name", "category", "The application that ran it."),
)

QUEUE = (
    _column("queue_name", "text", "The queue's name.", "name"),
    _column("concurrency", "integer", "Most workflows that run at once, everywhere."),
    _column("worker_concurrency", "integer", "Most that run at once on one executor."),
    _column("rate_limit_max", "integer", "Most started in a rate period."),
    _column("rate_limit_period", "number", "The rate period, seconds.", "rate_limit_period_sec"),
    _column("priority_enabled", "boolean", "Whether priorities count."),
    _column("partition_queue", "boolean", "Whether limits hold per partition."),
    _column(
        "polling_interval", "number", "How often workers look, seconds.", "polling_interval_sec"
    ),
    _column("partition_concurrency", "integer", "Most that run at once in one partition."),
    _column("partition_worker_concurrency", "integer", "The same on one executor."),
    _column("partition_rate_limit_max", "integer", "Most started in a period, per partition."),
    _column(
        "partition_rate_limit_period",
        "number",
        "That period, seconds.",
        "partition_rate_limit_period_sec",
    ),
    _column("application_name", "text", "The application that owns the queue."),
    _column("created_at", "instant", "When it was registered."),
    _column("updated_at", "instant", "When its settings last changed."),
)

QUEUE_WORK = (
    _column("queue_partition_key", "text", "The partition; missing on a queue without.", None),
    _column("delayed", "integer", "Workflows that wait for their delay.", None),
    _column("enqueued", "integer", "Workflows that wait for a worker: the depth.", None),
    _column("running", "integer", "Workflows that run now (PENDING).", None),
    _column("oldest_enqueued_at", "instant", "When the one that waits longest was enqueued.", None),
    _column("oldest_wait", "duration", "How long that one has waited.", None),
)

EVENT = (
    _column("workflow_id", "text", "The workflow that set the event.", "workflow_uuid"),
    _column("key", "text", "The event's key."),
    _column("value", "payload", "Its latest value, decoded."),
    _column("serialization", "category", "The format of the stored text."),
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
    _column("topic", "category", "The topic; missing: none was given."),
    _column("message", "payload", "The message, decoded."),
    _column("created_at", "instant", "When it was sent.", "created_at_epoch_ms"),
    _column("consumed", "boolean", "Whether it was received."),
    _column("consumed_by_function_id", "integer", "The step that received it."),
    _column("serialization", "category", "The format of the stored text."),
)

STREAM = (
    _column("workflow_id", "text", "The workflow that wrote it.", "workflow_uuid"),
    _column("key", "text", "The stream's key."),
    _column("offset", "integer", "Its place in the stream, from 0."),
    _column("value", "payload", "The value, decoded."),
    _column("function_id", "integer", "The step that wrote it."),
    _column("serialization", "category", "The format of the stored text."),
    _column(
        "closed",
        "boolean",
        "Whether its stream was closed: no more values come after these.",
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
    _column("last_fired_at", "text", "When it last fired, as DBOS wrote it (ISO 8601)."),
    _column("context", "payload", "What each of its workflows is given, decoded."),
    _column("automatic_backfill", "boolean", "Whether missed times are made up for."),
    _column("cron_timezone", "text", "The time zone of the expression."),
    _column("queue_name", "text", "The queue that it enqueues on."),
    _column("application_name", "text", "The application that owns it."),
)

VERSION = (
    _column("version_name", "text", "The application version."),
    _column("version_id", "text", "Its ID."),
    _column("version_timestamp", "instant", "The newest of these is the latest version."),
    _column("created_at", "instant", "When it was registered."),
    _column("application_name", "text", "The application."),
)

EXECUTOR = (
    _column("executor_id", "text", "The executor.", None),
    _column("app_version", "text", "The application version that it ran.", None),
    _column("application_name", "text", "The application.", None),
    _column("workflows", "integer", "Workflows that it was the last to run; none that wait.", None),
    _column("running", "integer", "Those that are PENDING.", None),
    _column("failed", "integer", "Those that ended in ERROR.", None),
    _column("first_seen", "instant", "Its oldest workflow's creation.", None),
    _column(
        "last_seen", "instant", "When a workflow of its last started or ended. No heartbeat.", None
    ),
)

FRAMES: dict[str, tuple[Column, ...]] = {
    "workflows": WORKFLOW,
    "internals": INTERNAL,
    "payloads": PAYLOAD,
    "tree": TREE,
    "steps": STEP,
    "queues": QUEUE[:1] + QUEUE_WORK + QUEUE[1:],
    "events": EVENT,
    "events_history": EVENT_HISTORY,
    "messages": MESSAGE,
    "streams": STREAM,
    "schedules": SCHEDULE,
    "versions": VERSION,
    "executors": EXECUTOR,
}
"""The columns of each DataFrame, in order: the reference page is written from this."""

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
"""The columns that are read of each table of the database."""


def expected_columns() -> dict[str, list[str]]:
    """Return the columns of dbos 3.4 that DataFrames are made of, by table.

    Examples
    --------
    >>> expected_columns()["workflow_input"]
    ['inputs']
    """
    return {
        table: list(dict.fromkeys(column.source for column in columns if column.source))
        for table, columns in SOURCES.items()
    }
