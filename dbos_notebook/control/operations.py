"""The operations on workflows: cancel, resume, delete, set a delay, set attributes.

Each class evaluates what a call would do to a workflow, calls DBOS, and checks in the rows
afterwards whether it succeeded. Operations that start from a step are in ``forks``.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from dbos_notebook.control import permissions, records
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.queue_selection import KnownQueues, choose_for_resume, read_queues
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.errors import FilterError
from dbos_notebook.status import COMPLETED_STATUSES, WAITING_STATUSES
from dbos_notebook.tables.filters import (
    as_epoch_ms,
    as_name,
    as_seconds,
    check_filters,
    check_storable,
)
from dbos_notebook.text import sanitize, timestamp

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.control.fork_points import ForkPoint
    from dbos_notebook.control.transactions import OtherServer
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.availability import Estimate
    from dbos_notebook.tables.sql import Queries

Verdict = Literal["ready", "unchanged", "refused", "not_found"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
BATCH_SIZE = 200
"""Workflows in one bulk call, which is one transaction: few enough not to hold locks for long."""


class ItemKey(NamedTuple):
    """Identifies an item of a plan: a workflow can be forked from several steps."""

    workflow_id: str
    start_step: int | str | None = None


@dataclass(frozen=True)
class PlanItem:
    """One row of a plan: a workflow and, for a fork, the step.

    Attributes
    ----------
    verdict
        ``ready``; ``unchanged`` where the call would change nothing; ``refused`` where it would do
        harm; ``not_found``.
    effect
        What would happen, or why not.
    point
        The step that ``start_step`` was resolved to.
    requested
        False for a child that is included because of its parent.
    replacement_children
        For a fork: the children that its copied steps refer to, by the children that they replace.
    queue_name, queue_partition_key
        Where the work is enqueued; ``None``: DBOS's internal queue.
    start_step
        The start step as it was passed: a number, a name, or "failed" and the like.
    other_fork
        For a fork: an earlier fork of the workflow that has succeeded or is active.
    """

    workflow_id: str
    verdict: Verdict
    effect: str
    row: WorkflowRecord | None = None
    point: ForkPoint | None = None
    new_workflow_id: str | None = None
    will_run: Estimate | None = None
    requested: bool = True
    replacement_children: Mapping[str, str] | None = None
    queue_name: str | None = None
    queue_partition_key: str | None = None
    start_step: int | str | None = None
    other_fork: WorkflowRecord | None = None

    @property
    def key(self) -> ItemKey:
        """Identifies the item within its plan."""
        return ItemKey(self.workflow_id, self.start_step)


def distinct(items: Sequence[PlanItem]) -> list[PlanItem]:
    """Return the items without those that would repeat an earlier one.

    "failed" and 3 may be the same step.
    """
    unique: dict[tuple[str, int | str], PlanItem] = {}
    for item in items:
        effect = item.point.start_step if item.point else item.effect
        unique.setdefault((item.workflow_id, effect), item)
    return list(unique.values())


@dataclass(frozen=True)
class Refusal:
    """Why an operation is refused for one workflow."""

    reason: str


@dataclass(frozen=True)
class ClearedQueue:
    """The queue that a workflow was on before this client cancelled it; DBOS clears it.

    It is known until ``completed_at`` (milliseconds since 1970) changes.
    """

    completed_at: int | None
    queue_name: str | None


@dataclass(frozen=True)
class ReadContext:
    """One read transaction, and what only this client knows: what operations read from."""

    session: Session
    queries: Queries
    cleared_queues: Mapping[str, ClearedQueue] = field(default_factory=dict)

    def workflows(self, ids: Iterable[str]) -> dict[str, WorkflowRecord]:
        """Read workflows by ID; those that do not exist are omitted."""
        return records.workflows(self.session, self.queries, ids)

    def related(self, ids: Iterable[str]) -> dict[str, WorkflowRecord]:
        """Read workflows by ID, whichever application owns them."""
        return records.workflows(self.session, self.queries.all_applications, ids)

    def children(self, ids: Sequence[str]) -> list[str]:
        """Read the IDs of the workflows below these, as DBOS finds them."""
        return records.children(self.session, self.queries, ids)

    def waiting_parents(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Read the active workflows that may still await these: their statuses, by ID."""
        return records.waiting_parents(self.session, self.queries, ids)

    def queues(self, workflows: Mapping[str, WorkflowRecord]) -> KnownQueues:
        """Read the registered queues, with what is known of the queues of these workflows."""
        cleared = {
            workflow_id: known.queue_name
            for workflow_id, known in self.cleared_queues.items()
            if workflow_id in workflows
            and workflows[workflow_id].completed_at == known.completed_at
        }
        return dataclasses.replace(read_queues(self.session, self.queries), cleared=cleared)


