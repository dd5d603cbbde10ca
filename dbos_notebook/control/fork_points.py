"""Resolve a start step ("failed", 3, "charge") to the step number that DBOS forks from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from dbos_notebook.control.records import StepRecord
from dbos_notebook.errors import FilterError, StepNotFoundError, nearest
from dbos_notebook.text import leaf_name, sanitize

Step: TypeAlias = int | str
"""A step's number, its name, "first", "last" or "failed"."""
Steps: TypeAlias = Step | tuple[Step, ...]
KEYWORDS = ("first", "last", "failed")
MAX_SHOWN_STEPS = 30
MAX_STEP_NUMBER = 2**63


class FailedWait(NamedTuple):
    """A step that runs again and read the failure of another workflow, when it ran before.

    Attributes
    ----------
    function_id
        The step's number.
    workflow_id
        The workflow that it awaited.
    started_again
        Whether the step that started that workflow runs again too.
    """

    function_id: int
    workflow_id: str
    started_again: bool


@dataclass(frozen=True)
class ForkPoint:
    """The step that a fork starts from.

    Attributes
    ----------
    start_step
        The number of the first step that runs again.
    step_name
        Its name; ``None`` where it was never recorded.
    repeated
        Names of the successful steps that run again.
    failed_waits
        The steps from this one on that read the failure of another workflow.
    """

    start_step: int
    step_name: str | None
    repeated: tuple[str, ...] = ()
    failed_waits: tuple[FailedWait, ...] = ()

    @property
    def label(self) -> str:
        """The step's number and name for people."""
        name = f" ({leaf_name(self.step_name)})" if self.step_name else ""
        return f"step {self.start_step}{name}"


def point_at(steps: Sequence[StepRecord], start_step: int) -> ForkPoint:
    """Return the point of a step number, with the successful steps that would run again."""
    return ForkPoint(
        start_step,
        next((step.function_name for step in steps if step.function_id == start_step), None),
        tuple(
            step.function_name
            for step in steps
            if step.function_id >= start_step and not step.failed and not step.is_system
        ),
    )


def as_start_steps(start_step: object, *, several: bool = False) -> Steps | dict[str, Steps]:
    """Validate a start step: a number, a name, or a mapping from workflow IDs to those.

    Parameters
    ----------
    several
        Whether one workflow may start from several steps, which are then returned as a tuple.

    Raises
    ------
    FilterError
        It is none of those.

    Examples
    --------
    >>> as_start_steps({"order-1": 3})
    {'order-1': 3}
    >>> as_start_steps({"order-1": [2, "failed"]}, several=True)
    {'order-1': (2, 'failed')}
    """
    import pandas as pd

    if not isinstance(start_step, Mapping | pd.Series):
        return _as_steps([start_step], several=several)
    # A Series may have several steps for one workflow, as a column of db.steps() has.
    by_workflow: dict[str, list[Any]] = {}
    for key, value in start_step.items():
        by_workflow.setdefault(str(key), []).append(value)
    return {key: _as_steps(values, several=several) for key, values in by_workflow.items()}


def _as_steps(values: Sequence[Any], *, several: bool) -> Steps:
    import numpy as np
    import pandas as pd

    steps: dict[Step, None] = {}
    for value in values:
        is_list = isinstance(value, list | tuple | range | np.ndarray | pd.Index | pd.Series)
        steps |= dict.fromkeys(map(_as_step, value if several and is_list else [value]))
    if not steps:
        raise FilterError("start_step must not contain an empty list.")
    if len(steps) > 1 and not several:
        raise FilterError(
            f"start_step has {len(steps)} steps for one workflow, and only a fork can start from "
            "several."
        )
    return tuple(steps) if len(steps) > 1 else next(iter(steps))


