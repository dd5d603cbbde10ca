"""Read any number of workflows and steps, page by page (keyset pagination).

Between two pages, no transaction, lock or connection is open, so a consumer may take any time. A
page starts after the last row of the previous page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import NotDBOSDatabaseError
from dbos_notebook.tables import listings
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, STEP, WORKFLOW
from dbos_notebook.tables.failed_steps import with_failures
from dbos_notebook.tables.sql import MAX_LOOKUPS

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.tables.sql import Queries

FIRST_ROWS = 1_000
FIRST_ROWS_WITH_PAYLOADS = 100
"""Rows of the first page: few, so that the first rows arrive soon and large payloads fit."""
MIN_ROWS, MAX_ROWS = 10, 100_000
PAGE_BYTES = 32 << 20
"""Target size of a page in memory; it determines the number of rows of the next page."""
MAX_STEPS = 200_000
"""Steps that one statement reads, because a workflow may have any number."""

PageKey = tuple[int, str]
"""The last row of a page: ``created_at`` in milliseconds, and the workflow ID."""


def workflow_batches(
    reader: Reader,
    queries: Queries,
    filters: Mapping[str, Any],
    *,
    load_input: bool = False,
    load_output: bool = False,
    load_errors: bool = True,
    first_rows: int = FIRST_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Yield workflows with their derived columns, newest first.

    Each page is one snapshot. A workflow that exists from the first page to the last is returned
    exactly once, because ``created_at`` and the ID never change; its other values are those at the
    time when its page was read. Workflows that are created in the meantime are not returned.

    Parameters
    ----------
    filters
        The result of ``check_filters``.
    first_rows
        Rows of the first page; fewer if payloads are loaded.

    Yields
    ------
    pyarrow.RecordBatch
        At least one batch, with the columns of ``listings.workflow_columns``.
    """
    payloads = load_input or load_output
    most = FIRST_ROWS_WITH_PAYLOADS if payloads else MAX_ROWS
    rows: int | None = min(max(first_rows, MIN_ROWS), most)
    after: PageKey | None = None

    @repeat_if_changed
    def page(rows: int | None) -> tuple[list[pa.RecordBatch], int | None]:
        with reader.session() as session:
            if after is None and not _has_keys(session, queries):
                # Without keys, pages are not possible: read all rows now.
                rows = None
            _, stream = listings.workflow_batches(
                session,
                queries,
                filters,
                load_input=load_input,
                load_output=load_output,
                limit=rows,
                after=after,
            )
            batches = list(stream)
            if load_errors:
                batches = with_failures(session, queries, batches)
        return batches, rows

    while True:
        batches, rows = page(rows)
        count, size = sum(map(len, batches)), sum(batch.nbytes for batch in batches)
        if rows is not None and count == rows:
            after = _last_key(batches)
        yield from batches
        if rows is None or count < rows:
            return
        del batches
        rows = max(MIN_ROWS, min(4 * rows, rows * PAGE_BYTES // max(size, 1), MAX_ROWS))


def step_batches(
    reader: Reader, queries: Queries, filters: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Yield the steps of workflows; pages of workflows newest first, their steps by workflow ID.

    Each page is one snapshot, as in :func:`workflow_batches`. A workflow with more than
    ``MAX_STEPS`` steps is read in several snapshots.
    """
    yield listings.empty(STEP)
    for ids in _id_pages(reader, queries, filters):
        after: tuple[str, int] | None = None
        while True:
            batches = _steps(reader, queries, ids, after)
            yield from (batch for batch in batches if len(batch))
            if sum(map(len, batches)) < MAX_STEPS:
                break
            after = _last(batches, "workflow_id"), _last(batches, "function_id")


@repeat_if_changed
def _steps(
    reader: Reader, queries: Queries, ids: Sequence[str], after: tuple[str, int] | None
) -> list[pa.RecordBatch]:
    with reader.session() as session:
        _, stream = listings.step_batches(session, queries, ids, limit=MAX_STEPS, after=after)
        return list(stream)


def _id_pages(
    reader: Reader, queries: Queries, filters: Mapping[str, Any]
) -> Iterator[Sequence[str]]:
    after: PageKey | None = None
    rows: int | None = FIRST_ROWS

    @repeat_if_changed
    def page(rows: int | None) -> tuple[list[pa.RecordBatch], int | None]:
        with reader.session() as session:
            if after is None and not _has_keys(session, queries):
                rows = None
            columns = tuple(c for c in WORKFLOW if c.name in ("workflow_id", "created_at"))
            statement = queries.workflow_select(columns, filters, limit=rows, after=after)
            return list(listings.typed_batches(session, statement, columns)), rows

    while True:
        batches, rows = page(rows)
        ids = [key for batch in batches for key in batch.column("workflow_id").to_pylist()]
        if ids:
            yield ids
        if rows is None or len(ids) < rows:
            return
        after = _last_key(batches)
        rows = MAX_LOOKUPS


def _has_keys(session: Session, queries: Queries) -> bool:
    """Return whether every workflow has a valid ID and creation time as the key of a page.

    DBOS always writes both, but SQLite stores any value in any column, and a view may return any.
    """
    table = queries.workflows
    created, identity = table.c.created_at, table.c.workflow_uuid
    ends = [sa.func.min(created), sa.func.max(created), sa.func.max(identity)]
    missing = sa.select(sa.literal(1)).where(sa.or_(created.is_(None), identity.is_(None))).limit(1)
    # Each is a lookup in an index. In SQLite, strings and bytes are greater than numbers.
    selects = [sa.select(end).select_from(table).scalar_subquery() for end in ends]
    statement = sa.select(
        *(
            select.label(name)
            for name, select in zip(("first", "last", "id"), selects, strict=True)
        ),
        missing.select_from(table).scalar_subquery().label("missing"),
    )
    row = session.rows(statement)[0]
    if row["first"] is None:
        return row["missing"] is None
    times = [row["first"], row["last"]]
    return (
        row["missing"] is None
        and isinstance(row["id"], str)
        and all(type(time) is int and FIRST_MS <= time <= LAST_MS for time in times)
    )


def _last_key(batches: Sequence[pa.RecordBatch]) -> PageKey:
    created = _last(batches, "created_at")
    return created, _last(batches, "workflow_id")


def _last(batches: Sequence[pa.RecordBatch], name: str) -> Any:
    """Return a value of the last row; a time is in milliseconds."""
    batch = next(batch for batch in reversed(batches) if len(batch))
    value = batch.column(name)[len(batch) - 1]
    value = value.cast(pa.int64()) if pa.types.is_timestamp(value.type) else value
    if not value.is_valid:
        raise NotDBOSDatabaseError(
            f"A row without {name} was written during the read, and no page can start after it. "
            "DBOS always writes an ID and a time: check which other program writes its tables."
        )
    return value.as_py()
