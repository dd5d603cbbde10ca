"""What the methods that controller have in common: the client's parts, and how arguments are read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dbos_notebook.database.fork_safety import ForkableLock
from dbos_notebook.errors import FilterError

if TYPE_CHECKING:
    import pandas as pd

    from dbos_notebook.control.controller import Controller
    from dbos_notebook.control.operations import Operation
    from dbos_notebook.control.plan import Plan
    from dbos_notebook.control.receipt import Receipt
    from dbos_notebook.database.reader import Reader
    from dbos_notebook.tables.sql import Queries

    Texts = str | Iterable[str] | pd.Series[str] | pd.DataFrame

_MAKING = ForkableLock()


class Base:
    """A client as seen from here."""

    _reader: Reader
    _queries: Queries
    _application_name: str | None
    read_only: bool
    _controller_or_none: Controller | None = None

    @property
    def _controller(self) -> Controller:
        from dbos_notebook.control.controller import Controller

        with _MAKING:
            if self._controller_or_none is None:
                self._controller_or_none = Controller(
                    self._reader,
                    self._queries,
                    application_name=self._application_name,
                    read_only=lambda: self.read_only,
                )
            return self._controller_or_none

    def _close_control(self) -> None:
        if self._controller_or_none is not None:
            self._controller_or_none.close()

    def _control(
        self, operation: Operation, workflows: Texts, plan: bool, confirm: bool
    ) -> Receipt | Plan:  # noqa: FBT001 - as the public calls name them
        from dbos_notebook.tables.filters import as_texts

        ids = as_texts(workflows, "workflows")
        return self._controller.do(operation, ids, plan=plan, confirm=confirm)


def as_key(key: Any) -> str | None:
    """Read the key of a call that can be repeated; what looks alike is alike.

    Examples
    --------
    >>> as_key("cafe" + chr(0x301)) == as_key("caf" + chr(0xe9))
    True
    """
    from dbos_notebook.tables.filters import check_storable

    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise FilterError(f"key takes a text that names the occasion ('incident-42'), not {key!r}.")
    check_storable(key, "key")
    return unicodedata.normalize("NFC", key)


def as_optional_name(value: Any, name: str) -> str | None:
    """Read the name of a queue or a version, if one is given."""
    from dbos_notebook.tables.filters import as_name

    return None if value is None else as_name(value, name)


def check_key(queue_name: Any, queue_partition_key: Any) -> None:
    """Raise where a partition key is given to workflows that bring their own."""
    from dbos_notebook.control.queue_selection import ORIGINAL

    if queue_name == ORIGINAL and queue_partition_key is not None:
        raise FilterError(
            f"queue_name='original' puts each workflow back with its own partition key, so "
            f"queue_partition_key={queue_partition_key!r} has no place beside it."
        )


def as_replacements(value: Any) -> dict[str, str] | None:
    """Read which child is to be taken for which."""
    from dbos_notebook.tables.filters import as_name

    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise FilterError(f"replacement_children takes a mapping of IDs, not {value!r}.")
    told = "replacement_children"
    return {as_name(old, told): as_name(new, told) for old, new in value.items()} or None
