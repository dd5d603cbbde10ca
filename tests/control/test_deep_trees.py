"""Trees 1,500 levels deep, and how few statements they need."""

from __future__ import annotations

import base64
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from raw_rows import write

import dbos_notebook as dn
from dbos_notebook import graphs
from dbos_notebook.control.failure_analysis import ForkChain, _covered_by
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.database.postgres import PostgresSession
from dbos_notebook.database.sqlite import SQLiteSession
from dbos_notebook.graphs.similarity import WorkflowTree
from dbos_notebook.tables.failed_steps import _origins

DEPTH = 1500
BEGAN = 1_795_000_000_000
ERROR = base64.b64encode(pickle.dumps(ValueError("bottom"))).decode()
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT "


def add_chain(db: dn.Client, name: str, status: str, depth: int = DEPTH) -> None:
    """Write workflows of which each started the next; the last has a step, which ended likewise."""
    failed = "?" if status == "ERROR" else "NULLIF(?, ?)"
    error = (ERROR,) if status == "ERROR" else (ERROR, ERROR)
    write(
        db,
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, created_at, updated_at, "
        "completed_at, error, parent_workflow_id, application_version, executor_id, serialization) "
        f"{NUMBERS} CAST(? AS TEXT) || i, CAST(? AS TEXT), 'recurse', {BEGAN} + i * 10, {BEGAN} + "
        f"1000000 - i * 10, {BEGAN} + 1000000 - i * 10, CAST({failed} AS TEXT), CASE WHEN i > 0 "
        "THEN CAST(? AS TEXT) || (i - 1) END, 'v1', 'local', 'py_pickle' FROM n",
        *(depth - 1, name, status, *error, name),
    )
    insert = (
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, "
        "child_workflow_id, error, started_at_epoch_ms, completed_at_epoch_ms, serialization) "
    )
    write(
        db,
        f"{insert}{NUMBERS} CAST(? AS TEXT) || i, 1, CASE WHEN i < {depth - 1} THEN 'recurse' ELSE "
        f"'divide' END, CASE WHEN i < {depth - 1} THEN CAST(? AS TEXT) || (i + 1) END, CASE WHEN "
        f"i = {depth - 1} THEN CAST({failed} AS TEXT) END, {BEGAN} + i * 10 + 5, "
        f"{BEGAN} + i * 10 + 6, 'py_pickle' FROM n",
        *(depth - 1, name, name, *error),
    )
    write(
        db,
        f"{insert}{NUMBERS} CAST(? AS TEXT) || i, 2, 'DBOS.getResult', CAST(? AS TEXT) || (i + 1), "
        f"CAST({failed} AS TEXT), {BEGAN} + i * 10 + 7, {BEGAN} + 1000000 - i * 10 - 1, "
        "'py_pickle' FROM n",
        *(depth - 2, name, name, *error),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def deep(
    request: pytest.FixtureRequest,
    corpus_sqlite: Callable[[str], Path],
    corpus_postgres: Callable[[str], str],
) -> Iterator[dn.Client]:
    """A client on a database with two trees 1,500 workflows deep: one failed, one did not."""
    restore = corpus_sqlite if request.param == "sqlite" else corpus_postgres
    with dn.connect(restore("3.4.0")) as client:
        add_chain(client, "bad", "ERROR")
        add_chain(client, "good", "SUCCESS")
        yield client


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the statements that are sent to the database meanwhile."""
    sent: list[str] = []
    with monkeypatch.context() as patch:
        for session in (SQLiteSession, PostgresSession):
            for name in ("rows", "batches"):
                real = getattr(session, name)

                def call(self: Any, statement: Any, *rest: Any, real: Any = real) -> Any:
                    sent.append(str(statement)[:300])
                    return real(self, statement, *rest)

                patch.setattr(session, name, call)
        yield sent


def test_a_tree_is_read_at_any_depth(deep: dn.Client) -> None:
    tree = deep.tree("bad0")
    assert tree["depth"].tolist() == list(range(DEPTH))
    assert set(tree["root_workflow_id"]) == {"bad0"}
    assert deep.tree("bad0", depth=3)["workflow_id"].tolist() == ["bad0", "bad1", "bad2", "bad3"]
    assert len(deep.tree("bad0", depth=1000)) == 1001
    assert len(deep.steps("bad0", children=True)) == 2 * DEPTH - 1


def test_a_deep_failure_is_drawn_with_both_its_ends(deep: dn.Client) -> None:
    graph = deep.graph("bad0")
    assert len(graph) == 3 * DEPTH - 1
    folded = graphs.fold(graph)
    assert len(folded) <= 80
    path = {"bad0", "bad1", f"bad{DEPTH - 2}", f"bad{DEPTH - 1}", (f"bad{DEPTH - 1}", 1)}
    assert path <= set(folded)
    (group,) = [node for node in folded.nodes.values() if node["kind"] == "group"]
    assert (group["levels"], group["count"], group["status"]) == (1488, 1488, "ERROR")
    assert group["on_failing_path"]
    assert group["failures_inside"] == 1488  # the steps that awaited the next level
    # A timeline has room for more.
    for picture, levels in ((dn.draw(graph), 1488), (deep.timeline("bad0"), 1476)):
        assert f"{levels:,} levels of recurse" in picture.text
        assert f"recurse ×{DEPTH:,} › divide #1" in picture.svg
        assert len(picture.svg) < 300_000
    assert len(graphs.critical_path(graph)) > DEPTH


def test_a_deep_success_is_followed_to_its_deepest_workflow(deep: dn.Client) -> None:
    folded = graphs.fold(deep.graph("good0"))
    assert len(folded) <= 80
    assert {"good0", f"good{DEPTH - 1}", (f"good{DEPTH - 1}", 1)} <= set(folded)
    assert [n["levels"] for n in folded.nodes.values() if n["kind"] == "group"] == [1488]


@pytest.mark.parametrize("name", ["bad", "good"])
def test_any_level_of_a_deep_tree_can_be_opened(deep: dn.Client, name: str) -> None:
    widget = deep.inspect(f"{name}0")
    run = widget._run(f"{name}0")
    opened = run.groups_to_open((f"{name}700", 1), {})
    shown = run.picture({"open": opened}).graph
    assert shown is not None
    assert (f"{name}700", 1) in shown
    assert len(shown) < 150
    assert len(opened) <= 6


def test_a_deep_tree_is_saved_as_a_page(deep: dn.Client, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    began = time.monotonic()
    deep.inspect("bad0").save_html(page)
    assert time.monotonic() - began < 60
    assert "1,488 levels of recurse" in page.read_text()


def test_control_plans_for_a_deep_tree(deep: dn.Client) -> None:
    began = time.monotonic()
    repair = deep.repair("bad0", application_version="v2", plan=True)
    assert [item.workflow_id for item in repair.items] == [
        f"bad{level}" for level in reversed(range(DEPTH))
    ]
    assert repair.counts["ready"] == DEPTH
    assert len(deep.cancel("bad0", cancel_children=True, plan=True)) == DEPTH
    assert len(deep.delete("bad0", delete_children=True, plan=True)) == DEPTH
    status = deep.repair_status([f"bad{DEPTH - 1}"])
    assert status["state"].tolist() == ["unaddressed"]
    assert time.monotonic() - began < 60


def test_a_cycle_of_parents_terminates(deep: dn.Client) -> None:
    add_chain(deep, "ring", "ERROR", 3)
    write(
        deep,
        "UPDATE {}workflow_status SET parent_workflow_id = 'ring2', forked_from = 'ring1' "
        "WHERE workflow_uuid = 'ring0'",
    )
    write(
        deep,
        "UPDATE {}workflow_status SET forked_from = 'ring0' WHERE workflow_uuid = 'ring1'",
    )
    assert set(deep.tree("ring1")["workflow_id"]) == {"ring0", "ring1", "ring2"}
    assert set(deep.tree("ring1", depth=9)["workflow_id"]) == {"ring0", "ring1", "ring2"}
    assert len(deep.cancel("ring0", cancel_children=True, plan=True)) == 3
    assert len(deep.repair_status(["ring0"])) == 1
    assert len(deep.repair("ring0", plan=True)) == 3


def test_a_tree_continues_below_a_deleted_workflow(deep: dn.Client) -> None:
    add_chain(deep, "gap", "SUCCESS", 5)
    write(deep, "DELETE FROM {}workflow_status WHERE workflow_uuid = 'gap2'")
    tree = deep.tree("gap0")
    # The start step of gap2 went with it; gap3 still names its parent.
    assert dict(zip(tree["workflow_id"], tree["depth"], strict=True)) == {
        "gap0": 0,
        "gap1": 1,
        "gap3": 3,
        "gap4": 4,
    }


def test_a_missing_root_is_an_error_with_its_id(deep: dn.Client) -> None:
    with pytest.raises(dn.WorkflowNotFoundError, match="'bad-0'"):
        deep.tree(["bad0", "bad-0"])
    with pytest.raises(dn.WorkflowNotFoundError, match="'bad-0'"):
        deep.graph("bad-0", forks=True)


# At most two of each are for the steps that made workflows fail; details read events and streams.
@pytest.mark.parametrize(
    ("what", "most"),
    [
        (lambda db: db.tree("bad0"), 2),
        (lambda db: db.graph("bad0"), 3),
        (lambda db: db.graph("bad0", forks=True), 4),
        (lambda db: db.timeline("checkout-1").svg, 3),
        (lambda db: db.workflow("bad0"), 3),
        (lambda db: db.inspect("bad0"), 4),
        (lambda db: db.inspect("bad0")._on_node({"id": "bad0", "key": "bad3", "view": {}}), 10),
        (lambda db: db.explore()._on_page({"view": {}}), 5),
        (lambda db: db.explore()._on_children({"id": "bad0"}), 4),
        (lambda db: db.explore()._on_details({"id": "bad0"}), 7),
        (lambda db: db.explore()._on_choices({}), 1),
        (lambda db: db.cancel("bad0", cancel_children=True, plan=True), 3),
    ],
)
def test_deep_trees_need_few_statements(
    deep: dn.Client, monkeypatch: pytest.MonkeyPatch, what: Callable[[dn.Client], Any], most: int
) -> None:
    with counted(monkeypatch) as sent:
        what(deep)
    assert 0 < len(sent) <= most, sent


def test_a_repair_plan_sends_no_more_statements_for_a_deep_tree(
    deep: dn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []
    for workflow_id in ("bad0", f"bad{DEPTH - 1}"):
        with counted(monkeypatch) as sent:
            deep.repair(workflow_id, plan=True)
        numbers.append(len(sent))
    assert numbers[0] == numbers[1] <= 15, sent


def test_a_deep_tree_takes_time_in_proportion_to_its_depth(deep: dn.Client) -> None:
    """Each level must not walk all those below it: count what is looked up, not seconds."""
    graph = deep.graph("bad0")
    reads: list[object] = []

    class CountedNodes(dict[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            reads.append(key)
            return super().__getitem__(key)

    tree = WorkflowTree.of(graph)
    tree.nodes = CountedNodes(tree.nodes)
    failures = {tree.workflow_failure(f"bad{level}") for level in range(DEPTH)}
    assert {failure and failure.step for failure in failures} == {"divide"}
    assert len(reads) < 20 * DEPTH


def test_the_origins_of_failures_are_found_in_one_walk() -> None:
    class CountedRows(dict[str, dict[str, Any]]):
        reads = 0

        def __getitem__(self, key: str) -> dict[str, Any]:
            self.reads += 1
            return super().__getitem__(key)

    def awaits(child: str | None) -> dict[str, Any]:
        return {"child_workflow_id": child, "function_name": "await", "function_id": 2}

    rows = CountedRows({str(level): awaits(str(level + 1)) for level in range(DEPTH)})
    rows["circle-a"], rows["circle-b"] = awaits("circle-b"), awaits("circle-a")
    rows["alone"] = awaits(None)
    caused = dict.fromkeys(rows, True) | {"alone": False}
    found = dict(zip(rows, _origins(rows, rows, caused), strict=True))
    bottom = ("await", 2, str(DEPTH - 1))
    assert {found[str(level)] for level in range(DEPTH)} == {bottom}
    assert {found["circle-a"], found["circle-b"]} == {("await", 2, "circle-b")}
    assert found["alone"] == (None, None, "alone")
    assert rows.reads <= 3 * len(rows)


def test_a_fork_that_covers_a_deep_tree_is_looked_up_once_for_each_level() -> None:
    class CountedForks(dict[str, ForkChain]):
        reads = 0

        def get(self, key: str, default: Any = None) -> Any:
            self.reads += 1
            return super().get(key, default)

    rows = {
        str(level): WorkflowRecord(str(level), "ERROR", parent_workflow_id=str(level - 1))
        for level in range(1, DEPTH)
    }
    forks = CountedForks({"700": ForkChain({}, best=WorkflowRecord("fork", "SUCCESS"))})
    known: dict[str, str | None] = {}
    covering = {
        level: _covered_by(row, rows, forks, known) for level, row in reversed(rows.items())
    }
    assert {level for level, fork in covering.items() if fork == "fork"} == {
        str(level) for level in range(701, DEPTH)
    }
    assert {fork for fork in covering.values() if fork != "fork"} == {None}
    assert forks.reads <= DEPTH
