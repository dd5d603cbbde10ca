"""The JSON that DBOS's SDKs write: portable, SuperJSON, Java's Jackson, Go's base64 and gob."""

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

from dbos_notebook.payloads import reconstruct
from dbos_notebook.payloads.limits import MAX_DEPTH, PickleError, Work
from dbos_notebook.payloads.reconstruct import hashed
from dbos_notebook.payloads.recorded_errors import RecordedError
from dbos_notebook.payloads.values import Opaque
from dbos_notebook.text import printable

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
        made: set[Any] = reconstruct.hashed(work, set, members)
    except (TypeError, ValueError):  # JavaScript's may hold objects
        return Opaque("Set", (members,))
    # … and tells 1 from true.
    return made if len(made) == len(members) else Opaque("Set", (members,))


def _map(pairs: list[Any], work: Work) -> Any:
    made: dict[Any, Any] = {}
    try:
        for key, item in pairs:
            reconstruct.set_items(work, made, [key, item])
    except (TypeError, ValueError):
        return Opaque("Map", (pairs,))
    return made if len(made) == len(pairs) else Opaque("Map", (pairs,))


GO_NIL = "__DBOS_NIL"
GO_ERROR = "error"
"""The type of a Go error that was stored as its text alone: Go's interface, for want of a class."""

# java.util.ImmutableCollections$ListN, [Ljava.lang.Object;, [B
_CLASS = re.compile(r"\[*(?:[BCDFIJSZ]|L?(?:[A-Za-z_$][\w$]*\.)+[A-Za-z_$][\w$]*;?)")


def java(value: Any, work: Work) -> Any:
    """Take the type names of Jackson's default typing out of a parsed document.

    Examples
    --------
    >>> java(["[Ljava.lang.Object;", [7, ["java.math.BigDecimal", 9.5]]], Work(60))
    [7, Decimal('9.5')]
    >>> java({"@class": "com.shop.Order", "id": 17}, Work(60))
    Order(id=17)
    """
    if isinstance(value, dict):
        kind = value.get("@class")
        named = {name: java(part, work) for name, part in value.items() if name != "@class"}
        if type(kind) is not str or (_of_java(kind) and kind.endswith(_MAPS)):
            return named
        if kind.endswith(".WireThrowable") and type(named.get("type")) is str:
            return _throwable(named)
        return Opaque(printable(kind), state=named)
    if not isinstance(value, list):
        return value
    if len(value) == 2 and type(value[0]) is str and _CLASS.fullmatch(value[0]):
        return _java_value(value[0], value[1], work)
    return [java(part, work) for part in value]


_MAPS = ("Map", "$MapN", "$Map1", "Properties", "Hashtable")


def _of_java(kind: str) -> bool:
    return kind.startswith(("java.", "[", "kotlin.", "scala."))


def _java_value(kind: str, value: Any, work: Work) -> Any:
    if isinstance(value, list):
        parts = [java(part, work) for part in value]
        if kind.startswith("[") or kind.rpartition(".")[2].find("List") >= 0:
            return parts
        if _of_java(kind):
            return _java_set(parts, work) if "Set" in kind else parts
        return Opaque(printable(kind), (parts,))
    if isinstance(value, dict):
        return java({"@class": kind, **value}, work)
    maker = _JAVA.get(kind)
    if maker is not None:
        try:
            return maker(value)
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            pass  # another version writes it otherwise: it is shown as it is written
    return Opaque(printable(kind), (value,))


def _java_set(members: list[Any], work: Work) -> Any:
    try:
        return hashed(work, set, members)
    except (TypeError, ValueError):
        return Opaque("java.util.Set", (members,))


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> decimal.Decimal:
    return decimal.Decimal(value if isinstance(value, int) else _short(str(value)))


def _integer(value: Any) -> int:
    return int(_short(value)) if isinstance(value, str) else int(value)


def _short(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise ValueError("a number is too long")
    return text


def _instant(value: Any) -> Any:
    if isinstance(value, str):
        return dt.datetime.fromisoformat(_short(value))
    raise TypeError("it is no time as text")


_JAVA: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("java.lang.Long", "java.lang.Short", "java.lang.Byte", "java.lang.Integer"), _same
    ),
    **dict.fromkeys(
        ("java.lang.Float", "java.lang.Double", "java.lang.String", "java.lang.Boolean"), _same
    ),
    "java.lang.Character": _same,
    "java.math.BigDecimal": _number,
    "java.math.BigInteger": _integer,
    "java.util.UUID": uuid.UUID,
    "java.util.Date": _instant,
    "java.time.Instant": _instant,
    "java.time.LocalDate": lambda text: dt.date.fromisoformat(_short(text)),
    "java.time.LocalDateTime": _instant,
    "java.time.LocalTime": lambda text: dt.time.fromisoformat(_short(text)),
    "java.time.OffsetDateTime": _instant,
    "[B": lambda text: base64.b64decode(text, validate=True),
}


