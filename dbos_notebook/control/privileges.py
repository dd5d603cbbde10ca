"""Which columns each call of DBOS reads and writes, as dbos 3.4 does it.

A role may have been granted columns alone, so tables are not enough. Columns that a database of
another revision lacks are not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

Needs = Mapping[tuple[str, str], tuple[str, ...]]
"""Columns by table and privilege; none for ``DELETE``, which knows only whole tables."""

STATUS, INPUT, OUTPUT = "workflow_status", "workflow_input", "workflow_output"
STEPS, EVENTS, HISTORY = "operation_outputs", "workflow_events", "workflow_events_history"
STREAMS, MESSAGES = "streams", "notifications"
SCHEDULES, VERSIONS = "workflow_schedules", "application_versions"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ENQUEUED = _words(
    "status owner_xid queue_name recovery_attempts workflow_deadline_epoch_ms deduplication_id "
    "started_at_epoch_ms updated_at completed_at"
)
_SCHEDULE = _words(
    "schedule_id schedule_name workflow_name workflow_class_name schedule status context "
    "last_fired_at automatic_backfill cron_timezone queue_name application_name"
)
_INSERTED = _words(
    "workflow_uuid status name class_name config_name executor_id application_version "
    "application_id authenticated_user authenticated_roles assumed_role queue_name "
    "recovery_attempts workflow_timeout_ms workflow_deadline_epoch_ms deduplication_id priority "
    "serialization queue_partition_key parent_workflow_id creator_xid owner_xid "
    "delay_until_epoch_ms attributes schedule_name debounce_deadline_epoch_ms is_debounced "
    "application_name"
)

CANCEL: Needs = {
    (STATUS, "SELECT"): _words("workflow_uuid status"),
    (STATUS, "UPDATE"): _words(
        "status owner_xid queue_name deduplication_id started_at_epoch_ms updated_at completed_at"
    ),
}
CANCEL_CHILDREN: Needs = {(STATUS, "SELECT"): _words("workflow_uuid status parent_workflow_id")}

RESUME: Needs = {
    (STATUS, "SELECT"): _words("workflow_uuid status"),
    (STATUS, "UPDATE"): _ENQUEUED,
}

DELETE: Needs = {
    (table, privilege): columns
    for table in (INPUT, OUTPUT, STEPS, STATUS)
    for privilege, columns in (("SELECT", ("workflow_uuid",)), ("DELETE", ()))
}

FORK: Needs = {
    (STATUS, "SELECT"): _words(
        "workflow_uuid name class_name config_name application_id authenticated_user "
        "authenticated_roles assumed_role inputs serialization attributes application_name"
    ),
    (STATUS, "INSERT"): _words(
        "workflow_uuid status name class_name config_name application_version application_id "
        "authenticated_user authenticated_roles serialization queue_name queue_partition_key "
        "assumed_role forked_from attributes application_name workflow_timeout_ms"
    ),
    (STATUS, "UPDATE"): ("was_forked_from",),
    (INPUT, "SELECT"): _words("workflow_uuid inputs"),
    (INPUT, "INSERT"): _words("workflow_uuid inputs"),
}
_STEP = _words(
    "workflow_uuid function_id output error serialization function_name child_workflow_id "
    "started_at_epoch_ms completed_at_epoch_ms"
)
_EVENT = _words("workflow_uuid key value serialization")
_STREAM = _words("workflow_uuid function_id key value serialization offset")
FORK_COPYING: Needs = {
    (STEPS, "SELECT"): _STEP,
    (STEPS, "INSERT"): (*_STEP, "application_name", "retention_timestamp"),
    (HISTORY, "SELECT"): (*_EVENT, "function_id"),
    (HISTORY, "INSERT"): (*_EVENT, "function_id"),
    (EVENTS, "INSERT"): _EVENT,
    (STREAMS, "SELECT"): _STREAM,
    (STREAMS, "INSERT"): _STREAM,
}
"""What a fork needs besides, if it copies steps."""

REWIND: Needs = {
    (STATUS, "SELECT"): _words("workflow_uuid status"),
    (STATUS, "UPDATE"): (*_ENQUEUED, "queue_partition_key", "output", "error"),
    (EVENTS, "SELECT"): _words("workflow_uuid key"),
    (EVENTS, "INSERT"): _EVENT,
    (EVENTS, "DELETE"): (),
    (HISTORY, "SELECT"): (*_EVENT, "function_id"),
    (HISTORY, "DELETE"): (),
    (STREAMS, "SELECT"): _words("workflow_uuid function_id value serialization"),
    (STREAMS, "DELETE"): (),
    (STEPS, "SELECT"): _words("workflow_uuid function_id"),
    (STEPS, "DELETE"): (),
    (MESSAGES, "SELECT"): _words("destination_uuid consumed_by_function_id consumed"),
    (MESSAGES, "DELETE"): (),
    (OUTPUT, "SELECT"): ("workflow_uuid",),
    (OUTPUT, "DELETE"): (),
}
REWIND_TO_VERSION: Needs = {(STATUS, "UPDATE"): (*REWIND[STATUS, "UPDATE"], "application_version")}

SET_DELAY: Needs = {
    (STATUS, "SELECT"): _words("workflow_uuid status"),
    (STATUS, "UPDATE"): _words("delay_until_epoch_ms updated_at"),
}
SET_ATTRIBUTES: Needs = {
    (STATUS, "SELECT"): _words("workflow_uuid attributes"),
    (STATUS, "UPDATE"): _words("attributes updated_at"),
}

SET_SCHEDULE: Needs = {
    (SCHEDULES, "SELECT"): ("schedule_name",),
    (SCHEDULES, "UPDATE"): ("status",),
}
DELETE_SCHEDULE: Needs = {
    (SCHEDULES, "SELECT"): ("schedule_name",),
    (SCHEDULES, "DELETE"): (),
}
ENQUEUE_SCHEDULE: Needs = {
    (SCHEDULES, "SELECT"): _SCHEDULE,
    (VERSIONS, "SELECT"): _words(
        "version_id version_name version_timestamp created_at application_name"
    ),
    (STATUS, "SELECT"): _words(
        "workflow_uuid status name class_name config_name queue_name creator_xid serialization"
    ),
    (STATUS, "INSERT"): _INSERTED,
    (STATUS, "UPDATE"): ("creator_xid",),
    (INPUT, "SELECT"): ("workflow_uuid",),
    (INPUT, "INSERT"): _words("workflow_uuid inputs"),
}
