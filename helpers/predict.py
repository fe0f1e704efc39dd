"""From a trained network to probabilities, and from photos of one's own to answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import compute
from helpers.arrays import Array
from helpers.images import batches, normalize, to_pixels
from helpers.networks import Model
from helpers.photos import PhotoError

NOT_SURE = "not sure"
_BATCH_SIZE = 32


def probabilities(
    network: nn.Module,
    images: Array,
    rows: np.ndarray,
    device: torch.device,
    *,
    normalization: dict[str, list[float]],
    batch_size: int = _BATCH_SIZE,
) -> np.ndarray:
    """(len(rows), C) of the images (N, 3, H, W) uint8 in these rows; the network is left as it was."""
    run = compute.inference(network, device)
    parts = [
        run(normalize(images[batch].to(device), **normalization)).softmax(1).cpu()
        for batch in batches(rows, batch_size)
    ]
    return torch.cat(parts).numpy()


def answers(model: Model, photos: Iterable[tuple[str, bytes]], device: torch.device) -> pd.DataFrame:
    """One row a photo: name, answer, confidence, the calibrated probability of each class, and problem.

    photos: names and bytes of image files, taken as they come. The answer is NOT_SURE where the highest probability is
    below the card's threshold. What cannot be used has no answer, and its problem says why.
    """
    card, size, classes = model.card, model.card["input"], model.card["classes"]
    run, tables = compute.inference(model.network, device), []
    columns = ["name", "answer", "confidence", *classes, "problem"]
    photos = iter(photos)
    while batch := list(islice(photos, _BATCH_SIZE)):
        pixels, problems = [], []
        for name, data in batch:
            try:
                pixels.append(to_pixels(data, name, size["height"], size["width"]))
                problems.append("")
            except PhotoError as error:
                problems.append(str(error))
        found = np.full((len(batch), len(classes)), np.nan)
        if pixels:
            logits = run(normalize(torch.stack(pixels).to(device), **card["normalization"]))
            found[[not problem for problem in problems]] = (logits / card["temperature"]).softmax(1).cpu()
        confidence = found.max(1)
        called = np.array(classes, object)[np.nan_to_num(found).argmax(1)]
        called = np.where(np.isnan(confidence), "", np.where(confidence >= card["threshold"], called, NOT_SURE))
        rows = zip([name for name, _ in batch], called, confidence, *found.T, problems, strict=True)
        tables.append(pd.DataFrame(rows, columns=columns))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def check_classes(card: dict, classes: Sequence[str]) -> None:
    """Raise ValueError where data of these classes cannot be answered by the network of that card."""
    if list(classes) != card["classes"]:
        known, given = ", ".join(card["classes"]), ", ".join(classes)
        raise ValueError(f"The network knows {known}; the data has {given}: take data or a network that fit each other")


def milliseconds_per_image(
    network: nn.Module, images: Array, device: torch.device, *, normalization: dict[str, list[float]]
) -> float:
    """Time of one image in a batch of 32, normalization included: the median of 5 after a warm-up."""
    run, pixels, times = compute.inference(network, device), images[:32].to(device), []
    for _ in range(6):
        started = time.perf_counter()
        run(normalize(pixels, **normalization)).cpu()
        times.append((time.perf_counter() - started) * 1000 / len(pixels))
    return float(np.median(times[1:]))
