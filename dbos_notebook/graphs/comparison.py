"""Compare two runs: a fork and its original, a success and a failure, two versions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.attributes import Key, NodeAttributes
from dbos_notebook.graphs.build import SECOND
from dbos_notebook.graphs.contraction import cycles
from dbos_notebook.graphs.intervals import Runs
from dbos_notebook.graphs.similarity import WorkflowTree
from dbos_notebook.graphs.validation import check_duration, check_fraction, check_graph
from dbos_notebook.status import FAILED_STATUSES

T = TypeVar("T")
MAX_ALIGNED = 1_000_000
"""Sequences with a larger product of lengths are paired by order instead of aligned."""


class Pair(NamedTuple):
    """A node of the first run and the matching node of the second; one may be missing."""

    first: Key | None
    second: Key | None
    depth: int


def pairs(first: WorkflowTree, second: WorkflowTree) -> Iterator[Pair]:
    """Match the nodes of two runs from their roots down: workflows, their steps, their children."""
    # An explicit stack, because trees may be deeper than Python's recursion limit.
    stack: list[Iterator[Pair | tuple[str | None, str | None, int]]] = []
    stack.append(iter([(first.root, second.root, 0)]))
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
        elif isinstance(item, Pair):
            yield item
        else:
            yield Pair(*item)
            stack.append(_within(first, second, *item))


def _within(
    first: WorkflowTree,
    second: WorkflowTree,
    first_id: str | None,
    second_id: str | None,
    depth: int,
) -> Iterator[Pair | tuple[str | None, str | None, int]]:
    """Match the contents of two workflows: steps, each followed by the children it started."""
    first_children, second_children = _children(first, first_id), _children(second, second_id)
    for first_step, second_step in align(_steps(first, first_id), _steps(second, second_id)):
        yield Pair(first_step, second_step, depth + 1)
        # Children under None were not started by a step.
        first_started = first_children.pop(first_step, ()) if first_step is not None else ()
        second_started = second_children.pop(second_step, ()) if second_step is not None else ()
        for first_child, second_child in zip_longest(first_started, second_started):
            yield first_child, second_child, depth + 1
    for first_child, second_child in align(
        _named(first, first_children), _named(second, second_children)
    ):
        yield first_child, second_child, depth + 1


def _steps(tree: WorkflowTree, workflow_id: str | None) -> dict[Key, Hashable]:
    if workflow_id is None:
        return {}
    return {step: tree.step_kind(step) for step in tree.steps_of.get(workflow_id, ())}


def _children(tree: WorkflowTree, workflow_id: str | None) -> dict[Key | None, list[str]]:
    """Return a workflow's children by the step that started them, or by ``None``."""
    children: dict[Key | None, list[str]] = {}
    if workflow_id is not None:
        for child in tree.children_of.get(workflow_id, ()):
            children.setdefault(tree.starter.get(child), []).append(child)
    return children


def _named(tree: WorkflowTree, children: Mapping[Any, Sequence[str]]) -> dict[str, Hashable]:
    remaining = [child for siblings in children.values() for child in siblings]
    return {child: tree.nodes[child].get("name") for child in remaining}


def align(
    first: Mapping[T, Hashable], second: Mapping[T, Hashable]
) -> Iterator[tuple[T | None, T | None]]:
    """Match the similar items of two sequences in order; others have no match.

    Examples
    --------
    >>> list(align({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "new", 3: "b", 4: "c"}))
    [(1, 1), (None, 2), (2, 3), (3, 4)]
    """
    first_items, second_items = list(first), list(second)
    first_kinds, second_kinds = list(first.values()), list(second.values())
    prefix, suffix = 0, 0
    shorter = min(len(first_items), len(second_items))
    while prefix < shorter and first_kinds[prefix] == second_kinds[prefix]:
        prefix += 1
    while suffix < shorter - prefix and first_kinds[-1 - suffix] == second_kinds[-1 - suffix]:
        suffix += 1
    first_end, second_end = len(first_items) - suffix, len(second_items) - suffix
    yield from zip(first_items[:prefix], second_items[:prefix], strict=True)
    yield from _align_middle(
        first_items[prefix:first_end],
        second_items[prefix:second_end],
        first_kinds[prefix:first_end],
        second_kinds[prefix:second_end],
    )
    yield from zip(first_items[first_end:], second_items[second_end:], strict=True)


