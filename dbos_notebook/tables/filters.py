"""Validate filters and other arguments, and convert them to plain values. No SQL is made here."""

from __future__ import annotations

import datetime as dt
import json
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import STATUSES

LEAST_SECONDS = 0.001
"""DBOS counts in milliseconds."""
MOST_SECONDS = 1e9
"""Some thirty years: nobody waits for longer, and DBOS's columns hold it."""


def as_seconds(value: Any, name: str, least: float | None = None) -> float | None:
    """Read a length of time: above 0, or at least ``least``, and no more than any clock tells."""
    if value is None:
        return None
    seconds: Any = value.total_seconds() if isinstance(value, dt.timedelta) else value
    real = isinstance(seconds, numbers.Real)  # numpy's too
    if isinstance(seconds, bool) or not real:
        raise FilterError(f"{name} takes seconds or a timedelta, not {value!r}.")
    bound = "above 0" if least is None else f"at least {least:g}"
    # What is not a number compares as False.
    if not (seconds > 0 if least is None else seconds >= least) or not seconds <= MOST_SECONDS:
        raise FilterError(f"{name}={value!r} must be {bound}, and at most {MOST_SECONDS:g} s.")
    return max(float(seconds), LEAST_SECONDS) if least is None else float(seconds)


LISTS: Mapping[str, str] = {
    "workflow_ids": "workflow_uuid",
    "status": "status",
    "name": "name",
    "app_version": "application_version",
    "forked_from": "forked_from",
    "parent_workflow_id": "parent_workflow_id",
    "user": "authenticated_user",
    "queue_name": "queue_name",
    "executor_id": "executor_id",
    "schedule_name": "schedule_name",
    "application_name": "application_name",
    "workflow_id_prefix": "workflow_uuid",
}
"""Filters that take one text or many, and the column that each is about."""

TIMES: Mapping[str, tuple[str, str]] = {
    "start_time": ("created_at", ">="),
    "end_time": ("created_at", "<="),
    "completed_after": ("completed_at", ">="),
    "completed_before": ("completed_at", "<="),
    "dequeued_after": ("started_at_epoch_ms", ">="),
    "dequeued_before": ("started_at_epoch_ms", "<="),
}
FLAGS = ("was_forked_from", "is_fork", "has_parent")
OTHERS = ("attributes", "error", "queues_only", "search")
NAMES = (*LISTS, *TIMES, *FLAGS, *OTHERS)

MAX_LEVELS = 6
"""So deep may ``attributes`` be nested: for each level SQLite is asked with a subquery inside the
last, and its parser takes seven."""

_PAIRS = (
    ("start_time", "end_time"),
    ("completed_after", "completed_before"),
    ("dequeued_after", "dequeued_before"),
)


def check_filters(given: Mapping[str, Any], *, now: dt.datetime | None = None) -> dict[str, Any]:
    """Check filters and bring each to one form; those that are ``None`` go.

    Parameters
    ----------
    given
        Filters by name.
    now
        The moment that ages count back from; the present by default.

    Returns
    -------
    dict
        Lists as ``list[str]``, times as epoch milliseconds, the rest as given.

    Raises
    ------
    FilterError
        An unknown name, a value of the wrong type, a status that does not exist, a range that
        ends before it starts.

    Examples
    --------
    >>> check_filters({"status": "error", "start_time": "1970-01-01T00:00:01Z", "name": None})
    {'status': ['ERROR'], 'start_time': 1000}
    >>> check_filters({"workflow_ids": []})
    {'workflow_ids': []}
    """
    now = now or dt.datetime.now(dt.UTC)
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in NAMES:
            known = ", ".join(sorted(NAMES))
            raise FilterError(
                f"There is no filter {name!r}.{nearest(name, NAMES)} The filters are: {known}."
            )
        if value is None:
            continue
        if name in LISTS:
            texts = as_texts(value, name)
            checked[name] = [_status(text) for text in texts] if name == "status" else texts
        elif name in TIMES:
            checked[name] = as_epoch_ms(value, name, now)
        else:
            checked[name] = _other(name, value)
    for start, end in _PAIRS:
        if start in checked and end in checked and checked[start] > checked[end]:
            raise FilterError(
                f"{start}={given[start]!r} is later than {end}={given[end]!r}: nothing can match. "
                "Swap them, or leave one out."
            )
    return checked


def as_texts(value: Any, name: str) -> list[str]:
    """Turn an ID, an iterable, a Series or a DataFrame into a list of texts.

    A DataFrame gives its ``workflow_id`` column. Missing values and repetitions go.

    Examples
    --------
    >>> as_texts("order-1", "workflow_ids")
    ['order-1']
    >>> as_texts(pd.DataFrame({"workflow_id": ["a", "b", "a"]}), "workflow_ids")
    ['a', 'b']
    """
    if isinstance(value, str):
        values: Iterable[Any] = (value,)
    elif isinstance(value, pd.DataFrame):
        if "workflow_id" not in value.columns:
            raise FilterError(
                f"{name} got a DataFrame without a workflow_id column; it has "
                f"{', '.join(map(str, value.columns[:8]))}. Pass the column you mean."
            )
        column = value["workflow_id"]
        if isinstance(column, pd.DataFrame):
            raise FilterError(f"{name} got a DataFrame with {column.shape[1]} workflow_id columns.")
        values = column.dropna().tolist()
    elif isinstance(value, pd.Series | pd.Index):
        values = value.dropna().tolist()
    elif isinstance(value, bytes) or not isinstance(value, Iterable):
        raise FilterError(f"{name} takes a text or many, not {value!r} ({type(value).__name__}).")
    else:
        values = value
    texts: dict[str, None] = {}
    for text in values:
        if not isinstance(text, str):
            raise FilterError(f"{name} takes texts; {text!r} is a {type(text).__name__}.")
        check_storable(text, name)
        texts[text] = None
    return list(texts)


