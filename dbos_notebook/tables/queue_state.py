"""The state of queues: their limits, what they run, and whether anything dequeues their work."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.tables import timing
from dbos_notebook.tables.timing import INTERNAL_QUEUE
from dbos_notebook.text import duration, plural, sanitize, timestamp

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

BlockReason = Literal[
    "next",
    "order",
    "not_dequeued",
    "concurrency",
    "worker_concurrency",
    "partition_concurrency",
    "rate_limit",
    "no_partition_key",
    "no_queue",
    "no_executor",
]
"""Why a workflow is still in its queue; ``next`` and ``order``: nothing holds the queue up.

``not_dequeued``: no limit does, and yet nothing dequeues the queue."""

PATIENCE_SECONDS = 60
"""Executors look for work about every second; work that waits this long is not dequeued."""
PATIENCE_POLLS = 5
"""The same for a queue with a long polling interval, in such intervals."""
MAX_HEAD = 20
"""The workflows of one queue, version and application that are dequeued first are examined."""
DEQUEUED_WITHIN = pd.Timedelta("1h")
"""How far back it is searched when something was dequeued last."""


class QueueBlock(NamedTuple):
    """Why a workflow is not dequeued, in words, and when that ends if it is known."""

    reason: BlockReason
    words: str
    until: pd.Timestamp | None = None
    remedy: str = ""
    evidence: str = ""
    holder: str | None = None


class Waiting(NamedTuple):
    """A workflow among the first of a queue, and when it was enqueued, as far as known."""

    workflow_id: str
    version: str | None
    application: str | None
    partition: str | None
    enqueued: pd.Timestamp | None


class NotDequeued(NamedTuple):
    """That nothing dequeues a queue, although its limits allow it.

    Attributes
    ----------
    workflow_id
        The first workflow that should have been dequeued.
    waited
        For how long it has waited, in seconds.
    seconds
        For how long nothing was dequeued meanwhile.
    last
        When the queue dequeued something last; ``None`` if not within an hour.
    """

    workflow_id: str
    waited: float
    seconds: float
    last: pd.Timestamp | None

    @property
    def evidence(self) -> str:
        """What that is inferred from, and what may be its cause."""
        return (
            f"{sanitize(self.workflow_id, 80)} has waited for "
            f"{duration(self.waited, approximate=True)}, "
            f"no limit of the queue is reached, and {describe_last_dequeued(self.last)}. "
            "Inferred: no executor listens to this queue, or its process hangs"
        )


def describe_last_dequeued(last: pd.Timestamp | None) -> str:
    """Return when a queue dequeued something last, in words."""
    if last is None:
        return "nothing was dequeued from it within the last hour"
    return f"it dequeued last at {timestamp(last, milliseconds=False)}"


@dataclass(frozen=True)
class QueueState:
    """Queues with enqueued workflows: their settings, what they run, and what they dequeue."""

    now: pd.Timestamp

    settings: Mapping[str, Mapping[str, Any]]
    # By queue, partition and executor.
    running: Mapping[tuple[str, str | None, str | None], int]
    # By queue and partition: how many were started in the period, and the first of them.
    started: Mapping[tuple[str, str | None], tuple[int, int]]
    # By queue: the first that wait, in the order of dequeuing, and when it dequeued last.
    waiting: Mapping[str, Sequence[Waiting]]
    dequeued: Mapping[str, pd.Timestamp]
    # By queue, partition and executor: one of those that it runs.
    examples: Mapping[tuple[str, str | None, str | None], str]
    registered: bool

    @classmethod
    def read(
        cls,
        session: Session,
        queries: Queries,
        queues: Collection[str],
        now: pd.Timestamp,
    ) -> QueueState:
        """Read the state of some queues."""
        names = sorted(queues)
        table = queries.workflows
        registered = queries.catalog.has("queues", "name")
        settings: dict[str, Mapping[str, Any]] = {}
        if registered:
            stored = queries.catalog.table("queues")
            columns = [queries.column(stored, name).label(name) for name in _SETTINGS]
            statement = sa.select(*columns).where(queries.member(stored.c.name, names))
            settings = {row["name"]: row for row in session.rows(statement)}
        partition = queries.column(table, "queue_partition_key")
        groups = (table.c.queue_name, partition, table.c.executor_id)
        statement = (
            sa.select(
                *(
                    c.label(n)
                    for c, n in zip(groups, ("queue", "partition", "executor"), strict=True)
                ),
                sa.func.count().label("n"),
                sa.func.min(table.c.workflow_uuid).label("example"),
            )
            .where(
                # As literals, because SQLite uses partial indexes only for literals.
                *queries.where({"status": ["PENDING"]}),
                queries.member(table.c.queue_name, names),
            )
            .group_by(*(group for group in groups if not isinstance(group, Null)))
        )
        running, examples = {}, {}
        for row in session.rows(statement):
            key = (row["queue"], row["partition"], row["executor"])
            running[key], examples[key] = int(row["n"]), row["example"]
        return cls(
            now,
            settings,
            running,
            _started(session, queries, settings, now),
            _waiting(session, queries, names, now),
            last_dequeued(session, queries, names, now),
            examples,
            registered,
        )

    def runs(self, queue: str, partition: str | None = None, *, whole: bool = True) -> int:
        """Return how many workflows of a queue, or of one of its partitions, are running."""
        return sum(
            number
            for (name, key, _), number in self.running.items()
            if name == queue and (whole or key == partition)
        )

    def holder(self, queue: str, partition: str | None = None, *, whole: bool = True) -> str | None:
        """Return the only workflow of a queue or partition that is running; ``None`` if several."""
        found = [
            (number, self.examples[key])
            for key, number in self.running.items()
            if key[0] == queue and (whole or key[1] == partition)
        ]
        return found[0][1] if len(found) == 1 and found[0][0] == 1 else None

    def limit(self, queue: str, partition: str | None) -> QueueBlock | None:
        """Return which limit of a queue keeps its work waiting; ``None`` if none does."""
        settings = self.settings.get(queue, {})
        return (
            _concurrency(queue, partition, settings, self)
            or _rate_limit(queue, partition, settings, self)
            or _worker_concurrency(queue, partition, settings, self)
        )

    def lacks_key(self, queue: str, partition: str | None) -> bool:
        """Return whether a workflow is never dequeued because it has no partition key."""
        return partition is None and bool(self.settings.get(queue, {}).get("partition_queue"))

    def not_dequeued(self, queue: str, concerns: Callable[[Waiting], bool]) -> NotDequeued | None:
        """Return that nothing dequeues a queue; ``None`` if it is served, or that is unknown.

        Parameters
        ----------
        concerns
            Selects the waiting workflows that one executor would run.
        """
        settings = self.settings.get(queue)
        if settings is None:
            if queue != INTERNAL_QUEUE:
                return None  # its limits are not known
            settings = {}
        polling = _as_number(settings.get("polling_interval_sec")) or 0
        first = next(
            (
                each
                for each in self.waiting.get(queue, ())
                if concerns(each)
                and not self.lacks_key(queue, each.partition)
                and self.limit(queue, each.partition) is None
            ),
            None,
        )
        if first is None or first.enqueued is None:
            return None
        last = self.dequeued.get(queue)
        since = first.enqueued if last is None else max(first.enqueued, last)
        seconds = (self.now - since).total_seconds()
        waited = (self.now - first.enqueued).total_seconds()
        if seconds <= max(PATIENCE_SECONDS, PATIENCE_POLLS * polling):
            return None
        return NotDequeued(first.workflow_id, waited, seconds, last)


_SETTINGS = (
    "name",
    "concurrency",
    "worker_concurrency",
    "rate_limit_max",
    "rate_limit_period_sec",
    "partition_queue",
    "partition_concurrency",
    "partition_worker_concurrency",
    "partition_rate_limit_max",
    "partition_rate_limit_period_sec",
    "polling_interval_sec",
)


def _waiting(
    session: Session, queries: Queries, queues: Sequence[str], now: pd.Timestamp
) -> dict[str, list[Waiting]]:
    """Read the first workflows of each queue, version and application, as they are dequeued."""
    table = queries.workflows
    columns = {
        "workflow_id": table.c.workflow_uuid,
        "queue": table.c.queue_name,
        "version": queries.column(table, "application_version"),
        "application": queries.column(table, "application_name"),
        "partition": queries.column(table, "queue_partition_key"),
        "enqueued": timing.sql_times(queries, round(now.timestamp() * 1000))["enqueued_at"],
    }
    priority = queries.column(table, "priority")
    groups = [columns[name] for name in ("queue", "version", "application")]
    order = [
        *([] if isinstance(priority, Null) else [priority]),
        table.c.created_at,
        table.c.workflow_uuid,
    ]
    place = sa.func.row_number().over(
        partition_by=[group for group in groups if not isinstance(group, Null)], order_by=order
    )
    ranked = (
        sa.select(table.c.workflow_uuid.label("id"), place.label("place"))
        .where(
            *queries.where({"status": ["ENQUEUED"]}),
            # As in DBOS's index, because SQLite does not infer it from the one status.
            *queries.where({"status": ["ENQUEUED", "PENDING"]}),
            queries.member(table.c.queue_name, queues),
        )
        .subquery("ranked")
    )
    # The other columns of the first ones alone, because a queue may hold a million workflows.
    chosen = sa.select(ranked).where(ranked.c.place <= MAX_HEAD).subquery("chosen")
    statement = (
        sa.select(*(value.label(name) for name, value in columns.items()))
        .select_from(chosen.join(table, table.c.workflow_uuid == chosen.c.id))
        .order_by(chosen.c.place)
    )
    found: dict[str, list[Waiting]] = {}
    for row in session.rows(statement):
        found.setdefault(row["queue"], []).append(
            Waiting(
                row["workflow_id"],
                row["version"],
                row["application"],
                row["partition"],
                _instant(row["enqueued"]),
            )
        )
    return found


def last_dequeued(
    session: Session, queries: Queries, queues: Sequence[str], now: pd.Timestamp
) -> dict[str, pd.Timestamp]:
    """Read when each queue dequeued something last, within an hour."""
    table = queries.workflows
    started = queries.column(table, "started_at_epoch_ms")
    if not queues or isinstance(started, Null):
        return {}
    since = round((now - DEQUEUED_WITHIN).timestamp() * 1000)
    statement = (
        sa.select(table.c.queue_name.label("queue"), sa.func.max(started).label("last"))
        .where(started >= since, queries.member(table.c.queue_name, queues))
        .group_by(table.c.queue_name)
    )
    found = {row["queue"]: _instant(row["last"]) for row in session.rows(statement)}
    return {queue: last for queue, last in found.items() if last is not None}


def _started(
    session: Session,
    queries: Queries,
    settings: Mapping[str, Mapping[str, Any]],
    now: pd.Timestamp,
) -> dict[tuple[str, str | None], tuple[int, int]]:
    """Count the workflows that each limited queue started in its period, with the first of them."""
    table = queries.workflows
    if not {"rate_limited", "started_at_epoch_ms"} <= set(table.c.keys()):
        return {}
    started, partition = table.c.started_at_epoch_ms, queries.column(table, "queue_partition_key")
    selects = []
    for name, row in settings.items():
        periods = (row["rate_limit_period_sec"], row["partition_rate_limit_period_sec"])
        period = max((each for each in map(_as_number, periods) if each is not None), default=None)
        if period is None:
            continue
        since = int(now.timestamp() * 1000 - period * 1000)
        selects.append(
            sa.select(
                table.c.queue_name.label("queue"),
                partition.label("partition"),
                sa.func.count().label("n"),
                sa.func.min(started).label("first"),
            )
            .where(
                table.c.queue_name == name,
                table.c.rate_limited == sa.literal_column("true"),
                table.c.status.not_in(("ENQUEUED", "DELAYED")),
                started > since,
            )
            .group_by(table.c.queue_name, *([] if isinstance(partition, Null) else [partition]))
        )
    if not selects:
        return {}
    return {
        (row["queue"], row["partition"]): (int(row["n"]), int(row["first"]))
        for row in session.rows(sa.union_all(*selects))
    }


def named_holder(holder: str | None) -> str:
    """Return the end of a sentence that names what holds the only slot of a queue."""
    return "" if holder is None else f", which is {sanitize(holder, 80)}"


def _concurrency(
    queue: str, partition: str | None, settings: Mapping[str, Any], state: QueueState
) -> QueueBlock | None:
    runs, limit = state.runs(queue), _as_number(settings.get("concurrency"))
    if limit is not None and runs >= limit:
        holder = state.holder(queue)
        return QueueBlock(
            "concurrency",
            f"the queue runs {runs:,} of at most {limit:g} at a time" + named_holder(holder),
            holder=holder,
        )
    runs = state.runs(queue, partition, whole=False)
    limit = _as_number(settings.get("partition_concurrency"))
    if limit is not None and runs >= limit:
        key = sanitize(repr(partition), 60)
        holder = state.holder(queue, partition, whole=False)
        return QueueBlock(
            "partition_concurrency",
            f"partition {key} runs {runs:,} of at most {limit:g} at a time" + named_holder(holder),
            holder=holder,
        )
    return None


def _rate_limit(
    queue: str, partition: str | None, settings: Mapping[str, Any], state: QueueState
) -> QueueBlock | None:
    keys: Callable[[str | None], bool]
    for prefix, keys in (("", lambda key: True), ("partition_", lambda key: key == partition)):
        limit = _as_number(settings.get(f"{prefix}rate_limit_max"))
        period = _as_number(settings.get(f"{prefix}rate_limit_period_sec"))
        counted = [
            value for (name, key), value in state.started.items() if name == queue and keys(key)
        ]
        number = sum(count for count, _ in counted)
        if limit is None or period is None or number < limit:
            continue
        until = _instant(min(first for _, first in counted) + round(period * 1000))
        end = "" if until is None else timestamp(until.to_pydatetime(), milliseconds=False)
        return QueueBlock(
            "rate_limit",
            f"the limit of {limit:g} started per {duration(period)} is used up"
            + (f" until {end}" if end else ""),
            until,
        )
    return None


def _worker_concurrency(
    queue: str, partition: str | None, settings: Mapping[str, Any], state: QueueState
) -> QueueBlock | None:
    for name, whole in (("worker_concurrency", True), ("partition_worker_concurrency", False)):
        limit = _as_number(settings.get(name))
        if limit is None:
            continue
        runs: Counter[str | None] = Counter()
        for (owner, key, executor), number in state.running.items():
            if owner == queue and (whole or key == partition):
                runs[executor] += number
        if runs and min(runs.values()) >= limit:
            holder = state.holder(queue, partition, whole=whole)
            return QueueBlock(
                "worker_concurrency",
                f"{plural(len(runs), 'executor')} of the queue "
                f"{'runs' if len(runs) == 1 else 'run'} at most {limit:g} at a time, and "
                f"{'is' if len(runs) == 1 else 'are'} busy"
                + (f" with {sanitize(holder, 80)}" if holder is not None else ""),
                evidence="executors that run nothing from this queue are not visible",
                holder=holder,
            )
    return None


def _as_number(value: object) -> float | None:
    """Return a setting as a number; SQLite may store any string in its column."""
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None


def _instant(milliseconds: object) -> pd.Timestamp | None:
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return pd.Timestamp(milliseconds, unit="ms", tz=dt.UTC)
