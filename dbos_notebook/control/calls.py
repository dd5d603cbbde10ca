"""The one door to ``DBOSClient``: made when first needed, used on threads of its own.

On threads, because a cell runs inside an event loop, where DBOS warns of blocking calls; and
because a call that waits on a thread lets Ctrl-C in. ``DBOSClient`` itself runs no migrations; a
SQLite file is opened so that it is never created.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from dbos_notebook.control import contexts
from dbos_notebook.control.dbos_client import make_client
from dbos_notebook.errors import (
    DatabaseConnectionError,
    DatabaseLockedError,
    NotebookError,
    PermissionDeniedError,
)

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.database.locate import Location

POSTGRES_CONNECTIONS = 6
"""Calls at a time, each on a connection of its own. SQLite has one writer: there it is one."""
CONNECT_TIMEOUT_SECONDS = "10"
T = TypeVar("T")


class Door:
    """Calls DBOS's own client, and tells its errors in ours."""

    def __init__(
        self,
        location: Location,
        schema: str | None,
        application_name: str | None,
        width: int = POSTGRES_CONNECTIONS,
    ) -> None:
        self.location = location
        self.width = 1 if location.path else width
        self.schema = schema
        self.application_name = application_name
        self._lock = threading.Lock()
        self._client: DBOSClient | None = None
        self._file: tuple[int, int] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run something on one of the door's threads."""
        with self._lock:
            if self._closed:
                raise DatabaseConnectionError(
                    f"This client is closed ({self.location}). Call connect() again."
                )
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.width, thread_name_prefix="dbos_control")
            return self._pool.submit(call)

    def client(self) -> DBOSClient:
        """Return DBOS's client; only the door's threads ask for it."""
        with self._lock:
            file = self._which_file()
            if self._client is not None and file != self._file:
                self._client.destroy()
                self._client = None
            if self._client is None:
                self._file = file
                self._client = make_client(
                    system_database_url=self._url(),
                    dbos_system_schema=self.schema,
                    system_database_pool_size=self.width,
                    application_name=self.application_name,
                    serializer=contexts.serializer,
                    # Connecting is left to the first call, and a cell must not hang on a database
                    # that is gone.
                    lazy=True,
                    retry_connection_errors=False,
                )
                if self.location.path:
                    self._do_not_wait(self._client)
            return self._client

    def _which_file(self) -> tuple[int, int] | None:
        """Tell a SQLite file from another one of the same name.

        Who begins anew puts one in its place; DBOS's client would go on with the one that is gone.
        """
        if not self.location.path:
            return None
        try:
            found = self.location.path.stat()
        except OSError:  # the call says what is wrong
            return self._file
        return found.st_dev, found.st_ino

    def _do_not_wait(self, client: DBOSClient) -> None:
        """End a call that waited for a lock of SQLite's: DBOS would try again for ever."""
        import sqlalchemy as sa

        def locked(context: sa.engine.ExceptionContext) -> None:
            if "database is locked" in str(context.original_exception):
                raise self._locked()

        sa.event.listen(client._sys_db.engine, "handle_error", locked)

    def _locked(self) -> DatabaseLockedError:
        return DatabaseLockedError(
            f"{self.location} stayed locked by another process. Try again when its write is done."
        )

    def _url(self) -> str:
        import sqlalchemy as sa

        if self.location.path:
            # mode=rw: a file that has gone is an error, not a new file.
            name = f"file:{quote(str(self.location.path))}"
            query = {"mode": "rw", "uri": "true"}
            return str(sa.URL.create("sqlite", database=name, query=query))
        url = sa.make_url(self.location.url())
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": CONNECT_TIMEOUT_SECONDS})
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close DBOS's client and end the threads. Safe to call twice."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            client, self._client = self._client, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        if client is not None:
            client.destroy()

    def reason(self, error: BaseException) -> str:
        """Say in one line, without secrets or SQL, what went wrong."""
        # SQLAlchemy's text has the statement and its parameters, which are payloads.
        original = getattr(error, "orig", None) or error
        lines = str(original).strip().splitlines() or [type(original).__name__]
        return self.location.redact(lines[0])

    def fatal(self, error: BaseException) -> NotebookError | None:
        """Return the error that ends a whole call; ``None``: it is about one workflow alone."""
        import psycopg
        import sqlalchemy as sa

        if isinstance(error, NotebookError):
            return error
        if isinstance(error, sa.exc.TimeoutError):
            return DatabaseConnectionError(f"{self.location} gave no connection in 30 s.")
        if not isinstance(error, sa.exc.DBAPIError):
            return None
        reason, original = self.reason(error), error.orig
        if isinstance(original, psycopg.errors.InsufficientPrivilege) or "readonly" in reason:
            return not_allowed(self.location, reason)
        if "database is locked" in reason:
            return self._locked()
        lost = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        if lost or error.connection_invalidated:
            return DatabaseConnectionError(f"The connection to {self.location} was lost: {reason}.")
        return None


def not_allowed(location: Location, reason: str) -> PermissionDeniedError:
    """Return the error of a role, or a file, that may be read and not written."""
    if location.path:
        return PermissionDeniedError(
            f"{location} may not be written ({reason}). Control needs write permission on the "
            "file and its directory."
        )
    return PermissionDeniedError(
        f"The role connected to {location} may read workflows but not change them ({reason}). "
        "Control needs GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES and USAGE ON ALL "
        "SEQUENCES in DBOS's schema, or the application's own role."
    )
