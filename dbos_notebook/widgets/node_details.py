"""Details of one node of a run, as plain values for the browser: a step, a workflow, a group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import StepNotFoundError
from dbos_notebook.payloads import RecordedError
from dbos_notebook.tables import pages
from dbos_notebook.text import truncate
from dbos_notebook.widgets import details, serialize
from dbos_notebook.widgets.run_data import RunData, as_plain, node_in_short
from dbos_notebook.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.store import Store

MOST_MEMBERS = 50
_PAYLOADS = ("input", "output", "error")


def of_node(store: Store, run: RunData, key: Any, view: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a node, with its payloads decoded."""
    if isinstance(key, str):
        return {"kind": "workflow", **details.itself(store, key)}
    shown = run.picture(view).shown
    if shown is not None and key in shown and shown.nodes[key]["kind"] == "group":
        return _group(run, shown.nodes[key], key)
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int):
        return of_step(store, *key)
    node = run.graph.nodes.get(key, {})
    return {"kind": "running", "workflow_id": node.get("workflow_id"), "name": node.get("name")}


def of_step(store: Store, workflow_id: str, number: int) -> dict[str, Any]:
    """Return a step with its result."""
    page = _page(store, workflow_id, number, store.decoder)
    return next(found for _, _, found in many_steps(page))


def many_steps(frame: pd.DataFrame) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield workflow, number and what is told of each step of a frame with results."""
    rows = serialize.step_rows(frame)
    for row, workflow_id, error in zip(rows, frame["workflow_id"], frame["error"], strict=True):
        result = row.pop("result", None)
        found: dict[str, Any] = {"kind": "step", "step": {**row, "workflow_id": workflow_id}}
        if row["status"] == "ERROR":
            found["error"] = serialize.failure(error)
            if (attempts := attempts_of(error)) is not None:
                found["attempts"] = attempts
        elif result is not None:
            found["output"] = result
        yield workflow_id, row["number"], found


def attempts_of(error: Any) -> int | None:
    """Return how often a step was tried, where its error says so.

    Examples
    --------
    >>> attempts_of(RecordedError("dbos._error.DBOSMaxStepRetriesExceeded", ("charge", 3, [])))
    3
    """
    if not isinstance(error, RecordedError) or not error.type.endswith("MaxStepRetriesExceeded"):
        return None
    told = error.state.get("max_retries") if isinstance(error.state, dict) else None
    if told is None and len(error.args) > 1:
        told = error.args[1]
    return told if isinstance(told, int) else None


@repeat_if_changed
def _page(store: Store, workflow_id: str, number: int, decoder: Decoder) -> pd.DataFrame:
    with store.session() as session:
        page = pages.step_page(session, store.queries, workflow_id, number - 1, 1, decoder)
    if page.frame.empty or int(page.frame["function_id"].iloc[0]) != number:
        raise StepNotFoundError(f"Workflow {workflow_id!r} has no step {number} any more.")
    return page.frame


def _group(run: RunData, node: Mapping[str, Any], key: Any) -> dict[str, Any]:
    members = list(node["members"])
    found = {
        "kind": "group",
        **node_in_short(key, node),
        "statuses": {str(status): int(n) for status, n in node["statuses"].items() if n},
        "inside": int(node.get("failures_inside") or 0),
        "members": [run.told(member) for member in members[:MOST_MEMBERS]],
        "left_out": max(0, len(members) - MOST_MEMBERS),
    }
    for name in ("duration_min", "duration_max", "duration_total", "started_at", "completed_at"):
        if name in node:
            found[name] = serialize.milliseconds(node[name])
    return {**found, "kind": "group"}


def raw(store: Store, key: Any) -> list[dict[str, Any]]:
    """Return the payloads of a node as they are stored, without decoding them."""
    raw_store = store.with_decoder(
        lambda text, serialization, _: {"format": serialization or "not named", "text": text}
    )
    if isinstance(key, str):
        record = Workflow.read(raw_store, key).row
    else:
        record = _page(raw_store, key[0], key[1], raw_store.decoder).iloc[0]
    found = []
    for name in _PAYLOADS:
        stored = record.get(name)
        if isinstance(stored, dict):
            text = stored["text"]
            told = {"name": name, "format": stored["format"], "length": len(text)}
            found.append({**told, "text": truncate(text, serialize.MOST_CHARACTERS)})
    return found


def code(run: RunData, key: Any) -> str:
    """Write the Python that gives what is looked at.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> code(RunData.read(db._store, "checkout-1"), ("checkout-1", 3))
    'db.steps("checkout-1", load_output=True).set_index("function_id").loc[3]'
    """
    from dbos_notebook.widgets.query_form import literal

    if key is None:
        return f"db.inspect({literal(run.workflow_id)})"
    if isinstance(key, str):
        return f"db.workflow({literal(key)})"
    if isinstance(key[1], int):
        steps = f"db.steps({literal(key[0])}, load_output=True)"
        return f'{steps}.set_index("function_id").loc[{key[1]}]'
    node = run.graph.nodes.get(key)
    if node is not None:
        return f"db.workflow({literal(node['workflow_id'])})"
    name = as_plain(key)[1]
    return f"dn.draw(db.graph({literal(run.workflow_id)}), open=[{literal(name)}])"
