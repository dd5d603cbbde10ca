"""The process map of a run: one node per kind of workflow and kind of step, with its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import networkx as nx
import numpy as np
import pandas as pd

from dbos_notebook.errors import GraphError
from dbos_notebook.graphs.attributes import (
    AggregateAttributes,
    Key,
    NodeAttributes,
    nodes_of,
)
from dbos_notebook.graphs.build import garbage_collection_paused
from dbos_notebook.graphs.folding import failed_workflows
from dbos_notebook.graphs.intervals import Runs
from dbos_notebook.graphs.validation import check_graph, is_folded
from dbos_notebook.status import FAILED_STATUSES, STATUSES_BY_SEVERITY, severity_rank


def process_map(graph: nx.DiGraph[Any]) -> nx.DiGraph[Any]:
    """Return the process map of a run: an overview whose size does not depend on the run's.

    All workflows with the same name become one node, and so do all steps with the same name in
    them. The steps that start children are not nodes: an edge leads to the children's node. Nor is
    the timeout of a ``recv`` or ``get_event``, which DBOS records as a sleep.

    Parameters
    ----------
    graph
        An execution graph, not folded.

    Returns
    -------
    networkx.DiGraph
        With the key ``("workflow", name)`` or ``("step", workflow_name, name)`` for each node, and
        ``("running", workflow_name)`` for what PENDING workflows do now, in the order in which they
        first ran; docs/graphs.md lists their attributes. It may have cycles: a loop is one.
        ``draw`` draws it.

    Raises
    ------
    GraphError
        The graph is folded.

    Examples
    --------
    >>> graph = process_map(dbos_notebook.connect(example_database).graph("checkout-4"))
    >>> {key: node["count"] for key, node in graph.nodes.items() if node["of"] == "workflow"}
    {('workflow', 'checkout'): 1, ('workflow', 'ship'): 1, ('workflow', 'pack'): 1}
    >>> graph.edges[("workflow", "checkout"), ("workflow", "ship")]["count"]
    1
    """
    check_graph(graph)
    if is_folded(graph):
        raise GraphError("This graph is folded. Pass the graph that db.graph(...) returned.")
    with garbage_collection_paused():
        nodes = nodes_of(graph)
        kind_of = _kinds(nodes)
        members: dict[Key, list[Key]] = {}
        for key, node_kind in kind_of.items():
            if not _is_passed(nodes[key]):
                members.setdefault(node_kind, []).append(key)
        result: nx.DiGraph[Any] = nx.DiGraph(**graph.graph, process_map=True)
        runs = Runs(graph)
        for node_kind, keys in members.items():
            result.add_node(node_kind, **_attributes(node_kind, keys, nodes, runs))
        for (tail, head), edge in _edges(graph, nodes, kind_of).items():
            if tail in result and head in result:
                result.add_edge(tail, head, **edge)
    return result


def _kinds(nodes: Mapping[Key, NodeAttributes]) -> dict[Key, Key]:
    """Return the key of the kind of each workflow and step."""
    kinds: dict[Key, Key] = {}
    for key, node in nodes.items():
        if node["kind"] == "workflow":
            kinds[key] = ("workflow", node.get("name", ""))
        elif node["kind"] == "step":
            owner = nodes.get(node["workflow_id"])
            workflow_name = "" if owner is None else owner.get("name", "")
            if "function_id" in node:
                kinds[key] = ("step", workflow_name, node.get("name", ""))
            else:
                kinds[key] = ("running", workflow_name)
    return kinds


def _attributes(
    node_kind: Key, keys: Sequence[Key], nodes: Mapping[Key, NodeAttributes], runs: Runs
) -> AggregateAttributes:
    members = [nodes[key] for key in keys]
    statuses = Counter(node["status"] for node in members)
    is_workflow = members[0]["kind"] == "workflow"
    failed = failed_workflows(members)
    failures = sum(count for status, count in statuses.items() if status in FAILED_STATUSES)
    attributes: AggregateAttributes = {
        "kind": "aggregate",
        "of": "workflow" if is_workflow else "step",
        "name": str(members[0].get("name", "")),
        "workflow_name": str(cast("tuple[str, ...]", node_kind)[1]),
        "members": tuple(keys),
        "count": len(keys),
        "workflows": len({node["workflow_id"] for node in members}),
        "statuses": {
            status: statuses[status] for status in STATUSES_BY_SEVERITY if status in statuses
        }
        | {name: count for name, count in statuses.items() if name not in STATUSES_BY_SEVERITY},
        "status": min(statuses, key=severity_rank),
        "failure_rate": failures / len(keys),
        "error_types": dict(
            Counter(
                node["error_type"]
                for node in members
                if node["status"] in FAILED_STATUSES and "error_type" in node
            ).most_common()
        ),
    }
    if failed:
        attributes["failed_workflows"] = failed
    if not is_workflow:
        attributes["operation"] = members[0]["operation"]
    if any(node.get("on_failing_path") for node in members):
        attributes["on_failing_path"] = True
    durations = (
        [
            run.ended - run.started
            for key in keys
            if (run := runs.run(key)) and run.started is not None and not run.start_erased
        ]
        if is_workflow
        else [node["duration"].total_seconds() * 1000 for node in members if "duration" in node]
    )
    if durations:
        values = np.array(durations, dtype=float)
        low, median, p95, high = np.percentile(values, (0, 50, 95, 100)).tolist()
        attributes["duration_min"] = _timedelta(low)
        attributes["duration_median"] = _timedelta(median)
        attributes["duration_p95"] = _timedelta(p95)
        attributes["duration_max"] = _timedelta(high)
        attributes["duration_total"] = _timedelta(float(values.sum()))
    if starts := [node["started_at"] for node in members if "started_at" in node]:
        attributes["started_at"] = min(starts)
    return attributes


def _timedelta(milliseconds: float) -> pd.Timedelta:
    return pd.Timedelta(round(milliseconds), unit="ms").as_unit("ms")


def _edges(
    graph: nx.DiGraph[Any], nodes: Mapping[Key, NodeAttributes], kind_of: Mapping[Key, Key]
) -> dict[tuple[Key, Key], dict[str, Any]]:
    """Count the edges between kinds.

    An edge to a step that is no node, because it starts a child or is a timeout, leads to what
    follows that step. Past a join, a step counts once for each kind of step before it.
    """
    edges: dict[tuple[Key, Key], dict[str, Any]] = {}

    def add(tail: Key, head: Key, kind: str) -> None:
        edge = edges.setdefault((tail, head), {"kind": kind, "count": 0})
        edge["count"] += 1

    for tail, followers in graph.adjacency():
        if tail not in kind_of:
            for kind, heads in _past_join(graph, tail, kind_of).items():
                for head in heads:
                    add(kind, kind_of[head], "next")
            continue
        for head, values in followers.items():
            kind = values["kind"]
            if kind == "starts":
                # The parent's node stands for the steps that start children.
                owner = nodes[tail]["workflow_id"]
                add(kind_of.get(owner, kind_of[tail]), kind_of[head], kind)
            elif kind not in _ORDER and head in kind_of and not _is_passed(nodes[tail]):
                add(kind_of[tail], kind_of[head], kind)
        if not _is_passed(nodes[tail]):
            kind = "first" if nodes[tail]["kind"] == "workflow" else "next"
            for head in _next_nodes(graph, tail):
                if head in kind_of:
                    add(kind_of[tail], kind_of[head], kind)
    return edges


_ORDER = ("first", "next")


def _next_nodes(graph: nx.DiGraph[Any], tail: Key) -> list[Key]:
    """Return what comes next, past the steps that are no nodes."""
    found: dict[Key, None] = {}
    passed = [tail]
    for key in passed:  # the list grows during the loop
        # What follows the end of a timeout and of what it belongs to comes next of the latter only.
        node = graph.nodes[key]
        awaiting = (node["workflow_id"], node["timeout_of"]) if "timeout_of" in node else None
        later = set(graph.adj.get(awaiting, ()))
        for head, values in graph.adj[key].items():
            if values["kind"] in _ORDER and head not in found and head not in later:
                found[head] = None
                if _is_passed(graph.nodes[head]):
                    passed.append(head)
    return [head for head in found if not _is_passed(graph.nodes[head])]


def _past_join(
    graph: nx.DiGraph[Any], join: Key, kind_of: Mapping[Key, Key]
) -> dict[Key, list[Key]]:
    """Return the steps that follow a join, by each kind of step that precedes it."""
    heads = [head for head in _next_nodes(graph, join) if head in kind_of]
    tails: list[Key] = []
    for key in graph.pred[join]:
        # A previous join stands for the steps before it that also precede this one.
        tails.extend([key] if key in kind_of else graph.pred[key])
    kinds = {kind_of[key] for key in tails if key in kind_of and not _is_passed(graph.nodes[key])}
    return dict.fromkeys(kinds, heads)


def _is_passed(node: Mapping[str, Any]) -> bool:
    return node.get("operation") == "start_child" or "timeout_of" in node
