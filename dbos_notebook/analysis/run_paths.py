"""The steps of many runs in compact arrays, and their order: an interval order, as in graphs.

Nothing here loops over runs: a run costs about a hundred bytes, and a step fifty.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from dbos_notebook.analysis.selections import copied_steps, run_rows
from dbos_notebook.payloads import decode
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables import listings
from dbos_notebook.tables.columns import WORKFLOW
from dbos_notebook.tables.timing import operation, wake_time

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

Array = np.ndarray[Any, Any]

LOOKUP_ROWS = 200_000
"""Steps whose workflow IDs are looked up at once; only as many IDs are in memory."""
HALF = 1 << 31
UNKNOWN = -1
"""The index of a workflow or of a child that was not read."""
MAX_EDGES, MAX_EDGES_PER_STEP = 64, 4
"""A run with more edges than both limits is counted by kinds of steps, as graphs insert joins."""

_RUN_COLUMNS = tuple(c for c in WORKFLOW if c.name in ("name", "parent_workflow_id"))
_RUN_TIMES = ("created_at_ms", "started_at_ms", "ended_at_ms", "duration_ms")


@dataclass(frozen=True)
class RunArrays:
    """Runs; the position of a run is its index. Times are in milliseconds, NaN where unknown.

    Attributes
    ----------
    ids
        Workflow IDs, a ``pyarrow.LargeStringArray``.
    names, name
        The distinct names of workflows, and the number of each run's.
    statuses, status
        The distinct statuses, and the number of each run's.
    failed
        Whether it ended without a result.
    created, started, ended, duration
        Times of the latest run.
    parent
        The index of the run that started it, or ``UNKNOWN``.
    """

    ids: pa.Array
    names: list[str]
    name: Array
    statuses: list[str]
    status: Array
    failed: Array
    created: Array
    started: Array
    ended: Array
    duration: Array
    parent: Array

    def __len__(self) -> int:
        return len(self.name)

    def has_status(self, *words: str) -> Array:
        """Return a mask of the runs that have one of the statuses."""
        known = np.array([word in words for word in self.statuses], bool)
        return np.asarray(known[self.status])

    @property
    def active(self) -> Array:
        """A mask of the runs that have not ended."""
        return self.has_status(*ACTIVE_STATUSES)


@dataclass(frozen=True)
class StepArrays:
    """Steps by run and ``function_id``. Times are in milliseconds, NaN where unknown.

    Attributes
    ----------
    run
        The index of the run.
    names, name
        The distinct names of steps, and the number of each step's.
    started, ended
        Times as recorded.
    until
        ``ended``, or when a sleep wakes if that is later.
    failed
        Whether it recorded an error.
    copied
        Whether a fork copied it from its original: it ran there.
    child
        The index of the run that it started or awaited, or ``UNKNOWN``.
    starts
        Whether it started a child.
    timeout
        Whether it is the timeout of a ``recv`` or ``get_event``, recorded as a sleep.
    first, last
        The blocks in which it started and ended: one step precedes another of its run if its
        ``last`` is less than the other's ``first``. Successive steps have the blocks 0, 1, 2.
    """

    run: Array
    names: list[str]
    name: Array
    started: Array
    ended: Array
    until: Array
    failed: Array
    copied: Array
    child: Array
    starts: Array
    timeout: Array
    first: Array
    last: Array

    def __len__(self) -> int:
        return len(self.run)


def read_runs(
    session: Session, queries: Queries, filters: Mapping[str, Any], now: int
) -> RunArrays:
    """Read the selected runs."""
    rows = run_rows(queries, _RUN_COLUMNS, filters, now)
    selected = [rows.c.workflow_uuid, rows.c.name, rows.c.parent_workflow_id, rows.c.run_status]
    selected += [rows.c.failed, *(rows.c[name] for name in _RUN_TIMES)]
    word = pa.dictionary(pa.int32(), pa.string())
    kinds = (pa.large_string(), word, pa.large_string(), word, *(5 * [pa.int64()]))
    schema = pa.schema([(c.name, kind) for c, kind in zip(selected, kinds, strict=True)])
    with closing(session.batches(sa.select(*selected), schema)) as stream:
        table = pa.Table.from_batches(list(stream), schema).unify_dictionaries()
    ids, parents = (
        table.column(name).combine_chunks() for name in ("workflow_uuid", "parent_workflow_id")
    )
    name, names = _codes(table.column("name"))
    status, statuses = _codes(table.column("run_status"))
    created, started, ended, duration = (_numbers(table.column(name)) for name in _RUN_TIMES)
    return RunArrays(
        ids,
        names,
        name,
        statuses,
        status,
        np.nan_to_num(_numbers(table.column("failed"))).astype(bool),
        created,
        started,
        ended,
        duration,
        _positions(parents, ids),
    )


def selected_filters(
    session: Session, queries: Queries, filters: Mapping[str, Any]
) -> tuple[Mapping[str, Any], bool]:
    """Return filters of the selected workflows and everything below them.

    Also whether they have descendants that ``filters`` do not select.
    """
    if not filters and queries.application is None:
        return filters, False
    key = queries.workflows.c.workflow_uuid.label("workflow_id")
    schema = pa.schema([("workflow_id", pa.large_string())])
    statement = sa.select(key).where(*queries.where(filters))
    with closing(session.batches(statement, schema)) as stream:
        roots = [root for batch in stream for root in batch.column(0).to_pylist()]
    found = listings.descendants(session, queries, roots, None)
    if len(found) == len(roots):
        return filters, False
    return {"workflow_ids": list(found)}, True


def read_steps(
    session: Session, queries: Queries, filters: Mapping[str, Any], runs: RunArrays
) -> StepArrays:
    """Read the steps of the runs in batches, and order them."""
    queries.catalog.require("operation_outputs", ("workflow_uuid", "function_id", "function_name"))
    statement, schema = _step_select(queries, filters)
    parts: list[dict[str, Array]] = []
    words = _Words()
    with closing(session.batches(statement, schema)) as stream:
        pending: list[pa.RecordBatch] = []
        for batch in stream:
            pending.append(batch)
            if sum(map(len, pending)) >= LOOKUP_ROWS:
                parts.append(_compact(pending, runs, words))
                pending = []
        parts.append(_compact(pending, runs, words))
    # Column by column, so that only one of them is in memory twice.
    columns = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    order = np.argsort(columns["key"], kind="stable")
    for name in columns:
        columns[name] = columns[name][order]
    del order
    number = columns.pop("key")
    run = columns["run"]
    operations = np.array([operation(name) for name in words.names], object)
    of = {word: _is_in(operations, word)[columns["name"]] for word in ("sleep", "get_result")}
    awaits = _is_in(operations, "recv", "get_event")[columns["name"]]
    timeout = of["sleep"] & _is_timeout(number, awaits)
    wake = columns.pop("wake")
    until = np.where(timeout | np.isnan(wake), columns["ended"], np.fmax(wake, columns["ended"]))
    # A wake time says nothing about a sleep whose end is not recorded.
    until[np.isnan(columns["ended"])] = np.nan
    first, last = interval_blocks(run, columns["started"], until)
    has_child = columns.pop("has_child")
    return StepArrays(
        names=words.names,
        until=until,
        starts=has_child & ~of["get_result"],
        timeout=timeout,
        first=first,
        last=last,
        **columns,
    )


def _step_select(queries: Queries, filters: Mapping[str, Any]) -> tuple[sa.Select[Any], pa.Schema]:
    steps, workflows = queries.steps, queries.workflows
    begun, ended = (
        sa.cast(queries.valid_time(steps, f"{word}_at_epoch_ms"), sa.BigInteger())
        for word in ("started", "completed")
    )
    copied = copied_steps(queries)
    asleep = steps.c.function_name == "DBOS.sleep"
    one, zero = (sa.literal_column(digit, sa.Integer()) for digit in "10")
    word = pa.dictionary(pa.int32(), pa.string())
    # The stored result of a sleep is the time when it wakes.
    shape: list[tuple[str, sa.ColumnElement[Any], pa.DataType]] = [
        ("workflow_uuid", steps.c.workflow_uuid, pa.large_string()),
        ("function_id", steps.c.function_id, pa.int64()),
        ("function_name", steps.c.function_name, word),
        ("started", begun, pa.int64()),
        ("ended", ended, pa.int64()),
        (
            "failed",
            sa.case((queries.recorded_error(steps).is_not(None), one), else_=zero),
            pa.int64(),
        ),
        ("copied", zero if copied is None else sa.case((copied, one), else_=zero), pa.int64()),
        ("child", queries.column(steps, "child_workflow_id"), pa.large_string()),
        ("wake", sa.case((asleep, queries.column(steps, "output"))), pa.large_string()),
        ("format", sa.case((asleep, queries.column(steps, "serialization"))), word),
    ]
    joined = steps.join(workflows, workflows.c.workflow_uuid == steps.c.workflow_uuid)
    statement = (
        sa.select(*(value.label(name) for name, value, _ in shape))
        .select_from(joined)
        .where(*queries.where(filters))
    )
    return statement, pa.schema([(name, kind) for name, _, kind in shape])


class _Words:
    """Numbers distinct strings of several batches."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def numbers(self, column: pa.DictionaryArray) -> Array:
        local = [*column.dictionary.to_pylist(), ""]
        table = np.empty(len(local), np.int32)
        codes = column.indices.fill_null(len(local) - 1).to_numpy(zero_copy_only=False)
        used = range(len(local)) if column.null_count else range(len(local) - 1)
        for position in used:
            name = local[position]
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
            table[position] = self._numbers[name]
        return np.asarray(table[codes])


