"""Compute when workflows were enqueued, started and ended, their queue wait and their duration.

The rules are implemented once for rows in memory (:func:`run_times`) and once in SQL
(:func:`sql_times`). Everything that shows a time of a workflow calls one of them.

A workflow can run several times with one ID: DBOS resumes, rewinds and recovers it. All times are
those of the latest run. A time that its row no longer has is missing, never zero:

- Cancelling clears ``queue_name`` and ``started_at_epoch_ms``. A cancelled workflow has a start
  only if its deadline and timeout imply one. If ``recovery_attempts`` is 0, the workflow was not
  dequeued since it was created or last resumed, and has no duration. Resuming sets
  ``recovery_attempts`` to 0 and clears the deadline. So a workflow with a deadline was never
  resumed, and waited until it was cancelled.
- Resuming, rewinding and recovering enqueue it again. ``created_at`` does not change, and
  ``updated_at`` is the time of that change until it is dequeued; after that, no column has it.
- A delay ends at ``delay_until_epoch_ms``, and only then does the wait on the queue begin. The row
  does not change at that time.
- SQLite times in whole seconds (:data:`SECOND_MS`) are truncated, not rounded, but deadlines and
  timeouts are exact. A workflow that was cancelled in the second of its deadline, or of the start
  that it implies, is assumed to have ended no earlier than that.
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

from dbos_notebook.status import (
    COMPLETED_STATUSES,
    INTERRUPTED_STATUSES,
    TERMINAL_STATUSES,
    WAITING_STATUSES,
)
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, Column

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog


class Tables(Protocol):
    """The part of ``sql.Queries`` that is used here."""

    @property
    def catalog(self) -> Catalog: ...  # noqa: D102
    @property
    def workflows(self) -> sa.FromClause: ...  # noqa: D102
    @property
    def steps(self) -> sa.FromClause: ...  # noqa: D102
    def column(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]: ...  # noqa: D102
    def valid_time(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]: ...  # noqa: D102


INTERNAL_QUEUE = "_dbos_internal_queue"
"""DBOS's default queue for forks, scheduled, resumed and recovered workflows."""

_SECONDS_END = 100_000_000_000
"""Larger times of sleeps are milliseconds, as the TypeScript SDK writes them."""

_OPERATIONS = {
    "getresult": "get_result",
    "sleep": "sleep",
    "send": "send",
    "sendbulk": "send",
    "recv": "recv",
    "setevent": "set_event",
    "getevent": "get_event",
    "getevents": "get_event",
    "writestream": "stream",
    "closestream": "stream",
    "readstream": "stream",
    "readstreamoffset": "stream",
}


def operation(name: str) -> str:
    """Return the operation of a step by its name, in the spelling of any SDK.

    Examples
    --------
    >>> operation("charge"), operation("DBOS.setEvent"), operation("DBOS.patch-new-tax")
    ('step', 'set_event', 'other')
    """
    short_name = name.removeprefix("DBOS.")
    if short_name == name:
        return "step"
    return _OPERATIONS.get(short_name.replace("_", "").lower(), "other")


