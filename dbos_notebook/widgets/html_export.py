"""Views as static HTML that needs no kernel: for GitHub, nbconvert and e-mail."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook import text
from dbos_notebook.drawing.graph_svg import draw
from dbos_notebook.errors import GraphvizNotFoundError
from dbos_notebook.graphs.intervals import Spans, Times
from dbos_notebook.html import environment
from dbos_notebook.widgets import bundle, details, node_details, serialize
from dbos_notebook.widgets.run_data import MOST_LISTED, PICTURES, RunData, as_plain

if TYPE_CHECKING:
    import jinja2

    from dbos_notebook.store import Store

FALLBACK_ROWS = 20


@cache
def _templates() -> jinja2.Environment:
    found = environment("widgets")
    found.filters["instant"] = _instant
    found.filters["span"] = _span
    found.filters["took"] = _took
    return found


def _instant(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _span(milliseconds: int | None) -> str:
    return "–" if milliseconds is None else text.duration(pd.Timedelta(milliseconds, "ms"))


def _took(row: dict[str, Any]) -> str:
    begun = row.get("started_at", 1)
    ended = row.get("completed_at", row.get("updated_at", 1))
    # SQLite may hold whole seconds, of which 0 says only that it was quick.
    if row.get("duration") == 0 and begun % 1000 == ended % 1000 == 0:
        return "< 1 s"
    return _span(row.get("duration"))


def listing(store: Store, frame: pd.DataFrame, code: str) -> str:
    """Return a short table of a listing, to stand in a notebook's file."""
    return _render(store, frame.head(FALLBACK_ROWS), code, len(frame) - FALLBACK_ROWS, {})


def listing_page(store: Store, frame: pd.DataFrame, code: str) -> str:
    """Return a whole page of a listing, each row with its details."""
    return page("Workflows", [opened(store, frame, code)])


