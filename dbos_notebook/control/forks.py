"""Fork and rewind: resolve the start step, evaluate, call DBOS, verify."""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from dbos_notebook.control import permissions, records
from dbos_notebook.control.dbos_client import forks_keep_version
from dbos_notebook.control.failure_analysis import ForkChain, fork_chains
from dbos_notebook.control.fork_points import (
    FailedWait,
    ForkPoint,
    Steps,
    as_start_steps,
    resolve,
)
from dbos_notebook.control.operations import (
    ItemKey,
    Operation,
    PlanItem,
    ReadContext,
    Refusal,
    Snapshot,
    as_key,
    as_optional_name,
    changed,
)
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.queue_selection import ORIGINAL, KnownQueues, choose
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import FilterError, StepNotFoundError
from dbos_notebook.status import FAILED_STATUSES, STATUS_STYLES
from dbos_notebook.tables.filters import as_name, as_seconds
from dbos_notebook.text import leaf_name

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.types import Duration, StartSteps

_NAMESPACE = uuid.UUID("6f0d1c1e-6f5b-5d3c-9a55-0d805b07eb00")
_MAX_READABLE_CHARACTERS = 40
MAX_SHOWN_NAMES = 5


def fork_id(key: str | None, workflow_id: str, start_step: int) -> str:
    """Return the ID of a fork: always the same for a key, a workflow and a step.

    Without a key it is new each time.

    Examples
    --------
    >>> fork_id("incident 42", "order-1", 3)
    'incident-42-...'
    >>> fork_id("incident 42", "order-1", 3) == fork_id("incident 42", "order-1", 3)
    True
    >>> fork_id(None, "order-1", 3) == fork_id(None, "order-1", 3)
    False
    """
    if key is None:
        return str(uuid.uuid4())
    # The readable part may be truncated or equal for two keys; the other part differs.
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", key).strip("-")[:_MAX_READABLE_CHARACTERS] or "fork"
    name = json.dumps([key, workflow_id, start_step], ensure_ascii=False)
    return f"{readable}-{uuid.uuid5(_NAMESPACE, name)}"


@dataclass
class StepSnapshot:
    """What was read before a fork or a rewind, in one transaction.

    Attributes
    ----------
    workflows
        The originals, and for a fork the workflows that have its ID or replace children.
    points
        The resolved start steps of the originals that exist.
    awaited
        The workflows of which steps that run again read the failure.
    new_ids
        The IDs that forks will have.
    records_origins
        Whether the database records the original of a fork; before dbos 2.4 it did not.
    chains
        For a fork: the chains of forks that the originals belong to.
    """

    workflows: dict[str, WorkflowRecord]
    queues: KnownQueues
    points: dict[ItemKey, ForkPoint | Refusal]
    awaited: dict[str, WorkflowRecord] = field(default_factory=dict)
    new_ids: dict[ItemKey, str] = field(default_factory=dict)
    records_origins: bool = True
    chains: dict[str, ForkChain] = field(default_factory=dict)


