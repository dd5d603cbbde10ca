"""Reconstruct numpy and pandas scalars from pickles, and the shape and dtype of arrays and frames.

The data of arrays and frames are not reconstructed. Each function raises TypeError or ValueError if
its arguments are not what these libraries write.
"""

from __future__ import annotations

import datetime as dt
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from dbos_notebook.payloads.values import Opaque, Reference

_NUMBERS = {"f8": "d", "f4": "f", "f2": "e", "b1": "?"} | {
    f"{sign}{size}": code
    for sign, codes in (("i", "bhiq"), ("u", "BHIQ"))
    for size, code in zip((1, 2, 4, 8), codes, strict=True)
}
# A payload may share its parts, so visiting all of them could take forever.
MAX_BLOCKS = 100
MAX_PARTS = 8
TABLE_STATE_COST = MAX_BLOCKS + 2 * MAX_PARTS**2
"""The maximum number of parts that are visited for the shape and dtypes of a frame."""
MAX_DTYPE = 50
# pandas' NPY_DATETIMEUNIT.
_UNITS = {7: "s", 8: "ms", 9: "us", 10: "ns"}


def _require_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"not a {kind.__name__}")
    return value


def dtype_name(kind: Any) -> str:
    """Return the name of a recorded numpy dtype; raise TypeError if it is not one."""
    if type(kind) is not Opaque or not kind.args or type(kind.args[0]) is not str:
        raise TypeError("not a dtype")
    if len(kind.args[0]) > MAX_DTYPE:
        raise ValueError("not the name of a dtype")
    order = kind.state[1] if type(kind.state) is tuple and len(kind.state) > 1 else ""
    return f"{order if order in ('<', '>') else ''}{kind.args[0]}"


def array_state(state: Any) -> dict[str, Any] | None:
    """Return the shape and dtype of a numpy array; ``None`` if this is not an array's state."""
    if type(state) is tuple and len(state) == 5:
        return {"shape": state[1], "dtype": dtype_name(state[2])}
    return None


def _scalar(kind: Any, data: Any) -> Any:
    code = dtype_name(kind)
    order = ">" if code.startswith(">") else "<"
    plain = code.lstrip("<>|=")
    if plain.startswith("S"):  # numpy pads bytes and strings with zeros
        return bytes(_require_type(data, bytes)).rstrip(b"\0")
    if plain.startswith("U"):
        encoding = "utf-32-be" if order == ">" else "utf-32-le"
        return _require_type(data, bytes).decode(encoding, "surrogatepass").rstrip("\0")
    if plain in ("M8", "m8"):
        if len(_require_type(data, bytes)) != 8:
            raise ValueError("not a 64-bit integer")
        return _instant_scalar(plain, kind.state, int.from_bytes(data, _ENDS[order]))
    if plain in ("c8", "c16"):
        part = _NUMBERS["f4" if plain == "c8" else "f8"]
        return complex(*struct.unpack(order + 2 * part, _require_type(data, bytes)))
    if plain not in _NUMBERS:
        raise TypeError(f"unsupported dtype {plain}")
    return struct.unpack(order + _NUMBERS[plain], _require_type(data, bytes))[0]


