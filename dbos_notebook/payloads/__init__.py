"""Stored payloads into values, without running anything that they hold.

A payload is the text that DBOS keeps of an input, an output, an error, an event, a message: a
base64 pickle or a JSON document. docs/security.md says what is promised, and how it was attacked.
"""

from __future__ import annotations

import binascii
import math
from typing import Any

from dbos_notebook.payloads import documents
from dbos_notebook.payloads.bounds import MAX_DEPTH, excess
from dbos_notebook.payloads.machine import PickleError
from dbos_notebook.payloads.opcodes import run
from dbos_notebook.payloads.values import Opaque, RecordedError, Reference, Undecoded

__all__ = ["Opaque", "RecordedError", "Reference", "Undecoded", "decode"]

MAX_CHARACTERS = 32 << 20
"""Longer payloads stay text."""


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
            return Undecoded(f"it was written by the serializer {kind!r}", text)
    except PickleError as problem:
        return Undecoded(str(problem), text)
    except (ValueError, TypeError, RecursionError) as problem:
        if serialization is None and kind == "json":
            # A pickle of protocol 0 or 1, which only a very old program writes.
            return decode(text, "py_pickle", error=error)
        return Undecoded(f"it is broken: {problem}", text)
    return _as_error(value) if error else value


def _from_pickle(text: str) -> Any:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise PickleError("it is no base64") from None
    machine = run(data)
    value = machine.stack[-1]
    # Without sharing a value is no bigger than its record.
    if machine.shared or machine.containers > MAX_DEPTH:
        _refuse_excess(value, machine.instructions)
    return value


def _from_json(text: str, kind: str) -> Any:
    value = documents.parse(text)
    if kind == "js_superjson" or (
        isinstance(value, dict) and value.get("__dbos_serializer") == "superjson"
    ):
        value = documents.superjson(value)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _refuse_excess(value, len(text))
    return value


def _refuse_excess(value: Any, recorded: int) -> None:
    if reason := excess(value, recorded):
        raise PickleError(reason)


def _as_error(value: Any) -> Any:
    if type(value) is Opaque:
        return RecordedError(value.type, value.args, state=value.state)
    return documents.portable_error(value)
