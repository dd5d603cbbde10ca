"""Checked filters into SQL, composed with SQLAlchemy for both dialects.

Only columns that the catalog has are named; an absent one is NULL, so that a filter on it
matches what it would on a row that lacks the value.
"""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import Null

from dbos_notebook.payloads.decoders import decode_inert
from dbos_notebook.status import ACTIVE_STATUSES, FAILED_STATUSES
from dbos_notebook.tables import timing
from dbos_notebook.tables.columns import ERROR, FIRST_MS, LAST_MS, RECORDED, WAIT, Column
from dbos_notebook.tables.filters import LISTS, TIMES

if TYPE_CHECKING:
    from dbos_notebook.database.catalog import Catalog
    from dbos_notebook.payloads.decoders import Decoder

Condition = sa.ColumnElement[bool]
END_MARKS = (
    '"__DBOS_STREAM_CLOSED__"',
    "__DBOS_STREAM_CLOSED__",
    # As pickled by protocols 2 to 5, as base64 of JSON and in superjson: by earlier versions.
    "gAJYFgAAAF9fREJPU19TVFJFQU1fQ0xPU0VEX19xAC4=",
    "gANYFgAAAF9fREJPU19TVFJFQU1fQ0xPU0VEX19xAC4=",
    "gASVGgAAAAAAAACMFl9fREJPU19TVFJFQU1fQ0xPU0VEX1+ULg==",
    "gAWVGgAAAAAAAACMFl9fREJPU19TVFJFQU1fQ0xPU0VEX1+ULg==",
    "Il9fREJPU19TVFJFQU1fQ0xPU0VEX18i",
    '{"json":"__DBOS_STREAM_CLOSED__","__dbos_serializer":"superjson"}',
)
"""How DBOS stores the end of a stream: as a value that readers never see."""
_STEP_KEYS = ("workflow_uuid", "function_id", "function_name")
LOOKED_UP = 20_000
"""So many values are looked up one by one on Postgres; for more, its planner decides."""


