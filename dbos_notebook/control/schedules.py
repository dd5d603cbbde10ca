"""Operations on schedules: pause, resume, delete, trigger, backfill."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa

from dbos_notebook.control import permissions, records
from dbos_notebook.control.dbos_client import enqueues_with_xid
from dbos_notebook.control.operations import ItemKey, Known, Operation, PlanItem, Verdict
from dbos_notebook.control.permissions import Privileges
from dbos_notebook.control.queue_selection import problem_of_schedule, read_queues
from dbos_notebook.control.records import WorkflowRecord
from dbos_notebook.control.safe_serializer import UNSAFE_CONTEXT, is_safe_context, unsafe_contexts
from dbos_notebook.errors import FilterError, RefusedError, ScheduleNotFoundError
from dbos_notebook.tables.filters import as_epoch_ms, as_name

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store
    from dbos_notebook.tables.sql import Queries
MOST_RUNS = 10_000
_GONE = "no schedule has this name"


@dataclass(frozen=True)
class Schedule:
    """What is kept of a schedule."""

    row: WorkflowRecord
    cron: str
    timezone: str | None
    context: str | None


def read(session: Session, queries: Queries, names: Sequence[str]) -> dict[str, Schedule]:
    """Read schedules by name."""
    table, column = queries.catalog.table("workflow_schedules"), queries.column
    if not table.c or not names:
        return {}
    wanted = (
        "schedule_name",
        "status",
        "workflow_name",
        "schedule",
        "cron_timezone",
        "context",
        "queue_name",
        "application_name",
    )
    statement = sa.select(*(column(table, name).label(name) for name in wanted))
    found = session.rows(statement.where(queries.member(table.c.schedule_name, list(names))))
    return {each["schedule_name"]: _schedule(each) for each in found}


def _schedule(found: Mapping[str, str | None]) -> Schedule:
    row = WorkflowRecord(
        workflow_id=found["schedule_name"] or "",
        status=found["status"] or "ACTIVE",
        name=found["workflow_name"],
        app_version=None,
        application_name=found["application_name"],
        executor_id=None,
        queue_name=found["queue_name"],
        queue_partition_key=None,
        parent_workflow_id=None,
        forked_from=None,
        created_at=None,
        updated_at=None,
        delay_until=None,
        attributes=None,
    )
    return Schedule(row, found["schedule"] or "", found["cron_timezone"], found["context"])


def can_enqueue(queries: Queries) -> bool:
    """Tell whether the database has what the installed dbos writes when it enqueues."""
    return queries.catalog.has("workflow_status", "creator_xid") or not enqueues_with_xid()


@dataclass(frozen=True)
class ScheduleOperation(Operation):
    """An operation on a schedule, by its name."""

    subject: ClassVar[str] = "schedule_name"

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the schedules."""
        return Known({name: found.row for name, found in read(session, queries, ids).items()})

    def reread(self, session: Session, queries: Queries, items: Sequence[PlanItem]) -> Known:
        """Read the schedules after the call."""
        return self.read(session, queries, [item.workflow_id for item in items], {})

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say what would happen to one schedule."""
        item = super().evaluate(key, known, before)
        if item.verdict != "not_found":
            return item
        return PlanItem(key.workflow_id, "not_found", _GONE)


@dataclass(frozen=True)
class _SetStatus(ScheduleOperation):
    needed: ClassVar[Privileges] = permissions.SET_SCHEDULE
    status: ClassVar[str]
    means: ClassVar[str]

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        if row.status == self.status:
            return "unchanged", f"it is {self.status} already"
        return "do", self.means

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether it has the status."""
        return after is not None and after.status == self.status


@dataclass(frozen=True)
class PauseSchedule(_SetStatus):
    """Pause a schedule."""

    action: ClassVar[str] = "pause_schedule"
    status: ClassVar[str] = "PAUSED"
    means: ClassVar[str] = "fires no more"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Pause."""
        for item in items:
            client.pause_schedule(item.workflow_id)


@dataclass(frozen=True)
class ResumeSchedule(_SetStatus):
    """Let a paused schedule fire again."""

    action: ClassVar[str] = "resume_schedule"
    status: ClassVar[str] = "ACTIVE"
    means: ClassVar[str] = "fires again"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Resume."""
        for item in items:
            client.resume_schedule(item.workflow_id)


@dataclass(frozen=True)
class DeleteSchedule(ScheduleOperation):
    """Delete a schedule; the workflows that it started stay."""

    action: ClassVar[str] = "delete_schedule"
    needed: ClassVar[Privileges] = permissions.DELETE_SCHEDULE

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        return "do", "goes for good; the workflows that it started stay"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Delete."""
        for item in items:
            client.delete_schedule(item.workflow_id)

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether it is gone."""
        return after is None


