"""Reconstruct values of Python's built-in types from the calls that a pickle recorded."""

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
from dbos_notebook.payloads.limits import ADDRESS_TYPES, Budget, checked_key, copy_cost
from dbos_notebook.payloads.recorded_errors import RecordedError
from dbos_notebook.payloads.values import Factory, Opaque, Reference

# Maximum lengths of string arguments, in characters.
MAX_NAME = 200
MAX_DECIMAL_OR_PATH = 10_000
MAX_FRACTION = 2_001
MAX_ZONE_NAME = 50
MAX_ADDRESS = 100
_RENAMED = {"__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg"}
_EXCEPTIONS = frozenset(
    f"builtins.{name}"
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)


class _UnsupportedError(Exception):
    """A constructor does not support the recorded arguments."""


def dotted(module: str, name: str) -> str:
    """Return the dotted name of a global, sanitize and at most ``MAX_NAME`` long."""
    # Truncate first: a name of megabytes may be used many times.
    if len(module) + len(name) > MAX_NAME:
        module, name = module[:MAX_NAME], name[:MAX_NAME]
    full = f"{_RENAMED.get(module, module)}.{name}"
    if not full.isprintable():
        full = full.encode("unicode_escape").decode("ascii")
    return full if len(full) <= MAX_NAME else full[: MAX_NAME - 1] + "…"


