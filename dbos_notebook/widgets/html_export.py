"""Views as static HTML that needs no kernel: for GitHub, nbconvert and e-mail."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.graph_svg import draw
from dbos_notebook.errors import GraphvizNotFoundError
from dbos_notebook.graphs.intervals import Spans
from dbos_notebook.html import environment
from dbos_notebook.status import status_css
from dbos_notebook.widgets import bundle, details, serialize
from dbos_notebook.widgets.messages import (
    Answer,
    BoardCauses,
    BoardFacts,
    JsonKey,
    Payload,
    PictureMessage,
    RecordedRun,
    WorkflowMessage,
    WorkflowWithSteps,
)
from dbos_notebook.widgets.run_data import MAX_LISTED, RunData

if TYPE_CHECKING:
    import jinja2

    from dbos_notebook.store import Store

FALLBACK_ROWS = 20
MAX_OPENED_GROUPS = 12
"""Groups that a page without a kernel can open, one at a time."""
MAX_PAYLOAD_CHARACTERS = 6_000_000
"""Characters of payloads in one page; what is beyond them is omitted, with a note."""
MAX_TREE_CHARACTERS = 20_000
_OMITTED: Payload = {"text": "omitted: the page would be too large. See the database."}


@cache
def _templates() -> jinja2.Environment:
    templates = environment("widgets")
    filters = {"instant": _instant, "duration": _duration, "row_duration": _row_duration}
    templates.filters |= {**filters, "leaf": text.leaf_name}
    return templates


def _instant(milliseconds: int | None) -> str:
    return (
        "–"
        if milliseconds is None
        else _utc(dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC))
    )


def _utc(time: dt.datetime) -> str:
    return text.timestamp(time, milliseconds=False)


def _duration(milliseconds: int | None) -> str:
    return "–" if milliseconds is None else text.duration(milliseconds / 1000)


def _row_duration(row: WorkflowMessage) -> str:
    started = row.get("started_at", 1)
    completed = row.get("completed_at", row.get("updated_at", 1))
    # SQLite may store whole seconds.
    if "duration" in row and started % 1000 == completed % 1000 == 0:
        return text.duration(row["duration"] / 1000, approximate=True)
    return _duration(row.get("duration"))


def _render(template: str, **values: object) -> str:
    now = dt.datetime.now(dt.UTC)
    values |= {
        "style": bundle.style("static") + status_css('.dn-static [data-status="{}"]'),
        "read_at": _utc(now),
        "now": round(now.timestamp() * 1000),
    }
    return _templates().get_template(template).render(values)


def page(title: str, parts: list[str]) -> str:
    """Return a complete HTML page from HTML that templates rendered."""
    return _render("page.html.j2", title=title, parts=parts)


# --- the list and the board ----------------------------------------------------------------------


def listing(store: Store, frame: pd.DataFrame, code: str) -> str:
    """Return the first rows of a list as a table, for the outputs of a notebook."""
    return _listing(store, frame.head(FALLBACK_ROWS), code, left_out=len(frame) - FALLBACK_ROWS)


def listing_page(store: Store, frame: pd.DataFrame, code: str) -> str:
    """Return a page with all rows of a list and the details of each."""
    opened = {key: details.workflow_with_steps(store, key) for key in frame["workflow_id"]}
    return page("Workflows", [_listing(store, frame, code, opened=opened)])


def _listing(
    store: Store,
    frame: pd.DataFrame,
    code: str,
    *,
    left_out: int = 0,
    opened: Mapping[str, WorkflowWithSteps] | None = None,
) -> str:
    return _render(
        "listing.html.j2",
        location=str(store.location),
        code=code,
        rows=serialize.workflow_rows(frame),
        opened=opened or {},
        left_out=max(0, left_out),
    )


def board(location: str, facts: BoardFacts, causes: BoardCauses, window: str) -> str:
    """Return a board as tables."""
    finished = {status: sum(bars) for status, bars in sorted(facts["series"].items())}
    values = {**facts, **causes}
    return _render("board.html.j2", **values, location=location, window=window, finished=finished)


# --- one workflow --------------------------------------------------------------------------------


def run(store: Store, data: RunData) -> str:
    """Return the graph of a run as an image with the facts, for the outputs of a notebook.

    Nothing in an image can run, and an image follows the reader's light or dark theme.
    """
    is_overview = data.opens_with_overview()
    picture = draw(data.process_map if is_overview else data.graph, theme="auto")
    try:
        svg = base64.b64encode(picture.svg.encode()).decode()
        image = f"data:image/svg+xml;base64,{svg}"
    except GraphvizNotFoundError:
        image = ""  # the text tree is shown
    return _render(
        "run.html.j2",
        location=str(store.location),
        row=data.row,
        took=data.times.duration(data.workflow_id),
        forks=data.forks,
        image=image,
        alt=f"{'Process map' if is_overview else 'Execution graph'} of {data.workflow_id}",
        text=text.truncate(picture.text, MAX_TREE_CHARACTERS),
        code=details.node_code(data, None),
    )


def run_page(store: Store, data: RunData, style: str) -> str:
    """Return a page with the graph, timeline and steps of a run, and the details of each node."""
    script = bundle.module("offline")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # "</script>" in a string would end the script element.
    recorded = text.escape_unsafe_json(json.dumps(record(store, data), ensure_ascii=False))
    recorded = recorded.replace("<", "\\u003c")
    return (
        _templates()
        .get_template("inspect.html.j2")
        .render(
            title=f"{data.row.get('name', 'workflow')} {data.workflow_id}",
            script=script,
            script_hash=f"sha256-{digest}",
            style=style,
            recorded=recorded,
            fallback=run(store, data),
            note=f"{store.location} · as of {_utc(dt.datetime.now(dt.UTC))} · "
            "made by dbos_notebook, works offline",
        )
    )


def record(store: Store, data: RunData) -> RecordedRun:
    """Return all answers that the browser's half needs to show a run."""
    pictures: dict[str, PictureMessage] = {}
    groups: dict[str, Answer] = {}
    # Rows with an unknown status or without times have no critical path.
    timed = Spans(data.graph).workflow(data.workflow_id) is not None
    for kind in ("graph", "timeline"):
        critical = timed and kind == "timeline"
        view: dict[str, Any] = {"picture": kind, "critical": critical, "overview": False}
        pictures[_json([kind])] = data.picture_message(view)
        folded = data.picture(view).graph
        nodes = {} if folded is None else folded.nodes
        keys = [key for key, node in nodes.items() if node["kind"] == "group"]
        for key in keys[:MAX_OPENED_GROUPS]:
            group = nodes[key]["group"]
            json_key = serialize.to_json_key(key)
            node = details.node_details(store, data, key, view)
            groups[_json(json_key)] = {**node, "key": json_key}
            pictures[_json([kind, group])] = data.picture_message({**view, "open": [group]})
    if data.opens_with_overview():
        view = {"picture": "graph", "overview": True}
        pictures[_json(["overview"])] = data.picture_message(view)
        for key in data.process_map:
            json_key = serialize.to_json_key(key)
            node = details.node_details(store, data, key, view)
            groups[_json(json_key)] = {**node, "key": json_key}
    return {
        "start": {"tab": "graph", "offline": True, "read_only": True, "forbidden": None},
        "workflow_id": data.workflow_id,
        "state": {
            "facts": data.facts(),
            "stamp": data.stamp,
            "active": False,
            "now": round(dt.datetime.now(dt.UTC).timestamp() * 1000),
            "took": 0,
        },
        "pictures": pictures,
        "groups": groups,
        "nodes": _recorded_nodes(store, data),
        "list": data.node_list(),
    }


