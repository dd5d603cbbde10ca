"""Find similar parts of an execution graph: runs of similar steps, and similar workflows."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import networkx as nx

from dbos_notebook.graphs.attributes import Key, NodeAttributes, nodes_of
from dbos_notebook.graphs.critical_path import failed_step
from dbos_notebook.status import FAILED_STATUSES
from dbos_notebook.text import leaf_name

MAX_PATTERN = 12
"""The maximum number of steps in the body of a loop that is recognized."""
MIN_SPINE_DEPTH = 24
"""From this depth on, a tree has a spine: the path to its deepest workflow."""
Similarity = Literal["exact", "loose", "name", "any"]


class FailureKind(NamedTuple):
    """Why a workflow failed: equal for workflows that failed in the same way.

    ``step`` is the function without its module, so that children of several kinds that failed at
    the same step fail in the same way; ``name`` is the workflow's if no step failed.
    """

    status: str
    step: str | None
    error_type: str
    name: str | None


class RepeatedRun(NamedTuple):
    """Consecutive repeated steps; ``period`` is the length of the repeated pattern."""

    steps: Sequence[Key]
    period: int


@dataclass
class WorkflowTree:
    """An execution graph as a tree: workflows, their steps in order, and their children.

    Attributes
    ----------
    nodes
        The attributes of all nodes.
    steps_of
        The steps of each workflow, in order.
    children_of
        The children of each workflow; under ``None``, the workflows without a parent in the graph.
    starter
        The step that started a workflow.
    root
        The root workflow of the graph.
    merged_parts
        A cache that the levels of folding share.
    causes
        A cache of :meth:`cause`, because the levels of a deep tree have the same one.
    """

    nodes: Mapping[Key, NodeAttributes]
    steps_of: dict[str, list[Key]] = field(default_factory=dict)
    children_of: dict[str | None, list[str]] = field(default_factory=dict)
    starter: dict[str, Key] = field(default_factory=dict)
    root: str | None = None
    merged_parts: dict[Hashable, Any] = field(default_factory=dict)
    causes: dict[str, NodeAttributes | None] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: nx.DiGraph[Any]) -> WorkflowTree:
        """Make the tree of a graph."""
        nodes = nodes_of(graph)
        tree = cls(nodes, root=graph.graph.get("root"))
        for key, node in nodes.items():
            if node["kind"] == "step":
                tree.steps_of.setdefault(node["workflow_id"], []).append(key)
        for node in nodes.values():
            if node["kind"] == "workflow":
                parent = node.get("parent")
                parent_key = parent if parent in nodes else None
                tree.children_of.setdefault(parent_key, []).append(node["workflow_id"])
        for tail, workflow_id, values in graph.edges.data():
            is_start = values["kind"] == "starts" and nodes[tail]["kind"] == "step"
            if is_start and nodes[tail]["workflow_id"] == nodes[workflow_id].get("parent"):
                tree.starter.setdefault(workflow_id, tail)
        return tree

    def failure(self, key: Key) -> str | None:
        """Return the kind of a node's failure; ``None`` if it has not failed."""
        node = self.nodes[key]
        if node["status"] not in FAILED_STATUSES:
            return None
        return f"{node['status']} {node.get('error_type', '')}"

    def cause(self, workflow_id: str) -> NodeAttributes | None:
        """Return the step that made a workflow fail, in it or in the children that it awaited."""
        failed: dict[str, NodeAttributes | None] = {}
        current: str | None = workflow_id
        while current is not None and current not in failed and current not in self.causes:
            steps = [self.nodes[step] for step in self.steps_of.get(current, ())]
            step = failed[current] = failed_step(self.nodes[current], steps)
            current = None if step is None else step.get("child_workflow_id")
            if current not in self.nodes or self.nodes[current]["status"] not in FAILED_STATUSES:
                current = None
        found = None if current is None else self.causes.get(current)
        for level, step in reversed(failed.items()):
            found = self.causes[level] = found or step
        return self.causes[workflow_id]

    def workflow_failure(self, workflow_id: str) -> FailureKind | None:
        """Return how a workflow failed; ``None`` if it has not."""
        node = self.nodes[workflow_id]
        if node["status"] not in FAILED_STATUSES:
            return None
        step = self.cause(workflow_id)
        name = None if step is None else leaf_name(str(step.get("name", "")))
        error = node.get("error_type") if step is None else step.get("error_type")
        return FailureKind(
            node["status"], name, str(error or ""), node.get("name") if name is None else None
        )

    def on_path(self, key: Key) -> bool:
        """Return whether a node is on the failure path, which is always shown."""
        return bool(self.nodes[key].get("on_failing_path"))

    def step_kind(self, key: Key) -> Hashable:
        """Return a value that is equal for similar steps."""
        node = self.nodes[key]
        if "function_id" not in node:
            return ("running",)
        return node.get("name"), node["operation"]

    def runs(self, workflow_id: str, *, shortest: int, patterns: bool) -> Iterator[RepeatedRun]:
        """Split a workflow's steps into runs; a step that is not repeated is a run of one."""
        steps = self.steps_of.get(workflow_id, [])
        # Numbers are compared faster than names.
        numbers: dict[Hashable, int] = {}
        kinds = [numbers.setdefault(self.step_kind(step), len(numbers)) for step in steps]
        longest = MAX_PATTERN if patterns else 1
        known: set[tuple[int, ...]] = set()
        start = 0
        while start < len(steps):
            period, covered = 1, 1
            for length in range(1, min(longest, (len(steps) - start) // 2) + 1):
                if kinds[start] != kinds[start + length]:
                    continue
                end_of_repeats = _repeats(kinds, start, length)
                if end_of_repeats >= max(2 * length, shortest) and end_of_repeats > covered:
                    period, covered = length, end_of_repeats
            # A loop that was interrupted goes on in the middle of its body: what completes the
            # body comes first, so that the loop has the same name as before.
            shift = _shift(kinds[start : start + covered], period, known)
            for step in steps[start : start + shift]:
                yield RepeatedRun([step], 1)
            if shift:
                start, covered = start + shift, _repeats(kinds, start + shift, period)
            known.add(tuple(kinds[start : start + period]))
            yield RepeatedRun(steps[start : start + covered], period)
            start += covered

    @cached_property
    def depth(self) -> dict[str, int]:
        """The number of ancestors of each workflow."""
        depths: dict[str, int] = {}
        level, distance = self.children_of.get(None, []), 0
        while level:
            depths.update(dict.fromkeys(level, distance))
            level = [
                child for workflow_id in level for child in self.children_of.get(workflow_id, ())
            ]
            distance += 1
        return depths

    @cached_property
    def spine(self) -> list[str]:
        """The path from the root to the failure, or to the deepest workflow of a deep tree.

        Empty if there is no failure and the tree is not deep.
        """
        path = [workflow_id for workflow_id in self.depth if self.on_path(workflow_id)]
        if not path and self.depth:
            deepest = max(self.depth, key=self.depth.__getitem__)
            if self.depth[deepest] >= MIN_SPINE_DEPTH:
                parents = {
                    child: parent
                    for parent, children in self.children_of.items()
                    for child in children
                }
                above: str | None = deepest
                while above is not None:
                    path.append(above)
                    above = parents.get(above)
                path.reverse()
        connected = (
            below in self.children_of.get(above, ()) for above, below in itertools.pairwise(path)
        )
        # In a comparison, two runs may have failed on different paths.
        return path if all(connected) else []

    def spine_size(self) -> int:
        """Count the nodes that are drawn for the whole spine."""
        failing = any(map(self.on_path, self.spine))
        steps = (step for workflow_id in self.spine for step in self.steps_of.get(workflow_id, ()))
        return len(self.spine) + sum(self.on_path(step) or not failing for step in steps)

    def level(self, workflow_id: str, following: str | None) -> Iterator[Key]:
        """Yield a workflow and its descendants, without the next workflow of the spine."""
        yield workflow_id
        yield from self.steps_of.get(workflow_id, ())
        for child in self.children_of.get(workflow_id, ()):
            if child != following:
                yield from self.within(child)

    @cached_property
    def _shapes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return numbers that are equal for similar workflows: exactly, and loosely."""
        numbers: dict[Hashable, int] = {}
        exact: dict[str, int] = {}
        loose: dict[str, int] = {}
        for workflow_id in sorted(self.depth, key=self.depth.__getitem__, reverse=True):
            node = self.nodes[workflow_id]
            head = node.get("name"), self.failure(workflow_id)
            steps = [
                (*self.step_kind(step), self.failure(step))  # type: ignore[misc]  # mypy does not know the length
                for step in self.steps_of.get(workflow_id, ())
            ]
            children = self.children_of.get(workflow_id, ())
            exact_shape = (head, tuple(steps), tuple(exact[child] for child in children))
            loose_shape = (head, frozenset(steps), frozenset(loose[child] for child in children))
            exact[workflow_id] = numbers.setdefault(exact_shape, len(numbers))
            loose[workflow_id] = numbers.setdefault(loose_shape, len(numbers))
        return exact, loose

    def shape(self, workflow_id: str, similarity: Similarity) -> Hashable:
        """Return a value that is equal for similar workflows.

        ``exact``: with the same name, failure and contents; ``loose``: with the same kinds of
        contents, repeated any number of times; ``name``: with the same name; ``any``: all.
        """
        if similarity == "any":
            return None
        if similarity == "name":
            return self.nodes[workflow_id].get("name")
        exact, loose = self._shapes
        return (exact if similarity == "exact" else loose)[workflow_id]

    def has_contents(self, workflow_id: str) -> bool:
        """Return whether a workflow has steps or children."""
        return bool(self.steps_of.get(workflow_id) or self.children_of.get(workflow_id))

    def within(self, workflow_id: Key) -> Iterator[Key]:
        """Yield a workflow, its steps, and all its descendants."""
        # In a comparison, not every workflow's key is a string.
        stack: list[Any] = [workflow_id]
        while stack:
            member = stack.pop()
            yield member
            yield from self.steps_of.get(member, ())
            stack.extend(self.children_of.get(member, ()))


def _shift(kinds: Sequence[int], period: int, known: Collection[tuple[int, ...]]) -> int:
    """Return after how many items of a repeated pattern a known pattern begins, or 0."""
    if period == 1 or len(kinds) < 3 * period or tuple(kinds[:period]) in known:
        return 0
    starts = (at for at in range(1, period) if tuple(kinds[at : at + period]) in known)
    return next(starts, 0)


def _repeats(kinds: Sequence[Hashable], start: int, length: int) -> int:
    """Return how many items from ``start`` on are complete repeats of the first ``length``."""
    end = start + length
    while end < len(kinds) and kinds[end] == kinds[end - length]:
        end += 1
    return (end - start) // length * length
