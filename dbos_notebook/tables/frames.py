"""Convert Arrow record batches to typed DataFrames, and add derived columns."""

from __future__ import annotations

import datetime as dt
import functools
import json
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dbos_notebook.errors import FilterError, TruncatedWarning
from dbos_notebook.payloads import FORMATS, Opaque, RecordedError, Undecoded, decode
from dbos_notebook.payloads.decoders import Decoder, decode_error, decode_inert
from dbos_notebook.payloads.recorded_errors import find_cause
from dbos_notebook.status import FAILED_STATUSES, STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.columns import (
    ERROR,
    FAILED_STEP,
    FIRST_MS,
    LAST_MS,
    RECORDED,
    STRING_DTYPE,
    Column,
)
from dbos_notebook.text import sanitize

MAX_LEVELS = 8
"""Levels that ``flatten`` expands; deeper parts stay whole. A value may also contain itself."""
MAX_COLUMNS = 1_000
"""Columns that ``flatten`` may add."""
MAX_NAME = 100
"""Characters of a key in the name of a column."""
LISTING = "dbos_notebook"
"""The key in ``attrs`` that marks a listing, by which a notebook displays it as one."""

# dtypes by the type that pandas infers; values of other types stay objects.
_DTYPES = {"boolean": "boolean", "integer": "Int64", "floating": "float64", "string": STRING_DTYPE}
_INPUTS = (("args", "kwargs"), ("positionalArgs", "namedArgs"))


def flatten(frame: pd.DataFrame, payloads: Sequence[str]) -> pd.DataFrame:
    """Add a column for every named part of the payloads; the payload columns stay.

    Positional arguments are named by their index, other parts by their key or attribute, joined by
    dots. Lists stay whole. If two parts have the same name, the first one is shown.

    Parameters
    ----------
    frame
        A DataFrame with decoded payload columns.
    payloads
        The columns to flatten, such as ``["input", "output"]``.

    Returns
    -------
    pandas.DataFrame
        ``frame`` with additional columns of Int64, float64, boolean, str, times, or object.

    Raises
    ------
    FilterError
        There would be more than 1,000 columns, because the payloads' keys are data.

    Examples
    --------
    >>> frame = pd.DataFrame({"output": [{"total": 9, "to": {"city": "Rome"}}, None]})
    >>> flatten(frame, ["output"]).columns.tolist()
    ['output', 'output.total', 'output.to.city']
    """
    columns: dict[str, list[Any]] = {}
    for payload in payloads:
        for position, value in enumerate(frame[payload]):
            for name, part in named_parts(payload, value):
                if name not in columns:
                    if len(columns) == MAX_COLUMNS:
                        raise FilterError(
                            f"normalize=True would add more than {MAX_COLUMNS:,} columns (the last "
                            f"is {name!r}). Narrow the filters, or use the {payload!r} column."
                        )
                    columns[name] = [None] * len(frame)
                if columns[name][position] is None:
                    columns[name][position] = part
    series = {name: _typed(values, frame.index) for name, values in columns.items()}
    flat = pd.concat([frame, pd.DataFrame(series, index=frame.index)], axis=1)
    # pandas keeps attrs only if those of all frames are equal.
    flat.attrs = dict(frame.attrs)
    return flat


