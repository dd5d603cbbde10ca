"""Read the evidence of live executors: activity, versions, connections, and queues.

One statement reads everything in one snapshot.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
import sqlalchemy as sa

from dbos_notebook.database.postgres import PostgresSession
from dbos_notebook.database.sqlite_file import Writers, find_writers
from dbos_notebook.tables.sql import SLEEPS

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

ACTIVITY_SECONDS = 86_400
"""Older activity is ignored."""
MAX_ROWS = 5_000
"""Only the newest rows of a kind are read, because grouping all of a busy day takes long."""
# Statements that executors of every SDK send, but clients and this package do not.
_LISTENS = r"^\s*LISTEN +\"?dbos_"
_WORKS = (
    r"^\s*(NOTIFY +\"?dbos_|SELECT pg_notify\W"
    # The lock that dbos 3.4 holds for its background jobs.
    r"|SELECT pg_try_advisory_xact_lock\(.*idle_in_transaction_session_timeout"
    r"|(UPDATE|INSERT INTO) .*(workflow_status|operation_outputs)\M)"
)
# Each node of these has its own pg_stat_activity.
_DISTRIBUTED = ("CockroachDB", "-YB-")
# The columns that all parts of the one statement share; their meaning depends on the kind.
_STRINGS, _INTEGERS = ("s1", "s2", "s3", "s4"), ("i1", "i2", "i3", "i4", "i5")

_Column: TypeAlias = "sa.ColumnElement[Any]"


@dataclass(frozen=True)
class ExecutorActivity:
    """The last activity of an executor; times in milliseconds since 1970."""

    executor: str
    version: str | None
    application: str | None
    last: int


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered application version; times in milliseconds since 1970.

    ``timestamp`` decides which version is the latest; DBOS updates it to make a version the latest.
    """

    name: str
    application: str | None
    created: int | None
    timestamp: int | None


@dataclass
class QueueLimits:
    """The settings of a queue as stored, and how many workflows are on it."""

    concurrency: str | None = None
    rate: str | None = None
    period: str | None = None
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class ConnectionGroup:
    """The open connections of one name; times in milliseconds since 1970.

    ``works`` counts those whose last statement only executors send; ``listens`` those that listen
    for notifications, and ``starts`` are when those were opened.
    """

    name: str
    count: int
    last: int | None
    works: int
    listens: int
    opened: int | None
    starts: tuple[int, ...]


@dataclass
class ExecutorEvidence:
    """The evidence of executors in one snapshot.

    Attributes
    ----------
    now
        The time of the snapshot, in milliseconds since 1970.
    activities, versions, groups, queues
        Executors by their last activity, registered versions in the order of their timestamps,
        open connections, and queues by name.
    writers
        The processes that have a SQLite file open for writing.
    hidden
        Why connections are not visible; ``None`` if they are.
    denied
        Why nothing could be read; ``None`` if it could.
    """

    now: int
    activities: list[ExecutorActivity] = field(default_factory=list)
    versions: list[RegisteredVersion] = field(default_factory=list)
    groups: list[ConnectionGroup] = field(default_factory=list)
    queues: dict[str, QueueLimits] = field(default_factory=dict)
    writers: Writers | None = None
    hidden: str | None = None
    denied: str | None = None


def read_evidence(
    session: Session, queries: Queries, location: Location | None = None
) -> ExecutorEvidence:
    """Read the evidence.

    Call it last in a session: its transaction fails if the role may not read the evidence.
    """
    evidence = ExecutorEvidence(int(dt.datetime.now(dt.UTC).timestamp() * 1000))
    try:
        _Reading(session, queries, evidence).load(location)
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.InFailedSqlTransaction,
    ) as error:
        evidence.denied = str(error).splitlines()[0]
    return evidence


