"""Compare two runs: a fork and its original, a success and a failure, two versions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.contraction import cycles
from dbos_notebook.graphs.similarity import Key, WorkflowTree
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
    waiting: list[Iterator[Pair | tuple[str | None, str | None, int]]] = []
    waiting.append(iter([(first.root, second.root, 0)]))
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif isinstance(found, Pair):
            yield found
        else:
            yield Pair(*found)
            waiting.append(_within(first, second, *found))


def _within(
    first: WorkflowTree,
    second: WorkflowTree,
    one: str | None,
    other: str | None,
    depth: int,
) -> Iterator[Pair | tuple[str | None, str | None, int]]:
    """Match the contents of two workflows: steps, each followed by the children it started."""
    mine, theirs = _children(first, one), _children(second, other)
    for step, match in align(_steps(first, one), _steps(second, other)):
        yield Pair(step, match, depth + 1)
        # Children under None were not started by a step, so also not by an unmatched one.
        started = mine.pop(step, ()) if step is not None else ()
        others = theirs.pop(match, ()) if match is not None else ()
        for child, twin in zip_longest(started, others):
            yield child, twin, depth + 1
    for child, twin in align(_named(first, mine), _named(second, theirs)):
        yield child, twin, depth + 1


def _steps(source: WorkflowTree, workflow_id: str | None) -> dict[Key, Hashable]:
    if workflow_id is None:
        return {}
    return {step: source.step_kind(step) for step in source.steps_of.get(workflow_id, ())}


def _children(source: WorkflowTree, workflow_id: str | None) -> dict[Key | None, list[str]]:
    """Return a workflow's children by the step that started them, or by ``None``."""
    found: dict[Key | None, list[str]] = {}
    if workflow_id is not None:
        for child in source.children_of.get(workflow_id, ()):
            found.setdefault(source.starter.get(child), []).append(child)
    return found


def _named(source: WorkflowTree, children: Mapping[Any, Sequence[str]]) -> dict[str, Hashable]:
    left = [child for some in children.values() for child in some]
    return {child: source.nodes[child].get("name") for child in left}


def align(
    first: Mapping[T, Hashable], second: Mapping[T, Hashable]
) -> Iterator[tuple[T | None, T | None]]:
    """Match the similar items of two sequences in order; others have no match.

    Examples
    --------
    >>> list(align({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "new", 3: "b", 4: "c"}))
    [(1, 1), (None, 2), (2, 3), (3, 4)]
    """
    ones, others = list(first), list(second)
    likes, theirs = list(first.values()), list(second.values())
    begun, ended = 0, 0
    shorter = min(len(ones), len(others))
    while begun < shorter and likes[begun] == theirs[begun]:
        begun += 1
    while ended < shorter - begun and likes[-1 - ended] == theirs[-1 - ended]:
        ended += 1
    yield from zip(ones[:begun], others[:begun], strict=True)
    middle = slice(begun, len(ones) - ended), slice(begun, len(others) - ended)
    yield from _align_middle(
        ones[middle[0]], others[middle[1]], likes[middle[0]], theirs[middle[1]]
    )
    yield from zip(ones[len(ones) - ended :], others[len(others) - ended :], strict=True)


