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


def add_workflow(
    db: dn.Client,
    workflow_id: str,
    *steps: tuple[str, bool, str | None],
    status: str = "ERROR",
    forked_from: str | None = None,
    at: int = 1,
) -> None:
    """Write a workflow, with steps: a name, whether it failed, and the child that it is about.

    It was created and updated at the same time, in milliseconds since 1970.
    """
    write(
        db,
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, forked_from, created_at, "
        "updated_at, application_version) VALUES (?, ?, 'w', ?, ?, ?, 'v1')",
        workflow_id,
        status,
        forked_from,
        at,
        at,
    )
    for number, (name, failed, child) in enumerate(steps, 1):
        write(
            db,
            "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, output, "
            "error, child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            workflow_id,
            number,
            name,
            None if failed else "x",
            "x" if failed else None,
            child,
            number * 10,
            number * 10 + 5,
        )


def awaits(child: str) -> list[tuple[str, bool, str | None]]:
    """Return the steps of a workflow that failed because its child did."""
    return [("start", False, child), ("DBOS.getResult", True, child)]
