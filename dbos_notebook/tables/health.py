"""What the board shows: what waits, what ended in a window of time, and what failed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from dbos_notebook.tables import aggregates, listings
from dbos_notebook.tables.vocabulary import FAILED_STATUSES, QUEUED_STATUSES

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.trusted import Decoder
    from dbos_notebook.tables.queries import Queries

MOST_FAILURES = 500
"""Failed workflows whose errors are looked up, the newest: more would not be read by anyone."""


@dataclass(frozen=True)
class Health:
    """One moment of an application.

    Attributes
    ----------
    read_at
        The end of the window.
    window
        Its length.
    bucket
        The width of a bar.
    active
        How many workflows are DELAYED, ENQUEUED, PENDING now, by status.
    ended
        Columns ``status``, ``completed_at`` (start of the bucket), ``count``.
    queues
        As :meth:`Client.queues`.
    failures
        Columns ``name``, ``error_type``, ``error_message`` (the newest), ``messages`` (how many
        different ones, no message among them), ``count``, ``last`` and ``workflow_id`` (the
        newest); most first.
    cut
        Whether more failed than were looked at.
    """

    read_at: dt.datetime
    window: dt.timedelta
    bucket: dt.timedelta
    active: dict[str, int]
    ended: pd.DataFrame
    queues: pd.DataFrame
    failures: pd.DataFrame
    cut: bool


def health(
    session: Session,
    queries: Queries,
    window: dt.timedelta,
    bucket: dt.timedelta,
    decoder: Decoder,
) -> Health:
    """Read it, in one snapshot.

    The times of endings are ``completed_at`` where the database has it, else ``updated_at``.
    """
    now = dt.datetime.now(dt.UTC)
    since = int((now - window).timestamp() * 1000)
    recorded = queries.catalog.has("workflow_status", "completed_at")
    moment = "completed_at" if recorded else "updated_at"
    statuses = ["SUCCESS", *FAILED_STATUSES]
    after = {"completed_after": since} if recorded else {"start_time": since}
    active, ended = aggregates.all_counts(
        session,
        queries,
        ("status", None, "created_at", {"status": list(QUEUED_STATUSES)}),
        ("status", bucket, moment, {"status": statuses} | after),
    )
    failed, cut = listings.workflows(
        session,
        queries,
        {"status": ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]} | after,
        MOST_FAILURES,
        None,
        decoder,
        sort_desc=True,
        load_input=False,
        load_output=False,
        load_errors=True,
        normalize=False,
    )
    return Health(
        now,
        window,
        bucket,
        dict(zip(active["status"].astype(str), map(int, active["count"]), strict=True)),
        ended.rename(columns={moment: "completed_at"}),
        aggregates.queues(session, queries),
        _failures(failed, moment),
        cut,
    )


def _failures(failed: pd.DataFrame, moment: str) -> pd.DataFrame:
    keys = ["name", "error_type"]
    columns = [*keys, "error_message", "messages", "count", "last", "workflow_id"]
    if failed.empty:
        return pd.DataFrame(columns=columns)
    newest = failed.sort_values(moment, ascending=False).rename(columns={moment: "last"})
    said = newest["error_message"].astype("object")
    newest["error_message"] = said.where(said != "")
    newest["messages"] = said.where(said.notna(), "")
    groups = newest.groupby(keys, observed=True, dropna=False, sort=False)
    found = groups[["error_message", "last", "workflow_id"]].first()
    found["messages"] = groups["messages"].nunique()
    found["count"] = groups.size()
    found = found.reset_index().sort_values(["count", "last"], ascending=False)
    return found[columns].reset_index(drop=True)
