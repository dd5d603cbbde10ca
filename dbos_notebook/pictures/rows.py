"""The rows of a timeline: what each workflow and step did when. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from dbos_notebook.pictures import words
from dbos_notebook.pictures.edges import of_kind, tails
from dbos_notebook.pictures.nodes import group_count, group_name, short_id, tooltip
from dbos_notebook.pictures.text import walk
from dbos_notebook.pictures.theme import OPERATIONS, known
from dbos_notebook.pictures.times import Run, Times

if TYPE_CHECKING:
    import networkx as nx

PARTS = {
    "run": "running a step",
    "own": "between steps",
    "children": "waiting for children",
    "sleep": "sleeping",
    "message": "waiting for a message or an event",
    "queue": "waiting in the queue",
}
"""What the parts of a bar mean."""
_WAITS = {"get_result": "children", "sleep": "sleep", "recv": "message", "get_event": "message"}
# Of what happened at once in a workflow, its own row shows the first of these.
_FIRST = ("failed", "run", "children", "message", "sleep")


class Span(NamedTuple):
    """A part of a bar."""

    start: float
    end: float
    part: str
    status: str


@dataclass
class Row:
    """A line of the timeline."""

    id: str
    key: Any
    kind: str
    status: str
    name: str
    depth: int
    tooltip: str
    spans: list[Span] = field(default_factory=list)
    took: str = ""
    error: str = ""
    remark: str = ""
    number: str = ""
    failing: bool = False
    running: bool = False
    count: int = 0
    members: list[tuple[float, float]] = field(default_factory=list)
    critical: list[tuple[float, float]] = field(default_factory=list)


def build(
    graph: nx.DiGraph[Any],
    shown: nx.DiGraph[Any],
    times: Times,
    critical: list[tuple[Any, float, float]],
) -> list[Row]:
    """Make the rows.

    Parameters
    ----------
    graph
        The whole graph: times of what is folded come from it.
    shown
        The same, folded, or the very same.
    times
        Of the whole graph.
    critical
        Of ``Times.critical_path``.
    """
    # The row of a child says all that the step that started it would.
    merged = {
        tail
        for tail, _ in of_kind(shown, "starts")
        if shown.nodes[tail].get("operation") == "start_child"
    }
    rows = [_row(graph, shown, times, key, depth) for key, depth in walk(shown, skip=merged)]
    if critical:
        _mark(rows, shown, critical)
    return rows


def _mark(
    rows: list[Row], shown: nx.DiGraph[Any], critical: list[tuple[Any, float, float]]
) -> None:
    by_key = {row.key: row for row in rows}
    for row in rows:
        for member in shown.nodes[row.key].get("members") or ():
            by_key.setdefault(member, row)
    for node, begin, close in critical:
        # The step that started a child has no row of its own.
        found = by_key.get(node) or (by_key.get(node[0]) if isinstance(node, tuple) else None)
        if found is not None:
            found.critical.append((begin, close))


def _row(graph: nx.DiGraph[Any], shown: nx.DiGraph[Any], times: Times, key: Any, depth: int) -> Row:
    attributes = shown.nodes[key]
    kind = str(attributes.get("kind", "step"))
    row = Row(
        short_id(key),
        key,
        kind,
        known(attributes.get("status")),
        words.clean(attributes.get("name") or kind, 200),
        depth,
        tooltip(key, attributes, times),
        failing=bool(attributes.get("on_failing_path")),
    )
    error = attributes.get("error_type")
    if not words.missing(error) and error:
        row.error = words.clean(error, 300).rsplit(".", 1)[-1]
    if kind == "workflow":
        _workflow_row(graph, times, row, attributes)
    elif kind == "group":
        _group_row(graph, times, row, attributes)
    else:
        _step_row(shown, times, row, attributes)
    return row


def _workflow_row(
    graph: nx.DiGraph[Any], times: Times, row: Row, attributes: dict[str, Any]
) -> None:
    run = times.workflow(row.key)
    if run is None:
        row.remark = "no times recorded"
        return
    row.running = not run.over
    if run.enqueued is not None and (run.began is None or run.began > run.enqueued):
        until = run.ended if run.began is None else run.began
        row.spans.append(Span(run.enqueued, until, "queue", row.status))
    if run.began is not None:
        row.spans += _shares(graph, times, row, run)
    if run.began is not None and not run.lost:
        row.took = times.took(row.key)
    elif run.lost:
        row.remark = "when it began is not recorded"
    elif run.over:
        row.remark = times.unstarted(row.key)
    elif run.enqueued is not None:
        row.took, row.remark = times.waited(row.key), "has waited"
    else:
        row.remark = times.delayed(row.key)
    told: dict[str, float] = {}
    for span in row.spans:
        if span.part == "queue" and times.coarse:
            continue  # its bar begins at a whole second; how long it waited stands above
        told[span.part] = told.get(span.part, 0.0) + span.end - span.start
    row.tooltip += "".join(
        f"\n{said}: {words.lasted(told[part])}" for part, said in PARTS.items() if told.get(part)
    )


def _shares(graph: nx.DiGraph[Any], times: Times, row: Row, run: Run) -> list[Span]:
    """Cut a workflow's time by what its steps did."""
    began, until = run.began or 0.0, run.ended
    moves: list[tuple[float, int, str]] = []
    for step in times.steps.get(row.key, ()):
        attributes = graph.nodes[step]
        span = times.step(step)
        if span is None or times.older(step) or "function_id" not in attributes:
            continue
        part = _WAITS.get(str(attributes.get("operation")), "run")
        if part == "run" and attributes.get("status") == "ERROR":
            part = "failed"
        start, end = max(span[0], began), min(span[1], until)
        if end > start:
            moves += [(start, 1, part), (end, -1, part)]
    moves.sort()
    active = dict.fromkeys(_FIRST, 0)
    spans: list[Span] = []
    at = began
    for time, change, part in [*moves, (until, 0, "run")]:
        if time > at:
            now = next((each for each in _FIRST if active[each]), "own")
            # What ran shows how the step ended; the rest, how the workflow did.
            status = {"failed": "ERROR", "run": "SUCCESS"}.get(now, row.status)
            now = "run" if now == "failed" else now
            if run.lost and now == "own":
                at = time  # perhaps it did not run between these steps
                active[part] += change
                continue
            if spans and spans[-1][1:] == (at, now, status):
                spans[-1] = spans[-1]._replace(end=time)
            else:
                spans.append(Span(at, time, now, status))
            at = time
        active[part] += change
    return spans or ([] if run.lost else [Span(began, until, "own", row.status)])


