"""The buttons alone, for workflows that a cell has already found: their Python half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from dbos_notebook.tables.filters import as_texts
from dbos_notebook.widgets import asking, assets, plain, static
from dbos_notebook.widgets.actions import Actions
from dbos_notebook.widgets.view import View

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.client import Client
    from dbos_notebook.control.receipt import Receipt

SHOWN = 50


class Controls(View):
    """Buttons that cancel, resume, fork and repair some workflows. See ``Client.controls``.

    Examples
    --------
    >>> db = dbos_notebook.connect(example_database)
    >>> widget = db.controls(db.workflows(status="ERROR"))
    >>> len(widget.frame), widget.receipt
    (5, None)
    """

    _esm = assets.module("controls")
    _css = assets.style("base", "explore")

    _start = traitlets.Dict().tag(sync=True)

    def __init__(self, client: Client, workflows: Any) -> None:
        self._ids = as_texts(workflows, "workflows")[: asking.MOST_SELECTED]
        client._steer.require_known(self._ids)
        self._actions = Actions(client)
        start = {"ids": self._ids, "forbidden": self._actions.forbidden()}
        super().__init__(client, _start=start)
        self._answers = {"rows": self._rows, **self._actions.answers}

    @property
    def frame(self) -> pd.DataFrame:
        """The workflows, as they are in the database now."""
        return self._client.workflows(self._ids, limit=None)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of the last action that was confirmed here; ``None``: there was none."""
        return self._actions.receipt

    def _rows(self, message: dict[str, Any]) -> dict[str, Any]:
        frame = self.frame
        counts = frame["status"].value_counts()
        answer: dict[str, Any] = {
            "rows": plain.workflow_rows(frame.head(SHOWN)),
            "counts": {str(status): int(count) for status, count in counts.items() if count},
        }
        stamp = plain.stamp(answer)
        return {"same": True} if message.get("stamp") == stamp else {**answer, "stamp": stamp}

    @property
    def code(self) -> str:
        """The Python that gives the same workflows, where the client is called ``db``."""
        return f"db.controls({asking.literal(self._ids)})"

    def static_html(self) -> str:
        """Return the workflows as a table that needs no kernel."""
        return static.listing(self._client, self.frame, plain.cut(self.code, 300))

    def _page(self) -> str:
        return static.listing_page(self._client, self.frame, self.code)

    def __repr__(self) -> str:
        many = f"{len(self._ids):,} workflow{'' if len(self._ids) == 1 else 's'}"
        return f"<Controls {self._client.location}: {many}>"