def as_name(value: Any, name: str) -> str:
    """Check one text that a database can hold and a person can see.

    Examples
    --------
    >>> as_name("2.0", "application_version")
    '2.0'
    >>> as_name(2.0, "application_version")
    Traceback (most recent call last):
    dbos_notebook.errors.FilterError: application_version takes a text, not 2.0 (float).
    """
    if not isinstance(value, str):
        raise FilterError(f"{name} takes a text, not {value!r} ({type(value).__name__}).")
    check_storable(value, name)
    if not value.strip():
        raise FilterError(f"{name} takes a text, and {value!r} is empty.")
    return value


def check_storable(text: str, name: str) -> None:
    """Raise FilterError for a text that no database can hold."""
    if "\0" in text:
        raise FilterError(f"{name} got {text!r}: no text in a database holds a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(
            f"{name} got {text!r}: half of a surrogate pair is no character, so no text in a "
            "database holds it."
        ) from None


def as_epoch_ms(value: Any, name: str, now: dt.datetime) -> int:
    """Turn a time or an age into milliseconds since 1970.

    A time without a zone is local, as ``DBOSClient`` takes it. An age ("24h", a timedelta)
    counts back from ``now``.

    Examples
    --------
    >>> as_epoch_ms("1h", "start_time", dt.datetime(1970, 1, 1, 2, tzinfo=dt.UTC))
    3600000
    >>> as_epoch_ms(pd.Timestamp("1970-01-01T00:00:01Z"), "start_time", dt.datetime.now(dt.UTC))
    1000
    """
    moment: dt.datetime | None = None
    try:
        if isinstance(value, str):
            moment = _from_text(value, now)
        elif isinstance(value, dt.datetime):
            # A Timestamp without a zone would count itself as UTC; a datetime is local.
            moment = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        elif isinstance(value, dt.date):
            moment = dt.datetime.combine(value, dt.time())
        elif isinstance(value, dt.timedelta):
            moment = _ago(value, now)
        # NaT is a datetime too, and none that can be converted.
        if moment is not None and not pd.isna(moment):
            return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise FilterError(f"{name}={value!r} is no usable time: {error}. {_TIME_FORMS}") from None
    raise FilterError(f"{name}={value!r} is no time. {_TIME_FORMS}")


_TIME_FORMS = (
    "Give a datetime, a date, ISO text ('2026-11-24T03:00:00Z'), or an age ('24h', '7d', "
    "timedelta(hours=1))."
)


def _from_text(text: str, now: dt.datetime) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        # A bare number would be taken as nanoseconds.
        if not any(character.isalpha() for character in text):
            raise
    return _ago(as_timedelta(text), now)


def as_timedelta(text: str) -> dt.timedelta:
    """Read a length of time as pandas does; raise ValueError where it cannot.

    Examples
    --------
    >>> as_timedelta("7d")
    datetime.timedelta(days=7)
    """
    # pandas is giving up "d" for a day; people are not.
    length = pd.Timedelta(re.sub(r"d\b", "D", text))
    if pd.isna(length):
        raise ValueError("it says nothing")
    return length.to_pytimedelta()


def _ago(age: dt.timedelta, now: dt.datetime) -> dt.datetime:
    if age < dt.timedelta(0):
        raise ValueError("an age cannot be negative")
    return now - age


def _status(text: str) -> str:
    if text.upper() in STATUSES:
        return text.upper()
    raise FilterError(
        f"There is no status {text!r}.{nearest(text, STATUSES)} "
        f"The statuses are: {', '.join(STATUSES)}."
    )


def _other(name: str, value: Any) -> Any:
    if name == "attributes":
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise FilterError(f"attributes takes a dict with text keys, not {value!r}.")
        try:
            stored = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FilterError(f"attributes={value!r} is not JSON: {error}.") from None
        except RecursionError:
            stored = ""
        if not stored or not _within(MAX_LEVELS, value):
            raise FilterError(f"attributes are nested more than {MAX_LEVELS} deep.")
        if "\\u0000" in stored:
            raise FilterError(f"attributes={value!r} holds a NUL: no text in a database does.")
        check_storable(stored, "attributes")
        return dict(value)
    if name in ("search", "error"):
        if not isinstance(value, str):
            raise FilterError(f"{name} takes a text, not {value!r}.")
        check_storable(value, name)
        return value.strip()
    if not isinstance(value, bool):
        raise FilterError(f"{name} takes True, False or None, not {value!r}.")
    return value


def _within(levels: int, value: Any) -> bool:
    """Tell whether a JSON value is nested no deeper than so many levels."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return True
    return levels > 0 and all(_within(levels - 1, part) for part in value)


def check_window(limit: Any, offset: Any) -> tuple[int | None, int]:
    """Check ``limit`` (``None``: all; 0: none) and ``offset``.

    Examples
    --------
    >>> check_window(None, None)
    (None, 0)
    """
    for name, value in (("limit", limit), ("offset", offset)):
        if value is None:
            continue
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise FilterError(f"{name} takes a whole number or None, not {value!r}.")
        if value < 0:
            raise FilterError(f"{name}={value!r} is negative. {name} counts rows.")
    # More than any table has, and one more is still a number to a database.
    most = 1 << 62
    return (None if limit is None else min(int(limit), most)), min(int(offset or 0), most)
