"""The rows that an execution graph is made of, read in one snapshot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import sqlalchemy as sa

from dbos_notebook.payloads import decode
from dbos_notebook.tables import frames, listings
from dbos_notebook.tables.vocabulary import MESSAGE, STEP, Column

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.queries import Queries

_MESSAGE = tuple(
    column
    for column in MESSAGE
    if column.name in ("workflow_id", "created_at", "consumed_by_function_id")
)
_STEP = {column.name: column for column in STEP}
# The stored result of a sleep is short, and is decoded here alone.
_SLEEP = (
    _STEP["workflow_id"],
    _STEP["function_id"],
    Column("output", "text", "When it wakes.", "output"),
    Column("serialization", "category", "The format of the stored text.", "serialization"),
)
_SECONDS_END = 10**11
"""A wake-up time below is in seconds (Python), above in milliseconds (TypeScript)."""


@dataclass(frozen=True)
class Rows:
    """What was read: workflows with ``depth``, steps, messages received, and of steps what sleeps'
    wake-up times are and which were copied.
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
    listings.require_known(session, queries, [workflow_id])
    roots = [workflow_id]
    if forks:
        roots += _family(session, queries, workflow_id)
    read_at = pd.Timestamp(dt.datetime.now(dt.UTC)).floor("ms")
    workflows = listings.tree(session, queries, roots, depth)
    ids = workflows["workflow_id"].tolist()
    columns, batches = listings.step_batches(session, queries, ids, load_output=load_output)
    steps = frames.to_frame(batches, columns)
    if load_output:
        workflows = workflows.merge(_outputs(session, queries, ids), on="workflow_id", how="left")
    names = steps["function_name"]
    receivers = steps.loc[names == "DBOS.recv", "workflow_id"].unique().tolist()
    sleepers = steps.loc[names == "DBOS.sleep", "workflow_id"].unique().tolist()
    return Rows(
        tuple(roots),
        workflows,
        steps,
        _messages(session, queries, receivers),
        _wakes(session, queries, sleepers),
        _copied(session, queries, workflows),
        read_at,
    )


def _outputs(session: Session, queries: Queries, ids: Sequence[str]) -> pd.DataFrame:
    columns, batches = listings.workflow_batches(
        session, queries, {"workflow_ids": ids}, load_output=True, newest_first=None
    )
    frame = frames.to_frame(batches, columns)
    return frame[["workflow_id", "output", "error"]]


def _family(session: Session, queries: Queries, workflow_id: str) -> list[str]:
    """Find what it was forked from, and all that was forked from any of these."""
    origin = queries.column(queries.workflows, "forked_from")
    key = queries.workflows.c.workflow_uuid
    if isinstance(origin, sa.Null):
        return []
    found = [workflow_id]
    # Up by key, then down by forked_from; a cycle made by hand ends either.
    for condition, wanted in ((key, origin), (origin, key)):
        level = list(found)
        while level:
            statement = sa.select(wanted.label("workflow_id")).where(
                queries.member(condition, level), wanted.is_not(None)
            )
            rows = session.rows(statement)
            level = list(
                dict.fromkeys(row["workflow_id"] for row in rows if row["workflow_id"] not in found)
            )
            found += level
    known = session.rows(sa.select(key.label("workflow_id")).where(queries.member(key, found[1:])))
    exists = {row["workflow_id"] for row in known}
    # The original may have been deleted.
    return [each for each in found[1:] if each in exists]


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


def _wakes(session: Session, queries: Queries, sleepers: Sequence[str]) -> pd.DataFrame:
    """Read when sleeps end: still in dbos 2.20 a sleep's row was completed as it began."""
    names = ["workflow_id", "function_id", "wakes_at"]
    if not sleepers:
        return pd.DataFrame({name: [] for name in names})
    table = queries.steps
    statement = sa.select(*queries.select(table, _SLEEP)).where(
        queries.member(table.c.workflow_uuid, sleepers), table.c.function_name == "DBOS.sleep"
    )
    frame = _frame(session, statement, _SLEEP)
    frame["wakes_at"] = pd.Series(
        [
            _instant(decode(text, form))
            for text, form in zip(frame["output"], frame["serialization"], strict=True)
        ],
        index=frame.index,
        dtype="datetime64[ms, UTC]",
    )
    return frame.loc[frame["wakes_at"].notna(), names]


def _copied(session: Session, queries: Queries, workflows: pd.DataFrame) -> pd.DataFrame:
    """Read which steps of forks are copies: those that are the original's, times and all.

    By time alone a copy is not told from the fork's own step in a database of whole seconds.
    """
    forks = workflows.loc[workflows["forked_from"].notna(), "workflow_id"].tolist()
    table, columns = queries.workflows, ("started_at_epoch_ms", "completed_at_epoch_ms")
    if not forks or not all(name in queries.steps.c for name in columns):
        return pd.DataFrame({column.name: [] for column in _SLEEP[:2]})
    mine, theirs = queries.steps.alias("mine"), queries.steps.alias("theirs")
    same = [mine.c[name] == theirs.c[name] for name in ("function_id", *columns)]
    statement = (
        sa.select(*queries.select(mine, _SLEEP[:2]))
        .select_from(table)
        .join(mine, mine.c.workflow_uuid == table.c.workflow_uuid)
        .join(theirs, sa.and_(theirs.c.workflow_uuid == table.c.forked_from, *same))
        .where(queries.member(table.c.workflow_uuid, forks))
    )
    return _frame(session, statement, _SLEEP[:2])


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
