"""What a training run is made of: phases, schedule, loss, and what else its result depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from helpers import compute
from helpers.muon import Muon
from helpers.networks import IMAGENET_NORMALIZATION
from helpers.stages import HEAD

SMALL = 5 / 8  # of height and width, in the small epochs of a phase
LOOKAHEAD_STEPS = 5  # from one look ahead to the next
_TAKEN_BACK = 0.95**LOOKAHEAD_STEPS  # of them, at the end of a phase
_WARM_UP_FRACTION = 0.1  # of a phase's steps, in which the learning rate climbs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Phase(NamedTuple):
    """A stretch in which the same part of the network learns, and everything before it is frozen.

    train: "head", "last stage" (and the head), "all", or the name of the first stage that learns (`stages.stages`).
    epochs: how often each image is seen. The head alone is not stepped towards but solved, on that many augmented
    copies of each image; learning_rate has no meaning there.
    small_epochs: so many of the epochs, the first ones, see images of 5/8 of their height and width, for 2/5 of the
    work: a good start, during which nothing is stopped early. Only where all learns, and for networks that take images
    of that size, too.
    Source: Howard (2018), Training ImageNet in 3 Hours for $25 (progressive resizing).
    """

    name: str
    train: str
    epochs: int
    learning_rate: float = 0.0
    small_epochs: int = 0


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on besides its data and its network; the card keeps it.

    patience: epochs without a lower validation loss that end a phase. keep_norms: see `networks.training_mode`; False
    for a network that starts from nothing. normalization: see `images.normalize`.
    copies: augmented copies of which the frozen part's activations are remembered; see `activations.prepare`.
    augmentation: how far they go from the image, a name of `images.AUGMENTATIONS`. optimizer: "AdamW" or
    "Muon", see `optimizer`. lookahead: see `look_ahead`.
    """

    phases: Sequence[Phase]
    batch_size: int
    seed: int
    label_smoothing: float = 0.05
    weight_decay: float = 0.01
    patience: int = 8
    keep_norms: bool = True
    copies: int | None = None
    augmentation: str = "gentle"
    optimizer: str = "AdamW"
    lookahead: bool = False
    normalization: dict[str, list[float]] = field(default_factory=lambda: IMAGENET_NORMALIZATION)


def check(recipe: Recipe) -> None:
    """Raise ValueError where the recipe has no epochs, small ones at the wrong place, or an unfit optimizer."""
    if not any(rounds(phase) for phase in recipe.phases):
        raise ValueError("The recipe has no epochs: ask for copies to solve the head on, or for epochs of fine-tuning")
    for phase in recipe.phases:
        if phase.small_epochs and phase.train != "all":
            raise ValueError(f"Phase {phase.name!r} has small epochs: they need train='all', not {phase.train!r}")
        if phase.small_epochs and not 0 < phase.small_epochs < phase.epochs:
            raise ValueError(
                f"Phase {phase.name!r} has {phase.small_epochs} small epochs of {phase.epochs}: leave some that are not"
            )
    if recipe.optimizer not in ("AdamW", "Muon"):
        raise ValueError(f"Unknown optimizer {recipe.optimizer!r}: choose 'AdamW' or 'Muon'")
    if recipe.optimizer == "Muon" and recipe.keep_norms:
        raise ValueError("Muon gives filters another length, and norms that are kept do not follow: keep_norms=False")


def rounds(phase: Phase) -> int:
    """Rows of the history that a phase may have: one for each epoch, and one where the head is solved."""
    return min(1, phase.epochs) if phase.train == HEAD else phase.epochs


def next_epoch(history: Sequence[dict], recipe: Recipe) -> tuple[Phase, int] | None:
    """The phase of the next epoch and that epoch's number in it, from 0; None where training is over."""
    started = [row["phase"] for row in history]
    for position, phase in enumerate(recipe.phases):
        if any(later.name in started for later in recipe.phases[position + 1 :]):
            continue
        rows = [row for row in history if row["phase"] == phase.name]
        stale = len(rows) >= phase.small_epochs + recipe.patience and not any(
            row["best"] for row in rows[-recipe.patience :]
        )
        if len(rows) < rounds(phase) and not stale:
            return phase, len(rows)
    return None


def optimizer(
    parameters: Iterable[torch.nn.Parameter], recipe: Recipe, learning_rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, which needs little tuning, or Muon, which learns faster where batch normalization follows every filter.

    Muon is not for networks without it, such as VGG, nor for those whose head is a filter bank, such as SqueezeNet.
    Source: Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization; see `muon.Muon`.
    """
    if recipe.optimizer == "Muon":
        digits = torch.bfloat16 if compute.precision(device) == torch.bfloat16 else torch.float32
        return Muon(parameters, learning_rate, weight_decay=recipe.weight_decay, precision=digits)
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, learning_rate, weight_decay=recipe.weight_decay, fused=fused)


def learning_rate_factor(step: int, steps: int) -> float:
    """Share of the learning rate at a step of a phase: a linear warm-up, then half a cosine down to zero.

    Source: Loshchilov and Hutter (2017), SGDR; Goyal et al. (2017) for the warm-up.
    """
    warm_up = max(1, round(_WARM_UP_FRACTION * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@torch.no_grad()
def look_ahead(slow: Sequence[torch.Tensor], fast: Sequence[torch.Tensor], progress: float) -> None:
    """Take back a part of the last steps: both become a mean of where they began (slow) and where they ended (fast).

    progress: share of the phase that is over, 0 to 1. What is taken back grows with its third power up to 0.77,
    so that in the end many steps are averaged, and what chance brought into each of them is lost.
    Source: Zhang et al. (2019), Lookahead Optimizer: k Steps Forward, 1 Step Back; Jordan (2024), airbench.
    """
    for before, after in zip(slow, fast, strict=True):
        before.lerp_(after, 1 - _TAKEN_BACK * progress**3)
        after.copy_(before)


def class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """(C,) weights that give every class the same total, and 1 on average over the samples; 0 for an absent one."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return torch.tensor(np.where(present, len(labels) / (present.sum() * counts.clip(1)), 0), dtype=torch.float32)


def loss_function(train_labels: np.ndarray, classes: int, label_smoothing: float, device: torch.device) -> Loss:
    """Cross-entropy of logits (N, C) and labels (N,), summed over the batch, each class with the same total weight."""
    weights = class_weights(train_labels, classes).to(device)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.float(), labels, weights, label_smoothing=label_smoothing, reduction="sum")

    return loss
