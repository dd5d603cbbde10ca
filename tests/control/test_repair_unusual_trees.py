"""Repair of trees of unusual shapes, written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from raw_rows import add_workflow, awaits, set_status, write

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


def add_tree(db: dn.Client, name: str, status: str) -> str:
    """Write a failed tree of three levels and a fork of its root; return the fork's ID."""
    add_workflow(db, f"{name}-leaf", ("leaf", True, None))
    add_workflow(db, f"{name}-middle", *awaits(f"{name}-leaf"))
    add_workflow(db, name, *awaits(f"{name}-middle"))
    add_workflow(db, f"{name}-fork", ("other", True, None), forked_from=name, status=status)
    return f"{name}-fork"


def test_what_failed_below_a_workflow_that_has_a_fork_is_not_repaired(idle_db: dn.Client) -> None:
    for name, status, verb in [
        ("a", "SUCCESS", "covered by"),
        ("b", "PENDING", "left to"),
        ("c", "ENQUEUED", "left to"),
    ]:
        fork = add_tree(idle_db, name, status)
        plan = idle_db.repair(name, plan=True)
        below = f"{verb} {fork}, a fork of {name}, which is {status}"
        assert [(item.workflow_id, item.verdict, item.effect) for item in plan.items] == [
            (f"{name}-leaf", "unchanged", below),
            (f"{name}-middle", "unchanged", below),
            (name, "unchanged", f"already forked as {fork}, which is {status}"),
        ]
        receipt = plan.apply()
        assert [line.detail for line in receipt.lines] == [item.effect for item in plan.items]
        assert receipt.counts["unchanged"] == 3
        # Unless it is forced to fork the workflow again.
        assert idle_db.repair(name, force=True, plan=True).counts["ready"] == 3
    # A fork that failed takes no place.
    add_tree(idle_db, "d", "ERROR")
    assert idle_db.repair("d", plan=True).counts["ready"] == 3


def test_what_cannot_be_repaired_below_a_repaired_workflow_refuses_nothing(
    idle_db: dn.Client,
) -> None:
    add_workflow(idle_db, "one", *awaits("two"))
    add_workflow(idle_db, "two", *awaits("one"))
    add_workflow(idle_db, "above", *awaits("one"))
    add_workflow(idle_db, "fork", forked_from="above", status="SUCCESS")
    assert idle_db.repair("above").counts["unchanged"] == 3


def test_a_child_that_is_wanted_otherwise_is_repaired_below_a_repaired_workflow(
    idle_db: dn.Client,
) -> None:
    add_tree(idle_db, "a", "SUCCESS")

    def ready(*ids: str) -> list[str]:
        plan = idle_db.repair(list(ids), plan=True)
        return [item.workflow_id for item in plan.items if item.verdict == "ready"]

    assert ready("a", "a-middle") == ["a-leaf", "a-middle"]
    assert ready("a", "a-leaf") == ["a-leaf"]
    # Two parents share a child, and one of them has no fork.
    add_workflow(idle_db, "other", *awaits("a-leaf"))
    assert ready("a", "other") == ["a-leaf", "other"]


def test_an_original_is_not_preferred_for_a_parent_that_is_not_repaired(
    idle_db: dn.Client,
) -> None:
    add_tree(idle_db, "a", "SUCCESS")
    add_workflow(idle_db, "copy", ("leaf", True, None), forked_from="a-leaf")
    plan = idle_db.repair(["a", "a-leaf", "copy"], plan=True)
    verdicts = {item.workflow_id: item.verdict for item in plan.items}
    assert [one for one in verdicts if verdicts[one] == "ready"] == ["copy"]


