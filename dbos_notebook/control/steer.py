"""From a verb and IDs to a plan, and from a plan through DBOS to a receipt.

Here stand the refusals that hold for every verb: a read-only client, a database that the installed
dbos cannot control, a role that may not write, too many workflows without a confirmation.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbos_notebook.control import rows
from dbos_notebook.control.alive import Prospects
from dbos_notebook.control.calls import Door
from dbos_notebook.control.course import Course, Unit
from dbos_notebook.control.dbos_client import require_available
from dbos_notebook.control.forks import Fork, FromStep
from dbos_notebook.control.guard import require_write
from dbos_notebook.control.hands import hands
from dbos_notebook.control.history import History
from dbos_notebook.control.outcomes import tell
from dbos_notebook.control.plan import Plan
from dbos_notebook.control.presses import Presses
from dbos_notebook.control.receipt import Line, Receipt
from dbos_notebook.control.schedules import DeleteSchedule
from dbos_notebook.control.verbs import Cancel, Delete, Item, Known, Verb
from dbos_notebook.control.waiting import watch
from dbos_notebook.errors import (
    BrokenOffError,
    ConfirmationError,
    ControlInterrupt,
    NotebookError,
    RefusedError,
    ScheduleNotFoundError,
    StepNotFoundError,
)
from dbos_notebook.tables import frames, listings

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.tables.queries import Queries

MANY = 20
"""More than so many are changed without a plan only with ``confirm=True``."""
READ_AGAIN_SECONDS = 5.0
"""How long a broken-off call tries to read what became of its workflows."""


DONE_BEFORE = {True: "this plan has done it", False: "this plan has done it, or may have"}


Look = Callable[["Session", "Queries", Sequence[str]], "pd.DataFrame"]


class Steer:
    """Plans and applies the control calls of one client."""

    def __init__(
        self,
        reader: Reader,
        queries: Queries,
        *,
        application_name: str | None,
        read_only: Callable[[], bool],
    ) -> None:
        self.reader = reader
        self.queries = queries
        self._read_only = read_only
        self.door = Door(reader.location, reader.schema, application_name)
        self.history = History(str(reader.location))

    # Planning

    def plan(self, verb: Verb, ids: Sequence[str]) -> Plan:
        """Read the workflows and say what the verb would do to each. Nothing is written."""
        require_available(verb.action, list(verb.options()))
        with self.reader.session() as session:
            known = verb.look(session, self.queries, ids, {})
            prospects = Prospects(session, self.queries)
            items = [verb.judge(one, known, None) for one in ids]
            items += [
                dataclasses.replace(verb.judge(one, known, None), asked=False)
                for one in known.children
                if one in known.rows
            ]
            if verb.enqueues:
                items = [self._with_prospect(verb, item, prospects) for item in items]
        return Plan(verb, items, self.apply)

    def _with_prospect(self, verb: Verb, item: Item, prospects: Prospects) -> Item:
        if item.verdict != "do":
            return item
        version, queue = verb.target(item)
        told = prospects.of(version, item.row.application_name if item.row else None, queue)
        return dataclasses.replace(item, will_run=told)

    def do(self, verb: Verb, ids: Sequence[str], *, plan: bool, confirm: bool) -> Plan | Receipt:
        """Return the plan, or apply it at once if nothing speaks against that."""
        if plan:
            return self.plan(verb, ids)
        self.guard()
        made = self.plan(verb, ids)
        self.require_sense(made, confirm=confirm)
        return self.apply(made, confirm)

    def require_sense(self, plan: Plan, *, confirm: bool) -> None:
        """Raise for what cannot be done or must be confirmed, before anything is written."""
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
        if missing and plan.verb.subject == "schedule_name":
            raise ScheduleNotFoundError(
                f"No schedule is named {missing[0]!r}. Nothing was written; db.schedules() lists "
                "those that are kept in the database.",
                plan=plan,
            )
        if missing:
            with self.reader.session() as session:
                listings.require_known(session, self.queries, missing)
        refused = [item for item in plan.items if item.verdict == "refused"]
        if not refused:
            return
        first = refused[0]
        more = f" And {len(refused) - 1:,} more: error.plan." if len(refused) > 1 else ""
        if isinstance(plan.verb, FromStep) and first.point is None:
            raise StepNotFoundError(f"{first.effect}{more}", plan=plan)
        raise RefusedError(
            f"{plan.action} of {first.workflow_id!r} is refused: {first.effect}. Nothing was "
            f"written.{more}",
            plan=plan,
        )

    def guard(self) -> None:
        """Raise where this client may change nothing. Asked before each call that writes."""
        require_write(self.reader, self.queries, read_only=self._read_only())

    # Applying

    def apply(self, plan: Plan, confirm: bool) -> Receipt:  # noqa: FBT001 - Plan's own callback
        """Do what a plan says, as far as it still holds, and keep it in the history."""
        self.guard()
        verb = plan.verb
        if isinstance(verb, Delete | DeleteSchedule) and not confirm:
            raise ConfirmationError(
                f"{verb.action} would remove {plan.counts['do']:,} for good, and always asks for "
                "confirm=True. Nothing was written.",
                plan=plan,
            )
        began = dt.datetime.now(dt.UTC)
        with Presses() as presses:
            receipt, course = self.carry(plan, presses)
            receipt.called_at = began
            self.history.add(began, verb.action, verb.options(), receipt)
        # All may have been called before Ctrl-C came; the notebook stops all the same.
        course.interrupted = course.interrupted or presses.count > 0
        self.raise_broken(receipt, course)
        return receipt

    def carry(self, plan: Plan, presses: Presses) -> tuple[Receipt, Course]:
        """Do what a plan says, and tell how it went, also where it broke off."""
        verb = plan.verb
        planned = {item.workflow_id: item for item in plan.items}
        with self.reader.session() as session:
            known = verb.look(session, self.queries, list(planned), planned)
            items = [self._still(verb, item, known, plan) for item in plan.items]
            if verb.enqueues:
                # An executor may have been started, or have died, since the plan.
                prospects = Prospects(session, self.queries)
                items = [self._with_prospect(verb, item, prospects) for item in items]
        doing = [item for item in items if item.verdict == "do"]
        forks = isinstance(verb, Fork)
        units = [Unit(doing[i : i + verb.batch]) for i in range(0, len(doing), verb.batch)]
        course = Course(
            self.door, verb.call, presses, hands(self.door, len(doing)) if forks else None
        )
        course.run(units, f"{verb.action} {len(doing):,} workflows")
        made = {one: new for unit in units for one, new in unit.made.items()}
        items = [
            dataclasses.replace(
                item, new_workflow_id=made.get(item.workflow_id, item.new_workflow_id)
            )
            for item in items
        ]
        receipt = self._receipt(plan, items, units, course)
        course.interrupted = course.interrupted or presses.count > 0
        over = ("done",) if verb.traceable else ("done", "unknown")
        plan.applied.update(one.workflow_id for one in receipt.lines if one.outcome in over)
        return receipt, course

    def _still(self, verb: Verb, item: Item, known: Known, plan: Plan) -> Item:
        """Judge a line of a plan again: only what it promised is done, if it still can be."""
        now = verb.judge(item.workflow_id, known, item)
        if item.workflow_id in plan.applied:
            return dataclasses.replace(
                item, verdict="unchanged", effect=DONE_BEFORE[verb.traceable], row=now.row
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
            outdated = verb.outdated(item.row, now.row)
            if outdated:
                effect = f"left alone: {outdated}{since}"
                return dataclasses.replace(
                    now, verdict="unchanged", effect=effect, asked=item.asked
                )
        return dataclasses.replace(now, asked=item.asked, replaced=item.replaced)

    def _receipt(
        self, plan: Plan, items: Sequence[Item], units: Sequence[Unit], course: Course
    ) -> Receipt:
        """Read the rows again and say of each workflow what is true of it now."""
        verb = plan.verb
        attempts = {
            item.workflow_id: (unit, unit.errors.get(number) or unit.error)
            for unit in units
            for number, item in enumerate(unit.items)
        }
        patient = course.fatal is not None or course.interrupted
        after = self._read_after(verb, items, patient=patient)
        lines = [
            tell(verb, item, attempts.get(item.workflow_id), after, course, self.door)
            for item in items
        ]
        if isinstance(verb, Cancel) and after is not None:
            # Children that were started between the plan and the call: DBOS found them.
            known = {item.workflow_id for item in items}
            lines += [
                Line(one, verb.action, "done", None, "CANCELLED", None, "started meanwhile")
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
            return self._receipt(plan, items, units, course)

        return Receipt(
            verb.action, lines, wait=self.wait, check=check, notes=notes, subject=verb.subject
        )

    def _read_after(self, verb: Verb, items: Sequence[Item], *, patient: bool) -> Known | None:
        """Read what the rows are now; ``None`` where the database does not answer."""
        deadline = time.monotonic() + (READ_AGAIN_SECONDS if patient else 0)
        while True:
            try:
                with self.reader.session() as session:
                    return verb.again(session, self.queries, items)
            except NotebookError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.5)

    def raise_broken(self, receipt: Receipt, course: Course) -> None:
        """Raise, with the receipt, where a call was interrupted or broke off."""
        counts = ", ".join(f"{n:,} {word}" for word, n in receipt.counts.items() if n)
        if course.interrupted:
            raise ControlInterrupt(
                f"{receipt.action} was interrupted: {counts}. error.receipt (or db.last_receipt) "
                "tells each; the same call again goes on.",
                receipt=receipt,
            )
        if course.fatal is not None:
            raise BrokenOffError(
                f"{receipt.action} broke off: {counts}. {course.fatal} error.receipt (or "
                "db.last_receipt) tells each.",
                receipt=receipt,
            ) from course.fatal

    def wait(self, ids: Sequence[str], timeout: float | None) -> pd.DataFrame:
        """Watch workflows until they have finished, and list them in the order given."""
        with self.reader.session() as session:
            listings.require_known(session, self.queries, ids)
        title = f"Waiting for {len(ids):,} workflow{'' if len(ids) == 1 else 's'}"
        try:
            watch(self.read, ids, timeout, title)
        except KeyboardInterrupt:
            frame = self._listed(ids)
            ended = int((~frame["status"].isin(rows.ACTIVE)).sum())
            raise ControlInterrupt(
                f"Stopped watching; the workflows go on. {ended:,} of {len(ids):,} have finished: "
                "error.workflows.",
                workflows=frame,
            ) from None
        return self._listed(ids)

    def read(self, ids: Sequence[str]) -> dict[str, rows.Row]:
        """Read workflows as control sees them."""
        with self.reader.session() as session:
            return rows.workflows(session, self.queries, ids)

    def read_status(self, look: Look, ids: Sequence[str] | None) -> pd.DataFrame:
        """Make a frame in one snapshot; without IDs, of all that have failed by themselves."""
        with self.reader.session() as session:
            if ids is None:
                ids = list(rows.failures(session, self.queries))
            else:
                listings.require_known(session, self.queries, ids)
            return look(session, self.queries, ids)

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
        self.door.close()
