"""The operations on workflows: cancel, resume, delete, set a delay, set attributes.

Each class evaluates what one call would do to a workflow, calls DBOS, and recognizes from the rows
afterwards whether it was done. Operations that start from a step are in ``forks``.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from dbos_notebook.control import permissions, records
from dbos_notebook.control.permissions import Needs
from dbos_notebook.control.queue_selection import KnownQueues, choose_for_resume, read_queues
from dbos_notebook.control.records import StepRecord, WorkflowRecord
from dbos_notebook.errors import FilterError
from dbos_notebook.status import COMPLETED_STATUSES, WAITING_STATUSES
from dbos_notebook.tables.filters import (
    as_epoch_ms,
    as_name,
    as_seconds,
    check_filters,
    check_storable,
)
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.control.fork_points import ForkPoint
    from dbos_notebook.control.transactions import Elsewhere
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

Verdict = Literal["do", "unchanged", "refused", "not_found"]
BATCH = 200
"""Workflows in one bulk call, which is one transaction: short enough not to hold anybody up."""


class ItemKey(NamedTuple):
    """What tells the lines of a plan apart: a workflow can be forked from several steps."""

    workflow_id: str
    start_step: int | str | None = None


@dataclass(frozen=True)
class PlanItem:
    """One line of a plan: a workflow, and for a fork the step.

    Attributes
    ----------
    verdict
        ``do``; ``unchanged`` where the call would change nothing; ``refused`` where it would do
        harm; ``not_found``.
    effect
        What would happen, or why not.
    asked
        False for a child that comes along with its parent.
    replaced
        Which child a fork's copied steps refer to instead of which.
    queue_name, queue_partition_key
        Where work is put; ``None``: DBOS's own queue.
    start_step
        The step that was asked for, by its number, name or a word; ``point`` is what was found.
    """

    workflow_id: str
    verdict: Verdict
    effect: str
    row: WorkflowRecord | None = None
    point: ForkPoint | None = None
    new_workflow_id: str | None = None
    will_run: str | None = None
    asked: bool = True
    replaced: Mapping[str, str] | None = None
    queue_name: str | None = None
    queue_partition_key: str | None = None
    start_step: int | str | None = None

    @property
    def key(self) -> ItemKey:
        """What tells it apart from the other lines of its plan."""
        return ItemKey(self.workflow_id, self.start_step)


def distinct(items: Sequence[PlanItem]) -> list[PlanItem]:
    """Return the lines of a plan without those that would do what an earlier one does.

    "failed" and 3 may be the same step.
    """
    found: dict[tuple[str, int | str], PlanItem] = {}
    for item in items:
        what = item.point.start_step if item.point else item.effect
        found.setdefault((item.workflow_id, what), item)
    return list(found.values())


@dataclass
class Known:
    """What was read for an operation: in one snapshot, before it acts or after."""

    rows: dict[str, WorkflowRecord]
    # Workflows that came along with those asked for.
    children: list[str] = field(default_factory=list)
    steps: dict[str, list[StepRecord]] = field(default_factory=dict)
    # Where to fork from, or why that cannot be said.
    points: dict[ItemKey, ForkPoint | str] = field(default_factory=dict)
    new_ids: dict[ItemKey, str] = field(default_factory=dict)
    # Why nothing can be done with one.
    problems: dict[str, str] = field(default_factory=dict)
    # Whether the database records what was forked from what; before dbos 2.4 it did not.
    records_origins: bool = True
    # The best fork that each has, by the original's ID.
    forks: dict[str, WorkflowRecord] = field(default_factory=dict)
    queues: KnownQueues = field(default_factory=KnownQueues)
    # What was started by name since a moment, by the name.
    started: dict[str, list[str]] = field(default_factory=dict)
    # After the call: what was read, if it is not the server that was written to.
    elsewhere: Elsewhere | None = None


@dataclass(frozen=True)
class Operation:
    """One control call with its options. Subclasses are the operations."""

    action: ClassVar[str]
    enqueues: ClassVar[bool] = False
    """Whether an executor must come and take the work."""
    raises_if_nothing_done: ClassVar[bool] = False
    """Whether DBOS raises where it does nothing, so that a call that returns has done it."""
    traceable: ClassVar[bool] = True
    """Whether a row shows that this call did it, also where the call did not return."""
    batch: ClassVar[int] = 1
    subject: ClassVar[str] = "workflow_id"
    several_transactions: ClassVar[bool] = False
    """Whether DBOS makes several transactions of one call, so that one proves nothing."""
    needed: ClassVar[Needs] = {}
    """What the role must be granted."""

    def needs(self, items: Sequence[PlanItem]) -> Needs:
        """Return the privileges that doing so much takes."""
        return self.needed

    def batches(self, items: Sequence[PlanItem]) -> list[Sequence[PlanItem]]:
        """Divide what is to be done into calls of DBOS."""
        return [items[i : i + self.batch] for i in range(0, len(items), self.batch)]

    def keys(self, ids: Sequence[str]) -> list[ItemKey]:
        """Return the key of each line that a plan for these workflows has."""
        return [ItemKey(one) for one in ids]

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read what judging and settling need; ``before`` are the lines of an earlier plan."""
        return Known(records.workflows(session, queries, ids))

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say what would happen to one workflow."""
        row = known.rows.get(key.workflow_id)
        if row is None:
            return PlanItem(key.workflow_id, "not_found", "no workflow has this ID")
        verdict, effect = self._verdict(row)
        return PlanItem(key.workflow_id, verdict, effect, row)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        raise NotImplementedError

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Say why a plan made of one row no longer holds for another, though DBOS would do it."""
        if _liveliness(now) > _liveliness(before):
            return f"it is {now.status} now"
        if before.completed_at is not None and now.completed_at != before.completed_at:
            return "it has run again since the plan"
        return None

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> dict[str, str] | None:
        """Call DBOS for one batch; return new workflows' IDs where only DBOS chooses them."""
        raise NotImplementedError

    def reread(self, session: Session, queries: Queries, items: Sequence[PlanItem]) -> Known:
        """Read what the rows are after the call."""
        new = [item.new_workflow_id for item in items if item.new_workflow_id]
        ids = [item.workflow_id for item in items]
        return Known(records.workflows(session, queries, [*ids, *new]))

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell from the rows whether it has been done."""
        raise NotImplementedError

    def started_since(self, item: PlanItem, known: Known, moment: dt.datetime) -> list[str]:
        """Return the workflows that a call may have started of which only DBOS knew the ID."""
        return []

    def done(self, item: PlanItem) -> str:
        """Say what a person should know once it is done."""
        return item.effect

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the application version and the queue of the work that is enqueued."""
        return (item.row.app_version if item.row else None), item.queue_name

    def options(self) -> dict[str, Any]:
        """Return the options that are not at their defaults, for titles and the log."""
        return {
            each.name: value
            for each in dataclasses.fields(self)
            if (value := getattr(self, each.name)) != each.default
        }