def test_a_failed_fork_takes_the_place_of_the_tree_below_its_original(idle_db: dn.Client) -> None:
    fork = add_tree(idle_db, "a", "ERROR")
    plan = idle_db.repair(["a", fork], plan=True)
    instead = f"{fork}, of the same chain of forks as a, is repaired instead"
    assert {item.workflow_id: item.verdict for item in plan.items} == {
        "a-leaf": "unchanged",
        fork: "ready",
        "a-middle": "unchanged",
        "a": "unchanged",
    }
    receipt = plan.apply()
    assert receipt.counts == {**receipt.counts, "done": 1, "unchanged": 3}
    assert {line.detail for line in receipt.lines if line.workflow_id != fork} == {
        instead,
        f"{fork}, of the same chain of forks, is repaired instead",
    }
    # A fork that awaits the same child needs its repair.
    add_tree(idle_db, "b", "ERROR")
    add_workflow(idle_db, "b-late", *awaits("b-middle"), forked_from="b")
    plan = idle_db.repair(["b", "b-late"], plan=True)
    ready = [item.workflow_id for item in plan.items if item.verdict == "ready"]
    assert ready == ["b-leaf", "b-middle", "b-late"]


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


def test_without_waiting_no_parent_is_forked_onto_a_fork_that_has_failed(
    idle_db: dn.Client,
) -> None:
    add_workflow(idle_db, "leaf", ("leaf", True, None))
    add_workflow(idle_db, "middle", *awaits("leaf"))
    add_workflow(idle_db, "top", *awaits("middle"))
    (line,) = idle_db.repair("leaf").lines
    fork = str(line.new_workflow_id)
    for status in ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
        set_status(idle_db, fork, status)
        receipt = idle_db.repair("top", wait=False)
        assert receipt.counts["unchanged"] == 3
        failed = f"its child leaf failed again: {fork} is {status}"
        assert receipt.lines[1].detail == failed
        assert receipt.lines[2].detail == f"its child middle was not repaired: {failed}"
    # Resumed, it may succeed: its parents are forked and await it.
    set_status(idle_db, fork, "ENQUEUED")
    assert idle_db.repair("top", wait=False).counts["done"] == 2


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


CHAIN_STATES = {
    # What the other fork of the original is: the state of the failed fork, and what repair says.
    "SUCCESS": ("repaired", "F2, of the same chain of forks, succeeded"),
    "PENDING": ("in progress", "F2, of the same chain of forks, runs"),
    "ENQUEUED": ("in progress", "F2, of the same chain of forks, will run: it is ENQUEUED"),
}


@pytest.mark.parametrize("status", CHAIN_STATES)
@pytest.mark.parametrize("original", ["kept", "deleted"])
def test_a_failed_fork_is_repaired_by_another_fork_of_its_original(
    idle_db: dn.Client, status: str, original: str
) -> None:
    if original == "kept":
        add_workflow(idle_db, "B", ("charge", True, None), at=10)
        mark = "UPDATE {}workflow_status SET was_forked_from = (1 = 1) WHERE workflow_uuid = 'B'"
        write(idle_db, mark)
    add_workflow(idle_db, "F", ("charge", True, None), forked_from="B", at=20)
    add_workflow(idle_db, "F2", ("charge", False, None), forked_from="B", at=30, status=status)
    write(idle_db, "UPDATE {}workflow_status SET queue_name = 'q' WHERE workflow_uuid = 'F2'")
    state, detail = CHAIN_STATES[status]
    row = idle_db.repair_status(["F"]).iloc[0]
    assert (row["state"], row["forks"]) == (state, 0)
    assert row["covered_by"] == "F2" if status == "SUCCESS" else pd.isna(row["covered_by"])
    assert idle_db.failures(name="w")["unaddressed"].sum() == 0
    rows = idle_db.explore(name="w")._on_page({"view": {}})["rows"]
    marked = {one["id"] for one in rows if one.get("repaired")}
    failed = {"B", "F"} if original == "kept" else {"F"}
    assert marked == (failed if status == "SUCCESS" else set())
    # Alone, in a group of failures, or with its original.
    (line,) = idle_db.repair("F").lines
    assert (line.outcome, line.new_workflow_id, line.detail) == ("unchanged", "F2", detail)
    assert idle_db.repair(idle_db.failures(name="w")).counts["unchanged"] == len(failed)
    assert idle_db.repair(sorted(failed)).counts["unchanged"] == len(failed)
    warning = "F2, of the same chain of forks, "
    assert idle_db.fork("F", "failed", plan=True).items[0].effect.startswith(warning)
    forced = idle_db.repair("F", force=True)
    assert forced.counts["done"] == 1


