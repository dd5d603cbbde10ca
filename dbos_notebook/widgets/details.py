"""What an opened row tells of one workflow, as plain values: facts, payloads, steps, relatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbos_notebook.database.changes import repeat_if_changed
from dbos_notebook.tables import pages
from dbos_notebook.widgets import plain
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.client import Client

STEPS = 100
"""Steps that come at once."""
MOST_FORKS = 50


def of_workflow(client: Client, workflow_id: str) -> dict[str, Any]:
    """Return all that an opened row shows; raises WorkflowNotFoundError."""
    return {**itself(client, workflow_id), **steps(client, workflow_id, None)}


def itself(client: Client, workflow_id: str) -> dict[str, Any]:
    """Return what is told of a workflow without its steps; raises WorkflowNotFoundError."""
    workflow = client.workflow(workflow_id)
    (row,) = plain.workflow_rows(workflow.row.to_frame().T)
    forks = client.workflows(forked_from=workflow_id, limit=MOST_FORKS)
    return {
        **_told(workflow, row),
        "forks": plain.forks(forks),
    }


def many(client: Client, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield what is told of each workflow of a frame with payloads, without steps and forks."""
    for row, (_, record) in zip(plain.workflow_rows(frame), frame.iterrows(), strict=True):
        yield _told(Workflow(client, record), row)


def _told(workflow: Workflow, row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row}
    if workflow.input is not None:
        found["input"] = plain.call(workflow.input)
    if workflow.output is not None or workflow.status == "SUCCESS":
        found["output"] = plain.written(workflow.output)
    if workflow.error is not None:
        found["error"] = plain.failure(workflow.error)
    return found


@repeat_if_changed
def steps(client: Client, workflow_id: str, after: int | None) -> dict[str, Any]:
    """Return the steps behind ``after``, and whether there are more."""
    with client._reader.session() as session:
        page = pages.step_page(session, client._queries, workflow_id, after, STEPS, client._decoder)
    return {"steps": plain.step_rows(page.frame), "more_steps": page.more}
