"""List workflows, steps, trees, events, messages, streams, schedules and versions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.errors import FilterError, WorkflowNotFoundError
from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.tables import frames
from dbos_notebook.tables.columns import (
    FRAMES,
    INTERNAL,
    PAYLOAD,
    RECORDED,
    STEP,
    TREE,
    WORKFLOW,
    Column,
)
from dbos_notebook.tables.failed_steps import with_failures
from dbos_notebook.tables.frames import flatten
from dbos_notebook.tables.sql import Queries
from dbos_notebook.tables.timing import RAN_BEFORE

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder

_PAYLOADS = {column.name: column for column in PAYLOAD}
_PAIR = (
    Column("_parent", "text", "", "parent"),
    Column("_child", "text", "", "child"),
)


def payload_columns(*, load_input: bool, load_output: bool) -> tuple[Column, ...]:
    """Return the columns that ``load_input`` and ``load_output`` add."""
    names = ["serialization"] if load_input or load_output else []
    names += ["input"] if load_input else []
    names += ["output", "error"] if load_output else []
    return tuple(_PAYLOADS[name] for name in names)


def workflow_columns(*, load_input: bool = False, load_output: bool = False) -> tuple[Column, ...]:
    """Return the columns of a listing of workflows."""
    return WORKFLOW + payload_columns(load_input=load_input, load_output=load_output)


def workflow_batches(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    *,
    load_input: bool = False,
    load_output: bool = False,
    load_internals: bool = False,
    **order: Any,
) -> tuple[tuple[Column, ...], Generator[pa.RecordBatch]]:
    """Stream workflows with their derived columns."""
    own = WORKFLOW + INTERNAL if load_internals else WORKFLOW
    columns = own + payload_columns(load_input=load_input, load_output=load_output)
    statement = queries.workflow_select(
        own, filters, load_input=load_input, load_output=load_output, **order
    )
    return columns, typed_batches(session, statement, columns, queries.decoder)


def workflows(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    limit: int | None,
    offset: int | None,
    decoder: Decoder,
    *,
    sort_desc: bool = True,
    load_input: bool = False,
    load_output: bool = False,
    load_errors: bool = True,
    load_internals: bool = False,
    normalize: bool = False,
) -> tuple[pd.DataFrame, bool]:
    """Return workflows as a DataFrame, and whether it was truncated at the limit."""
    if normalize:
        require_loaded(load_input or load_output)
    columns, batches = workflow_batches(
        session,
        queries,
        filters,
        load_input=load_input,
        load_output=load_output,
        load_internals=load_internals,
        newest_first=sort_desc,
        # One more than requested, to know whether there are more.
        limit=None if limit is None else limit + 1,
        offset=offset,
    )
    batches_, truncated = frames.take(batches, limit)
    if load_errors:
        # If all workflows are listed, the filters find the failed ones faster than their IDs.
        listed = None if truncated or offset else filters
        batches_ = with_failures(session, queries, batches_, listed)
    frame = frames.to_frame(batches_, columns, decoder)
    return normalized(frame) if normalize else frame, truncated


def require_loaded(loaded: bool) -> None:  # noqa: FBT001 - its only argument
    """Raise FilterError if no payloads are loaded that ``normalize=True`` could flatten."""
    if not loaded:
        raise FilterError(
            "normalize=True needs loaded payloads: "
            "add load_output=True, or load_input=True for the inputs of workflows."
        )


def normalized(frame: pd.DataFrame) -> pd.DataFrame:
    """Flatten the loaded inputs and outputs."""
    return flatten(frame, [name for name in ("input", "output") if name in frame])


def step_columns(*, load_output: bool) -> tuple[Column, ...]:
    """Return the columns of steps, including those that ``load_output`` adds."""
    return STEP + payload_columns(load_input=False, load_output=load_output)


def step_batches(
    session: Session,
    queries: Queries,
    ids: Sequence[str] | sa.Select[Any],
    *,
    load_output: bool = False,
    **page: Any,
) -> tuple[tuple[Column, ...], Generator[pa.RecordBatch]]:
    """Stream the steps of workflows, ordered by workflow ID and ``function_id``."""
    columns = step_columns(load_output=load_output)
    statement = queries.step_select(STEP, ids, load_output=load_output, **page)
    return columns, typed_batches(session, statement, columns, queries.decoder)


def steps(
    session: Session,
    queries: Queries,
    ids: Sequence[str],
    decoder: Decoder,
    *,
    require: bool,
    children: bool,
    load_output: bool,
    normalize: bool,
) -> pd.DataFrame:
    """Return steps as a DataFrame; with ``require``, raise for unknown IDs."""
    if normalize:
        require_loaded(load_output)
    if require:
        require_known(session, queries, ids)
    if children:
        ids = list(descendants(session, queries, ids, None))
    columns, batches = step_batches(session, queries, ids, load_output=load_output)
    frame = frames.to_frame(batches, columns, decoder)
    return normalized(frame) if normalize else frame


def typed_batches(
    session: Session,
    statement: sa.Select[Any],
    columns: Sequence[Column],
    decoder: Decoder = decode_inert,
) -> Generator[pa.RecordBatch]:
    """Run a statement on workflows or steps; stream its rows with derived columns."""
    # One time for all rows, so that durations of running workflows are consistent.
    now = dt.datetime.now(dt.UTC)
    # In the statement's column order, which may differ from the frame's.
    by_name = {column.name: column for column in (*columns, *RECORDED, RAN_BEFORE)}
    schema = frames.transport_schema(by_name[c.name] for c in statement.selected_columns)
    derive = partial(frames.derive, columns=columns, now=now, decoder=decoder)
    # Close the stream with this generator: the next statement must not wait for it.
    with closing(session.batches(statement, schema, derive)) as stream:
        yield from stream


MAX_SQL_LEVELS = 16
"""Up to this depth, the database limits the levels; for a larger one, all levels are read."""


def descendants(
    session: Session, queries: Queries, roots: Sequence[str], depth: int | None
) -> dict[str, tuple[str, int]]:
    """Return the root and depth of ``roots`` and their descendants, by ID, with one query."""
    if depth == 0:
        return {root: (root, 0) for root in roots}
    below = _below(queries, roots, depth)
    statement = sa.select(below.c.parent, below.c.child)
    schema = frames.transport_schema(_PAIR)
    pairs = pa.Table.from_batches(session.batches(statement, schema), schema)
    return tree_positions(roots, depth, *(column.to_pylist() for column in pairs.columns))


def _below(queries: Queries, roots: Sequence[str], depth: int | None) -> sa.CTE:
    few = depth is not None and depth <= MAX_SQL_LEVELS
    return queries.descendants(roots, levels=depth if few else None)


def tree_positions(
    roots: Sequence[str],
    depth: int | None,
    parents: Sequence[str | None],
    children: Sequence[str | None],
) -> dict[str, tuple[str, int]]:
    """Return the root and depth of each workflow that is reachable from the roots, by ID."""
    children_of: dict[str, list[str]] = {}
    for parent, child in zip(parents, children, strict=True):
        if parent is not None and child is not None:
            children_of.setdefault(parent, []).append(child)
    positions = {root: (root, 0) for root in roots}
    parents_of_level, level = list(roots), 0
    while parents_of_level and (depth is None or level < depth):
        level += 1
        next_level: list[str] = []
        for parent in parents_of_level:
            for child in children_of.get(parent, ()):
                if child not in positions:
                    positions[child] = (positions[parent][0], level)
                    next_level.append(child)
        parents_of_level = next_level
    return positions


def require_known(session: Session, queries: Queries, ids: Sequence[str]) -> None:
    """Raise WorkflowNotFoundError for unknown IDs, with similar IDs."""
    key = queries.workflows.c.workflow_uuid
    schema = pa.schema([("workflow_id", pa.large_string())])
    statement = sa.select(key.label("workflow_id")).where(queries.member(key, ids))
    known: set[str] = set()
    for batch in session.batches(statement, schema):
        known.update(batch.column(0).to_pylist())
    missing = [workflow_id for workflow_id in ids if workflow_id not in known]
    if missing:
        raise_unknown(session, queries, missing)


def raise_unknown(session: Session, queries: Queries, missing: Sequence[str]) -> NoReturn:
    """Raise WorkflowNotFoundError for IDs that were not found, with similar IDs."""
    key = queries.workflows.c.workflow_uuid
    first = missing[0]
    near = (
        sa.select(key.label("workflow_id"))
        .where(key.startswith(first[: max(4, len(first) // 2)], autoescape=True))
        .limit(4)
    )
    # Without the ID itself, which may have been created in the meantime.
    similar = [row["workflow_id"] for row in session.rows(near) if row["workflow_id"] != first][:3]
    hint = f" Similar IDs: {', '.join(map(repr, similar))}." if similar else ""
    others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
    raise WorkflowNotFoundError(f"No workflow has the ID {first!r}{others}.{hint}")


def tree(
    session: Session,
    queries: Queries,
    roots: Sequence[str],
    depth: int | None,
    *,
    load_output: bool = False,
) -> pd.DataFrame:
    """Return the rows of workflows and their descendants, with root and depth, with one query."""
    below = _below(queries, roots, depth)
    # Descendants are looked up by ID, whichever application owns them.
    statement = queries.all_applications.workflow_select(
        WORKFLOW, {}, load_output=load_output, newest_first=None
    )
    (source,) = statement.get_final_froms()
    # An outer join, because a workflow in the middle may have been deleted.
    rows = below.outerjoin(source, queries.workflows.c.workflow_uuid == below.c.child)
    statement = statement.add_columns(*(below.c[c.source or ""].label(c.name) for c in _PAIR))
    statement = statement.select_from(rows)
    columns = WORKFLOW + payload_columns(load_input=False, load_output=load_output)
    shape = (*columns, *_PAIR)
    batches = list(typed_batches(session, statement, shape, queries.decoder))
    frame = frames.to_frame(with_failures(session, queries, batches), shape)
    positions = tree_positions(roots, depth, *(_strings(frame[column.name]) for column in _PAIR))
    frame = frame[[column.name for column in columns]]
    frame = frame[frame["workflow_id"].isin(positions.keys())].drop_duplicates("workflow_id")
    if missing := set(roots).difference(frame["workflow_id"]):
        require_known(session, queries, [root for root in roots if root in missing])
    root, level = TREE
    ids = frame["workflow_id"]
    frame[root.name] = pd.Series([positions[key][0] for key in ids], frame.index, dtype="str")
    frame[level.name] = pd.Series([positions[key][1] for key in ids], frame.index, dtype="Int64")
    order = {workflow_id: position for position, workflow_id in enumerate(roots)}
    frame["_root"] = frame[root.name].map(order)
    frame = frame.sort_values(["_root", level.name, "created_at", "workflow_id"])
    return frame.drop(columns="_root").reset_index(drop=True)


def _strings(column: pd.Series[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column.tolist()]


_STORED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "events": ("workflow_events", ("workflow_uuid", "key")),
    "events_history": ("workflow_events_history", ("workflow_uuid", "function_id", "key")),
    "messages": ("notifications", ("created_at_epoch_ms", "message_uuid")),
    "streams": ("streams", ("workflow_uuid", "key", "offset")),
    "schedules": ("workflow_schedules", ("schedule_name",)),
    "versions": ("application_versions", ("version_timestamp", "version_id")),
}


def table_batches(
    session: Session,
    queries: Queries,
    what: str,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> tuple[tuple[Column, ...], Generator[pa.RecordBatch]]:
    """Stream the rows of a table; one empty batch if this database lacks it."""
    name, keys = _STORED[what]
    columns = FRAMES[what]
    table = queries.catalog.table(name)
    if not table.c:
        return columns, (batch for batch in [empty(columns)])
    if what == "streams":
        statement = queries.stream_select(columns, ids)
    else:
        statement = sa.select(*queries.select(table, columns))
        key = queries.column(table, columns[0].source or "")
        if ids is not None:
            statement = statement.where(queries.member(key, ids))
        elif what in ("schedules", "versions"):
            statement = statement.where(*queries.owned(table))
        else:
            statement = statement.where(*queries.owned_workflow(key))
    statement = statement.order_by(*(table.c[key] for key in keys if key in table.c))
    return columns, typed_batches(session, statement.limit(limit), columns)


def table_frame(
    session: Session,
    queries: Queries,
    what: str,
    ids: Sequence[str] | None,
    limit: int | None,
    decoder: Decoder,
) -> tuple[pd.DataFrame, bool]:
    """Return the rows of a table as a DataFrame, and whether it was truncated at the limit."""
    columns, batches = table_batches(
        session, queries, what, ids, None if limit is None else limit + 1
    )
    batches_, truncated = frames.take(batches, limit)
    return frames.to_frame(batches_, columns, decoder), truncated


def explain_workflows(
    session: Session, queries: Queries, filters: Mapping[str, Any], limit: int | None
) -> str:
    """Return the database's query plan for a listing of workflows."""
    return session.explain(queries.workflow_select(WORKFLOW, filters, limit=limit))


def explain_steps(session: Session, queries: Queries, ids: Sequence[str]) -> str:
    """Return the database's query plan for a listing of steps."""
    return session.explain(queries.step_select(STEP, ids))


def empty(columns: Sequence[Column]) -> pa.RecordBatch:
    """Return a batch without rows."""
    schema = frames.arrow_schema(columns)
    return pa.RecordBatch.from_arrays([pa.array([], type=f.type) for f in schema], schema=schema)
