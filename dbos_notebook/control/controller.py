"""From an operation and IDs to a plan, and from a plan through DBOS to a receipt.

The refusals that apply to every operation are here: a read-only client, a database that the
installed dbos cannot control, a role that may not write, too many workflows without a confirmation.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from dbos_notebook.control import records
from dbos_notebook.control.audit import History
from dbos_notebook.control.availability import ExecutorAvailability
from dbos_notebook.control.batch_runner import Batch, BatchRunner
from dbos_notebook.control.client_pool import ClientPool
from dbos_notebook.control.dbos_client import require_available
from dbos_notebook.control.display import watch
from dbos_notebook.control.forks import Fork, StepOperation
from dbos_notebook.control.interrupts import InterruptCounter
from dbos_notebook.control.operations import (
    Cancel,
    Delete,
    ItemKey,
    Known,
    Operation,
    PlanItem,
    distinct,
)
from dbos_notebook.control.permissions import PermissionCheck, check_permissions
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.receipt import Receipt, ReceiptLine, describe_outcome
from dbos_notebook.control.schedules import DeleteSchedule
from dbos_notebook.control.transactions import (
    Attempt,
    Transaction,
    read_other_server,
    read_waits,
    update_outcomes,
)
from dbos_notebook.database.reader import repeat_if_changed
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
from dbos_notebook.tables import frames, listings

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.transactions import OtherServer
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.store import Store

MANY = 20
"""More than so many are changed without a plan only with ``confirm=True``."""
READ_AGAIN_SECONDS, AFTER_SILENCE_SECONDS, AFTER_CTRL_C_SECONDS = 5.0, 2.0, 0.4
"""How long a broken-off call tries to reach the database, to read what became of its workflows:
after a fault, where the server had not answered, and after Ctrl-C."""
READING_SECONDS = 10.0
"""How long that reading may take once the database has answered."""
OUT_OF_DOUBT_SECONDS = 3.0
"""How long a COMMIT whose answer was lost is waited for."""


DONE_BEFORE = {True: "this plan has done it", False: "this plan has done it, or may have"}


AnyOperation = TypeVar("AnyOperation", bound="Operation")


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
        # The queues of what was cancelled, with the moment, by workflow: DBOS erases them.
        self._erased: dict[str, tuple[int | None, str | None]] = {}

    # Planning

    @repeat_if_changed
    def plan(self, operation: Operation, ids: Sequence[str]) -> Plan:
        """Read the workflows and say what the operation would do to each. Nothing is written."""
        require_available(operation.action, list(operation.options()))
        with self.reader.session() as session:
            known = self.read_snapshot(session, operation, ids, {})
            availability = ExecutorAvailability(session, self.queries, self.reader.location)
            items = distinct([operation.evaluate(key, known, None) for key in operation.keys(ids)])
            items += [
                dataclasses.replace(operation.evaluate(ItemKey(one), known, None), asked=False)
                for one in known.children
                if one in known.rows
            ]
            found = self.conditions(session, operation, items)
            if operation.enqueues:
                items = [self._with_availability(operation, item, availability) for item in items]
        return Plan(operation, items, self.apply, problem=found.problem, notes=found.notes)

    def read_snapshot(
        self,
        session: Session,
        operation: Operation,
        ids: Sequence[str],
        before: Mapping[ItemKey, PlanItem],
    ) -> Known:
        """Read what an operation needs to know, and add what only this client knows."""
        known = operation.read(session, self.queries, ids, before)
        erased = {
            one: queue
            for one, (cancelled_at, queue) in list(self._erased.items())
            if one in known.rows and known.rows[one].completed_at == cancelled_at
        }
        known.queues = dataclasses.replace(known.queues, erased=erased)
        return known

    def conditions(
        self, session: Session, operation: Operation, items: Sequence[PlanItem]
    ) -> PermissionCheck:
        """Find what speaks against doing it: a read-only client or server, missing privileges."""
        doing = [item for item in items if item.verdict == "do"]
        return check_permissions(
            self.reader,
            session,
            self.queries,
            operation.needs(doing),
            client_read_only=self.read_only,
        )

    def _with_availability(
        self, operation: Operation, item: PlanItem, availability: ExecutorAvailability
    ) -> PlanItem:
        if item.verdict != "do":
            return item
        version, queue = operation.target(item)
        told = availability.estimate(version, self.owner(operation, item), queue)
        return dataclasses.replace(item, will_run=told)

    def owner(self, operation: Operation, item: PlanItem) -> str | None:
        """Return the application that will own the work; ``None``: any may take it."""
        own = item.row.application_name if item.row else None
        # DBOS gives the fork of an unclaimed workflow to the client's application.
        return self.queries.application if own is None and isinstance(operation, Fork) else own

    def execute(
        self,
        operation: AnyOperation,
        ids: Sequence[str],
        *,
        plan: bool,
        confirm: bool,
        make_plan: Callable[[AnyOperation, Sequence[str]], Plan] | None = None,
    ) -> Plan | Receipt:
        """Return the plan of an operation, or apply it at once if nothing forbids that."""
        if not plan:
            self.require_writable()
        planned = (make_plan or self.plan)(operation, ids)
        if plan:
            return planned
        self.validate_plan(planned, confirm=confirm)
        return planned.apply(confirm=confirm)

    def validate_plan(self, plan: Plan, *, confirm: bool) -> None:
        """Raise for what cannot be done or must be confirmed, before anything is written."""
        if plan.problem is not None:
            raise plan.problem
        self._require_possible(plan)
        count = plan.counts["do"]
        if count > MANY and not confirm:
            raise ConfirmationError(
                f"{plan.action} would change {count:,} workflows, and more than {MANY} ask for "
                "confirm=True. Nothing was written; error.plan (or plan=True) shows what would be.",
                plan=plan,
            )

    def _require_possible(self, plan: Plan) -> None:
        missing = [item.workflow_id for item in plan.items if item.verdict == "not_found"]
        if missing and plan.operation.subject == "schedule_name":
            raise ScheduleNotFoundError(
                f"No schedule is named {missing[0]!r}. Nothing was written; db.schedules() lists "
                "those that are kept in the database.",
                plan=plan,
            )
        if missing:
            self.require_known(missing)
        refused = [item for item in plan.items if item.verdict == "refused"]
        if not refused:
            return
        first = refused[0]
        more = f" And {len(refused) - 1:,} more: error.plan." if len(refused) > 1 else ""
        if isinstance(plan.operation, StepOperation) and first.point is None:
            raise StepNotFoundError(f"{first.effect}{more}", plan=plan)
        raise RefusedError(
            f"{plan.action} of {first.workflow_id!r} is refused: {first.effect}. Nothing was "
            f"written.{more}",
            plan=plan,
        )

    def require_writable(self) -> None:
        """Raise for a client that was opened for reading alone: nothing needs to be read for it."""
        if self.read_only:
            raise ReadOnlyError(
                f"This client of {self.reader.location} was opened with read_only=True. "
                "connect(…) without it can control workflows."
            )

    @repeat_if_changed
    def require_conditions(self, plan: Plan) -> None:
        """Raise where a plan cannot be applied now, whatever was so when it was made."""
        with self.reader.session() as session:
            found = self.conditions(session, plan.operation, plan.items)
        if found.problem is not None:
            raise found.problem

    # Applying

    def apply(self, plan: Plan, confirm: bool) -> Receipt:  # noqa: FBT001 - Plan's own callback
        """Do what a plan says, as far as it still holds, and keep it in the history."""
        self.require_writable()
        operation = plan.operation
        if isinstance(operation, Delete | DeleteSchedule) and not confirm:
            raise ConfirmationError(
                f"{operation.action} would remove {plan.counts['do']:,} for good, and always asks "
                "for confirm=True. Nothing was written.",
                plan=plan,
            )
        began = dt.datetime.now(dt.UTC)
        with InterruptCounter() as interrupts:
            receipt, runner = self.run(plan, interrupts)
            receipt.called_at = began
            self.history.add(began, operation.action, operation.options(), receipt)
        # All may have been called before Ctrl-C came; the notebook stops all the same.
        runner.interrupted = runner.interrupted or interrupts.count > 0
        self.raise_broken(plan, receipt, runner)
        return receipt

    def run(self, plan: Plan, interrupts: InterruptCounter) -> tuple[Receipt, BatchRunner]:
        """Do what a plan says, and return how it went, also where it broke off."""
        operation = plan.operation
        # Nothing has been changed yet, so Ctrl-C ends it at once.
        prepared = interrupts.interruptible(partial(self._prepare, plan))
        items, found = prepared if prepared is not None else (plan.items, PermissionCheck())
        doing = [item for item in items if item.verdict == "do"]
        batches = [Batch(batch) for batch in operation.batches(doing)]
        runner = BatchRunner(
            self.pool,
            operation.call,
            interrupts,
            server=found.server,
            watch_waits=self._watch_waits,
        )
        runner.row_security = bool(found.row_security)
        # A pooler in session mode keeps a server's connection for each of ours, and may have one.
        self.reader.release()
        runner.run(batches, f"{operation.action} {len(doing):,} workflows")
        made = {one: new for unit in batches for one, new in unit.new_ids.items()}
        items = [
            dataclasses.replace(
                item, new_workflow_id=made.get(item.workflow_id, item.new_workflow_id)
            )
            for item in items
        ]
        receipt = self._receipt(plan, items, batches, runner, interrupts)
        runner.interrupted = runner.interrupted or interrupts.count > 0
        over = ("done",) if operation.traceable else ("done", "unknown")
        # Further lines are children that DBOS found.
        pairs = zip(items, receipt.lines, strict=False)
        plan.applied.update(item.key for item, line in pairs if line.outcome in over)
        return receipt, runner

    @repeat_if_changed
    def _prepare(self, plan: Plan) -> tuple[list[PlanItem], PermissionCheck]:
        """Judge a plan again, and return its lines with the conditions that were found."""
        operation = plan.operation
        planned = {item.key: item for item in plan.items}
        ids = list(dict.fromkeys(key.workflow_id for key in planned))
        with self.reader.session() as session:
            known = self.read_snapshot(session, operation, ids, planned)
            items = [self._still(operation, item, known, plan) for item in plan.items]
            found = self.conditions(session, operation, items)
            if found.problem is not None:
                raise found.problem
            if operation.enqueues:
                # An executor may have been started, or have died, since the plan.
                availability = ExecutorAvailability(session, self.queries, self.reader.location)
                items = [self._with_availability(operation, item, availability) for item in items]
        return items, found

    def _watch_waits(self, attempts: Sequence[Attempt]) -> None:
        """Note what the server's processes wait for that work for these."""
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
            return  # what it waits for is then not said
        finally:
            self.reader.release()
        for pid, attempt in busy.items():
            attempt.waits_for = waits.get(pid)

    def _still(self, operation: Operation, item: PlanItem, known: Known, plan: Plan) -> PlanItem:
        """Judge a line of a plan again: only what it promised is done, if it still can be."""
        now = operation.evaluate(item.key, known, item)
        if item.key in plan.applied:
            return dataclasses.replace(
                item, verdict="unchanged", effect=DONE_BEFORE[operation.traceable], row=now.row
            )
        before = item.row.status if item.row else None
        status = now.row.status if now.row else None
        since = f" (when it was planned: {before})" if before not in (None, status) else ""
        if item.verdict == "do" and now.verdict != "do":
            return dataclasses.replace(now, effect=now.effect + since, asked=item.asked)
        if item.verdict != "do" and now.verdict == "do":
            effect = f"the plan left it alone: {item.effect}{since}"
            return dataclasses.replace(now, verdict="unchanged", effect=effect, asked=item.asked)
        if item.verdict == "do" and item.row and now.row:
            outdated = operation.outdated(item.row, now.row)
            if outdated:
                effect = f"left alone: {outdated}{since}"
                return dataclasses.replace(
                    now, verdict="unchanged", effect=effect, asked=item.asked
                )
        return dataclasses.replace(now, asked=item.asked, replaced=item.replaced)

    def _receipt(
        self,
        plan: Plan,
        items: Sequence[PlanItem],
        batches: Sequence[Batch],
        runner: BatchRunner,
        interrupts: InterruptCounter,
    ) -> Receipt:
        """Read the rows again and say of each workflow what is true of it now."""
        operation = plan.operation
        reader = _Reading(self.reader, runner, interrupts, closed=self.pool.closed)
        for _ in range(3):
            reader.settle([each for one in batches if one.attempt for each in one.attempt.in_doubt])
            # A call that was given up may end meanwhile. Rows that were read before it ended do
            # not show what it did.
            seen = [unit.state() for unit in batches]
            after = reader.read(lambda session: operation.reread(session, self.queries, items))
            if after is not None:
                after.elsewhere = reader.elsewhere
            now = [dataclasses.replace(unit) for unit in batches]
            if seen == [unit.state() for unit in now]:
                break
        attempts = {
            item.key: (unit, unit.errors.get(number) or unit.error)
            for unit in now
            for number, item in enumerate(unit.items)
        }
        lines = [
            describe_outcome(operation, item, attempts.get(item.key), after, runner, self.pool)
            for item in items
        ]
        if isinstance(operation, Cancel) and after is not None:
            self._remember_queues(items, lines, after)
        if isinstance(operation, Cancel) and after is not None:
            # Children that were started between the plan and the call: DBOS found them.
            known = {item.workflow_id for item in items}
            lines += [
                ReceiptLine(
                    one, operation.action, "done", None, "CANCELLED", None, "started meanwhile"
                )
                for one in after.children
                if one not in known and after.rows[one].status == "CANCELLED"
            ]
        idle = [
            item
            for item in items
            if item.verdict == "do" and (item.will_run or "").startswith("unlikely")
        ]
        notes = [f"⚠ {len(idle):,} wait for an executor: {idle[0].will_run}."] if idle else []

        told = {item.will_run for item in items if item.verdict == "do" and item.will_run}
        if len(told) == 1 and not idle:
            notes.append(f"Will it run? {told.pop()}.")

        def check() -> Receipt:
            return self._receipt(plan, items, batches, runner, InterruptCounter())

        return Receipt(
            operation.action,
            lines,
            wait=self.wait,
            check=check,
            notes=notes,
            subject=operation.subject,
        )

    def _remember_queues(
        self, items: Sequence[PlanItem], lines: Sequence[ReceiptLine], after: Known
    ) -> None:
        for item, line in zip(items, lines, strict=True):
            row = after.rows.get(item.workflow_id)
            if line.outcome == "done" and item.row is not None and row is not None:
                self._erased[item.workflow_id] = (row.completed_at, item.row.queue_name)

    def raise_broken(self, plan: Plan, receipt: Receipt, runner: BatchRunner) -> None:
        """Raise, with the receipt, where a call was interrupted or broke off."""
        if not runner.interrupted and runner.fatal is None:
            return
        counts = ", ".join(f"{n:,} {word}" for word, n in receipt.counts.items() if n)
        operation = plan.operation
        if isinstance(operation, Fork) and operation.key is None:
            # With the same IDs, so that nothing is forked twice.
            on = "error.plan.apply() goes on; the same call again, without key=…, would fork anew"
        elif operation.traceable:
            on = "the same call again goes on"
        else:
            on = "error.plan.apply() goes on with what was not begun"
        told = f"error.receipt (or db.last_receipt()) tells each; {on}."
        if runner.interrupted:
            raise ControlInterrupt(
                f"{receipt.action} was interrupted: {counts}. {told}", plan=plan, receipt=receipt
            )
        raise PartialFailureError(
            f"{receipt.action} broke off: {counts}. {runner.fatal} {told}",
            plan=plan,
            receipt=receipt,
        ) from runner.fatal

    def wait(self, ids: Sequence[str], timeout: float | None) -> pd.DataFrame:
        """Watch workflows until they have finished, and list them in the order given."""
        self.require_known(ids)
        title = f"Waiting for {len(ids):,} workflow{'' if len(ids) == 1 else 's'}"
        try:
            watch(self.read, ids, timeout, title)
        except KeyboardInterrupt:
            frame = self._listed(ids)
            ended = int((~frame["status"].isin(ACTIVE_STATUSES)).sum())
            raise ControlInterrupt(
                f"Stopped watching; the workflows go on. {ended:,} of {len(ids):,} have finished: "
                "error.workflows.",
                workflows=frame,
            ) from None
        return self._listed(ids)

    def require_known(self, ids: Sequence[str]) -> None:
        """Raise WorkflowNotFoundError for an ID that no workflow has."""
        self.store.read(listings.require_known, ids)

    def read(self, ids: Sequence[str]) -> dict[str, records.WorkflowRecord]:
        """Read workflows as control sees them."""
        return self.store.read(records.workflows, ids)

    @repeat_if_changed
    def _listed(self, ids: Sequence[str]) -> pd.DataFrame:
        with self.reader.session() as session:
            columns, batches = listings.workflow_batches(
                session, self.queries, {"workflow_ids": list(ids)}, newest_first=None
            )
            frame = frames.to_frame(batches, columns)
        place = {workflow_id: number for number, workflow_id in enumerate(ids)}
        order = frame["workflow_id"].map(place).sort_values().index
        return frame.loc[order].reset_index(drop=True)

    def close(self) -> None:
        """Close DBOS's client, if it was made."""
        self.pool.close()


