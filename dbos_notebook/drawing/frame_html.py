"""The HTML of a listing in a notebook: the columns people need first, one line per row.

A listing stays a plain ``pandas.DataFrame``: type, text, methods and files are pandas' own. Only
the HTML that IPython displays differs, by a formatter that :func:`register` adds to the session.
It applies to DataFrames with the mark that ``tables.frames`` sets in ``attrs``. pandas copies
``attrs`` to what is selected, filtered or sorted, so such results read equally well; a subclass
would need constructors of its own for that, and would change ``type(df)`` and pickles.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Hashable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from dbos_notebook.html import environment
from dbos_notebook.payloads.recorded_errors import describe
from dbos_notebook.status import STATUS_STYLES, known_status
from dbos_notebook.tables.columns import FRAMES
from dbos_notebook.tables.frames import LISTING
from dbos_notebook.text import duration, is_missing, leaf_name, sanitize, shorten_id

if TYPE_CHECKING:
    import jinja2

WIDE = 10
"""Columns up to which every column is displayed; wider listings leave out what says nothing."""
MAX_TITLE = 1_000
"""Characters of the full value that is shown on hover."""
MAX_CELL = 10_000
"""Characters of a cell where pandas' ``display.max_colwidth`` is None."""
SENTENCE = 120
"""Characters of a sentence that was written for people, whatever ``display.max_colwidth`` says."""
MAX_NAMES = 40
"""Columns that the line below the table names."""
ID_LENGTH, OTHER_ID_LENGTH = 40, 24
"""Characters of the IDs in the first column, where a UUID fits, and in the others."""

_KNOWN = frozenset(column.name for columns in FRAMES.values() for column in columns)
_NAMES = (
    "name",
    "function_name",
    "workflow_name",
    "failed_step",
    "error_type",
    "error_wrapper",
)
_IDS = ("example", "forked_from", "latest_fork", "covered_by")
_SENTENCES = ("activity", "evidence", "variant")
# Never left out: what identifies a row.
_LEADING = ("workflow_id", "status", "name", "function_id", "function_name", "depth", "key")
MISSING = "–"


class Cell(NamedTuple):
    """What a cell shows, the full value on hover, and its CSS classes."""

    text: str
    title: str = ""
    css: str = ""
    symbol: str = ""


class _Context(NamedTuple):
    """What the cells of a row depend on: the parent's ID, and whether times are whole seconds."""

    parent: str | None
    whole_seconds: bool


_Write: TypeAlias = Callable[[Any, _Context], Cell]


@cache
def _templates() -> jinja2.Environment:
    return environment("drawing")


def register() -> None:
    """Let IPython display listings with :func:`frame_html`.

    Nothing happens outside of IPython, or where something else displays DataFrames already.
    """
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    if pd.DataFrame not in formatter:
        formatter.for_type(pd.DataFrame, frame_html)


def frame_html(frame: pd.DataFrame) -> str | None:
    """Return the HTML of a listing; of any other DataFrame what pandas returns.

    Columns without a value and columns with the same value in every row are left out of a wide
    listing and named below it. The options ``display.max_rows``, ``min_rows``, ``max_columns``,
    ``max_colwidth``, ``precision`` and ``notebook_repr_html`` of pandas apply.

    Examples
    --------
    >>> import dbos_notebook
    >>> frame = dbos_notebook.connect(example_database).workflows()
    >>> "Same in all rows" in frame_html(frame)
    True
    >>> type(frame), "Same in all rows" in frame.to_html()
    (<class 'pandas.DataFrame'>, False)
    """
    if not _is_listing(frame):
        html: str | None = frame._repr_html_()  # type: ignore[operator] # missing in the stubs
        return html
    shown, constants, empty = _select_columns(frame)
    limit = pd.get_option("display.max_columns")
    further = shown[limit:] if limit else []
    shown = shown[:limit] if limit else shown
    before, after = _select_rows(len(frame))
    parts = [frame.iloc[:before], frame.iloc[len(frame) - after :]]
    rows = pd.concat(parts) if after else parts[0]
    writers = {name: _writer(name, frame[name], rows[name]) for name in shown}
    label = _writer(frame.index.name, frame.index.to_series(), rows.index.to_series())
    contexts = [
        _Context(parent, whole)
        for parent, whole in zip(_parents(rows), _whole_seconds(rows), strict=True)
    ]
    return (
        _templates()
        .get_template("frame.html.j2")
        .render(
            index_name=sanitize(frame.index.name or ""),
            headers=[
                {"name": sanitize(name), "zone": _zone(frame[name]), "css": _alignment(frame[name])}
                for name in shown
            ],
            rows=[
                [label(key, context), *(writers[name](value, context) for name, value in cells)]
                for key, context, cells in zip(
                    rows.index,
                    contexts,
                    (
                        zip(shown, values, strict=True)
                        for values in rows[shown].itertuples(index=False, name=None)
                    ),
                    strict=True,
                )
            ],
            cut=before if before < len(frame) else None,
            height=len(frame),
            width=len(frame.columns),
            constants=constants,
            hidden=_names(empty),
            hidden_count=len(empty),
            further=_names(further),
            further_count=len(further),
        )
    )