def _group_row(graph: nx.DiGraph[Any], times: Times, row: Row, attributes: dict[str, Any]) -> None:
    row.count = int(attributes.get("count", 0))
    row.name = group_count(attributes) + group_name(row.name, attributes)
    for member in attributes.get("members") or ():
        if member not in graph:
            continue
        if graph.nodes[member].get("kind") == "workflow":
            run = times.workflow(member)
            start = run and (run.enqueued if run.began is None else run.began)
            if run is not None and start is not None:
                row.members.append((start, run.ended))
        elif not times.older(member) and (span := times.step(member)):
            row.members.append(span)
    low, high = (words.took(attributes.get(f"duration_{each}")) for each in ("min", "max"))
    row.took = low if low == high else f"{low} – {high}"
    bad = sum(
        int(n)
        for status, n in (attributes.get("statuses") or {}).items()
        if known(status) in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
    )
    row.remark = f"{bad:,} failed" if bad else ""
    if not row.members:
        row.remark = row.remark or "no times recorded"


def _step_row(shown: nx.DiGraph[Any], times: Times, row: Row, attributes: dict[str, Any]) -> None:
    operation = str(attributes.get("operation", "step"))
    said = OPERATIONS.get(operation, ("", ""))[1]
    row.number = f"#{attributes['function_id']}" if "function_id" in attributes else ""
    if operation == "get_result":
        owners = [
            shown.nodes[tail].get("workflow_id", tail) for tail in tails(shown, row.key, "returns")
        ]
        child = shown.nodes[owners[0]].get("name") if owners and owners[0] in shown else None
        row.name = words.clean(f"{said} {child or 'a child'}", 200)
    elif operation == "start_child":
        row.name = words.clean(f"{said} {row.name}", 200)
    elif said:
        row.name = said
    if not row.number and row.status == "PENDING":
        row.name, row.running = f"running, {row.name}", True
    if older := times.older(row.key):
        row.remark = older
        row.took = words.took(attributes.get("duration"))
        return
    span = times.step(row.key)
    if span is None:
        row.remark = "no times recorded"
        return
    part = "own" if row.running else _WAITS.get(operation, "run")
    row.spans = [Span(*span, part, row.status)]
    row.took = words.lasted(span[1] - span[0])
    duration = attributes.get("duration", pd.NaT)
    if duration < pd.Timedelta(0):  # false where it is not known
        row.took, row.remark = words.took(duration), "ends before it begins: clocks differ"
