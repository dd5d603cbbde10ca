"""DataFrames and decoded values as plain values that travel to a browser, bounded in size.

Times are milliseconds since 1970, what is missing is ``None``, and everything else is a text that
the browser shows as a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.payloads import Opaque, RecordedError
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables.timing import frame_times, never_ran
from dbos_notebook.text import truncate

if TYPE_CHECKING:
    from dbos_notebook.workflow import Input

MOST_CHARACTERS = 20_000
"""Of one value; who wants more has the value itself in Python."""
SHORT_CHARACTERS = 300
WIDE = 72
DEEP = 12
"""A value wider than so many characters is written on several lines, down to that depth."""

_TEXTS = (
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
    "schedule_name",
    "authenticated_user",
    "assumed_role",
)
_IDS = ("parent_workflow_id", "forked_from")
_NUMBERS = ("priority", "recovery_attempts")
_INSTANTS = (
    "created_at",
    "updated_at",
    "dequeued_at",
    "completed_at",
    "delay_until",
    "workflow_deadline",
)


def milliseconds(value: Any) -> int | None:
    """Return an instant or a span in milliseconds.

    Examples
    --------
    >>> milliseconds(pd.Timestamp("1970-01-01T00:00:01Z")), milliseconds(pd.NaT)
    (1000, None)
    """
    if pd.isna(value):
        return None
    seconds = value.timestamp() if isinstance(value, pd.Timestamp) else value.total_seconds()
    return round(seconds * 1000)


def workflow_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each workflow of a frame; a missing value is left out.

    Durations of what still runs are left to the browser, so that a row changes only when
    the workflow does.
    """
    rows = []
    times = frame_times(frame, pd.Timestamp.now("UTC"))[["enqueued_at", "started_at"]]
    for record, moments in zip(frame.to_dict("records"), times.to_dict("records"), strict=True):
        row: dict[str, Any] = {"id": record["workflow_id"], "status": _status(record["status"])}
        row |= {name: truncate(str(record[name]), SHORT_CHARACTERS) for name in _TEXTS}
        row |= {name: record[name] for name in _IDS}
        row |= {name: int(record[name]) for name in _NUMBERS if not pd.isna(record[name])}
        row |= {name: milliseconds(record[name]) for name in _INSTANTS}
        row |= {str(name): milliseconds(moment) for name, moment in moments.items()}
        for name in (*_TEXTS, *_IDS):
            if pd.isna(record[name]):
                del row[name]
        if never_ran(record["status"], record["recovery_attempts"]):
            row.pop("executor_id", None)  # who enqueued it, or ran it before it was resumed
        if not pd.isna(record["error_message"]):
            row["error_message"] = truncate(record["error_message"], SHORT_CHARACTERS)
        if record["status"] not in ACTIVE_STATUSES:
            row["duration"] = milliseconds(record["duration"])
        if record["was_forked_from"] is True:
            row["was_forked_from"] = True
        if record["attributes"]:
            row["attributes"] = truncate(
                json.dumps(record["attributes"], ensure_ascii=False), SHORT_CHARACTERS
            )
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def _status(value: Any) -> str:
    # A column may hold nothing; a view has no place for that.
    return "" if pd.isna(value) else str(value)


