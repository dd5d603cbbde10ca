"""The rows that an execution graph is made of, read in one snapshot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.payloads import decode
from dbos_notebook.tables import frames, listings
from dbos_notebook.tables.vocabulary import MESSAGE, STEP, Column

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.queries import Queries

_MESSAGE = tuple(
    column
    for column in MESSAGE
    if column.name in ("workflow_id", "created_at", "consumed_by_function_id")
)
# The stored result of a sleep: when it wakes.
_WAKE = (
    Column("_wakes", "text", "", "output"),
    Column("_wakes_serialization", "text", "", "serialization"),
)
_SECONDS_END = 10**11
"""A wake-up time below is in seconds (Python), above in milliseconds (TypeScript)."""


@dataclass(frozen=True)
class Rows:
    """What was read: workflows with ``depth``, steps, messages received, and more of the steps.

    ``wakes`` has when sleeps end, ``copied`` which steps of forks are copies.
    """

    roots: tuple[str, ...]
    workflows: pd.DataFrame
    steps: pd.DataFrame
    messages: pd.DataFrame
    wakes: pd.DataFrame
    copied: pd.DataFrame
    read_at: pd.Timestamp


def read(
    session: Session,
    queries: Queries,
    workflow_id: str,
    *,
    depth: int | None,
    forks: bool,
    load_output: bool,
) -> Rows:
    """Read a workflow, what is below it, and with ``forks`` the forks and originals of it."""
    roots = _family(session, queries, workflow_id) if forks else [workflow_id]
    read_at = pd.Timestamp(dt.datetime.now(dt.UTC)).floor("ms")
    workflows = listings.tree(session, queries, roots, depth, load_output=load_output)
    ids = workflows["workflow_id"].tolist()
    columns: tuple[Column, ...] = (*listings.step_columns(load_output=load_output), *_WAKE)
    statement = queries.step_select(STEP, ids, load_output=load_output)
    statement = statement.add_columns(*_wake(queries))
    steps = frames.to_frame(listings.typed(session, statement, columns, queries.decoder), columns)
    wakes = _wakes(steps)
    steps = steps.drop(columns=[column.name for column in _WAKE])
    receivers = steps.loc[steps["function_name"] == "DBOS.recv", "workflow_id"]
    messages = _messages(session, queries, receivers.unique().tolist())
    copied = _copied(session, queries, workflows)
    return Rows(tuple(roots), workflows, steps, messages, wakes, copied, read_at)


def graph_of(rows: Rows, root: str, database: str) -> nx.DiGraph[Any]:
    """Make the execution graph of what was read."""
    from dbos_notebook.graphs.build import execution_graph

    return execution_graph(
        rows.workflows,
        rows.steps,
        root=root,
        messages=rows.messages,
        wakes=rows.wakes,
        copied=rows.copied,
        database=database,
        read_at=rows.read_at,
    )


def _family(session: Session, queries: Queries, workflow_id: str) -> list[str]:
    """Find a workflow, what it was forked from, and all that was forked from any of these."""
    family, key = queries.family(workflow_id), queries.workflows.c.workflow_uuid
    # Joined, because the original may have been deleted.
    statement = sa.select(family.c.child).select_from(
        family.join(queries.workflows, key == family.c.child)
    )
    return list(dict.fromkeys([workflow_id, *(row["child"] for row in session.rows(statement))]))


def _messages(session: Session, queries: Queries, receivers: Sequence[str]) -> pd.DataFrame:
    """Read which step received each message, where the database says so (dbos 3.0 and later)."""
    table = queries.catalog.table("notifications")
    receiver = queries.column(table, "consumed_by_function_id")
    if not receivers or isinstance(receiver, sa.Null):
        return pd.DataFrame({column.name: [] for column in _MESSAGE})
    statement = sa.select(*queries.select(table, _MESSAGE)).where(
        queries.member(table.c.destination_uuid, receivers), receiver.is_not(None)
    )
    return _frame(session, statement, _MESSAGE)


def _wake(queries: Queries) -> list[sa.ColumnElement[object]]:
    """Select the stored results of sleeps, which are short, and of no other step."""
    table = queries.steps
    sleeps = table.c.function_name == "DBOS.sleep"
    return [
        sa.case((sleeps, queries.column(table, column.source or ""))).label(column.name)
        for column in _WAKE
    ]


def _wakes(steps: pd.DataFrame) -> pd.DataFrame:
    """Tell when sleeps end: still in dbos 2.20 a sleep's row was completed as it began."""
    sleeps = steps[steps[_WAKE[0].name].notna()]
    frame = sleeps[["workflow_id", "function_id"]].assign(
        wakes_at=pd.Series(
            [
                _instant(decode(text, None if pd.isna(form) else form))
                for text, form in zip(*(sleeps[column.name] for column in _WAKE), strict=True)
            ],
            index=sleeps.index,
            dtype="datetime64[ms, UTC]",
        )
    )
    return frame[frame["wakes_at"].notna()]


def _copied(session: Session, queries: Queries, workflows: pd.DataFrame) -> pd.DataFrame:
    """Read which steps of forks are copies: those that are the original's, times and all.

    By time alone a copy is not told from the fork's own step in a database of whole seconds.
    """
    forks = workflows.loc[workflows["forked_from"].notna(), "workflow_id"].tolist()
    table, columns = queries.workflows, ("started_at_epoch_ms", "completed_at_epoch_ms")
    if not forks or not all(name in queries.steps.c for name in columns):
        return pd.DataFrame({column.name: [] for column in STEP[:2]})
    mine, theirs = queries.steps.alias("mine"), queries.steps.alias("theirs")
    same = [mine.c[name] == theirs.c[name] for name in ("function_id", *columns)]
    statement = (
        sa.select(*queries.select(mine, STEP[:2]))
        .select_from(table)
        .join(mine, mine.c.workflow_uuid == table.c.workflow_uuid)
        .join(theirs, sa.and_(theirs.c.workflow_uuid == table.c.forked_from, *same))
        .where(queries.member(table.c.workflow_uuid, forks))
    )
    return _frame(session, statement, STEP[:2])


def _instant(value: object) -> pd.Timestamp | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    milliseconds = value if value > _SECONDS_END else value * 1000
    # Beyond the year 9999 no time can be shown; "sleep for ever" is written so.
    if not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return pd.Timestamp(int(milliseconds), unit="ms", tz="UTC")


def _frame(
    session: Session, statement: sa.Select[tuple[object, ...]], columns: Sequence[Column]
) -> pd.DataFrame:
    schema = frames.transport_schema(columns)
    with closing(session.batches(statement, schema)) as stream:
        batches = [frames.derive(batch, columns, dt.datetime.now(dt.UTC)) for batch in stream]
    return frames.to_frame(batches, columns)