class Queries:
    """Makes statements for one database, as its catalog describes it.

    All parts of a client share one, and with it the catalog; so statements are made inside the
    session that runs them, which may have read the catalog again when it began.

    Attributes
    ----------
    decoder
        What reads the recorded errors of the formats that are the application's own.
    application
        The application to which statements are narrowed; ``None``: to none. Rows without an owner
        belong to every application, and an ID is a global address that is not narrowed: both as
        in DBOS. The rule is in :meth:`owned`, :meth:`of_owned_workflow` and :meth:`where` alone.
    """

    def __init__(
        self, catalog: Catalog, decoder: Decoder = decode_inert, application: str | None = None
    ) -> None:
        self.decoder = decoder
        self.application = application
        self.use(catalog)

    def use(self, catalog: Catalog) -> None:
        """Make statements by this catalog from now on: the database was migrated."""
        self.catalog = catalog
        self.workflows = catalog.table("workflow_status")
        self.steps = catalog.table("operation_outputs")

    @property
    def of_all_applications(self) -> Queries:
        """The same, narrowed to no application: for what is looked up by ID."""
        same = copy.copy(self)  # and the same tables, so that statements of both can be joined
        same.application = None
        return same

    def owned(self, table: sa.FromClause) -> list[Condition]:
        """Narrow a table to the application; nothing where it does not record owners."""
        owner = self.column(table, "application_name")
        if not self.application or isinstance(owner, Null):
            return []
        return [sa.or_(owner == self.application, owner.is_(None))]

    def of_owned_workflow(self, workflow_id: sa.ColumnElement[Any]) -> list[Condition]:
        """Narrow a table whose rows belong to workflows to those of the application."""
        table = self.workflows.alias("owner")
        owner = self.column(table, "application_name")
        if not self.application or isinstance(owner, Null) or isinstance(workflow_id, Null):
            return []
        other = sa.select(sa.literal(1)).select_from(table)
        other = other.where(table.c.workflow_uuid == workflow_id, owner != self.application)
        return [~sa.exists(other)]

    def column(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]:
        """Return a table's column, or NULL where this database has none."""
        found = table.c.get(name)
        return sa.null() if found is None else found

    def recorded_error(self, table: sa.FromClause) -> sa.ColumnElement[Any]:
        """Return a table's recorded error; the Go SDK writes an empty one where there is none."""
        found = self.column(table, "error")
        return found if isinstance(found, Null) else sa.func.nullif(found, "")

    def moment(self, table: sa.FromClause, name: str) -> sa.ColumnElement[Any]:
        """Return a column of times, in which those that no calendar has are missing."""
        found = self.column(table, name)
        if isinstance(found, Null):
            return found
        first, last = (sa.literal_column(str(end), sa.BigInteger()) for end in (FIRST_MS, LAST_MS))
        return sa.case((found.between(first, last), found))

    def select(self, table: sa.FromClause, columns: Iterable[Column]) -> list[Any]:
        """Return labelled expressions for the columns that come from the database."""
        return [
            self.column(table, column.source).label(column.name)
            for column in columns
            if column.source is not None
        ]

    def member(self, expression: sa.ColumnElement[Any], values: Sequence[str]) -> Condition:
        """``expression`` is one of ``values``, with one parameter however many they are."""
        if isinstance(expression, Null) or not values:
            return sa.false()
        if len(values) == 1:
            return expression == values[0]
        if self.catalog.dialect == "postgresql":
            array = sa.cast(sa.bindparam(None, _array(values), sa.Text()), ARRAY(sa.Text()))
            if len(values) > LOOKED_UP:
                return expression == sa.any_(array)
            # For "= ANY" of thousands the planner reads the whole table; this looks each one up.
            return expression.in_(sa.select(sa.func.unnest(array)))
        # A JSON array is one parameter; SQLite allows only so many.
        each = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
        return expression.in_(sa.select(each.c.value))

    def workflow_select(
        self,
        columns: Iterable[Column],
        filters: Mapping[str, Any],
        *,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        newest_first: bool | None = True,
        limit: int | None = None,
        offset: int = 0,
        after: tuple[int, str] | None = None,
    ) -> sa.Select[Any]:
        """Select workflows; ``newest_first=None`` leaves the order open.

        ``load_errors`` looks up each failed workflow's error; ``error_select`` is cheaper for many.
        ``after`` is the ``created_at`` and ID of a row; those that follow it, newest first, come.
        """
        table = self.workflows
        source: sa.FromClause = table
        columns = tuple(columns)
        selected = self.select(table, columns)
        if load_errors and ERROR[0] in columns:
            failed = _literally(table.c.status, FAILED_STATUSES)
            for value, column in zip(
                (self._workflow_error(), self.column(table, "serialization")), RECORDED, strict=True
            ):
                selected.append(sa.case((failed, value)).label(column.name))
        if WAIT in columns and (evidence := timing.ran_before(self)) is not None:
            selected.append(evidence.label(timing.RAN_BEFORE.name))
        if load_input or load_output:
            selected.append(self.column(table, "serialization").label("serialization"))
        for wanted, name, stored in (
            (load_input, "workflow_input", ("inputs",)),
            (load_output, "workflow_output", ("output", "error")),
        ):
            if not wanted:
                continue
            # From dbos 3.0 payloads have tables of their own; older rows keep theirs.
            apart = self.catalog.table(name)
            if self.catalog.has(name, "workflow_uuid"):
                source = source.outerjoin(apart, apart.c.workflow_uuid == table.c.workflow_uuid)
            for payload in stored:
                value = sa.func.coalesce(self.column(apart, payload), self.column(table, payload))
                if payload == "error":
                    value = sa.func.nullif(value, "")
                selected.append(value.label("input" if payload == "inputs" else payload))
        statement = sa.select(*selected).select_from(source).where(*self.where(filters))
        if after is not None:
            created, identity = sa.literal(after[0], sa.BigInteger()), sa.literal(after[1])
            statement = statement.where(
                # By itself too: an index on it serves only so.
                table.c.created_at <= created,
                sa.tuple_(table.c.created_at, table.c.workflow_uuid) < sa.tuple_(created, identity),
            )
        if newest_first is not None:
            keys: tuple[Any, ...] = (table.c.created_at,)
            if limit is not None or offset or self.catalog.dialect == "sqlite":
                # So that pages neither overlap nor leave a row out. To sort ties of all rows
                # would cost Postgres a quarter of its time, and there ties are rare.
                keys += (table.c.workflow_uuid,)
            statement = statement.order_by(*(k.desc() if newest_first else k.asc() for k in keys))
        if limit is not None:
            statement = statement.limit(limit)
        return statement.offset(offset) if offset else statement

    def _workflow_error(self) -> sa.ColumnElement[Any]:
        """Return the recorded error, by a lookup of its own: few workflows have one."""
        table = self.workflows
        error: sa.ColumnElement[Any] = self.column(table, "error")
        if self.catalog.has("workflow_output", "error"):
            apart = self.catalog.table("workflow_output")
            own = sa.select(apart.c.error).where(apart.c.workflow_uuid == table.c.workflow_uuid)
            error = sa.func.coalesce(own.correlate(table).scalar_subquery(), error)
        return sa.func.nullif(error, "")

    def error_select(
        self, filters: Mapping[str, Any], ids: Sequence[str] | None = None
    ) -> sa.Select[Any]:
        """Select the recorded errors of failed workflows, of some by ID unless they are many."""
        table = self.workflows
        source: sa.FromClause = table
        error: sa.ColumnElement[Any] = self.column(table, "error")
        if self.catalog.has("workflow_output", "error"):
            apart = self.catalog.table("workflow_output")
            # The few that hold one; joined to all, the join would be as long as the table.
            own = sa.select(apart.c.workflow_uuid, apart.c.error).where(apart.c.error.is_not(None))
            found = own.subquery("found")
            source = table.outerjoin(found, found.c.workflow_uuid == table.c.workflow_uuid)
            error = sa.func.coalesce(found.c.error, error)
        error = sa.func.nullif(error, "")
        values = (table.c.workflow_uuid, error, self.column(table, "serialization"))
        names = ("workflow_id", *(column.name for column in RECORDED))
        labelled = [value.label(name) for value, name in zip(values, names, strict=True)]
        statement = sa.select(*labelled).select_from(source)
        statement = statement.where(_literally(table.c.status, FAILED_STATUSES), error.is_not(None))
        if ids is not None and len(ids) <= LOOKED_UP:
            return statement.where(self.member(table.c.workflow_uuid, ids))
        return statement.where(*self.where(filters))

    def where(self, filters: Mapping[str, Any]) -> list[Condition]:
        """Return the conditions of checked filters on ``workflow_status``.

        They are narrowed to the application unless they name one, or workflows by ID.
        """
        table = self.workflows
        named = {"workflow_ids", "application_name"} & filters.keys()
        conditions: list[Condition] = [] if named else self.owned(table)
        for name, value in filters.items():
            if name == "workflow_id_prefix":
                conditions.append(self._prefixed(table.c.workflow_uuid, value))
            elif name == "application_name":
                owner = self.column(table, "application_name")
                # As DBOS: an unclaimed row belongs to every application.
                claimed = sa.or_(self.member(owner, value), owner.is_(None))
                conditions.append(claimed if value else sa.false())
            elif name == "status":
                # As literals, or SQLite would not know that its partial indexes serve.
                conditions.append(_literally(table.c.status, value))
            elif name in LISTS:
                conditions.append(self.member(self.column(table, LISTS[name]), value))
            elif name in TIMES:
                source, comparison = TIMES[name]
                column = self.column(table, source)
                conditions.append(column.op(comparison, is_comparison=True)(value))
            else:
                conditions.extend(self._special(name, value, filters))
        return conditions

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
                # In two parts, because DBOS has a partial index for each.
                delayed = [status for status in ACTIVE_STATUSES if status == "DELAYED"]
                others = [status for status in ACTIVE_STATUSES if status != "DELAYED"]
                either = (_literally(table.c.status, part) for part in (others, delayed))
                queued.append(sa.or_(*either))
            return queued
        if name == "attributes" and value:
            return [self._contains(self.column(table, "attributes"), value)]
        if name == "search" and value:
            return [self._found(value)]
        if name == "error" and value:
            return [self._failed_with(value)]
        return []

    def _prefixed(self, column: sa.ColumnElement[Any], prefixes: Sequence[str]) -> Condition:
        # SQLite's LIKE ignores the case of ASCII letters, and so does DBOS's filter there.
        return sa.or_(sa.false(), *(column.startswith(p, autoescape=True) for p in prefixes))

    def _contains(self, column: sa.ColumnElement[Any], wanted: Mapping[str, Any]) -> Condition:
        if isinstance(column, Null):
            return sa.false()
        if self.catalog.dialect == "postgresql":
            document = sa.cast(
                sa.bindparam(None, json.dumps(wanted, ensure_ascii=False), sa.Text()), JSONB
            )
            return column.op("@>", is_comparison=True)(document)
        return _json_contains(sa.case((sa.func.json_valid(column) == 1, column)), wanted)

    def _found(self, text: str) -> Condition:
        """``text`` stands in an ID, name, user or queue, or in what was recorded as error."""
        table = self.workflows
        places = [
            self.column(table, name).icontains(text, autoescape=True)
            for name in ("workflow_uuid", "name", "authenticated_user", "queue_name")
            if name in table.c
        ]
        return sa.or_(*places, self._failed_with(text))

    def _failed_with(self, text: str) -> Condition:
        """``text`` stands in the recorded error."""
        table = self.workflows
        needles = error_needles(text)
        errors = [self.column(table, "error")]
        if self.catalog.has("workflow_output", "error"):
            apart = self.catalog.table("workflow_output")
            recorded = sa.select(apart.c.error).where(
                apart.c.workflow_uuid == table.c.workflow_uuid
            )
            errors.append(recorded.correlate(table).scalar_subquery())
        # Only failed rows have an error, and few are failed.
        hit = [error.contains(n, autoescape=True) for error in errors for n in needles]
        return sa.and_(table.c.status == "ERROR", sa.or_(sa.false(), *hit))

    def step_select(
        self,
        columns: Iterable[Column],
        ids: Sequence[str] | sa.Select[Any],
        *,
        load_output: bool = False,
        limit: int | None = None,
        after: tuple[str, int] | None = None,
    ) -> sa.Select[Any]:
        """Select the steps of workflows, given by ID or by a select of IDs.

        ``after`` is the workflow ID and ``function_id`` of a step; those that follow it come.
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
        # Before dbos 2.20 a step had no serialization of its own.
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
        mine = key.in_(ids) if isinstance(ids, sa.Select) else self.member(key, ids)
        statement = sa.select(*selected).where(mine).order_by(key, table.c.function_id)
        if after is not None:
            place = sa.tuple_(sa.literal(after[0]), sa.literal(after[1], sa.BigInteger()))
            statement = statement.where(
                key >= sa.literal(after[0]), sa.tuple_(key, table.c.function_id) > place
            )
        return statement if limit is None else statement.limit(limit)

    def stream_select(self, columns: Iterable[Column], ids: Sequence[str] | None) -> sa.Select[Any]:
        """Select the values of streams without the marks that end them, and whether one does."""
        table = self.catalog.table("streams")
        columns = [column for column in columns if column.name != "closed"]
        key = self.column(table, "workflow_uuid")
        mine = self.of_owned_workflow(key) if ids is None else [self.member(key, ids)]
        if not {"workflow_uuid", "key", "value"} <= set(table.c.keys()):
            return sa.select(*self.select(table, columns), sa.null().label("closed")).where(*mine)
        ended = (
            sa.select(table.c.workflow_uuid, table.c.key)
            .where(table.c.value.in_(END_MARKS), *mine)
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
            .where(sa.or_(table.c.value.is_(None), table.c.value.not_in(END_MARKS)), *mine)
        )

    def child_selects(self, parents: Sequence[str]) -> list[sa.Select[Any]]:
        """Select (parent, child) pairs: from start steps, and from the children's own rows.

        Both are needed: rows of before dbos 2.20 do not name their parent, and the replacement
        children of a fork are not told that they are its children.
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

        ``started``: by the steps that started children, ``awaited``: by those that awaited a
        workflow too, ``named``: by ``parent_workflow_id``.
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

    def below(
        self, roots: Sequence[str], *, levels: int | None = None, named_alone: bool = False
    ) -> sa.CTE:
        """Return (parent, child) pairs of all that lies below workflows, read by one statement.

        Each pair comes once, so a cycle made by hand ends; a root's own pair has no parent.

        Parameters
        ----------
        roots
            The workflows.
        levels
            How many levels below them; ``None``: all. Each level repeats the pairs of a cycle, so
            this is for few.
        named_alone
            Children as DBOS itself knows them: by ``parent_workflow_id`` alone.
        """
        return self._reached(
            "below",
            self.each(roots),
            lambda owned: self._children(owned, started=not named_alone),
            levels=levels,
        )

    def below_failed(self, roots: Sequence[str]) -> sa.CTE:
        """Return what the steps of failed workflows started or awaited, as pairs like ``below``."""
        status, key = self.workflows.c.status, self.workflows.c.workflow_uuid

        def children(owned: Callable[[sa.ColumnElement[Any]], Condition]) -> list[sa.Select[Any]]:
            failed = sa.exists(
                sa.select(sa.literal(1)).where(
                    key == self.steps.c.workflow_uuid, _literally(status, FAILED_STATUSES)
                )
            )
            found = self._children(owned, awaited=True, named=False)
            return [select.where(failed) for select in found]

        return self._reached("failed", self.each(roots), children)

    def above(self, workflow_ids: Sequence[str]) -> sa.CTE:
        """Return what started workflows, what started that, and so on, as (child, parent) pairs."""
        parent, key = (
            self.column(self.workflows, "parent_workflow_id"),
            self.workflows.c.workflow_uuid,
        )
        selected = sa.select(key.label("parent"), parent.label("child"))
        return self._reached(
            "above",
            self.each(workflow_ids),
            lambda owned: (
                []
                if isinstance(parent, Null)
                else [selected.where(owned(key), parent.is_not(None))]
            ),
        )

    def forks_below(self, originals: Sequence[str]) -> sa.CTE:
        """Return what was forked from workflows, the forks of those forks, and so on, as pairs."""
        return self._reached("forks", self.each(originals), self._forks)

    def family(self, workflow_id: str) -> sa.CTE:
        """Return a workflow, what it was forked from, and all forks of these, as pairs."""
        up = self._reached("originals", self.each([workflow_id]), self._originals)
        return self._reached("family", sa.select(up.c.child), self._forks)

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

    def each(self, values: Sequence[str]) -> sa.Select[Any]:
        """Select values as rows, with one parameter however many they are."""
        if self.catalog.dialect == "postgresql":
            array = sa.cast(sa.bindparam(None, _array(values), sa.Text()), ARRAY(sa.Text()))
            return sa.select(sa.func.unnest(array).label("value"))
        listed = json.dumps(list(values), ensure_ascii=False)
        return sa.select(sa.func.json_each(listed).table_valued("value").c.value)

    def _reached(
        self,
        name: str,
        start: sa.Select[Any],
        following: Callable[[Callable[[sa.ColumnElement[Any]], Condition]], list[sa.Select[Any]]],
        *,
        levels: int | None = None,
    ) -> sa.CTE:
        """Follow (parent, child) pairs from where to start, until no new pair is found."""
        begun = start.subquery(f"{name}_begun")
        depth = [] if levels is None else [sa.literal_column("0", sa.Integer()).label("level")]
        found = sa.select(
            sa.cast(sa.null(), sa.Text()).label("parent"), begun.c[0].label("child"), *depth
        ).cte(name, recursive=True)
        selects = following(lambda owner: owner == found.c.child)
        if not selects:
            return found
        more = [] if levels is None else [found.c.level + 1]
        bound = [] if levels is None else [found.c.level < levels]
        if self.catalog.dialect == "sqlite":
            # A term for each source: so each is looked up by its own index.
            return found.union(
                *(
                    sa.select(*select.selected_columns, *more)
                    .select_from(found)
                    .where(select.whereclause, *bound)  # type: ignore[arg-type]
                    for select in selects
                )
            )
        # OFFSET 0 keeps Postgres from joining whole tables: each workflow is looked up by itself.
        each = sa.union_all(*(select.correlate(found) for select in selects)).offset(0)
        next_ones = each.lateral(f"{name}_next")
        return found.union(
            sa.select(next_ones.c.parent, next_ones.c.child, *more)
            .select_from(found.join(next_ones, sa.true()))
            .where(*bound)
        )


