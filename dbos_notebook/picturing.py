"""The methods of Client that make graphs and pictures. Each reads, and hands on to a room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from dbos_notebook.database.reader import repeat_if_changed
from dbos_notebook.errors import FilterError

if TYPE_CHECKING:
    import networkx as nx

    from dbos_notebook.database.reader import Reader
    from dbos_notebook.drawing.picture import Picture
    from dbos_notebook.drawing.theme import ThemeName
    from dbos_notebook.tables.sql import Queries


class Picturing:
    """What shows how workflows ran. :class:`Client` is one."""

    _reader: Reader
    _queries: Queries

    @repeat_if_changed
    def graph(
        self,
        workflow_id: str,
        *,
        children: bool = True,
        depth: int | None = None,
        forks: bool = False,
        load_output: bool = False,
    ) -> nx.DiGraph[Any]:
        """Make the execution graph of a workflow: what ran, in which order, and what at once.

        A workflow is a node by its ID, a step by ``(workflow_id, function_id)``. It is a plain
        ``networkx.DiGraph``, and acyclic; docs/graphs.md lists the attributes.

        Parameters
        ----------
        workflow_id
            The workflow.
        children
            Its children too, and theirs.
        depth
            How many levels of children; ``None``: all.
        forks
            The workflows that it was forked from and those forked from any of these, with their
            children.
        load_output
            Give each node a digest of its stored result, which ``graphs.compare`` needs to tell
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
        from dbos_notebook.graphs.build import graph_of, read
        from dbos_notebook.tables.filters import as_texts, check_window

        ids = as_texts(workflow_id, "workflow_id")
        if len(ids) != 1:
            raise FilterError(f"graph takes one workflow, not {len(ids)}. Call it for each.")
        if depth is not None:
            depth = check_window(depth, None)[0]
        with self._reader.session() as session:
            rows = read(
                session,
                self._queries,
                ids[0],
                depth=depth if children else 0,
                forks=forks,
                load_output=load_output,
            )
        return graph_of(rows, ids[0], str(self._reader.location))

    def timeline(
        self,
        workflow_id: str,
        *,
        fold: Literal["auto"] | int | None = "auto",
        open: Iterable[str] = (),  # noqa: A002 - as graphs.fold
        hide: Iterable[str] = (),
        theme: ThemeName = "auto",
        critical_path: bool = True,
        children: bool = True,
        depth: int | None = None,
    ) -> Picture:
        """Draw when everything of a workflow ran: a row per workflow and step on one axis of time.

        Running, sleeping, waiting in a queue, for children and for messages are told apart; what
        runs still has an open end; a long wait is drawn short where the axis is broken.

        Parameters
        ----------
        workflow_id
            The workflow.
        fold
            "auto" folds alike rows where there are too many; a number says how many rows to show
            about; ``None`` never folds.
        open
            The groups to show unfolded: see ``graphs.fold``.
        hide
            Operations that are not shown, such as "set_event", or "bookkeeping".
        theme
            "light", "dark", or "auto": what the reader prefers. A PNG is light then.
        critical_path
            Underline what the end waited for.
        children, depth
            As for :meth:`graph`.

        Returns
        -------
        Picture

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> print(db.timeline("checkout-1", depth=0, hide="bookkeeping").text[:8])
        checkout
        """
        from dbos_notebook.drawing.timeline import timeline

        graph = self.graph(workflow_id, children=children, depth=depth)
        return timeline(
            graph, fold=fold, open=open, hide=hide, theme=theme, critical_path=critical_path
        )
