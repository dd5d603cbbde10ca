"""Decode the formats of other DBOS SDKs: portable JSON, SuperJSON, Java's Jackson, and Go's."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import json
import math
import re
import uuid
from collections.abc import Callable
from typing import Any

from dbos_notebook.payloads.limits import MAX_DEPTH, Budget, DecodeError
from dbos_notebook.payloads.reconstruct import make_set, set_items
from dbos_notebook.payloads.recorded_errors import MAX_NESTED_ERRORS, RecordedError
from dbos_notebook.payloads.values import Opaque
from dbos_notebook.text import sanitize

MAX_DIGITS = 4_000
MAX_VALUES = 1_000_000
"""Maximum number of values in a document."""
# An unterminated string matches up to the end, so that no position is matched twice.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BIGINT = re.compile(r"-?[0-9]+")


def parse_json(text: str) -> Any:
    """Parse JSON; raise ValueError, RecursionError, or DecodeError if it has too many values."""
    if _count_values(text) > MAX_VALUES:
        check_value_count(text)
    return json.loads(text)


def check_value_count(text: str) -> None:
    """Raise DecodeError if a JSON document has too many values."""
    if _count_values(text) > MAX_VALUES and _count_values(_STRING.sub("", text)) > MAX_VALUES:
        raise DecodeError(f"over {MAX_VALUES:,} values")


def _count_values(text: str) -> int:
    return text.count("[") + text.count("{") + text.count(",")


def portable_error(value: Any, levels: int = MAX_NESTED_ERRORS) -> Any:
    """Convert a portable error, ``{"name", "message", "code", "data"}``, to a RecordedError.

    Other values are returned unchanged.

    Examples
    --------
    >>> portable_error({"name": "ValueError", "message": "no card", "code": None})
    ValueError('no card')
    """
    if isinstance(value, dict) and isinstance(value.get("name"), str) and "message" in value:
        message = value["message"]
        plain = isinstance(message, str)
        return RecordedError(
            sanitize(value["name"]),
            () if plain else (message,),
            message=message if plain else None,
            state=_error_attributes(value, levels),
            code=value.get("code"),
            data=value.get("data"),
        )
    return value


_PORTABLE = ("name", "message", "code", "data")


def _error_attributes(value: dict[str, Any], levels: int) -> dict[str, Any] | None:
    """Return the other attributes of an error, such as those of JavaScript; nested errors too."""
    state = {name: part for name, part in value.items() if name not in _PORTABLE}
    if "stack" in state and not isinstance(state["stack"], str):
        del state["stack"]
    if levels and isinstance(state.get("errors"), list):
        state["errors"] = [portable_error(each, levels - 1) for each in state["errors"]]
    if levels and "cause" in state:
        state["cause"] = portable_error(state["cause"], levels - 1)
    return state or None


def decode_superjson(document: Any, budget: Budget) -> Any:
    """Restore the types of a superjson document (``{"json": …, "meta": {"values": …}}``).

    Examples
    --------
    >>> decode_superjson({"json": {"n": "12"}, "meta": {"values": {"n": ["bigint"]}}}, Budget(60))
    {'n': 12}
    """
    if not isinstance(document, dict) or "json" not in document:
        return document
    meta = document.get("meta")
    return _apply(document["json"], meta.get("values") if isinstance(meta, dict) else None, budget)


def _apply(value: Any, tree: Any, budget: Budget) -> Any:
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
        if len(keys) <= MAX_DEPTH:  # a deeper value is not decoded anyway
            value = _apply_at(value, [key.replace(r"\.", ".") for key in keys], 0, subtree, budget)
    return value if own is None else _typed(value, own, budget)


def _apply_at(value: Any, keys: list[str], position: int, tree: Any, budget: Budget) -> Any:
    if position == len(keys):
        return _apply(value, tree, budget)
    key = keys[position]
    if isinstance(value, dict) and key in value:
        value[key] = _apply_at(value[key], keys, position + 1, tree, budget)
    elif isinstance(value, list) and key.isdecimal() and len(key) < 10 and int(key) < len(value):
        value[int(key)] = _apply_at(value[int(key)], keys, position + 1, tree, budget)
    return value


def _typed(value: Any, kind: Any, budget: Budget) -> Any:
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
        return Opaque(sanitize(name), state=value)
    if kind == "undefined":
        return None
    if isinstance(value, str):
        return _from_string(value, kind)
    if kind == "set" and isinstance(value, list):
        return _to_set(value, budget)
    if kind == "map" and isinstance(value, list):
        return _to_map(value, budget)
    return portable_error(value) if kind == "Error" else value


def _from_string(text: str, kind: str) -> Any:
    if kind == "bigint" and len(text) <= MAX_DIGITS and _BIGINT.fullmatch(text):
        return int(text)
    if kind == "Date":
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:  # JavaScript's Date supports years over 9999
            return Opaque("Date", (text,))
    if kind == "number":
        special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}
        return special.get(text, text)
    return Opaque("RegExp", (text,)) if kind == "regexp" else text


def _to_set(members: list[Any], budget: Budget) -> Any:
    try:
        value: set[Any] = make_set(budget, set, members)
    except (TypeError, ValueError):  # a JavaScript Set may contain objects
        return Opaque("Set", (members,))
    # In JavaScript 1 and true are different, in Python they are equal.
    return value if len(value) == len(members) else Opaque("Set", (members,))


def _to_map(pairs: list[Any], budget: Budget) -> Any:
    value: dict[Any, Any] = {}
    try:
        for key, item in pairs:
            set_items(budget, value, [key, item])
    except (TypeError, ValueError):
        return Opaque("Map", (pairs,))
    return value if len(value) == len(pairs) else Opaque("Map", (pairs,))


# java.util.ImmutableCollections$ListN, [Ljava.lang.Object;, [B
_CLASS = re.compile(r"\[*(?:[BCDFIJSZ]|L?(?:[A-Za-z_$][\w$]*\.)+[A-Za-z_$][\w$]*;?)")


def decode_java(value: Any, budget: Budget) -> Any:
    """Convert a parsed document with type names (Jackson's default typing) to values.

    Examples
    --------
    >>> decode_java(["[Ljava.lang.Object;", [7, ["java.math.BigDecimal", 9.5]]], Budget(60))
    [7, Decimal('9.5')]
    >>> decode_java({"@class": "com.shop.Order", "id": 17}, Budget(60))
    Order(id=17)
    """
    if isinstance(value, dict):
        kind = value.get("@class")
        attributes = {
            name: decode_java(part, budget) for name, part in value.items() if name != "@class"
        }
        if type(kind) is not str or (_is_jvm_class(kind) and kind.endswith(_JAVA_MAPS)):
            return attributes
        if kind.endswith(".WireThrowable") and type(attributes.get("type")) is str:
            return _throwable(attributes)
        return Opaque(sanitize(kind), state=attributes)
    if not isinstance(value, list):
        return value
    if len(value) == 2 and type(value[0]) is str and _CLASS.fullmatch(value[0]):
        return _java_value(value[0], value[1], budget)
    return [decode_java(part, budget) for part in value]


_JAVA_MAPS = ("Map", "$MapN", "$Map1", "Properties", "Hashtable")


def _is_jvm_class(kind: str) -> bool:
    return kind.startswith(("java.", "[", "kotlin.", "scala."))


def _java_value(kind: str, value: Any, budget: Budget) -> Any:
    if isinstance(value, list):
        parts = [decode_java(part, budget) for part in value]
        if kind.startswith("[") or kind.rpartition(".")[2].find("List") >= 0:
            return parts
        if _is_jvm_class(kind):
            return _java_set(parts, budget) if "Set" in kind else parts
        return Opaque(sanitize(kind), (parts,))
    if isinstance(value, dict):
        return decode_java({"@class": kind, **value}, budget)
    constructor = _JAVA_CONSTRUCTORS.get(kind)
    if constructor is not None:
        try:
            return constructor(value)
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            pass  # the format of another version: show the stored value
    return Opaque(sanitize(kind), (value,))


def _java_set(members: list[Any], budget: Budget) -> Any:
    try:
        return make_set(budget, set, members)
    except (TypeError, ValueError):
        return Opaque("java.util.Set", (members,))


def _unchanged(value: Any) -> Any:
    return value


def _number(value: Any) -> decimal.Decimal:
    return decimal.Decimal(value if isinstance(value, int) else _checked_digits(str(value)))


def _integer(value: Any) -> int:
    return int(_checked_digits(value)) if isinstance(value, str) else int(value)


def _checked_digits(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number is too long")
    return text


def _instant(value: Any) -> Any:
    if isinstance(value, str):
        return dt.datetime.fromisoformat(_checked_digits(value))
    raise TypeError("not a time string")


_JAVA_CONSTRUCTORS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("java.lang.Long", "java.lang.Short", "java.lang.Byte", "java.lang.Integer"), _unchanged
    ),
    **dict.fromkeys(
        ("java.lang.Float", "java.lang.Double", "java.lang.String", "java.lang.Boolean"), _unchanged
    ),
    "java.lang.Character": _unchanged,
    "java.math.BigDecimal": _number,
    "java.math.BigInteger": _integer,
    "java.util.UUID": uuid.UUID,
    "java.util.Date": _instant,
    "java.time.Instant": _instant,
    "java.time.LocalDate": lambda text: dt.date.fromisoformat(_checked_digits(text)),
    "java.time.LocalDateTime": _instant,
    "java.time.LocalTime": lambda text: dt.time.fromisoformat(_checked_digits(text)),
    "java.time.OffsetDateTime": _instant,
    "[B": lambda text: base64.b64decode(text, validate=True),
}


def _throwable(attributes: dict[str, Any]) -> RecordedError:
    """Return the error of a WireThrowable, without its Java serialization."""
    message = attributes["message"]
    return RecordedError(
        sanitize(attributes["type"]),
        message="" if message is None else str(message),
        state={
            name: attributes[name]
            for name in attributes
            if name in _THROWABLE_ATTRIBUTES and attributes[name]
        },
    )


_THROWABLE_ATTRIBUTES = ("causeType", "stackPreview", "suppressedCount", "node", "extra")


def is_java(value: Any) -> bool:
    """Return whether a document without a recorded format was written by Java."""
    if isinstance(value, dict):
        return "@class" in value
    return (
        isinstance(value, list)
        and len(value) == 2
        and type(value[0]) is str
        and isinstance(value[1], list | dict)
        and _is_jvm_class(value[0])
        and _CLASS.fullmatch(value[0]) is not None
    )


def parse_java(text: str, budget: Budget) -> Any:
    """Parse a document of Java's SDK; raise ValueError if it is not JSON."""
    # Parse numbers as Decimal, so that a BigDecimal keeps all digits; convert the others to float.
    check_value_count(text)
    return decode_java(_floats(json.loads(text, parse_float=_decimal)), budget)


def _decimal(text: str) -> Any:
    return decimal.Decimal(text) if len(text) < MAX_DIGITS else float(text)


def _floats(value: Any, *, exact: bool = False) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _floats(part) for name, part in value.items()}
    if kind is list:
        exact = len(value) == 2 and value[0] == "java.math.BigDecimal"
        return [_floats(part, exact=exact) for part in value]
    if kind is decimal.Decimal and not exact:
        return float(value)
    return value


