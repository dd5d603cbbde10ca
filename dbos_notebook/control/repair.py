"""Repair of failed trees: the deepest failures are forked first, then those that awaited them.

A fork of a parent runs again from the step that took its child's failure, and its copied steps
refer to the child's fork (DBOS's ``replacement_children``). What had succeeded is not done again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dbos_notebook.control import failure_analysis, records
from dbos_notebook.control.availability import ExecutorAvailability
from dbos_notebook.control.batch_runner import BatchRunner
from dbos_notebook.control.dbos_client import require_available
from dbos_notebook.control.display import watch
from dbos_notebook.control.failure_analysis import Cause, descent
from dbos_notebook.control.forks import Fork
from dbos_notebook.control.interrupts import InterruptCounter
from dbos_notebook.control.operations import ItemKey, Known, PlanItem, as_key, as_optional_name
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.receipt import Receipt, ReceiptLine
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import NotebookError
from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables.filters import MOST_SECONDS, as_seconds

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class RepairFork(Fork):
    """A fork of one workflow of a failed tree."""

    action: ClassVar[str] = "repair"
    wait: bool = True
    timeout_waiting: float = TIMEOUT_SECONDS

    @classmethod
    def create(  # type: ignore[override] # a repair has other arguments than a fork
        cls,
        *,
        application_version: Any = None,
        queue_name: Any = None,
        key: Any = None,
        wait: bool = True,
        timeout: Any = TIMEOUT_SECONDS,
        force: bool = False,
    ) -> RepairFork:
        """Validate the arguments of ``Client.repair``."""
        seconds = as_seconds(timeout, "timeout", least=0)
        return cls(
            application_version=as_optional_name(application_version, "application_version"),
            queue_name=as_optional_name(queue_name, "queue_name"),
            key=as_key(key) or f"repair-{application_version or 'latest'}",
            force=force,
            wait=wait,
            timeout_waiting=MOST_SECONDS if seconds is None else seconds,
        )

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read what a fork needs, and the forks that there are, whoever made them."""
        known = super().read(session, queries, ids, before)
        # A fork of a fork as well: it has done the same work.
        for original, forks in descent(session, queries, ids).items():
            known.forks[original] = max(forks, key=_rank)
        return known

    def _evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        # Nothing where a fork of it lives or is done.
        workflow_id = key.workflow_id
        row, best = known.rows.get(workflow_id), known.forks.get(workflow_id)
        if row is not None and row.status not in FAILED_STATUSES:
            return PlanItem(workflow_id, "unchanged", f"it has not failed: it is {row.status}", row)
        if best is not None and not self.force and best.status not in FAILED_STATUSES:
            effect = f"already forked as {best.workflow_id}, which is {best.status}"
            point = known.points.get(key)
            return PlanItem(
                workflow_id,
                "unchanged",
                effect,
                row,
                None if isinstance(point, str) else point,
                best.workflow_id,
            )
        item = super()._evaluate(key, known, before)
        if item.verdict == "unchanged":
            made = known.rows[item.new_workflow_id or ""]
            failed = ": it failed again" if made.status in FAILED_STATUSES else ""
            again = f"{item.effect}{failed}. Another key=… tries anew"
            return dataclasses.replace(item, effect=again)
        return item

    def options(self) -> dict[str, object]:
        """Return the options that are not at their defaults."""
        found = super().options()
        found.pop("start_step", None)
        return found


def _rank(fork: WorkflowRecord) -> tuple[bool, bool, int]:
    return fork.status == "SUCCESS", fork.active, fork.created_at or 0


@dataclass
class _Tree:
    """The failed workflows of what was asked for, and what is to be done about each."""

    found: dict[str, WorkflowRecord] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)

    def measure(self) -> None:
        """Give a failure without failed children the height 0, others one more than the highest."""
        left, height = list(self.causes), 0
        while left:
            level = [one for one in left if self.heights.keys() >= set(self.causes[one].children)]
            if not level:
                # Made by hand: no run can wait for itself.
                for one in left:
                    problem = "its failed children await each other in a circle"
                    self.causes[one] = dataclasses.replace(self.causes[one], problem=problem)
                level = left
            self.heights |= dict.fromkeys(level, height)
            left = [one for one in left if one not in self.heights]
            height += 1


