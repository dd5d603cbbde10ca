"""Keyset pagination of a listing, sorted by any column.

A page starts after the last row of the previous page, not at an offset: the thousandth page costs
as much as the first, and new rows do not shift it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import ACTIVE_STATUSES, STATUSES
from dbos_notebook.tables import frames, listings, timing
from dbos_notebook.tables.columns import FRAMES, STEP, WORKFLOW, Column, Kind
from dbos_notebook.tables.failed_steps import with_failures
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder

Key = tuple[sa.ColumnElement[Any], Kind]
"""A sort expression, and the kind of its values."""

_SORTABLE = {column.name: column for column in WORKFLOW if column.source and column.kind != "json"}
SORTS = (*_SORTABLE, "duration", "queue_position")
"""The sort orders of a page: columns of the frame, and the order in which queues are served."""

SAMPLE_ROWS = 20_000
"""The number of newest workflows in which :func:`frequent_values` counts values."""


@dataclass(frozen=True)
class SortOrder:
    """How a page is sorted, and the row after which it starts."""

    sort: str = "created_at"
    descending: bool = True
    after: Sequence[Any] = ()


@dataclass
class Page:
    """The rows of a page, whether there are more, and the key of the last row.

    ``searched_to`` is set if only rows created since that time were searched, because more would
    take too long; the rows after ``last`` have not been searched yet.
    """

    frame: pd.DataFrame
    more: bool
    last: list[Any] = field(default_factory=list)
    searched_to: int | None = None


def page(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    order: SortOrder,
    limit: int,
    *,
    roots_only: bool = False,
    max_scanned_rows: int | None = None,
) -> Page:
    """Read one page of workflows.

    Parameters
    ----------
    filters
        The result of ``check_filters``.
    order
        ``order.after`` is ``last`` of the previous page; empty for the first page.
    limit
        The maximum number of rows.
    roots_only
        Omit a workflow whose parent matches too, for a tree view.
    max_scanned_rows
        The maximum number of rows that are searched if they are sorted by creation time, because
        a text search reads rows, and a million take seconds. The workflow whose ID equals the
        search text comes first, whenever it was created.
    """
    table = queries.workflows
    conditions = queries.where(filters)
    if roots_only:
        conditions.append(_without_matching_parent(queries, filters))
    if max_scanned_rows is None or order.sort != "created_at":
        return _read(session, queries, conditions, order, limit, None)
    has_id = table.c.workflow_uuid == filters["search"]
    others = [*conditions, ~has_id]
    if order.after:
        return _read(session, queries, others, order, limit, max_scanned_rows)
    exact = _read(session, queries, [*conditions, has_id], order, 1, None).frame
    rest = _read(session, queries, others, order, limit - len(exact), max_scanned_rows)
    rest.frame = frames.concat_frames(exact, rest.frame)
    return rest


def _read(
    session: Session,
    queries: Queries,
    conditions: Sequence[sa.ColumnElement[bool]],
    order: SortOrder,
    limit: int,
    max_scanned_rows: int | None,
) -> Page:
    now = dt.datetime.now(dt.UTC)
    table = queries.workflows
    keys = _keys(queries, order, int(now.timestamp() * 1000))
    names = [f"_key_{index}" for index in range(len(keys))]
    columns = [Column(name, kind, "", name) for name, (_, kind) in zip(names, keys, strict=True)]
    conditions = [*conditions, *(_after_row(keys, order) if order.after else ())]
    bound = None
    if max_scanned_rows is not None:
        bound = _scan_bound(session, queries, keys, order, max_scanned_rows)
    if bound is not None:
        created = table.c.created_at
        conditions.append(created >= bound if order.descending else created <= bound)
    # Select the rows by their keys first, and then read only these completely.
    chosen = (
        sa.select(
            table.c.workflow_uuid.label("_chosen"),
            *(key.label(name) for name, (key, _) in zip(names, keys, strict=True)),
        )
        .where(*conditions)
        .order_by(*(key.desc() if order.descending else key for key, _ in keys))
        .limit(limit + 1)
        .subquery("chosen")
    )
    sort_columns = [chosen.c[name] for name in names]
    statement = (
        queries.all_applications.workflow_select(WORKFLOW, {}, newest_first=None)
        .add_columns(*sort_columns)
        .where(table.c.workflow_uuid == chosen.c["_chosen"])
        .order_by(*(key.desc() if order.descending else key for key in sort_columns))
    )
    all_columns = (*WORKFLOW, *columns)
    batches, more = frames.take(
        listings.typed_batches(session, statement, all_columns, queries.decoder), limit
    )
    frame = frames.to_frame(with_failures(session, queries, batches), all_columns)
    last: list[Any] = []
    if len(frame):
        last_row = frame[names].iloc[-1]
        # SQLite stores any value in any column; no page can start after a value of a wrong type.
        if last_row.isna().any():
            more = False
        else:
            last = [value if isinstance(value, str) else int(value) for value in last_row]
    frame = frame.drop(columns=names)
    if bound is None or more:
        return Page(frame, more, last)
    # All rows at the bound were searched, whatever their ID.
    return Page(frame, True, [bound if order.descending else bound + 1, ""], bound)  # noqa: FBT003


def _scan_bound(
    session: Session, queries: Queries, keys: Sequence[Key], order: SortOrder, rows: int
) -> int | None:
    """Return the creation time of the row ``rows`` rows further; ``None`` if there are fewer."""
    created = queries.workflows.c.created_at
    statement = sa.select(created.label("created"))
    if order.after:
        # After the row and not only its time, or many rows of one time would repeat forever.
        statement = statement.where(*_after_row(keys, order))
    direction = created.desc() if order.descending else created.asc()
    bound = session.rows(statement.order_by(direction).offset(rows).limit(1))
    return int(bound[0]["created"]) if bound else None


def has_more_rows(session: Session, queries: Queries, rows: int) -> bool:
    """Return whether there are more than ``rows`` workflows, without counting them all."""
    created = sa.select(queries.workflows.c.created_at.label("created"))
    return bool(session.rows(created.offset(rows).limit(1)))


def _keys(queries: Queries, order: SortOrder, now: int) -> list[Key]:
    """Return the sort keys, which are never NULL, with the ID as the last one."""
    table = queries.workflows
    identity: Key = (table.c.workflow_uuid, "text")
    created: Key = (table.c.created_at, "integer")
    if order.sort not in SORTS:
        raise FilterError(
            f"sort={order.sort!r} is not a sortable column."
            f"{nearest(order.sort, SORTS)} Sortable columns: {', '.join(SORTS)}."
        )
    if order.sort == "created_at":
        # The bare column, so that its index is used.
        return [created, identity]
    if order.sort == "workflow_id":
        return [identity]
    if order.sort == "queue_position":
        # DBOS dequeues by priority, then the oldest.
        queue: list[Key] = [
            (sa.func.coalesce(queries.column(table, name), ""), "text")
            for name in ("queue_name", "queue_partition_key")
        ]
        waiting = sa.case((table.c.status == "PENDING", 0), (table.c.status == "ENQUEUED", 1))
        priority = sa.func.coalesce(queries.column(table, "priority"), 0)
        state = sa.func.coalesce(waiting, 2)
        return [*queue, (state, "integer"), (priority, "integer"), created, identity]
    value: sa.ColumnElement[Any]
    kind: Kind
    if order.sort == "duration":
        value, kind = timing.sql_times(queries, now)["duration"], "integer"
    elif order.sort == "status":
        ranks = [(table.c.status == status, rank) for rank, status in enumerate(STATUSES)]
        value, kind = sa.case(*ranks, else_=len(STATUSES)), "integer"
    else:
        column = _SORTABLE[order.sort]
        value = queries.column(table, column.source or "")
        if isinstance(value, sa.sql.elements.Null):
            # This database lacks the column, so all values are equal.
            return [created, identity]
        kind = "integer" if pa.types.is_integer(column.transport) else "text"
    # Missing values come last in both directions.
    first, last = (0, 1) if not order.descending else (1, 0)
    missing = sa.case((value.is_(None), last), else_=first)
    filled = sa.func.coalesce(value, "" if kind == "text" else 0)
    return [(missing, "integer"), (filled, kind), identity]


def _after_row(keys: Sequence[Key], order: SortOrder) -> list[sa.ColumnElement[bool]]:
    if len(order.after) != len(keys):
        raise FilterError(
            f"after={list(order.after)!r} is not the key of a row sorted by {order.sort!r}. "
            "Start with the first page."
        )
    types: dict[str, sa.types.TypeEngine[Any]] = {
        "integer": sa.BigInteger(),
        "number": sa.Double(),
        "text": sa.Text(),
    }
    values = [
        sa.literal(value, types[kind]) for value, (_, kind) in zip(order.after, keys, strict=True)
    ]
    row, bound = sa.tuple_(*(key for key, _ in keys)), sa.tuple_(*values)
    first = keys[0][0]
    # The first key also alone, because only this condition can use an index on it.
    if order.descending:
        return [first <= values[0], row < bound]
    return [first >= values[0], row > bound]


def _without_matching_parent(
    queries: Queries, filters: Mapping[str, Any]
) -> sa.ColumnElement[bool]:
    parent = queries.column(queries.workflows, "parent_workflow_id")
    if isinstance(parent, sa.sql.elements.Null):
        return sa.true()
    # The same filters on the parent's own row.
    above = queries.workflow_select(WORKFLOW[:1], filters, newest_first=None).subquery("above")
    match = sa.select(sa.literal(1)).select_from(above).where(above.c.workflow_id == parent)
    return sa.or_(parent.is_(None), ~sa.exists(match.correlate(queries.workflows)))


def queue_positions(
    session: Session, queries: Queries, frame: pd.DataFrame
) -> dict[str, tuple[int, int]]:
    """Return (position, queue length) by ID for the enqueued workflows of a frame."""
    waiting = frame[frame["status"] == "ENQUEUED"]
    if waiting.empty:
        return {}
    table = queries.workflows
    partition = queries.column(table, "queue_partition_key")
    group: list[Any] = [table.c.queue_name]
    group += [] if isinstance(partition, sa.sql.elements.Null) else [partition]
    priority = queries.column(table, "priority")
    order: list[Any] = [table.c.created_at, table.c.workflow_uuid]
    order = order if isinstance(priority, sa.sql.elements.Null) else [priority, *order]
    served = (
        sa.select(
            table.c.workflow_uuid.label("workflow_id"),
            sa.func.row_number().over(partition_by=group, order_by=order).label("position"),
            sa.func.count().over(partition_by=group).label("length"),
        )
        .where(
            *queries.where({"status": ["ENQUEUED"]}),
            # As in DBOS's index, because SQLite does not infer it from the one status.
            *queries.all_applications.where({"status": ["ENQUEUED", "PENDING"]}),
            queries.member(
                table.c.queue_name, list(dict.fromkeys(waiting["queue_name"].astype(str)))
            ),
        )
        .subquery("served")
    )
    ids = waiting["workflow_id"].tolist()
    statement = sa.select(served).where(queries.member(served.c.workflow_id, ids))
    rows = session.rows(statement)
    return {row["workflow_id"]: (int(row["position"]), int(row["length"])) for row in rows}


def child_counts(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, int]:
    """Count the children of workflows; workflows without children are omitted."""
    selects = queries.child_selects(list(ids))
    if not ids or not selects:
        return {}
    pairs = sa.union(*selects).subquery("pairs")
    counted = sa.select(pairs.c.parent, sa.func.count().label("n")).group_by(pairs.c.parent)
    return {row["parent"]: int(row["n"]) for row in session.rows(counted)}


def frequent_values(
    session: Session, queries: Queries, names: Sequence[str], maximum: int
) -> dict[str, Any]:
    """Return the most frequent values of columns among the newest workflows."""
    table = queries.workflows
    found: dict[str, Any] = {name: [] for name in names}
    selects = []
    for index, name in enumerate(names):
        value = queries.column(table, _SORTABLE[name].source or "")
        if isinstance(value, sa.sql.elements.Null):
            continue
        newest = sa.select(value.label("value")).where(*queries.where({}))
        inner = newest.order_by(table.c.created_at.desc()).limit(SAMPLE_ROWS).subquery("newest")
        frequent = (
            sa.select(
                sa.literal_column(str(index)).label("place"),
                inner.c.value.label("value"),
                sa.func.count().label("n"),
            )
            .where(inner.c.value.is_not(None))
            .group_by(inner.c.value)
            .order_by(sa.func.count().desc(), inner.c.value)
            .limit(maximum)
        )
        selects.append(sa.select(frequent.subquery(f"often_{index}")))
    if selects:
        values = sa.union_all(*selects).subquery("together")
        statement = sa.select(values).order_by(values.c.place, values.c.n.desc(), values.c.value)
        for row in session.rows(statement):
            found[names[row["place"]]].append(row["value"])
    return found


def step_page(
    session: Session,
    queries: Queries,
    workflow_id: str,
    after: int | None,
    limit: int,
    decoder: Decoder,
) -> Page:
    """Read a page of a workflow's steps with their results, after the step ``after``."""
    columns = (*STEP, *listings.payload_columns(load_input=False, load_output=True))
    statement = queries.step_select(STEP, [workflow_id], load_output=True)
    if after is not None:
        statement = statement.where(queries.steps.c.function_id > after)
    stream = listings.typed_batches(session, statement.limit(limit + 1), columns, decoder)
    batches, more = frames.take(stream, limit)
    frame = frames.to_frame(batches, columns, decoder)
    return Page(frame, more, [int(frame["function_id"].iloc[-1])] if len(frame) else [])


