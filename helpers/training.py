"""The training loop: phases, schedule, early stopping, and a checkpoint after every epoch to go on from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import safetensors
import torch
from torch import nn
from torch.nn import functional as F

from helpers.images import augment, batches, normalize
from helpers.networks import IMAGENET_NORMALIZATION, freeze, load_state, to_bytes, training_mode

_WARM_UP_FRACTION = 0.1  # of a phase's steps, in which the learning rate climbs

Tensors = dict[str, torch.Tensor]


class Phase(NamedTuple):
    """A stretch of epochs in which the same part of the network learns: train is "head" or "all"."""

    name: str
    train: str
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on besides its data and its network; the card keeps it.

    patience: epochs without a lower validation loss that end a phase. normalization: see `images.normalize`.
    """

    phases: Sequence[Phase]
    batch_size: int
    seed: int
    label_smoothing: float = 0.05
    weight_decay: float = 0.01
    patience: int = 8
    normalization: dict[str, list[float]] = field(default_factory=lambda: IMAGENET_NORMALIZATION)


class Examples(NamedTuple):
    """What to learn from: images (N, 3, H, W) uint8, labels (N,) int, and which rows are for what."""

    images: torch.Tensor
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray


def train(
    network: nn.Module,
    examples: Examples,
    recipe: Recipe,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train in place, end with the weights of the best epoch, and return the history, one row an epoch.

    Best is the lowest validation loss; every phase starts from the best so far. Losses are means over samples.
    checkpoint: a file written after every epoch. A run that finds its own goes on from there, with the result of an
    unbroken one; `identity` (data, architecture, weights) and the recipe tell whose it is.
    Raises ValueError where a split is empty, and FloatingPointError where the loss is no longer a number.
    """
    for split in ("train", "validation"):
        if not len(getattr(examples, split)):
            raise ValueError(f"The {split} split is empty: prepare the data with a larger {split} fraction")
    key = hashlib.sha256(json.dumps([identity, asdict(recipe)]).encode()).hexdigest()
    network.to(device, memory_format=torch.channels_last)
    history, best, optimizer = _resume(checkpoint, key, network, recipe) or ([], {}, None)
    if history:
        report(f"Going on after epoch {len(history)} of an earlier run")
    while upcoming := next_epoch(history, recipe):
        phase, epoch = upcoming
        if epoch == 0:
            load_state(network, best or network.state_dict())
            optimizer = _start_phase(network, phase, recipe)
        row = _epoch(network, optimizer, examples, recipe, phase, epoch, number=len(history) + 1)
        row["best"] = row["validation_loss"] < min((old["validation_loss"] for old in history), default=math.inf)
        history.append(row)
        if row["best"]:
            best = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        report(describe_epoch(row, sum(phase.epochs for phase in recipe.phases)))
        if checkpoint:
            _save(checkpoint, key, history, best, network, optimizer)
    load_state(network, best)
    network.eval()
    return pd.DataFrame(history)


def next_epoch(history: Sequence[dict], recipe: Recipe) -> tuple[Phase, int] | None:
    """The phase of the next epoch and that epoch's number in it, from 0; None where training is over."""
    started = [row["phase"] for row in history]
    for position, phase in enumerate(recipe.phases):
        if any(later.name in started for later in recipe.phases[position + 1 :]):
            continue
        rows = [row for row in history if row["phase"] == phase.name]
        stale = len(rows) >= recipe.patience and not any(row["best"] for row in rows[-recipe.patience :])
        if len(rows) < phase.epochs and not stale:
            return phase, len(rows)
    return None


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


def predict(
    network: nn.Module,
    images: torch.Tensor,
    rows: np.ndarray,
    device: torch.device,
    *,
    normalization: dict[str, list[float]],
    batch_size: int = 32,
) -> np.ndarray:
    """(len(rows), C) probabilities; the network is left in the mode it was in."""
    was_training = network.training
    network.to(device).eval()
    parts = []
    with torch.inference_mode(), _autocast(device):
        for batch in batches(rows, batch_size):
            logits = network(normalize(images[batch].to(device), **normalization))
            parts.append(logits.float().softmax(1).cpu())
    network.train(was_training)
    return torch.cat(parts).numpy()


def milliseconds_per_image(
    network: nn.Module, images: torch.Tensor, device: torch.device, *, normalization: dict[str, list[float]]
) -> float:
    """Time of one image in a batch of 32, normalization included: the median of 5 after a warm-up."""
    rows, times = np.arange(min(32, len(images))), []
    for _ in range(6):
        started = time.perf_counter()
        predict(network, images, rows, device, normalization=normalization)
        times.append((time.perf_counter() - started) * 1000 / len(rows))
    return float(np.median(times[1:]))


def seed_epoch(seed: int, number: int) -> torch.Generator:
    """Seed dropout, and return a generator for order and augmentation: an epoch's random numbers follow from these."""
    torch.manual_seed(seed * 10_000 + number)
    return torch.Generator().manual_seed(seed * 10_000 + number)


def describe_epoch(row: dict, epochs: int) -> str:
    """One line for a log: what was learned in an epoch, and whether it is the best so far."""
    return (
        f"epoch {row['epoch']:3d}/{epochs} {row['phase']:<12} loss {row['train_loss']:.3f} validation "
        f"{row['validation_loss']:.3f}  accuracy {row['train_accuracy']:.3f} validation "
        f"{row['validation_accuracy']:.3f}  {row['seconds']:5.1f} s{'  best' if row['best'] else ''}"
    )


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    recipe: Recipe,
    phase: Phase,
    epoch: int,
    number: int,
) -> dict[str, object]:
    """One row of the history: train on all examples once, and validate."""
    started = time.perf_counter()
    train_loss, train_accuracy, samples = _learn(network, optimizer, examples, recipe, phase, epoch, number)
    validation_loss, validation_accuracy = _validate(network, examples, recipe)
    if not math.isfinite(train_loss + validation_loss):
        raise FloatingPointError(
            f"The loss of epoch {number} is no longer a number: choose a lower {phase.name} learning rate"
        )
    return {
        "epoch": number,
        "phase": phase.name,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "validation_loss": validation_loss,
        "validation_accuracy": validation_accuracy,
        "samples": samples,
        "seconds": time.perf_counter() - started,
    }


