"""Keeping the graph acyclic: whether it is, which workflows a cycle runs through, and the error."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import networkx as nx

from dbos_notebook.errors import GraphError

Key = Hashable
SHOWN = 5


def in_order(graph: nx.DiGraph[Any]) -> list[Key]:
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


def knots(graph: nx.DiGraph[Any]) -> list[set[Key]]:
    """Return the sets of nodes that lie on cycles; none of a graph that is acyclic."""
    if len(in_order(graph)) == len(graph):
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


def refuse(parts: Iterable[Iterable[Key]], nodes: Mapping[Key, Mapping[str, Any]]) -> GraphError:
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
