"""The methods of Client that open a view. Each loads the widgets only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from dbos_notebook.client import Client, Texts
    from dbos_notebook.widgets.board import Board
    from dbos_notebook.widgets.controls import Controls
    from dbos_notebook.widgets.explore import Explore
    from dbos_notebook.widgets.inspect import Inspect


class Exploring:
    """What opens views on a system database. :class:`Client` is one."""

    def explore(
        self, *, live: bool = False, tree: bool = False, page_size: int = 50, **filters: Any
    ) -> Explore:
        """Show workflows as a list that can be searched, sorted, opened and selected from.

        Parameters
        ----------
        live
            Begin with live refresh: every two seconds while the list is seen.
        tree
            Begin with children below their parents.
        page_size
            Rows on a page: 25, 50, 100 or 200.
        **filters
            The filters of :meth:`workflows` to begin with; ``queues_only=True`` begins with what
            is enqueued.

        Returns
        -------
        Explore
            A widget. ``.frame`` are the rows shown, ``.selection`` those ticked, ``.code`` the
            Python that gives the same rows; ``.save_html(path)`` writes it as a page.

        Examples
        --------
        >>> widget = dbos_notebook.connect(example_database).explore(name="checkout")
        >>> len(widget.frame)
        8
        """
        from dbos_notebook.widgets.explore import Explore

        given: Mapping[str, Any] = filters
        return Explore(cast("Client", self), given, live=live, tree=tree, page_size=page_size)

    def inspect(self, workflow_id: str, *, live: bool = True, tab: str = "graph") -> Inspect:
        """Show one workflow: its graph, timeline and steps, and what can be done with it.

        A click on a step shows when it ran, what it gave or why it failed, and forks the workflow
        from there; a fork opens in place and is watched while it runs.

        Parameters
        ----------
        workflow_id
            The workflow.
        live
            Ask for changes about once a second, while the workflow is active and the view is seen.
        tab
            What to begin with: ``"graph"``, ``"timeline"`` or ``"steps"``.

        Returns
        -------
        Inspect
            A widget. ``.selection`` is the key of the node that was clicked, as in
            :meth:`graph`; ``.receipt`` that of the last action; ``.save_html(path)`` writes it as
            a page that needs no kernel.

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

        return Inspect(cast("Client", self), workflow_id, live=live, tab=tab)

    def controls(self, workflows: Texts) -> Controls:
        """Show buttons that cancel, resume, fork and repair, each with its plan and its receipt.

        Parameters
        ----------
        workflows
            An ID, a list, a Series, or a DataFrame with a ``workflow_id`` column.

        Returns
        -------
        Controls
            A widget. ``.frame`` are the workflows now, ``.receipt`` is that of the last action.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).controls("queued-1")
        <Controls sqlite:...: 1 workflow>
        """
        from dbos_notebook.widgets.controls import Controls

        return Controls(cast("Client", self), workflows)

    def board(self, *, window: str = "24h", live: bool = False) -> Board:
        """Show queues, what ended and what failed at a glance.

        Parameters
        ----------
        window
            How far back: ``"1h"``, ``"6h"``, ``"24h"``, ``"7d"``, ``"30d"``.
        live
            Begin with live refresh: every five seconds while the board is seen.

        Returns
        -------
        Board
            A widget. ``.queues`` and ``.failures`` are DataFrames of what it shows.

        Raises
        ------
        FilterError
            Another window.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).board(window="7d").window
        '7d'
        """
        from dbos_notebook.widgets.board import Board

        return Board(cast("Client", self), window=window, live=live)
