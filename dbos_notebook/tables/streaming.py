"""Workflows and steps of any number, read page by page.

Between two pages nothing is open: no transaction, no lock, no connection that waits. A consumer may
take as long as it likes. A page begins behind the last row of the one before (a keyset).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import NotDBOSDatabaseError
from dbos_notebook.tables import listings
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, STEP, WORKFLOW
from dbos_notebook.tables.sql import LOOKED_UP

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.tables.sql import Queries

FIRST_ROWS = 1_000
FIRST_ROWS_WITH_PAYLOADS = 100
"""Rows of the first page: small, so that the first rows come soon and large payloads fit."""
FEWEST_ROWS, MOST_ROWS = 10, 100_000
PAGE_BYTES = 32 << 20
"""Memory that a page should take; the next one's rows are chosen by it."""
MOST_STEPS = 200_000
"""Steps that one statement reads: a workflow may have any number."""

Key = tuple[int, str]
"""Where a page ended: ``created_at`` in milliseconds, and the workflow's ID."""


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

    Each page is one snapshot. A workflow that is there from the first page to the last comes
    exactly once, because ``created_at`` and the ID never change; its other values are those of the
    moment when its page was read. Workflows that are created meanwhile do not come.

    Parameters
    ----------
    filters
        As ``check_filters`` returns them.
    first_rows
        Rows of the first page; fewer where payloads are loaded.

    Yields
    ------
    pyarrow.RecordBatch
        At least one, in the columns of ``listings.workflow_columns``.
    """
    payloads = load_input or load_output
    most = FIRST_ROWS_WITH_PAYLOADS if payloads else MOST_ROWS
    rows: int | None = min(max(first_rows, FEWEST_ROWS), most)
    after: Key | None = None

    @repeat_if_changed
    def page(rows: int | None) -> tuple[list[pa.RecordBatch], int | None]:
        with reader.session() as session:
            if after is None and not _has_keys(session, queries):
                # Pages cannot be told apart: everything is read now, and kept.
                rows = None
            _, stream = listings.workflow_batches(
                session,
                queries,
                filters,
                load_input=load_input,
                load_output=load_output,
                load_errors=False,
                limit=rows,
                after=after,
            )
            found = list(stream)
            if load_errors:
                found = listings.with_errors(session, queries, found, filters, by_id=True)
        return found, rows

    while True:
        batches, rows = page(rows)
        count, size = sum(map(len, batches)), sum(batch.nbytes for batch in batches)
        if rows is not None and count == rows:
            after = _key(batches)
        yield from batches
        if rows is None or count < rows:
            return
        del batches
        rows = max(FEWEST_ROWS, min(4 * rows, rows * PAGE_BYTES // max(size, 1), MOST_ROWS))


def step_batches(
    reader: Reader, queries: Queries, filters: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Yield the steps of workflows; the workflows newest first, the steps by workflow ID.

    What :func:`workflow_batches` says of snapshots holds here too. A workflow with more than
    ``MOST_STEPS`` steps is read in several.
    """
    yield listings.empty(STEP)
    for ids in _id_pages(reader, queries, filters):
        after: tuple[str, int] | None = None
        while True:
            batches = _steps(reader, queries, ids, after)
            yield from (batch for batch in batches if len(batch))
            if sum(map(len, batches)) < MOST_STEPS:
                break
            after = _last(batches, "workflow_id"), _last(batches, "function_id")


@repeat_if_changed
def _steps(
    reader: Reader, queries: Queries, ids: Sequence[str], after: tuple[str, int] | None
) -> list[pa.RecordBatch]:
    with reader.session() as session:
        _, stream = listings.step_batches(session, queries, ids, limit=MOST_STEPS, after=after)
        return list(stream)


def _id_pages(
    reader: Reader, queries: Queries, filters: Mapping[str, Any]
) -> Iterator[Sequence[str]]:
    after: Key | None = None
    rows: int | None = FIRST_ROWS

    @repeat_if_changed
    def page(rows: int | None) -> tuple[list[pa.RecordBatch], int | None]:
        with reader.session() as session:
            if after is None and not _has_keys(session, queries):
                rows = None
            columns = tuple(c for c in WORKFLOW if c.name in ("workflow_id", "created_at"))
            statement = queries.workflow_select(columns, filters, limit=rows, after=after)
            return list(listings.typed(session, statement, columns)), rows

    while True:
        batches, rows = page(rows)
        ids = [one for batch in batches for one in batch.column("workflow_id").to_pylist()]
        if ids:
            yield ids
        if rows is None or len(ids) < rows:
            return
        after = _key(batches)
        rows = LOOKED_UP


def _has_keys(session: Session, queries: Queries) -> bool:
    """Return whether every workflow has an ID and a time of creation to begin a page behind.

    DBOS always writes both. SQLite keeps any value in any column, and a view may give any.
    """
    table = queries.workflows
    created, identity = table.c.created_at, table.c.workflow_uuid
    ends = [sa.func.min(created), sa.func.max(created), sa.func.max(identity)]
    missing = sa.select(sa.literal(1)).where(sa.or_(created.is_(None), identity.is_(None))).limit(1)
    # Each by an index. The greatest of mixed values is a string or bytes.
    selects = [sa.select(end).select_from(table).scalar_subquery() for end in ends]
    statement = sa.select(
        *(
            select.label(name)
            for name, select in zip(("first", "last", "id"), selects, strict=True)
        ),
        missing.select_from(table).scalar_subquery().label("missing"),
    )
    found = session.rows(statement)[0]
    if found["first"] is None:
        return found["missing"] is None
    times = [found["first"], found["last"]]
    return (
        found["missing"] is None
        and isinstance(found["id"], str)
        and all(type(time) is int and FIRST_MS <= time <= LAST_MS for time in times)
    )


def _key(batches: Sequence[pa.RecordBatch]) -> Key:
    created = _last(batches, "created_at")
    return created, _last(batches, "workflow_id")


def _last(batches: Sequence[pa.RecordBatch], name: str) -> Any:
    """Return a value of the last row; an instant in milliseconds."""
    batch = next(batch for batch in reversed(batches) if len(batch))
    value = batch.column(name)[len(batch) - 1]
    value = value.cast(pa.int64()) if pa.types.is_timestamp(value.type) else value
    if not value.is_valid:
        raise NotDBOSDatabaseError(
            f"A row without {name} was written while rows were read, and no page can begin behind "
            "it. DBOS always writes both an ID and a time: look what else writes its tables."
        )
    return value.as_py()
