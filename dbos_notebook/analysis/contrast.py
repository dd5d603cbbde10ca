"""What is over-represented among bad runs: versions, executors, users, hours, attributes, inputs.

Values are counted in the database. Each value of each field is tested with Fisher's exact test
against the baseline, and the p-values are adjusted for all that were tested (see ``confidence``).
Values so rare that no split of them could be significant are not tested, and do not count. The
baseline has only runs that started, because what waits has no executor yet.

A value that is over-represented need not be the cause: what goes with the cause is, too.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.sql.elements import Null

from dbos_notebook.analysis.compare_versions import check_share
from dbos_notebook.analysis.confidence import adjust, rate_ratio, smallest_p_value
from dbos_notebook.errors import FilterError
from dbos_notebook.status import INTERRUPTED_STATUSES, WAITING_STATUSES
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import GROUPABLE, TableQuery, read_frames
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.filters import as_strings, check_filters
from dbos_notebook.tables.sql import Queries

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.types import WorkflowIds

MIN_COUNT = 3
"""Rarer values are not read."""
MAX_VALUES = 1_000
"""Values of a field that are read, the most frequent."""
MAX_ATTRIBUTE_VALUES = 5_000
"""The same for all attributes together."""
MAX_LENGTH = 200
"""Characters of a value of an attribute or input; longer ones are cut, or left out."""
MAX_INPUTS = 2_000
"""Runs of each side whose inputs are read, drawn at random if there are more."""
MAX_INPUT_CHARACTERS = 50_000
"""Longer inputs are not decoded."""
MAX_INPUT_FIELDS = 100
"""Fields of inputs that are counted, those that most runs have."""
MAX_DISTINCT_NUMBERS = 20
"""An input field with more different numbers is counted by ranges."""
RANGES = 10
"""Ranges of numbers, each with about as many runs."""

_HOUR_MS = 3_600_000
_DAY_HOURS = 24
_FIELDS = {
    "name": "name",
    "app_version": "app_version",
    "application_name": "application_name",
    "executor_id": "executor_id",
    "queue_name": "queue_name",
    "user": "authenticated_user",
    "schedule_name": "schedule_name",
}
"""Columns of workflows by the filter that selects their values."""
_ERASED = ("queue_name",)
"""Fields that DBOS clears when it cancels a run."""


class Counts(NamedTuple):
    """How often a value occurs on both sides, and how many runs there are.

    Attributes
    ----------
    field, value
        What is counted.
    bad, baseline
        Runs with the value.
    of_bad, of_baseline
        All runs that could have it.
    """

    field: str
    value: str
    bad: int
    of_bad: int
    baseline: int
    of_baseline: int


def contrast(
    session: Session,
    queries: Queries,
    bad: WorkflowIds | Mapping[str, Any],
    baseline: WorkflowIds | Mapping[str, Any] | None,
    inputs: bool,  # noqa: FBT001 - passed on from Client
    all_values: bool,  # noqa: FBT001
    confidence: float,
    filters: Mapping[str, Any],
    decoder: Decoder,
) -> pd.DataFrame:
    """Return the values that are over-represented; see ``Client.contrast``."""
    check_share(confidence, "confidence", 0.5, 1.0)
    bad_filters = _as_filters(bad, "bad", filters)
    if baseline is None:
        found = _default_baseline(session, queries, bad_filters, filters)
        chosen = None if found is None else _chosen(queries, bad_filters, found)
    else:
        other = queries.where(_as_filters(baseline, "baseline", filters))
        chosen = _chosen(queries, bad_filters, other)
    counts: list[Counts] = []
    sizes = _sizes(session, chosen)
    if not sizes[1] or not sizes[0]:
        side = "bad selects no run" if not sizes[1] else "there is no other run to compare with"
        warnings.warn(
            f"contrast: {side}. Without both sides nothing can be over-represented; check the "
            "filters, or give a baseline.",
            stacklevel=2,
        )
    if chosen is not None:
        counts = _count_fields(session, queries, chosen)
        if inputs and counts:
            counts += _count_inputs(session, queries, chosen, decoder)
    rows = over_represented(counts, confidence=confidence, all_values=all_values)
    return frames.mark_listing(rows, "contrast")


def _sizes(session: Session, chosen: sa.Subquery | None) -> dict[int, int]:
    """Return the number of the other runs (0) and of the bad ones (1)."""
    sizes = {0: 0, 1: 0}
    if chosen is not None:
        count = sa.func.count().label("runs")
        rows = session.rows(sa.select(chosen.c.is_bad, count).group_by(chosen.c.is_bad))
        sizes |= {int(row["is_bad"]): int(row["runs"]) for row in rows}
    return sizes


# Which runs


def _as_filters(
    runs: WorkflowIds | Mapping[str, Any], name: str, filters: Mapping[str, Any]
) -> dict[str, Any]:
    given = runs if isinstance(runs, Mapping) else {"workflow_ids": as_strings(runs, name)}
    common = {key: value for key, value in filters.items() if value is not None}
    if twice := sorted(given.keys() & common.keys()):
        raise FilterError(
            f"{name} and the filters of both sides have {twice[0]}={common[twice[0]]!r}. "
            "Give it once."
        )
    return check_filters({**common, **given})


def _default_baseline(
    session: Session,
    queries: Queries,
    bad: Mapping[str, Any],
    filters: Mapping[str, Any],
) -> list[sa.ColumnElement[bool]] | None:
    """Return the conditions of all runs of the same workflows in the same window."""
    table = queries.workflows
    created = sa.cast(queries.valid_time(table, "created_at"), sa.BigInteger())
    name = queries.column(table, "name")
    kinds = session.rows(
        sa.select(
            name.label("name"),
            sa.func.min(created).label("first"),
            sa.func.max(created).label("last"),
        )
        .where(*queries.where(bad))
        .group_by(sa.literal_column("1"))
    )
    first, last = (
        [int(kind[end]) for kind in kinds if kind[end] is not None] for end in ("first", "last")
    )
    if not first:
        return None
    names = [str(kind["name"]) for kind in kinds if kind["name"] is not None]
    same_kind = queries.member(name, names)
    if len(names) < len(kinds):
        same_kind = sa.or_(same_kind, name.is_(None))
    window = {key: bad[key] for key in ("start_time", "end_time") if key in bad}
    start = window.get("start_time", min(first))
    end = window.get("end_time", max(last))
    conditions = [*queries.where(check_filters(filters)), same_kind, created.between(start, end)]
    if not set(bad.get("status", ())) & set(WAITING_STATUSES):
        conditions.append(table.c.status.not_in(WAITING_STATUSES))
    return conditions


def _chosen(
    queries: Queries, bad: Mapping[str, Any], baseline: Iterable[sa.ColumnElement[bool]]
) -> sa.Subquery:
    """Return the runs of both sides with their fields, and whether they are bad (0 or 1)."""
    table = queries.workflows
    is_bad = sa.and_(sa.true(), *queries.where(bad))
    fields = [
        queries.column(table, GROUPABLE[column].source or "").label(name)
        for name, column in _FIELDS.items()
    ]
    return (
        sa.select(
            table.c.workflow_uuid,
            table.c.status,
            sa.case((is_bad, 1), else_=0).label("is_bad"),
            sa.cast(queries.valid_time(table, "created_at"), sa.BigInteger()).label("created"),
            queries.column(table, "attributes").label("attributes"),
            *fields,
        )
        .where(sa.or_(is_bad, sa.and_(sa.true(), *baseline)))
        .subquery("chosen")
    )


# Columns and attributes, counted in the database

_BAD, _TOTAL = (Column(name, "integer", "", name) for name in ("bad", "total"))
_VALUE = Column("value", "text", "", "value")
_KEY = Column("key", "text", "", "key")


def _count_fields(session: Session, queries: Queries, chosen: sa.Subquery) -> list[Counts]:
    table = queries.workflows
    hour = chosen.c.created // sa.literal_column(str(_HOUR_MS), sa.BigInteger())
    keys = {
        name: chosen.c[name]
        for name, column in _FIELDS.items()
        if not isinstance(queries.column(table, GROUPABLE[column].source or ""), Null)
    }
    counted = [_count_query(chosen, name, key) for name, key in keys.items()]
    # All hours, because those of a day are added up.
    statement = _grouped(chosen, hour, [])
    found = read_frames(
        session,
        (_totals(chosen, []), [_BAD, _TOTAL]),
        (_totals(chosen, [_unerased(chosen)]), [_BAD, _TOTAL]),
        (statement, [Column("hour", "integer", "", "hour"), _BAD, _TOTAL]),
        *counted,
        *_attribute_queries(queries, chosen),
    )
    totals, unerased, hours = found[:3]
    every, whole = (_sides(each.iloc[0]) for each in (totals, unerased))
    if not all(every):
        return []
    counts = list(_hours(hours, *every))
    for name, frame in zip(keys, found[3:], strict=False):
        of_bad, of_baseline = whole if name in _ERASED else every
        counts += _rows(frame, of_bad, of_baseline, field=name)
    for frame in found[3 + len(keys) :]:
        counts += _rows(frame, *every)
    return counts


def _sides(row: pd.Series[Any]) -> tuple[int, int]:
    bad = 0 if pd.isna(row["bad"]) else int(row["bad"])
    return bad, int(row["total"]) - bad


def _rows(frame: pd.DataFrame, of_bad: int, of_baseline: int, field: str = "") -> Iterator[Counts]:
    for _, row in frame.iterrows():
        bad, baseline = _sides(row)
        name = field or f"attributes.{row['key']}"
        yield Counts(name, str(row["value"]), bad, of_bad, baseline, of_baseline)


def _totals(chosen: sa.Subquery, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    sums: tuple[sa.ColumnElement[Any], ...] = (
        sa.func.sum(chosen.c.is_bad).label("bad"),
        sa.func.count().label("total"),
    )
    return sa.select(*sums).where(*conditions)


def _unerased(chosen: sa.Subquery) -> sa.ColumnElement[bool]:
    return chosen.c.status.not_in(INTERRUPTED_STATUSES)


def _grouped(
    chosen: sa.Subquery,
    key: sa.ColumnElement[Any],
    conditions: Sequence[sa.ColumnElement[bool]],
) -> sa.Select[Any]:
    return (
        sa.select(
            key.label("value"),
            sa.func.sum(chosen.c.is_bad).label("bad"),
            sa.func.count().label("total"),
        )
        .where(key.is_not(None), *conditions)
        .group_by(sa.literal_column("1"))
    )


def _count_query(chosen: sa.Subquery, name: str, key: sa.ColumnElement[Any]) -> TableQuery:
    conditions = [_unerased(chosen)] if name in _ERASED else []
    statement = _grouped(chosen, key, conditions).having(sa.func.count() >= MIN_COUNT)
    return statement.order_by(sa.func.count().desc(), key).limit(MAX_VALUES), [_VALUE, _BAD, _TOTAL]


def _attribute_queries(queries: Queries, chosen: sa.Subquery) -> list[TableQuery]:
    """Count the values of the top-level keys that are strings, numbers or booleans."""
    column = queries.column(queries.workflows, "attributes")
    if isinstance(column, Null):
        return []
    stored = chosen.c.attributes
    kind: sa.ColumnElement[Any]
    value: sa.ColumnElement[Any]
    plain: sa.ColumnElement[bool]
    if queries.catalog.dialect == "postgresql":
        document = sa.case((sa.func.jsonb_typeof(stored) == "object", stored))
        pairs = sa.func.jsonb_each(document).table_valued("key", "value").lateral("pair")
        kind = sa.func.jsonb_typeof(pairs.c.value)
        value = pairs.c.value.op("#>>")(sa.literal_column("'{}'::text[]"))
        plain = kind.in_(("string", "number", "boolean"))
    else:
        document = sa.case((sa.func.json_valid(stored) == 1, stored))
        pairs = sa.func.json_each(document).table_valued("key", "value", "type", "atom")
        pairs = pairs.alias("pair")
        kind = pairs.c.type
        value = sa.case((kind.in_(("true", "false")), kind), else_=sa.cast(pairs.c.atom, sa.Text()))
        is_object = sa.func.json_type(document) == "object"
        plain = sa.and_(is_object, kind.in_(("text", "integer", "real", "true", "false")))
    cut = sa.func.substr(value, 1, MAX_LENGTH)
    statement = (
        sa.select(
            sa.func.substr(pairs.c.key, 1, MAX_LENGTH).label("key"),
            cut.label("value"),
            sa.func.sum(chosen.c.is_bad).label("bad"),
            sa.func.count().label("total"),
        )
        .select_from(chosen.join(pairs, sa.true()))
        .where(plain)
        .group_by(sa.literal_column("1"), sa.literal_column("2"))
        .having(sa.func.count() >= MIN_COUNT)
        .order_by(sa.func.count().desc(), sa.literal_column("1"), sa.literal_column("2"))
        .limit(MAX_ATTRIBUTE_VALUES)
    )
    return [(statement, [_KEY, _VALUE, _BAD, _TOTAL])]


def _hours(hours: pd.DataFrame, of_bad: int, of_baseline: int) -> Iterator[Counts]:
    """Count the hours and, in a window of more than two days, the hours of the day, in UTC."""
    of_day: Counter[tuple[int, str]] = Counter()
    for _, row in hours.iterrows():
        bad, baseline = _sides(row)
        hour = int(row["hour"])
        begun = pd.Timestamp(hour * _HOUR_MS, unit="ms", tz="UTC")
        yield Counts("hour", f"{begun:%Y-%m-%d %H:00}", bad, of_bad, baseline, of_baseline)
        of_day[hour % _DAY_HOURS, "bad"] += bad
        of_day[hour % _DAY_HOURS, "baseline"] += baseline
    if len(hours) and hours["hour"].max() - hours["hour"].min() > 2 * _DAY_HOURS:
        for hour in sorted({hour for hour, _ in of_day}):
            bad, baseline = of_day[hour, "bad"], of_day[hour, "baseline"]
            yield Counts("hour_of_day", f"{hour:02}:00", bad, of_bad, baseline, of_baseline)


# Inputs, decoded from a sample


def _count_inputs(
    session: Session, queries: Queries, chosen: sa.Subquery, decoder: Decoder
) -> list[Counts]:
    sides = [_read_inputs(session, queries, chosen, is_bad, decoder) for is_bad in (1, 0)]
    return count_parts(*sides)


def _read_inputs(
    session: Session, queries: Queries, chosen: sa.Subquery, is_bad: int, decoder: Decoder
) -> list[dict[str, Any]]:
    """Return the parts of the inputs of some runs of a side, by their names."""
    drawn = sa.select(chosen.c.workflow_uuid.label("workflow_id")).where(chosen.c.is_bad == is_bad)
    rows = session.rows(drawn.order_by(sa.func.random()).limit(MAX_INPUTS))
    ids = [str(row["workflow_id"]) for row in rows]
    if not ids:
        return []
    loaded = queries.workflow_select(
        (), {"workflow_ids": ids}, load_input=True, newest_first=None
    ).subquery("loaded")
    short = sa.func.length(loaded.c.input) <= MAX_INPUT_CHARACTERS
    statement = sa.select(loaded.c.serialization, sa.case((short, loaded.c.input)).label("input"))
    columns = [Column(name, "text", "", name) for name in ("serialization", "input")]
    (frame,) = read_frames(session, (statement, columns))
    result = []
    for text, serialization in zip(frame["input"], frame["serialization"], strict=True):
        if pd.isna(text):
            continue
        written_by = None if pd.isna(serialization) else str(serialization)
        value = decoder(str(text), written_by, "input")
        # Of parts with the same name, the first, as in a listing.
        parts: dict[str, Any] = {}
        for name, part in frames.named_parts("input", value):
            if isinstance(part, str | int | float) and len(parts) < MAX_INPUT_FIELDS:
                parts.setdefault(name, part)
        result.append(parts)
    return result


def count_parts(
    bad: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> list[Counts]:
    """Count the values of the parts of inputs; many different numbers are counted by ranges.

    Examples
    --------
    >>> [each[1:] for each in count_parts([{"input.0": "a"}] * 4, [{"input.0": "b"}] * 3)]
    [('a', 4, 4, 0, 3), ('b', 0, 4, 3, 3)]
    """
    present = Counter(name for parts in (*bad, *baseline) for name in parts)
    counts: list[Counts] = []
    for name, _ in present.most_common(MAX_INPUT_FIELDS):
        values = [[parts[name] for parts in side if name in parts] for side in (bad, baseline)]
        labels = [_labels(each, edges) for edges in [_edges(values)] for each in values]
        both = labels[0] + labels[1]
        for value, total in both.most_common(MAX_VALUES):
            if total >= MIN_COUNT:
                counts.append(
                    Counts(name, value, labels[0][value], len(bad), labels[1][value], len(baseline))
                )
    return counts


def _edges(values: Sequence[Sequence[Any]]) -> list[float]:
    """Return the limits of ranges of numbers; none for other values and for few numbers."""
    every = [value for side in values for value in side]
    numbers = [
        float(value)
        for value in every
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    ]
    if len(numbers) < len(every) or len(set(numbers)) <= MAX_DISTINCT_NUMBERS:
        return []
    shares = np.linspace(0, 1, RANGES + 1)
    return sorted(set(np.quantile(numbers, shares, method="inverted_cdf").tolist()))


def _labels(values: Iterable[Any], edges: Sequence[float]) -> Counter[str]:
    labels: Counter[str] = Counter()
    for value in values:
        if edges:
            position = min(int(np.searchsorted(edges, value, side="right")), len(edges) - 1)
            labels[f"{edges[position - 1]:g} to {edges[position]:g}"] += 1
        elif not _is_long(value):
            labels[str(value)] += 1
    return labels


def _is_long(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > MAX_LENGTH
    # A digit has more than three bits; Python refuses to convert very long numbers.
    return isinstance(value, int) and value.bit_length() > 3 * MAX_LENGTH


# What is over-represented

COLUMNS = {
    "field": "text",
    "value": "text",
    "bad": "Int64",
    "of_bad": "Int64",
    "baseline": "Int64",
    "of_baseline": "Int64",
    "share_bad": "float64",
    "share_baseline": "float64",
    "lift": "float64",
    "lift_low": "float64",
    "lift_high": "float64",
    "p_value": "float64",
}


def over_represented(
    counts: Sequence[Counts], *, confidence: float, all_values: bool
) -> pd.DataFrame:
    """Return the values that are over-represented, the strongest first.

    Parameters
    ----------
    counts
        The values of all fields.
    confidence, all_values
        As in ``Client.contrast``.
    """
    limit = 1.0 - confidence

    @cache
    def can_be_significant(total: int, of_bad: int, of_baseline: int) -> bool:
        return smallest_p_value(total, of_baseline, of_bad) <= limit

    made = []
    for each in counts:
        total = each.bad + each.baseline
        varies = 0 < total < each.of_bad + each.of_baseline and each.of_bad and each.of_baseline
        if varies and can_be_significant(total, each.of_bad, each.of_baseline):
            sizes = each.baseline, each.of_baseline, each.bad, each.of_bad
            made.append((each, rate_ratio(*sizes, confidence)))
    p_values = adjust([lift.p_value for _, lift in made])
    rows = [
        (
            *each,
            each.bad / each.of_bad,
            each.baseline / each.of_baseline,
            *lift[:3],
            p_value,
        )
        for (each, lift), p_value in zip(made, p_values.tolist(), strict=True)
        if all_values or (p_value <= limit and lift.lower > 1.0)
    ]
    rows.sort(key=lambda row: (-row[9], row[11], row[0], row[1]))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(
        {name: STRING_DTYPE if dtype == "text" else dtype for name, dtype in COLUMNS.items()}
    )
