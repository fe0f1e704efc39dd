"""From a trained network to probabilities."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from helpers import compute
from helpers.arrays import Array
from helpers.images import batches, normalize


def probabilities(
    network: nn.Module,
    images: Array,
    rows: np.ndarray,
    device: torch.device,
    *,
    normalization: dict[str, list[float]],
    batch_size: int = 32,
) -> np.ndarray:
    """(len(rows), C) of the images (N, 3, H, W) uint8 in these rows; the network is left as it was."""
    run = compute.inference(network, device)
    parts = [
        run(normalize(images[batch].to(device), **normalization)).softmax(1).cpu()
        for batch in batches(rows, batch_size)
    ]
    return torch.cat(parts).numpy()


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
