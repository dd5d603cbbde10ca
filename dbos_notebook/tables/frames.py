"""Convert Arrow to typed DataFrames, with the columns that are derived from others."""

from __future__ import annotations

import datetime as dt
import functools
import json
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dbos_notebook.errors import FilterError, TruncatedWarning
from dbos_notebook.payloads import FORMATS, Opaque, RecordedError, Undecoded, decode
from dbos_notebook.payloads.decoders import Decoder, decode_error, decode_inert
from dbos_notebook.status import FAILED_STATUSES, STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.columns import ERROR, FIRST_MS, LAST_MS, RECORDED, TEXT, Column
from dbos_notebook.text import sanitize

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
        yield from _parts(f"{name}.{sanitize(key, MAX_NAME)}", part, levels - 1)


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


MAX_MESSAGE = 10_000
"""Characters of an error's message that a DataFrame shows."""

_BOUNDS = {"instant": (FIRST_MS, LAST_MS), "duration": (FIRST_MS - LAST_MS, LAST_MS - FIRST_MS)}
_MAX_BRACKETS = 200
_FEW = 1_000
_SHORT = 1_000
"""Characters of a stored error whose class and message are kept for the next listing."""


def transport_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the schema in which rows of these columns travel from the database."""
    return pa.schema([(c.name, c.transport) for c in columns if c.source is not None])


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the schema of Arrow results: what came, typed, and what is derived."""
    return pa.schema([(c.name, c.arrow) for c in columns])


def derive(
    batch: pa.RecordBatch,
    columns: Sequence[Column],
    now: dt.datetime,
    decoder: Decoder = decode_inert,
) -> pa.RecordBatch:
    """Give the columns their Arrow types and add the derived ones.

    Times travel as integers; giving them their type copies nothing. The decoder reads recorded
    errors whose format is the application's own.
    """
    batch = _within_the_calendar(batch, columns)
    arrays = []
    errors: dict[str, pa.Array] = {}
    derived: dict[str, pa.Array] = {}
    for column in columns:
        if column in ERROR:
            errors = errors or _errors(batch, decoder)
            arrays.append(errors[column.name])
        elif column.source is None:
            derived = derived or _derived(batch, now)
            arrays.append(derived[column.name])
        else:
            array = batch.column(column.name)
            arrays.append(array if array.type == column.arrow else array.cast(column.arrow))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))


