"""Blocks of CSV rows into Arrow record batches, on a thread of their own.

Both databases write rows as CSV in their own C code, and Arrow parses it in C++: no Python
object is made for a value. What is NULL and what is the empty text differs by database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

BLOCK_BYTES = 8 << 20
"""Size of the pieces that rows travel in: big enough that per-piece work vanishes,
small enough that a streamed result needs little memory."""
AHEAD = 2
"""Blocks that may wait to be parsed while more are read; bounds memory."""


@dataclass(frozen=True)
class Dialect:
    """How a database writes rows: its quote, its NULL, and what ends a row."""

    quote: str
    nulls: tuple[str, ...]
    end: bytes


def record_batches(
    blocks: Iterator[Sequence[Any]], schema: pa.Schema, dialect: Dialect
) -> Iterator[pa.RecordBatch]:
    """Parse blocks of rows while the next ones are read; at least one batch comes.

    Parameters
    ----------
    blocks
        Lists of rows, each row the bytes of one CSV line.
    schema
        Every column's type is given; nothing is guessed.
    dialect
        How the rows are written.
    """
    parse = _Parser(schema, dialect)
    ahead: deque[Future[list[pa.RecordBatch]]] = deque()
    some = False
    with ThreadPoolExecutor(1, thread_name_prefix="dbos_notebook") as pool:
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
        self._end = dialect.end
        self._parse = pa_csv.ParseOptions(newlines_in_values=True, quote_char=dialect.quote)
        self._convert = pa_csv.ConvertOptions(
            column_types={field.name: field.type for field in schema},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=list(dialect.nulls),
            true_values=["t", "1"],
            false_values=["f", "0"],
        )

    def __call__(self, rows: Sequence[Any]) -> list[pa.RecordBatch]:
        data = self._end.join(rows) + self._end
        read = pa_csv.ReadOptions(
            column_names=self._names,
            # Two parts, for two threads; but a row must fit a part, and one row can be huge.
            block_size=max(len(data) // 2, 2 * max(map(len, rows)), 1 << 20),
        )
        table = pa_csv.read_csv(pa.py_buffer(data), read, self._parse, self._convert)
        batches: list[pa.RecordBatch] = table.unify_dictionaries().combine_chunks().to_batches()
        return batches
