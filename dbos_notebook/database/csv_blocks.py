"""Blocks of CSV rows into Arrow record batches, on a thread of their own.

Both databases write rows as CSV in their own C code, and Arrow parses it in C++: no Python
object is made for a value. What is NULL and what is the empty text differs by database.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

FIRST_BYTES = 1 << 18
LARGEST_BYTES = 2 << 20
"""Rows travel in blocks. The first is small, so that parsing begins while the database still
works, and each is half as big again as the last, up to where per-block work vanishes and the
block still fits a processor's cache."""
AHEAD = 2
"""Blocks that may wait to be parsed while more are read; bounds memory."""

Each = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Dialect:
    """How a database writes rows: its quote, and its NULL."""

    quote: str
    nulls: tuple[str, ...]


class Block(NamedTuple):
    """Rows as CSV lines, each with its newline, the longest's length, and if it is the last."""

    data: bytes | bytearray
    longest: int
    last: bool


def record_batches(
    blocks: Generator[Block], schema: pa.Schema, dialect: Dialect, each: Each | None = None
) -> Generator[pa.RecordBatch]:
    """Parse blocks of rows while the next ones are read; at least one batch comes.

    Parameters
    ----------
    blocks
        The rows.
    schema
        Every column's type is given; nothing is guessed.
    dialect
        How the rows are written.
    each
        What is made of each batch, while the next ones are read.
    """
    parse = _Parser(schema, dialect, each)
    ahead: deque[Future[list[pa.RecordBatch]]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        ending: list[pa.RecordBatch] = []
        for block in blocks:
            if block.last:
                # Here, beside the thread's; and a result of one block, as most are, needs none.
                ending = parse(block)
                break
            pool = pool or ThreadPoolExecutor(1, thread_name_prefix="dbos_notebook")
            ahead.append(pool.submit(parse, block))
            while len(ahead) > AHEAD or (ahead and ahead[0].done()):
                yield from ahead.popleft().result()
        if not ending and pool is None:
            ending = [parse.nothing()]
        while ahead:
            yield from ahead.popleft().result()
        yield from ending
    finally:
        # Whoever stops early must not leave the database working for nobody.
        blocks.close()
        if pool is not None:
            pool.shutdown(cancel_futures=True)


class _Parser:
    def __init__(self, schema: pa.Schema, dialect: Dialect, each: Each | None) -> None:
        self._schema = schema
        self._each = each
        self._parse = pa_csv.ParseOptions(newlines_in_values=True, quote_char=dialect.quote)
        nulls = list(dialect.nulls)
        self._convert = pa_csv.ConvertOptions(
            column_types={field.name: field.type for field in schema},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=nulls,
            true_values=["t", "1"],
            false_values=["f", "0"],
        )
        self._convert_nothing = pa_csv.ConvertOptions(
            column_types={name: pa.large_binary() for name in schema.names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=nulls,
        )

    def __call__(self, block: Block) -> list[pa.RecordBatch]:
        batches = self._batches(block)
        return batches if self._each is None else [self._each(batch) for batch in batches]

    def nothing(self) -> pa.RecordBatch:
        """Return a batch of no rows."""
        columns = [pa.array([], type=field.type) for field in self._schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return batch if self._each is None else self._each(batch)

    def _batches(self, block: Block) -> list[pa.RecordBatch]:
        try:
            table = self._read(block, self._convert)
        except pa.ArrowInvalid:
            # A value that is not of its column's type: SQLite takes any. It must not hide the
            # rest, so this block is taken value by value.
            raw = self._read(block, self._convert_nothing)
            columns = [
                _fitting(column.to_pylist(), field.type)
                for column, field in zip(raw.columns, self._schema, strict=True)
            ]
            return [pa.RecordBatch.from_arrays(columns, schema=self._schema)]
        batches: list[pa.RecordBatch] = table.unify_dictionaries().combine_chunks().to_batches()
        return batches

    def _read(self, block: Block, convert: pa_csv.ConvertOptions) -> pa.Table:
        read = pa_csv.ReadOptions(
            column_names=self._schema.names,
            # In parts that fit the cache, but a row must fit a part, and one row can be huge.
            block_size=max(1 << 20, 2 * block.longest),
            # The rows come no faster than one thread parses; more would only disturb.
            use_threads=False,
        )
        try:
            return pa_csv.read_csv(pa.py_buffer(block.data), read, self._parse, convert)
        except pa.ArrowCancelled:
            # Arrow takes the signal for itself while it parses on the main thread.
            raise KeyboardInterrupt from None


def _fitting(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    """Give values a type; one that is none of it is missing, and broken UTF-8 is replaced."""
    if pa.types.is_integer(kind):
        return pa.array([None if value is None else _whole(value) for value in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([None if value is None else _number(value) for value in values], kind)
    if pa.types.is_boolean(kind):
        flags = {b"t": True, b"1": True, b"f": False, b"0": False}
        return pa.array([None if value is None else flags.get(value) for value in values], kind)
    texts = [None if value is None else value.decode(errors="replace") for value in values]
    if pa.types.is_dictionary(kind):
        return pa.array(texts, kind.value_type).dictionary_encode()
    return pa.array(texts, kind)


def _whole(value: bytes) -> int | None:
    try:
        number = int(value) if len(value) < 30 else 1 << 63
    except ValueError:
        found = _number(value)
        number = int(found) if found is not None and math.isfinite(found) else 1 << 63
    return number if -(1 << 63) <= number < 1 << 63 else None


def _number(value: bytes) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
