"""Estimate whether an executor will take enqueued work, and say from what.

DBOS records no heartbeat. What there is to weigh: who has lately changed a workflow or a step,
which application versions were registered and when, on Postgres the connections that are open now,
on SQLite the processes that have the file open, and the limits of the queue. An answer is
``likely``, ``unlikely`` or ``unknown``; "unlikely" needs evidence against, not only none for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from dbos_notebook.control.records import INTERNAL_QUEUE
from dbos_notebook.database.postgres import PostgresSession
from dbos_notebook.database.sqlite_file import Writers, find_writers
from dbos_notebook.text import duration

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

RECENT_SECONDS = 120
"""An executor that changed something so long ago, or a version registered then, is alive."""
DEPLOYED_SECONDS = 600
"""A version registered so long ago is taken for the one that is connected."""
SILENT_SECONDS = 30
"""Executors look for work about once a second. Connections without a statement for so long may be
what a connection pooler keeps of a dead process."""
DEAD_SECONDS = 300
"""DBOS slows down to one look in two minutes at most: after so long no executor is behind them."""
LAUNCH_SECONDS = 60
"""A process registers its version so soon after it started."""
ROUNDED_SECONDS = 1
"""SQLite may round the time of a registration down by so much."""
SKEW_SECONDS = 5
"""Processes begin to listen so soon after they have registered their version."""
LOOKED_BACK_SECONDS = 86_400
MOST_ROWS = 5_000
"""The newest rows of a kind that are looked at, or a busy day would take long to group."""

_PYTHON, _TYPESCRIPT, _CLIENT = "dbos_transact", "dbos_transact_", "dbos_transact_client"
_LONGEST_NAME = 63
"""Bytes that Postgres keeps of a connection's name."""
# Connections that are no application's.
_TOOLS = ("psql", "pgAdmin", "DBeaver", "DataGrip", "pg_dump", "pg_restore", "dbos_notebook")
# What executors of every SDK send, and neither clients nor these notebooks do.
_LISTENS = r"^\s*LISTEN +\"?dbos_"
_WORKS = (
    r"^\s*(NOTIFY +\"?dbos_|SELECT pg_notify\W"
    # The lock that dbos 3.4 holds for its background jobs.
    r"|SELECT pg_try_advisory_xact_lock\(.*idle_in_transaction_session_timeout"
    r"|(UPDATE|INSERT INTO) .*(workflow_status|operation_outputs)\M)"
)
# Each process has its own pg_stat_activity there.
_DISTRIBUTED = ("CockroachDB", "-YB-")

_TEXTS, _NUMBERS = ("a", "b", "c", "d"), ("m", "n", "o", "p", "q")


@dataclass
class _Connections:
    """What is open, from the point of view of one version and application.

    ``own`` say that they are of the version; ``dbos`` are some executor's; ``foreign`` are an
    executor's of another version or application; ``maybe`` could be any program's.
    """

    own: int = 0
    dbos: int = 0
    maybe: int = 0
    foreign: dict[str, int] = field(default_factory=dict)
    maybe_names: list[str] = field(default_factory=list)
    listening: int | None = None
    """Processes, each of which listens on one connection; ``None`` where that cannot be seen."""
    silent: float | None = None
    """Seconds since the last statement on those that may be of the version, where it is known."""
    began: int | None = None
    """When the oldest of those that may be of the version was opened, where it is known."""
    starts: tuple[int, ...] = ()
    """When each process that ``listening`` counts began, as far as it is known."""
    writers: Writers | None = None

    def words(self) -> str:
        """Say what is open."""
        if self.writers is not None:
            many = len(self.writers.others)
            if many:
                first = f" (PID {', '.join(map(str, self.writers.others[:3]))})"
                return f"{_count(many, 'other process')} {_has(many)} the file open for writing" + (
                    first if many <= 3 else ""
                )
            return "this process has the file open for writing" if self.writers.here else ""
        parts = []
        if self.own:
            parts.append(f"{_count(self.own, 'connection')} of that version {_is(self.own)} open")
        if self.dbos:
            parts.append(
                f"{_count(self.dbos, 'connection')} of DBOS processes {_is(self.dbos)} open, "
                "which do not name their version"
            )
        if self.maybe and not (self.own or self.dbos):
            shown = ", ".join(repr(name) if name else "unnamed" for name in self.maybe_names[:3])
            parts.append(
                f"{_count(self.maybe, 'connection')} {_is(self.maybe)} open that may be of DBOS "
                f"processes ({shown})"
            )
        if self.foreign:
            whose = " and ".join(f"{n} of {name}" for name, n in sorted(self.foreign.items())[:3])
            total = sum(self.foreign.values())
            parts.append(f"{_count(total, 'connection')} {_is(total)} open: {whose}")
        return ", and ".join(parts)


