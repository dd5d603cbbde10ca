"""The axis of a timeline: from seconds to pixels, with long waits made short and ticks that fit.

Only time in which no step ran is ever made short, and the axis is seen to be broken there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_LONG = 0.08
"""The share of the time from which on a wait may be made short."""
_WORTH = 0.25
"""Waits are made short where the rest would have less than this share of the axis."""
_FINEST = 0.001
"""Times are kept in milliseconds: less than one is nothing to make room for, or to count in."""
_SHORT = 46.0
"""How wide a wait that was made short is."""
_TICK = 90.0
"""About how far ticks are from each other."""


@dataclass(frozen=True)
class Tick:
    """A line and its label. ``major``: the axis begins anew here, after a break."""

    x: float
    seconds: float
    since: float
    major: bool


@dataclass(frozen=True)
class Break:
    """A wait that was made short: where it is drawn, and how long it was."""

    x: float
    wide: float
    seconds: float


class Scale:
    """Maps times to positions.

    Parameters
    ----------
    spans
        (start, end, whether a step ran) of everything that is drawn, in seconds.
    wide
        The length of the axis in pixels.

    Examples
    --------
    >>> scale = Scale([(0, 1, True), (1, 3600, False), (3600, 3602, True)], 600)
    >>> [round(scale(second)) for second in (0, 1, 3600, 3602)]
    [0, 185, 231, 600]
    >>> [round(each.seconds) for each in scale.breaks]
    [3599]
    """

    def __init__(self, spans: list[tuple[float, float, bool]], wide: float) -> None:
        self.wide = wide
        edges = np.unique(np.array([t for span in spans for t in span[:2]] or [0.0]))
        if len(edges) == 1:
            edges = np.array([edges[0], edges[0] + 0.001])
        self.start, self.end = float(edges[0]), float(edges[-1])
        lengths = np.diff(edges)
        long = self._long(spans, edges, lengths)
        widths = lengths * (wide - _SHORT * long.sum()) / lengths[~long].sum()
        widths[long] = _SHORT
        self._times, self._places = edges, np.concatenate([[0.0], np.cumsum(widths)])
        self.breaks = [
            Break(float(self._places[at]), _SHORT, float(lengths[at]))
            for at in np.flatnonzero(long)
        ]
        self.ticks = self._ticks(long)

    def __call__(self, second: float) -> float:
        """Return where a time is on the axis."""
        return float(np.interp(second, self._times, self._places))

    def many(self, seconds: np.ndarray) -> np.ndarray:
        """Return where times are on the axis."""
        return np.asarray(np.interp(seconds, self._times, self._places))

    @staticmethod
    def _long(
        spans: list[tuple[float, float, bool]], edges: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Choose the pieces to make short."""
        # +1 where a step begins and -1 where it ends: above zero, one runs.
        change = np.zeros(len(edges))
        for start, end, ran in spans:
            if ran and end > start:
                change[np.searchsorted(edges, start)] += 1
                change[np.searchsorted(edges, end)] -= 1
        idle = np.cumsum(change)[:-1] == 0
        total = lengths.sum()
        long = idle & (lengths >= _LONG * total)
        if long.sum() > 8:  # so many that together they are the picture
            long &= lengths >= np.sort(lengths[long])[-8]
        rest = lengths[~long].sum()
        return long if _FINEST <= rest < _WORTH * total else np.zeros(len(lengths), dtype=bool)

    def _ticks(self, long: np.ndarray) -> list[Tick]:
        ticks: list[Tick] = []
        cuts = [-1, *np.flatnonzero(long).tolist(), len(long)]
        # One step for the whole axis, so that equal distances are equal times.
        whole = sum(each.seconds for each in self.breaks)
        drawn = self.wide - _SHORT * len(self.breaks)
        step = max(nice((self.end - self.start - whole) * _TICK / max(drawn, 1.0)), _FINEST)
        for before, after in pairwise(cuts):
            if before + 1 == after:  # two breaks on end, or one at the very beginning
                ticks += [Tick(0.0, 0.0, 0.0, major=True)] if before < 0 else []
                continue
            begin, end = float(self._times[before + 1]), float(self._times[after])
            origin = self.start if before < 0 else begin
            for number in range(math.floor((end - begin) / step * 1.0001) + 1):
                time = begin + number * step
                x = self(time)
                if ticks and x - ticks[-1].x < _TICK / 2 and number:
                    continue
                ticks.append(Tick(x, time - self.start, time - origin, major=number == 0))
        return ticks


def nice(seconds: float) -> float:
    """Round up to a span that clocks know.

    Examples
    --------
    >>> nice(0.013), nice(7), nice(40), nice(4000)
    (0.02, 10, 60, 7200)
    """
    for span in (1, 2, 5, 10, 15, 30):
        if 1 <= seconds <= span:
            return span
    if seconds < 1:
        unit = 10.0 ** math.floor(math.log10(max(seconds, 1e-4)))
        return next(unit * n for n in (1, 2, 5, 10) if seconds <= unit * n * 1.000001)
    for span in (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400):
        if seconds <= span:
            return span
    return math.ceil(seconds / 86400) * 86400
