"""What to do with a package: pass it, reject it, or have it inspected, by what mistakes cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.calibration import NEVER

PASS, INSPECT, REJECT = "pass", "inspect", "reject"
_MOST_THRESHOLDS = 400  # that are tried, quantiles of the probabilities: more cost less here, and no less elsewhere


class Costs(NamedTuple):
    """In one currency, for one item: damage that is passed, an intact one that is rejected, an inspection by hand."""

    missed: float
    false_alarm: float
    inspection: float


class Items(NamedTuple):
    """What a decision is judged on.

    probabilities: (N,) of damage; NaN for those that are inspected whatever it is. damaged: (N,) bool, the truth.
    share: of the line's items that are damaged, whatever the mixture here; 0: as many as here.
    """

    probabilities: np.ndarray
    damaged: np.ndarray
    share: float

    def take(self, rows: np.ndarray) -> Items:
        """Those of these rows (M,)."""
        return Items(self.probabilities[rows], self.damaged[rows], self.share)

    def inspecting(self, always: np.ndarray) -> Items:
        """The items, of which those of (N,) bool are inspected whatever their probability."""
        return self._replace(probabilities=np.where(always, np.nan, self.probabilities))


class Decision(NamedTuple):
    """Pass below the one probability of damage, reject from the other one on, inspect in between."""

    pass_below: float
    reject_from: float


FIXED = {
    "always pass": Decision(NEVER, NEVER),
    "always inspect": Decision(0.0, NEVER),
    "plain 0.5": Decision(0.5, 0.5),
}


def check(costs: Costs) -> None:
    """Raise ValueError where a cost is negative, or no number."""
    if not all(0 <= cost < math.inf for cost in costs):
        raise ValueError(f"Costs must be numbers of 0 or more: {costs}")


def check_defect(defect: str, classes: list[str]) -> None:
    """Raise ValueError for a defect that is no label; "" stands for none."""
    if defect not in ("", *classes):
        raise ValueError(f"No label is called {defect!r}: set defect to one of {', '.join(classes)}, or to '' for none")


def check_share(labels: pd.Series, defect: str, share: float) -> None:
    """Raise ValueError where a defect's share on the line is impossible, or these items cannot be judged by it.

    labels: (N,) of a split's items. share: from 0 to below 1; over 0 it needs items with the defect and without.
    """
    if not 0 <= share < 1:
        raise ValueError(f"defect_share={share} must be from 0 to below 1")
    count = int((labels == defect).sum())
    if share and not 0 < count < len(labels):
        raise ValueError(
            f"{count} of {len(labels)} validation or test items are {defect}: to judge by their share on the line "
            "there must be some, and some others. Set defect_share to 0, or prepare the data with larger fractions"
        )


def items(table: pd.DataFrame, defect: str, share: float) -> Items:
    """The items of a table with a column label, and one with the probability of the defect."""
    return Items(table[defect].to_numpy(), (table["label"] == defect).to_numpy(), share)


def with_next(items: Items) -> Items:
    """The items and, of each kind, the worst that may come next: a damaged one of probability 0, an intact one of 1.

    The next of n + 1 damaged items is the lowest with probability 1 / (n + 1), so no mistake here does not mean none on
    the line; a threshold chosen with these two items allows for that. The mean cost ranks decisions; as a forecast
    it is too low, being the lowest of all.
    Source: Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World.
    """
    probabilities, damaged, share = items
    return Items(np.append(probabilities, [0.0, 1.0]), np.append(damaged, [True, False]), share)


def actions(probabilities: np.ndarray, decision: Decision) -> np.ndarray:
    """(N,) of PASS, INSPECT and REJECT for the probabilities (N,) of damage; INSPECT for NaN, which knows nothing."""
    rejected = np.where(probabilities >= decision.reject_from, REJECT, INSPECT)
    return np.where(probabilities < decision.pass_below, PASS, rejected)


def mean_cost(items: Items, costs: Costs, decision: Decision) -> float:
    """What an item costs on average. An inspection finds the truth and costs the same whatever it is.

    NaN where a share is given, and all items are damaged or none is.
    Source: Elkan (2001), The Foundations of Cost-Sensitive Learning.
    """
    found = actions(items.probabilities, decision)
    missed, alarms = (found == PASS) & items.damaged, (found == REJECT) & ~items.damaged
    each = costs.missed * missed + costs.false_alarm * alarms + costs.inspection * (found == INSPECT)
    return _mean_on_line(each, items)


def account(items: Items, costs: Costs, decision: Decision) -> dict[str, float]:
    """What the decision comes to: cost (of 1,000 items), missed, found, alarms and inspected.

    missed: how many damaged items are passed. found: share of the damaged that are not. alarms: share of the intact
    that are rejected. inspected: share of all.
    """
    what = actions(items.probabilities, decision)
    return {
        "cost": 1000 * mean_cost(items, costs, decision),
        "missed": int((what[items.damaged] == PASS).sum()),
        "found": _mean(what[items.damaged] != PASS),
        "alarms": _mean(what[~items.damaged] == REJECT),
        "inspected": _mean_on_line(what == INSPECT, items),
    }


def choose(items: Items, costs: Costs) -> Decision:
    """The decision with the lowest mean cost on these items; of equals, the one with the fewest inspections.

    Its thresholds lie halfway between items, or where there are many between quantiles. It never costs more here than
    any of FIXED. Items that are inspected whatever their probability have no part in it. Items of validation should be
    those of `with_next`.
    Raises ValueError where there are no data, and for costs that `check` refuses; see also `check_share`.
    """
    check(costs)
    probabilities, damaged, share = items
    if len(probabilities) == 0:
        raise ValueError("A decision is chosen on validation data, and there are none")
    damaged_count, intact_count = (share / damaged.mean(), (1 - share) / (1 - damaged.mean())) if share else (1, 1)
    known = ~np.isnan(probabilities)
    probabilities, damaged = probabilities[known], damaged[known]
    values = np.unique(probabilities)
    if len(values) > _MOST_THRESHOLDS:
        values = np.unique(np.quantile(probabilities, np.linspace(0, 1, _MOST_THRESHOLDS)))
    tried = np.unique([*(values[1:] + values[:-1]) / 2, 0.0, 0.5, NEVER])
    order = np.argsort(probabilities, kind="stable")
    places = np.searchsorted(probabilities[order], tried, side="left")  # how many are below each threshold
    kinds = np.stack([damaged_count * damaged, intact_count * ~damaged])[:, order]  # how often each item counts
    damaged_below, intact_below = np.pad(kinds.cumsum(1), ((0, 0), (1, 0)))[:, places]  # (T,) each
    below = damaged_below + intact_below
    passed = costs.missed * damaged_below  # (T,): what passing all below a threshold costs
    rejected = costs.false_alarm * (kinds[1].sum() - intact_below)  # (T,): what rejecting all from it on costs
    inspected = np.maximum(below[None, :] - below[:, None], 0)  # (T, T): between the two
    total = passed[:, None] + rejected[None, :] + costs.inspection * inspected
    total = np.where(tried[:, None] <= tried[None, :], total, math.inf)
    low, high = min(zip(*np.nonzero(total <= total.min() + 1e-9), strict=True), key=lambda pair: inspected[pair])
    return Decision(float(tried[low]), float(tried[high]))


def in_words(decision: Decision) -> str:
    """What to do by the probability of the defect: "pass below 0.12, inspect the rest"."""
    low, high = decision
    if high <= 0:
        return f"{REJECT} everything"
    if low >= NEVER:
        return f"{PASS} everything"
    parts = [f"{PASS} below {_probability(low, high - low, math.floor)}"] if low > 0 else []
    upward = math.ceil if low < high else math.floor  # between the two stays what is to be inspected
    parts += [f"{REJECT} from {_probability(high, high - low, upward)} on"] if high < NEVER else []
    parts += [f"{INSPECT} {'the rest' if parts else 'everything'}"] if low < high else []
    return ", ".join(parts)


def _probability(value: float, apart: float, whole: Callable[[float], int]) -> str:
    """With two decimals, or as many as it takes to tell it from 0, from 1 and from the other threshold.

    whole: math.floor or math.ceil, so that who acts on the text passes nothing that the decision would not.
    """
    nearest = min(distance for distance in (value, 1 - value, apart, 1.0) if distance > 0)
    decimals = max(2, 1 - math.floor(math.log10(nearest)))
    return f"{whole(round(value * 10**decimals, 6)) / 10**decimals:.{decimals}f}"


def _mean_on_line(values: np.ndarray, items: Items) -> float:
    """Over all items, or where the share of the damaged is known over each kind, weighed by it."""
    if not items.share:
        return _mean(values)
    return items.share * _mean(values[items.damaged]) + (1 - items.share) * _mean(values[~items.damaged])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