class _Reading:
    def __init__(self, session: Session, queries: Queries, evidence: ExecutorEvidence) -> None:
        self._session = session
        self._queries = queries
        self._evidence = evidence

    def load(self, location: Location | None) -> None:
        parts = [*self._activity(), *self._registered(), *self._queue_settings()]
        postgres = self._queries.catalog.dialect == "postgresql"
        if postgres:
            parts += self._connected()
        for row in self._session.rows(sa.union_all(*parts)):
            self._add(row)
        self._evidence.versions.sort(key=lambda version: version.timestamp or 0)
        since = self._evidence.now - ACTIVITY_SECONDS * 1000
        self._evidence.activities = [
            activity for activity in self._evidence.activities if activity.last >= since
        ]
        if not postgres and location is not None and location.path is not None:
            self._evidence.writers = find_writers(location.path)
        if not postgres and self._evidence.writers is None:
            self._evidence.hidden = "this system does not show which processes have the file open"

    def _add(self, row: dict[str, Any]) -> None:
        kind, s1, s2, s3, s4 = (row[name] for name in ("kind", *_STRINGS))
        i1, i2, i3, i4, i5 = (row[name] for name in _INTEGERS)
        if kind == "activity" and isinstance(i1, int):
            self._evidence.activities.append(ExecutorActivity(s1, s2, s3, i1))
        elif kind == "version":
            self._evidence.versions.append(RegisteredVersion(str(s1), s2, i1, i2))
        elif kind == "queue":
            self._evidence.queues[s1] = QueueLimits(s2, s3, s4)
        elif kind == "depth" and s1 in self._evidence.queues:
            queue = self._evidence.queues[s1]
            if s2 == "ENQUEUED":
                queue.waiting += i1
            else:
                queue.running += i1
        elif kind == "server":
            self._evidence.now = i1
            self._evidence.hidden = self._why_hidden(s1 or "", standby=bool(i2), process=i3)
        elif kind == "connections":
            starts = tuple(int(start) for start in (s2 or "").split())
            self._evidence.groups.append(ConnectionGroup(s1 or "", i2, i1, i3 + i4, i4, i5, starts))

    def _why_hidden(self, server: str, *, standby: bool, process: int) -> str | None:
        """Return why the executors' connections are not visible; ``None`` if they are."""
        if standby:
            return "a standby does not show who is connected to the primary"
        if any(name in server for name in _DISTRIBUTED):
            return "connections to the other nodes of the database are not visible"
        # A pooler reports another process ID than that of the server's process.
        if isinstance(self._session, PostgresSession) and self._session.process not in (
            None,
            process,
        ):
            return (
                "connections are not visible, because this connection goes through a connection "
                "pooler"
            )
        return None

    def _part(
        self, kind: str, source: sa.FromClause | None = None, **values: sa.ColumnElement[Any]
    ) -> sa.Select[Any]:
        """Return one part of the statement, in the columns that all parts share."""
        types: tuple[tuple[tuple[str, ...], sa.types.TypeEngine[Any]], ...] = (
            (_STRINGS, sa.Text()),
            (_INTEGERS, sa.BigInteger()),
        )
        statement = sa.select(
            sa.cast(sa.literal(kind), sa.Text()).label("kind"),
            *(
                sa.cast(values.get(name, sa.null()), type_).label(name)
                for names, type_ in types
                for name in names
            ),
        )
        return statement if source is None else statement.select_from(source)

    def _activity(self) -> list[sa.Select[Any]]:
        """Select the last activity of each executor within a day, by indexes of DBOS's."""
        table, column = self._queries.workflows, self._queries.column
        since = self._evidence.now - ACTIVITY_SECONDS * 1000
        executor = (
            column(table, "executor_id").label("executor"),
            column(table, "application_version").label("version"),
            column(table, "application_name").label("application"),
        )
        completed, started = column(table, "completed_at"), column(table, "started_at_epoch_ms")
        created = table.c.created_at
        completed_order = completed
        ended: sa.ColumnElement[bool] = table.c.status.in_(("SUCCESS", "ERROR"))
        if isinstance(completed, sa.Null):
            # Before dbos 2.31. updated_at has no index, so only recently created rows are read.
            completed, completed_order = table.c.updated_at, created
            ended = sa.and_(ended, created >= since)
        # Each with a time, a source, a condition, and the order in which the newest rows are read.
        # Executors did these; clients enqueue and cancel from outside.
        kinds: list[tuple[_Column, sa.FromClause, sa.ColumnElement[bool], _Column | None]] = [
            (completed, table, ended, completed_order),
            (started, table, sa.true(), started),
            (created, table, table.c.status == "PENDING", None),
        ]
        steps = self._queries.steps
        if "completed_at_epoch_ms" in steps.c:
            joined = table.join(steps, steps.c.workflow_uuid == table.c.workflow_uuid)
            running = table.c.status == "PENDING"
            # A sleep is completed when it wakes, which its row says from its start.
            sleeps = steps.c.function_name.in_(SLEEPS)
            begun = column(steps, "started_at_epoch_ms")
            completed_step = sa.case((sleeps, begun), else_=steps.c.completed_at_epoch_ms)
            kinds.append((completed_step, joined, running, None))
        parts = []
        for time, source, condition, order in kinds:
            if isinstance(time, sa.Null):
                continue
            rows = (
                sa.select(*executor, time.label("time"))
                .select_from(source)
                .where(executor[0].is_not(None), time >= since, condition)
            )
            if order is not None:
                rows = rows.order_by(order.desc()).limit(MAX_ROWS)
            activity = rows.subquery()
            key = (activity.c.executor, activity.c.version, activity.c.application)
            part = self._part(
                "activity",
                activity,
                s1=key[0],
                s2=key[1],
                s3=key[2],
                i1=sa.func.max(activity.c.time),
            )
            parts.append(part.group_by(*key))
        return parts

    def _registered(self) -> list[sa.Select[Any]]:
        table, column = self._queries.catalog.table("application_versions"), self._queries.column
        if not {"version_name", "version_timestamp"} <= set(table.c.keys()):
            return []
        return [
            self._part(
                "version",
                table,
                s1=table.c.version_name,
                s2=column(table, "application_name"),
                i1=column(table, "created_at"),
                i2=table.c.version_timestamp,
            )
        ]

    def _connected(self) -> list[sa.Select[Any]]:
        """Group other sessions of this database whose role may write to DBOS's tables."""
        names = (
            "application_name",
            "datname",
            "usesysid",
            "pid",
            "state",
            "state_change",
            "backend_start",
        )
        activity = sa.table(
            "pg_stat_activity",
            *map(sa.column, (*names, "query", "backend_type")),
            schema="pg_catalog",
        )
        now = sa.func.clock_timestamp()
        state, query, kind = activity.c.state, activity.c.query, activity.c.backend_type
        last_statement = sa.case((state == "active", now), else_=activity.c.state_change)
        listens = query.op("~*", is_comparison=True)(_LISTENS)
        works = query.op("~*", is_comparison=True)(_WORKS)
        start = sa.cast(_milliseconds(activity.c.backend_start), sa.BigInteger())
        schema = (self._queries.catalog.schema or "").replace('"', '""')
        table = f'"{schema}"."workflow_status"'
        server = self._part(
            "server",
            s1=sa.func.version(),
            i1=_milliseconds(now),
            i2=sa.case((sa.func.pg_is_in_recovery(), 1), else_=0),
            i3=sa.func.pg_backend_pid(),
        )
        others = self._part(
            "connections",
            activity,
            s1=activity.c.application_name,
            s2=sa.func.string_agg(sa.cast(start, sa.Text()), " ").filter(listens),
            i1=_milliseconds(sa.func.max(last_statement)),
            i2=sa.func.count(),
            i3=sa.func.count().filter(works),
            i4=sa.func.count().filter(listens),
            i5=sa.func.min(start),
        ).where(
            activity.c.datname == sa.func.current_database(),
            activity.c.pid != sa.func.pg_backend_pid(),
            # NULL if this role may not see the session.
            sa.func.coalesce(kind, "client backend") == "client backend",
            sa.func.has_any_column_privilege(activity.c.usesysid, table, "UPDATE"),
        )
        return [server, others.group_by(activity.c.application_name)]

    def _queue_settings(self) -> list[sa.Select[Any]]:
        table, column = self._queries.catalog.table("queues"), self._queries.column
        if "name" not in table.c:
            return []
        settings = self._part(
            "queue",
            table,
            s1=table.c.name,
            s2=column(table, "concurrency"),
            s3=column(table, "rate_limit_max"),
            s4=column(table, "rate_limit_period_sec"),
        )
        workflows = self._queries.workflows
        name = column(workflows, "queue_name")
        depths = (
            sa.select(
                name.label("name"), workflows.c.status.label("status"), sa.func.count().label("n")
            )
            .where(name.is_not(None), *self._queries.where({"status": ["ENQUEUED", "PENDING"]}))
            .group_by(sa.literal_column("1"), sa.literal_column("2"))
            .subquery()
        )
        # The settings come first, because the depths are added to them.
        return [
            settings,
            self._part("depth", depths, s1=depths.c.name, s2=depths.c.status, i1=depths.c.n),
        ]


def _milliseconds(time: _Column) -> _Column:
    return sa.func.floor(sa.extract("epoch", time) * 1000)
