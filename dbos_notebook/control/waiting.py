"""Watching workflows until they have finished. It reads; the workflows do not notice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from dbos_notebook.control.live import Display
from dbos_notebook.control.rows import ACTIVE, Row
from dbos_notebook.control.sheet import progress
from dbos_notebook.errors import DatabaseConnectionError
from dbos_notebook.tables.vocabulary import STATUSES

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.1, 2.0
PATIENCE_SECONDS = 30.0
"""How long a database may be gone before waiting for its workflows ends."""
SHOWN_WORKFLOWS = 8
GONE = "deleted"

Read = Callable[[Sequence[str]], dict[str, Row]]


def watch(read: Read, ids: Sequence[str], timeout: float | None, title: str) -> dict[str, Row]:
    """Look at workflows until none is active or the time is up; return those that there are.

    Parameters
    ----------
    read
        Reads the rows of workflows, by ID; those that are gone are left out.
    ids
        Which.
    timeout
        Seconds; ``None``: as long as it takes.
    title
        What the live table is called.
    """
    begun = time.monotonic()
    seen: dict[str, Row] = {}
    waiting = list(ids)
    pause = FIRST_LOOK_SECONDS
    lost_at: float | None = None
    display = Display()
    try:
        while True:
            try:
                now = read(waiting)
            except DatabaseConnectionError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_SECONDS:
                    raise
            else:
                lost_at = None
                for one in waiting:
                    if one in now:
                        seen[one] = now[one]
                    else:
                        seen.pop(one, None)
                waiting = [one for one in waiting if one in now and now[one].status in ACTIVE]
            took = time.monotonic() - begun
            if display.enabled and took > 1:
                display.show(*_table(title, ids, seen, waiting))
            left = None if timeout is None else timeout - took
            if not waiting or (left is not None and left <= 0):
                return seen
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK_SECONDS)
    finally:
        display.close(*_table(title, ids, seen, waiting))


def _table(
    title: str, ids: Sequence[str], seen: dict[str, Row], waiting: Sequence[str]
) -> tuple[str, str]:
    found = Counter(seen[one].status if one in seen else GONE for one in ids)
    order = [*STATUSES, GONE]
    counts = {status: found[status] for status in order if found[status]}
    lines = [[seen[one].name or "", one, seen[one].status] for one in waiting[:SHOWN_WORKFLOWS]]
    if len(waiting) > SHOWN_WORKFLOWS:
        lines.append([f"… and {len(waiting) - SHOWN_WORKFLOWS:,} more", "", ""])
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    head = f"{title}: {len(ids) - len(waiting):,} of {len(ids):,} have finished"
    return progress(head, counts, lines), f"{head} ({told})"
