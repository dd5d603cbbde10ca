"""What functions over graphs do with what they cannot take: an error says the value and the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from sample_rows import frames, step, workflow

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.graphs import execution_graph


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph[Any]:
    """A run of six steps."""
    return execution_graph(*frames([workflow("w")], [step("w", n, n, n + 1) for n in range(6)]))


FUNCTIONS: list[Callable[[Any], object]] = [
    dn.draw,
    graphs.fold,
    graphs.critical_path,
    graphs.self_time,
    lambda graph: graphs.compare(graph, graph),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_that_are_not_graphs_are_refused(
    function: Callable[[Any], object], graph: nx.DiGraph[Any]
) -> None:
    """Passing the ID is the most likely mistake; without a check it would fail when displayed."""
    with pytest.raises(dn.GraphError, match=r"'order-1'\. Pass db\.graph\('order-1'\)"):
        function("order-1")
    with pytest.raises(dn.GraphError, match=r"None\. Pass db\.graph\(workflow_id\)"):
        function(None)
    with pytest.raises(dn.GraphError, match="MultiDiGraph"):
        function(nx.MultiDiGraph(graph))
    with pytest.raises(dn.GraphError, match="serializable copy"):
        function(graphs.to_serializable(graph))


def test_a_folded_graph_is_not_folded_again(graph: nx.DiGraph[Any]) -> None:
    folded = graphs.fold(graph, budget=3)
    with pytest.raises(dn.GraphError, match="folded"):
        graphs.fold(folded, budget=1)
    assert set(graphs.fold(folded, budget=3)) == set(folded)


def test_a_folded_graph_is_drawn_without_further_folding() -> None:
    """A graph that was folded to more nodes than the default is drawn with that many."""
    steps = [step("w", n, n, n + 1, f"step {min(n, 100)}") for n in range(120)]
    folded = graphs.fold(execution_graph(*frames([workflow("w")], steps)), budget=110)
    assert 80 < len(folded) < 110
    assert dn.draw(folded).graph is folded


def test_a_subgraph_can_be_folded() -> None:
    """A networkx subgraph with the steps of a workflow but not the workflow itself."""
    blocks = [step("w", n, n // 40 * 100, n // 40 * 100 + 50) for n in range(80)]
    graph = execution_graph(*frames([workflow("w")], blocks))
    part = graph.subgraph([node for node in graph if node != "w"])
    assert any(node["kind"] == "join" for node in part.nodes.values())
    folded = graphs.fold(part, budget=3)
    assert sum(node.get("count", 0) for _, node in folded.nodes.items()) == 80
    assert nx.is_directed_acyclic_graph(folded)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tolerance": "half"}, "tolerance must be a number that is not negative, not 'half'"),
        ({"tolerance": -1}, "not -1"),
        ({"tolerance": float("nan")}, "not nan"),
        ({"at_least": "ten"}, "at_least must be a duration such as '10ms', not 'ten'"),
        ({"at_least": 10}, "not 10"),
        ({"at_least": None}, "not None"),
    ],
)
def test_invalid_arguments_of_compare_are_refused(
    graph: nx.DiGraph[Any], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(dn.GraphError, match=said):
        graphs.compare(graph, graph, **arguments)


def test_comparing_a_comparison_is_refused(graph: nx.DiGraph[Any]) -> None:
    with pytest.raises(dn.GraphError, match="is a comparison"):
        graphs.compare(graphs.compare(graph, graph).graph, graph)


@pytest.mark.parametrize("name", ["open", "hide"])
def test_open_and_hide_take_strings(graph: nx.DiGraph[Any], name: str) -> None:
    wrong: dict[str, Any] = {name: 3}
    for function in (dn.draw, graphs.fold):
        with pytest.raises(
            dn.GraphError, match=f"{name} must be a string or a list of strings, not 3"
        ):
            function(graph, **wrong)


def test_inconsistent_rows_are_refused() -> None:
    workflows, steps = frames([workflow("w")], [step("w", 1, 0, 1)])
    with pytest.raises(dn.GraphError, match="'x' is not in workflows"):
        execution_graph(workflows, steps, root="x")
    with pytest.raises(dn.GraphError, match="workflows has more than one row for w"):
        execution_graph(pd.concat([workflows] * 2), steps)
    with pytest.raises(dn.GraphError, match="steps has more than one row for w, 1"):
        execution_graph(workflows, pd.concat([steps] * 2))


def test_a_step_with_a_non_numeric_function_id_is_skipped(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    """SQLite stores strings in integer columns; such a row is skipped, others are not."""
    path = corpus_sqlite("3.4.0")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE operation_outputs SET function_id = 'number ' || function_id"
            " WHERE workflow_uuid = 'checkout-1' AND function_id IN (2, 3)"
        )
    with dn.connect(path) as db:
        graph = db.graph("checkout-1")
        assert ("checkout-1", 4) in graph
        assert ("checkout-1", 2) not in graph
        assert len(graphs.to_serializable(graph)) == len(graph)
        assert len(graphs.critical_path(graph))
        assert db.timeline("checkout-1").svg