def wake_time(value: object) -> pd.Timestamp | None:
    """Return when a sleep ends, from its recorded result; ``None`` if that is no time.

    Examples
    --------
    >>> wake_time(1_790_000_000.5), wake_time(None)
    (Timestamp('2026-09-21 14:13:20.500000+0000', tz='UTC'), None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    milliseconds = value if value > _SECONDS_END else value * 1000
    # Later than the year 9999, as for "sleep forever", is not representable.
    if not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return pd.Timestamp(int(milliseconds), unit="ms", tz="UTC")


SECOND_MS = 1000
"""Tolerance in milliseconds: SQLite databases have whole seconds (see docs/times.md), and clocks
differ."""

RAN_BEFORE = Column(
    "_ran_before", "boolean", "Whether a recorded step is older than the latest run.", "_ran_before"
)
"""Evidence of an earlier run, from the steps; a hidden column of workflow queries."""

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
    """The times of the latest run of each workflow, as arrays with NaT for unknown times.

    Attributes
    ----------
    enqueued_at
        When it was enqueued on the queue that it waits on or was dequeued from.
    started_at
        When it was dequeued, or started without a queue.
    ended_at
        When it succeeded, failed or was cancelled.
    queue_wait
        From ``enqueued_at`` until it was dequeued or cancelled; until now while it waits.
    duration
        From ``started_at`` to ``ended_at``; until now while it runs.
    """

    enqueued_at: Array
    started_at: Array
    ended_at: Array
    queue_wait: Array
    duration: Array


def run_times(value: Callable[[str], Array | None], status: StatusColumn, now: int) -> RunTimes:
    """Return the times of the latest runs of workflows.

    Parameters
    ----------
    value
        Returns the values of a column of ``Client.workflows``: ``datetime64[ms]`` for times,
        ``timedelta64[ms]`` for ``workflow_timeout``, numbers for ``recovery_attempts``, whether it
        is DBOS's internal queue for ``queue_name``, and whether there is a value for all others;
        ``None`` if there is no such column.
    status
        The statuses of the rows.
    now
        Milliseconds since 1970.
    """
    moment = np.datetime64(now, "ms")
    size = status.size
    created, updated, dequeued, completed, delay = (
        _or_default(value(name), np.full(size, _NEVER))
        for name in ("created_at", "updated_at", "dequeued_at", "completed_at", "delay_until")
    )
    never = np.zeros(size, bool)
    attempts = _or_default(value("recovery_attempts"), np.full(size, np.nan))
    terminal, erased, waiting = (
        status.is_in(item) for item in (TERMINAL_STATUSES, INTERRUPTED_STATUSES, WAITING_STATUSES)
    )
    undequeued = np.isnat(dequeued)

    # Before dbos 2.31, completion was not recorded; it is the last change of the row.
    ended = np.where(terminal, _coalesce(completed, updated), _NEVER)
    started = _coalesce(dequeued, created)
    lost = erased & undequeued
    timeout, deadline = value("workflow_timeout"), value("workflow_deadline")
    if deadline is not None:
        ended = _not_before(deadline, ended, created, status.is_in(("CANCELLED",)))
    if lost.any():
        started[lost] = _NEVER
        if timeout is not None and deadline is not None:
            # The deadline is the start plus the timeout, except after a recovery, which keeps it.
            implied = deadline - timeout
            ended = _not_before(implied, ended, created, lost & (attempts == 1))
            sane = lost & (attempts == 1) & (implied <= ended)
            started[sane] = implied[sane]
    started[waiting] = _NEVER

    # Valid unless the workflow was enqueued again.
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
    unknown |= queued & ((attempts > 1) | (enqueued - dequeued >= np.timedelta64(SECOND_MS, "ms")))
    internal = value("queue_name")
    if internal is not None and (internal & queued).any():
        forked, scheduled = (_or_default(value(n), never) for n in ("forked_from", "schedule_name"))
        unknown |= queued & internal & ~forked & ~scheduled
    before = value(RAN_BEFORE.name)
    if before is not None:
        unknown |= before & ~waiting
    enqueued[unknown] = _NEVER

    running = status.is_in(("PENDING",))
    return RunTimes(
        enqueued,
        started,
        ended,
        _elapsed(enqueued, until),
        _elapsed(started, np.where(running, moment, ended)),
    )


def _not_before(exact: Array, ended: Array, created: Array, is_in: Array) -> Array:
    """Return the ends, with truncated ends moved to an exact time within the same second."""
    second, zero = np.timedelta64(SECOND_MS, "ms"), np.timedelta64(0, "ms")
    late = exact - ended
    near = is_in & (late > zero) & (late < second)
    if not near.any():
        return ended
    epoch = np.datetime64(0, "ms")
    near &= ((ended - epoch) % second == zero) & ((created - epoch) % second == zero)
    return np.where(near, exact, ended)


def _waiting_since(
    value: Callable[[str], Array | None],
    status: StatusColumn,
    enqueued: Array,
    updated: Array,
    delay: Array,
    now: np.datetime64,
) -> Array:
    """Return since when ENQUEUED rows wait; DELAYED rows do not wait on a queue yet."""
    never = np.zeros(status.size, bool)
    attempts = _or_default(value("recovery_attempts"), np.full(status.size, np.nan))
    # Resuming clears both, so a row that has one was changed by something else.
    kept = _or_default(value("deduplication_id"), never) | ~np.isnat(
        _or_default(value("workflow_deadline"), np.full(status.size, _NEVER))
    )
    changed = (updated > enqueued) & ~(kept & (attempts == 0))
    # Resumed during a delay: it waits although the delay is not over.
    changed |= delay > now
    since = np.where(status.is_in(("ENQUEUED",)) & changed, updated, enqueued)
    since[status.is_in(("DELAYED",))] = _NEVER
    return since


def _or_default(columns: Array | None, default: Array) -> Array:
    return default if columns is None else columns


def _coalesce(first: Array, second: Array) -> Array:
    return np.where(np.isnat(first), second, first)


def _elapsed(start: Array, end: Array) -> Array:
    """Return the durations; small negative ones, due to rounding, are zero, others are missing."""
    span = end - start
    negative = span < np.timedelta64(0, "ms")
    if negative.any():
        rounded = negative & (span > np.timedelta64(-SECOND_MS, "ms"))
        span[negative] = np.timedelta64("NaT", "ms")
        span[rounded] = np.timedelta64(0, "ms")
    return span


class StatusColumn:
    """A categorical column of statuses."""

    def __init__(self, categories: list[str], codes: Array) -> None:
        self._words = categories
        self._codes = codes
        self.size = len(codes)

    def is_in(self, names: tuple[str, ...]) -> Array:
        """Return a mask of the rows that have one of the statuses."""
        # The code -1 of a missing value is the last element of the mask.
        mask = np.array([*(word in names for word in self._words), False])
        return mask[self._codes]


def batch_times(batch: pa.RecordBatch, now: int) -> RunTimes:
    """Return the times of workflows in a batch from the database."""
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
            return _codes(column).is_in((INTERNAL_QUEUE,))
        return np.asarray(column.is_valid().to_numpy(zero_copy_only=False))

    return run_times(value, _codes(batch.column("status")), now)


def _codes(column: pa.DictionaryArray) -> StatusColumn:
    indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return StatusColumn(column.dictionary.to_pylist(), indices)


def _to_numpy(value: pd.Timestamp | pd.Timedelta | None) -> Any:
    return "NaT" if value is None or pd.isna(value) else value.as_unit("ms").asm8


def frame_times(frame: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """Return the times of the workflows in a frame, with the columns of :class:`RunTimes`.

    A missing ``queue_wait`` stays missing, because it was computed with evidence that is not in the
    frame.

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
        # A frame made from one row has object columns. pandas before 3 would convert them to
        # nanoseconds, which cannot represent the year 9999.
        if column.dtype == object and name in _INSTANTS:
            column = pd.Series(np.array([_to_numpy(item) for item in column], "datetime64[ms]"))
        elif column.dtype == object and name == "workflow_timeout":
            column = pd.Series(np.array([_to_numpy(item) for item in column], "timedelta64[ms]"))
        if name in _INSTANTS:
            return np.array(column.to_numpy("datetime64[ms]"))
        if name == "workflow_timeout":
            return column.to_numpy("timedelta64[ms]")
        if name == "recovery_attempts":
            return pd.to_numeric(column).to_numpy("float64", na_value=np.nan)
        if name == "queue_name":
            return (column == INTERNAL_QUEUE).to_numpy(bool, na_value=False)
        return column.notna().to_numpy()

    categories = frame["status"].astype("category")
    times = run_times(
        value,
        StatusColumn(
            [str(item) for item in categories.cat.categories], categories.cat.codes.to_numpy()
        ),
        round(now.timestamp() * 1000),
    )
    if "queue_wait" in frame:
        unknown = frame["queue_wait"].isna().to_numpy()
        times.enqueued_at[unknown] = _NEVER
        times.queue_wait[unknown] = np.timedelta64("NaT", "ms")
    columns: dict[str, Any] = {}
    for item in fields(times):
        array = getattr(times, item.name)
        columns[item.name] = (
            pd.DatetimeIndex(array, tz="UTC") if item.name.endswith("_at") else array
        )
    return pd.DataFrame(columns, index=frame.index)