def forks(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Return IDs and statuses of the workflows of a frame."""
    pairs = zip(frame["workflow_id"], frame["status"], strict=True)
    return [{"id": workflow_id, "status": _status(status)} for workflow_id, status in pairs]


def step_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each step of a frame with results."""
    rows = []
    for record in frame.to_dict("records"):
        failed = record["status"] == "ERROR"
        row = {
            "number": int(record["function_id"]),
            "name": truncate(str(record["function_name"]), SHORT_CHARACTERS),
            "status": record["status"],
            "started_at": milliseconds(record["started_at"]),
            "completed_at": milliseconds(record["completed_at"]),
            "child": None if pd.isna(record["child_workflow_id"]) else record["child_workflow_id"],
            "result": written(record["error"] if failed else record["output"]),
        }
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def written(value: Any) -> dict[str, Any]:
    """Write a decoded value as text, cut where it is long.

    Examples
    --------
    >>> written({"price": 9.5})
    {'text': "{'price': 9.5}"}
    >>> written("x" * 1_000_000)["left_out"]
    980003
    >>> print(written({"cities": ["Berlin"] * 3, "note": "x" * 60})["text"])
    {
      'cities': ['Berlin', 'Berlin', 'Berlin'],
      'note': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',
    }
    """
    text = repr(value)
    if len(text) > MOST_CHARACTERS:
        return {"text": text[: MOST_CHARACTERS - 1] + "…", "left_out": len(text) - 19_999}
    return {"text": _legible(_spread(value, 0))}


def _spread(value: Any, depth: int) -> str:
    """Write a value on several lines where one is too long; a line for each part."""
    text = repr(value)
    if len(text) + 2 * depth <= WIDE or depth > DEEP:
        return text
    opening, closing, parts = _parts(value)
    if not parts:
        return text
    edge = "  " * (depth + 1)
    lines = (f"{edge}{name}{_spread(part, depth + 1)},\n" for name, part in parts)
    return f"{opening}\n{''.join(lines)}{'  ' * depth}{closing}"


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    if type(value) is dict:
        return "{", "}", [(f"{key!r}: ", part) for key, part in value.items()]
    if type(value) is list:
        return "[", "]", [("", part) for part in value]
    if type(value) is tuple:
        return "(", ")", [("", part) for part in value]
    if type(value) is Opaque and type(value.state) is dict and not value.items:
        parts = [("", part) for part in value.args]
        parts += [(f"{name}=", part) for name, part in {**value.state, **value.kwargs}.items()]
        return f"{value.type.rpartition('.')[2]}(", ")", parts
    return "", "", []


def _legible(text: str) -> str:
    # A lone surrogate can be pickled; it is no text that can travel.
    return text.encode("utf-8", "replace").decode()


def call(value: Any) -> dict[str, Any]:
    r"""Write a workflow's input as the arguments of a call.

    Examples
    --------
    >>> from dbos_notebook.workflow import Input
    >>> call(Input(("order", 7), {"coupon": None, "half\ud800": 1}))
    {'text': "'order', 7, coupon=None, half?=1"}
    """
    if not hasattr(value, "kwargs") or not isinstance(value, tuple):
        return written(value)
    given: Input = value  # type: ignore[assignment]
    parts = [written(part) for part in given.args]
    parts += [
        {**written(part), "text": f"{name}={written(part)['text']}"}
        for name, part in given.kwargs.items()
    ]
    texts = [part["text"] for part in parts]
    joined = ", ".join(texts)
    text = joined if len(joined) <= WIDE and "\n" not in joined else ",\n".join(texts)
    left_out = sum(part.get("left_out", 0) for part in parts)
    if len(text) > MOST_CHARACTERS:
        left_out += len(text) - MOST_CHARACTERS + 1
    found: dict[str, Any] = {"text": _legible(truncate(text, MOST_CHARACTERS))}
    return {**found, "left_out": left_out} if left_out else found


def failure(error: Any) -> dict[str, Any]:
    """Write a recorded error: its class, what it says, and the traceback if one was kept."""
    if not isinstance(error, RecordedError):
        return written(error)
    trace = error.state.get("traceback") or error.state.get("__traceback__")
    found = {
        **written(error),
        "type": truncate(_legible(error.type), SHORT_CHARACTERS),
        "message": truncate(_legible(str(error.message)), MOST_CHARACTERS),
        "notes": [truncate(_legible(str(note)), SHORT_CHARACTERS) for note in error.notes[:20]],
    }
    if trace:
        found["traceback"] = truncate(_legible(str(trace)), MOST_CHARACTERS)
    return found


def sendable(answer: dict[str, Any]) -> dict[str, Any]:
    r"""Return an answer that can travel: one with half a character in it could not be sent.

    Examples
    --------
    >>> sendable({"text": "a\ud800"}), sendable({"text": "é"})
    ({'text': 'a?'}, {'text': 'é'})
    """
    text = json.dumps(answer, ensure_ascii=False)
    legible = _legible(text)
    return answer if legible == text else dict(json.loads(legible))


def stamp(answer: Mapping[str, Any]) -> str:
    """Return what is the same for two answers that show the same.

    Examples
    --------
    >>> stamp({"rows": []}) == stamp({"rows": []}), stamp({"rows": []}) == stamp({"rows": [1]})
    (True, False)
    """
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:16]
