"""One answer for an item from the answers for its views: each view a witness, as heavy as validation data say."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import softmax

from helpers.evaluation import log_loss, with_answers
from helpers.layouts import FUSED

_LEAST = 1e-7  # of a probability
_RESTRAINT = 2.0  # of weights that leave 1, as so many items: with few of them the weights stay equal
_PARTS = 5  # in which the items are divided to compare learned weights with equal ones


def fuse_views(images: pd.DataFrame, classes: list[str], weights: dict[str, float] | None = None) -> pd.DataFrame:
    """One row an item, from the rows of its images: the mean of their log-probabilities, made to add up to 1.

    images: a table of `evaluation.predictions`. weights: by view, the factor of its log-probabilities, 1 if not given;
    a larger one makes the item's answer surer. A sure view outweighs an unsure one.
    An item that was seen from one side only keeps that answer as it is.
    Source: Genest and Zidek (1986), Combining Probability Distributions (logarithmic opinion pools).
    """
    items, names = pd.factorize(images["item"], sort=True)
    weight = images["view"].map(weights or {}).fillna(1.0).to_numpy()
    probabilities = _pooled(_logs(images, classes), items, np.where(_seen_once(images), 1.0, weight))
    facts = images.groupby("item")[["group", "label"]].first().loc[names].reset_index(names="item")
    table = facts.assign(view=FUSED)
    return with_answers(table, probabilities, classes)


def with_fused(images: pd.DataFrame, classes: list[str], weights: dict[str, float] | None = None) -> pd.DataFrame:
    """The predictions of images, and below them those of items with all views fused, where there are views."""
    if images["view"].nunique() < 2:
        return images
    return pd.concat([images, fuse_views(images, classes, weights)], ignore_index=True)


def learn(images: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    """The weight of each view that gives fused items the lowest log loss, regularized toward 1.

    images: predictions for validation images.
    """
    views, logs, alone = sorted(images["view"].unique()), _logs(images, classes), _seen_once(images)
    view = images["view"].map(views.index).to_numpy()
    items, names = pd.factorize(images["item"], sort=True)
    true = images.groupby("item")["label"].first()[names].map(classes.index).to_numpy()

    def loss(values: np.ndarray) -> float:
        probabilities = _pooled(logs, items, np.where(alone, 1.0, values[view]))
        losses = -np.log(probabilities[np.arange(len(true)), true].clip(_LEAST))
        return float(losses.mean() + _RESTRAINT / len(true) * np.square(values - 1).mean())

    found = minimize(loss, np.ones(len(views)), method="Powell", bounds=[(0.0, 4.0)] * len(views))
    return dict(zip(views, found.x.round(3).tolist(), strict=True))


def choose(images: pd.DataFrame, classes: list[str], seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """The learned weights where they do better than equal ones on validation items, else none; and what `compare` gave.

    images: predictions for validation images.
    """
    losses = compare(images, classes, seed)
    return (learn(images, classes) if losses and losses["learned"] < losses["mean"] else {}), losses


def compare(images: pd.DataFrame, classes: list[str], seed: int) -> dict[str, float]:
    """The log loss of validation items by the mean of their views, and by weights learned from the other items.

    Whoever learns from an item must not be judged by it: the items are divided in parts, look-alikes together, and the
    weights for each are learned from the others.
    """
    groups = images["group"].unique()
    if images["view"].nunique() < 2 or len(groups) < 2 * _PARTS:
        return {}
    parts = np.array_split(np.random.default_rng(seed).permutation(groups), _PARTS)
    learned = []
    for part in parts:
        own = images["group"].isin(part)
        learned.append(fuse_views(images[own], classes, learn(images[~own], classes)))
    equal, weighted = fuse_views(images, classes), pd.concat(learned)
    return {"mean": log_loss(equal, classes), "learned": log_loss(weighted, classes)}


def _logs(images: pd.DataFrame, classes: list[str]) -> np.ndarray:
    return np.log(images[classes].to_numpy().clip(_LEAST))


def _seen_once(images: pd.DataFrame) -> np.ndarray:
    return (images.groupby("item")["view"].transform("nunique") == 1).to_numpy()


def _pooled(logs: np.ndarray, items: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(I, C) probabilities of items, from logs (N, C) of their images, the numbers of their items and weights (N,)."""
    means = np.zeros((items.max() + 1, logs.shape[1]))
    np.add.at(means, items, logs * weights[:, None])
    return softmax(means / np.bincount(items)[:, None], axis=1)