@dataclass
class Snapshot:
    """What was read after a call, in one transaction.

    Attributes
    ----------
    workflows
        By ID; for operations on schedules, the schedules by name and the workflows they started.
    children
        The workflows below those that were cancelled.
    triggered
        By schedule: the IDs of workflows that it started lately, where the call did not return one.
    message_ids
        The IDs of the messages that were sent to the workflows.
    other_server
        Which other server was read from; ``None``: the server that was written to.
    """

    workflows: dict[str, WorkflowRecord]
    children: list[str] = field(default_factory=list)
    triggered: dict[str, list[str]] = field(default_factory=dict)
    message_ids: frozenset[str] = frozenset()
    other_server: OtherServer | None = None

    def row(self, item: PlanItem) -> WorkflowRecord | None:
        """Return the workflow of an item, if it exists."""
        return self.workflows.get(item.workflow_id)

    def new_row(self, item: PlanItem) -> WorkflowRecord | None:
        """Return the workflow that the item's call was to start, if it exists."""
        return self.workflows.get(item.new_workflow_id or "")


@dataclass(frozen=True)
class Operation:
    """One control call with its options. Fields with ``repr=False`` are not options."""

    action: ClassVar[str]
    planned: ClassVar[str]
    """The label of the workflows that a plan would change: "will be cancelled"."""
    needed: ClassVar[Privileges] = {}
    """The privileges that the role needs."""
    subject: ClassVar[str] = "workflow_id"
    not_found: ClassVar[str] = "no workflow has this ID"
    batch_size: ClassVar[int] = 1
    always_confirm: ClassVar[bool] = False
    enqueues: ClassVar[bool] = False
    """Whether an executor must dequeue the work."""
    clears_queue: ClassVar[bool] = False
    """Whether DBOS clears the queue of a workflow that this changes."""
    raises_if_nothing_done: ClassVar[bool] = False
    """Whether DBOS raises where it does nothing, so that a call that returns has succeeded."""
    traceable: ClassVar[bool] = True
    """Whether a row shows that this call changed it, even if the call did not return."""
    several_transactions: ClassVar[bool] = False
    """Whether DBOS runs several transactions per call, so that one COMMIT proves nothing."""

    @property
    def cascades(self) -> bool:
        """Whether DBOS itself includes the children of the workflows it is called for."""
        return False

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges that the role needs to change these."""
        return self.needed

    def batches(self, items: Sequence[PlanItem]) -> list[Sequence[PlanItem]]:
        """Divide the items into calls of DBOS."""
        size = self.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def keys(self, ids: Sequence[str]) -> list[ItemKey]:
        """Return the keys of the items that a plan for these workflows has."""
        return [ItemKey(workflow_id) for workflow_id in ids]

    def children(self, context: ReadContext, ids: Sequence[str]) -> list[str]:
        """Return the IDs of further workflows that a plan for these includes."""
        return []

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen now, one item per key.

        Parameters
        ----------
        before
            The items of the plan that is about to be applied; empty when a plan is made.
        """
        rows = self.read(context, [key.workflow_id for key in keys])
        return [self._evaluate(key.workflow_id, rows.get(key.workflow_id)) for key in keys]

    def read(self, context: ReadContext, ids: Sequence[str]) -> dict[str, WorkflowRecord]:
        """Read the workflows by ID, or the schedules by name."""
        return context.workflows(ids)

    def _evaluate(self, workflow_id: str, row: WorkflowRecord | None) -> PlanItem:
        if row is None:
            return PlanItem(workflow_id, "not_found", self.not_found)
        verdict, effect = self._verdict(row)
        return PlanItem(workflow_id, verdict, effect, row)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        raise NotImplementedError

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Return why a plan made for one row does not hold for another, though DBOS would act."""
        if _activity(now) > _activity(before):
            return f"it is {now.status} now"
        if before.completed_at is not None and now.completed_at != before.completed_at:
            return "it has run again since the plan"
        return None

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> dict[str, str] | None:
        """Call DBOS for one batch; return new workflows' IDs where only DBOS chooses them."""
        raise NotImplementedError

    def reread(self, context: ReadContext, items: Sequence[PlanItem]) -> Snapshot:
        """Read the rows after the call."""
        new = [item.new_workflow_id for item in items if item.new_workflow_id]
        return Snapshot(context.workflows([*(item.workflow_id for item in items), *new]))

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether the rows show that the item was done."""
        raise NotImplementedError

    def already_done(self, item: PlanItem, after: Snapshot) -> str | None:
        """Return what another call had done already, where this one failed because of it."""
        return None

    def started_since(self, item: PlanItem, after: Snapshot, moment: dt.datetime) -> list[str]:
        """Return the workflows that the call may have started, where only DBOS knew their IDs."""
        return []

    def lacks_step(self, item: PlanItem) -> bool:
        """Return whether the item was refused because its start step does not exist."""
        return False

    def needs_executor(self, item: PlanItem) -> bool:
        """Return whether an executor must run the workflow before the call has its effect."""
        return self.enqueues

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the application version and the queue of the work that is enqueued."""
        return (item.row.app_version if item.row else None), item.queue_name

    def owner(self, item: PlanItem, application: str | None) -> str | None:
        """Return the application that will own the work; ``None``: any may run it.

        Parameters
        ----------
        application
            The application of this client.
        """
        return item.row.application_name if item.row else None

    def continuation(self) -> str:
        """Return how to continue after an interruption."""
        if self.traceable:
            return "Repeat the same call to continue"
        return "error.plan.apply() continues with what was not started"

    def notes(self, items: Sequence[PlanItem]) -> list[str]:
        """Return what a plan says of its items as a whole."""
        return []

    def options(self) -> dict[str, object]:
        """Return the options that are not at their defaults, for titles and the log."""
        return {
            option.name: value
            for option in dataclasses.fields(self)
            if option.repr and (value := getattr(self, option.name)) != option.default
        }


