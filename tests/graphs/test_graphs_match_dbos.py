"""Graphs of every workflow, against what loops over DBOSClient say of the same database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx
import pytest
from dbos import DBOSClient

import dbos_notebook as dn


@pytest.fixture(params=["old_sqlite", "old_postgres", "shop_sqlite", "shop_postgres"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[dn.Client, DBOSClient]]:
    where = request.getfixturevalue(request.param)
    url = where if isinstance(where, str) else f"sqlite:///{where}"
    theirs = DBOSClient(system_database_url=url)
    with dn.connect(where) as ours:
        yield ours, theirs
    theirs.destroy()


class Theirs:
    """All workflows and steps as DBOSClient gives them."""

    def __init__(self, client: DBOSClient) -> None:
        self.workflows = {
            one.workflow_id: one
            for one in client.list_workflows(load_input=False, load_output=False)
        }
        self.steps = {
            one: client.list_workflow_steps(one, load_output=False) for one in self.workflows
        }

    def below(self, root: str) -> set[str]:
        found, level = {root}, [root]
        while level:
            children = {
                step["child_workflow_id"]
                for one in level
                for step in self.steps[one]
                if step["child_workflow_id"] and step["function_name"] != "DBOS.getResult"
            }
            children |= {
                one.workflow_id
                for one in self.workflows.values()
                if one.parent_workflow_id in level
            }
            level = [child for child in children if child in self.workflows and child not in found]
            found |= set(level)
        return found

    def inner(self, workflow_id: str) -> nx.DiGraph:
        """Return the steps of a workflow, each before those that began after it was completed."""
        steps = self.steps[workflow_id]
        before = nx.DiGraph()
        before.add_nodes_from(step["function_id"] for step in steps)
        for one in steps:
            for other in steps:
                ended = one["completed_at_epoch_ms"], one["function_id"]
                if one is not other and ended < (
                    other["started_at_epoch_ms"],
                    other["function_id"],
                ):
                    before.add_edge(one["function_id"], other["function_id"])
        return nx.transitive_reduction(before)

    def graph(self, root: str) -> nx.DiGraph:
        whole = nx.DiGraph()
        known = self.below(root)
        for one in known:
            status = self.workflows[one]
            whole.add_node(one, kind="workflow", name=status.name, status=status.status)
            inner = self.inner(one)
            for step in self.steps[one]:
                key = (one, step["function_id"])
                whole.add_node(key, kind="step", name=step["function_name"])
                child = step["child_workflow_id"]
                if child in known and step["function_name"] != "DBOS.getResult":
                    whole.add_edge(key, child, kind="starts")
                elif child in known:
                    ends = [each for each, out in self.inner(child).out_degree if not out]
                    for each in ends:
                        whole.add_edge((child, each), key, kind="returns")
                    if not ends:
                        whole.add_edge(child, key, kind="returns")
                if not inner.in_degree(step["function_id"]):
                    whole.add_edge(one, key, kind="first")
            whole.add_edges_from((((one, a), (one, b)) for a, b in inner.edges), kind="next")
            last = [(one, each) for each, out in inner.out_degree if not out]
            if status.status == "PENDING":
                whole.add_node((one, "running"), kind="step", name=None)
                for each in last:
                    whole.add_edge(each, (one, "running"), kind="next")
                if not last:
                    whole.add_edge(one, (one, "running"), kind="first")
            if status.forked_from in known:
                whole.add_edge(status.forked_from, one, kind="forked_from")
        return whole


def test_nodes_and_edges_match_dbos(both: tuple[dn.Client, DBOSClient]) -> None:
    ours, client = both
    theirs = Theirs(client)
    assert len(theirs.workflows) > 20
    kinds = set()
    for root in theirs.workflows:
        graph, expected = ours.graph(root), theirs.graph(root)
        assert set(graph) == set(expected), root
        mine = {(a, b): kind for a, b, kind in graph.edges.data("kind") if kind != "message"}
        assert mine == {(a, b): kind for a, b, kind in expected.edges.data("kind")}, root
        kinds |= set(mine.values())
        for node, values in expected.nodes.items():
            for name, value in values.items():
                if value is not None:
                    assert graph.nodes[node][name] == value, (node, name)
    assert kinds >= {"first", "next", "starts", "returns"}


def test_node_attributes_match_dbos(both: tuple[dn.Client, DBOSClient]) -> None:
    ours, client = both
    theirs = Theirs(client)
    seen = 0

    def same(instant: Any, milliseconds: int | None) -> bool:
        if milliseconds is None:
            return instant is None
        return instant is not None and instant.timestamp() * 1000 == pytest.approx(milliseconds)

    for root, status in theirs.workflows.items():
        graph = ours.graph(root, children=False)
        node = graph.nodes[root]
        assert node["workflow_id"] == root
        assert node.get("queue_name") == status.queue_name
        assert node.get("app_version") == status.app_version
        assert node.get("executor_id") == status.executor_id
        assert node.get("parent") == status.parent_workflow_id
        assert same(node.get("created_at"), status.created_at)
        assert same(node.get("dequeued_at"), status.dequeued_at)
        for step in theirs.steps[root]:
            values = graph.nodes[root, step["function_id"]]
            assert same(values.get("started_at"), step["started_at_epoch_ms"])
            assert same(values.get("completed_at"), step["completed_at_epoch_ms"])
            assert values.get("child_workflow_id") == step["child_workflow_id"]
            assert values["function_id"] == step["function_id"]
            assert None not in values.values()
            seen += 1
    assert seen > 50