_TOO_OLD = (
    "dbos 3.2 and later cannot enqueue here: the database lacks workflow_status.creator_xid, which "
    "came with revision 123. Let the application upgrade it"
)


@dataclass(frozen=True)
class TriggerSchedule(ScheduleOperation):
    """Enqueue a schedule's workflow once, now."""

    action: ClassVar[str] = "trigger_schedule"
    needed: ClassVar[Privileges] = permissions.ENQUEUE_SCHEDULE
    several_transactions: ClassVar[bool] = True
    enqueues: ClassVar[bool] = True
    traceable: ClassVar[bool] = False
    force: bool = False

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the schedules and whether their contexts can be unpickled."""
        found = read(session, queries, ids)
        known = Known({name: schedule.row for name, schedule in found.items()})
        if not can_enqueue(queries):
            known.problems = dict.fromkeys(found, _TOO_OLD)
            return known
        if not self.force:
            known.problems |= {
                name: UNSAFE_CONTEXT
                for name, each in found.items()
                if not is_safe_context(each.context)
            }
        queues = read_queues(session, queries)
        for name, schedule in found.items():
            if problem := problem_of_schedule(schedule.row.queue_name, queues):
                known.problems[name] = problem
        return known

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say what would happen to one schedule."""
        item = super().evaluate(key, known, before)
        reason = known.problems.get(key.workflow_id)
        if item.verdict == "do" and reason is not None:
            return PlanItem(key.workflow_id, "refused", reason, item.row)
        return item

    def reread(self, session: Session, queries: Queries, items: Sequence[PlanItem]) -> Known:
        """Read the schedules, and the workflows that were made."""
        known = super().reread(session, queries, items)
        made = [item.new_workflow_id for item in items if item.new_workflow_id]
        known.rows |= records.workflows(session, queries, made)
        for item in items:
            if item.new_workflow_id is None and item.verdict == "do":
                # DBOS had chosen an ID, and did not come to say which.
                known.started[item.workflow_id] = _triggered(session, queries, item.workflow_id)
        return known

    def started_since(self, item: PlanItem, known: Known, moment: dt.datetime) -> list[str]:
        """Return the runs that this process may have triggered since then: IDs hold the time."""
        prefix = _trigger_prefix(item.workflow_id)
        found = []
        for one in known.started.get(item.workflow_id, ()):
            try:
                when = dt.datetime.fromisoformat(one.removeprefix(prefix))
            except ValueError:
                continue  # somebody gave a workflow an ID that only begins like that
            if when.tzinfo is not None and when >= moment:
                found.append(one)
        return found

    def _verdict(self, row: WorkflowRecord) -> tuple[Verdict, str]:
        stays = "; the schedule stays PAUSED" if row.status == "PAUSED" else ""
        return "do", f"enqueues {row.name} once, now{stays}"

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> dict[str, str]:
        """Trigger; DBOS chooses the workflow's ID by the moment."""
        with unsafe_contexts(allowed=self.force):
            return {
                item.workflow_id: client.trigger_schedule(item.workflow_id).get_workflow_id()
                for item in items
            }

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether the workflow is there."""
        return new is not None

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the latest version, and the schedule's queue."""
        return None, item.row.queue_name if item.row else None


def _trigger_prefix(name: str) -> str:
    return f"sched-{name}-trigger-"


def _triggered(session: Session, queries: Queries, name: str) -> list[str]:
    table = queries.workflows
    lately = int((dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).timestamp() * 1000)
    statement = sa.select(table.c.workflow_uuid.label("workflow_id")).where(
        table.c.workflow_uuid.startswith(_trigger_prefix(name), autoescape=True),
        table.c.created_at >= lately,
    )
    return [row["workflow_id"] for row in session.rows(statement)]


