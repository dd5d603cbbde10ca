"""What the rows at hand become: runs of a real application, and rows that no SDK would write."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
from dbos import DBOSClient, SetWorkflowID
from sample_rows import at, frame, frames, step, workflow

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.graphs import execution_graph, to_serializable


def kinds(graph: nx.DiGraph, kind: str) -> set[tuple[object, object]]:
    return {(one, other) for one, other, found in graph.edges.data("kind") if found == kind}


def test_concurrent_steps_are_side_by_side(talk: dn.Client) -> None:
    graph = talk.graph("fan")
    assert kinds(graph, "first") == {("fan", ("fan", place)) for place in (1, 2, 3)}
    assert kinds(graph, "next") == {
        (("fan", one), ("fan", other)) for one, other in ((1, 4), (2, 4), (3, 4), (4, 5), (4, 6))
    }


def test_a_message_leads_from_send_to_recv(talk: dn.Client) -> None:
    graph = talk.graph("talk")
    assert kinds(graph, "message") == {(("talk-2", 2), ("talk-1", 1))}
    assert graph.edges[("talk-2", 2), ("talk-1", 1)]["inferred"] is True
    assert all(type(part) in (str, int) for node in graph.edges for one in node for part in one)
    # The timeout of recv looks like a sleep, and is not slept.
    assert graph.nodes["talk-1", 2]["timeout_of"] == 1
    assert "wakes_at" not in graph.nodes["talk-1", 2]
    assert graph.nodes["talk-2", 1]["wakes_at"] > graph.nodes["talk-2", 1]["started_at"]


def test_a_caught_failure_is_not_on_the_failure_path(talk: dn.Client) -> None:
    graph = talk.graph("batch")
    assert graph.nodes["batch-8"]["status"] == "ERROR"
    assert not any(on for _, on in graph.nodes("on_failing_path"))
    own = talk.graph("batch-8")
    assert [node for node, on in own.nodes("on_failing_path") if on] == ["batch-8", ("batch-8", 2)]
    assert own.nodes["batch-8", 2]["error_type"] == "ValueError"


def test_depth_limits_the_children(old_sqlite: Path) -> None:
    with dn.connect(old_sqlite) as db:
        whole = {one for one, kind in db.graph("checkout-1").nodes("kind") if kind == "workflow"}
        first = db.graph("checkout-1", depth=1)
        none = db.graph("checkout-1", depth=0)
    assert whole == {"checkout-1", "checkout-1-4", "checkout-1-4-1"}
    assert {one for one, kind in first.nodes("kind") if kind == "workflow"} == whole - {
        "checkout-1-4-1"
    }
    assert first.nodes["checkout-1-4", 1]["child_workflow_id"] == "checkout-1-4-1"
    assert {one for one, kind in none.nodes("kind") if kind == "workflow"} == {"checkout-1"}


def test_a_fork_with_replaced_children(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    client = DBOSClient(system_database_url=f"sqlite:///{path}")
    with SetWorkflowID("child-again"):
        client.fork_workflow("checkout-1-4", 3)
    with SetWorkflowID("again"):
        client.fork_workflow("checkout-1", 5, replacement_children={"checkout-1-4": "child-again"})
    client.destroy()
    with dn.connect(path) as db:
        graph = db.graph("again")
        family = db.graph("again", forks=True)
        seen_from_the_original = db.graph("checkout-1", forks=True)
    assert (("again", 4), "child-again") in kinds(graph, "starts")
    assert graph.nodes["child-again"]["parent"] == "again"
    assert graph.nodes["again"]["status"] == "ENQUEUED"
    assert ("again", "running") not in graph
    assert graph.nodes["again"]["forked_from"] == "checkout-1"
    assert family.edges["checkout-1", "again"] == {"kind": "forked_from", "step": 5}
    assert family.edges["checkout-1-4", "child-again"] == {"kind": "forked_from", "step": 3}
    assert set(family) == set(seen_from_the_original)
    assert nx.is_directed_acyclic_graph(family)


def test_running_and_waiting_workflows_end_in_a_state_node(old_sqlite: Path) -> None:
    with dn.connect(old_sqlite) as db:
        running, waiting = db.graph("holder"), db.graph("queued-1")
    last = running.nodes["holder", "running"]
    assert (last["kind"], last["operation"], last["status"]) == ("step", "other", "PENDING")
    assert last["name"] == "after step 6"
    assert "completed_at" not in last
    assert list(running.predecessors(("holder", "running"))) == [("holder", 6)]
    assert list(waiting) == ["queued-1"]
    assert waiting.nodes["queued-1"]["status"] == "ENQUEUED"


def test_a_workflow_without_steps() -> None:
    graph = execution_graph(
        *frames(
            [
                workflow("p"),
                workflow("empty", parent_workflow_id="p"),
                workflow("r", status="PENDING"),
            ],
            [
                step("p", 1, 0, 1, child_workflow_id="empty"),
                step("p", 2, 2, 9, "DBOS.getResult", child_workflow_id="empty"),
            ],
        )
    )
    assert kinds(graph, "returns") == {("empty", ("p", 2))}
    assert kinds(graph, "first") == {("p", ("p", 1)), ("r", ("r", "running"))}
    assert graph.nodes["r", "running"]["name"] == "before the first step"
    assert len(execution_graph(*frames([]))) == 0


def test_unknown_ids_are_an_error() -> None:
    path = Path(__file__).parents[1] / "corpus" / "dbos-3.4.0.sqlite"
    with dn.connect(path) as db:
        with pytest.raises(dn.WorkflowNotFoundError, match=r"'checkout-99'.*checkout-1"):
            db.graph("checkout-99")
        with pytest.raises(dn.FilterError):
            db.graph("checkout-1", depth=-1)
        with pytest.raises(dn.FilterError, match="one workflow, not 26"):
            db.graph(db.workflows())  # type: ignore[arg-type]
        assert db.graph(["checkout-1"]).graph["root"] == "checkout-1"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("root", "child", "starters", "awaited", "parent"),
    [
        ("twice", "once", {("twice", 1)}, {("twice", 2), ("twice", 4)}, "twice"),
        (
            "starts-after",
            "shared",
            {("starts-first", 1)},
            {("starts-first", 2), ("starts-after", 4)},
            "starts-first",
        ),
        ("asks-first", "once", set(), {("asks-first", 2), ("asks-first", 4)}, "twice"),
    ],
)
def test_starting_an_existing_workflow_adds_no_child(
    talk: dn.Client,
    root: str,
    child: str,
    starters: set[object],
    awaited: set[object],
    parent: str,
) -> None:
    """DBOS writes the same row for it; as an edge it would lead from the child's end to its start.

    Such a run is one of an ID that makes a start idempotent, and nothing is wrong with it.
    """
    graph = talk.graph(root)
    assert nx.is_directed_acyclic_graph(graph)
    assert {one for one, other in kinds(graph, "starts") if other == child} == starters
    assert kinds(graph, "returns") >= {((child, 2), one) for one in awaited}
    assert graph.nodes[child]["parent"] == parent
    assert set(dn.draw(graph).nodes.values()) == set(graph)
    path = graphs.critical_path(graph)
    assert path["duration"].sum() == path["end"].iloc[-1] - path["start"].iloc[0]
    assert len(graphs.fold(graph, budget=3)) < len(graph)


def test_a_child_that_starts_its_own_root() -> None:
    """The row says who was there first: the root has no parent."""
    graph = execution_graph(
        *frames(
            [workflow("p"), workflow("c", parent_workflow_id="p")],
            [
                step("p", 1, 0, 1, "c", child_workflow_id="c"),
                step("c", 1, 2, 3, child_workflow_id="p"),
            ],
        )
    )
    assert kinds(graph, "starts") == {(("p", 1), "c")}
    assert "parent" not in graph.nodes["p"]


def test_a_fork_keeps_the_start_that_it_copied() -> None:
    """Its child's row names the original, which may not be in the graph."""
    again = [
        step("f", 1, 0, 1, "c", child_workflow_id="c"),
        step("f", 2, 2, 9, "DBOS.getResult", child_workflow_id="c"),
        step("f", 3, 10, 11, "c", child_workflow_id="c"),
    ]
    rows = [workflow("f", forked_from="p"), workflow("c", parent_workflow_id="p")]
    graph = execution_graph(*frames(rows, again))
    assert kinds(graph, "starts") == {(("f", 1), "c")}
    assert graph.nodes["c"]["parent"] == "f"


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE workflow_status SET parent_workflow_id = workflow_uuid"
        " WHERE workflow_uuid = 'checkout-1'",
        "UPDATE workflow_status SET parent_workflow_id = 'checkout-1-4-1'"
        " WHERE workflow_uuid = 'checkout-1'",
        "UPDATE workflow_status SET forked_from = 'checkout-1-4'"
        " WHERE workflow_uuid = 'checkout-1'",
        "UPDATE workflow_status SET forked_from = workflow_uuid WHERE workflow_uuid = 'checkout-1'",
    ],
)
def test_a_cycle_of_workflows_is_an_error(corpus_sqlite: Callable[[str], Path], edit: str) -> None:
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.execute(edit)
    connection.close()
    with dn.connect(path) as db, pytest.raises(dn.GraphError, match="'checkout-1'"):
        db.graph("checkout-1", forks=True)


