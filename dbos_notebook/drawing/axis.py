"""The time axis of a timeline: map seconds to pixels, shorten long gaps, and place ticks.

Only time in which no step ran is shortened, and the axis is drawn broken there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_MIN_GAP_SHARE = 0.08
"""Gaps from this share of the total time on may be shortened."""
_MAX_BUSY_SHARE = 0.25
"""Gaps are shortened where everything else would get less than this share of the axis."""
_RESOLUTION_SECONDS = 0.001
"""Times are stored in milliseconds."""
_GAP_WIDTH = 46.0
"""The width of a shortened gap, in pixels."""
_TICK_SPACING = 90.0
"""The approximate distance between ticks, in pixels."""


@dataclass(frozen=True)
class Tick:
    """A tick; ``major`` ones are at the start of the axis and after each break."""

    x: float
    seconds: float
    since: float
    major: bool


@dataclass(frozen=True)
class Break:
    """A shortened gap: its position and its duration."""

    x: float
    width: float
    seconds: float


class Axis:
    """Map times to positions in pixels.

    Parameters
    ----------
    spans
        (start, end, whether a step ran) of everything drawn, in seconds.
    width
        The length of the axis in pixels.

    Examples
    --------
    >>> time_axis = Axis([(0, 1, True), (1, 3600, False), (3600, 3602, True)], 600)
    >>> [round(time_axis(second)) for second in (0, 1, 3600, 3602)]
    [0, 185, 231, 600]
    >>> [round(gap.seconds) for gap in time_axis.breaks]
    [3599]
    """

    def __init__(self, spans: list[tuple[float, float, bool]], width: float) -> None:
        self.width = width
        edges = np.unique(np.array([t for span in spans for t in span[:2]] or [0.0]))
        if len(edges) == 1:
            edges = np.array([edges[0], edges[0] + 0.001])
        self.start, self.end = float(edges[0]), float(edges[-1])
        lengths = np.diff(edges)
        long = self._long(spans, edges, lengths)
        widths = lengths * (width - _GAP_WIDTH * long.sum()) / lengths[~long].sum()
        widths[long] = _GAP_WIDTH
        self._times, self._positions = edges, np.concatenate([[0.0], np.cumsum(widths)])
        self.breaks = [
            Break(float(self._positions[index]), _GAP_WIDTH, float(lengths[index]))
            for index in np.flatnonzero(long)
        ]
        self.ticks = self._ticks(long)

    def __call__(self, second: float) -> float:
        """Return the position of a time."""
        return float(np.interp(second, self._times, self._positions))

    def many(self, seconds: np.ndarray) -> np.ndarray:
        """Return the positions of many times."""
        return np.asarray(np.interp(seconds, self._times, self._positions))

    @staticmethod
    def _long(
        spans: list[tuple[float, float, bool]], edges: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Return which intervals between edges are to be shortened."""
        # +1 where a step starts and -1 where it ends; a step runs where the sum is positive.
        change = np.zeros(len(edges))
        for start, end, ran in spans:
            if ran and end > start:
                change[np.searchsorted(edges, start)] += 1
                change[np.searchsorted(edges, end)] -= 1
        idle = np.cumsum(change)[:-1] == 0
        total = lengths.sum()
        long = idle & (lengths >= _MIN_GAP_SHARE * total)
        if long.sum() > 8:  # otherwise the gaps fill the picture
            long &= lengths >= np.sort(lengths[long])[-8]
        rest = lengths[~long].sum()
        return (
            long
            if _RESOLUTION_SECONDS <= rest < _MAX_BUSY_SHARE * total
            else np.zeros(len(lengths), dtype=bool)
        )

    def _ticks(self, long: np.ndarray) -> list[Tick]:
        ticks: list[Tick] = []
        breaks = [-1, *np.flatnonzero(long).tolist(), len(long)]
        # One tick interval for the whole axis, so that equal distances are equal times.
        shortened = sum(gap.seconds for gap in self.breaks)
        drawn_width = self.width - _GAP_WIDTH * len(self.breaks)
        drawn = self.end - self.start - shortened
        step = round_up_tick(drawn * _TICK_SPACING / max(drawn_width, 1.0))
        if step > drawn:  # a narrow axis: closer ticks rather than the first alone
            step = round_up_tick(drawn / 4)
        step = max(step, _RESOLUTION_SECONDS)
        for left, right in pairwise(breaks):
            if left + 1 == right:  # two consecutive breaks, or one at the start
                ticks += [Tick(0.0, 0.0, 0.0, major=True)] if left < 0 else []
                continue
            start, end = float(self._times[left + 1]), float(self._times[right])
            origin = self.start if left < 0 else start
            for index in range(math.floor((end - start) / step * 1.0001) + 1):
                time = start + index * step
                x = self(time)
                if ticks and x - ticks[-1].x < _TICK_SPACING / 2 and index:
                    continue
                ticks.append(Tick(x, time - self.start, time - origin, major=index == 0))
        return ticks


def round_up_tick(seconds: float) -> float:
    """Round up to a common tick interval.

    Examples
    --------
    >>> round_up_tick(0.013), round_up_tick(7), round_up_tick(40), round_up_tick(4000)
    (0.02, 10, 60, 7200)
    """
    for interval in (1, 2, 5, 10, 15, 30):
        if 1 <= seconds <= interval:
            return interval
    if seconds < 1:
        unit = 10.0 ** math.floor(math.log10(max(seconds, 1e-4)))
        return next(unit * n for n in (1, 2, 5, 10) if seconds <= unit * n * 1.000001)
    for interval in (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400):
        if seconds <= interval:
            return interval
    return math.ceil(seconds / 86400) * 86400
