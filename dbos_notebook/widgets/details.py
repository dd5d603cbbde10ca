"""The details of one node: a workflow, a step or a group, read from the database with payloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.drawing.diagram import extreme_durations
from dbos_notebook.errors import StepNotFoundError
from dbos_notebook.status import FAILED_STATUSES
from dbos_notebook.tables import listings, pages
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.text import truncate
from dbos_notebook.widgets import serialize
from dbos_notebook.widgets.messages import (
    ActivityMessage,
    ChannelsMessage,
    GroupDetails,
    NodeDetails,
    NodeKey,
    RunningDetails,
    StepDetails,
    StepsPage,
    StoredPayload,
    StreamMessage,
    ViewOptions,
    WorkflowDetails,
    WorkflowWithSteps,
    compact,
)
from dbos_notebook.widgets.query_form import literal
from dbos_notebook.widgets.run_data import MAX_FAILED, RunData, node_summary, read_forks
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store

STEPS_PER_PAGE = 100
MAX_ACTIVITIES = 200
STUCK = ("no_executor", "no_queue", "no_partition_key", "not_dequeued")
"""Reasons for which a workflow stays in its queue until somebody does something."""
MAX_MEMBERS = 50
MAX_EVENTS = 50
MAX_STREAM_VALUES = 50
"""The newest values of all streams of a workflow together."""
MAX_ERRORS = 20
_DURATIONS = ("duration_min", "duration_median", "duration_max", "duration_total")
_EXTREMES = ("duration_min", "duration_max")


# --- workflows -----------------------------------------------------------------------------------


@repeat_if_changed
def workflow_with_steps(store: Store, workflow_id: str) -> WorkflowWithSteps:
    """Read what an expanded row shows, in one snapshot; raises WorkflowNotFoundError."""
    with store.session() as session:
        return {
            **_workflow_details(store, session, workflow_id),
            **_channels(store, session, workflow_id),
            **_steps_page(store, session, workflow_id, None),
        }


@repeat_if_changed
def workflow_details(store: Store, workflow_id: str) -> WorkflowDetails:
    """Read a workflow with its payloads and forks; raises WorkflowNotFoundError."""
    with store.session() as session:
        details = _workflow_details(store, session, workflow_id)
        return {**details, **_channels(store, session, workflow_id)}


def _channels(store: Store, session: Session, workflow_id: str) -> ChannelsMessage:
    """Read the events that a workflow set, and the newest values of its streams."""
    limits = {"events": MAX_EVENTS, "streams": MAX_STREAM_VALUES}
    frames = {
        name: pages.newest_rows(session, store.queries, name, workflow_id, limit, store.decoder)
        for name, limit in limits.items()
    }
    events = frames["events"]
    channels: ChannelsMessage = {}
    if len(events):
        channels["events"] = [
            {"name": serialize.label(key), "value": serialize.value_payload(value)}
            for key, value in zip(events["key"], events["value"], strict=True)
        ]
    streams: dict[str, StreamMessage] = {}
    for record in frames["streams"].to_dict("records"):
        key = serialize.label(record["key"])
        closed = record["closed"] is True
        stream = streams.setdefault(key, {"name": key, "closed": closed, "values": []})
        stream["values"].append(
            {"offset": int(record["offset"]), "value": serialize.value_payload(record["value"])}
        )
    if streams:
        channels["streams"] = list(streams.values())
    return channels


def _workflow_details(store: Store, session: Session, workflow_id: str) -> WorkflowDetails:
    frame, _ = listings.workflows(
        session,
        store.queries,
        check_filters({"workflow_ids": [workflow_id]}),
        1,
        None,
        store.decoder,
        load_input=True,
        load_output=True,
    )
    if frame.empty:
        listings.require_known(session, store.queries, [workflow_id])
    (details,) = iter_workflow_details(store, frame)
    details["forks"] = read_forks(store, session, workflow_id)
    return details


def iter_workflow_details(store: Store, frame: pd.DataFrame) -> Iterator[WorkflowDetails]:
    """Yield the details of each workflow of a frame with payloads, without forks."""
    for row, (_, record) in zip(serialize.workflow_rows(frame), frame.iterrows(), strict=True):
        workflow = Workflow(store, record)
        details: WorkflowDetails = {"row": row}
        if workflow.input is not None:
            details["input"] = serialize.input_payload(workflow.input)
        if workflow.output is not None or workflow.status == "SUCCESS":
            details["output"] = serialize.value_payload(workflow.output)
        if workflow.error is not None:
            details["error"] = serialize.error_payload(workflow.error)
        yield details


@repeat_if_changed
def steps_page(store: Store, workflow_id: str, after: int | None) -> StepsPage:
    """Read the steps whose numbers are larger than ``after``, and whether there are more."""
    with store.session() as session:
        return _steps_page(store, session, workflow_id, after)


def _steps_page(store: Store, session: Session, workflow_id: str, after: int | None) -> StepsPage:
    page = pages.step_page(
        session, store.queries, workflow_id, after, STEPS_PER_PAGE, store.decoder
    )
    return {"steps": serialize.step_rows(page.frame), "more_steps": page.more}


def activities(store: Store, ids: Sequence[str]) -> dict[str, ActivityMessage]:
    """Return what workflows are doing now, by ID; those that have ended are omitted."""
    found: dict[str, ActivityMessage] = {
        key: compact(
            {
                "kind": activity.kind,
                "text": serialize.explanation(activity.text),
                "stuck": activity.kind == "stranded" or activity.reason in STUCK or None,
                "evidence": activity.evidence or None,
                "remedy": activity.remedy or None,
                "until": serialize.milliseconds(activity.until),
            }
        )
        for key, activity in store.activities(ids[:MAX_ACTIVITIES]).items()
    }
    return found


# --- nodes of a graph ----------------------------------------------------------------------------


def node_details(store: Store, run: RunData, key: NodeKey, view: ViewOptions) -> NodeDetails:
    """Return the details of a node of a run's graph, or of a group of its folded graph."""
    if isinstance(key, str):
        return {"kind": "workflow", **workflow_details(store, key)}
    for graph in (run.process_map, run.picture({**view, "overview": False}).graph):
        node = graph.nodes.get(key) if graph is not None else None
        if node is not None and node["kind"] in ("group", "aggregate"):
            return _group_details(run, node, key)
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int):
        (details,) = iter_step_details(read_step(store, *key))
        return details[1]
    return running_details(run.graph.nodes.get(key, {}))