def _throwable(named: dict[str, Any]) -> RecordedError:
    """Make the error of a WireThrowable: its Java serialization is not looked into."""
    message = named["message"]
    shown = {name: part for name, part in named.items() if name in _THROWABLE and part}
    return RecordedError(
        printable(named["type"]),
        message="" if message is None else str(message),
        state=shown,
    )


_THROWABLE = ("causeType", "stackPreview", "suppressedCount", "node", "extra")


def looks_java(value: Any) -> bool:
    """Return whether a document of no known format is one that Java wrote."""
    if isinstance(value, dict):
        return "@class" in value
    return (
        isinstance(value, list)
        and len(value) == 2
        and type(value[0]) is str
        and isinstance(value[1], list | dict)
        and _of_java(value[0])
        and _CLASS.fullmatch(value[0]) is not None
    )


def go_json(text: str) -> str:
    """Return the JSON of Go's own format, which is base64 of it; raises ValueError otherwise.

    Examples
    --------
    >>> go_json("eyJPcmRlcklEIjogMTd9")
    '{"OrderID": 17}'
    """
    return _base64(text).decode("utf-8")


def go_error(text: str) -> RecordedError:
    """Return the error of a Go workflow: its text, or what a gob says of itself.

    Examples
    --------
    >>> go_error("no address on file").message
    'no address on file'
    """
    try:
        data = _base64(text)
    except ValueError:
        data = b""
    named = _gob_name(data)
    if named is None:
        return RecordedError(GO_ERROR, message=text)
    kind, place = named
    words = _gob_texts(data, place)
    # Their first fields: DBOS's errors have the message first, portable ones a name before it.
    message = dict(zip(_GOB_MESSAGE, (words[:1], words[1:2]), strict=True)).get(kind, [])
    shown = message[0] if message else f"<undecoded: {gob(data)}>"
    return RecordedError(printable(kind.lstrip("*")), message=shown)


_GOB_MESSAGE = ("*dbos.DBOSError", "*dbos.PortableWorkflowError")


def gob(data: bytes | str) -> str:
    """Say what a gob is."""
    if isinstance(data, str):
        data = _base64(data)
    return f"it is gob, Go's own binary format, of {len(data):,} bytes"


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ValueError("it is no base64") from None


# The name under which Go registered the type of an interface's value, after its length.
_GOB_TYPE = re.compile(rb"[\x03-\x7f](\*?(?:[\w.-]{1,60}/){0,8}[\w-]{1,60}\.[A-Za-z_]\w{0,60})")


def _gob_name(data: bytes) -> tuple[str, int] | None:
    for found in _GOB_TYPE.finditer(data[: 1 << 16]):
        begin, end = found.span(1)
        length = data[begin - 1]
        # The pattern may take in what follows the name.
        if length <= end - begin:
            name = data[begin : begin + length]
            if _GOB_TYPE.fullmatch(bytes([length]) + name):
                return name.decode("ascii", "replace"), begin + length
    return None


def _gob_texts(data: bytes, place: int) -> list[str]:
    """Return the texts of a struct's first two fields; none where they are no texts."""
    texts: list[str] = []
    try:
        _, place = _gob_number(data, place)  # the type's number
        _, place = _gob_number(data, place)  # the value's length
        for _ in range(2):
            step, place = _gob_number(data, place)
            if step != 1:
                break
            length, place = _gob_number(data, place)
            text = data[place : place + length]
            if len(text) < length:
                break
            texts.append(text.decode())
            place += length
    except (IndexError, UnicodeDecodeError):
        pass  # what was read so far is right
    return texts


def _gob_number(data: bytes, place: int) -> tuple[int, int]:
    """Return an unsigned number and the place behind it."""
    first = data[place]
    if first < 0x80:
        return first, place + 1
    size = 256 - first
    if size > 8:
        raise IndexError("it is no number of gob's")
    return int.from_bytes(data[place + 1 : place + 1 + size], "big"), place + 1 + size


def parse_java(text: str, work: Work) -> Any:
    """Parse what Java wrote; raises ValueError where it is no JSON."""
    # As decimals, so that a BigDecimal loses nothing; the others become floats again.
    check(text)
    return java(_floats(json.loads(text, parse_float=_decimal)), work)


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
