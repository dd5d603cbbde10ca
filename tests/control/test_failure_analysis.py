"""Which step and which children caused a failure, for recorded steps of every shape."""

from __future__ import annotations

import pytest

from dbos_notebook.control.failure_analysis import find_cause
from dbos_notebook.control.records import StepRecord, WorkflowRecord


def row(workflow_id: str, status: str) -> WorkflowRecord:
    return WorkflowRecord(workflow_id, status)


def step(
    number: int,
    name: str,
    child: str | None = None,
    *,
    bad: bool = False,
    at: int = -1,
    took: int = 1,
) -> StepRecord:
    begun = 10 * number if at < 0 else at
    return StepRecord(number, name, bad, child, begun, begun + took)


CHILDREN = {"a": row("a", "ERROR"), "b": row("b", "ERROR"), "ok": row("ok", "SUCCESS")}
CASES = {
    "its own step": ([step(1, "x"), step(2, "y", bad=True)], 2, ()),
    "the body, no step": ([step(1, "x"), step(2, "y")], 3, ()),
    "nothing recorded": ([], 1, ()),
    "a child": ([step(1, "c", "a"), step(2, "DBOS.getResult", "a", bad=True)], 2, ("a",)),
    "two children awaited together": (
        [
            step(1, "c", "a"),
            step(2, "c", "b"),
            step(3, "DBOS.getResult", "a", bad=True, at=30, took=50),
            step(4, "DBOS.getResult", "b", bad=True, at=31, took=60),
        ],
        3,
        ("a", "b"),
    ),
    "two steps that ran together": (
        [step(1, "x", bad=True, at=10, took=50), step(2, "y", bad=True, at=11, took=20)],
        1,
        (),
    ),
    "a failure that was survived before": (
        [
            step(1, "c", "a"),
            step(2, "DBOS.getResult", "a", bad=True),
            step(3, "y", bad=True),
        ],
        3,
        (),
    ),
    "a second failed child, not awaited yet": (
        [step(1, "c", "a"), step(2, "c", "b"), step(3, "DBOS.getResult", "a", bad=True)],
        3,
        ("a", "b"),
    ),
    "two children whose failures were tolerated": (
        [
            step(1, "c", "a"),
            step(2, "c", "b"),
            step(3, "c", "ok"),
            step(4, "DBOS.getResult", "a", bad=True),
            step(5, "DBOS.getResult", "b", bad=True),
            step(6, "DBOS.getResult", "ok"),
        ],
        4,
        ("a", "b"),
    ),
    "a child that has succeeded meanwhile": (
        [step(1, "c", "ok"), step(2, "DBOS.getResult", "ok", bad=True)],
        2,
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_failed_steps_and_children_are_found(name: str) -> None:
    steps, start, children = CASES[name]
    cause = find_cause(row("w", "ERROR"), steps, CHILDREN)
    assert (cause.point.start_step, cause.children, cause.problem) == (start, children, None)


def test_only_children_whose_failure_propagated_are_required() -> None:
    steps = [step(1, "c", "a"), step(2, "c", "b"), step(3, "DBOS.getResult", "a", bad=True)]
    assert find_cause(row("w", "ERROR"), steps, CHILDREN).required == {"a"}
    # Nobody awaited it: it is repaired too, but nothing depends on it.
    steps = [step(1, "c", "a"), step(2, "y", bad=True)]
    cause = find_cause(row("w", "ERROR"), steps, CHILDREN)
    assert (cause.children, cause.required) == (("a",), frozenset())


def test_a_workflow_awaited_by_id_cannot_be_replaced() -> None:
    cause = find_cause(row("w", "ERROR"), [step(1, "DBOS.getResult", "a", bad=True)], CHILDREN)
    assert "awaits a by its ID" in str(cause.problem)
    assert "db.rewind('a', …)" in str(cause.problem)


def test_a_child_that_was_deleted_cannot_be_forked() -> None:
    steps = [step(1, "c", "gone"), step(2, "DBOS.getResult", "gone", bad=True)]
    cause = find_cause(row("w", "ERROR"), steps, {})
    assert cause.problem == "its failed child gone has been deleted"


def test_a_cancelled_workflow_keeps_all_its_steps() -> None:
    steps = [step(1, "x"), step(2, "y", bad=True)]
    for status in ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
        assert find_cause(row("w", status), steps, {}).point.start_step == 3


def test_failures_that_a_fork_copies_are_named() -> None:
    starts = [step(1, "c", "a"), step(2, "c", "b")]
    waits = [step(3, "DBOS.getResult", "a", bad=True), step(4, "DBOS.getResult", "b", bad=True)]
    # The second failure may be the one that the workflow failed with: nothing follows it.
    cause = find_cause(row("w", "ERROR"), starts + waits, CHILDREN)
    assert (cause.point.start_step, cause.children, cause.replayed) == (4, ("b",), ("a",))
    # A fork from step 2 would start the child of step 3 again.
    steps = [
        step(1, "c", "a"),
        step(2, "DBOS.getResult", "a", bad=True),
        step(3, "c", "b"),
        step(4, "DBOS.getResult", "b", bad=True),
        step(5, "x"),
    ]
    cause = find_cause(row("w", "ERROR"), steps, CHILDREN)
    assert (cause.point.start_step, cause.children, cause.replayed) == (4, ("b",), ("a",))
    # Any of the tolerated failures may happen again.
    cause = find_cause(row("w", "ERROR"), [*starts, *waits, step(5, "x")], CHILDREN)
    assert (cause.children, cause.required, cause.replayed) == (("a", "b"), frozenset(), ())