def _learn(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    recipe: Recipe,
    phase: Phase,
    epoch: int,
    number: int,
) -> tuple[float, float, int]:
    """Mean loss, accuracy and samples of an epoch; its random numbers follow from the seed and its number alone."""
    device = next(network.parameters()).device
    loss_sum, hits_sum, samples = 0.0, 0, 0
    training_mode(network)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        generator = seed_epoch(recipe.seed, number)
        order = batches(examples.train, recipe.batch_size, generator)
        for step, rows in enumerate(order):
            factor = learning_rate_factor(epoch * len(order) + step, phase.epochs * len(order))
            optimizer.param_groups[0]["lr"] = phase.learning_rate * factor
            loss, hits = _forward(network, augment(examples.images[rows].to(device), generator), rows, examples, recipe)
            optimizer.zero_grad(set_to_none=True)
            (loss / len(rows)).backward()
            optimizer.step()
            loss_sum, hits_sum, samples = loss_sum + loss.item(), hits_sum + hits, samples + len(rows)
    return loss_sum / samples, hits_sum / samples, samples


def _validate(network: nn.Module, examples: Examples, recipe: Recipe) -> tuple[float, float]:
    """Mean loss and accuracy over the validation examples."""
    device = next(network.parameters()).device
    loss_sum, hits_sum = 0.0, 0
    network.eval()
    with torch.inference_mode():
        for rows in batches(examples.validation, recipe.batch_size):
            loss, hits = _forward(network, examples.images[rows].to(device), rows, examples, recipe)
            loss_sum, hits_sum = loss_sum + loss.item(), hits_sum + hits
    return loss_sum / len(examples.validation), hits_sum / len(examples.validation)


def _forward(
    network: nn.Module, images: torch.Tensor, rows: torch.Tensor, examples: Examples, recipe: Recipe
) -> tuple[torch.Tensor, int]:
    """Sum of the losses over a batch, and how many it has right."""
    targets = torch.as_tensor(examples.labels[rows.numpy()], device=images.device)
    with _autocast(images.device):
        logits = network(normalize(images, **recipe.normalization)).float()
    weights = class_weights(examples.labels[examples.train], logits.shape[1])
    loss = F.cross_entropy(
        logits, targets, weights.to(images.device), label_smoothing=recipe.label_smoothing, reduction="sum"
    )
    return loss, int((logits.argmax(1) == targets).sum())


def _autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 where a GPU has it in hardware; elsewhere the numbers as they are."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def _start_phase(network: nn.Module, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    freeze(network, train=phase.train)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, phase.learning_rate, weight_decay=recipe.weight_decay)


def _save(
    checkpoint: Path, key: str, history: list[dict], best: Tensors, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write the checkpoint whole, or leave the one before."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": tensor for slot, tensor in slots.items()}
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    unfinished = checkpoint.with_name(f".{checkpoint.name}.unfinished")
    unfinished.write_bytes(to_bytes(tensors, {"key": key, "history": json.dumps(history)}))
    os.replace(unfinished, checkpoint)


def _resume(
    checkpoint: Path | None, key: str, network: nn.Module, recipe: Recipe
) -> tuple[list[dict], Tensors, torch.optim.Optimizer | None] | None:
    """History, best weights and optimizer of an unfinished run, its weights in the network; None where none fits."""
    if not (checkpoint and checkpoint.exists()):
        return None
    with safetensors.safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
        if metadata["key"] != key:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parts: dict[str, Tensors] = {"network": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    history = json.loads(metadata["history"])
    load_state(network, parts["network"])
    upcoming = next_epoch(history, recipe)
    optimizer = None
    if upcoming and upcoming[1] > 0:
        optimizer = _start_phase(network, upcoming[0], recipe)
        slots: dict[int, Tensors] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    return history, parts["best"], optimizer
