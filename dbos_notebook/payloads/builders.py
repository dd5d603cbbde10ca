"""State and items into records and containers, at a bounded cost whatever they are."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from dbos_notebook.payloads import arrays
from dbos_notebook.payloads.bounds import Work
from dbos_notebook.payloads.errors import RecordedError
from dbos_notebook.payloads.keys import key
from dbos_notebook.payloads.values import Opaque


def with_state(work: Work, made: Any, state: Any) -> Any:
    """Give a record its state; a plain value may come of it."""
    if isinstance(made, RecordedError):
        made.take_state(state)
    elif type(made) is Opaque:
        if made.type == "uuid.UUID" and (number := _uuid_number(state)) is not None:
            return uuid.UUID(int=number)
        made.state = _known_state(work, made.type, state) or _attributes(work, state)
    elif not isinstance(made, dict):  # an OrderedDict may have attributes; they are not shown
        raise ValueError(f"a {type(made).__name__} takes no state")
    return made


def _uuid_number(state: Any) -> int | None:
    number = state.get("int") if type(state) is dict else None
    return number if type(number) is int and 0 <= number < 1 << 128 else None


def _known_state(work: Work, kind: str, state: Any) -> dict[str, Any] | None:
    if kind.startswith("polars.") and type(state) is bytes:
        return {"bytes": len(state)}  # its own binary form, or Arrow's
    if not kind.startswith(("numpy.", "pandas.")):
        return None
    try:
        if kind == "numpy.ndarray":
            return arrays.array_state(state)
        work.spend(arrays.LOOKS)
        return arrays.table_state(kind, state)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        # Another pandas writes it otherwise; what is recorded is shown as it is.
        return None


def _attributes(work: Work, state: Any) -> Any:
    if (
        type(state) is tuple
        and len(state) == 2
        and all(type(s) in (dict, type(None)) for s in state)
    ):
        work.spend(len(state[0] or ()) + len(state[1] or ()))
        # Of a class with __slots__: what its __dict__ held, and its slots.
        return {**(state[0] or {}), **(state[1] or {})}
    if type(state) is dict and type(state.get("__dict__")) is dict:
        # A pydantic model: beside its fields, which of them were set, those of extra="allow", and
        # private attributes.
        fields = state["__dict__"]
        for more in ("__pydantic_extra__", "__pydantic_private__"):
            part = state.get(more)
            if type(part) is dict and part:
                work.spend(len(fields) + len(part))
                fields = {**fields, **part}
        return fields
    return state


def extend(made: Any, items: list[Any]) -> None:
    """Append items to a list, or to the record of a subclass of it."""
    if type(made) in (list, collections.deque):
        made.extend(items)
    elif type(made) is Opaque:
        _more(made, items)
    else:
        raise ValueError(f"a {type(made).__name__} takes no items")


def set_items(work: Work, made: Any, flat: list[Any]) -> None:
    """Set ``[key, value, key, value, …]`` in a dict, or in the record of a subclass of it."""
    if len(flat) % 2:
        raise ValueError("a key has no value")
    if isinstance(made, dict):
        if type(made) is collections.Counter:  # its repr compares what it holds
            raise ValueError("a Counter takes no keys")
        for place in range(0, len(flat), 2):
            made[key(work, flat[place])] = flat[place + 1]
            if place & 0xFF == 0xFE:
                work.look_at_the_clock()
    elif type(made) is Opaque:
        _more(made, list(zip(flat[::2], flat[1::2], strict=True)))
    else:
        raise ValueError(f"a {type(made).__name__} takes no keys")


def add(work: Work, made: Any, items: Iterable[Any]) -> None:
    """Add items to a set, or to the record of a subclass of it."""
    if type(made) is set:
        for place, item in enumerate(items):
            made.add(key(work, item))
            if place & 0xFF == 0xFE:
                work.look_at_the_clock()
    elif type(made) is Opaque:
        _more(made, list(items))
    else:
        raise ValueError(f"a {type(made).__name__} takes no members")


def hashed(work: Work, kind: Callable[[Iterable[Any]], Any], items: Iterable[Any]) -> Any:
    """Make a set or frozenset whose members cannot make it slow."""
    members: set[Any] = set()
    add(work, members, items)
    return kind(members)


def _more(made: Opaque, items: list[Any]) -> None:
    if made.items is None:
        made.items = []
    made.items.extend(items)
