"""Read access to one system database: sessions, queries and the payload decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from dbos_notebook.database.catalog import Catalog, read_catalog
from dbos_notebook.database.schema_changes import repeat_if_changed
from dbos_notebook.errors import FilterError
from dbos_notebook.status import ACTIVE_STATUSES
from dbos_notebook.tables import frames, listings
from dbos_notebook.tables.columns import ACTIVITY, STRING_DTYPE, expected_columns
from dbos_notebook.tables.filters import as_strings, check_count, check_filters
from dbos_notebook.tables.sql import Queries
from dbos_notebook.types import DEFAULT_LIMIT, Filters, WorkflowIds

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Reader, Session
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.activity import Activity

P = ParamSpec("P")
T = TypeVar("T")

Table = Literal["events", "events_history", "messages", "streams", "schedules", "versions"]
"""The tables that are listed without computed columns."""


class ListOptions(TypedDict, total=False):
    """The options of ``listings.workflows``."""

    sort_desc: bool
    load_input: bool
    load_output: bool
    load_errors: bool
    load_internals: bool
    normalize: bool


class ListArguments(Filters, ListOptions, total=False):
    """All keyword arguments of ``Store.workflows``."""

    load_activity: bool


class Store:
    """Read access to one system database.

    ``Client`` and every package above ``tables`` read through a store. It never writes.

    Attributes
    ----------
    reader
        Opens read-only sessions.
    queries
        Composes SQL for the tables of this database, limited to one application.
    decoder
        Decodes payloads.
    """

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        decoder: Decoder,
        *,
        application_name: str | None = None,
    ) -> None:
        self.reader = reader
        self.queries = Queries(catalog, decoder, application_name)
        self.decoder = decoder

    @classmethod
    def open(cls, reader: Reader, decoder: Decoder, *, application_name: str | None) -> Store:
        """Read the catalog, and read it again whenever the database's tables change."""
        catalog = read_catalog(reader, expected_columns())
        store = cls(reader, catalog, decoder, application_name=application_name)
        reader.changes.follow(catalog, store.refresh)
        return store

    def refresh(self) -> Catalog:
        """Read the catalog again, for example after an upgrade of the application."""
        self.queries.set_catalog(read_catalog(self.reader, expected_columns()))
        return self.catalog

    @property
    def catalog(self) -> Catalog:
        """The tables and columns of the database, its revision, and which dbos wrote it."""
        return self.queries.catalog

    @property
    def location(self) -> Location:
        """Where the database is, without its password."""
        return self.reader.location

    @property
    def application_name(self) -> str | None:
        """The application to which all queries are limited; ``None``: all applications."""
        return self.queries.application

    @property
    def label(self) -> str:
        """The database and the application, if any, as the title of a view."""
        name = self.application_name
        return f"{self.location}, application {name!r}" if name else str(self.location)

    def with_decoder(self, decoder: Decoder) -> Store:
        """Return a copy of the store with another payload decoder."""
        store = copy.copy(self)
        store.decoder = decoder
        return store

    def session(self) -> AbstractContextManager[Session]:
        """Open a read-only session. All its statements read the same snapshot."""
        return self.reader.session()

    def read(
        self,
        function: Callable[Concatenate[Session, Queries, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function of ``tables`` in a new session.

        The call is repeated if the database's tables changed meanwhile.
        """

        @repeat_if_changed
        def call() -> T:
            with self.session() as session:
                return function(session, self.queries, *args, **kwargs)

        return call()

    def workflows(
        self,
        workflow_ids: WorkflowIds | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        offset: int | None = None,
        **arguments: Unpack[ListArguments],
    ) -> pd.DataFrame:
        """List workflows as :meth:`Client.workflows` does."""
        load_activity = arguments.pop("load_activity", False)
        options: ListOptions = {}
        filters: Filters = {}
        for name, value in arguments.items():
            into = options if name in ListOptions.__annotations__ else filters
            into[name] = value  # type: ignore[literal-required] # the names are those of the dicts
        limit, offset = check_count(limit, "limit"), check_count(offset, "offset") or 0
        checked = check_filters({"workflow_ids": workflow_ids, **filters})
        frame, truncated = self.read(
            listings.workflows, checked, limit, offset, self.decoder, **options
        )
        frames.note_truncation(
            frame, truncated=truncated, explicit_limit=limit != DEFAULT_LIMIT, what="workflows"
        )
        return self._with_activity(frame) if load_activity else frame

    def _with_activity(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Add the column ``activity`` after the name."""
        import pandas as pd

        active = frame.loc[frame["status"].isin(ACTIVE_STATUSES), "workflow_id"].tolist()
        texts = {key: found.text for key, found in self.activities(active).items()}
        values = [texts.get(key) for key in frame["workflow_id"]]
        column = pd.Series(values, index=frame.index, dtype=STRING_DTYPE)
        frame.insert(frame.columns.tolist().index("name") + 1, ACTIVITY.name, column)
        return frame

    def activities(self, ids: Sequence[str]) -> dict[str, Activity]:
        """Return what workflows are doing now, by ID; those that have ended are omitted."""
        if not ids:
            return {}
        # It imports the driver of Postgres, which costs a list of a SQLite file 0.2 s.
        from dbos_notebook.tables.activity import activities

        return self.read(activities, ids, self.location)

    def workflow(self, workflow_id: str, **options: Unpack[ListOptions]) -> pd.DataFrame:
        """List one workflow; raise WorkflowNotFoundError if it does not exist."""
        frame = self.workflows([workflow_id], **options)
        if frame.empty:
            self.read(listings.raise_unknown, [workflow_id])
        return frame

    def steps(
        self,
        workflows: WorkflowIds,
        *,
        children: bool = False,
        load_output: bool = False,
        normalize: bool = False,
    ) -> pd.DataFrame:
        """List steps as :meth:`Client.steps` does."""
        ids = as_strings(workflows, "workflows")
        return self.read(
            listings.steps,
            ids,
            self.decoder,
            # IDs from another listing may have been deleted; a single ID should exist.
            require=isinstance(workflows, str),
            children=children,
            load_output=load_output,
            normalize=normalize,
        )

    def tree(self, workflow: WorkflowIds, *, depth: int | None = None) -> pd.DataFrame:
        """List workflows and their descendants as :meth:`Client.tree` does."""
        depth = check_count(depth, "depth", "a number of levels")
        return self.read(listings.tree, as_strings(workflow, "workflow"), depth)

    def table(
        self, name: Table, workflows: WorkflowIds | None = None, limit: int | None = None
    ) -> pd.DataFrame:
        """List the rows of a table: events, messages, streams, schedules or versions."""
        ids = None if workflows is None else as_strings(workflows, "workflows")
        limit = check_count(limit, "limit")
        frame, truncated = self.read(listings.table_frame, name, ids, limit, self.decoder)
        frames.note_truncation(
            frame, truncated=truncated, explicit_limit=limit != DEFAULT_LIMIT, what=name
        )
        return frame

    def events(
        self, workflows: WorkflowIds | None, *, history: bool, limit: int | None
    ) -> pd.DataFrame:
        """List events as :meth:`Client.events` does."""
        if history and not self.catalog.tables.get("workflow_events_history"):
            raise FilterError(
                f"history=True: this database (written by {self.catalog.written_by}) stores no "
                "earlier values of events. Call without history=True for the latest values."
            )
        return self.table("events_history" if history else "events", workflows, limit)

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self.reader.close()
