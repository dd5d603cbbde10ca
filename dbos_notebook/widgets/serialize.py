"""Convert DataFrames and decoded values to messages for the browser, bounded in size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dbos_notebook.payloads import Opaque, RecordedError
from dbos_notebook.payloads.recorded_errors import find_cause
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables.timing import frame_times, never_ran
from dbos_notebook.text import describe_failed_step, truncate
from dbos_notebook.widgets.messages import (
    ErrorPayload,
    ForkMessage,
    JsonKey,
    NodeKey,
    Payload,
    StepMessage,
    WorkflowMessage,
    compact,
)
from dbos_notebook.workflow import Input

MAX_VALUE_CHARACTERS = 20_000
"""Of one value; in Python, the value itself is complete."""
MAX_LABEL_CHARACTERS = 300
"""Of a name, an error message and other strings on one line."""
MAX_TEXT_CHARACTERS = 2_000
"""Of an explanation, whose end may be what decides."""
MAX_INDENTED_CHARACTERS = 200_000
"""A longer value is not written on several lines, which would take too long."""
LINE_WIDTH = 72
MAX_INDENT_DEPTH = 12
"""A value that is wider than a line is written on several, down to this depth."""

_STRING_COLUMNS = (
    "name",
    "class_name",
    "config_name",
    "app_version",
    "application_name",
    "executor_id",
    "queue_name",
    "queue_partition_key",
    "deduplication_id",
    "error_type",
    "error_message",
    "error_wrapper",
    "failed_step",
    "schedule_name",
    "authenticated_user",
    "assumed_role",
)
_ID_COLUMNS = ("parent_workflow_id", "forked_from", "failed_workflow_id")
_INTEGER_COLUMNS = ("priority", "recovery_attempts", "error_attempts", "failed_step_id")
_TIME_COLUMNS = (
    "created_at",
    "updated_at",
    "dequeued_at",
    "completed_at",
    "delay_until",
    "workflow_deadline",
)


def label(value: object) -> str:
    """Return a value as a string for one line, truncated."""
    return truncate(str(value), MAX_LABEL_CHARACTERS)


def explanation(value: object) -> str:
    """Return a value as a text of several lines: a reason, a remedy or a warning."""
    return truncate(str(value), MAX_TEXT_CHARACTERS)


def milliseconds(value: Any) -> int | None:
    """Return an instant or a duration in milliseconds.

    Examples
    --------
    >>> milliseconds(pd.Timestamp("1970-01-01T00:00:01Z")), milliseconds(pd.NaT)
    (1000, None)
    """
    if pd.isna(value):
        return None
    seconds = value.timestamp() if isinstance(value, pd.Timestamp) else value.total_seconds()
    return round(seconds * 1000)


def from_json_key(value: JsonKey) -> Any:
    """Return a node's key in a graph from its JSON.

    Examples
    --------
    >>> from_json_key(["order-1", 3]), to_json_key(("order-1", 3)), from_json_key("order-1")
    (('order-1', 3), ['order-1', 3], 'order-1')
    """
    return tuple(map(from_json_key, value)) if isinstance(value, list | tuple) else value


def to_json_key(key: NodeKey) -> JsonKey:
    """Return a node's key as JSON."""
    return list(map(to_json_key, key)) if isinstance(key, tuple) else key


def workflow_rows(frame: pd.DataFrame) -> list[WorkflowMessage]:
    """Return a message for each workflow of a frame.

    The browser computes the durations of active workflows, so that a row changes only when its
    workflow does.
    """
    times = frame_times(frame, pd.Timestamp.now("UTC"))[["enqueued_at", "started_at"]]
    return [
        _workflow_row(record, started)
        for record, started in zip(frame.to_dict("records"), times.to_dict("records"), strict=True)
    ]


