"""Novelty detection: which images are unlike all that a network learned from, so that its answer means nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

from helpers import compute, stages
from helpers.arrays import Array
from helpers.cards import Model
from helpers.catalog import spread
from helpers.images import normalized_batches

_MOST_FEATURES = 2000  # of each view that are kept, and validation images of it that are asked
_FAMILIAR_SHARE = 0.99  # of images from the same line
_LEAST_SIMILAR = -1.0  # a cosine

Run = Callable[[torch.Tensor, Sequence[str]], tuple[torch.Tensor, np.ndarray]]


def fit(
    model: Model, images: Array, views: np.ndarray, train: np.ndarray, validation: np.ndarray, device: torch.device
) -> Model:
    """The model with the features of its training images and, in its card, a threshold for each of its views.

    The similarity of an image is the cosine of the angle between its features (what goes into the head) and the nearest
    ones of the same view. The threshold is what 99 of 100 images from the same line reach, by the validation images.
    images: (N, 3, H, W) uint8. views: (N,) their views, "" where there are none. train, validation: rows; of more than
    2,000 of a view as many are taken, evenly spread. A view without images in both has no threshold.
    Raises FloatingPointError where a feature is no number.
    Source: Sun et al. (2022), Out-of-Distribution Detection with Deep Nearest Neighbors.
    """
    features, thresholds = {}, {}
    for view in model.card["views"]:
        learned, unseen = (spread(rows[views[rows] == view], _MOST_FEATURES) for rows in (train, validation))
        if len(learned) == 0 or len(unseen) == 0:
            continue
        known = torch.cat(list(_directions(model, images, learned, device))).half()
        asked = torch.cat(list(_directions(model, images, unseen, device)))
        similar = similarity(asked, known.float()).cpu().numpy()
        if not np.isfinite(similar).all():
            raise FloatingPointError(
                "Some features of the network are not finite, so it cannot be used. On a GPU that computes in float16, "
                'take device="cpu"'
            )
        features[view] = known.cpu()
        thresholds[view] = _threshold(similar)
    return model._replace(card=model.card | {"novelty_thresholds": thresholds}, features=features)


def answers(
    model: Model,
    images: Array,
    views: np.ndarray,
    rows: np.ndarray,
    device: torch.device,
    corruption: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Of the images (N, 3, H, W) uint8 in these rows: probabilities (len(rows), C), and bool (len(rows),), unfamiliar.

    The probabilities are those of `inference.probabilities`, not calibrated; both take one pass. views: (N,), as for
    `fit`. corruption: what is done to each batch of images (M, 3, H, W) uint8 before, see `corruptions.corrupt`.
    """
    run, probabilities, unfamiliar, done = answering(model, device), [], [], 0
    for batch in normalized_batches(images, rows, model.card["normalization"], device, corruption=corruption):
        logits, strange = run(batch, views[rows[done : done + len(batch)]])
        probabilities.append(logits.softmax(1).cpu())
        unfamiliar.append(strange)
        done += len(batch)
    return torch.cat(probabilities).numpy(), np.concatenate(unfamiliar)


def answering(model: Model, device: torch.device) -> Run:
    """The model as a function of normalized images (N, 3, H, W) and their N views: logits (N, C), and (N,) unfamiliar.

    The logits are those of `compute.as_function`, of two looks where the card says so. An image of a view that the card
    does not know is unfamiliar if it would be in every view. Without features, nothing is.
    """
    body, head = (compute.as_function(part, device) for part in stages.split(model.network, stages.HEAD))
    judge = _judge(model, device)

    def run(images: torch.Tensor, views: Sequence[str]) -> tuple[torch.Tensor, np.ndarray]:
        features = body(images)
        logits = head(features)
        if model.card["mirrored"]:
            logits = (logits + head(body(images.flip(3)))) / 2
        return logits, judge(direction(features), views)

    return run


def direction(features: torch.Tensor) -> torch.Tensor:
    """(N, D) of length 1, of features (N, D) or (N, D, 1, 1)."""
    return F.normalize(features.flatten(1))


def similarity(directions: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(N,): of directions (N, D) the cosine to the nearest known one (M, D)."""
    return (directions @ known.T).amax(1)


def _threshold(similar: np.ndarray) -> float:
    """The similarity that 99 of 100 new images should reach, from those (N,) of some.

    From 99 images on it is an empirical quantile: the k-th lowest, with k = floor((N + 1) / 100). Of fewer, it is the
    lower 99 % prediction bound of a normal distribution, by Student's t. One image sets none (-1).
    Source: Hahn and Meeker (1991), Statistical Intervals, on prediction bounds.
    """
    count = len(similar)
    if rank := math.floor((1 - _FAMILIAR_SHARE) * (count + 1)):
        return float(np.sort(similar)[rank - 1])
    if count == 1:
        return _LEAST_SIMILAR
    reach = stats.t.ppf(_FAMILIAR_SHARE, count - 1) * math.sqrt(1 + 1 / count)
    return max(_LEAST_SIMILAR, float(similar.mean() - reach * similar.std(ddof=1)))


def _judge(model: Model, device: torch.device) -> Callable[[torch.Tensor, Sequence[str]], np.ndarray]:
    """From features of length 1 (N, D) and their N views to (N,) bool: below the threshold, or no number."""
    known = {view: features.to(device).float() for view, features in (model.features or {}).items()}

    def judge(directions: torch.Tensor, views: Sequence[str]) -> np.ndarray:
        if not known:
            return np.zeros(len(directions), bool)
        strange = {}
        for view, features in known.items():
            similar = similarity(directions, features).cpu().numpy()
            strange[view] = ~(similar >= model.card["novelty_thresholds"][view])
        everywhere = np.all(list(strange.values()), axis=0)
        return np.array([strange.get(view, everywhere)[row] for row, view in enumerate(views)], bool)

    return judge


def _directions(model: Model, images: Array, rows: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
    """The features of the images in these rows, of length 1, (M, D) a batch after the other."""
    body = compute.as_function(stages.split(model.network, stages.HEAD)[0], device)
    for batch in normalized_batches(images, rows, model.card["normalization"], device):
        yield direction(body(batch))
