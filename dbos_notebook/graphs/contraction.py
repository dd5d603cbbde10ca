"""Contract groups of nodes into one, and detect cycles."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import networkx as nx

from dbos_notebook.errors import GraphError

Key = Hashable
SHOWN = 5


def topological_order(graph: nx.DiGraph[Any]) -> list[Key]:
    """Return the nodes so that each follows all that lead to it; those on cycles are left out.

    ``networkx.topological_sort`` gives the same, and takes three times as long: it looks at each
    node through views.
    """
    following = dict(graph.adjacency())
    waiting = dict.fromkeys(following, 0)
    for after in following.values():
        for node in after:
            waiting[node] += 1
    order = [node for node, count in waiting.items() if not count]
    for node in order:  # which grows meanwhile
        for after in following[node]:
            waiting[after] -= 1
            if not waiting[after]:
                order.append(after)
    return order


def cycles(graph: nx.DiGraph[Any]) -> list[set[Key]]:
    """Return the sets of nodes that lie on cycles; none of a graph that is acyclic."""
    if len(topological_order(graph)) == len(graph):
        return []
    return [
        part
        for part in nx.strongly_connected_components(graph)
        if len(part) > 1 or graph.has_edge(*(2 * tuple(part)))
    ]


def workflows_of(
    parts: Iterable[Iterable[Key]], nodes: Mapping[Key, Mapping[str, Any]]
) -> list[str]:
    """Return the IDs of the workflows that these nodes belong to."""
    return sorted({nodes[node]["workflow_id"] for part in parts for node in part})


def cycle_error(
    parts: Iterable[Iterable[Key]], nodes: Mapping[Key, Mapping[str, Any]]
) -> GraphError:
    """Make the error that names the workflows of a cycle."""
    found = workflows_of(parts, nodes)
    named = ", ".join(map(repr, found[:SHOWN])) + (", …" if len(found) > SHOWN else "")
    if len(found) == 1:
        what = f"Workflow {named} comes before itself"
    else:
        what = f"Workflows {named} come before one another"
    return GraphError(
        f"{what}: the rows say so (parent_workflow_id, child_workflow_id, forked_from), and DBOS "
        "never writes that. Look at them with db.workflows([...]) and db.steps([...])."
    )


MAX_BRIDGES = 64
"""A node between so many others is not taken out, but stays as a join."""
# Which kind an edge has that stands for several, or for a path.
_RANK = {"next": 0, "first": 1, "message": 2, "forked_from": 3, "returns": 4, "starts": 5}


def remove_nodes(graph: nx.DiGraph[Any], hidden: Collection[Key]) -> nx.DiGraph[Any]:
    """Take nodes out of a graph; what came before one then comes before what came after it."""
    if not hidden:
        return graph
    copy: nx.DiGraph[Any] = graph.copy()
    for key in hidden:
        _bridge(copy, key)
    return copy


def remove_joins(graph: nx.DiGraph[Any]) -> None:
    """Take the joins out of a graph that few enough edges can replace."""
    for key in [key for key, node in graph.nodes.items() if node["kind"] == "join"]:
        _bridge(graph, key)


def _bridge(graph: nx.DiGraph[Any], key: Key) -> None:
    before, after = list(graph.pred[key].items()), list(graph.succ[key].items())
    if len(before) * len(after) > MAX_BRIDGES:
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


def contract(
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
    for place, key in enumerate(topological_order(graph)):
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