def _liveliness(row: WorkflowRecord) -> int:
    return 2 if row.status == "PENDING" else int(row.active)


def as_key(key: Any) -> str | None:
    """Return the key of an idempotent call, normalized to NFC.

    Examples
    --------
    >>> as_key("cafe" + chr(0x301)) == as_key("caf" + chr(0xe9))
    True
    """
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise FilterError(f"key must be a non-empty string such as 'incident-42', not {key!r}.")
    check_storable(key, "key")
    return unicodedata.normalize("NFC", key)


def as_optional_name(value: Any, name: str) -> str | None:
    """Return the name of a queue or a version, or ``None``."""
    return None if value is None else as_name(value, name)


@dataclass(frozen=True)
class Cancel(Operation):
    """Cancel: off its queue, or stopped at its next step."""

    action: ClassVar[str] = "cancel"
    batch: ClassVar[int] = BATCH
    several_transactions: ClassVar[bool] = True  # where children are cancelled, level by level
    needed: ClassVar[Needs] = permissions.CANCEL
    cancel_children: bool = False

    def needs(self, items: Sequence[PlanItem]) -> Needs:
        """Return the privileges, of which children take one more."""
        extra = permissions.CANCEL_CHILDREN if self.cancel_children else {}
        return {**self.needed, **extra}

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the workflows, and their children where those are cancelled too."""
        below = records.children(session, queries, ids) if self.cancel_children else []
        return Known(records.workflows(session, queries, [*ids, *below]), below)

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Hold whatever it does now: it is to end."""
        return None

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status in COMPLETED_STATUSES:
            return "unchanged", f"it has finished: {row.status}"
        if row.status == "CANCELLED":
            return "unchanged", "it is cancelled already"
        if row.status == "PENDING":
            return (
                "do",
                "stops at its next step; the one that runs now goes unrecorded" + _queue_lost(row),
            )
        if row.active:
            return "do", "will not start" + _queue_lost(row)
        return "do", "becomes CANCELLED"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Cancel a batch; DBOS also finds children that were started meanwhile."""
        ids = [item.workflow_id for item in items]
        client.cancel_workflows(ids, cancel_children=self.cancel_children)

    def reread(self, session: Session, queries: Queries, items: Sequence[PlanItem]) -> Known:
        """Read the workflows, and children that were started meanwhile."""
        asked = [item.workflow_id for item in items if item.asked]
        below = records.children(session, queries, asked) if self.cancel_children else []
        ids = [item.workflow_id for item in items]
        return Known(records.workflows(session, queries, [*ids, *below]), below)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether it is CANCELLED."""
        return after is not None and after.status == "CANCELLED"


