"""Will it run? Whether an executor that can take enqueued work seems to live.

DBOS records no heartbeat, so this is inferred, and says from what: the last change that an executor
of the version made to a workflow or a step, on Postgres also the connections that DBOS processes
hold now, and the limits of the queue.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbos_notebook.control.rows import INTERNAL_QUEUE

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.queries import Queries

RECENT_SECONDS = 120
"""An executor that changed something so long ago is taken to be alive."""
LOOKED_BACK_SECONDS = 86_400


class Prospects:
    """What one snapshot tells of the executors, by version, application and queue.

    It reads when it is first asked, so that a call which enqueues nothing costs nothing.
    """

    def __init__(self, session: Session, queries: Queries) -> None:
        self._session = session
        self._queries = queries
        self._now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        self._seen: list[dict[str, Any]] | None = None
        self._latest: dict[str | None, str] = {}
        self._connections: int | None = None
        self._queues: dict[str, dict[str, Any]] = {}
        self._told: dict[tuple[str | None, str | None, str | None], str] = {}

    def of(self, version: str | None, application: str | None, queue: str | None) -> str:
        """Say whether work of this version and application on this queue will be taken.

        The answer begins with ``likely``, ``uncertain`` or ``unlikely``.
        """
        asked = (version, application, queue)
        if asked not in self._told:
            if self._seen is None:
                self._read()
            self._told[asked] = self._tell(*asked)
        return self._told[asked]

    def _tell(self, version: str | None, application: str | None, queue: str | None) -> str:
        wanted = version or self._newest(application)
        what = f"version {wanted}" if wanted else "any version"
        if version is None and wanted:
            what += " (the latest)"
        seen = [
            row
            for row in self._seen or ()
            if (wanted is None or row["version"] == wanted)
            and (application is None or row["application"] in (None, application))
        ]
        limits = self._limits(queue)
        if self._connections == 0:
            return f"unlikely: no DBOS process is connected to the database now{limits}"
        if not seen:
            return f"unlikely: nothing was run by {what} in the last day{limits}"
        last = max(seen, key=lambda row: row["last"])
        age = max(0.0, (self._now - last["last"]) / 1000)
        when = f"{what} last did something {_age(age)} ago (executor {last['executor']})"
        if self._connections:
            when += f", and {self._connections} connections of DBOS processes are open"
        when += limits
        if age > RECENT_SECONDS or "no queue" in limits:
            return f"uncertain: {when}"
        return f"likely: {when}"

    def _newest(self, application: str | None) -> str | None:
        # Work without a version is taken by executors of the latest one alone.
        return self._latest.get(application) or self._latest.get(None)

    def _limits(self, queue: str | None) -> str:
        if queue in (None, INTERNAL_QUEUE):
            return ""
        found = self._queues.get(queue or "")
        if found is None:
            return f"; no queue {queue!r} is registered in the database"
        parts = []
        if found["concurrency"] is not None:
            parts.append(f"runs {found['concurrency']} at a time")
        if found["rate"] is not None:
            period = found["period"]
            told = f"{period:g}" if isinstance(period, int | float) else period
            parts.append(f"starts {found['rate']} per {told} s")
        parts += [f"{found[word]} {word}" for word in ("running", "waiting") if found[word]]
        return f"; queue {queue!r}: {', '.join(parts)}" if parts else ""

    def _read(self) -> None:
        self._seen = self._activity()
        catalog = self._queries.catalog
        versions = catalog.table("application_versions")
        if {"version_name", "version_timestamp"} <= set(versions.c.keys()):
            owner = self._queries.column(versions, "application_name").label("application")
            statement = sa.select(versions.c.version_name.label("version"), owner).order_by(
                versions.c.version_timestamp
            )
            for row in self._session.rows(statement):
                self._latest[row["application"]] = row["version"]
                self._latest.setdefault(None, row["version"])
        if catalog.dialect == "postgresql":
            self._connections = self._connected()
        self._queues = self._queue_settings()

    def _activity(self) -> list[dict[str, Any]]:
        """Find the last deeds of each executor within a day, each by an index of DBOS's."""
        table, column = self._queries.workflows, self._queries.column
        recent = self._now - LOOKED_BACK_SECONDS * 1000
        who = (
            column(table, "executor_id").label("executor"),
            column(table, "application_version").label("version"),
            column(table, "application_name").label("application"),
        )
        groups: list[Any] = [sa.literal_column(str(number + 1)) for number in range(len(who))]
        ended, began = column(table, "completed_at"), column(table, "started_at_epoch_ms")
        # What executors did: not what was enqueued or cancelled from outside.
        deeds: list[tuple[Any, sa.FromClause, Any]] = [
            (ended, table, table.c.status.in_(("SUCCESS", "ERROR"))),
            (began, table, sa.true()),
            (table.c.created_at, table, table.c.status == "PENDING"),
        ]
        steps = self._queries.steps
        if "completed_at_epoch_ms" in steps.c:
            joined = table.join(steps, steps.c.workflow_uuid == table.c.workflow_uuid)
            deeds.append((steps.c.completed_at_epoch_ms, joined, table.c.status == "PENDING"))
        found: list[dict[str, Any]] = []
        for moment, source, condition in deeds:
            statement = (
                sa.select(*who, sa.func.max(moment).label("last"))
                .select_from(source)
                .where(who[0].is_not(None), moment >= recent, condition)
                .group_by(*groups)
            )
            rows = self._session.rows(statement)
            # SQLite keeps texts in columns of numbers, too.
            found += [row for row in rows if isinstance(row["last"], int | float)]
        return found

    def _connected(self) -> int:
        activity = sa.table("pg_stat_activity", sa.column("application_name"), sa.column("datname"))
        statement = sa.select(sa.func.count().label("count")).where(
            # A DBOS process names its connections so; DBOSClient's have another name.
            activity.c.application_name == "dbos_transact",
            activity.c.datname == sa.func.current_database(),
        )
        return int(self._session.rows(statement)[0]["count"])

    def _queue_settings(self) -> dict[str, dict[str, Any]]:
        table, column = self._queries.catalog.table("queues"), self._queries.column
        found: dict[str, dict[str, Any]] = {}
        if not table.c:
            return found
        settings = sa.select(
            column(table, "name").label("name"),
            column(table, "concurrency").label("concurrency"),
            column(table, "rate_limit_max").label("rate"),
            column(table, "rate_limit_period_sec").label("period"),
        )
        for row in self._session.rows(settings):
            found[row["name"]] = {**row, "running": 0, "waiting": 0}
        flows = self._queries.workflows
        name = column(flows, "queue_name")
        depths = (
            sa.select(
                name.label("name"), flows.c.status.label("status"), sa.func.count().label("n")
            )
            .where(name.is_not(None), flows.c.status.in_(("ENQUEUED", "PENDING")))
            .group_by(sa.literal_column("1"), sa.literal_column("2"))
        )
        for row in self._session.rows(depths):
            if row["name"] in found:
                word = "waiting" if row["status"] == "ENQUEUED" else "running"
                found[row["name"]][word] = row["n"]
        return found


def _age(seconds: float) -> str:
    """Say a span in its largest unit.

    Examples
    --------
    >>> _age(7200)
    '2.0 h'
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
