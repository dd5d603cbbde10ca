"""Intervals and p-values for quantiles and rates, without scipy.

All of them assume that runs are independent of each other. Runs of one burst are not: they share
a slow database or a failing service. Then intervals are too narrow and p-values too small.

The methods:

- The interval of a quantile is between two order statistics (Hahn & Meeker, Statistical Intervals,
  section 5.2), and assumes no distribution. Their ranks come from the binomial distribution, by
  bounds of Zubkov & Serov (Theory Probab. Appl. 57, 2013) that hold for every size. So the interval
  of one quantile is never too narrow, also where q ± 1.96 √(q (1 - q) / n) is. Where no order
  statistic is far enough in the tail, there is no upper end: for a p99 below about 400 runs.
- Intervals of a difference or ratio combine those of both sides (MOVER: Zou & Donner, Statistics
  in Medicine 27, 2008). The shapes of the two distributions may differ.
- The interval of a rate is Wilson's, that of a difference of rates Newcombe's (method 10;
  Statistics in Medicine 17, 1998), and that of a ratio has the same limits (MOVER-R: Donner & Zou,
  Statistics in Medicine 31, 2012).
- The p-value of rates is that of Fisher's exact test, twice the smaller tail. Newcombe's interval
  has p-values too, but for rare errors and sides of unequal size these are too small: at 50 and
  1,000 runs with 1 % errors, p < 0.0005 occurs eight times as often as it should.
- The p-value of quantiles is the larger one of two: that of the interval, which allows for
  different shapes, and that of Fisher's test on which runs are above the common quantile (for
  q = 0.5 Mood's median test), which is exact if nothing changed.
- Benjamini & Hochberg's adjustment (J. R. Statist. Soc. B 57, 1995) limits the expected share of
  false ones among many findings and, if nothing changed, the probability of any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_NORMAL = NormalDist()
_RELATIVE_ERROR = 1e-12
"""Of sums of floats."""


class IntervalEstimate(NamedTuple):
    """A value with its confidence interval and, of a comparison, its p-value.

    Attributes
    ----------
    value, lower, upper
        NaN where unknown; the ends of an interval may be infinite.
    p_value
        Of the hypothesis that both sides are the same; NaN where there is no test.
    """

    value: float
    lower: float
    upper: float
    p_value: float = math.nan


UNKNOWN = IntervalEstimate(math.nan, math.nan, math.nan)


class Sample:
    """Values of one side in ascending order, each with its number of occurrences.

    Parameters
    ----------
    values, counts
        Values in any order, and how often each occurs. Values may be infinite, for those of which
        only a lower bound is known.
    error
        The largest relative error of the values, such as 1/128 for buckets. Intervals are wider by
        it.
    weight
        How many independent values one of these is worth, at most 1: values of one run are not
        independent of each other.
    """

    def __init__(
        self,
        values: Sequence[float] | Array,
        counts: Sequence[float] | Array,
        error: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        values, counts = np.asarray(values, float), np.asarray(counts, float) * weight
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        present = counts > 0
        self.values: Array = values[present]
        self.counts: Array = counts[present]
        self.ranks: Array = np.cumsum(self.counts)
        self.size: float = float(self.ranks[-1]) if len(self.ranks) else 0.0
        self.error = error

    @classmethod
    def of(cls, values: Sequence[float] | Array) -> Sample:
        """Return the sample of single values."""
        return cls(*np.unique(np.asarray(values, float), return_counts=True))

    def with_larger(self, count: int) -> Sample:
        """Return the sample with so many infinite values, for those that are not known yet."""
        return Sample([*self.values, math.inf], [*self.counts, count], self.error)

    def quantile(self, q: float) -> float:
        """Return the smallest value that is at least as large as the share ``q`` of all values.

        Examples
        --------
        >>> Sample.of([1, 2, 3, 10]).quantile(0.5)
        2.0
        """
        if not self.size:
            return math.nan
        rank = self.size * q * (1.0 - _RELATIVE_ERROR)
        return float(self.values[np.searchsorted(self.ranks, rank)])

    def above(self, value: float) -> float:
        """Return how many values are larger."""
        position = int(np.searchsorted(self.values, value, side="right"))
        return self.size - (float(self.ranks[position - 1]) if position else 0.0)

    def scores(self, q: float, shift: float = 0.0) -> tuple[Array, Array]:
        """Return how far each value is below and above a quantile, in standard errors.

        At a confidence with the normal score z, the lower limit of the quantile is the largest
        value that is at least z below, and the upper limit the smallest that is at least z above.
        The first array descends, the second ascends.

        With ``shift=0``, the limits are never too narrow. With 0.5, which corrects for continuity,
        they are right on average.
        """
        first = self.ranks - self.counts + 1 - shift
        last = self.ranks - 1 + shift
        return (
            -_signed_root(np.minimum(first / self.size, 1.0), q, self.size),
            _signed_root(np.maximum(last / self.size, 0.0), q, self.size),
        )

    def limits(self, scores: tuple[Array, Array], z: Array) -> tuple[Array, Array]:
        """Return the lower and upper limits at each z: 0 and infinity where no value is far off."""
        below, above = scores
        count = len(below) - np.searchsorted(below[::-1], z, side="left")
        lower = np.concatenate(([0.0], self.values))[count]
        upper = np.concatenate((self.values, [math.inf]))[np.searchsorted(above, z, side="left")]
        return lower, upper


def _signed_root(share: Array, q: float, size: float) -> Array:
    """Return bounds of Φ⁻¹(P(X ≤ k)) for binomial X (size, q): below at k/n, above at (k+1)/n."""
    rest = 1.0 - share
    # 0 log 0 is 0.
    low = share * np.log(np.where(share > 0, share, 1.0) / q)
    high = rest * np.log(np.where(rest > 0, rest, 1.0) / (1.0 - q))
    return np.sign(share - q) * np.sqrt(2.0 * size * np.maximum(low + high, 0.0))


def normal_score(confidence: float) -> float:
    """Return the score z of a two-sided confidence.

    Examples
    --------
    >>> round(normal_score(0.95), 2)
    1.96
    """
    return _NORMAL.inv_cdf((1.0 + confidence) / 2.0)


def quantile_interval(sample: Sample, q: float, confidence: float = 0.95) -> IntervalEstimate:
    """Return a quantile with its interval.

    Parameters
    ----------
    sample
        The values.
    q
        The quantile, above 0 and below 1.
    confidence
        The confidence of the interval, at least, if the values are independent.

    Returns
    -------
    IntervalEstimate
        ``lower`` is 0 and ``upper`` is infinite where no value is far enough in the tail.

    Examples
    --------
    >>> quantile_interval(Sample.of(range(1, 101)), 0.5)[:3]
    (50.0, 40.0, 61.0)
    """
    if not sample.size:
        return UNKNOWN
    lower, upper = sample.limits(sample.scores(q), np.array([normal_score(confidence)]))
    return IntervalEstimate(
        sample.quantile(q),
        float(lower[0]) * (1.0 - sample.error),
        float(upper[0]) * (1.0 + sample.error),
    )


def compare_quantiles(
    baseline: Sample,
    candidate: Sample,
    q: float,
    confidence: float = 0.95,
    *,
    smallest: float = 0.0,
) -> IntervalEstimate:
    """Return the relative change of a quantile of positive values, as 0.2 for 20 % more.

    Parameters
    ----------
    baseline, candidate
        The values of both sides.
    q
        The quantile, above 0 and below 1.
    confidence
        The confidence of the interval.
    smallest
        What values below are taken for, such as half of a clock's resolution: a ratio to zero has
        no meaning.

    Returns
    -------
    IntervalEstimate
        The change with its interval and p-value; see the notes of the module.

    Examples
    --------
    >>> change = compare_quantiles(Sample.of(range(100, 200)), Sample.of(range(140, 280)), 0.5)
    >>> round(change.value, 2), change.lower > 0, change.p_value < 0.001
    (0.4, True, True)
    """
    if not baseline.size or not candidate.size:
        return UNKNOWN
    z = normal_score(confidence)
    sides = [(side, side.scores(q, 0.5)) for side in (baseline, candidate)]
    # Limits are step functions of the score, with a step at the score of each value.
    grid = np.sort(np.concatenate([[0.0, z], *(part for _, scores in sides for part in scores)]))
    grid = grid[np.searchsorted(grid, 0.0) :]
    with np.errstate(divide="ignore", invalid="ignore"):
        old, new = (np.log(max(side.quantile(q), smallest)) for side, _ in sides)
        (old_low, old_high), (new_low, new_high) = (
            np.log(np.maximum(side.limits(scores, grid), smallest)) for side, scores in sides
        )
        # The errors of the values are independent of those of sampling.
        error = math.hypot(baseline.error, candidate.error)
        change = new - old
        lower = change - np.sqrt((new - new_low) ** 2 + (old_high - old) ** 2 + error**2)
        upper = change + np.sqrt((new_high - new) ** 2 + (old - old_low) ** 2 + error**2)
        # Where an end is unknown because a quantile is infinite, nothing is excluded.
        (excluded,) = np.nonzero((lower > 0.0) | (upper < 0.0))
        at = np.searchsorted(grid, z)
        value, low, high = np.expm1([change, lower[at], upper[at]]).tolist()
    # The interval grows with the score, so this is the last score at which it excludes no change.
    p_value = 2.0 * _NORMAL.cdf(-float(grid[excluded[-1]])) if len(excluded) else 1.0
    return IntervalEstimate(value, low, high, max(p_value, _split_p_value(baseline, candidate, q)))


def _split_p_value(baseline: Sample, candidate: Sample, q: float) -> float:
    """Return Fisher's p-value of how many values of each side are above the common quantile."""
    values = np.concatenate((baseline.values, candidate.values))
    counts = np.concatenate((baseline.counts, candidate.counts))
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(counts[order])
    last = np.append(values[1:] != values[:-1], np.True_)
    values, below = values[last], below[last]
    # The value up to which a share nearest to q is; it does not depend on the sides.
    split = float(values[np.argmin(np.abs(below - q * (baseline.size + candidate.size)))])
    return fisher_p_value(
        baseline.above(split), baseline.size, candidate.above(split), candidate.size
    )


