"""JSON payloads: portable JSON, the TypeScript SDK's superjson, and what Java writes."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import Any

from dbos_notebook.payloads import builders
from dbos_notebook.payloads.bounds import MAX_DEPTH, PickleError, Work
from dbos_notebook.payloads.errors import RecordedError
from dbos_notebook.payloads.values import Opaque
from dbos_notebook.printable import printable

MAX_DIGITS = 4_000
MAX_VALUES = 1_000_000
"""Values that a document may hold."""
# To its end, where it has no closing quote: so that no text makes it look twice at a place.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BIGINT = re.compile(r"-?[0-9]+")


def parse(text: str) -> Any:
    """Parse JSON; raises ValueError, RecursionError, or PickleError where it holds too much."""
    if _values(text) > MAX_VALUES:
        check(text)
    return json.loads(text)


def check(text: str) -> None:
    """Raise PickleError where JSON holds too many values."""
    if _values(text) > MAX_VALUES and _values(_STRING.sub("", text)) > MAX_VALUES:
        raise PickleError(f"it has over {MAX_VALUES:,} values")


def _values(text: str) -> int:
    return text.count("[") + text.count("{") + text.count(",")


def portable_error(value: Any) -> Any:
    """Make an error of DBOS's portable form, ``{"name", "message", "code", "data"}``.

    Examples
    --------
    >>> portable_error({"name": "ValueError", "message": "no card", "code": None})
    ValueError('no card')
    """
    if isinstance(value, dict) and isinstance(value.get("name"), str) and "message" in value:
        message = value["message"]
        plain = isinstance(message, str)
        return RecordedError(
            printable(value["name"]),
            () if plain else (message,),
            message=message if plain else None,
            state={"stack": value["stack"]} if isinstance(value.get("stack"), str) else None,
            code=value.get("code"),
            data=value.get("data"),
        )
    return value


def superjson(document: Any, work: Work) -> Any:
    """Give a superjson document (``{"json": …, "meta": {"values": …}}``) its types back.

    Examples
    --------
    >>> superjson({"json": {"n": "12"}, "meta": {"values": {"n": ["bigint"]}}}, Work(60))
    {'n': 12}
    """
    if not isinstance(document, dict) or "json" not in document:
        return document
    meta = document.get("meta")
    return _apply(document["json"], meta.get("values") if isinstance(meta, dict) else None, work)


def _apply(value: Any, tree: Any, work: Work) -> Any:
    """Apply a tree of annotations: ``[type]``, ``[type, {path: tree}]`` or ``{path: tree}``."""
    if isinstance(tree, dict):
        own, below = None, tree
    elif isinstance(tree, list) and tree:
        own = tree[0]
        below = tree[1] if len(tree) > 1 and isinstance(tree[1], dict) else {}
    else:
        return value
    for path, subtree in below.items():
        keys = re.split(r"(?<!\\)\.", path, maxsplit=MAX_DEPTH)
        if len(keys) <= MAX_DEPTH:  # nothing deeper will be shown
            value = _at(value, [key.replace(r"\.", ".") for key in keys], 0, subtree, work)
    return value if own is None else _typed(value, own, work)


def _at(value: Any, keys: list[str], place: int, tree: Any, work: Work) -> Any:
    if place == len(keys):
        return _apply(value, tree, work)
    key = keys[place]
    if isinstance(value, dict) and key in value:
        value[key] = _at(value[key], keys, place + 1, tree, work)
    elif isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value):
        value[int(key)] = _at(value[int(key)], keys, place + 1, tree, work)
    return value


def _typed(value: Any, kind: Any, work: Work) -> Any:
    # ["class", name], ["custom", name], ["symbol", name], ["typed-array", name]
    kind, name = kind if isinstance(kind, list) and len(kind) == 2 else (kind, None)
    if not isinstance(kind, str):
        return value
    if (
        (kind, name) == ("custom", "Buffer")
        and isinstance(value, list)
        and all(type(byte) is int and 0 <= byte < 256 for byte in value)
    ):
        return bytes(value)
    if kind in ("class", "custom") and name is not None:
        return Opaque(printable(name), state=value)
    if kind == "undefined":
        return None
    if isinstance(value, str):
        return _of_text(value, kind)
    if kind == "set" and isinstance(value, list):
        return _set(value, work)
    if kind == "map" and isinstance(value, list):
        return _map(value, work)
    return portable_error(value) if kind == "Error" else value


def _of_text(text: str, kind: str) -> Any:
    if kind == "bigint" and len(text) <= MAX_DIGITS and _BIGINT.fullmatch(text):
        return int(text)
    if kind == "Date":
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:  # a Date may be of a year over 9999
            return Opaque("Date", (text,))
    if kind == "number":
        special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}
        return special.get(text, text)
    return Opaque("RegExp", (text,)) if kind == "regexp" else text


def _set(members: list[Any], work: Work) -> Any:
    try:
        made: set[Any] = builders.hashed(work, set, members)
    except (TypeError, ValueError):  # JavaScript's may hold objects
        return Opaque("Set", (members,))
    # … and tells 1 from true.
    return made if len(made) == len(members) else Opaque("Set", (members,))


def _map(pairs: list[Any], work: Work) -> Any:
    made: dict[Any, Any] = {}
    try:
        for key, item in pairs:
            builders.set_items(work, made, [key, item])
    except (TypeError, ValueError):
        return Opaque("Map", (pairs,))
    return made if len(made) == len(pairs) else Opaque("Map", (pairs,))