_ENDS: Mapping[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_NUMPY_UNITS = frozenset(["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"])
_NAT = 1 << 63


def _instant_scalar(plain: str, state: Any, number: int) -> Any:
    """Return a numpy datetime64 or timedelta64; raise TypeError or ValueError if it is invalid."""
    constructor: Any = np.datetime64 if plain == "M8" else np.timedelta64
    if number == _NAT:
        return constructor("NaT")
    unit, count, *rest = state[-1][1]
    if unit not in {name.encode() for name in _NUMPY_UNITS} or [count, *rest] != [1, 1, 1]:
        raise ValueError("unknown unit")
    value = constructor(number - (1 << 64) if number > _NAT else number, unit.decode())
    repr(value)
    hash(value)
    return value


def _from_buffer(data: Any, kind: Any, shape: Any, *order: Any) -> Any:
    return Opaque("numpy.ndarray", state={"shape": shape, "dtype": dtype_name(kind)})


def _empty(cls: Any, shape: Any, kind: Any) -> Any:
    return Opaque(_require_type(cls, Reference).type)


def _unit(resolution: Any) -> Any:
    return (
        _UNITS[_require_type(resolution, int)] if resolution in _UNITS else _require_type(None, int)
    )


def _timestamp(value: Any, freq: Any, zone: Any, resolution: Any = 10) -> Any:
    when: Any = pd.Timestamp(np.datetime64(_require_type(value, int), _unit(resolution)))
    if zone is not None:
        if not isinstance(zone, dt.tzinfo):  # for a string, pandas would open the file it names
            raise TypeError("not a time zone")
        if when is not pd.NaT:
            _checked_timestamp(when)
        when = when.tz_localize(dt.UTC).tz_convert(zone)
    return when if when is pd.NaT else _checked_timestamp(when)


def _checked_timestamp(when: Any) -> Any:
    # pandas accepts any year, but fails when it formats or compares some.
    if not dt.MINYEAR <= when.year <= dt.MAXYEAR:
        raise ValueError("the year is out of range")
    try:
        repr(when)
        hash(when)
    except (ArithmeticError, RuntimeError) as error:  # including NotImplementedError
        raise ValueError("it cannot be formatted") from error
    return when


def _timedelta(value: Any, resolution: Any = 10) -> Any:
    return pd.Timedelta(np.timedelta64(_require_type(value, int), _unit(resolution)))


def _nat(_: Any = None) -> Any:
    return pd.NaT


CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {
    f"numpy.{core}.{name}": constructor
    for core in ("core", "_core")
    for name, constructor in (
        ("multiarray.scalar", _scalar),
        ("multiarray._reconstruct", _empty),
        ("numeric._frombuffer", _from_buffer),
    )
} | {
    "pandas._libs.tslibs.timestamps._unpickle_timestamp": _timestamp,
    "pandas._libs.tslibs.timedeltas._timedelta_unpickle": _timedelta,
    "pandas._libs.tslibs.nattype._nat_unpickle": _nat,
}


def table_state(kind: str, state: Any) -> dict[str, Any] | None:
    """Return the shape and dtypes of a pickled DataFrame or Series; ``None`` for another class.

    The dtypes are those of pandas' blocks; a block has all columns of one dtype.
    """
    if kind.rpartition(".")[2] not in ("DataFrame", "Series") or not kind.startswith("pandas."):
        return None
    manager = state.get("_mgr") if type(state) is dict else None
    if type(manager) is not Opaque:
        return None
    if len(manager.args) == 2:  # BlockManager(blocks, axes)
        blocks, axes = manager.args
        values = [block.args[0] for block in blocks[:MAX_BLOCKS]]
    else:  # SingleBlockManager, by its state: axes, values, …
        axes, values = manager.state[:2]
    if len(axes) > 2:
        return None
    # pandas stores the axes in reverse order.
    shape = tuple(_length(axis) for axis in reversed(axes))
    return {"shape": shape, "dtypes": [_dtype(block) for block in values[:MAX_BLOCKS]]}


def _length(axis: Any) -> int | None:
    """Return the length of a pickled index; ``None`` if it is unknown."""
    if type(axis) is not Opaque or len(axis.args) != 2 or type(axis.args[1]) is not dict:
        return None
    index = axis.args[1]
    if "start" in index:
        return len(range(*(_require_type(index[name], int) for name in ("start", "stop", "step"))))
    return _size(index.get("data"))


def _size(data: Any, depth: int = 2) -> int | None:
    if type(data) is not Opaque:
        return None
    state = data.state if type(data.state) is dict else {}
    if type(state.get("shape")) is tuple and state["shape"]:
        return cast(int, state["shape"][-1])  # any value of the payload; only shown
    restored = state.get("_pa_array")
    if type(restored) is Opaque and restored.args and type(restored.args[0]) is tuple:
        return cast(int, restored.args[0][1])  # any value of the payload; only shown
    if depth == 0:
        return None
    sizes = (_size(part, depth - 1) for part in itertools.islice(_parts(data), MAX_PARTS))
    return next((size for size in sizes if size is not None), None)


def _dtype(block: Any) -> str:
    if type(block) is not Opaque:
        return type(block).__name__
    state = block.state if type(block.state) is dict else {}
    if type(state.get("dtype")) is str:
        return str(state["dtype"])
    named: Opaque = block.args[0] if block.args and type(block.args[0]) is Reference else block
    return named.type.rpartition(".")[2]


def _parts(value: Opaque) -> Iterator[Any]:
    return itertools.chain(value.args, value.state if type(value.state) is tuple else ())