def _within_the_calendar(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Make times missing that no calendar has: pandas could hold and not show them."""
    for column in columns:
        if column.source is None or column.kind not in _BOUNDS:
            continue
        first, last = _BOUNDS[column.kind]
        values = batch.column(column.name)
        found = pc.min_max(values)
        # Nearly always nothing is to be done, and nothing is copied.
        if (
            found["min"].is_valid
            and not first <= found["min"].as_py() <= found["max"].as_py() <= last
        ):
            inside = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
            kept = pc.if_else(inside, values, pa.scalar(None, values.type))
            batch = batch.set_column(batch.schema.names.index(column.name), column.name, kept)
    return batch


def _errors(batch: pa.RecordBatch, decoder: Decoder) -> dict[str, pa.Array]:
    """Decode the recorded errors, of the rows that have one and no others."""
    if RECORDED[0].name not in batch.schema.names:
        nothing = _words(pa.array([], pa.large_string()), pa.array([], pa.string()), decoder)
        return _scattered(pa.nulls(len(batch), pa.int64()), nothing)
    texts, forms = (batch.column(column.name) for column in RECORDED)
    failed = pc.is_valid(texts)
    # Each row's place among those found; missing where it has none.
    place = pc.subtract(pc.cumulative_sum(failed.cast(pa.int64())), 1)
    place = pc.if_else(failed, place, pa.scalar(None, pa.int64()))
    return _scattered(place, _words(texts.filter(failed), forms.filter(failed), decoder))


def _words(
    texts: pa.Array, forms: pa.Array, decoder: Decoder
) -> tuple[pa.DictionaryArray, pa.Array]:
    """Return the classes and the messages of recorded errors.

    Errors that are stored alike are decoded once.
    """
    texts = texts.dictionary_encode()
    forms = forms if pa.types.is_dictionary(forms.type) else forms.dictionary_encode()
    stored, named = texts.dictionary.to_pylist(), [*forms.dictionary.to_pylist(), None]
    width = len(named)
    codes = pc.add(
        pc.multiply(texts.indices.cast(pa.int64()), width),
        forms.indices.cast(pa.int64()).fill_null(width - 1),
    ).dictionary_encode()
    pairs = [(stored[code // width], named[code % width]) for code in codes.dictionary.to_pylist()]
    found = [_stored_words(text, form, decoder) for text, form in pairs]
    kinds = pa.array([kind for kind, _ in found], pa.string()).dictionary_encode()
    messages = pa.array([message for _, message in found], pa.large_string())
    return (
        pa.DictionaryArray.from_arrays(pc.take(kinds.indices, codes.indices), kinds.dictionary),
        pc.take(messages, codes.indices),
    )


def _stored_words(text: str, form: str | None, decoder: Decoder) -> tuple[str | None, str]:
    if len(text) <= _SHORT and (form is None or form in FORMATS):
        return _known_words(text, form)
    return _error_words(decode_error(text, form, decoder))


@functools.lru_cache(maxsize=8_192)
def _known_words(text: str, form: str | None) -> tuple[str | None, str]:
    # Kept, because boards and lists read the same failures again and again.
    return _error_words(decode_inert(text, form, "error"))


def _scattered(place: pa.Array, words: tuple[pa.DictionaryArray, pa.Array]) -> dict[str, pa.Array]:
    """Give each row the words at its place; none where the place is missing."""
    kinds, says = words
    values = (
        pa.DictionaryArray.from_arrays(pc.take(kinds.indices, place), kinds.dictionary),
        pc.take(says, place),
    )
    return {column.name: value for column, value in zip(ERROR, values, strict=True)}


def failed_ids(batch: pa.RecordBatch) -> pa.Array:
    """Return the IDs of the workflows that failed."""
    return batch.column("workflow_id").filter(_one_of(batch.column("status"), FAILED_STATUSES))


def fill_errors(
    batches: Iterable[pa.RecordBatch], found: pa.Table, decoder: Decoder
) -> list[pa.RecordBatch]:
    """Put recorded errors, found apart by ``workflow_id``, into their rows."""
    ids = found.column("workflow_id").combine_chunks()
    texts, forms = (found.column(column.name).combine_chunks() for column in RECORDED)
    words = _words(texts, forms, decoder)
    filled = []
    for batch in batches:
        failed = _one_of(batch.column("status"), FAILED_STATUSES)
        asked = pc.if_else(failed, batch.column("workflow_id"), pa.scalar(None, pa.large_string()))
        errors = _scattered(pc.index_in(asked, value_set=ids).cast(pa.int64()), words)
        for name, values in errors.items():
            batch = batch.set_column(batch.schema.names.index(name), name, values)
        filled.append(batch)
    return filled


def _error_words(error: object) -> tuple[str | None, str]:
    if isinstance(error, RecordedError):
        kind, message = sanitize(error.type.removeprefix("builtins.")), error.message
    else:
        kind, message = None, error if isinstance(error, str) else repr(error)
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    if not message.isascii():
        # A lone surrogate can be pickled, but is no text that a column can hold.
        message = message.encode("utf-8", "replace").decode()
    return kind, message


def _derived(batch: pa.RecordBatch, now: dt.datetime) -> dict[str, pa.Array]:
    """Compute the columns that no table holds."""
    if "function_id" in batch.schema.names:
        took = pc.subtract(batch.column("completed_at"), batch.column("started_at"))
        return {"duration": took.cast(pa.duration("ms"))}
    times = timing.batch_times(batch, int(now.timestamp() * 1000))
    return {"duration": pa.array(times.duration), "queue_wait": pa.array(times.queue_wait)}


def _one_of(status: pa.Array, names: Sequence[str]) -> pa.Array:
    # On the dictionary's few words, not on each row.
    words = pc.is_in(status.dictionary, value_set=pa.array(names))
    return pc.take(words, status.indices)


def to_frame(
    batches: Iterable[pa.RecordBatch], columns: Sequence[Column], decoder: Decoder = decode_inert
) -> pd.DataFrame:
    """Turn batches into one DataFrame with the dtypes of the vocabulary.

    Parameters
    ----------
    batches
        At least one batch, in the schema of ``arrow_schema(columns)``.
    columns
        The columns, in order.
    decoder
        What turns stored payloads into values.

    Returns
    -------
    pandas.DataFrame
        The same dtypes whatever the rows, none included.
    """
    table = pa.Table.from_batches(list(batches)).unify_dictionaries()
    parsed = {}
    for place, column in enumerate(columns):
        if column.kind == "status":
            table = table.set_column(place, column.name, _as_status(table.column(place)))
        elif column.kind == "json":
            parsed[column.name] = _as_json(table.column(place))
        elif column.kind == "payload":
            # A schedule's context has no format of its own: it is the SDK's default.
            named = "serialization" in table.column_names
            forms = table.column("serialization") if named else pa.nulls(len(table), pa.string())
            parsed[column.name] = _decoded(table.column(place), forms, column.name, decoder)
    frame: pd.DataFrame = table.to_pandas(
        types_mapper=_pandas_type,
        # Column by column, each freed once it is converted: the peak is one column over.
        split_blocks=True,
        self_destruct=True,
    )
    del table
    for name, values in parsed.items():
        # Said, or texts alone would be a column of texts: None a NaN, half a character an error.
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


class _Categories:
    """Makes a categorical of a dictionary column, by pandas' protocol for extension types.

    Arrow's own way builds and checks an index of the categories for every column of every frame,
    which is most of the time of a small one.
    """

    def __from_arrow__(self, column: pa.ChunkedArray) -> pd.Categorical:
        words = column.combine_chunks()
        codes = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        found = words.dictionary.to_pylist()
        of = _dtype if len(found) <= _FEW else _dtype.__wrapped__
        return pd.Categorical.from_codes(
            codes, dtype=of(tuple(found), words.type.ordered), validate=False
        )


@functools.lru_cache(maxsize=256)
def _dtype(words: tuple[str, ...], ordered: bool) -> pd.CategoricalDtype:  # noqa: FBT001
    return pd.CategoricalDtype(pd.Index(words, dtype="str"), ordered=ordered)


_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def _pandas_type(kind: pa.DataType) -> Any:
    return _Categories() if pa.types.is_dictionary(kind) else _PANDAS.get(kind)


def _as_status(column: pa.ChunkedArray) -> pa.DictionaryArray:
    words = column.combine_chunks()
    found = words.dictionary.to_pylist()
    # A status of a later DBOS is kept and stands last.
    order = [*STATUSES, *(word for word in found if word not in STATUSES)]
    places = pa.array([order.index(word) for word in found], pa.int32())
    codes = pc.take(places, words.indices)
    return pa.DictionaryArray.from_arrays(codes, pa.array(order), ordered=True)


def _decoded(
    column: pa.ChunkedArray, forms: pa.ChunkedArray | pa.Array, name: str, decoder: Decoder
) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    values = np.full(len(column), None, dtype=object)
    pairs = zip(column.to_pylist(), forms.to_pylist(), strict=True)
    for place, (text, form) in enumerate(pairs):
        if text is not None:
            values[place] = decoder(text, form, name)
    return values


def _as_json(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    values = np.full(len(column), None, dtype=object)
    found: dict[str, tuple[Any, bool]] = {}
    texts = column.drop_null().to_pylist()
    for place, text in zip(np.flatnonzero(column.is_valid()), texts, strict=True):
        if text not in found:
            value = _document(text)
            parts = value.values() if isinstance(value, dict) else value
            simple = isinstance(value, dict | list) and not any(
                isinstance(part, dict | list) for part in parts
            )
            found[text] = value, simple
        else:
            # Each row has its own: whoever changes one must not change another.
            value, simple = found[text]
            if simple:
                value = value.copy()
            elif isinstance(value, dict | list):
                value = _document(text)
        values[place] = value
    return values


def _document(text: str) -> Any:
    """Parse one JSON document; what is none is an Undecoded, with the text."""
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        # It may be nested deeper than anything could print.
        return decode(text, "java_jackson")
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            # Half a surrogate pair can be written in JSON, but is no text that could be shown.
            whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
            value = json.loads(whole)
    except ValueError as problem:
        return Undecoded(f"it is no JSON: {problem}", text)
    return value


def joined(first: pd.DataFrame, further: pd.DataFrame) -> pd.DataFrame:
    """Put rows of the same columns below others; what is categorical stays so."""
    if first.empty or further.empty:
        return further if first.empty else first
    parts = [first.copy(deep=False), further.copy(deep=False)]
    for name in first.columns[first.dtypes == "category"]:
        known, also = (part[name].cat.categories for part in parts)
        words = known.append(also[~also.isin(known)])
        for part in parts:
            part[name] = part[name].cat.set_categories(words)
    return pd.concat(parts, ignore_index=True)


def cut(batches: Generator[pa.RecordBatch], limit: int | None) -> tuple[list[pa.RecordBatch], bool]:
    """Keep ``limit`` rows of a result that was asked for one more; tell if it had more."""
    kept: list[pa.RecordBatch] = []
    rows = 0
    with closing(batches):
        for batch in batches:
            if limit is not None and rows + batch.num_rows > limit:
                kept.append(batch.slice(0, limit - rows))
                for _ in batches:
                    pass  # nothing more comes, but the end, without which a stream is cut off
                return kept, True
            rows += batch.num_rows
            kept.append(batch)
    return kept, False


def note_truncation(frame: pd.DataFrame, *, truncated: bool, asked: bool, what: str) -> None:
    """Write on the frame whether rows were left out; say so if nobody asked for a limit."""
    frame.attrs["truncated"] = truncated
    if truncated and not asked:
        warnings.warn(
            f"Showing {len(frame):,} {what} of more. "
            "Pass limit=None for all, or narrow the filters.",
            TruncatedWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Return the stack level, for a warning, of whoever called the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("dbos_notebook."):
        level, frame = level + 1, frame.f_back
    return level


def rechunk(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Regroup batches into lists of exactly ``size`` rows; the last may be shorter."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while batch.num_rows and rows + batch.num_rows >= size:
            held.append(batch.slice(0, size - rows))
            batch = batch.slice(size - rows)
            yield held
            held, rows = [], 0
        if batch.num_rows:
            held.append(batch)
            rows += batch.num_rows
    if held:
        yield held
