"""Rows into nodes: which attributes a workflow and a step have. An unknown one is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbos_notebook.tables.timing import frame_times

Node = dict[str, Any]

_OPERATIONS = {
    "getresult": "get_result",
    "sleep": "sleep",
    "send": "send",
    "sendbulk": "send",
    "recv": "recv",
    "setevent": "set_event",
    "getevent": "get_event",
    "getevents": "get_event",
    "writestream": "stream",
    "closestream": "stream",
    "readstream": "stream",
    "readstreamoffset": "stream",
}
_WORKFLOW = (
    "name",
    "status",
    "created_at",
    "dequeued_at",
    "completed_at",
    "enqueued_at",
    "started_at",
    "ended_at",
    "delay_until",
    "queue_wait",
    "duration",
    "error_type",
    "error_message",
    "queue_name",
    "app_version",
    "executor_id",
    "forked_from",
    "recovery_attempts",
)
_STEP = (
    "status",
    "started_at",
    "completed_at",
    "duration",
    "error_type",
    "error_message",
    "child_workflow_id",
)


def workflow_nodes(workflows: pd.DataFrame, read_at: pd.Timestamp) -> dict[str, Node]:
    """Return the attributes of workflows by ID, in the rows' order."""
    ids = workflows["workflow_id"].tolist()
    # A column may hold nothing; what has no status has an empty one.
    nodes: list[Node] = [{"kind": "workflow", "workflow_id": each, "status": ""} for each in ids]
    times = frame_times(workflows, read_at)
    # All ages in one graph are of one moment; what is over stays as it was read.
    active = workflows["status"].isin(["DELAYED", "ENQUEUED", "PENDING"]).to_numpy(bool)
    for name in _WORKFLOW:
        column = workflows.get(name)
        if name in times and column is None:
            column = times[name]
        elif name in times and active.any():
            column = times[name].where(active, column)
        if column is not None:
            _fill(nodes, name, column)
    _digest(nodes, workflows)
    return dict(zip(ids, nodes, strict=True))


def step_nodes(
    steps: pd.DataFrame, wakes: pd.DataFrame | None
) -> tuple[list[tuple[str, int]], list[Node]]:
    """Return the keys and the attributes of steps, in the rows' order."""
    owners = steps["workflow_id"].tolist()
    numbers = steps["function_id"].tolist()
    names = steps["function_name"].astype("category")
    # Each name is looked at once, however many steps bear it.
    words = names.cat.categories.tolist()
    operations = [*map(operation, words), "other"]
    nodes: list[Node] = [
        {
            "kind": "step",
            "workflow_id": owner,
            "function_id": number,
            "operation": operations[code],
        }
        for owner, number, code in zip(owners, numbers, names.cat.codes.tolist(), strict=True)
    ]
    _fill(nodes, "name", names)
    for name in _STEP:
        _fill(nodes, name, steps[name])
    for node in nodes:
        if "child_workflow_id" in node and node["operation"] != "get_result":
            node["operation"] = "start_child"
    _digest(nodes, steps)
    keys = list(zip(owners, numbers, strict=True))
    _mark_sleeps(dict(zip(keys, nodes, strict=True)), wakes)
    return keys, nodes


def operation(name: str) -> str:
    """Return what a step of this name does; the SDKs write DBOS's own names alike.

    Examples
    --------
    >>> operation("charge"), operation("DBOS.setEvent"), operation("DBOS.patch-new-tax")
    ('step', 'set_event', 'other')
    """
    own = name.removeprefix("DBOS.")
    if own == name:
        return "step"
    return _OPERATIONS.get(own.replace("_", "").lower(), "other")


def running_node(workflow: Node, steps: Sequence[Node]) -> Node:
    """Return the node that stands for what a PENDING workflow does now."""
    node: Node = {
        "kind": "step",
        "workflow_id": workflow["workflow_id"],
        "operation": "other",
        "status": "PENDING",
        "name": f"after step {steps[-1]['function_id']}" if steps else "before the first step",
    }
    since = [step["completed_at"] for step in steps if "completed_at" in step]
    since += [workflow[name] for name in ("started_at",) if name in workflow]
    if since:
        node["started_at"] = max(since)
    return node


def _fill(nodes: Sequence[Node], name: str, column: pd.Series[Any]) -> None:
    """Give nodes the values that a column has, and no missing ones."""
    present = column.notna().to_numpy()
    values = column.tolist()
    if present.all():
        for node, value in zip(nodes, values, strict=True):
            node[name] = value
    else:
        for place in np.flatnonzero(present).tolist():
            nodes[place][name] = values[place]


def _digest(nodes: Sequence[Node], rows: pd.DataFrame) -> None:
    """Give nodes a short text that differs where their results differ, if results were loaded."""
    if not {"output", "error"} <= set(rows.columns):
        return
    for node, output, error in zip(nodes, rows["output"], rows["error"], strict=True):
        # As values and not as stored: the same value may be stored in two formats.
        shown = f"output {output!r}" if error is None else f"error {error!r}"
        node["output_digest"] = hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()[:32]


def spans(steps: pd.DataFrame) -> tuple[list[int | None], list[int | None]]:
    """Return when steps started and were completed, in milliseconds."""
    started, completed = (_milliseconds(steps[name]) for name in ("started_at", "completed_at"))
    return started, completed


def _milliseconds(instants: pd.Series[Any]) -> list[int | None]:
    values = instants.dt.tz_localize(None).to_numpy("datetime64[ms]")
    numbers: list[int | None] = values.astype("int64").tolist()
    for place in np.flatnonzero(np.isnat(values)).tolist():
        numbers[place] = None
    return numbers


def _mark_sleeps(nodes: Mapping[Hashable, Node], wakes: pd.DataFrame | None) -> None:
    """Tell sleeps from the timeouts of recv and get_event, which DBOS records as sleeps too."""
    known: dict[Hashable, pd.Timestamp] = {}
    if wakes is not None:
        names = ("workflow_id", "function_id", "wakes_at")
        for workflow_id, function_id, instant in zip(
            *(wakes[name].tolist() for name in names), strict=True
        ):
            known[workflow_id, function_id] = instant
    for key, node in nodes.items():
        if node["operation"] != "sleep":
            continue
        before = nodes.get((node["workflow_id"], node["function_id"] - 1), {})
        if before.get("operation") in ("recv", "get_event"):
            node["timeout_of"] = before["function_id"]
        elif key in known:
            node["wakes_at"] = known[key]