# Go

GO_NIL = "__DBOS_NIL"
GO_ERROR = "error"
"""The type of a Go error that was stored as its message only: the name of Go's interface."""


def go_json(text: str) -> str:
    """Return the JSON document in Go's format, which is base64; raise ValueError if it is invalid.

    Examples
    --------
    >>> go_json("eyJPcmRlcklEIjogMTd9")
    '{"OrderID": 17}'
    """
    return _base64(text).decode("utf-8")


def go_error(text: str) -> RecordedError:
    """Return the error of a Go workflow, from its message or from a gob.

    Examples
    --------
    >>> go_error("no address on file").message
    'no address on file'
    """
    try:
        data = _base64(text)
    except ValueError:
        data = b""
    attributes = _gob_name(data)
    if attributes is None:
        return RecordedError(GO_ERROR, message=text)
    kind, position = attributes
    strings = _gob_strings(data, position)
    # Their first fields: DBOS's errors have the message first, portable ones a name before it.
    message = dict(zip(_GOB_MESSAGE, (strings[:1], strings[1:2]), strict=True)).get(kind, [])
    shown = message[0] if message else f"<undecoded: {describe_gob(data)}>"
    return RecordedError(sanitize(kind.lstrip("*")), message=shown)


_GOB_MESSAGE = ("*dbos.DBOSError", "*dbos.PortableWorkflowError")