@dataclass(frozen=True)
class Backfill(Operation):
    """Enqueue the runs of a schedule that a time has missed: a line for each run."""

    action: ClassVar[str] = "backfill_schedule"
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

    def read(
        self,
        session: Session,
        queries: Queries,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read the runs that exist, and whether the schedule still is what they came from."""
        known = Known(records.workflows(session, queries, ids))
        schedule = read(session, queries, [self.schedule_name]).get(self.schedule_name)
        problem = None
        if schedule is None:
            problem = _GONE
        elif (schedule.cron, schedule.timezone) != (self.cron, self.timezone):
            problem = "the schedule has changed since the plan"
        elif not self.force and not is_safe_context(schedule.context):
            problem = UNSAFE_CONTEXT
        else:
            queues = read_queues(session, queries)
            problem = problem_of_schedule(schedule.row.queue_name, queues)
        if problem:
            known.problems = dict.fromkeys(ids, problem)
        return known

    def evaluate(self, key: ItemKey, known: Known, before: PlanItem | None) -> PlanItem:
        """Say whether one run would be enqueued."""
        workflow_id = key.workflow_id
        row, problem = known.rows.get(workflow_id), known.problems.get(workflow_id)
        if row is not None:
            return PlanItem(workflow_id, "unchanged", f"this run exists: {row.status}", row)
        if problem is not None:
            return PlanItem(workflow_id, "not_found" if problem == _GONE else "refused", problem)
        return PlanItem(workflow_id, "do", f"enqueues the run of {self._moment(workflow_id)}")

    def _moment(self, workflow_id: str) -> dt.datetime:
        return dt.datetime.fromisoformat(workflow_id.removeprefix(f"sched-{self.schedule_name}-"))

    def call(self, client: DBOSClient, items: Sequence[PlanItem]) -> None:
        """Enqueue run by run, so that it can be stopped and told apart."""
        for item in items:
            moment = self._moment(item.workflow_id)
            # Both ends are exclusive, and no two runs are less than a second apart.
            with unsafe_contexts(allowed=self.force):
                client.backfill_schedule(
                    self.schedule_name,
                    moment - dt.timedelta(seconds=1),
                    moment + dt.timedelta(microseconds=1),
                )

    def succeeded(
        self, item: PlanItem, after: WorkflowRecord | None, new: WorkflowRecord | None
    ) -> bool:
        """Tell whether the run is there."""
        return after is not None

    def target(self, item: PlanItem) -> tuple[str | None, str | None]:
        """Return the latest version, and the schedule's queue."""
        return None, self.queue_name


def backfill(
    store: Store, schedule: Any, start: Any, end: Any, *, force: bool
) -> tuple[Backfill, list[str]]:
    """Validate the arguments of ``Client.backfill_schedule``.

    Returns the operation and the IDs of the runs, or raises ScheduleNotFoundError.
    """
    name = as_name(schedule, "schedule")
    now = dt.datetime.now(dt.UTC)
    first = as_epoch_ms(start, "start", now)
    last = now.timestamp() * 1000 if end is None else as_epoch_ms(end, "end", now)
    begin, finish = (dt.datetime.fromtimestamp(each / 1000, dt.UTC) for each in (first, last))
    found = store.read(read, [name]).get(name)
    if found is None:
        raise ScheduleNotFoundError(
            f"No schedule is named {name!r}. Nothing was written; db.schedules() lists those that "
            "are stored in the database."
        )
    operation = Backfill(
        name, begin, finish, found.row.queue_name, found.cron, found.timezone, force
    )
    return operation, runs(store.queries, found, begin, finish, force=force)


def runs(
    queries: Queries, schedule: Schedule, start: dt.datetime, end: dt.datetime, *, force: bool
) -> list[str]:
    """Return the IDs of a schedule's runs between two moments, both exclusive, as DBOS names them.

    Raises
    ------
    RefusedError
        There are more than 10,000, or the context cannot be unpickled safely.
    FilterError
        The end is not after the start.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from croniter import croniter

    if end <= start:
        raise FilterError(f"end={end} is not after start={start}.")
    if not can_enqueue(queries):
        raise RefusedError(f"Backfill of {schedule.row.workflow_id!r} is refused: {_TOO_OLD}.")
    if not force and not is_safe_context(schedule.context):
        raise RefusedError(
            f"Backfill of {schedule.row.workflow_id!r} is refused: {UNSAFE_CONTEXT}."
        )
    found: list[str] = []
    try:
        zone = ZoneInfo(schedule.timezone) if schedule.timezone else dt.UTC
        # As DBOS's own backfill counts: seconds stand first where there are six fields.
        times = croniter(schedule.cron, start.astimezone(zone), second_at_beginning=True)
        while (moment := times.get_next(dt.datetime)) < end and len(found) <= MOST_RUNS:
            found.append(f"sched-{schedule.row.workflow_id}-{moment.isoformat()}")
    except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError) as error:
        # Whoever writes rows can write any text as a cron or a time zone.
        raise RefusedError(
            f"Backfill of {schedule.row.workflow_id!r} is refused: its runs cannot be reckoned "
            f"from {schedule.cron!r} in the time zone {schedule.timezone!r} ({error})."
        ) from None
    if len(found) > MOST_RUNS:
        raise RefusedError(
            f"Schedule {schedule.row.workflow_id!r} has over {MOST_RUNS:,} runs between "
            f"{start} and {end}. Backfill a shorter time."
        )
    return found