def _activity(row: WorkflowRecord) -> int:
    return 2 if row.status == "PENDING" else int(row.active)


def as_key(key: object, name: str = "key") -> str | None:
    """Return the key of an idempotent call, normalized to NFC.

    Examples
    --------
    >>> as_key("cafe" + chr(0x301)) == as_key("caf" + chr(0xe9))
    True
    """
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise FilterError(f"{name} must be a non-empty string such as 'incident-42', not {key!r}.")
    check_storable(key, name)
    return unicodedata.normalize("NFC", key)


def as_optional_name(value: object, name: str) -> str | None:
    """Return the name of a queue or a version, or ``None``."""
    return None if value is None else as_name(value, name)


@dataclass(frozen=True)
class Cancel(Operation):
    """Cancel workflows: remove them from their queue, or stop them at their next step."""

    action: ClassVar[str] = "cancel"
    planned: ClassVar[str] = "will be cancelled"
    needed: ClassVar[Privileges] = permissions.CANCEL
    batch_size: ClassVar[int] = BATCH_SIZE
    clears_queue: ClassVar[bool] = True
    several_transactions: ClassVar[bool] = True  # with children, one per level
    cancel_children: bool = False

    @property
    def cascades(self) -> bool:
        """Whether children are cancelled, including those started after the plan."""
        return self.cancel_children

    def needs(self, items: Sequence[PlanItem]) -> Privileges:
        """Return the privileges; cancelling children needs one more."""
        return {**self.needed, **(permissions.CANCEL_CHILDREN if self.cancel_children else {})}

    def children(self, context: ReadContext, ids: Sequence[str]) -> list[str]:
        """Return the children where they are cancelled too."""
        return context.children(ids) if self.cancel_children else []

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Return ``None``: a workflow that has started since the plan is cancelled as well."""
        return None

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen to each workflow, and to the parents that may await it."""
        items = super().evaluate(context, keys, before)
        ready = {item.workflow_id: item for item in items if item.verdict == "ready"}
        for child, parents in context.waiting_parents(list(ready)).items():
            # A parent that is cancelled as well does not go on.
            others = {parent: status for parent, status in parents.items() if parent not in ready}
            if others:
                effect = describe_parents(others, "fails")
                ready[child] = _with_effect(ready[child], effect)
        return [ready.get(item.workflow_id, item) for item in items]

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status in COMPLETED_STATUSES:
            return "unchanged", f"it has finished: {row.status}"
        if row.status == "CANCELLED":
            return "unchanged", "it is already cancelled"
        # DBOS clears both in the row of a cancelled workflow, so the receipt keeps them.
        queue = row.queue_name
        suffix = "" if queue in (None, records.INTERNAL_QUEUE) else f"; leaves queue {queue!r}"
        suffix += _loses_deduplication(row)
        if row.status == "PENDING":
            effect = "stops at its next step; the result of the current step is not recorded"
            return "ready", effect + suffix
        if row.active:
            return "ready", f"will not start{suffix}"
        return "ready", "becomes CANCELLED"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Cancel a batch; DBOS also finds children that were started since the plan."""
        ids = [item.workflow_id for item in items]
        client.cancel_workflows(ids, cancel_children=self.cancel_children)

    def reread(self, context: ReadContext, items: Sequence[PlanItem]) -> Snapshot:
        """Read the workflows, and children that were started since the plan."""
        requested = [item.workflow_id for item in items if item.requested]
        children = self.children(context, requested)
        ids = [item.workflow_id for item in items]
        return Snapshot(context.workflows([*ids, *children]), children)

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether it is CANCELLED."""
        row = after.row(item)
        return row is not None and row.status == "CANCELLED"


