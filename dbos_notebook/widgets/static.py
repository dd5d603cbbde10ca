"""Views as HTML that needs no kernel: for GitHub, nbconvert, a mail. Made by escaping templates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from dbos_notebook.pictures import words
from dbos_notebook.widgets import assets, details, plain

if TYPE_CHECKING:
    from dbos_notebook.client import Client

FALLBACK_ROWS = 20


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("dbos_notebook", "widgets/templates"),
        # Everything from a database is text, never markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["instant"] = _instant
    found.filters["span"] = _span
    found.filters["took"] = _took
    return found


def _instant(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _span(milliseconds: int | None) -> str:
    return "–" if milliseconds is None else words.took(pd.Timedelta(milliseconds, "ms"))


def _took(row: dict[str, Any]) -> str:
    begun = row.get("started_at", 1)
    ended = row.get("completed_at", row.get("updated_at", 1))
    # SQLite may hold whole seconds, of which 0 says only that it was quick.
    if row.get("duration") == 0 and begun % 1000 == ended % 1000 == 0:
        return "< 1 s"
    return _span(row.get("duration"))


def listing(client: Client, frame: pd.DataFrame, code: str) -> str:
    """Return a short table of a listing, to stand in a notebook's file."""
    return _render(client, frame.head(FALLBACK_ROWS), code, len(frame) - FALLBACK_ROWS, {})


def listing_page(client: Client, frame: pd.DataFrame, code: str) -> str:
    """Return a whole page of a listing, each row with its details."""
    return page("Workflows", [opened(client, frame, code)])


def opened(client: Client, frame: pd.DataFrame, code: str) -> str:
    """Return a table of workflows, each with its details."""
    told = {i: details.of_workflow(client, i) for i in frame["workflow_id"]}
    return _render(client, frame, code, 0, told)


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML page of parts that templates made."""
    return _templates().get_template("page.html.j2").render(title=title, parts=parts)


def board(location: str, facts: dict[str, Any], window: str) -> str:
    """Return a board as tables."""
    now = dt.datetime.now(dt.UTC)
    return (
        _templates()
        .get_template("board.html.j2")
        .render(
            **facts,
            location=location,
            window=window,
            ended={status: sum(bars) for status, bars in sorted(facts["series"].items())},
            now=round(now.timestamp() * 1000),
            read_at=f"{now:%Y-%m-%d %H:%M:%S} UTC",
            style=assets.style("static"),
        )
    )


def _render(
    client: Client, frame: pd.DataFrame, code: str, left_out: int, opened: dict[str, Any]
) -> str:
    return (
        _templates()
        .get_template("listing.html.j2")
        .render(
            location=str(client.location),
            code=code,
            rows=plain.workflow_rows(frame),
            opened=opened,
            left_out=max(0, left_out),
            read_at=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC",
            style=assets.style("static"),
        )
    )
