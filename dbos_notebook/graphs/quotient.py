"""Nodes of a graph put together or taken out, so that what precedes what stays true."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import networkx as nx

from dbos_notebook.graphs.cycles import in_order

Key = Hashable
MOST_BRIDGES = 64
"""A node between so many others is not taken out, but stays as a join."""
# Which kind an edge has that stands for several, or for a path.
_RANK = {"next": 0, "first": 1, "message": 2, "forked_from": 3, "returns": 4, "starts": 5}


def without(graph: nx.DiGraph[Any], hidden: Collection[Key]) -> nx.DiGraph[Any]:
    """Take nodes out of a graph; what came before one then comes before what came after it."""
    if not hidden:
        return graph
    copy: nx.DiGraph[Any] = graph.copy()
    for key in hidden:
        _bridge(copy, key)
    return copy


def without_joins(graph: nx.DiGraph[Any]) -> None:
    """Take the joins out of a graph that few enough edges can replace."""
    for key in [key for key, node in graph.nodes.items() if node["kind"] == "join"]:
        _bridge(graph, key)


def _bridge(graph: nx.DiGraph[Any], key: Key) -> None:
    before, after = list(graph.pred[key].items()), list(graph.succ[key].items())
    if len(before) * len(after) > MOST_BRIDGES:
        workflow_id = graph.nodes[key]["workflow_id"]
        graph.nodes[key].clear()
        graph.nodes[key].update(kind="join", name="join", workflow_id=workflow_id)
        return
    graph.remove_node(key)
    for one, here in before:
        for other, there in after:
            kind = max(here["kind"], there["kind"], key=_RANK.__getitem__)
            count = max(here.get("count", 1), there.get("count", 1))
            _add(graph, one, other, kind, count)


def put_together(
    graph: nx.DiGraph[Any], group_of: Mapping[Key, Key], shown: Iterable[tuple[Key, dict[str, Any]]]
) -> nx.DiGraph[Any]:
    """Return the graph whose nodes stand for several of another's.

    An edge stands for all between the members of two nodes, and says how many (``count``). Where
    there are some in both directions (the steps of a loop, put together by name), it runs from
    the one that began earlier, so that the result is acyclic.

    Parameters
    ----------
    graph
        An acyclic graph.
    group_of
        The node that each of its nodes becomes.
    shown
        The result's nodes and their attributes.
    """
    begun: dict[Key, int] = {}
    for place, key in enumerate(in_order(graph)):
        begun.setdefault(group_of[key], place)
    result: nx.DiGraph[Any] = nx.DiGraph(**graph.graph)
    result.add_nodes_from(sorted(shown, key=lambda node: begun[node[0]]))
    for one, other, values in graph.edges.data():
        mine, theirs = group_of[one], group_of[other]
        if mine != theirs and begun[mine] < begun[theirs]:
            _add(result, mine, theirs, values["kind"], values.get("count", 1), values)
    return result


def _add(
    graph: nx.DiGraph[Any],
    one: Key,
    other: Key,
    kind: str,
    count: int,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Add an edge, or count it with the one that is there."""
    if edge := graph.get_edge_data(one, other):
        edge["count"] = edge.get("count", 1) + count
        edge["kind"] = max(edge["kind"], kind, key=_RANK.__getitem__)
    else:
        graph.add_edge(one, other, **{**(values or {}), "kind": kind, "count": count})
