"""Keeping the graph acyclic: whether it is, which workflows a cycle runs through, and the error."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import networkx as nx

from dbos_notebook.errors import GraphError

SHOWN = 5


def knots(graph: nx.DiGraph[Any]) -> list[set[Hashable]]:
    """Return the sets of nodes that lie on cycles; none of a graph that is acyclic."""
    waiting = {node: degree for node, degree in graph.in_degree if degree}
    ready = [node for node in graph if node not in waiting]
    done = len(ready)
    successors = graph.succ
    while ready:
        following = []
        for node in ready:
            for after in successors[node]:
                waiting[after] -= 1
                if not waiting[after]:
                    following.append(after)
        done += len(following)
        ready = following
    if done == len(graph):
        return []
    return [
        part
        for part in nx.strongly_connected_components(graph)
        if len(part) > 1 or graph.has_edge(*(2 * tuple(part)))
    ]


def workflows_of(
    parts: Iterable[Iterable[Hashable]], nodes: Mapping[Hashable, Mapping[str, Any]]
) -> list[str]:
    """Return the IDs of the workflows that these nodes belong to."""
    return sorted({nodes[node]["workflow_id"] for part in parts for node in part})


def refuse(
    parts: Iterable[Iterable[Hashable]], nodes: Mapping[Hashable, Mapping[str, Any]]
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
