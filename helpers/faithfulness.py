"""Whether an explanation is true to its network: what needs no boxes, and what must change with the network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from captum.metrics import sensitivity_max
from scipy.stats import spearmanr
from torch import nn

from helpers import compute, stages
from helpers.attribution import BASELINES
from helpers.images import normalize

POINTS = 16  # at which the curves of deletion and insertion are taken, besides 0
_SQUARES = 48  # covered at random to measure infidelity
_RADIUS = 0.05  # of the change to an image, in normalized units, about 3 of 255 levels
_CHANGES = 4  # of each image

Explain = Callable[[nn.Module, torch.Tensor, Sequence[int]], np.ndarray]


class Subject(NamedTuple):
    """What is explained: a network, images (N, 3, H, W) uint8, their targets (N,), and how the network sees them."""

    network: nn.Module
    images: torch.Tensor
    targets: Sequence[int]
    normalization: dict[str, list[float]]
    device: torch.device


def deletion_and_insertion(subject: Subject, maps: np.ndarray, baseline: str) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays (N, POINTS + 1): the target's probability while pixels go, and while they come, by importance.

    maps: (N, H, W). What goes is replaced by the baseline, what comes replaces it. A true map lets the first curve
    fall soon and the second one rise soon: the mean over a curve is about the area below it.
    Source: Petsiuk, Das and Saenko (2018), RISE: Randomized Input Sampling for Explanation of Black-box Models.
    """
    run = compute.as_function(subject.network, subject.device)
    deleted, inserted = [], []
    for values, inputs, start, target in _each(subject, maps, baseline):
        rank = np.empty(values.size, int)
        rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(values.size)
        counts = np.linspace(0, values.size, POINTS + 1)
        first = torch.from_numpy(rank.reshape(1, 1, *values.shape) < counts[:, None, None, None]).to(inputs.device)
        for curves, mask in ((deleted, first), (inserted, ~first)):
            curves.append(run(torch.where(mask, start, inputs)).softmax(1)[:, target].cpu().numpy())
    return np.stack(deleted), np.stack(inserted)


def infidelity(subject: Subject, maps: np.ndarray, baseline: str, seed: int) -> np.ndarray:
    """(N,): which part of the logit's change, when squares of the image are covered, the map does not explain.

    0: all of it, up to one factor above 0; 1: nothing, or the opposite. Squares of an eighth to a third of the image
    are drawn at random; what the map says of one is its sum there.
    Source: Yeh et al. (2019), On the (In)fidelity and Sensitivity of Explanations, normalized by the optimal factor
    that is not negative, and by the mean square of the changes.
    """
    run, found = compute.as_function(subject.network, subject.device), []
    squares = _squares(*maps.shape[1:], np.random.default_rng(seed))
    masks = torch.from_numpy(squares)[:, None].to(subject.device)
    for values, inputs, start, target in _each(subject, maps, baseline):
        changes = (run(inputs)[0, target] - run(torch.where(masks, start, inputs))[:, target]).cpu().numpy()
        expected = (squares * values).sum((1, 2))
        both = (expected**2).sum() * (changes**2).sum()
        found.append(1 - max(expected @ changes, 0.0) ** 2 / both if both > 0 else 1.0)
    return np.array(found)


def sensitivity(subject: Subject, explain: Explain) -> np.ndarray:
    """(N,): how far the map moves when the image moves a little, at most, relative to the map itself.

    Source: Yeh et al. (2019), through Captum.
    """
    network, normalization, found = subject.network, subject.normalization, []
    for image, target in zip(subject.images, subject.targets, strict=True):

        def maps(inputs: tuple[torch.Tensor], target: int = target) -> torch.Tensor:
            pixels = _denormalized(inputs[0], normalization)
            return torch.from_numpy(explain(network, pixels, [target] * len(pixels))[:, None])

        with compute.fork_rng(subject.device):
            torch.manual_seed(0)
            inputs = normalize(image[None], **normalization)
            how = {"perturb_radius": _RADIUS, "n_perturb_samples": _CHANGES}
            found.append(sensitivity_max(maps, inputs, **how).item())
    return np.array(found)


def randomized(network: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """The network with its stages spoilt from the top, one more each time: the stage's name, and the network so far.

    The numbers of each tensor are shuffled, so that their spread stays and what was learned goes.
    Source: Adebayo et al. (2018), Sanity Checks for Saliency Maps (cascading randomization).
    """
    network, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    for name, stage in reversed(stages.stages(network).items()):
        with torch.no_grad():
            for tensor in stage.parameters():
                tensor.copy_(tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor))
        yield name, network


def rank_correlation(maps: np.ndarray, others: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(N,): the rank correlation of two maps' sizes, (N, H, W) each: 1 for the same, 0 for unrelated ones.

    NaN where the first is the same everywhere and so has no order to keep; 0 where only the other one is.
    visible: (N, H, W) bool, what of each image counts: where it is hidden, many are 0 for any network, and so alike.
    """
    found = []
    for one, other, seen in zip(maps, others, visible, strict=True):
        first, second = np.abs(one[seen]), np.abs(other[seen])
        unrelated = 0.0 if np.ptp(first) else np.nan
        found.append(spearmanr(first, second).statistic if np.ptp(first) and np.ptp(second) else unrelated)
    return np.array(found)


def _each(subject: Subject, maps: np.ndarray, baseline: str) -> Iterator[tuple]:
    """Map, normalized image (1, 3, H, W), baseline and target, image by image."""
    for values, image, target in zip(maps, subject.images, subject.targets, strict=True):
        inputs = normalize(image[None].to(subject.device), **subject.normalization)
        yield values, inputs, BASELINES[baseline](subject.normalization, inputs), int(target)


def _squares(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(_SQUARES, H, W) bool."""
    masks = np.zeros((_SQUARES, height, width), bool)
    for mask in masks:
        share = generator.uniform(1 / 8, 1 / 3)
        down, across = max(1, round(share * height)), max(1, round(share * width))
        top, left = generator.integers(0, height - down + 1), generator.integers(0, width - across + 1)
        mask[top : top + down, left : left + across] = True
    return masks


def _denormalized(inputs: torch.Tensor, normalization: dict[str, list[float]]) -> torch.Tensor:
    """Normalized images back in 0..255, as float: a change may be smaller than a level."""
    mean, deviation = (torch.tensor(normalization[name]).view(1, 3, 1, 1) for name in ("mean", "deviation"))
    return (inputs * deviation + mean) * 255
