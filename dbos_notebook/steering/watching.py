"""What looks on: waiting for workflows, and the session's own control calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dbos_notebook.steering.base import Base
from dbos_notebook.tables.filters import as_seconds

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.receipt import Receipt

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame


class Watching(Base):
    """What waits and remembers."""

    def wait(self, workflows: Texts, *, timeout: float | None = None) -> pd.DataFrame:
        """Watch workflows until they have finished; return them as :meth:`workflows` does.

        In a notebook and a terminal it shows how they come along. It only reads: Ctrl-C ends the
        watching, with a ``ControlInterrupt`` that carries what was seen, and the workflows go on.

        Parameters
        ----------
        timeout
            Seconds; when they are over, the frame holds what has not finished too.

        Examples
        --------
        >>> db = dbos_notebook.connect(example_database)
        >>> db.wait(["checkout-1", "checkout-5-bad"])["status"].tolist()
        ['SUCCESS', 'ERROR']
        """
        from dbos_notebook.tables.filters import as_texts

        ids = as_texts(workflows, "workflows")
        return self._controller.wait(ids, as_seconds(timeout, "timeout", least=0))

    @property
    def last_receipt(self) -> Receipt | None:
        """The receipt of the latest control call of this client, also of an interrupted one."""
        return self._controller.history.last

    def history(self) -> pd.DataFrame:
        """List the control calls of this client, oldest first.

        They are also logged, with every workflow's outcome, by the logger
        ``dbos_notebook.control``.

        Examples
        --------
        >>> dbos_notebook.connect(example_database).history().empty
        True
        """
        return self._controller.history.to_frame()