def newest_rows(
    session: Session,
    queries: Queries,
    what: str,
    workflow_id: str,
    limit: int,
    decoder: Decoder,
) -> pd.DataFrame:
    """Read the events of a workflow, or the newest values of its streams, the newest first."""
    columns = FRAMES[what]
    table = queries.catalog.table({"events": "workflow_events", "streams": "streams"}[what])
    if not table.c:
        return frames.to_frame([listings.empty(columns)], columns, decoder)
    if what == "streams":
        statement = queries.stream_select(columns, [workflow_id])
        # The step that wrote it, because each stream has offsets of its own.
        order = [table.c[name].desc() for name in ("function_id", "offset") if name in table.c]
    else:
        statement = sa.select(*queries.select(table, columns)).where(
            queries.member(table.c.workflow_uuid, [workflow_id])
        )
        order = [table.c.key.asc()]
    batches = listings.typed_batches(session, statement.order_by(*order).limit(limit), columns)
    return frames.to_frame(list(batches), columns, decoder)


def oldest_active(session: Session, queries: Queries, limit: int) -> list[str]:
    """Return the IDs of the active workflows that were created first."""
    table = queries.workflows
    statement = (
        sa.select(table.c.workflow_uuid.label("id"))
        .where(*queries.where({"status": list(ACTIVE_STATUSES)}))
        .order_by(table.c.created_at)
        .limit(limit)
    )
    return [row["id"] for row in session.rows(statement)]
