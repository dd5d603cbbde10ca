"""A graph of plain values: what survives being written as JSON, GraphML or GEXF and read again."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_serializable(graph: nx.DiGraph[Any]) -> nx.DiGraph[Any]:
    r"""Copy a graph with texts as node keys, and attributes that any format can hold.

    A workflow's key stays its ID, unless that begins as JSON does; every other key becomes a
    JSON array. Instants become ISO 8601 texts, durations seconds, containers JSON texts; what is
    missing is left out, and characters that XML cannot hold become ``\ufffd`` in attributes.

    Parameters
    ----------
    graph
        An execution graph, folded or not, or a comparison's.

    Returns
    -------
    networkx.DiGraph

    Examples
    --------
    >>> import networkx as nx
    >>> graph = to_serializable(dbos_notebook.connect(example_database).graph("checkout-1"))
    >>> again = nx.node_link_graph(nx.node_link_data(graph, edges="edges"), edges="edges")
    >>> again.nodes['["checkout-1", 3]']["name"]
    'charge'
    """
    keys = {node: _key(node) for node in graph}
    copy: nx.DiGraph[Any] = nx.DiGraph()
    copy.graph.update(_attributes(graph.graph))
    copy.add_nodes_from((keys[node], _attributes(values)) for node, values in graph.nodes.items())
    copy.add_edges_from(
        (keys[one], keys[other], _attributes(values)) for one, other, values in graph.edges.data()
    )
    return copy


def _key(node: Hashable) -> str:
    if isinstance(node, str) and not node.startswith(("[", '"')) and node == _legible(node):
        return node
    return json.dumps(node)  # which escapes what XML cannot hold


def _attributes(values: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(name): _value(value)
        for name, value in values.items()
        if not (value is None or value is pd.NaT or value is pd.NA)
    }


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _legible(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, pd.Timedelta):
        return value.total_seconds()
    return _legible(json.dumps(value, default=str, ensure_ascii=False))


def _legible(text: str) -> str:
    """Replace what XML 1.0 has no way to write."""
    return _UNWRITABLE.sub("\ufffd", text)
