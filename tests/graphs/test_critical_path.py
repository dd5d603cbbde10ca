"""The critical path adds up to the run, and goes through what the run waited for."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from budgets import examples
from hypothesis import given, reject
from hypothesis import strategies as st
from sample_rows import at, frame, frames, step, workflow

import dbos_notebook as dn
from dbos_notebook.graphs import critical_path, execution_graph, fold, self_time
from dbos_notebook.graphs.critical_path import critical_path_intervals
from dbos_notebook.graphs.intervals import Times

COLUMNS = ["node", "workflow_id", "function_id", "name", "part", "start", "end", "duration"]


def check(path: pd.DataFrame, graph: nx.DiGraph) -> None:
    """Check that a path has no gap or overlap, and names nodes of its graph."""
    assert list(path.columns) == COLUMNS
    assert str(path["start"].dtype) == "datetime64[ms, UTC]"
    assert str(path["duration"].dtype) == "timedelta64[ms]"
    assert (path["end"].iloc[:-1].array == path["start"].iloc[1:].array).all()
    assert (path["duration"] >= pd.Timedelta(0)).all()
    assert ((path["end"] - path["start"]) == path["duration"]).all()
    for row in path.itertuples():
        node = graph.nodes[row.node]
        assert node["workflow_id"] == row.workflow_id
        assert row.part in {
            "queued", "before", "step", "sleep", "waiting", "result", "between", "running",
            "unknown",
        }  # fmt: skip


def legs(path: pd.DataFrame) -> list[tuple[Any, str, int]]:
    """Return what took time: node, part, milliseconds."""
    return [
        (row.node, row.part, round(row.duration.total_seconds() * 1000))
        for row in path.itertuples()
        if row.duration > pd.Timedelta(0)
    ]


def test_the_path_goes_through_the_awaited_child() -> None:
    graph = execution_graph(
        *frames(
            [
                workflow("p", 0, completed=1000),
                workflow("slow", 110, dequeued=300, completed=800, parent_workflow_id="p"),
                workflow("fast", 120, dequeued=130, completed=200, parent_workflow_id="p"),
            ],
            [
                step("p", 1, 50, 100, "prepare"),
                step("p", 2, 105, 112, "slow", child_workflow_id="slow"),
                step("p", 3, 115, 122, "fast", child_workflow_id="fast"),
                step("p", 4, 130, 870, "DBOS.getResult", child_workflow_id="slow"),
                step("p", 5, 880, 885, "DBOS.getResult", child_workflow_id="fast"),
                step("p", 6, 890, 950, "finish"),
                step("slow", 1, 310, 400, "one"),
                step("slow", 2, 310, 700, "two"),
                step("fast", 1, 140, 190, "quick"),
            ],
        )
    )
    path = critical_path(graph)
    check(path, graph)
    assert legs(path) == [
        ("p", "between", 50),
        (("p", 1), "step", 50),
        ("p", "between", 5),
        (("p", 2), "step", 5),
        ("slow", "queued", 190),
        ("slow", "between", 10),
        (("slow", 2), "step", 390),
        ("slow", "between", 100),
        (("p", 4), "result", 70),
        ("p", "between", 10),
        (("p", 5), "result", 5),
        ("p", "between", 5),
        (("p", 6), "step", 60),
        ("p", "between", 50),
    ]
    assert path["duration"].sum() == graph.nodes["p"]["duration"]
    assert path["start"].iloc[0] == at(0)


def test_a_workflow_started_by_another_is_on_the_path_from_when_it_was_awaited() -> None:
    graph = execution_graph(
        *frames(
            [workflow("p", 0, completed=500), workflow("other", 20, completed=400)],
            [
                step("p", 1, 100, 450, "DBOS.getResult", child_workflow_id="other"),
                step("other", 1, 30, 150, "early"),
                step("other", 2, 160, 390, "late"),
            ],
        ),
        root="p",
    )
    path = critical_path(graph)
    check(path, graph)
    assert legs(path) == [
        ("p", "between", 100),
        (("other", 1), "step", 50),
        ("other", "between", 10),
        (("other", 2), "step", 230),
        ("other", "between", 10),
        (("p", 1), "result", 50),
        ("p", "between", 50),
    ]


def test_a_child_outside_the_graph_counts_as_waiting() -> None:
    graph = execution_graph(
        *frames(
            [workflow("p", 0, completed=500)],
            [step("p", 1, 100, 450, "DBOS.getResult", child_workflow_id="elsewhere")],
        )
    )
    assert legs(critical_path(graph)) == [
        ("p", "between", 100),
        (("p", 1), "waiting", 350),
        ("p", "between", 50),
    ]


def test_a_sleep_that_was_recorded_at_its_start() -> None:
    wakes = pd.DataFrame({"workflow_id": ["w"], "function_id": [1], "wakes_at": [at(900)]})
    pair = frames([workflow("w", 0, completed=1000)], [step("w", 1, 10, 11, "DBOS.sleep")])
    graph = execution_graph(*pair, wakes=wakes)
    assert legs(critical_path(graph)) == [
        ("w", "between", 10),
        (("w", 1), "sleep", 890),
        ("w", "between", 100),
    ]


def test_a_gap_before_the_first_recorded_step_is_not_own_code() -> None:
    cancelled = workflow("c", 0, completed=8000, status="CANCELLED", recovery_attempts=1)
    graph = execution_graph(
        *frames(
            [workflow("p", 0, completed=9000), {**cancelled, "duration": None}],
            [
                step("p", 1, 0, 1, "c", child_workflow_id="c"),
                step("p", 2, 1, 8500, "DBOS.getResult", child_workflow_id="c"),
                step("c", 1, 100, 300),
                step("c", 2, 400, 500),
            ],
        )
    )
    path = critical_path(graph)
    check(path, graph)
    parts = [leg[1:] for leg in legs(path) if "c" in leg[0]]
    assert parts == [
        ("before", 100), ("step", 200), ("unknown", 100), ("step", 100), ("unknown", 7500),
    ]  # fmt: skip
    assert "c" not in self_time(graph)["node"].tolist()
    drawn = critical_path_intervals(graph)
    assert all(end - start < 1 for node, start, end in drawn if "c" in node)


def test_a_running_and_a_waiting_root(old_sqlite: Path) -> None:
    with dn.connect(old_sqlite) as db:
        running, waiting = db.graph("holder"), db.graph("queued-1")
    path = critical_path(running)
    check(path, running)
    assert path.iloc[-1][["node", "part"]].tolist() == [("holder", "running"), "running"]
    # It was dequeued in a whole second, and its first step knows more.
    assert abs(path["duration"].sum() - running.nodes["holder"]["duration"]) < pd.Timedelta("1s")
    path = critical_path(waiting)
    assert path["part"].tolist() == ["queued"]
    assert path["end"].iloc[0] == waiting.graph["read_at"]


def lasted(times: Times, root: str) -> float:
    """Return how long a run took, as its picture shows it, in seconds."""
    run = times.workflow(root)
    assert run is not None
    assert run.started is not None
    return run.ended - run.started


@pytest.mark.parametrize("database", ["3.4.0 pg", "3.4.0 sqlite", "2.20.0 pg", "2.20.0 sqlite"])
def test_durations_add_up_in_every_run(
    database: str,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> None:
    version, kind = database.split()
    seen = 0
    with dn.connect((corpus_sqlite if kind == "sqlite" else corpus_postgres)(version)) as db:
        for root in db.workflows(limit=None)["workflow_id"]:
            graph = db.graph(root)
            path = critical_path(graph)
            check(path, graph)
            if "duration" not in graph.nodes[root]:
                continue
            more = path["duration"].sum() - graph.nodes[root]["duration"]
            if kind == "pg":
                assert more == pd.Timedelta(0), root
            else:  # whole seconds, of which the steps know more
                assert abs(more) < pd.Timedelta("1s"), root
            # What pictures and views show is what the path adds up to.
            times = Times(graph)
            assert path["duration"].sum() == pd.Timedelta(seconds=lasted(times, root)).round("ms")
            seen += 1
    assert seen >= 20


def test_durations_add_up_in_the_shop(shop: dn.Client) -> None:
    add_up(shop)


def test_durations_add_up_in_the_talk(talk: dn.Client) -> None:
    add_up(talk)


def add_up(db: dn.Client) -> None:
    for root in db.workflows(limit=None, has_parent=False)["workflow_id"]:
        graph = db.graph(root)
        path = critical_path(graph)
        check(path, graph)
        if "duration" in graph.nodes[root]:
            more = path["duration"].sum() - graph.nodes[root]["duration"]
            assert abs(more) < pd.Timedelta("1s"), root


def test_concurrent_steps_off_the_path_are_left_out(talk: dn.Client) -> None:
    path = critical_path(talk.graph("fan"))
    steps = path.loc[path["part"] == "step", "function_id"].tolist()
    assert steps == [3, 4, 6]


def test_versions_without_times_of_steps_still_show_queue_and_children(
    corpus_postgres: Callable[[str], str],
) -> None:
    with dn.connect(corpus_postgres("2.0.0")) as db:
        graph = db.graph("checkout-1")
    path = critical_path(graph)
    check(path, graph)
    assert path["duration"].sum() == graph.nodes["checkout-1"]["duration"]
    assert ("checkout-1-4", "queued") in path[["node", "part"]].itertuples(index=False, name=None)


@st.composite
def trees(draw: st.DrawFn) -> nx.DiGraph:
    """Any tree of workflows whose steps have any times at all, skewed and missing ones too."""
    chance = random.Random(draw(st.integers(0, 10**9)))
    count = chance.randrange(1, 8)
    workflows, rows = [], []
    for number in range(count):
        # Never a whole second: such a run, as SQLite keeps it, is widened to hold its last step.
        begun = chance.randrange(1, 1000)
        above = {"parent_workflow_id": f"w{chance.randrange(number)}"} if number else {}
        ended = begun + chance.randrange(1, 2000)
        dequeued = chance.choice([None, begun + chance.randrange(200)])
        workflows.append(
            workflow(
                f"w{number}", begun, dequeued=dequeued, completed=max(ended, dequeued or 0), **above
            )
        )
        for place in range(chance.randrange(6)):
            start = chance.choice([None, begun + chance.randrange(-100, 2000)])
            end = None if start is None else start + chance.randrange(-50, 800)
            other = f"w{chance.randrange(number + 1, count + 2)}"
            name, child = chance.choice(
                [
                    ("work", None),
                    ("DBOS.sleep", None),
                    ("DBOS.recv", None),
                    ("start", other),
                    ("DBOS.getResult", other),
                ]
            )
            rows.append(step(f"w{number}", place, start, end, name, child_workflow_id=child))
    try:
        return execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))
    except dn.GraphError:
        return reject()  # workflows that await each other


@examples(100)
@given(trees())
def test_random_times_add_up(graph: nx.DiGraph) -> None:
    path = critical_path(graph)
    if path.empty:
        assert graph.nodes["w0"]["duration"] == pd.Timedelta(0)
        return
    check(path, graph)
    assert path["duration"].sum() == graph.nodes["w0"]["duration"]
    times = self_time(graph)
    assert (times["self"] >= pd.Timedelta(0)).all()
    assert (times["children"] + times["self"] == times["duration"]).all()


def test_the_times_of_a_sequential_run_add_up_over_all_nodes() -> None:
    graph = execution_graph(
        *frames(
            [
                workflow("p", 0, completed=500),
                workflow("c", 20, completed=400, parent_workflow_id="p"),
            ],
            [
                step("p", 1, 10, 20, "c", child_workflow_id="c"),
                step("p", 2, 20, 450, "DBOS.getResult", child_workflow_id="c"),
                step("c", 1, 30, 150),
                step("c", 2, 160, 390),
            ],
        )
    )
    times = self_time(graph)
    assert list(times.columns) == [
        "node", "workflow_id", "function_id", "kind", "name", "duration", "children", "self",
    ]  # fmt: skip
    assert times["self"].sum() == pd.Timedelta(500, unit="ms")
    found = {row.node: (row.duration, row.children) for row in times.itertuples()}
    assert found["p"] == (pd.Timedelta("500ms"), pd.Timedelta("440ms"))
    assert found["p", 2] == (pd.Timedelta("430ms"), pd.Timedelta("380ms"))
    assert found["c"] == (pd.Timedelta("380ms"), pd.Timedelta("350ms"))
    assert times["self"].is_monotonic_decreasing


def test_a_folded_graph_and_one_without_times_are_refused(talk: dn.Client) -> None:
    folded = fold(talk.graph("batch"), budget=10)
    for function in (critical_path, self_time):
        with pytest.raises(dn.GraphError, match="folded"):
            function(folded)
    with pytest.raises(dn.GraphError, match="'w' of the graph has no times"):
        critical_path(execution_graph(*frames([workflow("w", None, completed=None)])))


def test_long_and_deep_runs_are_quick() -> None:
    long = execution_graph(
        frame([workflow("w", 0, completed=10**6)], "workflows"),
        frame([step("w", place, place * 9, place * 9 + 8) for place in range(50_000)], "steps"),
    )
    workflows, rows = [workflow("w0", 0, completed=10**6)], []
    for place in range(3000):
        child = f"w{place + 1}"
        rows.append(step(f"w{place}", 1, place, place, "c", child_workflow_id=child))
        rows.append(
            step(f"w{place}", 2, place, 9000 - place, "DBOS.getResult", child_workflow_id=child)
        )
        workflows.append(
            workflow(child, place, completed=9000 - place, parent_workflow_id=f"w{place}")
        )
    deep = execution_graph(frame(workflows, "workflows"), frame(rows, "steps"))
    for graph in (long, deep):
        path = critical_path(graph)
        self_time(graph)
        assert path["duration"].sum() == pd.Timedelta(10**6, unit="ms")
