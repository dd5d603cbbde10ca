"""Type aliases and keyword arguments that several functions share, each declared once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import pandas as pd

Strings: TypeAlias = "str | Iterable[str] | pd.Series[str] | pd.DataFrame"
"""One string or several."""
WorkflowIds: TypeAlias = Strings
"""One or several IDs; a DataFrame stands for its ``workflow_id`` column."""
Time: TypeAlias = "str | dt.datetime | dt.date | dt.timedelta | pd.Timestamp | pd.Timedelta"
"""An instant, or an age such as ``"24h"``."""
Duration: TypeAlias = float | dt.timedelta
"""Seconds or a timedelta."""
StartStep: TypeAlias = "int | str | Mapping[str, int | str] | pd.Series[Any]"
"""A step's ``function_id``, name or keyword such as ``"failed"``; or one by workflow ID."""
StartSteps: TypeAlias = "StartStep | Sequence[int | str] | Mapping[str, Sequence[int | str]]"
"""One start step or several, also by workflow ID."""
Theme: TypeAlias = Literal["auto", "light", "dark"]

DEFAULT_LIMIT = 1000
"""Rows that a listing returns by default; ``df.attrs["truncated"]`` is set if there are more."""


class Filters(TypedDict, total=False):
    """The filters of ``DBOSClient.list_workflows`` and the further ones of ``Client.workflows``."""

    status: Strings | None
    start_time: Time | None
    end_time: Time | None
    completed_after: Time | None
    completed_before: Time | None
    dequeued_after: Time | None
    dequeued_before: Time | None
    name: Strings | None
    app_version: Strings | None
    forked_from: Strings | None
    parent_workflow_id: Strings | None
    user: Strings | None
    queue_name: Strings | None
    workflow_id_prefix: Strings | None
    executor_id: Strings | None
    queues_only: bool | None
    was_forked_from: bool | None
    is_fork: bool | None
    has_parent: bool | None
    attributes: Mapping[str, Any] | None
    schedule_name: Strings | None
    application_name: Strings | None
    search: str | None
    error: str | None


class WorkflowFilters(Filters, total=False):
    """The same filters and the workflow IDs."""

    workflow_ids: WorkflowIds | None


class CancelOptions(TypedDict, total=False):
    """The options of ``Client.cancel``."""

    cancel_children: bool
    confirm: bool


class ResumeOptions(TypedDict, total=False):
    """The options of ``Client.resume``."""

    queue_name: str | None
    force: bool
    confirm: bool


class RewindOptions(TypedDict, total=False):
    """The options of ``Client.rewind``."""

    application_version: str | None
    queue_name: str | None
    queue_partition_key: str | None
    confirm: bool


class ForkOptions(RewindOptions, total=False):
    """The options of ``Client.fork``."""

    timeout: Duration | None
    key: str | None
    replacement_children: Mapping[str, str] | None
    force: bool


class RepairOptions(TypedDict, total=False):
    """The options of ``Client.repair``."""

    application_version: str | None
    queue_name: str | None
    key: str | None
    wait: bool
    timeout: Duration | None
    force: bool
    confirm: bool


class DeleteOptions(TypedDict, total=False):
    """The options of ``Client.delete``."""

    delete_children: bool
    force: bool
    confirm: bool


class SendOptions(TypedDict, total=False):
    """The options of ``Client.send``."""

    idempotency_key: str | None
    force: bool
    confirm: bool


class ConfirmOption(TypedDict, total=False):
    """The option of calls that change many workflows."""

    confirm: bool


class ForceOption(TypedDict, total=False):
    """The option of calls that may run a schedule's pickled context."""

    force: bool


class BackfillOptions(TypedDict, total=False):
    """The options of ``Client.backfill_schedule``."""

    force: bool
    confirm: bool


class DiagnosisOptions(TypedDict, total=False):
    """The limits of ``Client.diagnose``; durations are seconds, timedeltas or ``"5min"``."""

    window: Duration | str
    queue_wait: Duration | str
    no_progress: Duration | str
    ends_within: Duration | str
    recoveries: int
    steps: int
    payload_bytes: int
