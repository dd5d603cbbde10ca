"""Permission checks that run before every control call and appear in every plan.

The columns are those that ``dbos`` reads and writes; a test checks them against real grants.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from dbos_notebook.control.transactions import READ_ONLY_SESSION, STANDBY
from dbos_notebook.database.catalog import as_revision
from dbos_notebook.database.sqlite_file import SQLiteFile
from dbos_notebook.errors import (
    NotebookError,
    PermissionDeniedError,
    ReadOnlyError,
    UnsupportedRevisionError,
)
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.tables.sql import Queries

Privileges = Mapping[tuple[str, str], tuple[str, ...]]
"""Columns by table and privilege; none for ``DELETE``, which applies to whole tables only."""

STATUS, INPUT, OUTPUT = "workflow_status", "workflow_input", "workflow_output"
STEPS, EVENTS, HISTORY = "operation_outputs", "workflow_events", "workflow_events_history"
STREAMS, MESSAGES = "streams", "notifications"
SCHEDULES, VERSIONS = "workflow_schedules", "application_versions"


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


_ENQUEUED = _columns(
    "status owner_xid queue_name recovery_attempts workflow_deadline_epoch_ms deduplication_id "
    "started_at_epoch_ms updated_at completed_at"
)
_SCHEDULE = _columns(
    "schedule_id schedule_name workflow_name workflow_class_name schedule status context "
    "last_fired_at automatic_backfill cron_timezone queue_name application_name"
)
_INSERTED = _columns(
    "workflow_uuid status name class_name config_name executor_id application_version "
    "application_id authenticated_user authenticated_roles assumed_role queue_name "
    "recovery_attempts workflow_timeout_ms workflow_deadline_epoch_ms deduplication_id priority "
    "serialization queue_partition_key parent_workflow_id creator_xid owner_xid "
    "delay_until_epoch_ms attributes schedule_name debounce_deadline_epoch_ms is_debounced "
    "application_name"
)

CANCEL: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid status"),
    (STATUS, "UPDATE"): _columns(
        "status owner_xid queue_name deduplication_id started_at_epoch_ms updated_at completed_at"
    ),
}
CANCEL_CHILDREN: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid status parent_workflow_id")
}

RESUME: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid status"),
    (STATUS, "UPDATE"): _ENQUEUED,
}

DELETE: Privileges = {
    (table, privilege): columns
    for table in (INPUT, OUTPUT, STEPS, STATUS)
    for privilege, columns in (("SELECT", ("workflow_uuid",)), ("DELETE", ()))
}

FORK: Privileges = {
    (STATUS, "SELECT"): _columns(
        "workflow_uuid name class_name config_name application_id authenticated_user "
        "authenticated_roles assumed_role inputs serialization attributes application_name"
    ),
    (STATUS, "INSERT"): _columns(
        "workflow_uuid status name class_name config_name application_version application_id "
        "authenticated_user authenticated_roles serialization queue_name queue_partition_key "
        "assumed_role forked_from attributes application_name workflow_timeout_ms"
    ),
    (STATUS, "UPDATE"): ("was_forked_from",),
    (INPUT, "SELECT"): _columns("workflow_uuid inputs"),
    (INPUT, "INSERT"): _columns("workflow_uuid inputs"),
}
_STEP = _columns(
    "workflow_uuid function_id output error serialization function_name child_workflow_id "
    "started_at_epoch_ms completed_at_epoch_ms"
)
_EVENT = _columns("workflow_uuid key value serialization")
_STREAM = _columns("workflow_uuid function_id key value serialization offset")
FORK_COPYING: Privileges = {
    (STEPS, "SELECT"): _STEP,
    (STEPS, "INSERT"): (*_STEP, "application_name", "retention_timestamp"),
    (HISTORY, "SELECT"): (*_EVENT, "function_id"),
    (HISTORY, "INSERT"): (*_EVENT, "function_id"),
    (EVENTS, "INSERT"): _EVENT,
    (STREAMS, "SELECT"): _STREAM,
    (STREAMS, "INSERT"): _STREAM,
}
"""What a fork needs in addition if it copies steps."""

REWIND: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid status"),
    (STATUS, "UPDATE"): (*_ENQUEUED, "queue_partition_key", "output", "error"),
    (EVENTS, "SELECT"): _columns("workflow_uuid key"),
    (EVENTS, "INSERT"): _EVENT,
    (EVENTS, "DELETE"): (),
    (HISTORY, "SELECT"): (*_EVENT, "function_id"),
    (HISTORY, "DELETE"): (),
    (STREAMS, "SELECT"): _columns("workflow_uuid function_id value serialization"),
    (STREAMS, "DELETE"): (),
    (STEPS, "SELECT"): _columns("workflow_uuid function_id"),
    (STEPS, "DELETE"): (),
    (MESSAGES, "SELECT"): _columns("destination_uuid consumed_by_function_id consumed"),
    (MESSAGES, "DELETE"): (),
    (OUTPUT, "SELECT"): ("workflow_uuid",),
    (OUTPUT, "DELETE"): (),
}
REWIND_TO_VERSION: Privileges = {
    (STATUS, "UPDATE"): (*REWIND[STATUS, "UPDATE"], "application_version")
}

SET_DELAY: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid status"),
    (STATUS, "UPDATE"): _columns("delay_until_epoch_ms updated_at"),
}
SET_ATTRIBUTES: Privileges = {
    (STATUS, "SELECT"): _columns("workflow_uuid attributes"),
    (STATUS, "UPDATE"): _columns("attributes updated_at"),
}

SEND: Privileges = {
    (MESSAGES, "SELECT"): ("message_uuid",),
    (MESSAGES, "INSERT"): _columns("destination_uuid topic message message_uuid serialization"),
}

SET_SCHEDULE: Privileges = {
    (SCHEDULES, "SELECT"): ("schedule_name",),
    (SCHEDULES, "UPDATE"): ("status",),
}
DELETE_SCHEDULE: Privileges = {
    (SCHEDULES, "SELECT"): ("schedule_name",),
    (SCHEDULES, "DELETE"): (),
}
ENQUEUE_SCHEDULE: Privileges = {
    (SCHEDULES, "SELECT"): _SCHEDULE,
    (VERSIONS, "SELECT"): _columns(
        "version_id version_name version_timestamp created_at application_name"
    ),
    (STATUS, "SELECT"): _columns(
        "workflow_uuid status name class_name config_name queue_name creator_xid serialization"
    ),
    (STATUS, "INSERT"): _INSERTED,
    (STATUS, "UPDATE"): ("creator_xid",),
    (INPUT, "SELECT"): ("workflow_uuid",),
    (INPUT, "INSERT"): _columns("workflow_uuid inputs"),
}

# If the whole table is granted, or the role owns it, columns need no check.
_PRIVILEGES = """
    SELECT c.relname AS name, p.privilege AS privilege,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS reachable,
        pg_catalog.row_security_active(c.oid) AS row_security,
        pg_catalog.has_table_privilege(c.oid, p.privilege) AS whole,
        CASE WHEN p.privilege <> 'DELETE'
            AND NOT pg_catalog.has_table_privilege(c.oid, p.privilege)
        THEN ARRAY(
            SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, p.privilege)
        ) END AS missing,
        CASE WHEN p.privilege = 'INSERT' THEN ARRAY(
            SELECT s.relname::text FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_class AS s ON s.oid = d.objid
            WHERE d.refobjid = c.oid AND d.deptype IN ('a', 'i')
                AND CASE WHEN s.relkind = 'S'
                    THEN NOT pg_catalog.has_sequence_privilege(s.oid, 'USAGE') END
        ) END AS sequences,
        current_user AS role
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p (privilege)
    WHERE n.nspname = :schema AND c.relname = ANY (CAST(:tables AS text[]))