def _json(key: JsonKey) -> str:
    # As JSON.stringify writes it, because the page looks it up by that.
    return json.dumps(key, separators=(",", ":"), ensure_ascii=False)


def _recorded_nodes(store: Store, data: RunData) -> dict[str, Answer]:
    """Return the details of each workflow and step, the root first, within the size limit."""
    root = data.workflow_id
    ids = [key for key, node in data.graph.nodes.items() if node["kind"] == "workflow"]
    ids = [root, *(key for key in ids if key != root)][:MAX_LISTED]
    recorded: dict[str, Answer] = {}
    budget = MAX_PAYLOAD_CHARACTERS
    workflows = store.workflows(ids, load_input=True, load_output=True, limit=None)
    for workflow in details.iter_workflow_details(store, workflows):
        key = workflow["row"]["id"]
        forks = data.forks if key == root else []
        node = {"kind": "workflow", "key": key, **workflow, "forks": forks}
        budget = _limit_payloads(node, budget)
        recorded[_json(key)] = node
    steps = store.steps(ids, load_output=True).head(MAX_LISTED)
    for step_key, step in details.iter_step_details(steps):
        node = {"key": list(step_key), **step}
        budget = _limit_payloads(node, budget)
        recorded[_json(list(step_key))] = node
    for node_key, attributes in data.graph.nodes.items():
        if isinstance(node_key, tuple) and node_key[-1:] == ("running",):
            json_key = serialize.to_json_key(node_key)
            running = details.running_details(attributes)
            recorded[_json(json_key)] = {**running, "key": json_key}
    return recorded


def _limit_payloads(node: dict[str, object], budget: int) -> int:
    """Replace the payloads that exceed a budget of characters; return what is left of it."""
    for name in ("input", "output", "error"):
        if name in node:
            size = len(json.dumps(node[name]))
            if size > budget:
                node[name] = _OMITTED
            else:
                budget -= size
    return budget
