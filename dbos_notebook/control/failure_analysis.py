"""Find why workflows failed, and whether forks have repaired them since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos_notebook.control import records
from dbos_notebook.control.fork_points import ForkPoint, point_at
from dbos_notebook.control.records import StepRecord, WorkflowRecord
from dbos_notebook.status import FAILED_STATUSES
from dbos_notebook.tables import listings
from dbos_notebook.tables.columns import STRING_DTYPE

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries


@dataclass(frozen=True)
class Cause:
    """Where a failed workflow must run again, and which children must be repaired before it.

    Attributes
    ----------
    point
        Where its fork starts.
    children
        The failed children that their forks replace.
    required
        Those of them that made it fail: without their repair no fork of it can succeed.
    problem
        Why no fork of it can succeed; ``None`` where one can.
    replayed
        The failed children whose failure it survived and that are not repaired: the fork copies
        the steps that read their failures.
    """

    point: ForkPoint
    children: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    problem: str | None = None
    replayed: tuple[str, ...] = ()


def unsuccessful_children(steps: Sequence[StepRecord]) -> list[str]:
    """Return the children that steps started or awaited and that have not returned a result.

    Examples
    --------
    >>> start = StepRecord(1, "pack", False, "order-1-1", 0, 1)
    >>> unsuccessful_children([start, StepRecord(2, "DBOS.getResult", True, "order-1-1", 1, 2)])
    ['order-1-1']
    >>> unsuccessful_children([start, StepRecord(2, "DBOS.getResult", False, "order-1-1", 1, 2)])
    []
    """
    returned = {step.awaits for step in steps if step.awaits and not step.failed}
    children = dict.fromkeys(step.child_workflow_id for step in steps if step.child_workflow_id)
    return [child for child in children if child not in returned]


def find_cause(
    row: WorkflowRecord, steps: Sequence[StepRecord], workflows: Mapping[str, WorkflowRecord]
) -> Cause:
    """Find where a failed workflow must run again, and which children must be repaired before it.

    The cause is the step that failed last, and failed steps that ran at the same time (a workflow
    can await several): copying one of them would make the fork fail again. Where no step failed,
    or the workflow was stopped from outside, all recorded steps are copied.

    A workflow that went on after the failures of several children, and then failed by itself, is
    taken to have failed because of all of them: see :func:`_tolerated`.

    Parameters
    ----------
    workflows
        By ID; children that do not exist are missing.
    """
    failed = [step for step in steps if step.failed]
    tolerated: list[StepRecord] = []
    if row.status == "ERROR" and failed:
        tolerated = _tolerated(steps, workflows)
        causes = tolerated or [step for step in failed if _overlap(step, failed[-1])]
        start = min(step.function_id for step in causes)
    else:
        causes, start = [], steps[-1].function_id + 1 if steps else 1
    point = point_at(steps, start)
    copied = [step for step in steps if step.function_id < start]
    started = {s.child_workflow_id for s in copied if s.child_workflow_id and not s.awaits}
    # A failure that the workflow survived earlier is part of what is copied.
    survived = {step.awaits for step in copied if step.awaits}
    awaited = {step.awaits for step in causes}
    children, deleted = [], set()
    for child in unsuccessful_children(steps):
        if child not in workflows:
            deleted.add(child)
        elif workflows[child].status not in FAILED_STATUSES or child in survived:
            continue
        elif child in started:
            children.append(child)
        elif child in awaited:
            return Cause(
                point,
                problem=f"step {start} awaits {child} by its ID and did not start it as a child, "
                f"so a fork would await the same failed run. db.rewind({child!r}, …) repairs that "
                "run in place",
            )
    for step in causes:
        if step.awaits in deleted:
            problem = f"step {start} awaits {step.awaits}, which does not exist"
            if step.awaits in started:
                problem = f"its failed child {step.awaits} has been deleted"
            return Cause(point, problem=problem)
    replayed = tuple(
        dict.fromkeys(
            step.awaits
            for step in copied
            if step.failed and step.awaits and step.awaits in workflows
            if step.awaits not in children
        )
    )
    # Some of them may fail again: the workflow has its own rule for how many are too many.
    required = frozenset() if tolerated else frozenset(c for c in children if c in awaited)
    return Cause(point, tuple(children), required, replayed=replayed)


def _tolerated(
    steps: Sequence[StepRecord], workflows: Mapping[str, WorkflowRecord]
) -> list[StepRecord]:
    """Return the steps that read failures which the workflow survived before it failed by itself.

    A step that began after the last failure, and succeeded, shows that the workflow went on. Only
    steps after the last start of a child count: a fork from an earlier one would start the
    children that follow it a second time. Failures of one child alone need no such rule.
    """
    failed = [step for step in steps if step.failed]
    if not failed[-1].awaits or not any(
        not step.failed and _follows(step, failed) for step in steps
    ):
        return []
    started = {
        step.child_workflow_id: step.function_id
        for step in steps
        if step.child_workflow_id and not step.awaits
    }
    last_start = max(started.values(), default=0)
    waits = [
        step
        for step in failed
        if step.function_id > last_start
        and step.awaits in started
        and step.awaits in workflows
        and workflows[step.awaits].status in FAILED_STATUSES
    ]
    return waits if len(waits) > 1 else []


def _follows(step: StepRecord, others: Sequence[StepRecord]) -> bool:
    """Return whether a step began after all others had ended."""
    return step.started_at is not None and all(
        step.function_id > other.function_id
        and other.completed_at is not None
        and step.started_at >= other.completed_at
        for other in others
    )


def _overlap(step: StepRecord, other: StepRecord) -> bool:
    if step is other:
        return True
    start, end, other_start, other_end = (
        step.started_at,
        step.completed_at,
        other.started_at,
        other.completed_at,
    )
    if start is None or end is None or other_start is None or other_end is None:
        return False
    return start < other_end and other_start < end


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
UNADDRESSED = ("failed again", "unaddressed")
"""The states of failures that no fork has repaired or is repairing."""
STATES = ("repaired", "in progress", "failed again", "covered", "unaddressed", "not failed")


def repair_status(session: Session, queries: Queries, ids: Sequence[str] | None) -> pd.DataFrame:
    """Return the state of failures, by their chains of forks and those of their parents.

    Without IDs, of all failed workflows.
    """
    import pandas as pd

    if ids is None:
        ids = list(records.failures(session, queries))
    else:
        listings.require_known(session, queries, ids)
    workflows = records.with_ancestors(session, queries, ids)
    chains = fork_chains(session, queries, list(workflows))
    rows = []
    covering: dict[str, str | None] = {}
    for workflow_id in ids:
        row = workflows.get(workflow_id)
        if row is None:
            continue
        chain = chains.get(workflow_id, _ALONE)
        latest = chain.latest
        covered_by = _covered_by(row, workflows, chains, covering)
        if chain.best is None or chain.best.status != "SUCCESS":
            covered_by = chain.repaired_by or covered_by
        rows.append(
            (
                workflow_id,
                row.name,
                row.status,
                row.app_version,
                _state(row, chain, covered_by),
                chain.forks,
                latest.workflow_id if latest else None,
                latest.status if latest else None,
                latest.app_version if latest else None,
                covered_by,
            )
        )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame = frame.astype(
        {name: STRING_DTYPE for name in COLUMNS if name != "forks"} | {"forks": "Int64"}
    )
    frame["state"] = pd.Categorical(frame["state"], STATES, ordered=True)
    return frame


def _state(row: WorkflowRecord, chain: ForkChain, covered_by: str | None) -> str:
    if row.status not in FAILED_STATUSES:
        return "not failed"
    if chain.successor:
        return "in progress" if chain.successor.active else "repaired"
    if covered_by:
        return "covered"
    return "failed again" if chain.forks else "unaddressed"


def unaddressed(session: Session, queries: Queries, parents: Mapping[str, str | None]) -> set[str]:
    """Return the failed workflows of which :func:`repair_status` says that nothing repairs them.

    Parameters
    ----------
    parents
        The workflow that started each of them, by ID; ``None`` if no workflow did.
    """
    children = [workflow_id for workflow_id, parent in parents.items() if parent]
    workflows = records.with_ancestors(session, queries, children)
    ids = dict.fromkeys((*parents, *workflows))
    chains = fork_chains(session, queries, list(ids))
    found = set()
    covering: dict[str, str | None] = {}
    for workflow_id, parent in parents.items():
        row = WorkflowRecord(workflow_id, "ERROR", parent_workflow_id=parent)
        chain = chains.get(workflow_id, _ALONE)
        if _state(row, chain, _covered_by(row, workflows, chains, covering)) in UNADDRESSED:
            found.add(workflow_id)
    return found


@dataclass(frozen=True, slots=True)
class ForkChain:
    """The workflows that do the same work as one workflow: its forks, its original, and so on.

    Attributes
    ----------
    members
        All of them by ID, originals before their forks: the workflow itself as well, unless it is
        the first. One mapping for all workflows of a chain.
    forks
        How many were forked from the workflow, from its forks, and so on.
    latest
        The newest of these.
    best
        Of these, the one that succeeded, or else one that is active, or else the newest.
    other
        For a workflow that failed: a member that is none of its forks, and that has succeeded since
        the workflow was created, or else is active.
    """

    members: Mapping[str, WorkflowRecord]
    forks: int = 0
    latest: WorkflowRecord | None = None
    best: WorkflowRecord | None = None
    other: WorkflowRecord | None = None

    @property
    def successor(self) -> WorkflowRecord | None:
        """The member that has done the work, or else one that is doing it."""
        found = [
            row for row in (self.best, self.other) if row and row.status not in FAILED_STATUSES
        ]
        # The first of equal ones, so that a fork is named before another member.
        return max(found, key=lambda row: row.status == "SUCCESS", default=None)

    @property
    def repaired_by(self) -> str | None:
        """The ID of the member that has done the work."""
        row = self.successor
        return row.workflow_id if row and row.status == "SUCCESS" else None


def fork_chains(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, ForkChain]:
    """Return the chains of forks of workflows; those without a fork or an original are omitted.

    An original, its forks, and the forks of those do the same work, whoever forked them.
    """
    rows = records.fork_families(session, queries, ids)
    forks_of: dict[str, list[WorkflowRecord]] = {}
    for row in rows.values():
        if row.forked_from:
            forks_of.setdefault(row.forked_from, []).append(row)
    chains: dict[str, ForkChain] = {}
    for workflow_id in ids:
        if workflow_id not in chains and (workflow_id in rows or workflow_id in forks_of):
            chains |= _chain(_first(workflow_id, rows), rows, forks_of)
    return {key: chains[key] for key in ids if key in chains}


def _first(workflow_id: str, rows: Mapping[str, WorkflowRecord]) -> str:
    """Return the original of all workflows of a chain, which may have been deleted."""
    passed = set()
    while workflow_id not in passed:
        passed.add(workflow_id)
        row = rows.get(workflow_id)
        # Rows written by hand may be forks of each other in a circle: any of it is the first.
        workflow_id = (row.forked_from if row else None) or workflow_id
    return workflow_id


def _chain(
    first: str,
    rows: Mapping[str, WorkflowRecord],
    forks_of: Mapping[str, Sequence[WorkflowRecord]],
) -> dict[str, ForkChain]:
    """Return the chain as each of its workflows sees it, in one walk down and one up."""
    order = {first: None}
    pending = [first]
    while pending:
        below = [fork.workflow_id for fork in forks_of.get(pending.pop(), ())]
        new = [workflow_id for workflow_id in below if workflow_id not in order]
        order |= dict.fromkeys(new)
        pending += new
    members = {workflow_id: rows[workflow_id] for workflow_id in order if workflow_id in rows}
    succeeded = max(
        (row for row in members.values() if row.status == "SUCCESS"), key=_ended, default=None
    )
    active = max((row for row in members.values() if row.active), key=_created, default=None)
    chains: dict[str, ForkChain] = {}
    circle = _circle(first, rows)
    for workflow_id in reversed(order):
        if workflow_id in circle:
            forks = [row for key, row in members.items() if key != workflow_id]
            count, latest, best = len(forks), forks, forks
        else:
            forks = list(forks_of.get(workflow_id, ()))
            lower = [chains[fork.workflow_id] for fork in forks]
            count = len(forks) + sum(chain.forks for chain in lower)
            latest = forks + [chain.latest for chain in lower if chain.latest]
            best = forks + [chain.best for chain in lower if chain.best]
        row, other = members.get(workflow_id), None
        if row is not None and row.status in FAILED_STATUSES:
            # What succeeded before it was created was run again on purpose, and that failed.
            since = succeeded is not None and _ended(succeeded) >= (row.created_at or 0)
            other = succeeded if since else active
        chains[workflow_id] = ForkChain(
            members,
            count,
            max(latest, key=_created, default=None),
            max(best, key=_rank, default=None),
            other,
        )
    return chains


def _circle(first: str, rows: Mapping[str, WorkflowRecord]) -> set[str]:
    """Return the workflows that are forks of each other in a circle; none, unless by hand."""
    circle: dict[str, None] = {}
    workflow_id: str | None = first
    while workflow_id and workflow_id not in circle:
        circle[workflow_id] = None
        row = rows.get(workflow_id)
        workflow_id = row.forked_from if row else None
    return set(circle) if workflow_id else set()


_ALONE = ForkChain({})
"""The chain of a workflow that is no fork and has none."""


def _created(row: WorkflowRecord) -> tuple[int, str]:
    return row.created_at or 0, row.workflow_id


def _ended(row: WorkflowRecord) -> int:
    # Databases of early releases of dbos have no completed_at.
    return max(row.created_at or 0, row.completed_at or row.updated_at or 0)


def _rank(row: WorkflowRecord) -> tuple[bool, bool, int]:
    return row.status == "SUCCESS", row.active, row.created_at or 0


def _covered_by(
    row: WorkflowRecord,
    workflows: Mapping[str, WorkflowRecord],
    chains: Mapping[str, ForkChain],
    known: dict[str, str | None],
) -> str | None:
    """Return what succeeded in the place of an ancestor: the failures below it no longer matter.

    ``known`` keeps the answers for ancestors from call to call.
    """
    path: dict[str, None] = {}
    parent = row.parent_workflow_id
    while parent and parent not in known and parent not in path:
        path[parent] = None
        chain = chains.get(parent)
        if chain is not None and chain.repaired_by:
            known[parent] = chain.repaired_by
        elif ancestor := workflows.get(parent):
            parent = ancestor.parent_workflow_id
        else:
            parent = None
    covering = known.get(parent) if parent else None
    known |= dict.fromkeys(path, covering)
    return covering