def _is_listing(frame: pd.DataFrame) -> bool:
    """Return whether a DataFrame is a listing, or rows and columns of one."""
    return (
        LISTING in frame.attrs
        and bool(pd.get_option("display.notebook_repr_html"))
        and pd.get_option("display.large_repr") == "truncate"
        and frame.index.nlevels == frame.columns.nlevels == 1
        and frame.columns.is_unique
        and all(isinstance(name, str) for name in frame.columns)
        # Of an analysis, any column; of a listing, one that its rows have.
        and (isinstance(frame.attrs[LISTING], str) or not _KNOWN.isdisjoint(frame.columns))
    )


def _select_columns(frame: pd.DataFrame) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the columns to show, those with one value with that value, and those without any."""
    names = list(frame.columns)
    if len(names) <= WIDE or frame.empty:
        return names, {}, []
    empty = [name for name in names if name not in _LEADING and frame[name].isna().all()]
    constants = {}
    for name in names:
        if len(frame) > 1 and name not in _LEADING and name not in empty:
            column = frame[name]
            simple = column.dtype in ("category", "Int64", "boolean") and column.notna().all()
            if simple and (column == column.iloc[0]).all():
                constants[name] = sanitize(column.iloc[0], 60) or "''"
    shown = [name for name in names if name not in constants and name not in empty]
    return shown, constants, empty


def _select_rows(count: int) -> tuple[int, int]:
    """Return how many rows to show from the start and from the end, as pandas does."""
    limit = pd.get_option("display.max_rows")
    if not limit or count <= limit:
        return count, 0
    limit = min(pd.get_option("display.min_rows") or limit, limit)
    return (limit + 1) // 2, limit // 2


def _parents(rows: pd.DataFrame) -> list[str | None]:
    """Return the parents' IDs in a tree, where the parent is a row as well."""
    if "depth" not in rows or "parent_workflow_id" not in rows:
        return [None] * len(rows)
    return [value if isinstance(value, str) else None for value in rows["parent_workflow_id"]]


def _whole_seconds(rows: pd.DataFrame) -> list[bool]:
    """Return for each workflow whether its times are stored in whole seconds, as on SQLite."""
    times = [
        rows[name]
        for name in ("created_at", "completed_at")
        if name in rows and pd.api.types.is_datetime64_any_dtype(rows[name].dtype)
    ]
    if "function_id" in rows or not times:
        return [False] * len(rows)
    fractions = pd.concat([each.dt.microsecond.fillna(0) != 0 for each in times], axis=1)
    return [not value for value in fractions.any(axis=1)]


def _names(columns: list[str]) -> str:
    named = ", ".join(sanitize(name, 60) for name in columns[:MAX_NAMES])
    return named if len(columns) <= MAX_NAMES else f"{named}, …"


def _alignment(column: pd.Series[Any]) -> str:
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and column.dtype not in (
        "bool",
        "boolean",
    )
    return "n" if numeric or pd.api.types.is_timedelta64_dtype(column.dtype) else ""


