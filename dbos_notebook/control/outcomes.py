"""What a receipt says of each workflow: from how its call went, and from its row afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos_notebook.control.forks import Fork
from dbos_notebook.control.receipt import Line, Outcome
from dbos_notebook.control.verbs import Cancel, Item, Known, Verb
from dbos_notebook.errors import DatabaseConnectionError

if TYPE_CHECKING:
    from dbos_notebook.control.calls import Door
    from dbos_notebook.control.course import Course, Unit


def tell(
    verb: Verb,
    item: Item,
    attempt: tuple[Unit, BaseException | None] | None,
    known: Known | None,
    course: Course,
    door: Door,
) -> Line:
    """Return one line of a receipt: what the row is now, and what came of the attempt."""
    found = known.rows if known else {}
    after, new = found.get(item.workflow_id), found.get(item.new_workflow_id or "")
    outcome, detail = _outcome(verb, item, attempt, known, course, door)
    if outcome == "done" and item.will_run and not item.will_run.startswith("likely"):
        detail += f". Will it run? {item.will_run}"
    # A database of dbos before 2.4 does not record what was forked from what.
    there = new is not None and (
        item.verdict == "unchanged" or new.forked_from in (None, item.workflow_id)
    )
    return Line(
        item.workflow_id,
        verb.action,
        outcome,
        item.row.status if item.row else None,
        after.status if after else None,
        item.new_workflow_id if outcome == "done" or there else None,
        detail,
    )


def _outcome(
    verb: Verb,
    item: Item,
    attempt: tuple[Unit, BaseException | None] | None,
    known: Known | None,
    course: Course,
    door: Door,
) -> tuple[Outcome, str]:
    if attempt is None:
        if item.verdict == "not_found":
            return "not_found", item.effect
        refused = "refused: " if item.verdict == "refused" else ""
        return "unchanged", f"{refused}{item.effect}"
    unit, error = attempt
    why = "interrupted" if course.interrupted else str(course.fatal or "the call ended")
    if not unit.begun:
        along = isinstance(verb, Cancel) and verb.cancel_children and not item.asked
        if along and known and verb.happened(item, known.rows.get(item.workflow_id), None):
            # DBOS had found it below one whose call had begun.
            return "done", verb.done(item)
        return "unchanged", f"not begun: {why}"
    if known is None:
        if unit.ended and error is None:
            return "done", f"{verb.done(item)} (its row could not be read again)"
        return "unknown", f"begun, and then: {why}"
    after = known.rows.get(item.workflow_id)
    new = known.rows.get(item.new_workflow_id or "")
    happened = verb.happened(item, after, new)
    if unit.ended and error is None:
        if happened or verb.certain:
            return "done", verb.done(item)
        if after is None:
            return "not_found", "it was deleted meanwhile"
        return "unchanged", f"it was {after.status} when the call came"
    if error is not None and not door.fatal(error):
        if isinstance(verb, Fork) and happened and new is not None:
            # Another call with the same key, or of the same plan, was first.
            return "unchanged", f"already forked as {new.workflow_id}, which is {new.status}"
        if after is None:
            return "not_found", "it was deleted meanwhile"
        return "failed", door.reason(error)
    if happened:
        return "done", f"{verb.done(item)} (though: {why})"
    if not unit.ended:
        return "unknown", "still under way when the call was interrupted"
    if not verb.traceable and isinstance(course.fatal, DatabaseConnectionError):
        # It may have been written all the same, and no row would show which call did.
        return "unknown", f"begun, and then: {why}"
    return "failed", f"not done: {why}"
