"""Compare two versions, or any two sets of runs: durations and error rates, with verdicts.

What is compared:

- Durations of runs that succeeded, and of steps that did: a run that fails early is not fast. Forks
  and recovered runs have no duration here, because they repeated only a part of the work.
- Error rates of runs that succeeded or failed. Cancelled runs count on neither side.
- A run that repeats a step counts once for it, as several durations of one run are not
  independent. How often runs repeat a step is read from the latest runs of each workflow.
- Runs that are still running have no duration yet, and those are the long ones. They are counted,
  and a verdict about durations must also hold if they take longer than every other run.

A verdict needs a change that is significant after the adjustment for all comparisons of the call,
an interval without zero, and an estimated change of at least ``min_effect``; a change of a duration
must also be larger than the resolution of the recorded times.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dbos_notebook.analysis import confidence as statistics
from dbos_notebook.analysis.confidence import UNKNOWN, IntervalEstimate, Sample
from dbos_notebook.analysis.failures import failures
from dbos_notebook.analysis.selections import (
    BUCKET_BITS,
    bucket_value,
    evaluated_once,
    has_forks,
    log_bucket,
    run_columns,
    run_rows,
    step_columns,
    step_rows,
)
from dbos_notebook.errors import FilterError, nearest
from dbos_notebook.status import ERROR_STATUSES
from dbos_notebook.tables import frames
from dbos_notebook.tables.aggregates import TableQuery, read_frames
from dbos_notebook.tables.columns import STRING_DTYPE, Column
from dbos_notebook.tables.filters import check_filters
from dbos_notebook.tables.sql import Queries
from dbos_notebook.tables.timing import SECOND_MS

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session

RunSet: TypeAlias = "str | Mapping[str, Any]"
"""An application version, or filters of workflows."""
Kind: TypeAlias = "tuple[str, str | None, str | None]"
"""What is compared: "workflow" or "step", the workflow's name, the step's name."""
Cause: TypeAlias = "tuple[str | None, str | None, str | None, str | None]"
"""Why runs failed: the workflow's name, the failed step, the type of the error, its message."""

MIN_COUNT = 10
"""Fewer runs on a side are too few for the p50."""
MIN_COUNT_P99 = 299
"""Fewer runs on a side are too few for the p99: 0.99 ** 299 is 5 %, so that fewer may all be below
it."""
BUCKET_ERROR = 0.5 / (1 << BUCKET_BITS)
"""The largest relative error of the middle of a bucket."""
OF = ("workflow", "step", "failure")
SAMPLED_RUNS = 100
"""Latest runs of each workflow and side of which steps are read to see how often they repeat."""
_OWN_OPERATIONS = "DBOS."
_MAX_NAMED = 20

_SUCCEEDED, _FAILED, _RUNNING, _OTHER = "succeeded", "failed", "running", "other"


class Side(NamedTuple):
    """The runs of one kind on one side.

    Attributes
    ----------
    durations
        Those that are known, in milliseconds.
    finished
        How many succeeded or failed.
    failed
        How many of these failed.
    running
        How many are running; ``None`` for steps, of which DBOS records only those that ended.
    resolution
        Of the recorded times, in milliseconds.
    failures_per_run
        How many failures there are for each run that has one.
    """

    durations: Sample
    finished: int
    failed: int
    running: int | None = 0
    resolution: int = 1
    failures_per_run: float = 1.0


ABSENT = Side(Sample([], []), 0, 0)


