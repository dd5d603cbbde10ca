"""Detect that the tables of a database changed under an open client, and repeat the read.

The first request of each session returns a fingerprint of the tables. When it differs from the one
before, the catalog is read again. A read that failed because of the change is repeated.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dbos_notebook.database.process_fork import reset_after_fork
from dbos_notebook.errors import DatabaseChangedError

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
"""The tables of DBOS that are read, and whose changes are detected."""
MAX_ATTEMPTS = 8
"""How often a call is attempted before its DatabaseChangedError is raised."""


class SchemaChanges:
    """Detects that tables or columns were created, changed or dropped since the last session.

    Every reader has one. It calls :meth:`refresh_if_stale` before each session and
    :meth:`has_changed` with the schema fingerprint that the session reads; if that returns true, it
    ends the session and calls :meth:`update`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fingerprint: str | None = None
        self._catalog: object = None
        self._read_catalog: Callable[[], object] | None = None
        self._reading_thread: int | None = None
        self._stale = False
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.RLock()
        self._reading_thread = None

    def follow(self, catalog: object, read_catalog: Callable[[], object]) -> None:
        """Start to detect changes of the tables in ``catalog``.

        ``read_catalog`` is called, with no session open, when the tables may have changed. It opens
        its own sessions, replaces the catalog in use, and returns the new one.
        """
        self._catalog, self._read_catalog = catalog, read_catalog

    def refresh_if_stale(self) -> None:
        """Read the catalog again if it was marked as stale."""
        if self._stale and self._reading_thread != threading.get_ident():
            with self._lock:
                if self._read() == self._catalog:
                    self._stale = False

    def has_changed(self, fingerprint: str) -> bool:
        """Return whether the tables differ from those of the catalog."""
        if self._read_catalog is None:
            self._fingerprint = self._fingerprint or fingerprint
            return False
        return fingerprint != self._fingerprint and self._reading_thread != threading.get_ident()

    def update(self, fingerprint: str) -> None:
        """Read the catalog for a new fingerprint, unless another thread has done so.

        Raises the errors of reading the catalog; the next session then tries again.
        """
        with self._lock:
            if fingerprint != self._fingerprint:
                self._catalog = self._read()
                self._fingerprint, self._stale = fingerprint, False

    def mark_stale(self) -> None:
        """Read the catalog before every session until it equals the current one.

        For a dropped table or column that does not change the fingerprint: its return would not
        change the fingerprint either.
        """
        self._stale = True

    def _read(self) -> object:
        if self._read_catalog is None:
            return None
        self._reading_thread = threading.get_ident()
        try:
            return self._read_catalog()
        finally:
            self._reading_thread = None


def repeat_if_changed(call: Callable[P, T]) -> Callable[P, T]:
    """Repeat a read-only function when it raises DatabaseChangedError (a decorator)."""

    @functools.wraps(call)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return call(*args, **kwargs)
            except DatabaseChangedError:
                continue  # the next session reads the catalog again
        return call(*args, **kwargs)

    return repeated
