"""Repair failed trees: fork the deepest failures first, then the workflows that awaited them.

A fork of a parent runs again from the step that read its child's failure, and its copied steps
refer to the child's fork (DBOS's ``replacement_children``). Successful steps are not run again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from dbos_notebook.control import records
from dbos_notebook.control.batch_runner import BatchRunner
from dbos_notebook.control.dbos_client import require_available
from dbos_notebook.control.display import watch
from dbos_notebook.control.failure_analysis import Cause, ForkChain, find_cause, fork_chains
from dbos_notebook.control.fork_points import ForkPoint
from dbos_notebook.control.forks import Fork, StepSnapshot, done_by
from dbos_notebook.control.interrupts import InterruptCounter
from dbos_notebook.control.operations import (
    ItemKey,
    PlanItem,
    ReadContext,
    Refusal,
    as_key,
    as_optional_name,
)
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.receipt import Receipt, ReceiptLine
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import NotebookError
from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables.filters import MAX_SECONDS, as_seconds

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.types import Duration

WAIT_SECONDS = 600.0
MAX_SHOWN_CHILDREN = 5


@dataclass(frozen=True)
class RepairFork(Fork):
    """A fork of one workflow of a failed tree.

    Attributes
    ----------
    wait_seconds
        How long to wait for children in all.
    causes
        Of the failures, by workflow, while a plan is made.
    left_out
        Why failures are not repaired: another workflow takes their place.
    """

    action: ClassVar[str] = "repair"
    planned: ClassVar[str] = "will be repaired"
    wait: bool = True
    wait_seconds: float = WAIT_SECONDS
    causes: Mapping[str, Cause] = field(default_factory=dict, repr=False)
    left_out: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def create(  # type: ignore[override] # a repair has other arguments than a fork
        cls,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        key: str | None = None,
        wait: bool = True,
        timeout: Duration | None = WAIT_SECONDS,
        force: bool = False,
    ) -> RepairFork:
        """Validate the arguments of ``Client.repair``."""
        seconds = as_seconds(timeout, "timeout", minimum=0)
        return cls(
            application_version=as_optional_name(application_version, "application_version"),
            queue_name=as_optional_name(queue_name, "queue_name"),
            key=as_key(key) or f"repair-{application_version or 'latest'}",
            force=force,
            wait=wait,
            wait_seconds=MAX_SECONDS if seconds is None else seconds,
        )

    def _points(
        self,
        context: ReadContext,
        keys: Sequence[ItemKey],
        before: Mapping[ItemKey, PlanItem],
        workflows: Mapping[str, WorkflowRecord],
    ) -> dict[ItemKey, ForkPoint | Refusal]:
        points = super()._points(context, keys, before, workflows)
        for key, point in points.items():
            if isinstance(point, ForkPoint) and key.workflow_id in self.causes:
                # It takes the failures of children into account; resolving the step did not.
                points[key] = self.causes[key.workflow_id].point
        return points

    def _evaluate_step(self, key: ItemKey, snapshot: StepSnapshot) -> PlanItem:
        workflow_id = key.workflow_id
        row, chain = snapshot.workflows.get(workflow_id), snapshot.chains.get(workflow_id)
        if row is not None and row.status not in FAILED_STATUSES:
            return PlanItem(workflow_id, "unchanged", f"it has not failed: it is {row.status}", row)
        if chain is not None and not self.force and (successor := chain.successor):
            point = snapshot.points.get(key)
            return PlanItem(
                workflow_id,
                "unchanged",
                done_by(chain, successor),
                row,
                point if isinstance(point, ForkPoint) else None,
                successor.workflow_id,
            )
        if reason := self.left_out.get(workflow_id):
            return PlanItem(workflow_id, "unchanged", reason, row)
        item = super()._evaluate_step(key, snapshot)
        if item.verdict == "unchanged":
            status = snapshot.workflows[item.new_workflow_id or ""].status
            failed = ": it failed again" if status in FAILED_STATUSES else ""
            effect = f"{item.effect}{failed}. Pass another key=… to try again"
            return dataclasses.replace(item, effect=effect)
        return item

    def _start_from(
        self, key: ItemKey, row: WorkflowRecord, point: ForkPoint, snapshot: StepSnapshot
    ) -> PlanItem | Refusal:
        item = super()._start_from(key, row, point, snapshot)
        cause = self.causes.get(key.workflow_id)
        if isinstance(item, Refusal) or item.verdict != "ready" or cause is None:
            return item
        if cause.problem:
            return Refusal(cause.problem)
        effect = item.effect
        if cause.children:
            label = f"runs again from {point.label}"
            children = ", ".join(cause.children[:MAX_SHOWN_CHILDREN])
            if len(cause.children) > MAX_SHOWN_CHILDREN:
                children += f" and {len(cause.children) - MAX_SHOWN_CHILDREN:,} more"
            have = "has" if len(cause.children) == 1 else "have"
            once = f"{label}, once {children} {have} been repaired"
            effect = effect.replace(label, once, 1)
        if count := len(cause.replayed):
            effect += (
                "; 1 other failed child is not repaired: its recorded failure is replayed"
                if count == 1
                else f"; {count:,} other failed children are not repaired: their recorded failures "
                "are replayed"
            )
        return dataclasses.replace(item, effect=effect)

    def options(self) -> dict[str, object]:
        """Return the options that are not at their defaults; the start steps are no option."""
        options = super().options()
        options.pop("start_step", None)
        return options


def rank_by_depth(causes: dict[str, Cause]) -> list[str]:
    """Return the failed workflows, each after its failed children; mark those in a circle.

    Examples
    --------
    >>> point = ForkPoint(1, None)
    >>> rank_by_depth({"parent": Cause(point, ("child",)), "child": Cause(point)})
    ['child', 'parent']
    """
    order: dict[str, None] = {}
    pending = list(causes)
    while pending:
        level = [one for one in pending if order.keys() >= set(causes[one].children)]
        if not level:
            # Only rows written by hand can do this: no run can wait for itself.
            problem = "its failed children await each other in a circle"
            for workflow_id in pending:
                causes[workflow_id] = dataclasses.replace(causes[workflow_id], problem=problem)
            level = pending
        order |= dict.fromkeys(level)
        pending = [one for one in pending if one not in order]
    return list(order)


class Repair:
    """Plans and applies the repair of failed trees."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @repeat_if_changed
    def plan(self, operation: RepairFork, ids: Sequence[str]) -> Plan:
        """Find the failures, deepest first, and return what would be forked from where."""
        require_available(operation.action, list(operation.options()))
        controller = self._controller
        with controller.reader.session() as session:
            context = controller.context(session)
            causes = _find_causes(context, ids)
            order = rank_by_depth(causes)
            starts = {workflow_id: cause.point.start_step for workflow_id, cause in causes.items()}
            left_out = _find_left_out(context, ids, causes, force=operation.force)
            operation = dataclasses.replace(operation, start_step=starts, left_out=left_out)
            items = controller.evaluate(
                context,
                dataclasses.replace(operation, causes=causes),
                [*order, *(workflow_id for workflow_id in ids if workflow_id not in causes)],
                requested=ids,
            )
            return controller.make_plan(
                context,
                operation,
                items,
                lambda plan, _: self._apply(plan, operation, causes),
            )

    def _apply(self, plan: Plan, operation: RepairFork, causes: Mapping[str, Cause]) -> Receipt:
        """Fork level by level, and wait for each before the next."""
        controller = self._controller
        controller.require_writable()
        controller.require_conditions(plan)
        called_at = dt.datetime.now(dt.UTC)
        run = _RepairRun(controller, plan, operation, causes)
        run.run()
        with InterruptCounter() as interrupts:
            receipt = run.receipt()
            receipt.called_at = called_at
            controller.history.add(called_at, operation.action, operation.options(), receipt)
        if interrupts.count and run.runner is None:
            run.stop().interrupted = True
        if run.runner is not None:
            controller.raise_if_incomplete(plan, receipt, run.runner)
        return receipt


