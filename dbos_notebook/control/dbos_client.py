"""One interface to the ``DBOSClient`` of every supported version of ``dbos``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from dbos_notebook.database import releases
from dbos_notebook.errors import RefusedError, UnsupportedRevisionError
from dbos_notebook.imports import WholeImports

if TYPE_CHECKING:
    import sqlalchemy as sa
    from dbos import DBOSClient, Serializer

_BULK: releases.Version = (2, 15)
"""First version that cancels and resumes many workflows in one call."""
_KEEPS_VERSION: releases.Version = (2, 4)
"""Last version whose forks keep the application version of the original by default."""
_ENQUEUES_WITH_XID: releases.Version = (3, 2)
"""First version that writes ``creator_xid`` when it enqueues."""
_DEFAULT_ISOLATION: releases.Version = (2, 12)
"""First version that resumes without ``SET TRANSACTION ISOLATION LEVEL``."""
_MESSAGE_KEY_PER_WORKFLOW: releases.Version = (2, 23)
"""First version that makes the ID of a message of its key and the workflow, not the key alone."""
_UNUSED_URLS = {
    "sqlite": "sqlite:///unused.sqlite",
    "postgresql": "postgresql://unused:unused@unused/unused",
}
# Before 2.25 the schema is an attribute of DBOS's tables, which all clients of a process share.
_schema_lock = threading.RLock()


def require_available(action: str, options: Sequence[str]) -> None:
    """Raise UnsupportedRevisionError if the installed dbos lacks a call or an option.

    Parameters
    ----------
    options
        The options that were passed with other values than their defaults.
    """
    version = releases.installed_version()
    if version is None:
        return  # the catalog reports it, with the version to install
    problem = releases.missing_feature(action, tuple(options), version)
    if problem is not None:
        raise UnsupportedRevisionError(
            f"{problem}, and {version} is installed. Nothing was written."
        )


def forks_keep_version() -> bool:
    """Return whether a fork without ``application_version`` keeps that of its original."""
    return (0, 0) < releases.parse_version(releases.installed_version()) <= _KEEPS_VERSION


def enqueues_with_xid() -> bool:
    """Return whether the installed dbos writes ``creator_xid`` when it enqueues."""
    return releases.parse_version(releases.installed_version()) >= _ENQUEUES_WITH_XID


def sets_isolation_level() -> bool:
    """Return whether the installed dbos sets an isolation level when it resumes."""
    return (0, 0) < releases.parse_version(releases.installed_version()) < _DEFAULT_ISOLATION


def message_key(key: str, workflow_id: str) -> str:
    """Return the key to pass to ``send``, so that the message's ID is ``{key}::{workflow_id}``."""
    version = releases.parse_version(releases.installed_version())
    return key if version >= _MESSAGE_KEY_PER_WORKFLOW else f"{key}::{workflow_id}"


def make_client(
    *,
    system_database_url: str | None = None,
    system_database_engine: sa.Engine | None = None,
    dbos_system_schema: str | None = None,
    serializer: Callable[[], Serializer] | None = None,
    **options: Any,
) -> DBOSClient:
    """Create a DBOSClient of the installed version with the arguments that it accepts.

    Parameters
    ----------
    system_database_url, system_database_engine
        One of them. Before 2.27 a client that creates its own engine has two connections.
    serializer
        Creates the serializer, if the installed version accepts one.
    options
        Further arguments of DBOSClient. Those that the installed version lacks are ignored: they
        only affect how it connects.

    Raises
    ------
    RefusedError
        This process runs a DBOS application on another schema, and dbos is older than 2.25.
    """
    with WholeImports():
        from dbos import DBOSClient

    accepted = inspect.signature(DBOSClient.__init__).parameters
    arguments = {name: value for name, value in options.items() if name in accepted}
    if serializer is not None and "serializer" in accepted:
        arguments["serializer"] = serializer()
    if system_database_engine is not None:
        arguments["system_database_engine"] = system_database_engine
        if releases.parse_version(releases.installed_version()) < (3, 0):
            # The first versions require a URL with a host, although they use the engine.
            arguments["system_database_url"] = _UNUSED_URLS[system_database_engine.dialect.name]
    else:
        arguments["system_database_url"] = system_database_url
    arguments["dbos_system_schema"] = dbos_system_schema or "dbos"
    if releases.parse_version(releases.installed_version()) >= (2, 30):
        return DBOSClient(**arguments)
    return cast("DBOSClient", _LegacyClient(DBOSClient, arguments))


class _LegacyClient:
    """A DBOSClient before 2.30 with the interface of later versions.

    These versions lack ``retry_connection_errors`` and repeat some calls while the connection is
    lost. So connection errors reach them in a form after which they do not retry.
    """

    def __init__(self, client_class: type[DBOSClient], arguments: Mapping[str, Any]) -> None:
        with WholeImports():
            from dbos._schemas.system_database import SystemSchema

        # Until 2.25 all clients of a process share the tables.
        self._tables: Any = SystemSchema if hasattr(SystemSchema, "set_schema") else None
        url = str(arguments["system_database_url"])
        self._schema = None if url.startswith("sqlite") else arguments["dbos_system_schema"]
        with self._own_schema():
            self._client = client_class(**arguments)
        self._sys_db = self._client._sys_db
        _raise_driver_errors(self._sys_db.engine)

    @contextmanager
    def _own_schema(self) -> Iterator[None]:
        """Set the schema of DBOS's tables to this client's during a call."""
        if self._tables is None:
            yield
            return
        with _schema_lock:
            schema = self._tables.workflow_status.schema
            if schema != self._schema and _application_is_running():
                raise RefusedError(
                    f"This process runs a DBOS application on the schema {schema!r}, and dbos "
                    f"{releases.installed_version()} supports one schema per process: control of "
                    f"{self._schema!r} would write to the application's tables. Use another "
                    "process, or dbos 2.25 or later. Nothing was written."
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
        attribute = getattr(self._client, name)
        if name == "destroy" or not callable(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            with self._own_schema():
                return attribute(*arguments, **options)

        return call


def _application_is_running() -> bool:
    with WholeImports():
        from dbos import _dbos

    return getattr(_dbos, "_dbos_global_instance", None) is not None


def _raise_driver_errors(engine: sa.Engine) -> None:
    """Raise the driver's own errors, because DBOS retries after SQLAlchemy's."""
    import psycopg
    import sqlalchemy as sa

    def unwrap(context: sa.engine.ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            raise context.original_exception

    sa.event.listen(engine, "handle_error", unwrap)
