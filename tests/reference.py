"""What DBOS itself says of a database, and our frames turned back into its terms.

Only translation lives here; comparing belongs to the tests.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

import dbos_notebook as dn

# DBOS's field -> our column, where the names differ.
RENAMED = {
    "workflow_deadline_epoch_ms": "workflow_deadline",
    "workflow_timeout_ms": "workflow_timeout",
    "delay_until_epoch_ms": "delay_until",
    "started_at_epoch_ms": "started_at",
    "completed_at_epoch_ms": "completed_at",
}
WORKFLOW_FIELDS = [
    "workflow_id",
    "status",
    "name",
    "class_name",
    "config_name",
    "app_version",
    "application_name",
    "executor_id",
    "queue_name",
    "queue_partition_key",
    "priority",
    "deduplication_id",
    "created_at",
    "updated_at",
    "dequeued_at",
    "completed_at",
    "delay_until_epoch_ms",
    "workflow_deadline_epoch_ms",
    "workflow_timeout_ms",
    "parent_workflow_id",
    "forked_from",
    "was_forked_from",
    "schedule_name",
    "authenticated_user",
    "assumed_role",
    "authenticated_roles",
    "app_id",
    "recovery_attempts",
    "attributes",
]
STEP_FIELDS = [
    "function_id",
    "function_name",
    "child_workflow_id",
    "started_at_epoch_ms",
    "completed_at_epoch_ms",
]
_JSON_FIELDS = {"attributes", "authenticated_roles"}
_EPOCH = pd.Timestamp(0, unit="ms", tz="UTC")
_MILLISECOND = pd.Timedelta(milliseconds=1)


def plain(field: str, value: Any) -> Any:
    """Turn one cell of ours into what DBOS gives for the field: epoch ms, ms, dict, None."""
    if isinstance(value, dict | list):
        return value
    if value is None or pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return (value - _EPOCH) // _MILLISECOND
    if isinstance(value, pd.Timedelta):
        return value // _MILLISECOND
    if field in _JSON_FIELDS and isinstance(value, str):
        return json.loads(value)
    return value.item() if hasattr(value, "item") else value


def our_records(frame: pd.DataFrame, fields: Iterable[str]) -> list[dict[str, Any]]:
    """Give a frame's rows as DBOS's records: its field names, its units."""
    columns = {
        field: [plain(field, value) for value in frame[RENAMED.get(field, field)]]
        for field in fields
    }
    return [{field: values[row] for field, values in columns.items()} for row in range(len(frame))]


def dbos_records(statuses: Iterable[Any]) -> list[dict[str, Any]]:
    """Give DBOSClient's WorkflowStatus objects as records."""
    records = [{field: getattr(status, field) for field in WORKFLOW_FIELDS} for status in statuses]
    for record in records:
        record["was_forked_from"] = bool(record["was_forked_from"])
    return records


def by_id(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Index records by workflow ID; a repeated ID is an error."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        assert record["workflow_id"] not in found, f"{record['workflow_id']!r} is there twice"
        found[record["workflow_id"]] = record
    return found


def contains(stored: Any, wanted: Any) -> bool:
    """Answer Postgres's ``stored::jsonb @> wanted::jsonb`` for parsed JSON values."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(
            key in stored and contains(stored[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(stored, list) and all(
            any(contains(item, value) for item in stored) for value in wanted
        )
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    return type(stored) is not list and bool(stored == wanted)


def instant(milliseconds: int) -> datetime.datetime:
    """Give epoch milliseconds as an aware datetime, exactly."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return epoch + datetime.timedelta(milliseconds=milliseconds)


def dbos_reads_exactly(milliseconds: int) -> bool:
    """Tell whether DBOS's float arithmetic keeps this instant's millisecond.

    DBOS computes ``int(datetime.timestamp() * 1000)``, which falls one short for some values.
    Ours does not, so those are tested apart.
    """
    return int(instant(milliseconds).timestamp() * 1000) == milliseconds


def read_everything(db: dn.Client) -> dict[str, pd.DataFrame]:
    """Call every reading method once."""
    workflows = db.workflows(limit=None)
    return {
        "workflows": workflows,
        "payloads": db.workflows(limit=None, load_input=True, load_output=True),
        "queued": db.queued(),
        "steps": db.steps(workflows, load_output=True),
        "tree": db.tree(workflows["workflow_id"].iloc[0]),
        "queues": db.queues(),
        "events": db.events(),
        "messages": db.messages(),
        "streams": db.streams(),
        "schedules": db.schedules(),
        "versions": db.versions(),
        "executors": db.executors(),
        "counts": db.counts(bucket="1h"),
        "step_statistics": db.step_statistics(),
        "chunks": pd.concat(list(db.iter_workflows(chunksize=7))),
        # The schema alone: what pandas makes of a column of Arrow depends on its values.
        "arrow": db.arrow("workflows").read_all().schema.empty_table().to_pandas(),
    }
