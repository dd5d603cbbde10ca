"""Blocks of CSV rows into Arrow record batches, on a thread of their own.

Both databases write rows as CSV in their own C code, and Arrow parses it in C++: no Python
object is made for a value. What is NULL and what is the empty text differs by database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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


@dataclass(frozen=True)
class Dialect:
    """How a database writes rows: its quote, and its NULL."""

    quote: str
    nulls: tuple[str, ...]


class Block(NamedTuple):
    """Rows as CSV lines, each with its newline, and the length of the longest."""

    data: bytes | bytearray
    longest: int


def record_batches(
    blocks: Generator[Block], schema: pa.Schema, dialect: Dialect
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
    """
    parse = _Parser(schema, dialect)
    ahead: deque[Future[list[pa.RecordBatch]]] = deque()
    some = False
    # Whoever stops early must not leave the database working for nobody.
    with closing(blocks), ThreadPoolExecutor(1, thread_name_prefix="dbos_notebook") as pool:
        for block in blocks:
            some = True
            ahead.append(pool.submit(parse, block))
            while len(ahead) > AHEAD or (ahead and ahead[0].done()):
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    if not some:
        nothing = [pa.array([], type=field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(nothing, schema=schema)


class _Parser:
    def __init__(self, schema: pa.Schema, dialect: Dialect) -> None:
        self._names = schema.names
        self._parse = pa_csv.ParseOptions(newlines_in_values=True, quote_char=dialect.quote)
        self._convert = pa_csv.ConvertOptions(
            column_types={field.name: field.type for field in schema},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=list(dialect.nulls),
            true_values=["t", "1"],
            false_values=["f", "0"],
        )

    def __call__(self, block: Block) -> list[pa.RecordBatch]:
        read = pa_csv.ReadOptions(
            column_names=self._names,
            # In parts that fit the cache, but a row must fit a part, and one row can be huge.
            block_size=max(1 << 20, 2 * block.longest),
            # The rows come no faster than one thread parses; more would only disturb.
            use_threads=False,
        )
        table = pa_csv.read_csv(pa.py_buffer(block.data), read, self._parse, self._convert)
        batches: list[pa.RecordBatch] = table.unify_dictionaries().combine_chunks().to_batches()
        return batches