def _find_causes(context: ReadContext, ids: Sequence[str]) -> dict[str, Cause]:
    """Find the causes of these failures, of those of their failed children, and so on."""
    session, queries = context.session, context.queries
    workflows = records.with_failures_below(session, queries, ids)
    failed = [
        workflow_id for workflow_id, row in workflows.items() if row.status in FAILED_STATUSES
    ]
    steps = records.steps(session, queries, failed)
    causes: dict[str, Cause] = {}
    level = [workflow_id for workflow_id in dict.fromkeys(ids) if workflow_id in steps]
    # A circle in rows written by hand ends it: no workflow is analysed twice.
    while level:
        for workflow_id in level:
            causes[workflow_id] = find_cause(workflows[workflow_id], steps[workflow_id], workflows)
        children = (child for workflow_id in level for child in causes[workflow_id].children)
        level = [child for child in dict.fromkeys(children) if child not in causes]
    return causes


def _find_left_out(
    context: ReadContext, ids: Sequence[str], causes: Mapping[str, Cause], *, force: bool
) -> dict[str, str]:
    """Return the failures to leave out because another workflow takes their place, with the reason.

    Of a chain of forks that are passed together one is repaired. What failed below a workflow that
    is not forked is left out as well: no workflow would use its forks. It is repaired if it was
    passed itself, or if a workflow that is repaired awaits it too.
    """
    chains = fork_chains(context.session, context.queries, list(causes))
    # What is said of the failures below workflows that are not forked.
    replaced: dict[str, str] = {}
    for workflow_id, chain in chains.items():
        successor = chain.successor
        if not force and successor:
            # As in repair_status, only a success covers: a fork that still runs may fail.
            verb = "left to" if successor.active else "covered by"
            relation = "a fork of" if successor is chain.best else "of the same chain of forks as"
            replaced[workflow_id] = (
                f"{verb} {successor.workflow_id}, {relation} {workflow_id}, which is "
                f"{successor.status}"
            )
    failed = _reached(ids, causes, replaced) - replaced.keys()
    awaited = {child for one in failed for child in causes[one].children}
    left_out: dict[str, str] = {}
    for workflow_id, stand_in in _find_stand_ins(failed, chains, awaited).items():
        left_out[workflow_id] = f"{stand_in}, of the same chain of forks, is repaired instead"
        below = f"{stand_in}, of the same chain of forks as {workflow_id}, is repaired instead"
        replaced.setdefault(workflow_id, below)
    wanted = _reached(ids, causes, replaced)
    # Causes are in the order in which they were found: a workflow before what only it leads to.
    for workflow_id, cause in causes.items():
        reason = replaced.get(workflow_id) or left_out.get(workflow_id)
        if reason:
            left_out |= {child: reason for child in cause.children if child not in wanted}
    return left_out


