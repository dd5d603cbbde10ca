"""Compose SQL for validated filters with SQLAlchemy, for both dialects.

Statements name only columns in the catalog. An absent column is NULL, so a filter on it matches
like a row without the value.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import Null

from dbos_notebook.database.sqlite import BASE64_CONTAINS
from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.columns import FIRST_MS, LAST_MS, RECORDED, WAIT, Column
from dbos_notebook.tables.filters import LIST_FILTERS, TIME_FILTERS

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog
    from dbos_notebook.payloads.decoders import Decoder

Condition = sa.ColumnElement[bool]
STREAM_END_VALUES = (
    '"__DBOS_STREAM_CLOSED__"',
    "__DBOS_STREAM_CLOSED__",
    # Earlier versions: pickles of protocols 2 to 5, base64 of JSON, and superjson.
    "gAJYFgAAAF9fREJPU19TVFJFQU1fQ0xPU0VEX19xAC4=",
    "gANYFgAAAF9fREJPU19TVFJFQU1fQ0xPU0VEX19xAC4=",
    "gASVGgAAAAAAAACMFl9fREJPU19TVFJFQU1fQ0xPU0VEX1+ULg==",
    "gAWVGgAAAAAAAACMFl9fREJPU19TVFJFQU1fQ0xPU0VEX1+ULg==",
    "Il9fREJPU19TVFJFQU1fQ0xPU0VEX18i",
    '{"json":"__DBOS_STREAM_CLOSED__","__dbos_serializer":"superjson"}',
)
"""The values that DBOS stores at the end of a stream, which readers never see."""
SLEEPS = ("DBOS.sleep",)
"""The names of steps whose results are the times when they wake."""
_STEP_KEYS = ("workflow_uuid", "function_id", "function_name")
_FAILED_STEP = (
    *("function_id", "function_name", "child_workflow_id"),
    *("last_id", "same_id", "step_error", "step_serialization"),
)
PICKLE_START = "gA"
"""The base64 of a pickle since protocol 2 begins with it, and no JSON does."""
MAX_LOOKUPS = 20_000
"""Up to this number, values are looked up one by one on Postgres; above, its planner decides."""


class Queries:
    """Composes statements for one database, according to its catalog.

    All parts of a client share one instance, and with it the catalog. Compose a statement inside
    the session that runs it, because a session may replace the catalog when it begins.

    Attributes
    ----------
    decoder
        Decodes recorded errors in an application's own format.
    application
        The application that statements are restricted to; ``None`` for no restriction. As in DBOS,
        rows without an owner belong to every application, and a lookup by ID is not restricted.
        Only :meth:`owned`, :meth:`owned_workflow` and :meth:`where` implement this rule.
    """

    def __init__(
        self, catalog: Catalog, decoder: Decoder = decode_inert, application: str | None = None
    ) -> None:
        self.decoder = decoder
        self.application = application
        self.set_catalog(catalog)

    def set_catalog(self, catalog: Catalog) -> None:
        """Replace the catalog after the database was migrated."""
        self.catalog = catalog
        self.workflows = catalog.table("workflow_status")
        self.steps = catalog.table("operation_outputs")

    @property
    def all_applications(self) -> Queries:
        """A copy that is not restricted to an application, for lookups by ID."""
        # A shallow copy has the same tables, so that statements of both can be joined.
        unrestricted = copy.copy(self)
        unrestricted.application = None
        return unrestricted

    def owned(self, table: sa.FromClause) -> list[Condition]:
        """Return the conditions that restrict a table to the application, if it records owners."""
        owner = self.column(table, "application_name")
        if not self.application or isinstance(owner, Null):
            return []
        return [sa.or_(owner == self.application, owner.is_(None))]

    def owned_workflow(self, workflow_id: sa.ColumnElement[Any]) -> list[Condition]:
        """Return the conditions that restrict rows of workflows to those of the application."""
        table = self.workflows.alias("owner")
        owner = self.column(table, "application_name")
        if not self.application or isinstance(owner, Null) or isinstance(workflow_id, Null):
            return []
        other = sa.select(sa.literal(1)).select_from(table)
        other = other.where(table.c.workflow_uuid == workflow_id, owner != self.application)
        return [~sa.exists(other)]

    def column(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]:
        """Return a table's column, or NULL if this database lacks it."""
        column = table.c.get(name)
        return sa.null() if column is None else column

    def recorded_error(self, table: sa.FromClause) -> sa.ColumnElement[Any]:
        """Return a table's recorded error, NULL for an empty one, as the Go SDK writes it."""
        error = self.column(table, "error")
        return error if isinstance(error, Null) else sa.func.nullif(error, "")

    def valid_time(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]:
        """Return a column of times, with NULL for times outside of the years 1 to 9999."""
        time = self.column(table, name)
        if isinstance(time, Null):
            return time
        first, last = (sa.literal_column(str(end), sa.BigInteger()) for end in (FIRST_MS, LAST_MS))
        return sa.case((time.between(first, last), time))

    def select(self, table: sa.FromClause, columns: Iterable[Column]) -> list[Any]:
        """Return labelled expressions for the columns that are read from the database."""
        return [
            self.column(table, column.source).label(column.name)
            for column in columns
            if column.source is not None
        ]

    def member(self, expression: sa.ColumnElement[Any], values: Sequence[str]) -> Condition:
        """Return the condition that ``expression`` is in ``values``, passed as one parameter."""
        if isinstance(expression, Null) or not values:
            return sa.false()
        if len(values) == 1:
            return expression == values[0]
        if self.catalog.dialect == "postgresql":
            array = sa.cast(sa.bindparam(None, _array(values), sa.Text()), ARRAY(sa.Text()))
            if len(values) > MAX_LOOKUPS:
                return expression == sa.any_(array)
            # For "= ANY" with thousands of values the planner scans the table; this uses the index.
            return expression.in_(sa.select(sa.func.unnest(array)))
        # SQLite limits the number of parameters; a JSON array is one.
        rows = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
        return expression.in_(sa.select(rows.c.value))

    def workflow_select(
        self,
        columns: Iterable[Column],
        filters: Mapping[str, Any],
        *,
        load_input: bool = False,
        load_output: bool = False,
        newest_first: bool | None = True,
        limit: int | None = None,
        offset: int = 0,
        after: tuple[int, str] | None = None,
    ) -> sa.Select[Any]:
        """Select workflows; with ``newest_first=None`` in any order.

        ``after`` is the ``created_at`` and ID of a row; only older rows are selected. Errors are
        read by :meth:`failure_select`, because few workflows have one.
        """
        table = self.workflows
        source: sa.FromClause = table
        columns = tuple(columns)
        selected = self.select(table, columns)
        if WAIT in columns and (evidence := timing.ran_before(self)) is not None:
            selected.append(evidence.label(timing.RAN_BEFORE.name))
        if load_input or load_output:
            selected.append(self.column(table, "serialization").label("serialization"))
        for requested, name, stored_columns in (
            (load_input, "workflow_input", ("inputs",)),
            (load_output, "workflow_output", ("output", "error")),
        ):
            if not requested:
                continue
            # Since dbos 3.0, payloads have their own tables; older rows keep theirs.
            own_table = self.catalog.table(name)
            if self.catalog.has(name, "workflow_uuid"):
                source = source.outerjoin(
                    own_table, own_table.c.workflow_uuid == table.c.workflow_uuid
                )
            for payload in stored_columns:
                value: sa.ColumnElement[Any] = sa.func.coalesce(
                    self.column(own_table, payload), self.column(table, payload)
                )
                if payload == "error":
                    value = sa.func.nullif(value, "")
                selected.append(value.label("input" if payload == "inputs" else payload))
        statement = sa.select(*selected).select_from(source).where(*self.where(filters))
        if after is not None:
            created, identity = sa.literal(after[0], sa.BigInteger()), sa.literal(after[1])
            statement = statement.where(
                # Also alone, because only this condition can use an index on the column.
                table.c.created_at <= created,
                sa.tuple_(table.c.created_at, table.c.workflow_uuid) < sa.tuple_(created, identity),
            )
        if newest_first is not None:
            keys: tuple[Any, ...] = (table.c.created_at,)
            if limit is not None or offset or self.catalog.dialect == "sqlite":
                # A unique order, so that pages neither overlap nor skip a row. Without pages,
                # sorting ties would cost Postgres a quarter of the time, and ties are rare.
                keys += (table.c.workflow_uuid,)
            statement = statement.order_by(*(k.desc() if newest_first else k.asc() for k in keys))
        if limit is not None:
            statement = statement.limit(limit)
        return statement.offset(offset) if offset else statement

    def failed_step(
        self,
        workflow: sa.FromClause,
        *values: Callable[[sa.FromClause], sa.ColumnElement[Any]],
        same_first: bool,
    ) -> sa.Select[Any]:
        """Select values of the failed step of a row of workflows, correlated to that row.

        It is the last step that failed; with ``same_first``, which reads all steps, the last one
        that recorded the error of the workflow, if there is one.
        """
        step = self.steps.alias("step")
        error = self.recorded_error(step)
        order = [step.c.function_id.desc()]
        source: sa.FromClause = step
        if same_first:
            # The row again, because SQLite's ORDER BY cannot use that of the outer statement.
            owner = self.workflows.alias("owner")
            source = step.join(owner, owner.c.workflow_uuid == step.c.workflow_uuid)
            wanted = self.column(owner, "error")
            if self.catalog.has("workflow_output", "error"):
                own = self.catalog.table("workflow_output").alias("own")
                source = source.outerjoin(own, own.c.workflow_uuid == step.c.workflow_uuid)
                wanted = sa.func.coalesce(own.c.error, wanted)
            order.insert(0, sa.case((error == wanted, 1), else_=0).desc())
        return (
            sa.select(*(value(step) for value in values))
            .select_from(source)
            .where(step.c.workflow_uuid == workflow.c.workflow_uuid, error.is_not(None))
            # Backwards in the primary key: the failed step is usually one of the last.
            .order_by(*order)
            .limit(1)
            .correlate(workflow)
        )

    def failed_children(self, roots: Sequence[str]) -> sa.CTE:
        """Return workflows and the failed children that their failed steps awaited, as pairs."""
        workflow, child = (self.workflows.alias(name) for name in ("failed", "failed_child"))
        awaited = self.failed_step(
            workflow, lambda step: self.column(step, "child_workflow_id"), same_first=True
        )

        def children(owned: Callable[[sa.ColumnElement[Any]], Condition]) -> list[sa.Select[Any]]:
            pair = sa.select(
                workflow.c.workflow_uuid.label("parent"), child.c.workflow_uuid.label("child")
            ).where(
                owned(workflow.c.workflow_uuid),
                child.c.workflow_uuid == awaited.scalar_subquery(),
                child.c.status == "ERROR",
            )
            return [pair]

        return self._recursive_pairs("failures", self._value_rows(roots), children)

    def failure_select(
        self,
        chosen: sa.FromClause | Sequence[Condition],
        *,
        same_first: bool = False,
        steps: bool = True,
        extra: Iterable[sa.ColumnElement[Any]] = (),
    ) -> sa.Select[Any]:
        """Select the recorded errors of failed workflows, and the step that failed in each.

        Parameters
        ----------
        chosen
            Conditions on the workflows; or rows with their IDs in the last column, which are looked
            up one by one.
        same_first
            As in :meth:`failed_step`.
        steps
            Read the steps; if not, their columns are NULL.
        extra
            Further columns of the workflows, with their labels.

        Returns
        -------
        sqlalchemy.Select
            The columns of ``failed_steps.SCHEMA``, then ``extra``. The step's are NULL where none
            failed. ``last_id`` and those after it are NULL where both errors are the same:
            ``last_id`` is the last step, ``same_id`` the last one with the workflow's error.
        """
        workflow = self.workflows
        key = workflow.c.workflow_uuid
        source: sa.FromClause = workflow
        error: sa.ColumnElement[Any] = self.column(workflow, "error")
        if self.catalog.has("workflow_output", "error"):
            own_table = self.catalog.table("workflow_output")
            # Only rows with an error: a join with all rows would be as long as the table.
            own = sa.select(own_table.c.workflow_uuid, own_table.c.error).where(
                own_table.c.error.is_not(None)
            )
            result = own.subquery("result")
            source = source.outerjoin(result, result.c.workflow_uuid == key)
            error = sa.func.coalesce(result.c.error, error)
        error = sa.func.nullif(error, "")
        values: dict[str, Any] = {
            "workflow_id": key,
            "status": workflow.c.status,
            "_error": error,
            "_serialization": self.column(workflow, "serialization"),
        }
        if steps:
            source, more = self._join_failed_step(source, error, same_first=same_first)
            values |= more
        else:
            values |= dict.fromkeys(_FAILED_STEP, sa.null())
        selected = sa.select(*(value.label(name) for name, value in values.items()), *extra)
        selected = selected.select_from(source)
        failed = _in_literals(workflow.c.status, FAILED_STATUSES)
        if not isinstance(chosen, sa.FromClause):
            return selected.where(failed, *chosen)
        wanted = list(chosen.c)[-1]
        if self.catalog.dialect == "sqlite":
            return selected.where(key.in_(sa.select(wanted)), failed)
        # OFFSET 0 prevents Postgres from joining whole tables: it looks up each workflow.
        rows = selected.where(key == wanted, failed).offset(0).lateral("found")
        return sa.select(*rows.c).select_from(chosen.join(rows, sa.true()))

    def _join_failed_step(
        self, source: sa.FromClause, error: sa.ColumnElement[Any], *, same_first: bool
    ) -> tuple[sa.FromClause, dict[str, Any]]:
        """Join the failed step of each workflow in ERROR; return it with the step's columns."""
        workflow = self.workflows
        key, raised = workflow.c.workflow_uuid, workflow.c.status == sa.literal_column("'ERROR'")
        step: Any
        if self.catalog.dialect == "postgresql":
            names = ("function_id", "function_name", "child_workflow_id", "error", "serialization")
            columns = [partial(self._labelled, name) for name in names]
            found = self.failed_step(workflow, *columns, same_first=same_first).where(raised)
            step = found.lateral("failed_step")
            joined = source.outerjoin(step, sa.true())
        else:
            step = self.steps.alias("failed_step")
            number = self.failed_step(
                workflow, lambda step: step.c.function_id, same_first=same_first
            ).scalar_subquery()
            joined = source.outerjoin(
                step, sa.and_(raised, step.c.workflow_uuid == key, step.c.function_id == number)
            )
        other = self.steps.alias("other_step")
        last = sa.select(sa.func.max(other.c.function_id)).where(other.c.workflow_uuid == key)
        step_error = self.recorded_error(step)
        differing = {
            "last_id": last.correlate(workflow).scalar_subquery(),
            "same_id": last.where(other.c.error == error).correlate_except(other).scalar_subquery(),
            "step_error": step_error,
            "step_serialization": self.column(step, "serialization"),
        }
        # Both are NULL where no step failed.
        same = sa.or_(step_error == error, step.c.function_id.is_(None))
        return joined, {
            "function_id": step.c.function_id,
            "function_name": step.c.function_name,
            "child_workflow_id": self.column(step, "child_workflow_id"),
            **{name: sa.case((same, sa.null()), else_=value) for name, value in differing.items()},
        }

    def last_steps_select(self, ids: Sequence[str], count: int) -> sa.Select[Any]:
        """Select the last steps of workflows, with the results of sleeps only."""
        self.catalog.require("operation_outputs", _STEP_KEYS)
        table = self.steps
        given = self.id_rows(ids)
        (wanted,) = given.c
        sleeps = table.c.function_name.in_(SLEEPS)
        columns = (
            table.c.workflow_uuid.label("workflow_id"),
            table.c.function_id.label("function_id"),
            table.c.function_name.label("function_name"),
            self.column(table, "child_workflow_id").label("child_workflow_id"),
            # A sleep is completed when it wakes, which its row says from its start.
            sa.case(
                (sleeps, self.column(table, "started_at_epoch_ms")),
                else_=self.column(table, "completed_at_epoch_ms"),
            ).label("completed"),
            sa.case((sleeps, self.column(table, "output"))).label("output"),
            self.column(table, "serialization").label("serialization"),
        )
        if self.catalog.dialect == "postgresql":
            last = sa.select(*columns).where(table.c.workflow_uuid == wanted)
            last = last.order_by(table.c.function_id.desc()).limit(count)
            rows = last.lateral("last_steps")
            return sa.select(*rows.c).select_from(given.join(rows, sa.true()))
        end = table.alias("end_step")
        maximum = sa.select(sa.func.max(end.c.function_id)).where(end.c.workflow_uuid == wanted)
        return (
            sa.select(*columns)
            .select_from(given)
            .join(table, table.c.workflow_uuid == wanted)
            .where(table.c.function_id > maximum.scalar_subquery() - count)
        )

    def _labelled(self, name: str, table: sa.FromClause) -> sa.ColumnElement[Any]:
        return self.column(table, name).label(name)

    def id_rows(self, ids: Sequence[str]) -> sa.Subquery:
        """Return IDs as the rows of a subquery, passed as one parameter."""
        return self._value_rows(ids).subquery("ids")

    def where(self, filters: Mapping[str, Any]) -> list[Condition]:
        """Return the conditions of validated filters on ``workflow_status``.

        They are restricted to the application unless the filters have one, or workflow IDs.
        """
        table = self.workflows
        named = {"workflow_ids", "application_name"} & filters.keys()
        conditions: list[Condition] = [] if named else self.owned(table)
        for name, value in filters.items():
            if name == "workflow_id_prefix":
                conditions.append(self._starts_with(table.c.workflow_uuid, value))
            elif name == "application_name":
                owner = self.column(table, "application_name")
                # As in DBOS, a row without owner belongs to every application.
                claimed = sa.or_(self.member(owner, value), owner.is_(None))
                conditions.append(claimed if value else sa.false())
            elif name == "status":
                conditions.append(self.has_status(value))
            elif name in LIST_FILTERS:
                conditions.append(self.member(self.column(table, LIST_FILTERS[name]), value))
            elif name in TIME_FILTERS:
                source, comparison = TIME_FILTERS[name]
                column = self.column(table, source)
                conditions.append(column.op(comparison, is_comparison=True)(value))
            else:
                conditions.extend(self._special(name, value, filters))
        return conditions

    def has_status(self, statuses: Sequence[str]) -> Condition:
        """Return the condition that a workflow has one of the statuses, which uses an index."""
        # As literals, because SQLite uses partial indexes only for literals.
        status = self.workflows.c.status
        others = [name for name in statuses if name != "DELAYED"]
        if len(others) == len(statuses) or not others or not set(others) < set(ACTIVE_STATUSES):
            return _in_literals(status, statuses)
        # Two conditions, because DBOS has a partial index for each.
        return sa.or_(_in_literals(status, others), _in_literals(status, ["DELAYED"]))

    def _special(self, name: str, value: Any, filters: Mapping[str, Any]) -> list[Condition]:
        table = self.workflows
        if name == "was_forked_from":
            flag = self.column(table, "was_forked_from")
            return [flag == sa.literal_column("true" if value else "false")]
        if name in ("is_fork", "has_parent"):
            source = "forked_from" if name == "is_fork" else "parent_workflow_id"
            column = self.column(table, source)
            return [column.is_not(None) if value else column.is_(None)]
        if name == "queues_only" and value:
            queued: list[Condition] = [self.column(table, "queue_name").is_not(None)]
            if "status" not in filters:
                queued.append(self.has_status(ACTIVE_STATUSES))
            return queued
        if name == "attributes" and value:
            return [self._contains(self.column(table, "attributes"), value)]
        if name == "search" and value:
            return [self._matches_search(value)]
        if name == "error" and value:
            return [self._error_contains(value)]
        return []

    def _starts_with(self, column: sa.ColumnElement[Any], prefixes: Sequence[str]) -> Condition:
        # SQLite's LIKE ignores the case of ASCII letters, like DBOS's filter on SQLite.
        return sa.or_(sa.false(), *(column.startswith(p, autoescape=True) for p in prefixes))

    def _contains(self, column: sa.ColumnElement[Any], requested: Mapping[str, Any]) -> Condition:
        if isinstance(column, Null):
            return sa.false()
        if self.catalog.dialect == "postgresql":
            document = sa.cast(
                sa.bindparam(None, json.dumps(requested, ensure_ascii=False), sa.Text()), JSONB
            )
            return column.op("@>", is_comparison=True)(document)
        return _json_contains(sa.case((sa.func.json_valid(column) == 1, column)), requested)

    def _matches_search(self, text: str) -> Condition:
        """Return the condition that the ID, name, user, queue or error contains ``text``."""
        table = self.workflows
        matches = [
            self.column(table, name).icontains(text, autoescape=True)
            for name in ("workflow_uuid", "name", "authenticated_user", "queue_name")
            if name in table.c
        ]
        return sa.or_(*matches, self._error_contains(text))

    def _error_contains(self, text: str) -> Condition:
        """Return the condition that the recorded error contains ``text``."""
        table = self.workflows
        errors = [self.column(table, "error")]
        if self.catalog.has("workflow_output", "error"):
            own_table = self.catalog.table("workflow_output")
            recorded = sa.select(own_table.c.error).where(
                own_table.c.workflow_uuid == table.c.workflow_uuid
            )
            errors.append(recorded.correlate(table).scalar_subquery())
        # Only failed workflows have an error, and few have failed.
        matches = [self._recorded_contains(e, text) for e in errors if not isinstance(e, Null)]
        return sa.and_(table.c.status == "ERROR", sa.or_(sa.false(), *matches))

    def _recorded_contains(self, error: sa.ColumnElement[Any], text: str) -> Condition:
        """Return the condition that one recorded error contains ``text``, respecting case.

        JSON contains it as it is; a pickle, which is stored as base64, in its decoded bytes.
        """
        needle = text.encode()
        is_pickle = sa.func.substr(error, 1, len(PICKLE_START)) == PICKLE_START
        in_base64: Condition
        if self.catalog.dialect == "sqlite":
            in_text = sa.func.instr(error, text) > 0
            # The functions of SQLite accept invalid UTF-8 only as a blob.
            stored = sa.cast(error, sa.LargeBinary)
            in_base64 = getattr(sa.func, BASE64_CONTAINS)(stored, needle) == 1
            possible = [sa.func.instr(error, part) > 0 for part in base64_parts(needle)]
        else:
            in_text = error.contains(text, autoescape=True)
            # One that is not base64 would be an error of the statement.
            is_base64 = sa.and_(
                sa.func.length(error) % 4 == 0, error.regexp_match("^[A-Za-z0-9+/]+={0,2}$")
            )
            decoded = sa.func.decode(error, "base64")
            position = sa.func.pg_catalog.position(decoded, sa.func.decode(needle.hex(), "hex"))
            in_base64 = sa.case((is_base64, position > 0), else_=sa.false())
            possible = [error.contains(part, autoescape=True) for part in base64_parts(needle)]
        # Few errors are decoded: only those that hold what can be encoded without its neighbours.
        return sa.case(
            (is_pickle, sa.case((sa.or_(*possible), in_base64), else_=sa.false())), else_=in_text
        )

    def step_select(
        self,
        columns: Iterable[Column],
        ids: Sequence[str] | sa.Select[Any],
        *,
        load_output: bool = False,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> sa.Select[Any]:
        """Select the steps of workflows, given by IDs or a select of IDs.

        ``after`` is the workflow ID and ``function_id`` of a step; only later steps are selected.
        """
        self.catalog.require("operation_outputs", _STEP_KEYS)
        table = self.steps
        selected = []
        for column in columns:
            if column.name == "status":
                failed = self.recorded_error(table).is_not(None)
                value: Any = sa.case((failed, "ERROR"), else_="SUCCESS")
            elif column.source is None:
                continue
            else:
                value = self.column(table, column.source)
            selected.append(value.label(column.name))
        # Steps have a serialization since dbos 2.20.
        error, serialization = self.recorded_error(table), self.column(table, "serialization")
        selected += [
            value.label(hidden.name)
            for value, hidden in zip((error, serialization), RECORDED, strict=True)
        ]
        if load_output:
            selected += [
                serialization.label("serialization"),
                self.column(table, "output").label("output"),
                error.label("error"),
            ]
        key = table.c.workflow_uuid
        condition = key.in_(ids) if isinstance(ids, sa.Select) else self.member(key, ids)
        statement = sa.select(*selected).where(condition).order_by(key, table.c.function_id)
        if after is not None:
            position = sa.tuple_(sa.literal(after[0]), sa.literal(after[1], sa.BigInteger()))
            statement = statement.where(
                key >= sa.literal(after[0]), sa.tuple_(key, table.c.function_id) > position
            )
        return statement if limit is None else statement.limit(limit)

    def stream_select(self, columns: Iterable[Column], ids: Sequence[str] | None) -> sa.Select[Any]:
        """Select the values of streams, without end values, and whether each stream is closed."""
        table = self.catalog.table("streams")
        columns = [column for column in columns if column.name != "closed"]
        key = self.column(table, "workflow_uuid")
        condition = self.owned_workflow(key) if ids is None else [self.member(key, ids)]
        if not {"workflow_uuid", "key", "value"} <= set(table.c.keys()):
            return sa.select(*self.select(table, columns), sa.null().label("closed")).where(
                *condition
            )
        ended = (
            sa.select(table.c.workflow_uuid, table.c.key)
            .where(table.c.value.in_(STREAM_END_VALUES), *condition)
            .distinct()
            .subquery("ended")
        )
        source = table.outerjoin(
            ended,
            sa.and_(ended.c.workflow_uuid == table.c.workflow_uuid, ended.c.key == table.c.key),
        )
        closed = ended.c.key.is_not(None).label("closed")
        return (
            sa.select(*self.select(table, columns), closed)
            .select_from(source)
            .where(
                sa.or_(table.c.value.is_(None), table.c.value.not_in(STREAM_END_VALUES)), *condition
            )
        )

    def child_selects(self, parents: Sequence[str]) -> list[sa.Select[Any]]:
        """Select (parent, child) pairs from the steps that started them and the children's rows.

        Both are needed: rows written before dbos 2.20 do not have their parent, and neither do the
        replacement children of a fork.
        """
        return self._children(lambda owner: self.member(owner, parents))

    def _children(
        self,
        owned: Callable[[sa.ColumnElement[Any]], Condition],
        *,
        started: bool = True,
        awaited: bool = False,
        named: bool = True,
    ) -> list[sa.Select[Any]]:
        """Select (parent, child) pairs of the parents that fulfil a condition.

        ``started`` uses the steps that started children, ``awaited`` also those that awaited a
        workflow, and ``named`` uses ``parent_workflow_id``.
        """
        steps, workflows = self.steps, self.workflows
        selects = []
        if started and "child_workflow_id" in steps.c and set(_STEP_KEYS) <= set(steps.c.keys()):
            child = steps.c.child_workflow_id
            conditions = [owned(steps.c.workflow_uuid), child.is_not(None)]
            if not awaited:
                # Awaiting a workflow does not make it a child.
                conditions.append(steps.c.function_name != "DBOS.getResult")
            selects.append(
                sa.select(steps.c.workflow_uuid.label("parent"), child.label("child")).where(
                    *conditions
                )
            )
        if named and "parent_workflow_id" in workflows.c:
            parent = workflows.c.parent_workflow_id
            child = workflows.c.workflow_uuid
            selects.append(
                sa.select(parent.label("parent"), child.label("child")).where(owned(parent))
            )
        return selects

    def descendants(
        self, roots: Sequence[str], *, levels: int | None = None, named_alone: bool = False
    ) -> sa.CTE:
        """Return the (parent, child) pairs of all descendants, as one recursive statement.

        Each pair is returned once, so cycles (manually written) end. A root's own pair has no
        parent.

        Parameters
        ----------
        roots
            The workflows.
        levels
            The number of levels below them; ``None`` for all. Each level repeats the pairs of a
            cycle, so use it for few levels.
        named_alone
            Use only ``parent_workflow_id``, as DBOS does.
        """
        return self._recursive_pairs(
            "below",
            self._value_rows(roots),
            lambda owned: self._children(owned, started=not named_alone),
            levels=levels,
        )

    def failed_descendants(self, roots: Sequence[str]) -> sa.CTE:
        """Return the pairs of workflows that steps of failed workflows started or awaited."""
        status, key = self.workflows.c.status, self.workflows.c.workflow_uuid

        def children(owned: Callable[[sa.ColumnElement[Any]], Condition]) -> list[sa.Select[Any]]:
            failed = sa.exists(
                sa.select(sa.literal(1)).where(
                    key == self.steps.c.workflow_uuid, _in_literals(status, FAILED_STATUSES)
                )
            )
            result = self._children(owned, awaited=True, named=False)
            return [select.where(failed) for select in result]

        return self._recursive_pairs("failed", self._value_rows(roots), children)

    def ancestors(self, workflow_ids: Sequence[str]) -> sa.CTE:
        """Return the ancestors of workflows, as (child, parent) pairs."""
        parent, key = (
            self.column(self.workflows, "parent_workflow_id"),
            self.workflows.c.workflow_uuid,
        )
        selected = sa.select(key.label("parent"), parent.label("child"))
        return self._recursive_pairs(
            "above",
            self._value_rows(workflow_ids),
            lambda owned: (
                []
                if isinstance(parent, Null)
                else [selected.where(owned(key), parent.is_not(None))]
            ),
        )

    def fork_family(self, workflow_ids: Sequence[str]) -> sa.CTE:
        """Return workflows, their originals, and all forks of these, as pairs.

        Only the pair of a workflow that is passed has no parent.
        """
        up = self._recursive_pairs("originals", self._value_rows(workflow_ids), self._originals)
        return self._recursive_pairs("family", sa.select(up.c.child, up.c.parent), self._forks)

    def _forks(self, owned: Callable[[sa.ColumnElement[Any]], Condition]) -> list[sa.Select[Any]]:
        origin, key = self.column(self.workflows, "forked_from"), self.workflows.c.workflow_uuid
        if isinstance(origin, Null):
            return []
        return [sa.select(origin.label("parent"), key.label("child")).where(owned(origin))]

    def _originals(
        self, owned: Callable[[sa.ColumnElement[Any]], Condition]
    ) -> list[sa.Select[Any]]:
        origin, key = self.column(self.workflows, "forked_from"), self.workflows.c.workflow_uuid
        if isinstance(origin, Null):
            return []
        selected = sa.select(key.label("parent"), origin.label("child"))
        return [selected.where(owned(key), origin.is_not(None))]

    def _value_rows(self, values: Sequence[str]) -> sa.Select[Any]:
        """Select values as rows, passed as one parameter."""
        if self.catalog.dialect == "postgresql":
            array = sa.cast(sa.bindparam(None, _array(values), sa.Text()), ARRAY(sa.Text()))
            return sa.select(sa.func.unnest(array).label("value"))
        listed = json.dumps(list(values), ensure_ascii=False)
        return sa.select(sa.func.json_each(listed).table_valued("value").c.value)

    def _recursive_pairs(
        self,
        name: str,
        start: sa.Select[Any],
        expand: Callable[[Callable[[sa.ColumnElement[Any]], Condition]], list[sa.Select[Any]]],
        *,
        levels: int | None = None,
    ) -> sa.CTE:
        """Return a recursive CTE of (parent, child) pairs; ``expand`` returns the next pairs.

        The rows of ``start`` are children, with their parents if there is a second column.
        """
        start_rows = start.subquery(f"{name}_begun")
        depth = [] if levels is None else [sa.literal_column("0", sa.Integer()).label("level")]
        parent = start_rows.c[1] if len(start_rows.c) > 1 else sa.cast(sa.null(), sa.Text())
        result = sa.select(parent.label("parent"), start_rows.c[0].label("child"), *depth).cte(
            name, recursive=True
        )
        selects = expand(lambda owner: owner == result.c.child)
        if not selects:
            return result
        more = [] if levels is None else [result.c.level + 1]
        bound = [] if levels is None else [result.c.level < levels]
        if self.catalog.dialect == "sqlite":
            # One term for each source, so that each uses its own index.
            return result.union(
                *(
                    sa.select(*select.selected_columns, *more)
                    .select_from(result)
                    .where(select.whereclause, *bound)  # type: ignore[arg-type]  # never None here
                    for select in selects
                )
            )
        # OFFSET 0 prevents Postgres from joining whole tables: it looks up each workflow.
        rows = sa.union_all(*(select.correlate(result) for select in selects)).offset(0)
        next_pairs = rows.lateral(f"{name}_next")
        return result.union(
            sa.select(next_pairs.c.parent, next_pairs.c.child, *more)
            .select_from(result.join(next_pairs, sa.true()))
            .where(*bound)
        )


def _array(values: Sequence[str]) -> str:
    """Format strings as a Postgres array; psycopg's own function scans each string three times."""
    quoted = (value.replace("\\", r"\\").replace('"', r"\"") for value in values)
    return '{"' + '","'.join(quoted) + '"}'


def _in_literals(column: sa.ColumnElement[Any], values: Sequence[str]) -> Condition:
    """Return the condition that ``column`` is in a few constants, as literals in the SQL."""
    literals = [sa.bindparam(None, value, sa.Text(), literal_execute=True) for value in values]
    if len(literals) == 1:
        return column == literals[0]
    return column.in_(literals) if literals else sa.false()


def base64_parts(data: bytes) -> list[str]:
    """Return strings of which the base64 of any bytes with ``data`` in them contains one.

    The encoding of ``data`` depends on its offset in groups of three bytes, and its first and last
    characters also on the adjacent bytes; these are omitted. Few bytes leave an empty string.

    Examples
    --------
    >>> stored = base64.b64encode(b"...ValueError: no card on file...").decode()
    >>> any(part in stored for part in base64_parts(b"no card"))
    True
    """
    parts = []
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        first = (0, 2, 3)[shift]
        last = len(encoded) if (shift + len(data)) % 3 == 0 else len(encoded) - 1
        parts.append(encoded[first:last])
    return parts


def _json_contains(document: sa.ColumnElement[Any], requested: Any) -> Condition:
    """Return the condition of PostgreSQL's ``jsonb @>``, with SQLite's ``json_each``."""
    rows = sa.func.json_each(document).table_valued("key", "value", "type", "atom")
    items = (
        requested.items()
        if isinstance(requested, Mapping)
        else ((None, item) for item in requested)
    )
    conditions = []
    for key, item in items:
        alias = rows.alias()
        conditions_: list[Condition] = [_json_matches(alias, item)]
        if key is not None:
            conditions_.append(alias.c.key == key)
        conditions.append(
            sa.exists(sa.select(sa.literal(1)).select_from(alias).where(*conditions_))
        )
    kind = "object" if isinstance(requested, Mapping) else "array"
    return sa.and_(sa.func.json_type(document) == kind, *conditions)


def _json_matches(item: sa.FromClause, requested: Any) -> Condition:
    if requested is None:
        return item.c.type == "null"
    if isinstance(requested, bool):
        return item.c.type == ("true" if requested else "false")
    if isinstance(requested, int) and not -(1 << 63) <= requested < 1 << 63:
        # SQLite stores such an integer as a float, or as infinity.
        requested = (
            float(requested)
            if abs(requested) < 1 << 1023
            else (math.inf if requested > 0 else -math.inf)
        )
    if isinstance(requested, int | float):
        return sa.and_(item.c.type.in_(("integer", "real")), item.c.atom == requested)
    if isinstance(requested, str):
        return sa.and_(item.c.type == "text", item.c.atom == requested)
    # json_each raises an error for a string that is not a JSON document.
    nested = sa.case((item.c.type.in_(("object", "array")), item.c.value))
    return _json_contains(nested, requested)
