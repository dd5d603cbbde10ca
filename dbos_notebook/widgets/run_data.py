"""One reading of a workflow and everything below it, as the inspect view shows it.

The reading is kept, so that opening a group or changing the picture does not query the database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from dbos_notebook import text
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.drawing.diagram import display_name, group_title, short_id
from dbos_notebook.drawing.graph_svg import draw, is_legible
from dbos_notebook.drawing.process_map_svg import draw_process_map
from dbos_notebook.drawing.timeline import DEFAULT_WIDTH, timeline
from dbos_notebook.graphs import build, process_map
from dbos_notebook.graphs.intervals import Times
from dbos_notebook.status import ACTIVE_STATUSES, ERROR_STATUSES
from dbos_notebook.tables import listings
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.widgets import serialize
from dbos_notebook.widgets.messages import (
    ForkMessage,
    NodeKey,
    NodeList,
    NodeSummary,
    PictureMessage,
    RunFacts,
    ViewOptions,
    WorkflowMessage,
    compact,
)

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.database.reader import Session
    from dbos_notebook.drawing.picture import Picture
    from dbos_notebook.store import Store

CHILD_OPERATIONS = ("get_result", "start_child")
"""Steps that fail because a child failed: the child is the failure to show."""
MAX_FAILURES = 500
MAX_FOUND = 50
MAX_FORKS = 50
MAX_SUCCESSORS = 50
MAX_LISTED = 5_000
MAX_CACHED_PICTURES = 12
VIEW_WIDTH, VIEW_HEIGHT = 1000, 560
"""The size of a picture in the view, in pixels, where the browser has not said its width."""
MAX_FOLDED_NODES = 2_000
"""A larger run is not folded and laid out to find whether it is legible as a whole."""
MAX_LEGIBLE_NODES = 40
"""A picture of more nodes is not laid out to find that it does not fit."""
MIN_FOLDING = 3
"""A process map is an overview if it has so many times fewer nodes than the run."""
MAX_FAILED = 1_000
"""The number of failed workflows of a group that can be forked together from the view."""
PICTURE_WIDTHS = (420, 1600)
"""The smallest and largest width of a timeline or a process map in pixels."""
MAX_OVERFLOW = 1.05
"""A process map may be so much wider than the view, which then scales it down."""

Direction = Literal["auto", "LR", "TB"]
DIRECTIONS: tuple[Direction, ...] = ("auto", "LR", "TB")


def read_forks(store: Store, session: Session, workflow_id: str) -> list[ForkMessage]:
    """Read the newest forks of a workflow."""
    frame, _ = listings.workflows(
        session,
        store.queries,
        check_filters({"forked_from": [workflow_id]}),
        MAX_FORKS,
        None,
        store.decoder,
        load_errors=False,
    )
    return serialize.fork_rows(frame)


class RunData:
    """A workflow and everything below it, as they were at one time.

    Attributes
    ----------
    workflow_id
        The workflow at the root.
    graph
        The execution graph, not folded.
    row
        The root as a row of the list.
    forks
        The newest forks of the root.
    """

    def __init__(
        self,
        workflow_id: str,
        graph: nx.DiGraph[Any],
        row: WorkflowMessage,
        forks: list[ForkMessage],
    ) -> None:
        self.workflow_id = workflow_id
        self.graph = graph
        self.row = row
        self.forks = forks
        self._pictures: dict[tuple[object, ...], Picture] = {}
        self._overview: dict[int, bool] = {}

    @classmethod
    @repeat_if_changed
    def read(cls, store: Store, workflow_id: str) -> RunData:
        """Read a run in one snapshot; raises WorkflowNotFoundError."""
        with store.session() as session:
            rows = build.read(
                session, store.queries, workflow_id, depth=None, forks=False, load_output=False
            )
            forks = read_forks(store, session, workflow_id)
        graph = build.build_graph(rows, workflow_id, str(store.location))
        frame = rows.workflows
        (row,) = serialize.workflow_rows(frame[frame["workflow_id"] == workflow_id])
        return cls(workflow_id, graph, row, forks)

    @cached_property
    def stamp(self) -> str:
        """A hash, equal for two readings between which nothing changed."""
        digest = hashlib.blake2b(digest_size=10)
        attributes = ("status", "completed_at", "dequeued_at", "queue_name", "app_version")
        for key, node in self.graph.nodes.items():
            state = (key, *(node.get(name) for name in attributes))
            digest.update(repr(state).encode("utf-8", "replace"))
        digest.update(repr((self.row, self.forks)).encode("utf-8", "replace"))
        return digest.hexdigest()

    @property
    def active(self) -> bool:
        """Whether a workflow of the run is running or waits to run."""
        return any(node.get("status") in ACTIVE_STATUSES for node in self.graph.nodes.values())

    @cached_property
    def times(self) -> Times:
        """The times of the run, as its pictures show them."""
        return Times(self.graph)

    # --- pictures --------------------------------------------------------------------------------

    @cached_property
    def process_map(self) -> nx.DiGraph[Any]:
        """The process map of the run."""
        return process_map(self.graph)

    def opens_with_overview(self, width: int = 0) -> bool:
        """Return whether the run is first shown as its process map.

        It is if the process map has far fewer nodes than the run, and the folded graph is legible
        as a whole in neither direction in a view of this width in pixels. That of a run of
        thousands of nodes is assumed not to be.
        """
        width = width or VIEW_WIDTH
        if width not in self._overview:
            if len(self.graph) < MIN_FOLDING * len(self.process_map):
                self._overview[width] = False
            else:
                self._overview[width] = len(self.graph) > MAX_FOLDED_NODES or not any(
                    self._is_legible(direction, width) for direction in ("LR", "TB")
                )
        return self._overview[width]

    def picture(self, view: ViewOptions) -> Picture:
        """Draw the run with the options of the browser."""
        direction = view.get("direction")
        if self.shows_overview(view):
            width = int(view.get("width") or VIEW_WIDTH)
            return self._cached_picture("overview", (), (), "auto", width, critical=False)
        return self._cached_picture(
            "timeline" if view.get("picture") == "timeline" else "graph",
            tuple(str(name) for name in view.get("open") or ()),
            ("system",) if view.get("hide") else (),
            direction if direction in DIRECTIONS else "auto",
            int(view.get("width") or 0),
            critical=bool(view.get("critical")),
        )

    def _direction(self, hide: tuple[str, ...], width: int) -> Direction:
        """Return the direction in which the graph is drawn, whatever groups are opened in it.

        From left to right, unless more of it is visible at a legible size downwards.
        """
        right = self._cached_picture("graph", (), hide, "LR", 0, critical=False)
        if is_legible(right, width, VIEW_HEIGHT):
            return "LR"
        down = self._cached_picture("graph", (), hide, "TB", 0, critical=False)
        return "TB" if visible_share(down, width) > visible_share(right, width) else "LR"

    def _is_legible(self, direction: Direction, width: int) -> bool:
        """Return whether the folded graph is legible as a whole in a view of this width."""
        picture = self._cached_picture("graph", (), (), direction, 0, critical=False)
        is_small = picture.graph is None or len(picture.graph) <= MAX_LEGIBLE_NODES
        return is_small and is_legible(picture, width, VIEW_HEIGHT)

    def shows_overview(self, view: ViewOptions) -> bool:
        """Return whether the options of the browser choose the process map; it may not choose."""
        if view.get("picture") == "timeline":
            return False
        overview = view.get("overview")
        if overview is not None:
            return bool(overview)
        return not view.get("open") and self.opens_with_overview(int(view.get("width") or 0))

    def _cached_picture(
        self,
        kind: str,
        opened: tuple[str, ...],
        hide: tuple[str, ...],
        direction: Direction,
        width: int,
        *,
        critical: bool,
    ) -> Picture:
        options = (kind, opened, hide, direction, width, critical)
        if options in self._pictures:
            return self._pictures[options]
        # The light theme: the view's style sheet replaces its colors by those of the host's theme.
        if kind == "overview":
            smallest, largest = PICTURE_WIDTHS
            picture = draw_process_map(
                self.process_map, "light", min(max(width, smallest), largest) * MAX_OVERFLOW
            )
        elif kind == "timeline":
            smallest, largest = PICTURE_WIDTHS
            picture = timeline(
                self.graph,
                open=opened,
                hide=hide,
                theme="light",
                critical_path=critical,
                width=min(max(width, smallest), largest) if width else DEFAULT_WIDTH,
            )
        elif direction == "auto" and width:
            chosen = self._direction(hide, width)
            picture = self._cached_picture(kind, opened, hide, chosen, 0, critical=critical)
        else:
            picture = draw(
                self.graph,
                open=opened,
                hide=hide,
                direction=direction,
                theme="light",
                critical_path=critical,
            )
        if len(self._pictures) > MAX_CACHED_PICTURES:
            self._pictures.clear()
        self._pictures[options] = picture
        return picture

    def picture_message(self, view: ViewOptions) -> PictureMessage:
        """Draw the run; return the SVG with the nodes and edges that are in it."""
        picture = self.picture(view)
        folded = picture.graph
        if folded is None:
            return {"svg": picture.svg, "nodes": [], "edges": []}
        keys = dict.fromkeys(picture.nodes.values())
        overview: PictureMessage = (
            {} if view.get("picture") == "timeline" else {"overview": self.shows_overview(view)}  # type: ignore[typeddict-item]  # the rest follows
        )
        return {
            **overview,
            "svg": picture.svg,
            "nodes": [self._with_duration(node_summary(key, folded.nodes[key])) for key in keys],
            "edges": [[short_id(a), short_id(b)] for a, b in _edges_past_joins(folded)],
        }

    def groups_to_open(self, key: NodeKey, view: ViewOptions) -> list[str]:
        """Return what must be open for a node to be drawn: groups, and workflows in groups.

        A workflow is shown beside the group that it is taken out of, which is not opened.
        """
        opened = [str(name) for name in view.get("open") or ()]
        ancestors = self._ancestors(key)
        for _ in range(len(ancestors) + 12):
            folded = self.picture({**view, "open": opened, "overview": False}).graph
            if folded is None or key in folded:
                break
            group_of = {
                member: node
                for node in folded.nodes.values()
                if node["kind"] == "group"
                for member in node["members"]
            }
            # In a deep tree several groups contain an ancestor: open that of the nearest.
            member = next((node for node in ancestors if node in group_of), None)
            if member is None:
                break
            group = group_of[member]
            is_single = group["of"] == "workflow" and not group.get("levels")
            name = str(member) if is_single and member not in opened else group["group"]
            if name in opened:
                break
            opened.append(name)
        return opened

    def _ancestors(self, key: NodeKey) -> list[NodeKey]:
        """Return a node, its workflow, and the workflows above, the nearest first."""
        nodes = self.graph.nodes
        ancestors = {key: None}
        above = nodes[key]["workflow_id"] if key in nodes else None
        if above == key:
            above = nodes[key].get("parent")
        while above in nodes and above not in ancestors:
            ancestors[above] = None
            above = nodes[above].get("parent")
        return list(ancestors)

    # --- facts, search and the list of nodes -----------------------------------------------------

    def facts(self) -> RunFacts:
        """Return what the header shows: the workflow, its relatives, its failures."""
        failures = list(map(self.summarize, self._failures()))
        return {
            "row": self.row,
            "forks": self.forks,
            "failures": failures[:MAX_FAILURES],
            "more_failures": max(0, len(failures) - MAX_FAILURES),
            "counts": self._counts(),
            "took": self.times.duration(self.workflow_id),
            "unstarted": self.times.unstarted(self.workflow_id),
            "active": self.active,
        }

    def _counts(self) -> str:
        # What a run does now is a node as well, but not a recorded step.
        steps = sum("function_id" in node for node in self.graph.nodes.values())
        count = sum(node["kind"] == "workflow" for node in self.graph.nodes.values())
        workflows = [text.plural(count, "workflow")] if count > 1 else []
        return ", ".join([*workflows, text.plural(steps, "step")])

    def _failures(self) -> list[NodeKey]:
        """Return the nodes that failed: what made the root fail first, then by time."""
        nodes = self.graph.nodes
        explained: set[NodeKey] = set()
        failures = []
        for key, node in nodes.items():
            if node["kind"] != "step" or node.get("status") not in ERROR_STATUSES:
                continue
            explained.add(node["workflow_id"])
            child = nodes.get(node.get("child_workflow_id"), {})
            by_child = node.get("operation") in CHILD_OPERATIONS
            if not by_child or child.get("status", "SUCCESS") == "SUCCESS":
                failures.append(key)
        failures += [
            key
            for key, node in nodes.items()
            if node["kind"] == "workflow"
            and node.get("status") in ERROR_STATUSES
            and key not in explained
        ]
        last = pd.Timestamp.max.tz_localize("UTC")
        failures.sort(
            key=lambda key: (
                not nodes[key].get("on_failing_path"),
                nodes[key].get("completed_at", last),
            )
        )
        return failures

    def summarize(self, key: NodeKey) -> NodeSummary:
        """Return a node in short."""
        return self._with_duration(node_summary(key, self.graph.nodes[key]))

    def _with_duration(self, summary: NodeSummary) -> NodeSummary:
        """Add the times of a workflow as its picture shows them, which the steps may refine."""
        if summary["kind"] == "workflow" and "duration" in summary and summary["key"] in self.graph:
            summary["took"] = self.times.duration(summary["key"])
        elif summary["kind"] == "workflow" and summary["status"] == "PENDING":
            run = self.times.workflow(summary["key"])
            if run is not None and run.started is not None:
                summary["since"] = round(run.started * 1000)
        return summary

    def search(self, query: str) -> dict[str, object]:
        """Find the nodes whose name, ID, number or error contains a string."""
        wanted = query.strip().casefold()
        found = []
        for key, node in self.graph.nodes.items():
            if node["kind"] == "join" or not wanted:
                continue
            number = f"#{node['function_id']}" if "function_id" in node else node["workflow_id"]
            parts = (node.get("name"), number, node.get("error_type"), node.get("error_message"))
            if any(wanted in str(part).casefold() for part in parts if part is not None):
                found.append(key)
        return {"found": list(map(self.summarize, found[:MAX_FOUND])), "count": len(found)}

    def node_list(self) -> NodeList:
        """Return all workflows and steps as rows of a table, in the order of the tree."""
        rows: list[NodeSummary] = []
        order = self._tree_order()
        for key, depth in order[:MAX_LISTED]:
            node = self.graph.nodes[key]
            row: NodeSummary = compact(
                {**self.summarize(key), "depth": depth, **self._listed_times(key, node)}
            )
            rows.append(row)
        return {"rows": rows, "left_out": max(0, len(order) - MAX_LISTED)}

    def _listed_times(self, key: NodeKey, node: Mapping[str, Any]) -> dict[str, object]:
        """Return the times of a node as its pictures show them, in milliseconds since 1970."""
        times: dict[str, object] = {
            name: serialize.milliseconds(node[name])
            for name in ("started_at", "completed_at", "created_at")
            if name in node
        }
        run = self.times.workflow(key) if node["kind"] == "workflow" else None
        if run is not None:
            begun = run.created if run.started is None else run.started
            times["created_at"] = round(run.created * 1000)
            if run.started is not None:
                times["started_at"] = round(run.started * 1000)
            times["in_seconds"] = (self.times.coarse and begun == int(begun)) or None
        return times

    def _tree_order(self) -> list[tuple[NodeKey, int]]:
        """Return every node with its depth, a child after the step that started it."""
        nodes = self.graph.nodes
        steps: dict[NodeKey, list[NodeKey]] = {}
        children: dict[NodeKey, list[NodeKey]] = {}
        for key, node in nodes.items():
            if node["kind"] == "step":
                steps.setdefault(node["workflow_id"], []).append(key)
            elif node["kind"] == "workflow" and node.get("parent") in self.graph:
                children.setdefault(node["parent"], []).append(key)
        depths: dict[NodeKey, int] = {}
        workflows = [key for key, node in nodes.items() if node["kind"] == "workflow"]
        for root in [self.workflow_id, *workflows]:
            stack = [(root, 0)]
            while stack:
                key, depth = stack.pop()
                if key in depths or key not in self.graph:
                    continue
                depths[key] = depth
                if nodes[key]["kind"] == "workflow":
                    below = [*steps.get(key, ()), *children.get(key, ())]
                    stack += [(node, depth + 1) for node in reversed(below)]
                elif nodes[key].get("operation") == "start_child":
                    stack.append((nodes[key].get("child_workflow_id"), depth + 1))
        return list(depths.items())


def node_summary(key: NodeKey, node: Mapping[str, Any]) -> NodeSummary:
    """Return a node of a graph in short, from its attributes."""
    summary: dict[str, Any] = {
        "ref": short_id(key),
        "key": serialize.to_json_key(key),
        "kind": node["kind"],
        "name": serialize.label(node.get("name") or ""),
        "status": str(node.get("status") or ""),
        "workflow_id": serialize.to_json_key(node.get("workflow_id")),
        "number": node.get("function_id"),
    }
    for name in ("operation", "group", "of", "count", "levels", "difference"):
        summary[name] = node.get(name)
    if node["kind"] in ("group", "aggregate"):
        summary["title"] = serialize.label(group_title(display_name(node), dict(node)))
    for name in ("first", "second"):
        summary[name] = serialize.to_json_key(node.get(f"node_{name}"))
    if node.get("error_type"):
        summary["error"] = serialize.label(node["error_type"])
        summary["error_message"] = serialize.label(node.get("error_message") or "")
        summary["error_attempts"] = node.get("error_attempts")
    duration = node.get("duration", node.get("duration_total"))
    if duration is not None and (
        node["kind"] in ("group", "aggregate") or node.get("status") not in ACTIVE_STATUSES
    ):
        summary["duration"] = serialize.milliseconds(duration)
    message: NodeSummary = compact(summary)
    return message


def visible_share(picture: Picture, width: int) -> float:
    """Return the share of a picture that a view shows at its full size."""
    drawn_width, drawn_height = picture.size
    return min(1, width / drawn_width) * min(1, VIEW_HEIGHT / drawn_height)


def _edges_past_joins(graph: nx.DiGraph[Any]) -> Iterator[tuple[NodeKey, NodeKey]]:
    """Yield the edges of a graph; an edge to a join becomes edges to the join's successors."""
    for source, target in graph.edges:
        if graph.nodes[source]["kind"] == "join":
            continue
        if graph.nodes[target]["kind"] != "join":
            yield source, target
            continue
        for successor in list(graph.successors(target))[:MAX_SUCCESSORS]:
            yield source, successor