def describe_parents(parents: Mapping[str, str], consequence: str) -> str:
    """Return what happens to the active parents of a workflow, given with their statuses.

    Examples
    --------
    >>> describe_parents({"order-1": "PENDING"}, "fails")
    'its parent order-1 is PENDING and fails if it awaits this workflow'
    >>> describe_parents({"order-1": "PENDING", "order-2": "ENQUEUED"}, "fails")
    'its parent order-1 (one of 2) is PENDING and fails if it awaits this workflow'
    """
    first = next(iter(parents))
    of = f" (one of {len(parents):,})" if len(parents) > 1 else ""
    return (
        f"its parent {first}{of} is {parents[first]} and {consequence} if it awaits this workflow"
    )


def _loses_deduplication(row: WorkflowRecord) -> str:
    """Return the part of an effect that another workflow can be enqueued with its ID then."""
    lost = row.deduplication_id
    return "" if lost is None else f"; loses its deduplication ID {lost!r}"


def _with_effect(item: PlanItem, effect: str) -> PlanItem:
    return dataclasses.replace(item, effect=f"{item.effect}; {effect}")


@dataclass(frozen=True)
class Resume(Operation):
    """Resume workflows: enqueue them again, to continue after their last recorded step."""

    action: ClassVar[str] = "resume"
    planned: ClassVar[str] = "will be resumed"
    needed: ClassVar[Privileges] = permissions.RESUME
    batch_size: ClassVar[int] = BATCH_SIZE
    enqueues: ClassVar[bool] = True
    queue_name: str | None = None
    force: bool = False

    @classmethod
    def create(cls, queue_name: str | None = None, *, force: bool = False) -> Resume:
        """Validate the arguments of ``Client.resume``."""
        return cls(as_optional_name(queue_name, "queue_name"), force)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status == "SUCCESS":
            return "unchanged", "it has succeeded"
        if row.status == "ERROR":
            return "unchanged", "it has failed, and DBOS does not resume failed workflows: fork it"
        if row.status == "PENDING" and not self.force:
            return "refused", (
                "it is PENDING: if an executor is still running it, it would run twice at the same "
                "time. Pass force=True if none is"
            )
        suffix = _loses_deduplication(row)
        if row.status in WAITING_STATUSES:
            return "ready", f"starts without waiting any longer{suffix}"
        return "ready", f"continues after its last recorded step, without a deadline{suffix}"

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen to each workflow, and its queue."""
        items = super().evaluate(context, keys, before)
        queues = KnownQueues()
        if self.queue_name is not None:
            queues = context.queues({item.workflow_id: item.row for item in items if item.row})
        return [self._with_queue(item, queues) for item in items]

    def _with_queue(self, item: PlanItem, queues: KnownQueues) -> PlanItem:
        if item.verdict != "ready" or item.row is None:
            return item
        place = choose_for_resume(item.row, self.queue_name, queues)
        if place.problem:
            return dataclasses.replace(item, verdict="refused", effect=place.problem)
        effect = f"; {place.effect}" if place.effect else ""
        if item.row.active and not effect:
            queue = place.queue_name or records.INTERNAL_QUEUE
            if item.row.queue_name not in (None, queue):
                effect = f"; moves from queue {item.row.queue_name!r} to {queue!r}"
        return dataclasses.replace(
            item,
            effect=item.effect + effect,
            queue_name=place.queue_name,
            queue_partition_key=place.queue_partition_key,
        )

    def batches(self, items: Sequence[PlanItem]) -> list[Sequence[PlanItem]]:
        """Divide by queue, since DBOS enqueues a batch on one."""
        by_queue: dict[str | None, list[PlanItem]] = {}
        for item in items:
            by_queue.setdefault(item.queue_name, []).append(item)
        divide = super().batches
        return [batch for group in by_queue.values() for batch in divide(group)]

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Resume a batch."""
        ids = [item.workflow_id for item in items]
        client.resume_workflows(ids, queue_name=items[0].queue_name)

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether its row has changed, or is as intended.

        dbos before 2.2 does not update ``updated_at``.
        """
        row = after.row(item)
        if row is None:
            return False
        intended = ("ENQUEUED", self.queue_name or records.INTERNAL_QUEUE)
        return changed(item.row, row) or (row.status, row.queue_name) == intended


def changed(before: WorkflowRecord | None, after: WorkflowRecord) -> bool:
    """Return whether the status, queue or time of a row differs."""
    return (
        before is None
        or (before.status, before.queue_name, before.updated_at)
        != (after.status, after.queue_name, after.updated_at)
    )  # fmt: skip


@dataclass(frozen=True)
class Delete(Operation):
    """Delete workflows with their steps, events, messages and streams."""

    action: ClassVar[str] = "delete"
    planned: ClassVar[str] = "will be deleted"
    needed: ClassVar[Privileges] = permissions.DELETE
    batch_size: ClassVar[int] = BATCH_SIZE
    always_confirm: ClassVar[bool] = True
    delete_children: bool = False
    force: bool = False

    def children(self, context: ReadContext, ids: Sequence[str]) -> list[str]:
        """Return the children where they are deleted too."""
        return context.children(ids) if self.delete_children else []

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen to each workflow, and to the parents that may await it.

        DBOS polls for the result of a workflow until it has one, even if the workflow's row does
        not exist. A parent that runs does so also where its own row is deleted.
        """
        items = super().evaluate(context, keys, before)
        ready = {item.workflow_id: item for item in items if item.verdict == "ready"}
        evaluated = dict(ready)
        for child, parents in context.waiting_parents(list(ready)).items():
            # One that has not started, and is deleted as well, never starts.
            others = {
                parent: status
                for parent, status in parents.items()
                if status == "PENDING" or parent not in ready
            }
            if not others:
                continue
            effect = describe_parents(others, "waits without end")
            if self.force:
                evaluated[child] = _with_effect(ready[child], effect)
            else:
                effect += ". Cancel the parent first, or pass force=True if it does not"
                evaluated[child] = dataclasses.replace(
                    ready[child], verdict="refused", effect=effect
                )
        return [evaluated.get(item.workflow_id, item) for item in items]

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.active and not self.force:
            # Whoever awaits it, such as its parent, would wait without end.
            return "refused", f"it is {row.status}: cancel it first, or pass force=True"
        return "ready", f"deleted permanently; it is {row.status}"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Delete a batch. Children are separate items; DBOS would delete refused ones too."""
        client.delete_workflows([item.workflow_id for item in items], delete_children=False)

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether its row no longer exists."""
        return after.row(item) is None


