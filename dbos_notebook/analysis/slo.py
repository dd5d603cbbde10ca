"""Whether runs succeed fast enough: service levels, error budgets and burn rates.

A run is good if it succeeds within the latency, counted from its creation (or the end of its
delay), so that waiting on a queue counts. Each run is decided at one time: when it ends, or when
the latency is over, whichever comes first. A window contains the runs that were decided in it: runs
that are still young count later, and runs that hang count as bad as soon as they are too slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.confidence import rate_interval
from dbos_notebook.analysis.selections import evaluated_once, run_columns, run_rows
from dbos_notebook.analysis.throughput import integers, milliseconds, now_ms
from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import ERROR_STATUSES
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import read_frame
from dbos_notebook.tables.columns import Column
from dbos_notebook.tables.filters import as_name
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.types import Duration

LOOKBACKS_MS = (3_600_000, 6 * 3_600_000, 24 * 3_600_000)
"""The last hour, six hours and day, beside the whole window."""
_COUNTS = ("runs", "good", "failed", "slow", "cancelled", "unknown")


def slo(
    session: Session,
    queries: Queries,
    name: str,
    latency: Duration | str,
    target: float,
    window: Duration | str,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Return a row for the whole window, and one for each shorter lookback."""
    workflow = as_name(name, "name")
    limit = milliseconds(latency, "latency")
    length = milliseconds(window, "window")
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < 1:
        raise FilterError(
            f"target={target!r} must be a share above 0 and below 1, such as 0.99: a target of 1 "
            "has no error budget."
        )
    _require_known(session, queries, workflow)
    now = now_ms()
    lengths = [*(each for each in LOOKBACKS_MS if each < length), length]
    counted, undecided = _read_counts(
        session, queries, {**filters, "name": [workflow]}, limit, lengths, now
    )
    rows = [
        {
            "window": pd.Timedelta(each, unit="ms"),
            "since": pd.Timestamp(now - each, unit="ms", tz="UTC"),
            **_service_level({kind: counts[kind] for kind in _COUNTS}, float(target)),
        }
        for each, counts in zip(lengths, counted, strict=True)
    ]
    frame = pd.DataFrame(rows)
    frame["window"] = frame["window"].astype("timedelta64[ms]")
    frame["since"] = frame["since"].astype("datetime64[ms, UTC]")
    for column in _COUNTS:
        frame[column] = frame[column].astype("Int64")
    frame["met"] = frame["met"].astype("boolean")
    frame.attrs |= {
        "name": workflow,
        "latency": pd.Timedelta(limit, unit="ms"),
        "target": float(target),
        "undecided": undecided,
    }
    return frames.mark_listing(frame, "slo")


def _require_known(session: Session, queries: Queries, name: str) -> None:
    column = queries.column(queries.workflows, "name")
    found = sa.select(column.label("name")).where(*queries.where({"name": [name]})).limit(1)
    shape = (Column("name", "text", "", "name"),)
    if not read_frame(session, found, shape).empty:
        return
    names = sa.select(column.label("name")).where(column.is_not(None), *queries.where({}))
    known = sorted(read_frame(session, names.distinct(), shape)["name"].tolist())
    listed = ", ".join(known[:10]) or "none"
    raise FilterError(
        f"No workflow is named {name!r}.{nearest(name, known)} The names are: {listed}."
    )


def _read_counts(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    limit: int,
    lengths: list[int],
    now: int,
) -> tuple[list[dict[str, int]], int]:
    """Count the runs of each kind that were decided in each window, and those undecided now."""
    rows = evaluated_once(run_rows(queries, run_columns("delay_until"), filters, now))
    created, delay = rows.c.created_at_ms, rows.c.delay_until
    base = sa.case((delay > created, delay), else_=created)
    status, ended = rows.c.run_status, rows.c.ended_at_ms
    until = base + limit
    # Too slow, however it ended; or it is still active and the latency is over.
    slow = sa.case((ended.is_(None), until <= now), else_=ended > until)
    kind = sa.case(
        (base.is_(None), "unknown"),
        (slow, "slow"),
        (status == "SUCCESS", "good"),
        (status.in_(ERROR_STATUSES), "failed"),
        (status == "CANCELLED", "cancelled"),
        else_="undecided",
    )
    decided = sa.case((slow, until), (ended.is_not(None), ended), else_=created)
    runs = sa.select(kind.label("kind"), decided.label("decided")).subquery("runs")
    counts = [
        sa.func.sum(sa.case((runs.c.decided.between(now - each + 1, now), 1), else_=0)).label(
            f"window_{number}"
        )
        for number, each in enumerate(lengths)
    ]
    statement = sa.select(runs.c.kind, sa.func.count().label("all"), *counts).group_by(runs.c.kind)
    names = ["all", *(count.name for count in counts)]
    shape = [Column("kind", "text", "", "kind"), *integers(*names)]
    found = read_frame(session, statement, shape).set_index("kind")
    result = []
    for count in counts:
        numbers = {each: _cell(found, each, count.name) for each in _COUNTS[1:]}
        # Without a time of its creation, it is in no window.
        numbers["unknown"] = _cell(found, "unknown", "all")
        numbers["runs"] = numbers["good"] + numbers["failed"] + numbers["slow"]
        result.append(numbers)
    return result, _cell(found, "undecided", "all")


def _cell(table: pd.DataFrame, row: str, column: str) -> int:
    return int(table.loc[row, column]) if row in table.index else 0  # type: ignore[arg-type] # the stubs allow any value


def _service_level(counts: dict[str, int], target: float) -> dict[str, Any]:
    """Return the compliance with its interval, the budget and the burn rate."""
    runs, good = counts["runs"], counts["good"]
    share = rate_interval(good, runs)
    burn = (1 - share.value) / (1 - target)
    return {
        **counts,
        "compliance": share.value,
        "compliance_low": share.lower,
        "compliance_high": share.upper,
        "met": good >= target * runs if runs else pd.NA,
        "budget": (1 - target) * runs,
        "budget_left": 1 - burn,
        "burn_rate": burn,
    }
