"""Resolve a start step ("failed", 3, "charge") to the step number that DBOS forks from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbos_notebook.control.records import StepRecord
from dbos_notebook.errors import FilterError, StepNotFoundError, nearest
from dbos_notebook.text import sanitize

if TYPE_CHECKING:
    pass

WORDS = ("first", "last", "failed")
SHOWN = 30
MOST = 2**63


@dataclass(frozen=True)
class ForkPoint:
    """Where a fork starts.

    Attributes
    ----------
    start_step
        The number of the first step that runs again.
    step_name
        Its name; ``None`` where it was never recorded.
    repeated
        Names of steps that had succeeded and run again.
    awaited
        The workflow whose result this step took, if it failed doing so.
    """

    start_step: int
    step_name: str | None
    repeated: tuple[str, ...] = ()
    awaited: str | None = None

    @property
    def label(self) -> str:
        """How a person names it."""
        return f"step {self.start_step}" + (f" ({self.step_name})" if self.step_name else "")


def check(start_step: Any, *, several: bool = False) -> Any:
    """Return a start step that can be looked up: a number, a word or name, or a plain mapping.

    Parameters
    ----------
    several
        Whether one workflow may start from several steps, which are then a tuple.

    Raises
    ------
    FilterError
        It is none of those.

    Examples
    --------
    >>> check({"order-1": 3})
    {'order-1': 3}
    >>> check({"order-1": [2, "failed"]}, several=True)
    {'order-1': (2, 'failed')}
    """
    import pandas as pd

    if not isinstance(start_step, Mapping | pd.Series):
        return _steps([start_step], several)
    # A Series may have several steps for one workflow, as a column of db.steps() has.
    given: dict[str, list[Any]] = {}
    for key, value in start_step.items():
        given.setdefault(str(key), []).append(value)
    return {key: _steps(values, several) for key, values in given.items()}


def _steps(values: Sequence[Any], several: bool) -> int | str | tuple[int | str, ...]:  # noqa: FBT001 - as check names it
    found: dict[int | str, None] = {}
    for value in values:
        many = value if several and _is_list(value) else [value]
        found |= dict.fromkeys(_one(each) for each in many)
    if not found:
        raise FilterError("start_step has an empty list, which names no step.")
    if len(found) > 1 and not several:
        raise FilterError(
            f"start_step has {len(found)} steps for one workflow, and only a fork can start from "
            "several."
        )
    return tuple(found) if len(found) > 1 else next(iter(found))


def _is_list(value: Any) -> bool:
    import numpy as np
    import pandas as pd

    return isinstance(value, list | tuple | range | np.ndarray | pd.Index | pd.Series)


def _one(start_step: Any) -> int | str:
    if isinstance(start_step, str):
        return start_step
    if not isinstance(start_step, bool) and hasattr(start_step, "__index__"):
        if abs(int(start_step)) > MOST:
            raise FilterError("start_step is a number that no step can have.")
        return int(start_step)
    raise FilterError(
        f"start_step takes a step's number, 'first', 'last', 'failed', a step's name, a list of "
        f"those for a fork, or a mapping from workflow IDs to those, not {start_step!r}."
    )


def resolve(
    workflow_id: str, start_step: int | str | None, steps: Sequence[StepRecord]
) -> ForkPoint:
    """Find the step of one workflow; raise StepNotFoundError with its steps where there is none.

    Examples
    --------
    >>> steps = [StepRecord(1, "pay", False, None, 0, 1), StepRecord(2, "ship", True, None, 1, 2)]
    >>> resolve("order-1", "failed", steps).label
    'step 2 (ship)'
    >>> resolve("order-1", "pay", steps).repeated
    ('pay',)
    >>> resolve("order-1", 7, steps)
    Traceback (most recent call last):
    dbos_notebook.errors.StepNotFoundError: Workflow 'order-1' has no step 7. Its steps: 1 pay, ...
    """
    if start_step is None:
        raise StepNotFoundError(f"start_step names no step for workflow {workflow_id!r}.")
    number = _number(workflow_id, start_step, steps)
    by_number = {step.function_id: step for step in steps}
    if steps and steps[0].function_id == 0 and number == 1:
        # DBOS for Python copies steps only where start_step > 1.
        raise StepNotFoundError(
            f"Workflow {workflow_id!r} counts its steps from 0, and dbos for Python cannot keep "
            "step 0 alone: it would run again. Start from 0 ('first') or from 2."
        )
    step = by_number.get(number)
    return ForkPoint(
        number,
        step.function_name if step else None,
        tuple(
            step.function_name
            for step in steps
            if step.function_id >= number and not step.failed and not step.bookkeeping
        ),
        step.awaits if step and step.failed else None,
    )


def _number(workflow_id: str, start_step: int | str, steps: Sequence[StepRecord]) -> int:
    first = steps[0].function_id if steps and steps[0].function_id == 0 else 1
    # DBOS copies nothing for 0, as for 1: both start at the beginning.
    if start_step in ("first", 0):
        return first
    if isinstance(start_step, int):
        # The step after the last recorded one is where a cancelled run would have gone on.
        following = steps[-1].function_id + 1 if steps else first
        if start_step in {step.function_id for step in steps} | {first, following}:
            return start_step
        raise _missing(workflow_id, f"step {start_step}", steps)
    if start_step == "last":
        if not steps:
            raise _missing(workflow_id, "last step", steps)
        return steps[-1].function_id
    if start_step == "failed":
        failed = [step for step in steps if step.failed]
        own = [step for step in steps if not step.bookkeeping]
        # A body that raises by itself leaves no failed step.
        if not (failed or own or steps):
            return first
        return (failed or own or list(steps))[-1].function_id
    named = [step for step in steps if step.function_name == start_step]
    failed = [step for step in named if step.failed]
    if not named:
        raise _missing(workflow_id, f"step named {start_step!r}", steps)
    if len(named) > 1 and len(failed) != 1:
        numbers = ", ".join(str(step.function_id) for step in named[:SHOWN])
        raise StepNotFoundError(
            f"Workflow {workflow_id!r} has {len(named)} steps named {start_step!r}: {numbers}. "
            "Give the number."
        )
    return (failed if len(named) > 1 else named)[0].function_id


def _missing(workflow_id: str, what: str, steps: Sequence[StepRecord]) -> StepNotFoundError:
    names = [sanitize(step.function_name) for step in steps]
    pairs = zip(steps, names[:SHOWN], strict=False)
    listed = ", ".join(f"{step.function_id} {name}" for step, name in pairs)
    if len(steps) > SHOWN:
        listed += f", … ({len(steps)} in all)"
    have = f"Its steps: {listed}." if steps else "It has recorded no step; 'first' starts it anew."
    word = what.partition("'")[2].rstrip("'")
    hint = nearest(word, [*names, *WORDS]) if word else ""
    return StepNotFoundError(f"Workflow {workflow_id!r} has no {what}.{hint} {have}")
