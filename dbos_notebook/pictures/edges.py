"""Edges of a graph by what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx


def of_kind(graph: nx.DiGraph[Any], kind: str) -> list[tuple[Any, Any]]:
    """Return the (tail, head) of each edge of a kind."""
    return [(tail, head) for tail, head, data in graph.edges(data=True) if data.get("kind") == kind]


def tails(graph: nx.DiGraph[Any], head: Any, kind: str) -> list[Any]:
    """Return the nodes from which an edge of a kind leads to a node."""
    return [tail for tail in graph.pred[head] if graph.edges[tail, head].get("kind") == kind]


def heads(graph: nx.DiGraph[Any], tail: Any, kind: str) -> list[Any]:
    """Return the nodes to which an edge of a kind leads from a node."""
    return [head for head in graph.succ[tail] if graph.edges[tail, head].get("kind") == kind]
