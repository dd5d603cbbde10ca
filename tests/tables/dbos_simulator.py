"""A small simulator of DBOS: it writes the rows that DBOS writes, and keeps what really happened.

Each operation does to the row what ``dbos/_sys_db.py`` of dbos 3.4 does; ``test_timing_live.py``
checks it against DBOS itself. Times are milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

INTERNAL = "_dbos_internal_queue"
FINAL = ("SUCCESS", "ERROR")
WAITING = ("ENQUEUED", "DELAYED")


@dataclass
class Truth:
    """What happened in the latest run, and whether anything recorded can prove an earlier one."""

    enqueued: int | None = None
    started: int | None = None
    ended: int | None = None
    again: bool = False
    """Resumed, rewound, recovered or dead-lettered: not what was created first."""
    tagged: bool = False
    """Its row was changed while it waited, by something that left it on the queue."""


@dataclass
class Life:
    """One workflow from its creation on."""

    id: str
    now: int
    coarse: bool = False
    row: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)

    @property
    def status(self) -> str:
        return str(self.row["status"])

    def stamp(self) -> int:
        """Return now as the database writes it."""
        return self.now // 1000 * 1000 if self.coarse else self.now

    def wait(self, milliseconds: int) -> None:
        """Let time pass; a delay may end meanwhile."""
        self.now += milliseconds
        if self.row.get("status") == "DELAYED" and self.row["delay_until_epoch_ms"] <= self.now:
            self.row["status"] = "ENQUEUED"  # and updated_at stays
            self.truth.enqueued = max(self.row["delay_until_epoch_ms"], self.truth.enqueued or 0)

    def _created(self, **values: Any) -> Life:
        self.row = {
            "workflow_uuid": self.id,
            "name": "made",
            "created_at": self.stamp(),
            "updated_at": self.stamp(),
            "started_at_epoch_ms": None,
            "completed_at": None,
            "queue_name": None,
            "delay_until_epoch_ms": None,
            "workflow_timeout_ms": None,
            "workflow_deadline_epoch_ms": None,
            "deduplication_id": None,
            "forked_from": None,
            "schedule_name": None,
            "recovery_attempts": 0,
            **values,
        }
        return self

    def start(self, timeout: int | None = None) -> Life:
        """Start it without a queue."""
        self.truth = Truth(started=self.now)
        deadline = None if timeout is None else self.now + timeout
        return self._created(
            status="PENDING",
            recovery_attempts=1,
            workflow_timeout_ms=timeout,
            workflow_deadline_epoch_ms=deadline,
        )

    def enqueue(
        self,
        queue: str,
        delay: int | None = None,
        timeout: int | None = None,
        deduplication: str | None = None,
        schedule: str | None = None,
    ) -> Life:
        """Put it on a queue."""
        until = None if delay is None else self.now + delay
        self.truth = Truth(enqueued=self.now if until is None else None)
        return self._created(
            status="ENQUEUED" if until is None else "DELAYED",
            queue_name=queue,
            delay_until_epoch_ms=until,
            workflow_timeout_ms=timeout,
            deduplication_id=deduplication,
            schedule_name=schedule,
        )

    def dequeue(self) -> None:
        """A worker takes it."""
        row = self.row
        row |= {"status": "PENDING", "started_at_epoch_ms": self.stamp()}
        row["updated_at"] = self.stamp()
        row["recovery_attempts"] += 1
        if row["workflow_timeout_ms"] is not None and row["workflow_deadline_epoch_ms"] is None:
            row["workflow_deadline_epoch_ms"] = self.now + row["workflow_timeout_ms"]
        self.truth.started = self.now

    def step(self, milliseconds: int) -> None:
        """Run a step that is recorded."""
        begun = self.now
        self.now += milliseconds
        self.steps.append(
            {
                "workflow_uuid": self.id,
                "function_id": len(self.steps) + 1,
                "function_name": "work",
                "started_at_epoch_ms": begun,
                "completed_at_epoch_ms": self.now,
            }
        )

    def finish(self, status: str = "SUCCESS") -> None:
        """It returns, or raises."""
        at = {"updated_at": self.stamp(), "completed_at": self.stamp()}
        self.row |= {"status": status, "deduplication_id": None, **at}
        self.truth.ended = self.now

    def cancel(self) -> None:
        """Somebody, or its deadline, cancels it."""
        if self.status in FINAL:
            return
        at = {"updated_at": self.stamp(), "completed_at": self.stamp()}
        erased = dict.fromkeys(("queue_name", "deduplication_id", "started_at_epoch_ms"))
        self.truth.ended = self.now
        self.row |= {"status": "CANCELLED", **erased, **at}

    def resume(self, queue: str = INTERNAL) -> None:
        """Put it on a queue again, whatever it did."""
        if self.status not in FINAL:
            self._again(queue, recovery_attempts=0, workflow_deadline_epoch_ms=None)

    def rewind(self, start_step: int, queue: str = INTERNAL) -> None:
        """Forget its steps from one on, and put it on a queue again."""
        self.steps = [each for each in self.steps if each["function_id"] < start_step]
        self._again(queue, recovery_attempts=0, workflow_deadline_epoch_ms=None)

    def recover(self) -> None:
        """Its process died, and another finds it PENDING."""
        kept = {name: self.row[name] for name in ("deduplication_id", "completed_at")}
        self._again(self.row["queue_name"] or INTERNAL, **kept)

    def _again(self, queue: str, **values: Any) -> None:
        cleared = dict.fromkeys(("deduplication_id", "started_at_epoch_ms", "completed_at"))
        self.row |= {"status": "ENQUEUED", "queue_name": queue, **cleared}
        self.row |= {"updated_at": self.stamp(), **values}
        self.truth = Truth(enqueued=self.now, again=True)

    def give_up(self) -> None:
        """A worker takes it, sees that it was tried too often, and buries it."""
        self.dequeue()
        at = {"updated_at": self.stamp(), "completed_at": self.stamp()}
        erased = dict.fromkeys(("queue_name", "deduplication_id", "started_at_epoch_ms"))
        self.row |= {"status": "MAX_RECOVERY_ATTEMPTS_EXCEEDED", **erased, **at}
        self.truth = Truth(ended=self.now, again=True)

    def tag(self) -> None:
        """Somebody sets its attributes."""
        self.row["updated_at"] = self.stamp()
        self.truth.tagged = self.truth.tagged or self.status in WAITING

    def delay_again(self, milliseconds: int) -> None:
        """Somebody moves the end of its delay, as a debouncer does."""
        self.row |= {"delay_until_epoch_ms": self.now + milliseconds, "updated_at": self.stamp()}

    def fork(self, name: str, start_step: int, queue: str = INTERNAL) -> Life:
        """Fork it; the copied steps keep their times."""
        other = Life(name, self.now, self.coarse, truth=Truth(enqueued=self.now))
        other._created(status="ENQUEUED", queue_name=queue, forked_from=self.id)
        other.steps = [
            {**each, "workflow_uuid": name}
            for each in self.steps
            if each["function_id"] < start_step
        ]
        return other
