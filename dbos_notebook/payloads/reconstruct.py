"""Rebuild plain values of Python's own types from the calls that a pickle recorded."""

from __future__ import annotations

import builtins
import collections
import datetime as dt
import decimal
import fractions
import functools
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dbos_notebook.payloads import arrays
from dbos_notebook.payloads.limits import ADDRESSES, Work, key, units
from dbos_notebook.payloads.recorded_errors import RecordedError
from dbos_notebook.payloads.values import Factory, Opaque, Reference

MAX_NAME = 200
MAX_TEXT_ARGUMENT = 10_000
MAX_FRACTION_TEXT = 2_001
MAX_ZONE_NAME = 50
MAX_ADDRESS = 100
_RENAMED = {"__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg"}
_EXCEPTIONS = frozenset(
    f"builtins.{name}"
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)


class _DeclinedError(Exception):
    """A maker was given what it does not take."""


def dotted(module: str, name: str) -> str:
    """Return the name of a global, fit to be shown."""
    # Cut first: a name of megabytes may be used many times.
    if len(module) + len(name) > MAX_NAME:
        module, name = module[:MAX_NAME], name[:MAX_NAME]
    full = f"{_RENAMED.get(module, module)}.{name}"
    if not full.isprintable():
        full = full.encode("unicode_escape").decode("ascii")
    return full if len(full) <= MAX_NAME else full[: MAX_NAME - 1] + "…"


