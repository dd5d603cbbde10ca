"""One reading of a workflow and all below it, as the view of one workflow asks for it.

What is drawn of it, where its failures are, and what of it holds a text. The reading is kept, so
that to open a group or to change the picture asks the database nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook import text
from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.drawing.diagram import short_id
from dbos_notebook.drawing.graph_svg import draw
from dbos_notebook.drawing.timeline import WIDE, timeline
from dbos_notebook.graphs import build
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.status import ACTIVE_STATUSES, ERROR_STATUSES
from dbos_notebook.widgets import details, serialize

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.drawing.picture import Picture
    from dbos_notebook.store import Store

ECHOES = ("get_result", "start_child")
"""Steps that fail because a child did: the child is where to look."""
MOST_FAILURES = 500
MOST_FOUND = 50
MOST_FORKS = 50
MOST_LISTED = 5_000
PICTURES = ("graph", "timeline")
MOST_PICTURES = 12
NEARLY = 1.2
TIMELINE = (420, 1600)
"""Pixels of a timeline: at least and at most, whatever room there is."""
DIRECTIONS = ("auto", "LR", "TB")


def as_key(value: Any) -> Any:
    """Return a node's key from what travels: a list for a tuple.

    Examples
    --------
    >>> as_key(["order-1", 3]), as_plain(("order-1", 3)), as_key("order-1")
    (('order-1', 3), ['order-1', 3], 'order-1')
    """
    return tuple(as_key(part) for part in value) if isinstance(value, list | tuple) else value


def as_plain(key: Any) -> Any:
    """Return a node's key as it travels."""
    return [as_plain(part) for part in key] if isinstance(key, tuple) else key


