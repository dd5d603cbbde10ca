"""What a person calls. Each method checks its arguments and hands on to a room.

Nothing heavy is imported before the first ``connect``: ``import dbos_notebook`` stays light.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from dbos_notebook.counting import Counting
from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import FilterError, LocationError, NotCopyableError, TrustWarning
from dbos_notebook.exploring import Exploring
from dbos_notebook.picturing import Picturing
from dbos_notebook.reading import DEFAULT_LIMIT, Reading
from dbos_notebook.steering import Steering

if TYPE_CHECKING:
    import os

    import pandas as pd
    from dbos import Serializer

    from dbos_notebook.database.catalog import Catalog
    from dbos_notebook.database.location import Location
    from dbos_notebook.database.reader import Reader
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.workflow import Workflow

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame


LONGEST_TIMEOUT = 2_000_000
"""Seconds; Postgres and TCP count milliseconds, up to 2^31."""


def connect(
    database: str | os.PathLike[str] | None = None,
    *,
    schema: str = "dbos",
    application_name: str | None = None,
    read_only: bool = False,
    trust_payloads: bool = False,
    serializer: Serializer | None = None,
    payload_readers: Mapping[str, Callable[[str], Any]] | None = None,
    statement_timeout: float | None = 30.0,
) -> Client:
    """Connect to a DBOS system database, now, and read what it holds.

    Parameters
    ----------
    database
        ``postgresql://…``, ``postgres://…``, ``postgresql+psycopg://…``, a libpq
        ``host=… dbname=…`` string, ``sqlite:///path``, or a path (``~`` is expanded). ``None``:
        the environment variable ``DBOS_SYSTEM_DATABASE_URL``, then ``dbos-config.yaml`` in the
        working directory.
    schema
        The Postgres schema of DBOS's tables (DBOS's ``dbos_system_schema``). Ignored on SQLite.
    application_name
        Show only what this application owns and what no application owns, everywhere: lists,
        counts, queues, events, schedules, versions, executors, views, and what control picks by
        itself. As ``DBOSClient(application_name=…)``: a call's own ``application_name=`` takes
        its place, and what is named by ID is shown whoever owns it. Databases from before DBOS
        recorded owners (dbos 2.30) are not narrowed.
    read_only
        Promise never to control workflows. Reading never writes in any case.
    trust_payloads
        Let DBOS itself deserialize inputs, outputs, errors and the like: they come back as objects
        of the application's own classes, and **unpickling runs whatever they hold**. Only for a
        database whose every writer you trust. ``error_type`` and ``error_message`` are decoded
        inertly in any case, but for a format that ``serializer`` alone knows.
    serializer
        The application's own (``DBOSConfig["serializer"]``), for ``trust_payloads=True``.
    payload_readers
        Functions that read the formats of an application's own serializers, by the serializer's
        name: each takes the stored string and returns the value. Nothing else is trusted. Where
        one raises, the payload comes as an ``Undecoded`` that says so.
    statement_timeout
        Seconds that one query may take; ``None``: no bound. On SQLite it is checked while rows
        arrive.

    Returns
    -------
    Client

    Raises
    ------
    LocationError
        The argument, or the surroundings, name no database; or another argument makes no sense.
    DatabaseConnectionError
        The server or the file cannot be reached (AuthenticationError: the login was refused).
    NotDBOSDatabaseError
        It holds no DBOS tables (SchemaNotFoundError: they are in another schema).

    Examples
    --------
    >>> db = connect(example_database)
    >>> db.workflows(status="ERROR")["name"].tolist()
    ['checkout', 'portable', 'checkout', 'parent_fails', 'checkout']
    """
    from dbos_notebook.database import open_reader
    from dbos_notebook.database.catalog import read_catalog
    from dbos_notebook.database.location import check_name, locate
    from dbos_notebook.payloads.decoders import Readers, Trusted, inert
    from dbos_notebook.tables.columns import expected_columns

    try:
        location = locate(database)
    finally:
        # Some tools show the variables of a traceback, and this one may hold the password.
        del database
    check_name("schema", schema)
    if application_name is not None:
        check_name("application_name", application_name)
    if statement_timeout is not None and not (
        isinstance(statement_timeout, Real) and 0 < statement_timeout <= LONGEST_TIMEOUT
    ):
        raise LocationError(
            f"statement_timeout={statement_timeout!r} must be a number of seconds above 0 and up "
            f"to {LONGEST_TIMEOUT:,}, or None for no bound."
        )
    if serializer is not None and not trust_payloads:
        raise LocationError(
            f"serializer={serializer!r} would run; it needs trust_payloads=True as well."
        )
    decoder: Decoder = Trusted(serializer) if trust_payloads else inert
    if payload_readers is not None:
        decoder = Readers(payload_readers, decoder)
    reader = open_reader(location, schema, statement_timeout)
    with ExitStack() as undo:
        undo.callback(reader.close)
        catalog = read_catalog(reader, expected_columns())
        undo.pop_all()  # it is a database of DBOS, and stays open
    if trust_payloads:
        warnings.warn(
            "trust_payloads=True: reading payloads runs whatever code they hold.",
            TrustWarning,
            stacklevel=2,
        )
    client = Client(
        reader, catalog, decoder, application_name=application_name, read_only=read_only
    )
    reader.changes.follow(catalog, client._read_catalog)
    return client


class Client(Reading, Counting, Picturing, Steering, Exploring):
    """A connection to one system database. Make it with :func:`connect`.

    It may be used from several threads and inside a running event loop, is a context manager, and
    never shows a password. Alone in a notebook cell it shows a card.

    Examples
    --------
    >>> with connect(example_database) as db:
    ...     len(db.workflows())
    26
    """

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        decoder: Decoder,
        *,
        application_name: str | None = None,
        read_only: bool = False,
    ) -> None:
        from dbos_notebook.tables.sql import Queries

        self._reader = reader
        self._queries = Queries(catalog, decoder, application_name)
        self._decoder = decoder
        self._application_name = application_name
        self.read_only = read_only

    def _read_catalog(self) -> Catalog:
        """Read the catalog again, such as when the application was upgraded, and use it."""
        from dbos_notebook.database.catalog import read_catalog
        from dbos_notebook.tables.columns import expected_columns

        self._queries.use(read_catalog(self._reader, expected_columns()))
        return self.catalog

    @property
    def catalog(self) -> Catalog:
        """The tables and columns of the database, its revision, and what wrote it."""
        return self._queries.catalog

    @property
    def location(self) -> Location:
        """Where the database is, without its password."""
        return self._reader.location

    @property
    def _place(self) -> str:
        """What a view names as its source: the database, and the application if it is narrowed."""
        name = self._queries.application
        return f"{self.location}, application {name!r}" if name else str(self.location)

    def __repr__(self) -> str:
        return f"<dbos_notebook.Client {self._place}>"

    @repeat_if_changed
    def _repr_html_(self) -> str:
        from dbos_notebook.drawing.cards import client_card
        from dbos_notebook.tables import aggregates

        with self._reader.session() as session:
            summary = aggregates.summary(session, self._queries)
        return client_card(self._place, self.catalog, summary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: connections belong to one process and one client."""
        raise NotCopyableError(
            f"{self!r} holds connections, and cannot be pickled or copied. Pass the address, and "
            "call connect() where it is needed, also in a worker process."
        )

    def close(self) -> None:
        """Close the connections. Safe to call twice; later calls raise."""
        self._close_control()
        self._reader.close()

    def workflow(self, workflow_id: str) -> Workflow:
        """Look at one workflow: its input, result, steps, children, and where it came from.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID; the message names some that begin alike.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).workflow("checkout-1")
        <Workflow 'checkout-1' checkout SUCCESS>
        """
        from dbos_notebook.workflow import Workflow

        found = self._one_workflow(
            workflow_id, load_input=True, load_output=True, load_internals=True
        )
        return Workflow(self, found.iloc[0])

    def _one_workflow(self, workflow_id: str, **loads: Any) -> pd.DataFrame:
        """List one workflow, which may have been deleted since its ID was read."""
        from dbos_notebook.tables import listings

        found = self.workflows([workflow_id], **loads)
        if found.empty:
            with self._reader.session() as session:
                listings.raise_unknown(session, self._queries, [workflow_id])
        return found

    @repeat_if_changed
    def _stored(self, what: str, workflows: Texts | None, limit: int | None = None) -> pd.DataFrame:
        from dbos_notebook.tables import frames, listings
        from dbos_notebook.tables.filters import as_texts, check_window

        ids = None if workflows is None else as_texts(workflows, "workflows")
        limit, _ = check_window(limit, None)
        with self._reader.session() as session:
            most = None if limit is None else limit + 1
            columns, batches = listings.stored(session, self._queries, what, ids, most)
            kept, truncated = frames.cut(batches, limit)
            frame = frames.to_frame(kept, columns, self._decoder)
        frames.note_truncation(frame, truncated=truncated, asked=limit != DEFAULT_LIMIT, what=what)
        return frame

    def events(
        self,
        workflows: Texts | None = None,
        *,
        history: bool = False,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """List the events that workflows set (``DBOS.set_event``), their latest values.

        Parameters
        ----------
        workflows
            An ID, many, a Series, or a DataFrame with ``workflow_id``; ``None``: of all.
        history
            Earlier values too: a row for each step that set one, in the order of the steps, with
            ``function_id``. A value that was set outside a step has none of its own.
        limit
            Rows at most; ``None``: all.

        Raises
        ------
        FilterError
            ``history=True`` on a database that keeps no earlier values of events.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.events("checkout-1")["key"].tolist()
        ['status']
        >>> db.events("checkout-1", history=True)["function_id"].tolist()
        [1, 6]
        """
        if history and not self.catalog.tables.get("workflow_events_history"):
            raise FilterError(
                f"history=True: this database (written by {self.catalog.written_by}) keeps no "
                "earlier values of events. Without history=True the latest ones are listed."
            )
        return self._stored("events_history" if history else "events", workflows, limit)

    def messages(
        self, workflows: Texts | None = None, *, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """List the messages sent to workflows (``DBOS.send``), oldest first.

        Examples
        --------
        >>> str(dbos_notebook.connect(example_database).messages()["consumed"].dtype)
        'boolean'
        """
        return self._stored("messages", workflows, limit)

    def streams(
        self, workflows: Texts | None = None, *, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """List the values that workflows wrote to streams, in order.

        Examples
        --------
        >>> list(dbos_notebook.connect(example_database).streams().columns)[:3]
        ['workflow_id', 'key', 'offset']
        """
        return self._stored("streams", workflows, limit)

    def schedules(self) -> pd.DataFrame:
        """List the schedules that are kept in the database.

        Examples
        --------
        >>> "cron_timezone" in dbos_notebook.connect(example_database).schedules()
        True
        """
        return self._stored("schedules", None)

    def versions(self) -> pd.DataFrame:
        """List application versions, the latest last.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).versions()["version_name"].tolist()
        ['v1']
        """
        return self._stored("versions", None)

    @repeat_if_changed
    def explain(
        self,
        what: Literal["workflows", "steps"] = "workflows",
        *,
        limit: int | None = 50,
        **filters: Any,
    ) -> str:
        """Return the database's plan (EXPLAIN) for a listing, without running it.

        Examples
        --------
        >>> "INDEX" in connect(example_database).explain(workflow_ids="checkout-1")
        True
        """
        if what == "steps":
            from dbos_notebook.tables.columns import STEP
            from dbos_notebook.tables.filters import as_texts

            ids = as_texts(filters.pop("workflows", []), "workflows")
            with self._reader.session() as session:
                return session.explain(self._queries.step_select(STEP, ids))
        from dbos_notebook.tables.columns import WORKFLOW

        checked = self._check(filters)
        with self._reader.session() as session:
            statement = self._queries.workflow_select(WORKFLOW, checked, limit=limit)
            return session.explain(statement)
