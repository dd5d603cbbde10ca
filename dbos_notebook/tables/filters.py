"""Validate filters and other arguments, and normalize them. SQL is composed in ``sql``."""

from __future__ import annotations

import datetime as dt
import json
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import STATUSES

MIN_SECONDS = 0.001
"""DBOS's resolution is one millisecond."""
MAX_SECONDS = 1e9
"""About thirty years: longer than any wait, and within the range of DBOS's columns."""


def as_seconds(value: Any, name: str, minimum: float | None = None) -> float | None:
    """Return a duration in seconds; it must be above 0 or, if given, at least ``minimum``."""
    if value is None:
        return None
    seconds: Any = value
    if isinstance(value, np.timedelta64):
        seconds = value / np.timedelta64(1, "s")  # of NaT, NaN
    elif isinstance(value, dt.timedelta):
        seconds = value.total_seconds()
    is_real = isinstance(seconds, numbers.Real)  # numpy's too
    if isinstance(seconds, bool) or not is_real:
        raise FilterError(f"{name} takes seconds or a timedelta, not {value!r}.")
    bound = "above 0" if minimum is None else f"at least {minimum:g}"
    # Comparisons with NaN are false.
    if not (seconds > 0 if minimum is None else seconds >= minimum) or not seconds <= MAX_SECONDS:
        raise FilterError(f"{name}={value!r} must be {bound}, and at most {MAX_SECONDS:g} s.")
    return max(float(seconds), MIN_SECONDS) if minimum is None else float(seconds)


