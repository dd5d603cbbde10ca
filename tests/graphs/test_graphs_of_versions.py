"""Graphs of every workflow of every database version: acyclic, complete, and writable."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook import graphs

DATABASES = [
    *(f"{version} {kind}" for version in ("2.0.0", "2.20.0", "3.4.0") for kind in ("sqlite", "pg")),
    "ts-5.3.0 pg",
]


@pytest.fixture(scope="module", params=DATABASES)
def client(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Iterator[dn.Client]:
    version, kind = request.param.split()
    with dn.connect((corpus_sqlite if kind == "sqlite" else corpus_postgres)(version)) as client:
        yield client


@pytest.fixture(scope="module")
def every_graph(client: dn.Client) -> dict[str, nx.DiGraph]:
    ids = client.workflows(limit=None)["workflow_id"]
    assert len(ids) >= 6
    return {one: client.graph(one, forks=True, load_output=True) for one in ids}


def test_every_graph_has_a_topological_order(every_graph: dict[str, nx.DiGraph]) -> None:
    for root, graph in every_graph.items():
        assert type(graph) is nx.DiGraph
        order = list(nx.topological_sort(graph))
        assert len(order) == len(graph)
        assert graph.graph["root"] == root


def test_every_step_is_reached_from_its_workflow(every_graph: dict[str, nx.DiGraph]) -> None:
    for graph in every_graph.values():
        for node, values in graph.nodes.items():
            if values["kind"] != "workflow":
                assert nx.has_path(graph, values["workflow_id"], node)


def test_steps_are_those_of_the_listing(
    client: dn.Client, every_graph: dict[str, nx.DiGraph]
) -> None:
    for root, graph in every_graph.items():
        steps = client.steps(graph.graph["root"], children=True)
        pairs = set(zip(steps["workflow_id"], steps["function_id"], strict=True))
        if len(client.tree(root)) == sum(kind == "workflow" for _, kind in graph.nodes("kind")):
            mine = {
                node
                for node, values in graph.nodes.items()
                if values["kind"] == "step" and "function_id" in values
            }
            assert mine == pairs


def test_children_are_between_their_start_and_result(client: dn.Client) -> None:
    known = set(client.workflows(limit=None)["workflow_id"])
    root, child = ("checkout-1", "checkout-1-4") if "checkout-1" in known else ("ts-1", "ts-1-2")
    graph = client.graph(root)
    kinds = nx.get_edge_attributes(graph, "kind")
    (start,) = (one for (one, other), kind in kinds.items() if (kind, other) == ("starts", child))
    (result,) = (
        other for (one, other), kind in kinds.items() if kind == "returns" and one[0] == child
    )
    assert start[0] == result[0] == root
    assert graph.nodes[start]["operation"] == "start_child"
    assert graph.nodes[result]["operation"] == "get_result"
    assert graph.nodes[child]["parent"] == root
    assert nx.has_path(graph, start, result)
    assert list(client.graph(root, children=False)) == [
        node for node in graph if node == root or node[0] == root
    ]


def test_a_failure_is_followed_from_the_step_to_the_root(client: dn.Client) -> None:
    if "parent-6-bad" not in set(client.workflows(limit=None)["workflow_id"]):
        graph = client.graph("ts-3")
        path = ["ts-3", ("ts-3", 2), ("ts-3", 3), "ts-3-2", ("ts-3-2", 0)]
    else:
        graph = client.graph("parent-6-bad")
        start = ("parent-6-bad", 1)
        path = ["parent-6-bad", start, ("parent-6-bad", 2), "parent-6-bad-1", ("parent-6-bad-1", 3)]
    assert [node for node, on in graph.nodes("on_failing_path") if on] == path
    assert graph.nodes[path[-1]]["status"] == "ERROR"
    assert graph.nodes[path[-1]]["error_type"]


def test_sleeps_have_their_wake_time(client: dn.Client, every_graph: dict[str, nx.DiGraph]) -> None:
    """Seconds in Python and milliseconds in TypeScript; completed as it began in dbos 2.20."""
    seen = 0
    for graph in every_graph.values():
        for node in graph.nodes.values():
            if node.get("operation") == "sleep" and "timeout_of" not in node:
                if "completed_at" in node:
                    assert node["wakes_at"] >= node["completed_at"]
                    assert node["wakes_at"] - node["started_at"] < pd.Timedelta("1min")
                seen += 1
    assert seen >= 2
    if "waits" in every_graph:
        assert every_graph["waits"].nodes["waits", 2]["timeout_of"] == 1


def test_graphs_survive_writing_and_reading(every_graph: dict[str, nx.DiGraph]) -> None:
    for root, graph in every_graph.items():
        flat = graphs.to_serializable(graph)
        assert len(flat) == len(graph)
        text = json.dumps(nx.node_link_data(flat, edges="edges"))
        same(nx.node_link_graph(json.loads(text), edges="edges"), flat)
        buffer = io.BytesIO()
        nx.write_graphml(flat, buffer)
        buffer.seek(0)
        same(nx.read_graphml(buffer), flat)
        values = flat.nodes[root]
        assert pd.Timestamp(values["created_at"]) == graph.nodes[root]["created_at"]
        if "duration" in values:
            assert values["duration"] == graph.nodes[root]["duration"].total_seconds()


def same(one: nx.DiGraph, other: nx.DiGraph) -> None:
    def attributes(values: Any) -> dict[Any, Any]:
        return {key: dict(value) for key, value in values.items()}

    assert attributes(one.nodes) == attributes(other.nodes)
    assert attributes(one.edges) == attributes(other.edges)
    assert {key: value for key, value in one.graph.items() if key in other.graph} == other.graph
