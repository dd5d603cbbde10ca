"""The Python half of the board: what is wrong, queues, throughput, failures and durations."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets

from dbos_notebook.analysis.diagnosis import find_all
from dbos_notebook.analysis.failures import failures
from dbos_notebook.analysis.findings import RULES, DiagnosisLimits, Finding
from dbos_notebook.analysis.statistics import workflow_statistics
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import pages
from dbos_notebook.tables.aggregates import Health, ended_since, health
from dbos_notebook.text import truncate
from dbos_notebook.widgets import bundle, details, html_export, serialize
from dbos_notebook.widgets.base import View
from dbos_notebook.widgets.controls import Actions
from dbos_notebook.widgets.messages import (
    Answer,
    BoardCauses,
    BoardDurations,
    BoardFacts,
    BoardFailure,
    BoardFinding,
    BoardQueue,
    Question,
    compact,
)

if TYPE_CHECKING:
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.database.reader import Session
    from dbos_notebook.store import Store
    from dbos_notebook.tables.sql import Queries

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
MESSAGE_KINDS = ("message", "message or event")
MAX_REPAIRED = 10_000
"""Failed workflows that one click repairs."""
MAX_TABLE_ROWS = 12
"""Rows of a table on the board; the DataFrames are complete."""


class Board(View):
    """What is wrong, queues, throughput, failures and durations at a glance.

    Create it with :meth:`Client.board`.

    Attributes
    ----------
    window : str
        How far back: ``"1h"``, ``"6h"``, ``"24h"``, ``"7d"`` or ``"30d"``. May be set.
    live : bool
        Whether the browser refreshes every few seconds while the board is visible. May be set.
    queues : pandas.DataFrame
        The queues now, as :meth:`Client.queues` returns them.
    failures : pandas.DataFrame
        What failed in the window by cause, as :meth:`Client.failures` returns it.
    receipt : Receipt or None
        The receipt of the last action that was confirmed in this view.

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
        self,
        store: Store,
        controller: Controller,
        *,
        window: str = "24h",
        live: bool = False,
        embedded: bool = False,
    ) -> None:
        self._actions = Actions(store, controller)
        start = {
            "windows": list(WINDOWS),
            "location": store.label,
            "forbidden": self._actions.forbidden(),
            "read_only": controller.read_only,
        }
        super().__init__(store, embedded=embedded, window=window, live=live, _start=start)
        self._handlers = {
            "board": self._on_board,
            "attention": self._on_attention,
            "causes": self._on_causes,
            **self._actions.handlers,
        }

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
            return health(session, self._store.queries, length, bucket)

    @property
    def queues(self) -> pd.DataFrame:
        """The queues now, as :meth:`Client.queues` returns them."""
        return self.read().queues

    @property
    def failures(self) -> pd.DataFrame:
        """What failed in the window by cause, as :meth:`Client.failures` returns it."""
        return self._store.read(_read_failures, WINDOWS[self.window][0])

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed in this view."""
        return self._actions.receipt

    def _on_board(self, message: Question) -> Answer:
        reading = self.read()
        facts = board_facts(reading)
        stamp = serialize.stamp(facts)
        state = {"stamp": stamp, "now": serialize.milliseconds(pd.Timestamp(reading.read_at))}
        return {"same": True, **state} if message.get("stamp") == stamp else {**facts, **state}

    def _on_attention(self, _message: Question) -> Answer:
        """Diagnose the application, and list the active workflows that wait for a person."""
        started = time.perf_counter()
        limits = DiagnosisLimits()
        findings = self._store.read(find_all, limits, self._store.location)
        ids = self._store.read(pages.oldest_active, MAX_EXAMINED)
        found = details.activities(self._store, ids)
        waiting = [key for key, each in found.items() if each["kind"] in MESSAGE_KINDS]
        frame = self._store.workflows(waiting, limit=None)
        rows = {row["id"]: row for row in serialize.workflow_rows(frame)}
        # Workflows of the same name in the same situation are one line, with the oldest as example.
        alike: dict[tuple[object, ...], list[str]] = {}
        for key in filter(rows.__contains__, waiting):
            alike.setdefault((rows[key].get("name"), found[key]["text"]), []).append(key)
        return {
            "findings": [_finding(each) for each in findings[:MAX_TABLE_ROWS]],
            "more_findings": max(0, len(findings) - MAX_TABLE_ROWS),
            "rows": [
                {"row": rows[keys[0]], "activity": found[keys[0]], "count": len(keys)}
                for keys in list(alike.values())[:MAX_TABLE_ROWS]
            ],
            "left_out": max(0, len(alike) - MAX_TABLE_ROWS),
            "examined": len(ids) if len(ids) == MAX_EXAMINED else None,
            "took": round((time.perf_counter() - started) * 1000),
        }

    def _on_causes(self, message: Question) -> Answer:
        """List what failed by cause, and how long the workflows took."""
        started = time.perf_counter()
        answer: dict[str, object] = {**self._causes()}
        stamp = serialize.stamp(answer)
        if message.get("stamp") == stamp:
            answer = {"same": True}
        return {**answer, "stamp": stamp, "took": round((time.perf_counter() - started) * 1000)}

    def _causes(self) -> BoardCauses:
        frame, durations = self._store.read(_read_causes, WINDOWS[self.window][0])
        rows = durations[durations["p50"].notna()]
        return {
            "failures": [_failure(each) for each in frame.head(MAX_TABLE_ROWS).to_dict("records")],
            "more_failures": max(0, len(frame) - MAX_TABLE_ROWS),
            "durations": [
                _durations(each) for each in rows.head(MAX_TABLE_ROWS).to_dict("records")
            ],
            "more_durations": max(0, len(rows) - MAX_TABLE_ROWS),
        }

    def static_html(self) -> str:
        """Return the board as tables that need no kernel."""
        facts, causes = board_facts(self.read()), self._causes()
        return html_export.board(self._store.label, facts, causes, self.window)

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


def _finding(finding: Finding) -> BoardFinding:
    """Return a finding of the diagnosis, with the action that would help, if a button can do it."""
    row: BoardFinding = compact(
        {
            "severity": finding.severity,
            "subject": serialize.label(finding.short_subject),
            "full_subject": serialize.label(finding.subject),
            "says": RULES[finding.rule],
            "evidence": truncate(finding.evidence, 2_000),
            "remedy": truncate(finding.remedy, 1_000),
            "affected": finding.affected,
            "since": serialize.milliseconds(finding.since),
            "ids": list(finding.workflow_ids),
        }
    )
    call = finding.call
    if call is not None:
        row["action"] = call.method
        row["targets"] = list(call.targets)
        row["options"] = {
            name: value for name, value in call.options.items() if isinstance(value, str | bool)
        }
    return row


def _since(queries: Queries, window: dt.timedelta) -> dict[str, Any]:
    since = dt.datetime.now(dt.UTC) - window
    return ended_since(queries, int(since.timestamp() * 1000))


def _read_failures(session: Session, queries: Queries, window: dt.timedelta) -> pd.DataFrame:
    return failures(session, queries, None, "created_at", _since(queries, window))


def _read_causes(
    session: Session, queries: Queries, window: dt.timedelta
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read what failed by cause, and the statistics of the workflows, in one snapshot."""
    durations = workflow_statistics(
        session, queries, "name", None, "created_at", exact=False, filters=_since(queries, window)
    )
    return _read_failures(session, queries, window), durations


