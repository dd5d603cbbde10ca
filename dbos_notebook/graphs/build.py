"""Rows of workflows and steps into an execution graph: its nodes and edges, and no drawing."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.graphs.cycles import settle
from dbos_notebook.graphs.failing import mark_failing_path
from dbos_notebook.graphs.messages import message_edges
from dbos_notebook.graphs.order import Order, in_sequence, in_time
from dbos_notebook.payloads import decode

ACTIVE = ("DELAYED", "ENQUEUED", "PENDING")
MANY_LAST = 64
"""A workflow with more last steps than this ends in a join."""

_OPERATIONS = {
    "getresult": "get_result",
    "sleep": "sleep",
    "send": "send",
    "sendbulk": "send",
    "recv": "recv",
    "setevent": "set_event",
    "getevent": "get_event",
    "getevents": "get_event",
    "writestream": "stream",
    "closestream": "stream",
    "readstream": "stream",
    "readstreamoffset": "stream",
}
_WORKFLOW = (
    "name",
    "status",
    "created_at",
    "dequeued_at",
    "completed_at",
    "duration",
    "error_type",
    "error_message",
    "queue_name",
    "app_version",
    "executor_id",
    "forked_from",
)
_STEP = (
    "status",
    "started_at",
    "completed_at",
    "duration",
    "error_type",
    "error_message",
    "child_workflow_id",
)
Edge = tuple[Hashable, Hashable, dict[str, Any]]


def execution_graph(
    workflows: pd.DataFrame,
    steps: pd.DataFrame,
    *,
    root: str | None = None,
    messages: pd.DataFrame | None = None,
    wakes: pd.DataFrame | None = None,
    database: str | None = None,
    read_at: pd.Timestamp | None = None,
) -> nx.DiGraph[Any]:
    """Make the execution graph of workflows and their steps. ``Client.graph`` reads and calls it.

    Parameters
    ----------
    workflows
        Rows as :meth:`Client.tree` gives them, or :meth:`Client.workflows`.
    steps
        Rows as :meth:`Client.steps` gives them; those of other workflows are left out. With the
        stored texts of ``output`` and ``error``, nodes carry their digests, which
        :func:`compare` needs to tell a changed result.
    root
        The workflow that the graph is of; the first row's by default.
    messages
        ``workflow_id``, ``consumed_by_function_id`` and ``created_at`` of messages received.
    wakes
        ``workflow_id``, ``function_id`` and ``wakes_at`` of sleeps.
    database
        Where the rows are from, without a password.
    read_at
        When they were read; now by default.

    Returns
    -------
    networkx.DiGraph
        A directed acyclic graph; docs/graphs.md lists its attributes.

    Raises
    ------
    GraphError
        The rows contradict each other: a workflow is its own ancestor.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> graph = execution_graph(db.tree("checkout-1"), db.steps("checkout-1", children=True))
    >>> graph.nodes["checkout-1", 3]["name"], list(graph.successors(("checkout-1", 3)))
    ('charge', [('checkout-1', 4)])
    """
    ids = workflows["workflow_id"].tolist()
    root = root if root is not None else ids[0] if ids else None
    moment = read_at if read_at is not None else pd.Timestamp.now("UTC").floor("ms")
    graph: nx.DiGraph[Any] = nx.DiGraph(root=root, read_at=moment)
    if database is not None:
        graph.graph["database"] = database
    known = set(ids)
    steps = steps.loc[steps["workflow_id"].isin(known)]
    if not (steps["workflow_id"].is_monotonic_increasing):
        steps = steps.sort_values(["workflow_id", "function_id"], kind="stable")
    keys, step_nodes, groups = _step_nodes(steps, wakes)
    parents = _parents(workflows, step_nodes, known)
    workflow_nodes = _workflow_nodes(workflows, ids, parents)
    nodes: dict[Hashable, dict[str, Any]] = {}
    for workflow_id, attributes in zip(ids, workflow_nodes, strict=True):
        nodes[workflow_id] = attributes
        begun, ended = groups.get(workflow_id, (0, 0))
        nodes.update(zip(keys[begun:ended], step_nodes[begun:ended], strict=True))
    times = _times(step_nodes)
    between = _between(nodes, parents)
    received = message_edges(nodes, messages)

    def edges(sequential: set[str], without: set[Edge_]) -> None:
        graph.clear_edges()
        for workflow_id, attributes in zip(ids, workflow_nodes, strict=True):
            ...

    return graph
