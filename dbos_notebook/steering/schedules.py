"""The operations of schedules: pause, resume, trigger, backfill, delete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import ScheduleNotFoundError
from dbos_notebook.steering.base import Base

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame
    Time = str | dt.datetime | dt.date | dt.timedelta | pd.Timestamp | pd.Timedelta


class Schedules(Base):
    """What changes schedules, by their names. Receipts have ``schedule_name`` for the ID."""

    def pause_schedule(self, schedules: Texts, *, plan: bool = False) -> Receipt | Plan:
        """Pause schedules: they fire no more until they are resumed.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.pause_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import PauseSchedule

        return self._control(PauseSchedule(), schedules, plan, confirm=False)

    def resume_schedule(self, schedules: Texts, *, plan: bool = False) -> Receipt | Plan:
        """Let paused schedules fire again.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.resume_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import ResumeSchedule

        return self._control(ResumeSchedule(), schedules, plan, confirm=False)

    def delete_schedule(
        self, schedules: Texts, *, plan: bool = False, confirm: bool = False
    ) -> Receipt | Plan:
        """Delete schedules; it asks for ``confirm=True``. What they started stays.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.delete_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import DeleteSchedule

        return self._control(DeleteSchedule(), schedules, plan, confirm)

    def trigger_schedule(
        self, schedules: Texts, *, plan: bool = False, force: bool = False
    ) -> Receipt | Plan:
        """Enqueue the workflows of schedules once, now. Each call enqueues anew.

        DBOS unpickles a schedule's context to do so. A context that names classes is therefore
        refused; ``force=True`` trusts who wrote it.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.trigger_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import TriggerSchedule

        return self._control(TriggerSchedule(force), schedules, plan, confirm=False)

    def backfill_schedule(
        self,
        schedule: str,
        start: Time,
        end: Time | None = None,
        *,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Enqueue the runs that a schedule should have made in a time: a line for each run.

        Runs that exist are left alone, so the call can be repeated.

        Parameters
        ----------
        schedule
            Its name.
        start, end
            Both exclusive; times or ages as everywhere. ``end=None``: now.
        plan, confirm
            As in :meth:`cancel`.
        force
            As in :meth:`trigger_schedule`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.backfill_schedule("nightly", "7d")
        Traceback (most recent call last):
        dbos_notebook.errors.ScheduleNotFoundError: No schedule is named 'nightly'. ...
        """
        from dbos_notebook.control import schedules as room
        from dbos_notebook.tables.filters import as_epoch_ms, as_name

        schedule = as_name(schedule, "schedule")
        now = dt.datetime.now(dt.UTC)
        first = as_epoch_ms(start, "start", now)
        last = now.timestamp() * 1000 if end is None else as_epoch_ms(end, "end", now)
        begin, finish = (dt.datetime.fromtimestamp(each / 1000, dt.UTC) for each in (first, last))

        @repeat_if_changed
        def read() -> room.Schedule | None:
            with self._reader.session() as session:
                return room.read(session, self._queries, [schedule]).get(schedule)

        found = read()
        if found is None:
            raise ScheduleNotFoundError(
                f"No schedule is named {schedule!r}. Nothing was written; db.schedules() lists "
                "those that are kept in the database."
            )
        runs = room.runs(self._queries, found, begin, finish, force=force)
        operation = room.Backfill(
            schedule,
            begin,
            finish,
            found.row.queue_name,
            found.cron,
            found.timezone,
            force,
        )
        return self._control(operation, runs, plan, confirm)