def describe_gob(data: bytes | str) -> str:
    """Return a description of a gob."""
    if isinstance(data, str):
        data = _base64(data)
    return f"gob, Go's binary format, {len(data):,} bytes"


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ValueError("not valid base64") from None


# The length and registered name of the concrete type of an interface value.
_GOB_TYPE = re.compile(rb"[\x03-\x7f](\*?(?:[\w.-]{1,60}/){0,8}[\w-]{1,60}\.[A-Za-z_]\w{0,60})")


def _gob_name(data: bytes) -> tuple[str, int] | None:
    for match in _GOB_TYPE.finditer(data[: 1 << 16]):
        begin, end = match.span(1)
        length = data[begin - 1]
        # The match may include bytes after the name.
        if length <= end - begin:
            name = data[begin : begin + length]
            if _GOB_TYPE.fullmatch(bytes([length]) + name):
                return name.decode("ascii", "replace"), begin + length
    return None


def _gob_strings(data: bytes, position: int) -> list[str]:
    """Return the strings in a struct's first two fields, up to a field of another type."""
    texts: list[str] = []
    try:
        _, position = _gob_number(data, position)  # the type's number
        _, position = _gob_number(data, position)  # the value's length
        for _ in range(2):
            step, position = _gob_number(data, position)
            if step != 1:
                break
            length, position = _gob_number(data, position)
            text = data[position : position + length]
            if len(text) < length:
                break
            texts.append(text.decode())
            position += length
    except (IndexError, UnicodeDecodeError):
        pass  # the strings read so far are valid
    return texts


def _gob_number(data: bytes, position: int) -> tuple[int, int]:
    """Return an unsigned integer and the position after it."""
    first = data[position]
    if first < 0x80:
        return first, position + 1
    size = 256 - first
    if size > 8:
        raise IndexError("not a gob integer")
    return int.from_bytes(data[position + 1 : position + 1 + size], "big"), position + 1 + size
