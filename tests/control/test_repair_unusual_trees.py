"""Repair of trees of unusual shapes, written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_rows import add_workflow, awaits, write

import dbos_notebook as dn
from dbos_notebook.control.failure_analysis import Cause
from dbos_notebook.control.fork_points import ForkPoint
from dbos_notebook.control.repair import rank_by_depth


@pytest.fixture
def db(corpus_sqlite: Callable[[str], Path]) -> Iterator[dn.Client]:
    with dn.connect(corpus_sqlite("3.4.0")) as client:
        yield client


def test_a_fork_of_a_fork_takes_the_place_of_what_it_repaired(db: dn.Client) -> None:
    add_workflow(db, "child", ("leaf", True, None))
    add_workflow(db, "parent", *awaits("child"))
    add_workflow(db, "first", ("leaf", True, None), forked_from="child")
    add_workflow(db, "second", ("leaf", False, None), forked_from="first", status="SUCCESS")
    # Also where the fork in between is asked about as well.
    status = db.repair_status(["child", "first"])
    assert status["state"].tolist() == ["repaired", "repaired"]
    receipt = db.repair("parent", timeout=0)
    child, parent = receipt.lines
    assert (child.outcome, child.new_workflow_id) == ("unchanged", "second")
    assert parent.outcome == "done"
    steps = db.steps(parent.new_workflow_id)
    assert steps["child_workflow_id"].tolist() == ["second"]
    assert len(db.workflows(forked_from=["child", "first"])) == 2


def test_a_cycle_of_failed_workflows_is_refused(db: dn.Client) -> None:
    add_workflow(db, "one", *awaits("two"))
    add_workflow(db, "two", *awaits("one"))
    add_workflow(db, "self", *awaits("self"))
    add_workflow(db, "above", *awaits("one"))
    for asked in ("one", "self", "above"):
        plan = db.repair(asked, plan=True)
        assert plan.counts["refused"] == len(plan)
        with pytest.raises(dn.RefusedError, match="in a circle"):
            db.repair(asked)
    assert set(plan.apply().to_frame()["outcome"]) == {"unchanged"}


def test_a_cycle_of_forks_terminates(db: dn.Client) -> None:
    add_workflow(db, "one", ("leaf", True, None), forked_from="two")
    add_workflow(db, "two", ("leaf", True, None), forked_from="one")
    assert db.repair_status(["one", "two"])["state"].tolist() == ["failed again"] * 2
    assert db.repair(["one", "two"], timeout=0).counts["done"] == 1


def test_a_failed_fork_and_its_original_are_not_both_repaired(db: dn.Client) -> None:
    add_workflow(db, "child", ("leaf", True, None))
    for number, (fork, original) in enumerate([("f1", "child"), ("f2", "f1"), ("f3", "child")]):
        add_workflow(db, fork, ("leaf", True, None), forked_from=original)
        write(
            db,
            "UPDATE {}workflow_status SET created_at = ? WHERE workflow_uuid = ?",
            10 + number,
            fork,
        )
    plan = db.repair(["child", "f1", "f2", "f3"], plan=True)
    assert {item.workflow_id: item.verdict for item in plan.items} == {
        "child": "unchanged",
        "f1": "unchanged",
        "f2": "unchanged",
        "f3": "ready",
    }
    assert plan.items[0].effect == "f3, of the same chain of forks, is repaired instead"
    receipt = plan.apply()
    assert (receipt.counts["done"], receipt.counts["unchanged"]) == (1, 3)
    # A parent needs a fork of the child that it started.
    add_workflow(db, "leaf", ("leaf", True, None))
    add_workflow(db, "copy", ("leaf", True, None), forked_from="leaf")
    add_workflow(db, "above", *awaits("leaf"))
    plan = db.repair(["leaf", "copy", "above"], plan=True)
    verdicts = {item.workflow_id: item.verdict for item in plan.items}
    assert verdicts == {"leaf": "ready", "copy": "unchanged", "above": "ready"}


def test_failures_that_are_replayed_are_counted_in_the_plan(db: dn.Client) -> None:
    for child in ("a", "b", "c"):
        add_workflow(db, child, ("leaf", True, None))
    steps = [*awaits("a"), *awaits("b"), *awaits("c")]
    add_workflow(db, "parent", *steps)
    plan = db.repair("parent", plan=True)
    assert [item.workflow_id for item in plan.items] == ["c", "parent"]
    assert plan.items[1].effect == (
        "runs again from step 6 (DBOS.getResult), once c has been repaired; 2 other failed "
        "children are not repaired: their recorded failures are replayed"
    )


def test_the_heights_of_a_deep_tree_are_measured() -> None:
    point = ForkPoint(1, None)
    below = {f"d{number}": Cause(point, (f"d{number + 1}",)) for number in range(2_000)}
    causes = {**below, "d2000": Cause(point)}
    assert rank_by_depth(causes) == [f"d{number}" for number in reversed(range(2_001))]
    assert not any(cause.problem for cause in causes.values())


def test_a_child_that_two_parents_share_is_forked_once(db: dn.Client) -> None:
    add_workflow(db, "shared", ("leaf", True, None))
    add_workflow(db, "left", *awaits("shared"))
    add_workflow(db, "right", *awaits("shared"))
    receipt = db.repair(["left", "right"], wait=False)
    new = {line.workflow_id: line.new_workflow_id for line in receipt.lines}
    assert receipt.counts["done"] == 3
    for parent in ("left", "right"):
        assert db.steps(new[parent])["child_workflow_id"].tolist() == [new["shared"]]


def test_a_workflow_that_awaits_a_missing_child_is_refused(db: dn.Client) -> None:
    add_workflow(db, "lost", ("DBOS.getResult", True, "nowhere"))
    with pytest.raises(dn.RefusedError, match="awaits nowhere, which does not exist"):
        db.repair("lost")


def test_force_does_not_treat_a_success_as_failed(db: dn.Client) -> None:
    add_workflow(db, "leaf", ("leaf", True, None))
    (line,) = db.repair("leaf").lines
    write(db, "UPDATE {}workflow_status SET status = 'SUCCESS' WHERE forked_from = 'leaf'")
    (again,) = db.repair("leaf", force=True).lines
    assert again.detail == (
        f"already forked as {line.new_workflow_id}, which is SUCCESS. Pass another key=… to try "
        "again"
    )
