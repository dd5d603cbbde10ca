"""Contract groups of nodes into one, and detect cycles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import networkx as nx

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.attributes import Key, NodeAttributes

MAX_NAMED = 5


def topological_order(graph: nx.DiGraph[Any]) -> list[Key]:
    """Return the nodes in topological order, without those on or after cycles.

    ``networkx.topological_sort`` takes three times as long, because it accesses nodes through
    views.
    """
    successors = dict(graph.adjacency())
    in_degree = dict.fromkeys(successors, 0)
    for targets in successors.values():
        for node in targets:
            in_degree[node] += 1
    order = [node for node, count in in_degree.items() if not count]
    for node in order:  # the list grows during the loop
        for successor in successors[node]:
            in_degree[successor] -= 1
            if not in_degree[successor]:
                order.append(successor)
    return order


def cycles(graph: nx.DiGraph[Any]) -> list[set[Key]]:
    """Return the strongly connected components that contain a cycle."""
    if len(topological_order(graph)) == len(graph):
        return []
    return [
        part
        for part in nx.strongly_connected_components(graph)
        if len(part) > 1 or graph.has_edge(*(2 * tuple(part)))
    ]


def workflows_of(parts: Iterable[Iterable[Key]], nodes: Mapping[Key, NodeAttributes]) -> list[str]:
    """Return the IDs of the workflows of these nodes."""
    return sorted({nodes[node]["workflow_id"] for part in parts for node in part})


def cycle_error(parts: Iterable[Iterable[Key]], nodes: Mapping[Key, NodeAttributes]) -> GraphError:
    """Return the error that names the workflows of cycles."""
    workflow_ids = workflows_of(parts, nodes)
    names = ", ".join(map(repr, workflow_ids[:MAX_NAMED])) + (
        ", …" if len(workflow_ids) > MAX_NAMED else ""
    )
    if len(workflow_ids) == 1:
        subject = f"Workflow {names} precedes itself"
    else:
        subject = f"Workflows {names} precede one another"
    return GraphError(
        f"{subject} in parent_workflow_id, child_workflow_id or forked_from, which DBOS never "
        "writes. See the rows with db.workflows([...]) and db.steps([...])."
    )


MAX_BRIDGES = 64
"""A node with more pairs of neighbors is kept as a join instead of being removed."""
# An edge that stands for several edges or for a path has the kind of highest rank.
_RANK = {"next": 0, "first": 1, "message": 2, "forked_from": 3, "returns": 4, "starts": 5}


def remove_nodes(graph: nx.DiGraph[Any], hidden: Collection[Key]) -> nx.DiGraph[Any]:
    """Remove nodes from a graph, and connect their predecessors with their successors."""
    if not hidden:
        return graph
    copy: nx.DiGraph[Any] = graph.copy()
    for key in hidden:
        _bridge(copy, key)
    return copy


def remove_joins(graph: nx.DiGraph[Any]) -> None:
    """Remove the joins that can be replaced by few edges."""
    for key in [key for key, node in graph.nodes.items() if node["kind"] == "join"]:
        _bridge(graph, key)


def _bridge(graph: nx.DiGraph[Any], key: Key) -> None:
    predecessors, successors = list(graph.pred[key].items()), list(graph.succ[key].items())
    if len(predecessors) * len(successors) > MAX_BRIDGES:
        workflow_id = graph.nodes[key]["workflow_id"]
        graph.nodes[key].clear()
        graph.nodes[key].update(kind="join", name="join", workflow_id=workflow_id)
        return
    graph.remove_node(key)
    for predecessor, incoming in predecessors:
        for successor, outgoing in successors:
            kind = max(incoming["kind"], outgoing["kind"], key=_RANK.__getitem__)
            count = max(incoming.get("count", 1), outgoing.get("count", 1))
            _add(graph, predecessor, successor, kind, count)


def contract(
    graph: nx.DiGraph[Any],
    group_of: Mapping[Key, Key],
    folded_nodes: Iterable[tuple[Key, dict[str, Any]]],
) -> nx.DiGraph[Any]:
    """Contract groups of nodes, and return the resulting acyclic graph.

    An edge stands for all edges between the members of two groups, and has their number as
    ``count``. Where there are edges in both directions, as between steps of a loop grouped by name,
    only those from the group that comes first are kept.

    Parameters
    ----------
    graph
        An acyclic graph.
    group_of
        The new node of each node.
    folded_nodes
        The nodes of the result and their attributes.
    """
    first_index: dict[Key, int] = {}
    for index, key in enumerate(topological_order(graph)):
        first_index.setdefault(group_of[key], index)
    result: nx.DiGraph[Any] = nx.DiGraph(**graph.graph)
    result.add_nodes_from(sorted(folded_nodes, key=lambda node: first_index[node[0]]))
    for tail, head, values in graph.edges.data():
        tail_group, head_group = group_of[tail], group_of[head]
        if tail_group != head_group and first_index[tail_group] < first_index[head_group]:
            _add(result, tail_group, head_group, values["kind"], values.get("count", 1), values)
    return result


def _add(
    graph: nx.DiGraph[Any],
    tail: Key,
    head: Key,
    kind: str,
    count: int,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Add an edge, or add to the count of an existing one."""
    if edge := graph.get_edge_data(tail, head):
        edge["count"] = edge.get("count", 1) + count
        edge["kind"] = max(edge["kind"], kind, key=_RANK.__getitem__)
    else:
        graph.add_edge(tail, head, **{**(values or {}), "kind": kind, "count": count})