MAX_MERGE_ATTEMPTS = 3
MAX_SHOWN_CHARACTERS = 1_000
"""Maximum length of the attributes that each row of a plan repeats."""


@dataclass(frozen=True)
class SetDelay(Operation):
    """Change the time before which a DELAYED workflow does not start."""

    action: ClassVar[str] = "set_delay"
    planned: ClassVar[str] = "will be delayed"
    needed: ClassVar[Privileges] = permissions.SET_DELAY
    # Milliseconds since 1970: an instant, so that applying twice has the same effect.
    until: int = 0

    @classmethod
    def create(cls, delay: Any, until: Any) -> SetDelay:
        """Validate the arguments of ``Client.set_delay``."""
        now = dt.datetime.now(dt.UTC)
        if (delay is None) == (until is None):
            raise FilterError("set_delay takes either a delay or an instant (until=…).")
        if until is None:
            seconds = as_seconds(delay, "delay", minimum=0) or 0
            return cls(int((now.timestamp() + seconds) * 1000))
        instant = as_epoch_ms(until, "until", now)
        if instant < 0:
            raise FilterError(f"until={until!r} is before 1970, where DBOS's clock begins.")
        return cls(instant)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status != "DELAYED":
            return "unchanged", f"only a DELAYED workflow has a delay; it is {row.status}"
        if row.delay_until == self.until:
            return "unchanged", "it already waits until then"
        until = format_time(self.until)
        return "ready", f"waits until {until} instead of {format_time(row.delay_until)}"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Set the delay, one workflow at a time as DBOS does."""
        for item in items:
            client.set_workflow_delay(item.workflow_id, delay_until_epoch_ms=self.until)

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether it waits until then."""
        row = after.row(item)
        return row is not None and row.delay_until == self.until