class Repair:
    """Plans and applies the repair of failed trees."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @repeat_if_changed
    def plan(self, operation: RepairFork, ids: Sequence[str]) -> Plan:
        """Find the failures, deepest first, and say what would be forked from where."""
        require_available(operation.action, list(operation.options()))
        controller = self._controller
        with controller.reader.session() as session:
            tree = self._explore(session, ids)
            order = sorted(tree.causes, key=tree.heights.__getitem__)
            operation = dataclasses.replace(
                operation, start_step={one: c.point.start_step for one, c in tree.causes.items()}
            )
            rest = [one for one in ids if one not in tree.causes]
            known = controller.read_snapshot(session, operation, [*order, *rest], {})
            keys = operation.keys([*order, *rest])
            # Where each starts was found with its causes; the step's own rule is another.
            for key in keys[: len(order)]:
                if not isinstance(known.points[key], str):
                    known.points[key] = tree.causes[key.workflow_id].point
            availability = ExecutorAvailability(
                session, controller.queries, controller.reader.location
            )
            items, asked = [], set(ids)
            for key in keys:
                one = key.workflow_id
                item = self._item(operation, key, known, tree.causes.get(one))
                items.append(dataclasses.replace(item, asked=one in asked))
            found = controller.conditions(session, operation, items)
            items = [self._with_availability(operation, item, availability) for item in items]
        causes_ = dict(tree.causes)
        return Plan(
            operation,
            items,
            lambda plan, _: self._apply(plan, causes_),
            problem=found.problem,
            notes=found.notes,
        )

    def _with_availability(
        self, operation: RepairFork, item: PlanItem, availability: ExecutorAvailability
    ) -> PlanItem:
        if item.verdict != "do" or item.row is None:
            return item
        owner = self._controller.owner(operation, item)
        told = availability.estimate(operation.application_version, owner, item.queue_name)
        return dataclasses.replace(item, will_run=told)

    def _explore(self, session: Session, ids: Sequence[str]) -> _Tree:
        queries, tree = self._controller.queries, _Tree()
        known = records.with_failures_below(session, queries, ids)
        failures = [one for one, row in known.items() if row.status in FAILED_STATUSES]
        steps = records.steps(session, queries, failures)
        level: list[str] = list(dict.fromkeys(ids))
        # A cycle made by hand ends it, since what was looked at is not looked at again.
        while level:
            tree.found |= {one: known[one] for one in level if one in known}
            failed = [one for one in level if one in steps]
            for one in failed:
                tree.causes[one] = failure_analysis.find(known[one], steps[one], known)
            below = [child for one in failed for child in tree.causes[one].children]
            level = [child for child in dict.fromkeys(below) if child not in tree.causes]
        tree.measure()
        return tree

    def _item(
        self, operation: RepairFork, key: ItemKey, known: Known, cause: Cause | None
    ) -> PlanItem:
        if cause is None:
            one = key.workflow_id
            row = known.rows.get(one)
            if row is None:
                return PlanItem(one, "not_found", "no workflow has this ID")
            return PlanItem(one, "unchanged", f"it has not failed: it is {row.status}", row)
        item = operation.evaluate(key, known, None)
        if item.verdict != "do":
            return item
        if cause.problem:
            return dataclasses.replace(item, verdict="refused", effect=cause.problem)
        effect = f"runs again from {cause.point.label}"
        if cause.children:
            effect += f", once {', '.join(cause.children[:5])} {_has(cause.children)} been repaired"
        if cause.point.repeated:
            effect += f"; repeats what had succeeded: {', '.join(cause.point.repeated[:5])}"
        return dataclasses.replace(item, effect=effect)

    def _apply(self, plan: Plan, found: Mapping[str, Cause]) -> Receipt:
        """Fork level by level, and wait for each before the next."""
        controller, operation = self._controller, plan.operation
        if not isinstance(operation, RepairFork):
            raise TypeError("A repair's plan has a repair's operation.")
        controller.require_writable()
        controller.require_conditions(plan)
        began = dt.datetime.now(dt.UTC)
        run = _Run(controller, plan, operation, found)
        run.go()
        with InterruptCounter() as interrupts:
            receipt = run.receipt()
            receipt.called_at = began
            controller.history.add(began, operation.action, operation.options(), receipt)
        if interrupts.count and run.runner is None:
            run.end().interrupted = True
        if run.runner is not None:
            controller.raise_broken(plan, receipt, run.runner)
        return receipt


class _Run:
    """One application of a repair's plan."""

    def __init__(
        self, controller: Controller, plan: Plan, operation: RepairFork, found: Mapping[str, Cause]
    ) -> None:
        self._controller = controller
        self._plan = plan
        self._operation = operation
        self._causes = found
        self._deadline = time.monotonic() + operation.timeout_waiting
        self.lines: dict[str, ReceiptLine] = {}
        self._notes: list[str] = []
        self._receipts: list[Receipt] = []
        # The runner that broke off, if one did.
        self.runner: BatchRunner | None = None
        self._states: dict[str, str] = {}

    def go(self) -> None:
        """Go up the levels until all is done or something ends it."""
        left = list(self._plan.items)
        try:
            while left and self.runner is None:
                done = set(self.lines)
                level = [item for item in left if self._children(item) <= done]
                if not level:
                    break
                self._level(level)
                left = [item for item in left if item.workflow_id not in self.lines]
                above = {child for item in left for child in self._children(item)}
                if self.runner is None and self._operation.wait:
                    self._wait([line for one, line in self.lines.items() if one in above])
        except KeyboardInterrupt:
            self.end().interrupted = True
        except NotebookError as error:
            # Reading failed, between the levels or while it waited.
            self.end().fatal = error
        for item in left:
            if item.workflow_id not in self.lines:
                why = "interrupted" if self.runner and self.runner.interrupted else "it broke off"
                self._say(item, f"not begun: {why}; the same call again goes on")

    def end(self) -> BatchRunner:
        """End it between two levels; the runner that is returned says why."""
        self.runner = BatchRunner(self._controller.pool, self._operation.call, InterruptCounter())
        return self.runner

    def receipt(self) -> Receipt:
        """Return the receipt of the whole."""

        def check() -> Receipt:
            for number, level in enumerate(self._receipts):
                self._receipts[number] = level.check()
                for line in self._receipts[number].lines:
                    self.lines[line.workflow_id] = line
            return self.receipt()

        lines = [self.lines[item.workflow_id] for item in self._plan.items]
        return Receipt(
            self._operation.action,
            lines,
            wait=self._controller.wait,
            check=check,
            notes=self._notes,
        )

    def _children(self, item: PlanItem) -> set[str]:
        cause = self._causes.get(item.workflow_id)
        return set(cause.children) if cause and item.verdict == "do" else set()

    def _level(self, level: Sequence[PlanItem]) -> None:
        """Fork those whose children have been forked, and if wanted have succeeded."""
        ready = []
        for item in level:
            blocked = self._blocked(item)
            if blocked:
                self._say(item, blocked)
                continue
            replaced = {
                child: new
                for child in self._children(item)
                if (new := self.lines[child].new_workflow_id)
            }
            ready.append(dataclasses.replace(item, replaced=replaced or None))
        plan = Plan(self._operation, ready, self._controller.apply)
        plan.applied = self._plan.applied
        with InterruptCounter() as interrupts:
            receipt, runner = self._controller.run(plan, interrupts)
            for line in receipt.lines:
                self.lines[line.workflow_id] = line
            self._receipts.append(receipt)
        # What is likely to run is waited for; what is not deserves a word.
        self._notes += [note for note in receipt.notes if note.startswith("⚠")]
        if runner.interrupted or runner.fatal:
            self.runner = runner

    def _blocked(self, item: PlanItem) -> str | None:
        cause = self._causes.get(item.workflow_id)
        for child in self._children(item) & (cause.required if cause else frozenset()):
            new = self.lines[child].new_workflow_id
            if new is None:
                return f"its child {child} was not repaired: {self.lines[child].detail}"
            state = self._states.get(new)
            if self._operation.wait and state != "SUCCESS":
                if state in (None, *ACTIVE_STATUSES):
                    return (
                        f"not started: {new}, the fork of its child {child}, had not finished "
                        f"after {self._operation.timeout_waiting:g} s ({state}); the same call "
                        "continues"
                    )
                return f"its child {child} failed again: {new} is {state}"
        return None

    def _wait(self, lines: Sequence[ReceiptLine]) -> None:
        new = [line.new_workflow_id for line in lines if line.new_workflow_id]
        new = [one for one in new if self._states.get(one) != "SUCCESS"]
        if new:
            left = max(0.0, self._deadline - time.monotonic())
            seen = watch(
                self._controller.read, new, left, f"Repair: waiting for {len(new):,} children"
            )
            self._states |= {one: row.status for one, row in seen.items()}

    def _say(self, item: PlanItem, why: str) -> None:
        status = item.row.status if item.row else None
        self.lines[item.workflow_id] = ReceiptLine(
            item.workflow_id,
            self._operation.action,
            "unchanged",
            status,
            status,
            None,
            why,
            item.point.start_step if item.point else None,
        )


def _has(children: Sequence[str]) -> str:
    return "has" if len(children) == 1 else "have"
