"""The process map: every node of a run is counted once, and its size is that of the program."""

from __future__ import annotations

import time

import big_runs
import networkx as nx
import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.graphs import fold, members, process_map, to_serializable

PROCESS = f"{big_runs.MODULE}.workflows.process_invoice_document"
EXTRACT = f"{big_runs.MODULE}.steps.invoice.extract_text_with_layout_model"


def test_the_kinds_of_a_fan_out_have_their_numbers() -> None:
    graph = big_runs.fan_out(300)
    overview = process_map(graph)
    assert len(overview) == 1 + 3 + 5 * 7
    kind = overview.nodes["workflow", PROCESS]
    assert (kind["count"], kind["statuses"]) == (60, {"ERROR": 5, "SUCCESS": 55})
    assert kind["failure_rate"] == pytest.approx(5 / 60)
    # From dequeuing to the end: 100 ms and more.
    assert kind["duration_min"] == pd.Timedelta("100ms")
    assert kind["duration_min"] <= kind["duration_median"] <= kind["duration_p95"]
    assert kind["duration_p95"] <= kind["duration_max"] < pd.Timedelta("141ms")
    extract = overview.nodes["step", PROCESS, EXTRACT]
    assert (extract["count"], extract["workflows"]) == (60, 60)
    assert extract["error_types"] == {big_runs.UPSTREAM: 3}
    assert list(extract["failed_workflows"]) == [
        key for key, number in extract["members"] if graph.nodes[key, number]["status"] == "ERROR"
    ]
    failed = members(overview, ("workflow", PROCESS), failed=True)
    assert len(failed) == 5
    assert {graph.nodes[key]["status"] for key in failed} == {"ERROR"}


def test_every_node_is_a_member_of_one_kind() -> None:
    graph = big_runs.fan_out(60)
    overview = process_map(graph)
    found = [member for node in overview.nodes.values() for member in node["members"]]
    starts = {key for key, node in graph.nodes.items() if node.get("operation") == "start_child"}
    joins = {key for key, node in graph.nodes.items() if node["kind"] == "join"}
    assert len(found) == len(set(found))
    assert set(found) == set(graph) - starts - joins


def test_edges_are_counted() -> None:
    graph = big_runs.fan_out(300)
    overview = process_map(graph)
    root = f"{big_runs.MODULE}.workflows.nightly_ingestion_fan_out"
    starts = {
        (tail, head): edge["count"]
        for tail, head, edge in overview.edges.data()
        if edge["kind"] == "starts"
    }
    assert set(starts.values()) == {60}
    assert {tail for tail, _ in starts} == {("workflow", root)}
    fetch = f"{big_runs.MODULE}.steps.invoice.fetch_document_from_object_storage"
    assert overview.edges[("step", PROCESS, fetch), ("step", PROCESS, EXTRACT)] == {
        "kind": "next",
        "count": 60,
    }
    loop = process_map(big_runs.loop(100))
    assert {node["name"]: node["count"] for node in loop.nodes.values()} == {
        "paginate": 1, "open": 1, "poll_page": 100, "write_page": 100, "DBOS.setEvent": 1,
    }  # fmt: skip
    assert not nx.is_directed_acyclic_graph(loop)
    nx.node_link_data(to_serializable(overview))


def test_a_workflow_that_starts_itself_is_one_kind() -> None:
    overview = process_map(big_runs.chain(1000))
    assert {key: node["count"] for key, node in overview.nodes.items()} == {
        ("workflow", "recurse"): 1001,
        ("step", "recurse", "work"): 1000,
    }
    assert overview.edges[("workflow", "recurse"), ("workflow", "recurse")]["count"] == 1000


def test_what_runs_now_is_a_kind_of_its_own(shop: dn.Client) -> None:
    waiting = shop.workflows(status="PENDING", limit=1)["workflow_id"].iloc[0]
    overview = process_map(shop.graph(waiting))
    assert "PENDING" in {status for node in overview.nodes.values() for status in node["statuses"]}


def test_a_folded_graph_is_refused() -> None:
    with pytest.raises(dn.GraphError, match="folded"):
        process_map(fold(big_runs.fan_out(60)))


def test_ten_thousand_children_are_counted_in_seconds() -> None:
    graph = big_runs.fan_out(10_000)
    started = time.process_time()
    overview = process_map(graph)
    assert time.process_time() - started < 5
    assert len(overview) == 39
    assert overview.nodes["workflow", PROCESS]["count"] == 2000