def _as_step(start_step: Any) -> Step:
    if isinstance(start_step, str):
        return start_step
    if not isinstance(start_step, bool) and hasattr(start_step, "__index__"):
        if abs(int(start_step)) > MAX_STEP_NUMBER:
            raise FilterError("start_step is a number that no step can have.")
        return int(start_step)
    raise FilterError(
        f"start_step takes a step's number, 'first', 'last', 'failed', a step's name, a list of "
        f"those for a fork, or a mapping from workflow IDs to those, not {start_step!r}."
    )


def resolve(workflow_id: str, start_step: Step | None, steps: Sequence[StepRecord]) -> ForkPoint:
    """Return the point of a start step, or raise StepNotFoundError with the steps that exist.

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
        raise StepNotFoundError(f"start_step has no entry for workflow {workflow_id!r}.")
    number = _resolve_number(workflow_id, start_step, steps)
    if steps and steps[0].function_id == 0 and number == 1:
        # DBOS for Python copies steps only where start_step > 1.
        raise StepNotFoundError(
            f"The steps of workflow {workflow_id!r} start at 0, and dbos for Python cannot copy "
            "step 0 alone: it would run again. Start from 0 ('first') or from 2."
        )
    return dataclasses.replace(point_at(steps, number), failed_waits=_failed_waits(steps, number))


def _failed_waits(steps: Sequence[StepRecord], start_step: int) -> tuple[FailedWait, ...]:
    repeated = [step for step in steps if step.function_id >= start_step]
    started = {step.child_workflow_id for step in repeated if not step.awaits}
    waits: dict[str, FailedWait] = {}
    for step in repeated:
        if step.failed and step.awaits:
            wait = FailedWait(step.function_id, step.awaits, step.awaits in started)
            waits.setdefault(step.awaits, wait)
    return tuple(waits.values())


def _resolve_number(workflow_id: str, start_step: Step, steps: Sequence[StepRecord]) -> int:
    first = steps[0].function_id if steps and steps[0].function_id == 0 else 1
    # DBOS copies nothing for 0, as for 1: both start at the beginning.
    if start_step in ("first", 0):
        return first
    if isinstance(start_step, int):
        # The step after the last recorded one is where a cancelled run would have continued.
        following = steps[-1].function_id + 1 if steps else first
        if start_step in {step.function_id for step in steps} | {first, following}:
            return start_step
        raise _not_found(workflow_id, f"step {start_step}", steps)
    if start_step == "last":
        if not steps:
            raise _not_found(workflow_id, "last step", steps)
        return steps[-1].function_id
    if start_step == "failed":
        failed = [step for step in steps if step.failed]
        own = [step for step in steps if not step.is_system]
        # A workflow whose body raised has no failed step.
        candidates = failed or own or steps
        return candidates[-1].function_id if candidates else first
    named = [step for step in steps if step.function_name == start_step]
    failed = [step for step in named if step.failed]
    if not named:
        raise _not_found(workflow_id, f"step named {start_step!r}", steps, start_step)
    if len(named) > 1 and len(failed) != 1:
        numbers = ", ".join(str(step.function_id) for step in named[:MAX_SHOWN_STEPS])
        raise StepNotFoundError(
            f"Workflow {workflow_id!r} has {len(named)} steps named {start_step!r}: {numbers}. "
            "Pass the number."
        )
    return (failed if len(named) > 1 else named)[0].function_id


def _not_found(
    workflow_id: str, step: str, steps: Sequence[StepRecord], name: str = ""
) -> StepNotFoundError:
    names = [sanitize(step.function_name) for step in steps]
    pairs = zip(steps, names[:MAX_SHOWN_STEPS], strict=False)
    listed = ", ".join(f"{step.function_id} {label}" for step, label in pairs)
    if len(steps) > MAX_SHOWN_STEPS:
        listed += f", … ({len(steps)} in all)"
    existing = (
        f"Its steps: {listed}."
        if steps
        else "It has recorded no step; 'first' starts it from the beginning."
    )
    hint = nearest(name, [*names, *KEYWORDS]) if name else ""
    return StepNotFoundError(f"Workflow {workflow_id!r} has no {step}.{hint} {existing}")
