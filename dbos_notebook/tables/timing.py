"""When a workflow was enqueued, started and ended, how long it waited and how long it ran.

The rules stand here once for rows in memory (:func:`run_times`) and once for SQL
(:func:`sql_times`); everything that shows a time of a workflow calls one of them.

A workflow can run several times under one ID: DBOS resumes, rewinds and recovers it. All times
here are those of its latest run, and what its row no longer holds is missing, never zero:

- Cancelling erases ``queue_name`` and ``started_at_epoch_ms``. A cancelled workflow has a start
  only where its deadline and timeout imply one. If ``recovery_attempts`` is 0, it was not dequeued
  since it was created or last resumed, and it has no duration. Resuming sets that to 0 and clears
  the deadline: only where there is a deadline, it was never resumed, and waited until it was
  cancelled.
- Resuming, rewinding and recovering put it on a queue again. ``created_at`` stays, and
  ``updated_at`` is the time of that change until it is dequeued; then nothing holds it.
- A delay ends at ``delay_until_epoch_ms``, and only then the wait on the queue begins. The row
  does not change at that moment.
- Whole seconds (:data:`SECOND`) are cut, not rounded, but deadlines and timeouts are exact: what
  was cancelled in the second of its deadline, or of the start that it implies, is taken to have
  ended no earlier than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.status import INTERRUPTED_STATUSES, TERMINAL_STATUSES, WAITING_STATUSES
from dbos_notebook.tables.columns import Column

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog


class Tables(Protocol):
    """The tables whose times are computed in SQL: what ``sql.Queries`` offers of them."""

    @property
    def catalog(self) -> Catalog: ...  # noqa: D102
    @property
    def workflows(self) -> sa.FromClause: ...  # noqa: D102
    @property
    def steps(self) -> sa.FromClause: ...  # noqa: D102
    def column(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]: ...  # noqa: D102
    def moment(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]: ...  # noqa: D102


INTERNAL_QUEUE = "_dbos_internal_queue"
"""Where DBOS puts forks, scheduled, resumed and recovered workflows unless told otherwise."""

SECOND = 1000
"""Milliseconds. SQLite databases hold whole seconds (see docs/times.md), and clocks differ."""

RAN_BEFORE = Column(
    "_ran_before", "boolean", "Whether a recorded step is older than the latest run.", "_ran_before"
)
"""Evidence of an earlier run, from the steps; it travels with a workflow, and is not shown."""

_INSTANTS = (
    "created_at",
    "updated_at",
    "dequeued_at",
    "completed_at",
    "delay_until",
    "workflow_deadline",
)
_NEVER = np.datetime64("NaT", "ms")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RunTimes:
    """Times of the latest run of each workflow, as arrays with NaT for what is not known.

    Attributes
    ----------
    enqueued_at
        When it was put on the queue that it waits on or was dequeued from.
    started_at
        When it was dequeued, or started without a queue.
    ended_at
        When it succeeded, failed or was cancelled.
    queue_wait
        From ``enqueued_at`` until it was dequeued, or cancelled; until now while it waits.
    duration
        From ``started_at`` to ``ended_at``; until now while it runs.
    """

    enqueued_at: Array
    started_at: Array
    ended_at: Array
    queue_wait: Array
    duration: Array


def run_times(value: Callable[[str], Array | None], status: Status, now: int) -> RunTimes:
    """Return the times of the latest runs of workflows.

    Parameters
    ----------
    value
        The values of a column of ``Client.workflows``, by its name: ``datetime64[ms]`` for
        instants, ``timedelta64[ms]`` for ``workflow_timeout``, numbers for
        ``recovery_attempts``, booleans for the others (whether there is a value), but for
        ``queue_name``: whether it is DBOS's internal queue. ``None``: there is no such column.
    status
        Tells which rows have one of some statuses.
    now
        Milliseconds since 1970.
    """
    moment = np.datetime64(now, "ms")
    size = status.size
    created, updated, dequeued, completed, delay = (
        _or(value(name), np.full(size, _NEVER))
        for name in ("created_at", "updated_at", "dequeued_at", "completed_at", "delay_until")
    )
    never = np.zeros(size, bool)
    attempts = _or(value("recovery_attempts"), np.full(size, np.nan))
    terminal, erased, waiting = (
        status.among(each) for each in (TERMINAL_STATUSES, INTERRUPTED_STATUSES, WAITING_STATUSES)
    )
    undequeued = np.isnat(dequeued)

    # Before dbos 2.31 no completion was recorded; the last change of the row is it.
    ended = np.where(terminal, _first(completed, updated), _NEVER)
    started = _first(dequeued, created)
    lost = erased & undequeued
    timeout, deadline = value("workflow_timeout"), value("workflow_deadline")
    if deadline is not None:
        ended = _not_before(deadline, ended, created, status.among(("CANCELLED",)))
    if lost.any():
        started[lost] = _NEVER
        if timeout is not None and deadline is not None:
            # The deadline is the start and the timeout, until a recovery keeps it.
            implied = deadline - timeout
            ended = _not_before(implied, ended, created, lost & (attempts == 1))
            sane = lost & (attempts == 1) & (implied <= ended)
            started[sane] = implied[sane]
    started[waiting] = _NEVER

    # Where nothing says that the workflow was put on its queue again.
    enqueued = np.where(delay > created, delay, created)
    until = np.where(waiting, moment, dequeued)
    unknown = undequeued & ~waiting
    if waiting.any():
        enqueued = _waiting_since(value, status, enqueued, updated, delay, moment)
    never_ran = lost & (attempts == 0)
    never_ran &= False if deadline is None else ~np.isnat(deadline)
    if never_ran.any():
        until[never_ran] = ended[never_ran]
        unknown &= ~never_ran
        unknown |= never_ran & (enqueued > ended)
    queued = ~undequeued & ~waiting
    unknown |= queued & ((attempts > 1) | (enqueued - dequeued >= np.timedelta64(SECOND, "ms")))
    internal = value("queue_name")
    if internal is not None and (internal & queued).any():
        forked, scheduled = (_or(value(n), never) for n in ("forked_from", "schedule_name"))
        unknown |= queued & internal & ~forked & ~scheduled
    before = value(RAN_BEFORE.name)
    if before is not None:
        unknown |= before & ~waiting
    enqueued[unknown] = _NEVER

    running = status.among(("PENDING",))
    return RunTimes(
        enqueued,
        started,
        ended,
        _between(enqueued, until),
        _between(started, np.where(running, moment, ended)),
    )


def _not_before(exact: Array, ended: Array, created: Array, among: Array) -> Array:
    """Return ends; those cut to the second are no earlier than an exact moment in that second."""
    second, zero = np.timedelta64(SECOND, "ms"), np.timedelta64(0, "ms")
    late = exact - ended
    near = among & (late > zero) & (late < second)
    if not near.any():
        return ended
    epoch = np.datetime64(0, "ms")
    near &= ((ended - epoch) % second == zero) & ((created - epoch) % second == zero)
    return np.where(near, exact, ended)


def _waiting_since(
    value: Callable[[str], Array | None],
    status: Status,
    enqueued: Array,
    updated: Array,
    delay: Array,
    now: np.datetime64,
) -> Array:
    """Return since when rows that are ENQUEUED wait; DELAYED ones do not wait on a queue yet."""
    never = np.zeros(status.size, bool)
    attempts = _or(value("recovery_attempts"), np.full(status.size, np.nan))
    # Resuming clears both, so that the change was something else.
    kept = _or(value("deduplication_id"), never) | ~np.isnat(
        _or(value("workflow_deadline"), np.full(status.size, _NEVER))
    )
    changed = (updated > enqueued) & ~(kept & (attempts == 0))
    # Resumed while it was delayed: it waits although the delay is not over.
    changed |= delay > now
    since = np.where(status.among(("ENQUEUED",)) & changed, updated, enqueued)
    since[status.among(("DELAYED",))] = _NEVER
    return since


def _or(found: Array | None, default: Array) -> Array:
    return default if found is None else found


def _first(one: Array, other: Array) -> Array:
    return np.where(np.isnat(one), other, one)


def _between(start: Array, end: Array) -> Array:
    """Return how long it is from one to the other; negative by rounding alone: zero."""
    span = end - start
    negative = span < np.timedelta64(0, "ms")
    if negative.any():
        rounded = negative & (span > np.timedelta64(-SECOND, "ms"))
        span[negative] = np.timedelta64("NaT", "ms")
        span[rounded] = np.timedelta64(0, "ms")
    return span


class Status:
    """The statuses of rows, as codes into the few words that there are."""

    def __init__(self, words: list[str], codes: Array) -> None:
        self._words = words
        self._codes = codes
        self.size = len(codes)

    def among(self, names: tuple[str, ...]) -> Array:
        """Return which rows have one of these statuses."""
        # The code -1 of a missing one finds the last place.
        hit = np.array([*(word in names for word in self._words), False])
        return hit[self._codes]


def batch_times(batch: pa.RecordBatch, now: int) -> RunTimes:
    """Return the times of workflows in the form in which they come from the database."""
    names = set(batch.schema.names)

    def value(name: str) -> Array | None:
        if name not in names:
            return None
        column = batch.column(name)
        if column.null_count == len(column):
            return None
        if name in _INSTANTS or name == "workflow_timeout":
            kind = pa.timestamp("ms") if name in _INSTANTS else pa.duration("ms")
            return np.asarray(column.cast(kind).to_numpy(zero_copy_only=False))
        if name == "recovery_attempts":
            return np.asarray(column.to_numpy(zero_copy_only=False))
        if name == RAN_BEFORE.name:
            return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False))  # noqa: FBT003
        if name == "queue_name":
            return _codes(column).among((INTERNAL_QUEUE,))
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))

    return run_times(value, _codes(batch.column("status")), now)


def _codes(column: pa.DictionaryArray) -> Status:
    indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Status(column.dictionary.to_pylist(), indices)


def _exact(value: pd.Timestamp | pd.Timedelta | None) -> Any:
    return "NaT" if value is None or pd.isna(value) else value.as_unit("ms").asm8


def frame_times(frame: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """Return the times of the workflows of a frame, as columns named as :class:`RunTimes` has them.

    A wait that is missing in the frame stays so: when it was read, more was known than the frame
    holds.

    Examples
    --------
    >>> frame = dbos_notebook.connect(example_database).workflows(status="SUCCESS")
    >>> times = frame_times(frame, pd.Timestamp.now("UTC"))
    >>> bool((times["ended_at"] - times["started_at"] == frame["duration"]).all())
    True
    """

    def value(name: str) -> Array | None:
        if name not in frame:
            return None
        column = frame[name]
        # One row that was turned into a frame has objects in its columns. pandas before 3 would
        # make nanoseconds of them, in which the year 9999 has no place.
        if column.dtype == object and name in _INSTANTS:
            column = pd.Series(np.array([_exact(each) for each in column], "datetime64[ms]"))
        elif column.dtype == object and name == "workflow_timeout":
            column = pd.Series(np.array([_exact(each) for each in column], "timedelta64[ms]"))
        if name in _INSTANTS:
            return np.array(column.to_numpy("datetime64[ms]"))
        if name == "workflow_timeout":
            return column.to_numpy("timedelta64[ms]")
        if name == "recovery_attempts":
            return pd.to_numeric(column).to_numpy("float64", na_value=np.nan)
        if name == "queue_name":
            return (column == INTERNAL_QUEUE).to_numpy(bool, na_value=False)
        return column.notna().to_numpy()

    words = frame["status"].astype("category")
    times = run_times(
        value,
        Status([str(each) for each in words.cat.categories], words.cat.codes.to_numpy()),
        round(now.timestamp() * 1000),
    )
    if "queue_wait" in frame:
        unknown = frame["queue_wait"].isna().to_numpy()
        times.enqueued_at[unknown] = _NEVER
        times.queue_wait[unknown] = np.timedelta64("NaT", "ms")
    found: dict[str, Any] = {}
    for each in fields(times):
        array = getattr(times, each.name)
        found[each.name] = pd.DatetimeIndex(array, tz="UTC") if each.name.endswith("_at") else array
    return pd.DataFrame(found, index=frame.index)


def sql_times(queries: Tables, now: int) -> dict[str, sa.ColumnElement[Any]]:
    """Return the same as SQL, in milliseconds, by the names that :class:`RunTimes` has.

    What only the steps prove (:data:`RAN_BEFORE`) is not looked up here.
    """
    table = queries.workflows

    def moment(name: str) -> sa.ColumnElement[Any]:
        return sa.cast(queries.moment(table, name), sa.BigInteger())

    created, updated = moment("created_at"), moment("updated_at")
    dequeued, completed = moment("started_at_epoch_ms"), moment("completed_at")
    delay, deadline = moment("delay_until_epoch_ms"), moment("workflow_deadline_epoch_ms")
    timeout = sa.cast(queries.column(table, "workflow_timeout_ms"), sa.BigInteger())
    attempts = queries.column(table, "recovery_attempts")
    status = table.c.status
    moment_now = sa.literal(now, sa.BigInteger())
    last = sa.func.coalesce(completed, updated)
    lost = sa.and_(status.in_(INTERRUPTED_STATUSES), dequeued.is_(None))
    implied = deadline - timeout
    coarse = sa.and_(last % SECOND == 0, created % SECOND == 0)

    def near(exact: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return sa.and_(exact > last, exact - last < SECOND, coarse)

    ended = sa.case(
        (sa.and_(status == "CANCELLED", near(deadline)), deadline),
        (sa.and_(lost, attempts == 1, near(implied)), implied),
        (status.in_(TERMINAL_STATUSES), last),
    )
    started = sa.case(
        (sa.and_(lost, attempts == 1, implied <= ended), implied),
        (sa.or_(lost, status.in_(WAITING_STATUSES)), None),
        else_=sa.func.coalesce(dequeued, created),
    )
    base = sa.case((delay > created, delay), else_=created)
    kept = sa.or_(queries.column(table, "deduplication_id").is_not(None), deadline.is_not(None))
    changed = sa.or_(
        sa.and_(updated > base, sa.not_(sa.and_(kept, sa.func.coalesce(attempts, -1) == 0))),
        delay > moment_now,
    )
    internal = sa.and_(
        queries.column(table, "queue_name") == INTERNAL_QUEUE,
        queries.column(table, "forked_from").is_(None),
        queries.column(table, "schedule_name").is_(None),
    )
    requeued = sa.or_(attempts > 1, base - dequeued >= SECOND, internal)
    enqueued = sa.case(
        (status == "DELAYED", None),
        (status == "ENQUEUED", sa.case((changed, updated), else_=base)),
        (sa.and_(lost, attempts == 0, deadline.is_not(None), base <= ended), base),
        (sa.or_(dequeued.is_(None), requeued), None),
        else_=base,
    )
    until = sa.case(
        (status == "ENQUEUED", moment_now),
        (lost, ended),
        else_=dequeued,
    )
    return {
        "enqueued_at": enqueued,
        "started_at": started,
        "ended_at": ended,
        "queue_wait": _sql_between(enqueued, until),
        "duration": _sql_between(started, sa.case((status == "PENDING", moment_now), else_=ended)),
    }


def sql_never_ran(queries: Tables) -> sa.ColumnElement[bool]:
    """Return SQL that is true for a workflow that waits, or was cancelled before it ran.

    What DBOS recorded as its executor is who enqueued it; of what was resumed, who ran it before.
    """
    status = queries.workflows.c.status
    attempts = queries.column(queries.workflows, "recovery_attempts")
    # As text, whatever type somebody gave the column.
    none = sa.func.coalesce(sa.cast(attempts, sa.Text()), "") == "0"
    return sa.or_(status.in_(WAITING_STATUSES), sa.and_(status == "CANCELLED", none))


def never_ran(status: object, attempts: object) -> bool:
    """Whether a workflow waits, or was cancelled before it ran; see :func:`sql_never_ran`.

    Examples
    --------
    >>> never_ran("ENQUEUED", 0), never_ran("CANCELLED", 0), never_ran("CANCELLED", 1)
    (True, True, False)
    """
    # A missing number of attempts is pandas' NA, which has no truth.
    return status in WAITING_STATUSES or (status == "CANCELLED" and str(attempts) in ("0", "0.0"))


def _sql_between(start: sa.ColumnElement[Any], end: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    span = end - start
    return sa.case((span >= 0, span), (span > -SECOND, 0))


def ran_before(queries: Tables) -> sa.ColumnElement[Any] | None:
    """Return SQL that is true where steps prove that a workflow ran before its latest run.

    Only where the row leaves it open, and a wait of more than a second would be claimed: the
    steps of other workflows are not looked at. ``None``: this database has no times of
    steps, or the role may not read them.
    """
    table, steps = queries.workflows, queries.steps
    names = ("recovery_attempts", "started_at_epoch_ms", "created_at")
    begun = queries.column(steps, "started_at_epoch_ms")
    columns = [begun, *(queries.column(table, name) for name in names)]
    if any(isinstance(each, Null) for each in columns):
        return None
    if "operation_outputs" in queries.catalog.unreadable:
        return None
    postgres = queries.catalog.dialect == "postgresql"

    def number(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # Costs nothing where the column has the type that DBOS gives it.
        return sa.cast(column, sa.BigInteger()) if postgres else column

    begun, attempts, dequeued, created = map(number, columns)
    delay = number(queries.column(table, "delay_until_epoch_ms"))
    forked = queries.column(table, "forked_from")
    base = sa.case((delay > created, delay), else_=created)
    # A fork has copies of steps, which are older than it; of times in whole seconds, up to one.
    own = sa.case(
        (forked.is_(None), created),
        (created % SECOND == 0, created + SECOND),
        else_=created + 1,
    )

    def exists(*conditions: Any) -> sa.ColumnElement[bool]:
        mine = steps.c.workflow_uuid == table.c.workflow_uuid
        found: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(steps)
        return sa.exists(found.where(mine, begun >= own, *conditions).correlate(table))

    evidence: sa.ColumnElement[Any] = sa.case(
        # The clocks of the application and of the database may differ.
        (dequeued - base > SECOND, exists(begun < dequeued - SECOND)),
    )
    if postgres:
        # Somebody may have changed a type; the rows are shown all the same.
        whole: sa.ColumnElement[Any] = sa.literal_column("'bigint'::regtype")
        typed = [sa.func.pg_typeof(column) == whole for column in columns]
        evidence = sa.case((sa.and_(*typed[2:]), evidence))
    # Most rows leave nothing open: they were not dequeued.
    return sa.case((sa.and_(columns[2].is_not(None), attempts == 1), evidence))