def sql_times(queries: Tables, now: int | None) -> dict[str, sa.ColumnElement[Any]]:
    """Return the fields of :class:`RunTimes` as SQL expressions in milliseconds.

    The evidence from steps (:data:`RAN_BEFORE`) is not used here. If ``now`` is ``None``, durations
    and waits that have not ended are NULL.
    """
    table = queries.workflows

    def moment(name: str) -> sa.ColumnElement[Any]:
        return sa.cast(queries.valid_time(table, name), sa.BigInteger())

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
    coarse = sa.and_(last % SECOND_MS == 0, created % SECOND_MS == 0)

    def near(exact: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return sa.and_(exact > last, exact - last < SECOND_MS, coarse)

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
    requeued = sa.or_(attempts > 1, base - dequeued >= SECOND_MS, internal)
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
        "queue_wait": sa.case(*_usual_wait(queries), else_=sql_between(enqueued, until)),
        "duration": sa.case(
            _usual_duration(queries),
            else_=sql_between(started, sa.case((status == "PENDING", moment_now), else_=ended)),
        ),
    }


# Most workflows succeeded or failed in their first run. For them, the general rules give the same
# as these conditions, which a database evaluates several times faster. The order of the two times
# and one bound for each imply that both are valid.


def _usual_duration(queries: Tables) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[Any]]:
    table = queries.workflows
    started = sa.func.coalesce(_integer(queries, "started_at_epoch_ms"), table.c.created_at)
    ended = sa.func.coalesce(_integer(queries, "completed_at"), table.c.updated_at)
    return sa.and_(*_ordered(started, ended), _completed(table)), ended - started


