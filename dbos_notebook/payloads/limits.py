"""Limits on the size, depth and time of decoding a payload, and on the cost of hashing keys."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from collections.abc import Iterable, Iterator
from time import thread_time
from typing import Any, cast

import numpy as np

from dbos_notebook.payloads.recorded_errors import RecordedError
from dbos_notebook.payloads.values import Opaque, Reference


class DecodeError(Exception):
    """A payload that cannot, or should not, be decoded. The message is the reason."""


MAX_DEPTH = 200
MAX_ITEMS = 2_000_000
ALWAYS_ALLOWED_ITEMS = 10_000
MAX_GROWTH = 10
"""How many items a value may expand to per item of its record."""

MAX_EXTRA_CHARACTERS = 8_000_000
ALWAYS_ALLOWED_CHARACTERS = 4_000_000
"""Characters in repeated strings that are allowed for a payload of any size."""

ALWAYS_ALLOWED_WORK = 100_000
MAX_WORK = 3_000_000
"""Units of work beyond the record's own size; a unit is one item, or 16 characters or bytes, that
is copied or compared."""

SECONDS_PER_BYTE = 2e-6
MAX_SECONDS = 2.0


class Budget:
    """The work that decoding one payload may still do, beyond reading each of its bytes once."""

    __slots__ = ("deadline", "keys_by_hash", "left", "recorded")

    def __init__(self, recorded: int) -> None:
        self.recorded = recorded
        self.left = ALWAYS_ALLOWED_WORK + (4 * recorded if recorded < MAX_WORK >> 2 else MAX_WORK)
        self.keys_by_hash: dict[int, list[Any]] | None = None  # unequal keys, see checked_key
        self.deadline = 0.0

    def spend(self, work: int) -> None:
        """Count work on parts that may be used many times; raise DecodeError past the limit.

        Examples
        --------
        >>> budget = Budget(10)
        >>> budget.spend(99_000)
        >>> budget.spend(99_000)
        Traceback (most recent call last):
        dbos_notebook.payloads.limits.DecodeError: its parts are copied too often
        """
        self.left -= work
        if self.left < 0:
            raise DecodeError("its parts are copied too often")

    def check_time(self) -> None:
        """Raise DecodeError if decoding takes far longer than it should.

        The limits above are the rule. The CPU time of this thread is a safety net: its limit is
        many times what any payload of this size needs.
        """
        if not self.deadline:
            allowed = min(SECONDS_PER_BYTE * self.recorded, MAX_SECONDS)
            self.deadline = thread_time() + 1 + allowed
        elif thread_time() > self.deadline:
            raise DecodeError("decoding takes too long")


CONTAINERS = frozenset({list, tuple, dict, set, frozenset, collections.deque})


def copy_cost(value: Any) -> int:
    """Return the cost of copying or reading a value once, in the units of ``Budget``."""
    kind: type = type(value)
    if kind in (str, bytes, bytearray):
        return 1 + (len(value) >> 4)
    if kind is int:
        return 1 + int(value.bit_length() >> 6)
    return 1 + len(value) if kind in CONTAINERS else 1


def exceeded_limit(value: Any, recorded: int, characters: int = 0) -> str | None:
    """Describe the limit that a value exceeds, if any.

    ``recorded`` is the number of items in the value's record, ``characters`` its length.

    Examples
    --------
    >>> laughs = ["ha"]
    >>> for _ in range(30):
    ...     laughs = [laughs, laughs]
    >>> exceeded_limit(laughs, 60)
    'it expands to over 10,000 items'
    >>> exceeded_limit(["ha" * 100_000] * 30, 60)
    'it expands to over 4,000,000 characters'
    >>> exceeded_limit([1, [2]], 3) is None
    True
    """
    max_items = min(max(ALWAYS_ALLOWED_ITEMS, MAX_GROWTH * recorded), MAX_ITEMS)
    extra = 2 * characters + min(8 * characters, MAX_EXTRA_CHARACTERS)
    max_characters = ALWAYS_ALLOWED_CHARACTERS + extra
    items_left, characters_left = max_items, max_characters
    # A container within itself is not entered again, because a repr shows "..." there.
    entered: set[int] = set()
    path: list[tuple[Any, Iterator[Any]]] = [((value,), iter((value,)))]
    while path:
        container, parts = path[-1]
        for part in parts:
            items_left -= 1
            kind = type(part)
            if kind in _SMALL:
                continue
            if kind not in _ENTERED:
                # The repr of every enclosing container copies the repr of a nested value.
                characters_left -= _repr_length(part) * (1 + (len(path) >> 5))
            elif id(part) not in entered:
                if kind is Opaque:
                    characters_left -= len(part.type)
                elif kind is collections.defaultdict and part.default_factory is not None:
                    characters_left -= len(part.default_factory.type)
                if len(path) > MAX_DEPTH:
                    return f"it is nested over {MAX_DEPTH} levels deep"
                entered.add(id(part))
                path.append((part, iter(_parts(part))))
                break
            if items_left < 0 or characters_left < 0:
                break
        else:
            path.pop()
            entered.discard(id(container))
        if items_left < 0:
            return f"it expands to over {max_items:,} items"
        if characters_left < 0:
            return f"it expands to over {max_characters:,} characters"
    return None


_SMALL_DECIMAL = decimal.Decimal(1).__sizeof__()
_SMALL = frozenset({type(None), bool, float, complex})
_ENTERED: frozenset[type] = CONTAINERS | {
    *(collections.OrderedDict, collections.Counter, collections.defaultdict, Opaque, RecordedError)
}


def _repr_length(value: Any) -> int:
    """Return the approximate length of the repr of a leaf value, or its cost if that is higher.

    A repr has up to four characters per character or byte, and up to ten beyond Latin-1.
    """
    kind = type(value)
    if kind is str:
        return len(value) if value.isascii() else 3 * len(value)
    if kind in (bytes, bytearray):
        return len(value)
    if kind is int:
        return 1 + int(value.bit_length() >> 3)
    if kind is decimal.Decimal:
        return 4 + int(value.__sizeof__()) - _SMALL_DECIMAL
    if kind is fractions.Fraction:
        return 4 + int(value.numerator.bit_length() + value.denominator.bit_length() >> 3)
    if kind is Reference:
        return len(value.type)
    if isinstance(value, pathlib.PurePath):
        return 4 + len(str(value))
    return 20  # times, UUIDs


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (part for pair in value.items() for part in pair)
    if type(value) is Opaque:
        return (value.args, value.kwargs, value.state, value.items)
    if type(value) is RecordedError:
        parts = (value.args, value.kwargs, value.state, value.data, value.code)
        return (*parts, value.recorded_message)
    return cast(Iterable[Any], value)


MAX_KEY_CHARACTERS = 100_000
MAX_LEAVES = 100
"""Plain values in one key, or the equivalent cost of a comparison."""
MAX_HASH_COLLISIONS = 32
"""Unequal keys with the same hash in one payload."""

_HASH_MODULUS = (1 << 61) - 1
_TIMES = (dt.date, dt.time, dt.timedelta, dt.datetime, dt.timezone, zoneinfo.ZoneInfo)
ADDRESS_TYPES: tuple[type, ...] = (
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
)
_SCALARS = frozenset(
    {type(None), bool, float, complex, uuid.UUID, *_TIMES, *ADDRESS_TYPES}
    | {np.datetime64, np.timedelta64}
)


def checked_key(budget: Budget, value: Any) -> Any:
    """Return the key; raise ValueError if hashing and comparing it may be slow."""
    kind = type(value)
    if kind is str or kind is bytes:
        # Python randomizes the hashes of strings and bytes.
        if len(value) > MAX_KEY_CHARACTERS:
            raise ValueError(f"a key has {len(value):,} characters")
        return value
    # These integers are their own hash, so no two hashes are equal. Integers that were chosen to
    # collide in the table of a dict are stopped by check_time.
    if (kind is int and -_HASH_MODULUS < value < _HASH_MODULUS) or kind is bool or value is None:
        return value
    leaves = MAX_LEAVES - _remaining_leaves(value, MAX_LEAVES)
    if budget.keys_by_hash is None:
        budget.keys_by_hash = {}
    same_hash = budget.keys_by_hash.setdefault(hash(value), [])
    budget.spend(leaves * (1 + len(same_hash)))
    if not any(value is key or value == key for key in same_hash):
        if len(same_hash) == MAX_HASH_COLLISIONS:
            raise ValueError(f"over {MAX_HASH_COLLISIONS} keys have the same hash")
        same_hash.append(value)
    return value


def _remaining_leaves(value: Any, leaves: int) -> int:
    """Return how many leaves are left after a value; raise ValueError if it is not a valid key."""
    kind = type(value)
    leaves -= _comparison_cost(value)
    if leaves < 0:
        raise ValueError("a key is too large")
    parts: Any = ()
    if kind in (tuple, frozenset):
        parts = value
    elif kind is Opaque and not value.items and not value.kwargs:
        state = value.state if value.state is not None else {}
        if type(state) is not dict or len(state) > leaves or len(value.args) > leaves:
            raise ValueError(f"a key is a {value.type} that has more than plain values")
        parts = (*value.args, *state, *state.values())
    elif kind not in _SCALARS and not isinstance(value, _SIZED) and kind is not Reference:
        raise ValueError(f"a key is a {kind.__name__}")
    for part in parts:
        leaves = _remaining_leaves(part, leaves)
    return leaves


_SIZED = (str, bytes, int, decimal.Decimal, fractions.Fraction, pathlib.PurePath)


def _comparison_cost(value: Any) -> int:
    kind = type(value)
    if kind in (str, bytes):
        return 1 + (len(value) >> 10)
    if kind is int:
        return 1 + int(value.bit_length() >> 6)
    if kind is decimal.Decimal:
        return 1 + int(value.__sizeof__() >> 7)
    if kind is fractions.Fraction:
        return 1 + int(value.numerator.bit_length() + value.denominator.bit_length() >> 6)
    return 1
