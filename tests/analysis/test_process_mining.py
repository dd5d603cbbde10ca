"""Process maps, variants and event logs: against the graphs of single runs, and against pandas."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_statistics import percentile
from written_runs import NOW, WrittenDatabase, run, written_postgres, written_sqlite

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.analysis.run_paths import interval_blocks, transitions
from dbos_notebook.graphs.ordering import order_by_time

NOT_MAPPED = ("message", "forked_from")
"""Edges that only the graph of one run has."""

KEY = ["case:concept:name", "function_id"]

Counts = tuple[Counter[Any], Counter[Any]]


def roots(db: dn.Client) -> list[str]:
    """Return the workflows that no other started; databases before 2.20 record only the steps."""
    every = db.workflows(limit=None)
    steps = db.steps(every)
    starts = steps[steps["function_name"] != "DBOS.getResult"]
    is_child = every["workflow_id"].isin(starts["child_workflow_id"])
    is_child |= every["parent_workflow_id"].notna() | every["forked_from"].notna()
    return list(every.loc[~is_child, "workflow_id"])


def counts(overview: nx.DiGraph[Any]) -> Counts:
    nodes = {
        (key, status): count
        for key, node in overview.nodes.items()
        for status, count in node["statuses"].items()
    }
    edges = {
        (tail, head, edge["kind"]): edge["count"]
        for tail, head, edge in overview.edges.data()
        if edge["kind"] not in NOT_MAPPED
    }
    return Counter(nodes), Counter(edges)


def summed(db: dn.Client, ids: Sequence[str]) -> Counts:
    nodes: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    for workflow_id in ids:
        own_nodes, own_edges = counts(graphs.process_map(db.graph(workflow_id)))
        nodes += own_nodes
        edges += own_edges
    return nodes, edges


def check_totals(db: dn.Client, ids: Sequence[str]) -> nx.DiGraph[Any]:
    overview = db.process_map(workflow_ids=ids)
    assert counts(overview) == summed(db, ids)
    return overview


def test_a_map_of_runs_is_the_sum_of_their_maps(shop: dn.Client) -> None:
    overview = check_totals(shop, roots(shop))
    kinds = {edge["kind"] for _, _, edge in overview.edges.data()}
    assert kinds == {"first", "next", "starts", "returns"}
    assert not nx.is_directed_acyclic_graph(overview)


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_so_it_is_in_older_databases(
    version: str, kind: str, request: pytest.FixtureRequest
) -> None:
    source: Callable[[str], Any] = request.getfixturevalue(f"corpus_{kind}")
    with dn.connect(source(version)) as db:
        overview = check_totals(db, roots(db))
        charged = overview.nodes["step", "checkout", "charge"]
        # Before dbos 2.10, steps have no times.
        assert ("duration_median" in charged) == (version != "2.0.0")
        assert charged["failure_rate"] > 0
        edge = overview.edges[("step", "checkout", "validate"), ("step", "checkout", "charge")]
        assert ("between_median" in edge) == (version != "2.0.0")


def test_concurrent_steps_do_not_follow_each_other(talk: dn.Client) -> None:
    overview = check_totals(talk, ["fan", "batch", "talk"])
    nap = ("step", "fan", "nap")
    # Three at once, one, and two at once.
    assert overview.edges[nap, nap]["count"] == 5
    assert overview.nodes[nap]["first_in"] == 3
    assert overview.nodes[nap]["last_in"] == 2
    assert overview.edges[("workflow", "fan"), nap]["count"] == 3
    (path,) = talk.variants(name="fan")["variant"]
    assert path == "(nap ×3) → nap → (nap ×2)"
    (path,) = talk.variants(name="batch")["variant"]
    assert path == "starts task ×9 → DBOS.getResult ×9"
    # The timeout of recv is recorded as a sleep, which it is not.
    (path,) = talk.variants(name="receiver")["variant"]
    assert path == "DBOS.recv"
    awaiting = check_totals(talk, list(talk.workflows(name="receiver")["workflow_id"]))
    assert set(awaiting.nodes) == {("workflow", "receiver"), ("step", "receiver", "DBOS.recv")}
    recv = awaiting.nodes["step", "receiver", "DBOS.recv"]
    assert recv["first_in"] == recv["last_in"] == recv["count"]


def test_a_step_may_be_named_running(shop_sqlite: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(shop_sqlite, tmp_path / "running.sqlite"))
    with closing(sqlite3.connect(path)) as connection, connection:
        (name, workflow) = connection.execute(
            "SELECT w.name, w.workflow_uuid FROM workflow_status w JOIN operation_outputs o "
            "USING (workflow_uuid) WHERE o.function_name NOT LIKE 'DBOS.%' "
            "AND o.child_workflow_id IS NULL LIMIT 1"
        ).fetchone()
        connection.execute(
            "UPDATE operation_outputs SET function_name = 'running' "
            "WHERE function_name NOT LIKE 'DBOS.%' AND child_workflow_id IS NULL"
        )
        connection.execute(
            "UPDATE workflow_status SET status = 'PENDING', completed_at = NULL "
            "WHERE workflow_uuid = ?",
            (workflow,),
        )
    with dn.connect(path) as db:
        check_totals(db, roots(db))
        overview, log = db.process_map(), db.event_log(limit=None)
        pending = db.workflows(name=name, status="PENDING", limit=None)
    own = log[~log["copied"] & (log["concept:name"] == "running") & (log["case:name"] == name)]
    assert overview.nodes["step", name, "running"]["count"] == len(own) > 1
    assert overview.nodes["running", name]["statuses"] == {"PENDING": len(pending)}


@given(
    st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(-1, 5))), max_size=12)
)
def test_the_order_is_that_of_the_graphs(drawn: list[tuple[int, int | None]]) -> None:
    starts = [None if length is None else start for start, length in drawn]
    ends = [None if length is None else start + length for start, length in drawn]
    order = order_by_time(starts, ends)
    times = [np.array([np.nan if t is None else t for t in each], float) for each in (starts, ends)]
    run = np.zeros(len(drawn), np.int32)
    first, last = interval_blocks(run, *times)
    found = transitions(run, first, last, np.zeros(len(drawn), np.int64))
    pairs = set(zip(found.tail.tolist(), found.head.tolist(), strict=True))
    if not order.joins:
        assert pairs == set(order.edges)
        assert found.first.tolist() == sorted(order.first)
        assert found.last.tolist() == sorted(order.last)


def test_wide_blocks_are_counted_once_for_each_kind_before_them() -> None:
    # 40 concurrent steps of two kinds, and 40 after all of them: 1,600 pairs.
    run = np.zeros(80, np.int32)
    block = np.repeat([0, 1], 40).astype(np.int32)
    kind = np.concatenate([np.arange(40) % 2, np.full(40, 2)])
    found = transitions(run, block, block, kind)
    assert Counter(zip(kind[found.tail].tolist(), kind[found.head].tolist(), strict=True)) == {
        (0, 2): 40,
        (1, 2): 40,
    }


def assert_close(value: pd.Timedelta, durations: pd.Series[Any], share: float) -> None:
    """Check a quantile, of which half a millisecond is rounded up or down."""
    expected = (durations / pd.Timedelta("1ms")).quantile(share)
    assert abs(value / pd.Timedelta("1ms") - expected) <= 0.5001


def is_timeout(log: pd.DataFrame) -> pd.Series[bool]:
    """Return which events are timeouts, which DBOS records as sleeps before what they belong to."""
    operations = {tuple(key): name for *key, name in log[[*KEY, "operation"]].to_numpy()}

    def belongs(case: str, number: int) -> bool:
        if (case, number - 1) in operations:
            return operations[case, number - 1] in ("recv", "get_event")
        return number > 1 and (case, number + 1) not in operations  # it is still awaited

    found = [belongs(*key) for key in log[KEY].itertuples(index=False)]
    return (log["operation"] == "sleep") & pd.Series(found, index=log.index)


def test_durations_and_times_between_are_those_of_the_rows(shop: dn.Client) -> None:
    overview = shop.process_map()
    runs = shop.workflows(limit=None)
    steps = shop.event_log(limit=None)
    steps = steps[~steps["copied"] & (steps["operation"] != "start_child") & ~is_timeout(steps)]
    steps["took"] = steps["time:timestamp"] - steps["start_timestamp"]
    compared = 0
    for (owner, name), group in steps.groupby(["case:name", "concept:name"], observed=True):
        node = overview.nodes["step", owner, name]
        assert node["count"] == len(group)
        assert node["workflows"] == group["case:concept:name"].nunique()
        took = group["took"].dropna()
        for part, share in (("min", 0), ("median", 0.5), ("p95", 0.95), ("max", 1)):
            assert_close(node[f"duration_{part}"], took, share)
        assert node["started_at"] == group["start_timestamp"].min()
        compared += 1
    assert compared > 10
    ended = runs[~runs["status"].isin(["PENDING", "ENQUEUED", "DELAYED"])]
    for name, group in runs.groupby("name", observed=True):
        node = overview.nodes["workflow", name]
        assert node["statuses"] == {
            status: count for status, count in group["status"].value_counts().items() if count
        }
        durations = ended.loc[ended["name"] == name, "duration"].dropna()
        if len(durations):
            assert_close(node["duration_median"], durations, 0.5)
    edge = overview.edges[("step", "order", "price"), ("step", "order", "charge")]
    pairs = steps.sort_values(["case:concept:name", "function_id"])
    following = pairs.shift(-1)
    pairs = pairs[
        (pairs["concept:name"] == "price")
        & (following["concept:name"] == "charge")
        & (following["case:concept:name"] == pairs["case:concept:name"])
    ]
    between = (following["start_timestamp"] - pairs["time:timestamp"]).dropna()
    assert edge["count"] == len(between)
    assert_close(edge["between_median"], between, 0.5)


def test_a_step_that_a_fork_copied_ran_once(db: dn.Client) -> None:
    forks = db.workflows(is_fork=True, name="checkout")["workflow_id"].tolist()
    log = db.event_log(workflow_ids=forks)
    copied = {
        (key, node["function_id"])
        for fork in forks
        for (key, node) in (
            (node["workflow_id"], node)
            for node in db.graph(fork, children=False).nodes.values()
            if node.get("copied")
        )
    }
    assert copied
    rows = log.loc[log["copied"], ["case:concept:name", "function_id"]]
    assert set(rows.itertuples(index=False, name=None)) == copied
    overview = db.process_map(workflow_ids=forks, children=False)
    ran = log[~log["copied"] & (log["operation"] != "start_child")]
    assert sum(node["count"] for node in overview.nodes.values() if node["of"] == "step") == len(
        ran
    )
    # They are a part of the fork's path.
    paths = db.variants(workflow_ids=forks)
    assert all(path.startswith("DBOS.setEvent → validate → charge") for path in paths["variant"])


def test_without_times_nobody_knows_which_steps_were_copied(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    path = corpus_sqlite("2.20.0")
    with dn.connect(path) as db:
        (copied,) = {node.get("copied", 0) for node in db.process_map().nodes.values()} - {0}
        log = db.event_log(is_fork=True)
        assert log["copied"].sum() > 0
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP INDEX idx_operation_outputs_completed_at_function_name")
        for name in ("started_at_epoch_ms", "completed_at_epoch_ms"):
            connection.execute(f"ALTER TABLE operation_outputs DROP COLUMN {name}")
    with dn.connect(path) as db:
        assert db.event_log(is_fork=True)["copied"].isna().all()
        assert not db.event_log(is_fork=False)["copied"].any()
        overview = db.process_map()
        # They count twice.
        assert all("copied" not in node for node in overview.nodes.values())
        assert all("duration_median" not in n for n in overview.nodes.values() if n["of"] == "step")
    assert copied == 1


def unfolded(path: str) -> list[str]:
    """Return the steps of a path, loops unfolded."""
    loops = re.compile(r"\(([^()]*)\) ×(\d)")
    while match := loops.search(path):
        path = path.replace(match[0], " → ".join([match[1]] * int(match[2])))
    steps = []
    for part in path.split(" → "):
        name, _, count = part.partition(" ×")
        steps += [name] * int(count or 1)
    return steps


def test_variants_are_the_paths_of_the_rows(shop: dn.Client) -> None:
    found = shop.variants(limit=None, max_ids=None)
    runs = shop.workflows(limit=None).set_index("workflow_id")
    assert found["count"].sum() == len(runs)
    every = [key for ids in found["workflow_ids"] for key in ids]
    assert sorted(every) == sorted(runs.index)
    assert found["count"].is_monotonic_decreasing
    log = shop.event_log(limit=None)
    checked = 0
    for row in found.itertuples():
        group = runs.loc[list(row.workflow_ids)]
        assert set(group["name"]) == {row.name}
        assert group["created_at"].is_monotonic_decreasing
        assert row.example == row.workflow_ids[0]
        assert row.share == pytest.approx(len(group) / (runs["name"] == row.name).sum())
        assert (row.first_seen, row.last_seen) == (
            group["created_at"].min(),
            group["created_at"].max(),
        )
        active = group["status"].isin(["PENDING", "ENQUEUED", "DELAYED"])
        assert set(active) == {not row.ended}
        if not row.ended:
            assert row.variant.endswith("…")
            assert pd.isna(row.error_rate)
            assert pd.isna(row.p50)
            continue
        assert row.error_rate == pytest.approx((group["status"] != "SUCCESS").mean())
        for value, share in ((row.p50, 0.5), (row.p90, 0.9)):
            known = group["duration"].dropna()
            assert (value is pd.NaT) if known.empty else (value == percentile(known, share))
        if "∥" in row.variant or row.name == "quote":
            continue
        for key in row.workflow_ids:
            events = log[log["case:concept:name"] == key].sort_values("function_id")
            names = [
                f"starts {name}" if operation == "start_child" else name
                for name, operation in zip(events["concept:name"], events["operation"], strict=True)
            ]
            timeouts = row.name == "order" and "DBOS.sleep" in names  # of its recv
            if names and not timeouts:
                assert unfolded(row.variant) == names
                checked += 1
    assert checked > 30
    (path,) = set(shop.variants(name="quote", status="SUCCESS")["variant"])
    assert path == "(ask_supplier ×3)"


def test_hidden_operations_are_no_part_of_a_path(shop: dn.Client) -> None:
    hidden = shop.variants(name="order", hide="system")
    assert not hidden["variant"].str.contains("DBOS.setEvent").any()
    assert hidden["variant"].str.contains("starts fulfil").any()
    assert len(hidden) <= len(shop.variants(name="order"))
    with pytest.raises(dn.FilterError, match="Did you mean 'sleep'"):
        shop.variants(hide=["slep"])


def test_groups_can_be_passed_on_up_to_a_number(shop: dn.Client) -> None:
    found = shop.variants(name="order", max_ids=2)
    group = found.iloc[0]
    assert len(group["workflow_ids"]) == 2 < group["count"]
    assert set(shop.workflows(group["workflow_ids"])["workflow_id"]) == set(group["workflow_ids"])
    # Rows of the result stand for these IDs, as those of failures do.
    assert len(shop.workflows(group)) == 2
    assert len(shop.workflows(found)) == found["workflow_ids"].map(len).sum()
    few = shop.variants(limit=2)
    assert len(few) == 2
    assert few.attrs["truncated"]
    assert not found.attrs["truncated"]


def test_rare_steps_and_edges_are_left_out_and_counted(shop: dn.Client) -> None:
    whole = shop.process_map()
    assert whole.graph["left_out"] == {}
    overview = shop.process_map(min_share=0.3)
    left_out = overview.graph["left_out"]
    assert left_out["steps"] == len(whole) - len(overview)
    assert left_out["edges"] == whole.number_of_edges() - overview.number_of_edges()
    rare = [node for key, node in whole.nodes.items() if key not in overview]
    assert rare
    assert all(node["of"] == "step" and node["share"] < 0.3 for node in rare)
    assert all(edge["share"] >= 0.3 for _, _, edge in overview.edges.data())
    said = f"left out as rare: {left_out['steps']} kinds of steps"
    assert said in dn.draw(overview).svg
    often = shop.process_map(min_count=20)
    assert all(edge["count"] >= 20 for _, _, edge in often.edges.data())
    for argument in ({"min_share": 5}, {"min_share": "rare"}, {"min_count": -1}):
        with pytest.raises(dn.FilterError, match=next(iter(argument))):
            shop.process_map(**argument)


def test_children_of_the_selected_runs_are_included(shop: dn.Client) -> None:
    overview = shop.process_map(name="order")
    names = {node["name"] for node in overview.nodes.values() if node["of"] == "workflow"}
    assert names == {"order", "fulfil", "pack", "ship"}
    alone = shop.process_map(name="order", children=False)
    assert {node["workflow_name"] for node in alone.nodes.values()} == {"order"}
    assert alone.nodes["workflow", "order"]["count"] == len(shop.workflows(name="order"))


def test_what_runs_now_is_said(shop: dn.Client) -> None:
    overview = shop.process_map()
    running = [node for key, node in overview.nodes.items() if key[0] == "running"]
    pending = shop.workflows(status="PENDING", limit=None)
    assert sum(node["count"] for node in running) == len(pending)
    assert "running now" in dn.draw(overview).text


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> WrittenDatabase:
    """A database whose rows a test writes."""
    if request.param == "sqlite":
        return written_sqlite(tmp_path)
    return written_postgres(request.getfixturevalue("postgres_server"))


def step(key: str, number: int, start: int | None, end: int | None, **values: Any) -> Any:
    """Return the row of a step of a run; its name is a letter by its number."""
    return {
        "workflow_uuid": f"run-{key}",
        "function_id": number,
        "function_name": "abc"[number - 1],
        "started_at_epoch_ms": start,
        "completed_at_epoch_ms": end,
        **values,
    }


def test_odd_times_are_missing_and_not_zero(database: WrittenDatabase) -> None:
    runs = [
        # Its first step began before it: the clock of the database is five seconds ahead.
        run("skew", NOW, started_at_epoch_ms=NOW, completed_at=NOW + 900),
        run("old", NOW + 1, started_at_epoch_ms=NOW, completed_at=NOW + 900),
        run("back", NOW + 2, started_at_epoch_ms=NOW, completed_at=NOW + 900),
    ]
    steps = [
        step("skew", 1, NOW - 5_000, NOW - 4_900),
        step("skew", 2, NOW - 4_800, NOW - 4_700),
        # Without times: in the order of numbers.
        step("old", 1, None, None),
        step("old", 2, None, None),
        step("old", 3, NOW + 10, NOW + 20),
        # A clock was set back: it comes after the steps before it, and before those after it.
        step("back", 1, NOW + 50, NOW + 60),
        step("back", 2, NOW + 70, NOW + 10),
        step("back", 3, NOW + 20, NOW + 30),
    ]
    database.write(runs, operation_outputs=steps)
    with dn.connect(database.url) as db:
        overview = check_totals(db, ["run-skew", "run-old", "run-back"])
        assert db.variants()["variant"].tolist() == ["a → b → c", "a → b"]
        log = db.event_log(workflow_ids="run-old")
    a, b, c = (("step", "work", letter) for letter in "abc")
    first = overview.edges[("workflow", "work"), a]
    assert (first["count"], first["between_median"]) == (3, pd.Timedelta("50ms"))
    # 100 ms in one run; not known in another, and in the third as well.
    assert overview.edges[a, b]["count"] == 3
    assert overview.edges[a, b]["between_median"] == pd.Timedelta("55ms")
    assert overview.edges[b, c]["count"] == 2
    assert log["concept:name"].tolist() == ["a", "b", "c"]
    assert log["time:timestamp"].isna().tolist() == [True, True, False]


def test_loops_are_folded_by_how_often_they_repeat(database: WrittenDatabase) -> None:
    counts_of = {"one": 1, "three": 3, "many": 12, "more": 40, "most": 100}
    runs = [run(key, NOW, completed_at=NOW + 10_000) for key in counts_of]
    steps = []
    for key, count in counts_of.items():
        for number in range(1, 2 * count + 1):
            start = NOW + 10 * number
            name = "poll" if number % 2 else "write"
            steps.append(step(key, 1, start, start + 5) | {"function_id": number})
            steps[-1]["function_name"] = name
    database.write(runs, operation_outputs=steps)
    with dn.connect(database.url) as db:
        found = db.variants().set_index("variant")["count"].to_dict()
        overview = db.process_map()
    assert found == {
        "poll → write": 1,
        "(poll → write) ×3": 1,
        "(poll → write) ×10–99": 2,
        "(poll → write) ×100–999": 1,
    }
    poll, write = (("step", "work", name) for name in ("poll", "write"))
    assert overview.edges[poll, write]["count"] == 156
    assert overview.edges[write, poll]["count"] == 151
    assert overview.edges[write, poll]["workflows"] == 4
    assert overview.nodes[write]["last_in"] == 5


def test_a_filter_that_names_nothing_gives_empty_results(shop: dn.Client) -> None:
    overview = shop.process_map(name="nothing")
    assert len(overview) == 0
    assert overview.graph["runs"] == 0
    assert "no workflows" in dn.draw(overview).svg
    for method in (shop.variants, shop.event_log):
        empty, some = method(name="nothing"), method(name="order")
        assert empty.empty
        assert empty.columns.tolist() == some.columns.tolist()
        kinds = [(str(a), str(b)) for a, b in zip(empty.dtypes, some.dtypes, strict=True) if a != b]
        assert all(a == b for a, b in kinds), kinds


def test_the_event_log_has_the_columns_of_process_mining_tools(shop: dn.Client) -> None:
    log = shop.event_log(limit=None)
    assert log.columns.tolist()[:5] == [
        "case:concept:name",
        "concept:name",
        "start_timestamp",
        "time:timestamp",
        "lifecycle:transition",
    ]
    runs = shop.workflows(limit=None)
    steps = shop.steps(runs)
    assert len(log) == len(steps)
    assert str(log["time:timestamp"].dtype) == "datetime64[ms, UTC]"
    assert set(log["lifecycle:transition"]) == {"complete"}
    merged = log.merge(
        steps,
        left_on=["case:concept:name", "function_id"],
        right_on=["workflow_id", "function_id"],
    )
    assert (merged["concept:name"] == merged["function_name"]).all()
    assert (merged["time:timestamp"] == merged["completed_at"]).all()
    owner = runs.set_index("workflow_id").loc[log["case:concept:name"]]
    for name in ("status", "app_version", "name"):
        found, expected = (column.astype("str") for column in (log[f"case:{name}"], owner[name]))
        assert found.tolist() == expected.tolist()
    # A case is never cut.
    few = shop.event_log(limit=3)
    newest = shop.workflows(limit=3)["workflow_id"]
    assert set(few["case:concept:name"]) <= set(newest)
    assert len(few) == len(shop.steps(newest))
    assert few.attrs["truncated"]
    assert "pm4py" not in sys.modules


def test_a_step_of_a_deleted_run_is_ignored(shop_sqlite: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite"
    path.write_bytes(shop_sqlite.read_bytes())
    with dn.connect(path) as db:
        before = counts(db.process_map())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name) "
            "VALUES ('nobody', 1, 'stray')"
        )
    with dn.connect(path) as db:
        assert counts(db.process_map()) == before