def construct(
    budget: Budget, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Return the result of a recorded call: a plain value, or an inert record of the call."""
    if type(function) is not Reference:
        budget.spend(len(args))
        return Opaque("call", (function, *args), kwargs)
    if function.type in _EXCEPTIONS:
        return RecordedError(function.type, args)
    constructor = _CONSTRUCTORS.get(function.type)
    if constructor is not None and not kwargs:
        # A constructor copies its arguments, or at least reads them.
        if len(args) > 100:
            budget.spend(len(args))
        for arg in args:
            budget.spend(copy_cost(arg))
        try:
            return constructor(budget, *args) if constructor in _USES_BUDGET else constructor(*args)
        # The record shows the invalid arguments.
        except (
            _UnsupportedError,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            struct.error,
        ):
            return Opaque(function.type, args)
    return Opaque(function.type, args, kwargs)


def _require_type(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise _UnsupportedError
    return value


def _collection(kind: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    def constructor(budget: Budget, items: Any = ()) -> Any:
        return make_set(budget, kind, _require_type(items, list, tuple, set, frozenset))

    return constructor


_set = _collection(set)
_frozenset = _collection(frozenset)


def _list(items: Any = ()) -> Any:
    return list(_require_type(items, list, tuple))


def _dict(budget: Budget, items: Any = ()) -> Any:
    mapping: dict[Any, Any] = {}
    if type(items) is dict:
        return dict(items)
    for name, value in _require_type(items, list, tuple):
        set_items(budget, mapping, [name, value])
    return mapping


def _ordered_dict(budget: Budget, items: Any = ()) -> Any:
    return collections.OrderedDict(_dict(budget, items))


def _counter(items: Any = ()) -> Any:
    # The repr of a Counter compares the counts, so they must be comparable and cheap to compare.
    kinds = {type(count) for count in _require_type(items, dict).values()}
    decimals = kinds == {decimal.Decimal} and all(count.is_finite() for count in items.values())
    if not decimals and not kinds <= {int, float, bool}:
        raise _UnsupportedError
    return collections.Counter(items)


def _defaultdict(budget: Budget, factory: Any = None, items: Any = ()) -> Any:
    if isinstance(factory, Opaque):
        called = "" if type(factory) is Reference else "(…)"
        factory = Factory(f"{factory.type}{called}")
    elif factory is not None:
        raise _UnsupportedError
    return collections.defaultdict(factory, _dict(budget, items))


def _deque(items: Any = (), size: Any = None) -> Any:
    return collections.deque(
        _require_type(items, tuple, list), _require_type(size, int, type(None))
    )


def _bytearray(data: Any = b"", encoding: Any = None) -> Any:
    return bytearray(
        _encode_latin1(data, encoding) if type(data) is str else _require_type(data, bytes)
    )


def _encode_latin1(text: Any, encoding: Any = "latin1") -> Any:
    # Protocols below 3 write bytes as encoded strings.
    if encoding not in ("latin1", "latin-1"):
        raise _UnsupportedError
    return _require_type(text, str).encode("latin-1")


def _bytes(*args: Any) -> Any:
    if args:
        raise _UnsupportedError
    return b""


def _complex(real: Any, imaginary: Any) -> Any:
    return complex(_require_type(real, int, float), _require_type(imaginary, int, float))


def _decimal(text: Any) -> Any:
    if len(_require_type(text, str)) > MAX_DECIMAL_OR_PATH:
        raise _UnsupportedError
    value = decimal.Decimal(text)
    if value.is_snan():  # comparing a signaling NaN raises
        raise _UnsupportedError
    return value


def _fraction(*args: Any) -> Any:
    # Python before 3.12 pickles one string, later versions a numerator and a denominator.
    if len(args) == 1:
        if len(_require_type(args[0], str)) > MAX_FRACTION:
            raise _UnsupportedError
        numerator, denominator = args[0].split("/")
        args = (int(numerator), int(denominator))
    return fractions.Fraction(*(_require_type(arg, int) for arg in args))


def _zone(zone: Any) -> Any:
    if zone is not None and not isinstance(zone, dt.timezone | zoneinfo.ZoneInfo):
        raise _UnsupportedError
    return zone


def _time_state(state: Any, length: int) -> bytes:
    # Protocols below 3 write the state as a string.
    data = state.encode("latin-1") if type(state) is str else _require_type(state, bytes)
    if len(data) != length:
        raise _UnsupportedError
    return bytes(data)


# The fields are passed one by one: given a packed state, Python accepts the year 0 and the hour 99
# and fails later.


def _datetime(state: Any, zone: Any = None) -> Any:
    data = _time_state(state, 10)
    month, fold = _split_fold(data[2])
    fields = (data[0] << 8 | data[1], month, data[3], data[4], data[5], data[6])
    return dt.datetime(*fields, _microsecond(data[7:]), _zone(zone), fold=fold)


def _date(state: Any) -> Any:
    data = _time_state(state, 4)
    return dt.date(data[0] << 8 | data[1], data[2], data[3])


def _time(state: Any, zone: Any = None) -> Any:
    data = _time_state(state, 6)
    hour, fold = _split_fold(data[0])
    return dt.time(hour, data[1], data[2], _microsecond(data[3:]), _zone(zone), fold=fold)


def _split_fold(byte: int) -> tuple[int, int]:
    """Return the month or hour of a byte, and the fold, which is its highest bit."""
    return byte & 0x7F, byte >> 7


def _microsecond(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _timedelta(*parts: Any) -> Any:
    return dt.timedelta(*(_require_type(part, int) for part in parts))


def _timezone(offset: Any, *name: Any) -> Any:
    if name and len(_require_type(name[0], str)) > MAX_ZONE_NAME:
        raise _UnsupportedError
    return dt.timezone(_require_type(offset, dt.timedelta), *name)


@functools.cache
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _zoneinfo(key: Any, from_cache: Any = True) -> Any:  # noqa: FBT002 - as pickled
    # For an unknown name, zoneinfo would search for a package of that name.
    if _require_type(key, str) not in _zone_names():
        raise _UnsupportedError
    return _cached_zone(key)


@functools.cache
def _cached_zone(key: str) -> zoneinfo.ZoneInfo:
    # Python caches only eight zones and would read the file again for each further one.
    return zoneinfo.ZoneInfo(key)


def _path(kind: type[pathlib.PurePath]) -> Callable[..., Any]:
    def constructor(*parts: Any) -> Any:
        if sum(len(_require_type(part, str)) for part in parts) > MAX_DECIMAL_OR_PATH:
            raise _UnsupportedError
        return kind(*parts)

    return constructor


def _address(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def constructor(value: Any) -> Any:
        if type(value) is str and len(value) > MAX_ADDRESS:
            raise _UnsupportedError
        return kind(_require_type(value, int, str))

    return constructor


def _pattern(pattern: Any, flags: Any = 0) -> Any:
    return Opaque("re.Pattern", (pattern, flags))


def _newobj(budget: Budget, cls: Any, *args: Any) -> Any:
    # copyreg.__newobj__(class, *args)
    return construct(budget, _require_type(cls, Reference), args)


def _getattr(owner: Any, name: Any) -> Any:
    # getattr(class, name) refers to a method or a nested class. Only the name is recorded.
    return Reference(dotted(_require_type(owner, Reference).type, _require_type(name, str)))


def _reconstructor(budget: Budget, cls: Any, base: Any, state: Any) -> Any:
    # copyreg._reconstructor(class, base, state) creates an instance in protocols 0 and 1.
    if _require_type(base, Reference).type == "builtins.object":
        return construct(budget, _require_type(cls, Reference), ())
    return Opaque(_require_type(cls, Reference).type, (state,))


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _getattr,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.list": _list,
    "builtins.dict": _dict,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _encode_latin1,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _deque,
    "copyreg.__newobj__": _newobj,
    "copyreg._reconstructor": _reconstructor,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "datetime.time": _time,
    "datetime.timedelta": _timedelta,
    "datetime.timezone": _timezone,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fraction,
    "re._compile": _pattern,
    "zoneinfo.ZoneInfo._unpickle": _zoneinfo,
    **{f"ipaddress.{kind.__name__}": _address(kind) for kind in ADDRESS_TYPES},
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
    **arrays.CONSTRUCTORS,
}
CONSTRUCTED_TYPES = frozenset(_CONSTRUCTORS)
"""The callables whose results are reconstructed."""
# Constructors of dicts and sets, and those that call other constructors, need the budget.
_USES_BUDGET = frozenset(
    {_set, _frozenset, _dict, _ordered_dict, _defaultdict, _newobj, _reconstructor}
)


def set_state(budget: Budget, value: Any, state: Any) -> Any:
    """Set the state of a record, and return it or the plain value that it represents."""
    if isinstance(value, RecordedError):
        value.set_state(state)
    elif type(value) is Opaque:
        if value.type == "uuid.UUID" and (number := _uuid_number(state)) is not None:
            return uuid.UUID(int=number)
        value.state = _library_state(budget, value.type, state) or _attributes(budget, state)
    elif not isinstance(value, dict):  # attributes of an OrderedDict are ignored
        raise ValueError(f"a {type(value).__name__} has no state")
    return value


def _uuid_number(state: Any) -> int | None:
    number = state.get("int") if type(state) is dict else None
    return number if type(number) is int and 0 <= number < 1 << 128 else None


def _library_state(budget: Budget, kind: str, state: Any) -> dict[str, Any] | None:
    if kind.startswith("polars.") and type(state) is bytes:
        return {"bytes": len(state)}  # polars' binary format, or Arrow's
    if not kind.startswith(("numpy.", "pandas.")):
        return None
    try:
        if kind == "numpy.ndarray":
            return arrays.array_state(state)
        budget.spend(arrays.TABLE_STATE_COST)
        return arrays.table_state(kind, state)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return None  # the format of another version: show the recorded state


def _attributes(budget: Budget, state: Any) -> Any:
    if (
        type(state) is tuple
        and len(state) == 2
        and all(type(s) in (dict, type(None)) for s in state)
    ):
        budget.spend(len(state[0] or ()) + len(state[1] or ()))
        # A class with __slots__ has the state (__dict__, slots).
        return {**(state[0] or {}), **(state[1] or {})}
    if type(state) is dict and type(state.get("__dict__")) is dict:
        # A pydantic model: fields, extra fields (extra="allow") and private attributes.
        fields = state["__dict__"]
        for more in ("__pydantic_extra__", "__pydantic_private__"):
            part = state.get(more)
            if type(part) is dict and part:
                budget.spend(len(fields) + len(part))
                fields = {**fields, **part}
        return fields
    return state


def extend(value: Any, items: list[Any]) -> None:
    """Append items to a list or deque, or to the record of a subclass."""
    if type(value) in (list, collections.deque):
        value.extend(items)
    elif type(value) is Opaque:
        _add_record_items(value, items)
    else:
        raise ValueError(f"a {type(value).__name__} does not support APPENDS")


def set_items(budget: Budget, value: Any, flat: list[Any]) -> None:
    """Set ``[key, value, key, value, …]`` in a dict, or in the record of a subclass."""
    if len(flat) % 2:
        raise ValueError("a key has no value")
    if isinstance(value, dict):
        if type(value) is collections.Counter:  # its repr compares the counts, see _counter
            raise ValueError("a Counter does not support SETITEMS")
        for index in range(0, len(flat), 2):
            value[checked_key(budget, flat[index])] = flat[index + 1]
            if index & 0xFF == 0xFE:
                budget.check_time()
    elif type(value) is Opaque:
        _add_record_items(value, list(zip(flat[::2], flat[1::2], strict=True)))
    else:
        raise ValueError(f"a {type(value).__name__} does not support SETITEMS")


def add(budget: Budget, value: Any, items: Iterable[Any]) -> None:
    """Add items to a set, or to the record of a subclass."""
    if type(value) is set:
        for index, item in enumerate(items):
            value.add(checked_key(budget, item))
            if index & 0xFF == 0xFE:
                budget.check_time()
    elif type(value) is Opaque:
        _add_record_items(value, list(items))
    else:
        raise ValueError(f"a {type(value).__name__} does not support ADDITEMS")


def make_set(budget: Budget, kind: Callable[[Iterable[Any]], Any], items: Iterable[Any]) -> Any:
    """Return a set or frozenset, after checking that hashing its members is not slow."""
    members: set[Any] = set()
    add(budget, members, items)
    return kind(members)


def _add_record_items(value: Opaque, items: list[Any]) -> None:
    if value.items is None:
        value.items = []
    value.items.extend(items)