def rate_interval(count: float, size: float, confidence: float = 0.95) -> IntervalEstimate:
    """Return a rate with Wilson's interval.

    Examples
    --------
    >>> [round(each, 3) for each in rate_interval(3, 100)[:3]]
    [0.03, 0.01, 0.085]
    """
    if not size:
        return UNKNOWN
    z = normal_score(confidence)
    centre = (count + z * z / 2.0) / (size + z * z)
    half = z / (size + z * z) * math.sqrt(count * (size - count) / size + z * z / 4.0)
    lower = 0.0 if count == 0 else max(centre - half, 0.0)
    upper = 1.0 if count == size else min(centre + half, 1.0)
    return IntervalEstimate(count / size, lower, upper)


def compare_rates(
    count: float, size: float, other_count: float, other_size: float, confidence: float = 0.95
) -> IntervalEstimate:
    """Return the difference of two rates, the other minus the first, with Newcombe's interval.

    Parameters
    ----------
    count, size
        How many of how many on the first side.
    other_count, other_size
        The same on the other side.
    confidence
        The confidence of the interval.

    Returns
    -------
    IntervalEstimate
        The difference with its interval, and Fisher's p-value; that is NaN if no run or every run
        counts, because then no other split of the runs was possible.

    Examples
    --------
    >>> [round(each, 3) for each in compare_rates(5, 500, 20, 500)]
    [0.03, 0.011, 0.052, 0.004]
    """
    if not size or not other_size:
        return UNKNOWN
    first = rate_interval(count, size, confidence)
    other = rate_interval(other_count, other_size, confidence)
    difference = other.value - first.value
    lower = difference - math.hypot(other.value - other.lower, first.upper - first.value)
    upper = difference + math.hypot(other.upper - other.value, first.value - first.lower)
    total = count + other_count
    decided = 0 < total < size + other_size
    p_value = fisher_p_value(count, size, other_count, other_size) if decided else math.nan
    return IntervalEstimate(difference, lower, upper, p_value)


