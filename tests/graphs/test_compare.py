"""Two runs side by side: real forks and versions, and what alignment must get right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from dbos import DBOSClient, SetWorkflowID
from hypothesis import given
from hypothesis import strategies as st
from sample_rows import frame, frames, step, workflow

import dbos_notebook as dn
from dbos_notebook.graphs import Comparison, compare, execution_graph, fold, to_serializable
from dbos_notebook.graphs.comparison import align


def run(name: str, *steps: dict[str, Any], **values: Any) -> nx.DiGraph:
    """A workflow whose steps are (name, duration, and more); ids and times follow."""
    rows, clock = [], 0
    for place, one in enumerate(steps, 1):
        values_of = dict(one)
        lasted = values_of.pop("lasted", 5)
        rows.append(step(name, place, clock, clock + lasted, **values_of))
        clock += lasted + 1
    return execution_graph(*frames([workflow(name, 0, completed=100, **values)], rows))


def words(comparison: Comparison) -> list[tuple[Any, Any, str]]:
    frame = comparison.frame
    return [
        (None if pd.isna(one) else one, None if pd.isna(other) else other, word)
        for one, other, word in zip(
            frame["function_id_first"],
            frame["function_id_second"],
            frame["difference"],
            strict=True,
        )
    ][1:]


def test_a_workflow_equals_itself(talk: dn.Client) -> None:
    for root in ("talk", "fan", "batch"):
        graph = talk.graph(root, load_output=True)
        comparison = compare(graph, graph)
        assert comparison.results
        assert (comparison.frame["difference"] == "same").all()
        assert comparison.differences.empty
        assert len(comparison.frame) == len(graph)
        assert set(comparison.graph) == set(graph)
        assert {word for *_, word in comparison.graph.edges.data("difference")} == {"same"}


def test_a_fork_against_its_original(old_sqlite: Path) -> None:
    with dn.connect(old_sqlite) as db:
        original, fork = (db.graph(one, load_output=True) for one in ("checkout-5-bad", "fork-1"))
        good = db.graph("checkout-1", load_output=True)
    same = compare(original, fork).frame
    assert same["difference"].tolist() == ["same"] * 4
    assert same["workflow_id_first"].tolist() == ["checkout-5-bad"] * 4
    assert same["workflow_id_second"].tolist() == ["fork-1"] * 4
    other = compare(good, fork)
    found = other.frame.set_index("name")["difference"]
    assert found["checkout"] == "changed error"
    assert found["charge"] == "changed error"
    assert found["validate"] == "same"
    assert (found[["ship", "pack", "flaky"]] == "only in first").all()
    assert repr(other).startswith("<Comparison of 'checkout-1' with 'fork-1': 2 same, ")
    unread = compare(good, execution_graph(*frames([workflow("fork-1")])))
    assert "results were not loaded" in repr(unread)


def test_results_are_compared_as_values(
    old_sqlite: Path, corpus_postgres: Callable[[str], str]
) -> None:
    """The same application ran on both databases, two seconds apart, with the same arguments."""
    with dn.connect(old_sqlite) as one, dn.connect(corpus_postgres("2.20.0")) as other:
        first = one.graph("checkout-1", load_output=True)
        same = compare(first, other.graph("checkout-1", load_output=True), at_least="1h").frame
        changed = compare(first, one.graph("checkout-2", load_output=True), at_least="1h").frame
    assert set(same.loc[same["name"] != "DBOS.sleep", "difference"]) == {"same"}
    results = changed.set_index("name")["difference"]
    assert results["validate"] == "same"
    assert (results[["charge", "checkout"]] == "changed result").all()
    assert "output_digest" in first.nodes["checkout-1"]


def test_a_fork_with_a_replaced_child(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    client = DBOSClient(system_database_url=f"sqlite:///{path}")
    with SetWorkflowID("child-again"):
        client.fork_workflow("checkout-1-4", 3)
    with SetWorkflowID("again"):
        client.fork_workflow("checkout-1", 5, replacement_children={"checkout-1-4": "child-again"})
    client.destroy()
    with dn.connect(path) as db:
        comparison = compare(db.graph("checkout-1"), db.graph("again"))
    frame = comparison.frame
    child = frame.loc[frame["node_first"] == "checkout-1-4"].iloc[0]
    assert child["node_second"] == "child-again"
    # The grandchild was copied with the step that started it: it is the very same.
    grandchild = frame.loc[frame["node_first"] == "checkout-1-4-1"].iloc[0]
    assert grandchild["node_second"] == "checkout-1-4-1"
    assert grandchild["difference"] == "same"
    assert frame.set_index("node_first")["difference"][[("checkout-1", 6)]].tolist() == [
        "only in first"
    ]
    assert nx.is_directed_acyclic_graph(comparison.graph)


def test_a_step_of_another_version_is_unmatched() -> None:
    before = run("v1", {"name": "a"}, {"name": "b"}, {"name": "c", "lasted": 20})
    after = run(
        "v2",
        {"name": "a"},
        {"name": "check"},
        {"name": "b", "status": "ERROR", "error_type": "E"},
        {"name": "c", "lasted": 60},
    )
    comparison = compare(before, after)
    assert words(comparison) == [
        (1, 1, "same"),
        (None, 2, "only in second"),
        (2, 3, "changed error"),
        (3, 4, "slower"),
    ]
    graph = comparison.graph
    assert graph.nodes["v2", 2]["workflow_id"] == "v1"
    assert graph.nodes["v1", 3]["duration_second"] == pd.Timedelta("60ms")
    assert graph.edges[("v1", 1), ("v2", 2)]["difference"] == "only in second"
    assert graph.edges[("v1", 1), ("v1", 2)]["difference"] == "only in first"
    assert graph.edges[("v1", 2), ("v1", 3)]["difference"] == "same"
    reverse = compare(after, before)
    assert [word for *_, word in words(reverse)] == [
        "same", "only in first", "repaired", "faster",
    ]  # fmt: skip
    row = comparison.frame.iloc[4]
    assert row["duration_difference"] == pd.Timedelta("40ms")
    assert (row["depth"], row["kind"], row["name"]) == (1, "step", "c")
    nx.node_link_data(to_serializable(graph))


def test_slower_steps_need_tolerance_and_at_least() -> None:
    before, after = run("a", {"lasted": 100}), run("b", {"lasted": 140})
    assert words(compare(before, after))[0][2] == "same"
    assert words(compare(before, after, tolerance=0.3))[0][2] == "slower"
    assert words(compare(after, before, tolerance=0.3))[0][2] == "faster"
    assert words(compare(before, after, tolerance=0.3, at_least="50ms"))[0][2] == "same"


def test_two_snapshots_of_a_running_workflow() -> None:
    """The same IDs in both, with different steps under one number, do not get mixed up."""
    before = run("w", {"name": "a"}, {"name": "b"}, status="PENDING")
    after = run("w", {"name": "a"}, {"name": "other"}, {"name": "c"})
    comparison = compare(before, after)
    assert words(comparison) == [
        (1, 1, "same"),
        (2, None, "only in first"),
        (None, None, "only in first"),
        (None, 2, "only in second"),
        (None, 3, "only in second"),
    ]
    assert comparison.frame["difference"].iloc[0] == "changed result"
    assert len(comparison.graph) == 6
    assert comparison.graph.nodes["second", ("w", 2)]["name"] == "other"


def test_reordered_steps_make_no_cycle() -> None:
    first = execution_graph(
        *frames([workflow("w")], [step("w", 1, 0, 5, "a"), step("w", 2, 6, 9, "b")])
    )
    second = execution_graph(
        *frames([workflow("w")], [step("w", 1, 6, 9, "a"), step("w", 2, 0, 5, "b")])
    )
    comparison = compare(first, second)
    assert (comparison.frame["difference"].iloc[1:] == "same").all()
    assert nx.is_directed_acyclic_graph(comparison.graph)
    assert comparison.graph.has_edge(("w", 1), ("w", 2))


def test_incomparable_graphs_are_an_error(talk: dn.Client) -> None:
    graph = talk.graph("batch")
    with pytest.raises(dn.GraphError, match="folded"):
        compare(graph, fold(graph, budget=10))
    with pytest.raises(dn.GraphError, match="no root"):
        compare(nx.DiGraph(), graph)


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_alignment_keeps_every_node_and_their_order(first: list[str], second: list[str]) -> None:
    ones, others = dict(enumerate(first)), dict(enumerate(second))
    found = list(align(ones, others))
    mine = [one for one, _ in found if one is not None]
    theirs = [other for _, other in found if other is not None]
    assert mine == list(ones)
    assert theirs == list(others)
    assert all(
        first[one] == second[other] for one, other in found if one is not None and other is not None
    )


def test_ten_thousand_children_are_compared() -> None:
    def big(prefix: str, missing: int) -> nx.DiGraph:
        workflows, rows = [workflow(prefix)], []
        for number in range(10_000):
            if number == missing:
                continue
            child = f"{prefix}{number}"
            workflows.append(workflow(child, number, parent_workflow_id=prefix))
            rows.append(step(prefix, number, number, number, "task", child_workflow_id=child))
            rows.append(step(child, 1, number, number + 1, f"s{number % 3}"))
        return execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))

    first, second = big("a", -1), big("b", 500)
    comparison = compare(first, second)
    assert (comparison.frame["difference"] != "same").sum() >= 3
    assert len(comparison.frame) >= len(first)


def parent(root: str, names: str, *children: tuple[str, int | None]) -> nx.DiGraph:
    """A workflow with a step of each name; its children are (ID, the step that started each)."""
    started = {number: child for child, number in children if number is not None}
    rows = [
        step(root, place, place, place, name, child_workflow_id=started.get(place))
        for place, name in enumerate(names, 1)
    ]
    flows = [workflow(child, name=child, parent_workflow_id=root) for child, _ in children]
    return execution_graph(*frames([workflow(root), *flows], rows))


def test_children_that_no_step_started_are_not_those_of_a_step_that_was_added() -> None:
    """One enqueued from outside is no twin of what a step that the other run lacks has started."""
    first = parent("p", "xy", ("outside", None))
    second = parent("q", "xby", ("inside", 2))
    for one, other in ((first, second), (second, first)):
        frame = compare(one, other).frame
        flows = frame.loc[frame["kind"] == "workflow"].iloc[1:]
        assert set(flows["difference"]) == {"only in first", "only in second"}


def test_missing_nodes_of_a_comparison_are_none() -> None:
    """Also where the nodes that there are are all of workflows, whose keys are texts."""
    frame = compare(parent("p", "xy"), parent("q", "")).frame
    assert frame["node_second"].tolist() == ["q", None, None]
    assert frame["node_second"].dtype == object


def test_a_comparison_of_runs_with_the_same_ids_is_folded_and_drawn() -> None:
    """The same IDs in two databases: what only the second has needs a key of its own."""
    first = parent("p", "xa", ("c", 2), ("d", None))
    second = parent("p", "xb", ("d", 2), ("c", None))
    graph = compare(first, second).graph
    assert ("second", "d") in graph
    for budget in range(1, len(graph)):
        folded = fold(graph, budget=budget)
        assert nx.is_directed_acyclic_graph(folded)
        assert dn.draw(graph, fold=budget).text
        for group in [node["group"] for node in folded.nodes.values() if node["kind"] == "group"]:
            assert len(fold(graph, budget=budget, open=[group])) > len(folded)