def _zone(column: pd.Series[Any]) -> str:
    return str(column.dtype.tz) if isinstance(column.dtype, pd.DatetimeTZDtype) else ""


def _writer(name: Hashable, column: pd.Series[Any], rows: pd.Series[Any]) -> _Write:
    """Return the function that writes the cells of a column."""
    write = _value_writer(name, column, rows)
    missing = Cell(MISSING, css=f"quiet {_alignment(column)}".strip())

    def write_or_missing(value: Any, row: _Context) -> Cell:
        return missing if is_missing(value) else write(value, row)

    return write_or_missing


def _value_writer(name: Hashable, column: pd.Series[Any], rows: pd.Series[Any]) -> _Write:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        rounded = name in ("duration", "queue_wait")
        return lambda value, row: Cell(
            duration(value, approximate=rounded and row.whole_seconds), str(value), "n"
        )
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _time_writer(rows)
    if pd.api.types.is_float_dtype(column.dtype):
        write = pd.get_option("display.float_format") or f"{{:.{_precision()}g}}".format
        return lambda value, _: Cell(sanitize(write(value)), css="n")
    css = _alignment(column)
    if css:
        return lambda value, _: Cell(sanitize(value), css=css)
    if name == "status" or str(name).endswith("_status"):
        return _status
    width = pd.get_option("display.max_colwidth") or MAX_CELL
    width = max(width, SENTENCE) if name in _SENTENCES else width
    if name in _NAMES:
        names = _short_names(rows)
        return lambda value, _: (
            _shortened(names[value], value) if isinstance(value, str) else _text(value, width)
        )
    if name in _IDS or str(name).endswith("workflow_id"):
        first = name == "workflow_id"
        return lambda value, row: _id(value, row.parent if first else None, first=first)
    return lambda value, _: _text(value, width)


def _precision() -> int:
    # pandas counts decimals; these are significant digits.
    return int(pd.get_option("display.precision")) + 1


def _time_writer(rows: pd.Series[Any]) -> _Write:
    """Write seconds; milliseconds too where all times of the column are close together."""
    times = rows.dropna()
    close = times.empty or times.max() - times.min() < pd.Timedelta(minutes=5)
    precise = close and bool((times.dt.microsecond != 0).any())

    def write(value: dt.datetime, _: _Context) -> Cell:
        text = f"{value:%Y-%m-%d %H:%M:%S}"
        text += f".{value.microsecond // 1000:03d}" if precise else ""
        return Cell(text, value.isoformat(" ", "milliseconds"))

    return write


def _status(value: Any, _: _Context) -> Cell:
    status = known_status(value)
    return Cell(sanitize(value), STATUS_STYLES[status].label, status, STATUS_STYLES[status].symbol)


def _short_names(rows: pd.Series[Any]) -> dict[str, str]:
    """Return the leaf of each name, with as many parts before it as distinguish the names."""
    names = {value for value in rows if isinstance(value, str)}
    short = {name: leaf_name(name) for name in names}
    for leaf, count in Counter(short.values()).items():
        same = [name for name in names if short[name] == leaf]
        longest = max(name.count(".") for name in same) + 1
        for parts in range(leaf.count(".") + 2, longest + 1):
            if len({short[name] for name in same}) == count:
                break
            short |= {name: ".".join(name.split(".")[-parts:]) for name in same}
    return short


def _id(value: Any, parent: str | None, *, first: bool) -> Cell:
    length = ID_LENGTH if first else OTHER_ID_LENGTH
    return _shortened(shorten_id(str(value), length, parent), value, "id")


def _text(value: Any, width: int) -> Cell:
    if isinstance(value, dt.timedelta):
        return Cell(duration(value), str(value), "n")
    # Summaries, such as those of ``describe``, hold numbers and times as objects.
    simple = isinstance(value, str | int | float | np.generic | dt.datetime)
    text = str(value) if simple else describe(value)
    return _shortened(sanitize(text, width), text)


def _shortened(short: str, full: Any, css: str = "") -> Cell:
    short, title = sanitize(short), sanitize(full, MAX_TITLE)
    return Cell(short, title if title != short else "", css)
