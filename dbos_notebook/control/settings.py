"""The verbs that set a value: a delay, attributes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dbos_notebook.control import privileges
from dbos_notebook.control.privileges import Needs
from dbos_notebook.control.rows import Row
from dbos_notebook.control.verbs import Item, Verb, Verdict
from dbos_notebook.printable import printable

if TYPE_CHECKING:
    from dbos import DBOSClient

MERGE_ATTEMPTS = 3
SHOWN_CHARACTERS = 1_000
"""So much of new attributes is told; a call for thousands repeats it as often."""


@dataclass(frozen=True)
class SetDelay(Verb):
    """Move the moment before which a DELAYED workflow does not start."""

    action: ClassVar[str] = "set_delay"
    needed: ClassVar[Needs] = privileges.SET_DELAY
    # Milliseconds since 1970: a moment, so that applying twice does the same.
    until: int = 0

    def _verdict(self, row: Row) -> tuple[Verdict, str]:
        if row.status != "DELAYED":
            return "unchanged", f"only a DELAYED workflow has a delay; it is {row.status}"
        if row.delay_until == self.until:
            return "unchanged", "it waits until then already"
        return "do", f"waits until {_moment(self.until)}, not {_moment(row.delay_until)}"

    def call(self, client: DBOSClient, items: Sequence[Item]) -> None:
        """Set the moment, one workflow at a time as DBOS does."""
        for item in items:
            client.set_workflow_delay(item.workflow_id, delay_until_epoch_ms=self.until)

    def happened(self, item: Item, after: Row | None, new: Row | None) -> bool:
        """Tell whether it waits until then."""
        return after is not None and after.delay_until == self.until


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "any"
    try:
        moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        # A column of integers holds some that are no time.
        return f"{milliseconds} ms after 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class SetAttributes(Verb):
    """Replace a workflow's attributes, or merge into them.

    Attributes
    ----------
    merged_here
        Merge by reading the attributes and replacing them: DBOS cannot merge these keys itself.
    """

    action: ClassVar[str] = "set_attributes"
    needed: ClassVar[Needs] = privileges.SET_ATTRIBUTES
    attributes: Mapping[str, Any] | None = None
    merge: bool = False
    merged_here: bool = False

    def options(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        found = super().options()
        found.pop("merged_here", None)
        return found

    def outdated(self, before: Row, now: Row) -> str | None:
        """Hold whatever it does now: attributes do not concern the run."""
        return None

    def _verdict(self, row: Row) -> tuple[Verdict, str]:
        old, wanted = _loaded(row.attributes), self.attributes
        kept = old if isinstance(old, dict) else {}
        if self.merge:
            wanted = {**kept, **(wanted or {})}
        if _same(old, wanted):
            return "unchanged", "it has these attributes already"
        shown = printable(json.dumps(wanted, ensure_ascii=False), SHOWN_CHARACTERS)
        lost = sorted(set(kept) - set(wanted or ()))
        return "do", f"becomes {shown}" + (f"; loses {', '.join(lost)}" if lost else "")

    def call(self, client: DBOSClient, items: Sequence[Item]) -> None:
        """Set the attributes, one workflow at a time as DBOS does."""
        attributes = None if self.attributes is None else dict(self.attributes)
        # An option that dbos before 3.3 does not have.
        options: dict[str, Any] = {"merge": True} if self.merge else {}
        for item in items:
            if self.merged_here:
                self._merge(client, item.workflow_id, attributes or {})
                continue
            client.update_workflow_attributes(item.workflow_id, attributes, **options)

    def _merge(self, client: DBOSClient, workflow_id: str, attributes: dict[str, Any]) -> None:
        """Read, merge, replace, and read again: another change may have come in between.

        One that another process makes between the reading and the replacing is lost, unless it
        changes these very keys: DBOS offers no condition. The reading is the last thing before.
        """
        for _ in range(MERGE_ATTEMPTS):
            has = self._read(client, workflow_id)
            if has is None:
                return  # deleted meanwhile; the receipt says so
            client.update_workflow_attributes(workflow_id, {**has, **attributes})
            now = self._read(client, workflow_id)
            if now is None or _same({key: now.get(key) for key in attributes}, attributes):
                return

    @staticmethod
    def _read(client: DBOSClient, workflow_id: str) -> dict[str, Any] | None:
        # Without payloads: DBOS would unpickle them.
        found = client.list_workflows(
            workflow_ids=[workflow_id], load_input=False, load_output=False
        )
        if not found:
            return None
        has = found[0].attributes
        return has if isinstance(has, dict) else {}

    def happened(self, item: Item, after: Row | None, new: Row | None) -> bool:
        """Tell whether it has them."""
        if after is None or item.row is None:
            return False
        has = _loaded(after.attributes)
        if self.merge:
            # Somebody else may have merged other keys at the same moment.
            wanted = dict(self.attributes or {})
            return isinstance(has, dict) and _same({k: has.get(k) for k in wanted}, wanted)
        return _same(has, self.attributes)


def escaped(attributes: Mapping[str, Any]) -> bool:
    """Whether JSON escapes a key. DBOS writes that into a path, where SQLite reads no escapes.

    Examples
    --------
    >>> escaped({"tier": 1}), escaped({"prénom": 1}), escaped({'a"b': 1})
    (False, True, True)
    """
    return any(json.dumps(key) != f'"{key}"' for key in attributes)


def _loaded(stored: str | None) -> Any:
    try:
        return json.loads(stored) if stored else None
    except (ValueError, RecursionError):
        # SQLite keeps any text.
        return _UNREADABLE


_UNREADABLE = object()


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0, and no truth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