class ExecutorAvailability:
    """What one snapshot says of the executors, by version, application and queue.

    It reads when it is first asked, in one statement, so that a call which enqueues nothing costs
    nothing. ``location`` is where a SQLite file is, whose open handles are evidence too.
    """

    def __init__(
        self, session: Session, queries: Queries, location: Location | None = None
    ) -> None:
        self._session = session
        self._queries = queries.of_all_applications
        self._location = location
        self._now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        self._read_already = False
        self._seen: list[dict[str, Any]] = []
        self._versions: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []
        self._unseen: str | None = None
        self._writers: Writers | None = None
        self._queues: dict[str, dict[str, Any]] = {}
        self._told: dict[tuple[str | None, str | None, str | None], str] = {}
        self._refused: str | None = None

    def of(self, version: str | None, application: str | None, queue: str | None) -> str:
        """Say whether work of this version and application on this queue will be taken.

        The answer begins with ``likely``, ``unlikely`` or ``unknown``. The transaction of the
        session has failed where the role may not read this: ask last.
        """
        asked = (version, application, queue)
        if asked not in self._told:
            if not self._read_already:
                try:
                    self._read()
                except (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.InFailedSqlTransaction,
                ) as error:
                    self._refused = str(error).splitlines()[0]
            if self._refused is not None:
                return f"unknown: this role may not read what executors do ({self._refused})"
            word, evidence = self._evaluate(version, application)
            limits, registered = self._limits(queue)
            if word == "likely" and not registered:
                word = "unknown"
            self._told[asked] = f"{word}: {evidence}{limits}"
        return self._told[asked]

    # Weighing

    def _evaluate(self, version: str | None, application: str | None) -> tuple[str, str]:
        wanted = {version} if version else self._latest(application)
        what = f"version {' or '.join(sorted(wanted))}" if wanted else "any version"
        if version is None and wanted:
            what += " (the latest)"
        mine = [
            row
            for row in self._seen
            if (not wanted or row["version"] in wanted)
            and (application is None or row["application"] in (None, application))
        ]
        last = max(mine, key=lambda row: row["last"], default=None)
        age = None if last is None else max(0.0, (self._now - last["last"]) / 1000)
        did = (
            f"no recent work of {what} is recorded"
            if last is None or age is None
            else f"{what} last did something {duration(age, approximate=True)} ago "
            f"(executor {last['executor']})"
        )
        recent = age is not None and age <= RECENT_SECONDS
        found = self._connections(wanted, application)
        if last is not None and not self._may_be_open(last, found):
            recent = False
        launched = self._launched(wanted, found)
        if launched is False:
            # What is open now was opened when other versions were deployed.
            recent = False
        opened = found.words()
        candidates = found.own + found.dbos + found.maybe
        if not candidates:
            against = self._nobody(found)
            if against is not None:
                return "unlikely", f"{against}; {did}"
        if candidates and found.silent is not None and found.silent > SILENT_SECONDS:
            word = "unlikely" if found.silent > DEAD_SECONDS else "unknown"
            quiet = f"none has sent a statement for {duration(found.silent, approximate=True)}"
            return word, f"{did}; {opened}, but {quiet} (a live executor does about every second)"
        if recent:
            hidden = self._hidden(found)
            if not candidates and hidden:
                return "unknown", f"{did}, but {hidden}"
            return "likely", did + (f", and {opened}" if candidates else "")
        if found.own or (not wanted and found.dbos):
            return "likely", f"{opened}; {did}"
        known = [row for row in self._versions if row["version"] in wanted]
        if wanted and self._versions and not known and last is None:
            names = [str(row["version"]) for row in self._versions[::-1]]
            shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
            return "unlikely", (f"no executor has registered {what}; registered are {shown}")
        registered = max((row["created"] for row in known if row["created"]), default=None)
        fresh = None if registered is None else max(0.0, (self._now - registered) / 1000)
        if fresh is not None:
            did = f"{what} was registered {duration(fresh, approximate=True)} ago; {did}"
        if launched and found.dbos:
            return "likely", f"{did}; {opened}, and one began when that version was registered"
        if found.dbos:
            word, more = self._unattributed(wanted, application, found, fresh, mine)
            if launched is False and word == "likely" and version:
                word, more = "unknown", f"{more}, which began when other versions were registered"
            return word, f"{did}; {more}"
        if fresh is not None and fresh <= RECENT_SECONDS:
            hidden = self._hidden(found)
            if not candidates and hidden:
                return "unknown", f"{did}; {hidden}"
            return "likely", did + (f"; {opened}" if opened else "")
        why = opened if candidates else self._unseen or self._hidden(found)
        return "unknown", did + (f"; {why}" if why else "")

    def _nobody(self, found: _Connections) -> str | None:
        """Say that no process can be there, where that is known."""
        if self._unseen is not None:
            return None
        if found.writers is not None:
            if found.writers.complete and not found.writers.here:
                return "no other process on this machine has the file open for writing"
            return None
        if found.foreign:
            return found.words()
        return "no DBOS process is connected to the database now"

    @staticmethod
    def _hidden(found: _Connections) -> str | None:
        """Say that nobody was seen, where some cannot be."""
        if found.writers is not None and not found.writers.here:
            return "no process that can be seen from here has the file open for writing"
        return None

    def _unattributed(
        self,
        wanted: Collection[str | None],
        application: str | None,
        found: _Connections,
        fresh: float | None,
        mine: Sequence[dict[str, Any]],
    ) -> tuple[str, str]:
        """Weigh whether executors of unknown version are of the one that is wanted."""
        opened = found.words()
        since = self._now - RECENT_SECONDS * 1000
        others = [row for row in self._seen if row["version"] not in wanted]
        rivals = [
            row["created"]
            for row in self._versions
            if row["version"] not in wanted
            and row["created"]
            and (application is None or row["application"] in (None, application))
        ]
        registered = None if fresh is None else self._now - int(fresh * 1000)
        newest = registered is not None and registered >= max(rivals, default=0)
        busy = [row for row in others if row["last"] >= since and self._may_be_open(row, found)]
        if busy:
            names = ", ".join(sorted({str(row["version"]) for row in busy}))
            said = f"{opened}; version {names} is at work"
            # Who did nothing since the newest process began may have been replaced by it.
            newest_start = max(found.starts, default=0)
            at_work = {
                (row["executor"], row["version"]) for row in busy if row["last"] >= newest_start
            }
            if found.listening is not None and found.listening <= len(at_work):
                return "unlikely", f"{said}, and no other DBOS process is connected"
            deployed = newest and fresh is not None and fresh <= DEPLOYED_SECONDS
            return ("likely" if deployed else "unknown"), said
        # What happened last: was the version registered or active after all others?
        ours = [row["last"] for row in mine] + ([registered] if registered else [])
        theirs = [row["last"] for row in others] + rivals
        return ("likely" if max(ours, default=-1) >= max(theirs, default=0) else "unknown"), opened

    @staticmethod
    def _may_be_open(row: dict[str, Any], found: _Connections) -> bool:
        """Whether what is open may be the executor's: who did something was connected then."""
        # SQLite may round what was done down to the second.
        rounded = 999 if found.writers is not None and row["last"] % 1000 == 0 else 0
        return found.began is None or bool(found.began <= row["last"] + rounded)

    def _launched(self, wanted: Collection[str | None], found: _Connections) -> bool | None:
        """Whether a process began when a version that is wanted was registered.

        ``False``: each began when another was. ``None``: it is not known of all.
        """
        if not found.starts or len(found.starts) != found.listening:
            return None
        each = [self._launched_with(start) for start in found.starts]
        if any(version in wanted for version in each if version is not None):
            return True
        return None if None in each else False

    def _launched_with(self, start: int) -> str | None:
        """Return the version whose registration a process may have made when it began."""
        sqlite = self._writers is not None
        least, most = (-ROUNDED_SECONDS, LAUNCH_SECONDS) if sqlite else (-SKEW_SECONDS, 1)
        found = []
        for row in self._versions:
            later = ((row["created"] or 0) - start) / 1000
            if least <= later <= most:
                # A process starts before it registers its version; where that was rounded down to
                # the second, it may seem to be after, and the next version's is farther off.
                found.append((later >= 0, abs(later), str(row["version"])))
        return min(found if sqlite else [each[1:] for each in found], default=(None,))[-1]

    def _latest(self, application: str | None) -> set[str]:
        """Return the versions whose executors take work without a version.

        That is the latest of an application, its own or unclaimed. Work that no application owns
        is taken by executors of each one's latest.
        """
        owners = {row["application"] for row in self._versions}
        wanted = {application} if application is not None else owners
        found: set[str] = set()
        for owner in wanted:
            visible = [row for row in self._versions if row["application"] in (None, owner)]
            if visible:
                found.add(max(visible, key=lambda row: row["moment"] or 0)["version"])
        return found

    def _connections(self, wanted: Collection[str | None], application: str | None) -> _Connections:
        found = _Connections(writers=self._writers)
        if self._writers is not None:
            found.dbos = len(self._writers.others)
            found.maybe = int(self._writers.here)
            found.listening = found.dbos + found.maybe
            found.starts = self._writers.started_ms
            found.began = min(found.starts, default=None)
            return found
        if self._unseen is not None:
            return found
        applications = {row["application"] for row in (*self._versions, *self._seen)} - {None}
        registered = {str(row["version"]) for row in self._versions}
        statements: dict[str, list[int | None]] = {"dbos": [], "maybe": []}
        begun: list[int | None] = []
        starts: list[int] = []
        listening, hidden = 0, False
        for group in self._open:
            name, count, works = group["name"] or "", group["count"], group["works"]
            kind = "dbos"
            if name == _CLIENT or name.startswith(_TOOLS):
                continue
            if name.startswith(_TYPESCRIPT):
                theirs = _version(name, {str(one) for one in wanted}, registered)
                if theirs in wanted:
                    found.own += count
                elif theirs:
                    label = f"version {theirs}"
                    found.foreign[label] = found.foreign.get(label, 0) + count
                    continue
                else:
                    found.dbos += count
            elif name == _PYTHON or works or name in applications:
                # Go's connections have the name of their application.
                if application is not None and name in applications - {application}:
                    label = f"application {name}"
                    found.foreign[label] = found.foreign.get(label, 0) + count
                    continue
                found.dbos += count
            else:
                kind = "maybe"
                found.maybe += count
                found.maybe_names.append(name)
            listening += group["listens"]
            hidden = hidden or group["last"] is None
            statements[kind].append(group["last"])
            begun.append(group["began"])
            starts += group["starts"]
        found.began = None if hidden else min((each for each in begun if each), default=None)
        if listening and not hidden:
            found.listening, found.starts = listening, tuple(starts)
        last = statements["dbos"] or statements["maybe"]
        if last and None not in last:
            newest = max(moment for moment in last if moment is not None)
            found.silent = max(0.0, (self._now - newest) / 1000)
        return found

    def _limits(self, queue: str | None) -> tuple[str, bool]:
        """Say how the queue is limited, and whether it is known at all."""
        if queue in (None, INTERNAL_QUEUE) or not self._queries.catalog.has("queues", "name"):
            return "", True
        found = self._queues.get(queue or "")
        if found is None:
            return f"; no queue {queue!r} is registered in the database", False
        parts = []
        if found["concurrency"] is not None:
            parts.append(f"runs {found['concurrency']} at a time")
        if found["rate"] is not None:
            parts.append(f"starts {found['rate']} per {_plain(found['period'])} s")
        parts += [f"{found[word]} {word}" for word in ("running", "waiting") if found[word]]
        return (f"; queue {queue!r}: {', '.join(parts)}" if parts else ""), True

    # Reading

    def _read(self) -> None:
        self._read_already = True
        parts = [*self._activity(), *self._registered(), *self._queue_settings()]
        postgres = self._queries.catalog.dialect == "postgresql"
        if postgres:
            parts += self._connected()
        for row in self._session.rows(sa.union_all(*parts)):
            self._take(row)
        self._versions.sort(key=lambda row: row["moment"] or 0)
        since = self._now - LOOKED_BACK_SECONDS * 1000
        self._seen = [row for row in self._seen if row["last"] >= since]
        if not postgres and self._location is not None and self._location.path is not None:
            self._writers = find_writers(self._location.path)
        if not postgres and self._writers is None:
            self._unseen = "which processes have the file open cannot be seen here"

    def _take(self, row: dict[str, Any]) -> None:
        kind, a, b, c, d = (row[name] for name in ("kind", *_TEXTS))
        m, n, o, p, q = (row[name] for name in _NUMBERS)
        if kind == "seen" and isinstance(m, int):
            self._seen.append({"executor": a, "version": b, "application": c, "last": m})
        elif kind == "version":
            self._versions.append({"version": a, "application": b, "created": m, "moment": n})
        elif kind == "queue":
            settings = {"concurrency": b, "rate": c, "period": d}
            self._queues[a] = {**self._queues.get(a, {"running": 0, "waiting": 0}), **settings}
        elif kind == "depth" and a in self._queues:
            self._queues[a]["waiting" if b == "ENQUEUED" else "running"] += n
        elif kind == "server":
            self._now = m
            if n:
                self._unseen = "on a standby it cannot be seen who is connected to the primary"
            elif any(word in (a or "") for word in _DISTRIBUTED):
                self._unseen = "who is connected to the database's other nodes cannot be seen"
            elif self._pooled(o):
                self._unseen = (
                    "who is connected cannot be told, because this connection goes through a "
                    "connection pooler"
                )
        elif kind == "open":
            group = {"name": a, "count": n, "last": m, "works": o + p, "listens": p, "began": q}
            group["starts"] = [int(start) for start in (b or "").split()]
            self._open.append(group)

    def _pooled(self, process: int) -> bool:
        """Whether a pooler gave another process's ID than that which answers."""
        session = self._session
        return isinstance(session, PostgresSession) and session.process not in (None, process)

    def _part(self, kind: str, source: Any = None, **values: Any) -> sa.Select[Any]:
        """Return one part of the statement, in the columns that all parts share."""
        columns: list[Any] = [sa.cast(sa.literal(kind), sa.Text()).label("kind")]
        types: tuple[tuple[tuple[str, ...], Any], ...]
        types = ((_TEXTS, sa.Text()), (_NUMBERS, sa.BigInteger()))
        columns += [
            sa.cast(values.get(name, sa.null()), type_).label(name)
            for names, type_ in types
            for name in names
        ]
        statement = sa.select(*columns)
        return statement if source is None else statement.select_from(source)

    def _activity(self) -> list[sa.Select[Any]]:
        """Find the last deeds of each executor within a day, each by an index of DBOS's."""
        table, column = self._queries.workflows, self._queries.column
        recent = self._now - LOOKED_BACK_SECONDS * 1000
        who = (
            column(table, "executor_id").label("executor"),
            column(table, "application_version").label("version"),
            column(table, "application_name").label("application"),
        )
        ended, began = column(table, "completed_at"), column(table, "started_at_epoch_ms")
        by_end, created = ended, table.c.created_at
        over: Any = table.c.status.in_(("SUCCESS", "ERROR"))
        if isinstance(ended, sa.sql.elements.Null):
            # Before dbos 2.31; it has no index, so those are looked at that were created lately.
            ended, by_end, over = table.c.updated_at, created, sa.and_(over, created >= recent)
        # What executors did: not what was enqueued or cancelled from outside. And what the newest
        # of many are found by.
        deeds: list[tuple[Any, sa.FromClause, Any, Any]] = [
            (ended, table, over, by_end),
            (began, table, sa.true(), began),
            (created, table, table.c.status == "PENDING", None),
        ]
        steps = self._queries.steps
        if "completed_at_epoch_ms" in steps.c:
            joined = table.join(steps, steps.c.workflow_uuid == table.c.workflow_uuid)
            running = table.c.status == "PENDING"
            deeds.append((steps.c.completed_at_epoch_ms, joined, running, None))
        found = []
        for moment, source, condition, newest in deeds:
            if isinstance(moment, sa.sql.elements.Null):
                continue
            rows = (
                sa.select(*who, moment.label("moment"))
                .select_from(source)
                .where(who[0].is_not(None), moment >= recent, condition)
            )
            if newest is not None:
                rows = rows.order_by(newest.desc()).limit(MOST_ROWS)
            deed = rows.subquery()
            last = sa.func.max(deed.c.moment)
            part = self._part(
                "seen", deed, a=deed.c.executor, b=deed.c.version, c=deed.c.application, m=last
            )
            found.append(part.group_by(deed.c.executor, deed.c.version, deed.c.application))
        return found

    def _registered(self) -> list[sa.Select[Any]]:
        table, column = self._queries.catalog.table("application_versions"), self._queries.column
        if not {"version_name", "version_timestamp"} <= set(table.c.keys()):
            return []
        return [
            self._part(
                "version",
                table,
                a=table.c.version_name,
                b=column(table, "application_name"),
                m=column(table, "created_at"),
                n=table.c.version_timestamp,
            )
        ]

    def _connected(self) -> list[sa.Select[Any]]:
        """Group the connections of others to this database that may write to DBOS's tables."""
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
        moment = sa.case((state == "active", now), else_=activity.c.state_change)
        listens = query.op("~*", is_comparison=True)(_LISTENS)
        works = query.op("~*", is_comparison=True)(_WORKS)
        start = sa.cast(_milliseconds(activity.c.backend_start), sa.BigInteger())
        schema = (self._queries.catalog.schema or "").replace('"', '""')
        table = f'"{schema}"."workflow_status"'
        server = self._part(
            "server",
            a=sa.func.version(),
            m=_milliseconds(now),
            n=sa.case((sa.func.pg_is_in_recovery(), 1), else_=0),
            o=sa.func.pg_backend_pid(),
        )
        others = self._part(
            "open",
            activity,
            a=activity.c.application_name,
            b=sa.func.string_agg(sa.cast(start, sa.Text()), " ").filter(listens),
            m=_milliseconds(sa.func.max(moment)),
            n=sa.func.count(),
            o=sa.func.count().filter(works),
            p=sa.func.count().filter(listens),
            q=sa.func.min(start),
        ).where(
            activity.c.datname == sa.func.current_database(),
            activity.c.pid != sa.func.pg_backend_pid(),
            # Missing where this role may not see it.
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
            a=table.c.name,
            b=column(table, "concurrency"),
            c=column(table, "rate_limit_max"),
            d=column(table, "rate_limit_period_sec"),
        )
        flows = self._queries.workflows
        name = column(flows, "queue_name")
        depths = (
            sa.select(
                name.label("name"), flows.c.status.label("status"), sa.func.count().label("n")
            )
            .where(name.is_not(None), *self._queries.where({"status": ["ENQUEUED", "PENDING"]}))
            .group_by(sa.literal_column("1"), sa.literal_column("2"))
            .subquery()
        )
        # The settings stand first, because the depths are added to them.
        return [
            settings,
            self._part("depth", depths, a=depths.c.name, b=depths.c.status, n=depths.c.n),
        ]


