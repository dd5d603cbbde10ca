"""The board of an application: queues, endings and failures. Its Python half."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import traitlets

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.tables.aggregates import Health, health
from dbos_notebook.text import truncate
from dbos_notebook.widgets import bundle, html_export, serialize
from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    from dbos_notebook.store import Store

# How far back, and the width of a bar: some fifty or sixty, of a length that people count in.
WINDOWS = {
    "1h": (dt.timedelta(hours=1), dt.timedelta(minutes=1)),
    "6h": (dt.timedelta(hours=6), dt.timedelta(minutes=6)),
    "24h": (dt.timedelta(days=1), dt.timedelta(minutes=30)),
    "7d": (dt.timedelta(days=7), dt.timedelta(hours=3)),
    "30d": (dt.timedelta(days=30), dt.timedelta(hours=12)),
}
SHOWN = 12
"""Lines of a table on the board; the DataFrames have all."""


class Board(View):
    """Queues, throughput and failures at a glance. Make it with ``Client.board``.

    Attributes
    ----------
    window
        How far back it looks: ``"1h"``, ``"6h"``, ``"24h"``, ``"7d"``, ``"30d"``; may be set.
    live
        Whether the browser asks again every few seconds while it shows the board; may be set.

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

    def __init__(self, store: Store, *, window: str = "24h", live: bool = False) -> None:
        start = {"windows": list(WINDOWS), "location": store.label}
        super().__init__(store, window=window, live=live, _start=start)
        self._answers = {"board": self._board}

    @traitlets.validate("window")
    def _known(self, proposal: Any) -> str:
        window: str = proposal["value"]
        if window not in WINDOWS:
            raise FilterError(f"window={window!r} is not offered. Use one of {list(WINDOWS)}.")
        return window

    @repeat_if_changed
    def read(self) -> Health:
        """Read the database now."""
        store = self._store
        with store.session() as session:
            return health(
                session,
                store.queries,
                *WINDOWS[self.window],
                store.decoder,
            )

    @property
    def queues(self) -> pd.DataFrame:
        """The queues now, as ``Client.queues`` gives them."""
        return self.read().queues

    @property
    def failures(self) -> pd.DataFrame:
        """What failed in the window, by workflow and error class, most first."""
        return self.read().failures

    def _board(self, message: dict[str, Any]) -> dict[str, Any]:
        found = self.read()
        answer = facts(found)
        stamp = serialize.stamp(answer)
        state = {"stamp": stamp, "now": serialize.milliseconds(pd.Timestamp(found.read_at))}
        return {"same": True, **state} if message.get("stamp") == stamp else {**answer, **state}

    def static_html(self) -> str:
        """Return the board as tables that need no kernel."""
        return html_export.board(self._store.label, facts(self.read()), self.window)

    def _page(self) -> str:
        return html_export.page("Board", [self.static_html()])

    def __repr__(self) -> str:
        return f"<Board {self._store.location}, the last {self.window}>"

    _repr_keys: ClassVar[Any] = ()


def facts(found: Health) -> dict[str, Any]:
    """Return what a board shows as plain values; times are in milliseconds.

    The window ends at the end of a bucket, so that two readings without a change are alike.
    """
    width = round(found.bucket.total_seconds() * 1000)
    last = serialize.milliseconds(pd.Timestamp(found.read_at)) or 0
    bars = found.window // found.bucket
    begin = (last // width - bars + 1) * width
    series: dict[str, list[int]] = {}
    for row in found.ended.to_dict("records"):
        place = ((serialize.milliseconds(row["completed_at"]) or 0) - begin) // width
        if 0 <= place < bars:
            counts = series.setdefault(str(row["status"]), [0] * bars)
            counts[place] += int(row["count"])
    return {
        "begin": begin,
        "width": width,
        "bars": bars,
        "active": found.active,
        "series": series,
        "queues": _queues(found.queues)[:SHOWN],
        "more_queues": max(0, len(found.queues) - SHOWN),
        "failures": _failures(found.failures.head(SHOWN)),
        "more_failures": max(0, len(found.failures) - SHOWN),
        "cut": found.cut,
    }


def _queues(queues: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    busiest_first = queues.sort_values(["enqueued", "running", "delayed"], ascending=False)
    for record in busiest_first.to_dict("records"):
        row = {
            "name": truncate(str(record["queue_name"]), serialize.SHORT_CHARACTERS),
            "partition": record["queue_partition_key"],
            "oldest": serialize.milliseconds(record["oldest_enqueued_at"]),
            "rate_max": record["rate_limit_max"],
            "rate_period": record["rate_limit_period"],
        }
        row |= {
            name: record[name]
            for name in ("enqueued", "running", "delayed", "concurrency", "worker_concurrency")
        }
        kept = {name: value for name, value in row.items() if not pd.isna(value)}
        rows.append({n: v.item() if hasattr(v, "item") else v for n, v in kept.items()})
    return rows


def _failures(failures: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": truncate(str(record["name"]), serialize.SHORT_CHARACTERS),
            "type": "" if pd.isna(record["error_type"]) else record["error_type"],
            "message": ""
            if pd.isna(record["error_message"])
            else truncate(record["error_message"], serialize.SHORT_CHARACTERS),
            "messages": int(record["messages"]),
            "count": int(record["count"]),
            "last": serialize.milliseconds(record["last"]),
            "id": record["workflow_id"],
        }
        for record in failures.to_dict("records")
    ]
