"""The methods of Client that open a view. Each loads the widgets only when it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.client import Client
    from dbos_notebook.widgets.controls import Controls
    from dbos_notebook.widgets.explore import Explore
    from dbos_notebook.widgets.inspect import Inspect

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame


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

    def inspect(self, workflow_id: str) -> Inspect:
        """Show one workflow: its graph and timeline, what each step did, and what can be done.

        A click on a step shows its details and forks from it; a click on a folded group opens it.
        While the workflow runs, the view follows it.

        Raises
        ------
        WorkflowNotFoundError
            No workflow has this ID.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).inspect("checkout-1").workflow_id
        'checkout-1'
        """
        from dbos_notebook.widgets.inspect import Inspect

        return Inspect(cast("Client", self), workflow_id)

    def controls(self, workflows: Texts) -> Controls:
        """Show buttons that cancel, resume, fork and repair these workflows.

        A button is on where DBOS would act. It shows the plan, asks once, and then shows the
        receipt, which is ``.receipt`` in the next cell.

        Parameters
        ----------
        workflows
            An ID, many, a Series, or a DataFrame with ``workflow_id``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).controls("queued-1")
        <Controls sqlite:...: 1 workflow>
        """
        from dbos_notebook.widgets.controls import Controls

        return Controls(cast("Client", self), workflows)
