"""When each part of a run began and ended, in milliseconds; gaps in what was recorded are closed.

Workflows: on SQLite DBOS keeps their times in whole seconds, and before dbos 2.31 no completion.
Steps: before dbos 2.10 they have no times, and before dbos 3 those that start or await a workflow
have none; the times of the workflow that they start or await stand in.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import pandas as pd

from dbos_notebook.errors import GraphError

Key = Hashable
Node = Mapping[str, Any]


class Step(NamedTuple):
    """A step with times, its own or those that stand in."""

    key: Key
    function_id: int
    start: int
    end: int


class Span(NamedTuple):
    """A workflow: created, taken from its queue or begun at once, and ended."""

    created: int
    begun: int
    ended: int


@dataclass
class Spans:
    """The times of all workflows and steps of an execution graph.

    Attributes
    ----------
    nodes
        The attributes of all nodes.
    steps_of
        The steps of each workflow that have times, by function_id.
    workflows
        The workflows that have times.
    starters
        The first step of a workflow that started a child, by both their IDs.
    """

    nodes: Mapping[Key, Node]
    steps_of: dict[str, list[Step]]
    workflows: dict[str, Span]
    starters: dict[tuple[str, str], Step]


def milliseconds(instant: pd.Timestamp) -> int:
    """Return the milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def spans(graph: nx.DiGraph[Any]) -> Spans:
    """Work out the times of an execution graph.

    Raises
    ------
    GraphError
        It was folded.
    """
    nodes: dict[Key, Node] = dict(graph.nodes.items())
    if any(node["kind"] == "group" for node in nodes.values()):
        raise GraphError("This graph is folded. Pass the one that db.graph(...) gave.")
    now = graph.graph.get("read_at")
    mine: dict[str, list[Key]] = {}
    for key, node in nodes.items():
        if "function_id" in node and "timeout_of" not in node:
            mine.setdefault(node["workflow_id"], []).append(key)
    recorded = {
        node["workflow_id"]: span
        for node in nodes.values()
        if node["kind"] == "workflow" and (span := _recorded(node, now)) is not None
    }
    steps_of = {
        workflow_id: _with_times(keys, nodes, recorded, recorded.get(workflow_id))
        for workflow_id, keys in mine.items()
    }
    widened = {
        workflow_id: _widened(span, nodes[workflow_id], steps_of.get(workflow_id, ()))
        for workflow_id, span in recorded.items()
    }
    starters: dict[tuple[str, str], Step] = {}
    for workflow_id, steps in steps_of.items():
        for step in steps:
            node = nodes[step.key]
            if node["operation"] == "start_child":
                starters.setdefault((workflow_id, node["child_workflow_id"]), step)
    return Spans(nodes, steps_of, widened, starters)


def _recorded(node: Node, now: pd.Timestamp | None) -> Span | None:
    created = node.get("created_at")
    if created is None:
        return None
    first = milliseconds(created)
    if node["status"] in ("DELAYED", "ENQUEUED"):
        last = first if now is None else max(first, milliseconds(now))
        return Span(first, last, last)
    begun = milliseconds(node.get("dequeued_at", created))
    if "completed_at" in node:
        ended = milliseconds(node["completed_at"])
    elif "duration" in node:
        ended = begun + round(node["duration"].total_seconds() * 1000)
    else:
        return None
    return Span(min(first, begun), begun, max(begun, ended))


def _widened(span: Span, node: Node, steps: Sequence[Step]) -> Span:
    """Let a workflow that was completed in a whole second hold the steps of that second."""
    if "completed_at" not in node and node["status"] == "PENDING":
        return span
    ended = node.get("completed_at")
    second = span.ended if ended is None else milliseconds(ended)
    if span.created % 1000 or second % 1000:
        return span
    ends = [step.end for step in steps if span.ended < step.end < second + 1000]
    return span._replace(ended=max(ends, default=span.ended))


def _with_times(
    keys: Sequence[Key], nodes: Mapping[Key, Node], recorded: Mapping[str, Span], own: Span | None
) -> list[Step]:
    timed = [_timed(key, nodes[key]) for key in keys]
    # What follows each step at the earliest.
    bounds: list[int | None] = []
    later = None if own is None else own.ended
    for step in reversed(timed):
        bounds.append(later)
        later = later if step is None else min(step.start, later or step.start)
    bounds.reverse()
    earlier = None if own is None else own.begun
    found: list[Step] = []
    for key, step, bound in zip(keys, timed, bounds, strict=True):
        if step is None:
            step = _stand_in(key, nodes[key], recorded, earlier, bound)
        if step is not None:
            found.append(step)
            earlier = max(step.end, earlier or step.end)
    return found


def _timed(key: Key, node: Node) -> Step | None:
    if "started_at" not in node or "completed_at" not in node:
        return None
    start, end = milliseconds(node["started_at"]), milliseconds(node["completed_at"])
    if "wakes_at" in node:
        end = max(end, milliseconds(node["wakes_at"]))
    return Step(key, node["function_id"], start, max(start, end))


def _stand_in(
    key: Key, node: Node, recorded: Mapping[str, Span], earlier: int | None, later: int | None
) -> Step | None:
    child = recorded.get(node.get("child_workflow_id", ""))
    if child is None or earlier is None or later is None or later < earlier:
        return None

    def within(moment: int) -> int:
        return max(earlier, min(moment, later))

    if node["operation"] == "get_result":
        return Step(key, node["function_id"], earlier, within(child.ended))
    return Step(key, node["function_id"], earlier, within(child.created))
