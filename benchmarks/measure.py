"""Timing rivals side by side, and the table that comes of it."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table: ours, the rival's, and the target if there is one."""

    what: str
    size: str
    ours: str
    rival: str
    ratio: str
    target: str = ""
    met: bool | None = None


@dataclass
class Report:
    """Collects rows, shows each as it comes, and makes the table."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a row and print it."""
        self.rows.append(row)
        print(" | ".join([row.what, row.size, row.ours, row.rival, row.ratio]), flush=True)

    def markdown(self) -> str:
        """Return the table."""
        lines = [
            "| what | rows | dbos_notebook | rival | ratio | target |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            verdict = {None: "", True: "met", False: "**not met**"}[row.met]
            target = f"{row.target} {verdict}".strip()
            cells = (row.what, row.size, row.ours, row.rival, row.ratio, target)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def seconds(rivals: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Time rivals in turn, ``rounds`` times, and return each one's median.

    In turn, so that whatever else the machine does falls on all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            gc.collect()
            begun = time.perf_counter()
            result = call()
            taken[name].append(time.perf_counter() - begun)
            # Freeing a million objects is not part of getting them.
            del result
    return {name: statistics.median(times) for name, times in taken.items()}


def rate(rows: int, took: float) -> str:
    """Write rows per second."""
    return f"{rows / took:,.0f} rows/s"


def milliseconds(took: float) -> str:
    """Write a duration."""
    return f"{took * 1000:,.1f} ms" if took < 1 else f"{took:,.2f} s"