def _reached(ids: Sequence[str], causes: Mapping[str, Cause], replaced: Container[str]) -> set[str]:
    """Return the failures among these workflows, and those below the ones that are forked."""
    pending = [workflow_id for workflow_id in ids if workflow_id in causes]
    found = set(pending)
    while pending:
        workflow_id = pending.pop()
        if workflow_id not in replaced:
            new = [child for child in causes[workflow_id].children if child not in found]
            found.update(new)
            pending += new
    return found


def _find_stand_ins(
    failed: Container[str], chains: Mapping[str, ForkChain], awaited: Container[str]
) -> dict[str, str]:
    """Return the failures to leave out because another of their chain is to be repaired, with that.

    The newest failure stands for the others of its chain of forks; an older one stands for them
    where a parent that is repaired awaits it.
    """
    stand_ins: dict[str, str] = {}
    for members in {id(chain.members): chain.members for chain in chains.values()}.values():
        family = [one for one in members if one in failed]
        if len(family) > 1:
            # Of one second, which is all that SQLite may record, the last: a fork of another.
            newest = max(reversed(family), key=lambda one: members[one].created_at or 0)
            chosen = next((one for one in family if one in awaited), newest)
            stand_ins |= {one: chosen for one in family if one != chosen and one not in awaited}
    return stand_ins


