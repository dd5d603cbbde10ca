"""What has become of failures: each one's latest fork, and which nobody has dealt with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbos_notebook.control import rows
from dbos_notebook.control.rows import Row
from dbos_notebook.tables.vocabulary import FAILED_STATUSES, TEXT

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.queries import Queries

COLUMNS = (
    "workflow_id",
    "name",
    "status",
    "app_version",
    "state",
    "forks",
    "latest_fork",
    "latest_fork_status",
    "latest_fork_version",
    "covered_by",
)
STATES = ("repaired", "in progress", "failed again", "covered", "unaddressed", "not failed")


def repair_status(session: Session, queries: Queries, ids: Sequence[str]) -> pd.DataFrame:
    """Look up the forks of workflows, the forks of those, and the forks of their parents."""
    import pandas as pd

    everything = rows.with_ancestors(session, queries, ids)
    forked = descent(session, queries, list(everything))
    table = []
    for one in ids:
        row = everything.get(one)
        if row is None:
            continue
        forks = forked.get(one, [])
        latest = max(forks, key=lambda fork: (fork.created_at or 0, fork.workflow_id), default=None)
        covered = _covered(row, everything, forked)
        table.append(
            (
                one,
                row.name,
                row.status,
                row.app_version,
                _state(row, forks, latest, covered),
                len(forks),
                latest.workflow_id if latest else None,
                latest.status if latest else None,
                latest.app_version if latest else None,
                covered,
            )
        )
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    frame = frame.astype({name: TEXT for name in COLUMNS if name != "forks"} | {"forks": "Int64"})
    frame["state"] = pd.Categorical(frame["state"], STATES, ordered=True)
    return frame


def _state(row: Row, forks: Sequence[Row], latest: Row | None, covered: str | None) -> str:
    if row.status not in FAILED_STATUSES:
        return "not failed"
    if any(fork.status == "SUCCESS" for fork in forks):
        return "repaired"
    if any(fork.active for fork in forks):
        return "in progress"
    if covered:
        return "covered"
    return "failed again" if latest else "unaddressed"


def descent(session: Session, queries: Queries, ids: Sequence[str]) -> dict[str, list[Row]]:
    """Find the forks of each workflow, and the forks of those."""
    made: dict[str, list[Row]] = {}
    for fork in rows.forks(session, queries, ids).values():
        made.setdefault(fork.forked_from or "", []).append(fork)
    return {one: below for one in ids if (below := _below(one, made))}


def _below(one: str, made: dict[str, list[Row]]) -> list[Row]:
    found: dict[str, Row] = {}
    left = [one]
    while left:
        for fork in made.get(left.pop(), ()):
            # Forks in a circle were made by hand.
            if fork.workflow_id not in found and fork.workflow_id != one:
                found[fork.workflow_id] = fork
                left.append(fork.workflow_id)
    return list(found.values())


def _covered(row: Row, known: dict[str, Row], forked: dict[str, list[Row]]) -> str | None:
    """Return the fork of an ancestor that has succeeded: the failure below it no longer matters."""
    seen: set[str] = set()
    parent = row.parent_workflow_id
    while parent and parent not in seen:
        seen.add(parent)
        for fork in forked.get(parent, ()):
            if fork.status == "SUCCESS":
                return fork.workflow_id
        above = known.get(parent)
        parent = above.parent_workflow_id if above else None
    return None
