"""Export graphs: copies with keys and attributes that JSON, GraphML and GEXF support."""

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
    r"""Return a copy of a graph with string keys and with attributes that any format supports.

    The key of a workflow remains its ID, unless that starts like JSON; every other key becomes a
    JSON array. Times become ISO 8601 strings, durations seconds, and containers JSON strings.
    Missing values are omitted, and characters that XML does not support become ``\ufffd``.

    Parameters
    ----------
    graph
        An execution graph, folded or not, or the graph of a comparison.

    Returns
    -------
    networkx.DiGraph

    Examples
    --------
    >>> import networkx as nx
    >>> graph = to_serializable(dbos_notebook.connect(example_database).graph("checkout-1"))
    >>> restored = nx.node_link_graph(nx.node_link_data(graph, edges="edges"), edges="edges")
    >>> restored.nodes['["checkout-1", 3]']["name"]
    'charge'
    """
    keys = {node: _key(node) for node in graph}
    result: nx.DiGraph[Any] = nx.DiGraph()
    result.graph.update(_attributes(graph.graph))
    result.add_nodes_from((keys[node], _attributes(values)) for node, values in graph.nodes.items())
    result.add_edges_from(
        (keys[tail], keys[head], _attributes(values)) for tail, head, values in graph.edges.data()
    )
    return result


def _key(node: Hashable) -> str:
    if (
        isinstance(node, str)
        and not node.startswith(("[", '"'))
        and node == _replace_unsupported(node)
    ):
        return node
    return json.dumps(node)  # escapes what XML does not support


def _attributes(values: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(name): _value(value)
        for name, value in values.items()
        if not (value is None or value is pd.NaT or value is pd.NA)
    }


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _replace_unsupported(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, pd.Timedelta):
        return value.total_seconds()
    return _replace_unsupported(json.dumps(value, default=str, ensure_ascii=False))


def _replace_unsupported(text: str) -> str:
    """Replace the characters that XML 1.0 does not support."""
    return _UNWRITABLE.sub("\ufffd", text)
