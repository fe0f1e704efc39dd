"""What to do with a package: pass it, reject it, or have it inspected, by what mistakes cost."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from helpers.calibration import NEVER

PASS, INSPECT, REJECT = "pass", "inspect", "reject"
_MOST_THRESHOLDS = 400  # that are tried: as many quantiles of the probabilities


class Costs(NamedTuple):
    """In one currency, for one item: damage that is passed, an intact one that is rejected, an inspection by hand."""

    missed: float
    false_alarm: float
    inspection: float


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


def actions(probabilities: np.ndarray, decision: Decision) -> np.ndarray:
    """(N,) of PASS, INSPECT and REJECT for the probabilities (N,) of damage."""
    rejected = np.where(probabilities >= decision.reject_from, REJECT, INSPECT)
    return np.where(probabilities < decision.pass_below, PASS, rejected)


def item_costs(probabilities: np.ndarray, damaged: np.ndarray, costs: Costs, decision: Decision) -> np.ndarray:
    """(N,): what each item costs. probabilities: (N,) of damage. damaged: (N,) bool, the truth.

    An inspection finds the truth and costs the same whatever it is.
    Source: Elkan (2001), The Foundations of Cost-Sensitive Learning.
    """
    found = actions(probabilities, decision)
    missed, alarms = (found == PASS) & damaged, (found == REJECT) & ~damaged
    return costs.missed * missed + costs.false_alarm * alarms + costs.inspection * (found == INSPECT)


def mean_cost(probabilities: np.ndarray, damaged: np.ndarray, costs: Costs, decision: Decision) -> float:
    """What an item costs on average; see `item_costs`."""
    return float(item_costs(probabilities, damaged, costs, decision).mean())


def account(probabilities: np.ndarray, damaged: np.ndarray, costs: Costs, decision: Decision) -> dict[str, float]:
    """What the decision comes to on these items: cost (of 1,000), found, alarms and inspected.

    found: share of the damaged that are not passed. alarms: share of the intact that are rejected. inspected: of all.
    """
    what = actions(probabilities, decision)
    return {
        "cost": 1000 * mean_cost(probabilities, damaged, costs, decision),
        "found": _share(what[damaged] != PASS),
        "alarms": _share(what[~damaged] == REJECT),
        "inspected": _share(what == INSPECT),
    }


def choose(probabilities: np.ndarray, damaged: np.ndarray, costs: Costs) -> Decision:
    """The decision with the lowest mean cost on validation data; of equals, the one with the fewest inspections.

    probabilities: (N,) of damage. damaged: (N,) bool. Never dearer there than any of FIXED.
    Raises ValueError where a cost is negative or no number, or there are no data.
    """
    check(costs)
    if len(probabilities) == 0:
        raise ValueError("A decision is chosen on validation data, and there are none")
    values = np.unique(probabilities)
    if len(values) > _MOST_THRESHOLDS:
        values = np.quantile(probabilities, np.linspace(0, 1, _MOST_THRESHOLDS))
    tried = np.unique([*values, 0.0, 0.5, NEVER])
    order = np.argsort(probabilities, kind="stable")
    below = np.searchsorted(probabilities[order], tried, side="left")  # how many are below each threshold
    damaged_below = np.concatenate([[0], np.cumsum(damaged[order])])[below]
    passed = costs.missed * damaged_below  # (T,): what passing all below a threshold costs
    intact_from = (len(damaged) - damaged.sum()) - (below - damaged_below)
    rejected = costs.false_alarm * intact_from  # (T,): what rejecting all from a threshold on costs
    inspected = np.maximum(below[None, :] - below[:, None], 0)  # (T, T): between the two
    total = passed[:, None] + rejected[None, :] + costs.inspection * inspected
    total = np.where(tried[:, None] <= tried[None, :], total, math.inf)
    low, high = min(zip(*np.nonzero(total <= total.min() + 1e-9), strict=True), key=lambda pair: inspected[pair])
    return Decision(float(tried[low]), float(tried[high]))


def in_words(decision: Decision, defect: str) -> str:
    """What to do by the probability of that defect: "pass below 0.12 probability of torn, inspect the rest"."""
    low, high = decision
    if low >= NEVER:
        return f"{PASS} everything, whatever the probability of {defect}"
    parts = [f"{PASS} below {_probability(low, high - low)} probability of {defect}"] if low > 0 else []
    parts += [f"{REJECT} from {_probability(high, high - low)} on"] if high < NEVER else []
    parts += [f"{INSPECT} {'the rest' if parts else 'everything'}"] if low < high else []
    return ", ".join(parts)


def _probability(value: float, apart: float) -> str:
    """With two decimals, or as many as it takes to tell it from 0, from 1 and from the other threshold."""
    nearest = min(distance for distance in (value, 1 - value, apart, 1.0) if distance > 0)
    return f"{value:.{max(2, 1 - math.floor(math.log10(nearest)))}f}"


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else math.nan