class _RepairRun:
    """One application of a repair's plan."""

    def __init__(
        self,
        controller: Controller,
        plan: Plan,
        operation: RepairFork,
        causes: Mapping[str, Cause],
    ) -> None:
        self._controller = controller
        self._plan = plan
        self._operation = operation
        self._causes = causes
        self._deadline = time.monotonic() + operation.wait_seconds
        self._lines: dict[str, ReceiptLine] = {}
        self._notes: list[str] = []
        self._receipts: list[Receipt] = []
        # The runner that stopped the repair, if one did.
        self.runner: BatchRunner | None = None
        # The last known statuses of forks.
        self._statuses: dict[str, str] = {}

    def run(self) -> None:
        """Repair level by level until all is done or something stops it."""
        pending = list(self._plan.items)
        try:
            while pending and self.runner is None:
                done = set(self._lines)
                level = [item for item in pending if self._children(item) <= done]
                if not level:
                    break
                self._fork(level)
                pending = [item for item in pending if item.workflow_id not in self._lines]
                awaited = {child for item in pending for child in self._children(item)}
                if self.runner is None:
                    lines = [line for one, line in self._lines.items() if one in awaited]
                    self._update_statuses(lines)
        except KeyboardInterrupt:
            self.stop().interrupted = True
        except NotebookError as error:
            # Reading failed, between the levels or while it waited.
            self.stop().fatal = error
        for item in pending:
            if item.workflow_id not in self._lines:
                interrupted = self.runner is not None and self.runner.interrupted
                reason = "interrupted" if interrupted else "the repair failed before it"
                self._skip(item, f"not started: {reason}; repeat the same call to continue")

    def stop(self) -> BatchRunner:
        """Stop between two levels; the caller sets the reason in the returned runner."""
        self.runner = BatchRunner(self._controller.pool, self._operation.call, InterruptCounter())
        return self.runner

    def receipt(self) -> Receipt:
        """Return the receipt of all levels."""

        def check() -> Receipt:
            for number, receipt in enumerate(self._receipts):
                self._receipts[number] = receipt.check()
                self._lines |= {line.workflow_id: line for line in self._receipts[number].lines}
            return self.receipt()

        return Receipt(
            self._operation.action,
            [self._lines[item.workflow_id] for item in self._plan.items],
            wait=self._controller.wait,
            check=check,
            notes=self._notes,
        )

    def _children(self, item: PlanItem) -> set[str]:
        cause = self._causes.get(item.workflow_id)
        return set(cause.children) if cause and item.verdict == "ready" else set()

    def _fork(self, level: Sequence[PlanItem]) -> None:
        """Fork the workflows whose children have been forked and have not failed again."""
        ready = []
        for item in level:
            reason = self._blocked(item)
            if reason:
                self._skip(item, reason)
                continue
            replacements = {
                child: new
                for child in self._children(item)
                if (new := self._lines[child].new_workflow_id)
            }
            ready.append(dataclasses.replace(item, replacement_children=replacements or None))
        plan = Plan(self._operation, ready, self._controller.apply)
        plan.applied = self._plan.applied
        with InterruptCounter() as interrupts:
            receipt, runner = self._controller.run(plan, interrupts)
            self._lines |= {line.workflow_id: line for line in receipt.lines}
            self._receipts.append(receipt)
        # Of forks that are likely to run nothing needs to be said: they are waited for.
        self._notes += [note for note in receipt.notes if note.startswith("⚠")]
        if runner.interrupted or runner.fatal:
            self.runner = runner

    def _blocked(self, item: PlanItem) -> str | None:
        """Return why a workflow cannot be forked, by its required children."""
        cause = self._causes.get(item.workflow_id)
        for child in self._children(item) & (cause.required if cause else frozenset()):
            new = self._lines[child].new_workflow_id
            if new is None:
                return f"its child {child} was not repaired: {self._lines[child].detail}"
            status = self._statuses.get(new)
            if status == "SUCCESS":
                continue
            if status in (None, *ACTIVE_STATUSES):
                if not self._operation.wait:
                    continue
                return (
                    f"not started: {new}, the fork of its child {child}, had not finished after "
                    f"{self._operation.wait_seconds:g} s ({status}); repeat the same call to "
                    "continue"
                )
            return f"its child {child} failed again: {new} is {status}"
        return None

    def _update_statuses(self, lines: Sequence[ReceiptLine]) -> None:
        """Read the statuses of forks, if required once they have finished.

        Also where nothing waits for them: a parent of a fork that has failed is not forked.
        """
        new = [line.new_workflow_id for line in lines if line.new_workflow_id]
        new = [workflow_id for workflow_id in new if self._statuses.get(workflow_id) != "SUCCESS"]
        if not new:
            return
        if self._operation.wait:
            seconds = max(0.0, self._deadline - time.monotonic())
            title = f"Repair: waiting for {len(new):,} children"
            rows = watch(self._controller.read, new, seconds, title)
        else:
            rows = self._controller.read(new)
        self._statuses |= {workflow_id: row.status for workflow_id, row in rows.items()}

    def _skip(self, item: PlanItem, reason: str) -> None:
        status = item.row.status if item.row else None
        self._lines[item.workflow_id] = ReceiptLine(
            item.workflow_id,
            self._operation.action,
            "unchanged",
            status,
            status,
            None,
            reason,
            item.point.start_step if item.point else None,
        )
