"""Failed workflows by cause: where it began, the step, the error, and a template of its message."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from dbos_notebook.analysis.fingerprints import fingerprint
from dbos_notebook.control.failure_analysis import unaddressed
from dbos_notebook.errors import FilterError
from dbos_notebook.status import ERROR_STATUSES, FAILED_STATUSES
from dbos_notebook.tables import failed_steps, frames, timing
from dbos_notebook.tables.aggregates import bucket_ms, counts, select_columns
from dbos_notebook.tables.columns import WORKFLOW, Column

if TYPE_CHECKING:
    from dbos_notebook.database.reader import Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.sql import Queries

KEYS = ("name", "failed_step", "error_type", "message", "status")
"""The columns by which failures are grouped."""
COLUMNS: tuple[Column, ...] = (
    Column("name", "category", "The workflow in which the failure began.", "name"),
    Column("failed_step", "category", "Its step that failed; missing: its own code.", "step"),
    Column("error_type", "category", "The class of the cause, not of its wrapper.", "type"),
    Column("message", "text", "The message, with placeholders for what differs.", "message"),
    Column("count", "integer", "How many workflows.", "count"),
    Column("share", "number", "Of the workflow's runs in the window.", "share"),
    Column("unaddressed", "integer", "How many have no fork that helps.", "unaddressed"),
    Column("failed_ancestors", "integer", "How many more failed because of them.", "ancestors"),
    Column("first_seen", "instant", "When the first one failed.", "first"),
    Column("last_seen", "instant", "When the last one failed.", "last"),
    Column("status", "status", "ERROR, or MAX_RECOVERY_ATTEMPTS_EXCEEDED.", "status"),
    Column("example", "text", "The ID of the newest.", "example"),
)
"""The columns of the result; those of lists stand before and after ``example``."""

_TIMES = {c.name: c for c in WORKFLOW if c.name in ("created_at", "completed_at")}
_EXTRA = pa.schema(
    [
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("app_version", pa.dictionary(pa.int32(), pa.string())),
        ("parent_workflow_id", pa.large_string()),
        ("created_ms", pa.int64()),
        ("ended_ms", pa.int64()),
        ("moment_ms", pa.int64()),
    ]
)
_SCHEMA = pa.schema([*failed_steps.SCHEMA, *_EXTRA])
_AWAITED_DEAD = "DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded"


def failures(
    session: Session,
    queries: Queries,
    bucket: Any,
    time: str,
    filters: Mapping[str, Any],
) -> pd.DataFrame:
    """Group failed workflows by cause; see :meth:`Client.failures`."""
    statuses = filters.get("status", ERROR_STATUSES)
    for status in statuses:
        if status not in FAILED_STATUSES:
            raise FilterError(
                f"status={status!r} is no failure. failures() counts {' and '.join(ERROR_STATUSES)}"
                "; status='CANCELLED' counts cancelled workflows."
            )
    (moment,) = select_columns(time, _TIMES, "time")
    width = None if bucket is None else bucket_ms(bucket)
    rows = _origins(session, queries, moment, {**filters, "status": list(statuses)})
    if width is not None:
        rows = rows[rows["moment_ms"].notna()]
        rows = rows.assign(bucket_ms=rows["moment_ms"] // width * width)
    parents = dict(zip(rows["workflow_id"], rows["parent_workflow_id"], strict=True))
    waiting = unaddressed(session, queries, parents)
    rows["unaddressed"] = [key in waiting for key in parents]
    everything = {k: v for k, v in filters.items() if k not in ("status", "error", "search")}
    runs = counts(session, queries, "name", bucket, time, everything)
    return _grouped(rows, runs, None if width is None else moment)


def _origins(
    session: Session, queries: Queries, moment: Column, filters: Mapping[str, Any]
) -> pd.DataFrame:
    """Return one row for each workflow in which a failure of the selected workflows began.

    The columns ``ancestors`` and ``selected`` are the selected workflows that failed because of it,
    and whether it is selected itself.
    """
    read = _reader(session, queries, moment)
    rows = read(queries.where(filters)).assign(selected=True)
    ids, origins = rows["workflow_id"].tolist(), rows["origin"].tolist()
    # Children that the filters do not select, and those that ran out of attempts.
    missing = [*origins, *_awaited_dead(rows).values()]
    known = set(ids)
    while missing := [key for key in dict.fromkeys(missing) if key not in known]:
        more = read(queries.id_rows(missing)).assign(selected=False)
        rows = pd.concat([rows, more], ignore_index=True)
        known.update(missing)
        missing = list(_awaited_dead(more).values())
    positions = {key: position for position, key in enumerate(rows["workflow_id"])}
    dead = set(rows["workflow_id"][rows["status"] == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
    replaced = {key: child for key, child in _awaited_dead(rows).items() if child in dead}
    ancestors: dict[str, list[str]] = {}
    for workflow_id, origin in zip(ids, origins, strict=True):
        origin = replaced.get(origin, origin)
        # A workflow that is no longer there is no origin.
        above = ancestors.setdefault(origin if origin in positions else workflow_id, [])
        if origin != workflow_id and origin in positions:
            above.append(workflow_id)
    result = rows.iloc[[positions[key] for key in ancestors]].reset_index(drop=True)
    result["ancestors"] = pd.Series(list(ancestors.values()), result.index, dtype=object)
    return result


def _awaited_dead(rows: pd.DataFrame) -> dict[str, str]:
    """Return the children that are said to have run out of attempts, by what awaited them."""
    awaiting = rows[rows["awaits_dead"]]
    return dict(zip(awaiting["workflow_id"], awaiting["child_workflow_id"], strict=True))


def _reader(session: Session, queries: Queries, moment: Column) -> Callable[[Any], pd.DataFrame]:
    """Return a function that reads failed workflows with the columns that are needed here."""
    table = queries.workflows
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)

    def milliseconds(name: str) -> sa.ColumnElement[Any]:
        return sa.cast(queries.valid_time(table, name), sa.BigInteger())

    values = (
        queries.column(table, "name"),
        queries.column(table, "application_version"),
        queries.column(table, "parent_workflow_id"),
        milliseconds("created_at"),
        timing.sql_times(queries, now)["ended_at"],
        milliseconds(moment.source or ""),
    )
    extra = [value.label(name) for value, name in zip(values, _EXTRA.names, strict=True)]

    def read(chosen: Any) -> pd.DataFrame:
        batches = failed_steps.failure_batches(session, queries, chosen, _SCHEMA, extra)
        table = _fingerprinted(batches, queries.decoder)
        return _frame(table, failed_steps.failed_steps(session, queries, table))

    return read


def _fingerprinted(batches: Iterable[pa.RecordBatch], decoder: Decoder) -> pa.Table:
    """Add the errors and their templates; drop the recorded texts, which may be large."""
    read = []
    for batch in batches:
        templates: dict[str, str] = {}
        errors = frames.decode_errors(batch["_error"], batch["_serialization"], decoder)
        messages = errors["error_message"].to_pylist()
        pairs = zip(messages, batch["workflow_id"].to_pylist(), strict=True)
        filled = [_template(message, workflow_id, templates) for message, workflow_id in pairs]
        differs = pc.is_valid(batch["step_error"])
        position = batch.schema.names.index("_error")
        stored = pc.if_else(differs, batch["_error"], pa.scalar(None, batch["_error"].type))
        batch = batch.set_column(position, "_error", stored)
        batch = batch.append_column("error_type", errors["error_type"])
        read.append(
            batch.append_column("message", pa.array(filled, pa.string()).dictionary_encode())
        )
    return pa.Table.from_batches(read).unify_dictionaries()


def _template(message: str | None, workflow_id: str, templates: dict[str, str]) -> str | None:
    if message is None:
        return None
    if workflow_id in message:
        return fingerprint(message, workflow_id)
    if message not in templates:
        templates[message] = fingerprint(message)
    return templates[message]


def _frame(table: pa.Table, steps: pa.Table) -> pd.DataFrame:
    """Return the columns that are needed, with the workflow in which each failure began."""
    names = ("workflow_id", "child_workflow_id", "status", "message", "error_type", *_EXTRA.names)
    frame: pd.DataFrame = pa.table({name: table[name] for name in names}).to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    )
    # Plain Python strings, because they are looked up one by one.
    for name in ("workflow_id", "child_workflow_id", "parent_workflow_id"):
        frame[name] = pd.Series(table[name].to_pylist(), frame.index, dtype=object)
    frame["failed_step"] = steps["failed_step"].to_pandas()
    # A workflow that did not raise an error, but was stopped, is the origin itself.
    began = zip(steps["failed_workflow_id"].to_pylist(), frame["workflow_id"], strict=True)
    frame["origin"] = pd.Series([a or b for a, b in began], frame.index, dtype=object)
    frame["awaits_dead"] = (
        (frame["origin"] == frame["workflow_id"])
        & frame["failed_step"].notna()
        & frame["child_workflow_id"].notna()
        & frame["error_type"].astype("object").str.endswith(_AWAITED_DEAD, na=False)
    )
    return frame


def _grouped(rows: pd.DataFrame, runs: pd.DataFrame, moment: Column | None) -> pd.DataFrame:
    """Aggregate the origins by cause, and by bucket if there is one."""
    keys = [*KEYS] if moment is None else ["bucket_ms", *KEYS]
    # The newest first, so that it is the example.
    rows = rows.sort_values(["created_ms", "workflow_id"], ascending=False, ignore_index=True)
    groups = rows.groupby(keys, observed=True, dropna=False, sort=False)
    codes = groups.ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    # A loop over the members of all groups is faster than an aggregation of each group by pandas.
    members = np.split(order, starts[1:]) if len(rows) else []
    result = rows.iloc[order[starts]].reset_index(drop=True)
    result["example"] = result["workflow_id"]
    result["count"] = [len(part) for part in members]
    for name in ("unaddressed", "selected"):
        flags = rows[name].to_numpy(bool)
        result[name] = [int(flags[part].sum()) for part in members]
    ids, versions, ancestors = (
        rows[name].astype("object").to_numpy()
        for name in ("workflow_id", "app_version", "ancestors")
    )
    lists: dict[str, list[list[str]]] = {
        "versions": [sorted({v for v in versions[part] if isinstance(v, str)}) for part in members],
        "workflow_ids": [ids[part].tolist() for part in members],
        "ancestor_ids": [[key for each in ancestors[part] for key in each] for part in members],
    }
    for name, values in lists.items():
        result[name] = pd.Series(values, result.index, dtype=object)
    result["failed_ancestors"] = [len(each) for each in lists["ancestor_ids"]]
    ended = groups["ended_ms"]
    result["first_seen"], result["last_seen"] = ended.min().to_numpy(), ended.max().to_numpy()
    result["share"] = _shares(result, runs, moment)
    result = result.sort_values(["count", "last_seen"], ascending=False, kind="stable")
    if moment is not None:
        result = result.sort_values("bucket_ms", kind="stable")
    return _listing(result.reset_index(drop=True), moment)


def _shares(groups: pd.DataFrame, runs: pd.DataFrame, moment: Column | None) -> list[float | None]:
    """Return the share of the selected failures of a group among the runs of their workflow."""
    keys: list[Any] = runs["name"].tolist()
    names: list[Any] = groups["name"].tolist()
    if moment is not None:
        starts = runs[moment.name].dt.as_unit("ms").astype("int64")
        keys = list(zip(keys, starts, strict=True))
        names = list(zip(names, groups["bucket_ms"], strict=True))
    of = dict(zip(keys, runs["count"].tolist(), strict=True))
    pairs = zip(names, groups["selected"].tolist(), strict=True)
    # A workflow without a run that the filters select has no share.
    return [count / of[key] if count and of.get(key) else None for key, count in pairs]


def _listing(groups: pd.DataFrame, moment: Column | None) -> pd.DataFrame:
    columns = COLUMNS
    if moment is not None:
        columns = (
            Column(moment.name, "instant", "Start of the bucket, UTC.", "bucket_ms"),
            *COLUMNS,
        )
    arrays = []
    for column in columns:
        values = groups["bucket_ms" if column.source == "bucket_ms" else column.name]
        if pa.types.is_dictionary(column.arrow):
            array = pa.array(values.astype("object"), pa.string(), from_pandas=True)
            arrays.append(array.dictionary_encode())
        elif column.kind == "instant":
            arrays.append(pa.array(values.astype("Int64"), pa.int64()).cast(column.arrow))
        else:
            arrays.append(pa.array(values, column.arrow, from_pandas=True))
    batch = pa.RecordBatch.from_arrays(arrays, schema=frames.arrow_schema(columns))
    frame = frames.to_frame([batch], columns)
    frame.insert(frame.columns.tolist().index("example"), "versions", groups["versions"])
    frame["workflow_ids"], frame["ancestor_ids"] = groups["workflow_ids"], groups["ancestor_ids"]
    return frames.mark_listing(frame, "failures")
