"""The control buttons alone, for workflows that are already in hand. Python half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.errors import FilterError
from dbos_notebook.tables.filters import as_texts
from dbos_notebook.widgets import asking, assets, offline
from dbos_notebook.widgets.actions import Actions
from dbos_notebook.widgets.view import View

if TYPE_CHECKING:
    from dbos_notebook.client import Client
    from dbos_notebook.control.receipt import Receipt


class Controls(View):
    """Cancel, resume, fork and repair as buttons. Make it with ``Client.controls``.

    Attributes
    ----------
    workflow_ids
        The workflows that the buttons are about; may be set.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> db.controls(db.workflows(status="ERROR", name="checkout")).workflow_ids
    ['checkout-5-bad', 'checkout-9-rejected']
    """

    _esm = assets.module("controls")
    _css = assets.style("base", "controls")

    workflow_ids = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _start = traitlets.Dict().tag(sync=True)

    def __init__(self, client: Client, workflows: Any) -> None:
        self._actions = Actions(client)
        start = {"read_only": client.read_only, "forbidden": self._actions.forbidden()}
        super().__init__(client, workflow_ids=as_texts(workflows, "workflows"), _start=start)
        self._answers = dict(self._actions.answers)

    @traitlets.validate("workflow_ids")
    def _bounded(self, proposal: Any) -> list[str]:
        ids = list(dict.fromkeys(proposal["value"]))
        if len(ids) > asking.MOST_SELECTED:
            raise FilterError(
                f"{len(ids):,} workflows are more than buttons take ({asking.MOST_SELECTED:,}). "
                "Call db.cancel(…, plan=True) and the like, which take any number."
            )
        return ids

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    def static_html(self) -> str:
        """Return which workflows the buttons are about."""
        return offline.note(self._client, self.workflow_ids)

    def _page(self) -> str:
        return offline.wrapped("Controls", self.static_html())

    def __repr__(self) -> str:
        return f"<Controls {len(self.workflow_ids):,} workflows {self._client.location}>"