def test_a_cycle_of_forks_ends(corpus_sqlite: Callable[[str], Path]) -> None:
    path = corpus_sqlite("3.4.0")
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "UPDATE workflow_status SET forked_from = ? WHERE workflow_uuid = ?",
            [("checkout-2", "checkout-1"), ("checkout-1", "checkout-2")],
        )
    connection.close()
    with dn.connect(path) as db:
        assert db.graph("checkout-1").nodes["checkout-1"]["forked_from"] == "checkout-2"
        with pytest.raises(dn.GraphError, match="'checkout-1', 'checkout-2'"):
            db.graph("checkout-1", forks=True)


def test_a_clock_that_went_back_makes_no_cycle() -> None:
    """The parent went on at a machine whose clock is behind, and got its child's result there."""
    graph = execution_graph(
        *frames(
            [workflow("p"), workflow("c", parent_workflow_id="p")],
            [
                step("p", 1, 5000, 5001, "c", child_workflow_id="c"),
                step("p", 2, 100, 200, "DBOS.getResult", child_workflow_id="c"),
                step("c", 1, 5100, 5200),
            ],
        )
    )
    assert (("p", 1), ("p", 2)) in kinds(graph, "next")
    assert nx.is_directed_acyclic_graph(graph)


def test_a_step_that_ends_before_it_starts_is_ordered_by_function_id() -> None:
    graph = execution_graph(
        *frames(
            [workflow("w")],
            [step("w", 0, 0, 10), step("w", 1, 50, 20), step("w", 2, 5, 30), step("w", 3, 40, 45)],
        )
    )
    assert kinds(graph, "next") == {(("w", place), ("w", place + 1)) for place in range(3)}