def _queue_lost(row: WorkflowRecord) -> str:
    # DBOS forgets the queue of what is cancelled, so the receipt keeps it.
    if row.queue_name in (None, records.INTERNAL_QUEUE):
        return ""
    return f"; leaves queue {row.queue_name!r}"


@dataclass(frozen=True)
class Resume(Operation):
    """Resume: enqueued again, to go on after its last recorded step."""

    action: ClassVar[str] = "resume"
    enqueues: ClassVar[bool] = True
    batch: ClassVar[int] = BATCH
    needed: ClassVar[Needs] = permissions.RESUME
    queue_name: str | None = None
    force: bool = False

    @classmethod
    def create(cls, queue_name: Any = None, *, force: bool = False) -> Resume:
        """Validate the arguments of ``Client.resume``."""
        return cls(as_optional_name(queue_name, "queue_name"), force)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status == "SUCCESS":
            return "unchanged", "it has succeeded"
        if row.status == "ERROR":
            return "unchanged", "it has failed, and DBOS resumes no failed workflow: fork it"
        if row.status == "PENDING" and not self.force:
            return "refused", (
                "it is PENDING: if an executor still runs it, it would run twice at once. "
                "force=True where none does"
            )
        if row.status in WAITING_STATUSES:
            return "do", "waits no longer"
        return "do", "goes on after its last recorded step, without a deadline"

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the workflows, and the queues where one is asked for."""
        known = super().read(session, queries, ids, before)
        if self.queue_name is not None:
            known.queues = read_queues(session, queries)
        return known

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say what would happen to one workflow."""
        item = super().evaluate(key, known, before)
        if item.verdict != "do" or item.row is None:
            return item
        place = choose_for_resume(item.row, self.queue_name, known.queues)
        if place.problem:
            return dataclasses.replace(item, verdict="refused", effect=place.problem)
        effect = f"; {place.effect}" if place.effect else ""
        if item.row.active and not effect:
            effect = _moved(item.row, place.queue_name)
        return dataclasses.replace(
            item,
            effect=item.effect + effect,
            queue_name=place.queue_name,
            queue_partition_key=place.queue_partition_key,
        )

    def batches(self, items: Sequence[PlanItem]) -> list[Sequence[PlanItem]]:
        """Divide by queue, since DBOS puts a batch onto one."""
        by_queue: dict[str | None, list[PlanItem]] = {}
        for item in items:
            by_queue.setdefault(item.queue_name, []).append(item)
        return [batch for each in by_queue.values() for batch in super(Resume, self).batches(each)]

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Resume a batch."""
        ids = [item.workflow_id for item in items]
        client.resume_workflows(ids, queue_name=items[0].queue_name)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether its row has changed, or is as it should be: dbos before 2.2 stamps none."""
        if after is None:
            return False
        goal = ("ENQUEUED", self.queue_name or records.INTERNAL_QUEUE)
        return changed(item.row, after) or (after.status, after.queue_name) == goal