def _usual_wait(queries: Tables) -> list[tuple[sa.ColumnElement[bool], Any]]:
    table = queries.workflows
    dequeued, delay = (
        _integer(queries, f"{word}_epoch_ms") for word in ("started_at", "delay_until")
    )
    once = sa.and_(
        *_ordered(table.c.created_at, dequeued),
        delay.is_(None),
        _integer(queries, "recovery_attempts") <= 1,
        queries.column(table, "queue_name") != INTERNAL_QUEUE,
        _completed(table),
    )
    return [
        (sa.and_(dequeued.is_(None), _completed(table)), None),
        (once, dequeued - table.c.created_at),
    ]


def _completed(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return table.c.status.in_(COMPLETED_STATUSES)


def _integer(queries: Tables, name: str) -> sa.ColumnElement[Any]:
    return sa.cast(queries.column(queries.workflows, name), sa.BigInteger())


def _ordered(start: sa.ColumnElement[Any], end: sa.ColumnElement[Any]) -> list[Any]:
    first, last = (sa.literal_column(str(limit), sa.BigInteger()) for limit in (FIRST_MS, LAST_MS))
    return [end >= start, start >= first, end <= last]


def sql_never_ran(queries: Tables) -> sa.ColumnElement[bool]:
    """Return a condition for workflows that wait, or were cancelled before they ran.

    Their recorded executor is the one that enqueued them or, if resumed, ran them before.
    """
    status = queries.workflows.c.status
    attempts = queries.column(queries.workflows, "recovery_attempts")
    # Compared as a string, whatever type the column has.
    none = sa.func.coalesce(sa.cast(attempts, sa.Text()), "") == "0"
    return sa.or_(status.in_(WAITING_STATUSES), sa.and_(status == "CANCELLED", none))


def never_ran(status: object, attempts: object) -> bool:
    """Return whether a workflow waits, or was cancelled before it ran; see :func:`sql_never_ran`.

    Examples
    --------
    >>> never_ran("ENQUEUED", 0), never_ran("CANCELLED", 0), never_ran("CANCELLED", 1)
    (True, True, False)
    """
    # Missing attempts are pandas' NA, which has no truth value, so compare strings.
    return status in WAITING_STATUSES or (status == "CANCELLED" and str(attempts) in ("0", "0.0"))


def sql_between(start: sa.ColumnElement[Any], end: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a duration; a small negative one, due to rounding, is zero, another one is NULL."""
    span = end - start
    return sa.case((span >= 0, span), (span > -SECOND_MS, 0))


def ran_before(queries: Tables) -> sa.ColumnElement[Any] | None:
    """Return an expression that is true if steps prove that a workflow ran before its latest run.

    Only the steps of workflows whose row is inconclusive, and whose wait would be over a second,
    are read. Returns ``None`` if this database has no times of steps, or the role cannot read them.
    """
    table, steps = queries.workflows, queries.steps
    names = ("recovery_attempts", "started_at_epoch_ms", "created_at")
    begun = queries.column(steps, "started_at_epoch_ms")
    columns = [begun, *(queries.column(table, name) for name in names)]
    if any(isinstance(item, Null) for item in columns):
        return None
    if "operation_outputs" in queries.catalog.unreadable:
        return None
    postgres = queries.catalog.dialect == "postgresql"

    def number(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # Free if the column has the type of DBOS's schema.
        return sa.cast(column, sa.BigInteger()) if postgres else column

    begun, attempts, dequeued, created = map(number, columns)
    delay = number(queries.column(table, "delay_until_epoch_ms"))
    forked = queries.column(table, "forked_from")
    base = sa.case((delay > created, delay), else_=created)
    # A fork has copies of steps, which are older than the fork; with whole seconds, up to 1 s.
    own = sa.case(
        (forked.is_(None), created),
        (created % SECOND_MS == 0, created + SECOND_MS),
        else_=created + 1,
    )

    def exists(*conditions: Any) -> sa.ColumnElement[bool]:
        mine = steps.c.workflow_uuid == table.c.workflow_uuid
        columns: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(steps)
        return sa.exists(columns.where(mine, begun >= own, *conditions).correlate(table))

    evidence: sa.ColumnElement[Any] = sa.case(
        # The clocks of the application and of the database may differ.
        (dequeued - base > SECOND_MS, exists(begun < dequeued - SECOND_MS)),
    )
    if postgres:
        # If the type of a column was changed, skip the evidence and return the rows.
        whole: sa.ColumnElement[Any] = sa.literal_column("'bigint'::regtype")
        is_bigint = [sa.func.pg_typeof(column) == whole for column in columns]
        evidence = sa.case((sa.and_(*is_bigint[2:]), evidence))
    # Most rows are conclusive: they were not dequeued.
    return sa.case((sa.and_(columns[2].is_not(None), attempts == 1), evidence))