def _workflow_row(record: Mapping[Any, Any], times: Mapping[Any, Any]) -> WorkflowMessage:
    columns = ("status", *_STRING_COLUMNS, *_ID_COLUMNS, *_INTEGER_COLUMNS)
    known = {name: record[name] for name in columns if not pd.isna(record[name])}
    row: dict[str, Any] = {"id": record["workflow_id"], "status": known.get("status", "")}
    row |= {name: label(known[name]) for name in _STRING_COLUMNS if name in known}
    row |= {name: known[name] for name in _ID_COLUMNS if name in known}
    row |= {name: int(known[name]) for name in _INTEGER_COLUMNS if name in known}
    row |= {name: milliseconds(record[name]) for name in _TIME_COLUMNS}
    row |= {str(name): milliseconds(time) for name, time in times.items()}
    if never_ran(record["status"], record["recovery_attempts"]):
        row.pop("executor_id", None)  # that which enqueued it, or ran it before it was resumed
    if record["status"] not in ACTIVE_STATUSES:
        row["duration"] = milliseconds(record["duration"])
    step, number = known.get("failed_step"), known.get("failed_step_id")
    owner = known.get("failed_workflow_id", row["id"])
    if step is not None or owner != row["id"]:
        row["failed_at"] = label(describe_failed_step(step, number, owner, row["id"]))
    if record["was_forked_from"] is True:
        row["was_forked_from"] = True
    if record["attributes"]:
        row["attributes"] = label(json.dumps(record["attributes"], ensure_ascii=False))
    message: WorkflowMessage = compact(row)
    return message


def fork_rows(frame: pd.DataFrame) -> list[ForkMessage]:
    """Return the IDs and statuses of the workflows of a frame."""
    pairs = zip(frame["workflow_id"], frame["status"], strict=True)
    return [{"id": key, "status": "" if pd.isna(status) else status} for key, status in pairs]


def step_rows(frame: pd.DataFrame) -> list[StepMessage]:
    """Return a message for each step of a frame with results."""
    rows: list[StepMessage] = []
    for record in frame.to_dict("records"):
        failed = record["status"] == "ERROR"
        child = record["child_workflow_id"]
        row: StepMessage = compact(
            {
                "number": int(record["function_id"]),
                "name": label(record["function_name"]),
                "status": record["status"],
                "started_at": milliseconds(record["started_at"]),
                "completed_at": milliseconds(record["completed_at"]),
                "child": None if pd.isna(child) else child,
                "result": value_payload(record["error"] if failed else record["output"]),
            }
        )
        rows.append(row)
    return rows