def _array(values: Sequence[str]) -> str:
    """Write texts as a Postgres array; psycopg's own way looks at each text thrice."""
    quoted = (value.replace("\\", r"\\").replace('"', r"\"") for value in values)
    return '{"' + '","'.join(quoted) + '"}'


def _literally(column: sa.ColumnElement[Any], words: Sequence[str]) -> Condition:
    """``column`` is one of a few words of the vocabulary, written into the SQL."""
    values = [sa.bindparam(None, word, sa.Text(), literal_execute=True) for word in words]
    if len(values) == 1:
        return column == values[0]
    return column.in_(values) if values else sa.false()


def error_needles(text: str) -> list[str]:
    """Say what to look for in a stored error, so that ``text`` is found in it.

    JSON holds the text as it is. A pickle is stored as base64, where a text looks one of three
    ways, by its place; the letters at its ends depend on its neighbours and are left off. Below
    five characters too little is left to be sure, so only JSON is searched.

    Examples
    --------
    >>> stored = base64.b64encode(b"...ValueError: no card on file...").decode()
    >>> any(needle in stored for needle in error_needles("no card"))
    True
    """
    data = text.encode()
    needles = [text]
    if len(data) >= 5:
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
            first = (0, 2, 3)[shift]
            last = len(encoded) if (shift + len(data)) % 3 == 0 else len(encoded) - 1
            needles.append(encoded[first:last])
    return needles