LIST_FILTERS: Mapping[str, str] = {
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
"""Filters that take one string or many, with their columns."""

TIME_FILTERS: Mapping[str, tuple[str, str]] = {
    "start_time": ("created_at", ">="),
    "end_time": ("created_at", "<="),
    "completed_after": ("completed_at", ">="),
    "completed_before": ("completed_at", "<="),
    "dequeued_after": ("started_at_epoch_ms", ">="),
    "dequeued_before": ("started_at_epoch_ms", "<="),
}
BOOLEAN_FILTERS = ("was_forked_from", "is_fork", "has_parent")
OTHER_FILTERS = ("attributes", "error", "queues_only", "search")
FILTER_NAMES = (*LIST_FILTERS, *TIME_FILTERS, *BOOLEAN_FILTERS, *OTHER_FILTERS)

MAX_LEVELS = 6
"""Maximum nesting of ``attributes``: each level is one more nested subquery on SQLite, whose parser
supports seven."""

_RANGES = (
    ("start_time", "end_time"),
    ("completed_after", "completed_before"),
    ("dequeued_after", "dequeued_before"),
)


def check_filters(filters: Mapping[str, Any], *, now: dt.datetime | None = None) -> dict[str, Any]:
    """Validate and normalize filters, and drop those that are ``None``.

    Parameters
    ----------
    filters
        Values by the name of their filter.
    now
        The time from which ages are subtracted; by default the present.

    Returns
    -------
    dict
        Lists as ``list[str]``, times as epoch milliseconds, the others unchanged.

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
    for name, value in filters.items():
        if name not in FILTER_NAMES:
            raise FilterError(
                f"There is no filter {name!r}.{nearest(name, FILTER_NAMES)} "
                f"The filters are: {', '.join(sorted(FILTER_NAMES))}."
            )
        if value is None:
            continue
        if name in LIST_FILTERS:
            strings = as_strings(value, name)
            checked[name] = [_status(string) for string in strings] if name == "status" else strings
        elif name in TIME_FILTERS:
            checked[name] = as_epoch_ms(value, name, now)
        else:
            checked[name] = _check_other(name, value)
    for start, end in _RANGES:
        if start in checked and end in checked and checked[start] > checked[end]:
            raise FilterError(
                f"{start}={filters[start]!r} is later than {end}={filters[end]!r}, so nothing can "
                "match. Swap them, or omit one."
            )
    return checked


def as_strings(value: Any, name: str) -> list[str]:
    """Convert an ID, an iterable, a Series or a DataFrame to a list of strings.

    Of a DataFrame, the ``workflow_id`` column is used, and of one row of it that value. Groups of
    failures have lists of IDs in the column ``workflow_ids``. Missing values of pandas and
    duplicates are dropped.

    Examples
    --------
    >>> as_strings("order-1", "workflow_ids")
    ['order-1']
    >>> as_strings(pd.DataFrame({"workflow_id": ["a", "b", "a"]}), "workflow_ids")
    ['a', 'b']
    """
    if isinstance(value, str):
        values: Iterable[Any] = (value,)
    elif (groups := _groups(value)) is not None:
        values = [key for ids in groups[WORKFLOW_IDS] for key in ids]
    elif isinstance(value, pd.Series) and "workflow_id" in value.index:
        values = (value["workflow_id"],)
    elif isinstance(value, pd.DataFrame):
        if "workflow_id" not in value.columns:
            raise FilterError(
                f"{name} got a DataFrame without a workflow_id column; it has "
                f"{', '.join(map(str, value.columns[:8]))}. Pass a column instead."
            )
        column = value["workflow_id"]
        if isinstance(column, pd.DataFrame):
            raise FilterError(f"{name} got a DataFrame with {column.shape[1]} workflow_id columns.")
        values = column.dropna().tolist()
    elif isinstance(value, pd.Series | pd.Index):
        values = value.dropna().tolist()
    elif isinstance(value, bytes) or not isinstance(value, Iterable):
        raise FilterError(
            f"{name} must be a string or an iterable of strings, not {value!r} "
            f"({type(value).__name__})."
        )
    else:
        values = value
    strings: dict[str, None] = {}
    for string in values:
        if not isinstance(string, str):
            raise FilterError(
                f"{name} must be strings, but {string!r} is a {type(string).__name__}."
            )
        check_storable(string, name)
        strings[string] = None
    return list(strings)


WORKFLOW_IDS, ANCESTOR_IDS = "workflow_ids", "ancestor_ids"
"""The columns of groups of failures with the workflows where they began, and those above them."""


def as_failed_trees(value: Any, name: str) -> list[str]:
    """Return the IDs as :func:`as_strings`, and of groups of failures also those above them."""
    groups = _groups(value)
    above = [] if groups is None else [key for ids in groups.get(ANCESTOR_IDS, ()) for key in ids]
    return list(dict.fromkeys([*as_strings(value, name), *above]))


def _groups(value: Any) -> pd.DataFrame | None:
    """Return groups of failures, or one of them, as a DataFrame; ``None`` for anything else."""
    if isinstance(value, pd.Series) and WORKFLOW_IDS in value.index:
        return value.to_frame().T
    if isinstance(value, pd.DataFrame) and WORKFLOW_IDS in value.columns:
        return value
    return None


def as_name(value: Any, name: str) -> str:
    """Validate a string that must not be blank.

    Examples
    --------
    >>> as_name("2.0", "application_version")
    '2.0'
    >>> as_name(2.0, "application_version")
    Traceback (most recent call last):
    dbos_notebook.errors.FilterError: application_version must be a string, not 2.0 (float).
    """
    if not isinstance(value, str):
        raise FilterError(f"{name} must be a string, not {value!r} ({type(value).__name__}).")
    check_storable(value, name)
    if not value.strip():
        raise FilterError(f"{name}={value!r} must be a non-empty string.")
    return value


def check_storable(string: str, name: str) -> None:
    """Raise FilterError for a string that databases cannot store."""
    if "\0" in string:
        raise FilterError(f"{name}={string!r} contains a NUL character, which no database stores.")
    try:
        string.encode()
    except UnicodeEncodeError:
        raise FilterError(
            f"{name}={string!r} contains a lone surrogate, which no database stores."
        ) from None


def as_epoch_ms(value: Any, name: str, now: dt.datetime) -> int:
    """Convert a time or an age to milliseconds since 1970.

    A time without a zone is local, as in ``DBOSClient``. An age ("24h", a timedelta) is subtracted
    from ``now``.

    Examples
    --------
    >>> as_epoch_ms("1h", "start_time", dt.datetime(1970, 1, 1, 2, tzinfo=dt.UTC))
    3600000
    >>> as_epoch_ms(pd.Timestamp("1970-01-01T00:00:01Z"), "start_time", dt.datetime.now(dt.UTC))
    1000
    """
    instant: dt.datetime | None = None
    try:
        if isinstance(value, str):
            instant = _parse_time(value, now)
        elif isinstance(value, dt.datetime):
            # A Timestamp without a zone is UTC in timestamp(), but a datetime is local.
            instant = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        elif isinstance(value, dt.date):
            instant = dt.datetime.combine(value, dt.time())
        elif isinstance(value, dt.timedelta):
            instant = _before_now(value, now)
        # NaT is a datetime, but cannot be converted.
        if instant is not None and not pd.isna(instant):
            return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise FilterError(f"{name}={value!r} is not a valid time: {error}. {_TIME_FORMS}") from None
    raise FilterError(f"{name}={value!r} is not a time. {_TIME_FORMS}")


_TIME_FORMS = (
    "Give a datetime, a date, an ISO string ('2026-11-24T03:00:00Z'), or an age ('24h', '7d', "
    "timedelta(hours=1))."
)


def _parse_time(string: str, now: dt.datetime) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(string)
    except ValueError:
        # pandas would parse a number without a unit as nanoseconds.
        if not any(character.isalpha() for character in string):
            raise
    return _before_now(as_timedelta(string), now)


def as_timedelta(string: str) -> dt.timedelta:
    """Parse a duration as pandas does; raise ValueError if it is invalid.

    Examples
    --------
    >>> as_timedelta("7d")
    datetime.timedelta(days=7)
    """
    # pandas deprecates the unit "d", but people use it.
    length = pd.Timedelta(re.sub(r"d\b", "D", string))
    if pd.isna(length):
        raise ValueError("it is empty")
    return length.to_pytimedelta()


def _before_now(age: dt.timedelta, now: dt.datetime) -> dt.datetime:
    if age < dt.timedelta(0):
        raise ValueError("an age cannot be negative")
    return now - age


def _status(string: str) -> str:
    if string.upper() in STATUSES:
        return string.upper()
    raise FilterError(
        f"There is no status {string!r}.{nearest(string, STATUSES)} "
        f"The statuses are: {', '.join(STATUSES)}."
    )


def _check_other(name: str, value: Any) -> Any:
    if name == "attributes":
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise FilterError(f"attributes must be a dict with string keys, not {value!r}.")
        try:
            document = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FilterError(f"attributes={value!r} is not JSON: {error}.") from None
        except RecursionError:
            document = ""
        if not document or not _is_nested_within(MAX_LEVELS, value):
            # Without the value, whose repr() would exceed Python's recursion limit.
            raise FilterError(f"attributes is nested more than {MAX_LEVELS} levels deep.")
        if "\\u0000" in document:
            raise FilterError(
                f"attributes={value!r} contains a NUL character, which no database stores."
            )
        check_storable(document, "attributes")
        return dict(value)
    if name in ("search", "error"):
        if not isinstance(value, str):
            raise FilterError(f"{name} must be a string, not {value!r}.")
        check_storable(value, name)
        return value.strip()
    if not isinstance(value, bool):
        raise FilterError(f"{name} must be True, False or None, not {value!r}.")
    return value


def _is_nested_within(levels: int, value: Any) -> bool:
    """Return whether a JSON value is nested at most ``levels`` levels deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return True
    return levels > 0 and all(_is_nested_within(levels - 1, part) for part in value)


def check_count(value: Any, name: str, what: str = "a number of rows") -> int | None:
    """Validate a number of ``what``, or ``None`` for no limit.

    Examples
    --------
    >>> check_count(3, "limit")
    3
    """
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise FilterError(f"{name} must be an integer or None, not {value!r}.")
    if value < 0:
        raise FilterError(f"{name}={value!r} must not be negative; it is {what}.")
    # More rows than any table has; one more is still a valid integer for a database.
    return min(int(value), 1 << 62)


def as_list(names: Any, what: str) -> list[Any]:
    """Return one name or several as a list; raise FilterError for what is neither."""
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Iterable):
        raise FilterError(f"{what}={names!r} must be a name, or a list of names.")
    return list(names)
