"""Limits on the size, depth, count and time of decoding, and on the cost of hashing keys."""

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


class PickleError(Exception):
    """A payload that cannot, or should not, be decoded; the text says why."""


MAX_DEPTH = 200
MAX_WRITTEN = 2_000_000
ALWAYS_WRITTEN = 10_000
MAX_GROWTH = 10
"""A value may be written out as so many items for each of its record's."""

MAX_CHARACTERS_MORE = 8_000_000
ALWAYS_CHARACTERS = 4_000_000
"""Characters of texts that are used more than once; up to that many they are not counted."""

ALWAYS_WORK = 100_000
MAX_WORK = 3_000_000
"""Items, or 16 characters or bytes, that may be copied or compared beside those recorded."""

SECONDS_PER_BYTE = 2e-6
MAX_SECONDS = 2.0


class Work:
    """What decoding one payload may still cost, beyond looking at each of its bytes once."""

    __slots__ = ("alike", "deadline", "left", "recorded")

    def __init__(self, recorded: int) -> None:
        self.recorded = recorded
        self.left = ALWAYS_WORK + (4 * recorded if recorded < MAX_WORK >> 2 else MAX_WORK)
        self.alike: dict[int, list[Any]] | None = None  # unlike keys by their hash: see keys.py
        self.deadline = 0.0

    def spend(self, units: int) -> None:
        """Note work done on parts that may be used many times; raises PickleError past the bound.

        Examples
        --------
        >>> work = Work(10)
        >>> work.spend(99_000)
        >>> work.spend(99_000)
        Traceback (most recent call last):
        dbos_notebook.payloads.limits.PickleError: it has its parts copied over and over
        """
        self.left -= units
        if self.left < 0:
            raise PickleError("it has its parts copied over and over")

    def look_at_the_clock(self) -> None:
        """Raise PickleError where decoding takes far longer than it should.

        The bounds above are the rule. The clock, of this thread's own work, is the net under them:
        many times over what any payload of that size needs.
        """
        if not self.deadline:
            allowed = min(SECONDS_PER_BYTE * self.recorded, MAX_SECONDS)
            self.deadline = thread_time() + 1 + allowed
        elif thread_time() > self.deadline:
            raise PickleError("it takes too long")


def units(value: Any) -> int:
    """Return what it costs to copy or read a value once, in the units of ``Work``."""
    kind: type = type(value)
    if kind in (str, bytes, bytearray):
        return 1 + (len(value) >> 4)
    if kind is int:
        return 1 + int(value.bit_length() >> 6)
    return 1 + len(value) if kind in COPIED else 1


COPIED = frozenset({list, tuple, dict, set, frozenset, collections.deque})


def excess(value: Any, recorded: int, characters: int = 0) -> str | None:
    """Say what is too much about a value recorded in so many items and characters.

    Returns ``None`` where nothing is.

    Examples
    --------
    >>> laughs = ["ha"]
    >>> for _ in range(30):
    ...     laughs = [laughs, laughs]
    >>> excess(laughs, 60)
    'it stands for over 10,000 items'
    >>> excess(["ha" * 100_000] * 30, 60)
    'it stands for over 4,000,000 characters'
    >>> excess([1, [2]], 3) is None
    True
    """
    allowed = min(max(ALWAYS_WRITTEN, MAX_GROWTH * recorded), MAX_WRITTEN)
    readable = ALWAYS_CHARACTERS + 2 * characters + min(8 * characters, MAX_CHARACTERS_MORE)
    left, legible = allowed, readable
    # Where one is inside a container, it is not entered again: a repr shows "..." there.
    inside: set[int] = set()
    way: list[tuple[Any, Iterator[Any]]] = [((value,), iter((value,)))]
    while way:
        container, parts = way[-1]
        for part in parts:
            left -= 1
            kind = type(part)
            if kind in _SMALL:
                continue
            if kind not in _CONTAINERS:
                # What is deep inside is copied by the repr of everything that it is in.
                legible -= _written(part) * (1 + (len(way) >> 5))
            elif id(part) not in inside:
                if kind is Opaque:
                    legible -= len(part.type)
                elif kind is collections.defaultdict and part.default_factory is not None:
                    legible -= len(part.default_factory.type)
                if len(way) > MAX_DEPTH:
                    return f"it is nested over {MAX_DEPTH} deep"
                inside.add(id(part))
                way.append((part, iter(_parts(part))))
                break
            if left < 0 or legible < 0:
                break
        else:
            way.pop()
            inside.discard(id(container))
        if left < 0:
            return f"it stands for over {allowed:,} items"
        if legible < 0:
            return f"it stands for over {readable:,} characters"
    return None


