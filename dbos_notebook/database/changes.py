"""What happens when a database changes under a client that stays open.

An application that is upgraded migrates its tables. Each session therefore looks, with its first
statement, at a fingerprint of the tables; where it is another than before, the catalog is read
again. A call that notices the change too late is repeated.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dbos_notebook.database.forking import reset_after_fork
from dbos_notebook.errors import DatabaseChangedError

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog

P = ParamSpec("P")
T = TypeVar("T")

TABLES = (
    "application_versions",
    "notifications",
    "operation_outputs",
    "queues",
    "streams",
    "workflow_events",
    "workflow_events_history",
    "workflow_input",
    "workflow_output",
    "workflow_schedules",
    "workflow_status",
)
"""The tables that are looked at: those that ``tables`` reads."""
TRIES = 8
"""How often a call is made before its DatabaseChangedError is raised."""


class SchemaChanges:
    """Notices that tables or columns were created, changed or dropped since the last session.

    Every reader has one. It calls :meth:`settle` before each session, and asks :meth:`differs` with
    the fingerprint that the session saw; if so, it ends the session and calls :meth:`update`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._seen: str | None = None
        self._first: Catalog | None = None
        self._read_again: Callable[[], Catalog] | None = None
        self._reading_thread: int | None = None
        self._doubtful = False
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Take a lock that no thread of the parent holds."""
        self._lock = threading.RLock()
        self._reading_thread = None

    def follow(self, catalog: Catalog, read_again: Callable[[], Catalog]) -> None:
        """Begin to notice changes of what ``catalog`` says.

        ``read_again`` is called, with no session open, when the tables may have changed. It opens
        sessions of its own, has the new catalog used, and returns it.
        """
        self._first, self._read_again = catalog, read_again

    def settle(self) -> None:
        """Read the tables again if they are in doubt."""
        if self._doubtful and self._reading_thread != threading.get_ident():
            with self._lock:
                if self._read() == self._first:
                    self._doubtful = False

    def differs(self, fingerprint: str) -> bool:
        """Return whether the tables are others than those of the catalog."""
        if self._read_again is None:
            self._seen = self._seen or fingerprint
            return False
        return fingerprint != self._seen and self._reading_thread != threading.get_ident()

    def update(self, fingerprint: str) -> None:
        """Read the tables again, whose fingerprint this is, unless another thread has done it.

        Raises what reading the tables raises; the next session then tries again.
        """
        with self._lock:
            if fingerprint != self._seen:
                self._first = self._read()
                self._seen, self._doubtful = fingerprint, False

    def doubt(self) -> None:
        """Have every session read the tables again, until they are what they were.

        For a table or column that has gone and left the fingerprint as it was: should it come
        back, the fingerprint would not show that either.
        """
        self._doubtful = True

    def _read(self) -> Catalog | None:
        if self._read_again is None:
            return None
        self._reading_thread = threading.get_ident()
        try:
            return self._read_again()
        finally:
            self._reading_thread = None


def repeat_if_changed(call: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that only reads: repeat it when it raises DatabaseChangedError."""

    @functools.wraps(call)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return call(*args, **kwargs)
            except DatabaseChangedError:
                continue  # the next session reads the tables again
        return call(*args, **kwargs)

    return repeated
