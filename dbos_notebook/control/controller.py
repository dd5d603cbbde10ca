"""Make a plan from an operation and IDs, and apply a plan through DBOS, which gives a receipt.

The refusals that apply to every operation are here: a read-only client, a database that the
installed dbos cannot control, a role that may not write, too many workflows without a confirmation.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from dbos_notebook.control import records
from dbos_notebook.control.audit import History
from dbos_notebook.control.batch_runner import Batch, BatchRunner
from dbos_notebook.control.client_pool import ClientPool
from dbos_notebook.control.dbos_client import require_available
from dbos_notebook.control.display import watch
from dbos_notebook.control.interrupts import InterruptCounter
from dbos_notebook.control.operations import (
    ClearedQueue,
    Operation,
    PlanItem,
    ReadContext,
    Snapshot,
    distinct,
)
from dbos_notebook.control.permissions import PermissionCheck, check_permissions
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.receipt import OutcomeAnalysis, Receipt, ReceiptLine
from dbos_notebook.control.transactions import (
    Attempt,
    Transaction,
    read_other_server,
    read_waits,
    update_outcomes,
)
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import (
    ConfirmationError,
    ControlInterrupt,
    DatabaseConnectionError,
    NotebookError,
    PartialFailureError,
    QueryCancelledError,
    ReadOnlyError,
    RefusedError,
    ScheduleNotFoundError,
    StepNotFoundError,
)
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables import listings
from dbos_notebook.tables.availability import Estimate, ExecutorAvailability
from dbos_notebook.text import plural

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.transactions import OtherServer
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.store import Store

MAX_UNCONFIRMED = 20
"""Changing more workflows without a plan requires ``confirm=True``."""
REREAD_SECONDS, REREAD_AFTER_SILENCE_SECONDS, REREAD_AFTER_CTRL_C_SECONDS = 5.0, 2.0, 0.4
"""How long an incomplete call tries to reach the database to read the outcomes: after a fault,
where the server had not answered, and after Ctrl-C."""
READ_SECONDS = 10.0
"""How long reading the outcomes may take once the database has answered."""
IN_DOUBT_SECONDS = 3.0
"""How long to wait for a COMMIT whose answer was lost."""
OUTCOME_READS = 3
"""How often the outcomes are read at most, while calls that were given up still end."""

AnyOperation = TypeVar("AnyOperation", bound="Operation")
T = TypeVar("T")


class Controller:
    """Plans and applies the control calls of one client."""

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self.store = store
        self.reader = store.reader
        self.queries = store.queries
        self.read_only = read_only
        timeout: float | None = getattr(store.reader, "statement_timeout", None)
        self.pool = ClientPool(store.location, store.reader.schema, store.application_name, timeout)
        self.history = History(str(store.location))
        # By workflow: DBOS clears the queues of cancelled workflows.
        self._cleared_queues: dict[str, ClearedQueue] = {}

    # Planning

    @repeat_if_changed
    def plan(self, operation: Operation, ids: Sequence[str]) -> Plan:
        """Read the workflows and return what the operation would do. Nothing is written."""
        require_available(operation.action, list(operation.options()))
        with self.reader.session() as session:
            context = self.context(session)
            children = operation.children(context, ids)
            items = self.evaluate(context, operation, [*ids, *children], requested=ids)
            # A child of another application is not listed to a client of one application.
            items = [item for item in items if item.requested or item.verdict != "not_found"]
            return self.make_plan(context, operation, items, self.apply)

    def context(self, session: Session) -> ReadContext:
        """Return what operations read from in a session."""
        return ReadContext(session, self.queries, dict(self._cleared_queues))

    def evaluate(
        self,
        context: ReadContext,
        operation: Operation,
        ids: Sequence[str],
        *,
        requested: Sequence[str],
    ) -> list[PlanItem]:
        """Return the items of a plan for these workflows, of which some were requested."""
        wanted = set(requested)
        items = operation.evaluate(context, operation.keys(ids), {})
        return distinct(
            [dataclasses.replace(item, requested=item.workflow_id in wanted) for item in items]
        )

    def make_plan(
        self,
        context: ReadContext,
        operation: Operation,
        items: Sequence[PlanItem],
        apply: Callable[[Plan, bool], Receipt],
    ) -> Plan:
        """Add to evaluated items whether they may be changed and whether the work will run."""
        checked = self._conditions(context.session, operation, items)
        items = self._with_availability(context.session, operation, items)
        notes = [*checked.notes, *operation.notes(items)]
        return Plan(operation, items, apply, problem=checked.problem, notes=notes)

    def _conditions(
        self, session: Session, operation: Operation, items: Sequence[PlanItem]
    ) -> PermissionCheck:
        """Check for a read-only client or server, and for missing privileges."""
        return check_permissions(
            self.reader,
            session,
            self.queries,
            operation.needs([item for item in items if item.verdict == "ready"]),
            client_read_only=self.read_only,
        )

    def _with_availability(
        self, session: Session, operation: Operation, items: Sequence[PlanItem]
    ) -> list[PlanItem]:
        """Estimate for the items that enqueue work whether an executor will run it."""
        availability = ExecutorAvailability(session, self.queries, self.reader.location)

        def will_run(item: PlanItem) -> Estimate | None:
            if item.verdict != "ready" or not operation.needs_executor(item):
                return None
            version, queue = operation.target(item)
            owner = operation.owner(item, self.queries.application)
            forked = item.new_workflow_id is not None
            active = item.row is not None and item.row.active and not forked
            return availability.estimate(version, owner, queue, active=active)

        return [dataclasses.replace(item, will_run=will_run(item)) for item in items]

    def execute(
        self,
        operation: AnyOperation,
        ids: Sequence[str],
        *,
        plan: bool,
        confirm: bool,
        make_plan: Callable[[AnyOperation, Sequence[str]], Plan] | None = None,
    ) -> Plan | Receipt:
        """Return the plan of an operation, or apply it if nothing forbids that."""
        if not plan:
            self.require_writable()
        planned = (make_plan or self.plan)(operation, ids)
        if plan:
            return planned
        self._validate(planned, confirm=confirm)
        return planned.apply(confirm=confirm)

    def _validate(self, plan: Plan, *, confirm: bool) -> None:
        """Raise for what cannot be done or must be confirmed, before anything is written."""
        if plan.problem is not None:
            raise plan.problem
        missing = [item.workflow_id for item in plan.items if item.verdict == "not_found"]
        if missing and plan.operation.subject == "schedule_name":
            raise ScheduleNotFoundError(
                f"No schedule is named {missing[0]!r}. Nothing was written; db.schedules() lists "
                "those that are stored in the database.",
                plan=plan,
            )
        if missing:
            self.require_known(missing)
        refused = [item for item in plan.items if item.verdict == "refused"]
        if refused:
            first = refused[0]
            more = f" And {len(refused) - 1:,} more: error.plan." if len(refused) > 1 else ""
            if plan.operation.lacks_step(first):
                raise StepNotFoundError(f"{first.effect}{more}", plan=plan)
            raise RefusedError(
                f"{plan.action} of {first.workflow_id!r} is refused: {first.effect}. Nothing was "
                f"written.{more}",
                plan=plan,
            )
        count = plan.counts["ready"]
        if count > MAX_UNCONFIRMED and not confirm:
            raise ConfirmationError(
                f"{plan.action} would change {count:,} workflows, and more than {MAX_UNCONFIRMED} "
                "require confirm=True. Nothing was written; error.plan (or plan=True) shows what "
                "would be changed.",
                plan=plan,
            )

    def require_writable(self) -> None:
        """Raise for a client that was opened with ``read_only=True``, without a query."""
        if self.read_only:
            raise ReadOnlyError(
                f"This client of {self.reader.location} was opened with read_only=True. "
                "connect(…) without it can control workflows."
            )

    @repeat_if_changed
    def require_conditions(self, plan: Plan) -> None:
        """Raise where a plan cannot be applied now, even if it could when it was made."""
        with self.reader.session() as session:
            checked = self._conditions(session, plan.operation, plan.items)
        if checked.problem is not None:
            raise checked.problem

    # Applying

    def apply(self, plan: Plan, confirm: bool) -> Receipt:  # noqa: FBT001 - Plan's own callback
        """Apply a plan as far as it still holds, and add the receipt to the history."""
        self.require_writable()
        operation = plan.operation
        if operation.always_confirm and not confirm:
            raise ConfirmationError(
                f"{operation.action} would permanently remove {plan.counts['ready']:,} and always "
                "requires confirm=True. Nothing was written.",
                plan=plan,
            )
        called_at = dt.datetime.now(dt.UTC)
        with InterruptCounter() as interrupts:
            receipt, runner = self.run(plan, interrupts)
            receipt.called_at = called_at
            self.history.add(called_at, operation.action, operation.options(), receipt)
        # Even if all had been called before Ctrl-C, the notebook must stop.
        runner.interrupted = runner.interrupted or interrupts.count > 0
        self.raise_if_incomplete(plan, receipt, runner)
        return receipt

    def run(self, plan: Plan, interrupts: InterruptCounter) -> tuple[Receipt, BatchRunner]:
        """Apply a plan, and return its receipt and its runner even where the call is incomplete."""
        operation = plan.operation
        # Nothing has been changed yet, so Ctrl-C ends it immediately.
        prepared = interrupts.interruptible(partial(self._prepare, plan))
        items, checked = prepared if prepared is not None else (plan.items, PermissionCheck())
        ready = [item for item in items if item.verdict == "ready"]
        batches = [Batch(batch) for batch in operation.batches(ready)]
        runner = BatchRunner(
            self.pool,
            operation.call,
            interrupts,
            server=checked.server,
            watch_waits=self._watch_waits,
        )
        runner.row_security = bool(checked.row_security)
        # A pooler in session mode reserves a server connection for each of ours, and may have one.
        self.reader.release()
        runner.run(batches, f"{operation.action} {len(ready):,} workflows")
        new_ids = {original: new for batch in batches for original, new in batch.new_ids.items()}
        items = [
            dataclasses.replace(
                item, new_workflow_id=new_ids.get(item.workflow_id, item.new_workflow_id)
            )
            for item in items
        ]
        receipt = self._receipt(operation, items, batches, runner, interrupts)
        runner.interrupted = runner.interrupted or interrupts.count > 0
        applied = ("done",) if operation.traceable else ("done", "unknown")
        # Further lines are children that DBOS found.
        pairs = zip(items, receipt.lines, strict=False)
        plan.applied.update(item.key for item, line in pairs if line.outcome in applied)
        return receipt, runner

    @repeat_if_changed
    def _prepare(self, plan: Plan) -> tuple[list[PlanItem], PermissionCheck]:
        """Evaluate a plan again; return its items as they are now, and the conditions."""
        operation = plan.operation
        planned = {item.key: item for item in plan.items}
        with self.reader.session() as session:
            now = operation.evaluate(self.context(session), list(planned), planned)
            items = [
                _reevaluate(plan, item, current)
                for item, current in zip(planned.values(), now, strict=True)
            ]
            checked = self._conditions(session, operation, items)
            if checked.problem is not None:
                raise checked.problem
            # An executor may have been started, or have died, since the plan.
            return self._with_availability(session, operation, items), checked

    def _watch_waits(self, attempts: Sequence[Attempt]) -> None:
        """Note what the server processes of these attempts wait for."""
        busy = {
            attempt.transactions[-1].pid: attempt
            for attempt in attempts
            if attempt.transactions and attempt.transactions[-1].pid
        }
        if not busy:
            return  # they wait for a connection, and this would take one more
        try:
            with self.reader.session() as session:
                waits = read_waits(session, list(busy))
        except NotebookError:
            return  # the error message then omits what the call waits for
        finally:
            self.reader.release()
        for pid, attempt in busy.items():
            attempt.waits_for = waits.get(pid)

    def _receipt(
        self,
        operation: Operation,
        items: Sequence[PlanItem],
        batches: Sequence[Batch],
        runner: BatchRunner,
        interrupts: InterruptCounter,
    ) -> Receipt:
        """Read the rows again and determine the outcome for each workflow."""
        reader = _OutcomeReader(self.reader, runner, interrupts, closed=self.pool.closed)
        for _ in range(OUTCOME_READS):
            reader.settle(
                [
                    transaction
                    for batch in batches
                    if batch.attempt
                    for transaction in batch.attempt.in_doubt
                ]
            )
            # A call that was given up may end now. Rows that were read before it ended do not show
            # what it did.
            before = [batch.state() for batch in batches]
            after = reader.read(lambda session: operation.reread(self.context(session), items))
            if after is not None:
                after.other_server = reader.other_server
            ended = [dataclasses.replace(batch) for batch in batches]
            if before == [batch.state() for batch in ended]:
                break
        attempted = {
            item.key: (batch, batch.errors.get(number) or batch.error)
            for batch in ended
            for number, item in enumerate(batch.items)
        }
        analysis = OutcomeAnalysis(operation, after, runner, self.pool)
        lines = [analysis.line(item, attempted.get(item.key)) for item in items]
        if after is not None:
            if operation.clears_queue:
                self._remember_queues(items, lines, after)
            # Children that were started between the plan and the call: DBOS found them.
            planned = {item.workflow_id for item in items}
            lines += [
                ReceiptLine(
                    child,
                    operation.action,
                    "done",
                    None,
                    "CANCELLED",
                    None,
                    "started after the plan",
                )
                for child in after.children
                if child not in planned and after.workflows[child].status == "CANCELLED"
            ]

        def check() -> Receipt:
            return self._receipt(operation, items, batches, runner, InterruptCounter())

        return Receipt(
            operation.action,
            lines,
            wait=self.wait,
            check=check,
            notes=_availability_notes(items),
            subject=operation.subject,
        )

    def _remember_queues(
        self, items: Sequence[PlanItem], lines: Sequence[ReceiptLine], after: Snapshot
    ) -> None:
        for item, line in zip(items, lines, strict=True):
            row = after.row(item)
            if line.outcome == "done" and item.row is not None and row is not None:
                self._cleared_queues[item.workflow_id] = ClearedQueue(
                    row.completed_at, item.row.queue_name
                )

    def raise_if_incomplete(self, plan: Plan, receipt: Receipt, runner: BatchRunner) -> None:
        """Raise, with the receipt, where a call was interrupted or did not complete."""
        if not runner.interrupted and runner.fatal is None:
            return
        counts = ", ".join(f"{count:,} {name}" for name, count in receipt.counts.items() if count)
        advice = (
            "error.receipt (or db.last_receipt()) has the outcome of each. "
            f"{plan.operation.continuation()}."
        )
        if runner.interrupted:
            raise ControlInterrupt(
                f"{receipt.action} was interrupted: {counts}. {advice}", plan=plan, receipt=receipt
            )
        raise PartialFailureError(
            f"{receipt.action} did not complete: {counts}. {runner.fatal} {advice}",
            plan=plan,
            receipt=receipt,
        ) from runner.fatal

    # Waiting

    def wait(self, ids: Sequence[str], timeout: float | None) -> pd.DataFrame:
        """Wait until workflows have finished, and list them in the order given."""
        self.require_known(ids)
        title = f"Waiting for {plural(len(ids), 'workflow')}"
        try:
            watch(self.read, ids, timeout, title)
        except KeyboardInterrupt:
            frame = self._list(ids)
            finished = int((~frame["status"].isin(ACTIVE_STATUSES)).sum())
            raise ControlInterrupt(
                f"Stopped waiting; the workflows continue. {finished:,} of {len(ids):,} have "
                "finished: error.workflows.",
                workflows=frame,
            ) from None
        return self._list(ids)

    def require_known(self, ids: Sequence[str]) -> None:
        """Raise WorkflowNotFoundError for an ID that no workflow has."""
        self.store.read(listings.require_known, ids)

    def read(self, ids: Sequence[str]) -> dict[str, records.WorkflowRecord]:
        """Read workflows by ID."""
        return self.store.read(records.workflows, ids)

    def _list(self, ids: Sequence[str]) -> pd.DataFrame:
        frame, _ = self.store.read(
            listings.workflows, {"workflow_ids": list(ids)}, None, None, self.store.decoder
        )
        position = {workflow_id: number for number, workflow_id in enumerate(ids)}
        order = frame["workflow_id"].map(position).sort_values().index
        return frame.loc[order].reset_index(drop=True)

    def close(self) -> None:
        """Close DBOS's client, if it was created."""
        self.pool.close()


