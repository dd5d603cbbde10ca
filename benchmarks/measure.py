"""Time alternatives side by side and collect the results in a table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One row of the table: our value, the baseline's, and the target, if any."""

    name: str
    size: str
    ours: str
    baseline: str
    ratio: str
    target: str = ""
    met: bool | None = None


@dataclass
class Report:
    """Collects measurements, prints each, and formats the table."""

    rows: list[Measurement] = field(default_factory=list)

    def add(self, row: Measurement) -> None:
        """Add a measurement and print it."""
        self.rows.append(row)
        print(" | ".join([row.name, row.size, row.ours, row.baseline, row.ratio]), flush=True)

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [
            "| what | rows | dbos_notebook | baseline | ratio | target |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            verdict = {None: "", True: "met", False: "**not met**"}[row.met]
            target = f"{row.target} {verdict}".strip()
            cells = (row.name, row.size, row.ours, row.baseline, row.ratio, target)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Call each function in turn, ``rounds`` times, and return the median seconds of each.

    In turn, so that other load on the machine affects all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            started = time.perf_counter()
            result = call()
            taken[name].append(time.perf_counter() - started)
            # Freeing a million objects is not part of the measurement.
            del result
    return {name: statistics.median(times) for name, times in taken.items()}


def rate(rows: int, took: float) -> str:
    """Format rows per second."""
    return f"{rows / took:,.0f} rows/s"


def milliseconds(took: float) -> str:
    """Format a duration."""
    return f"{took * 1000:,.1f} ms" if took < 1 else f"{took:,.2f} s"
