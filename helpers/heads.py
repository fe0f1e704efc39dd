"""The head of a network on frozen features: a convex problem, solved rather than stepped toward."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from helpers import arrays

REGULARIZATIONS = tuple(10.0**power for power in np.arange(0, -5.5, -0.5))  # strongest first: each starts the next
_CHUNK_ROWS = 8192
_MOST_ITERATIONS = 60
_LEAST_DEVIATION = 0.3  # of a feature, as a share of what is usual
_PATIENCE = 2  # weaker regularizations without a lower validation loss, which end the search
_NO_NUMBER = (
    "The head cannot be solved: some features that the frozen part gives for these images are not finite. "
    'On a GPU that computes in float16, take device="cpu"'
)

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Features(NamedTuple):
    """What the frozen part gave: values (N, D) or (N, D, 1, 1), float or half, and labels (N,) int."""

    values: arrays.Array
    labels: torch.Tensor


class Solution(NamedTuple):
    """weight (C, D) and bias (C,) of the head, and the regularization that validation chose."""

    weight: torch.Tensor
    bias: torch.Tensor
    regularization: float

    def logits(self, values: torch.Tensor) -> torch.Tensor:
        """(N, C) of features (N, D) or (N, D, 1, 1)."""
        return F.linear(values.float().flatten(1), self.weight, self.bias)


def solve(
    train: Features,
    validation: Features,
    classes: int,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    device: torch.device,
) -> Solution:
    """The head with the lowest validation loss among the solutions for REGULARIZATIONS, tried from the strongest on.

    Two weaker ones in turn that do not lower it end the search.

    loss: of logits (N, C) and labels (N,), summed. What is minimized is its mean over the training features, brought
    to mean 0 and deviation 1 (see `_moments`), plus regularization / 2 * |weight|^2.
    Raises FloatingPointError where a feature is no number.
    Source: Liu and Nocedal (1989), On the Limited Memory BFGS Method; Kornblith, Shlens and Le (2019), Do Better
    ImageNet Models Transfer Better?, for choosing the regularization so.
    """
    mean, deviation = (moment.to(device) for moment in _moments(train.values))
    if not torch.isfinite(mean).all():
        raise FloatingPointError(_NO_NUMBER)
    learned, unseen = (_standardized(part, mean, deviation) for part in (train, validation))
    weight = torch.zeros(classes, len(mean), device=device, requires_grad=True)
    bias = torch.zeros(classes, device=device, requires_grad=True)
    best, lowest, stale = None, math.inf, 0
    for regularization in REGULARIZATIONS:
        _minimize(weight, bias, learned, loss, regularization, len(train.labels))
        with torch.no_grad():
            reached = sum(loss(F.linear(values, weight, bias), labels).item() for values, labels in unseen)
        if reached < lowest:
            scaled = weight.detach() / deviation
            best, lowest, stale = Solution(scaled, bias.detach() - scaled @ mean, regularization), reached, 0
        elif (stale := stale + 1) == _PATIENCE:
            break
    if best is None:
        raise FloatingPointError(_NO_NUMBER)
    return best


def _minimize(
    weight: torch.Tensor,
    bias: torch.Tensor,
    batches: Batches,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    regularization: float,
    count: int,
) -> None:
    """From where they are to the minimum, in place."""
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_MOST_ITERATIONS, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        value = regularization / 2 * weight.square().sum()
        value.backward()
        for values, labels in batches:
            part = loss(F.linear(values, weight, bias), labels) / count
            part.backward()
            value = value + part.detach()
        return value.detach()

    optimizer.step(objective)


def _standardized(features: Features, mean: torch.Tensor, deviation: torch.Tensor) -> Batches:
    """In chunks, mean 0 and deviation 1: kept where memory holds them, else made anew for every pass."""
    chunks = _Chunks(features, mean, deviation)
    needed = arrays.bytes_of((len(features.labels), len(mean)), np.float32)
    return list(chunks) if arrays.fits_on(mean.device, needed) else chunks


class _Chunks:
    def __init__(self, features: Features, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        self.features, self.mean, self.deviation = features, mean, deviation

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        values, labels = self.features
        for start in range(0, len(labels), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            chunk = values[rows].to(self.mean.device).float().flatten(1)
            yield (chunk - self.mean) / self.deviation, labels[rows].to(self.mean.device)


def _moments(values: arrays.Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (D,) of each feature; one that hardly varies must not be blown up, so there is a least one."""
    sums = squares = 0
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = values[start : start + _CHUNK_ROWS].flatten(1).double()
        sums, squares = sums + chunk.sum(0), squares + chunk.square().sum(0)
    mean = sums / len(values)
    variance = (squares / len(values) - mean.square()).clamp(min=0)
    least = (_LEAST_DEVIATION * variance.mean().sqrt()).clamp(min=1e-6)
    return mean.float(), torch.maximum(variance.sqrt(), least).float()
