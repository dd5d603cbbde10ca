"""Decoded payloads into columns: ``input.0.sku``, ``input.customer``, ``output.total``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dbos_notebook.errors import FilterError
from dbos_notebook.payloads import Opaque, RecordedError
from dbos_notebook.printable import printable
from dbos_notebook.tables.vocabulary import TEXT

MAX_LEVELS = 8
"""Deeper parts stay whole; a value may also contain itself."""
MAX_COLUMNS = 1_000
MAX_NAME = 100
"""Characters of a key that a column's name shows."""

# By what pandas infers of the values that are there; anything else stays an object.
_DTYPES = {"boolean": "boolean", "integer": "Int64", "floating": "float64", "string": TEXT}
_INPUTS = (("args", "kwargs"), ("positionalArgs", "namedArgs"))


def flatten(frame: pd.DataFrame, payloads: Sequence[str]) -> pd.DataFrame:
    """Add a column for every named part of the payloads; the payloads' own columns stay.

    Positional arguments are named by their number from 0, other parts by their key or attribute,
    joined by dots. Lists stay whole. Where two parts come to one name, the first is shown.

    Parameters
    ----------
    frame
        With decoded payload columns.
    payloads
        Which of them to flatten, such as ``["input", "output"]``.

    Returns
    -------
    pandas.DataFrame
        ``frame`` and, right of it, columns of Int64, float64, boolean, str, times, or object.

    Raises
    ------
    FilterError
        There would be more than 1,000 columns: the payloads' keys are data.

    Examples
    --------
    >>> frame = pd.DataFrame({"output": [{"total": 9, "to": {"city": "Rome"}}, None]})
    >>> flatten(frame, ["output"]).columns.tolist()
    ['output', 'output.total', 'output.to.city']
    """
    columns: dict[str, list[Any]] = {}
    for payload in payloads:
        for place, value in enumerate(frame[payload]):
            for name, part in _parts(payload, _arguments(value), MAX_LEVELS):
                if name not in columns:
                    if len(columns) == MAX_COLUMNS:
                        raise FilterError(
                            f"normalize=True would make more than {MAX_COLUMNS:,} columns (the "
                            f"last: {name!r}). Narrow the filters, or use the {payload!r} column."
                        )
                    columns[name] = [None] * len(frame)
                if columns[name][place] is None:
                    columns[name][place] = part
    found = {name: _typed(values, frame.index) for name, values in columns.items()}
    return pd.concat([frame, pd.DataFrame(found, index=frame.index)], axis=1)


def _arguments(value: Any) -> Any:
    """Return a workflow's recorded arguments as one mapping, and anything else as it is."""
    for args, kwargs in _INPUTS:
        if type(value) is dict and value.keys() == {args, kwargs}:
            positional, named = value[args] or (), value[kwargs] or {}
            if isinstance(positional, list | tuple) and isinstance(named, dict):
                return {**dict(enumerate(positional)), **named}
    return value


def _parts(name: str, value: Any, levels: int) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value that have no named parts themselves, each with its full name."""
    named = _named(value) if levels else None
    if not named:
        if "." in name:
            yield name, value
        return
    for key, part in named.items():
        yield from _parts(f"{name}.{printable(key, MAX_NAME)}", part, levels - 1)


def _named(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Opaque):
        state = value.state if type(value.state) is dict else {}
        return {**state, **value.kwargs}
    if isinstance(value, dict):
        return value
    # Objects of the application's own classes, where payloads are trusted.
    inert = value is None or isinstance(value, RecordedError | BaseException | type)
    return None if inert else getattr(value, "__dict__", None)


def _typed(values: list[Any], index: pd.Index[Any]) -> pd.Series[Any]:
    column = pd.Series(values, index=index, dtype=object)
    dtype = _DTYPES.get(pd.api.types.infer_dtype(column, skipna=True))
    if dtype is None:
        return column.infer_objects()  # times and durations, where all of them are
    try:
        return column.astype(dtype)
    except (OverflowError, UnicodeEncodeError):
        # An integer of more than 64 bits; a text with half a surrogate pair.
        return column
