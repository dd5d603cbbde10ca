"""Estimate whether a live executor can run enqueued work.

DBOS records no heartbeat, so the estimate combines evidence: recent changes to workflows and steps,
the registered application versions, the open connections on Postgres, the processes that have the
file open on SQLite, and the queue's limits. The answer is ``likely``, ``unlikely`` or ``unknown``;
"unlikely" requires evidence against an executor, not only a lack of evidence for one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from dbos_notebook.status import Likelihood
from dbos_notebook.tables.executor_evidence import (
    ConnectionGroup,
    ExecutorActivity,
    ExecutorEvidence,
    RegisteredVersion,
    read_evidence,
)
from dbos_notebook.tables.queue_state import NotDequeued, QueueState
from dbos_notebook.tables.timing import INTERNAL_QUEUE
from dbos_notebook.text import duration, plural

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Session
    from dbos_notebook.database.sqlite_file import Writers
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
MAX_VERSIONS = 10
"""The newest versions among which a living one is searched."""

# Names of connections: the Python SDK's, the prefix of the TypeScript SDK's, and DBOSClient's.
_PYTHON, _TYPESCRIPT, _CLIENT = "dbos_transact", "dbos_transact_", "dbos_transact_client"
_MAX_NAME_BYTES = 63
"""Postgres truncates the name of a connection to this length."""
# Connections that belong to no application.
_TOOLS = ("psql", "pgAdmin", "DBeaver", "DataGrip", "pg_dump", "pg_restore", "dbos_notebook")


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

    def includes(self, version: RegisteredVersion) -> bool:
        """Return whether executors of this version run the work."""
        return version.name in self.versions and self.has_application(version.application)


@dataclass(frozen=True)
class Estimate:
    """Whether a live executor will run some work, why, and what helps if none will.

    Attributes
    ----------
    likelihood
        ``likely``, ``unlikely`` or ``unknown``.
    evidence
        What the estimate is based on.
    remedy
        What would make the work run, if another version is alive; else ``""``.

    Examples
    --------
    >>> print(Estimate("likely", "version 2 was last active 3 s ago"))
    likely: version 2 was last active 3 s ago
    """

    likelihood: Likelihood
    evidence: str
    remedy: str = ""

    def __str__(self) -> str:
        if self.remedy:
            return f"{self.likelihood}. {self.remedy}. Reason: {self.evidence}"
        return f"{self.likelihood}: {self.evidence}"


class Silence(NamedTuple):
    """Why an executor appears to be dead.

    Attributes
    ----------
    last
        When it was last active, in milliseconds since 1970; ``None`` if unknown.
    evidence
        What that is inferred from.
    remedy
        What moves its workflows to a live executor, if there is one.
    """

    last: int | None
    evidence: str
    remedy: str


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
        self._estimates: dict[tuple[str | None, str | None, str | None, bool, bool], Estimate] = {}
        self._living: dict[str | None, list[str]] = {}

    @cached_property
    def _evidence(self) -> ExecutorEvidence:
        return read_evidence(self._session, self._queries, self._location)

    def estimate(
        self,
        version: str | None,
        application: str | None,
        queue: str | None,
        *,
        active: bool = False,
        check_queue: bool = True,
    ) -> Estimate:
        """Estimate whether a live executor can run work of a version and application on a queue.

        Call it last in a session: its transaction fails if the role may not read the evidence.

        Parameters
        ----------
        active
            Whether the work is a workflow that is active, which must be cancelled to be forked.
        check_queue
            Whether it counts that nothing dequeues what waits on the queue.
        """
        key = (version, application, queue, active, check_queue)
        if key not in self._estimates:
            if self._evidence.denied is not None:
                return Estimate(
                    "unknown", f"this role may not read executor activity ({self._evidence.denied})"
                )
            target = self._target(version, application)
            found = self._evaluate(target)
            limits, registered = self._limits(queue)
            likelihood = found.likelihood
            if likelihood == "likely" and not registered:
                likelihood = "unknown"
            unlikely = likelihood == "unlikely"
            remedy = self._remedy(application, queue, active=active) if unlikely else ""
            stuck = None
            if check_queue and not unlikely and registered and queue is not None:
                stuck = self._not_dequeued(target, queue)
            # What decides comes first.
            reasons = [found.evidence, limits] if registered else [limits, found.evidence]
            if stuck is not None and queue is not None:
                likelihood, remedy = self._evaluate_not_dequeued(likelihood, queue, stuck)
                reasons.insert(0, f"nothing dequeues queue {queue!r}: {stuck.evidence}")
            self._estimates[key] = Estimate(likelihood, "; ".join(filter(None, reasons)), remedy)
        return self._estimates[key]

    def _not_dequeued(self, target: _Target, queue: str) -> NotDequeued | None:
        """Return that nothing dequeues what waits there for the same executors."""
        versions: set[str | None] = {*target.versions}
        if target.version is None or target.version in self._latest(target.application):
            versions.add(None)
        now = pd.Timestamp(self._evidence.now, unit="ms", tz="UTC")
        state = QueueState.read(self._session, self._queries, [queue], now)
        return state.not_dequeued(
            queue,
            lambda each: each.version in versions and target.has_application(each.application),
        )

    @staticmethod
    def _evaluate_not_dequeued(
        likelihood: Likelihood, queue: str, stuck: NotDequeued
    ) -> tuple[Likelihood, str]:
        """Return the likelihood for a queue that nothing dequeues, and what helps."""
        # For a while, executors may wait: after conflicts, DBOS polls less often.
        if likelihood == "likely":
            likelihood = "unlikely" if stuck.seconds > DEAD_SECONDS else "unknown"
        if queue == INTERNAL_QUEUE or likelihood != "unlikely":
            return likelihood, ""
        return likelihood, (
            f"Check that an executor listens to queue {queue!r}, or use another queue"
        )

    def silence(
        self, executor: str, version: str | None, application: str | None, last: int | None
    ) -> Silence | None:
        """Return why an executor appears to be dead; ``None`` if it may be alive.

        Parameters
        ----------
        last
            When it is known to have been alive, in milliseconds since 1970.
        """
        if self._evidence.denied is not None:
            return None
        seen = [
            activity.last for activity in self._evidence.activities if activity.executor == executor
        ] + ([] if last is None else [last])
        newest = max(seen, default=None)
        connections = self._classify_connections(self._target(version, application))
        evidence = self._why_dead(executor, version, application, newest, connections)
        if evidence is None:
            return None
        if version in self.living_versions(application):
            remedy = f"Version {version} is alive: resume with force=True"
        else:
            remedy = self._remedy(application, None, active=True)
        return Silence(newest, evidence, remedy)

    def _why_dead(
        self,
        executor: str,
        version: str | None,
        application: str | None,
        last: int | None,
        connections: _Connections,
    ) -> str | None:
        if not connections.candidates:
            return self._absent(connections)
        opened = connections.describe()
        if connections.silent is not None and connections.silent > DEAD_SECONDS:
            silent = duration(connections.silent, approximate=True)
            return f"{opened}, but none has sent a statement for {silent}"
        if last is None:
            return None
        activity = ExecutorActivity(executor, version, application, last)
        if not self._may_be_open(activity, connections):
            begun = (
                "process started" if connections.writers is not None else "connection was opened"
            )
            return f"{opened}, but every {begun} after this executor was last active"
        if connections.listening is None:
            return None
        # The newest process may have replaced those without activity since its start.
        since = max(self._evidence.now - RECENT_SECONDS * 1000, *connections.starts, 0)
        others = {
            activity.executor
            for activity in self._evidence.activities
            if activity.last >= since and activity.executor != executor
        }
        if others and connections.listening <= len(others) and last < since:
            names = ", ".join(sorted(others)[:3])
            return f"{opened}, and the executors that were active since are others ({names})"
        return None

    def living_versions(self, application: str | None) -> list[str]:
        """Return the versions that a live executor appears to run, the latest first."""
        if application not in self._living:
            known = dict.fromkeys(version.name for version in self._evidence.versions[::-1])
            known |= dict.fromkeys(
                activity.version for activity in self._evidence.activities if activity.version
            )
            self._living[application] = [
                version
                for version in list(known)[:MAX_VERSIONS]
                if self._evaluate(self._target(version, application)).likelihood == "likely"
            ]
        return self._living[application]

    def _remedy(self, application: str | None, queue: str | None, *, active: bool) -> str:
        living = self.living_versions(application)
        if not living:
            return ""
        version = living[0]
        if not active:
            return f"Version {version} is alive: fork with application_version={version!r}"
        # The fork of an active workflow is refused: its work might be done twice. The cancel
        # clears the queue, which the fork must therefore name.
        keeps = queue not in (None, INTERNAL_QUEUE)
        return (
            f"Version {version} is alive: Cancel, then Fork with version {version}"
            f"{f' and queue {queue}' if keeps else ''}; in Python, cancel the workflow, then fork "
            f"it with application_version={version!r}{f', queue_name={queue!r}' if keeps else ''}"
        )

    def _target(self, version: str | None, application: str | None) -> _Target:
        versions = {version} if version else self._latest(application)
        return _Target(version, application, frozenset(versions))

    # Evaluating

    def _evaluate(self, target: _Target) -> Estimate:
        label = target.label
        own = [
            activity
            for activity in self._evidence.activities
            if (not target.versions or activity.version in target.versions)
            and self._counts(activity, target)
        ]
        last = max(own, key=lambda activity: activity.last, default=None)
        age = None if last is None else max(0.0, (self._evidence.now - last.last) / 1000)
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
                return Estimate("unlikely", f"{absent}; {history}")
        foreign = self._owned_by_others(target, own)
        if foreign is not None:
            return Estimate("unlikely", f"{foreign}; {opened}" if opened else foreign)
        if (
            connections.candidates
            and connections.silent is not None
            and connections.silent > SILENT_SECONDS
        ):
            return Estimate(
                "unlikely" if connections.silent > DEAD_SECONDS else "unknown",
                f"{history}; {opened}, but none has sent a statement for "
                f"{duration(connections.silent, approximate=True)} "
                "(a live executor sends one about every second)",
            )
        if recent:
            invisible = self._invisible(connections)
            if not connections.candidates and invisible:
                return Estimate("unknown", f"{history}, but {invisible}")
            return Estimate(
                "likely", history + (f", and {opened}" if connections.candidates else "")
            )
        if connections.own or (not target.versions and connections.dbos):
            return Estimate("likely", f"{opened}; {history}")
        known = [version for version in self._evidence.versions if target.includes(version)]
        if target.versions and self._evidence.versions and not known and last is None:
            registered = _some([version.name for version in self._evidence.versions[::-1]])
            return Estimate(
                "unlikely", f"no executor has registered {label} (registered: {registered})"
            )
        return self._evaluate_registration(
            target, connections, known, own, history, launched=launched
        )

    @cached_property
    def _owners(self) -> dict[str | None, set[str]]:
        """The applications that registered each version or were active with it."""
        owners: dict[str | None, set[str]] = {}
        pairs: list[tuple[str | None, str | None]]
        pairs = [(version.name, version.application) for version in self._evidence.versions]
        pairs += [
            (activity.version, activity.application) for activity in self._evidence.activities
        ]
        for name, application in pairs:
            if application is not None:
                owners.setdefault(name, set()).add(application)
        return owners

    def _counts(self, activity: ExecutorActivity, target: _Target) -> bool:
        """Return whether an activity is evidence of the target's application.

        Work that nobody owns was done by an executor of the applications that own its version,
        which take no work of another application. Where the version has no owner, it may have been
        an executor of a DBOS that knows no owners and takes any work.
        """
        if target.application is None or activity.application is not None:
            return target.has_application(activity.application)
        owners = self._owners.get(activity.version)
        return owners is None or target.application in owners

    def _owned_by_others(self, target: _Target, own: Sequence[ExecutorActivity]) -> str | None:
        """Return that only other applications registered what would run the work.

        ``None`` if the target's application, or one without a name, may have registered it, or was
        active.
        """
        application, versions = target.application, self._evidence.versions
        if application is None or own:
            return None
        if versions and not any(target.has_application(each.application) for each in versions):
            names = _some([str(version.application) for version in versions[::-1]])
            return f"no executor has registered application {application} (registered: {names})"
        owners = [
            str(version.application)
            for version in versions[::-1]
            if version.name in target.versions and not target.has_application(version.application)
        ]
        if not owners or any(map(target.includes, versions)):
            return None
        return (
            f"no executor of application {application} has registered {target.label} "
            f"(registered by application {_some(owners)})"
        )

    def _evaluate_registration(
        self,
        target: _Target,
        connections: _Connections,
        known: Sequence[RegisteredVersion],
        own: Sequence[ExecutorActivity],
        history: str,
        *,
        launched: bool | None,
    ) -> Estimate:
        """Evaluate the registration of a version that has no recent activity."""
        created = max((version.created for version in known if version.created), default=None)
        age = None if created is None else max(0.0, (self._evidence.now - created) / 1000)
        if age is not None:
            history = (
                f"{target.label} was registered {duration(age, approximate=True)} ago; {history}"
            )
        opened = connections.describe()
        if launched and connections.dbos:
            return Estimate(
                "likely",
                f"{history}; {opened}, and one process started when that version was registered",
            )
        # Of several processes, one may have started beside that which registered its version.
        alone = launched is False and connections.listening == 1
        active = any(self._may_be_open(activity, connections) for activity in own)
        other = self._registered_at(connections.starts[0]) if alone else None
        foreign = other is not None and not target.has_application(other.application)
        if other is not None and (target.version or foreign) and not active:
            name = self._name(other.name, other.application, target)
            return Estimate(
                "unlikely",
                f"{history}; {opened}, but the only process started when version {name} was "
                "registered",
            )
        if connections.dbos:
            found = self._evaluate_unknown_version(target, connections, created, own)
            likelihood, evidence = found.likelihood, found.evidence
            if launched is False and likelihood == "likely" and target.version:
                likelihood = "unknown"
                evidence += ", but their processes started when other versions were registered"
            return Estimate(likelihood, f"{history}; {evidence}")
        if age is not None and age <= RECENT_SECONDS:
            invisible = self._invisible(connections)
            if not connections.candidates and invisible:
                return Estimate("unknown", f"{history}; {invisible}")
            return Estimate("likely", history + (f"; {opened}" if opened else ""))
        reason = (
            opened
            if connections.candidates
            else self._evidence.hidden or self._invisible(connections)
        )
        return Estimate("unknown", history + (f"; {reason}" if reason else ""))

    def _absent(self, connections: _Connections) -> str | None:
        """Return the evidence that no executor is alive; ``None`` if there is none."""
        if self._evidence.hidden is not None:
            return None
        if connections.writers is not None:
            if connections.writers.here:
                return None
            if connections.writers.complete:
                return "no other process on this machine has the file open for writing"
            return self._invisible_and_silent()
        return connections.describe() or "no DBOS process is connected to the database"

    def _invisible_and_silent(self) -> str | None:
        """Return that no process is visible, and that none beyond a container's limits was active.

        ``None`` if one was, because processes of other containers may have the file open.
        """
        times = [activity.last for activity in self._evidence.activities]
        times += [version.created for version in self._evidence.versions if version.created]
        age = (self._evidence.now - max(times, default=0)) / 1000
        if age <= DEAD_SECONDS:
            return None
        silent = duration(age, approximate=True) if times else ""
        return "no visible process has the file open for writing" + (
            f", and no executor has been active for {silent}" if silent else ""
        )

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
        own: Sequence[ExecutorActivity],
    ) -> Estimate:
        """Estimate whether executors of an unknown version are of a wanted one."""
        opened = connections.describe()
        since = self._evidence.now - RECENT_SECONDS * 1000
        others = [
            activity
            for activity in self._evidence.activities
            if activity.version not in target.versions or not self._counts(activity, target)
        ]
        other_versions = [
            version.created
            for version in self._evidence.versions
            if version.name not in target.versions
            and version.created
            and target.has_application(version.application)
        ]
        # No registration lies in the future, even if this clock is behind.
        created = None if created is None else min(created, self._evidence.now)
        active = [
            activity
            for activity in others
            if activity.last >= since and self._may_be_open(activity, connections)
        ]
        if active:
            names = ", ".join(
                sorted({self._name(each.version, each.application, target) for each in active})
            )
            evidence = f"{opened}; version {names} is active"
            # The newest process may have replaced those without activity since its start.
            newest_start = max(connections.starts, default=0)
            executors = {
                (activity.executor, activity.version)
                for activity in active
                if activity.last >= newest_start
            }
            if connections.listening is not None and connections.listening <= len(executors):
                return Estimate("unlikely", f"{evidence}, and no other DBOS process is connected")
            newest = created is not None and created >= max(other_versions, default=0)
            deployed = (
                created is not None and self._evidence.now - created <= DEPLOYED_SECONDS * 1000
            )
            return Estimate("likely" if newest and deployed else "unknown", evidence)
        # The version that was registered or active last is likely to be connected.
        last = max([activity.last for activity in own] + ([created] if created else []), default=-1)
        other_last = max([activity.last for activity in others] + other_versions, default=0)
        return Estimate("likely" if last >= other_last else "unknown", opened)

    @staticmethod
    def _may_be_open(activity: ExecutorActivity, connections: _Connections) -> bool:
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
        if any(version is not None and target.includes(version) for version in versions):
            return True
        return None if None in versions else False

    @staticmethod
    def _name(version: str | None, application: str | None, target: _Target) -> str:
        """Return the version, with its application if it is not the target's."""
        if not target.has_application(application):
            return f"{version} of application {application}"
        return str(version)

    def _registered_at(self, start: int) -> RegisteredVersion | None:
        """Return the version that a process may have registered when it started."""
        sqlite = self._evidence.writers is not None
        earliest, latest = (-ROUNDING_SECONDS, LAUNCH_SECONDS) if sqlite else (-LISTEN_SECONDS, 1)
        matches: list[tuple[bool, float, str, int]] = []
        for index, version in enumerate(self._evidence.versions):
            delay = ((version.created or 0) - start) / 1000
            if earliest <= delay <= latest:
                # A process starts before it registers its version. On SQLite a rounded time may
                # come before the start, but the next version's is then farther off.
                matches.append((sqlite and delay >= 0, abs(delay), version.name, index))
        return self._evidence.versions[min(matches)[3]] if matches else None

    def _latest(self, application: str | None) -> set[str]:
        """Return the versions whose executors run work without a version.

        That is the latest version of the application, or one without an application. Executors of
        every application's latest version run work without an application.
        """
        owners = {version.application for version in self._evidence.versions}
        latest: set[str] = set()
        for owner in {application} if application is not None else owners:
            visible = [
                version
                for version in self._evidence.versions
                if version.application in (None, owner)
            ]
            if visible:
                latest.add(max(visible, key=lambda version: version.timestamp or 0).name)
        return latest

    def _classify_connections(self, target: _Target) -> _Connections:
        connections = _Connections(writers=self._evidence.writers)
        if self._evidence.writers is not None:
            connections.dbos = len(self._evidence.writers.others)
            connections.possible = int(self._evidence.writers.here)
            connections.listening = connections.dbos + connections.possible
            connections.starts = self._evidence.writers.started_ms
            connections.opened = min(connections.starts, default=None)
            return connections
        if self._evidence.hidden is not None:
            return connections
        applications = {version.application for version in self._evidence.versions}
        applications |= {activity.application for activity in self._evidence.activities}
        applications -= {None}
        registered = {version.name for version in self._evidence.versions}
        dbos: list[ConnectionGroup] = []
        possible: list[ConnectionGroup] = []
        for group in self._evidence.groups:
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
            connections.silent = max(0.0, (self._evidence.now - max(known)) / 1000)
        return connections

    def _limits(self, queue: str | None) -> tuple[str, bool]:
        """Return the queue's limits in words, and whether the queue is known."""
        if queue is None or queue == INTERNAL_QUEUE:
            return "", True
        if not self._queries.catalog.has("queues", "name"):
            return "", True
        settings = self._evidence.queues.get(queue)
        if settings is None:
            return f"no queue {queue!r} is registered in the database", False
        parts = []
        if settings.concurrency is not None:
            parts.append(f"runs {settings.concurrency} at a time")
        if settings.rate is not None:
            parts.append(f"starts {settings.rate} per {_number(settings.period)} s")
        if settings.running:
            parts.append(f"{settings.running} running")
        if settings.waiting:
            parts.append(f"{settings.waiting} waiting")
        return (f"queue {queue!r}: {', '.join(parts)}" if parts else ""), True


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


def _some(names: Sequence[str]) -> str:
    """Return the first three distinct names.

    Examples
    --------
    >>> _some(["v4", "v3", "v3", "v2", "v1"])
    'v4, v3, v2 and others'
    """
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:3]) + (" and others" if len(distinct) > 3 else "")


def _number(value: str | None) -> str:
    """Format a number without trailing zeros; SQLite may store any string in the column."""
    try:
        return "?" if value is None else f"{float(value):g}"
    except ValueError:
        return str(value)