def test_what_succeeded_before_a_fork_was_made_does_not_repair_it(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "B", status="SUCCESS", at=10)
    add_workflow(idle_db, "F0", forked_from="B", status="SUCCESS", at=15)
    add_workflow(idle_db, "F", ("charge", True, None), forked_from="B", at=20)
    assert idle_db.repair_status(["F"])["state"].tolist() == ["unaddressed"]
    assert idle_db.failures(name="w")["unaddressed"].sum() == 1
    assert idle_db.repair("F", plan=True).counts["ready"] == 1
    # An older member that succeeds later has done the work since.
    ended = "UPDATE {}workflow_status SET completed_at = 25 WHERE workflow_uuid = ?"
    write(idle_db, ended, "B")
    assert idle_db.repair_status(["F"])[["state", "covered_by"]].values.tolist() == [
        ["repaired", "B"]
    ]
    assert idle_db.repair("F", plan=True).counts["unchanged"] == 1


def test_failures_below_a_fork_are_covered_by_another_of_its_chain(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "B", ("leaf", True, None), at=10)
    add_workflow(idle_db, "below", ("leaf", True, None), at=25)
    add_workflow(idle_db, "F", *awaits("below"), forked_from="B", at=20)
    parent = "UPDATE {}workflow_status SET parent_workflow_id = 'F' WHERE workflow_uuid = 'below'"
    write(idle_db, parent)
    add_workflow(idle_db, "F2", forked_from="B", status="SUCCESS", at=30)
    status = idle_db.repair_status(["F", "below"])
    assert status["state"].tolist() == ["repaired", "covered"]
    assert status["covered_by"].tolist() == ["F2", "F2"]
    assert idle_db.failures(name="w")["unaddressed"].sum() == 0
    lines = idle_db.repair("F").lines
    assert [line.detail for line in lines] == [
        "covered by F2, of the same chain of forks as F, which is SUCCESS",
        "F2, of the same chain of forks, succeeded",
    ]


def test_a_parent_takes_what_succeeded_in_the_chain_of_its_failed_child(
    idle_db: dn.Client,
) -> None:
    add_workflow(idle_db, "B", ("leaf", True, None), at=10)
    add_workflow(idle_db, "F", ("leaf", True, None), forked_from="B", at=20)
    add_workflow(idle_db, "F2", forked_from="B", status="SUCCESS", at=30)
    add_workflow(idle_db, "above", *awaits("F"), at=15)
    child, parent = idle_db.repair("above", timeout=0).lines
    assert (child.outcome, child.new_workflow_id, parent.outcome) == ("unchanged", "F2", "done")
    assert idle_db.steps(parent.new_workflow_id)["child_workflow_id"].tolist() == ["F2"]


def test_of_failed_forks_of_one_original_only_the_newest_is_repaired(idle_db: dn.Client) -> None:
    add_workflow(idle_db, "B", ("leaf", True, None), at=10)
    for number, fork in enumerate(("F1", "F2", "F3")):
        add_workflow(idle_db, fork, ("leaf", True, None), forked_from="B", at=20 + number)

    def ready(*ids: str) -> list[str]:
        plan = idle_db.repair(list(ids), plan=True)
        return [item.workflow_id for item in plan.items if item.verdict == "ready"]

    assert ready("F1", "F2", "F3") == ["F3"]
    assert ready("F1", "F2") == ["F2"]
    # A parent awaits an older one, which is repaired although it was not passed.
    add_workflow(idle_db, "above", *awaits("F1"))
    assert ready("F2", "above") == ["F1", "above"]


def test_a_fork_made_in_the_second_of_its_original_is_newer(idle_db: dn.Client) -> None:
    # SQLite may record whole seconds; the names sort the other way round.
    add_workflow(idle_db, "z-original", ("charge", True, None))
    add_workflow(idle_db, "a-fork", ("charge", True, None), forked_from="z-original")
    plan = idle_db.repair(["z-original", "a-fork"], plan=True)
    verdicts = {item.workflow_id: item.verdict for item in plan.items}
    assert verdicts == {"z-original": "unchanged", "a-fork": "ready"}
