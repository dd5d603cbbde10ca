"""What an opened row tells of one workflow, as plain values: facts, payloads, steps, relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbos_notebook.tables import pages
from dbos_notebook.widgets import plain

if TYPE_CHECKING:
    from dbos_notebook.client import Client

STEPS = 100
"""Steps that come at once."""
MOST_FORKS = 50


def of_workflow(client: Client, workflow_id: str) -> dict[str, Any]:
    """Return all that an opened row shows; raises WorkflowNotFoundError."""
    workflow = client.workflow(workflow_id)
    found: dict[str, Any] = {"row": plain.workflow_rows(workflow.row.to_frame().T)[0]}
    if workflow.input is not None:
        found["input"] = plain.call(workflow.input)
    if workflow.output is not None or workflow.status == "SUCCESS":
        found["output"] = plain.written(workflow.output)
    if workflow.error is not None:
        found["error"] = plain.failure(workflow.error)
    forks = client.workflows(forked_from=workflow_id, limit=MOST_FORKS)
    found["forks"] = [
        {"id": workflow_id, "status": status}
        for workflow_id, status in zip(forks["workflow_id"], forks["status"], strict=True)
    ]
    return {**found, **steps(client, workflow_id, None)}


def steps(client: Client, workflow_id: str, after: int | None) -> dict[str, Any]:
    """Return the steps behind ``after``, and whether there are more."""
    with client._reader.session() as session:
        page = pages.step_page(session, client._queries, workflow_id, after, STEPS)
    return {"steps": plain.step_rows(page.frame), "more_steps": page.more}
