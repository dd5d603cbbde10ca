"""The methods of Client that list rows. Each checks its arguments and hands on to ``tables``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import FilterError, nearest

if TYPE_CHECKING:
    import datetime as dt

    import pandas as pd
    import pyarrow as pa

    from dbos_notebook.database.reader import Reader
    from dbos_notebook.payloads.decoders import Decoder
    from dbos_notebook.tables.sql import Queries

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame
    Time = str | dt.datetime | dt.date | dt.timedelta | pd.Timestamp | pd.Timedelta

DEFAULT_LIMIT = 1000
"""Rows that a listing returns unless it is told otherwise; a frame that was cut says so."""
_OPTIONS = ("sort_desc", "load_input", "load_output", "load_errors", "load_internals", "normalize")


class Reading:
    """What lists rows of a system database. :class:`Client` is one."""

    _reader: Reader
    _queries: Queries
    _decoder: Decoder

    def _check(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        from dbos_notebook.tables.filters import check_filters

        return check_filters(filters)

    def workflows(
        self,
        workflow_ids: Texts | None = None,
        *,
        status: Texts | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        completed_after: Time | None = None,
        completed_before: Time | None = None,
        dequeued_after: Time | None = None,
        dequeued_before: Time | None = None,
        name: Texts | None = None,
        app_version: Texts | None = None,
        forked_from: Texts | None = None,
        parent_workflow_id: Texts | None = None,
        user: Texts | None = None,
        queue_name: Texts | None = None,
        limit: int | None = DEFAULT_LIMIT,
        offset: int | None = None,
        sort_desc: bool = True,
        workflow_id_prefix: Texts | None = None,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        load_internals: bool = False,
        normalize: bool = False,
        executor_id: Texts | None = None,
        queues_only: bool | None = None,
        was_forked_from: bool | None = None,
        is_fork: bool | None = None,
        has_parent: bool | None = None,
        attributes: Mapping[str, Any] | None = None,
        schedule_name: Texts | None = None,
        application_name: Texts | None = None,
        search: str | None = None,
        error: str | None = None,
        **unknown: Any,
    ) -> pd.DataFrame:
        """List workflows, newest first.

        The filters are those of ``DBOSClient.list_workflows`` (dbos 3.4) and mean the same, with
        these differences: times may be ages ("24h"), lists may be any iterable, a Series or a
        DataFrame, **an empty list matches nothing**, ``limit=0`` returns no rows, and
        ``attributes`` works on SQLite too.

        Parameters
        ----------
        workflow_ids, status, name, app_version, forked_from, parent_workflow_id, user
            One text or many; a DataFrame gives its ``workflow_id`` column.
        queue_name, executor_id, schedule_name
            One text or many.
        workflow_id_prefix
            IDs that begin so. On SQLite the case of ASCII letters is ignored.
        application_name
            One text or many; rows that no application owns always match.
        start_time, end_time
            Bounds on ``created_at``, inclusive.
        completed_after, completed_before, dequeued_after, dequeued_before
            Bounds on ``completed_at`` and ``dequeued_at``, inclusive. A time without a zone is
            local.
        limit, offset
            Rows returned and skipped. ``limit=None``: all. When rows were left out,
            ``df.attrs["truncated"]`` is true; at the default limit, which nobody asked for,
            a TruncatedWarning says so too.
        sort_desc
            Newest first; by ``created_at``, then by ID (which Postgres is spared with
            ``limit=None``).
        load_input, load_output
            Add ``serialization`` and ``input``, or ``output`` and ``error``, decoded without
            running anything (``dbos_notebook.payloads``).
        load_errors
            Look up and decode the errors of failed workflows. Without, ``error_type`` and
            ``error_message`` are missing, and a long listing takes a quarter less.
        load_internals
            Add what DBOS keeps for itself: ``rate_limited``, ``is_debounced``,
            ``debounce_deadline``, ``owner_xid``, ``creator_xid``.
        normalize
            Flatten the loaded inputs and outputs into columns: ``input.0.sku``, ``output.total``.
        queues_only
            Only what is on a queue and not finished.
        was_forked_from, is_fork, has_parent
            True or False.
        attributes
            Workflows whose attributes contain all these (PostgreSQL's ``jsonb @>``).
        search
            Text in the ID, name, user or queue, in any case; or as ``error``.
        error
            Text in the recorded error, in the same case (from 5 characters, if it is a pickle).

        Returns
        -------
        pandas.DataFrame
            Columns and dtypes as in the reference, the same on every database version.

        Raises
        ------
        FilterError
            A value that makes no sense.

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
        filters = locals() | unknown
        del filters["self"], filters["unknown"]
        return self._workflows(filters)

    @repeat_if_changed
    def _workflows(self, asked: dict[str, Any]) -> pd.DataFrame:
        from dbos_notebook.tables import frames, listings
        from dbos_notebook.tables.filters import check_window

        asked = dict(asked)
        options = {name: asked.pop(name) for name in _OPTIONS}
        limit, offset = check_window(asked.pop("limit"), asked.pop("offset"))
        filters = self._check(asked)
        with self._reader.session() as session:
            frame, truncated = listings.workflows(
                session, self._queries, filters, limit, offset, self._decoder, **options
            )
        asked_for = limit != DEFAULT_LIMIT
        frames.note_truncation(frame, truncated=truncated, asked=asked_for, what="workflows")
        return frame

    def queued(
        self,
        workflow_ids: Texts | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        offset: int | None = None,
        sort_desc: bool = True,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        load_internals: bool = False,
        normalize: bool = False,
        **filters: Any,
    ) -> pd.DataFrame:
        """List what is enqueued: on a queue, and DELAYED, ENQUEUED or PENDING.

        Takes the filters of :meth:`workflows`; ``status`` replaces the three statuses, as in
        ``DBOSClient.list_queued_workflows``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).queued()["workflow_id"].tolist()
        ['queued-2', 'queued-1', 'holder']
        """
        asked = locals()
        asked |= asked.pop("filters")
        del asked["self"]
        return self._workflows({**asked, "queues_only": True})

    def iter_workflows(
        self,
        chunksize: int = 50_000,
        *,
        load_input: bool = False,
        load_output: bool = False,
        load_errors: bool = True,
        **filters: Any,
    ) -> Iterator[pd.DataFrame]:
        """Read workflows as DataFrames of ``chunksize`` rows, newest first.

        Takes the filters of :meth:`workflows`; there is no limit. Rows are read page by page, and
        **nothing is open between two frames**: no transaction, no lock, no query. So take as long
        as you like; ``statement_timeout`` counts the database's work alone. Each page is a snapshot
        of its own: a workflow that exists throughout comes exactly once, with its values of the
        moment when its page was read; one that is created meanwhile does not come.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> [len(frame) for frame in db.iter_workflows(chunksize=10)]
        [10, 10, 6]
        """
        from dbos_notebook.tables import frames, listings, streaming

        if isinstance(chunksize, bool) or not isinstance(chunksize, int) or chunksize < 1:
            raise FilterError(f"chunksize takes a whole number above 0, not {chunksize!r}.")
        batches = streaming.workflow_batches(
            self._reader,
            self._queries,
            self._check(filters),
            load_input=load_input,
            load_output=load_output,
            load_errors=load_errors,
            first_rows=max(chunksize, streaming.FIRST_ROWS),
        )
        columns = listings.workflow_columns(load_input=load_input, load_output=load_output)
        return (
            frames.to_frame(group, columns, self._decoder)
            for group in frames.rechunk(batches, chunksize)
        )

    def arrow(
        self, what: Literal["workflows", "steps"] = "workflows", **filters: Any
    ) -> pa.RecordBatchReader:
        """Read workflows, or the steps of workflows, as Arrow record batches.

        Takes the filters of :meth:`workflows`; rows come in no promised order. As for
        :meth:`iter_workflows`, nothing is open between two batches.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.arrow("steps", name="checkout").read_all().num_rows > 0
        True
        """
        import pyarrow as pa

        from dbos_notebook.tables import frames, streaming
        from dbos_notebook.tables.columns import STEP, WORKFLOW

        if what not in ("workflows", "steps"):
            raise FilterError(
                f"arrow({what!r}) is not offered.{nearest(what, ['workflows', 'steps'])} "
                "Use 'workflows' or 'steps'."
            )
        checked = self._check(filters)
        if what == "workflows":
            schema = frames.arrow_schema(WORKFLOW)
            batches = streaming.workflow_batches(self._reader, self._queries, checked)
        else:
            schema = frames.arrow_schema(STEP)
            batches = streaming.step_batches(self._reader, self._queries, checked)
        return pa.RecordBatchReader.from_batches(schema, batches)

    @repeat_if_changed
    def steps(
        self,
        workflows: Texts,
        *,
        children: bool = False,
        load_output: bool = False,
        normalize: bool = False,
    ) -> pd.DataFrame:
        """List the steps of one workflow or of many, in one query.

        A step that runs now has no row: DBOS records a step when it ends.

        Parameters
        ----------
        workflows
            An ID, many, a Series, or a DataFrame with ``workflow_id``. An empty one gives no rows.
        children
            The steps of all workflows below them too.
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
            One ID was given, as a text, and no workflow has it.

        Examples
        --------
        >>> steps = dbos_notebook.connect(example_database).steps("checkout-1")
        >>> steps["function_name"].tolist()[:3]
        ['DBOS.setEvent', 'validate', 'charge']
        """
        from dbos_notebook.tables import frames, listings
        from dbos_notebook.tables.filters import as_texts

        ids = as_texts(workflows, "workflows")
        if normalize:
            listings.require_loaded(load_output)
        with self._reader.session() as session:
            if isinstance(workflows, str):
                listings.require_known(session, self._queries, ids)
            if children:
                ids = list(listings.descendants(session, self._queries, ids, None))
            columns, batches = listings.step_batches(
                session, self._queries, ids, load_output=load_output
            )
            frame = frames.to_frame(batches, columns, self._decoder)
        return listings.normalized(frame) if normalize else frame

    @repeat_if_changed
    def tree(self, workflow: Texts, *, depth: int | None = None) -> pd.DataFrame:
        """List a workflow and everything below it: its children, their children, and so on.

        Children are known by their start steps and by ``parent_workflow_id``, so the
        replacement children of a fork are found as well.

        Parameters
        ----------
        workflow
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
            An ID that no workflow has.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).tree("checkout-1")[["workflow_id", "depth"]]
              workflow_id  depth
        0      checkout-1      0
        1    checkout-1-4      1
        2  checkout-1-4-1      2
        """
        from dbos_notebook.tables import listings
        from dbos_notebook.tables.filters import as_texts, check_window

        ids = as_texts(workflow, "workflow")
        if depth is not None:
            depth = check_window(depth, None)[0]
        with self._reader.session() as session:
            return listings.tree(session, self._queries, ids, depth)
