"""Statistics of steps: counts, failures and durations by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.selections import step_columns, step_rows
from dbos_notebook.errors import FilterError
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import read_frame
from dbos_notebook.tables.columns import Column
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session


def step_statistics(
    session: Session, queries: Queries, by: str | Iterable[str], filters: Mapping[str, Any]
) -> pd.DataFrame:
    """Summarize durations and failures of the steps of the selected workflows.

    Steps that a fork copied from its original are excluded, because they ran once. Quantiles use
    linear interpolation, like pandas and PostgreSQL's percentile_cont. SQLite has no quantiles, so
    the durations are read and pandas computes them.
    """
    columns = step_columns(by)
    if not columns:
        raise FilterError("by=[] has no column to group by. Use by='function_name'.")
    rows = step_rows(queries, columns, filters)
    if queries.catalog.dialect == "postgresql":
        frame = _percentiles(session, rows, columns)
    else:
        frame = _quantiles(session, rows, columns)
    frame = frame.sort_values(["total", "count"], ascending=False)
    return frames.mark_listing(frame.reset_index(drop=True))


_STATISTICS = ("total", "mean", "p50", "p95", "max")


def _percentiles(session: Session, rows: sa.Subquery, columns: Sequence[Column]) -> pd.DataFrame:
    duration = rows.c.duration_ms

    def quantile(share: float) -> Any:
        return sa.func.percentile_cont(share).within_group(duration)

    values = (
        sa.func.sum(duration),
        sa.func.avg(duration),
        quantile(0.5),
        quantile(0.95),
        sa.func.max(duration),
    )
    statement = sa.select(
        *(rows.c[column.name] for column in columns),
        sa.func.count().label("count"),
        sa.func.sum(rows.c.failed).label("errors"),
        *(
            sa.cast(value, sa.Double()).label(name)
            for name, value in zip(_STATISTICS, values, strict=True)
        ),
    ).group_by(*(rows.c[column.name] for column in columns))
    shape = [Column(c.name, c.kind, "", c.name) for c in columns]
    shape += [Column(name, "integer", "", name) for name in ("count", "errors")]
    shape += [Column(name, "number", "", name) for name in _STATISTICS]
    return _as_durations(read_frame(session, statement, shape))


def _quantiles(session: Session, rows: sa.Subquery, columns: Sequence[Column]) -> pd.DataFrame:
    shape = [Column(c.name, c.kind, "", c.name) for c in columns]
    shape += [Column(name, "integer", "", name) for name in ("duration_ms", "failed")]
    names = [column.name for column in shape]
    frame = read_frame(session, sa.select(*(rows.c[name] for name in names)), shape)
    groups = frame.groupby([c.name for c in columns], observed=True, dropna=False)
    duration = groups["duration_ms"]
    result = pd.DataFrame(
        {
            "count": groups.size(),
            "errors": groups["failed"].sum(),
            "total": duration.sum(min_count=1),
            "mean": duration.mean(),
            "p50": duration.quantile(0.5),
            "p95": duration.quantile(0.95),
            "max": duration.max(),
        }
    ).reset_index()
    return _as_durations(result.astype({"count": "Int64", "errors": "Int64"}))


def _as_durations(frame: pd.DataFrame) -> pd.DataFrame:
    for name in _STATISTICS:
        milliseconds = frame[name].astype("Float64").round().astype("Int64")
        frame[name] = pd.to_timedelta(milliseconds.astype("float64"), unit="ms").astype(
            "timedelta64[ms]"
        )
    return frame
