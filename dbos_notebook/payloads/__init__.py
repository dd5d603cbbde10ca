"""Decode stored payloads into values without running any code that they contain.

A payload is the string in which DBOS stores an input, output, error, event or message: a base64
pickle or a JSON document. docs/security.md describes the guarantees and the attacks in the tests.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import re
from typing import Any

from dbos_notebook.payloads import json_dialects, reconstruct
from dbos_notebook.payloads.limits import (
    ALWAYS_ALLOWED_CHARACTERS,
    MAX_DEPTH,
    Budget,
    DecodeError,
    exceeded_limit,
)
from dbos_notebook.payloads.pickles import run
from dbos_notebook.payloads.recorded_errors import RecordedError, to_recorded_error
from dbos_notebook.payloads.values import Opaque, Reference, Undecoded
from dbos_notebook.text import sanitize

__all__ = ["FORMATS", "Opaque", "RecordedError", "Reference", "Undecoded", "decode"]

FORMATS = frozenset(
    {"py_pickle", "portable_json", "js_superjson", "java_jackson", "DBOS_JSON", "DBOS_GOB"}
)
"""The built-in formats of the SDKs; of ``DBOS_GOB`` only the size is shown."""

MAX_CHARACTERS = 32 << 20
"""Longer payloads are not decoded."""

# What decoding an invalid payload can raise.
_DECODING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def decode(text: Any, serialization: str | None = None, *, error: bool = False) -> Any:
    """Decode a stored payload. Never runs, imports or resolves anything that it names.

    Parameters
    ----------
    text
        The string as DBOS stores it. A missing one (``None``, NaN) returns ``None``.
    serialization
        ``"py_pickle"``, ``"portable_json"``, ``"js_superjson"``, ``"java_jackson"``,
        ``"DBOS_JSON"``, ``"DBOS_GOB"``. If missing, the format is detected from the string.
    error
        Whether the payload is a recorded error, to be returned as a :class:`RecordedError`.

    Returns
    -------
    object
        Plain values (numbers, strings, bytes, containers, times, Decimal, UUID, paths) as
        themselves, objects of other classes as :class:`Opaque`, errors as :class:`RecordedError`,
        and payloads that cannot or should not be decoded as :class:`Undecoded`, with the reason.

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
        return Undecoded(f"expected a string, not {type(text).__name__}", str(text))
    if len(text) > MAX_CHARACTERS:
        return Undecoded(f"too long: {len(text):,} characters", text)
    kind = serialization if isinstance(serialization, str) else None
    if kind is None:
        # All pickles since protocol 2 start with this base64, and JSON never does.
        kind = "py_pickle" if text.startswith("gA") else "json"
    try:
        if kind == "py_pickle":
            return _from_pickle(text, error=error)
        if kind in ("json", "portable_json", "js_superjson", "java_jackson"):
            value = _from_json(text, kind)
            return json_dialects.portable_error(value) if error else value
        if kind in ("DBOS_JSON", "DBOS_GOB"):
            return _from_go(text, kind, error=error)
        return Undecoded(f"written by the serializer {sanitize(kind)!r}", text)
    except DecodeError as problem:
        return Undecoded(sanitize(problem), text)
    except MemoryError:
        return Undecoded("out of memory", text)
    except _DECODING_ERRORS as problem:
        if serialization is None and kind == "json":
            return _from_unknown(text, error=error)
        return Undecoded(sanitize(f"invalid: {problem}"), text)


def _from_unknown(text: str, *, error: bool) -> Any:
    """Decode a payload without a recorded format that is neither JSON nor a recent pickle."""
    with contextlib.suppress(DecodeError, *_DECODING_ERRORS):
        return _from_go(text, "DBOS_JSON", error=False)
    # Very old programs write pickles of protocol 0 or 1.
    value = decode(text, "py_pickle", error=error)
    # Go stores an error that has only a message as that message.
    return json_dialects.go_error(text) if error and type(value) is Undecoded else value


def _from_go(text: str, kind: str, *, error: bool) -> Any:
    if error:
        return json_dialects.go_error(text)
    if text == json_dialects.GO_NIL:
        return None
    if kind == "DBOS_GOB":
        raise DecodeError(json_dialects.describe_gob(text))
    document = json_dialects.go_json(text)
    value = json_dialects.parse_json(document)
    _check_depth(value, document)
    return value


def _from_pickle(text: str, *, error: bool) -> Any:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise DecodeError("not valid base64") from None
    if error and (simple := _match_simple_error(data)) is not None:
        return simple
    machine = run(data)
    value = machine.stack[-1]
    recorded = to_recorded_error(value) if error else None
    # Without shared parts, a value is not larger than its pickle, and its strings are neither
    # longer nor repeated in the reprs of their containers.
    shared = machine.shared or (
        machine.repeated_characters > ALWAYS_ALLOWED_CHARACTERS
        and machine.repeated_characters > ALWAYS_ALLOWED_CHARACTERS + 2 * min(len(data), 1 << 22)
    )
    deep = machine.containers > _max_unchecked_containers(len(data))
    if (shared or deep) and (reason := exceeded_limit(value, machine.instructions, len(data))):
        if recorded is not None:
            # The class is known nevertheless, and errors are grouped by it.
            return RecordedError(recorded.type, message=f"<undecoded: {reason}>")
        raise DecodeError(reason)
    return value if recorded is None else recorded


def _max_unchecked_containers(size: int) -> int:
    """Return how many containers a payload may have before its depth and size are checked."""
    return MAX_DEPTH if size < 1 << 20 else 32


# Most errors are a class and one string. This pattern matches the complete pickle as Python writes
# it.
_SIMPLE_ERROR = re.compile(
    rb"\x80[\x04\x05]\x95.{8}\x8c(.)([\w.]+)\x94\x8c(.)([A-Z]\w*)\x94\x93\x94"
    rb"(?:\x8c(.)|X(.{4}))(.*)\x94\x85\x94R\x94\.",
    re.DOTALL,
)


def _match_simple_error(data: bytes) -> RecordedError | None:
    """Return an error of a class and one string without running its pickle, if it is one."""
    match = _SIMPLE_ERROR.fullmatch(data)
    if match is None:
        return None
    module_size, module, name_size, name, short_size, long_size, text = match.groups()
    if (
        module_size[0] != len(module)
        or name_size[0] != len(name)
        or int.from_bytes(short_size or long_size, "little") != len(text)
    ):
        return None
    dotted = reconstruct.dotted(module.decode(), name.decode())
    if dotted in reconstruct.CONSTRUCTED_TYPES:
        return None
    try:
        return RecordedError(dotted, (text.decode("utf-8", "surrogatepass"),))
    except UnicodeDecodeError:
        return None  # running the pickle reports the error


def _from_json(text: str, kind: str) -> Any:
    if kind == "java_jackson":
        value = json_dialects.parse_java(text, Budget(len(text)))
    else:
        value = json_dialects.parse_json(text)
        if kind == "js_superjson" or (
            isinstance(value, dict) and value.get("__dbos_serializer") == "superjson"
        ):
            value = json_dialects.decode_superjson(value, Budget(len(text)))
        elif kind == "json" and json_dialects.is_java(value):
            # Java records no serialization for steps.
            value = json_dialects.parse_java(text, Budget(len(text)))
    _check_depth(value, text)
    return value


def _check_depth(value: Any, text: str) -> None:
    deep = text.count("[") + text.count("{") > _max_unchecked_containers(len(text))
    if deep and (reason := exceeded_limit(value, len(text), len(text))):
        raise DecodeError(reason)
