"""A serializer that refuses to unpickle schedule contexts that could run code.

DBOS unpickles a schedule's context in this process to trigger or backfill the schedule.
"""

from __future__ import annotations

import base64
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dbos_notebook.errors import RefusedError
from dbos_notebook.imports import WholeImports

if TYPE_CHECKING:
    from dbos import Serializer

UNSAFE_CONTEXT = (
    "its context names classes, and DBOS would unpickle it here, which runs code; trigger it from "
    "the application, or pass force=True if you know who wrote it"
)
# The opcodes that let a pickle name a class or a function. Without one it can call nothing.
_NAMING_OPCODES = {
    "GLOBAL",
    "STACK_GLOBAL",
    "INST",
    "EXT1",
    "EXT2",
    "EXT4",
    "PERSID",
    "BINPERSID",
}
# The unpickler allocates memory up to the index that these opcodes name.
_MEMO_OPCODES = {"PUT", "BINPUT", "LONG_BINPUT"}
_ALLOWED: ContextVar[bool] = ContextVar("unsafe_contexts_allowed", default=False)


def is_safe_context(context: str | None) -> bool:
    """Return whether unpickling a schedule's context cannot run code.

    A pickle without an opcode that names a class or function can only create plain values.

    Examples
    --------
    >>> import pickle
    >>> is_safe_context(base64.b64encode(pickle.dumps({"retries": 3})).decode())
    True
    >>> is_safe_context(base64.b64encode(pickle.dumps(print)).decode())
    False
    """
    if context is None:
        return True
    try:
        data = base64.b64decode(context, validate=True)
        return not any(
            opcode.name in _NAMING_OPCODES
            or (opcode.name in _MEMO_OPCODES and (argument or 0) > len(data))
            for opcode, argument, _ in pickletools.genops(data)
        )
    except (ValueError, TypeError):
        # Not a pickle: DBOS raises the error.
        return False


@contextmanager
def unsafe_contexts(*, allowed: bool) -> Iterator[None]:
    """Allow or refuse contexts that name classes during a call of DBOS."""
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def safe_serializer() -> Serializer:
    """Return DBOS's own serializer with a check before each unpickling.

    The operation has checked the context already, but it may have been replaced since.
    """
    with WholeImports():
        from dbos._serialization import DefaultSerializer

    class SafeSerializer(DefaultSerializer):
        def deserialize(self, serialized_data: str) -> Any:
            if not _ALLOWED.get() and not is_safe_context(serialized_data):
                raise RefusedError(UNSAFE_CONTEXT)
            return super().deserialize(serialized_data)

    return SafeSerializer()