def opened(store: Store, frame: pd.DataFrame, code: str) -> str:
    """Return a table of workflows, each with its details."""
    told = {i: details.of_workflow(store, i) for i in frame["workflow_id"]}
    return _render(store, frame, code, 0, told)


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML page of parts that templates made."""
    return _templates().get_template("page.html.j2").render(title=title, parts=parts)


def board(location: str, facts: dict[str, Any], window: str) -> str:
    """Return a board as tables."""
    now = dt.datetime.now(dt.UTC)
    return (
        _templates()
        .get_template("board.html.j2")
        .render(
            **facts,
            location=location,
            window=window,
            ended={status: sum(bars) for status, bars in sorted(facts["series"].items())},
            now=round(now.timestamp() * 1000),
            read_at=f"{now:%Y-%m-%d %H:%M:%S} UTC",
            style=bundle.style("static"),
        )
    )


def _render(
    store: Store, frame: pd.DataFrame, code: str, left_out: int, opened: dict[str, Any]
) -> str:
    return (
        _templates()
        .get_template("listing.html.j2")
        .render(
            location=str(store.location),
            code=code,
            rows=serialize.workflow_rows(frame),
            opened=opened,
            left_out=max(0, left_out),
            read_at=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC",
            style=bundle.style("static"),
        )
    )


MOST_GROUPS = 12
"""Groups that a page has opened, one at a time."""
MOST_PAYLOADS = 6_000_000
"""Characters of results in one page; what is beyond them says where it is found."""
MOST_TEXT = 20_000


def fallback(store: Store, run: RunData) -> str:
    """Return the graph as an image with the facts, to stand in a notebook's file.

    An image, because in it nothing could run; it follows the reader's light or dark by itself.
    """
    picture = draw(run.graph, theme="auto")
    try:
        encoded = base64.b64encode(picture.svg.encode()).decode()
        image = f"data:image/svg+xml;base64,{encoded}"
    except GraphvizNotFoundError:
        # The tree of text still tells.
        image = ""
    return _render_run(
        "run.html.j2",
        store,
        row=run.row,
        took=Times(run.graph).took(run.workflow_id),
        forks=run.forks,
        image=image,
        alt=f"Execution graph of {run.workflow_id}",
        text=text.truncate(picture.text, MOST_TEXT),
        code=node_details.code(run, None),
        read_at=_now(),
    )


def _render_run(template: str, store: Store, **values: Any) -> str:
    made = _templates().get_template(template)
    return made.render(location=str(store.location), style=bundle.style("static"), **values)


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def inspect_page(store: Store, run: RunData, style: str) -> str:
    """Return one file with the graph, the timeline, the table of steps, and what each one did."""
    script = bundle.module("offline")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # "</script>" within a text would end the script's element.
    recorded = json.dumps(record(store, run), ensure_ascii=False).replace("<", "\\u003c")
    name = run.row.get("name", "workflow")
    return (
        _templates()
        .get_template("inspect.html.j2")
        .render(
            title=f"{name} {run.workflow_id}",
            script=script,
            script_hash=f"sha256-{digest}",
            style=style,
            recorded=recorded,
            fallback=fallback(store, run),
            note=f"{store.location} · read {_now()} · made by dbos_notebook; it needs no network.",
        )
    )


def record(store: Store, run: RunData) -> dict[str, Any]:
    """Return all that the browser half may ask of a run."""
    pictures: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    # Rows of an unknown status or without times have no path through them.
    timed = Spans(run.graph).workflow(run.workflow_id) is not None
    for kind in PICTURES:
        critical = timed and kind == "timeline"
        view: dict[str, Any] = {"picture": kind, "open": [], "critical": critical}
        shown = run.picture(view).shown
        pictures[json.dumps([kind], separators=(",", ":"))] = run.drawn(view)
        found = [] if shown is None else [k for k, n in shown.nodes.items() if n["kind"] == "group"]
        for key in found[:MOST_GROUPS]:
            name = shown.nodes[key]["group"] if shown is not None else ""
            told = node_details.of_node(store, run, key, view)
            groups[_text(key)] = {"key": as_plain(key), **told}
            named = json.dumps([kind, name], separators=(",", ":"), ensure_ascii=False)
            pictures[named] = run.drawn({**view, "open": [name]})
    return {
        "start": {"tab": "graph", "offline": True, "read_only": True, "forbidden": None},
        "workflow_id": run.workflow_id,
        "state": {
            "facts": run.facts(),
            "stamp": run.stamp,
            "active": False,
            "now": round(dt.datetime.now(dt.UTC).timestamp() * 1000),
            "took": 0,
        },
        "pictures": pictures,
        "groups": groups,
        "nodes": _told(store, run),
        "list": run.listed(),
    }


def _text(key: Any) -> str:
    # As JavaScript's JSON.stringify writes it: so the page finds it.
    return json.dumps(as_plain(key), separators=(",", ":"), ensure_ascii=False)


def _told(store: Store, run: RunData) -> dict[str, Any]:
    """Return what each workflow and step tells, the root first, within the bound of payloads."""
    ids = [key for key, node in run.graph.nodes.items() if node["kind"] == "workflow"]
    ids = [run.workflow_id, *(each for each in ids if each != run.workflow_id)][:MOST_LISTED]
    told: dict[str, Any] = {}
    room = MOST_PAYLOADS
    flows = store.workflows(ids, load_input=True, load_output=True, limit=None)
    for one in details.many(store, flows):
        found = {"kind": "workflow", "key": one["row"]["id"], **one, "forks": []}
        if one["row"]["id"] == run.workflow_id:
            found["forks"] = list(run.forks)
        room = _bounded(found, room)
        told[_text(one["row"]["id"])] = found
    frame = store.steps(ids, load_output=True).head(MOST_LISTED)
    for workflow_id, number, found in node_details.many_steps(frame):
        room = _bounded(found, room)
        told[_text((workflow_id, number))] = {"key": [workflow_id, number], **found}
    for key, node in run.graph.nodes.items():
        if isinstance(key, tuple) and key[-1:] == ("running",):
            name = {"name": node.get("name"), "workflow_id": node.get("workflow_id")}
            told[_text(key)] = {"kind": "running", "key": as_plain(key), **name}
    return told


def _bounded(found: dict[str, Any], room: int) -> int:
    """Take from the room what a node's payloads need; leave them out where there is none."""
    for name in ("input", "output", "error"):
        if name not in found:
            continue
        size = len(json.dumps(found[name]))
        if size > room:
            found[name] = {
                "text": "left out of this page, which would be too large: see the database"
            }
        else:
            room -= size
    return room
