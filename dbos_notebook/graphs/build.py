"""Rows of workflows and steps into an execution graph: its edges, and what is kept acyclic."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import networkx as nx
import pandas as pd

from dbos_notebook.graphs import cycles
from dbos_notebook.graphs.failing import mark_failing_path
from dbos_notebook.graphs.given import check_rows
from dbos_notebook.graphs.messages import message_edges
from dbos_notebook.graphs.nodes import Node, running_node, spans, step_nodes, workflow_nodes
from dbos_notebook.graphs.order import in_time, is_sequence
from dbos_notebook.graphs.pause import uncollected

Key = Hashable
Pair = tuple[Key, Key]
Times = tuple[Sequence[int | None], Sequence[int | None]]
MANY_LAST = 64
"""A workflow of which more steps than this come last, and that is awaited, ends in a join."""
_ACTIVE = ("DELAYED", "ENQUEUED", "PENDING")


def execution_graph(
    workflows: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    root: str | None = None,
    messages: pd.DataFrame | None = None,
    wakes: pd.DataFrame | None = None,
    copied: pd.DataFrame | None = None,
    database: str | None = None,
    read_at: pd.Timestamp | None = None,
) -> nx.DiGraph[Any]:
    """Make the execution graph of workflows and their steps. ``Client.graph`` reads and calls it.

    Parameters
    ----------
    workflows
        Rows as :meth:`Client.tree` or :meth:`Client.workflows` gives them.
    steps
        Rows as :meth:`Client.steps` gives them; those of other workflows are left out. Where both
        frames have ``output`` and ``error``, nodes carry a digest of their results, which
        :func:`compare` needs to tell a changed one.
    root
        The workflow that the graph is of; the first row's by default.
    messages
        ``workflow_id``, ``consumed_by_function_id`` and ``created_at`` of messages received.
    wakes
        ``workflow_id``, ``function_id`` and ``wakes_at`` of sleeps.
    copied
        ``workflow_id`` and ``function_id`` of forks' steps that are copies; by their times, if
        left out.
    database
        Where the rows are from, without a password.
    read_at
        When they were read; now by default.

    Returns
    -------
    networkx.DiGraph
        Acyclic; docs/graphs.md lists its attributes.

    Raises
    ------
    GraphError
        The rows contradict each other: a workflow is its own ancestor, or has two rows. ``root``
        is none of them.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> graph = execution_graph(db.tree("checkout-1"), db.steps("checkout-1", children=True))
    >>> graph.nodes["checkout-1", 3]["name"], list(graph.successors(("checkout-1", 3)))
    ('charge', [('checkout-1', 4)])
    """
    with uncollected():
        return _execution_graph(workflows, steps, root, messages, wakes, copied, database, read_at)


def _execution_graph(
    workflows: pd.DataFrame,
    steps: pd.DataFrame,
    root: str | None,
    messages: pd.DataFrame | None,
    wakes: pd.DataFrame | None,
    copied: pd.DataFrame | None,
    database: str | None,
    read_at: pd.Timestamp | None,
) -> nx.DiGraph[Any]:
    check_rows(workflows, steps, root)
    if read_at is None:
        read_at = pd.Timestamp.now("UTC").floor("ms")
    parts = _Parts(workflow_nodes(workflows, read_at))
    parts.add_steps(steps, wakes)
    if copied is not None:
        for key in zip(copied["workflow_id"], copied["function_id"], strict=True):
            if key in parts.nodes:
                parts.nodes[key]["copied"] = True
    if root is None:
        root = next(iter(parts.workflows), None)
    parts.find_parents(workflows)
    mark_failing_path(root, parts.nodes, parts.steps_of, parts.starters)

    graph: nx.DiGraph[Any] = nx.DiGraph(root=root)
    if database is not None:
        graph.graph["database"] = database
    graph.graph["read_at"] = read_at
    pairs = message_edges(parts.nodes, messages)
    parts.connect(graph, pairs, frozenset())
    if knots := cycles.knots(graph):
        # Honest rows can be knotted by clocks: a workflow that went on at another machine, or a
        # message whose sender was guessed from times. Do without both where the knots are.
        tied = set().union(*knots)
        pairs = [pair for pair in pairs if not tied.issuperset(pair)]
        sequential = frozenset(cycles.workflows_of(knots, graph.nodes))
        parts.connect(graph, pairs, sequential)
        if knots := cycles.knots(graph):
            # Or by a step that started by its ID a workflow that was there already: DBOS gives its
            # handle, and writes the same row as if it had been started.
            knotted = frozenset(cycles.workflows_of(knots, graph.nodes))
            parts.keep_first_starts(workflows, knotted)
            parts.connect(graph, pairs, sequential | knotted)
        if knots := cycles.knots(graph):
            raise cycles.refuse(knots, graph.nodes)
    return graph


@dataclass
class _Parts:
    """Nodes by workflow, and how workflows hang together."""

    workflows: dict[str, Node]
    nodes: dict[Key, Node] = field(default_factory=dict)
    keys_of: dict[str, Sequence[Key]] = field(default_factory=dict)
    steps_of: dict[str, Sequence[Node]] = field(default_factory=dict)
    times_of: dict[str, Times] = field(default_factory=dict)
    starters: dict[str, list[Key]] = field(default_factory=dict)
    awaiters: dict[str, list[Key]] = field(default_factory=dict)

    def add_steps(self, steps: pd.DataFrame, wakes: pd.DataFrame | None) -> None:
        """Make nodes of the steps, each workflow's together and by function_id."""
        known = steps["workflow_id"].isin(self.workflows)
        # SQLite lets anything into a column of numbers; a step without one has no place.
        steps = steps.loc[known & steps["function_id"].notna()]
        steps = steps.sort_values(["workflow_id", "function_id"], kind="stable")
        keys, nodes = step_nodes(steps, wakes)
        starts, ends = spans(steps)
        for place, node in enumerate(nodes):
            wakes_at, end = node.get("wakes_at"), ends[place]
            if wakes_at is not None and end is not None:
                # Whenever its row was completed, a sleep is over when it wakes.
                ends[place] = max(end, round(wakes_at.timestamp() * 1000))
        begun = 0
        for place in range(1, len(keys) + 1):
            owner = keys[begun][0]
            if place == len(keys) or keys[place][0] != owner:
                self.keys_of[owner] = keys[begun:place]
                self.steps_of[owner] = nodes[begun:place]
                self.times_of[owner] = starts[begun:place], ends[begun:place]
                begun = place
        for workflow_id, workflow in self.workflows.items():
            self.nodes[workflow_id] = workflow
            mine = self.steps_of.get(workflow_id, ())
            self.nodes.update(zip(self.keys_of.get(workflow_id, ()), mine, strict=True))
            if workflow["status"] == "PENDING":
                self.nodes[workflow_id, "running"] = running_node(workflow, mine)
        for key, node in zip(keys, nodes, strict=True):
            child = node.get("child_workflow_id")
            if child in self.workflows:
                among = self.awaiters if node["operation"] == "get_result" else self.starters
                among.setdefault(child, []).append(key)

    def find_parents(self, workflows: pd.DataFrame) -> None:
        """Say of each workflow which other started it."""
        named = workflows["parent_workflow_id"]
        for workflow_id, parent in zip(self.workflows, named.tolist(), strict=True):
            starters = self.starters.get(workflow_id, ())
            candidates = [self.nodes[key]["workflow_id"] for key in starters]
            # A fork has the start steps that were copied from its original.
            if isinstance(parent, str) and (parent in candidates or not candidates):
                self.workflows[workflow_id]["parent"] = parent
            elif candidates:
                self.workflows[workflow_id]["parent"] = candidates[0]

    def keep_first_starts(self, workflows: pd.DataFrame, among: Collection[str]) -> None:
        """Of the steps that start these workflows, keep those that can have brought them about.

        That is the first of the parent that the row names, or else of a fork of it, which has the
        copy.
        """
        named = workflows["parent_workflow_id"]
        for workflow_id, parent in zip(self.workflows, named.tolist(), strict=True):
            if workflow_id not in among:
                continue
            workflow = self.workflows[workflow_id]
            workflow.pop("parent", None)
            if not isinstance(parent, str):
                self.starters.pop(workflow_id, None)
                continue
            owned: dict[str, Key] = {}
            for key in self.starters.pop(workflow_id, ()):
                owned.setdefault(self.nodes[key]["workflow_id"], key)
            forks = [one for one in owned if self.workflows[one].get("forked_from") == parent]
            owner = next(iter(forks), parent) if parent not in owned else parent
            workflow["parent"] = owner
            if owner in owned:
                self.starters[workflow_id] = [owned[owner]]

    def connect(
        self, graph: nx.DiGraph[Any], messages: Iterable[Pair], sequential: frozenset[str]
    ) -> None:
        """Give a graph the nodes and edges; ``sequential`` workflows by function_id alone."""
        graph.remove_nodes_from(list(graph))
        graph.add_nodes_from(self.nodes.items())
        edges = _Edges(graph)
        for workflow_id, workflow in self.workflows.items():
            last = self._order(edges, workflow_id, in_order=workflow_id in sequential)
            if workflow["status"] == "PENDING":
                for key in last:
                    kind = edges.first if key == workflow_id else edges.next
                    kind.append((key, (workflow_id, "running")))
            elif workflow["status"] not in _ACTIVE and workflow_id in self.awaiters:
                if len(last) > MANY_LAST:
                    last = [edges.join(workflow_id, last)]
                awaiters = self.awaiters[workflow_id]
                edges.returns.extend((key, awaiter) for key in last for awaiter in awaiters)
            self._reached(edges, workflow_id, workflow)
        edges.write(messages)

    def _order(self, edges: _Edges, workflow_id: str, *, in_order: bool) -> Sequence[Key]:
        """Put a workflow's steps in order; return what comes last, itself if it has no steps."""
        keys = self.keys_of.get(workflow_id, ())
        if not keys:
            return (workflow_id,)
        times = self.times_of[workflow_id]
        if in_order or is_sequence(*times):
            # As in_sequence has it, and twice as fast: most workflows are so.
            edges.next.extend(pairwise(keys))
            edges.first.append((workflow_id, keys[0]))
            return keys[-1:]
        order = in_time(*times)
        if order.joins:
            keys = [*keys, *(edges.new_join(workflow_id) for _ in range(order.joins))]
        edges.next.extend((keys[one], keys[other]) for one, other in order.edges)
        edges.first.extend((workflow_id, keys[place]) for place in order.first)
        return [keys[place] for place in order.last]

    def _reached(self, edges: _Edges, workflow_id: str, workflow: Node) -> None:
        """Connect a workflow with what started it and with what it was forked from."""
        starters = self.starters.get(workflow_id, ())
        edges.starts.extend((key, workflow_id) for key in starters)
        parent = workflow.get("parent")
        if parent in self.workflows and not any(
            self.nodes[key]["workflow_id"] == parent for key in starters
        ):
            # Started outside a step, or the start was not recorded.
            edges.starts.append((parent, workflow_id))
        original = workflow.get("forked_from")
        if original in self.workflows:
            step = self._first_own_step(original, workflow_id)
            edges.forked.append((original, workflow_id, {} if step is None else {"step": step}))

    def _first_own_step(self, original: str, fork: str) -> int | None:
        """Return the step that a fork began at: the first that was not copied, times and all."""
        mine, theirs = self.steps_of.get(fork, ()), self.steps_of.get(original, ())
        same = ("function_id", "name", "started_at", "completed_at")
        copied = 0
        for one, other in zip(mine, theirs, strict=False):
            if any(one.get(name) != other.get(name) for name in same):
                break
            if "started_at" not in one and "child_workflow_id" not in one:
                return None  # without times a copy looks like another run
            copied += 1
        for steps in (mine, theirs):
            if copied < len(steps):
                return int(steps[copied]["function_id"])
        return None