def _compact(batches: list[pa.RecordBatch], runs: RunArrays, words: _Words) -> dict[str, Array]:
    """Convert batches of steps to arrays, without rows of unknown runs and without numbers."""
    names = [words.numbers(batch.column("function_name")) for batch in batches]
    plain = ("function_id", "started", "ended", "failed", "copied")
    numbers = {
        name: np.concatenate([_numbers(batch.column(name)) for batch in batches] or [np.empty(0)])
        for name in plain
    }
    owners = pa.chunked_array([b.column("workflow_uuid") for b in batches], pa.large_string())
    children = pa.chunked_array([b.column("child") for b in batches], pa.large_string())
    run = _positions(owners, runs.ids)
    has_child = children.is_valid().to_numpy() if len(children) else np.empty(0, bool)
    child = np.full(len(run), UNKNOWN, np.int32)
    child[has_child] = _positions(children.drop_null(), runs.ids)
    wake = np.full(len(run), np.nan)
    offset = 0
    for batch in batches:
        stored, formats = batch.column("wake"), batch.column("format")
        for index in np.flatnonzero(stored.is_valid().to_numpy(zero_copy_only=False)).tolist():
            instant = wake_time(decode(stored[index].as_py(), formats[index].as_py()))
            if instant is not None:
                wake[offset + index] = instant.timestamp() * 1000
        offset += len(batch)
    # The rows of a run in order; a row without a number has no place.
    key = run.astype(np.int64) << 32
    number = np.nan_to_num(numbers["function_id"]).clip(-HALF, HALF - 1)
    key += number.astype(np.int64) + HALF
    kept = (run != UNKNOWN) & ~np.isnan(numbers["function_id"])
    columns = {
        "key": key,
        "run": run,
        "name": np.concatenate(names) if names else np.empty(0, np.int32),
        "started": numbers["started"],
        "ended": numbers["ended"],
        "failed": numbers["failed"] == 1,
        "copied": numbers["copied"] == 1,
        "child": child,
        "has_child": has_child,
        "wake": wake,
    }
    return columns if kept.all() else {name: values[kept] for name, values in columns.items()}