def format_time(milliseconds: int | None) -> str:
    """Return a time in milliseconds since 1970 as a sentence names it.

    Examples
    --------
    >>> format_time(0), format_time(None)
    ('1970-01-01 00:00:00 UTC', 'no time')
    """
    if milliseconds is None:
        return "no time"
    try:
        moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        # A column of integers can hold values that are not valid times.
        return f"{milliseconds} ms after 1970"
    return timestamp(moment, milliseconds=False)


@dataclass(frozen=True)
class SetAttributes(Operation):
    """Replace the attributes of workflows, or merge into them.

    Attributes
    ----------
    merged_by_client
        Merge by reading the attributes and replacing them: DBOS cannot merge these keys itself.
    """

    action: ClassVar[str] = "set_attributes"
    planned: ClassVar[str] = "will be changed"
    needed: ClassVar[Privileges] = permissions.SET_ATTRIBUTES
    attributes: Mapping[str, Any] | None = None
    merge: bool = False
    merged_by_client: bool = field(default=False, repr=False)

    @classmethod
    def create(
        cls, attributes: Mapping[str, Any] | None, *, merge: bool, dialect: str
    ) -> SetAttributes:
        """Validate the arguments of ``Client.set_attributes``."""
        if attributes is None and merge:
            raise FilterError("attributes=None cannot be merged; without merge it clears them.")
        if attributes is not None:
            attributes = check_filters({"attributes": attributes})["attributes"]
            # As the database stores it: a tuple becomes a list, a numeric key a string.
            attributes = json.loads(json.dumps(attributes))
        by_client = merge and dialect == "sqlite" and has_escaped_key(attributes or {})
        return cls(attributes, merge, by_client)

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Return ``None``: attributes do not depend on whether the workflow runs."""
        return None

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        stored, wanted = _parsed(row.attributes), self.attributes
        current = stored if isinstance(stored, dict) else {}
        if self.merge:
            wanted = {**current, **(wanted or {})}
        if _same_json(stored, wanted):
            return "unchanged", "it already has these attributes"
        effect = f"becomes {sanitize(json.dumps(wanted, ensure_ascii=False), MAX_SHOWN_CHARACTERS)}"
        removed = sorted(set(current) - set(wanted or ()))
        return "ready", effect + (f"; removes {', '.join(removed)}" if removed else "")

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Set the attributes, one workflow at a time as DBOS does."""
        attributes = None if self.attributes is None else dict(self.attributes)
        # An option that dbos before 3.3 does not have.
        options: dict[str, Any] = {"merge": True} if self.merge else {}
        for item in items:
            if self.merged_by_client:
                self._merge(client, item.workflow_id, attributes or {})
            else:
                client.update_workflow_attributes(item.workflow_id, attributes, **options)

    def _merge(self, client: DBOSClient, workflow_id: str, attributes: dict[str, Any]) -> None:
        """Read, merge, replace, and read again: another process may have changed them in between.

        What another process writes between the read and the replacement is lost, unless it
        changes these very keys: DBOS offers no condition. So the read comes right before.
        """
        for _ in range(MAX_MERGE_ATTEMPTS):
            current = self._read_attributes(client, workflow_id)
            if current is None:
                return  # it was deleted; the receipt says so
            client.update_workflow_attributes(workflow_id, {**current, **attributes})
            now = self._read_attributes(client, workflow_id)
            if now is None or _same_json({key: now.get(key) for key in attributes}, attributes):
                return

    @staticmethod
    def _read_attributes(client: DBOSClient, workflow_id: str) -> dict[str, Any] | None:
        # Without payloads: DBOS would unpickle them.
        found = client.list_workflows(
            workflow_ids=[workflow_id], load_input=False, load_output=False
        )
        if not found:
            return None
        attributes = found[0].attributes
        return attributes if isinstance(attributes, dict) else {}

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether it has the attributes."""
        row = after.row(item)
        if row is None or item.row is None:
            return False
        stored = _parsed(row.attributes)
        if self.merge:
            # Another process may have merged other keys at the same time.
            wanted = dict(self.attributes or {})
            return isinstance(stored, dict) and _same_json(
                {key: stored.get(key) for key in wanted}, wanted
            )
        return _same_json(stored, self.attributes)


def has_escaped_key(attributes: Mapping[str, Any]) -> bool:
    """Return whether JSON escapes a key: DBOS puts keys into a path, where SQLite reads no escapes.

    Examples
    --------
    >>> [has_escaped_key({key: 1}) for key in ("tier", "prénom", 'a"b')]
    [False, True, True]
    """
    return any(json.dumps(key) != f'"{key}"' for key in attributes)


def _parsed(stored: str | None) -> object:
    try:
        return json.loads(stored) if stored else None
    except (ValueError, RecursionError):
        # SQLite stores any string.
        return _UNREADABLE


_UNREADABLE = object()


def _same_json(left: object, right: object) -> bool:
    """Compare as JSON does: 1 equals 1.0 but not true."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same_json(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
