"""What may be a key of a dict or a member of a set: what is hashed and compared at a bounded cost.

A payload could choose its keys so that their hashes are alike, and each of them be compared with
all the others; or have big keys compared over and over.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from typing import Any

import numpy as np

from dbos_notebook.payloads.bounds import Work
from dbos_notebook.payloads.values import Opaque, Reference

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
