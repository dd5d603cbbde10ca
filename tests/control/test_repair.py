"""Repair of trees that failed under a bad version: successful steps are not run again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_executors import LiveApplication, until
from test_control_faults import interrupt_when

import dbos_notebook as dn

# A queue that is looked at often: DBOS looks at its own once a second.
V2: dict[str, Any] = {"application_version": "v2", "queue_name": "free"}


def fail(
    live: LiveApplication, name: str, ids: list[str], args: list[object] | None = None
) -> None:
    """Run workflows under v1, in which they fail."""
    live.send("v1", "run", name=name, ids=ids, args=args or [])


def test_repair_of_three_level_trees_repeats_no_succeeded_step(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    ids = [unique_id("top") for _ in range(3)]
    for number, workflow_id in enumerate(ids):
        fail(live, "top", [workflow_id], [number])
    failed = live_db.tree(ids)
    assert len(failed) == 9
    assert set(failed["status"]) == {"ERROR"}
    before = live.effects()
    plan = live_db.repair(ids, **V2, plan=True, timeout=None)
    assert plan.counts["ready"] == 9
    names = plan.to_frame()["name"].tolist()
    assert names == ["leaf"] * 3 + ["middle"] * 3 + ["top"] * 3
    assert not plan.to_frame()["effect"].str.contains("repeats").any()
    assert live.effects() == before, "a plan runs nothing"

    receipt = plan.apply()
    assert receipt.counts["done"] == 9
    assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}
    did = live.effects() - before
    new = receipt.to_frame().set_index("workflow_id")["new_workflow_id"]
    # Under v2 each tree does just what was missing: the step that failed, and what follows it.
    assert set(did.values()) == {1}
    wanted = set()
    for number, workflow_id in enumerate(ids):
        middle, leaf = f"{workflow_id}-2", f"{workflow_id}-2-2"
        wanted |= {
            f"{new[leaf]} leaf{number}-b",
            f"{new[middle]} middle{number}-did",
            f"{new[workflow_id]} top{number}-did",
        }
    assert set(did) == wanted
    status = live_db.repair_status(ids)
    assert status["state"].tolist() == ["repaired"] * 3
    assert status["latest_fork"].tolist() == new[ids].tolist()
    # Again: everything is there, and says so.
    again = live_db.repair(ids, **V2)
    assert again.counts["unchanged"] == 9
    assert live.effects() - before == did


def test_only_the_child_that_failed_is_repaired(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("pair")
    fail(live, "pair", [workflow_id], [7])
    before = live.effects()
    receipt = live_db.repair(workflow_id, **V2)
    assert receipt.to_frame()["workflow_id"].tolist() == [f"{workflow_id}-2", workflow_id]
    assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}
    assert sum((live.effects() - before).values()) == 1
    new = receipt.to_frame()["new_workflow_id"].iloc[1]
    assert live_db.workflow(new).output == ["did c", "did leaf7-b"]


def test_all_failures_that_a_parent_tolerated_before_it_failed_are_repaired(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("tolerant")
    fail(live, "tolerant", [workflow_id], [20])
    children = [f"{workflow_id}-2", f"{workflow_id}-3"]
    before = live.effects()
    plan = live_db.repair(workflow_id, **V2, plan=True)
    assert [item.workflow_id for item in plan.items] == [*children, workflow_id]
    assert plan.items[2].effect == (
        f"runs again from step 6 (DBOS.getResult), once {children[0]}, {children[1]} have been "
        "repaired; repeats successful steps: work"
    )
    receipt = plan.apply()
    assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}
    new = {line.workflow_id: line.new_workflow_id for line in receipt.lines}
    assert live.effects() - before == {
        f"{new[children[0]]} leaf20-b": 1,
        f"{new[children[1]]} leaf21-b": 1,
        f"{new[workflow_id]} report-4": 1,
    }
    output = live_db.workflow(new[workflow_id]).output
    assert output == ["did c", "did leaf20-b", "did leaf21-b", "did c"]


def test_a_repeated_failure_stops_the_repair_and_another_key_retries(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("hopeless")
    fail(live, "outer_hopeless", [workflow_id])
    receipt = live_db.repair(workflow_id, **V2, timeout=30)
    child, parent = receipt.to_frame().to_dict("records")
    assert child["outcome"] == "done"
    assert parent["outcome"] == "unchanged"
    assert parent["detail"].startswith(f"its child {workflow_id}-2 failed again: ")
    status = live_db.repair_status([workflow_id, f"{workflow_id}-2"])
    assert status["state"].tolist() == ["unaddressed", "failed again"]
    again = live_db.repair(workflow_id, **V2, timeout=30)
    assert "it failed again. Pass another key=… to try again" in again.to_frame()["detail"].iloc[0]
    # Nor is a parent forked onto that fork by a call that does not wait.
    at_once = live_db.repair(workflow_id, **V2, wait=False)
    assert at_once.lines[1].detail == parent["detail"]
    assert at_once.counts["unchanged"] == 2
    other = live_db.repair(workflow_id, **V2, key="second try", timeout=30)
    assert other.to_frame()["outcome"].tolist() == ["done", "unchanged"]


def test_a_child_that_is_not_awaited_does_not_block_its_parent(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("careless")
    fail(live, "careless", [workflow_id], [1])
    until(lambda: set(live_db.tree(workflow_id)["status"]) == {"ERROR"}, "the child has failed too")
    receipt = live_db.repair(workflow_id, **V2, timeout=30)
    assert receipt.to_frame()["outcome"].tolist() == ["done", "done"]
    assert sorted(receipt.wait(timeout=30)["status"]) == ["ERROR", "SUCCESS"]
    assert live.effects(str(receipt.lines[1].new_workflow_id)) == {"careless1": 1}


def test_a_workflow_whose_body_raised_keeps_all_its_steps(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("body")
    fail(live, "body_fails", [workflow_id])
    receipt = live_db.repair(workflow_id, **V2)
    assert receipt.wait(timeout=30)["status"].tolist() == ["SUCCESS"]
    assert not live.effects(receipt.lines[0].new_workflow_id)


def test_a_workflow_repaired_by_somebody_else_is_not_forked_again(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id, other_id = unique_id("leaf"), unique_id("top")
    fail(live, "leaf", [workflow_id], [1])
    fail(live, "top", [other_id], [2])
    by_hand = [
        live_db.fork(which, "failed", **V2).lines[0].new_workflow_id
        for which in (workflow_id, f"{other_id}-2-2")
    ]
    live_db.wait(by_hand, timeout=30)
    receipt = live_db.repair([workflow_id, other_id], **V2)
    lines = {line.workflow_id: line for line in receipt.lines}
    assert lines[workflow_id].outcome == lines[f"{other_id}-2-2"].outcome == "unchanged"
    assert lines[workflow_id].new_workflow_id == by_hand[0]
    # The tree's own parents take the fork that was there.
    assert lines[other_id].outcome == lines[f"{other_id}-2"].outcome == "done"
    assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}


def test_waiting_for_children_has_a_timeout_and_can_be_interrupted_and_continued(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    fail(live, "top", [workflow_id], [5])
    # Nobody runs v3 yet, so the deepest fork waits.
    receipt = live_db.repair(workflow_id, application_version="v3", queue_name="free", timeout=0.3)
    assert receipt.to_frame()["outcome"].tolist() == ["done", "unchanged", "unchanged"]
    assert "had not finished after 0.3 s" in receipt.lines[1].detail
    assert "unlikely" in receipt.lines[0].detail
    assert live_db.repair_status([f"{workflow_id}-2-2"])["state"].tolist() == ["in progress"]
    begun = time.monotonic()
    thread = interrupt_when(lambda: time.monotonic() > begun + 1.5)
    with pytest.raises(dn.ControlInterrupt, match="to continue") as caught:
        live_db.repair(workflow_id, application_version="v3", queue_name="free")
    thread.join()
    assert [line.outcome for line in caught.value.receipt.lines] == ["unchanged"] * 3
    live.start("v3")
    try:
        receipt = live_db.repair(
            workflow_id, application_version="v3", queue_name="free", timeout=30
        )
        assert receipt.counts["done"] == 2
        assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}
    finally:
        live.stop("v3")


def test_without_waiting_the_forked_parents_await_their_children(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    fail(live, "top", [workflow_id], [6])
    receipt = live_db.repair(workflow_id, **V2, wait=False)
    assert receipt.counts["done"] == 3
    assert set(receipt.wait(timeout=30)["status"]) == {"SUCCESS"}


def test_a_repaired_parent_covers_the_failures_below_it(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    fail(live, "top", [workflow_id], [8])
    forked = live_db.fork(workflow_id, "first", **V2)
    forked.wait(timeout=30)
    status = live_db.repair_status([workflow_id, f"{workflow_id}-2", f"{workflow_id}-2-2"])
    assert status["state"].tolist() == ["repaired", "covered", "covered"]
    fork = forked.lines[0].new_workflow_id
    assert status["covered_by"].iloc[2] == fork
    everything = live_db.repair_status()
    assert workflow_id in set(everything["workflow_id"])
    # A repair does not run their work again.
    before = live.effects()
    receipt = live_db.repair(workflow_id, **V2, timeout=30)
    assert {line.workflow_id: line.detail for line in receipt.lines} == {
        f"{workflow_id}-2-2": f"covered by {fork}, a fork of {workflow_id}, which is SUCCESS",
        f"{workflow_id}-2": f"covered by {fork}, a fork of {workflow_id}, which is SUCCESS",
        workflow_id: f"already forked as {fork}, which is SUCCESS",
    }
    assert receipt.counts["unchanged"] == 3
    assert live.effects() == before
    # A child that is passed itself is repaired, with what failed below it.
    asked = live_db.repair([workflow_id, f"{workflow_id}-2"], **V2, timeout=30)
    assert [line.outcome for line in asked.lines] == ["done", "done", "unchanged"]


def test_of_a_tree_and_its_failed_fork_only_the_work_of_the_fork_runs_again(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    fail(live, "top", [workflow_id], [10])
    forked = live_db.fork(workflow_id, "first", application_version="v1", queue_name="free")
    assert forked.wait(timeout=30)["status"].tolist() == ["ERROR"]
    fork = forked.lines[0].new_workflow_id
    both = live_db.workflows([workflow_id, fork])
    before = live.effects()
    receipt = live_db.repair(both, **V2, timeout=30)
    lines = {line.workflow_id: line for line in receipt.lines}
    tree = [workflow_id, f"{workflow_id}-2", f"{workflow_id}-2-2"]
    assert [lines[which].outcome for which in tree] == ["unchanged"] * 3
    assert lines[tree[2]].detail == (
        f"{fork}, of the same chain of forks as {workflow_id}, is repaired instead"
    )
    new = [lines[which].new_workflow_id for which in (f"{fork}-2-2", f"{fork}-2", fork)]
    assert set(live_db.wait(new, timeout=30)["status"]) == {"SUCCESS"}
    assert live.effects() - before == {
        f"{new[0]} leaf10-b": 1,
        f"{new[1]} middle10-did": 1,
        f"{new[2]} top10-did": 1,
    }


def test_two_concurrent_repairs_make_one_fork(
    live: LiveApplication, live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    workflow_id = unique_id("top")
    fail(live, "top", [workflow_id], [9])
    before = live.effects()
    receipts: list[dn.Receipt] = []
    clients = [dn.connect(live.url) for _ in range(3)]
    threads = [
        threading.Thread(
            target=lambda db=db: receipts.append(db.repair(workflow_id, **V2, timeout=30))
        )
        for db in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for client in clients:
        client.close()
    assert len(receipts) == 3
    ids = [line.new_workflow_id for line in receipts[0].lines]
    assert all([line.new_workflow_id for line in r.lines] == ids for r in receipts)
    done = [line for receipt in receipts for line in receipt.lines if line.outcome == "done"]
    assert len(done) == 3
    until(lambda: set(live_db.workflows(ids)["status"]) == {"SUCCESS"}, "all forks succeed")
    assert sum((live.effects() - before).values()) == 3


def test_a_workflow_that_cannot_be_repaired_gives_the_reason(
    live_db: dn.Client, unique_id: Callable[[str], str]
) -> None:
    with pytest.raises(dn.WorkflowNotFoundError):
        live_db.repair("nobody")
    done = live_db.workflows(status="SUCCESS", limit=1)
    if not done.empty:
        (line,) = live_db.repair(done).lines
        assert (line.outcome, line.detail) == ("unchanged", "it has not failed: it is SUCCESS")
