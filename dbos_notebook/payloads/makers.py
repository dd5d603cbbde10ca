"""Records of calls into plain values, where a type is Python's own and making one is harmless.

Each maker here is ours, checks what it is given, and does bounded work. Whatever it
declines becomes an ``Opaque``.
"""

from __future__ import annotations

import builtins
import collections
import datetime as dt
import decimal
import fractions
import functools
import pathlib
import struct
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from dbos_notebook.payloads import arrays
from dbos_notebook.payloads.builders import hashed, set_items
from dbos_notebook.payloads.values import Opaque, RecordedError, Reference

MAX_NAME = 200
MAX_TEXT_ARGUMENT = 10_000
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
    full = f"{_RENAMED.get(module, module)}.{name}"
    if not full.isprintable():
        full = full.encode("unicode_escape").decode("ascii")
    return full if len(full) <= MAX_NAME else full[: MAX_NAME - 1] + "…"


def make(named: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Any:
    """Return what a payload's call of ``named`` would give: a plain value, or a record of it."""
    if type(named) is not Reference:
        return Opaque("call", (named, *args), kwargs)
    if named.type in _EXCEPTIONS:
        return RecordedError(named.type, args)
    maker = _MAKERS.get(named.type)
    if maker is not None and not kwargs:
        try:
            return maker(*args)
        # What is wrong with the arguments is for their reader to see, in the record.
        except (_DeclinedError, TypeError, ValueError, ArithmeticError, struct.error):
            return Opaque(named.type, args)
    return Opaque(named.type, args, kwargs)


def _exact(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise _DeclinedError
    return value


def _collection(kind: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    def maker(items: Any = ()) -> Any:
        return hashed(kind, _exact(items, list, tuple, set, frozenset))

    return maker


def _list(items: Any = ()) -> Any:
    return list(_exact(items, list, tuple))


def _dict(items: Any = ()) -> Any:
    made: dict[Any, Any] = {}
    if type(items) is dict:
        return dict(items)
    for key, value in _exact(items, list, tuple):
        set_items(made, [key, value])
    return made


def _ordered(items: Any = ()) -> Any:
    return collections.OrderedDict(_dict(items))


def _counter(items: Any = ()) -> Any:
    return collections.Counter(_exact(items, dict))


def _defaultdict(factory: Any = None, items: Any = ()) -> Any:
    # What made its missing values is not called here.
    return collections.defaultdict(None, _dict(items))


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
    return decimal.Decimal(text)


def _fraction(*args: Any) -> Any:
    # One text before Python 3.12, a numerator and a denominator since.
    if len(args) == 1:
        numerator, denominator = _exact(args[0], str).split("/")
        args = (_small(numerator), _small(denominator))
    return fractions.Fraction(*(_exact(arg, int) for arg in args))


def _small(text: str) -> int:
    if len(text) > 1_000:
        raise _DeclinedError
    return int(text)


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


def _datetime(state: Any, zone: Any = None) -> Any:
    data = _state_of_time(state, 10)
    return cast(Any, dt.datetime)(data, *(() if zone is None else (_zone(zone),)))


def _date(state: Any) -> Any:
    return cast(Any, dt.date)(_state_of_time(state, 4))


def _time(state: Any, zone: Any = None) -> Any:
    data = _state_of_time(state, 6)
    return cast(Any, dt.time)(data, *(() if zone is None else (_zone(zone),)))


def _timedelta(*parts: Any) -> Any:
    return dt.timedelta(*(_exact(part, int) for part in parts))


def _timezone(offset: Any, *name: Any) -> Any:
    return dt.timezone(_exact(offset, dt.timedelta), *(_exact(n, str) for n in name))


@functools.cache
def _known_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _zoneinfo(key: Any, from_cache: Any = True) -> Any:  # noqa: FBT002 - as pickled
    # Asked for a name it does not know, zoneinfo goes looking for a package of that name.
    if _exact(key, str) not in _known_zones():
        raise _DeclinedError
    return zoneinfo.ZoneInfo(key)


def _path(kind: type[pathlib.PurePath]) -> Callable[..., Any]:
    def maker(*parts: Any) -> Any:
        return kind(*(_exact(part, str) for part in parts))

    return maker


def _instance(named: Any, *args: Any) -> Any:
    # copyreg.__newobj__(class, *args)
    return make(_exact(named, Reference), args)


def _named_within(named: Any, name: Any) -> Any:
    # getattr(class, name): how a method or a nested class is named. No attribute is looked up.
    return Reference(dotted(_exact(named, Reference).type, _exact(name, str)))


def _reconstructed(named: Any, base: Any, state: Any) -> Any:
    # copyreg._reconstructor(class, base, state): how protocols 0 and 1 make an instance.
    if _exact(base, Reference).type == "builtins.object":
        return make(_exact(named, Reference), ())
    return Opaque(_exact(named, Reference).type, (state,))


_MAKERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _named_within,
    "builtins.set": _collection(set),
    "builtins.frozenset": _collection(frozenset),
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
    "zoneinfo.ZoneInfo._unpickle": _zoneinfo,
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