_SMALL_DECIMAL = decimal.Decimal(1).__sizeof__()
_SMALL = frozenset({type(None), bool, float, complex})
_CONTAINERS: frozenset[type] = COPIED | {
    *(collections.OrderedDict, collections.Counter, collections.defaultdict, Opaque, RecordedError)
}


def _written(value: Any) -> int:
    """Return about how many characters a value without parts is written in, or what takes as long.

    A repr has up to four for a character or byte, and up to ten for one beyond Latin.
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
"""Plain values, or as much as takes as long to compare, that one key may hold."""
MAX_ALIKE = 32
"""Unlike keys of one hash, in a whole payload."""

_HASH_MODULUS = (1 << 61) - 1
_TIMES = (dt.date, dt.time, dt.timedelta, dt.datetime, dt.timezone, zoneinfo.ZoneInfo)
ADDRESSES: tuple[type, ...] = (
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
)
"""What Python's ipaddress makes."""
_SCALARS = frozenset(
    {type(None), bool, float, complex, uuid.UUID, *_TIMES, *ADDRESSES}
    | {np.datetime64, np.timedelta64}
)


def key(work: Work, value: Any) -> Any:
    """Return a key; raises ValueError where hashing and comparing it may be slow."""
    kind = type(value)
    if kind is str or kind is bytes:
        # Their hashes are salted.
        if len(value) > MAX_KEY_CHARACTERS:
            raise ValueError(f"a key has {len(value):,} characters")
        return value
    # Hashes that are their own value are alike for none; the clock stops those that are chosen
    # to meet in a dict all the same.
    if (kind is int and -_HASH_MODULUS < value < _HASH_MODULUS) or kind is bool or value is None:
        return value
    leaves = MAX_LEAVES - _left(value, MAX_LEAVES)
    if work.alike is None:
        work.alike = {}
    alike = work.alike.setdefault(hash(value), [])
    work.spend(leaves * (1 + len(alike)))
    if not any(value is other or value == other for other in alike):
        if len(alike) == MAX_ALIKE:
            raise ValueError(f"over {MAX_ALIKE} of its keys have one hash")
        alike.append(value)
    return value


def _left(value: Any, leaves: int) -> int:
    """Return how many leaves are left; raises ValueError where there are none, or no plain ones."""
    kind = type(value)
    leaves -= _weight(value)
    if leaves < 0:
        raise ValueError("a key is too big")
    parts: Any = ()
    if kind in (tuple, frozenset):
        parts = value
    elif kind is Opaque and not value.items and not value.kwargs:
        state = value.state if value.state is not None else {}
        if type(state) is not dict or len(state) > leaves or len(value.args) > leaves:
            raise ValueError(f"a key is a {value.type} that holds more than plain values")
        parts = (*value.args, *state, *state.values())
    elif kind not in _SCALARS and not _weighed(value):
        raise ValueError(f"a key is a {kind.__name__}")
    for part in parts:
        leaves = _left(part, leaves)
    return leaves


def _weighed(value: Any) -> bool:
    return isinstance(
        value, str | bytes | int | decimal.Decimal | fractions.Fraction | pathlib.PurePath
    ) or (type(value) is Reference)


def _weight(value: Any) -> int:
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
