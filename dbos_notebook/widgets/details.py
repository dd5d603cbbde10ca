"""Details of one workflow, as plain values for the browser: facts, payloads, steps, relatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.tables import listings, pages
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.widgets import serialize
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store

STEPS = 100
"""Steps that come at once."""
MOST_FORKS = 50


@repeat_if_changed
def of_workflow(store: Store, workflow_id: str) -> dict[str, Any]:
    """Return all that an opened row shows, in one snapshot; raises WorkflowNotFoundError."""
    with store.session() as session:
        return {
            **_itself(store, session, workflow_id),
            **_steps(store, session, workflow_id, None),
        }


@repeat_if_changed
def itself(store: Store, workflow_id: str) -> dict[str, Any]:
    """Return what is told of a workflow without its steps; raises WorkflowNotFoundError."""
    with store.session() as session:
        return _itself(store, session, workflow_id)


def _itself(store: Store, session: Session, workflow_id: str) -> dict[str, Any]:
    filters = check_filters({"workflow_ids": [workflow_id]})
    frame = _listed(store, session, filters, payloads=True)
    if frame.empty:
        listings.require_known(session, store.queries, [workflow_id])
    (told,) = many(store, frame)
    return {**told, "forks": forks(store, session, workflow_id)}


def forks(store: Store, session: Session, workflow_id: str) -> list[dict[str, str]]:
    """Return the newest forks of a workflow: their IDs and statuses."""
    filters = check_filters({"forked_from": [workflow_id]})
    return serialize.forks(_listed(store, session, filters, payloads=False))


def _listed(
    store: Store, session: Session, filters: dict[str, Any], *, payloads: bool
) -> pd.DataFrame:
    frame, _ = listings.workflows(
        session,
        store.queries,
        filters,
        MOST_FORKS,
        None,
        store.decoder,
        sort_desc=True,
        load_input=payloads,
        load_output=payloads,
        load_errors=payloads,
        normalize=False,
    )
    return frame


def many(store: Store, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield what is told of each workflow of a frame with payloads, without steps and forks."""
    for row, (_, record) in zip(serialize.workflow_rows(frame), frame.iterrows(), strict=True):
        yield _told(Workflow(store, record), row)


def _told(workflow: Workflow, row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row}
    if workflow.input is not None:
        found["input"] = serialize.call(workflow.input)
    if workflow.output is not None or workflow.status == "SUCCESS":
        found["output"] = serialize.written(workflow.output)
    if workflow.error is not None:
        found["error"] = serialize.failure(workflow.error)
    return found


@repeat_if_changed
def steps(store: Store, workflow_id: str, after: int | None) -> dict[str, Any]:
    """Return the steps behind ``after``, and whether there are more."""
    with store.session() as session:
        return _steps(store, session, workflow_id, after)


def _steps(store: Store, session: Session, workflow_id: str, after: int | None) -> dict[str, Any]:
    page = pages.step_page(session, store.queries, workflow_id, after, STEPS, store.decoder)
    return {"steps": serialize.step_rows(page.frame), "more_steps": page.more}
