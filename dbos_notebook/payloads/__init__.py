"""Stored payloads into values, without running anything that they hold.

A payload is the text that DBOS keeps of an input, an output, an error, an event, a message: a
base64 pickle or a JSON document. docs/security.md says what is promised, and how it was attacked.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import re
from typing import Any

from dbos_notebook.payloads import json_dialects, reconstruct
from dbos_notebook.payloads.limits import ALWAYS_CHARACTERS, MAX_DEPTH, PickleError, Work, excess
from dbos_notebook.payloads.pickles import run
from dbos_notebook.payloads.recorded_errors import RecordedError, as_error
from dbos_notebook.payloads.values import Opaque, Reference, Undecoded
from dbos_notebook.text import printable

__all__ = ["FORMATS", "Opaque", "RecordedError", "Reference", "Undecoded", "decode"]

FORMATS = frozenset(
    {"py_pickle", "portable_json", "js_superjson", "java_jackson", "DBOS_JSON", "DBOS_GOB"}
)
"""The formats that SDKs write by themselves; of gob only the size is told."""

MAX_CHARACTERS = 32 << 20
"""Longer payloads stay text."""

# What Python raises of values that it does not like.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def decode(text: Any, serialization: str | None = None, *, error: bool = False) -> Any:
    """Decode a stored payload. Never runs, imports or looks up anything that it names.

    Parameters
    ----------
    text
        The text as DBOS stores it; a missing one (``None``, NaN) gives ``None``.
    serialization
        ``"py_pickle"``, ``"portable_json"``, ``"js_superjson"``, ``"java_jackson"``,
        ``"DBOS_JSON"``, ``"DBOS_GOB"``; missing: the SDK's default, known by how it looks.
    error
        It is a recorded error, which then comes as a :class:`RecordedError`.

    Returns
    -------
    object
        Plain values (numbers, texts, bytes, containers, times, Decimal, UUID, paths) come back as
        themselves, objects of other classes as :class:`Opaque`, errors as :class:`RecordedError`,
        and what cannot or should not be decoded as :class:`Undecoded`, with the reason.

    Examples
    --------
    >>> import base64, decimal, pickle
    >>> decode(base64.b64encode(pickle.dumps({"price": decimal.Decimal("9.50")})).decode())
    {'price': Decimal('9.50')}
    >>> decode('{"name": "ValueError", "message": "no card"}', "portable_json", error=True)
    ValueError('no card')
    """
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return None
    if not isinstance(text, str):
        return Undecoded(f"a {type(text).__name__} is no stored text", str(text))
    if len(text) > MAX_CHARACTERS:
        return Undecoded(f"it has {len(text):,} characters", text)
    kind = serialization if isinstance(serialization, str) else None
    if kind is None:
        # Every pickle since protocol 2 begins so; JSON does not.
        kind = "py_pickle" if text.startswith("gA") else "json"
    try:
        if kind == "py_pickle":
            return _from_pickle(text, error=error)
        if kind in ("json", "portable_json", "js_superjson", "java_jackson"):
            value = _from_json(text, kind)
            return json_dialects.portable_error(value) if error else value
        if kind in ("DBOS_JSON", "DBOS_GOB"):
            return _from_go(text, kind, error=error)
        return Undecoded(f"it was written by the serializer {printable(kind)!r}", text)
    except PickleError as problem:
        return Undecoded(printable(problem), text)
    except MemoryError:
        return Undecoded("it needs more memory than there is", text)
    except _BROKEN as problem:
        if serialization is None and kind == "json":
            return _untold(text, error=error)
        return Undecoded(printable(f"it is broken: {problem}"), text)


def _untold(text: str, *, error: bool) -> Any:
    """Decode what is neither JSON nor a pickle of today, and whose format was not recorded."""
    with contextlib.suppress(PickleError, *_BROKEN):
        return _from_go(text, "DBOS_JSON", error=False)
    # A pickle of protocol 0 or 1, which only a very old program writes.
    value = decode(text, "py_pickle", error=error)
    # Go writes an error that is only a text as that text.
    return json_dialects.go_error(text) if error and type(value) is Undecoded else value


def _from_go(text: str, kind: str, *, error: bool) -> Any:
    if error:
        return json_dialects.go_error(text)
    if text == json_dialects.GO_NIL:
        return None
    if kind == "DBOS_GOB":
        raise PickleError(json_dialects.gob(text))
    document = json_dialects.go_json(text)
    value = json_dialects.parse(document)
    _refuse_deep(value, document)
    return value


def _from_pickle(text: str, *, error: bool) -> Any:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise PickleError("it is no base64") from None
    if error and (quick := _plain_error(data)) is not None:
        return quick
    machine = run(data)
    value = machine.stack[-1]
    found = as_error(value) if error else None
    # Without sharing a value is no bigger than its record.
    # … and its texts no longer, nor copied often by the reprs of what they are in.
    used_again = machine.shared or (
        machine.repeated > ALWAYS_CHARACTERS
        and machine.repeated > ALWAYS_CHARACTERS + 2 * min(len(data), 1 << 22)
    )
    deep = machine.containers > (MAX_DEPTH if len(data) < 1 << 20 else 32)
    if (used_again or deep) and (reason := excess(value, machine.instructions, len(data))):
        if found is not None:
            # What it is called is known all the same, and groups it.
            return RecordedError(found.type, message=f"<undecoded: {reason}>")
        raise PickleError(reason)
    return value if found is None else found


# Most errors: a class and one text. The pattern is all of the pickle, as Python writes it.
_PLAIN_ERROR = re.compile(
    rb"\x80[\x04\x05]\x95.{8}\x8c(.)([\w.]+)\x94\x8c(.)([A-Z]\w*)\x94\x93\x94"
    rb"(?:\x8c(.)|X(.{4}))(.*)\x94\x85\x94R\x94\.",
    re.DOTALL,
)


def _plain_error(data: bytes) -> RecordedError | None:
    """Return an error of a class and one text without running its pickle; ``None`` for others."""
    found = _PLAIN_ERROR.fullmatch(data)
    if found is None:
        return None
    size, module, length, name, short, long, text = found.groups()
    if (
        size[0] != len(module)
        or length[0] != len(name)
        or int.from_bytes(short or long, "little") != len(text)
    ):
        return None
    dotted = reconstruct.dotted(module.decode(), name.decode())
    if dotted in reconstruct.MADE:
        return None
    try:
        return RecordedError(dotted, (text.decode("utf-8", "surrogatepass"),))
    except UnicodeDecodeError:
        return None  # what is wrong with it is said where it is run


def _from_json(text: str, kind: str) -> Any:
    if kind == "java_jackson":
        value = json_dialects.parse_java(text, Work(len(text)))
    else:
        value = json_dialects.parse(text)
        if kind == "js_superjson" or (
            isinstance(value, dict) and value.get("__dbos_serializer") == "superjson"
        ):
            value = json_dialects.superjson(value, Work(len(text)))
        elif kind == "json" and json_dialects.looks_java(value):
            # Java's steps have no serialization.
            value = json_dialects.parse_java(text, Work(len(text)))
    if text.count("[") + text.count("{") > 32:
        _refuse_deep(value, text)
    return value


def _refuse_deep(value: Any, text: str) -> None:
    deep = text.count("[") + text.count("{") > (MAX_DEPTH if len(text) < 1 << 20 else 32)
    if deep and (reason := excess(value, len(text), len(text))):
        raise PickleError(reason)
