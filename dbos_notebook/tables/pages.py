"""One page of a long listing: sorted by any column, and found again by where the last one ended.

A page begins behind the last row of the one before (a keyset), not at a count of rows: the
thousandth page costs what the first does, and rows that arrive meanwhile shift nothing.
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
from dbos_notebook.status import STATUSES
from dbos_notebook.tables import frames, listings, timing
from dbos_notebook.tables.columns import STEP, WORKFLOW, Column, Kind
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder

Key = tuple[sa.ColumnElement[Any], Kind]
"""What is sorted by, and how its value travels."""

_SORTED = {column.name: column for column in WORKFLOW if column.source and column.kind != "json"}
SORTS = (*_SORTED, "duration", "queue_position")
"""What a page can be sorted by: columns of the frame, and the order in which queues are served."""

SAMPLE = 20_000
"""The newest workflows, of whose columns :func:`choices` names the values."""


@dataclass(frozen=True)
class SortOrder:
    """How a page is sorted, and behind which row it begins."""

    sort: str = "created_at"
    descending: bool = True
    after: Sequence[Any] = ()


@dataclass
class Page:
    """Some rows, whether more follow, and behind which row those begin.

    ``searched_to``: only rows created since that moment were looked through, because more would
    have taken too long; those behind ``last`` are still to be.
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
    topmost: bool = False,
    look_through: int | None = None,
) -> Page:
    """Read one page of workflows.

    Parameters
    ----------
    filters
        As ``check_filters`` returns them.
    order
        ``order.after`` is the ``last`` of the page before; empty: the first page.
    limit
        Rows at most.
    topmost
        Leave out a workflow whose parent matches too, for a tree that is opened downwards.
    look_through
        Look through so many rows at most for those that match, where they are sorted by time.
        A text is found by reading rows, and a million take seconds. So the workflow whose ID is
        the very text that is searched comes first, however old.
    """
    table = queries.workflows
    conditions = queries.where(filters)
    if topmost:
        conditions.append(_without_matching_parent(queries, filters))
    if look_through is None or order.sort != "created_at":
        return _read(session, queries, conditions, order, limit, None)
    exactly = table.c.workflow_uuid == filters["search"]
    others = [*conditions, ~exactly]
    if order.after:
        return _read(session, queries, others, order, limit, look_through)
    named = _read(session, queries, [*conditions, exactly], order, 1, None).frame
    found = _read(session, queries, others, order, limit - len(named), look_through)
    found.frame = frames.joined(named, found.frame)
    return found


def _read(
    session: Session,
    queries: Queries,
    conditions: Sequence[sa.ColumnElement[bool]],
    order: SortOrder,
    limit: int,
    look_through: int | None,
) -> Page:
    now = dt.datetime.now(dt.UTC)
    table = queries.workflows
    keys = _keys(queries, order, int(now.timestamp() * 1000))
    names = [f"_key_{place}" for place in range(len(keys))]
    columns = [Column(name, kind, "", name) for name, (_, kind) in zip(names, keys, strict=True)]
    conditions = [*conditions, *(_behind(keys, order) if order.after else ())]
    bound = None
    if look_through is not None:
        bound = _bound(session, queries, keys, order, look_through)
    if bound is not None:
        created = table.c.created_at
        conditions.append(created >= bound if order.descending else created <= bound)
    # The rows are chosen by their keys alone, and only the chosen ones are read in full.
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
    places = [chosen.c[name] for name in names]
    statement = (
        queries.of_all_applications.workflow_select(WORKFLOW, {}, newest_first=None)
        .add_columns(*places)
        .where(table.c.workflow_uuid == chosen.c["_chosen"])
        .order_by(*(place.desc() if order.descending else place for place in places))
    )
    shape = (*WORKFLOW, *columns)
    kept, more = frames.cut(listings.typed(session, statement, shape, queries.decoder), limit)
    frame = frames.to_frame(kept, shape)
    last: list[Any] = []
    if len(frame):
        ends = frame[names].iloc[-1]
        # Behind a value that is not of its column's type, as SQLite keeps any, no page can begin.
        if ends.isna().any():
            more = False
        else:
            last = [value if isinstance(value, str) else int(value) for value in ends]
    frame = frame.drop(columns=names)
    if bound is None or more:
        return Page(frame, more, last)
    # All at the bound itself were looked at, whatever their ID.
    return Page(frame, True, [bound if order.descending else bound + 1, ""], bound)  # noqa: FBT003


