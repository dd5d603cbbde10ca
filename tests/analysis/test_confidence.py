"""Intervals and p-values, against exact values, published ones, and simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from dbos_notebook.analysis.confidence import (
    Sample,
    adjust,
    compare_quantiles,
    compare_rates,
    fisher_p_value,
    normal_score,
    quantile_interval,
    rate_interval,
    rate_ratio,
)


def lognormal(
    rng: np.random.Generator, size: int, sigma: float = 1.0, scale: float = 1.0
) -> Sample:
    return Sample.of(scale * np.exp(rng.normal(6, sigma, size)))


def binomial_at_most(k: int, size: int, q: float) -> float:
    share = Fraction(str(q))
    terms = (math.comb(size, i) * share**i * (1 - share) ** (size - i) for i in range(k + 1))
    return float(sum(terms))


@pytest.mark.parametrize(
    ("size", "q"), [(20, 0.5), (101, 0.5), (60, 0.9), (299, 0.99), (700, 0.99), (5, 0.99)]
)
def test_the_interval_of_a_quantile_covers_it_by_the_binomial_distribution(
    size: int, q: float
) -> None:
    found = quantile_interval(Sample.of(range(1, size + 1)), q)
    # The quantile is between the order statistics low and high unless fewer than ``low`` or at
    # least ``high`` values are below it.
    below = binomial_at_most(int(found.lower) - 1, size, q) if found.lower else 0.0
    above = 1 - binomial_at_most(int(found.upper) - 1, size, q) if found.upper < math.inf else 0.0
    assert below <= 0.025
    assert above <= 0.025
    # Not wider than needed: two ranks further in would not be enough.
    if found.upper < math.inf:
        assert 1 - binomial_at_most(int(found.upper) - 3, size, q) > 0.025
    else:
        assert 1 - binomial_at_most(size - 2, size, q) > 0.025
    if found.lower:
        assert binomial_at_most(int(found.lower) + 1, size, q) > 0.025


def test_a_p99_has_an_upper_end_from_about_400_values() -> None:
    ends = {n: quantile_interval(Sample.of(range(n)), 0.99).upper for n in (299, 369, 500)}
    assert ends == {299: math.inf, 369: math.inf, 500: 499.0}


def test_a_quantile_is_the_one_of_numpy() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 30, 200)
    sample = Sample(*np.unique(values, return_counts=True))
    for q in (0.01, 0.5, 0.77, 0.99):
        assert sample.quantile(q) == np.quantile(values, q, method="inverted_cdf")
    assert Sample([3, 1, 2], [0, 2, 1]).quantile(0.5) == 1.0
    assert math.isnan(Sample([], []).quantile(0.5))


def test_a_change_of_a_median_is_in_its_interval_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered, trials = 0, 1_000
    for _ in range(trials):
        # The shapes differ, and the sizes.
        change = compare_quantiles(
            lognormal(rng, 150, 0.4), lognormal(rng, 60, 1.2, scale=1.5), 0.5
        )
        covered += change.lower <= 0.5 <= change.upper
    assert 0.94 <= covered / trials <= 0.98


@pytest.mark.parametrize(("size", "other"), [(20, 20), (400, 50)])
def test_p_values_of_equal_quantiles_are_not_too_small(size: int, other: int) -> None:
    rng = np.random.default_rng(3)
    found = np.array(
        [
            compare_quantiles(lognormal(rng, size), lognormal(rng, other), 0.5).p_value
            for _ in range(1_000)
        ]
    )
    for level in (0.05, 0.01):
        assert np.mean(found <= level) <= level + 2 * math.sqrt(level / 1_000)
    assert np.mean(found <= 0.05) > 0.005


def test_p_values_hold_where_only_the_shape_differs() -> None:
    rng = np.random.default_rng(4)
    found = [
        compare_quantiles(lognormal(rng, 200, 0.2), lognormal(rng, 200, 1.6), 0.5).p_value
        for _ in range(1_000)
    ]
    assert np.mean(np.array(found) <= 0.05) <= 0.065


def test_a_p_value_is_below_five_percent_only_if_the_interval_excludes_no_change() -> None:
    rng = np.random.default_rng(5)
    significant = 0
    for _ in range(300):
        change = compare_quantiles(lognormal(rng, 80), lognormal(rng, 80, scale=1.5), 0.5)
        if change.p_value <= 0.05:
            significant += 1
            assert change.lower > 0 or change.upper < 0
    assert 100 < significant < 290


def test_values_without_a_quantile_are_unknown() -> None:
    some, none = Sample.of([1, 2, 3]), Sample([], [])
    assert all(math.isnan(each) for each in compare_quantiles(some, none, 0.5))
    assert all(math.isnan(each) for each in compare_quantiles(none, some, 0.5))
    assert math.isnan(quantile_interval(none, 0.5).value)


def test_equal_and_zero_values_are_no_evidence() -> None:
    same = compare_quantiles(Sample([5], [100]), Sample([5], [300]), 0.5)
    assert (same.value, same.lower, same.upper, same.p_value) == (0, 0, 0, 1)
    zero = compare_quantiles(Sample([0], [100]), Sample([0], [100]), 0.5, smallest=0.5)
    assert (zero.value, zero.p_value) == (0, 1)
    # What is infinite is not evidence for a change, whatever the other side is.
    running = compare_quantiles(Sample([5], [100]), Sample([5], [10]).with_larger(90), 0.5)
    assert running.value == math.inf
    assert not running.lower > 0


def test_an_error_of_the_values_widens_the_interval() -> None:
    many = [np.repeat(1000.0, 2), [500_000, 500_000]]
    exact = compare_quantiles(Sample(*many), Sample(*many), 0.5)
    rounded = compare_quantiles(Sample(*many, 0.01), Sample(*many, 0.01), 0.5)
    assert exact.upper == 0
    assert rounded.upper == pytest.approx(math.expm1(0.01 * math.sqrt(2)))


def test_newcombe_published_these_intervals() -> None:
    # Statistics in Medicine 17 (1998), table II, method 10.
    for (count, size, other, of), low, high in (
        ((48, 80, 56, 70), 0.0524, 0.3339),
        ((3, 10, 9, 10), 0.1705, 0.8090),
        ((0, 10, 10, 10), 0.6075, 1.0000),
        ((0, 20, 0, 10), -0.1611, 0.2775),
    ):
        found = compare_rates(count, size, other, of)
        assert (found.lower, found.upper) == pytest.approx((low, high), abs=6e-5)


def exact_fisher(count: int, size: int, other: int, other_size: int) -> float:
    drawn = count + other
    total = math.comb(size + other_size, drawn)
    weights = [
        math.comb(size, i) * math.comb(other_size, drawn - i)
        for i in range(drawn + 1)
        if i <= size and drawn - i <= other_size
    ]
    position = count - max(0, drawn - other_size)
    tails = sum(weights[: position + 1]), sum(weights[position:])
    return min(1.0, 2 * min(tails) / total)


def test_fishers_test_is_exact() -> None:
    for size, other_size in ((1, 1), (7, 12), (30, 4)):
        for count, other in itertools.product(range(size + 1), range(other_size + 1)):
            expected = exact_fisher(count, size, other, other_size)
            assert fisher_p_value(count, size, other, other_size) == pytest.approx(expected)


def test_fishers_test_stays_exact_with_millions_of_runs() -> None:
    # The normal approximation is right to the second digit here.
    found = fisher_p_value(50_000, 5_000_000, 50_600, 5_000_000)
    z = 600 / math.sqrt(100_600 * (1 - 0.01006))
    assert found == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert fisher_p_value(0, 10_000_000, 40, 100) < 1e-100
    assert fisher_p_value(10, 10_000_000, 1, 1_000_000) == 1.0


def test_ratio_and_difference_of_rates_agree() -> None:
    rng = np.random.default_rng(6)
    for _ in range(300):
        size, other_size = (int(n) for n in rng.integers(1, 200, 2))
        count, other = int(rng.integers(0, size + 1)), int(rng.integers(0, other_size + 1))
        ratio, difference = (f(count, size, other, other_size) for f in (rate_ratio, compare_rates))
        if not count + other:
            assert math.isnan(ratio.value)
            continue
        assert (ratio.lower > 1) == (difference.lower > 0)
        assert (ratio.upper < 1) == (difference.upper < 0)
        assert 0 <= ratio.lower <= ratio.value <= ratio.upper


def test_a_rate_of_none_is_unknown() -> None:
    assert math.isnan(rate_interval(0, 0).value)
    assert math.isnan(compare_rates(0, 0, 1, 2).value)
    assert math.isnan(rate_ratio(1, 2, 0, 0).value)
    # No other split of the failures was possible.
    assert math.isnan(compare_rates(0, 5, 0, 9).p_value)
    assert math.isnan(compare_rates(5, 5, 9, 9).p_value)


def test_adjustment_gives_the_values_of_r() -> None:
    # p.adjust(c(0.01, 0.02, 0.03, 0.5, 0.011), "BH")
    assert adjust([0.01, 0.02, 0.03, 0.5, 0.011]) == pytest.approx(
        [0.0275, 0.1 / 3, 0.0375, 0.5, 0.0275]
    )
    assert adjust([]).tolist() == []
    assert np.isnan(adjust([math.nan])).all()


def test_normal_score() -> None:
    assert normal_score(0.95) == pytest.approx(1.959964)