class RunData:
    """A workflow and all below it, as they were at one time.

    Attributes
    ----------
    graph
        The execution graph, not folded.
    """

    def __init__(
        self,
        workflow_id: str,
        graph: nx.DiGraph[Any],
        row: Mapping[str, Any],
        forks: Sequence[Mapping[str, str]],
    ) -> None:
        self.workflow_id = workflow_id
        self.graph = graph
        self.row = row
        self.forks = forks
        self._pictures: dict[tuple[Any, ...], Picture] = {}

    @classmethod
    @repeat_if_changed
    def read(cls, store: Store, workflow_id: str, *, results: bool = False) -> RunData:
        """Read it now, in one snapshot; raises WorkflowNotFoundError."""
        with store.session() as session:
            found = build.read(
                session, store.queries, workflow_id, depth=None, forks=False, load_output=results
            )
            forks = details.forks(store, session, workflow_id)
        graph = build.graph_of(found, workflow_id, str(store.location))
        frame = found.workflows
        (row,) = serialize.workflow_rows(frame[frame["workflow_id"] == workflow_id])
        return cls(workflow_id, graph, row, forks)

    @cached_property
    def stamp(self) -> str:
        """What is the same for two readings between which nothing happened."""
        digest = hashlib.blake2b(digest_size=10)
        told = ("status", "completed_at", "dequeued_at", "queue_name", "app_version")
        for key, node in self.graph.nodes.items():
            digest.update(
                repr((key, *(node.get(name) for name in told))).encode("utf-8", "replace")
            )
        digest.update(repr((self.row, self.forks)).encode("utf-8", "replace"))
        return digest.hexdigest()

    @property
    def active(self) -> bool:
        """Whether anything of it may still change by itself."""
        return any(node.get("status") in ACTIVE_STATUSES for node in self.graph.nodes.values())

    def picture(self, view: Mapping[str, Any]) -> Picture:
        """Draw it as the browser wants to see it."""
        kind = "timeline" if view.get("picture") == "timeline" else "graph"
        opened = tuple(str(name) for name in view.get("open") or ())
        hide = ("bookkeeping",) if view.get("hide") else ()
        direction = view.get("direction") if view.get("direction") in DIRECTIONS else "auto"
        room = int(view.get("room") or 0)
        return self._kept(
            kind, opened, hide, str(direction), room, critical=bool(view.get("critical"))
        )

    def _kept(
        self,
        kind: str,
        opened: tuple[str, ...],
        hide: tuple[str, ...],
        direction: str,
        room: int,
        *,
        critical: bool,
    ) -> Picture:
        asked = (kind, opened, hide, direction, room, critical)
        if asked in self._pictures:
            return self._pictures[asked]
        # Light, because the view's style gives every part the colours of its host's theme.
        if kind == "timeline":
            drawn = timeline(
                self.graph,
                open=opened,
                hide=hide,
                theme="light",
                critical_path=critical,
                width=min(max(room, TIMELINE[0]), TIMELINE[1]) if room else WIDE,
            )
        elif direction == "auto" and room:
            # Time runs to the right wherever the view has room for that, or nearly.
            drawn = self._kept(kind, opened, hide, "LR", 0, critical=critical)
            if drawn.size[0] > room * NEARLY:
                drawn = self._kept(kind, opened, hide, "auto", 0, critical=critical)
        else:
            drawn = draw(
                self.graph,
                open=opened,
                hide=hide,
                direction=direction,  # type: ignore[arg-type]
                theme="light",
                critical_path=critical,
            )
        if len(self._pictures) > MOST_PICTURES:
            self._pictures.clear()
        self._pictures[asked] = drawn
        return drawn

    def facts(self) -> dict[str, Any]:
        """Return what stands above the picture: the workflow, its relatives, its failures."""
        failures = list(self.failures())
        return {
            "row": self.row,
            "forks": self.forks,
            "failures": failures[:MOST_FAILURES],
            "more_failures": max(0, len(failures) - MOST_FAILURES),
            "counts": self._counts(),
            "took": self._times.took(self.workflow_id),
            "unstarted": self._times.unstarted(self.workflow_id),
            "active": self.active,
        }

    def _counts(self) -> str:
        kinds = Counter(
            "step" if "function_id" in node else node["kind"] for node in self.graph.nodes.values()
        )
        said = [text.plural(kinds["workflow"], "workflow")] if kinds["workflow"] > 1 else []
        return ", ".join([*said, text.plural(kinds["step"], "step")])

    def failures(self) -> Iterator[dict[str, Any]]:
        """Yield where it failed: what made the whole fail first, then the others by their time."""
        nodes = self.graph.nodes
        explained: set[Any] = set()
        found = []
        for key, node in nodes.items():
            if node["kind"] != "step" or node.get("status") not in ERROR_STATUSES:
                continue
            explained.add(node["workflow_id"])
            child = nodes.get(node.get("child_workflow_id"), {})
            if node.get("operation") not in ECHOES or child.get("status", "SUCCESS") == "SUCCESS":
                found.append(key)
        found += [
            key
            for key, node in nodes.items()
            if node["kind"] == "workflow"
            and node.get("status") in ERROR_STATUSES
            and key not in explained
        ]
        never = pd.Timestamp.max.tz_localize("UTC")
        found.sort(
            key=lambda key: (
                not nodes[key].get("on_failing_path"),
                nodes[key].get("completed_at", never),
            )
        )
        yield from map(self.told, found)

    def told(self, key: Any) -> dict[str, Any]:
        """Return a node in short."""
        return self._timed(node_in_short(key, self.graph.nodes[key]))

    @cached_property
    def _times(self) -> Times:
        return Times(self.graph)

    def _timed(self, told: dict[str, Any]) -> dict[str, Any]:
        """Add how long a workflow took as its picture says it, which the steps may refine."""
        if told["kind"] == "workflow" and "duration" in told and told["key"] in self.graph:
            told["took"] = self._times.took(told["key"])
        return told

    def search(self, text: str) -> dict[str, Any]:
        """Find the nodes that hold a text in their name, ID, number or error."""
        wanted = text.strip().casefold()
        found = []
        for key, node in self.graph.nodes.items():
            if node["kind"] == "join" or not wanted:
                continue
            number = f"#{node['function_id']}" if "function_id" in node else node["workflow_id"]
            parts = (node.get("name"), number, node.get("error_type"), node.get("error_message"))
            if any(wanted in str(part).casefold() for part in parts if part is not None):
                found.append(key)
        return {
            "found": [self.told(key) for key in found[:MOST_FOUND]],
            "count": len(found),
        }

    def opened_for(self, key: Any, view: Mapping[str, Any]) -> list[str]:
        """Return the groups to open so that a node is seen, with those already open."""
        opened = [str(name) for name in view.get("open") or ()]
        chain = self._chain(key)
        for _ in range(len(chain) + 12):
            shown = self.picture({**view, "open": opened}).shown
            if shown is None or key in shown:
                break
            holds = {
                member: node["group"]
                for node in shown.nodes.values()
                if node["kind"] == "group"
                for member in node["members"]
            }
            # Of the levels of a deep tree several groups hold workflows above the node.
            group = next((holds[each] for each in chain if each in holds), None)
            if group is None or group in opened:
                break
            opened.append(group)
        return opened

    def _chain(self, key: Any) -> dict[Any, None]:
        """Return a node, its workflow, and those above that, the nearest first."""
        nodes = self.graph.nodes
        found = {key: None}
        above = nodes[key]["workflow_id"] if key in nodes else None
        if above == key:
            above = nodes[key].get("parent")
        while above in nodes and above not in found:
            found[above] = None
            above = nodes[above].get("parent")
        return found

    def listed(self) -> dict[str, Any]:
        """Return all workflows and steps as rows of a table, in the order of the tree."""
        rows: list[dict[str, Any]] = []
        order = self._in_order()
        for key, depth in order[:MOST_LISTED]:
            node = self.graph.nodes[key]
            told = {**self.told(key), "depth": depth}
            for name in ("started_at", "completed_at", "created_at"):
                if name in node:
                    told[name] = serialize.milliseconds(node[name])
            rows.append(told)
        return {"rows": rows, "left_out": max(0, len(order) - MOST_LISTED)}

    def _in_order(self) -> list[tuple[Any, int]]:
        """Return every node with its depth, a child after the step that started it."""
        steps: dict[Any, list[Any]] = {}
        below: dict[Any, list[Any]] = {}
        for key, node in self.graph.nodes.items():
            if node["kind"] == "step":
                steps.setdefault(node["workflow_id"], []).append(key)
            elif node["kind"] == "workflow" and node.get("parent") in self.graph:
                below.setdefault(node["parent"], []).append(key)
        found: list[tuple[Any, int]] = []
        placed: set[Any] = set()
        tops = [k for k, n in self.graph.nodes.items() if n["kind"] == "workflow"]
        for top in [self.workflow_id, *tops]:
            waiting = [(top, 0)]
            while waiting:
                key, depth = waiting.pop()
                if key in placed or key not in self.graph:
                    continue
                placed.add(key)
                found.append((key, depth))
                if self.graph.nodes[key]["kind"] == "workflow":
                    inner = [*steps.get(key, ()), *below.get(key, ())]
                    waiting += [(each, depth + 1) for each in reversed(inner)]
                elif self.graph.nodes[key].get("operation") == "start_child":
                    waiting.append((self.graph.nodes[key].get("child_workflow_id"), depth + 1))
        return found

    def drawn(self, view: Mapping[str, Any]) -> dict[str, Any]:
        """Return the picture, and which part of it is which node."""
        found = drawn(self.picture(view))
        return {**found, "nodes": [self._timed(node) for node in found["nodes"]]}