def _reevaluate(plan: Plan, item: PlanItem, now: PlanItem) -> PlanItem:
    """Return an item as it is now: only what it was planned to do is done, if it still can be."""
    now = dataclasses.replace(
        now, requested=item.requested, replacement_children=item.replacement_children
    )
    if item.key in plan.applied:
        done = "already done by this plan"
        if not plan.operation.traceable:
            done += ", or possibly done"
        return dataclasses.replace(item, verdict="unchanged", effect=done, row=now.row)
    planned = item.row.status if item.row else None
    status = now.row.status if now.row else None
    since = f" (when it was planned: {planned})" if planned not in (None, status) else ""
    if item.verdict == "ready" and now.verdict != "ready":
        return dataclasses.replace(now, effect=now.effect + since)
    if item.verdict != "ready" and now.verdict == "ready":
        effect = f"the plan does not include it: {item.effect}{since}"
        return dataclasses.replace(now, verdict="unchanged", effect=effect)
    if item.verdict == "ready" and item.row and now.row:
        outdated = plan.operation.outdated(item.row, now.row)
        if outdated:
            effect = f"skipped: {outdated}{since}"
            return dataclasses.replace(now, verdict="unchanged", effect=effect)
    return now


def _availability_notes(items: Sequence[PlanItem]) -> list[str]:
    """Return what a receipt says about executors, if it is the same for all."""
    answers = [item.will_run for item in items if item.verdict == "ready" and item.will_run]
    unlikely = [answer for answer in answers if answer.likelihood == "unlikely"]
    if unlikely:
        return [f"⚠ {len(unlikely):,} wait for an executor. Will it run? {unlikely[0]}."]
    return [f"Will it run? {answers[0]}."] if len(set(answers)) == 1 else []


