"""What a person asks the list for: the browser's form of it, as filters of ``Client.workflows``.

And back: as the Python that gives the same rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dbos_notebook.errors import FilterError
from dbos_notebook.status import STATUSES
from dbos_notebook.tables.pages import SORTS
from dbos_notebook.text import escape_unsafe

CHOSEN = ("name", "queue_name", "app_version", "user", "executor_id", "application_name")
"""Filters of which values are chosen, each a list."""
TIMES = ("start_time", "end_time")
TEXTS = ("search", "error")
MODES = ("flat", "tree", "queued")
SIZES = (25, 50, 100, 200)
MOST_SELECTED = 1000


def first(filters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide checked filters into those that the view lets one change, and the rest.

    Examples
    --------
    >>> first({"status": ["ERROR"], "has_parent": False})
    ({'status': ['ERROR']}, {'has_parent': False})
    """
    shown: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, value in filters.items():
        if name in ("status", *CHOSEN) and value:
            shown[name] = list(value)
        elif name in (*TIMES, *TEXTS):
            shown[name] = value
        elif name == "attributes":
            shown[name] = json.dumps(value)
        else:
            fixed[name] = value
    return shown, fixed


def as_filters(view: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the browser's form into filters as a person writes them; what is empty goes.

    Examples
    --------
    >>> as_filters({"search": " card ", "status": ["ERROR"], "name": [], "attributes": "tier=2"})
    {'search': 'card', 'status': ['ERROR'], 'attributes': {'tier': 2}}
    """
    filters: dict[str, Any] = {}
    for name in TEXTS:
        if text := str(view.get(name) or "").strip():
            filters[name] = text
    for name in ("status", *CHOSEN):
        if values := view.get(name):
            filters[name] = [str(value) for value in values]
    for name in TIMES:
        if value := view.get(name):
            filters[name] = value
    if attributes := str(view.get("attributes") or "").strip():
        filters["attributes"] = _attributes(attributes)
    if view.get("mode") == "queued":
        filters["queues_only"] = True
    return filters


def _json(text: str) -> Any:
    return json.loads(text, parse_float=_number, parse_constant=_number)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # no database compares with it, and no Python is written so
        raise ValueError(f"{text} is no number of JSON")
    return number


def _attributes(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            parsed = _json(text)
        except ValueError as error:
            raise FilterError(f"attributes {text!r} is no JSON object: {error}.") from None
        return dict(parsed)
    found = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise FilterError(
                f"attributes {text!r} cannot be read. Write key=value, key=value or a JSON object."
            )
        try:
            found[key.strip()] = _json(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found


def order(view: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what to sort by, and whether the largest comes first.

    Examples
    --------
    >>> order({"mode": "queued"}), order({})
    (('queue_position', False), ('created_at', True))
    """
    queued = view.get("mode") == "queued"
    sort = view.get("sort") or ("queue_position" if queued else "created_at")
    if sort not in SORTS:
        raise FilterError(f"The list cannot be sorted by {sort!r}.")
    descending = view.get("descending")
    return sort, (sort == "created_at" and not queued) if descending is None else bool(descending)


def size(view: Mapping[str, Any]) -> int:
    """Return how many rows a page has: one of the sizes that are offered."""
    wanted = view.get("size")
    return wanted if isinstance(wanted, int) and wanted in SIZES else SIZES[1]


def code(view: Mapping[str, Any], fixed: Mapping[str, Any]) -> str:
    """Write the call that gives the view's rows.

    Examples
    --------
    >>> print(code({"status": ["ERROR"], "start_time": "24h"}, {}))
    db.workflows(status="ERROR", start_time="24h")
    >>> print(code({"sort": "duration", "descending": True, "name": ["a", "b"]}, {}))
    db.workflows(name=["a", "b"], limit=None).sort_values("duration", ascending=False)
    >>> print(code({"mode": "queued"}, {}))
    db.queued(sort_desc=False)
    """
    filters = as_filters(view) | dict(fixed)
    method = "queued" if filters.pop("queues_only", None) else "workflows"
    sort, descending = order(view)
    if list(filters.get("status", ())) == list(STATUSES):
        del filters["status"]
    arguments = [f"{name}={literal(value)}" for name, value in filters.items()]
    if sort in ("created_at", "queue_position"):
        if not descending:
            arguments.append("sort_desc=False")
        ending = ""
        if sort == "queue_position" and not (view.get("mode") == "queued" and not descending):
            ending = f'.sort_values(["queue_name", "priority"], ascending={not descending})'
    else:
        # The database would sort before it cuts; a DataFrame is sorted after.
        arguments.append("limit=None")
        ending = f".sort_values({literal(sort)}, ascending={not descending})"
    call = ", ".join(arguments)
    if len(call) > 80:
        call = "\n    " + ",\n    ".join(arguments) + ",\n"
    return f"db.{method}({call}){ending}"


def literal(value: Any) -> str:
    """Write a plain value as Python, a list of one as the one.

    Examples
    --------
    >>> literal(["order"]), literal({"tier": [1, 2], "tags": ["x"]})
    ('"order"', '{"tier": [1, 2], "tags": ["x"]}')
    """
    return _literal(value[0] if isinstance(value, list) and len(value) == 1 else value)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        # As the rest of the documentation quotes; JSON's escapes are Python's too. What would be
        # obeyed or hidden where the code is shown or pasted is escape_unsafe as well.
        return escape_unsafe(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    return repr(value)
