"""Operations on schedules: pause, resume, delete, trigger, backfill."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa

from dbos_notebook.control import permissions
from dbos_notebook.control.dbos_client import enqueues_with_xid
from dbos_notebook.control.operations import (
    ItemKey,
    Operation,
    PlanItem,
    ReadContext,
    Refusal,
    Snapshot,
    Verdict,
)
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.queue_selection import (
    KnownQueues,
    read_queues,
    schedule_queue_problem,
)
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.control.safe_serializer import UNSAFE_CONTEXT, is_safe_context, unsafe_contexts
from dbos_notebook.errors import FilterError, RefusedError, ScheduleNotFoundError
from dbos_notebook.tables.cron import due_times
from dbos_notebook.tables.filters import as_epoch_ms, as_name

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store
    from dbos_notebook.tables.sql import Queries
    from dbos_notebook.types import Time

MAX_RUNS = 10_000
_NOT_FOUND = "no schedule has this name"
_TOO_OLD = (
    "dbos 3.2 and later cannot enqueue here: the database lacks workflow_status.creator_xid, which "
    "revision 123 added. Let the application upgrade it"
)


@dataclass(frozen=True)
class Schedule:
    """One row of ``workflow_schedules``.

    Attributes
    ----------
    row
        Its name as the ID, its status, workflow, application and queue.
    """

    row: WorkflowRecord
    cron: str
    timezone: str | None
    context: str | None

    def refusal(self, queues: KnownQueues, *, force: bool) -> Refusal | None:
        """Return why its workflow cannot be enqueued, if it cannot."""
        if not force and not is_safe_context(self.context):
            return Refusal(UNSAFE_CONTEXT)
        problem = schedule_queue_problem(self.row.queue_name, queues)
        return Refusal(problem) if problem else None


def read(session: Session, queries: Queries, names: Sequence[str]) -> dict[str, Schedule]:
    """Read schedules by name; those that do not exist are omitted."""
    table, column = queries.catalog.table("workflow_schedules"), queries.column
    if not table.c or not names:
        return {}
    columns = (
        "schedule_name",
        "status",
        "workflow_name",
        "schedule",
        "cron_timezone",
        "context",
        "queue_name",
        "application_name",
    )
    statement = sa.select(*(column(table, name).label(name) for name in columns))
    rows = session.rows(statement.where(queries.member(table.c.schedule_name, list(names))))
    return {row["schedule_name"]: _schedule(row) for row in rows}


def _schedule(stored: Mapping[str, str | None]) -> Schedule:
    row = WorkflowRecord(
        workflow_id=stored["schedule_name"] or "",
        status=stored["status"] or "ACTIVE",
        name=stored["workflow_name"],
        application_name=stored["application_name"],
        queue_name=stored["queue_name"],
    )
    return Schedule(row, stored["schedule"] or "", stored["cron_timezone"], stored["context"])


def can_enqueue(queries: Queries) -> bool:
    """Return whether the database has what the installed dbos writes when it enqueues."""
    return queries.catalog.has("workflow_status", "creator_xid") or not enqueues_with_xid()


@dataclass(frozen=True)
class ScheduleOperation(Operation):
    """An operation on a schedule, by its name."""

    subject: ClassVar[str] = "schedule_name"
    not_found: ClassVar[str] = _NOT_FOUND

    def read(self, context: ReadContext, ids: Sequence[str]) -> dict[str, WorkflowRecord]:
        """Read the schedules by name."""
        schedules = read(context.session, context.queries, ids)
        return {name: schedule.row for name, schedule in schedules.items()}

    def reread(self, context: ReadContext, items: Sequence[PlanItem]) -> Snapshot:
        """Read the schedules after the call."""
        return Snapshot(self.read(context, [item.workflow_id for item in items]))


@dataclass(frozen=True)
class _SetStatus(ScheduleOperation):
    needed: ClassVar[Privileges] = permissions.SET_SCHEDULE
    status: ClassVar[str]
    effect: ClassVar[str]

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status == self.status:
            return "unchanged", f"it is already {self.status}"
        return "ready", self.effect

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether it has the status."""
        row = after.row(item)
        return row is not None and row.status == self.status


@dataclass(frozen=True)
class PauseSchedule(_SetStatus):
    """Pause schedules."""

    action: ClassVar[str] = "pause_schedule"
    planned: ClassVar[str] = "will be paused"
    status: ClassVar[str] = "PAUSED"
    effect: ClassVar[str] = "stops firing"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Pause one by one, as DBOS does."""
        for item in items:
            client.pause_schedule(item.workflow_id)


@dataclass(frozen=True)
class ResumeSchedule(_SetStatus):
    """Resume paused schedules."""

    action: ClassVar[str] = "resume_schedule"
    planned: ClassVar[str] = "will be resumed"
    status: ClassVar[str] = "ACTIVE"
    effect: ClassVar[str] = "fires again"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Resume one by one, as DBOS does."""
        for item in items:
            client.resume_schedule(item.workflow_id)


