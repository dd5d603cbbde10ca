"""When a schedule was due, and when its runs began and ended.

DBOS names the run of a schedule ``sched-{name}-{time}``, with the ISO time at which it was due. The
due times are computed from the schedule as it is now: DBOS records neither when a schedule was
created or paused, nor its former expressions. A due time without a run is therefore called missed
only where nothing in the database speaks against it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.selections import run_rows
from dbos_notebook.analysis.throughput import integers
from dbos_notebook.errors import FilterError, ScheduleNotFoundError, nearest
from dbos_notebook.status import STATUSES
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import read_frame
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.cron import due_times
from dbos_notebook.tables.filters import as_epoch_ms, as_name
from dbos_notebook.tables.sql import Queries
from dbos_notebook.types import Time

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session

MAX_FIRINGS = 100_000
GRACE_SECONDS = 60
"""DBOS fires up to 10 s late, at random, so that not all processes fire at once, and looks for new
schedules every half a minute."""

_SECOND = dt.timedelta(seconds=1)
_INSTANTS = ("due_at", "created_at", "started_at", "ended_at")
_DURATIONS = ("lateness", "duration", "landing_time")


def landing_times(
    session: Session, queries: Queries, schedule: str, start: Time, end: Time | None
) -> pd.DataFrame:
    """Return a row for each time at which a schedule was due, with its run."""
    name = as_name(schedule, "schedule")
    now = dt.datetime.now(dt.UTC)
    first = _instant(start, "start_time", now)
    last = now if end is None else min(now, _instant(end, "end_time", now))
    if first > last:
        raise FilterError(
            f"start_time={start!r} is later than end_time={end!r} or now, so nothing can match."
        )
    row = _read_schedule(session, queries, name)
    # A schedule that is named is shown whoever owns it, and so are its runs.
    queries = queries.all_applications
    runs = _read_runs(session, queries, name, first, now)
    due = _due_times(name, row, first, last)
    times = sorted({*due, *(time for time in runs if first <= time <= last)})
    others = set(runs).difference(due)
    evidence = _Evidence(
        first=_first_seen(session, queries, name),
        last=_last_fired(row, runs),
        paused=row["status"] == "PAUSED",
        changed=max((time for time in others if first <= time <= last), default=None),
        now=now,
    )
    records = [_record(time, runs.get(time), evidence) for time in times]
    return frames.mark_listing(_typed(records), "landing_times")


def _instant(value: Time, name: str, now: dt.datetime) -> dt.datetime:
    return dt.datetime.fromtimestamp(as_epoch_ms(value, name, now) / 1000, dt.UTC)


def _read_schedule(session: Session, queries: Queries, name: str) -> dict[str, Any]:
    """Return the row of a schedule; raise ScheduleNotFoundError if there is none."""
    table = queries.catalog.table("workflow_schedules")
    known: list[str] = []
    if table.c:
        key = table.c.schedule_name
        columns = ("schedule", "cron_timezone", "status", "last_fired_at")
        statement = sa.select(*(queries.column(table, each).label(each) for each in columns))
        rows = session.rows(statement.where(key == name))
        if rows:
            return rows[0]
        listed = sa.select(key.label("name")).where(*queries.owned(table)).order_by(key)
        known = [str(each["name"]) for each in session.rows(listed)]
    names = ", ".join(map(repr, known[:10]))
    raise ScheduleNotFoundError(
        f"No schedule is named {name!r}.{nearest(name, known)} "
        + (f"The schedules are: {names}." if known else "The database stores no schedule.")
    )


def _due_times(
    name: str, row: Mapping[str, Any], first: dt.datetime, last: dt.datetime
) -> list[dt.datetime]:
    cron, zone = str(row["schedule"]), row["cron_timezone"]
    due: list[dt.datetime] = []
    try:
        # The start is inclusive here.
        for time in due_times(cron, zone, first - _SECOND):
            instant = time.astimezone(dt.UTC)
            if instant > last:
                break
            if len(due) == MAX_FIRINGS:
                raise FilterError(
                    f"Schedule {name!r} ({cron!r}) is due over {MAX_FIRINGS:,} times between "
                    f"{first:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M}. Use a later start_time."
                )
            if instant >= first:
                due.append(instant)
    except ValueError as error:
        if isinstance(error, FilterError):
            raise
        raise FilterError(
            f"When schedule {name!r} was due cannot be computed from {cron!r} in the time zone "
            f"{zone!r} ({error})."
        ) from None
    return due


def _prefix(name: str) -> str:
    return f"sched-{name}-"


def _of_schedule(queries: Queries, name: str) -> dict[str, Any]:
    """Return the filter for runs of a schedule; only the column with its name has an index."""
    if queries.catalog.has("workflow_status", "schedule_name"):
        return {"schedule_name": [name]}
    return {"workflow_id_prefix": [_prefix(name)]}


def _due_at(workflow_id: str, name: str) -> dt.datetime | None:
    """Return the due time in the ID of a run; ``None`` if it is triggered or of another schedule.

    Examples
    --------
    >>> _due_at("sched-nightly-2026-03-29T03:00:00+02:00", "nightly").isoformat()
    '2026-03-29T01:00:00+00:00'
    >>> _due_at("sched-nightly-trigger-2026-03-29T03:00:00+00:00", "nightly")
    """
    try:
        time = dt.datetime.fromisoformat(workflow_id.removeprefix(_prefix(name)))
    except ValueError:
        return None
    return None if time.tzinfo is None else time.astimezone(dt.UTC)


def _read_runs(
    session: Session, queries: Queries, name: str, first: dt.datetime, now: dt.datetime
) -> dict[dt.datetime, Any]:
    """Return the runs by their due time."""
    filters = {
        **_of_schedule(queries, name),
        # A run is created after it was due, except for whole seconds and clocks that differ.
        "start_time": int((first - dt.timedelta(minutes=1)).timestamp() * 1000),
    }
    rows = run_rows(queries, (), filters, round(now.timestamp() * 1000))
    times = ("created_at_ms", "started_at_ms", "ended_at_ms", "duration_ms")
    statement = sa.select(
        rows.c.workflow_uuid.label("workflow_id"),
        rows.c.run_status.label("status"),
        *(rows.c[each] for each in times),
    )
    shape = [Column(each, "text", "", each) for each in ("workflow_id", "status")]
    found = read_frame(session, statement, [*shape, *integers(*times)])
    runs = {}
    for run in found.itertuples(index=False):
        due = _due_at(str(run.workflow_id), name)
        if due is not None:
            runs[due] = run
    return runs


def _first_seen(session: Session, queries: Queries, name: str) -> dt.datetime | None:
    """Return when the oldest run that is still recorded was created, also by hand.

    Not when it was due: a backfill creates runs of a time at which the schedule may not have
    existed.
    """
    table = queries.workflows
    created = queries.valid_time(table, "created_at")
    statement = (
        sa.select(table.c.workflow_uuid.label("workflow_id"), created.label("created"))
        .where(created.is_not(None), *queries.where(_of_schedule(queries, name)))
        .order_by(created)
        # More than one, because the prefix may also be that of another schedule's name.
        .limit(100)
    )
    for row in session.rows(statement):
        key = str(row["workflow_id"])
        if _due_at(key, name) or key.startswith(f"{_prefix(name)}trigger-"):
            return dt.datetime.fromtimestamp(int(row["created"]) / 1000, dt.UTC)
    return None


def _last_fired(row: Mapping[str, Any], runs: Mapping[dt.datetime, Any]) -> dt.datetime | None:
    """Return the latest due time at which a schedule is known to have fired."""
    known = list(runs)
    try:
        recorded = dt.datetime.fromisoformat(str(row["last_fired_at"]))
    except ValueError:
        recorded = None  # it never fired, or is no time
    if recorded is not None and recorded.tzinfo is not None:
        known.append(recorded.astimezone(dt.UTC))
    return max(known, default=None)


class _Evidence(NamedTuple):
    """What shows whether a due time without a run was missed."""

    first: dt.datetime | None
    last: dt.datetime | None
    paused: bool
    changed: dt.datetime | None
    now: dt.datetime

    def judge(self, time: dt.datetime) -> tuple[bool | None, str]:
        """Return whether a time without a run was missed, ``None`` if that is unknown, and why."""
        if (self.now - time).total_seconds() < GRACE_SECONDS:
            return None, f"due less than {GRACE_SECONDS} s ago"
        if self.first is None:
            return None, "no run of this schedule is recorded, so it may be new"
        if time < self.first:
            return None, "before the oldest run was created, so the schedule may be newer"
        if self.changed is not None and time < self.changed:
            return None, (
                "a later run is not due by the present expression, so it may have been another then"
            )
        if self.paused and (self.last is None or time > self.last):
            return None, "the schedule is paused, and DBOS does not record since when"
        return True, "no run is recorded"


def _record(due: dt.datetime, run: Any, evidence: _Evidence) -> dict[str, Any]:
    if run is None:
        missed, note = evidence.judge(due)
        return {"due_at": due, "missed": missed, "note": note}
    at = due.timestamp() * 1000
    started, ended = run.started_at_ms, run.ended_at_ms
    return {
        "due_at": due,
        "workflow_id": run.workflow_id,
        "status": run.status,
        "created_at": run.created_at_ms,
        "started_at": started,
        "ended_at": ended,
        "lateness": pd.NA if pd.isna(started) else started - at,
        "duration": run.duration_ms,
        "landing_time": pd.NA if pd.isna(ended) else ended - at,
        "missed": False,
    }


def _typed(records: list[dict[str, Any]]) -> pd.DataFrame:
    names = ["due_at", "workflow_id", "status", *_INSTANTS[1:], *_DURATIONS, "missed", "note"]
    frame = pd.DataFrame(records, columns=names)
    frame["due_at"] = pd.to_datetime(frame["due_at"], utc=True).astype("datetime64[ms, UTC]")
    for name in _INSTANTS[1:]:
        values = frame[name].astype("Float64").astype("float64")
        frame[name] = pd.to_datetime(values, unit="ms", utc=True).astype("datetime64[ms, UTC]")
    for name in _DURATIONS:
        values = frame[name].astype("Float64").astype("float64")
        frame[name] = pd.to_timedelta(values, unit="ms").astype("timedelta64[ms]")
    frame["status"] = pd.Categorical(frame["status"], categories=STATUSES, ordered=True)
    frame["missed"] = frame["missed"].astype("boolean")
    for name in ("workflow_id", "note"):
        frame[name] = frame[name].astype(STRING_DTYPE)
    return frame
