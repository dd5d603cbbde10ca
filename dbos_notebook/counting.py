"""The methods of Client that aggregate in the database. Each hands on to ``tables``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dbos_notebook.database.reader import repeat_if_changed

if TYPE_CHECKING:
    import datetime as dt

    import pandas as pd

    from dbos_notebook.database.reader import Reader
    from dbos_notebook.tables.sql import Queries


class Counting:
    """What counts and summarises a system database. :class:`Client` is one."""

    _reader: Reader
    _queries: Queries

    if TYPE_CHECKING:  # Reading has it

        def _check(self, filters: Mapping[str, Any]) -> dict[str, Any]: ...

    @repeat_if_changed
    def counts(
        self,
        by: str | Iterable[str] = "status",
        *,
        bucket: str | dt.timedelta | None = None,
        time: str = "created_at",
        **filters: Any,
    ) -> pd.DataFrame:
        """Count workflows by columns and by time, in the database.

        Parameters
        ----------
        by
            Columns of :meth:`workflows`; ``[]`` for none.
        bucket
            Width of the time buckets ("15min", "1h", "1d"), which begin at multiples of it since
            1970 in UTC. ``None``: not by time.
        time
            The column that is bucketed; workflows without it are not counted.
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
        from dbos_notebook.tables import aggregates

        checked = self._check(filters)
        with self._reader.session() as session:
            return aggregates.counts(session, self._queries, by, bucket, time, checked)

    @repeat_if_changed
    def step_statistics(
        self, by: str | Iterable[str] = "function_name", **filters: Any
    ) -> pd.DataFrame:
        """Summarise the steps of workflows: how many, how many failed, how long they took.

        Steps that a fork has from its original count once, with the original. Before dbos 2.10
        steps have no times, by which copies are known: there they count with the fork as well.

        Parameters
        ----------
        by
            ``function_name``, ``application_name``, or a workflow's ``name``, ``app_version``,
            ``queue_name``, ``executor_id``, ``class_name``.
        **filters
            The filters of :meth:`workflows`.

        Returns
        -------
        pandas.DataFrame
            ``by``, ``count``, ``errors`` (Int64), ``total``, ``mean``, ``p50``, ``p95``, ``max``
            (timedelta64[ms]); most total time first.

        Examples
        --------
        >>> statistics = dbos_notebook.connect(example_database).step_statistics()
        >>> int(statistics.set_index("function_name").loc["charge", "count"])
        8
        """
        from dbos_notebook.tables import aggregates

        checked = self._check(filters)
        with self._reader.session() as session:
            return aggregates.step_statistics(session, self._queries, by, checked)

    @repeat_if_changed
    def queues(self) -> pd.DataFrame:
        """List queues: limits, depth, running, and how long the oldest has waited.

        A row per queue, or per partition that holds work. A queue that holds work is listed even
        where its limits are in the application's code and not in the database.

        Examples
        --------
        >>> queues = dbos_notebook.connect(example_database).queues()
        >>> queues.loc[queues["enqueued"] > 0, ["queue_name", "enqueued"]].values.tolist()
        [['slow', 2]]
        """
        from dbos_notebook.tables import aggregates

        with self._reader.session() as session:
            return aggregates.queues(session, self._queries)

    @repeat_if_changed
    def executors(self) -> pd.DataFrame:
        """List who ran workflows, the latest activity first. DBOS records no heartbeat.

        Who only enqueued workflows is not listed.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).executors()["executor_id"].tolist()
        ['local']
        """
        from dbos_notebook.tables import aggregates

        with self._reader.session() as session:
            return aggregates.executors(session, self._queries)