class _OutcomeReader:
    """Reads the outcomes of a call within a time limit, and only shortly after Ctrl-C.

    It reads on a thread of its own, so that a network that does not answer cannot block the caller.
    """

    def __init__(
        self,
        reader: Reader,
        runner: BatchRunner,
        interrupts: InterruptCounter,
        *,
        closed: bool = False,
    ) -> None:
        self._reader = reader
        self._server = runner.server
        self.other_server: OtherServer | None = None
        self._interrupts = interrupts
        self._incomplete = runner.interrupted or runner.fatal is not None
        silent = isinstance(runner.fatal, DatabaseConnectionError | QueryCancelledError)
        self._deadline = time.monotonic() + (
            REREAD_AFTER_SILENCE_SECONDS if silent and runner.failed_late else REREAD_SECONDS
        )
        # A client that has been closed reads nothing.
        self._stopped = closed

    def settle(self, transactions: Sequence[Transaction]) -> None:
        """Find out whether transactions were committed; wait a little for those in progress."""
        deadline = time.monotonic() + IN_DOUBT_SECONDS
        while pending := [each for each in transactions if each.in_doubt]:
            self.read(partial(_settle, pending))
            waiting = any(each.in_doubt for each in pending)
            late = time.monotonic() > deadline
            if not waiting or self._stopped or self._interrupts.count or late:
                return
            time.sleep(0.2)

    def read(self, call: Callable[[Session], T]) -> T | None:
        """Return what a function reads; ``None`` where the database does not answer."""
        while not self._stopped:
            try:
                return self._read_once(call)
            except NotebookError:
                late = time.monotonic() > self._deadline
                if not self._incomplete or late or self._interrupts.count:
                    return None
                time.sleep(0.3)
        return None

    def _read_once(self, call: Callable[[Session], T]) -> T:
        answered, ended = threading.Event(), threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        @repeat_if_changed
        def read() -> T:
            with self._reader.session() as session:
                if self._server:
                    # Another server may answer than the one that was written to: an address may
                    # have several, and one may have failed since.
                    self.other_server = read_other_server(session, self._server)
                elif self._incomplete:
                    session.rows(sa.select(sa.literal(1)))
                answered.set()
                return call(session)

        def work() -> None:
            try:
                results.append(read())
            except BaseException as error:  # noqa: BLE001 - the waiting thread raises it below
                errors.append(error)
            finally:
                ended.set()

        threading.Thread(target=work, name="dbos_control_reading", daemon=True).start()
        pressed_at: float | None = None
        answered_at: float | None = None
        while not ended.wait(0.02 if answered_at is None else 0.1):
            now = time.monotonic()
            if answered.is_set():
                answered_at = answered_at or now
            if self._interrupts.count and pressed_at is None:
                pressed_at = now
            start = answered_at if answered_at is not None else pressed_at
            limit = READ_SECONDS if answered_at is not None else REREAD_AFTER_CTRL_C_SECONDS
            over = pressed_at is not None and start is not None and now > start + limit
            if over or (self._incomplete and answered_at is None and now > self._deadline):
                self._stopped = True
                raise DatabaseConnectionError("The database does not answer.")
        if errors:
            raise errors[0]
        return results[0]


def _settle(transactions: Sequence[Transaction], session: Session) -> None:
    update_outcomes(session, transactions)
