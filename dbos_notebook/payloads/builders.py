"""State and items into records and containers, at a bounded cost whatever they are."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import pathlib
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from dbos_notebook.payloads import arrays
from dbos_notebook.payloads.values import Opaque, RecordedError, Reference

MAX_ODD_KEYS = 1_000
"""Keys whose hashes a payload could choose to be alike; more would make a dict slow."""
_HASH_MODULUS = (1 << 61) - 1
_TIMES = (dt.date, dt.time, dt.timedelta, dt.datetime)
_NUMBERS_ALIKE = (bool, int, float, complex, decimal.Decimal, fractions.Fraction)
_SCALARS = frozenset({type(None), str, bytes, uuid.UUID, *_NUMBERS_ALIKE, *_TIMES})


def with_state(made: Any, state: Any) -> Any:
    """Give a record its state; a plain value may come of it."""
    if isinstance(made, RecordedError):
        made.take_state(state)
    elif type(made) is Opaque:
        if made.type == "uuid.UUID" and (number := _uuid_number(state)) is not None:
            return uuid.UUID(int=number)
        made.state = _known_state(made.type, state) or _attributes(state)
    elif not isinstance(made, dict):  # an OrderedDict may have attributes; they are not shown
        raise ValueError(f"a {type(made).__name__} takes no state")
    return made


def _uuid_number(state: Any) -> int | None:
    number = state.get("int") if type(state) is dict else None
    return number if type(number) is int and 0 <= number < 1 << 128 else None


def _known_state(kind: str, state: Any) -> dict[str, Any] | None:
    if kind == "numpy.ndarray":
        return arrays.array_state(state)
    try:
        return arrays.table_state(kind, state)
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):
        # Another pandas writes it otherwise; what is recorded is shown as it is.
        return None


def _attributes(state: Any) -> Any:
    if (
        type(state) is tuple
        and len(state) == 2
        and all(type(s) in (dict, type(None)) for s in state)
    ):
        # Of a class with __slots__: what its __dict__ held, and its slots.
        return {**(state[0] or {}), **(state[1] or {})}
    if type(state) is dict and type(state.get("__dict__")) is dict:
        # A pydantic model: beside its fields, which of them were set.
        return state["__dict__"]
    return state


def extend(made: Any, items: list[Any]) -> None:
    """Append items to a list, or to the record of a subclass of it."""
    if type(made) in (list, collections.deque):
        made.extend(items)
    elif type(made) is Opaque:
        _more(made, items)
    else:
        raise ValueError(f"a {type(made).__name__} takes no items")


def set_items(made: Any, flat: list[Any]) -> None:
    """Set ``[key, value, key, value, …]`` in a dict, or in the record of a subclass of it."""
    if len(flat) % 2:
        raise ValueError("a key has no value")
    if isinstance(made, dict):
        for place in range(0, len(flat), 2):
            made[_key(flat[place], made)] = flat[place + 1]
    elif type(made) is Opaque:
        _more(made, list(zip(flat[::2], flat[1::2], strict=True)))
    else:
        raise ValueError(f"a {type(made).__name__} takes no keys")


def add(made: Any, items: list[Any]) -> None:
    """Add items to a set, or to the record of a subclass of it."""
    if type(made) is set:
        for item in items:
            made.add(_key(item, made))
    elif type(made) is Opaque:
        _more(made, items)
    else:
        raise ValueError(f"a {type(made).__name__} takes no members")


def hashed(kind: Callable[[Iterable[Any]], Any], items: Iterable[Any]) -> Any:
    """Make a set or frozenset whose members cannot make it slow."""
    members: set[Any] = set()
    for item in items:
        members.add(_key(item, members))
    return kind(members)


def _more(made: Opaque, items: list[Any]) -> None:
    if made.items is None:
        made.items = []
    made.items.extend(items)


def _key(key: Any, container: Any) -> Any:
    """Return a key, if hashing and comparing it is cheap whatever else the container holds."""
    kind = type(key)
    # Their hashes are salted, or their own value.
    if kind in (str, bytes, bool, type(None)):
        return key
    if kind is int and -_HASH_MODULUS < key < _HASH_MODULUS:
        return key
    if len(container) >= MAX_ODD_KEYS:
        raise ValueError(f"over {MAX_ODD_KEYS:,} keys of a {kind.__name__}")
    if not _plain(key, 3):
        raise ValueError(f"a key is a {kind.__name__} that holds more than plain values")
    return key


def _plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind in _SCALARS or isinstance(value, pathlib.PurePath):
        return True
    if depth == 0:
        return False
    if kind in (tuple, frozenset):
        return len(value) <= 100 and all(_plain(each, depth - 1) for each in value)
    if kind is Opaque:
        state = value.state if value.state is not None else {}
        if type(state) is not dict or len(state) > 100 or value.items or value.kwargs:
            return False
        return _plain(tuple(value.args), depth) and all(
            _plain(each, depth - 1) for each in state.values()
        )
    return kind is Reference