def value_payload(value: object) -> Payload:
    """Write a decoded value as a string, truncated where it is long.

    Examples
    --------
    >>> value_payload({"price": 9.5})
    {'text': "{'price': 9.5}"}
    >>> value_payload("x" * 1_000_000)["left_out"]
    980003
    >>> print(value_payload({"cities": ["Berlin"] * 3, "note": "x" * 60})["text"])
    {
      'cities': ['Berlin', 'Berlin', 'Berlin'],
      'note': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',
    }
    """
    text = repr(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        left_out = len(text) - MAX_VALUE_CHARACTERS + 1
        if len(text) <= MAX_INDENTED_CHARACTERS:
            text = _indented(value, 0)
        text = replace_surrogates(truncate(text, MAX_VALUE_CHARACTERS))
        return {"text": text, "left_out": left_out}
    return {"text": replace_surrogates(_indented(value, 0))}


def whole_text(value: object) -> str:
    """Write a decoded value, or the arguments of an input, as Python, however long it is.

    Examples
    --------
    >>> whole_text(Input(("order", 7), {"coupon": None}))
    "'order', 7, coupon=None"
    """
    if not isinstance(value, Input):
        return _indented(value, 0)
    parts = [_indented(part, 0) for part in value.args]
    parts += [f"{name}={_indented(part, 0)}" for name, part in value.kwargs.items()]
    line = ", ".join(parts)
    return line if len(line) <= LINE_WIDTH and "\n" not in line else ",\n".join(parts)


def _indented(value: object, depth: int) -> str:
    """Write a value on one line, or where it is too wide each of its parts on lines of its own."""
    text = repr(value)
    if len(text) + 2 * depth <= LINE_WIDTH or depth > MAX_INDENT_DEPTH:
        return text
    opening, closing, parts = _parts(value)
    if not parts:
        return text
    indent = "  " * (depth + 1)
    lines = (f"{indent}{name}{_indented(part, depth + 1)},\n" for name, part in parts)
    return f"{opening}\n{''.join(lines)}{'  ' * depth}{closing}"


def _parts(value: object) -> tuple[str, str, list[tuple[str, object]]]:
    if type(value) is dict:
        return "{", "}", [(f"{key!r}: ", part) for key, part in value.items()]
    if type(value) is list:
        return "[", "]", [("", part) for part in value]
    if type(value) is tuple:
        return "(", ")", [("", part) for part in value]
    if type(value) is Opaque and type(value.state) is dict and not value.items:
        parts: list[tuple[str, object]] = [("", part) for part in value.args]
        parts += [(f"{name}=", part) for name, part in {**value.state, **value.kwargs}.items()]
        return f"{value.type.rpartition('.')[2]}(", ")", parts
    return "", "", []


def replace_surrogates(text: str) -> str:
    r"""Replace lone surrogates, which can be pickled but not encoded, by question marks.

    Examples
    --------
    >>> replace_surrogates("a\ud800é")
    'a?é'
    """
    return text.encode("utf-8", "replace").decode()


def input_payload(value: object) -> Payload:
    r"""Write a workflow's input as the arguments of a call.

    Examples
    --------
    >>> input_payload(Input(("order", 7), {"coupon": None, "half\ud800": 1}))
    {'text': "'order', 7, coupon=None, half?=1"}
    """
    if not isinstance(value, Input):
        return value_payload(value)
    arguments = [("", value_payload(part)) for part in value.args]
    arguments += [(f"{name}=", value_payload(part)) for name, part in value.kwargs.items()]
    parts = [f"{name}{payload['text']}" for name, payload in arguments]
    line = ", ".join(parts)
    text = line if len(line) <= LINE_WIDTH and "\n" not in line else ",\n".join(parts)
    left_out = sum(payload.get("left_out", 0) for _, payload in arguments)
    if len(text) > MAX_VALUE_CHARACTERS:
        left_out += len(text) - MAX_VALUE_CHARACTERS + 1
    result: Payload = {"text": replace_surrogates(truncate(text, MAX_VALUE_CHARACTERS))}
    if left_out:
        result["left_out"] = left_out
    return result


def error_payload(error: object) -> ErrorPayload:
    """Write a recorded error by its cause: class, message, notes, and a recorded traceback."""
    payload: ErrorPayload = compact(value_payload(error))
    if not isinstance(error, RecordedError):
        return payload
    error, wrapper, attempts = find_cause(error)
    if wrapper is not None:
        payload["wrapper"] = label(replace_surrogates(wrapper))
    if attempts is not None:
        payload["attempts"] = attempts
    payload["type"] = label(replace_surrogates(error.type))
    payload["message"] = truncate(replace_surrogates(str(error.message)), MAX_VALUE_CHARACTERS)
    payload["notes"] = [label(replace_surrogates(str(note))) for note in error.notes[:20]]
    if traceback := error.state.get("traceback") or error.state.get("__traceback__"):
        payload["traceback"] = truncate(replace_surrogates(str(traceback)), MAX_VALUE_CHARACTERS)
    return payload


def encodable(answer: dict[str, object]) -> dict[str, object]:
    r"""Return an answer that UTF-8 can encode: a comm cannot send lone surrogates.

    Examples
    --------
    >>> encodable({"text": "a\ud800"}), encodable({"text": "é"})
    ({'text': 'a?'}, {'text': 'é'})
    """
    text = json.dumps(answer, ensure_ascii=False)
    replaced = replace_surrogates(text)
    return answer if replaced == text else dict(json.loads(replaced))


def stamp(answer: Mapping[str, object]) -> str:
    """Return a hash of an answer, equal for equal answers.

    Examples
    --------
    >>> stamp({"rows": []}) == stamp({"rows": []}), stamp({"rows": []}) == stamp({"rows": [1]})
    (True, False)
    """
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:16]