def _json_contains(document: sa.ColumnElement[Any], wanted: Any) -> Condition:
    """Containment as PostgreSQL's ``jsonb @>`` defines it, out of SQLite's ``json_each``."""
    each = sa.func.json_each(document).table_valued("key", "value", "type", "atom")
    items = wanted.items() if isinstance(wanted, Mapping) else ((None, item) for item in wanted)
    conditions = []
    for key, item in items:
        alias = each.alias()
        here: list[Condition] = [_json_matches(alias, item)]
        if key is not None:
            here.append(alias.c.key == key)
        conditions.append(sa.exists(sa.select(sa.literal(1)).select_from(alias).where(*here)))
    kind = "object" if isinstance(wanted, Mapping) else "array"
    return sa.and_(sa.func.json_type(document) == kind, *conditions)


def _json_matches(item: sa.FromClause, wanted: Any) -> Condition:
    if wanted is None:
        return item.c.type == "null"
    if isinstance(wanted, bool):
        return item.c.type == ("true" if wanted else "false")
    if isinstance(wanted, int) and not -(1 << 63) <= wanted < 1 << 63:
        # SQLite keeps such a number as a float, and beyond those as infinity.
        wanted = (
            float(wanted) if abs(wanted) < 1 << 1023 else (math.inf if wanted > 0 else -math.inf)
        )
    if isinstance(wanted, int | float):
        return sa.and_(item.c.type.in_(("integer", "real")), item.c.atom == wanted)
    if isinstance(wanted, str):
        return sa.and_(item.c.type == "text", item.c.atom == wanted)
    # A plain text is no JSON document, and json_each would stumble on it.
    nested = sa.case((item.c.type.in_(("object", "array")), item.c.value))
    return _json_contains(nested, wanted)
