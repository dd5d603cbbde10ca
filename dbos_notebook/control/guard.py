"""Whether anything may be changed at all: asked before each call that writes."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.control.calls import not_allowed
from dbos_notebook.database.changes import repeat_if_changed
from dbos_notebook.database.sqlite_file import SQLiteFile
from dbos_notebook.errors import PermissionDeniedError, ReadOnlyError, UnsupportedRevisionError

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Reader
    from dbos_notebook.tables.queries import Queries


@repeat_if_changed
def require_write(reader: Reader, queries: Queries, *, read_only: bool) -> None:
    """Raise for a read-only client or role, and for a revision that dbos cannot control."""
    if read_only:
        raise ReadOnlyError(
            f"This client of {reader.location} was opened with read_only=True. "
            "connect(…) without it can control workflows."
        )
    catalog = queries.catalog
    with reader.session() as session:
        if catalog.has("dbos_migrations", "version"):
            # The application may have been upgraded since this client connected.
            table = catalog.table("dbos_migrations")
            newest = sa.select(sa.func.max(table.c.version).label("version"))
            revision = session.rows(newest)[0]["version"]
            if revision != catalog.revision:
                # A migration that changed no table goes unnoticed elsewhere.
                queries.use(catalog := dataclasses.replace(catalog, revision=revision))
        if not catalog.control:
            raise UnsupportedRevisionError(f"{catalog.control.reason} Nothing was written.")
        if catalog.dialect == "postgresql" and not session.rows(_may_write(catalog.schema)):
            raise not_allowed(reader.location, "no UPDATE on workflow_status")
    path = reader.location.path
    if path is None:
        return
    if not os.access(path, os.W_OK):
        raise not_allowed(reader.location, "the file is read-only")
    file = SQLiteFile(reader.location)
    if file.writing_locks_owner_out():
        raise PermissionDeniedError(
            f"{reader.location} is in WAL mode and belongs to another user. Control would create "
            f"its -wal and -shm files in {file.directory()} as yours, and the application could no "
            "longer write. Run control as the owner of the file, or while the application runs and "
            "its -wal and -shm files may be written by you. Nothing was written."
        )


def _may_write(schema: str | None) -> sa.Select[Any]:
    """Select one row where the role may change workflows."""
    classes = sa.table(
        "pg_class", sa.column("oid"), sa.column("relname"), sa.column("relnamespace")
    ).alias("c")
    spaces = sa.table("pg_namespace", sa.column("oid"), sa.column("nspname")).alias("n")
    joined = classes.join(spaces, spaces.c.oid == classes.c.relnamespace)
    allowed = sa.func.has_table_privilege(classes.c.oid, sa.literal("UPDATE"))
    return (
        sa.select(classes.c.oid.label("oid"))
        .select_from(joined)
        .where(spaces.c.nspname == schema, classes.c.relname == "workflow_status", allowed)
    )