def _milliseconds(moment: Any) -> sa.ColumnElement[Any]:
    return sa.func.floor(sa.extract("epoch", moment) * 1000)


def _version(name: str, wanted: Collection[str], registered: Collection[str]) -> str | None:
    """Return the version that the TypeScript SDK put into a connection's name, if it did.

    The name is ``dbos_transact_EXECUTOR_VERSION``, and Postgres keeps 63 bytes of it.

    Examples
    --------
    >>> _version("dbos_transact_host_1_2.0", {"2.0"}, {"1.0", "2.0"})
    '2.0'
    >>> _version("dbos_transact_local_", {"2.0"}, {"2.0"}) is None
    True
    """
    rest = name.removeprefix(_TYPESCRIPT)
    cut = len(name.encode()) >= _LONGEST_NAME
    for version in (*wanted, *sorted(registered)):
        if rest.endswith(f"_{version}"):
            return version
        parts = rest.split("_")
        ends = ("_".join(parts[place:]) for place in range(1, len(parts)))
        if cut and any(end and version.startswith(end) for end in ends):
            return version
    return None if cut else rest.rpartition("_")[2] or None


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _plain(text: Any) -> str:
    """Write a number as a person does; SQLite keeps texts in columns of numbers, too."""
    try:
        return f"{float(text):g}"
    except (TypeError, ValueError):
        return str(text)
