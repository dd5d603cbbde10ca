"""Changes that nobody's DBOS makes: rows written by hand, on either database."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import psycopg

import dbos_notebook as dn


def write(db: dn.Client, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement on DBOS's tables, ``{}`` standing before their names and ``?`` for values."""
    if db.location.path:
        with contextlib.closing(sqlite3.connect(db.location.path)) as connection, connection:
            return connection.execute(statement.format(""), values).fetchall()
    with psycopg.connect(db.location.url()) as server:
        cursor = server.execute(statement.format("dbos.").replace("?", "%s").encode(), values)
        return cursor.fetchall() if cursor.description else []


def set_status(db: dn.Client, workflow_id: str, status: str) -> None:
    """Give a workflow a status."""
    write(
        db, "UPDATE {}workflow_status SET status = ? WHERE workflow_uuid = ?", status, workflow_id
    )