def node_in_short(key: Any, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node of a graph as plain values: what a list of nodes says of it."""
    told: dict[str, Any] = {
        "ref": short_id(key),
        "key": as_plain(key),
        "kind": node["kind"],
        "name": text.truncate(str(node.get("name") or ""), serialize.SHORT_CHARACTERS),
        "status": str(node.get("status") or ""),
        "workflow_id": as_plain(node.get("workflow_id")),
    }
    for name, column in (("number", "function_id"), ("operation", "operation")):
        if column in node:
            told[name] = node[column]
    for name in ("group", "of", "count", "levels", "difference"):
        if name in node:
            told[name] = node[name]
    for name in ("first", "second"):
        if f"node_{name}" in node:
            told[name] = as_plain(node[f"node_{name}"])
    if node.get("error_type"):
        told["error"] = text.truncate(str(node["error_type"]), serialize.SHORT_CHARACTERS)
        message = str(node.get("error_message") or "")
        told["error_message"] = text.truncate(message, serialize.SHORT_CHARACTERS)
    duration = node.get("duration", node.get("duration_total"))
    if duration is not None and not (
        node["kind"] != "group" and node.get("status") in ACTIVE_STATUSES
    ):
        told["duration"] = serialize.milliseconds(duration)
    return told


def drawn(picture: Picture) -> dict[str, Any]:
    """Return a picture with its nodes and how they hang together."""
    shown = picture.shown
    keys = list(dict.fromkeys(picture.nodes.values()))
    if shown is None:
        return {"svg": picture.svg, "nodes": [], "edges": []}
    nodes = [node_in_short(key, shown.nodes[key]) for key in keys]
    edges = [[short_id(a), short_id(b)] for a, b in _direct(shown)]
    return {"svg": picture.svg, "nodes": nodes, "edges": edges}


def _direct(graph: nx.DiGraph[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield which node leads to which; what leads to a join leads to what the join leads to."""
    for a, b in graph.edges:
        if graph.nodes[a]["kind"] == "join":
            continue
        if graph.nodes[b]["kind"] != "join":
            yield a, b
            continue
        yield from ((a, further) for further in list(graph.successors(b))[:MOST_FORKS])


def group_members(shown: nx.DiGraph[Any] | None, key: Any, most: int) -> list[Any]:
    """Return some members of a group of a folded graph."""
    if shown is None or key not in shown:
        return []
    members: Iterable[Any] = shown.nodes[key].get("members") or ()
    return list(members)[:most]
