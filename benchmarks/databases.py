"""Large system databases with the same rows on SQLite and Postgres; DBOS creates the schema.

Later rows are newer. 92 % succeeded, 5 % failed, the rest have other statuses. There are 20
workflow functions, four versions and five queues. IDs have no order, like UUIDs. The first rows are
a tree of a workflow, its children and grandchildren.
"""

from __future__ import annotations

import base64
import pickle
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from dbos import DBOS

STEPS_EACH = 5


@dataclass(frozen=True)
class Shape:
    """The number of workflows, and of children and grandchildren in the tree."""

    workflows: int
    children: int
    grandchildren: int

    @property
    def tree(self) -> int:
        """The number of workflows in the tree."""
        return 1 + self.children + self.grandchildren


def _numbers_postgres(count: int) -> str:
    return f"(SELECT i FROM generate_series(0::bigint, {count - 1}) AS g(i)) AS n"


def _numbers_sqlite(count: int) -> str:
    return (
        "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n "
        f"WHERE i < {count - 1}) SELECT i FROM n) AS n"
    )


def _identifier_postgres(number: str) -> str:
    return f"CAST(CAST(md5(CAST({number} AS text)) AS uuid) AS text)"


def _identifier_sqlite(number: str) -> str:
    # An odd factor permutes the 32-bit numbers: unique IDs in no order.
    return f"printf('%08x-0000-4000-8000-%012x', (({number}) * 2654435761) % 4294967296, {number})"


def make_schema(url: str) -> None:
    """Let DBOS create its tables, as when an application first starts."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    DBOS.destroy()


def fill_postgres(url: str, shape: Shape) -> str:
    """Make and fill a Postgres system database; return the ID of the tree's root."""
    make_schema(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement in _statements(shape, "dbos.", _numbers_postgres, _identifier_postgres):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
        # Dirty pages would otherwise be written during the measurements.
        connection.execute("CHECKPOINT")
        row = connection.execute(f"SELECT {_identifier_postgres('0')}".encode()).fetchone()
    assert row is not None
    return str(row[0])


def fill_sqlite(path: Path, shape: Shape) -> str:
    """Create and fill a SQLite system database; return the ID of the tree's root."""
    make_schema(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    for statement in _statements(shape, "", _numbers_sqlite, _identifier_sqlite):
        connection.execute(statement)
    connection.commit()
    connection.execute("ANALYZE")
    connection.commit()
    root = connection.execute(f"SELECT {_identifier_sqlite('0')}").fetchone()[0]
    connection.close()
    return str(root)


def _pickled(value: object) -> str:
    """Serialize a value as DBOS does by default."""
    return base64.b64encode(pickle.dumps(value)).decode()


def _statements(
    shape: Shape,
    prefix: str,
    numbers: Callable[[int], str],
    identifier: Callable[[str], str],
) -> list[str]:
    attributes = """'{"tenant": "t' || (n.i % 50) || '", "tier": 2}'"""
    if prefix:
        attributes = f"CAST({attributes} AS jsonb)"
    started = f"(1790000000000 + n.i * {30 * 86_400_000 // shape.workflows})"
    failed = "(n.i % 20 = 7)"
    state = (
        f"CASE WHEN {failed} THEN 'ERROR' WHEN n.i % 100 = 3 THEN 'CANCELLED' "
        "WHEN n.i % 200 = 11 THEN 'ENQUEUED' WHEN n.i % 400 = 21 THEN 'PENDING' "
        "WHEN n.i % 1000 = 33 THEN 'DELAYED' ELSE 'SUCCESS' END"
    )
    ended = f"CASE WHEN {state} IN ('SUCCESS', 'ERROR', 'CANCELLED') THEN {started} + 900 END"
    first = 1 + shape.children
    each = shape.grandchildren // shape.children
    parent = f"CASE WHEN n.i < {first} THEN 0 ELSE 1 + (n.i - {first}) / {each} END"
    in_tree = f"n.i BETWEEN 1 AND {shape.tree - 1}"
    payload = f"'{_pickled({'args': ('order', 7), 'kwargs': {}})}'"
    trouble = f"'{_pickled(ValueError('no card on file'))}'"
    return [
        f"""INSERT INTO {prefix}workflow_status (
            workflow_uuid, status, name, class_name, config_name, authenticated_user,
            executor_id, created_at, updated_at, started_at_epoch_ms, completed_at,
            application_version, recovery_attempts, queue_name, priority, parent_workflow_id,
            serialization, schedule_name, attributes, application_name
        ) SELECT {identifier("n.i")}, {state}, 'workflow_' || (n.i % 20), NULL, NULL,
            CASE WHEN n.i % 2 = 0 THEN 'user-' || (n.i % 997) END, 'executor-' || (n.i % 8),
            {started}, {started} + 900, CASE WHEN n.i % 4 = 0 THEN {started} + 250 END, {ended},
            'v' || (n.i % 4), 1,
            CASE WHEN {state} IN ('ENQUEUED', 'DELAYED') OR n.i % 4 = 0
                 THEN 'queue-' || (n.i % 5) END, 0,
            CASE WHEN {in_tree} THEN {identifier(parent)} END, 'py_pickle',
            CASE WHEN n.i % 100 = 50 THEN 'nightly' END,
            CASE WHEN n.i % 10 = 0
                 THEN {attributes} END,
            'bench'
        FROM {numbers(shape.workflows)}""",
        f"""INSERT INTO {prefix}workflow_input (workflow_uuid, inputs, retention_timestamp)
        SELECT {identifier("n.i")}, {payload}, {started} FROM {numbers(shape.workflows)}""",
        f"""INSERT INTO {prefix}workflow_output
            (workflow_uuid, output, error, retention_timestamp)
        SELECT {identifier("n.i")}, CASE WHEN NOT {failed} THEN {payload} END,
            CASE WHEN {failed} THEN {trouble} END, {started}
        FROM {numbers(shape.workflows)} WHERE {ended} IS NOT NULL""",
        f"""INSERT INTO {prefix}operation_outputs (
            workflow_uuid, function_id, function_name, output, error, started_at_epoch_ms,
            completed_at_epoch_ms, serialization, application_name, retention_timestamp
        ) SELECT {identifier("n.i")}, s.i, 'step_' || ((n.i + s.i) % 25),
            CASE WHEN NOT ({failed} AND s.i = {STEPS_EACH}) THEN {payload} END,
            CASE WHEN {failed} AND s.i = {STEPS_EACH} THEN {trouble} END,
            {started} + s.i * 120, {started} + s.i * 120 + 100, 'py_pickle', 'bench', {started}
        FROM {numbers(shape.workflows)}
        CROSS JOIN {numbers(STEPS_EACH + 1).replace("AS n", "AS s")} WHERE s.i > 0""",
        f"""INSERT INTO {prefix}operation_outputs (
            workflow_uuid, function_id, function_name, child_workflow_id, started_at_epoch_ms,
            completed_at_epoch_ms, serialization, application_name, retention_timestamp
        ) SELECT {identifier(parent)}, {STEPS_EACH} + n.i, 'workflow_' || (n.i % 20),
            {identifier("n.i")}, {started}, {started} + 1, 'py_pickle', 'bench', {started}
        FROM {numbers(shape.tree)} WHERE {in_tree}""",
    ]
