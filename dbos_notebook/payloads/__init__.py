"""Stored payloads into values, without running anything that they hold.

A payload is the text that DBOS keeps of an input, an output, an error, an event, a message: a
base64 pickle or a JSON document. docs/security.md says what is promised, and how it was attacked.
"""

from __future__ import annotations

import binascii
import math
from typing import Any

from dbos_notebook.payloads import documents
from dbos_notebook.payloads.bounds import ALWAYS_CHARACTERS, MAX_DEPTH, PickleError, Work, excess
from dbos_notebook.payloads.errors import RecordedError, as_error
from dbos_notebook.payloads.opcodes import run
from dbos_notebook.payloads.values import Opaque, Reference, Undecoded
from dbos_notebook.printable import printable

__all__ = ["Opaque", "RecordedError", "Reference", "Undecoded", "decode"]

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
        ``"py_pickle"``, ``"portable_json"``, ``"js_superjson"``, ``"java_jackson"``; missing: the
        SDK's default, told apart by how it begins.
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
            value = _from_pickle(text)
        elif kind in ("json", "portable_json", "js_superjson", "java_jackson"):
            value = _from_json(text, kind)
        else:
            return Undecoded(f"it was written by the serializer {printable(kind)!r}", text)
        return (as_error(value) or documents.portable_error(value)) if error else value
    except PickleError as problem:
        return Undecoded(printable(problem), text)
    except MemoryError:
        return Undecoded("it needs more memory than there is", text)
    except _BROKEN as problem:
        if serialization is None and kind == "json":
            # A pickle of protocol 0 or 1, which only a very old program writes.
            return decode(text, "py_pickle", error=error)
        return Undecoded(printable(f"it is broken: {problem}"), text)


def _from_pickle(text: str) -> Any:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise PickleError("it is no base64") from None
    machine = run(data)
    value = machine.stack[-1]
    # Without sharing a value is no bigger than its record.
    # … and its texts no longer, nor copied often by the reprs of what they are in.
    used_again = machine.shared or (
        machine.repeated > ALWAYS_CHARACTERS
        and machine.repeated > ALWAYS_CHARACTERS + 2 * min(len(data), 1 << 22)
    )
    deep = machine.containers > (MAX_DEPTH if len(data) < 1 << 20 else 32)
    if used_again or deep:
        _refuse_excess(value, machine.instructions, len(data))
    return value


def _from_json(text: str, kind: str) -> Any:
    value = documents.parse(text)
    if kind == "js_superjson" or (
        isinstance(value, dict) and value.get("__dbos_serializer") == "superjson"
    ):
        value = documents.superjson(value, Work(len(text)))
    if text.count("[") + text.count("{") > (MAX_DEPTH if len(text) < 1 << 20 else 32):
        _refuse_excess(value, len(text), len(text))
    return value


def _refuse_excess(value: Any, recorded: int, characters: int) -> None:
    if reason := excess(value, recorded, characters):
        raise PickleError(reason)
