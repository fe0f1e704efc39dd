"""Probabilities that mean what they say: measured, mended by one temperature, and used to say "not sure"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import softmax

NEVER = 2.0  # a threshold that no probability reaches, not even a rounded one; JSON knows no infinity
_COLDEST, _HOTTEST = 0.05, 20.0
_LEAST = np.finfo(np.float32).tiny  # of a probability: its logarithm must be a number
_SUREST = 1 - 1e-6  # of a threshold: the probabilities of items come no nearer to 1


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that gives these answers the lowest log loss; above 1, the network was too sure of itself.

    probabilities: (N, C) of validation data. labels: (N,) class numbers.
    The target of the true class is (N + 1) / (N + 2) and not 1, for N right answers do not prove the next one right.
    Raises ValueError where there is nothing to fit it to.
    Source: Guo et al. (2017), On Calibration of Modern Neural Networks; Platt (1999) for the targets.
    """
    if len(labels) == 0:
        raise ValueError("A temperature is fitted to validation data, and there are none")

    count, classes = probabilities.shape
    targets = np.full((count, classes), 1 / (count + 2) / max(classes - 1, 1))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(logarithm: float) -> float:
        return float(-(targets * np.log(with_temperature(probabilities, np.exp(logarithm)).clip(_LEAST))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded").x))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C): the probabilities as if the logits had been divided by the temperature. The order stays as it is."""
    return softmax(np.log(probabilities.clip(_LEAST)) / temperature, axis=1)


def reliability(probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[int], bins: int = 10) -> pd.DataFrame:
    """How sure and how often right: one row a bin of confidence with columns confidence, accuracy, images, different.

    probabilities: (N, C). labels: (N,) class numbers. groups: (N,) a number for all that shows one item or looks the
    same; different counts them. bins: of equal width in 0..1; an empty one has no row.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": number, "confidence": confidence, "accuracy": right, "group": np.asarray(groups)})
    found = table.groupby("bin").agg(
        confidence=("confidence", "mean"),
        accuracy=("accuracy", "mean"),
        images=("bin", "size"),
        different=("group", "nunique"),
    )
    return found.reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between confidence and accuracy over the bins of `reliability`, weighed by images: 0 is perfect.

    Source: Naeini, Cooper and Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
    """
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["images"]))


def sure_above(probabilities: np.ndarray, labels: np.ndarray, accuracy: float) -> float:
    """The lowest confidence above which the answers are right in that share of cases; NEVER where there is none.

    probabilities: (N, C) of validation data. labels: (N,) class numbers.
    Source: Chow (1970), On Optimum Recognition Error and Reject Tradeoff.
    """
    confidence = probabilities.max(1).clip(max=_SUREST)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(1) == labels)[order]
    reached = np.cumsum(right) / np.arange(1, len(right) + 1) >= accuracy
    reached &= np.append(np.diff(confidence[order]) != 0, True)  # of equal ones all are above, or none
    return float(confidence[order][np.flatnonzero(reached)[-1]]) if reached.any() else NEVER