def _is_timeout(number: Array, awaits: Array) -> Array:
    """Return which sleeps are timeouts, by the rule of ``graphs.build``.

    ``number`` is the sort key: consecutive steps of a run differ by 1.
    """
    count = len(number)
    follows, precedes = np.zeros(count, bool), np.zeros(count, bool)
    follows[1:] = number[1:] == number[:-1] + 1
    precedes[:-1] = follows[1:]
    after_await = np.zeros(count, bool)
    after_await[1:] = awaits[:-1]
    own = (number & (2 * HALF - 1)) - HALF
    return (follows & after_await) | (~follows & ~precedes & (own > 1))


def _is_in(values: Array, *words: str) -> Array:
    return np.array([value in words for value in values], bool)


def _codes(column: pa.ChunkedArray) -> tuple[Array, list[str]]:
    array = column.combine_chunks()
    names = array.dictionary.to_pylist()
    if array.null_count:
        missing = names.index("") if "" in names else len(names)
        names = names if "" in names else [*names, ""]
        array = array.indices.fill_null(missing)
    else:
        array = array.indices
    return np.asarray(array.to_numpy(zero_copy_only=False)), names


def _numbers(column: pa.Array | pa.ChunkedArray) -> Array:
    """Return integers as float64, NaN where missing; milliseconds since 1970 are exact."""
    values = column.cast(pa.float64(), safe=False)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return np.asarray(values.fill_null(np.nan).to_numpy(zero_copy_only=False))