@dataclass(frozen=True)
class DeleteSchedule(ScheduleOperation):
    """Delete schedules; the workflows that they started are kept."""

    action: ClassVar[str] = "delete_schedule"
    planned: ClassVar[str] = "will be deleted"
    needed: ClassVar[Privileges] = permissions.DELETE_SCHEDULE
    always_confirm: ClassVar[bool] = True

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        return "ready", "deleted permanently; the workflows that it started are kept"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Delete one by one, as DBOS does."""
        for item in items:
            client.delete_schedule(item.workflow_id)

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether it no longer exists."""
        return after.row(item) is None


@dataclass(frozen=True)
class TriggerSchedule(ScheduleOperation):
    """Enqueue the workflows of schedules once, now."""

    action: ClassVar[str] = "trigger_schedule"
    planned: ClassVar[str] = "will be triggered"
    needed: ClassVar[Privileges] = permissions.ENQUEUE_SCHEDULE
    several_transactions: ClassVar[bool] = True
    enqueues: ClassVar[bool] = True
    traceable: ClassVar[bool] = False
    force: bool = False

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return what would happen, and whether the schedules' contexts can be unpickled."""
        session, queries = context.session, context.queries
        schedules = read(session, queries, [key.workflow_id for key in keys])
        queues = read_queues(session, queries)
        items = []
        for key in keys:
            schedule = schedules.get(key.workflow_id)
            item = self._evaluate(key.workflow_id, schedule.row if schedule else None)
            if schedule is not None:
                refusal = schedule.refusal(queues, force=self.force)
                if not can_enqueue(queries):
                    refusal = Refusal(_TOO_OLD)
                if refusal is not None:
                    item = replace(item, verdict="refused", effect=refusal.reason)
            items.append(item)
        return items

    def reread(self, context: ReadContext, items: Sequence[PlanItem]) -> Snapshot:
        """Read the schedules, and the workflows that they started."""
        after = super().reread(context, items)
        new = [item.new_workflow_id for item in items if item.new_workflow_id]
        after.workflows |= context.workflows(new)
        for item in items:
            if item.new_workflow_id is None and item.verdict == "ready":
                # DBOS chose an ID, but did not return it.
                after.triggered[item.workflow_id] = _triggered(context, item.workflow_id)
        return after

    def started_since(self, item: PlanItem, after: Snapshot, moment: dt.datetime) -> list[str]:
        """Return the runs triggered since then, perhaps by this process: IDs contain the time."""
        prefix = _trigger_prefix(item.workflow_id)
        started = []
        for workflow_id in after.triggered.get(item.workflow_id, ()):
            try:
                time = dt.datetime.fromisoformat(workflow_id.removeprefix(prefix))
            except ValueError:
                continue  # an application chose an ID with the same prefix
            if time.tzinfo is not None and time >= moment:
                started.append(workflow_id)
        return started

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        suffix = "; the schedule stays PAUSED" if row.status == "PAUSED" else ""
        return "ready", f"enqueues {row.name} once, now{suffix}"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> dict[str, str]:
        """Trigger; DBOS derives the workflow's ID from the time."""
        with unsafe_contexts(allowed=self.force):
            return {
                item.workflow_id: client.trigger_schedule(item.workflow_id).get_workflow_id()
                for item in items
            }

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether the workflow exists."""
        return after.new_row(item) is not None

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the latest version, and the schedule's queue."""
        return None, item.row.queue_name if item.row else None


def _trigger_prefix(name: str) -> str:
    return f"sched-{name}-trigger-"


def _triggered(context: ReadContext, name: str) -> list[str]:
    table = context.queries.workflows
    yesterday = int((dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).timestamp() * 1000)
    statement = sa.select(table.c.workflow_uuid.label("workflow_id")).where(
        table.c.workflow_uuid.startswith(_trigger_prefix(name), autoescape=True),
        table.c.created_at >= yesterday,
    )
    return [row["workflow_id"] for row in context.session.rows(statement)]


