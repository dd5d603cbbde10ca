"""The cards that a client and a workflow show. Text becomes markup in their templates alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from dbos_notebook.html import environment
from dbos_notebook.payloads.recorded_errors import describe
from dbos_notebook.text import printable

if TYPE_CHECKING:
    import jinja2

    from dbos_notebook.database.catalog import Catalog

SHOWN = 8
SHOWN_STEPS = 200
SHOWN_CHARACTERS = 100
MOST_CHARACTERS = 20_000
"""What a card holds of a value when it is opened; more would bloat the notebook's file."""


@cache
def _templates() -> jinja2.Environment:
    return environment("drawing")


def age(span: Any) -> str:
    """Say a span of time in its largest unit.

    Examples
    --------
    >>> age(pd.Timedelta("3h20m"))
    '3.3 h'
    >>> age(pd.NaT)
    '–'
    """
    if pd.isna(span):
        return "–"
    seconds = pd.Timedelta(span).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def client_card(location: str, catalog: Catalog, summary: dict[str, Any]) -> str:
    """Return the HTML of a client's card.

    Parameters
    ----------
    location
        Where the database is, without password.
    catalog
        What it holds.
    summary
        ``counts`` (status → number), ``failures`` (name and count of the last day), ``queues``
        (a DataFrame of ``Client.queues``), ``read_at``.
    """
    busy = summary["queues"]
    busy = busy[(busy["enqueued"] > 0) | (busy["running"] > 0) | (busy["delayed"] > 0)]
    queues = [
        {
            "name": printable(row["queue_name"]),
            "partition": None
            if pd.isna(row["queue_partition_key"])
            else printable(row["queue_partition_key"]),
            "enqueued": row["enqueued"],
            "running": row["running"],
            "delayed": row["delayed"],
            "oldest": age(row["oldest_wait"]),
        }
        for row in busy.sort_values("enqueued", ascending=False).to_dict("records")
    ]
    return (
        _templates()
        .get_template("client.html.j2")
        .render(
            location=location,
            schema=None if catalog.schema is None else printable(catalog.schema),
            revision=catalog.revision,
            written_by=catalog.written_by,
            counts={printable(status): count for status, count in summary["counts"].items()},
            total=sum(summary["counts"].values()),
            failures=[
                {"name": printable(row["name"]), "count": row["count"]}
                for row in summary["failures"][:SHOWN]
            ],
            failed=sum(row["count"] for row in summary["failures"]),
            queues=queues[:SHOWN],
            more_queues=max(0, len(queues) - SHOWN),
            read_at=summary["read_at"].strftime("%Y-%m-%d %H:%M:%S UTC"),
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
        When, where and who, in the order to show.
    payloads
        ``input``, ``output``, ``error``; ``None`` is left out.
    steps
        Of ``Client.steps``, with outputs.
    """
    state = getattr(payloads["error"], "state", None) or {}
    kept = (state.get(name) for name in ("traceback", "__traceback__", "stack"))
    return (
        _templates()
        .get_template("workflow.html.j2")
        .render(
            **identity,
            facts=facts,
            payloads={n: _value(v) for n, v in payloads.items() if v is not None},
            # Where an application, or a library of it, kept one with its error.
            traceback=lines(next(filter(None, kept), "")),
            steps=[
                {
                    "number": step["function_id"],
                    "name": printable(step["function_name"]),
                    "status": step["status"],
                    "took": age(step["duration"]),
                    "result": _value(
                        step["error"] if step["status"] == "ERROR" else step["output"]
                    ),
                }
                for step in steps.head(SHOWN_STEPS).to_dict("records")
            ],
            more_steps=max(0, len(steps) - SHOWN_STEPS),
        )
    )


def lines(text: object) -> str:
    r"""Return a text of many lines, each of them printable, cut where it is long.

    Examples
    --------
    >>> lines("Traceback:\n  \x1b[1mpay")
    'Traceback:\n  \\x1b[1mpay'
    """
    whole = text if isinstance(text, str) else repr(text)
    kept = whole[:MOST_CHARACTERS].split("\n")
    shown = "\n".join(printable(line, MOST_CHARACTERS) for line in kept)
    return shown if len(whole) <= MOST_CHARACTERS else shown + "…"


def _value(value: Any) -> dict[str, str]:
    # Arrays and frames are shown on many lines.
    full = lines(describe(value))
    return {"short": printable(full, SHOWN_CHARACTERS), "full": full}