def make(
    work: Work, named: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Return what a payload's call of ``named`` would give: a plain value, or a record of it."""
    if type(named) is not Reference:
        work.spend(len(args))
        return Opaque("call", (named, *args), kwargs)
    if named.type in _EXCEPTIONS:
        return RecordedError(named.type, args)
    maker = _MAKERS.get(named.type)
    if maker is not None and not kwargs:
        # What is made of something big copies it, or at least reads it.
        if len(args) > 100:
            work.spend(len(args))
        for arg in args:
            work.spend(units(arg))
        try:
            return maker(work, *args) if maker in _WORKING else maker(*args)
        # What is wrong with the arguments is for their reader to see, in the record.
        except (
            _DeclinedError,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            struct.error,
        ):
            return Opaque(named.type, args)
    return Opaque(named.type, args, kwargs)


def _exact(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise _DeclinedError
    return value


def _collection(kind: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    def maker(work: Work, items: Any = ()) -> Any:
        return hashed(work, kind, _exact(items, list, tuple, set, frozenset))

    return maker


_set = _collection(set)
_frozenset = _collection(frozenset)


def _list(items: Any = ()) -> Any:
    return list(_exact(items, list, tuple))


def _dict(work: Work, items: Any = ()) -> Any:
    made: dict[Any, Any] = {}
    if type(items) is dict:
        return dict(items)
    for name, value in _exact(items, list, tuple):
        set_items(work, made, [name, value])
    return made


def _ordered(work: Work, items: Any = ()) -> Any:
    return collections.OrderedDict(_dict(work, items))


def _counter(items: Any = ()) -> Any:
    # Its repr compares the counts: they must be such that can be, and cheaply.
    kinds = {type(count) for count in _exact(items, dict).values()}
    decimals = kinds == {decimal.Decimal} and all(count.is_finite() for count in items.values())
    if not decimals and not kinds <= {int, float, bool}:
        raise _DeclinedError
    return collections.Counter(items)


def _defaultdict(work: Work, factory: Any = None, items: Any = ()) -> Any:
    if isinstance(factory, Opaque):
        called = "" if type(factory) is Reference else "(…)"
        factory = Factory(f"{factory.type}{called}")
    elif factory is not None:
        raise _DeclinedError
    return collections.defaultdict(factory, _dict(work, items))


def _deque(items: Any = (), size: Any = None) -> Any:
    return collections.deque(_exact(items, tuple, list), _exact(size, int, type(None)))


def _bytearray(data: Any = b"", encoding: Any = None) -> Any:
    return bytearray(_latin(data, encoding) if type(data) is str else _exact(data, bytes))


def _latin(text: Any, encoding: Any = "latin1") -> Any:
    # How protocols below 3 write bytes.
    if encoding not in ("latin1", "latin-1"):
        raise _DeclinedError
    return _exact(text, str).encode("latin-1")


def _bytes(*args: Any) -> Any:
    if args:
        raise _DeclinedError
    return b""


def _complex(real: Any, imaginary: Any) -> Any:
    return complex(_exact(real, int, float), _exact(imaginary, int, float))


def _decimal(text: Any) -> Any:
    if len(_exact(text, str)) > MAX_TEXT_ARGUMENT:
        raise _DeclinedError
    made = decimal.Decimal(text)
    if made.is_snan():  # comparing it raises
        raise _DeclinedError
    return made


def _fraction(*args: Any) -> Any:
    # One text before Python 3.12, a numerator and a denominator since.
    if len(args) == 1:
        if len(_exact(args[0], str)) > MAX_FRACTION_TEXT:
            raise _DeclinedError
        numerator, denominator = args[0].split("/")
        args = (int(numerator), int(denominator))
    return fractions.Fraction(*(_exact(arg, int) for arg in args))


def _zone(zone: Any) -> Any:
    if zone is not None and not isinstance(zone, dt.timezone | zoneinfo.ZoneInfo):
        raise _DeclinedError
    return zone


def _state_of_time(state: Any, length: int) -> bytes:
    # Protocols below 3 wrote it as a text.
    data = state.encode("latin-1") if type(state) is str else _exact(state, bytes)
    if len(data) != length:
        raise _DeclinedError
    return bytes(data)


# The fields are given one by one: of a packed state Python takes the year 0 and the hour 99, and
# fails later.


def _datetime(state: Any, zone: Any = None) -> Any:
    data = _state_of_time(state, 10)
    month, fold = _month(data[2])
    when = (data[0] << 8 | data[1], month, data[3], data[4], data[5], data[6])
    return dt.datetime(*when, _microsecond(data[7:]), _zone(zone), fold=fold)


def _date(state: Any) -> Any:
    data = _state_of_time(state, 4)
    return dt.date(data[0] << 8 | data[1], data[2], data[3])


def _time(state: Any, zone: Any = None) -> Any:
    data = _state_of_time(state, 6)
    hour, fold = _month(data[0])
    return dt.time(hour, data[1], data[2], _microsecond(data[3:]), _zone(zone), fold=fold)


def _month(byte: int) -> tuple[int, int]:
    """Return a month (of a time: the hour), and the fold, which is its first bit."""
    return byte & 0x7F, byte >> 7


def _microsecond(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _timedelta(*parts: Any) -> Any:
    return dt.timedelta(*(_exact(part, int) for part in parts))


def _timezone(offset: Any, *name: Any) -> Any:
    if name and len(_exact(name[0], str)) > MAX_ZONE_NAME:
        raise _DeclinedError
    return dt.timezone(_exact(offset, dt.timedelta), *name)


@functools.cache
def _known_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _zoneinfo(key: Any, from_cache: Any = True) -> Any:  # noqa: FBT002 - as pickled
    # Asked for a name it does not know, zoneinfo goes looking for a package of that name.
    if _exact(key, str) not in _known_zones():
        raise _DeclinedError
    return _known_zone(key)


@functools.cache
def _known_zone(key: str) -> zoneinfo.ZoneInfo:
    # Kept, since Python keeps eight, and reads the file again for a ninth.
    return zoneinfo.ZoneInfo(key)


def _path(kind: type[pathlib.PurePath]) -> Callable[..., Any]:
    def maker(*parts: Any) -> Any:
        if sum(len(_exact(part, str)) for part in parts) > MAX_TEXT_ARGUMENT:
            raise _DeclinedError
        return kind(*parts)

    return maker


def _address(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def maker(value: Any) -> Any:
        if type(value) is str and len(value) > MAX_ADDRESS:
            raise _DeclinedError
        return kind(_exact(value, int, str))

    return maker


def _pattern(pattern: Any, flags: Any = 0) -> Any:
    return Opaque("re.Pattern", (pattern, flags))


def _instance(work: Work, named: Any, *args: Any) -> Any:
    # copyreg.__newobj__(class, *args)
    return make(work, _exact(named, Reference), args)


def _named_within(named: Any, name: Any) -> Any:
    # getattr(class, name): how a method or a nested class is named. No attribute is looked up.
    return Reference(dotted(_exact(named, Reference).type, _exact(name, str)))


def _reconstructed(work: Work, named: Any, base: Any, state: Any) -> Any:
    # copyreg._reconstructor(class, base, state): how protocols 0 and 1 make an instance.
    if _exact(base, Reference).type == "builtins.object":
        return make(work, _exact(named, Reference), ())
    return Opaque(_exact(named, Reference).type, (state,))


_MAKERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _named_within,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.list": _list,
    "builtins.dict": _dict,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _latin,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _deque,
    "copyreg.__newobj__": _instance,
    "copyreg._reconstructor": _reconstructed,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "datetime.time": _time,
    "datetime.timedelta": _timedelta,
    "datetime.timezone": _timezone,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fraction,
    "re._compile": _pattern,
    "zoneinfo.ZoneInfo._unpickle": _zoneinfo,
    **{f"ipaddress.{kind.__name__}": _address(kind) for kind in ADDRESSES},
    **{
        f"{module}.{name}": _path(kind)
        for module in ("pathlib", "pathlib._local")
        for name, kind in (
            ("PosixPath", pathlib.PurePosixPath),
            ("PurePosixPath", pathlib.PurePosixPath),
            ("WindowsPath", pathlib.PureWindowsPath),
            ("PureWindowsPath", pathlib.PureWindowsPath),
        )
    },
    **arrays.MAKERS,
}
MADE = frozenset(_MAKERS)
"""The names of which a plain value is made."""
# Those that make dicts and sets, or call others, are given the Work that is left.
_WORKING = frozenset({_set, _frozenset, _dict, _ordered, _defaultdict, _instance, _reconstructed})


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
