"""The ``DBOSClient`` of the installed ``dbos``, called the same way whatever its version."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dbos_notebook.database import releases
from dbos_notebook.errors import (
    RefusedError,
    UnsupportedRevisionError,
)

if TYPE_CHECKING:
    import sqlalchemy as sa
    from dbos import DBOSClient


T = TypeVar("T")

_BULK: releases.Version = (2, 15)
"""The first dbos that cancels and resumes many workflows in one call."""
_KEEPS_VERSION: releases.Version = (2, 4)
"""The last dbos whose forks keep the version of the original where none is given."""
_ENQUEUES_WITH_XID: releases.Version = (3, 2)
"""The first dbos that writes ``creator_xid`` when it enqueues."""
_ASKS_NO_ISOLATION: releases.Version = (2, 12)
"""The first dbos that resumes without ``SET TRANSACTION ISOLATION LEVEL``."""
_PLACEHOLDER = {
    "sqlite": "sqlite:///unused.sqlite",
    "postgresql": "postgresql://unused:unused@unused/unused",
}
# DBOS before 2.25 keeps the schema in its tables, which all clients of a process share.
_schema_lock = threading.RLock()


def require_available(action: str, options: Sequence[str]) -> None:
    """Raise UnsupportedRevisionError for a call or an option that the installed dbos lacks.

    Parameters
    ----------
    options
        Those that were passed and are not at their defaults.
    """
    version = releases.installed_version()
    if version is None:
        return  # the catalog says so, with what to install
    problem = releases.missing_feature(action, tuple(options), version)
    if problem is not None:
        raise UnsupportedRevisionError(
            f"{problem}, and {version} is installed. Nothing was written."
        )


def forks_keep_version() -> bool:
    """Tell whether a fork without ``application_version`` keeps that of its original."""
    return (0, 0) < releases.parse_version(releases.installed_version()) <= _KEEPS_VERSION


def enqueues_with_xid() -> bool:
    """Tell whether the installed dbos writes ``workflow_status.creator_xid`` when it enqueues."""
    return releases.parse_version(releases.installed_version()) >= _ENQUEUES_WITH_XID


def asks_for_isolation() -> bool:
    """Tell whether the installed dbos sets an isolation level when it resumes."""
    return (0, 0) < releases.parse_version(releases.installed_version()) < _ASKS_NO_ISOLATION


def make_client(
    *,
    system_database_url: str | None = None,
    system_database_engine: sa.Engine | None = None,
    dbos_system_schema: str | None = None,
    serializer: Callable[[], Any] | None = None,
    **options: Any,
) -> DBOSClient:
    """Make the installed DBOSClient with those of these arguments that it takes.

    Parameters
    ----------
    system_database_url, system_database_engine
        One of them. Before 2.27 a client that makes its own engine has two connections.
    serializer
        Makes the serializer, where the installed dbos takes one.
    options
        Further arguments of DBOSClient. One that it lacks is left out: each only tunes how it
        connects.

    Raises
    ------
    RefusedError
        This process runs a DBOS application on another schema, and dbos is older than 2.25.
    """
    from dbos import DBOSClient

    taken = inspect.signature(DBOSClient.__init__).parameters
    arguments = {name: value for name, value in options.items() if name in taken}
    if serializer is not None and "serializer" in taken:
        arguments["serializer"] = serializer()
    if system_database_engine is not None:
        arguments["system_database_engine"] = system_database_engine
        if releases.parse_version(releases.installed_version()) < (3, 0):
            # Checked for a host by the first versions, though the engine is used.
            arguments["system_database_url"] = _PLACEHOLDER[system_database_engine.dialect.name]
    else:
        arguments["system_database_url"] = system_database_url
    arguments["dbos_system_schema"] = dbos_system_schema or "dbos"
    if releases.parse_version(releases.installed_version()) >= (2, 30):
        return DBOSClient(**arguments)
    return cast("DBOSClient", _OlderClient(DBOSClient, arguments))


class _OlderClient:
    """A DBOSClient before 2.30, with the calls of a later one.

    It has no ``retry_connection_errors``, and tries some calls again for as long as the connection
    is lost, so errors of the connection reach it in a form that it does not try again after.
    """

    def __init__(self, kind: type[DBOSClient], arguments: Mapping[str, Any]) -> None:
        from dbos._schemas.system_database import SystemSchema

        # Tables are shared by all clients of a process until 2.25.
        self._tables: Any = SystemSchema if hasattr(SystemSchema, "set_schema") else None
        url = str(arguments["system_database_url"])
        self._schema = None if url.startswith("sqlite") else arguments["dbos_system_schema"]
        with self._own_schema():
            self._client = kind(**arguments)
        self._sys_db = self._client._sys_db
        _fail_at_once(self._sys_db.engine)

    @contextmanager
    def _own_schema(self) -> Iterator[None]:
        """Let DBOS's tables have this client's schema while it is called."""
        if self._tables is None:
            yield
            return
        with _schema_lock:
            now = self._tables.workflow_status.schema
            if now != self._schema and _application_runs():
                raise RefusedError(
                    f"This process runs a DBOS application on the schema {now!r}, and dbos "
                    f"{releases.installed_version()} keeps one schema per process: control of "
                    f"{self._schema!r} would reach into its tables. Use another process, or dbos "
                    "2.25 or later. Nothing was written."
                )
            self._tables.set_schema(self._schema)
            yield

    def cancel_workflows(self, workflow_ids: list[str], *, cancel_children: bool = False) -> None:
        options = {"cancel_children": True} if cancel_children else {}
        self._each("cancel", workflow_ids, options)

    def resume_workflows(self, workflow_ids: list[str], *, queue_name: str | None = None) -> None:
        self._each("resume", workflow_ids, {"queue_name": queue_name} if queue_name else {})

    def _each(self, action: str, workflow_ids: list[str], options: dict[str, Any]) -> None:
        with self._own_schema():
            if releases.parse_version(releases.installed_version()) >= _BULK:
                getattr(self._client, f"{action}_workflows")(workflow_ids, **options)
                return
            for workflow_id in workflow_ids:
                getattr(self._client, f"{action}_workflow")(workflow_id, **options)

    def fork_workflow(self, workflow_id: str, start_step: int, **options: Any) -> Any:
        passed = {name: value for name, value in options.items() if value is not None}
        with self._own_schema():
            return self._client.fork_workflow(workflow_id, start_step, **passed)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name == "destroy" or not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            with self._own_schema():
                return found(*arguments, **options)

        return call


def _application_runs() -> bool:
    from dbos import _dbos

    return getattr(_dbos, "_dbos_global_instance", None) is not None


def _fail_at_once(engine: sa.Engine) -> None:
    """Raise the driver's own errors: those of SQLAlchemy are what DBOS tries again after."""
    import psycopg
    import sqlalchemy as sa

    def unwrap(context: sa.engine.ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            raise context.original_exception

    sa.event.listen(engine, "handle_error", unwrap)
