"""Novelty detection: which images are unlike all that a network learned from, so that its answer means nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from helpers import compute, stages
from helpers.arrays import Array
from helpers.images import normalized
from helpers.networks import Model

_MOST_KNOWN = 2000  # features that are kept, and validation images that are asked
_FAMILIAR_SHARE = 0.99  # of the validation images

Run = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def learned(model: Model, images: Array, train: np.ndarray, validation: np.ndarray, device: torch.device) -> Model:
    """The model with the features of its training images, its card with how similar to one of them an image must be.

    99 of 100 validation images are that similar; with fewer than 100, all are.
    images: (N, 3, H, W) uint8. train, validation: rows of them; of more than 2,000 as many are taken, evenly spread.
    Source: Sun et al. (2022), Out-of-Distribution Detection with Deep Nearest Neighbors.
    """
    body, _ = _parts(model, device)
    seen = normalized(images, _some(train), model.card["normalization"], device)
    model = model._replace(known=torch.cat([_direction(body(batch)) for batch in seen]).half().cpu())
    similar = similarities(model, images, _some(validation), device)
    familiar_from = float(np.quantile(similar, 1 - _FAMILIAR_SHARE, method="lower"))
    return model._replace(card=model.card | {"familiar_from": familiar_from})


def similarities(
    model: Model,
    images: Array,
    rows: np.ndarray,
    device: torch.device,
    corruption: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """(len(rows),) of the images (N, 3, H, W) uint8 in these rows, as `inference` gives them.

    corruption: see `images.normalized`.
    """
    run = inference(model, device)
    seen = normalized(images, rows, model.card["normalization"], device, corruption=corruption)
    return torch.cat([run(batch)[1].cpu() for batch in seen]).numpy()


def inference(model: Model, device: torch.device) -> Run:
    """The model as a function of normalized images (N, 3, H, W): their logits (N, C), and how similar each is (N,).

    The logits are those of `compute.inference`, of two looks where the card says so. The similarity is the cosine of
    the angle between the image's features (what goes into the head) and the nearest of those that the model has
    learned: 1 for an image that it learned from. It is 1 for every image where the model does not know them.
    """
    body, head = _parts(model, device)
    known = None if model.known is None else model.known.to(device).float()

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = body(images)
        logits = head(features)
        if model.card["mirrored"]:
            logits = (logits + head(body(images.flip(3)))) / 2
        similar = logits.new_ones(len(logits)) if known is None else (_direction(features) @ known.T).amax(1)
        return logits, similar

    return run


def _some(rows: np.ndarray) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_KNOWN)).round().astype(int)]


def _direction(features: torch.Tensor) -> torch.Tensor:
    """(N, D) of length 1, of features (N, D) or (N, D, 1, 1)."""
    return F.normalize(features.flatten(1))


def _parts(model: Model, device: torch.device) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """From normalized images to features, and from features to logits."""
    return [compute.inference(part, device) for part in stages.split(model.network, stages.HEAD)]