"""
_PRIVILEGE_COLUMNS = (
    "name", "privilege", "reachable", "row_security", "whole", "missing", "sequences", "role"
)  # fmt: skip
# Functions that the statements above call. The rest of Postgres' message may be in any language.
_FUNCTION = re.compile(
    r"\b(pg_is_in_recovery|pg_postmaster_start_time|current_setting|row_security_active"
    r"|has_(schema|table|column|sequence)_privilege)\b"
)


@dataclass(frozen=True)
class PermissionCheck:
    """Whether a call is permitted.

    Attributes
    ----------
    problem
        The error of a call that is not permitted; ``None`` if it is permitted.
    notes
        Warnings that a plan shows.
    server
        When the server started, in microseconds since 1970, which identifies it; 0 on SQLite.
    row_security
        The tables on which row-level security applies to this role.
    """

    problem: NotebookError | None = None
    notes: tuple[str, ...] = ()
    server: int = 0
    row_security: tuple[str, ...] = ()


def check_permissions(
    reader: Reader,
    session: Session,
    queries: Queries,
    required: Privileges,
    *,
    client_read_only: bool,
) -> PermissionCheck:
    """Check whether a call that requires these privileges is permitted."""
    if client_read_only:
        return PermissionCheck(
            ReadOnlyError(
                f"This client of {reader.location} was opened with read_only=True. "
                "Connect without it to control workflows."
            )
        )
    try:
        rows = session.rows(_statement(reader, queries.catalog, required))
    except psycopg.errors.InsufficientPrivilege as error:
        name = _FUNCTION.search(str(error))
        if name is None:
            raise
        return PermissionCheck(_missing_function(reader, name.group()))
    catalog = queries.catalog
    if _records_revision(catalog):
        # The application may have been upgraded since this client connected.
        revision = as_revision(rows[0]["revision"])
        if revision != catalog.revision:
            # Nothing else notices a migration that changes no table.
            queries.set_catalog(catalog := dataclasses.replace(catalog, revision=revision))
    if not catalog.control:
        return PermissionCheck(
            UnsupportedRevisionError(f"{catalog.control.reason} Nothing was written.")
        )
    if reader.location.path:
        return _check_file(reader)
    return _check_server(reader, rows, required)


def _records_revision(catalog: Catalog) -> bool:
    readable = "dbos_migrations" not in catalog.unreadable
    return readable and catalog.has("dbos_migrations", "version")


def _statement(reader: Reader, catalog: Catalog, required: Privileges) -> sa.Select[Any]:
    """Return one statement that reads everything, because each round trip may take long."""
    table = catalog.table("dbos_migrations")
    columns: list[sa.ColumnElement[Any]] = [
        sa.select(sa.func.max(table.c.version)).scalar_subquery().label("revision")
        if _records_revision(catalog)
        else sa.null().label("revision")
    ]
    if reader.location.path:
        return sa.select(*columns)
    columns += [
        sa.literal_column("pg_catalog.pg_is_in_recovery()").label("standby"),
        sa.literal_column(
            "pg_catalog.current_setting('default_transaction_read_only') = 'on'"
        ).label("read_only"),
        sa.literal_column(
            "(EXTRACT(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint"
        ).label("started"),
    ]
    tables = sorted({name for name, _ in required})
    privileges = (
        sa.text(_PRIVILEGES)
        .bindparams(schema=reader.schema, tables="{" + ",".join(tables) + "}")
        .columns(*map(sa.column, _PRIVILEGE_COLUMNS))
        .subquery("privileges")
    )
    one_row = sa.select(sa.literal(1).label("one")).subquery("one_row")
    return sa.select(*columns, *privileges.c).select_from(one_row.outerjoin(privileges, sa.true()))


def _check_file(reader: Reader) -> PermissionCheck:
    path = reader.location.path
    if path and not os.access(path, os.W_OK):
        return PermissionCheck(not_allowed(reader.location, "the file is read-only"))
    file = SQLiteFile(reader.location)
    companion = file.not_writable()
    if companion is not None:
        return PermissionCheck(
            PermissionDeniedError(
                f"{reader.location} is in WAL mode, and you may not write {companion}. Run control "
                "as the owner of that file, or give it the permissions of the database. Nothing "
                "was written."
            )
        )
    if file.writing_locks_owner_out():
        return PermissionCheck(
            PermissionDeniedError(
                f"{reader.location} is in WAL mode and belongs to another user. Control would "
                f"create its -wal and -shm files in {file.directory()} as yours, and the "
                "application could no longer write. Run control as the owner of the file, or while "
                "the application is running and you may write those files. Nothing was written."
            )
        )
    if path and not os.access(path.parent, os.W_OK):
        # SQLite creates its journal in the same directory.
        return PermissionCheck(
            not_allowed(reader.location, f"the directory {path.parent} is read-only")
        )
    return PermissionCheck()


def _check_server(
    reader: Reader, found: list[dict[str, Any]], required: Privileges
) -> PermissionCheck:
    server = int(found[0]["started"])
    if found[0]["standby"]:
        return PermissionCheck(read_only(reader.location, STANDBY), server=server)
    if found[0]["read_only"]:
        return PermissionCheck(read_only(reader.location, READ_ONLY_SESSION), server=server)
    rows = {(row["name"], row["privilege"]): row for row in found}
    missing, row_security = [], set()
    for (table, privilege), columns in required.items():
        row = rows.get((table, privilege))
        if row is None:
            # This revision has no such table, so DBOS does not use it.
            continue
        if not row["reachable"]:
            return PermissionCheck(
                not_allowed(
                    reader.location, f"role {_role(row)} has no USAGE on schema {reader.schema!r}"
                ),
                server=server,
            )
        if row["row_security"]:
            row_security.add(table)
        if row["sequences"]:
            missing.append(f"USAGE ON SEQUENCE {', '.join(map(sanitize, row['sequences']))}")
        if row["whole"]:
            continue
        lacking = sorted(set(columns) & set(row["missing"] or ()))
        if row["missing"] is None or lacking:
            # Columns are named only if the role has the privilege on some of them.
            partial = row["missing"] is not None and lacking != sorted(set(columns))
            named = f" ({', '.join(lacking)})" if partial else ""
            missing.append(f"{privilege}{named} ON {table}")
    problem = None
    if missing:
        role = _role(next(iter(rows.values())))
        problem = not_allowed(
            reader.location, f"role {role} lacks {'; '.join(dict.fromkeys(missing))}"
        )
    notes: tuple[str, ...] = ()
    written = {table for table, privilege in required if privilege != "SELECT"}
    if problem is None and len(written) > 1 and row_security & written:
        # A policy may hide rows from one statement and not from the next: DBOS would delete steps
        # and inputs, and leave the workflow.
        tables = ", ".join(sorted(row_security & written))
        problem = PermissionDeniedError(
            f"Row-level security applies on {tables} to the role connected to {reader.location}. "
            f"This call writes {len(written)} tables ({', '.join(sorted(written))}), and a policy "
            "can hide rows of one of them, so that the call would be incomplete. Nothing was "
            "written. Connect as the owner of the tables or as a role with BYPASSRLS."
        )
    if row_security:
        notes = (
            f"⚠ Row-level security applies to this role on {', '.join(sorted(row_security))}: "
            "rows that its policies hide are neither read nor changed.",
        )
    return PermissionCheck(problem, notes, server, tuple(sorted(row_security)))


def _missing_function(reader: Reader, name: str) -> PermissionDeniedError:
    """Return the error for a role that may not call a Postgres function that control needs."""
    return PermissionDeniedError(
        f"The role connected to {reader.location} may not call {name}, which control needs to "
        "identify the server and to check privileges. Ask for "
        f"GRANT EXECUTE ON FUNCTION pg_catalog.{name}. "
        "Nothing was written."
    )


def _role(row: Mapping[str, Any]) -> str:
    return sanitize(str(row["role"]))


def not_allowed(location: Location, reason: str) -> PermissionDeniedError:
    """Return the error for a role or a file that may be read but not written."""
    if location.path:
        return PermissionDeniedError(
            f"{location} cannot be written ({reason}). Control needs write permission on the file "
            "and its directory."
        )
    return PermissionDeniedError(
        f"The role connected to {location} may read workflows but not change them ({reason}). "
        "Control needs GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES in DBOS's schema and "
        "USAGE on it, or the application's own role."
    )


def read_only(location: Location, reason: str) -> ReadOnlyError:
    """Return the error for a server or a session in which nobody can write."""
    return ReadOnlyError(
        f"Control is not possible through {location}: {reason}. Connect to the primary server (an "
        "address of several hosts accepts target_session_attrs=read-write), or with a role that "
        "may write."
    )
