"""Find the step that made each of many workflows fail, also where a child made it fail.

One statement reads one failed step of each workflow, and a second one those of the failed children
that these steps awaited. Other steps and their results are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from dbos_notebook.tables import frames

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

_SCHEMA = pa.schema(
    [
        ("workflow_id", pa.large_string()),
        ("status", pa.large_string()),
        ("function_id", pa.int64()),
        ("function_name", pa.large_string()),
        ("child_workflow_id", pa.large_string()),
        # Missing where both errors are the same.
        ("last_id", pa.int64()),
        ("step_error", pa.large_string()),
        ("step_serialization", pa.large_string()),
        ("workflow_error", pa.large_string()),
        ("workflow_serialization", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class FailedStep:
    """Where a workflow failed first.

    Attributes
    ----------
    name, function_id
        The step; ``None`` if the workflow's own code failed.
    workflow_id
        The workflow of the step: the failed one, or the child that made it fail.
    """

    name: str | None
    function_id: int | None
    workflow_id: str


def with_failed_steps(
    session: Session, queries: Queries, batches: Sequence[pa.RecordBatch]
) -> list[pa.RecordBatch]:
    """Fill the columns of FAILED_STEP of a listing, with one query if a workflow has failed."""
    ids = [key for batch in batches for key in frames.failed_ids(batch, ("ERROR",)).to_pylist()]
    if not ids:
        return list(batches)
    return frames.fill_failed_steps(
        batches,
        {
            key: (step.name, step.function_id, step.workflow_id)
            for key, step in failed_steps(session, queries, ids).items()
        },
    )


def failed_steps(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, FailedStep]:
    """Return where each of the workflows with the status ERROR failed first, by ID.

    A step made its workflow fail if both recorded the same error, or if the step is the last one
    that is recorded and failed. Where it awaited a child that failed, the child is examined.
    """
    columns = {"workflow_uuid", "function_id", "function_name", "error"}
    if not ids or not columns <= set(queries.steps.c.keys()):
        return {}
    if "operation_outputs" in queries.catalog.unreadable:
        return {}
    rows = _read(session, queries.failed_step_select(queries.id_rows(ids), same_first=False))
    caused = {key: _has_same_error(row, queries) for key, row in rows.items()}
    awaited = {row["child_workflow_id"] for key, row in rows.items() if caused[key]}
    # Few workflows fail because of a child, or have failed steps that they survived.
    others = [key for key, row in rows.items() if row["function_id"] and not caused[key]]
    others += [child for child in awaited if child is not None and child not in rows]
    if others:
        examined = queries.failed_children(others)
        more = _read(session, queries.failed_step_select(examined, same_first=True))
        rows |= {key: row for key, row in more.items() if row["status"] == "ERROR"}
        for key, row in more.items():
            # If no step has the same error, the last one made it fail if nothing ran after it.
            last = row["function_id"] is not None and row["function_id"] == row["last_id"]
            caused[key] = last or _has_same_error(row, queries)
    return {key: _follow(key, rows, caused) for key in ids if key in rows}


def _read(session: Session, statement: sa.Select[Any]) -> dict[str, dict[str, Any]]:
    batches = session.batches(statement, _SCHEMA)
    return {row["workflow_id"]: row for batch in batches for row in batch.to_pylist()}


def _follow(
    workflow_id: str, rows: Mapping[str, dict[str, Any]], caused: Mapping[str, bool]
) -> FailedStep:
    seen: set[str] = set()
    while True:
        seen.add(workflow_id)
        row = rows[workflow_id]
        if not caused[workflow_id]:
            return FailedStep(None, None, workflow_id)
        child = row["child_workflow_id"]
        # Rows written by hand may await each other in a circle.
        if child not in rows or child in seen:
            return FailedStep(row["function_name"], row["function_id"], workflow_id)
        workflow_id = child


def _has_same_error(row: Mapping[str, Any], queries: Queries) -> bool:
    if row["function_id"] is None:
        return False
    if row["step_error"] is None:
        return True
    if row["workflow_error"] is None:
        return False
    # The same error may be recorded differently, for example after a recovery.
    step, workflow = (
        frames.summarize_error(row[f"{of}_error"], row[f"{of}_serialization"], queries.decoder)
        for of in ("step", "workflow")
    )
    return (step.type, step.message) == (workflow.type, workflow.message)