@dataclass(frozen=True)
class StepOperation(Operation):
    """What fork and rewind share: they start from a step."""

    enqueues: ClassVar[bool] = True
    raises_if_nothing_done: ClassVar[bool] = True
    start_step: Steps | Mapping[str, Steps] | None = None
    application_version: str | None = None
    queue_name: str | None = None
    queue_partition_key: str | None = None

    def keys(self, ids: Sequence[str]) -> list[ItemKey]:
        """Return a key for each workflow and each step that it is to start from."""
        start = self.start_step
        if isinstance(start, tuple) and len(ids) > 1:
            raise FilterError(
                f"start_step={list(start)!r} with {len(ids):,} workflows could mean each of them "
                "from each step, or each from its own. Pass a mapping from workflow IDs to steps: "
                f"start_step={{{ids[0]!r}: {list(start)!r}, …}}."
            )
        keys = []
        for workflow_id in ids:
            steps = start.get(workflow_id) if isinstance(start, Mapping) else start
            several = steps if isinstance(steps, tuple) else (steps,)
            keys += [ItemKey(workflow_id, step) for step in several]
        return keys

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen to each workflow from each step."""
        snapshot = self._read_snapshot(context, keys, before)
        return [
            dataclasses.replace(self._evaluate_step(key, snapshot), start_step=key.start_step)
            for key in keys
        ]

    def _read_snapshot(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> StepSnapshot:
        workflows = context.workflows(key.workflow_id for key in keys)
        queues = context.queues(workflows) if self.queue_name is not None else KnownQueues()
        points = self._points(context, keys, before, workflows)
        waits = (point.failed_waits for point in points.values() if isinstance(point, ForkPoint))
        awaited = context.related({wait.workflow_id for found in waits for wait in found})
        return StepSnapshot(workflows, queues, points, awaited)

    def _points(
        self,
        context: ReadContext,
        keys: Sequence[ItemKey],
        before: Mapping[ItemKey, PlanItem],
        workflows: Mapping[str, WorkflowRecord],
    ) -> dict[ItemKey, ForkPoint | Refusal]:
        """Resolve the start steps; those of an earlier plan are kept."""
        if before:
            return {key: item.point or Refusal(item.effect) for key, item in before.items()}
        steps = records.steps(context.session, context.queries, list(workflows))
        points: dict[ItemKey, ForkPoint | Refusal] = {}
        for key in keys:
            if key.workflow_id in workflows:
                try:
                    points[key] = resolve(*key, steps[key.workflow_id])
                except StepNotFoundError as error:
                    points[key] = Refusal(str(error))
        return points

    def _evaluate_step(self, key: ItemKey, snapshot: StepSnapshot) -> PlanItem:
        row = snapshot.workflows.get(key.workflow_id)
        if row is None:
            return PlanItem(key.workflow_id, "not_found", self.not_found)
        point = snapshot.points[key]
        if isinstance(point, Refusal):
            return PlanItem(key.workflow_id, "refused", point.reason, row)
        result = self._start_from(key, row, point, snapshot)
        if isinstance(result, Refusal):
            return PlanItem(key.workflow_id, "refused", result.reason, row, point)
        return result

    def _start_from(
        self, key: ItemKey, row: WorkflowRecord, point: ForkPoint, snapshot: StepSnapshot
    ) -> PlanItem | Refusal:
        raise NotImplementedError

    def _with_queue(
        self, item: PlanItem, row: WorkflowRecord, queues: KnownQueues
    ) -> PlanItem | Refusal:
        """Choose the queue, or refuse where the work would wait there forever."""
        place = choose(row, self.queue_name, self.queue_partition_key, queues)
        if place.problem:
            return Refusal(place.problem)
        return dataclasses.replace(
            item,
            effect=f"{item.effect}; {place.effect}" if place.effect else item.effect,
            queue_name=place.queue_name,
            queue_partition_key=place.queue_partition_key,
        )

    def lacks_step(self, item: PlanItem) -> bool:
        """Return whether the item was refused because its start step does not exist."""
        return item.point is None

    def options(self) -> dict[str, object]:
        """Return the options that are not at their defaults, a mapping of steps abbreviated."""
        options = super().options()
        if isinstance(self.start_step, Mapping):
            options["start_step"] = "a mapping"
        elif isinstance(self.start_step, tuple):
            options["start_step"] = list(self.start_step)
        return options


def _check_partition_key(queue_name: str | None, queue_partition_key: str | None) -> None:
    """Raise FilterError for a partition key with workflows that keep their own."""
    if queue_name == ORIGINAL and queue_partition_key is not None:
        raise FilterError(
            "queue_name='original' enqueues each workflow with its own partition key, so "
            f"queue_partition_key={queue_partition_key!r} cannot be combined with it."
        )


def _as_replacements(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    name = "replacement_children"
    if not isinstance(value, Mapping):
        raise FilterError(f"{name} takes a mapping of IDs, not {value!r}.")
    return {as_name(old, name): as_name(new, name) for old, new in value.items()} or None


def _repeats(point: ForkPoint) -> str:
    """Return the part of an effect that names the successful steps that run again."""
    names = tuple(map(leaf_name, point.repeated))
    if not names:
        return ""
    more = len(names) - MAX_SHOWN_NAMES
    listed = ", ".join(names[:MAX_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"; repeats successful steps: {listed}"


def _fails_again(
    point: ForkPoint, waits: Sequence[FailedWait], awaited: Mapping[str, WorkflowRecord]
) -> tuple[str, list[str]]:
    """Return which steps will read a recorded failure again, and the workflows that failed.

    A workflow that has been repaired in place since, or runs again, has no failure to read.
    """
    failed = [
        wait
        for wait in waits
        if (row := awaited.get(wait.workflow_id)) is not None and row.status in FAILED_STATUSES
    ]
    if not failed:
        return "", []
    listed = ", ".join(
        f"{'that step' if wait.function_id == point.start_step else f'step {wait.function_id}'} "
        f"awaits {wait.workflow_id}"
        for wait in failed[:MAX_SHOWN_NAMES]
    )
    if len(failed) > MAX_SHOWN_NAMES:
        listed += f", and {len(failed) - MAX_SHOWN_NAMES:,} more"
    failure = "failure is" if len(failed) == 1 else "failures are"
    effect = f"; but {listed}, whose {failure} recorded, and will fail again"
    return effect, [wait.workflow_id for wait in failed]


def _lost(waits: Sequence[FailedWait], awaited: Mapping[str, WorkflowRecord]) -> str:
    """Return which steps will await a workflow that was deleted, which DBOS does without end."""
    lost = [w for w in waits if w.workflow_id not in awaited and not w.started_again]
    listed = ", ".join(
        f"step {wait.function_id} awaits {wait.workflow_id}" for wait in lost[:MAX_SHOWN_NAMES]
    )
    return f"; but {listed}, which does not exist, and waits without end" if lost else ""


@dataclass(frozen=True)
class Fork(StepOperation):
    """Fork workflows: start new ones that copy the steps before one and run from there."""

    action: ClassVar[str] = "fork"
    planned: ClassVar[str] = "will be forked"
    needed: ClassVar[Privileges] = permissions.FORK
    timeout: float | None = None
    key: str | None = None
    replacement_children: Mapping[str, str] | None = None
    force: bool = False

    @classmethod
    def create(
        cls,
        start_step: StartSteps,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        timeout: Duration | None = None,
        key: str | None = None,
        replacement_children: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> Fork:
        """Validate the arguments of ``Client.fork``."""
        _check_partition_key(queue_name, queue_partition_key)
        return cls(
            as_start_steps(start_step, several=True),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
            timeout=as_seconds(timeout, "timeout"),
            key=as_key(key),
            replacement_children=_as_replacements(replacement_children),
            force=force,
        )

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges; copying steps needs more."""
        copies = any(item.point is not None and item.point.start_step > 1 for item in items)
        return {**self.needed, **(permissions.FORK_COPYING if copies else {})}

    def _read_snapshot(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> StepSnapshot:
        """Read the originals, their steps, and the forks that may exist already."""
        snapshot = super()._read_snapshot(context, keys, before)
        snapshot.records_origins = context.queries.catalog.has("workflow_status", "forked_from")
        for key, point in snapshot.points.items():
            planned = before[key].new_workflow_id if key in before else None
            if planned:
                snapshot.new_ids[key] = planned
            elif isinstance(point, ForkPoint):
                snapshot.new_ids[key] = fork_id(self.key, key.workflow_id, point.start_step)
        replacements = (self.replacement_children or {}).values()
        snapshot.workflows |= context.workflows([*snapshot.new_ids.values(), *replacements])
        ids = [one for one in {key.workflow_id: None for key in keys} if one in snapshot.workflows]
        snapshot.chains = fork_chains(context.session, context.queries, ids)
        return snapshot

    def _start_from(
        self, key: ItemKey, row: WorkflowRecord, point: ForkPoint, snapshot: StepSnapshot
    ) -> PlanItem | Refusal:
        new_id = snapshot.new_ids[key]
        existing = snapshot.workflows.get(new_id)
        if existing is not None:
            # Where origins are not recorded, the ID shows it: it is derived from the original's.
            if existing.forked_from != key.workflow_id and (
                snapshot.records_origins or existing.name != row.name
            ):
                return Refusal(
                    f"the fork's ID {new_id} is used by a workflow that is not a fork of this one"
                )
            effect = already_forked(existing)
            if self.application_version not in (None, existing.app_version):
                effect += f" under version {existing.app_version or 'unknown'}"
            return PlanItem(key.workflow_id, "unchanged", effect, row, point, new_id)
        if row.active and not self.force:
            return Refusal(
                f"it is {row.status}: the fork would do its work a second time. Cancel it first, "
                "or pass force=True"
            )
        for replacement in (self.replacement_children or {}).values():
            if replacement not in snapshot.workflows:
                return Refusal(
                    f"no workflow has the ID {replacement!r}, passed in replacement_children"
                )
        chain = snapshot.chains.get(key.workflow_id)
        other = chain.successor if chain else None
        effect = _describe_other_fork(other, chain) if other and chain else ""
        effect += f"runs again from {point.label}{_repeats(point)}"
        # A child that the fork starts again gets a new ID.
        waits = [
            wait
            for wait in point.failed_waits
            if not wait.started_again and wait.workflow_id not in (self.replacement_children or {})
        ]
        warning, failed = _fails_again(point, waits, snapshot.awaited)
        if failed:
            effect += f"{warning}: db.repair forks {'both' if len(failed) == 1 else 'them all'}"
        effect += _lost(waits, snapshot.awaited)
        item = PlanItem(key.workflow_id, "ready", effect, row, point, new_id, other_fork=other)
        return self._with_queue(item, row, snapshot.queues)

    def notes(self, items: Sequence[PlanItem]) -> list[str]:
        """Return how many would do again what another fork has done or is doing."""
        others = [item.other_fork for item in items if item.verdict == "ready" and item.other_fork]
        succeeded = sum(fork.status == "SUCCESS" for fork in others)
        notes = []
        if len(items) > 1:
            if succeeded:
                notes.append(f"⚠ {succeeded:,} {_have(succeeded)} a fork that succeeded.")
            if active := len(others) - succeeded:
                notes.append(f"⚠ {active:,} {_have(active)} a fork that has not finished.")
        return notes

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Fork one by one: DBOS has no public call for many."""
        from dbos import SetWorkflowID

        for item in items:
            if item.point is None or item.new_workflow_id is None:
                raise RuntimeError(f"{item.workflow_id} was planned without a step")
            replacements = item.replacement_children or self.replacement_children
            with SetWorkflowID(item.new_workflow_id):
                client.fork_workflow(
                    item.workflow_id,
                    item.point.start_step,
                    replacement_children=dict(replacements) if replacements else None,
                    timeout_seconds=self.timeout,
                    application_version=self.application_version,
                    queue_name=item.queue_name,
                    queue_partition_key=item.queue_partition_key,
                )

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether the fork exists."""
        # The ID was unused before; a database of dbos before 2.4 does not record origins.
        new = after.new_row(item)
        return new is not None and new.forked_from in (None, item.workflow_id)

    def already_done(self, item: PlanItem, after: Snapshot) -> str | None:
        """Return that another call with the same key, or of the same plan, was first."""
        new = after.new_row(item)
        return already_forked(new) if new is not None and self.succeeded(item, after) else None

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the version and queue of the fork."""
        own = item.row.app_version if item.row and forks_keep_version() else None
        return self.application_version or own, item.queue_name

    def owner(self, item: PlanItem, application: str | None) -> str | None:
        """Return the original's application; that of the client where the original has none."""
        own = super().owner(item, application)
        return application if own is None else own

    def continuation(self) -> str:
        """Return how to continue: without a key only the plan has the IDs of the forks."""
        if self.key is None:
            return "error.plan.apply() continues; the same call without key=… would fork again"
        return super().continuation()


def already_forked(fork: WorkflowRecord) -> str:
    """Return why a workflow is not forked again."""
    return f"already forked as {fork.workflow_id}, which is {fork.status}"


def done_by(chain: ForkChain, successor: WorkflowRecord) -> str:
    """Return why a failure whose work another member of its chain does or did is not repaired."""
    if successor is chain.best:
        return already_forked(successor)
    label = "succeeded"
    if successor.active:
        runs = successor.status == "PENDING"
        label = "runs" if runs else f"will run: it is {successor.status}"
    return f"{successor.workflow_id}, of the same chain of forks, {label}"


def _describe_other_fork(fork: WorkflowRecord, chain: ForkChain) -> str:
    """Return the part of an effect that warns of doing work again."""
    name = f"its fork {fork.workflow_id}"
    if fork is not chain.best:
        name = f"{fork.workflow_id}, of the same chain of forks,"
    if fork.active:
        label = STATUS_STYLES[fork.status].label
        return f"{name} is {label}: this does its work a second time; "
    return f"{name} succeeded: this runs the work again; "


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


@dataclass(frozen=True)
class Rewind(StepOperation):
    """Rewind workflows: discard their steps from one on, and enqueue them again."""

    action: ClassVar[str] = "rewind"
    planned: ClassVar[str] = "will be rewound"
    needed: ClassVar[Privileges] = permissions.REWIND
    # A resume by somebody else changes the row as well.
    traceable: ClassVar[bool] = False

    @classmethod
    def create(
        cls,
        start_step: StartSteps,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
    ) -> Rewind:
        """Validate the arguments of ``Client.rewind``."""
        _check_partition_key(queue_name, queue_partition_key)
        return cls(
            as_start_steps(start_step),
            as_optional_name(application_version, "application_version"),
            as_optional_name(queue_name, "queue_name"),
            as_optional_name(queue_partition_key, "queue_partition_key"),
        )

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges; setting the version needs one more."""
        return {
            **self.needed,
            **(permissions.REWIND_TO_VERSION if self.application_version else {}),
        }

    def _start_from(
        self, key: ItemKey, row: WorkflowRecord, point: ForkPoint, snapshot: StepSnapshot
    ) -> PlanItem | Refusal:
        if row.active:
            return Refusal(
                f"it is {row.status}, and DBOS rewinds only workflows that have ended: cancel it "
                "first"
            )
        if point.start_step < 1:
            return Refusal("dbos for Python cannot rewind to step 0: pass a later step, or fork it")
        effect = f"discards {point.label}, later steps, the result and later messages"
        effect += _repeats(point)
        # Also a child that is started again: it has the same ID, and DBOS does not run it again.
        warning, failed = _fails_again(point, point.failed_waits, snapshot.awaited)
        if failed:
            first = failed[0] if len(failed) == 1 else "them"
            both = "both" if len(failed) == 1 else "them all"
            effect += f"{warning}: rewind {first} first, or db.repair forks {both}"
        effect += _lost(point.failed_waits, snapshot.awaited)
        item = PlanItem(key.workflow_id, "ready", effect, row, point)
        return self._with_queue(item, row, snapshot.queues)

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Rewind one by one, as DBOS does."""
        for item in items:
            if item.point is None:
                raise RuntimeError(f"{item.workflow_id} was planned without a step")
            client.rewind_workflow(
                item.workflow_id,
                start_step=item.point.start_step,
                application_version=self.application_version,
                queue_name=item.queue_name,
                queue_partition_key=item.queue_partition_key,
            )

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether its row has changed."""
        row = after.row(item)
        return row is not None and changed(item.row, row)

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the version, by default the workflow's own, and the queue."""
        own = item.row.app_version if item.row else None
        return self.application_version or own, item.queue_name
