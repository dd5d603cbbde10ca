"""What happens when a database changes under a client that stays open.

An application that is upgraded migrates its tables. Each session therefore looks, with its first
statement, at a fingerprint of the tables; where it is another than before, the catalog is read
again. A call that notices the change too late is repeated.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dbos_notebook.database.forking import reset_after_fork
from dbos_notebook.errors import DatabaseChangedError

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 3
"""How often a call is made before its DatabaseChangedError is raised."""


class SchemaChanges:
    """Notices that tables or columns were created, changed or dropped since the last session.

    Every reader has one, and calls :meth:`update` with the fingerprint at the start of each
    session.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._seen: str | None = None
        self._read_again: Callable[[], None] | None = None
        self._reading = False
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Take a lock that no thread of the parent holds."""
        self._lock = threading.RLock()
        self._reading = False

    def follow(self, read_again: Callable[[], None]) -> None:
        """Call ``read_again`` when the tables have changed; it opens sessions of its own."""
        self._read_again = read_again

    def update(self, fingerprint: str) -> bool:
        """Read the tables again if they have changed; return whether they had.

        Where it returns True, the session that saw the fingerprint should be begun again. Raises
        what reading the tables raises, and then tries again with the next session.
        """
        if fingerprint == self._seen:
            return False
        with self._lock:
            if self._reading or fingerprint == self._seen:
                # A session of read_again's own, or another thread was first.
                return not self._reading
            if self._read_again is None:
                self._seen = self._seen or fingerprint
                return False
            self._reading = True
            try:
                self._read_again()
            finally:
                self._reading = False
            self._seen = fingerprint
            return True

    def forget(self) -> None:
        """Have the tables read again by the next session, whatever its fingerprint is."""
        self._seen = None


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
