"""What every reader of a system database offers; the two that exist are siblings.

A reader opens sessions. A session is one read-only snapshot: all its statements see the
same moment. Rows come as Arrow record batches with the types that the caller names.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from dbos_notebook.database.fork_safety import reset_after_fork
from dbos_notebook.errors import DatabaseChangedError

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

    from dbos_notebook.database.csv_blocks import Each
    from dbos_notebook.database.location import Location


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
        self._first: object = None
        self._read_again: Callable[[], object] | None = None
        self._reading_thread: int | None = None
        self._doubtful = False
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Take a lock that no thread of the parent holds."""
        self._lock = threading.RLock()
        self._reading_thread = None

    def follow(self, catalog: object, read_again: Callable[[], object]) -> None:
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

    def _read(self) -> object:
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


class Session(Protocol):
    """One read-only snapshot of a system database."""

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """Run a statement of few rows and return them as dictionaries."""
        ...

    def batches(
        self,
        statement: sa.Select[Any] | sa.CompoundSelect[Any],
        schema: pa.Schema,
        each: Each | None = None,
    ) -> Generator[pa.RecordBatch]:
        """Run a statement of any size and stream its rows in the given Arrow schema.

        What ``each`` makes of a batch is made while the next rows come, on another thread.
        One stream at a time: it must be read to its end, or closed, before the next statement.
        """
        ...

    def tables(
        self, *queries: tuple[sa.Select[Any] | sa.CompoundSelect[Any], pa.Schema]
    ) -> list[list[pa.RecordBatch]]:
        """Run several statements of few rows; return each one's batches in its Arrow schema.

        A server is asked once for all of them, because it may be far.
        """
        ...

    def explain(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> str:
        """Return the database's plan for a statement, without running it."""
        ...


class Reader(Protocol):
    """A way to open sessions on one system database, from any thread."""

    location: Location
    dialect: str
    schema: str | None
    unreadable: frozenset[str]
    """Tables that the role may not read, as ``tables`` found."""
    changes: SchemaChanges
    """Told the fingerprint of the tables by each session, before the session is used."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a snapshot; it ends with the ``with`` block."""
        ...

    def tables(self) -> dict[str, frozenset[str]]:
        """Return the columns of each table that DBOS's schema holds, by table name."""
        ...

    def release(self) -> None:
        """Close the connections that no session uses. Later sessions open others."""
        ...

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        ...
