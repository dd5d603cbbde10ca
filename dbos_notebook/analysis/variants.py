"""The distinct paths that runs took: which steps, in which order, how often."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dbos_notebook.analysis.run_paths import (
    RunArrays,
    StepArrays,
    interval_blocks,
    read_runs,
    read_steps,
)
from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.graphs.folding import OPERATIONS, SYSTEM_OPERATIONS
from dbos_notebook.tables import frames
from dbos_notebook.tables.columns import STRING_DTYPE
from dbos_notebook.tables.filters import as_list
from dbos_notebook.tables.timing import operation
from dbos_notebook.text import leaf_name

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.sql import Queries

Array = np.ndarray[Any, Any]

ARROW, CONCURRENT, GOES_ON = " → ", " ∥ ", "…"
MAX_PERIOD = 8
"""The number of steps of a loop that is folded."""
MAX_PARTS = 60
"""A longer path is written without its middle; it stays a variant of its own."""
EXACT_REPEATS = 9
"""Up to this number, variants differ by how often steps repeat; above, by its decimal digits."""


def variants(
    session: Session,
    queries: Queries,
    filters: Mapping[str, Any],
    *,
    hide: Iterable[str],
    limit: int | None,
    max_ids: int | None,
) -> tuple[pd.DataFrame, bool]:
    """Return the distinct paths of the selected runs, and whether there are more than ``limit``."""
    hidden = check_hide(hide)
    now = round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    runs = read_runs(session, queries, filters, now)
    steps = read_steps(session, queries, filters, runs)
    variant, groups = _number_paths(runs, steps, hidden)
    order = _sorted_groups(variant, groups)
    truncated = limit is not None and len(order) > limit
    frame = _frame(runs, variant, groups, order[:limit], max_ids)
    return frame, truncated


def check_hide(hide: Iterable[str]) -> frozenset[str]:
    """Return the operations to leave out, or raise FilterError."""
    words = as_list(hide, "hide")
    known = sorted(OPERATIONS | {"system"})
    for word in words:
        if word not in known:
            raise FilterError(
                f"hide contains {word!r}, which is not an operation.{nearest(word, known)} "
                f"Use some of: {', '.join(known)}."
            )
    hidden = frozenset(words) - {"system"}
    return hidden | SYSTEM_OPERATIONS if "system" in words else hidden


Group = tuple[int, bool, tuple[str, ...]]
"""The number of the workflow's name, whether it has ended, and the parts of its path."""


def _number_paths(
    runs: RunArrays, steps: StepArrays, hidden: frozenset[str]
) -> tuple[Array, list[Group]]:
    """Return the number of each run's variant, and the variants."""
    operations = np.array([operation(name) for name in steps.names], object)
    is_hidden = np.array([word in hidden for word in operations], bool)
    left_out = steps.timeout | np.where(
        steps.starts, "start_child" in hidden, is_hidden[steps.name]
    )
    rows = np.flatnonzero(~left_out)
    run = steps.run[rows]
    # The blocks of the remaining steps, so that equal orders are equal.
    first, last = interval_blocks(run, 2.0 * steps.first[rows], 2.0 * steps.last[rows] + 1)
    codes = 2 * steps.name[rows] + steps.starts[rows]
    packed = np.ascontiguousarray(np.column_stack([codes, first, last]).astype(np.int32))
    ends = np.searchsorted(run, np.arange(len(runs)), "right").tolist()
    labels = _labels(runs, steps)
    numbers: dict[tuple[int, bool, bytes], int] = {}
    paths: dict[Group, int] = {}
    variant = np.empty(len(runs), np.int64)
    data, width, begin = packed.tobytes(), 3 * packed.itemsize, 0
    ended = (~runs.active).tolist()
    for index, (name, end) in enumerate(zip(runs.name.tolist(), ends, strict=True)):
        # Runs with equal steps in the same order have equal bytes, and are described once.
        key = (name, ended[index], data[begin * width : end * width])
        number = numbers.get(key)
        if number is None:
            parts = _parts(packed[begin:end], labels[name])
            number = paths.setdefault((name, ended[index], parts), len(paths))
            numbers[key] = number
        variant[index] = number
        begin = end
    return variant, list(paths)


def _labels(runs: RunArrays, steps: StepArrays) -> list[list[str]]:
    """Return the labels of steps by the number of their workflow's name, and by their code.

    Names are shortened to their leaf unless two steps of a workflow have the same. Each step has
    two labels, because one that starts a child says so.
    """
    leaves = [leaf_name(name) for name in steps.names]
    width = max(len(steps.names), 1)
    pairs = np.unique(runs.name[steps.run].astype(np.int64) * width + steps.name)
    used: list[list[int]] = [[] for _ in runs.names]
    for owner, number in zip(*(part.tolist() for part in np.divmod(pairs, width)), strict=True):
        used[owner].append(number)
    found = []
    for numbers in used:
        labels = [""] * (2 * len(steps.names))
        counts = Counter(leaves[number] for number in numbers)
        for number in numbers:
            label = leaves[number] if counts[leaves[number]] == 1 else steps.names[number]
            labels[2 * number : 2 * number + 2] = label, f"starts {label}"
        found.append(labels)
    return found


