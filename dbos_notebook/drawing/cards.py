"""The HTML cards of a client and a workflow."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.html import environment
from dbos_notebook.payloads.recorded_errors import RecordedError, describe, find_cause
from dbos_notebook.text import duration, leaf_name, sanitize, sanitize_lines, timestamp

if TYPE_CHECKING:
    import jinja2

    from dbos_notebook.database.catalog import Catalog

SHOWN = 8
SHOWN_STEPS = 200
SHOWN_CHARACTERS = 100
MAX_CHARACTERS = 20_000
"""The maximum length of an expanded value; longer ones would bloat the notebook file."""


@cache
def _templates() -> jinja2.Environment:
    templates = environment("drawing")
    templates.globals["leaf_name"] = leaf_name
    return templates


def client_card(location: str, catalog: Catalog, summary: dict[str, Any]) -> str:
    """Return the HTML of a client's card.

    Parameters
    ----------
    location
        The database, without password.
    catalog
        The tables and columns of the database.
    summary
        ``counts`` (status → number), ``failures`` (name and count of the last day), ``queues``
        (a DataFrame of ``Client.queues``), ``read_at``.
    """
    busy = summary["queues"]
    busy = busy[(busy["enqueued"] > 0) | (busy["running"] > 0) | (busy["delayed"] > 0)]
    queues = [
        {
            "name": sanitize(row["queue_name"]),
            "partition": None
            if pd.isna(row["queue_partition_key"])
            else sanitize(row["queue_partition_key"]),
            "enqueued": row["enqueued"],
            "running": row["running"],
            "delayed": row["delayed"],
            "oldest": duration(row["oldest_wait"]) or "–",
        }
        for row in busy.sort_values("enqueued", ascending=False).to_dict("records")
    ]
    return (
        _templates()
        .get_template("client.html.j2")
        .render(
            location=location,
            schema=None if catalog.schema is None else sanitize(catalog.schema),
            revision=catalog.revision,
            written_by=catalog.written_by,
            counts={sanitize(status): count for status, count in summary["counts"].items()},
            total=sum(summary["counts"].values()),
            failures=[
                {"name": sanitize(row["name"]), "count": row["count"]}
                for row in summary["failures"][:SHOWN]
            ],
            failed=sum(row["count"] for row in summary["failures"]),
            queues=queues[:SHOWN],
            more_queues=max(0, len(queues) - SHOWN),
            read_at=timestamp(summary["read_at"], milliseconds=False),
        )
    )


def workflow_card(
    identity: dict[str, Any], facts: dict[str, str], payloads: dict[str, Any], steps: pd.DataFrame
) -> str:
    """Return the HTML of a workflow's card.

    Parameters
    ----------
    identity
        ``id``, ``name``, ``status``.
    facts
        Times, queue, version and the like, in display order.
    payloads
        ``input``, ``output``, ``error``; ``None`` is omitted.
    steps
        The rows of ``Client.steps``, with outputs.
    """
    error = payloads["error"]
    state = find_cause(error).error.state if isinstance(error, RecordedError) else {}
    tracebacks = (state.get(name) for name in ("traceback", "__traceback__", "stack"))
    return (
        _templates()
        .get_template("workflow.html.j2")
        .render(
            **identity,
            facts=facts,
            payloads={n: _value(v) for n, v in payloads.items() if v is not None},
            # Some applications and libraries store a traceback with their errors.
            traceback=sanitize_lines(next(filter(None, tracebacks), ""), MAX_CHARACTERS),
            steps=[
                {
                    "number": step["function_id"],
                    "name": sanitize(step["function_name"]),
                    "status": step["status"],
                    "took": duration(step["duration"]) or "–",
                    "result": _value(
                        step["error"] if step["status"] == "ERROR" else step["output"]
                    ),
                }
                for step in steps.head(SHOWN_STEPS).to_dict("records")
            ],
            more_steps=max(0, len(steps) - SHOWN_STEPS),
        )
    )


def _value(value: Any) -> dict[str, str]:
    # Arrays and data frames have several lines.
    full = sanitize_lines(describe(value), MAX_CHARACTERS)
    return {"short": sanitize(full, SHOWN_CHARACTERS), "full": full}
