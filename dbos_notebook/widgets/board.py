"""The Python half of the board: queues, throughput and failures of an application."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets

from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import pages
from dbos_notebook.tables.aggregates import Health, health
from dbos_notebook.widgets import bundle, details, html_export, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.messages import (
    Answer,
    BoardFacts,
    BoardFailure,
    BoardQueue,
    Question,
    compact,
)

if TYPE_CHECKING:
    from dbos_notebook.store import Store

WINDOWS = {
    "1h": (dt.timedelta(hours=1), dt.timedelta(minutes=1)),
    "6h": (dt.timedelta(hours=6), dt.timedelta(minutes=6)),
    "24h": (dt.timedelta(days=1), dt.timedelta(minutes=30)),
    "7d": (dt.timedelta(days=7), dt.timedelta(hours=3)),
    "30d": (dt.timedelta(days=30), dt.timedelta(hours=12)),
}
"""The length of each window, and the width of its bars: 48 to 60 bars of a round width."""
MAX_EXAMINED = 200
"""Active workflows, the oldest first, of which the board says which wait for a person."""
_PLACE = re.compile(r", place \d+ of \d+")
MESSAGE_KINDS = ("message", "message or event")
MAX_TABLE_ROWS = 12
"""Rows of a table on the board; the DataFrames are complete."""


class Board(View):
    """Queues, throughput and failures at a glance. Create it with :meth:`Client.board`.

    Attributes
    ----------
    window : str
        How far back: ``"1h"``, ``"6h"``, ``"24h"``, ``"7d"`` or ``"30d"``. May be set.
    live : bool
        Whether the browser refreshes every few seconds while the board is visible. May be set.
    queues : pandas.DataFrame
        The queues now, as :meth:`Client.queues` returns them.
    failures : pandas.DataFrame
        What failed in the window, by workflow name and error class, most frequent first.

    Examples
    --------
    >>> board = dbos_notebook.connect(example_database).board()
    >>> board.queues.loc[board.queues["enqueued"] > 0, "queue_name"].tolist()
    ['slow']
    """

    _esm = bundle.module("board")
    _css = bundle.style("base", "board")

    window = traitlets.Unicode("24h").tag(sync=True)
    live = traitlets.Bool(default_value=False).tag(sync=True)
    _start = traitlets.Dict().tag(sync=True)

    def __init__(
        self, store: Store, *, window: str = "24h", live: bool = False, embedded: bool = False
    ) -> None:
        start = {"windows": list(WINDOWS), "location": store.label}
        super().__init__(store, embedded=embedded, window=window, live=live, _start=start)
        self._handlers = {"board": self._on_board, "attention": self._on_attention}

    @traitlets.validate("window")
    def _validate_window(self, proposal: Any) -> str:
        window: str = proposal["value"]
        if window not in WINDOWS:
            raise FilterError(f"window={window!r} is not supported. Use one of {list(WINDOWS)}.")
        return window

    @repeat_if_changed
    def read(self) -> Health:
        """Read the database now."""
        length, bucket = WINDOWS[self.window]
        with self._store.session() as session:
            return health(session, self._store.queries, length, bucket, self._store.decoder)

    @property
    def queues(self) -> pd.DataFrame:
        """The queues now, as :meth:`Client.queues` returns them."""
        return self.read().queues

    @property
    def failures(self) -> pd.DataFrame:
        """What failed in the window, by workflow name and error class, most frequent first."""
        return self.read().failures

    def _on_board(self, message: Question) -> Answer:
        reading = self.read()
        facts = board_facts(reading)
        stamp = serialize.stamp(facts)
        state = {"stamp": stamp, "now": serialize.milliseconds(pd.Timestamp(reading.read_at))}
        return {"same": True, **state} if message.get("stamp") == stamp else {**facts, **state}

    def _on_attention(self, _message: Question) -> Answer:
        """List the active workflows that wait for a person: for a message, or for an executor."""
        ids = self._store.read(pages.oldest_active, MAX_EXAMINED)
        found = details.activities(self._store, ids)
        waiting = [
            key
            for key, activity in found.items()
            if activity["kind"] in MESSAGE_KINDS or activity.get("stuck")
        ]
        frame = self._store.workflows(waiting, limit=None)
        rows = {row["id"]: row for row in serialize.workflow_rows(frame)}
        # Workflows of the same name in the same situation are one line, with the oldest as example.
        alike: dict[tuple[object, ...], list[str]] = {}
        for key in filter(rows.__contains__, waiting):
            situation = _PLACE.sub("", found[key]["text"])
            alike.setdefault((rows[key].get("name"), situation), []).append(key)
        return {
            "rows": [
                {"row": rows[keys[0]], "activity": found[keys[0]], "count": len(keys)}
                for keys in list(alike.values())[:MAX_TABLE_ROWS]
            ],
            "left_out": max(0, len(alike) - MAX_TABLE_ROWS),
            "examined": len(ids) if len(ids) == MAX_EXAMINED else None,
        }

    def static_html(self) -> str:
        """Return the board as tables that need no kernel."""
        return html_export.board(self._store.label, board_facts(self.read()), self.window)

    def _html_page(self) -> str:
        return html_export.page("Board", [self.static_html()])

    def __repr__(self) -> str:
        return f"<Board {self._store.location}, the last {self.window}>"


def board_facts(reading: Health) -> BoardFacts:
    """Return what a board shows.

    The window ends at the end of a bucket, so that two readings without a change are equal.
    """
    width = round(reading.bucket.total_seconds() * 1000)
    end = serialize.milliseconds(pd.Timestamp(reading.read_at)) or 0
    bars = reading.window // reading.bucket
    begin = (end // width - bars + 1) * width
    series: dict[str, list[int]] = {}
    for row in reading.ended.to_dict("records"):
        bar = ((serialize.milliseconds(row["completed_at"]) or 0) - begin) // width
        if 0 <= bar < bars:
            series.setdefault(str(row["status"]), [0] * bars)[bar] += int(row["count"])
    by_load = reading.queues.sort_values(["enqueued", "running", "delayed"], ascending=False)
    return {
        "begin": begin,
        "width": width,
        "bars": bars,
        "active": reading.active,
        "series": series,
        "queues": list(map(_queue, by_load.head(MAX_TABLE_ROWS).to_dict("records"))),
        "more_queues": max(0, len(reading.queues) - MAX_TABLE_ROWS),
        "failures": list(map(_failure, reading.failures.head(MAX_TABLE_ROWS).to_dict("records"))),
        "more_failures": max(0, len(reading.failures) - MAX_TABLE_ROWS),
        "cut": reading.truncated,
    }


def _queue(record: dict[Any, Any]) -> BoardQueue:
    columns = {
        "partition": "queue_partition_key",
        "rate_max": "rate_limit_max",
        "rate_period": "rate_limit_period",
        "enqueued": "enqueued",
        "running": "running",
        "delayed": "delayed",
        "concurrency": "concurrency",
        "worker_concurrency": "worker_concurrency",
    }
    values = {name: record[column] for name, column in columns.items()}
    row: BoardQueue = compact(
        {
            "name": serialize.label(record["queue_name"]),
            "oldest": serialize.milliseconds(record["oldest_enqueued_at"]),
            # NumPy's integers are not JSON.
            **{
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in values.items()
                if not pd.isna(value)
            },
        }
    )
    return row


def _failure(record: dict[Any, Any]) -> BoardFailure:
    error_type, message = record["error_type"], record["error_message"]
    step = record["failed_step"]
    row: BoardFailure = compact(
        {
            "name": serialize.label(record["name"]),
            "step": None if pd.isna(step) else serialize.label(step),
            "type": "" if pd.isna(error_type) else error_type,
            "message": "" if pd.isna(message) else serialize.label(message),
            "messages": int(record["messages"]),
            "count": int(record["count"]),
            "last": serialize.milliseconds(record["last"]),
            "id": record["workflow_id"],
        }
    )
    return row
