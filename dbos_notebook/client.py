"""``connect`` and ``Client``: every public call, in sections. Each calls one function below it.

Control, views, graphs and pictures are imported on first use.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, Unpack, overload

import pyarrow as pa

from dbos_notebook.database import open_reader
from dbos_notebook.database.location import check_name, locate
from dbos_notebook.database.process_fork import ForkableLock
from dbos_notebook.errors import FilterError, LocationError, NotCopyableError, TrustWarning, nearest
from dbos_notebook.payloads.decoders import Decoder, ReaderDecoder, TrustedDecoder, decode_inert
from dbos_notebook.store import Store
from dbos_notebook.tables import aggregates, frames, listings, message_waits, streaming
from dbos_notebook.tables.columns import STEP, WORKFLOW
from dbos_notebook.tables.filters import (
    as_failed_trees,
    as_seconds,
    as_strings,
    check_count,
    check_filters,
)
from dbos_notebook.types import DEFAULT_LIMIT, Filters, WorkflowFilters

if TYPE_CHECKING:
    import datetime as dt
    import os

    import networkx as nx
    import pandas as pd
    from dbos import Serializer

    from dbos_notebook.analysis.diagnosis import Diagnosis
    from dbos_notebook.analysis.findings import ControlCall
    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.operations import Operation
    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.database.catalog import Catalog
    from dbos_notebook.database.location import Location
    from dbos_notebook.drawing.picture import Picture
    from dbos_notebook.types import (
        BackfillOptions,
        CancelOptions,
        ConfirmOption,
        DeleteOptions,
        DiagnosisOptions,
        Duration,
        ForceOption,
        ForkOptions,
        RepairOptions,
        ResumeOptions,
        RewindOptions,
        SendOptions,
        StartStep,
        StartSteps,
        Strings,
        Theme,
        Time,
        WorkflowIds,
    )
    from dbos_notebook.widgets.board import Board
    from dbos_notebook.widgets.console import Console
    from dbos_notebook.widgets.controls import Controls
    from dbos_notebook.widgets.explore import Explore
    from dbos_notebook.widgets.inspect import Inspect
    from dbos_notebook.workflow import Workflow

MAX_TIMEOUT_SECONDS = 2_000_000
"""Postgres and TCP count milliseconds, up to 2^31."""

F = TypeVar("F", bound=Callable[..., Any])


def connect(
    database: str | os.PathLike[str] | None = None,
    *,
    schema: str = "dbos",
    application_name: str | None = None,
    read_only: bool = False,
    trust_payloads: bool = False,
    serializer: Serializer | None = None,
    payload_readers: Mapping[str, Callable[[str], Any]] | None = None,
    statement_timeout: Duration | None = 30.0,
) -> Client:
    """Connect to a DBOS system database and read which tables it has.

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
        counts, queues, events, schedules, versions, executors, views, and what control selects
        by itself. As in ``DBOSClient(application_name=…)``, the ``application_name=`` of a single
        call overrides it, and a workflow named by its ID is shown whoever owns it. Databases
        older than dbos 2.30 do not record owners: there it has no effect.
    read_only
        Refuse every call that controls workflows. Reading never writes in any case.
    trust_payloads
        Let DBOS itself deserialize inputs, outputs and errors into objects of the application's
        own classes. **Unpickling runs whatever the payload holds**, so use it only for a database
        whose every writer you trust. ``error_type`` and ``error_message`` are decoded without
        running anything in any case, except for a format that only ``serializer`` knows.
    serializer
        The application's own serializer (``DBOSConfig["serializer"]``), for
        ``trust_payloads=True``.
    payload_readers
        Functions that read the formats of an application's own serializers, by the serializer's
        name. Each takes the stored string and returns the value. Nothing else is trusted. If a
        function raises, the payload is returned as an ``Undecoded`` with the reason.
    statement_timeout
        Seconds, or a timedelta, that one query may take; ``None``: no limit. On SQLite it is
        checked while rows arrive.

    Returns
    -------
    Client

    Raises
    ------
    LocationError
        The argument and the environment identify no database, or another argument is invalid.
    DatabaseConnectionError
        The server or the file cannot be reached (AuthenticationError: the login was refused).
    NotDBOSDatabaseError
        The database has no DBOS tables (SchemaNotFoundError: they are in another schema).

    Examples
    --------
    >>> db = connect(example_database)
    >>> db.workflows(status="ERROR")["name"].tolist()
    ['checkout', 'portable', 'checkout', 'parent_fails', 'checkout']
    """
    try:
        location = locate(database)
    finally:
        # Some tools show the variables of a traceback, and this one may hold the password.
        del database
    check_name("schema", schema)
    if application_name is not None:
        check_name("application_name", application_name)
    decoder: Decoder = TrustedDecoder(serializer) if trust_payloads else decode_inert
    if payload_readers is not None:
        decoder = ReaderDecoder(payload_readers, decoder)
    if serializer is not None and not trust_payloads:
        raise LocationError(
            f"serializer={serializer!r} would run code; it needs trust_payloads=True as well."
        )
    reader = open_reader(location, schema, _timeout_seconds(statement_timeout))
    with ExitStack() as on_error:
        on_error.callback(reader.close)
        store = Store.open(reader, decoder, application_name=application_name)
        on_error.pop_all()
    if trust_payloads:
        warnings.warn(
            "trust_payloads=True: reading payloads runs whatever code they hold.",
            TrustWarning,
            stacklevel=2,
        )
    if "IPython" in sys.modules:
        from dbos_notebook.drawing import frame_html

        frame_html.register()
    return Client(store, read_only=read_only)


def _timeout_seconds(value: Duration | None) -> float | None:
    try:
        seconds = as_seconds(value, "statement_timeout")
    except FilterError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise LocationError(
            f"statement_timeout={value!r} must be a number of seconds above 0 and up to "
            f"{MAX_TIMEOUT_SECONDS:,}, a timedelta, or None for no limit."
        )
    return seconds


_FILTER_HINTS = {
    name: hint.__forward_arg__ for name, hint in WorkflowFilters.__annotations__.items()
}


def _show_filters(method: F) -> F:
    """Write each filter into the signature that help() and completion show for ``**filters``."""
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[:-1]
    names = {each.name for each in parameters}
    keyword_only = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    filters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in _FILTER_HINTS.items()
        if name not in names
    ]
    positional = [each for each in parameters if each not in keyword_only]
    method.__signature__ = signature.replace(parameters=[*positional, *filters, *keyword_only])  # type: ignore[attr-defined] # mypy does not know it
    return method


class Client:
    """A connection to one DBOS system database. Make it with :func:`connect`.

    ===================  ===========================================================================
    **Read rows**        :meth:`workflows`, :meth:`queued`, :meth:`steps`, :meth:`tree`,
                         :meth:`events`, :meth:`messages`, :meth:`awaiting_messages`,
                         :meth:`streams`, :meth:`schedules`, :meth:`versions`;
                         :meth:`iter_workflows` and :meth:`arrow` for many
    **Aggregate**        :meth:`counts`, :meth:`failures`, :meth:`workflow_statistics`,
                         :meth:`step_statistics`, :meth:`latency_histogram`, :meth:`queues`,
                         :meth:`executors`
    **Over time**        :meth:`throughput`, :meth:`concurrency`, :meth:`queue_history`,
                         :meth:`forecast`, :meth:`landing_times`, :meth:`slo`
    **Compare**          :meth:`compare_versions`, :meth:`contrast`
    **Diagnose**         :meth:`diagnose`
    **One workflow**     :meth:`workflow`, :meth:`graph`, :meth:`timeline`
    **Process mining**   :meth:`process_map`, :meth:`variants`, :meth:`event_log`
    **Control**          :meth:`cancel`, :meth:`resume`, :meth:`fork`, :meth:`rewind`,
                         :meth:`repair`, :meth:`send`, :meth:`delete`, :meth:`set_delay`,
                         :meth:`set_attributes`
    **Schedules**        :meth:`pause_schedule`, :meth:`resume_schedule`, :meth:`trigger_schedule`,
                         :meth:`backfill_schedule`, :meth:`delete_schedule`
    **Follow up**        :meth:`wait`, :meth:`repair_status`, :meth:`history`, :meth:`last_receipt`
    **Views**            :meth:`open`; its parts :meth:`explore`, :meth:`inspect`, :meth:`board`,
                         :meth:`controls`
    **Connection**       :attr:`location`, :attr:`catalog`, :attr:`read_only`, :meth:`explain`,
                         :meth:`close`
    ===================  ===========================================================================

    A client may be used from several threads and inside a running event loop, is a context
    manager, and never shows a password. As the last line of a notebook cell it shows a card.

    Examples
    --------
    >>> with connect(example_database) as db:
    ...     len(db.workflows())
    26
    """

    def __init__(self, store: Store, *, read_only: bool = False) -> None:
        self._store = store
        self._read_only = read_only
        self._closed = False
        self._lazy_controller: Controller | None = None
        self._lock = ForkableLock()

    # Connection

    @property
    def location(self) -> Location:
        """Where the database is, without its password."""
        return self._store.location

    @property
    def catalog(self) -> Catalog:
        """The tables and columns of the database, its revision, and what wrote it."""
        return self._store.catalog

    @property
    def read_only(self) -> bool:
        """Whether the client refuses every call that controls workflows."""
        return self._read_only

    def __repr__(self) -> str:
        return f"<dbos_notebook.Client {self._store.label}>"

    def _repr_html_(self) -> str:
        from dbos_notebook.drawing.cards import client_card

        return client_card(self._store.label, self.catalog, self._store.read(aggregates.summary))

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
        """Close all connections. Closing twice is safe; any later call raises."""
        with self._lock:
            self._closed = True
            if self._lazy_controller is not None:
                self._lazy_controller.close()
        self._store.close()

    @_show_filters
    def explain(
        self,
        what: Literal["workflows", "steps"] = "workflows",
        *,
        limit: int | None = 50,
        workflows: WorkflowIds = (),
        **filters: Unpack[WorkflowFilters],
    ) -> str:
        """Return the database's query plan (EXPLAIN) for a listing, without running it.

        Parameters
        ----------
        what
            ``"workflows"``, or ``"steps"`` of ``workflows``.
        limit
            Rows at most.
        workflows
            The workflows whose steps would be listed.
        **filters
            The filters of :meth:`workflows`.

        Examples
        --------
        >>> "INDEX" in connect(example_database).explain(workflow_ids="checkout-1")
        True
        """
        if what not in ("workflows", "steps"):
            raise FilterError(f"explain takes 'workflows' or 'steps', not {what!r}.")
        if what == "steps":
            return self._store.read(listings.explain_steps, as_strings(workflows, "workflows"))
        return self._store.read(listings.explain_workflows, check_filters(filters), limit)

    # Read rows

    @_show_filters
    def workflows(
        self,
        workflow_ids: WorkflowIds | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        offset: int | None = None,
        sort_desc: bool = True,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        load_internals: bool = False,
        load_activity: bool = False,
        normalize: bool = False,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """List workflows, newest first.

        The filters are those of ``DBOSClient.list_workflows`` (dbos 3.4) with the same meaning,
        except that times may be ages (``"24h"``), lists may be any iterable, a Series or a
        DataFrame, **an empty list matches nothing**, ``limit=0`` returns no rows, and
        ``attributes`` works on SQLite too.

        Parameters
        ----------
        workflow_ids, status, name, app_version, forked_from, parent_workflow_id, user
            One string or many; a DataFrame stands for its ``workflow_id`` column.
        queue_name, executor_id, schedule_name
            One string or many.
        workflow_id_prefix
            Prefixes of IDs. On SQLite the case of ASCII letters is ignored.
        application_name
            One string or many; rows that no application owns always match.
        start_time, end_time
            Bounds on ``created_at``, inclusive.
        completed_after, completed_before, dequeued_after, dequeued_before
            Bounds on ``completed_at`` and ``dequeued_at``, inclusive. A time without a time zone
            is local.
        limit, offset
            How many rows are returned and skipped. ``limit=None``: all. When rows were left out,
            ``df.attrs["truncated"]`` is true; at the default limit a TruncatedWarning says so.
        sort_desc
            Newest first: by ``created_at``, then by ID (on Postgres not by ID with
            ``limit=None``).
        load_input, load_output
            Add ``serialization`` and ``input``, or ``output`` and ``error``, decoded without
            running anything (``dbos_notebook.payloads``).
        load_errors
            Look up and decode the errors of failed workflows, and the steps that made them fail.
            Without it these columns are missing, and a long listing takes a third less time.
        load_internals
            Add DBOS's internal columns: ``rate_limited``, ``is_debounced``,
            ``debounce_deadline``, ``owner_xid``, ``creator_xid``.
        load_activity
            Add ``activity``: what each active workflow is doing now, in words. It takes a few more
            statements, whatever the number of workflows.
        normalize
            Flatten the loaded inputs and outputs into columns: ``input.0.sku``, ``output.total``.
        queues_only
            Only workflows that are on a queue and not finished.
        was_forked_from, is_fork, has_parent
            True or False.
        attributes
            Workflows whose attributes contain all of these (PostgreSQL's ``jsonb @>``).
        search
            A substring of the ID, name, user or queue, in any case; or of the error, as ``error``.
        error
            A substring of the recorded error, case-sensitive (from 5 characters in a pickle).

        Returns
        -------
        pandas.DataFrame
            A row per workflow. The columns and dtypes are those of the column reference, the
            same on every database version.

        Raises
        ------
        FilterError
            An unknown filter or an invalid value.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.workflows(status="ERROR", name="checkout", has_parent=False)[["name", "status"]]
               name status
        0  checkout  ERROR
        1  checkout  ERROR
        >>> db.workflows(workflow_ids=[]).empty
        True
        """
        return self._store.workflows(
            workflow_ids,
            limit=limit,
            offset=offset,
            sort_desc=sort_desc,
            load_input=load_input,
            load_output=load_output,
            load_errors=load_errors,
            load_internals=load_internals,
            load_activity=load_activity,
            normalize=normalize,
            **filters,
        )

    @_show_filters
    def queued(
        self,
        workflow_ids: WorkflowIds | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        offset: int | None = None,
        sort_desc: bool = True,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        load_internals: bool = False,
        normalize: bool = False,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """List workflows that are on a queue and DELAYED, ENQUEUED or PENDING.

        Takes the arguments of :meth:`workflows`. A ``status`` replaces the three statuses, as in
        ``DBOSClient.list_queued_workflows``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).queued()["workflow_id"].tolist()
        ['queued-2', 'queued-1', 'holder']
        """
        filters["queues_only"] = True
        return self.workflows(
            workflow_ids,
            limit=limit,
            offset=offset,
            sort_desc=sort_desc,
            load_input=load_input,
            load_output=load_output,
            load_errors=load_errors,
            load_internals=load_internals,
            normalize=normalize,
            **filters,
        )

    @_show_filters
    def iter_workflows(
        self,
        chunksize: int = 50_000,
        *,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        **filters: Unpack[WorkflowFilters],
    ) -> Iterator[pd.DataFrame]:
        """Read workflows as DataFrames of ``chunksize`` rows, newest first, without a limit.

        Rows are read page by page, and **nothing is open between two frames**: no transaction, no
        lock, no query. The consumer may take any time; ``statement_timeout`` counts only the
        database's work. Each page is a snapshot of its own: a workflow that exists throughout is
        returned exactly once, with its values when its page was read; one that is created
        meanwhile is not returned.

        Parameters
        ----------
        chunksize
            Rows per DataFrame.
        load_input, load_output, load_errors
            As in :meth:`workflows`.
        **filters
            The filters of :meth:`workflows`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> [len(frame) for frame in db.iter_workflows(chunksize=10)]
        [10, 10, 6]
        """
        if isinstance(chunksize, bool) or not isinstance(chunksize, int) or chunksize < 1:
            raise FilterError(f"chunksize takes a whole number above 0, not {chunksize!r}.")
        batches = streaming.workflow_batches(
            self._store.reader,
            self._store.queries,
            check_filters(filters),
            load_input=load_input,
            load_output=load_output,
            load_errors=load_errors,
            first_rows=max(chunksize, streaming.FIRST_ROWS),
        )
        columns = listings.workflow_columns(load_input=load_input, load_output=load_output)
        return (
            frames.to_frame(group, columns, self._store.decoder)
            for group in frames.rechunk(batches, chunksize)
        )

    @_show_filters
    def arrow(
        self,
        what: Literal["workflows", "steps"] = "workflows",
        **filters: Unpack[WorkflowFilters],
    ) -> pa.RecordBatchReader:
        """Read workflows, or the steps of workflows, as Arrow record batches.

        As with :meth:`iter_workflows`, nothing is open between two batches. The order of rows is
        not defined.

        Parameters
        ----------
        what
            ``"workflows"`` or ``"steps"``.
        **filters
            The filters of :meth:`workflows`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.arrow("steps", name="checkout").read_all().num_rows > 0
        True
        """
        if what not in ("workflows", "steps"):
            raise FilterError(
                f"arrow({what!r}) is not supported.{nearest(what, ['workflows', 'steps'])} "
                "Use 'workflows' or 'steps'."
            )
        columns = WORKFLOW if what == "workflows" else STEP
        read = streaming.workflow_batches if what == "workflows" else streaming.step_batches
        batches = read(self._store.reader, self._store.queries, check_filters(filters))
        return pa.RecordBatchReader.from_batches(frames.arrow_schema(columns), batches)

    def steps(
        self,
        workflows: WorkflowIds,
        *,
        children: bool = False,
        load_output: bool = False,
        normalize: bool = False,
    ) -> pd.DataFrame:
        """List the steps of one workflow or of many, in one query.

        A step that is running has no row: DBOS records a step when it ends.

        Parameters
        ----------
        workflows
            An ID, a list, a Series, or a DataFrame with a ``workflow_id`` column. An empty one
            returns no rows.
        children
            Include the steps of all workflows below them.
        load_output
            Add ``serialization``, ``output`` and ``error``, decoded.
        normalize
            Flatten the loaded outputs into columns: ``output.total``.

        Returns
        -------
        pandas.DataFrame
            A row per step, by workflow ID and ``function_id``.

        Raises
        ------
        WorkflowNotFoundError
            One ID was given, as a string, and no workflow has it.

        Examples
        --------
        >>> steps = dbos_notebook.connect(example_database).steps("checkout-1")
        >>> steps["function_name"].tolist()[:3]
        ['DBOS.setEvent', 'validate', 'charge']
        """
        return self._store.steps(
            workflows, children=children, load_output=load_output, normalize=normalize
        )

    def tree(self, workflows: WorkflowIds, *, depth: int | None = None) -> pd.DataFrame:
        """List workflows and everything below them: children, their children, and so on.

        Children are found by the steps that started them and by ``parent_workflow_id``, so the
        replacement children of a fork are included.

        Parameters
        ----------
        workflows
            One ID or many.
        depth
            How many levels below; ``None``: all.

        Returns
        -------
        pandas.DataFrame
            The columns of :meth:`workflows`, ``root_workflow_id`` and ``depth``; parents first.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has one of the IDs.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).tree("checkout-1")[["workflow_id", "depth"]]
              workflow_id  depth
        0      checkout-1      0
        1    checkout-1-4      1
        2  checkout-1-4-1      2
        """
        return self._store.tree(workflows, depth=depth)

    def events(
        self,
        workflows: WorkflowIds | None = None,
        *,
        history: bool = False,
        limit: int | None = DEFAULT_LIMIT,
    ) -> pd.DataFrame:
        """List the latest values of the events that workflows set (``DBOS.set_event``).

        Parameters
        ----------
        workflows
            An ID, a list, a Series, or a DataFrame with a ``workflow_id`` column; ``None``: all.
        history
            Include earlier values: a row for each step that set one, in the order of the steps,
            with ``function_id``. A value that was set outside a step has none.
        limit
            Rows at most; ``None``: all.

        Raises
        ------
        FilterError
            ``history=True`` on a database that keeps no earlier values.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.events("checkout-1")["key"].tolist()
        ['status']
        >>> db.events("checkout-1", history=True)["function_id"].tolist()
        [1, 6]
        """
        return self._store.events(workflows, history=history, limit=limit)

    def messages(
        self, workflows: WorkflowIds | None = None, *, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """List the messages sent to workflows (``DBOS.send``), oldest first.

        Parameters
        ----------
        workflows, limit
            As in :meth:`events`.

        Examples
        --------
        >>> str(dbos_notebook.connect(example_database).messages()["consumed"].dtype)
        'boolean'
        """
        return self._store.table("messages", workflows, limit)

    def awaiting_messages(self) -> pd.DataFrame:
        """List the running workflows that appear to wait for a message, the longest wait first.

        DBOS does not record that a workflow waits. It is inferred: ``DBOS.recv`` records its
        timeout before it waits, and itself only afterwards. ``DBOS.get_event``, and a step that
        runs at the same time as a ``DBOS.sleep``, look the same. :meth:`send` answers.

        Returns
        -------
        pandas.DataFrame
            ``workflow_id``, ``name``, ``function_id``, ``topic``, ``since``, ``timeout_at``,
            ``event_key``, ``event``, ``unread``, ``app_version``, ``executor_id``, ``evidence``;
            see :doc:`/reference/columns`. At most 1,000 rows.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).awaiting_messages().empty
        True
        """
        waits = self._store.read(message_waits.awaiting_messages, self._store.decoder)
        return frames.mark_listing(waits)

    def streams(
        self, workflows: WorkflowIds | None = None, *, limit: int | None = DEFAULT_LIMIT
    ) -> pd.DataFrame:
        """List the values that workflows wrote to streams, in order.

        Parameters
        ----------
        workflows, limit
            As in :meth:`events`.

        Examples
        --------
        >>> list(dbos_notebook.connect(example_database).streams().columns)[:3]
        ['workflow_id', 'key', 'offset']
        """
        return self._store.table("streams", workflows, limit)

    def schedules(self) -> pd.DataFrame:
        """List the schedules that are stored in the database.

        Examples
        --------
        >>> "cron_timezone" in dbos_notebook.connect(example_database).schedules()
        True
        """
        return self._store.table("schedules")

    def versions(self) -> pd.DataFrame:
        """List application versions, the latest last.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).versions()["version_name"].tolist()
        ['v1']
        """
        return self._store.table("versions")

    # Aggregate

    @_show_filters
    def failures(
        self,
        *,
        bucket: str | dt.timedelta | None = None,
        time: str = "created_at",
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Group failed workflows by cause: where it began, the step, the error and its message.

        A failure that made other workflows fail counts once, where it began: in the child, even if
        the filters select only its parents. The messages are templates: what differs between runs
        is replaced, so that ``Order 17 failed`` and ``Order 18 failed`` are one cause.

        A group, or several, are accepted wherever workflows are: ``db.workflows(group)``,
        ``db.fork(group, "failed")``. They stand for the workflows where the failure began, and in
        ``db.repair(group)`` also for those that failed because of them.

        Parameters
        ----------
        bucket
            Count by time, as in :meth:`counts`: a row for each bucket and cause.
        time
            The column that is bucketed: ``created_at`` or ``completed_at``.
        **filters
            The filters of :meth:`workflows`, which select failed workflows. Without ``status``
            those in ERROR and MAX_RECOVERY_ATTEMPTS_EXCEEDED. Cancelled ones were stopped on
            purpose or by a deadline, and count only with ``status="CANCELLED"``.

        Returns
        -------
        pandas.DataFrame
            The most frequent cause first; with a bucket, its start first, under the name of
            ``time``. By cause: ``name``, ``failed_step`` (missing: the workflow's own code),
            ``error_type``, ``message`` and ``status``.
            ``count`` (Int64); ``share`` (float64) of the runs of that workflow that the filters
            other than status, error and search select, missing if they select none; ``unaddressed``
            (Int64), those that :meth:`repair_status` calls unaddressed or failed again;
            ``failed_ancestors`` (Int64), how many of the selected workflows failed because of them;
            ``first_seen`` and ``last_seen`` (datetime64[ms, UTC]), when they failed; ``versions``
            (list); ``example``, the newest; ``workflow_ids`` and ``ancestor_ids``, lists of all of
            them.

        Raises
        ------
        FilterError
            An invalid filter, or a status that is not one of a failure.

        Examples
        --------
        >>> causes = dbos_notebook.connect(example_database).failures()
        >>> causes[["name", "message", "count", "failed_ancestors"]].head(2).values.tolist()
        [['checkout', '(<quoted>, <quoted>)', 3, 1], ['portable', 'portable failure <int>', 1, 0]]
        """
        from dbos_notebook.analysis.failures import failures

        return self._store.read(failures, bucket, time, check_filters(filters))

    @_show_filters
    def counts(
        self,
        by: str | Iterable[str] = "status",
        *,
        bucket: str | dt.timedelta | None = None,
        time: str = "created_at",
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Count workflows by columns and by time, in the database.

        Parameters
        ----------
        by
            Columns of :meth:`workflows`; ``[]`` for none.
        bucket
            Width of the time buckets ("15min", "1h", "1d"), which start at multiples of it since
            1970 in UTC. ``None``: not by time.
        time
            The column that is bucketed; workflows without a value in it are not counted.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            The columns of ``by``, the bucket's start under the name of ``time``, and ``count``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).counts("status", name="checkout")
             status  count
        0   SUCCESS      5
        1     ERROR      3
        """
        return self._store.read(aggregates.counts, by, bucket, time, check_filters(filters))

    @_show_filters
    def workflow_statistics(
        self,
        by: str | Iterable[str] = "name",
        *,
        bucket: str | dt.timedelta | None = None,
        time: str = "created_at",
        exact: bool = False,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Summarize workflows: how many ran and failed, how long they took and waited.

        The database computes the statistics, so that millions of workflows can be summarized. See
        :doc:`/analysis` for how each is defined.

        Parameters
        ----------
        by
            Columns of :meth:`workflows` to group by; ``[]`` for one group.
        bucket
            Width of time buckets, as in :meth:`counts`. ``None``: not by time.
        time
            The column that is bucketed; workflows without a value in it are not counted.
        exact
            Whether percentiles are exact. By default they differ from the exact ones by at most 1 %
            (those under 128 ms by nothing), are faster to compute for many different durations, and
            need less memory. All other columns are always exact.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            ``by``, the bucket's start under the name of ``time``, and

            - ``count``, ``active``, ``errors`` (Int64): all workflows; those that wait or run,
              which have no duration yet; those that failed or were cancelled
            - ``error_rate`` (float64): errors among those that ended
            - ``total`` (timedelta64[ms]), ``share`` (float64): the sum of the durations, and its
              share of that of all groups
            - ``mean``, ``p50``, ``p90``, ``p99``, ``max`` (timedelta64[ms]): of the durations
            - ``queue_wait_p50``, ``queue_wait_p99`` (timedelta64[ms]): of the times on a queue

            A value that is not known is missing. By time, then the largest total first.

        Raises
        ------
        FilterError
            ``by`` or ``time`` is not a column, or ``bucket`` is not a duration.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> statistics = db.workflow_statistics().set_index("name")
        >>> statistics.loc["checkout", ["count", "errors", "error_rate"]].tolist()
        [8.0, 3.0, 0.375]
        """
        from dbos_notebook.analysis.statistics import workflow_statistics

        return self._store.read(
            workflow_statistics, by, bucket, time, exact, check_filters(filters)
        )

    @_show_filters
    def step_statistics(
        self,
        by: str | Iterable[str] = "function_name",
        *,
        bucket: str | dt.timedelta | None = None,
        time: str = "started_at",
        exact: bool = False,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Summarize the steps of workflows: how many ran and failed, and how long they took.

        A step that a fork copied from its original counts once, with the original. Before dbos
        2.10 steps have no timestamps, so copies cannot be detected and count twice. DBOS records a
        step when it ends, so a step that runs is not counted.

        Parameters
        ----------
        by
            ``function_name``, ``function_id``, ``workflow_id``, ``application_name``, or a column
            of :meth:`workflows`, such as ``name`` or ``app_version``; ``[]`` for one group.
        bucket
            Width of time buckets, as in :meth:`counts`. ``None``: not by time.
        time
            The column that is bucketed, ``started_at`` or ``completed_at``; steps without a value
            in it are not counted.
        exact
            Whether percentiles are exact, as in :meth:`workflow_statistics`.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            ``by``, the bucket's start under the name of ``time``, ``count``, ``errors`` (Int64),
            ``error_rate`` (float64), ``total`` (timedelta64[ms]), ``share`` (float64), ``mean``,
            ``p50``, ``p90``, ``p99``, ``max`` (timedelta64[ms]); by time, then the largest total
            first.

        Raises
        ------
        FilterError
            ``by`` or ``time`` is not one of the columns, or ``bucket`` is not a duration.

        Examples
        --------
        >>> statistics = dbos_notebook.connect(example_database).step_statistics()
        >>> int(statistics.set_index("function_name").loc["charge", "count"])
        8
        """
        from dbos_notebook.analysis.statistics import step_statistics

        return self._store.read(step_statistics, by, bucket, time, exact, check_filters(filters))

    @_show_filters
    def latency_histogram(
        self,
        bucket: str | dt.timedelta | None = "1h",
        *,
        of: Literal["workflow", "step"] = "workflow",
        by: str | Iterable[str] = (),
        time: str | None = None,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Count workflows or steps by time and by duration: the data of a latency heatmap.

        Parameters
        ----------
        bucket
            Width of time buckets, as in :meth:`counts`. ``None``: by duration only.
        of
            ``"workflow"`` or ``"step"``: whose durations.
        by
            Columns to group by, as in :meth:`workflow_statistics` or :meth:`step_statistics`.
        time
            The column that is bucketed; by default when a workflow was created (``created_at``) or
            a step started (``started_at``). Those without a value in it are not counted.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            ``by``, the bucket's start under the name of ``time``, ``duration_from`` and
            ``duration_to`` (timedelta64[ms], the latter excluded), ``count``, ``errors`` (Int64).
            There are seven intervals of duration per factor of ten. Workflows that wait or run, and
            those whose duration is unknown, are counted in a row without an interval. Rows without
            a count are omitted.

        Raises
        ------
        FilterError
            ``of``, ``by`` or ``time`` is unknown, or ``bucket`` is not a duration.

        Examples
        --------
        >>> histogram = dbos_notebook.connect(example_database).latency_histogram("1d")
        >>> int(histogram["count"].sum())
        26
        """
        from dbos_notebook.analysis.statistics import latency_histogram

        return self._store.read(latency_histogram, of, by, bucket, time, check_filters(filters))

    def queues(self) -> pd.DataFrame:
        """List queues with their limits, depth, running workflows, and longest wait.

        There is a row per queue, or per partition that holds work. A queue that holds work is
        listed even if its limits are in the application's code and not in the database.

        Examples
        --------
        >>> queues = dbos_notebook.connect(example_database).queues()
        >>> queues.loc[queues["enqueued"] > 0, ["queue_name", "enqueued"]].values.tolist()
        [['slow', 2]]
        """
        return self._store.read(aggregates.queues)

    @_show_filters
    def throughput(
        self, bucket: str | dt.timedelta = "1h", **filters: Unpack[WorkflowFilters]
    ) -> pd.DataFrame:
        """Count how many workflows were created, started and ended, by time.

        Starts and ends are those of the latest run of each workflow. A cancelled workflow has no
        start, because DBOS erases it.

        Parameters
        ----------
        bucket
            Width of the time buckets ("15min", "1h", "1d"), which start at multiples of it since
            1970 in UTC.
        **filters
            The filters of :meth:`workflows`, except that ``start_time`` and ``end_time`` limit the
            buckets: what a workflow did in them counts whenever it was created.

        Returns
        -------
        pandas.DataFrame
            ``time`` (start of the bucket, datetime64[ms, UTC]); ``created``, ``started``,
            ``succeeded``, ``failed``, ``cancelled`` (Int64). A row per bucket, also where nothing
            happened; the last one may not be over. ``attrs["unknown"]``: how many workflows have
            no recorded time of each kind.

        Raises
        ------
        FilterError
            An invalid bucket or filter, or there would be more than 100,000 buckets.

        Examples
        --------
        >>> frame = dbos_notebook.connect(example_database).throughput("1d", name="checkout")
        >>> frame[["created", "succeeded", "failed"]].sum().tolist()
        [8, 5, 3]
        """
        from dbos_notebook.analysis.throughput import throughput

        return self._store.read(throughput, bucket, check_filters(filters))

    @_show_filters
    def concurrency(
        self,
        bucket: str | dt.timedelta = "1h",
        *,
        by: str | Iterable[str] | None = None,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Count how many workflows were running and waiting on a queue, by time.

        Computed from the recorded times of the latest run of each workflow: from its start to its
        end, and from when it was enqueued until it started. Runs whose times DBOS erased, by
        cancelling or resuming them, are left out and counted in ``attrs["unknown"]``.

        Parameters
        ----------
        bucket, **filters
            As in :meth:`throughput`.
        by
            Columns of :meth:`workflows`, such as "queue_name" or "name": a row per bucket and
            group.

        Returns
        -------
        pandas.DataFrame
            ``time`` (start of the bucket), ``by``, ``running`` and ``waiting`` (Int64: at the
            start of the bucket), ``running_mean`` and ``waiting_mean`` (float64, weighted by
            time), ``running_max`` and ``waiting_max`` (Int64).

        Raises
        ------
        FilterError
            As in :meth:`throughput`, or an unknown column.

        Examples
        --------
        >>> frame = dbos_notebook.connect(example_database).concurrency("1d", by="queue_name")
        >>> int(frame.loc[frame["queue_name"] == "slow", "waiting_max"].max())
        2
        """
        from dbos_notebook.analysis.throughput import concurrency

        return self._store.read(concurrency, bucket, by, check_filters(filters))

    @_show_filters
    def queue_history(
        self, queue: str, bucket: str | dt.timedelta = "1h", **filters: Unpack[WorkflowFilters]
    ) -> pd.DataFrame:
        """Return what came and went on a queue, how long it waited, and how full the queue was.

        A cancelled workflow no longer names its queue, and a resumed one is on another queue unless
        it was resumed onto the same: both are missing here.

        Parameters
        ----------
        queue
            Its name.
        bucket, **filters
            As in :meth:`throughput`.

        Returns
        -------
        pandas.DataFrame
            ``time`` (start of the bucket); ``enqueued``, ``started``, ``succeeded``, ``failed``
            (Int64); ``waiting`` and ``running`` with ``_mean`` and ``_max`` as in
            :meth:`concurrency`; ``waits`` (Int64: the known waits that ended in the bucket),
            ``queue_wait_p50``, ``queue_wait_p99`` (timedelta64[ms]); ``executors`` (Int64: how
            many started or ended its work; missing if they have no IDs of their own);
            ``utilization`` (float64) of the ``limit`` that was used most. ``attrs["limits"]`` has
            the limits: those of now, because DBOS keeps no history of them. ``attrs["unknown"]``:
            how many workflows are left out.

        Raises
        ------
        FilterError
            No queue has this name; or as in :meth:`throughput`.

        Examples
        --------
        >>> frame = dbos_notebook.connect(example_database).queue_history("slow", "1d")
        >>> int(frame["waiting_max"].max())
        2
        """
        from dbos_notebook.analysis.queue_history import queue_history

        return self._store.read(queue_history, queue, bucket, check_filters(filters))

    def forecast(self, queue: str | None = None, *, window: str | Duration = "1h") -> pd.DataFrame:
        """Estimate when queues will be empty at their recent rates, and what holds them back.

        Parameters
        ----------
        queue
            Its name; ``None``: all queues.
        window
            How far back the rates are measured: "15min", seconds or a timedelta.

        Returns
        -------
        pandas.DataFrame
            A row per queue: ``queue_name``; ``outlook`` ("empty", "draining", "steady", "growing",
            "stalled": nothing started; "too few": fewer than 10 starts); ``backlog``
            (ENQUEUED), ``delayed``, ``running`` (Int64); ``oldest_wait``, ``drain_time`` and the
            ends of its range, which has a probability of 90 %, ``drain_time_low`` and
            ``drain_time_high`` (timedelta64[ms]; missing if it may never be empty);
            ``arrivals_per_hour``, ``starts_per_hour``, ``completions_per_hour`` (float64);
            ``bottleneck`` ("concurrency limit", "worker concurrency limit", "rate limit", "no
            executor", "none", "unknown") and the ``evidence`` for it.

        Raises
        ------
        FilterError
            No queue has this name, or the window is invalid.

        Examples
        --------
        >>> frame = dbos_notebook.connect(example_database).forecast("slow")
        >>> frame[["outlook", "backlog", "bottleneck"]].values.tolist()
        [['stalled', 2, 'no executor']]
        """
        from dbos_notebook.analysis.forecast import forecast

        return self._store.read(forecast, queue, window, self.location)

    def landing_times(
        self, schedule: str, *, start_time: Time = "7d", end_time: Time | None = None
    ) -> pd.DataFrame:
        """List when a schedule was due, and when its runs started and ended.

        Due times are computed from the schedule's present expression and time zone.

        Parameters
        ----------
        schedule
            Its name.
        start_time, end_time
            The first and last due time, inclusive; instants or ages. ``None``: now.

        Returns
        -------
        pandas.DataFrame
            A row per due time: ``due_at``; ``workflow_id``, ``status``, ``created_at``,
            ``started_at``, ``ended_at`` of its run; ``lateness`` (from when it was due until it
            started), ``duration``, ``landing_time`` (from when it was due until it ended);
            ``missed`` (boolean: it has no run; missing if the schedule may not have been active
            then) and the reason in ``note``. Triggered runs are not listed; backfilled ones are.

        Raises
        ------
        ScheduleNotFoundError
            No schedule has this name.
        FilterError
            An invalid time, a cron expression that cannot be interpreted, or over 100,000 due
            times.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.landing_times("nightly")
        Traceback (most recent call last):
        dbos_notebook.errors.ScheduleNotFoundError: No schedule is named 'nightly'. ...
        """
        from dbos_notebook.analysis.landing_times import landing_times

        return self._store.read(landing_times, schedule, start_time, end_time)

    @_show_filters
    def slo(  # type: ignore[misc] # its name is that of a filter, and takes its place
        self,
        name: str,
        *,
        latency: Duration | str,
        target: float = 0.99,
        window: Duration | str = "28d",
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Compare a workflow with a service level: a share of runs that succeed fast enough.

        The latency counts from the creation of a run (or the end of its delay) to its end, with
        the wait on a queue. A run that is too slow is bad even while it runs; a cancelled one
        counts only if it was too slow by then.

        Parameters
        ----------
        name
            The workflow.
        latency
            Seconds, a timedelta, or a string such as "30s".
        target
            The share of good runs, below 1.
        window
            How far back: seconds, a timedelta, or a string such as "28d". A run belongs to the time
            when it ended or became too slow.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            A row for the last hour, six hours, day, and the whole window: ``window``
            (timedelta64[ms]), ``since``; ``runs`` and of these ``good``, ``failed``, ``slow``
            (Int64); ``cancelled`` and ``unknown`` (not counted); ``compliance`` and its 95 %
            confidence interval ``compliance_low``, ``compliance_high`` (float64); ``met``
            (boolean); ``budget`` (how many runs may be bad), ``budget_left`` (share of it;
            negative if overspent), ``burn_rate`` (1: exactly as fast as the target allows).
            ``attrs["undecided"]``: active runs that are younger than the latency.

        Raises
        ------
        FilterError
            No workflow has this name, or another argument is invalid.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> level = db.slo("checkout", latency="1min", target=0.9, window="3650d")
        >>> level[["runs", "good", "met"]].values.tolist()[-1]
        [8, 5, False]
        """
        from dbos_notebook.analysis.slo import slo

        return self._store.read(slo, name, latency, target, window, check_filters(filters))

    def executors(self) -> pd.DataFrame:
        """List the executors that ran workflows, the latest activity first.

        DBOS records no heartbeat. An executor that only enqueued workflows is not listed.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).executors()["executor_id"].tolist()
        ['local']
        """
        return self._store.read(aggregates.executors)

    @_show_filters
    def compare_versions(
        self,
        baseline: str | Mapping[str, Any],
        candidate: str | Mapping[str, Any],
        *,
        of: str | Iterable[str] = ("workflow", "step", "failure"),
        min_effect: float = 0.1,
        confidence: float = 0.95,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Compare two versions, or any two sets of runs: what is slower, and what fails more.

        docs/analysis.md explains the statistics and their limits.

        Parameters
        ----------
        baseline, candidate
            An application version each; or a dict of filters of :meth:`workflows`, to compare time
            windows, queues or users. No run may be on both sides.
        of
            ``"workflow"``, ``"step"``, and ``"failure"``: causes of failures, as in
            :meth:`failures`, that are new or gone. DBOS's own steps, such as ``DBOS.sleep``, are
            left out. A step that a fork copied counts once.
        min_effect
            The smallest relative change that is worth a verdict: 0.1 is 10 %.
        confidence
            Of the intervals and verdicts. If nothing changed, a call gives a false verdict with a
            probability of at most 1 - ``confidence``, however many rows it has.
        **filters
            The filters of :meth:`workflows`, for both sides.

        Returns
        -------
        pandas.DataFrame
            A row for each workflow (``of`` is "workflow"), each step of a workflow ("step"), and
            each new or gone cause ("failure"), the worst first: ``of``, ``name``,
            ``function_name``, ``verdict``; ``p_value`` (the smallest of the row, adjusted for all
            comparisons); for each side ``count`` (runs that succeeded or failed; Int64) and
            ``running`` (Int64, of workflows only); ``p50``, ``p99`` (timedelta64[ms], within 1 %;
            of what succeeded, without forks and recovered runs) and ``error_rate`` (float64). Of
            each, ``_change`` with the interval from ``_change_low`` to ``_change_high``: relative
            for durations (0.2 is 20 % longer), the difference for error rates. The p99 is missing
            below 299 durations on a side.

            Verdicts: "slower", "faster", "slower at p99", "faster at p99", "more errors", "fewer
            errors", several joined by ", "; "no evidence"; "too few" (below 10 on a side); "new"
            and "gone" for what only one side has. Several durations of one run count as one. Of a
            cause, ``count`` and ``error_rate`` are those of the runs that failed by it,
            ``function_name`` is the step; ``error_type`` and ``message`` are of causes only.

        Raises
        ------
        FilterError
            A version that no workflow has, the same runs on both sides, an unknown filter, or a
            number out of range.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> compared = db.compare_versions({"name": "checkout"}, {"name": "parent_fails"})
        >>> compared["verdict"].value_counts().to_dict()
        {'gone': 4, 'new': 2}
        """
        from dbos_notebook.analysis.compare_versions import compare_versions

        arguments = (baseline, candidate, of, min_effect, confidence)
        return self._store.read(compare_versions, *arguments, filters)

    @_show_filters
    def contrast(
        self,
        bad: WorkflowIds | Mapping[str, Any],
        baseline: WorkflowIds | Mapping[str, Any] | None = None,
        *,
        inputs: bool = False,
        all_values: bool = False,
        confidence: float = 0.95,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """Find what bad runs have in common: which versions, executors, users, hours, attributes.

        docs/analysis.md explains the statistics. What is over-represented need not be the cause.

        Parameters
        ----------
        bad
            IDs, a DataFrame with a column ``workflow_id``, or a dict of filters of
            :meth:`workflows`, such as ``{"status": "ERROR"}``.
        baseline
            What to compare with, in the same forms; of a run on both sides, only the bad side
            counts. ``None``: all other runs of the same workflows in the same window (that of
            ``bad``'s ``start_time`` and ``end_time``, otherwise from its first to its last run),
            without those that wait to run.
        inputs
            Also compare the inputs of up to 2,000 runs of each side, drawn at random if there are
            more. They are decoded without running code (see docs/payloads.md). Inputs above
            50,000 characters are left out, and so are all but the 100 most frequent fields.
        all_values
            Return every value that was tested, not only those that are over-represented.
        confidence
            Of the interval of ``lift`` and of the selection. If nothing is the matter, a call
            returns any value with a probability of at most 1 - ``confidence``.
        **filters
            The filters of :meth:`workflows`, for both sides.

        Returns
        -------
        pandas.DataFrame
            ``field`` (``name``, ``app_version``, ``application_name``, ``executor_id``,
            ``queue_name``, ``user``, ``schedule_name``, ``hour`` and ``hour_of_day`` of
            ``created_at`` in UTC, ``attributes.…``, ``input.…``), ``value`` (str); ``bad`` runs
            with the value and how many there are (``of_bad``), ``baseline`` and ``of_baseline``
            (Int64); ``share_bad``, ``share_baseline``; ``lift``, the first divided by the second,
            with the interval from ``lift_low`` to ``lift_high``; ``p_value``, adjusted for all
            values tested (float64). The highest ``lift_low`` first; empty if nothing is
            over-represented.

        Raises
        ------
        FilterError
            An unknown filter, or a number out of range.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> found = db.contrast({"name": "checkout"}, {"status": "SUCCESS"})
        >>> found[["field", "value", "bad", "baseline"]].values.tolist()
        [['name', 'checkout', 8, 0]]
        """
        from dbos_notebook.analysis.contrast import contrast

        arguments = (bad, baseline, inputs, all_values, confidence, filters)
        return self._store.read(contrast, *arguments, self._store.decoder)

    # Diagnose

    def diagnose(self, **limits: Unpack[DiagnosisOptions]) -> Diagnosis:
        """Find what is wrong now, with the evidence and the control call that would act.

        Work that no executor runs, queues that are full or starved, deadlines and schedules that
        have passed, messages that nobody received, runs without progress, and workflows that fail
        more often or take longer than in the week before. docs/analysis.md lists the rules. It
        reads by indexes, or a bounded number of the newest rows, and changes nothing.

        Parameters
        ----------
        **limits
            Beyond which something is a finding. Durations are seconds, timedeltas or strings such
            as ``"5min"``. ``window`` (6 h): the recent runs that are compared with the week before
            them. ``queue_wait`` (5 min): how long the first of a queue may wait. ``no_progress``
            (5 min): how long a step may take in any case. ``ends_within`` (5 min): which
            deadlines and timeouts are near. ``recoveries`` (5), ``steps`` (10,000) of a run,
            ``payload_bytes`` (10,000,000).

        Returns
        -------
        Diagnosis
            ``.frame`` is a DataFrame: ``rule``, ``severity`` (ordered: info < warning < critical),
            ``subject``, ``affected`` (Int64), ``since`` (datetime64[ms, UTC]), ``evidence``,
            ``remedy``, ``plan`` (the call as Python). ``.plan(0)`` is the plan of the call that
            would act on the first finding. In a cell it is a card.

        Raises
        ------
        FilterError
            A limit does not exist, or its value is invalid.

        Examples
        --------
        >>> diagnosis = dbos_notebook.connect(example_database).diagnose(queue_wait="1h")
        >>> diagnosis.frame["severity"].cat.ordered
        True
        """
        from dbos_notebook.analysis.diagnosis import Diagnosis, find_all
        from dbos_notebook.analysis.findings import DiagnosisLimits

        checked = DiagnosisLimits.check(limits)
        findings = self._store.read(find_all, checked, self.location)
        return Diagnosis(findings, self._store.label, self._plan_call)

    def _plan_call(self, call: ControlCall) -> Plan:
        """Return the plan of a control call of a finding."""
        targets: Any = list(call.targets)
        if call.method == "backfill_schedule":
            targets = call.targets[0]
        elif call.selects:
            targets = self.workflows(limit=None, **call.filters)
        plan: Plan = getattr(self, call.method)(targets, plan=True, **call.options)
        return plan

    # One workflow

    def workflow(self, workflow_id: str) -> Workflow:
        """Return one workflow: its input, result, steps, children, and origin.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID; the message names some that start the same way.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).workflow("checkout-1")
        <Workflow 'checkout-1' checkout SUCCESS>
        """
        from dbos_notebook.workflow import Workflow

        return Workflow.read(self._store, workflow_id)

    def graph(
        self,
        workflow_id: str,
        *,
        children: bool = True,
        depth: int | None = None,
        forks: bool = False,
        load_output: bool = False,
    ) -> nx.DiGraph[Any]:
        """Return the execution graph of a workflow: what ran, in which order, what in parallel.

        A workflow's node is its ID, a step's node is ``(workflow_id, function_id)``. The result
        is a plain acyclic ``networkx.DiGraph``; docs/graphs.md lists the attributes.

        Parameters
        ----------
        workflow_id
            The workflow.
        children
            Include its children, and theirs.
        depth
            How many levels of children; ``None``: all.
        forks
            Include the workflows that it was forked from and all forks of these, with their
            children.
        load_output
            Give each node a digest of its stored result, by which ``graphs.compare`` recognizes
            a changed result.

        Returns
        -------
        networkx.DiGraph

        Raises
        ------
        FilterError
            Several workflows were given, or none.
        WorkflowNotFoundError
            No workflow has this ID.
        GraphError
            The rows contradict each other: a workflow is its own ancestor.

        Examples
        --------
        >>> graph = dbos_notebook.connect(example_database).graph("checkout-1")
        >>> graph.nodes["checkout-1", 3]["name"]
        'charge'
        >>> graph.edges[("checkout-1", 4), "checkout-1-4"]["kind"]
        'starts'
        """
        from dbos_notebook.graphs.build import read_graph

        return read_graph(
            self._store,
            workflow_id,
            depth=depth if children else 0,
            forks=forks,
            load_output=load_output,
        )

    def timeline(
        self,
        workflow_id: str,
        *,
        fold: Literal["auto"] | int | None = "auto",
        open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
        hide: Iterable[str] = (),
        theme: Theme = "auto",
        critical_path: bool = False,
        children: bool = True,
        depth: int | None = None,
    ) -> Picture:
        """Draw the timeline of a workflow: a row per workflow and step on one time axis.

        It distinguishes running, sleeping, and waiting in a queue, for children and for messages.
        What is still running has an open end. A long wait is shortened where the axis is broken.

        Parameters
        ----------
        workflow_id
            The workflow.
        fold
            "auto" folds similar rows where there are too many; a number is about how many rows to
            show; ``None`` never folds.
        open
            The groups to show unfolded: see ``graphs.fold``.
        hide
            Operations to leave out, such as "set_event", or "system".
        theme
            "light", "dark", or "auto": what the reader prefers. A PNG is light then.
        critical_path
            Underline the critical path.
        children, depth
            As in :meth:`graph`.

        Returns
        -------
        Picture

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> print(db.timeline("checkout-1", depth=0, hide="system").text[:8])
        checkout
        """
        from dbos_notebook.drawing.timeline import timeline

        return timeline(
            self.graph(workflow_id, children=children, depth=depth),
            fold=fold,
            open=open,
            hide=hide,
            theme=theme,
            critical_path=critical_path,
        )

    # Process mining: how many workflows went

    @_show_filters
    def process_map(
        self,
        *,
        children: bool = True,
        min_share: float = 0.0,
        min_count: int = 0,
        **filters: Unpack[WorkflowFilters],
    ) -> nx.DiGraph[Any]:
        """Return the process map of many workflows: what follows what, how often and how fast.

        It has the nodes and edges of :func:`dbos_notebook.graphs.process_map`, for all selected
        workflows together. The order is that of their graphs: a step follows another if it
        started after the other had ended, so concurrent steps do not follow each other.
        ``dn.draw`` draws it.

        Parameters
        ----------
        children
            Include everything below the selected workflows, whichever application owns it.
        min_share
            Leave out steps and edges that occur in a smaller share of the runs of their workflow,
            such as 0.05.
        min_count
            Leave out steps and edges that occurred less often.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        networkx.DiGraph
            With the key ``("workflow", name)`` or ``("step", workflow_name, name)`` for each node,
            and ``("running", workflow_name)`` for what PENDING runs do now. Nodes have counts of
            statuses, durations, ``share``, and how many runs began (``first_in``) and ended
            (``last_in``) with them; edges have ``count``, ``share`` and the median time between.
            The attribute ``left_out`` of the graph counts what ``min_share`` and ``min_count``
            removed. docs/analysis.md lists all attributes.

        Examples
        --------
        >>> overview = dbos_notebook.connect(example_database).process_map(name="checkout")
        >>> overview.nodes["step", "checkout", "charge"]["count"]
        8
        >>> edge = overview.edges[("step", "checkout", "validate"), ("step", "checkout", "charge")]
        >>> edge["count"], edge["kind"]
        (8, 'next')
        """
        from dbos_notebook.analysis import process_mining

        process_mining.check_rarity(min_share, min_count)
        return self._store.read(
            process_mining.process_map,
            check_filters(filters),
            children=children,
            min_share=min_share,
            min_count=min_count,
        )

    @_show_filters
    def variants(
        self,
        *,
        hide: Iterable[str] = (),
        limit: int | None = DEFAULT_LIMIT,
        max_ids: int | None = 100,
        **filters: Unpack[WorkflowFilters],
    ) -> pd.DataFrame:
        """List the distinct paths that workflows took, the most frequent first.

        Two runs are of the same variant if the same steps ran in the same order. Concurrent steps
        are in parentheses, ``(reserve ∥ charge)``, and loops are folded, ``(poll → write) ×3``;
        from 10 repetitions on, a variant holds all with as many digits, ``×10–99``. The path of
        a run that has not ended goes on with ``…``, and is a variant of its own. The path of a
        fork begins with the steps that it copied.

        Parameters
        ----------
        hide
            Operations to leave out, such as ``"set_event"``, or ``"system"`` for DBOS's own steps;
            see ``graphs.fold``.
        limit
            How many variants are returned; ``None``: all.
        max_ids
            How many IDs ``workflow_ids`` has at most; ``None``: all of each variant.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``variant``, ``count`` (Int64), ``share`` of the runs of this name,
            ``error_rate`` (failed or cancelled; float64), ``p50`` and ``p90`` of the duration
            (timedelta64[ms]), ``ended``, ``example`` (the ID of the newest run), ``first_seen``,
            ``last_seen`` (``created_at``), and ``workflow_ids``, a list of the IDs of the newest
            ``max_ids`` of them. Where ``ended`` is false, rates and durations are missing. Rows of
            the result stand for their ``workflow_ids`` where a method takes workflows.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.variants(name="ship")[["variant", "count"]].values.tolist()
        [['starts pack → DBOS.getResult → flaky', 5]]
        """
        from dbos_notebook.analysis.variants import variants

        rows = check_count(limit, "limit")
        ids = check_count(max_ids, "max_ids", "a number of IDs")
        frame, truncated = self._store.read(
            variants, check_filters(filters), hide=hide, limit=rows, max_ids=ids
        )
        frames.note_truncation(
            frame, truncated=truncated, explicit_limit=limit != DEFAULT_LIMIT, what="variants"
        )
        return frame

    @_show_filters
    def event_log(
        self, *, limit: int | None = DEFAULT_LIMIT, **filters: Unpack[WorkflowFilters]
    ) -> pd.DataFrame:
        """Return the steps of workflows as an event log, with the column names of pm4py.

        A workflow is a case, and a step that ended is an event. The columns are those of the XES
        standard, so that process mining tools read the DataFrame as it is; this library imports
        none of them.

        Parameters
        ----------
        limit
            The newest workflows of which all steps are returned; ``None``: of all.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            A row per step, by case and completion: ``case:concept:name`` (the workflow ID),
            ``concept:name`` (the step), ``start_timestamp``, ``time:timestamp`` (its end; both
            missing in databases without times of steps), ``lifecycle:transition``
            (``"complete"``), ``function_id``, ``operation``, ``status``, ``error_type``,
            ``child_workflow_id``, ``copied`` (a fork has it from its original); and the
            workflow's columns as ``case:name``, ``case:status``, ``case:app_version``, …

        Examples
        --------
        >>> log = dbos_notebook.connect(example_database).event_log(workflow_ids="checkout-1")
        >>> log["concept:name"].tolist()[:3]
        ['DBOS.setEvent', 'validate', 'charge']
        """
        from dbos_notebook.analysis.event_log import event_log

        rows = check_count(limit, "limit")
        frame, truncated = self._store.read(event_log, check_filters(filters), rows)
        frames.note_truncation(
            frame, truncated=truncated, explicit_limit=limit != DEFAULT_LIMIT, what="events"
        )
        return frame

    # Control. Each call returns a Receipt, or with plan=True a Plan of which nothing has been done
    # yet. Before anything is written it raises a ControlError for an unknown ID, for a call that
    # would do harm (force=True overrides that), and for more than 20 workflows without
    # confirm=True. An empty list changes nothing.

    @property
    def _controller(self) -> Controller:
        # Reading needs none of its imports, which are slow.
        from dbos_notebook.control.controller import Controller

        with self._lock:
            if self._lazy_controller is None:
                self._lazy_controller = Controller(self._store, read_only=self._read_only)
                if self._closed:
                    self._lazy_controller.close()
            return self._lazy_controller

    def _control(
        self, operation: Operation, workflows: Strings, *, plan: bool, confirm: bool = False
    ) -> Receipt | Plan:
        ids = as_strings(workflows, "workflows")
        return self._controller.execute(operation, ids, plan=plan, confirm=confirm)

    @overload
    def cancel(
        self, workflows: WorkflowIds, *, plan: Literal[True], **options: Unpack[CancelOptions]
    ) -> Plan: ...
    @overload
    def cancel(
        self,
        workflows: WorkflowIds,
        *,
        plan: Literal[False] = False,
        **options: Unpack[CancelOptions],
    ) -> Receipt: ...
    def cancel(
        self,
        workflows: WorkflowIds,
        *,
        cancel_children: bool = False,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Cancel workflows: take them off their queue, or stop them at their next step.

        A workflow that has finished is not changed, and the receipt says so. DBOS clears the queue
        and the deduplication ID of a cancelled workflow; the receipt keeps them.

        Parameters
        ----------
        workflows
            An ID, a list, a Series, or a DataFrame with a ``workflow_id`` column.
        cancel_children
            Cancel the workflows below them as well.
        plan
            Return what would happen, and change nothing.
        confirm
            Allow more than 20 workflows.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.cancel("queued-1", plan=True).items[0].effect
        "will not start; leaves queue 'slow'; loses its deduplication ID 'dedup-1'"
        """
        from dbos_notebook.control.operations import Cancel

        operation = Cancel(cancel_children=cancel_children)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def resume(
        self, workflows: WorkflowIds, *, plan: Literal[True], **options: Unpack[ResumeOptions]
    ) -> Plan: ...
    @overload
    def resume(
        self,
        workflows: WorkflowIds,
        *,
        plan: Literal[False] = False,
        **options: Unpack[ResumeOptions],
    ) -> Receipt: ...
    def resume(
        self,
        workflows: WorkflowIds,
        *,
        queue_name: str | None = None,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Resume cancelled workflows after their last recorded step; start waiting ones at once.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        queue_name
            The queue to put them on; ``None``: DBOS's internal queue; ``"original"``: each onto
            the queue that it was on, as far as that is known. DBOS erases it on cancel, so a
            client knows it only of workflows that it cancelled itself.
        plan, confirm
            As in :meth:`cancel`.
        force
            Include PENDING workflows, which may run twice at once if their executor is alive.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.resume("checkout-5-bad", plan=True).items[0].effect
        'it has failed, and DBOS does not resume failed workflows: fork it'
        """
        from dbos_notebook.control.operations import Resume

        operation = Resume.create(queue_name, force=force)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def fork(
        self,
        workflows: WorkflowIds,
        start_step: StartSteps,
        *,
        plan: Literal[True],
        **options: Unpack[ForkOptions],
    ) -> Plan: ...
    @overload
    def fork(
        self,
        workflows: WorkflowIds,
        start_step: StartSteps,
        *,
        plan: Literal[False] = False,
        **options: Unpack[ForkOptions],
    ) -> Receipt: ...
    def fork(
        self,
        workflows: WorkflowIds,
        start_step: StartSteps,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        timeout: Duration | None = None,
        key: str | None = None,
        replacement_children: Mapping[str, str] | None = None,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Fork workflows: start new ones that copy the steps before one and run from there.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        start_step
            The first step that runs again: its ``function_id``; ``"first"`` or 0; ``"last"``;
            ``"failed"``, the last step with an error or, if there is none, the last step that is
            not DBOS's own; the name of a step; or a mapping from workflow IDs to these. A list
            makes a fork from each of its steps: ``db.fork("a", [2, 3])``,
            ``{"a": [2, 3], "b": 1}``.
        application_version
            The version to run under; ``None``: the latest.
        queue_name, queue_partition_key
            Where to enqueue; ``None``: DBOS's internal queue; ``queue_name="original"``: each onto
            the queue that it was on, with its own partition key. A partitioned queue needs a key.
        timeout
            Seconds, or a timedelta, that each fork may take.
        key
            Makes the call idempotent: with the same key, a workflow is forked from a step once,
            however often and by whomever the call is made.
        replacement_children
            A mapping from child workflow IDs to those that copied steps refer to instead.
        plan, confirm
            As in :meth:`cancel`.
        force
            Include workflows that have not finished; their work then happens twice.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> plan = db.fork("checkout-5-bad", "failed", key="incident-7", plan=True)
        >>> plan.items[0].point.label
        'step 3 (charge)'
        """
        from dbos_notebook.control.forks import Fork

        operation = Fork.create(
            start_step,
            application_version=application_version,
            queue_name=queue_name,
            queue_partition_key=queue_partition_key,
            timeout=timeout,
            key=key,
            replacement_children=replacement_children,
            force=force,
        )
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def rewind(
        self,
        workflows: WorkflowIds,
        start_step: StartStep = "first",
        *,
        plan: Literal[True],
        **options: Unpack[RewindOptions],
    ) -> Plan: ...
    @overload
    def rewind(
        self,
        workflows: WorkflowIds,
        start_step: StartStep = "first",
        *,
        plan: Literal[False] = False,
        **options: Unpack[RewindOptions],
    ) -> Receipt: ...
    def rewind(
        self,
        workflows: WorkflowIds,
        start_step: StartStep = "first",
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        queue_partition_key: str | None = None,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Rewind finished workflows: the same workflows run again from a step.

        Unlike with a fork, their later steps, events, messages and results are lost. A second call
        rewinds a second time. Checkpoints in an application's own database are not rewound: only
        the application can do that (``DBOS.rewind_workflow``).

        Parameters
        ----------
        workflows, start_step, application_version, queue_name, queue_partition_key
            As in :meth:`fork`, but one step for each workflow; without a version they keep theirs.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.rewind("checkout-1", "charge", plan=True).items[0].effect
        'discards step 3 (charge), later steps, ...; repeats successful steps: charge'
        """
        from dbos_notebook.control.forks import Rewind

        operation = Rewind.create(
            start_step,
            application_version=application_version,
            queue_name=queue_name,
            queue_partition_key=queue_partition_key,
        )
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def repair(
        self, workflows: WorkflowIds, *, plan: Literal[True], **options: Unpack[RepairOptions]
    ) -> Plan: ...
    @overload
    def repair(
        self,
        workflows: WorkflowIds,
        *,
        plan: Literal[False] = False,
        **options: Unpack[RepairOptions],
    ) -> Receipt: ...
    def repair(
        self,
        workflows: WorkflowIds,
        *,
        application_version: str | None = None,
        queue_name: str | None = None,
        key: str | None = None,
        wait: bool = True,
        timeout: Duration | None = 600.0,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Repair failed workflows together with the failed children that made them fail.

        The deepest failures are forked from the step that failed. When those forks have succeeded,
        each workflow that awaited one is forked from the step that did, with the fork in the
        child's place; and so on up to the workflows that were given. Steps that had succeeded are
        not run again.

        The call can be repeated: a failure with a fork that succeeded or is still running, whoever
        made it, is not forked again. After a timeout or Ctrl-C the same call continues.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        application_version
            The version to run under; ``None``: the latest.
        queue_name
            Where to enqueue the forks; ``None``: DBOS's internal queue; ``"original"``: each onto
            the queue that it was on, with its own partition key.
        key
            Makes the call idempotent, as in :meth:`fork`; ``None``: derived from the version. Use
            another key to fork again what failed again.
        wait
            Fork a parent only when the forks of its children have succeeded. ``False`` forks all
            at once: parents then wait in an executor, and fail if their children fail again.
        timeout
            Seconds, or a timedelta, to wait for children in all; ``None``: no limit.
        plan, confirm
            As in :meth:`cancel`.
        force
            Include failures with a fork that is running or has succeeded.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> plan = db.repair("parent-6-bad", application_version="v2", plan=True)
        >>> [item.effect for item in plan.items]
        ['runs again from step 3 (charge)',
         'runs again from step 2 (DBOS.getResult), once parent-6-bad-1 has been repaired']
        """
        from dbos_notebook.control.repair import Repair, RepairFork

        operation = RepairFork.create(
            application_version=application_version,
            queue_name=queue_name,
            key=key,
            wait=wait,
            timeout=timeout,
            force=force,
        )
        repair = Repair(self._controller)
        ids = as_failed_trees(workflows, "workflows")
        return self._controller.execute(
            operation, ids, plan=plan, confirm=confirm, make_plan=repair.plan
        )

    @overload
    def delete(
        self, workflows: WorkflowIds, *, plan: Literal[True], **options: Unpack[DeleteOptions]
    ) -> Plan: ...
    @overload
    def delete(
        self,
        workflows: WorkflowIds,
        *,
        plan: Literal[False] = False,
        **options: Unpack[DeleteOptions],
    ) -> Receipt: ...
    def delete(
        self,
        workflows: WorkflowIds,
        *,
        delete_children: bool = False,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Delete workflows with their steps, events, messages and streams.

        It always asks for ``confirm=True``.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        delete_children
            Delete the workflows below them as well.
        plan
            As in :meth:`cancel`; ``apply(confirm=True)`` then deletes.
        force
            Include workflows that have not ended, and those whose result an active parent may
            still await. The parent then waits without end, because DBOS waits for a workflow that
            does not exist as for one that runs.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> len(db.delete("checkout-1", delete_children=True, plan=True))
        3
        """
        from dbos_notebook.control.operations import Delete

        operation = Delete(delete_children, force)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def set_delay(
        self,
        workflows: WorkflowIds,
        delay: Duration | None = None,
        *,
        until: Time | None = None,
        plan: Literal[True],
        **options: Unpack[ConfirmOption],
    ) -> Plan: ...
    @overload
    def set_delay(
        self,
        workflows: WorkflowIds,
        delay: Duration | None = None,
        *,
        until: Time | None = None,
        plan: Literal[False] = False,
        **options: Unpack[ConfirmOption],
    ) -> Receipt: ...
    def set_delay(
        self,
        workflows: WorkflowIds,
        delay: Duration | None = None,
        *,
        until: Time | None = None,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Set when DELAYED workflows become ready.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        delay
            Seconds from now, or a timedelta.
        until
            The instant itself, instead of a delay.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.set_delay("queued-1", 60, plan=True).items[0].effect
        'only a DELAYED workflow has a delay; it is ENQUEUED'
        """
        from dbos_notebook.control.operations import SetDelay

        operation = SetDelay.create(delay, until)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def set_attributes(
        self,
        workflows: WorkflowIds,
        attributes: Mapping[str, Any] | None,
        *,
        merge: bool = False,
        plan: Literal[True],
        **options: Unpack[ConfirmOption],
    ) -> Plan: ...
    @overload
    def set_attributes(
        self,
        workflows: WorkflowIds,
        attributes: Mapping[str, Any] | None,
        *,
        merge: bool = False,
        plan: Literal[False] = False,
        **options: Unpack[ConfirmOption],
    ) -> Receipt: ...
    def set_attributes(
        self,
        workflows: WorkflowIds,
        attributes: Mapping[str, Any] | None,
        *,
        merge: bool = False,
        plan: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Replace the attributes of workflows, or merge into them.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        attributes
            A dict with string keys and JSON values; ``None`` clears.
        merge
            Keep the keys that are not named. DBOS does this in one statement. Only on SQLite, and
            only if a key needs an escape in JSON (``é``, a quote, a backslash), the client reads
            all attributes and replaces them: a change that another process makes to other keys
            within that moment is lost.
        plan, confirm
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.set_attributes("attributed", {"tier": 2}, merge=True, plan=True).items[0].effect
        'becomes {"customer": "acme", "tier": 2}'
        """
        from dbos_notebook.control.operations import SetAttributes

        operation = SetAttributes.create(attributes, merge=merge, dialect=self.catalog.dialect)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    @overload
    def send(
        self,
        workflows: WorkflowIds,
        message: Any,
        topic: str | None = None,
        *,
        plan: Literal[True],
        **options: Unpack[SendOptions],
    ) -> Plan: ...
    @overload
    def send(
        self,
        workflows: WorkflowIds,
        message: Any,
        topic: str | None = None,
        *,
        plan: Literal[False] = False,
        **options: Unpack[SendOptions],
    ) -> Receipt: ...
    def send(
        self,
        workflows: WorkflowIds,
        message: Any,
        topic: str | None = None,
        *,
        idempotency_key: str | None = None,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Send a message to workflows: what ``DBOS.recv`` returns there.

        The plan says whether a workflow appears to wait for a message now. That is an inference
        (see :meth:`awaiting_messages`). A message that is not awaited is stored until the workflow
        receives it. A plan sends its messages once, however often it is applied, and not to a
        workflow that has been answered since the plan.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        message
            A JSON value: ``None``, a boolean, number or string, a list, or a dict. It is stored as
            portable JSON, which the SDKs of all languages read.
        topic
            The topic that the workflow passes to ``DBOS.recv``; ``None``: no topic.
        idempotency_key
            Makes the call idempotent: with the same key, one message is sent to a workflow, however
            often and by whomever the call is made.
        plan, confirm
            As in :meth:`cancel`.
        force
            Include finished workflows. They receive the message only if they are rewound.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.send("queued-1", {"approved": True}, "approval", plan=True).items[0].effect
        'stored until it receives it; it is ENQUEUED'
        """
        from dbos_notebook.control.sending import Send

        operation = Send.create(message, topic, idempotency_key=idempotency_key, force=force)
        return self._control(operation, workflows, plan=plan, confirm=confirm)

    # Schedules. Plans and receipts have ``schedule_name`` in place of ``workflow_id``.

    @overload
    def pause_schedule(self, schedules: Strings, *, plan: Literal[True]) -> Plan: ...
    @overload
    def pause_schedule(self, schedules: Strings, *, plan: Literal[False] = False) -> Receipt: ...
    def pause_schedule(self, schedules: Strings, *, plan: bool = False) -> Receipt | Plan:
        """Pause schedules: they start no workflow until they are resumed.

        Parameters
        ----------
        schedules
            One name or many.
        plan
            As in :meth:`cancel`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.pause_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import PauseSchedule

        return self._control(PauseSchedule(), schedules, plan=plan)

    @overload
    def resume_schedule(self, schedules: Strings, *, plan: Literal[True]) -> Plan: ...
    @overload
    def resume_schedule(self, schedules: Strings, *, plan: Literal[False] = False) -> Receipt: ...
    def resume_schedule(self, schedules: Strings, *, plan: bool = False) -> Receipt | Plan:
        """Resume paused schedules.

        Parameters
        ----------
        schedules, plan
            As in :meth:`pause_schedule`.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.resume_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import ResumeSchedule

        return self._control(ResumeSchedule(), schedules, plan=plan)

    @overload
    def trigger_schedule(
        self, schedules: Strings, *, plan: Literal[True], **options: Unpack[ForceOption]
    ) -> Plan: ...
    @overload
    def trigger_schedule(
        self, schedules: Strings, *, plan: Literal[False] = False, **options: Unpack[ForceOption]
    ) -> Receipt: ...
    def trigger_schedule(
        self, schedules: Strings, *, plan: bool = False, force: bool = False
    ) -> Receipt | Plan:
        """Enqueue the workflows of schedules once, now. Each call enqueues them again.

        DBOS unpickles a schedule's context to do so. A context that names classes is therefore
        refused.

        Parameters
        ----------
        schedules, plan
            As in :meth:`pause_schedule`.
        force
            Unpickle a context even if it names classes.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.trigger_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import TriggerSchedule

        return self._control(TriggerSchedule(force), schedules, plan=plan)

    @overload
    def backfill_schedule(
        self,
        schedule: str,
        start: Time,
        end: Time | None = None,
        *,
        plan: Literal[True],
        **options: Unpack[BackfillOptions],
    ) -> Plan: ...
    @overload
    def backfill_schedule(
        self,
        schedule: str,
        start: Time,
        end: Time | None = None,
        *,
        plan: Literal[False] = False,
        **options: Unpack[BackfillOptions],
    ) -> Receipt: ...
    def backfill_schedule(
        self,
        schedule: str,
        start: Time,
        end: Time | None = None,
        *,
        plan: bool = False,
        force: bool = False,
        confirm: bool = False,
    ) -> Receipt | Plan:
        """Enqueue the runs that a schedule should have started in a period, one line per run.

        Runs that exist are skipped, so the call can be repeated.

        Parameters
        ----------
        schedule
            Its name.
        start, end
            Both exclusive; instants or ages. ``end=None``: now.
        plan, confirm
            As in :meth:`cancel`.
        force
            As in :meth:`trigger_schedule`.

        Raises
        ------
        ScheduleNotFoundError
            No schedule has this name.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.backfill_schedule("nightly", "7d")
        Traceback (most recent call last):
        dbos_notebook.errors.ScheduleNotFoundError: No schedule is named 'nightly'. ...
        """
        from dbos_notebook.control.schedules import Backfill

        operation, runs = Backfill.create(self._store, schedule, start, end, force=force)
        return self._control(operation, runs, plan=plan, confirm=confirm)

    @overload
    def delete_schedule(
        self, schedules: Strings, *, plan: Literal[True], **options: Unpack[ConfirmOption]
    ) -> Plan: ...
    @overload
    def delete_schedule(
        self, schedules: Strings, *, plan: Literal[False] = False, **options: Unpack[ConfirmOption]
    ) -> Receipt: ...
    def delete_schedule(
        self, schedules: Strings, *, plan: bool = False, confirm: bool = False
    ) -> Receipt | Plan:
        """Delete schedules. It always asks for ``confirm=True``. Their past workflows stay.

        Parameters
        ----------
        schedules, plan
            As in :meth:`pause_schedule`.
        confirm
            Required to delete.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.delete_schedule("nightly", plan=True).items[0].effect
        'no schedule has this name'
        """
        from dbos_notebook.control.schedules import DeleteSchedule

        operation = DeleteSchedule()
        return self._control(operation, schedules, plan=plan, confirm=confirm)

    # Follow up

    def wait(self, workflows: WorkflowIds, *, timeout: Duration | None = None) -> pd.DataFrame:
        """Wait until workflows have finished; return them as :meth:`workflows` does.

        A notebook and a terminal show the progress. It only reads: Ctrl-C ends the waiting with a
        ``ControlInterrupt`` that carries what was seen, and the workflows continue.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        timeout
            Seconds, or a timedelta. After it the result includes unfinished workflows.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.wait(["checkout-1", "checkout-5-bad"])["status"].tolist()
        ['SUCCESS', 'ERROR']
        """
        ids = as_strings(workflows, "workflows")
        return self._controller.wait(ids, as_seconds(timeout, "timeout", minimum=0))

    def repair_status(self, workflows: WorkflowIds | None = None) -> pd.DataFrame:
        """List the repair state of failed workflows.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`; ``None``: all that are in ERROR or ran out of recovery attempts.

        Returns
        -------
        pandas.DataFrame
            ``workflow_id``, ``name``, ``status``, ``app_version``, ``state``, ``forks`` (how many,
            forks of forks included), ``latest_fork``, ``latest_fork_status``,
            ``latest_fork_version``, ``covered_by``. The states: ``repaired`` (a fork succeeded, or
            since then another of its chain of forks: ``covered_by``), ``in progress``, ``failed
            again``, ``covered`` (the workflow above it has been repaired: ``covered_by``),
            ``unaddressed``, ``not failed``.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.repair_status(["checkout-5-bad", "parent-6-bad"])["state"].tolist()
        ['failed again', 'unaddressed']
        """
        from dbos_notebook.control.failure_analysis import repair_status

        ids = None if workflows is None else as_strings(workflows, "workflows")
        return frames.mark_listing(self._store.read(repair_status, ids))

    def history(self) -> pd.DataFrame:
        """List the control calls of this client, oldest first.

        They are also logged, with the outcome of every workflow, by the logger
        ``dbos_notebook.control``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).history().empty
        True
        """
        return frames.mark_listing(self._controller.history.to_frame())

    def last_receipt(self) -> Receipt | None:
        """Return the receipt of this client's latest control call, also of an interrupted one.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).last_receipt() is None
        True
        """
        return self._controller.history.last

    # Views

    @_show_filters
    def open(
        self,
        workflow_id: str = "",
        *,
        view: Literal["list", "board", "run", "schedules"] | None = None,
        live: bool = True,
        page_size: int = 50,
        sync_url: bool = False,
        **filters: Unpack[WorkflowFilters],
    ) -> Console:
        """Show list, board, schedules and single runs in one view; each leads to the others.

        Rows, IDs, queues and failures are links, and *Back* returns. The parts are those of
        :meth:`explore`, :meth:`board` and :meth:`inspect`.

        Parameters
        ----------
        workflow_id
            The run to start with.
        view
            What to start with: ``"list"``, ``"board"``, ``"run"`` or ``"schedules"``. ``None``:
            the run if one is given, otherwise the list.
        live
            Refresh while the view is visible.
        page_size
            Rows on a page of the list.
        sync_url
            Keep what is shown in the fragment of the page's URL, so that it can be reloaded,
            bookmarked and shared. For a web page that shows this view alone, such as that of
            ``dbos-notebook dashboard``: a notebook's URL has another use.
        **filters
            The filters of :meth:`workflows` for the list to start with.

        Returns
        -------
        Console
            A widget. ``.list``, ``.board`` and ``.run`` are its parts; ``.workflow_id`` and
            ``.view`` may be set.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID.

        Examples
        --------
        >>> console = dbos_notebook.connect(example_database).open("checkout-5-bad")
        >>> console.view, console.run.workflow.status
        ('run', 'ERROR')
        """
        from dbos_notebook.widgets.console import Console

        return Console(
            self._store,
            self._controller,
            filters,
            workflow_id,
            view=view,
            live=live,
            page_size=page_size,
            sync_url=sync_url,
        )

    @_show_filters
    def explore(
        self,
        *,
        live: bool = False,
        tree: bool = False,
        page_size: int = 50,
        **filters: Unpack[WorkflowFilters],
    ) -> Explore:
        """Show workflows as a list that can be searched, sorted, expanded and selected from.

        Parameters
        ----------
        live
            Start with live refresh: every two seconds while the list is visible.
        tree
            Start with children below their parents.
        page_size
            Rows on a page, from 1 to 1,000.
        **filters
            The filters of :meth:`workflows` to start with; ``queues_only=True`` starts with what
            is enqueued.

        Returns
        -------
        Explore
            A widget. ``.frame`` holds the rows shown, ``.selection`` those selected, ``.code`` the
            Python that returns the same rows; ``.save_html(path)`` writes it as a page.

        Examples
        --------
        >>> widget = dbos_notebook.connect(example_database).explore(name="checkout")
        >>> len(widget.frame)
        8
        """
        from dbos_notebook.widgets.explore import Explore

        return Explore(
            self._store, self._controller, filters, live=live, tree=tree, page_size=page_size
        )

    def inspect(self, workflow_id: str, *, live: bool = True, tab: str = "graph") -> Inspect:
        """Show one workflow: its graph, timeline and steps, with the controls that apply to it.

        Clicking a step shows when it ran and its result or error, and offers to fork the workflow
        from there. A fork opens in place and is followed while it runs.

        Parameters
        ----------
        workflow_id
            The workflow.
        live
            Refresh about once a second while the workflow is active and the view is visible.
        tab
            The tab to start with: ``"graph"``, ``"timeline"`` or ``"steps"``.

        Returns
        -------
        Inspect
            A widget. ``.selection`` is the key of the selected node, as in :meth:`graph`;
            ``.receipt`` that of the last action; ``.save_html(path)`` writes it as a page that
            needs no kernel.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID.

        Examples
        --------
        >>> widget = dbos_notebook.connect(example_database).inspect("checkout-5-bad")
        >>> widget.graph.nodes["checkout-5-bad", 3]["error_type"]
        '__main__.PaymentDeclined'
        """
        from dbos_notebook.widgets.inspect import Inspect

        return Inspect(self._store, self._controller, workflow_id, live=live, tab=tab)

    def board(self, *, window: str = "24h", live: bool = False) -> Board:
        """Show queues, finished workflows and failures at a glance.

        Parameters
        ----------
        window
            How far back: ``"1h"``, ``"6h"``, ``"24h"``, ``"7d"``, ``"30d"``.
        live
            Start with live refresh: every five seconds while the board is visible.

        Returns
        -------
        Board
            A widget. ``.queues`` and ``.failures`` are DataFrames of what it shows.

        Raises
        ------
        FilterError
            The window is not one of these.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).board(window="7d").window
        '7d'
        """
        from dbos_notebook.widgets.board import Board

        return Board(self._store, self._controller, window=window, live=live)

    def controls(
        self, workflows: WorkflowIds | None = None, *, schedules: bool = False
    ) -> Controls:
        """Show buttons that control workflows, each with its plan and receipt; or the schedules.

        The buttons of workflows cancel, resume, fork, repair, send a message, set a delay or
        attributes, and delete. With ``schedules=True``, the schedules of the database are listed
        with buttons that pause, resume, trigger, backfill and delete each.

        Parameters
        ----------
        workflows
            As in :meth:`cancel`.
        schedules
            Control schedules instead of workflows.

        Returns
        -------
        Controls
            A widget. ``.frame`` holds the workflows now, ``.receipt`` that of the last action.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).controls("queued-1")
        <Controls sqlite:...: 1 workflow>
        """
        from dbos_notebook.widgets.controls import Controls

        return Controls(self._store, self._controller, workflows, schedules=schedules)
