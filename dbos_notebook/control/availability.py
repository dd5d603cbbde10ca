"""Estimate whether a live executor can run enqueued work.

DBOS records no heartbeat, so the estimate combines evidence: recent changes to workflows and steps,
the registered application versions, the open connections on Postgres, the processes that have the
file open on SQLite, and the queue's limits. The answer is ``likely``, ``unlikely`` or ``unknown``;
"unlikely" requires evidence against an executor, not only a lack of evidence for one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import psycopg
import sqlalchemy as sa

from dbos_notebook.control.records import INTERNAL_QUEUE
from dbos_notebook.database.postgres import PostgresSession
from dbos_notebook.database.sqlite_file import Writers, find_writers
from dbos_notebook.text import duration, plural

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

RECENT_SECONDS = 120
"""An executor that was active, or a version that was registered, this recently is alive."""
DEPLOYED_SECONDS = 600
"""A version that was registered this recently is assumed to be the one that is connected."""
SILENT_SECONDS = 30
"""Executors poll about once a second. Connections without a statement for this long may be what a
pooler keeps of a dead process."""
DEAD_SECONDS = 300
"""DBOS polls at least every two minutes, so after this long no executor is alive."""
LAUNCH_SECONDS = 60
"""A process registers its version within this time after its start."""
ROUNDING_SECONDS = 1
"""SQLite may round the time of a registration down by this much."""
LISTEN_SECONDS = 5
"""Processes open the connection on which they listen within this time after the registration."""
ACTIVITY_SECONDS = 86_400
"""Older activity is ignored."""
MAX_ROWS = 5_000
"""Only the newest rows of a kind are read, because grouping all of a busy day takes long."""

# Names of connections: the Python SDK's, the prefix of the TypeScript SDK's, and DBOSClient's.
_PYTHON, _TYPESCRIPT, _CLIENT = "dbos_transact", "dbos_transact_", "dbos_transact_client"
_MAX_NAME_BYTES = 63
"""Postgres truncates the name of a connection to this length."""
# Connections that belong to no application.
_TOOLS = ("psql", "pgAdmin", "DBeaver", "DataGrip", "pg_dump", "pg_restore", "dbos_notebook")
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

Likelihood = Literal["likely", "unlikely", "unknown"]
_Column: TypeAlias = "sa.ColumnElement[Any]"


class _Target(NamedTuple):
    """The work for which to find an executor.

    ``versions`` are those whose executors run it: the requested version, or the latest ones.
    """

    version: str | None
    application: str | None
    versions: frozenset[str]

    @property
    def label(self) -> str:
        """How the evidence names the versions."""
        label = f"version {' or '.join(sorted(self.versions))}" if self.versions else "any version"
        return f"{label} (the latest)" if self.version is None and self.versions else label

    def has_application(self, application: str | None) -> bool:
        """Return whether evidence of this application counts."""
        return self.application is None or application in (None, self.application)


class _Estimate(NamedTuple):
    likelihood: Likelihood
    evidence: str


@dataclass(frozen=True)
class _Activity:
    """The last activity of an executor; times in milliseconds since 1970."""

    executor: str
    version: str | None
    application: str | None
    last: int


@dataclass(frozen=True)
class _Version:
    """A registered application version; times in milliseconds since 1970.

    ``timestamp`` decides which version is the latest; DBOS updates it to make a version the latest.
    """

    name: str
    application: str | None
    created: int | None
    timestamp: int | None


@dataclass
class _Queue:
    concurrency: str | None = None
    rate: str | None = None
    period: str | None = None
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class _ConnectionGroup:
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
class _Connections:
    """What is open, relative to one version and application.

    Attributes
    ----------
    own
        Connections of the version.
    dbos
        Connections of executors of an unknown version; on SQLite, other processes.
    possible
        Connections that may belong to any program; on SQLite, this process.
    other
        Connections of executors of other versions or applications, by their name.
    listening
        How many processes there are, each of which listens on one connection; ``None`` if unknown.
    silent
        Seconds since the last statement on ``own``, ``dbos`` or ``possible`` connections.
    opened
        When the oldest of those was opened.
    starts
        When each process that ``listening`` counts started, as far as known.
    """

    own: int = 0
    dbos: int = 0
    possible: int = 0
    other: dict[str, int] = field(default_factory=dict)
    possible_names: list[str] = field(default_factory=list)
    listening: int | None = None
    silent: float | None = None
    opened: int | None = None
    starts: tuple[int, ...] = ()
    writers: Writers | None = None

    @property
    def candidates(self) -> int:
        """How many may be of the version."""
        return self.own + self.dbos + self.possible

    def add_other(self, name: str, number: int) -> None:
        """Count connections of another version or application."""
        self.other[name] = self.other.get(name, 0) + number

    def describe(self) -> str:
        """Return what is open as the end of a sentence; ``""`` if nothing is."""
        if self.writers is not None:
            return _describe_writers(self.writers)
        parts = []
        if self.own:
            parts.append(f"{_format_connections(self.own, 'of that version ')} open")
        if self.dbos:
            parts.append(
                f"{_format_connections(self.dbos, 'of DBOS processes of unknown version ')} open"
            )
        if self.possible and not (self.own or self.dbos):
            names = ", ".join(repr(name) if name else "unnamed" for name in self.possible_names[:3])
            parts.append(
                f"{_format_connections(self.possible)} open that may belong to DBOS processes "
                f"({names})"
            )
        if self.other:
            groups = " and ".join(
                f"{number} of {name}" for name, number in sorted(self.other.items())[:3]
            )
            parts.append(f"{_format_connections(sum(self.other.values()))} open: {groups}")
        return ", and ".join(parts)


def _format_connections(number: int, kind: str = "") -> str:
    return f"{plural(number, 'connection')} {kind}{'is' if number == 1 else 'are'}"


def _describe_writers(writers: Writers) -> str:
    number = len(writers.others)
    if not number:
        return "this process has the file open for writing" if writers.here else ""
    processes = plural(number, "other process", "other processes")
    pids = f" (PID {', '.join(map(str, writers.others))})" if number <= 3 else ""
    return f"{processes} {'has' if number == 1 else 'have'} the file open for writing{pids}"


class ExecutorAvailability:
    """Evidence of live executors from one snapshot, by version, application and queue.

    The first estimate reads all evidence with one statement, so that a call which enqueues nothing
    costs nothing.

    Parameters
    ----------
    location
        Where a SQLite file is, to find the processes that have it open.
    """

    def __init__(
        self, session: Session, queries: Queries, location: Location | None = None
    ) -> None:
        self._session = session
        self._queries = queries.all_applications
        self._location = location
        self._now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        self._loaded = False
        self._activities: list[_Activity] = []
        self._versions: list[_Version] = []
        self._groups: list[_ConnectionGroup] = []
        self._queues: dict[str, _Queue] = {}
        self._writers: Writers | None = None
        # Why connections are not visible.
        self._hidden: str | None = None
        self._denied: str | None = None
        self._estimates: dict[tuple[str | None, str | None, str | None], str] = {}

    def estimate(self, version: str | None, application: str | None, queue: str | None) -> str:
        """Estimate whether a live executor can run work of a version and application on a queue.

        Call it last in a session: its transaction fails if the role may not read the evidence.

        Returns
        -------
        str
            ``likely``, ``unlikely`` or ``unknown``, a colon, and the evidence.
        """
        key = (version, application, queue)
        if key not in self._estimates:
            if not self._loaded:
                try:
                    self._load()
                except (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.InFailedSqlTransaction,
                ) as error:
                    self._denied = str(error).splitlines()[0]
            if self._denied is not None:
                return f"unknown: this role may not read executor activity ({self._denied})"
            versions = {version} if version else self._latest(application)
            target = _Target(version, application, frozenset(versions))
            likelihood, evidence = self._evaluate(target)
            limits, registered = self._limits(queue)
            if likelihood == "likely" and not registered:
                likelihood = "unknown"
            self._estimates[key] = f"{likelihood}: {evidence}{limits}"
        return self._estimates[key]

    # Evaluating

    def _evaluate(self, target: _Target) -> _Estimate:
        label = target.label
        own = [
            activity
            for activity in self._activities
            if (not target.versions or activity.version in target.versions)
            and target.has_application(activity.application)
        ]
        last = max(own, key=lambda activity: activity.last, default=None)
        age = None if last is None else max(0.0, (self._now - last.last) / 1000)
        history = (
            f"{label} has no recent activity"
            if last is None or age is None
            else f"{label} was last active {duration(age, approximate=True)} ago "
            f"(executor {last.executor})"
        )
        recent = age is not None and age <= RECENT_SECONDS
        connections = self._classify_connections(target)
        if last is not None and not self._may_be_open(last, connections):
            recent = False
        launched = self._launched(target, connections)
        if launched is False:
            # The processes that are alive started when other versions were deployed.
            recent = False
        opened = connections.describe()
        if not connections.candidates:
            absent = self._absent(connections)
            if absent is not None:
                return _Estimate("unlikely", f"{absent}; {history}")
        elif connections.silent is not None and connections.silent > SILENT_SECONDS:
            return _Estimate(
                "unlikely" if connections.silent > DEAD_SECONDS else "unknown",
                f"{history}; {opened}, but none has sent a statement for "
                f"{duration(connections.silent, approximate=True)} "
                "(a live executor sends one about every second)",
            )
        if recent:
            invisible = self._invisible(connections)
            if not connections.candidates and invisible:
                return _Estimate("unknown", f"{history}, but {invisible}")
            return _Estimate(
                "likely", history + (f", and {opened}" if connections.candidates else "")
            )
        if connections.own or (not target.versions and connections.dbos):
            return _Estimate("likely", f"{opened}; {history}")
        known = [version for version in self._versions if version.name in target.versions]
        if target.versions and self._versions and not known and last is None:
            names = [version.name for version in self._versions[::-1]]
            registered = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
            return _Estimate(
                "unlikely", f"no executor has registered {label} (registered: {registered})"
            )
        return self._evaluate_registration(
            target, connections, known, own, history, launched=launched
        )

    def _evaluate_registration(
        self,
        target: _Target,
        connections: _Connections,
        known: Sequence[_Version],
        own: Sequence[_Activity],
        history: str,
        *,
        launched: bool | None,
    ) -> _Estimate:
        """Evaluate the registration of a version that has no recent activity."""
        created = max((version.created for version in known if version.created), default=None)
        age = None if created is None else max(0.0, (self._now - created) / 1000)
        if age is not None:
            history = (
                f"{target.label} was registered {duration(age, approximate=True)} ago; {history}"
            )
        opened = connections.describe()
        if launched and connections.dbos:
            return _Estimate(
                "likely",
                f"{history}; {opened}, and one process started when that version was registered",
            )
        if connections.dbos:
            likelihood, evidence = self._evaluate_unknown_version(target, connections, created, own)
            if launched is False and likelihood == "likely" and target.version:
                likelihood = "unknown"
                evidence += ", but their processes started when other versions were registered"
            return _Estimate(likelihood, f"{history}; {evidence}")
        if age is not None and age <= RECENT_SECONDS:
            invisible = self._invisible(connections)
            if not connections.candidates and invisible:
                return _Estimate("unknown", f"{history}; {invisible}")
            return _Estimate("likely", history + (f"; {opened}" if opened else ""))
        reason = opened if connections.candidates else self._hidden or self._invisible(connections)
        return _Estimate("unknown", history + (f"; {reason}" if reason else ""))

    def _absent(self, connections: _Connections) -> str | None:
        """Return the evidence that no executor is alive; ``None`` if there is none."""
        if self._hidden is not None:
            return None
        if connections.writers is not None:
            if connections.writers.complete and not connections.writers.here:
                return "no other process on this machine has the file open for writing"
            return None
        return connections.describe() or "no DBOS process is connected to the database"

    @staticmethod
    def _invisible(connections: _Connections) -> str | None:
        """Return that no process is visible, where some may be invisible."""
        if connections.writers is not None and not connections.writers.here:
            return "no visible process has the file open for writing"
        return None

    def _evaluate_unknown_version(
        self,
        target: _Target,
        connections: _Connections,
        created: int | None,
        own: Sequence[_Activity],
    ) -> _Estimate:
        """Estimate whether executors of an unknown version are of a wanted one."""
        opened = connections.describe()
        since = self._now - RECENT_SECONDS * 1000
        others = [
            activity for activity in self._activities if activity.version not in target.versions
        ]
        other_versions = [
            version.created
            for version in self._versions
            if version.name not in target.versions
            and version.created
            and target.has_application(version.application)
        ]
        # No registration lies in the future, even if this clock is behind.
        created = None if created is None else min(created, self._now)
        active = [
            activity
            for activity in others
            if activity.last >= since and self._may_be_open(activity, connections)
        ]
        if active:
            names = ", ".join(sorted({str(activity.version) for activity in active}))
            evidence = f"{opened}; version {names} is active"
            # The newest process may have replaced those without activity since its start.
            newest_start = max(connections.starts, default=0)
            executors = {
                (activity.executor, activity.version)
                for activity in active
                if activity.last >= newest_start
            }
            if connections.listening is not None and connections.listening <= len(executors):
                return _Estimate("unlikely", f"{evidence}, and no other DBOS process is connected")
            newest = created is not None and created >= max(other_versions, default=0)
            deployed = created is not None and self._now - created <= DEPLOYED_SECONDS * 1000
            return _Estimate("likely" if newest and deployed else "unknown", evidence)
        # The version that was registered or active last is likely to be connected.
        last = max([activity.last for activity in own] + ([created] if created else []), default=-1)
        other_last = max([activity.last for activity in others] + other_versions, default=0)
        return _Estimate("likely" if last >= other_last else "unknown", opened)

    @staticmethod
    def _may_be_open(activity: _Activity, connections: _Connections) -> bool:
        """Return whether the executor may hold one of the open connections."""
        # SQLite may round the time of an activity down to the second.
        rounding = 999 if connections.writers is not None and activity.last % 1000 == 0 else 0
        return connections.opened is None or connections.opened <= activity.last + rounding

    def _launched(self, target: _Target, connections: _Connections) -> bool | None:
        """Return whether a process started when a wanted version was registered.

        ``False``: each started when another version was registered. ``None``: unknown.
        """
        if not connections.starts or len(connections.starts) != connections.listening:
            return None
        versions = [self._registered_at(start) for start in connections.starts]
        if any(version in target.versions for version in versions):
            return True
        return None if None in versions else False

    def _registered_at(self, start: int) -> str | None:
        """Return the version that a process may have registered when it started."""
        sqlite = self._writers is not None
        earliest, latest = (-ROUNDING_SECONDS, LAUNCH_SECONDS) if sqlite else (-LISTEN_SECONDS, 1)
        matches: list[tuple[bool, float, str]] = []
        for version in self._versions:
            delay = ((version.created or 0) - start) / 1000
            if earliest <= delay <= latest:
                # A process starts before it registers its version. On SQLite a rounded time may
                # come before the start, but the next version's is then farther off.
                matches.append((sqlite and delay >= 0, abs(delay), version.name))
        return min(matches)[2] if matches else None

    def _latest(self, application: str | None) -> set[str]:
        """Return the versions whose executors run work without a version.

        That is the latest version of the application, or one without an application. Executors of
        every application's latest version run work without an application.
        """
        owners = {version.application for version in self._versions}
        latest: set[str] = set()
        for owner in {application} if application is not None else owners:
            visible = [
                version for version in self._versions if version.application in (None, owner)
            ]
            if visible:
                latest.add(max(visible, key=lambda version: version.timestamp or 0).name)
        return latest

    def _classify_connections(self, target: _Target) -> _Connections:
        connections = _Connections(writers=self._writers)
        if self._writers is not None:
            connections.dbos = len(self._writers.others)
            connections.possible = int(self._writers.here)
            connections.listening = connections.dbos + connections.possible
            connections.starts = self._writers.started_ms
            connections.opened = min(connections.starts, default=None)
            return connections
        if self._hidden is not None:
            return connections
        applications = {version.application for version in self._versions}
        applications |= {activity.application for activity in self._activities}
        applications -= {None}
        registered = {version.name for version in self._versions}
        dbos: list[_ConnectionGroup] = []
        possible: list[_ConnectionGroup] = []
        for group in self._groups:
            name = group.name
            if name == _CLIENT or name.startswith(_TOOLS):
                continue
            if name.startswith(_TYPESCRIPT):
                version = _version(name, target.versions, registered)
                if version in target.versions:
                    connections.own += group.count
                elif version:
                    connections.add_other(f"version {version}", group.count)
                    continue
                else:
                    connections.dbos += group.count
            elif name == _PYTHON or group.works or name in applications:
                # The Go SDK names its connections after the application.
                if not target.has_application(name) and name in applications:
                    connections.add_other(f"application {name}", group.count)
                    continue
                connections.dbos += group.count
            else:
                connections.possible += group.count
                connections.possible_names.append(name)
                possible.append(group)
                continue
            dbos.append(group)
        groups = [*dbos, *possible]
        # The role may not see the activity of some sessions.
        visible = all(group.last is not None for group in groups)
        if visible:
            connections.opened = min(
                (group.opened for group in groups if group.opened), default=None
            )
            listening = sum(group.listens for group in groups)
            if listening:
                connections.listening = listening
                connections.starts = tuple(start for group in groups for start in group.starts)
        statements = [group.last for group in dbos or possible]
        known = [moment for moment in statements if moment is not None]
        if known and len(known) == len(statements):
            connections.silent = max(0.0, (self._now - max(known)) / 1000)
        return connections

    def _limits(self, queue: str | None) -> tuple[str, bool]:
        """Return the queue's limits as the end of a sentence, and whether the queue is known."""
        if queue is None or queue == INTERNAL_QUEUE:
            return "", True
        if not self._queries.catalog.has("queues", "name"):
            return "", True
        settings = self._queues.get(queue)
        if settings is None:
            return f"; no queue {queue!r} is registered in the database", False
        parts = []
        if settings.concurrency is not None:
            parts.append(f"runs {settings.concurrency} at a time")
        if settings.rate is not None:
            parts.append(f"starts {settings.rate} per {_number(settings.period)} s")
        if settings.running:
            parts.append(f"{settings.running} running")
        if settings.waiting:
            parts.append(f"{settings.waiting} waiting")
        return (f"; queue {queue!r}: {', '.join(parts)}" if parts else ""), True

    # Reading

    def _load(self) -> None:
        self._loaded = True
        parts = [*self._activity(), *self._registered(), *self._queue_settings()]
        postgres = self._queries.catalog.dialect == "postgresql"
        if postgres:
            parts += self._connected()
        for row in self._session.rows(sa.union_all(*parts)):
            self._add(row)
        self._versions.sort(key=lambda version: version.timestamp or 0)
        since = self._now - ACTIVITY_SECONDS * 1000
        self._activities = [activity for activity in self._activities if activity.last >= since]
        if not postgres and self._location is not None and self._location.path is not None:
            self._writers = find_writers(self._location.path)
        if not postgres and self._writers is None:
            self._hidden = "this system does not show which processes have the file open"

    def _add(self, row: dict[str, Any]) -> None:
        kind, s1, s2, s3, s4 = (row[name] for name in ("kind", *_STRINGS))
        i1, i2, i3, i4, i5 = (row[name] for name in _INTEGERS)
        if kind == "activity" and isinstance(i1, int):
            self._activities.append(_Activity(s1, s2, s3, i1))
        elif kind == "version":
            self._versions.append(_Version(str(s1), s2, i1, i2))
        elif kind == "queue":
            self._queues[s1] = _Queue(s2, s3, s4)
        elif kind == "depth" and s1 in self._queues:
            queue = self._queues[s1]
            if s2 == "ENQUEUED":
                queue.waiting += i1
            else:
                queue.running += i1
        elif kind == "server":
            self._now = i1
            self._hidden = self._why_hidden(s1 or "", standby=bool(i2), process=i3)
        elif kind == "connections":
            starts = tuple(int(start) for start in (s2 or "").split())
            self._groups.append(_ConnectionGroup(s1 or "", i2, i1, i3 + i4, i4, i5, starts))

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
        since = self._now - ACTIVITY_SECONDS * 1000
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
            kinds.append((steps.c.completed_at_epoch_ms, joined, running, None))
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


def _version(name: str, wanted: Collection[str], registered: Collection[str]) -> str | None:
    """Return the version in the name of a connection of the TypeScript SDK; ``None`` if unknown.

    The name is ``dbos_transact_EXECUTOR_VERSION``, and Postgres truncates it to 63 bytes.

    Examples
    --------
    >>> _version("dbos_transact_host_1_2.0", {"2.0"}, {"1.0", "2.0"})
    '2.0'
    >>> _version("dbos_transact_local_", {"2.0"}, {"2.0"}) is None
    True
    """
    rest = name.removeprefix(_TYPESCRIPT)
    truncated = len(name.encode()) >= _MAX_NAME_BYTES
    for version in (*wanted, *sorted(registered)):
        if rest.endswith(f"_{version}"):
            return version
        parts = rest.split("_")
        ends = ("_".join(parts[index:]) for index in range(1, len(parts)))
        if truncated and any(end and version.startswith(end) for end in ends):
            return version
    return None if truncated else rest.rpartition("_")[2] or None


def _number(value: str | None) -> str:
    """Format a number without trailing zeros; SQLite may store any string in the column."""
    try:
        return "?" if value is None else f"{float(value):g}"
    except ValueError:
        return str(value)