def _align_middle(
    ones: Sequence[T],
    others: Sequence[T],
    likes: Sequence[Hashable],
    theirs: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    if len(ones) * len(others) > MAX_ALIGNED:
        yield from _match_by_count(ones, others, likes, theirs)
        return
    place = other = 0
    matcher = SequenceMatcher(None, likes, theirs, autojunk=False)
    for match in matcher.get_matching_blocks():
        yield from ((one, None) for one in ones[place : match.a])
        yield from ((None, one) for one in others[other : match.b])
        place, other = match.a + match.size, match.b + match.size
        yield from zip(ones[match.a : place], others[match.b : other], strict=True)


def _match_by_count(
    ones: Sequence[T],
    others: Sequence[T],
    likes: Sequence[Hashable],
    theirs: Sequence[Hashable],
) -> Iterator[tuple[T | None, T | None]]:
    """Match the n-th item of each kind with the n-th of the same kind."""
    waiting: dict[Hashable, list[T]] = {}
    for one, like in zip(reversed(others), reversed(theirs), strict=True):
        waiting.setdefault(like, []).append(one)
    for one, like in zip(ones, likes, strict=True):
        yield one, waiting[like].pop() if waiting.get(like) else None
    left = {one for some in waiting.values() for one in some}
    yield from ((None, one) for one in others if one in left)


DIFFERENCES = (
    "same",
    "faster",
    "slower",
    "changed result",
    "changed error",
    "only in first",
    "only in second",
)
Node = Mapping[str, Any]


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
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        roots = f"{self.graph.graph['root']!r} with {self.graph.graph['root_second']!r}"
        unread = "" if self.results else "; results were not loaded"
        return f"<Comparison of {roots}: {said}{unread}>"


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
        ``difference`` is the first that applies of "only in first", "only in second", "changed
        error" (an error was added, removed or changed), "changed result", "slower", "faster" and
        "same".

    Raises
    ------
    GraphError
        A graph is folded, is a comparison or has no root, or an argument is invalid.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> good, bad = (db.graph(each, load_output=True) for each in ("checkout-2", "checkout-5-bad"))
    >>> compare(good, bad).frame[["name", "difference"]].values.tolist()[1:4]
    [['DBOS.setEvent', 'same'], ['validate', 'same'], ['charge', 'changed error']]
    """
    check_fraction(tolerance, "tolerance")
    smallest = check_duration(at_least, "at_least")
    sources = []
    for graph in (first, second):
        check_graph(graph)
        if "root_second" in graph.graph:
            raise GraphError("This graph is a comparison. Pass graphs that db.graph(...) returned.")
        source = WorkflowTree.of(graph)
        if any(node["kind"] == "group" for node in source.nodes.values()):
            raise GraphError("This graph is folded. Pass graphs that db.graph(...) returned.")
        if source.root not in source.nodes:
            raise GraphError(f"The graph has no root: {source.root!r} is not one of its nodes.")
        sources.append(source)
    one, other = sources
    found = list(pairs(one, other))
    words = [
        _difference(
            one.nodes[pair.first] if pair.first is not None else None,
            other.nodes[pair.second] if pair.second is not None else None,
            tolerance,
            smallest,
        )
        for pair in found
    ]
    results = all("output_digest" in source.nodes[source.root] for source in sources if source.root)
    graph = _merged(first, second, found, words)
    return Comparison(_comparison_frame(one, other, found, words), graph, results)


def _difference(
    one: Node | None, other: Node | None, tolerance: float, at_least: pd.Timedelta
) -> str:
    if other is None:
        return "only in first"
    if one is None:
        return "only in second"
    if _error(one) != _error(other):
        return "changed error"
    digests = one.get("output_digest"), other.get("output_digest")
    if one["status"] != other["status"] or (None not in digests and digests[0] != digests[1]):
        return "changed result"
    before, after = one.get("duration"), other.get("duration")
    if before is None or after is None or abs(after - before) < at_least:
        return "same"
    # In seconds, because a Timedelta of centuries overflows when multiplied.
    took, takes = before.total_seconds(), after.total_seconds()
    if takes > took * (1 + tolerance):
        return "slower"
    return "faster" if took > takes * (1 + tolerance) else "same"


def _error(node: Node) -> tuple[Any, ...] | None:
    if node["status"] not in FAILED_STATUSES:
        return None
    return node["status"], node.get("error_type"), node.get("error_message")


def _comparison_frame(
    one: WorkflowTree, other: WorkflowTree, found: Sequence[Pair], words: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of a comparison."""
    absent: Node = {}
    firsts = [absent if pair.first is None else one.nodes[pair.first] for pair in found]
    seconds = [absent if pair.second is None else other.nodes[pair.second] for pair in found]
    known = [mine or theirs for mine, theirs in zip(firsts, seconds, strict=True)]
    columns: dict[str, Any] = {
        "depth": pd.Series([pair.depth for pair in found], dtype="Int64"),
        "kind": pd.Series([node["kind"] for node in known], dtype="str"),
        "name": pd.Series([node.get("name") for node in known], dtype="str"),
        "difference": pd.Series(words, dtype="str").astype(pd.CategoricalDtype(list(DIFFERENCES))),
    }
    sides = (("first", firsts), ("second", seconds))
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
    for side, place in (("first", 0), ("second", 1)):
        keys = np.empty(len(found), dtype=object)
        for row, pair in enumerate(found):
            keys[row] = pair[place]  # a tuple would be unpacked
        columns[f"node_{side}"] = pd.Series(
            keys, dtype=object
        )  # strings alone would get the dtype "str"
    return pd.DataFrame(columns)


def _merged(
    first: nx.DiGraph[Any], second: nx.DiGraph[Any], found: Sequence[Pair], words: Sequence[str]
) -> nx.DiGraph[Any]:
    """Return both runs as one graph, with the keys of the first run where nodes match."""
    mine: dict[Key | None, Key] = {}
    theirs: dict[Key | None, Key] = {}
    for pair in found:
        if pair.first is not None:
            mine[pair.first] = pair.first
        if pair.second is not None:
            theirs[pair.second] = (
                _unused_key(pair.second, first) if pair.first is None else pair.first
            )
    for graph, keys in ((first, mine), (second, theirs)):
        for key, node in graph.nodes.items():
            if node["kind"] == "join" and node["workflow_id"] in keys:
                keys[key] = key if graph is first else _unused_key(key, first)
    merged: nx.DiGraph[Any] = nx.DiGraph(**first.graph)
    merged.graph["root_second"] = second.graph["root"]
    for pair, word in zip(found, words, strict=True):
        _add_node(merged, first, second, pair, word, theirs)
    for graph, keys in ((first, mine), (second, theirs)):
        for key, node in graph.nodes.items():
            if node["kind"] == "join" and key in keys:
                merged.add_node(keys[key], **{**node, "workflow_id": keys[node["workflow_id"]]})
    edges = {
        (mine[a], mine[b]): values for a, b, values in first.edges.data() if a in mine and b in mine
    }
    added = {
        (theirs[a], theirs[b]): values
        for a, b, values in second.edges.data()
        if a in theirs and b in theirs
    }
    for pair_of, values in edges.items():
        word = "same" if pair_of in added else "only in first"
        merged.add_edge(*pair_of, **{**values, "difference": word})
    for pair_of, values in added.items():
        if pair_of not in edges:
            merged.add_edge(*pair_of, **{**values, "difference": "only in second"})
    for cycle in cycles(merged):
        # Steps that ran in opposite orders in the two runs: the order of the first is kept.
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
    first: nx.DiGraph[Any],
    second: nx.DiGraph[Any],
    pair: Pair,
    word: str,
    theirs: Mapping[Key | None, Key],
) -> None:
    if pair.first is not None:
        key, values = pair.first, dict(first.nodes[pair.first])
        values["node_first"] = pair.first
    else:
        key, values = theirs[pair.second], dict(second.nodes[pair.second])
        for name in ("workflow_id", "parent"):
            if name in values:
                values[name] = theirs.get(values[name], values[name])
    if pair.second is not None:
        values["node_second"] = pair.second
        if pair.first is not None:
            other = second.nodes[pair.second]
            for name in ("status", "duration", "error_type", "error_message"):
                if name in other:
                    values[f"{name}_second"] = other[name]
    merged.add_node(key, **values, difference=word)
