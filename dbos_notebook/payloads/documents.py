"""JSON payloads: portable JSON, the TypeScript SDK's superjson, and what Java writes."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

from dbos_notebook.payloads import builders
from dbos_notebook.payloads.values import Opaque, RecordedError

MAX_DIGITS = 4_000


def parse(text: str) -> Any:
    """Parse JSON; raises ValueError or RecursionError."""
    return json.loads(text)


def portable_error(value: Any) -> Any:
    """Make an error of DBOS's portable form, ``{"name", "message", "code", "data"}``.

    Examples
    --------
    >>> portable_error({"name": "ValueError", "message": "no card", "code": None})
    ValueError('no card')
    """
    if isinstance(value, dict) and isinstance(value.get("name"), str) and "message" in value:
        return RecordedError(
            value["name"],
            message=str(value["message"]),
            code=value.get("code"),
            data=value.get("data"),
        )
    return value


def superjson(document: Any) -> Any:
    """Give a superjson document (``{"json": …, "meta": {"values": …}}``) its types back.

    Examples
    --------
    >>> superjson({"json": {"n": "12"}, "meta": {"values": {"n": ["bigint"]}}})
    {'n': 12}
    """
    if not isinstance(document, dict) or "json" not in document:
        return document
    meta = document.get("meta")
    return _apply(document["json"], meta.get("values") if isinstance(meta, dict) else None)


def _apply(value: Any, tree: Any) -> Any:
    """Apply a tree of annotations: ``[type]``, ``[type, {path: tree}]`` or ``{path: tree}``."""
    if isinstance(tree, dict):
        own, below = None, tree
    elif isinstance(tree, list) and tree:
        own = tree[0]
        below = tree[1] if len(tree) > 1 and isinstance(tree[1], dict) else {}
    else:
        return value
    for path, subtree in below.items():
        keys = [key.replace(r"\.", ".") for key in re.split(r"(?<!\\)\.", path)]
        value = _at(value, keys, subtree)
    return value if own is None else _typed(value, own)


def _at(value: Any, keys: list[str], tree: Any) -> Any:
    if not keys:
        return _apply(value, tree)
    key, *rest = keys
    if isinstance(value, dict) and key in value:
        value[key] = _at(value[key], rest, tree)
    elif isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value):
        value[int(key)] = _at(value[int(key)], rest, tree)
    return value


def _typed(value: Any, kind: Any) -> Any:
    # ["class", name], ["custom", name], ["symbol", name], ["typed-array", name]
    kind, name = kind if isinstance(kind, list) and len(kind) == 2 else (kind, None)
    if kind in ("class", "custom") and name is not None:
        return Opaque(str(name), state=value)
    if kind == "undefined":
        return None
    if kind == "bigint" and isinstance(value, str) and len(value) <= MAX_DIGITS:
        return int(value)
    if kind == "Date" and isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    if kind == "number":
        return {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.get(
            str(value), -0.0 if value == "-0" else value
        )
    if kind == "set" and isinstance(value, list):
        return builders.hashed(set, value)
    if kind == "map" and isinstance(value, list):
        made: dict[Any, Any] = {}
        for key, item in value:
            builders.set_items(made, [key, item])
        return made
    if kind == "Error":
        return portable_error(value)
    if kind == "regexp":
        return Opaque("RegExp", (value,))
    return value
