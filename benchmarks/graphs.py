"""Execution graphs: building relative to a DBOSClient loop and bare networkx, and folding."""

from __future__ import annotations

from typing import Any

import networkx as nx
from dbos import DBOSClient

import dbos_notebook as dn
from benchmarks.measure import Measurement, Report, milliseconds, seconds
from dbos_notebook import graphs


def _baseline_graph(client: DBOSClient, root: str) -> nx.DiGraph[Any]:
    """Build the nodes and the edges to children with two calls per workflow."""
    graph: nx.DiGraph[Any] = nx.DiGraph()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        (status,) = client.list_workflows(workflow_ids=[one], load_input=False, load_output=False)
        graph.add_node(one, kind="workflow", name=status.name, status=status.status)
        before: Any = one
        for step in client.list_workflow_steps(one, load_output=False):
            key = (one, step["function_id"])
            graph.add_node(key, kind="step", name=step["function_name"])
            graph.add_edge(before, key)
            before = key
            child = step["child_workflow_id"]
            if child and step["function_name"] != "DBOS.getResult":
                graph.add_edge(key, child)
                waiting.append(child)
    return graph


def measure_graphs(report: Report, url: str, root: str) -> None:
    """Build the graph of the tree and fold it."""
    client = DBOSClient(system_database_url=url)
    with dn.connect(url, statement_timeout=None) as db:
        graph = db.graph(root)
        nodes, edges = list(graph.nodes.items()), list(graph.edges.data())

        def bare() -> nx.DiGraph[Any]:
            copy: nx.DiGraph[Any] = nx.DiGraph()
            copy.add_nodes_from(nodes)
            copy.add_edges_from(edges)
            return copy

        baseline = _baseline_graph(client, root)
        # Our graph has an extra node for each running workflow.
        assert set(baseline) <= set(graph), "the two do not see the same nodes"
        took = seconds({"ours": lambda: db.graph(root), "bare": bare}, 5)
        slow = seconds({"client": lambda: _baseline_graph(client, root)}, 1)["client"]
        size = f"{len(graph):,} nodes"
        ours = took["ours"]
        bound = 1.5 if len(graph) > 20_000 else 0.5
        report.add(
            Measurement(
                "An execution graph, against DBOSClient's loop",
                size,
                milliseconds(ours),
                milliseconds(slow),
                f"{slow / ours:.0f} ×",
                f"≤ {bound:g} s",
                ours <= bound,
            )
        )
        report.add(
            Measurement(
                "An execution graph, against adding its nodes and edges bare to networkx",
                size,
                milliseconds(ours),
                milliseconds(took["bare"]),
                f"{ours / took['bare']:.1f} × the time",
            )
        )
        folded = graphs.fold(graph)
        fold = seconds({"fold": lambda: graphs.fold(graph)}, 5)["fold"]
        path = seconds({"path": lambda: graphs.critical_path(graph)}, 5)["path"]
        report.add(
            Measurement(
                f"graphs.fold, to {len(folded)} nodes",
                size,
                milliseconds(fold),
                "",
                "",
                "≤ 1 s",
                fold <= 1,
            )
        )
        report.add(Measurement("graphs.critical_path", size, milliseconds(path), "", ""))
    client.destroy()
