"""Find the errors of many workflows, and the step that made each fail, also where a child did.

One statement reads the recorded error and one failed step of each workflow, and a second one those
of the failed children that these steps awaited. Other steps and their results are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from dbos_notebook.tables import frames
from dbos_notebook.tables.columns import FAILED_STEP, RECORDED

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

MIN_SCANNED = 1_000
"""Up to this number, failed workflows are looked up by their IDs."""
SCHEMA = pa.schema(
    [
        ("workflow_id", pa.large_string()),
        ("status", pa.dictionary(pa.int32(), pa.string())),
        *((column.name, column.transport) for column in RECORDED),
        ("function_id", pa.int64()),
        ("function_name", pa.dictionary(pa.int32(), pa.string())),
        ("child_workflow_id", pa.large_string()),
        # Missing where both errors are the same.
        ("last_id", pa.int64()),
        ("same_id", pa.int64()),
        ("step_error", pa.large_string()),
        ("step_serialization", pa.dictionary(pa.int32(), pa.string())),
    ]
)
"""The columns of :meth:`Queries.failure_select`."""


def with_failures(
    session: Session,
    queries: Queries,
    batches: Sequence[pa.RecordBatch],
    filters: Mapping[str, Any] | None = None,
) -> list[pa.RecordBatch]:
    """Fill the columns of ERROR and FAILED_STEP of a listing that was read without them.

    Parameters
    ----------
    filters
        Those of the listing, by which many failed workflows are found faster than by their IDs.
    """
    failed = (key for batch in batches for key in frames.failed_ids(batch).to_pylist())
    # A tree with a cycle lists a workflow more than once.
    ids = list(dict.fromkeys(failed))
    if not ids:
        return list(batches)
    if filters is None or len(ids) <= MIN_SCANNED:
        chosen: Any = queries.id_rows(ids)
    else:
        chosen = queries.where(filters)
    failures = pa.Table.from_batches(failure_batches(session, queries, chosen), SCHEMA)
    steps = failed_steps(session, queries, failures)
    return frames.fill_failures(batches, failures, steps, queries.decoder)


def failure_batches(
    session: Session,
    queries: Queries,
    chosen: sa.FromClause | Sequence[sa.ColumnElement[bool]],
    schema: pa.Schema = SCHEMA,
    extra: Iterable[sa.ColumnElement[Any]] = (),
) -> Iterable[pa.RecordBatch]:
    """Read failed workflows with the columns of SCHEMA and, with a longer schema, further ones."""
    columns = {"workflow_uuid", "function_id", "function_name", "error"}
    readable = "operation_outputs" not in queries.catalog.unreadable
    steps = readable and columns <= set(queries.steps.c.keys())
    statement = queries.failure_select(chosen, steps=steps, extra=extra)
    return session.batches(statement, schema)


def failed_steps(session: Session, queries: Queries, failures: pa.Table) -> pa.Table:
    """Return where each workflow with the status ERROR failed first.

    A step made its workflow fail if both recorded the same error, or if the step is the last one
    that is recorded and failed. Where it awaited a child that failed, the child is examined.

    Parameters
    ----------
    failures
        The columns of SCHEMA.

    Returns
    -------
    pyarrow.Table
        The columns of FAILED_STEP for each row: the step's name and number, missing if the
        workflow's own code failed; and the workflow of the step, which may be a child.
    """
    failures = failures.combine_chunks()
    raised = _column(failures, "status").cast(pa.string())
    raised = pc.fill_null(pc.equal(raised, "ERROR"), False)  # noqa: FBT003
    # Nearly all failed in a step of their own, or in their own code; the others take a closer look.
    child, error = (_column(failures, name) for name in ("child_workflow_id", "step_error"))
    traced = pc.and_(raised, pc.or_(pc.is_valid(child), pc.is_valid(error)))
    rows = _by_id(failures.filter(traced))
    more = _trace(session, queries, rows, failures.filter(raised)) if rows else []
    # Rows in ``more`` replace those of their workflows.
    sources = np.arange(len(failures))
    sources[traced.to_numpy(zero_copy_only=False)] = len(failures) + np.arange(len(more))
    indices = pa.array(sources, mask=~raised.to_numpy(zero_copy_only=False))
    columns = {}
    for position, (column, name) in enumerate(zip(FAILED_STEP, _OWN, strict=True)):
        own = _column(failures, name)
        others = pa.array([values[position] for values in more], own.type)
        both = pa.chunked_array([own, others]).unify_dictionaries().combine_chunks()
        columns[column.name] = frames.take_values(both, indices)
    return pa.table(columns)


_OWN = ("function_name", "function_id", "workflow_id")


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _by_id(rows: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["workflow_id"]: row for row in rows.to_pylist()}


def _trace(
    session: Session, queries: Queries, rows: dict[str, dict[str, Any]], raised: pa.Table
) -> list[tuple[str | None, int | None, str]]:
    """Return the values of FAILED_STEP for ``rows``.

    ``raised`` has all failed workflows that were read. Rows that these lead to are added.
    """
    ids = list(rows)
    caused: dict[str, bool] = {}
    unclear = []
    for key, row in rows.items():
        caused[key] = _has_same_error(row, queries)
        if not caused[key] and row["same_id"] is not None:
            unclear.append(key)
        elif not caused[key]:
            # If no step has the same error, the last one made it fail if nothing ran after it.
            caused[key] = row["function_id"] == row["last_id"]
    awaited = {row["child_workflow_id"] for key, row in rows.items() if caused[key]}
    awaited = awaited - {None} - rows.keys()
    known = raised.filter(
        pc.is_in(raised["workflow_id"], value_set=pa.array(awaited, pa.large_string()))
    )
    for key, row in _by_id(known).items():
        rows[key], caused[key] = row, row["function_id"] is not None
    # Few workflows fail because of a child that is not listed, or survive a failed step.
    examined = [*unclear, *(awaited - rows.keys())]
    if examined:
        chosen = queries.failed_children(examined)
        statement = queries.failure_select(chosen, same_first=True)
        more = _by_id(pa.Table.from_batches(session.batches(statement, SCHEMA), SCHEMA))
        for key, row in more.items():
            if row["status"] == "ERROR":
                rows[key] = row
                number = row["function_id"]
                caused[key] = number is not None and (
                    number == row["last_id"] or _has_same_error(row, queries)
                )
    return _origins(ids, rows, caused)


def _origins(
    ids: Iterable[str], rows: Mapping[str, dict[str, Any]], caused: Mapping[str, bool]
) -> list[tuple[str | None, int | None, str]]:
    """Return the name and number of the step where each workflow failed first, and its workflow."""
    origins: dict[str, tuple[str | None, int | None, str]] = {}
    for workflow_id in ids:
        # The levels of a deep tree have the same origin: each is followed once.
        path: dict[str, None] = {}
        current = workflow_id
        # Rows written by hand may await each other in a circle.
        while current not in origins and current not in path:
            path[current] = None
            row = rows[current]
            if caused[current] and row["child_workflow_id"] in rows:
                current = row["child_workflow_id"]
        if current not in origins:
            current = next(reversed(path))
            row = rows[current]
            step = (row["function_name"], row["function_id"]) if caused[current] else (None, None)
            origins[current] = (*step, current)
        origins |= dict.fromkeys(path, origins[current])
    return [origins[workflow_id] for workflow_id in ids]


def _has_same_error(row: Mapping[str, Any], queries: Queries) -> bool:
    if row["function_id"] is None:
        return False
    if row["step_error"] is None:
        return True
    if row["_error"] is None:
        return False
    # The same error may be recorded differently, for example after a recovery.
    step = frames.summarize_error(row["step_error"], row["step_serialization"], queries.decoder)
    workflow = frames.summarize_error(row["_error"], row["_serialization"], queries.decoder)
    return (step.type, step.message) == (workflow.type, workflow.message)