def _parts(steps: Array, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of a path, in order: steps, groups of concurrent steps, and loops.

    Examples
    --------
    >>> steps = np.array([[0, 0, 0], [1, 1, 2], [2, 1, 1], [2, 2, 2], [3, 3, 3], [3, 4, 4]])
    >>> _parts(steps, ["a", "b", "c", "d"])
    ('a', '(b ∥ c ×2)', 'd ×2')
    """
    if (steps[:, 1] == np.arange(len(steps))).all() and (steps[:, 2] == steps[:, 1]).all():
        return _fold_loops([labels[code] for code in steps[:, 0].tolist()])
    parts: list[str] = []
    together: list[str] = []
    reach = -1
    order = np.argsort(steps[:, 1], kind="stable")
    for code, first, last in steps[order].tolist():
        if together and first > reach:
            parts.append(_concurrent(together))
            together = []
        together.append(labels[code])
        reach = max(reach, last)
    parts.append(_concurrent(together))
    return _fold_loops(parts)


def _concurrent(labels: list[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    counts = sorted(Counter(labels).items())
    return "(" + CONCURRENT.join(_repeated(label, count) for label, count in counts) + ")"


def _repeated(part: str, count: int) -> str:
    if count == 1:
        return part
    if count <= EXACT_REPEATS:
        return f"{part} ×{count}"
    low = 10 ** (len(str(count)) - 1)
    return f"{part} ×{low:,}–{10 * low - 1:,}"


def _fold_loops(parts: list[str]) -> tuple[str, ...]:
    """Fold repeated steps, then repeated sequences of steps."""
    return tuple(_fold(_fold(parts, 1), MAX_PERIOD))


def _fold(parts: list[str], longest: int) -> list[str]:
    folded: list[str] = []
    position = 0
    while position < len(parts):
        for period in range(1, longest + 1):
            body = parts[position : position + period]
            end = position + period
            while parts[end : end + period] == body:
                end += period
            if end > position + period:
                name = body[0] if period == 1 else f"({ARROW.join(body)})"
                folded.append(_repeated(name, (end - position) // period))
                position = end
                break
        else:
            folded.append(parts[position])
            position += 1
    return folded


def _text(parts: Sequence[str], *, ended: bool) -> str:
    if len(parts) > MAX_PARTS:
        half = MAX_PARTS // 2
        middle = f"… {len(parts) - 2 * half:,} more …"
        parts = [*parts[:half], middle, *parts[-half:]]
    if ended:
        return ARROW.join(parts) if parts else "(no steps)"
    return ARROW.join([*parts, GOES_ON])


def _sorted_groups(variant: Array, groups: Sequence[Group]) -> list[int]:
    """Return the numbers of the variants, the most frequent first."""
    counts = np.bincount(variant, minlength=len(groups)).tolist()
    return sorted(range(len(groups)), key=lambda number: (-counts[number], groups[number]))


def _frame(
    runs: RunArrays,
    variant: Array,
    groups: Sequence[Group],
    shown: Sequence[int],
    max_ids: int | None,
) -> pd.DataFrame:
    by_name = np.bincount(runs.name, minlength=len(runs.names))
    # The newest run of each variant first.
    newest = np.lexsort((-np.nan_to_num(runs.created, nan=-np.inf), variant))
    ends = np.searchsorted(variant[newest], np.arange(len(groups)), "right")
    begins = np.searchsorted(variant[newest], np.arange(len(groups)), "left")
    columns: dict[str, list[Any]] = {name: [] for name in _DTYPES}
    for number in shown:
        members = newest[begins[number] : ends[number]]
        name, ended, parts = groups[number]
        duration = runs.duration[members]
        duration = duration[~np.isnan(duration)] if ended else duration[:0]
        p50 = p90 = np.nan
        if len(duration):
            # As percentile_disc, which statistics use.
            p50, p90 = np.percentile(duration, (50, 90), method="inverted_cdf")
        created = runs.created[members]
        created = created[~np.isnan(created)]
        ids = runs.ids.take(pa.array(members[:max_ids])).to_pylist()
        row = {
            "name": runs.names[name],
            "variant": _text(parts, ended=ended),
            "count": len(members),
            "share": len(members) / by_name[name],
            "error_rate": float(runs.failed[members].mean()) if ended else np.nan,
            "p50": p50,
            "p90": p90,
            "ended": ended,
            "example": runs.ids[int(members[0])].as_py(),
            "first_seen": created.min() if len(created) else np.nan,
            "last_seen": created.max() if len(created) else np.nan,
            "workflow_ids": ids,
        }
        for key, value in row.items():
            columns[key].append(value)
    series = {name: _series(columns[name], dtype) for name, dtype in _DTYPES.items()}
    return frames.mark_listing(pd.DataFrame(series), "variants")


_INSTANT, _DURATION = "datetime64[ms, UTC]", "timedelta64[ms]"
_DTYPES: dict[str, Any] = {
    "name": "category",
    "variant": STRING_DTYPE,
    "count": "Int64",
    "share": "float64",
    "error_rate": "float64",
    "p50": _DURATION,
    "p90": _DURATION,
    "ended": "boolean",
    "example": STRING_DTYPE,
    "first_seen": _INSTANT,
    "last_seen": _INSTANT,
    "workflow_ids": object,
}


def _series(values: list[Any], dtype: Any) -> pd.Series[Any]:
    if dtype in (_INSTANT, _DURATION):
        numbers = np.array(values, float)
        # The smallest integer stands for a missing time.
        moments: Array = np.full(len(numbers), np.iinfo(np.int64).min)
        known = ~np.isnan(numbers)
        moments[known] = np.rint(numbers[known])
        if dtype == _DURATION:
            return pd.Series(pd.TimedeltaIndex(moments.astype("timedelta64[ms]")))
        return pd.Series(pd.DatetimeIndex(moments.astype("datetime64[ms]"), tz="UTC"))
    if dtype == "category":
        return pd.Series(pd.Categorical(values, categories=sorted(set(values))))
    plain: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return plain
