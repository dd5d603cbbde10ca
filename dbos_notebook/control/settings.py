"""The verbs that set a value: a delay, attributes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dbos_notebook.control.rows import Row
from dbos_notebook.control.verbs import Item, Known, Verb, Verdict
from dbos_notebook.printable import printable

if TYPE_CHECKING:
    from dbos import DBOSClient

    from dbos_notebook.database.reader import Session
    from dbos_notebook.tables.queries import Queries

SHOWN_CHARACTERS = 1_000
"""So much of new attributes is told; a call for thousands repeats it as often."""


@dataclass(frozen=True)
class SetDelay(Verb):
    """Move the moment before which a DELAYED workflow does not start."""

    action: ClassVar[str] = "set_delay"
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
    """Replace a workflow's attributes, or merge into them."""

    action: ClassVar[str] = "set_attributes"
    attributes: Mapping[str, Any] | None = None
    merge: bool = False

    def outdated(self, before: Row, now: Row) -> str | None:
        """Hold whatever it does now: attributes do not concern the run."""
        return None

    def look(
        self, session: Session, queries: Queries, ids: Sequence[str], before: Mapping[str, Item]
    ) -> Known:
        """Read the workflows, and whether DBOS can name the keys that are merged."""
        known = super().look(session, queries, ids, before)
        if self.merge and queries.catalog.dialect == "sqlite":
            # DBOS writes a key into a path of SQLite's as JSON does, and SQLite reads no escapes.
            lost = [key for key in self.attributes or {} if json.dumps(key) != f'"{key}"']
            if lost:
                effect = f"dbos cannot merge the key {lost[0]!r} on SQLite; without merge it can"
                known.points = dict.fromkeys(known.rows, effect)
        return known

    def judge(self, workflow_id: str, known: Known, before: Item | None) -> Item:
        """Say what would happen to one workflow."""
        item, problem = super().judge(workflow_id, known, before), known.points.get(workflow_id)
        if item.verdict == "do" and isinstance(problem, str):
            return dataclasses.replace(item, verdict="refused", effect=problem)
        return item

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
            client.update_workflow_attributes(item.workflow_id, attributes, **options)

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
