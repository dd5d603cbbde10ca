"""The list's filters: from the browser's form to arguments of ``Client.workflows``, and to code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from dbos_notebook.errors import FilterError
from dbos_notebook.status import STATUSES
from dbos_notebook.tables.pages import SORTS
from dbos_notebook.text import escape_unsafe
from dbos_notebook.widgets.messages import ViewOptions

CHOICE_FILTERS = ("name", "queue_name", "app_version", "user", "executor_id", "application_name")
"""Filters whose values are chosen from a list; each takes several."""
TIME_FILTERS = ("start_time", "end_time", "completed_after")
STRING_FILTERS = ("search", "error")
PAGE_SIZES = (10, 25, 50, 100, 200)
"""The sizes of a page that the browser offers; a view may be created with another one."""
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_SELECTED = 1000
MAX_ALL = 10_000
"""The number of workflows that one action takes when all that match are selected."""
MAX_LINE = 80
"""A longer call is written with one argument per line."""


def split_filters(filters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide checked filters into those that the form can change, and fixed ones.

    Examples
    --------
    >>> split_filters({"status": ["ERROR"], "has_parent": False})
    ({'status': ['ERROR']}, {'has_parent': False})
    """
    form: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, value in filters.items():
        if name in ("status", *CHOICE_FILTERS) and value:
            form[name] = list(value)
        elif name in (*TIME_FILTERS, *STRING_FILTERS):
            form[name] = value
        elif name == "attributes":
            form[name] = json.dumps(value)
        else:
            fixed[name] = value
    return form, fixed


def to_filters(view: ViewOptions) -> dict[str, Any]:
    """Convert the browser's form to filters; empty fields are skipped.

    Examples
    --------
    >>> to_filters({"search": " card ", "status": ["ERROR"], "name": [], "attributes": "tier=2"})
    {'search': 'card', 'status': ['ERROR'], 'attributes': {'tier': 2}}
    """
    filters: dict[str, Any] = {}
    for name in STRING_FILTERS:
        if text := str(view.get(name) or "").strip():
            filters[name] = text
    for name in ("status", *CHOICE_FILTERS):
        if values := view.get(name):
            filters[name] = [str(value) for value in values]
    for name in TIME_FILTERS:
        if value := view.get(name):
            filters[name] = value
    if attributes := str(view.get("attributes") or "").strip():
        filters["attributes"] = _parse_attributes(attributes)
    if view.get("mode") == "queued":
        filters["queues_only"] = True
    return filters


def _parse_attributes(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            return dict(_parse_json(text))
        except ValueError as error:
            raise FilterError(f"attributes {text!r} is not a JSON object: {error}.") from None
    attributes = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise FilterError(
                f"attributes {text!r} cannot be parsed. Write key=value, key=value or a JSON "
                "object."
            )
        try:
            attributes[key.strip()] = _parse_json(value)
        except ValueError:
            attributes[key.strip()] = value.strip()
    return attributes


def _parse_json(text: str) -> Any:
    return json.loads(text, parse_float=_parse_number, parse_constant=_parse_number)


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # no database compares with it, and Python has no literal for it
        raise ValueError(f"{text} is not a JSON number")
    return number


def sort_order(view: ViewOptions) -> tuple[str, bool]:
    """Return the column to sort by, and whether the largest value comes first.

    Examples
    --------
    >>> sort_order({"mode": "queued"}), sort_order({})
    (('queue_position', False), ('created_at', True))
    """
    queued = view.get("mode") == "queued"
    column = view.get("sort") or ("queue_position" if queued else "created_at")
    if column not in SORTS:
        raise FilterError(f"The list cannot be sorted by {column!r}. Use one of {list(SORTS)}.")
    descending = view.get("descending")
    if descending is None:
        return column, column == "created_at" and not queued
    return column, bool(descending)


def page_size(view: ViewOptions) -> int:
    """Return the number of rows on a page.

    Examples
    --------
    >>> page_size({"size": 7}), page_size({"size": 10**9}), page_size({"size": "all"})
    (7, 50, 50)
    """
    size = view.get("size")
    return size if is_page_size(size) else DEFAULT_PAGE_SIZE


def is_page_size(size: object) -> TypeGuard[int]:
    """Return whether a value is a possible number of rows on a page."""
    return isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MAX_PAGE_SIZE


def list_code(view: ViewOptions, fixed: Mapping[str, Any]) -> str:
    """Write the call that returns the rows of the list.

    Examples
    --------
    >>> print(list_code({"status": ["ERROR"], "start_time": "24h"}, {}))
    db.workflows(status="ERROR", start_time="24h")
    >>> print(list_code({"sort": "duration", "descending": True, "name": ["a", "b"]}, {}))
    db.workflows(name=["a", "b"], limit=None).sort_values("duration", ascending=False)
    >>> print(list_code({"mode": "queued"}, {}))
    db.queued(sort_desc=False)
    """
    filters = to_filters(view) | dict(fixed)
    method = "queued" if filters.pop("queues_only", None) else "workflows"
    column, descending = sort_order(view)
    if list(filters.get("status", ())) == list(STATUSES):
        del filters["status"]
    arguments = [f"{name}={literal(value)}" for name, value in filters.items()]
    sort = ""
    if column in ("created_at", "queue_position"):
        if not descending:
            arguments.append("sort_desc=False")
        if column == "queue_position" and not (view.get("mode") == "queued" and not descending):
            sort = f'.sort_values(["queue_name", "priority"], ascending={not descending})'
    else:
        # A DataFrame is sorted after the limit, the list before it.
        arguments.append("limit=None")
        sort = f".sort_values({literal(column)}, ascending={not descending})"
    call = ", ".join(arguments)
    if len(call) > MAX_LINE:
        call = "\n    " + ",\n    ".join(arguments) + ",\n"
    return f"db.{method}({call}){sort}"


def literal(value: object) -> str:
    """Write a value as a Python literal, a list of one element as that element.

    Examples
    --------
    >>> literal(["order"]), literal({"tier": [1, 2], "tags": ["x"]})
    ('"order"', '{"tier": [1, 2], "tags": ["x"]}')
    """
    return _literal(value[0] if isinstance(value, list) and len(value) == 1 else value)


def _literal(value: object) -> str:
    if isinstance(value, str):
        # Double quotes, as in the documentation; JSON's escapes are Python's too. Characters that
        # are invisible or control a terminal are escaped as well.
        return escape_unsafe(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    return repr(value)