def _bound(
    session: Session, queries: Queries, keys: Sequence[Key], order: SortOrder, rows: int
) -> int | None:
    """Return when the row so many places on was created; ``None``: there are fewer."""
    created = queries.workflows.c.created_at
    statement = sa.select(created.label("created"))
    if order.after:
        # Behind the row and not only the moment, or many of one moment would be met for ever.
        statement = statement.where(*_behind(keys, order))
    direction = created.desc() if order.descending else created.asc()
    found = session.rows(statement.order_by(direction).offset(rows).limit(1))
    return int(found[0]["created"]) if found else None


def _keys(queries: Queries, order: SortOrder, now: int) -> list[Key]:
    """Return what is sorted by, each never missing, the ID last; and how each travels."""
    table = queries.workflows
    identity: Key = (table.c.workflow_uuid, "text")
    created: Key = (table.c.created_at, "integer")
    if order.sort not in SORTS:
        raise FilterError(
            f"sort={order.sort!r} is no column that can be sorted by."
            f"{nearest(order.sort, SORTS)} These can: {', '.join(SORTS)}."
        )
    if order.sort == "created_at":
        # Nothing around the column, or its index would not serve.
        return [created, identity]
    if order.sort == "workflow_id":
        return [identity]
    if order.sort == "queue_position":
        # As DBOS dequeues: by priority, then the oldest.
        texts = ("queue_name", "queue_partition_key")
        queue: list[Key] = [
            (sa.func.coalesce(queries.column(table, name), ""), "text") for name in texts
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
        column = _SORTED[order.sort]
        value = queries.column(table, column.source or "")
        if isinstance(value, sa.sql.elements.Null):
            # Sorted by what this database lacks: all alike.
            return [created, identity]
        kind = "integer" if pa.types.is_integer(column.transport) else "text"
    # What is missing stands last in both directions.
    first, last = (0, 1) if not order.descending else (1, 0)
    missing = sa.case((value.is_(None), last), else_=first)
    filled = sa.func.coalesce(value, "" if kind == "text" else 0)
    return [(missing, "integer"), (filled, kind), identity]


def _behind(keys: Sequence[Key], order: SortOrder) -> list[sa.ColumnElement[bool]]:
    if len(order.after) != len(keys):
        raise FilterError(
            f"after={list(order.after)!r} is not where a page sorted by {order.sort!r} ended. "
            "Begin at the first page."
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
    # The first key by itself too: an index on it serves only so.
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
    """Return, for the enqueued workflows of a frame, place in the queue and its length."""
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
    """Count the children of workflows; those without are left out."""
    selects = queries.child_selects(list(ids))
    if not ids or not selects:
        return {}
    pairs = sa.union(*selects).subquery("pairs")
    counted = sa.select(pairs.c.parent, sa.func.count().label("n")).group_by(pairs.c.parent)
    return {row["parent"]: int(row["n"]) for row in session.rows(counted)}


def choices(session: Session, queries: Queries, names: Sequence[str], most: int) -> dict[str, Any]:
    """Name the values that columns have among the newest workflows, to choose a filter from."""
    table = queries.workflows
    found: dict[str, Any] = {name: [] for name in names}
    selects = []
    for place, name in enumerate(names):
        value = queries.column(table, _SORTED[name].source or "")
        if isinstance(value, sa.sql.elements.Null):
            continue
        newest = sa.select(value.label("value")).where(*queries.where({}))
        inner = newest.order_by(table.c.created_at.desc()).limit(SAMPLE).subquery("newest")
        often = (
            sa.select(
                sa.literal_column(str(place)).label("place"),
                inner.c.value.label("value"),
                sa.func.count().label("n"),
            )
            .where(inner.c.value.is_not(None))
            .group_by(inner.c.value)
            .order_by(sa.func.count().desc(), inner.c.value)
            .limit(most)
        )
        selects.append(sa.select(often.subquery(f"often_{place}")))
    if selects:
        together = sa.union_all(*selects).subquery("together")
        statement = sa.select(together).order_by(
            together.c.place, together.c.n.desc(), together.c.value
        )
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
    """Read some of a workflow's steps with their results, behind the step ``after``."""
    columns = (*STEP, *listings.payload_columns(load_input=False, load_output=True))
    statement = queries.step_select(STEP, [workflow_id], load_output=True)
    if after is not None:
        statement = statement.where(queries.steps.c.function_id > after)
    batches = listings.typed(session, statement.limit(limit + 1), columns, decoder)
    kept, more = frames.cut(batches, limit)
    frame = frames.to_frame(kept, columns, decoder)
    return Page(frame, more, [int(frame["function_id"].iloc[-1])] if len(frame) else [])
