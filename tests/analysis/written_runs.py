"""Rows of runs that are written into empty databases of dbos 3.4, as DBOS writes them."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from servers import CORPUS, PostgresServer

TABLES = ("operation_outputs", "workflow_status", "queues", "workflow_schedules")
NOW = 1_790_000_000_000
"""When the written runs are read, in milliseconds since 1970."""
HOUR = 3_600_000


class WrittenDatabase:
    """A database whose runs, queues and schedules a test writes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def write(self, runs: Iterable[Mapping[str, Any]] = (), **tables: Iterable[Any]) -> None:
        """Replace all rows; ``queues`` and ``workflow_schedules`` are other tables."""
        postgres = self.url.startswith("postgres")
        schema, mark = ("dbos.", "%s") if postgres else ("", "?")
        statements: list[tuple[str, list[list[Any]]]] = []
        for table, rows in {"workflow_status": runs, **tables}.items():
            by_names: dict[tuple[str, ...], list[list[Any]]] = {}
            for row in rows:
                by_names.setdefault(tuple(row), []).append(list(row.values()))
            for names, values in by_names.items():
                marks = ", ".join([mark] * len(names))
                columns = ", ".join(names)
                statement = f"INSERT INTO {schema}{table} ({columns}) VALUES ({marks})"
                statements.append((statement, values))
        if postgres:
            with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
                for table in TABLES:
                    cursor.execute(f"DELETE FROM dbos.{table}".encode())
                for statement, values in statements:
                    cursor.executemany(statement.encode(), values)
            return
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as file, file:
            for table in TABLES:
                file.execute(f"DELETE FROM {table}")
            for statement, values in statements:
                file.executemany(statement, values)


def written_sqlite(directory: Path) -> WrittenDatabase:
    """Return a SQLite database without rows."""
    path = directory / "written.sqlite"
    shutil.copyfile(CORPUS / "dbos-3.4.0.sqlite", path)
    return WrittenDatabase(f"sqlite:///{path}")


def written_postgres(server: PostgresServer) -> WrittenDatabase:
    """Return a Postgres database without rows."""
    return WrittenDatabase(server.url(server.restore(CORPUS / "dbos-3.4.0.pg.sql.gz")))


def run(key: object, created: int, **values: Any) -> dict[str, Any]:
    """Return the row of a run; times are milliseconds since 1970."""
    row = {
        "workflow_uuid": f"run-{key}",
        "name": "work",
        "status": "SUCCESS",
        "created_at": created,
        "started_at_epoch_ms": None,
        "completed_at": None,
        "queue_name": None,
        "recovery_attempts": 1,
        "executor_id": "worker-1",
        **values,
    }
    changes = [row[each] for each in ("created_at", "started_at_epoch_ms", "completed_at")]
    row.setdefault("updated_at", max(each for each in changes if each is not None))
    return row


def random_runs(seed: int, count: int, *, before: int = NOW, hours: int = 30) -> list[Any]:
    """Return runs of every kind: also some that were cancelled, resumed, or whose clocks differ."""
    chance = random.Random(seed)
    runs = []
    for number in range(count):
        created = before - 7 * HOUR - chance.randrange(hours * HOUR)
        if chance.random() < 0.2:
            created = created // 60_000 * 60_000  # exactly at the start of buckets
        wait, last = (chance.choice([0, 5, 900, 60_000, 3 * HOUR]) for _ in range(2))
        queue = chance.choice([None, "mail", "mail", "slow", "_dbos_internal_queue"])
        started = None if queue is None else created + wait
        ended = (started or created) + last
        values: dict[str, Any] = {
            "name": chance.choice(["pay", "ship", None]),
            "queue_name": queue,
            "started_at_epoch_ms": started,
            "completed_at": ended,
            "executor_id": chance.choice(["worker-1", "worker-2", "local"]),
            "status": chance.choice(["SUCCESS"] * 6 + ["ERROR"] * 2),
        }
        match chance.randrange(12):
            case 0:  # cancelled, which erases its queue and start
                values |= {"status": "CANCELLED", "queue_name": None, "started_at_epoch_ms": None}
                values |= {"recovery_attempts": chance.choice([0, 1])}
                if chance.random() < 0.5:
                    limit = {"workflow_timeout_ms": 60_000, "workflow_deadline_epoch_ms": ended}
                    values |= limit
            case 1:
                values |= {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "recovery_attempts": 101}
                values |= {"queue_name": None, "started_at_epoch_ms": None}
            case 2:  # resumed or recovered: it waited twice
                values["recovery_attempts"] = 3
            case 3:
                values |= {"status": "PENDING", "completed_at": None}
            case 4 if queue is not None:
                values |= {"status": "ENQUEUED", "completed_at": None}
                values |= {"started_at_epoch_ms": None, "recovery_attempts": 0}
            case 5 if queue is not None:
                values |= {"status": "DELAYED", "completed_at": None, "started_at_epoch_ms": None}
                values |= {"delay_until_epoch_ms": before + HOUR, "recovery_attempts": 0}
            case 6:  # it ran after a delay
                values["delay_until_epoch_ms"] = created + wait // 2
            case 7 if started is not None:  # the clocks of two machines differ
                values["completed_at"] = started - chance.choice([500, 5_000])
        runs.append(run(number, created, **values))
    return runs
