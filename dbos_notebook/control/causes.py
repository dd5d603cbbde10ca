"""Why a workflow failed: the step to run again, and the children whose failures made it fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbos_notebook.control.forkpoints import ForkPoint
from dbos_notebook.control.rows import Row, Step
from dbos_notebook.tables.vocabulary import FAILED_STATUSES


@dataclass(frozen=True)
class Cause:
    """What to do about one failed workflow.

    Attributes
    ----------
    point
        Where its fork starts.
    children
        The failed children whose forks it is given.
    required
        Those of them whose failure made it fail: without them no fork can help.
    problem
        Why no fork of it can help; ``None`` where one can.
    """

    point: ForkPoint
    children: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    problem: str | None = None


def awaited(steps: Sequence[Step]) -> list[str]:
    """Return the children that may have to be looked at: started or awaited, not yet successful.

    Examples
    --------
    >>> start = Step(1, "pack", False, "order-1-1", 0, 1)
    >>> awaited([start, Step(2, "DBOS.getResult", True, "order-1-1", 1, 2)])
    ['order-1-1']
    >>> awaited([start, Step(2, "DBOS.getResult", False, "order-1-1", 1, 2)])
    []
    """
    good = {step.awaits for step in steps if step.awaits and not step.failed}
    children = dict.fromkeys(step.child_workflow_id for step in steps if step.child_workflow_id)
    return [child for child in children if child not in good]


def find(row: Row, steps: Sequence[Step], children: Mapping[str, Row]) -> Cause:
    """Find where a failed workflow must run again, and which of its children must before.

    The step that failed last is the cause. Those that failed while it ran are as well (steps that
    a workflow awaits together): one that was kept would fail the fork again. Where no step
    failed, or the workflow was stopped from outside, all recorded steps are kept.
    """
    failed = [step for step in steps if step.failed]
    following = steps[-1].function_id + 1 if steps else 1
    if row.status == "ERROR" and failed:
        together = [step for step in failed if _overlap(step, failed[-1])]
        start = min(step.function_id for step in together)
    else:
        together, start = [], following
    kept = [step for step in steps if step.function_id < start]
    name = next((step.function_name for step in steps if step.function_id == start), None)
    point = ForkPoint(
        start,
        name,
        tuple(
            step.function_name
            for step in steps
            if step.function_id >= start and not step.failed and not step.bookkeeping
        ),
    )
    begun = {s.child_workflow_id for s in kept if s.child_workflow_id and not s.awaits}
    # One whose failure was taken and survived before is part of what is kept.
    over = {step.awaits for step in kept if step.awaits}
    bad = []
    for child in awaited(steps):
        found = children.get(child)
        if found is None or found.status not in FAILED_STATUSES or child in over:
            continue
        if child in begun:
            bad.append(child)
        elif child in {step.awaits for step in together}:
            problem = (
                f"step {start} awaits {child} by its ID, not as a child that it started, so a fork "
                f"awaits the same failed run. db.rewind({child!r}, …) repairs that one in place"
            )
            return Cause(point, problem=problem)
    lost = set(awaited(steps)) - children.keys()
    gone = [step.awaits for step in together if step.awaits in lost]
    if gone:
        one = gone[0]
        there = f"its failed child {one} has been deleted"
        return Cause(
            point,
            problem=there if one in begun else f"step {start} awaits {one}, which does not exist",
        )
    taken = {step.awaits for step in together}
    return Cause(point, tuple(bad), frozenset(child for child in bad if child in taken))


def _overlap(one: Step, other: Step) -> bool:
    if one is other:
        return True
    times = (one.started_at, one.completed_at, other.started_at, other.completed_at)
    if any(time is None for time in times):
        return False
    begin, end, other_begin, other_end = (time or 0 for time in times)
    return begin < other_end and other_begin < end