T = TypeVar("T")


class _Reading:
    """Reads what became of a call, within a time, and not for long after Ctrl-C.

    On a thread of its own: on a network that has gone silent the caller does not wait with it.
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
        self.elsewhere: OtherServer | None = None
        self._interrupts = interrupts
        self._broken = runner.interrupted or runner.fatal is not None
        silent = isinstance(runner.fatal, DatabaseConnectionError | QueryCancelledError)
        self._deadline = time.monotonic() + (
            AFTER_SILENCE_SECONDS if silent and runner.failed_late else READ_AGAIN_SECONDS
        )
        # A client that was closed meanwhile reads no more.
        self._silent = closed

    def settle(self, transactions: Sequence[Transaction]) -> None:
        """Find out what became of transactions; wait a little for those that go on."""
        deadline = time.monotonic() + OUT_OF_DOUBT_SECONDS
        while left := [each for each in transactions if each.in_doubt]:
            self.read(partial(_settled, left))
            waiting = any(each.in_doubt for each in left)
            if not waiting or self._silent or self._interrupts.count or time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def read(self, call: Callable[[Session], T]) -> T | None:
        """Return what a call reads; ``None`` where the database does not answer."""
        while not self._silent:
            try:
                return self._once(call)
            except NotebookError:
                if not self._broken or time.monotonic() > self._deadline or self._interrupts.count:
                    return None
                time.sleep(0.3)
        return None

    def _once(self, call: Callable[[Session], T]) -> T:
        answered, ended = threading.Event(), threading.Event()
        found: list[T] = []
        errors: list[BaseException] = []

        @repeat_if_changed
        def read() -> T:
            with self._reader.session() as session:
                if self._server:
                    # Another server may answer than the one that was written to: an address may
                    # have several, and one may have failed since.
                    self.elsewhere = read_other_server(session, self._server)
                elif self._broken:
                    session.rows(sa.select(sa.literal(1)))
                answered.set()
                return call(session)

        def work() -> None:
            try:
                found.append(read())
            except BaseException as error:  # noqa: BLE001 - it is raised below, by who waits
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
            begun = answered_at if answered_at is not None else pressed_at
            patience = READING_SECONDS if answered_at is not None else AFTER_CTRL_C_SECONDS
            over = pressed_at is not None and begun is not None and now > begun + patience
            if over or (self._broken and answered_at is None and now > self._deadline):
                self._silent = True
                raise DatabaseConnectionError("The database does not answer.")
        if errors:
            raise errors[0]
        return found[0]


def _settled(transactions: Sequence[Transaction], session: Session) -> None:
    update_outcomes(session, transactions)
