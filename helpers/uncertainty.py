"""How sure a figure is: intervals, and what more photos would bring."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

_NORMAL_95 = norm.ppf(0.975)
_ROUNDS = 1000  # of the bootstrap


class Interval(NamedTuple):
    """The ends of a 95 % interval, of one figure or of an array of them."""

    low: float | np.ndarray
    high: float | np.ndarray

    def __str__(self) -> str:
        """As in "0.71 to 0.89"."""
        return f"{self.low:.2f} to {self.high:.2f}"


class LearningCurve(NamedTuple):
    """error = scale * images ** -exponent."""

    scale: float
    exponent: float

    def error(self, images: np.ndarray | float) -> np.ndarray | float:
        """The expected share of mistakes with so many training images a class, at most 1."""
        return np.minimum(self.scale * np.asarray(images, float) ** -self.exponent, 1)

    def doubling(self, images: float) -> float:
        """How much smaller the expected share of mistakes becomes with twice as many."""
        return float(self.error(images) - self.error(2 * images))


def wilson(hits: int, count: int, different: int | None = None) -> Interval:
    """The interval of a share, such as an accuracy: hits of count. Raises ValueError where count is 0.

    different: how many of the cases look different, where some look the same; the interval is that of so few.
    Source: Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
    """
    if not count:
        raise ValueError("An interval of a share needs at least one case: of 0, any share would do")
    share, cases = hits / count, count if different is None else different
    squared = _NORMAL_95**2 / cases
    middle = (share + squared / 2) / (1 + squared)
    reach = math.sqrt(share * (1 - share) * squared + squared**2 / 4) / (1 + squared)
    # With rounding, the interval would end just short of a share of 0 or 1.
    return Interval(float(max(0.0, min(share, middle - reach))), float(min(1.0, max(share, middle + reach))))


def bootstrap(statistic: Callable[[np.ndarray], float | np.ndarray], groups: Sequence, seed: int) -> Interval:
    """The interval of any figure, from what it is when whole groups are drawn anew, with replacement.

    statistic: of row numbers (M,), a figure or an array of them; the ends are of the same shape. Rounds in which a
    figure is NaN, for it is not defined there, do not count for it; the ends are NaN where it never is, and where all
    is one group.
    groups: (N,), what belongs together of the N rows, such as items.
    Source: Efron (1979), Bootstrap Methods (percentiles).
    """
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    order, sizes = np.argsort(numbers, kind="stable"), np.bincount(numbers)
    members = np.split(order, sizes.cumsum()[:-1])
    if len(sizes) < 2:  # drawn anew, it would always be the same
        nothing = np.full(np.shape(statistic(order)), np.nan)[()]
        return Interval(nothing, nothing)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(_ROUNDS):
        drawn = generator.integers(0, len(sizes), len(sizes))
        alone = len(sizes) == len(order)  # then a group is a row
        found.append(statistic(order[drawn] if alone else np.concatenate([members[number] for number in drawn])))
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of what is NaN in all rounds
        low, high = np.nanpercentile(found, [2.5, 97.5], axis=0)
    return Interval(low, high)


def mcnemar(first_right: np.ndarray, second_right: np.ndarray, groups: Iterable) -> float:
    """How likely two networks differ at least so much on the same cases, were they equally good: the exact p-value.

    first_right, second_right: (N,) bool, whether each was right. groups: (N,), cases that belong together, such as
    photos that look the same: all of a group count as one, for the network that was right on more of them. Only groups
    in which one was right more often tell.
    Source: McNemar (1947), Note on the Sampling Error of the Difference Between Correlated Proportions; for groups, the
    sign test of their sums.
    """
    signs = _signs(first_right, second_right, groups)
    told = int((signs != 0).sum())
    return float(binomtest(int((signs > 0).sum()), told).pvalue) if told else 1.0


def verdict(
    first: str, second: str, first_right: np.ndarray, second_right: np.ndarray, groups: Iterable, p: float
) -> str:
    """One sentence: which of two networks is better on the same cases, or that it is not shown.

    first_right, second_right, groups: see `mcnemar`. p: its own, adjusted where there are several pairs; below 0.05
    the difference is shown.
    """
    better, other = (first, second) if _signs(first_right, second_right, groups).sum() >= 0 else (second, first)
    return f"{better} is {'' if p < 0.05 else 'not shown to be '}better than {other} with {len(first_right)} cases"


def _signs(first_right: np.ndarray, second_right: np.ndarray, groups: Iterable) -> np.ndarray:
    """(G,): for each group 1 where the first was right on more of its cases, -1 where the second was, or 0."""
    leads = np.asarray(first_right, int) - np.asarray(second_right, int)
    return np.sign(pd.Series(leads).groupby(np.asarray(groups)).sum().to_numpy())


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(N,): the p-values of N tests, adjusted: below 0.05 the family-wise error rate is 5 % at most.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    values, order = np.asarray(p_values, float), np.argsort(p_values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return adjusted


def fit_learning_curve(images: Sequence[int], errors: Sequence[float]) -> LearningCurve:
    """The power law through the shares of mistakes, by least squares of their logarithms.

    images: training images a class; all the same, the law is a flat line. errors: the share of mistakes with each; one
    of 0 counts as a thousandth.
    Source: Hestness et al. (2017), Deep Learning Scaling Is Predictable, Empirically.
    """
    logarithms = np.log(np.clip(errors, 1e-3, 1))
    if len(set(images)) < 2:
        return LearningCurve(float(np.exp(logarithms.mean())), 0.0)
    slope, intercept = np.polyfit(np.log(images), logarithms, 1)
    return LearningCurve(float(np.exp(intercept)), float(-slope))
