"""One finding of a diagnosis: what is wrong, since when, why that is believed, and what would help.

Also the severities, and the limits beyond which something counts as wrong.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pandas as pd

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.tables.filters import as_seconds, as_timedelta
from dbos_notebook.text import leaf_name

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the least to the most severe."""

MAX_NAME_IN_SUBJECT = 200
"""Characters of a workflow's name in the subject of a finding."""
MAX_LISTED = 20
"""IDs that the code of a call lists; with more, it selects the workflows by a filter."""

RULES: dict[str, str] = {
    "stranded": "PENDING under an executor that appears to be dead",
    "no_executor": "enqueued for a version that no live executor appears to run",
    "recovery_limit": "stopped because it was recovered too often",
    "repeated_recovery": "recovered again and again",
    "no_progress": "no step recorded for far longer than in earlier runs",
    "queue_full": "a queue's limit on concurrency makes work wait",
    "rate_limit": "a queue's rate limit makes work wait",
    "no_partition_key": "on a partitioned queue without a partition key",
    "no_queue": "on a queue that is not registered",
    "starved_queue": "nothing dequeues, although the limits allow it",
    "late_delay": "a delay has ended, and nobody has enqueued the workflow",
    "deadline_passed": "still active after its deadline",
    "deadline_near": "will soon be cancelled by its deadline",
    "missed_schedule": "a schedule did not fire when it was due",
    "unread_message": "a message that was never received",
    "timeout_near": "a wait for a message or an event will soon time out",
    "failure_rate": "fails more often than in the week before",
    "latency": "takes longer than in the week before",
    "many_steps": "a run with very many steps",
    "large_payload": "a very large input, output or result of a step",
}
"""The rules, the most severe first, and what each finds."""


@dataclass(frozen=True)
class ControlCall:
    """A control call that would act on a finding.

    Attributes
    ----------
    method
        The method of the client.
    targets
        The workflow IDs; or one schedule.
    filters
        Filters of ``Client.workflows`` that select the same workflows, for more than a few.
    options
        Keyword arguments.

    Examples
    --------
    >>> ControlCall("resume", ("order-7",), options={"force": True}).code
    "db.resume(['order-7'], force=True)"
    >>> ControlCall("resume", ("a",) * 30, {"status": "PENDING", "executor_id": "blue"}).code
    "db.resume(db.workflows(status='PENDING', executor_id='blue', limit=None))"
    """

    method: Literal["cancel", "resume", "backfill_schedule"]
    targets: tuple[str, ...]
    filters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def selects(self) -> bool:
        """Whether the workflows are selected by the filters, because there are too many to list."""
        return len(self.targets) > MAX_LISTED and bool(self.filters)

    @property
    def code(self) -> str:
        """The call as Python, for a client named ``db``."""
        if self.method == "backfill_schedule":
            target = repr(self.targets[0])
        elif self.selects:
            target = f"db.workflows({_keywords(self.filters)}, limit=None)"
        else:
            target = repr(list(self.targets[:MAX_LISTED]))
        options = _keywords(self.options)
        return f"db.{self.method}({target}{', ' if options else ''}{options})"


def _keywords(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    rule
        The rule that found it; ``RULES`` lists them.
    severity
        ``critical``: work does not run, and will not by itself. ``warning``: something differs
        from what is normal. ``info``: worth knowing.
    subject
        What it is about: an executor, a version, a queue, a workflow, a schedule; with full names.
    affected
        The number of workflows, messages or missed runs.
    since
        Since when, as far as known.
    evidence
        What was observed, in words. An inference is said to be one.
    remedy
        What would help, in words.
    call
        The control call that would act; ``None`` if no call of this package can.
    workflow_ids
        The affected workflows, the oldest first, at most 1,000.
    """

    rule: str
    severity: Severity
    subject: str
    affected: int
    since: pd.Timestamp | None
    evidence: str
    remedy: str = ""
    call: ControlCall | None = None
    workflow_ids: tuple[str, ...] = ()

    @property
    def plan(self) -> str:
        """The call that would act, as Python; ``""`` if there is none."""
        return self.call.code if self.call is not None else ""

    @property
    def short_subject(self) -> str:
        """The subject, with what distinguishes dotted names of workflows."""
        kind, _, names = self.subject.partition(" ")
        if kind != "workflow":
            return self.subject
        return f"{kind} {', '.join(leaf_name(name) for name in names.split(', '))}"

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {RULES[self.rule]} ({self.affected:,})"


def check_severity(value: Any) -> Severity:
    """Return a severity; raise FilterError if there is no such."""
    for severity in SEVERITIES:
        if value == severity:
            return severity
    raise FilterError(
        f"severity={value!r} is not a severity.{nearest(str(value), SEVERITIES)} "
        f"The severities are: {', '.join(SEVERITIES)}."
    )


@dataclass(frozen=True)
class DiagnosisLimits:
    """Beyond which values something is a finding; see ``Client.diagnose``. Durations in seconds."""

    window: float = 6 * 3600.0
    queue_wait: float = 300.0
    no_progress: float = 300.0
    ends_within: float = 300.0
    recoveries: int = 5
    steps: int = 10_000
    payload_bytes: int = 10_000_000

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> DiagnosisLimits:
        """Validate the arguments of ``Client.diagnose``; raise FilterError for an invalid one."""
        known = {each.name: each.default for each in fields(cls)}
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise FilterError(
                    f"diagnose() has no limit {name!r}.{nearest(name, known)} "
                    f"The limits are: {', '.join(known)}."
                )
            if isinstance(known[name], int):
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise FilterError(f"{name}={value!r} must be an integer of at least 1.")
                checked[name] = value
            else:
                checked[name] = _seconds(value, name)
        return cls(**checked)


def _seconds(value: Any, name: str) -> float:
    """Return a duration in seconds from a number, a timedelta or a string such as ``"5min"``."""
    if isinstance(value, str):
        try:
            value = as_timedelta(value)
        except ValueError as error:
            raise FilterError(
                f"{name}={value!r} is not a duration: {error}. Give '5min', '6h' or a timedelta."
            ) from None
    seconds = as_seconds(value, name)
    if seconds is None:
        raise FilterError(f"{name}=None is not a duration. Give '5min', '6h' or a timedelta.")
    return seconds


def earliest(times: Sequence[pd.Timestamp | None]) -> pd.Timestamp | None:
    """Return the earliest of the known times."""
    return min((time for time in times if time is not None), default=None)


def instant(milliseconds: object) -> pd.Timestamp | None:
    """Return a stored time; ``None`` if it is none, because SQLite stores any value.

    Examples
    --------
    >>> instant(0), instant("then"), instant(None)
    (Timestamp('1970-01-01 00:00:00+0000', tz='UTC'), None, None)
    """
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return pd.Timestamp(milliseconds, unit="ms", tz=dt.UTC)
