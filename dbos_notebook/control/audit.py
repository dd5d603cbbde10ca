"""The audit: who called what with which outcomes, in the log and for this session."""

from __future__ import annotations

import datetime as dt
import getpass
import logging
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbos_notebook.status import OUTCOMES
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.receipt import Receipt

logger = logging.getLogger("dbos_notebook.control")
COLUMNS = (
    "called_at",
    "user",
    "action",
    "options",
    "workflows",
    *OUTCOMES,
    "took",
)


@dataclass(frozen=True)
class Entry:
    """One control call."""

    called_at: dt.datetime
    user: str
    action: str
    options: str
    receipt: Receipt
    took: dt.timedelta


def current_user() -> str:
    """Return the name of the user and of the machine.

    Examples
    --------
    >>> "@" in current_user()
    True
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # The user of a container may have no name.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class History:
    """The control calls of one client, oldest first."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(
        self, called_at: dt.datetime, action: str, options: Mapping[str, object], receipt: Receipt
    ) -> None:
        """Add a call, and log it: a line for the call and one for each workflow."""
        listed = ", ".join(f"{name}={value!r}" for name, value in options.items())
        entry = Entry(
            called_at, current_user(), action, listed, receipt, dt.datetime.now(dt.UTC) - called_at
        )
        with self._lock:
            self._entries.append(entry)
        counts = ", ".join(f"{count} {name}" for name, count in receipt.counts.items() if count)
        logger.info("%s: %s(%s) on %s: %s", entry.user, action, listed, self._database, counts)
        for line in receipt.lines:
            logger.info(
                "%s: %s %r%s: %s (%s → %s)%s%s",
                entry.user,
                action,
                line.workflow_id,
                "" if line.start_step is None else f" from step {line.start_step}",
                line.outcome,
                sanitize(line.status_before),
                sanitize(line.status_after),
                f" as {line.new_workflow_id!r}" if line.new_workflow_id else "",
                f": {sanitize(line.detail, 2_000)}" if line.detail else "",
            )

    @property
    def last(self) -> Receipt | None:
        """The receipt of the latest call."""
        return self._entries[-1].receipt if self._entries else None

    def to_frame(self) -> pd.DataFrame:
        """Return the calls as a DataFrame."""
        import pandas as pd

        from dbos_notebook.tables.columns import STRING_DTYPE

        rows = [
            (
                entry.called_at,
                entry.user,
                entry.action,
                entry.options,
                len(entry.receipt),
                *entry.receipt.counts.values(),
                entry.took,
            )
            for entry in list(self._entries)
        ]
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        return frame.astype(
            dict.fromkeys(("user", "action", "options"), STRING_DTYPE)
            | dict.fromkeys(("workflows", *OUTCOMES), "Int64")
            | {"called_at": "datetime64[ms, UTC]", "took": "timedelta64[ms]"}
        )