@dataclass(frozen=True)
class Backfill(Operation):
    """Enqueue the runs that a schedule missed in a period: one item per run."""

    action: ClassVar[str] = "backfill_schedule"
    planned: ClassVar[str] = "will be enqueued"
    needed: ClassVar[Privileges] = permissions.ENQUEUE_SCHEDULE
    several_transactions: ClassVar[bool] = True
    enqueues: ClassVar[bool] = True
    schedule_name: str = ""
    start: dt.datetime = dt.datetime.min
    end: dt.datetime = dt.datetime.max
    queue_name: str | None = None
    cron: str = ""
    timezone: str | None = None
    force: bool = False

    @classmethod
    def create(
        cls, store: Store, schedule: str, start: Time, end: Time | None, *, force: bool
    ) -> tuple[Backfill, list[str]]:
        """Validate the arguments of ``Client.backfill_schedule``; return the IDs of the runs too.

        Raises
        ------
        ScheduleNotFoundError
            No schedule has this name.
        RefusedError
            There are more than 10,000 runs, or the context cannot be unpickled safely.
        FilterError
            The end is not after the start.
        """
        name = as_name(schedule, "schedule")
        now = dt.datetime.now(dt.UTC)
        first = as_epoch_ms(start, "start", now)
        last = now.timestamp() * 1000 if end is None else as_epoch_ms(end, "end", now)
        begin, finish = (dt.datetime.fromtimestamp(each / 1000, dt.UTC) for each in (first, last))
        found = store.read(read, [name]).get(name)
        if found is None:
            raise ScheduleNotFoundError(
                f"No schedule is named {name!r}. Nothing was written; db.schedules() lists those "
                "that are stored in the database."
            )
        if finish <= begin:
            raise FilterError(f"end={finish} is not after start={begin}.")
        if not can_enqueue(store.queries):
            raise RefusedError(f"Backfill of {name!r} is refused: {_TOO_OLD}.")
        if not force and not is_safe_context(found.context):
            raise RefusedError(f"Backfill of {name!r} is refused: {UNSAFE_CONTEXT}.")
        operation = cls(
            name, begin, finish, found.row.queue_name, found.cron, found.timezone, force
        )
        return operation, operation.runs()

    def runs(self) -> list[str]:
        """Return the IDs of the runs between start and end, both exclusive, as DBOS names them."""
        runs: list[str] = []
        try:
            for time in due_times(self.cron, self.timezone, self.start):
                if time >= self.end or len(runs) > MAX_RUNS:
                    break
                runs.append(f"sched-{self.schedule_name}-{time.isoformat()}")
        except ValueError as error:
            raise RefusedError(
                f"Backfill of {self.schedule_name!r} is refused: its runs cannot be computed from "
                f"{self.cron!r} in the time zone {self.timezone!r} ({error})."
            ) from None
        if len(runs) > MAX_RUNS:
            raise RefusedError(
                f"Schedule {self.schedule_name!r} has over {MAX_RUNS:,} runs between {self.start} "
                f"and {self.end}. Backfill a shorter period."
            )
        return runs

    def evaluate(
        self, context: ReadContext, keys: Sequence[ItemKey], before: Mapping[ItemKey, PlanItem]
    ) -> list[PlanItem]:
        """Return which runs would be enqueued, if the schedule is as it was."""
        workflows = context.workflows(key.workflow_id for key in keys)
        schedule = read(context.session, context.queries, [self.schedule_name]).get(
            self.schedule_name
        )
        if schedule is None:
            refusal: Refusal | None = Refusal(_NOT_FOUND)
        elif (schedule.cron, schedule.timezone) != (self.cron, self.timezone):
            refusal = Refusal("the schedule has changed since the plan")
        else:
            queues = read_queues(context.session, context.queries)
            refusal = schedule.refusal(queues, force=self.force)
        items = []
        for workflow_id, _ in keys:
            if row := workflows.get(workflow_id):
                effect = f"this run already exists: {row.status}"
                items.append(PlanItem(workflow_id, "unchanged", effect, row))
            elif refusal is None:
                effect = f"enqueues the run of {self._time(workflow_id)}"
                items.append(PlanItem(workflow_id, "ready", effect))
            else:
                verdict: Verdict = "refused" if schedule else "not_found"
                items.append(PlanItem(workflow_id, verdict, refusal.reason))
        return items

    def _time(self, workflow_id: str) -> dt.datetime:
        return dt.datetime.fromisoformat(workflow_id.removeprefix(f"sched-{self.schedule_name}-"))

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Enqueue run by run, so that the call can be stopped and each has its own outcome."""
        for item in items:
            time = self._time(item.workflow_id)
            # Both ends are exclusive, and no two runs are less than a second apart.
            with unsafe_contexts(allowed=self.force):
                client.backfill_schedule(
                    self.schedule_name,
                    time - dt.timedelta(seconds=1),
                    time + dt.timedelta(microseconds=1),
                )

    def succeeded(self, item: PlanItem, after: Snapshot) -> bool:
        """Return whether the run exists."""
        return after.row(item) is not None

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the latest version, and the schedule's queue."""
        return None, self.queue_name
