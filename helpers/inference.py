"""From a trained network and images to probabilities, as its card says that it is asked; and how long that takes."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

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

    Where the card says that it is mirrored, see `compute.as_function`. The network is left as it was.
    Raises FloatingPointError where what it gives is no number, as half precision may bring about.
    """
    network, card = model.network, model.card
    run = compute.as_function(network, device, mirrored=card["mirrored"])
    seen = normalized_batches(images, rows, card["normalization"], device, batch_size)
    found = torch.cat([run(batch).softmax(1).cpu() for batch in seen])
    if lost := int(found.isnan().any(1).sum()):
        raise FloatingPointError(f"The network gives no number for {lost} of {len(rows)} images: take device='cpu'")
    return found.numpy()


class Look(NamedTuple):
    """How a network answers validation images where it looks at each once, or twice: as it is, and mirrored."""

    mirrored: bool
    probabilities: np.ndarray  # (N, C), not calibrated
    temperature: float  # the one that suits them best
    loss: float  # their log loss with it


def looks(
    model: Model,
    images: Array,
    rows: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
    batch_size: int = _BATCH_SIZE,
) -> list[Look]:
    """Both ways to look at the validation images in these rows, the better one first: that of the lower loss.

    Each is judged with a temperature of its own: a mean of two looks is less sure than one, which is no merit.
    labels: (len(rows),), each a class's number. Raises what `probabilities` and `calibration.temperature` raise.
    """
    found = []
    for mirrored in (False, True):
        asked = Model(model.network, model.card | {"mirrored": mirrored})
        own = probabilities(asked, images, rows, device, batch_size)
        temperature = calibration.temperature(own, labels)
        sure = calibration.with_temperature(own, temperature)
        found.append(Look(mirrored, own, temperature, log_loss(labels, sure, labels=range(own.shape[1]))))
    return sorted(found, key=attrgetter("loss"))


def milliseconds_per_image(model: Model, images: Array, device: torch.device) -> float:
    """Time of one image in a batch of 32, normalization included; see `compute.milliseconds`."""
    network, card = model.network, model.card
    run, pixels = compute.as_function(network, device, mirrored=card["mirrored"]), images[:_BATCH_SIZE].to(device)
    return compute.milliseconds(lambda: run(normalize(pixels, **card["normalization"])).cpu()) / len(pixels)