def _failure(record: dict[Any, Any]) -> BoardFailure:
    row: BoardFailure = compact(
        {
            **{
                name: serialize.label(record[column])
                for name, column in (
                    ("name", "name"),
                    ("step", "failed_step"),
                    ("type", "error_type"),
                    ("message", "message"),
                )
                if not pd.isna(record[column])
            },
            "count": int(record["count"]),
            "unaddressed": int(record["unaddressed"]),
            "ancestors": int(record["failed_ancestors"]),
            "versions": [serialize.label(each) for each in record["versions"]],
            "last": serialize.milliseconds(record["last_seen"]),
            "id": record["example"],
            # All of them and what failed because of them: a repair skips what is repaired already.
            "ids": [*record["workflow_ids"], *record["ancestor_ids"]][:MAX_REPAIRED],
        }
    )
    return row


def _durations(record: dict[Any, Any]) -> BoardDurations:
    second = pd.Timedelta("1s")
    # As on SQLite, where DBOS records whole seconds: neither sum nor maximum has a fraction.
    coarse = record["total"] % second == record["max"] % second == pd.Timedelta(0)
    row: BoardDurations = compact(
        {
            "name": serialize.label(record["name"]),
            "count": int(record["count"]),
            "p50": serialize.milliseconds(record["p50"]),
            "p99": serialize.milliseconds(record["p99"]),
            "coarse": coarse or None,
        }
    )
    return row