def _positions(values: pa.Array | pa.ChunkedArray, known: pa.Array) -> Array:
    if not len(values):
        return np.empty(0, np.int32)
    found = pc.index_in(values, value_set=known, skip_nulls=True).fill_null(UNKNOWN)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return np.asarray(found.to_numpy(zero_copy_only=False))


def is_first_row(run: Array) -> Array:
    """Return which rows are the first of their run; rows are sorted by run."""
    result = np.ones(len(run), bool)
    result[1:] = run[1:] != run[:-1]
    return result


def interval_blocks(run: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Return the blocks in which steps start and end, by the rules of ``graphs.ordering``.

    Sort the starts and ends of a run by time. A new block begins at each start that follows an end.
    So a step precedes another exactly if its end is in an earlier block than the other's start, and
    runs with the same blocks have the same order.

    Parameters
    ----------
    run
        The run of each step; steps are sorted by run and ``function_id``.
    starts, ends
        Times, NaN where not recorded. A step without both times, or one that ends before it
        starts, comes after all steps of its run before it and before all after it.

    Examples
    --------
    Two concurrent steps, and one after both; then two steps of another run:

    >>> run, starts = np.array([0, 0, 0, 1, 1]), np.array([0.0, 1, 6, 0, 5])
    >>> interval_blocks(run, starts, np.array([5.0, 6, 9, 5, 7]))
    (array([0, 0, 1, 0, 1], dtype=int32), array([0, 0, 1, 0, 1], dtype=int32))
    """
    count = len(run)
    if not count:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    is_first = is_first_row(run)
    firsts = np.flatnonzero(is_first)
    with np.errstate(invalid="ignore"):
        sane = ends >= starts
        follows = is_first.copy()
        follows[1:] |= starts[1:] >= ends[:-1]
    lengths = np.diff(np.append(firsts, count))
    position = np.arange(count) - np.repeat(firsts, lengths)
    first = position.astype(np.int32)
    last = first.copy()
    in_order = np.repeat(np.logical_and.reduceat(sane & follows, firsts), lengths)
    rows = np.flatnonzero(~in_order)
    if len(rows):
        first[rows], last[rows] = _blocks(run[rows], starts[rows], ends[rows], sane[rows])
    return first, last


def _blocks(run: Array, starts: Array, ends: Array, sane: Array) -> tuple[Array, Array]:
    count = len(run)
    # Each step without times is a part of its own; parts follow each other.
    separated = ~sane
    part = 2 * np.cumsum(separated) - separated
    new_part = is_first_row(run)
    new_part[1:] |= part[1:] != part[:-1]
    part = np.cumsum(new_part)
    times = np.concatenate([starts, ends])
    times[np.tile(separated, 2)] = 0
    row = np.arange(count)
    # Within a millisecond the smaller function_id comes first, and a start before its own end.
    tie = np.concatenate([2 * row, 2 * row + 1])
    order = np.lexsort((tie, times, np.tile(part, 2)))
    is_end, rows = order >= count, order % count
    new_run = is_first_row(run[rows])
    begins = ~is_end
    begins[1:] &= is_end[:-1]
    begins[new_run] = False
    block = np.cumsum(begins, dtype=np.int64)
    run_firsts = np.flatnonzero(new_run)
    lengths = np.diff(np.append(run_firsts, len(rows)))
    block -= np.repeat(block[run_firsts], lengths)
    first, last = np.empty(count, np.int32), np.empty(count, np.int32)
    first[rows[~is_end]] = block[~is_end]
    last[rows[is_end]] = block[is_end]
    return first, last


@dataclass(frozen=True)
class Transitions:
    """The immediate order of steps, as row numbers.

    Attributes
    ----------
    tail, head
        Pairs of rows: the first precedes the second, and nothing is between them. In a run that
        would have too many, a step has one pair for each kind of step before it.
    first, last
        Rows without a predecessor or without a successor in their run.
    """

    tail: Array
    head: Array
    first: Array
    last: Array


def transitions(run: Array, first: Array, last: Array, kind: Array) -> Transitions:
    """Return the transitive reduction of the order that blocks give.

    Parameters
    ----------
    run, first, last
        As in :class:`StepArrays`, possibly without some of the steps.
    kind
        The kind of each step.

    Examples
    --------
    >>> found = transitions(np.zeros(3, int), np.array([0, 0, 1]), np.array([0, 0, 1]), np.zeros(3))
    >>> found.tail.tolist(), found.head.tolist(), found.first.tolist(), found.last.tolist()
    ([0, 1], [2, 2], [0, 1], [2])
    """
    count = len(run)
    if not count:
        empty = np.empty(0, np.int64)
        return Transitions(empty, empty, empty, empty)
    width = int(last.max()) + 2
    base = run.astype(np.int64) * width
    starts, ends = base + first, base + last
    by_end = np.argsort(ends, kind="stable")
    sorted_ends = ends[by_end]
    latest = np.maximum.accumulate(starts[by_end])
    run_first = np.searchsorted(sorted_ends, base, "left")
    # by_end[low:high] are the immediate predecessors: those that ended before the step started,
    # except those that also ended before another of them started.
    high = np.searchsorted(sorted_ends, starts, "left")
    has_predecessor = high > run_first
    low = np.where(
        has_predecessor, np.searchsorted(sorted_ends, latest[np.maximum(high, 1) - 1], "left"), high
    )
    pairs = high - low
    firsts = np.flatnonzero(is_first_row(run))
    lengths = np.diff(np.append(firsts, count))
    per_run = np.add.reduceat(pairs, firsts)
    is_wide = np.repeat(per_run > np.maximum(MAX_EDGES, MAX_EDGES_PER_STEP * lengths), lengths)
    tail, head = _expand(np.flatnonzero(~is_wide), low, pairs, by_end)
    if is_wide.any():
        tails, heads = _by_kind(np.flatnonzero(is_wide), starts, low, pairs, by_end, kind)
        tail, head = np.concatenate([tail, tails]), np.concatenate([head, heads])
    latest_start = np.maximum.reduceat(starts, firsts)
    return Transitions(
        tail,
        head,
        np.flatnonzero(~has_predecessor),
        np.flatnonzero(ends >= np.repeat(latest_start, lengths)),
    )


def _expand(rows: Array, low: Array, pairs: Array, by_end: Array) -> tuple[Array, Array]:
    """Return all (predecessor, row) pairs of rows."""
    counts = pairs[rows]
    head = np.repeat(rows, counts)
    within = np.arange(len(head)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_end[np.repeat(low[rows], counts) + within], head


def _by_kind(
    rows: Array, starts: Array, low: Array, pairs: Array, by_end: Array, kind: Array
) -> tuple[Array, Array]:
    """Return for each row one predecessor of each kind: the one that ended last."""
    # Rows that start in the same block have the same predecessors.
    _, example, block = np.unique(starts[rows], return_index=True, return_inverse=True)
    tail, head = _expand(rows[example], low, pairs, by_end)
    number = np.searchsorted(starts[rows[example]], starts[head])
    order = np.lexsort((np.arange(len(tail)), kind[tail], number))
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (number[order][1:] != number[order][:-1]) | (
        kind[tail[order]][1:] != kind[tail[order]][:-1]
    )
    tail, number = tail[order][is_last], number[order][is_last]
    # For each row the pairs of its block.
    begin = np.searchsorted(number, block, "left")
    counts = np.searchsorted(number, block, "right") - begin
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return tail[np.repeat(begin, counts) + within], np.repeat(rows, counts)
