"""What a training run is made of: phases, schedule, loss, and what else its result depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from helpers.networks import IMAGENET_NORMALIZATION
from helpers.stages import HEAD

_WARM_UP_FRACTION = 0.1  # of a phase's steps, in which the learning rate climbs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Phase(NamedTuple):
    """A stretch in which the same part of the network learns, and everything before it is frozen.

    name: another one for each phase of a recipe, for the history tells them apart by it.
    train: "head", "last stage" (and the head), "all", or the name of the first stage that learns (`stages.stages`).
    epochs: how often each image is seen. The head alone is not stepped toward but solved, on that many copies of each
    image, the first as it is and the others augmented; learning_rate has no meaning there.
    """

    name: str
    train: str
    epochs: int
    learning_rate: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on besides its data and its network; the card keeps it.

    patience: epochs without a lower validation loss that end a phase; the epoch with the lowest is kept. 0: every phase
    runs to its end and its last epoch is kept, because with few validation images the lowest loss is a matter of luck.
    keep_norms: see `networks.training_mode`; False for a network that starts from nothing.
    normalization: see `images.normalize`.
    copies: augmented copies of which the frozen part's activations are remembered; see `activations.prepare`.
    augmentation: how far they go from the image, see `images.augment`. momentum: see `optimizer`.
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
    momentum: float = 0.0
    normalization: dict[str, list[float]] = field(default_factory=lambda: IMAGENET_NORMALIZATION)

    def __post_init__(self) -> None:
        """Raises ValueError where two phases have one name, or a number is impossible."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be 1 or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be from 0 to below 1")
        if self.patience < 0:
            raise ValueError(f"patience={self.patience} must be 0 or more")
        if self.copies is not None and self.copies < 0:
            raise ValueError(f"copies={self.copies} must be 0 or more")
        for phase in self.phases:
            if phase.epochs < 0:
                raise ValueError(f"{phase.name}: {phase.epochs} epochs: give 0 or more")
            if not 0 <= phase.learning_rate < math.inf:
                raise ValueError(f"{phase.name}: learning rate {phase.learning_rate} must be finite and 0 or more")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"Phases are told apart by their names: {', '.join(names)} are not all different")


def transfer(weights: str, solved: Phase, tuned: Phase, batch_size: int, seed: int, **fields: object) -> Recipe:
    """The recipe of a network that starts from these weights: its head solved, then fine-tuned.

    From "none" there is no stage that is worth keeping: everything learns, in one phase, batch statistics included.
    fields: the others of Recipe.
    """
    if weights == "none":
        scratch = tuned._replace(name="from scratch", train="all")
        return Recipe([scratch], batch_size, seed, keep_norms=False, **fields)
    return Recipe([solved, tuned], batch_size, seed, **fields)


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
        stale = 0 < recipe.patience <= len(rows) and not any(row["kept"] for row in rows[-recipe.patience :])
        if len(rows) < rounds(phase) and not stale:
            return phase, len(rows)
    return None


def optimizer(
    parameters: Iterable[torch.nn.Parameter], recipe: Recipe, learning_rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, or where the recipe has a momentum, stochastic gradient descent with that of Nesterov.

    The first needs little tuning; the second takes longer, and learns less by heart.
    Source: Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization; Sutskever et al. (2013), On the
    Importance of Initialization and Momentum in Deep Learning.
    """
    how = {"weight_decay": recipe.weight_decay}
    if recipe.momentum:  # not fused: its momentum begins as garbage where a scaler skips the first step in float16
        return torch.optim.SGD(parameters, learning_rate, momentum=recipe.momentum, nesterov=True, **how)
    return torch.optim.AdamW(parameters, learning_rate, fused=device.type in ("cpu", "cuda"), **how)


def learning_rate_factor(step: int, steps: int) -> float:
    """Share of the learning rate at a step of a phase: a linear warm-up, then half a cosine down to zero.

    Source: Loshchilov and Hutter (2017), SGDR; Goyal et al. (2017) for the warm-up.
    """
    warm_up = max(1, round(_WARM_UP_FRACTION * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """(C,) weights that give every class the same total, and 1 on average over the samples; 0 for an absent one."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return torch.tensor(np.where(present, len(labels) / (present.sum() * counts.clip(1)), 0), dtype=torch.float32)


def loss_function(train_labels: np.ndarray, classes: int, label_smoothing: float, device: torch.device) -> Loss:
    """Cross-entropy of logits (N, C) and labels (N,), summed over the batch, each class with the same total weight.

    An image weighs by its own class, smoothed target and all. The `weight` of PyTorch's own function weighs the
    smoothed part by the classes that receive it, so images of frequent classes are smoothed far more than others.
    """
    weights = class_weights(train_labels, classes).to(device)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="none")
        return (weights[labels] * losses).sum()

    return loss
