"""A serializer that unpickles only harmless contexts of schedules.

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

if TYPE_CHECKING:
    from dbos import Serializer


# What lets a pickle name a class or a function; without one of these it can call nothing.
_NAMING = {
    "GLOBAL",
    "STACK_GLOBAL",
    "INST",
    "EXT1",
    "EXT2",
    "EXT4",
    "PERSID",
    "BINPERSID",
}
# Memory is made up to the place that is named, whatever is kept there.
_PLACING = {"PUT", "BINPUT", "LONG_BINPUT"}
PICKLED = (
    "its context names classes, and DBOS would unpickle it here, which runs code; trigger it from "
    "the application, or force=True where you trust who wrote it"
)
_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)


def harmless(context: str | None) -> bool:
    """Tell whether unpickling a schedule's context can run nothing.

    Without an instruction that names a class or a function, a pickle can only make plain values.

    Examples
    --------
    >>> import pickle
    >>> harmless(base64.b64encode(pickle.dumps({"retries": 3})).decode())
    True
    >>> harmless(base64.b64encode(pickle.dumps(print)).decode())
    False
    """
    if context is None:
        return True
    try:
        data = base64.b64decode(context, validate=True)
        return not any(
            code.name in _NAMING or (code.name in _PLACING and (place or 0) > len(data))
            for code, place, _ in pickletools.genops(data)
        )
    except (ValueError, TypeError):
        # No pickle: DBOS will say that it cannot be read.
        return False


@contextmanager
def trusted(force: bool) -> Iterator[None]:  # noqa: FBT001 - the operations' own option
    """While a call is made: whether a context that names classes may be unpickled."""
    token = _TRUSTED.set(force)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def serializer() -> Serializer:
    """Return DBOS's own serializer, which looks at each text once more before it unpickles it.

    An operation looked before, but somebody may have written another context since.
    """
    from dbos._serialization import DefaultSerializer

    class Guarded(DefaultSerializer):
        def deserialize(self, serialized_data: str) -> Any:
            if not _TRUSTED.get() and not harmless(serialized_data):
                raise RefusedError(PICKLED)
            return super().deserialize(serialized_data)

    return Guarded()
