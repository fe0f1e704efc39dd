"""From a trained network and images to probabilities, as its card says that it is asked; and how long that takes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import log_loss

from helpers import calibration, compute
from helpers.arrays import Array
from helpers.cards import Model
from helpers.images import normalize, normalized_batches

_BATCH_SIZE = 32


def probabilities(
    model: Model,
    images: Array,
    rows: np.ndarray,
    device: torch.device,
    batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
    """(len(rows), C), not calibrated, of the images (N, 3, H, W) uint8 in these rows, normalized as the card says.

    Where the card says that it is mirrored, see `compute.inference`. The network is left as it was.
    Raises FloatingPointError where what it gives is no number, as half precision may bring about.
    """
    network, card = model.network, model.card
    run = compute.inference(network, device, mirrored=card["mirrored"])
    seen = normalized_batches(images, rows, card["normalization"], device, batch_size)
    found = torch.cat([run(batch).softmax(1).cpu() for batch in seen])
    if lost := int(found.isnan().any(1).sum()):
        raise FloatingPointError(f"The network gives no number for {lost} of {len(rows)} images: take device='cpu'")
    return found.numpy()


def look(
    model: Model, images: Array, rows: np.ndarray, labels: np.ndarray, device: torch.device
) -> tuple[bool, np.ndarray]:
    """Whether it pays to look at each image twice, as it is and mirrored; and the probabilities (len(rows), C) of that.

    It pays where the log loss of these validation images falls by it, of each way with the temperature that suits it
    best: a mean of two looks is less sure than one, which is no merit. labels: (len(rows),), each a class's number.
    """
    found, losses = {}, {}
    for mirrored in (False, True):
        asked = Model(model.network, model.card | {"mirrored": mirrored})
        found[mirrored] = own = probabilities(asked, images, rows, device)
        sure = calibration.with_temperature(own, calibration.temperature(own, labels))
        losses[mirrored] = log_loss(labels, sure, labels=range(own.shape[1]))
    pays = bool(losses[True] < losses[False])
    return pays, found[pays]


def milliseconds_per_image(model: Model, images: Array, device: torch.device) -> float:
    """Time of one image in a batch of 32, normalization included; see `compute.milliseconds`."""
    network, card = model.network, model.card
    run, pixels = compute.inference(network, device, mirrored=card["mirrored"]), images[:_BATCH_SIZE].to(device)
    return compute.milliseconds(lambda: run(normalize(pixels, **card["normalization"])).cpu()) / len(pixels)
