"""What the methods that steer have in common: the client's parts, and how arguments are read."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dbos_notebook.errors import FilterError

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.control.steer import Steer
    from dbos_notebook.control.verbs import Verb
    from dbos_notebook.database.reader import Reader
    from dbos_notebook.tables.queries import Queries

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame

_MAKING = threading.Lock()


class Base:
    """A client as seen from here."""

    _reader: Reader
    _queries: Queries
    _application_name: str | None
    read_only: bool
    _made_steer: Steer | None = None

    @property
    def _steer(self) -> Steer:
        from dbos_notebook.control.steer import Steer

        with _MAKING:
            if self._made_steer is None:
                self._made_steer = Steer(
                    self._reader,
                    self._queries,
                    application_name=self._application_name,
                    read_only=lambda: self.read_only,
                )
            return self._made_steer

    def _close_control(self) -> None:
        if self._made_steer is not None:
            self._made_steer.close()

    def _control(self, verb: Verb, workflows: Texts, plan: bool, confirm: bool) -> Receipt | Plan:  # noqa: FBT001 - as the public calls name them
        from dbos_notebook.tables.filters import as_texts

        ids = as_texts(workflows, "workflows")
        return self._steer.do(verb, ids, plan=plan, confirm=confirm)


def as_seconds(value: Any, name: str, least: float | None = None) -> float | None:
    """Read a length of time: above 0, or at least ``least``."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise FilterError(f"{name} takes seconds or a timedelta, not {value!r}.")
    # What is not a number compares as False.
    if not (seconds > 0 if least is None else seconds >= least) or seconds == float("inf"):
        raise FilterError(f"{name}={value!r} must be {'above' if least is None else 'at least'} 0.")
    return float(seconds)


def as_key(key: Any) -> str | None:
    """Read the key of a call that can be repeated."""
    if key is None or (isinstance(key, str) and key.strip()):
        return key
    raise FilterError(f"key takes a text that names the occasion ('incident-42'), not {key!r}.")