def rate_ratio(
    count: int, size: int, other_count: int, other_size: int, confidence: float = 0.95
) -> IntervalEstimate:
    """Return the ratio of two rates, the other divided by the first, with its interval (MOVER-R).

    The interval excludes 1 exactly if that of ``compare_rates`` excludes 0.

    Parameters
    ----------
    count, size, other_count, other_size, confidence
        As in ``compare_rates``.

    Returns
    -------
    IntervalEstimate
        The ratio, infinite if the first rate is 0, with its interval and Fisher's p-value.

    Examples
    --------
    >>> [round(each, 2) for each in rate_ratio(5, 500, 20, 500)[:3]]
    [4.0, 1.54, 10.2]
    >>> round(rate_ratio(0, 500, 20, 500).lower, 1)
    4.9
    """
    if not size or not other_size or not count + other_count:
        return UNKNOWN
    first = rate_interval(count, size, confidence)
    other = rate_interval(other_count, other_size, confidence)
    product = first.value * other.value

    def end(numerator: float, denominator: float, sign: float) -> float:
        above = numerator * (2.0 * other.value - numerator)
        below = denominator * (2.0 * first.value - denominator)
        if below == 0.0:
            return math.inf if sign > 0 else 0.0
        return (product + sign * math.sqrt(max(product**2 - above * below, 0.0))) / below

    ratio = other.value / first.value if first.value else math.inf
    p_value = compare_rates(count, size, other_count, other_size, confidence).p_value
    lower, upper = end(other.lower, first.upper, -1.0), end(other.upper, first.lower, 1.0)
    return IntervalEstimate(ratio, max(lower, 0.0), upper, p_value)