def compare_versions(
    session: Session,
    queries: Queries,
    baseline: RunSet,
    candidate: RunSet,
    of: str | Iterable[str],
    min_effect: float,
    confidence: float,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Compare the workflows and steps of two sets of runs; see ``Client.compare_versions``."""
    kinds = _check_of(of)
    check_share(min_effect, "min_effect", 0.0, 10.0)
    check_share(confidence, "confidence", 0.5, 1.0)
    now = dt.datetime.now(dt.UTC)
    sides = [
        check_filters(_merge(side, name, filters), now=now)
        for side, name in ((baseline, "baseline"), (candidate, "candidate"))
    ]
    if sides[0] == sides[1]:
        raise FilterError(
            f"baseline={baseline!r} and candidate={candidate!r} select the same runs. Give two "
            "versions, or two dicts of filters."
        )
    _check_versions(session, queries, [s for s in (baseline, candidate) if isinstance(s, str)])
    if not isinstance(baseline, str) or not isinstance(candidate, str):
        _check_disjoint(session, queries, *sides)
    moment = round(now.timestamp() * 1000)
    groups: dict[Kind, tuple[Side, Side]] = {}
    causes: dict[Cause, tuple[Side, Side]] = {}
    if "step" in kinds:
        groups |= _pairs(*(_read_steps(session, queries, side, moment) for side in sides))
    if {"workflow", "failure"} & set(kinds):
        runs = _pairs(*(_read_runs(session, queries, side, moment) for side in sides))
        if "workflow" in kinds:
            groups |= runs
        if "failure" in kinds:
            before, after = (_read_causes(session, queries, side) for side in sides)
            causes = _changed_causes(before, after, runs)
    rows = compare_sides(groups, causes, min_effect=min_effect, confidence=confidence)
    return frames.mark_listing(to_frame(rows), "compare_versions")


# What was asked for


def _check_of(of: str | Iterable[str]) -> list[str]:
    names = [of] if isinstance(of, str) else list(dict.fromkeys(of))
    for name in names:
        if name not in OF:
            raise FilterError(
                f"of={name!r} cannot be compared.{nearest(name, OF)} Give 'workflow', 'step', "
                "'failure', or several of them."
            )
    return names


def check_share(value: Any, name: str, low: float, high: float) -> None:
    """Raise FilterError unless a number is at least ``low`` and below ``high``."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not low <= value < high:
        raise FilterError(f"{name}={value!r} must be a number from {low:g} to below {high:g}.")


def _merge(side: RunSet, name: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(side, str):
        side = {"app_version": side}
    if not isinstance(side, Mapping):
        raise FilterError(
            f"{name}={side!r} must be an application version, or a dict of filters such as "
            '{"start_time": "2h"}.'
        )
    common = {key: value for key, value in filters.items() if value is not None}
    if twice := sorted(side.keys() & common.keys()):
        raise FilterError(
            f"{name}={side!r} and the filters of both sides have {twice[0]}={common[twice[0]]!r}. "
            "Give it once."
        )
    return {**common, **side}


def _check_versions(session: Session, queries: Queries, versions: Sequence[str]) -> None:
    """Raise FilterError for a version that no workflow has and that was not registered."""
    table = queries.workflows
    version = queries.column(table, "application_version")
    registered = queries.catalog.table("application_versions")
    has_names = queries.catalog.has("application_versions", "version_name")
    for wanted in versions:
        found = sa.select(sa.literal(1)).where(version == wanted, *queries.owned(table)).limit(1)
        named = sa.select(sa.literal(1)).where(
            queries.column(registered, "version_name") == wanted, *queries.owned(registered)
        )
        if session.rows(found) or (has_names and session.rows(named.limit(1))):
            continue
        known = sa.select(version.label("version")).where(version.is_not(None))
        rows = session.rows(known.where(*queries.owned(table)).distinct())
        names = sorted(str(row["version"]) for row in rows)
        listed = ", ".join(names[-_MAX_NAMED:]) or "none"
        raise FilterError(
            f"No workflow has the version {wanted!r}.{nearest(wanted, names)} "
            f"The versions are: {listed}."
        )


def _check_disjoint(
    session: Session, queries: Queries, side: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    """Raise FilterError if a run is on both sides: they are compared as independent."""
    key = queries.workflows.c.workflow_uuid
    both = sa.select(key.label("workflow_id")).where(*queries.where(side), *queries.where(other))
    if rows := session.rows(both.limit(1)):
        raise FilterError(
            f"baseline and candidate both select the workflow {rows[0]['workflow_id']!r}. Give "
            "filters that exclude each other, such as an end_time before the other's start_time."
        )


# The database aggregates: a row for each kind, outcome and logarithmic bucket of the duration


def _counted(name: str) -> Column:
    return Column(name, "integer", "", name)


_MEASURES = (
    Column("outcome", "category", "", "outcome"),
    *(_counted(name) for name in ("bucket", "count", "fractional")),
)


def _run_query(queries: Queries, filters: Mapping[str, Any], now: int) -> TableQuery:
    columns = run_columns(("name", "forked_from", "recovery_attempts"))
    rows = run_rows(queries, columns, filters, now)
    status = rows.c.run_status
    outcome = sa.case(
        (status == "SUCCESS", _SUCCEEDED),
        (status.in_(ERROR_STATUSES), _FAILED),
        (status == "PENDING", _RUNNING),
        else_=_OTHER,
    )
    attempts = sa.cast(rows.c.recovery_attempts, sa.BigInteger())
    whole = sa.and_(
        status == "SUCCESS", rows.c.forked_from.is_(None), sa.func.coalesce(attempts, 1) <= 1
    )
    return _buckets(rows, columns[:1], outcome, whole)


def _step_query(queries: Queries, filters: Mapping[str, Any], *, forks: bool) -> TableQuery:
    columns = step_columns(("name", "function_name"))
    rows = step_rows(queries, columns, filters, forks=forks)
    outcome = sa.case((rows.c.failed == 1, _FAILED), else_=_SUCCEEDED)
    return _buckets(rows, columns, outcome, rows.c.failed == 0)


def _buckets(
    rows: sa.Subquery,
    columns: Sequence[Column],
    outcome: sa.ColumnElement[Any],
    timed: sa.ColumnElement[bool],
) -> TableQuery:
    duration = sa.cast(rows.c.duration_ms, sa.BigInteger())
    inner = sa.select(
        *(rows.c[column.name] for column in columns),
        outcome.label("outcome"),
        sa.case((timed, duration)).label("duration"),
    )
    if "function_name" in rows.c:
        # DBOS's own steps wait for something, or record it.
        inner = inner.where(rows.c.function_name.not_like(f"{_OWN_OPERATIONS}%"))
    inner_rows = evaluated_once(inner.subquery("timed"))
    fractional = sa.case((inner_rows.c.duration % SECOND_MS != 0, 1), else_=0)
    keys = [inner_rows.c[column.name] for column in columns]
    grouped = (*keys, inner_rows.c.outcome, log_bucket(inner_rows.c.duration))
    statement = sa.select(
        *keys,
        inner_rows.c.outcome,
        grouped[-1].label("bucket"),
        sa.func.count().label("count"),
        sa.func.sum(fractional).label("fractional"),
    ).group_by(*(sa.literal_column(str(i + 1)) for i in range(len(grouped))))
    named = [Column(column.name, "text", "", column.name) for column in columns]
    return statement, [*named, *_MEASURES]


def _pairs(
    baseline: Mapping[Kind, Side], candidate: Mapping[Kind, Side]
) -> dict[Kind, tuple[Side, Side]]:
    return {
        kind: (baseline.get(kind, ABSENT), candidate.get(kind, ABSENT))
        for kind in {**baseline, **candidate}
    }


def _read_runs(
    session: Session, queries: Queries, filters: Mapping[str, Any], now: int
) -> dict[Kind, Side]:
    (found,) = read_frames(session, _run_query(queries, filters, now))
    return _read_sides("workflow", found, {})


def _read_steps(
    session: Session, queries: Queries, filters: Mapping[str, Any], now: int
) -> dict[Kind, Side]:
    forks = has_forks(session, queries)
    (found,) = read_frames(session, _step_query(queries, filters, forks=forks))
    repeats = _read_repeats(session, queries, filters, now, forks=forks)
    return _read_sides("step", found, repeats)


def _read_causes(session: Session, queries: Queries, filters: Mapping[str, Any]) -> Counter[Cause]:
    """Return how many runs failed by each cause."""
    statuses = [each for each in filters.get("status", ERROR_STATUSES) if each in ERROR_STATUSES]
    causes: Counter[Cause] = Counter()
    if not statuses:
        return causes
    found = failures(session, queries, None, "created_at", {**filters, "status": statuses})
    names = ("name", "failed_step", "error_type", "message")
    columns = [found[name].astype(object) for name in names]
    for *texts, count in zip(*columns, found["count"], strict=True):
        name, step, kind, message = (each if isinstance(each, str) else None for each in texts)
        causes[name, step, kind, message] += int(count)
    return causes


def _changed_causes(
    before: Mapping[Cause, int],
    after: Mapping[Cause, int],
    runs: Mapping[Kind, tuple[Side, Side]],
) -> dict[Cause, tuple[Side, Side]]:
    """Return the causes of one side only, each among the runs of its workflow."""
    changed: dict[Cause, tuple[Side, Side]] = {}
    for cause in sorted(before.keys() ^ after.keys(), key=str):
        sides = runs.get(("workflow", cause[0] or "", None), (ABSENT, ABSENT))
        counts = before.get(cause, 0), after.get(cause, 0)
        # A failure may have begun in a child that the filters do not select.
        old, new = (
            Side(Sample([], []), max(side.finished, count), count, None)
            for side, count in zip(sides, counts, strict=True)
        )
        changed[cause] = old, new
    return changed


def _read_repeats(
    session: Session, queries: Queries, filters: Mapping[str, Any], now: int, *, forks: bool
) -> dict[Kind, tuple[float, float]]:
    """Return how often a run repeats each step, and how often a run with a failure of it fails."""
    name, step = step_columns(("name", "function_name"))
    runs = run_rows(queries, [name], filters, now)
    latest = (
        sa.func.row_number()
        .over(partition_by=runs.c.name, order_by=runs.c.created_at_ms.desc())
        .label("latest")
    )
    numbered = sa.select(runs.c.workflow_uuid, latest).subquery("numbered")
    sampled = sa.select(numbered.c.workflow_uuid).where(numbered.c.latest <= SAMPLED_RUNS)
    ids = [str(row["workflow_uuid"]) for row in session.rows(sampled)]
    rows = step_rows(queries, [name, step], {"workflow_ids": ids}, forks=forks)
    own = (
        sa.select(
            rows.c.name,
            rows.c.function_name,
            sa.func.count().label("steps"),
            sa.func.sum(rows.c.failed).label("failures"),
        )
        .group_by(rows.c.name, rows.c.function_name, rows.c.workflow_uuid)
        .subquery("own")
    )
    statement = sa.select(
        own.c.name,
        own.c.function_name,
        sa.func.count().label("runs"),
        sa.func.sum(own.c.steps).label("steps"),
        sa.func.sum(sa.case((own.c.failures > 0, 1), else_=0)).label("failed_runs"),
        sa.func.sum(own.c.failures).label("failures"),
    ).group_by(sa.literal_column("1"), sa.literal_column("2"))
    repeats = {}
    for row in session.rows(statement):
        count, failed = int(row["runs"]), int(row["failed_runs"])
        repeats[_kind("step", (row["name"], row["function_name"]))] = (
            float(row["steps"]) / count,
            float(row["failures"]) / failed if failed else 1.0,
        )
    return repeats


def _kind(of: str, names: Sequence[Any]) -> Kind:
    workflow, *step = [name if isinstance(name, str) else None for name in names]
    return of, workflow or "", step[0] if step else None


def _read_sides(
    of: str, found: pd.DataFrame, repeats: Mapping[Kind, tuple[float, float]]
) -> dict[Kind, Side]:
    """Return the side of each kind from the counts per outcome and bucket."""
    keys = ["name"] if of == "workflow" else ["name", "function_name"]
    counts: defaultdict[Kind, Counter[str]] = defaultdict(Counter)
    timed: defaultdict[Kind, list[tuple[int, int]]] = defaultdict(list)
    fractional: set[Kind] = set()
    # A loop, because pandas takes milliseconds for each group.
    measures = ("outcome", "bucket", "count", "fractional")
    columns = (found[name].astype(object) for name in (*keys, *measures))
    for *names, outcome, bucket, count, inexact in zip(*columns, strict=True):
        key = _kind(of, names)
        counts[key][outcome] += count
        # Negative durations are those of clocks that differ.
        if not pd.isna(bucket) and bucket >= 0:
            timed[key].append((bucket, count))
            if inexact:
                fractional.add(key)
    sides: dict[Kind, Side] = {}
    for key, of_outcome in counts.items():
        steps_per_run, failures_per_run = repeats.get(key, (1.0, 1.0))
        numbers = np.array(timed[key], np.int64).reshape(-1, 2).T
        finished = of_outcome[_SUCCEEDED] + of_outcome[_FAILED]
        if finished or of_outcome[_RUNNING]:
            sides[key] = Side(
                Sample(bucket_value(numbers[0]), numbers[1], BUCKET_ERROR, 1.0 / steps_per_run),
                finished,
                of_outcome[_FAILED],
                of_outcome[_RUNNING] if of == "workflow" else None,
                SECOND_MS if timed[key] and key not in fractional else 1,
                failures_per_run,
            )
    return sides


# Verdicts

Change = Literal["p50", "p99", "error_rate"]
_CHANGES: tuple[Change, ...] = ("error_rate", "p50", "p99")
_WORDS: dict[Change, tuple[str, str]] = {
    "error_rate": ("more errors", "fewer errors"),
    "p50": ("slower", "faster"),
    "p99": ("slower at p99", "faster at p99"),
}
NO_EVIDENCE, TOO_FEW, NEW, GONE = "no evidence", "too few", "new", "gone"
_ORDER = (
    *(words[0] for words in _WORDS.values()),
    NEW,
    *(words[1] for words in _WORDS.values()),
    GONE,
    NO_EVIDENCE,
    TOO_FEW,
)


def compare_sides(
    groups: Mapping[Kind, tuple[Side, Side]],
    causes: Mapping[Cause, tuple[Side, Side]] | None = None,
    *,
    min_effect: float,
    confidence: float,
) -> list[dict[str, Any]]:
    """Return a row for each kind and each new or gone cause of failures, the worst first.

    Parameters
    ----------
    groups
        The baseline and the candidate of each kind.
    causes
        The runs of the workflow of each new or gone cause on both sides, of which those that
        failed by it failed.
    min_effect, confidence
        As in ``Client.compare_versions``.
    """
    limit = 1.0 - confidence
    tests: dict[Any, dict[Change, IntervalEstimate]]
    tests = {key: _changes(*sides, confidence) for key, sides in groups.items()}
    changed = causes or {}
    tests |= {cause: _rate_change(*sides, confidence) for cause, sides in changed.items()}
    places = [(key, change) for key, made in tests.items() for change in made]
    p_values = statistics.adjust([tests[key][change].p_value for key, change in places])
    adjusted = dict(zip(places, p_values.tolist(), strict=True))
    total = [
        sum(sides[side].finished for sides in (*groups.values(), *changed.values()))
        for side in (0, 1)
    ]
    rows = []
    for key, sides in (*groups.items(), *changed.items()):
        own = {change: adjusted[key, change] for change in tests[key]}
        known = [value for value in own.values() if not math.isnan(value)]
        if key in changed:
            new = not sides[0].failed
            verdict = TOO_FEW if not total[0 if new else 1] else NEW if new else GONE
        else:
            verdict = _verdict(
                sides, tests[key], own, min_effect=min_effect, limit=limit, total=total
            )
        rows.append(_row(key, sides, tests[key], verdict, min(known, default=math.nan)))
    return sorted(rows, key=_severity)


def _rate_change(old: Side, new: Side, confidence: float) -> dict[Change, IntervalEstimate]:
    """Return the change of the error rate, if there are enough runs or failures."""
    # Failures of one run are not independent of each other.
    repeated = max(1.0, (old.failures_per_run + new.failures_per_run) / 2)
    sizes = old.finished / repeated, new.finished / repeated
    failed = old.failed / repeated, new.failed / repeated
    possible = statistics.smallest_p_value(sum(failed), *sizes) <= 1.0 - confidence
    if not possible and min(sizes) < MIN_COUNT:
        return {}
    return {
        "error_rate": statistics.compare_rates(failed[0], sizes[0], failed[1], sizes[1], confidence)
    }


def _changes(old: Side, new: Side, confidence: float) -> dict[Change, IntervalEstimate]:
    """Return the changes for which there are enough runs."""
    made = _rate_change(old, new, confidence)
    smallest = min(old.durations.size, new.durations.size)
    if smallest >= MIN_COUNT:
        made["p50"] = _duration_change(old, new, 0.5, confidence)
    if smallest >= MIN_COUNT_P99:
        made["p99"] = _duration_change(old, new, 0.99, confidence)
    return made


def _duration_change(old: Side, new: Side, q: float, confidence: float) -> IntervalEstimate:
    smallest = max(old.resolution, new.resolution) / 2
    before, after = old.durations, new.durations
    change = statistics.compare_quantiles(before, after, q, confidence, smallest=smallest)
    # On one side, longer durations would be evidence against the change.
    if (slower := change.value > 0) and old.running:
        before = before.with_larger(old.running)
    elif not slower and new.running:
        after = after.with_larger(new.running)
    else:
        return change
    bound = statistics.compare_quantiles(before, after, q, confidence, smallest=smallest)
    opposed = not bound.value * change.value > 0
    return change._replace(p_value=1.0 if opposed else max(change.p_value, bound.p_value))


def _verdict(
    sides: tuple[Side, Side],
    changes: Mapping[Change, IntervalEstimate],
    p_values: Mapping[Change, float],
    *,
    min_effect: float,
    limit: float,
    total: Sequence[int],
) -> str:
    old, new = sides
    for side, other, word, of_other in ((new, old, NEW, total[0]), (old, new, GONE, total[1])):
        if side.finished and not other.finished and not other.running:
            return word if of_other else TOO_FEW
    words: list[str] = []
    for name in _CHANGES:
        if name not in changes:
            continue
        change = changes[name]
        larger, smaller = change.lower > 0.0, change.upper < 0.0
        if not (p_values[name] <= limit and (larger or smaller)):
            continue
        if name == "error_rate":
            relevant = abs(change.value) >= min_effect * old.failed / old.finished
        else:
            q = 0.5 if name == "p50" else 0.99
            shift = abs(new.durations.quantile(q) - old.durations.quantile(q))
            relevant = abs(change.value) >= min_effect and shift > max(
                old.resolution, new.resolution
            )
        word = _WORDS[name][0 if larger else 1]
        # The p99 of what is slower is slower too.
        if relevant and not (name == "p99" and word.removesuffix(" at p99") in words):
            words.append(word)
    untimed = not old.durations.size and not new.durations.size
    tested = "error_rate" in changes and ("p50" in changes or untimed)
    return ", ".join(words) or (NO_EVIDENCE if tested else TOO_FEW)


# The frame

_SIDES = ("baseline", "candidate")


def _columns() -> dict[str, str]:
    """Return the columns in order with their dtypes."""
    columns = dict.fromkeys(("of", "name", "function_name", "verdict"), "text")
    columns["p_value"] = "float64"
    for name in ("count", "running"):
        columns |= {f"{name}_{side}": "Int64" for side in _SIDES}
    for name, dtype in (
        ("p50", "timedelta64[ms]"),
        ("p99", "timedelta64[ms]"),
        ("error_rate", "float64"),
    ):
        columns |= {f"{name}_{side}": dtype for side in _SIDES}
        columns |= {f"{name}_{end}": "float64" for end in ("change", "change_low", "change_high")}
    return columns | dict.fromkeys(("error_type", "message"), "text")


COLUMNS = _columns()


def _row(
    key: tuple[str | None, ...],
    sides: tuple[Side, Side],
    changes: Mapping[Change, IntervalEstimate],
    verdict: str,
    p_value: float,
) -> dict[str, Any]:
    row: dict[str, Any] = {"verdict": verdict, "p_value": p_value}
    if len(key) == 4:
        row["of"] = "failure"
        row |= dict(zip(("name", "function_name", "error_type", "message"), key, strict=True))
    else:
        row |= dict(zip(("of", "name", "function_name"), key, strict=True))
    for side, name in zip(sides, _SIDES, strict=True):
        durations = side.durations
        row[f"count_{name}"] = side.failed if row["of"] == "failure" else side.finished
        row[f"running_{name}"] = side.running if row["of"] == "workflow" else None
        row[f"p50_{name}"] = durations.quantile(0.5)
        row[f"p99_{name}"] = durations.quantile(0.99) if durations.size >= MIN_COUNT_P99 else None
        row[f"error_rate_{name}"] = side.failed / side.finished if side.finished else None
    for change in _CHANGES:
        value, lower, upper, _ = changes.get(change, UNKNOWN)
        if change != "error_rate" and row[f"{change}_baseline"] == 0:
            # A multiple of what is below the resolution of the times is unknown.
            value = lower = upper = math.nan
        row |= {
            f"{change}_change": value,
            f"{change}_change_low": lower,
            f"{change}_change_high": upper,
        }
    return row


def _severity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    p_value = 2.0 if math.isnan(row["p_value"]) else row["p_value"]
    count = row["count_baseline"] + row["count_candidate"]
    return _ORDER.index(row["verdict"].partition(",")[0]), p_value, -count, row["of"] != "workflow"


def to_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the frame of ``Client.compare_versions`` with durations in milliseconds."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    dtypes: dict[str, Any] = dict(COLUMNS)
    for name, dtype in COLUMNS.items():
        if dtype == "text":
            dtypes[name] = STRING_DTYPE
        elif dtype == "timedelta64[ms]":
            frame[name] = pd.to_timedelta(frame[name].astype("float64").round(), unit="ms")
    return frame.astype(dtypes)