def _align_middle(
    first_items: Sequence[T],
    second_items: Sequence[T],
    first_kinds: Sequence[Hashable],
    second_kinds: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    if len(first_items) * len(second_items) > MAX_ALIGNED:
        yield from _match_by_count(first_items, second_items, first_kinds, second_kinds)
        return
    first_index = second_index = 0
    matcher = SequenceMatcher(None, first_kinds, second_kinds, autojunk=False)
    for block in matcher.get_matching_blocks():
        yield from ((item, None) for item in first_items[first_index : block.a])
        yield from ((None, item) for item in second_items[second_index : block.b])
        first_index, second_index = block.a + block.size, block.b + block.size
        yield from zip(
            first_items[block.a : first_index], second_items[block.b : second_index], strict=True
        )


def _match_by_count(
    first_items: Sequence[T],
    second_items: Sequence[T],
    first_kinds: Sequence[Hashable],
    second_kinds: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    """Match the n-th item of each kind with the n-th of the same kind."""
    unmatched: dict[Hashable, list[T]] = {}
    for item, kind in zip(reversed(second_items), reversed(second_kinds), strict=True):
        unmatched.setdefault(kind, []).append(item)
    for item, kind in zip(first_items, first_kinds, strict=True):
        yield item, unmatched[kind].pop() if unmatched.get(kind) else None
    remaining = {item for items in unmatched.values() for item in items}
    yield from ((None, item) for item in second_items if item in remaining)


DIFFERENCES = (
    "same",
    "faster",
    "slower",
    "changed result",
    "changed error",
    "repaired",
    "only in first",
    "only in second",
)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The differences between two runs, returned by :func:`compare`.

    Attributes
    ----------
    frame
        One row per workflow and step, with the matching nodes of both runs, from the roots down.
    graph
        Both runs as one graph, whose nodes and edges have a ``difference``.
    results
        Whether results were compared, because both graphs were read with ``load_output=True``.
    """

    frame: pd.DataFrame
    graph: nx.DiGraph[Any]
    results: bool

    @property
    def differences(self) -> pd.DataFrame:
        """The rows that differ."""
        return self.frame.loc[self.frame["difference"] != "same"]

    def __repr__(self) -> str:
        counts = self.frame["difference"].value_counts(sort=False)
        description = ", ".join(
            f"{count} {difference}" for difference, count in counts.items() if count
        )
        roots = f"{self.graph.graph['root']!r} with {self.graph.graph['root_second']!r}"
        note = "" if self.results else "; results were not loaded"
        return f"<Comparison of {roots}: {description}{note}>"


def compare(
    first: nx.DiGraph[Any],
    second: nx.DiGraph[Any],
    *,
    tolerance: float = 0.5,
    at_least: str | pd.Timedelta = "10ms",
) -> Comparison:
    """Compare two runs step by step, including their descendants.

    Steps are matched in order by name, so that a step added by another version of the code has no
    match; children are matched by the steps that started them.

    Parameters
    ----------
    first, second
        Execution graphs, not folded. Results are compared where both were read with
        ``load_output=True``.
    tolerance
        A step is slower if its duration exceeds that of the first run by more than this fraction,
        and faster in the opposite case.
    at_least
        Smaller differences of durations are ignored.

    Returns
    -------
    Comparison
        ``difference`` is the first that applies of "only in first", "only in second", "repaired"
        (failed in the first run and succeeded in the second), "changed error" (an error was added
        or changed), "changed result", "slower", "faster" and "same".

    Raises
    ------
    GraphError
        A graph is folded, is a comparison or has no root, or an argument is invalid.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> good, bad = (db.graph(run, load_output=True) for run in ("checkout-2", "checkout-5-bad"))
    >>> compare(good, bad).frame[["name", "difference"]].values.tolist()[1:4]
    [['DBOS.setEvent', 'same'], ['validate', 'same'], ['charge', 'changed error']]
    """
    check_fraction(tolerance, "tolerance")
    minimum = check_duration(at_least, "at_least")
    trees = []
    for graph in (first, second):
        check_graph(graph)
        if "root_second" in graph.graph:
            raise GraphError("This graph is a comparison. Pass graphs that db.graph(...) returned.")
        tree = WorkflowTree.of(graph)
        if any(node["kind"] == "group" for node in tree.nodes.values()):
            raise GraphError("This graph is folded. Pass graphs that db.graph(...) returned.")
        if tree.root not in tree.nodes:
            raise GraphError(f"The graph has no root: {tree.root!r} is not one of its nodes.")
        trees.append(_with_refined_durations(tree, Runs(graph)))
    first_tree, second_tree = trees
    node_pairs = list(pairs(first_tree, second_tree))
    differences = [
        _difference(
            first_tree.nodes.get(pair.first),
            second_tree.nodes.get(pair.second),
            tolerance,
            minimum,
        )
        for pair in node_pairs
    ]
    results = all("output_digest" in tree.nodes[tree.root] for tree in trees if tree.root)
    graph = _merged(first, second, node_pairs, differences, first_tree, second_tree)
    return Comparison(
        _comparison_frame(first_tree, second_tree, node_pairs, differences), graph, results
    )


def _with_refined_durations(tree: WorkflowTree, runs: Runs) -> WorkflowTree:
    """Return a tree whose workflows last as long as their steps show, as everywhere in views."""
    if not runs.coarse:
        return tree
    nodes = dict(tree.nodes)
    for key, node in nodes.items():
        if node["kind"] == "workflow" and (duration := runs.duration(key)) is not None:
            nodes[key] = {**node, "duration": duration}
            if runs.is_approximate(key):
                nodes[key]["approximate"] = True
    return replace(tree, nodes=nodes)


def _difference(
    first: NodeAttributes | None,
    second: NodeAttributes | None,
    tolerance: float,
    at_least: pd.Timedelta,
) -> str:
    if second is None:
        return "only in first"
    if first is None:
        return "only in second"
    if first["status"] in FAILED_STATUSES and second["status"] == "SUCCESS":
        return "repaired"
    if _error(first) != _error(second):
        return "changed error"
    digests = first.get("output_digest"), second.get("output_digest")
    if first["status"] != second["status"] or (None not in digests and digests[0] != digests[1]):
        return "changed result"
    first_duration, second_duration = first.get("duration"), second.get("duration")
    if first_duration is None or second_duration is None:
        return "same"
    if first.get("approximate") or second.get("approximate"):
        at_least = max(at_least, 2 * SECOND)  # each end of each run is rounded
    if abs(second_duration - first_duration) < at_least:
        return "same"
    # In seconds, because a Timedelta of centuries overflows when multiplied.
    first_seconds, second_seconds = first_duration.total_seconds(), second_duration.total_seconds()
    if second_seconds > first_seconds * (1 + tolerance):
        return "slower"
    return "faster" if first_seconds > second_seconds * (1 + tolerance) else "same"


def _error(node: NodeAttributes) -> tuple[Any, ...] | None:
    if node["status"] not in FAILED_STATUSES:
        return None
    return node["status"], node.get("error_type"), node.get("error_message")


def _comparison_frame(
    first_tree: WorkflowTree,
    second_tree: WorkflowTree,
    node_pairs: Sequence[Pair],
    differences: Sequence[str],
) -> pd.DataFrame:
    """Return the rows of a comparison."""
    # A missing node is an empty dict; None is not a key of nodes.
    first_nodes = [first_tree.nodes.get(pair.first, {}) for pair in node_pairs]
    second_nodes = [second_tree.nodes.get(pair.second, {}) for pair in node_pairs]
    present = [first or second for first, second in zip(first_nodes, second_nodes, strict=True)]
    columns: dict[str, Any] = {
        "depth": pd.Series([pair.depth for pair in node_pairs], dtype="Int64"),
        "kind": pd.Series([node["kind"] for node in present], dtype="str"),
        "name": pd.Series([node.get("name") for node in present], dtype="str"),
        "difference": pd.Series(differences, dtype="str").astype(
            pd.CategoricalDtype(list(DIFFERENCES))
        ),
    }
    sides = (("first", first_nodes), ("second", second_nodes))
    for name, dtype in (
        ("workflow_id", "str"),
        ("function_id", "Int64"),
        ("status", "str"),
        ("error_type", "str"),
        ("duration", "timedelta64[ms]"),
    ):
        for side, nodes in sides:
            values = [node.get(name) for node in nodes]
            columns[f"{name}_{side}"] = pd.Series(values, dtype=dtype)
    columns["duration_difference"] = columns["duration_second"] - columns["duration_first"]
    for side, index in (("first", 0), ("second", 1)):
        keys = np.empty(len(node_pairs), dtype=object)
        for row, pair in enumerate(node_pairs):
            keys[row] = pair[index]  # a tuple would be unpacked
        columns[f"node_{side}"] = pd.Series(
            keys, dtype=object
        )  # strings alone would get the dtype "str"
    return pd.DataFrame(columns)


def _merged(
    first: nx.DiGraph[Any],
    second: nx.DiGraph[Any],
    node_pairs: Sequence[Pair],
    differences: Sequence[str],
    first_tree: WorkflowTree,
    second_tree: WorkflowTree,
) -> nx.DiGraph[Any]:
    """Return both runs as one graph, with the keys of the first run where nodes match."""
    first_keys: dict[Key | None, Key] = {}
    second_keys: dict[Key | None, Key] = {}
    for pair in node_pairs:
        if pair.first is not None:
            first_keys[pair.first] = pair.first
        if pair.second is not None:
            second_keys[pair.second] = (
                _unused_key(pair.second, first) if pair.first is None else pair.first
            )
    for graph, keys in ((first, first_keys), (second, second_keys)):
        for key, node in graph.nodes.items():
            if node["kind"] == "join" and node["workflow_id"] in keys:
                keys[key] = key if graph is first else _unused_key(key, first)
    merged: nx.DiGraph[Any] = nx.DiGraph(**first.graph)
    merged.graph["root_second"] = second.graph["root"]
    for pair, difference in zip(node_pairs, differences, strict=True):
        _add_node(merged, first_tree, second_tree, pair, difference, second_keys)
    for graph, keys in ((first, first_keys), (second, second_keys)):
        for key, node in graph.nodes.items():
            if node["kind"] == "join" and key in keys:
                merged.add_node(keys[key], **{**node, "workflow_id": keys[node["workflow_id"]]})
    first_edges = {
        (first_keys[a], first_keys[b]): values
        for a, b, values in first.edges.data()
        if a in first_keys and b in first_keys
    }
    second_edges = {
        (second_keys[a], second_keys[b]): values
        for a, b, values in second.edges.data()
        if a in second_keys and b in second_keys
    }
    for edge_pair, values in first_edges.items():
        difference = "same" if edge_pair in second_edges else "only in first"
        merged.add_edge(*edge_pair, **{**values, "difference": difference})
    for edge_pair, values in second_edges.items():
        if edge_pair not in first_edges:
            merged.add_edge(*edge_pair, **{**values, "difference": "only in second"})
    for cycle in cycles(merged):
        # Steps that ran in opposite order in the two runs keep the order of the first run.
        inner = [(a, b) for a, b in merged.edges(cycle) if b in cycle]
        merged.remove_edges_from(
            edge for edge in inner if merged.edges[edge]["difference"] == "only in second"
        )
    return merged


def _unused_key(key: Key, taken: nx.DiGraph[Any]) -> Key:
    """Return a key that the first graph does not contain."""
    return ("second", key) if key in taken else key


def _add_node(
    merged: nx.DiGraph[Any],
    first: WorkflowTree,
    second: WorkflowTree,
    pair: Pair,
    difference: str,
    second_keys: Mapping[Key | None, Key],
) -> None:
    if pair.first is not None:
        key, values = pair.first, dict(first.nodes[pair.first])
        values["node_first"] = pair.first
    else:
        key, values = second_keys[pair.second], dict(second.nodes[pair.second])
        for name in ("workflow_id", "parent"):
            if name in values:
                values[name] = second_keys.get(values[name], values[name])
    if pair.second is not None:
        values["node_second"] = pair.second
        if pair.first is not None:
            second_node: Mapping[str, Any] = second.nodes[pair.second]
            for name in ("status", "duration", "approximate", "error_type", "error_message"):
                if name in second_node:
                    values[f"{name}_second"] = second_node[name]
    merged.add_node(key, **values, difference=difference)
