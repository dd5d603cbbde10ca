"""When each part of a run began and ended, in milliseconds; gaps in what was recorded are closed.

Workflows: on SQLite DBOS keeps their times in whole seconds, and before dbos 2.31 no completion.
Steps: before dbos 2.10 they have no times, and still in 2.20 those that start or await a workflow
have none; the times of the workflow that they start or await stand in.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.given import check_graph

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


class Spans:
    """The times of the workflows and steps of an execution graph, worked out when asked for.

    Attributes
    ----------
    nodes
        The attributes of all nodes.

    Raises
    ------
    GraphError
        The graph is folded.
    """

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        check_graph(graph)
        self.nodes: Mapping[Key, Node] = dict(graph.nodes.items())
        self._now: pd.Timestamp | None = graph.graph.get("read_at")
        self._keys: dict[str, list[Key]] = {}
        self._steps: dict[str, list[Step]] = {}
        self._starters: dict[str, dict[str, Step]] = {}
        for key, node in self.nodes.items():
            if node["kind"] == "group":
                raise GraphError("This graph is folded. Pass the one that db.graph(...) gave.")
            if "function_id" in node and "timeout_of" not in node:
                self._keys.setdefault(node["workflow_id"], []).append(key)

    def steps(self, workflow_id: str) -> list[Step]:
        """Return the steps of a workflow that have times, by function_id."""
        if workflow_id not in self._steps:
            keys = self._keys.get(workflow_id, ())
            self._steps[workflow_id] = self._with_times(keys, self._recorded(workflow_id))
        return self._steps[workflow_id]

    def starter(self, workflow_id: str, child: str) -> Step | None:
        """Return the first step of a workflow that started a child."""
        if workflow_id not in self._starters:
            found = self._starters[workflow_id] = {}
            for step in self.steps(workflow_id):
                node = self.nodes[step.key]
                if node["operation"] == "start_child":
                    found.setdefault(node["child_workflow_id"], step)
        return self._starters[workflow_id].get(child)

    def workflow(self, workflow_id: str | None) -> Span | None:
        """Return the times of a workflow; ``None`` where it is not in the graph or has none.

        One that was completed in a whole second holds the steps of that second.
        """
        span = self._recorded(workflow_id)
        if span is None or workflow_id is None:
            return None
        node = self.nodes[workflow_id]
        if "completed_at" not in node and node["status"] == "PENDING":
            return span
        ended = node.get("completed_at")
        second = span.ended if ended is None else milliseconds(ended)
        if span.created % 1000 or second % 1000:
            return span
        ends = (step.end for step in self.steps(workflow_id))
        within = [end for end in ends if span.ended < end < second + 1000]
        return span._replace(ended=max(within, default=span.ended))

    def _recorded(self, workflow_id: str | None) -> Span | None:
        """Return a workflow's times as the database has them."""
        node = self.nodes.get(workflow_id, {})
        created = node.get("created_at")
        if created is None:
            return None
        first = milliseconds(created)
        if node["status"] in ("DELAYED", "ENQUEUED"):
            last = first if self._now is None else max(first, milliseconds(self._now))
            return Span(first, last, last)
        begun = milliseconds(node.get("dequeued_at", created))
        if "completed_at" in node:
            ended = milliseconds(node["completed_at"])
        elif "duration" in node:
            ended = begun + round(node["duration"].total_seconds() * 1000)
        else:
            return None
        return Span(min(first, begun), begun, max(begun, ended))

    def _with_times(self, keys: Sequence[Key], own: Span | None) -> list[Step]:
        timed = [_timed(key, self.nodes[key]) for key in keys]
        # What follows each step at the earliest.
        bounds: list[int | None] = []
        later = None if own is None else own.ended
        for step in reversed(timed):
            bounds.append(later)
            if step is not None:
                later = step.start if later is None else min(step.start, later)
        bounds.reverse()
        earlier = None if own is None else own.begun
        found: list[Step] = []
        for key, step, bound in zip(keys, timed, bounds, strict=True):
            if step is None:
                step = self._stand_in(key, earlier, bound)
            if step is not None:
                found.append(step)
                earlier = step.end if earlier is None else max(step.end, earlier)
        return found

    def _stand_in(self, key: Key, earlier: int | None, later: int | None) -> Step | None:
        node = self.nodes[key]
        child = self._recorded(node.get("child_workflow_id"))
        if child is None or earlier is None or later is None or later < earlier:
            return None
        moment = child.ended if node["operation"] == "get_result" else child.created
        return Step(key, node["function_id"], earlier, max(earlier, min(moment, later)))


def milliseconds(instant: pd.Timestamp) -> int:
    """Return the milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def _timed(key: Key, node: Node) -> Step | None:
    if "started_at" not in node or "completed_at" not in node:
        return None
    start, end = milliseconds(node["started_at"]), milliseconds(node["completed_at"])
    if "wakes_at" in node:
        end = max(end, milliseconds(node["wakes_at"]))
    return Step(key, node["function_id"], start, max(start, end))