def named_parts(payload: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the columns that ``flatten`` makes of one payload.

    Examples
    --------
    >>> list(named_parts("input", {"args": (7,), "kwargs": {"to": {"city": "Rome"}}}))
    [('input.0', 7), ('input.to.city', 'Rome')]
    """
    return _parts(payload, _arguments(value), MAX_LEVELS)


def _arguments(value: Any) -> Any:
    """Return a workflow's recorded arguments as one mapping; return other values unchanged."""
    for args, kwargs in _INPUTS:
        if type(value) is dict and value.keys() == {args, kwargs}:
            positional, keywords = value[args] or (), value[kwargs] or {}
            if isinstance(positional, list | tuple) and isinstance(keywords, dict):
                return {**dict(enumerate(positional)), **keywords}
    return value


def _parts(name: str, value: Any, levels: int) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a value with their full names."""
    attributes = _attributes(value) if levels else None
    if not attributes:
        if "." in name:
            yield name, value
        return
    for key, part in attributes.items():
        yield from _parts(f"{name}.{sanitize(key, MAX_NAME)}", part, levels - 1)


def _attributes(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Opaque):
        state = value.state if type(value.state) is dict else {}
        return {**state, **value.kwargs}
    if isinstance(value, dict):
        return value
    if value is None or isinstance(value, RecordedError | BaseException | type):
        return None
    # With trust_payloads=True, objects of the application's own classes.
    return getattr(value, "__dict__", None)


def _typed(values: list[Any], index: pd.Index[Any]) -> pd.Series[Any]:
    column = pd.Series(values, index=index, dtype=object)
    dtype = _DTYPES.get(pd.api.types.infer_dtype(column, skipna=True))
    if dtype is None:
        return column.infer_objects()  # a column of times or durations only
    try:
        return column.astype(dtype)
    except (OverflowError, UnicodeEncodeError):
        # An integer of more than 64 bits, or a string with a lone surrogate.
        return column


MAX_MESSAGE = 10_000
"""Characters of an error message in a DataFrame."""

_BOUNDS = {"instant": (FIRST_MS, LAST_MS), "duration": (FIRST_MS - LAST_MS, LAST_MS - FIRST_MS)}
_MAX_BRACKETS = 200
_MAX_CACHED_CATEGORIES = 1_000
_MAX_CACHED_ERROR = 1_000
"""Characters of a stored error whose type and message are cached for the next listing."""


def transport_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema in which rows of these columns are read from the database."""
    return pa.schema([(c.name, c.transport) for c in columns if c.source is not None])


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of results, with derived columns."""
    return pa.schema([(c.name, c.arrow) for c in columns])


def derive(
    batch: pa.RecordBatch,
    columns: Sequence[Column],
    now: dt.datetime,
    decoder: Decoder = decode_inert,
) -> pa.RecordBatch:
    """Cast the columns to their Arrow types and add the derived columns.

    Times are read as integers; the cast copies no data. The decoder is used for recorded errors in
    an application's own format.
    """
    batch = _drop_invalid_times(batch, columns)
    arrays = []
    errors: dict[str, pa.Array] = {}
    derived: dict[str, pa.Array] = {}
    for column in columns:
        if column in ERROR:
            errors = errors or _errors(batch, decoder)
            arrays.append(errors[column.name])
        elif column in FAILED_STEP:
            # Read from the steps of failed workflows afterwards; see failed_steps.
            arrays.append(_nulls(column, len(batch)))
        elif column.source is None:
            derived = derived or _derived(batch, now)
            arrays.append(derived[column.name])
        else:
            array = batch.column(column.name)
            arrays.append(array if array.type == column.arrow else array.cast(column.arrow))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))


def _drop_invalid_times(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Set times outside of the years 1 to 9999 to null: pandas can store but not format them."""
    for column in columns:
        if column.source is None or column.kind not in _BOUNDS:
            continue
        first, last = _BOUNDS[column.kind]
        values = batch.column(column.name)
        extent = pc.min_max(values)
        # Nearly always all times are valid, and nothing is copied.
        if (
            extent["min"].is_valid
            and not first <= extent["min"].as_py() <= extent["max"].as_py() <= last
        ):
            inside = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
            valid = pc.if_else(inside, values, pa.scalar(None, values.type))
            batch = batch.set_column(batch.schema.names.index(column.name), column.name, valid)
    return batch


def _errors(batch: pa.RecordBatch, decoder: Decoder) -> dict[str, pa.Array]:
    """Return the columns of ERROR; only the rows with a recorded error are decoded."""
    if RECORDED[0].name not in batch.schema.names:
        return {column.name: _nulls(column, len(batch)) for column in ERROR}
    stored, formats = (batch.column(column.name) for column in RECORDED)
    return decode_errors(stored, formats, decoder)


class ErrorSummary(NamedTuple):
    """A recorded error by its cause: the values of the columns of ERROR."""

    type: str | None
    message: str
    wrapper: str | None = None
    attempts: int | None = None


def decode_errors(stored: pa.Array, formats: pa.Array, decoder: Decoder) -> dict[str, pa.Array]:
    """Return the columns of ERROR for recorded errors; equal errors are decoded once."""
    stored = stored.dictionary_encode()
    formats = formats if pa.types.is_dictionary(formats.type) else formats.dictionary_encode()
    strings, names = stored.dictionary.to_pylist(), [*formats.dictionary.to_pylist(), None]
    width = len(names)
    codes = pc.add(
        pc.multiply(stored.indices.cast(pa.int64()), width),
        formats.indices.cast(pa.int64()).fill_null(width - 1),
    ).dictionary_encode()
    errors = [
        summarize_error(strings[code // width], names[code % width], decoder)
        for code in codes.dictionary.to_pylist()
    ]
    columns = {}
    for position, column in enumerate(ERROR):
        values = _array((error[position] for error in errors), column)
        columns[column.name] = take_values(values, codes.indices)
    return columns


def _array(values: Iterable[Any], column: Column) -> pa.Array:
    """Return values as an Arrow array of a column's type."""
    if pa.types.is_dictionary(column.arrow):
        return pa.array(list(values), column.arrow.value_type).dictionary_encode()
    return pa.array(list(values), column.arrow)


def take_values(values: pa.Array, indices: pa.Array) -> pa.Array:
    """Return values by index, null where the index is; of a dictionary, only the codes."""
    if pa.types.is_dictionary(values.type):
        return pa.DictionaryArray.from_arrays(pc.take(values.indices, indices), values.dictionary)
    return pc.take(values, indices)


def _nulls(column: Column, length: int) -> pa.Array:
    if pa.types.is_dictionary(column.arrow):
        return pa.DictionaryArray.from_arrays(
            pa.nulls(length, pa.int32()), pa.array([], column.arrow.value_type)
        )
    return pa.nulls(length, column.arrow)


def summarize_error(text: str, serialization: str | None, decoder: Decoder) -> ErrorSummary:
    """Decode a recorded error and find its cause."""
    if len(text) <= _MAX_CACHED_ERROR and (serialization is None or serialization in FORMATS):
        return _summarize_cached_error(text, serialization)
    return _summarize(decode_error(text, serialization, decoder))


@functools.lru_cache(maxsize=8_192)
def _summarize_cached_error(text: str, serialization: str | None) -> ErrorSummary:
    # Cached, because boards and lists read the same failures again and again.
    return _summarize(decode_inert(text, serialization, "error"))


def failed_ids(batch: pa.RecordBatch) -> pa.Array:
    """Return the IDs of the failed workflows."""
    return batch.column("workflow_id").filter(_is_in(batch.column("status"), FAILED_STATUSES))


def fill_failures(
    batches: Iterable[pa.RecordBatch], failures: pa.Table, steps: pa.Table, decoder: Decoder
) -> list[pa.RecordBatch]:
    """Join the columns of ERROR and FAILED_STEP to the failed rows by ``workflow_id``.

    Parameters
    ----------
    failures
        The recorded errors, with the columns of RECORDED.
    steps
        The columns of FAILED_STEP in the same order.
    """
    failures = failures.combine_chunks()
    ids, stored, formats = (
        failures[name].combine_chunks()
        for name in ("workflow_id", *(column.name for column in RECORDED))
    )
    columns = decode_errors(stored, formats, decoder)
    columns |= {name: steps[name].combine_chunks() for name in steps.column_names}
    filled = []
    for batch in batches:
        failed = _is_in(batch.column("status"), FAILED_STATUSES)
        failed_id = pc.if_else(failed, batch.column("workflow_id"), pa.scalar(None, ids.type))
        indices = pc.index_in(failed_id, value_set=ids).cast(pa.int64())
        for name, values in columns.items():
            batch = batch.set_column(
                batch.schema.names.index(name), name, take_values(values, indices)
            )
        filled.append(batch)
    return filled


def _summarize(error: object) -> ErrorSummary:
    if not isinstance(error, RecordedError):
        return ErrorSummary(None, _storable(error if isinstance(error, str) else repr(error)))
    cause, wrapper, attempts = find_cause(error)
    kind = sanitize(cause.type.removeprefix("builtins."))
    wrapper = None if wrapper is None else sanitize(wrapper.removeprefix("builtins."))
    return ErrorSummary(kind, _storable(cause.message), wrapper, attempts)


def _storable(message: str) -> str:
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    # A lone surrogate can be pickled, but not stored in an Arrow column.
    return message if message.isascii() else message.encode("utf-8", "replace").decode()


def _derived(batch: pa.RecordBatch, now: dt.datetime) -> dict[str, pa.Array]:
    """Compute the columns that are not stored in a table."""
    if "function_id" in batch.schema.names:
        duration = pc.subtract(batch.column("completed_at"), batch.column("started_at"))
        return {"duration": duration.cast(pa.duration("ms"))}
    times = timing.batch_times(batch, int(now.timestamp() * 1000))
    return {"duration": pa.array(times.duration), "queue_wait": pa.array(times.queue_wait)}


def _is_in(status: pa.Array, names: Sequence[str]) -> pa.Array:
    # Compare the few values of the dictionary, not each row.
    return pc.take(pc.is_in(status.dictionary, value_set=pa.array(names)), status.indices)


def to_frame(
    batches: Iterable[pa.RecordBatch], columns: Sequence[Column], decoder: Decoder = decode_inert
) -> pd.DataFrame:
    """Convert batches to one DataFrame with the dtypes of the columns.

    Parameters
    ----------
    batches
        At least one batch with the schema ``arrow_schema(columns)``.
    columns
        The columns, in order.
    decoder
        Converts stored payloads into values.

    Returns
    -------
    pandas.DataFrame
        The dtypes do not depend on the rows, even if there are none.
    """
    table = pa.Table.from_batches(list(batches)).unify_dictionaries()
    parsed = {}
    for position, column in enumerate(columns):
        if column.kind == "status":
            table = table.set_column(position, column.name, _as_status(table.column(position)))
        elif column.kind == "json":
            parsed[column.name] = _as_json(table.column(position))
        elif column.kind == "payload":
            # The context of a schedule is always in the SDK's default format.
            recorded = "serialization" in table.column_names
            formats = (
                table.column("serialization") if recorded else pa.nulls(len(table), pa.string())
            )
            parsed[column.name] = _decoded(table.column(position), formats, column.name, decoder)
    frame: pd.DataFrame = table.to_pandas(
        types_mapper=_pandas_type,
        # Free each column once it is converted, so that the peak is one column more.
        split_blocks=True,
        self_destruct=True,
    )
    del table
    for name, values in parsed.items():
        # With dtype=object, because a str column would convert None to NaN and reject surrogates.
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return mark_listing(frame)


def mark_listing(frame: pd.DataFrame, kind: str | None = None) -> pd.DataFrame:
    """Mark a DataFrame as a listing, and return it.

    ``kind`` is the method of ``Client`` that returned it, for results that ``plot`` can draw.
    """
    frame.attrs[LISTING] = kind or True
    return frame


class _Categories:
    """Converts dictionary columns to categoricals, with pandas' protocol for extension types.

    Arrow's own conversion builds and validates an index of the categories for every column of every
    frame, which takes most of the time for a small frame.
    """

    def __from_arrow__(self, column: pa.ChunkedArray) -> pd.Categorical:
        array = column.combine_chunks()
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        categories = tuple(array.dictionary.to_pylist())
        dtype = _dtype if len(categories) <= _MAX_CACHED_CATEGORIES else _dtype.__wrapped__
        return pd.Categorical.from_codes(
            codes, dtype=dtype(categories, array.type.ordered), validate=False
        )


@functools.lru_cache(maxsize=256)
def _dtype(categories: tuple[str, ...], ordered: bool) -> pd.CategoricalDtype:  # noqa: FBT001
    return pd.CategoricalDtype(pd.Index(categories, dtype="str"), ordered=ordered)


_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def _pandas_type(kind: pa.DataType) -> Any:
    return _Categories() if pa.types.is_dictionary(kind) else _PANDAS.get(kind)


def _as_status(column: pa.ChunkedArray) -> pa.DictionaryArray:
    array = column.combine_chunks()
    values = array.dictionary.to_pylist()
    # Unknown statuses of a later DBOS come last.
    categories = [*STATUSES, *(value for value in values if value not in STATUSES)]
    new_codes = pa.array([categories.index(value) for value in values], pa.int32())
    codes = pc.take(new_codes, array.indices)
    return pa.DictionaryArray.from_arrays(codes, pa.array(categories), ordered=True)


def _decoded(
    column: pa.ChunkedArray, formats: pa.ChunkedArray | pa.Array, name: str, decoder: Decoder
) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    values = np.full(len(column), None, dtype=object)
    pairs = zip(column.to_pylist(), formats.to_pylist(), strict=True)
    for position, (text, serialization) in enumerate(pairs):
        if text is not None:
            values[position] = decoder(text, serialization, name)
    return values


def _as_json(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    values = np.full(len(column), None, dtype=object)
    parsed: dict[str, tuple[Any, bool]] = {}
    documents = column.drop_null().to_pylist()
    for position, document in zip(np.flatnonzero(column.is_valid()), documents, strict=True):
        if document not in parsed:
            value = _parse_json(document)
            parts = value.values() if isinstance(value, dict) else value
            flat = isinstance(value, dict | list) and not any(
                isinstance(part, dict | list) for part in parts
            )
            parsed[document] = value, flat
        else:
            # Each row has its own copy, so that changing one does not change another.
            value, flat = parsed[document]
            if flat:
                value = value.copy()
            elif isinstance(value, dict | list):
                value = _parse_json(document)
        values[position] = value
    return values


def _parse_json(document: str) -> Any:
    """Parse a JSON document; return an Undecoded if it is invalid."""
    if document.count("[") + document.count("{") > _MAX_BRACKETS:
        # It may be too deeply nested for its repr; decode checks that.
        return decode(document, "java_jackson")
    try:
        value = json.loads(document)
        if "\\ud" in document.lower():
            # JSON can contain lone surrogates, which cannot be shown.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except ValueError as problem:
        return Undecoded(f"not valid JSON: {problem}", document)
    return value


def concat_frames(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Concatenate DataFrames with the same columns; categorical columns stay categorical."""
    if first.empty or second.empty:
        return second if first.empty else first
    frames = [first.copy(deep=False), second.copy(deep=False)]
    for name in first.columns[first.dtypes == "category"]:
        known, other = (frame[name].cat.categories for frame in frames)
        categories = known.append(other[~other.isin(known)])
        for frame in frames:
            frame[name] = frame[name].cat.set_categories(categories)
    return pd.concat(frames, ignore_index=True)


def take(
    batches: Generator[pa.RecordBatch], limit: int | None
) -> tuple[list[pa.RecordBatch], bool]:
    """Return the first ``limit`` rows, and whether there are more.

    The query has to request ``limit + 1`` rows.
    """
    taken: list[pa.RecordBatch] = []
    rows = 0
    with closing(batches):
        for batch in batches:
            if limit is not None and rows + batch.num_rows > limit:
                taken.append(batch.slice(0, limit - rows))
                for _ in batches:
                    pass  # read the end of the stream, so that it is not cancelled
                return taken, True
            rows += batch.num_rows
            taken.append(batch)
    return taken, False


def note_truncation(
    frame: pd.DataFrame, *, truncated: bool, explicit_limit: bool, what: str
) -> None:
    """Set ``attrs["truncated"]``, and warn about truncation at a default limit."""
    frame.attrs["truncated"] = truncated
    if truncated and not explicit_limit:
        warnings.warn(
            f"Showing the first {len(frame):,} {what}; there are more. "
            "Pass limit=None for all, or narrow the filters.",
            TruncatedWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Return the stack level of the package's caller, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("dbos_notebook."):
        level, frame = level + 1, frame.f_back
    return level


def rechunk(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Regroup batches into lists of exactly ``size`` rows; the last may be shorter."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while batch.num_rows and rows + batch.num_rows >= size:
            pending.append(batch.slice(0, size - rows))
            batch = batch.slice(size - rows)
            yield pending
            pending, rows = [], 0
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
    if pending:
        yield pending
