"""Why workflows failed, and whether a fork has repaired them since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos_notebook.control import records
from dbos_notebook.control.fork_points import ForkPoint
from dbos_notebook.control.records import StepRecord, WorkflowRecord
from dbos_notebook.status import FAILED_STATUSES
from dbos_notebook.tables import listings
from dbos_notebook.tables.columns import TEXT

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries


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


def awaited(steps: Sequence[StepRecord]) -> list[str]:
    """Return the children that may have to be looked at: started or awaited, not yet successful.

    Examples
    --------
    >>> start = StepRecord(1, "pack", False, "order-1-1", 0, 1)
    >>> awaited([start, StepRecord(2, "DBOS.getResult", True, "order-1-1", 1, 2)])
    ['order-1-1']
    >>> awaited([start, StepRecord(2, "DBOS.getResult", False, "order-1-1", 1, 2)])
    []
    """
    good = {step.awaits for step in steps if step.awaits and not step.failed}
    children = dict.fromkeys(step.child_workflow_id for step in steps if step.child_workflow_id)
    return [child for child in children if child not in good]


def find(
    row: WorkflowRecord, steps: Sequence[StepRecord], children: Mapping[str, WorkflowRecord]
) -> Cause:
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


def _overlap(one: StepRecord, other: StepRecord) -> bool:
    if one is other:
        return True
    times = (one.started_at, one.completed_at, other.started_at, other.completed_at)
    if any(time is None for time in times):
        return False
    begin, end, other_begin, other_end = (time or 0 for time in times)
    return begin < other_end and other_begin < end


COLUMNS = (
    "workflow_id",
    "name",
    "status",
    "app_version",
    "state",
    "forks",
    "latest_fork",
    "latest_fork_status",
    "latest_fork_version",
    "covered_by",
)
STATES = ("repaired", "in progress", "failed again", "covered", "unaddressed", "not failed")


def repair_status(session: Session, queries: Queries, ids: Sequence[str] | None) -> pd.DataFrame:
    """Return the state of failures by their forks, the forks of those, and those of their parents.

    Without IDs, of all workflows that failed by themselves.
    """
    import pandas as pd

    if ids is None:
        ids = list(records.failures(session, queries))
    else:
        listings.require_known(session, queries, ids)
    everything = records.with_ancestors(session, queries, ids)
    forked = descent(session, queries, list(everything))
    table = []
    for one in ids:
        row = everything.get(one)
        if row is None:
            continue
        forks = forked.get(one, [])
        latest = max(forks, key=lambda fork: (fork.created_at or 0, fork.workflow_id), default=None)
        covered = _covered(row, everything, forked)
        table.append(
            (
                one,
                row.name,
                row.status,
                row.app_version,
                _state(row, forks, latest, covered),
                len(forks),
                latest.workflow_id if latest else None,
                latest.status if latest else None,
                latest.app_version if latest else None,
                covered,
            )
        )
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    frame = frame.astype({name: TEXT for name in COLUMNS if name != "forks"} | {"forks": "Int64"})
    frame["state"] = pd.Categorical(frame["state"], STATES, ordered=True)
    return frame


def _state(
    row: WorkflowRecord,
    forks: Sequence[WorkflowRecord],
    latest: WorkflowRecord | None,
    covered: str | None,
) -> str:
    if row.status not in FAILED_STATUSES:
        return "not failed"
    if any(fork.status == "SUCCESS" for fork in forks):
        return "repaired"
    if any(fork.active for fork in forks):
        return "in progress"
    if covered:
        return "covered"
    return "failed again" if latest else "unaddressed"


def descent(
    session: Session, queries: Queries, ids: Sequence[str]
) -> dict[str, list[WorkflowRecord]]:
    """Find the forks of each workflow, and the forks of those."""
    made: dict[str, list[WorkflowRecord]] = {}
    for fork in records.forks(session, queries, ids).values():
        made.setdefault(fork.forked_from or "", []).append(fork)
    return {one: below for one in ids if (below := _below(one, made))}


def _below(one: str, made: dict[str, list[WorkflowRecord]]) -> list[WorkflowRecord]:
    found: dict[str, WorkflowRecord] = {}
    left = [one]
    while left:
        for fork in made.get(left.pop(), ()):
            # Forks in a circle were made by hand.
            if fork.workflow_id not in found and fork.workflow_id != one:
                found[fork.workflow_id] = fork
                left.append(fork.workflow_id)
    return list(found.values())


def _covered(
    row: WorkflowRecord, known: dict[str, WorkflowRecord], forked: dict[str, list[WorkflowRecord]]
) -> str | None:
    """Return the fork of an ancestor that has succeeded: the failure below it no longer matters."""
    seen: set[str] = set()
    parent = row.parent_workflow_id
    while parent and parent not in seen:
        seen.add(parent)
        for fork in forked.get(parent, ()):
            if fork.status == "SUCCESS":
                return fork.workflow_id
        above = known.get(parent)
        parent = above.parent_workflow_id if above else None
    return None
