"""Lengths of time, as people give them to whatever waits or limits."""

from __future__ import annotations

import datetime as dt
import numbers
from typing import Any

from dbos_notebook.errors import FilterError

LEAST_SECONDS = 0.001
"""DBOS counts in milliseconds."""
MOST_SECONDS = 1e9
"""Some thirty years: nobody waits for longer, and DBOS's columns hold it."""


def as_seconds(value: Any, name: str, least: float | None = None) -> float | None:
    """Read a length of time: above 0, or at least ``least``, and no more than any clock tells."""
    if value is None:
        return None
    seconds: Any = value.total_seconds() if isinstance(value, dt.timedelta) else value
    real = isinstance(seconds, numbers.Real)  # numpy's too
    if isinstance(seconds, bool) or not real:
        raise FilterError(f"{name} takes seconds or a timedelta, not {value!r}.")
    bound = "above 0" if least is None else f"at least {least:g}"
    # What is not a number compares as False.
    if not (seconds > 0 if least is None else seconds >= least) or not seconds <= MOST_SECONDS:
        raise FilterError(f"{name}={value!r} must be {bound}, and at most {MOST_SECONDS:g} s.")
    return max(float(seconds), LEAST_SECONDS) if least is None else float(seconds)