def test_an_inferred_sender_makes_no_cycle() -> None:
    """The only send that fits the time comes after the recv by order: it was another's message."""
    messages = pd.DataFrame(
        {"workflow_id": ["a"], "consumed_by_function_id": [1], "created_at": [at(1000)]}
    )
    workflows, steps = frames(
        [workflow("a")],
        [step("a", 1, 0, 990, "DBOS.recv"), step("a", 2, 995, 1010, "DBOS.send")],
    )
    graph = execution_graph(workflows, steps, messages=messages)
    assert not kinds(graph, "message")
    assert nx.is_directed_acyclic_graph(graph)


def test_an_ambiguous_sender_is_not_inferred() -> None:
    messages = pd.DataFrame(
        {"workflow_id": ["r"], "consumed_by_function_id": [1], "created_at": [at(1005)]}
    )
    sends = [step("a", 1, 1000, 1010, "DBOS.send"), step("b", 1, 1001, 1011, "DBOS.send")]
    workflows = [workflow(one) for one in "abr"]
    for some, expected in ((sends, 0), (sends[:1], 1)):
        pair = frames(workflows, [step("r", 1, 0, 1020, "DBOS.recv"), *some])
        assert len(kinds(execution_graph(*pair, messages=messages), "message")) == expected


def test_a_sleep_lasts_until_it_wakes() -> None:
    """In dbos 2.20 a sleep's row was completed as it began."""
    wakes = pd.DataFrame({"workflow_id": ["w"], "function_id": [1], "wakes_at": [at(1000)]})
    rows = [step("w", 1, 0, 1, "DBOS.sleep"), step("w", 2, 500, 600), step("w", 3, 1000, 1100)]
    graph = execution_graph(*frames([workflow("w")], rows), wakes=wakes)
    assert kinds(graph, "first") == {("w", ("w", 1)), ("w", ("w", 2))}
    assert kinds(graph, "next") == {(("w", 1), ("w", 3)), (("w", 2), ("w", 3))}