def _moved(row: WorkflowRecord, queue_name: str | None) -> str:
    queue = queue_name or records.INTERNAL_QUEUE
    if row.queue_name in (None, queue):
        return ""
    return f": moves from queue {row.queue_name!r} to {queue!r}"


def changed(before: WorkflowRecord | None, after: WorkflowRecord) -> bool:
    """Tell whether a row is no longer as it was."""
    return (
        before is None
        or (before.status, before.queue_name, before.updated_at)
        != (after.status, after.queue_name, after.updated_at)
    )  # fmt: skip


@dataclass(frozen=True)
class Delete(Operation):
    """Delete: its row, steps, events, messages and streams."""

    action: ClassVar[str] = "delete"
    batch: ClassVar[int] = BATCH
    needed: ClassVar[Needs] = permissions.DELETE
    delete_children: bool = False
    force: bool = False

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the workflows, and their children where those are deleted too."""
        below = records.children(session, queries, ids) if self.delete_children else []
        return Known(records.workflows(session, queries, [*ids, *below]), below)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status == "PENDING" and not self.force:
            return "refused", "it is PENDING: cancel it first, or force=True"
        return "do", f"a workflow that is {row.status} goes for good"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Delete a batch. Children have lines of their own, and DBOS would not spare any."""
        client.delete_workflows([item.workflow_id for item in items], delete_children=False)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether its row is gone."""
        return after is None


MERGE_ATTEMPTS = 3
SHOWN_CHARACTERS = 1_000
"""So much of new attributes is told; a call for thousands repeats it as often."""


@dataclass(frozen=True)
class SetDelay(Operation):
    """Move the moment before which a DELAYED workflow does not start."""

    action: ClassVar[str] = "set_delay"
    needed: ClassVar[Needs] = permissions.SET_DELAY
    # Milliseconds since 1970: a moment, so that applying twice does the same.
    until: int = 0

    @classmethod
    def create(cls, delay: Any, until: Any) -> SetDelay:
        """Validate the arguments of ``Client.set_delay``."""
        now = dt.datetime.now(dt.UTC)
        if (delay is None) == (until is None):
            raise FilterError("set_delay takes either a delay or an instant (until=…).")
        if until is None:
            seconds = as_seconds(delay, "delay", least=0) or 0
            return cls(int((now.timestamp() + seconds) * 1000))
        instant = as_epoch_ms(until, "until", now)
        if instant < 0:
            raise FilterError(f"until={until!r} is before 1970, where DBOS's clock begins.")
        return cls(instant)

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status != "DELAYED":
            return "unchanged", f"only a DELAYED workflow has a delay; it is {row.status}"
        if row.delay_until == self.until:
            return "unchanged", "it waits until then already"
        return "do", f"waits until {_moment(self.until)}, not {_moment(row.delay_until)}"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Set the moment, one workflow at a time as DBOS does."""
        for item in items:
            client.set_workflow_delay(item.workflow_id, delay_until_epoch_ms=self.until)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether it waits until then."""
        return after is not None and after.delay_until == self.until


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "any"
    try:
        moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        # A column of integers holds some that are no time.
        return f"{milliseconds} ms after 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class SetAttributes(Operation):
    """Replace a workflow's attributes, or merge into them.

    Attributes
    ----------
    merged_here
        Merge by reading the attributes and replacing them: DBOS cannot merge these keys itself.
    """

    action: ClassVar[str] = "set_attributes"
    needed: ClassVar[Needs] = permissions.SET_ATTRIBUTES
    attributes: Mapping[str, Any] | None = None
    merge: bool = False
    merged_here: bool = False

    @classmethod
    def create(cls, attributes: Any, *, merge: bool, dialect: str) -> SetAttributes:
        """Validate the arguments of ``Client.set_attributes``."""
        if attributes is None and merge:
            raise FilterError("attributes=None cannot be merged; without merge it clears them.")
        if attributes is not None:
            attributes = check_filters({"attributes": attributes})["attributes"]
            # As the database will hold it: a tuple becomes a list, a number as a key a string.
            attributes = json.loads(json.dumps(attributes))
        by_client = merge and dialect == "sqlite" and escaped(attributes or {})
        return cls(attributes, merge, by_client)

    def options(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        found = super().options()
        found.pop("merged_here", None)
        return found

    def outdated(self, before: WorkflowRecord, now: WorkflowRecord) -> str | None:
        """Hold whatever it does now: attributes do not concern the run."""
        return None

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        old, wanted = _loaded(row.attributes), self.attributes
        kept = old if isinstance(old, dict) else {}
        if self.merge:
            wanted = {**kept, **(wanted or {})}
        if _same(old, wanted):
            return "unchanged", "it has these attributes already"
        shown = sanitize(json.dumps(wanted, ensure_ascii=False), SHOWN_CHARACTERS)
        lost = sorted(set(kept) - set(wanted or ()))
        return "do", f"becomes {shown}" + (f"; loses {', '.join(lost)}" if lost else "")

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Set the attributes, one workflow at a time as DBOS does."""
        attributes = None if self.attributes is None else dict(self.attributes)
        # An option that dbos before 3.3 does not have.
        options: dict[str, Any] = {"merge": True} if self.merge else {}
        for item in items:
            if self.merged_here:
                self._merge(client, item.workflow_id, attributes or {})
                continue
            client.update_workflow_attributes(item.workflow_id, attributes, **options)

    def _merge(self, client: DBOSClient, workflow_id: str, attributes: dict[str, Any]) -> None:
        """Read, merge, replace, and read again: another change may have come in between.

        One that another process makes between the reading and the replacing is lost, unless it
        changes these very keys: DBOS offers no condition. The reading is the last thing before.
        """
        for _ in range(MERGE_ATTEMPTS):
            has = self._read(client, workflow_id)
            if has is None:
                return  # deleted meanwhile; the receipt says so
            client.update_workflow_attributes(workflow_id, {**has, **attributes})
            now = self._read(client, workflow_id)
            if now is None or _same({key: now.get(key) for key in attributes}, attributes):
                return

    @staticmethod
    def _read(client: DBOSClient, workflow_id: str) -> dict[str, Any] | None:
        # Without payloads: DBOS would unpickle them.
        found = client.list_workflows(
            workflow_ids=[workflow_id], load_input=False, load_output=False
        )
        if not found:
            return None
        has = found[0].attributes
        return has if isinstance(has, dict) else {}

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether it has them."""
        if after is None or item.row is None:
            return False
        has = _loaded(after.attributes)
        if self.merge:
            # Somebody else may have merged other keys at the same moment.
            wanted = dict(self.attributes or {})
            return isinstance(has, dict) and _same({k: has.get(k) for k in wanted}, wanted)
        return _same(has, self.attributes)


def escaped(attributes: Mapping[str, Any]) -> bool:
    """Whether JSON escapes a key. DBOS writes that into a path, where SQLite reads no escapes.

    Examples
    --------
    >>> escaped({"tier": 1}), escaped({"prénom": 1}), escaped({'a"b': 1})
    (False, True, True)
    """
    return any(json.dumps(key) != f'"{key}"' for key in attributes)


def _loaded(stored: str | None) -> Any:
    try:
        return json.loads(stored) if stored else None
    except (ValueError, RecursionError):
        # SQLite keeps any text.
        return _UNREADABLE


_UNREADABLE = object()


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0, and no truth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
