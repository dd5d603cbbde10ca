"""The methods of Client that open a view. Each loads the widgets only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from dbos_notebook.client import Client
    from dbos_notebook.widgets.board import Board
    from dbos_notebook.widgets.explore import Explore


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
