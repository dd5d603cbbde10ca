"""Folding: nothing is lost, failures stay apart, and the result is small and acyclic."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import big_runs
import networkx as nx
import pytest
from budgets import examples
from hypothesis import given
from hypothesis import strategies as st
from sample_rows import frame, workflow
from sample_rows import step as a_step

import dbos_notebook as dn
from dbos_notebook.graphs import execution_graph, fold, members, to_serializable
from dbos_notebook.graphs.folding import SYSTEM_OPERATIONS
from dbos_notebook.graphs.similarity import WorkflowTree


def inside(graph: nx.DiGraph, folded: nx.DiGraph) -> Counter[Any]:
    """Count how often each node of a graph is in a folded one."""
    source = WorkflowTree.of(graph)
    found: Counter[Any] = Counter()
    for key, node in folded.nodes.items():
        if node.get("levels"):
            # Levels lie in each other: what is below the first, but for what the last leads on to.
            last = source.spine.index(node["members"][-1])
            below = set(source.within(source.spine[last + 1])) if source.spine[last + 1 :] else ()
            found.update(key for key in source.within(node["members"][0]) if key not in below)
        elif node["kind"] == "group":
            for member in node["members"]:
                found.update(source.within(member) if isinstance(member, str) else [member])
        elif node["kind"] != "join":
            found[key] += 1
    return found


def check(graph: nx.DiGraph, folded: nx.DiGraph) -> None:
    assert nx.is_directed_acyclic_graph(folded)
    shown = {key for key, node in graph.nodes.items() if node["kind"] != "join"}
    assert inside(graph, folded) == Counter(shown)
    for key, node in folded.nodes.items():
        if node["kind"] != "group":
            continue
        members = [graph.nodes[member] for member in node["members"]]
        assert key == ("group", node["group"])
        assert sum(node["statuses"].values()) == len(members)
        assert node["statuses"] == Counter(member["status"] for member in members)
        if not node.get("levels"):
            failed = {member["status"] in ("ERROR", "CANCELLED") for member in members}
            assert len(failed) == 1, "failures and successes in one group"
            assert not any(member.get("on_failing_path") for member in members)
        assert {member["kind"] for member in members} == {node["of"]}
        lasted = [member["duration"] for member in members if "duration" in member]
        if lasted:
            assert (node["duration_min"], node["duration_max"]) == (min(lasted), max(lasted))
            assert node["duration_total"].value == sum(each.value for each in lasted)


def tree(
    children: int, steps: int = 3, failing: dict[int, str] | None = None, caught: bool = True
) -> nx.DiGraph:
    """A parent that starts alike children one after the other, and awaits them all."""
    failing = failing or {}
    workflows, rows = [workflow("p", completed=10**6)], []
    for number in range(children):
        error = failing.get(number)
        wrong = {} if error is None else {"status": "ERROR", "error_type": error}
        child = f"c{number}"
        workflows.append(workflow(child, number, name="task", parent_workflow_id="p", **wrong))
        rows.append(a_step("p", number, number, number, "task", child_workflow_id=child))
        place = children + number
        begun = 100_000 + number
        rows.append(
            a_step("p", place, begun, begun, "DBOS.getResult", child_workflow_id=child, **wrong)
        )
        for each in range(steps):
            last = wrong if each == steps - 1 else {}
            rows.append(a_step(child, each, number + each, number + each, f"s{each}", **last))
    if failing and not caught:
        workflows[0] |= {"status": "ERROR", "error_type": list(failing.values())[-1]}
    return execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))


def test_a_graph_within_the_budget_is_not_folded(talk: dn.Client) -> None:
    graph = talk.graph("batch")
    folded = fold(graph, budget=len(graph))
    assert dict(folded.nodes) == dict(graph.nodes)
    assert list(folded.edges.data()) == list(graph.edges.data())
    folded.add_node("other")
    assert "other" not in graph


def test_similar_children_become_one_counted_node(talk: dn.Client) -> None:
    graph = talk.graph("batch")
    folded = fold(graph, budget=20)
    check(graph, folded)
    (key,) = [key for key, node in folded.nodes.items() if node.get("of") == "workflow"]
    group = folded.nodes[key]
    assert (group["name"], group["count"], group["status"]) == ("task", 8, "SUCCESS")
    assert group["workflow_id"] == "batch"
    assert group["members"] == tuple(f"batch-{place}" for place in (1, 2, 3, 4, 5, 6, 7, 9))
    # The one that failed is shown, with its steps and the step that got its error.
    assert {"batch-8", ("batch-8", 1), ("batch-8", 2), ("batch", 17)} <= set(folded)
    starts = ("group", 'task from ["batch", 1]')
    assert folded.edges[starts, key] == {"kind": "starts", "count": 8}
    assert folded.edges[starts, "batch-8"]["kind"] == "starts"
    nx.node_link_data(to_serializable(folded))


def test_opening_one_group_keeps_the_others_folded() -> None:
    graph = tree(60, failing={7: "E", 8: "E", 9: "E", 10: "E"})
    folded = fold(graph)
    groups = {node["group"]: key for key, node in folded.nodes.items() if "group" in node}
    assert len(groups) == 5
    for name, key in groups.items():
        opened = fold(graph, open=[name])
        check(graph, opened)
        assert set(folded) - {key} <= set(opened)
        assert set(folded.nodes[key]["members"]) <= set(opened)
    assert set(fold(graph, open="nothing of this name")) == set(folded)


def test_a_big_group_opens_into_parts() -> None:
    graph = tree(1000)
    (name,) = [
        node["group"] for _, node in fold(graph).nodes.items() if node.get("of") == "workflow"
    ]
    opened = fold(graph, open=[name])
    check(graph, opened)
    parts = [node for _, node in opened.nodes.items() if node.get("of") == "workflow"]
    assert len(parts) == 40
    assert sum(part["count"] for part in parts) == 1000
    again = fold(graph, open=[name, parts[3]["group"]])
    check(graph, again)
    assert set(parts[3]["members"]) <= set(again)
    assert ("group", parts[4]["group"]) in again


def test_failures_stay_visible_when_folded() -> None:
    few = tree(1500, failing={17: "ValueError", 400: "KeyError"}, caught=False)
    folded = fold(few)
    check(few, folded)
    assert len(folded) <= 80
    assert {"c17", ("c17", 2), ("p", 1517), "c400", ("c400", 2), ("p", 1900)} <= set(folded)
    path = {key for key, on in few.nodes("on_failing_path") if on}
    assert path == {"p", ("p", 400), ("p", 1900), "c400", ("c400", 2)}
    assert path == {key for key, on in folded.nodes("on_failing_path") if on}

    many = tree(1500, failing=dict.fromkeys(range(0, 1500, 10), "ValueError"))
    folded = fold(many)
    check(many, folded)
    groups = [node for _, node in folded.nodes.items() if node.get("of") == "workflow"]
    assert {(node["status"], node["count"]) for node in groups} == {
        ("ERROR", 150),
        ("SUCCESS", 1350),
    }
    (failed,) = [node for node in groups if node["status"] == "ERROR"]
    assert failed["error_type"] == "ValueError"
    assert failed["failures_inside"] == 150


def test_a_loop_of_several_steps_is_one_group() -> None:
    names = ["start"] + ["fetch", "parse", "store"] * 100 + ["end"]
    rows = [a_step("w", place, place, place, name) for place, name in enumerate(names)]
    graph = execution_graph(frame([workflow("w")], "workflows"), frame(rows, "steps"))
    folded = fold(graph)
    check(graph, folded)
    names = [node["name"] for _, node in folded.nodes.items()]
    assert names == ["sample", "start", "fetch → parse → store", "end"]
    group = folded.nodes[list(folded)[2]]
    assert (group["count"], len(group["members"])) == (100, 300)


def test_children_that_failed_alike_are_one_group_whatever_their_kind() -> None:
    graph = big_runs.fan_out(300)
    folded = fold(graph)
    check(graph, folded)
    assert len(folded) == 14
    failed = [node for node in folded.nodes.values() if "failed_step" in node]
    assert [
        (node["count"], node["name"], node["failed_step"], node["error_type"]) for node in failed
    ] == [
        (13, "process_*_document", "extract_text_with_layout_model", big_runs.UPSTREAM),
        (10, "process_*_document", "validate_against_schema", big_runs.INVALID),
    ]
    assert failed[0]["error_message"].startswith("503: ")
    names = [(node["count"], node["name"]) for node in folded.nodes.values() if "count" in node]
    assert (300, "process_*_document") in names  # the steps that start them
    assert (56, f"{big_runs.MODULE}.workflows.process_contract_document") in names
    # All that failed can be repaired at once: by the group, and by the steps that awaited them.
    group = failed[0]["group"]
    ids = members(folded, group, failed=True)
    assert ids == members(folded, group) == [f"{big_runs.ROOT}-{9 + 23 * at}" for at in range(13)]
    (results,) = [
        key
        for key, node in folded.nodes.items()
        if node.get("operation") == "get_result" and node.get("error_type") == big_runs.UPSTREAM
    ]
    assert members(folded, results, failed=True) == ids
    with pytest.raises(dn.GraphError, match="no group 'process'"):
        members(folded, "process")
    nx.node_link_data(to_serializable(folded))


def test_one_member_of_a_group_is_shown_beside_the_others() -> None:
    graph = big_runs.fan_out(300)
    folded = fold(graph)
    first = f"{big_runs.ROOT}-9"
    opened = fold(graph, open=[first])
    check(graph, opened)
    assert {first, (first, 1), (first, 2)} <= set(opened)
    groups = {
        key: node["count"] for key, node in folded.nodes.items() if node.get("of") == "workflow"
    }
    assert {
        key: node["count"] for key, node in opened.nodes.items() if node.get("of") == "workflow"
    } == {key: count - (first in folded.nodes[key]["members"]) for key, count in groups.items()}


def test_loops_fold_in_a_graph_of_any_size() -> None:
    graph = big_runs.loop(12)
    folded = fold(graph)
    check(graph, folded)
    shown = [(node.get("count"), node["name"]) for node in folded.nodes.values()]
    # What completes the interrupted round comes first, and the loop has its name again.
    assert shown == [
        (None, "paginate"),
        (None, "open"),
        (5, "poll_page → write_page"),
        (None, "poll_page"),
        (None, "DBOS.setEvent"),
        (None, "write_page"),
        (6, "poll_page → write_page"),
    ]
    assert set(fold(graph, loops=False)) == set(graph)
    few = big_runs.loop(4)
    assert set(fold(few)) == set(few)


def test_a_group_of_several_kinds_is_named_by_its_parts() -> None:
    names = ["pay", "ship", "ship", "DBOS.sleep", "ship", "a.b.c.d", "pay", "ship"]
    rows = [a_step("w", place, place, place, name) for place, name in enumerate(names)]
    graph = execution_graph(frame([workflow("w")], "workflows"), frame(rows, "steps"))
    folded = fold(graph, budget=2)
    check(graph, folded)
    (group,) = [node for node in folded.nodes.values() if node["kind"] == "group"]
    assert group["name"] == "4 × ship, 2 × pay, 2 other steps"
    assert group["parts"] == {"ship": 4, "pay": 2, "DBOS.sleep": 1, "d": 1}


def test_ten_thousand_children_fold_to_the_budget() -> None:
    graph = tree(10_000, steps=4, failing={77: "ValueError"})
    folded = fold(graph)
    assert len(folded) <= 80
    check(graph, folded)


def test_a_long_run_without_a_pattern_folds() -> None:
    chance = random.Random(3)
    rows = [a_step("w", place, place, place, chance.choice("abcdefgh")) for place in range(30_000)]
    graph = execution_graph(frame([workflow("w")], "workflows"), frame(rows, "steps"))
    folded = fold(graph)
    check(graph, folded)


@pytest.mark.parametrize("shape", ["unlike steps", "deep", "wide blocks", "all fail differently"])
def test_every_graph_is_folded_to_the_budget(shape: str) -> None:
    workflows, rows = [workflow("w0")], []
    if shape == "unlike steps":
        rows = [a_step("w0", place, place, place, f"step {place}") for place in range(5000)]
    elif shape == "deep":
        for place in range(1500):
            child = f"w{place + 1}"
            rows.append(a_step(f"w{place}", 1, place, place, child, child_workflow_id=child))
            workflows.append(workflow(child, place, name=child, parent_workflow_id=f"w{place}"))
    elif shape == "wide blocks":
        rows = [
            a_step("w0", place, place // 500 * 100, place // 500 * 100 + 90, f"s{place % 500}")
            for place in range(3000)
        ]
    else:
        for place in range(500):
            child, wrong = f"w{place + 1}", {"status": "ERROR", "error_type": f"E{place}"}
            rows.append(a_step("w0", place, place, place, child, child_workflow_id=child))
            rows.append(a_step(child, 1, place, place, "x", **wrong))
            workflows.append(workflow(child, place, name=child, parent_workflow_id="w0", **wrong))
    graph = execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))
    folded = fold(graph)
    assert len(folded) <= 80
    check(graph, folded)


def test_hidden_operations_keep_the_order_of_others(talk: dn.Client) -> None:
    graph = talk.graph("batch")
    shown = fold(graph, hide={"system"})
    assert nx.is_directed_acyclic_graph(shown)
    hidden = set(graph) - set(shown)
    assert {graph.nodes[key]["operation"] for key in hidden} == {"set_event", "get_result"}
    # The result that was an error stays.
    assert ("batch", 17) in shown
    before, after = nx.transitive_closure_dag(graph), nx.transitive_closure_dag(shown)
    assert set(after.edges) == set(before.subgraph(shown).edges)
    assert shown.edges[("batch-8", 2), ("batch", 17)]["kind"] == "returns"
    assert set(fold(graph, hide="set_event")) == {
        key for key, node in graph.nodes.items() if node.get("operation") != "set_event"
    }
    assert "step" not in SYSTEM_OPERATIONS


def test_invalid_fold_arguments_are_refused(talk: dn.Client) -> None:
    graph = talk.graph("fan")
    with pytest.raises(
        dn.GraphError, match=r"'slep', which is not an operation\. Did you mean 'sleep'"
    ):
        fold(graph, hide=["slep"])
    for budget in (0, True, 2.5):
        with pytest.raises(dn.GraphError, match="budget must be"):
            fold(graph, budget=budget)


@st.composite
def runs(draw: st.DrawFn) -> nx.DiGraph:
    """A random tree of workflows, some failed, with concurrent steps that start and await them."""
    chance = random.Random(draw(st.integers(0, 10**9)))
    workflows, rows, waiting = [workflow("w", name="root")], [], [("w", 0)]
    while waiting and len(workflows) < 30:
        parent, begun = waiting.pop(0)
        clock, function_id = begun, 0
        for _ in range(chance.randrange(8)):
            function_id += 1
            start = clock + chance.randrange(4)
            end = start + chance.randrange(6)
            clock = start if chance.random() < 0.5 else end
            status = {"status": "ERROR", "error_type": "E"} if chance.random() < 0.15 else {}
            name = chance.choice("abc")
            if chance.random() < 0.4:
                child = f"w{len(workflows)}"
                workflows.append(
                    workflow(child, start, name=name, parent_workflow_id=parent, **status)
                )
                rows.append(a_step(parent, function_id, start, end, name, child_workflow_id=child))
                waiting.append((child, end))
                if chance.random() < 0.7:
                    function_id += 1
                    clock = end + 100
                    rows.append(
                        a_step(
                            parent,
                            function_id,
                            end + 90,
                            clock,
                            "DBOS.getResult",
                            child_workflow_id=child,
                            **status,
                        )
                    )
            else:
                rows.append(a_step(parent, function_id, start, end, name, **status))
    if chance.random() < 0.5:
        workflows[0] |= {"status": "ERROR", "error_type": "E"}
    return execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))


@examples(80)
@given(runs(), st.integers(1, 30), st.booleans())
def test_random_runs_fold_without_loss(graph: nx.DiGraph, budget: int, hide: bool) -> None:
    shown = fold(graph, budget=10**6, hide={"system"} if hide else ())
    folded = fold(graph, budget=budget, hide={"system"} if hide else ())
    check(shown, folded)
    alone = [key for key, on in shown.nodes("on_failing_path") if on]
    assert set(alone) <= set(folded)
    names = [node["group"] for _, node in folded.nodes.items() if "group" in node]
    if names:
        opened = fold(graph, budget=budget, hide={"system"} if hide else (), open=names)
        check(shown, opened)
        assert len(opened) > len(folded) or budget == 1
