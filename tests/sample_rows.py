"""Rows made by hand, as DataFrames in the shape that ``tree`` and ``steps`` give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# Not a whole second: whole ones are taken for SQLite's, and are widened to hold the steps.
EPOCH = pd.Timestamp("2026-01-01T00:00:00.123Z")


def at(milliseconds: int | None) -> pd.Timestamp | None:
    """Return an instant so long after the epoch of the samples."""
    return None if milliseconds is None else EPOCH + pd.Timedelta(milliseconds, unit="ms")


def workflow(workflow_id: str, created: int | None = 0, **values: Any) -> dict[str, Any]:
    """Return a row of a workflow; ``dequeued`` and ``completed`` are milliseconds too."""
    dequeued, completed = values.pop("dequeued", None), values.pop("completed", 1000)
    begun = created if dequeued is None else dequeued
    lasted = None if completed is None or begun is None else completed - begun
    return {
        "workflow_id": workflow_id,
        "name": "sample",
        "status": "SUCCESS",
        "created_at": created,
        "dequeued_at": dequeued,
        "completed_at": completed,
        "duration": lasted,
        **values,
    }


def step(
    workflow_id: str,
    function_id: int,
    start: int | None = None,
    end: int | None = None,
    name: str = "work",
    **values: Any,
) -> dict[str, Any]:
    """Return a row of a step."""
    return {
        "workflow_id": workflow_id,
        "function_id": function_id,
        "function_name": name,
        "status": "SUCCESS",
        "started_at": start,
        "completed_at": end,
        "duration": None if start is None or end is None else end - start,
        **values,
    }


_DTYPES = {
    "workflow_id": "str",
    "function_id": "Int64",
    "status": "category",
    "name": "category",
    "function_name": "category",
}
_TIMES = ("created_at", "dequeued_at", "started_at", "completed_at")
_TEXTS = (
    "error_type",
    "error_message",
    "queue_name",
    "app_version",
    "executor_id",
    "forked_from",
    "parent_workflow_id",
    "child_workflow_id",
)


def frame(rows: Sequence[Mapping[str, Any]], own: str) -> pd.DataFrame:
    """Make a frame with the columns and dtypes of the real ones; ``own``: workflows or steps."""
    columns = ["workflow_id", "status", "completed_at", "duration", *_TEXTS]
    columns += (
        ["name", "created_at", "dequeued_at"]
        if own == "workflows"
        else ["function_id", "function_name", "started_at"]
    )
    extra = sorted({name for row in rows for name in row} - set(columns))
    made = pd.DataFrame(rows, columns=[*columns, *extra])
    made["duration"] = pd.to_timedelta(made["duration"], unit="ms").astype("timedelta64[ms]")
    for name in columns:
        if name in _TIMES:
            lapsed = pd.to_timedelta(pd.to_numeric(made[name]), unit="ms")
            made[name] = (EPOCH + lapsed).astype("datetime64[ms, UTC]")
        if name in _DTYPES:
            made[name] = made[name].astype(_DTYPES[name])
    return made


def frames(
    workflows: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the two frames of an execution graph."""
    return frame(workflows, "workflows"), frame(steps, "steps")
