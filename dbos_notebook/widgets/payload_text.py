"""One payload as text, JSON or Python, whole, and the lines in which a string occurs."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbos_notebook.errors import FilterError
from dbos_notebook.payloads import Opaque, RecordedError
from dbos_notebook.text import truncate
from dbos_notebook.widgets import serialize
from dbos_notebook.widgets.details import read_step
from dbos_notebook.widgets.messages import Answer, NodeKey, Question
from dbos_notebook.workflow import Input, Workflow

if TYPE_CHECKING:
    from dbos_notebook.store import Store

PAYLOADS = ("input", "output", "error")
MAX_CHARACTERS = 5_000_000
"""Of a whole payload, which a browser can still show."""
MAX_LINES, MAX_LINE_CHARACTERS = 50, 300
"""Of the lines in which a string occurs."""
MAX_DEPTH = 100


def answer(store: Store, message: Question) -> Answer:
    """Answer a message about one payload of a workflow or a step.

    ``form`` asks for the whole payload as ``"text"``, ``"json"`` or ``"python"``, ``find`` for the
    lines of its text in which a string occurs, upper or lower case.
    """
    value = _read(store, serialize.from_json_key(message["key"]), str(message["name"]))
    if message.get("find"):
        return find_lines(serialize.whole_text(value), str(message["find"]))
    form = str(message.get("form"))
    forms = {"text": as_text, "json": as_json, "python": serialize.whole_text}
    if form not in forms:
        raise FilterError(f"form={form!r} does not exist. Use one of {list(forms)}.")
    return {"text": truncate(serialize.replace_surrogates(forms[form](value)), MAX_CHARACTERS)}


def _read(store: Store, key: NodeKey, name: str) -> Any:
    if name not in PAYLOADS:
        raise FilterError(f"name={name!r} is not a payload. Use one of {PAYLOADS}.")
    if isinstance(key, tuple):
        return read_step(store, *key).iloc[0][name]
    return getattr(Workflow.read(store, str(key)), name)


def as_text(value: object) -> str:
    r"""Return a string without quotes, an error with its traceback, any other value as Python.

    Examples
    --------
    >>> as_text("two\nlines")
    'two\nlines'
    """
    if isinstance(value, str):
        return value
    if isinstance(value, RecordedError):
        payload = serialize.error_payload(value)
        parts = [payload.get("traceback"), f"{value.type}: {value.message}", *value.notes]
        return "\n".join(str(part) for part in parts if part)
    return serialize.whole_text(value)


def as_json(value: object) -> str:
    r"""Return a value as JSON; what JSON has no type for becomes an object or a string.

    Examples
    --------
    >>> print(as_json(Input(("order", 7), {"at": dt.date(2026, 1, 2), "ratio": math.inf})))
    {
      "args": [
        "order",
        7
      ],
      "kwargs": {
        "at": "2026-01-02",
        "ratio": "inf"
      }
    }
    >>> as_json(Opaque("shop.Order", state={"id": 7}))
    '{\n  "type": "shop.Order",\n  "id": 7\n}'
    """
    return json.dumps(_plain(value, 0), indent=2, ensure_ascii=False)


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return repr(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Input):
        return _plain(value._asdict(), depth + 1)
    if isinstance(value, RecordedError):
        named = {"args": value.args, "attributes": value.state, "code": value.code}
        error = {"type": value.type, "message": value.message, **named, "data": value.data}
        return {name: _plain(part, depth + 1) for name, part in error.items() if part}
    if isinstance(value, Opaque):
        state = value.state if isinstance(value.state, Mapping) else {"state": value.state}
        named = {"args": value.args, "items": value.items, **value.kwargs, **state}
        parts = {str(name): part for name, part in named.items() if part not in ((), None, [])}
        return {"type": value.type, **_plain(parts, depth + 1)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part, depth + 1) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return str(value)


def find_lines(text: str, wanted: str) -> dict[str, object]:
    r"""Return the lines in which a string occurs, with their numbers, and how many there are.

    Examples
    --------
    >>> find_lines("a\nBerlin, berlin\nParis", "BERLIN")
    {'lines': [[2, 'Berlin, berlin']], 'count': 1}
    """
    lower = wanted.lower()
    found: list[list[object]] = []
    count = 0
    for number, line in enumerate(text.splitlines(), start=1):
        place = line.lower().find(lower)
        if place < 0:
            continue
        count += 1
        if len(found) < MAX_LINES:
            begin = max(0, place - MAX_LINE_CHARACTERS // 3)
            part = line[begin : begin + MAX_LINE_CHARACTERS].strip()
            part = ("…" if begin else "") + part
            more = len(line) > begin + MAX_LINE_CHARACTERS
            found.append([number, serialize.replace_surrogates(part + ("…" if more else ""))])
    return {"lines": found, "count": count}