def test_the_order_of_rows_does_not_matter(talk: dn.Client) -> None:
    workflows, steps = talk.tree("batch"), talk.steps("batch", children=True)
    expected = execution_graph(workflows, steps, root="batch")
    again = execution_graph(
        workflows.sample(frac=1, random_state=1), steps.sample(frac=1, random_state=2), root="batch"
    )
    assert set(again.edges) == set(expected.edges)
    assert dict(again.nodes) == dict(expected.nodes)


HOSTILE = [
    "<b>bold</b>",
    '"quotes\\" and \\N',
    "line\nbreak\r",
    "\x00\x01\x1b[31m",
    "\u202eright to left\u2066",
    "☃ 🔔",
    "]]><!--",
    "x" * 100_000,
    '["w", 1]',
    "",
]


def test_keys_stay_distinct_as_strings() -> None:
    hostile = ["w", '["w", 1]', '"[\\"w\\", 1]"', '"w"', "\x01", "\x02", "\ufffd"]
    graph = execution_graph(*frames(list(map(workflow, hostile)), [step("w", 1, 0, 1)]))
    assert len(to_serializable(graph)) == len(graph) == 8


def test_hostile_names_are_kept_and_can_be_written(tmp_path: Path) -> None:
    workflows = [workflow(f"{name}{place}", name=name) for place, name in enumerate(HOSTILE)]
    steps = [
        step(one["workflow_id"], 1, 0, 1, HOSTILE[-1 - place])
        for place, one in enumerate(workflows)
    ]
    graph = execution_graph(frame(workflows, "workflows"), frame(steps, "steps"))
    assert [name for _, name in graph.nodes("name")][::2] == HOSTILE
    flat = to_serializable(graph)
    assert len(flat) == len(graph) == 2 * len(HOSTILE)
    assert next(name for _, name in flat.nodes("name")) == HOSTILE[0]
    nx.write_graphml(flat, tmp_path / "graph.xml")
    assert nx.is_isomorphic(nx.read_graphml(tmp_path / "graph.xml"), flat)


def test_a_hundred_thousand_steps_in_one_workflow() -> None:
    count, pick = 100_000, random.Random(1)
    starts = sorted(pick.randrange(10**6) for _ in range(count))
    steps = frame(
        [
            step("w", place, start, start + pick.randrange(2000))
            for place, start in enumerate(starts)
        ],
        "steps",
    )
    workflows = frame([workflow("w")], "workflows")
    graph = execution_graph(workflows, steps)
    assert sum(kind == "step" for _, kind in graph.nodes("kind")) == count
    assert graph.number_of_edges() < 4 * count