class _Edges:
    """Edges by kind, gathered and then given to the graph."""

    def __init__(self, graph: nx.DiGraph[Any]) -> None:
        self._graph = graph
        self._joins: dict[str, int] = {}
        self.first: list[Pair] = []
        self.next: list[Pair] = []
        self.starts: list[Pair] = []
        self.returns: list[Pair] = []
        self.forked: list[tuple[Key, Key, dict[str, Any]]] = []

    def new_join(self, workflow_id: str) -> Key:
        """Add a join to the graph and return its key."""
        number = self._joins[workflow_id] = self._joins.get(workflow_id, 0) + 1
        key = (workflow_id, f"join {number}")
        self._graph.add_node(key, kind="join", name="join", workflow_id=workflow_id)
        return key

    def join(self, workflow_id: str, before: Sequence[Key]) -> Key:
        """Add a join behind nodes and return its key."""
        key = self.new_join(workflow_id)
        self.next.extend((each, key) for each in before)
        return key

    def write(self, messages: Iterable[Pair]) -> None:
        """Give the graph its edges. Two nodes have one edge; order and start come before others."""
        graph = self._graph
        graph.add_edges_from(self.returns, kind="returns")
        graph.add_edges_from(self.starts, kind="starts")
        graph.add_edges_from(self.next, kind="next")
        graph.add_edges_from(self.first, kind="first")
        others = [(one, other, {"kind": "forked_from", **more}) for one, other, more in self.forked]
        others += [(one, other, {"kind": "message", "inferred": True}) for one, other in messages]
        graph.add_edges_from(edge for edge in others if not graph.has_edge(*edge[:2]))
