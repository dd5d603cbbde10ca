"""The event log of runs, with the column names of pm4py and of the XES standard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis.selections import copied_steps
from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.tables import frames, listings
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.timing import operation

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

_CASE = (
    "name",
    "status",
    "app_version",
    "queue_name",
    "executor_id",
    "created_at",
    "duration",
    "parent_workflow_id",
    "forked_from",
)
"""Columns of workflows that become attributes of their cases."""
_KEY = (
    Column("workflow_id", "text", "", "workflow_uuid"),
    Column("function_id", "integer", "", "function_id"),
)


def event_log(
    session: Session, queries: Queries, filters: Mapping[str, Any], limit: int | None
) -> tuple[pd.DataFrame, bool]:
    """Return the steps of the newest ``limit`` runs as events, and whether there are more runs."""
    runs, truncated = listings.workflows(
        session, queries, filters, limit, None, decode_inert, load_errors=False
    )
    ids = runs["workflow_id"].tolist()
    columns, batches = listings.step_batches(session, queries, ids)
    steps = frames.to_frame(batches, columns)
    steps["copied"] = _copied(session, queries, runs, steps)
    events = pd.DataFrame(
        {
            "case:concept:name": steps["workflow_id"],
            "concept:name": steps["function_name"].astype(STRING_DTYPE),
            "start_timestamp": steps["started_at"],
            "time:timestamp": steps["completed_at"],
            "lifecycle:transition": pd.Series("complete", steps.index, dtype=STRING_DTYPE),
            "function_id": steps["function_id"],
            "operation": _operations(steps),
            "status": steps["status"],
            "error_type": steps["error_type"],
            "child_workflow_id": steps["child_workflow_id"],
            "copied": steps["copied"],
        }
    )
    position = pd.Series(range(len(runs)), index=runs["workflow_id"], dtype="int64")
    place = position.reindex(steps["workflow_id"]).to_numpy()
    for name in _CASE:
        values = runs[name].iloc[place].reset_index(drop=True)
        values.index = events.index
        events[f"case:{name}"] = values
    # By case as listed, and within one by completion; where a time is missing, by function_id.
    ended = events["time:timestamp"]
    incomplete = ended.isna().groupby(place).transform("any")
    events["_place"], events["_ended"] = place, ended.where(~incomplete)
    events = events.sort_values(["_place", "_ended", "function_id"], kind="stable")
    events = events.drop(columns=["_place", "_ended"]).reset_index(drop=True)
    return frames.mark_listing(events, "event_log"), truncated


def _operations(steps: pd.DataFrame) -> pd.Series[Any]:
    """Return the operation of each step, as in graphs."""
    names = steps["function_name"].astype(STRING_DTYPE)
    words = names.map({name: operation(name) for name in names.dropna().unique()})
    starts = steps["child_workflow_id"].notna() & (words != "get_result")
    return words.where(~starts, "start_child").astype("category")


def _copied(
    session: Session, queries: Queries, runs: pd.DataFrame, steps: pd.DataFrame
) -> pd.Series[Any]:
    """Return which steps forks copied from their originals; missing where it is not known."""
    if "forked_from" not in queries.workflows.c:
        # Nor is it known which runs are forks.
        return pd.Series(pd.NA, index=steps.index, dtype="boolean")
    condition = copied_steps(queries)
    forks = runs.loc[runs["forked_from"].notna(), "workflow_id"].tolist()
    if condition is None:
        # Without times, a copied step of a fork looks like one that ran.
        known = ~steps["workflow_id"].isin(forks)
        return known.map({True: False, False: pd.NA}).astype("boolean")
    table, workflows = queries.steps, queries.workflows
    statement = (
        sa.select(*queries.select(table, _KEY))
        .select_from(table.join(workflows, workflows.c.workflow_uuid == table.c.workflow_uuid))
        .where(queries.member(table.c.workflow_uuid, forks), condition)
    )
    found = frames.to_frame(listings.typed_batches(session, statement, _KEY), _KEY)
    keys = pd.MultiIndex.from_frame(steps[["workflow_id", "function_id"]])
    copies = pd.MultiIndex.from_frame(found[["workflow_id", "function_id"]])
    return pd.Series(keys.isin(copies), index=steps.index, dtype="boolean")