def running_details(node: Mapping[str, Any]) -> RunningDetails:
    """Return the details of the node that stands for what a running workflow does now."""
    return {"kind": "running", "workflow_id": node.get("workflow_id"), "name": node.get("name")}


def iter_step_details(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, int], StepDetails]]:
    """Yield the key and the details of each step of a frame with results."""
    rows = serialize.step_rows(frame)
    for row, workflow_id, error in zip(rows, frame["workflow_id"], frame["error"], strict=True):
        result = row.pop("result", None)
        row["workflow_id"] = workflow_id
        details: StepDetails = {"kind": "step", "step": row}
        if row["status"] == "ERROR":
            details["error"] = serialize.error_payload(error)
            if "attempts" in details["error"]:
                details["attempts"] = details["error"]["attempts"]
        elif result is not None:
            details["output"] = result
        yield (workflow_id, row["number"]), details


def read_step(store: Store, workflow_id: str, number: int) -> pd.DataFrame:
    """Read one step with its payloads; raises StepNotFoundError."""
    with store.session() as session:
        page = pages.step_page(session, store.queries, workflow_id, number - 1, 1, store.decoder)
    if page.frame.empty or int(page.frame["function_id"].iloc[0]) != number:
        raise StepNotFoundError(
            f"Workflow {workflow_id!r} no longer has step {number}. Refresh the view."
        )
    return page.frame


def _group_details(run: RunData, node: Mapping[str, Any], key: NodeKey) -> GroupDetails:
    nodes = run.graph.nodes
    # Those that failed first, which one looks for.
    members = sorted(
        node["members"], key=lambda member: nodes[member].get("status") not in FAILED_STATUSES
    )
    details: dict[str, Any] = {
        **node_summary(key, node),
        "statuses": {str(status): int(n) for status, n in node["statuses"].items() if n},
        "inside": int(node.get("failures_inside") or 0),
        "members": [run.summarize(member) for member in members[:MAX_MEMBERS]],
        "left_out": max(0, len(members) - MAX_MEMBERS),
        "failed_step": node.get("failed_step"),
        "errors": {
            serialize.label(error): int(count)
            for error, count in list((node.get("error_types") or {}).items())[:MAX_ERRORS]
        },
        "failed": list(node.get("failed_workflows") or ())[:MAX_FAILED],
    }
    for name in (*_DURATIONS, "started_at", "completed_at"):
        if name in node:
            details[name] = serialize.milliseconds(node[name])
    if node["kind"] == "group":
        for name, duration in zip(_EXTREMES, extreme_durations(node, run.times), strict=True):
            if duration is not None:
                details[name] = serialize.milliseconds(
                    pd.Timedelta(seconds=duration) if isinstance(duration, float) else duration
                )
    group: GroupDetails = compact(details)
    return group


def stored_payloads(store: Store, key: NodeKey) -> list[StoredPayload]:
    """Read the payloads of a workflow or a step as they are stored, without decoding them."""
    stored = store.with_decoder(
        lambda text, serialization, _: {"format": serialization or "not named", "text": text}
    )
    if isinstance(key, tuple):
        record = read_step(stored, *key).iloc[0]
    else:
        record = Workflow.read(stored, str(key)).row
    payloads: list[StoredPayload] = []
    for name in ("input", "output", "error"):
        payload = record.get(name)
        if isinstance(payload, dict):
            stored_text = payload["text"]
            payloads.append(
                {
                    "name": name,
                    "format": payload["format"],
                    "length": len(stored_text),
                    "text": truncate(stored_text, serialize.MAX_VALUE_CHARACTERS),
                }
            )
    return payloads


def node_code(run: RunData, key: Any) -> str:
    """Write the call that returns a node; ``None`` stands for the whole run.

    Examples
    --------
    >>> run = dbos_notebook.connect(example_database).inspect("checkout-1")._run("checkout-1")
    >>> node_code(run, ("checkout-1", 3))
    'db.steps("checkout-1", load_output=True).set_index("function_id").loc[3]'
    """
    if key is None:
        return f"db.inspect({literal(run.workflow_id)})"
    if isinstance(key, str):
        return f"db.workflow({literal(key)})"
    if isinstance(key[1], int):
        steps = f"db.steps({literal(key[0])}, load_output=True)"
        return f'{steps}.set_index("function_id").loc[{key[1]}]'
    if (node := run.graph.nodes.get(key)) is not None:
        return f"db.workflow({literal(node['workflow_id'])})"
    if key in run.process_map:
        members = f"dn.graphs.members(dn.graphs.process_map(db.graph({literal(run.workflow_id)}))"
        return f"{members}, {key!r})"
    group = serialize.to_json_key(key)[1]
    return f"dn.draw(db.graph({literal(run.workflow_id)}), open=[{literal(group)}])"