def fisher_p_value(count: float, size: float, other_count: float, other_size: float) -> float:
    """Return the p-value of Fisher's exact test: twice the smaller tail, at most 1.

    Counts that are not whole, because values have weights, are rounded.

    Examples
    --------
    >>> round(fisher_p_value(5, 500, 20, 500), 4)
    0.0036
    """
    count, size, other_count, other_size = map(round, (count, size, other_count, other_size))
    drawn, total = count + other_count, size + other_size
    if not size or not other_size:
        return 1.0
    mean = drawn * size / total
    # From the observed count outwards, away from the mean, probabilities only fall.
    upper = count >= mean
    k, hits = (count, drawn) if upper else (size - count, total - drawn)
    # Now the tail of k and more among ``size`` draws from ``total``, of which ``hits`` count.
    spread = math.sqrt(max(size * (drawn / total) * (1 - drawn / total), 1.0))
    steps = min(min(hits, size) - k, int(50 * spread) + 200)
    i = np.arange(k, k + steps, dtype=float)
    ratios = (hits - i) * (size - i) / ((i + 1.0) * (total - hits - size + i + 1.0))
    tail = math.exp(_log_hypergeometric(k, hits, size, total)) * (1.0 + np.cumprod(ratios).sum())
    return min(2.0 * float(tail), 1.0)


def smallest_p_value(total: float, size: float, other_size: float) -> float:
    """Return the p-value of Fisher's test if so many counted ones were on as few sides as possible.

    If that is not significant, no split of them is. It depends on the total only, so that leaving
    out such comparisons leaves the others valid.

    Examples
    --------
    >>> round(smallest_p_value(3, 100, 1000), 4), smallest_p_value(1, 100, 100)
    (0.0015, 1.0)
    """
    ends = min(total, size), max(0.0, total - other_size)
    return min(fisher_p_value(end, size, total - end, other_size) for end in ends)


def _log_hypergeometric(k: int, hits: int, draws: int, total: int) -> float:
    return _log_choose(hits, k) + _log_choose(total - hits, draws - k) - _log_choose(total, draws)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def adjust(p_values: Sequence[float] | Array) -> Array:
    """Adjust p-values for their number (Benjamini & Hochberg); NaN stays and does not count.

    Examples
    --------
    >>> adjust([0.01, 0.04, float("nan"), 0.03]).round(3).tolist()
    [0.03, 0.04, nan, 0.04]
    """
    values = np.asarray(p_values, float)
    adjusted = np.full(values.shape, np.nan)
    (known,) = np.nonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted
