"""Parse blocks of CSV rows into Arrow record batches on a separate thread.

Both databases write rows as CSV in their own C code and Arrow parses it in C++, so no Python
object is created per value. How NULL and the empty string are written differs by database.
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

FIRST_BLOCK_BYTES = 1 << 18
MAX_BLOCK_BYTES = 2 << 20
"""Block sizes. The first block is small, so that parsing starts while the database still works.
Each block is 1.5 times as large as the previous one, up to a size where the overhead per block is
negligible and a block still fits into the processor's cache."""
MAX_PENDING_BLOCKS = 2
"""Blocks that may wait for parsing while more are read; this limits memory."""

BatchTransform = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class Dialect:
    """The CSV dialect of a database: its quote character and its representations of NULL."""

    quote: str
    nulls: tuple[str, ...]


class Block(NamedTuple):
    """A block of CSV lines, each terminated by a newline.

    ``longest`` is the length of the longest line in bytes; ``last`` marks the final block.
    """

    data: bytes | bytearray
    longest: int
    last: bool


def record_batches(
    blocks: Generator[Block],
    schema: pa.Schema,
    dialect: Dialect,
    transform: BatchTransform | None = None,
) -> Generator[pa.RecordBatch]:
    """Parse blocks of rows while the next ones are read. Yields at least one batch.

    Parameters
    ----------
    blocks
        The rows.
    schema
        The type of every column; no type is inferred.
    dialect
        How the rows are written.
    transform
        A function that is applied to each batch while the next ones are read.
    """
    parse = _Parser(schema, dialect, transform)
    pending: deque[Future[list[pa.RecordBatch]]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        last: list[pa.RecordBatch] = []
        for block in blocks:
            if block.last:
                # Parse it here, in parallel with the thread; most results are one block and need
                # no thread at all.
                last = parse(block)
                break
            pool = pool or ThreadPoolExecutor(1, thread_name_prefix="dbos_notebook")
            pending.append(pool.submit(parse, block))
            while len(pending) > MAX_PENDING_BLOCKS or (pending and pending[0].done()):
                yield from pending.popleft().result()
        if not last and pool is None:
            last = [parse.empty()]
        while pending:
            yield from pending.popleft().result()
        yield from last
    finally:
        # If the caller stops early, the database must stop too.
        blocks.close()
        if pool is not None:
            pool.shutdown(cancel_futures=True)


class _Parser:
    def __init__(
        self, schema: pa.Schema, dialect: Dialect, transform: BatchTransform | None
    ) -> None:
        self._schema = schema
        self._transform = transform
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
        self._convert_none = pa_csv.ConvertOptions(
            column_types={name: pa.large_binary() for name in schema.names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=nulls,
        )

    def __call__(self, block: Block) -> list[pa.RecordBatch]:
        batches = self._batches(block)
        return batches if self._transform is None else [*map(self._transform, batches)]

    def empty(self) -> pa.RecordBatch:
        """Return a batch without rows."""
        columns = [pa.array([], type=field.type) for field in self._schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return batch if self._transform is None else self._transform(batch)

    def _batches(self, block: Block) -> list[pa.RecordBatch]:
        try:
            table = self._read(block, self._convert)
        except pa.ArrowInvalid:
            # SQLite stores values of any type in any column. Convert this block value by value,
            # so that one value of a wrong type does not hide the others.
            raw = self._read(block, self._convert_none)
            columns = [
                _converted(column.to_pylist(), field.type)
                for column, field in zip(raw.columns, self._schema, strict=True)
            ]
            return [pa.RecordBatch.from_arrays(columns, schema=self._schema)]
        batches: list[pa.RecordBatch] = table.unify_dictionaries().combine_chunks().to_batches()
        return batches

    def _read(self, block: Block, convert: pa_csv.ConvertOptions) -> pa.Table:
        read = pa_csv.ReadOptions(
            column_names=self._schema.names,
            # Small enough for the cache, but large enough for the longest row.
            block_size=max(1 << 20, 2 * block.longest),
            # One thread parses faster than rows arrive.
            use_threads=False,
        )
        # Not read_csv: it replaces Python's signal handlers meanwhile, and loses some signals.
        with pa_csv.open_csv(pa.py_buffer(block.data), read, self._parse, convert) as reader:
            return reader.read_all()


def _converted(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    """Convert values to a type. An invalid value becomes null; invalid UTF-8 is replaced."""
    if pa.types.is_integer(kind):
        return pa.array([None if value is None else _to_int(value) for value in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([None if value is None else _to_float(value) for value in values], kind)
    if pa.types.is_boolean(kind):
        flags = {b"t": True, b"1": True, b"f": False, b"0": False}
        return pa.array([None if value is None else flags.get(value) for value in values], kind)
    strings = [None if value is None else value.decode(errors="replace") for value in values]
    if pa.types.is_dictionary(kind):
        return pa.array(strings, kind.value_type).dictionary_encode()
    return pa.array(strings, kind)


def _to_int(value: bytes) -> int | None:
    try:
        number = int(value) if len(value) < 30 else 1 << 63
    except ValueError:
        real = _to_float(value)
        number = int(real) if real is not None and math.isfinite(real) else 1 << 63
    return number if -(1 << 63) <= number < 1 << 63 else None


def _to_float(value: bytes) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
