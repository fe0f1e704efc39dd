"""The training loop: every phase of a recipe, early stopping, and checkpoints to go on from."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import (
    activations,
    cards,
    checkpoints,
    compute,
    dialog,
    distributed,
    evaluation,
    heads,
    networks,
    recipes,
    stages,
)
from helpers.arrays import Array
from helpers.cards import Model
from helpers.catalog import Dataset, rows_where
from helpers.images import Examples, batches
from helpers.networks import load_state
from helpers.recipes import Loss, Phase, Recipe, learning_rate_factor, loss_function, next_epoch, rounds

_SOLVED_ROWS = 8192  # of features at once
_FIRST_SCALE = 1024.0  # of float16 gradients, at the beginning of an epoch
_CHECKPOINT_RARITY = 9  # between two, times the time that one takes to write: VGG16's last stage makes files of 2 GB

Report = Callable[[str], None]
Shared = dict[str, activations.Remembered]  # by what learns on them: "head", "last stage" or a stage's name


class _PhaseState(NamedTuple):
    """What a phase works with: the part that learns, what it is fed with, and who moves its weights."""

    phase: Phase
    network: nn.Module
    examples: Examples
    recipe: Recipe
    device: torch.device
    loss: Loss
    learning: nn.Module
    inputs: activations.Inputs | activations.Remembered
    optimizer: torch.optim.Optimizer | None


@compute.enough_memory("choose a smaller batch_size, smaller images, or let only the last stage learn")
def train(
    network: nn.Module,
    examples: Examples,
    recipe: Recipe,
    device: torch.device,
    *,
    cache: Path,
    checkpoint: Path | None = None,
    identity: str = "",
    report: Report = print,
    shared: Shared | None = None,
) -> pd.DataFrame:
    """Train in place, end with the weights of the epoch that is kept, and return the history, one row an epoch.

    Kept is the epoch with the lowest validation loss; with patience 0, the last epoch of each phase. Each phase starts
    from the weights kept so far. Losses are means over samples.
    cache: a folder for activations that memory cannot hold. checkpoint: a file written after epochs, as often as a
    tenth of the time allows, and at the end. A run that finds its own goes on from there, with the result of an
    unbroken one (on a GPU, if its kernels always give the same); identity and recipe tell whose it is.
    shared: what frozen parts give for all images, by the `train` of the phase that learns on it.
    Raises ValueError where a split or the recipe is empty, FloatingPointError where the loss is no longer a number,
    MemoryError where a GPU's memory ends.
    """
    _check(examples, recipe)
    key = checkpoints.key_of([identity, asdict(recipe)], examples)
    report = report if distributed.is_first() else dialog.quiet
    network.to(device, memory_format=compute.memory_format(device))
    state = _resume(checkpoint, key, network, report)
    history, kept, current = state.history, state.kept, None
    written, writing = -math.inf, 0.0  # when the last checkpoint was, and how long it took
    setting = activations.Setting(recipe.seed, recipe.augmentation, recipe.normalization, device, cache)
    while upcoming := next_epoch(history, recipe):
        phase, epoch = upcoming
        started = time.perf_counter()
        if current is None or current.phase != phase:
            current = None  # lets go of its activations
            if device.type == "cuda":  # and of folded networks, which hold themselves in a circle; takes half a second
                gc.collect()
            if epoch == 0:
                load_state(network, kept or network.state_dict())
            stored = (shared or {}).get(phase.train)
            current = _start(network, examples, recipe, phase, setting, report, state if epoch else None, stored)
        row = _run(current, epoch, history, started)
        history.append(row)
        if row["kept"]:
            kept = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        report(_describe(row, sum(rounds(phase) for phase in recipe.phases)))
        began = time.perf_counter()
        due = began - written >= _CHECKPOINT_RARITY * writing or not next_epoch(history, recipe)
        if checkpoint and due and distributed.is_first():
            checkpoints.save(checkpoint, key, history, kept, network, current.optimizer)
            written = time.perf_counter()
            writing = written - began
    load_state(network, kept)
    network.eval().zero_grad()
    return pd.DataFrame(history)


def _run(current: _PhaseState, epoch: int, history: list[dict], started: float) -> dict:
    """An epoch's row of the history: its figures, the seconds since it started, and whether its weights are kept."""
    phase, number = current.phase, len(history) + 1
    figures = _solve(current) if phase.train == stages.HEAD else _learn(current, epoch, number)
    row = {"epoch": number, "phase": phase.name, **figures, "seconds": time.perf_counter() - started}
    lowest = min((old["validation_loss"] for old in history), default=math.inf)
    row["kept"] = row["validation_loss"] < lowest if current.recipe.patience else epoch + 1 == rounds(phase)
    return row


def _describe(row: dict, epochs: int) -> str:
    """One line for a log: what was learned in an epoch, and whether its weights are kept."""
    return (
        f"epoch {row['epoch']:3d}/{epochs} {row['phase']:<12} loss {row['train_loss']:.3f} validation "
        f"{row['validation_loss']:.3f}  accuracy {row['train_accuracy']:.3f} validation "
        f"{row['validation_accuracy']:.3f}  {row['seconds']:5.1f} s{'  kept' if row['kept'] else ''}"
    )


def _resume(checkpoint: Path | None, key: str, network: nn.Module, report: Report) -> checkpoints.State:
    """The state of an unfinished run, its weights in the network; an empty one where there is none."""
    found = checkpoints.load(checkpoint, key) if checkpoint and distributed.is_first() else None
    state = distributed.from_first(found)  # other machines may have other disks
    if state is None:
        return checkpoints.State([], {}, {}, {})
    load_state(network, state.network)
    report(f"Going on after epoch {len(state.history)} of an earlier run")
    return state


def _check(examples: Examples, recipe: Recipe) -> None:
    remedies = {"train": "smaller validation and test fractions", "validation": "a larger validation fraction"}
    for split, remedy in remedies.items():
        if not len(getattr(examples, split)):
            raise ValueError(f"The {split} split is empty: prepare the data with {remedy}")
    if not any(rounds(phase) for phase in recipe.phases):
        raise ValueError("The recipe has no epochs: ask for copies to solve the head on, or for epochs of fine-tuning")


def seed_epoch(seed: int, number: int) -> torch.Generator:
    """Seed dropout, and return a generator for the order: an epoch's random numbers follow from seed and number."""
    torch.manual_seed(seed * 10_000 + number)
    return torch.Generator().manual_seed(seed * 10_000 + number)


def _start(
    network: nn.Module,
    examples: Examples,
    recipe: Recipe,
    phase: Phase,
    setting: activations.Setting,
    report: Report,
    resumed: checkpoints.State | None,
    stored: activations.Remembered | None,
) -> _PhaseState:
    """Freeze what does not learn and, where that pays, run it once for all epochs, if it is not stored already."""
    stored = stored and activations.of_rows(stored, examples)
    frozen, learning = stages.split(network, phase.train)
    networks.freeze(network, train=phase.train)
    classes = len(stages.head_of(network).weight)
    loss = loss_function(examples.labels[examples.train], classes, recipe.label_smoothing, setting.device)
    if phase.train == stages.HEAD:
        inputs = stored or activations.remember(frozen, examples, setting, phase.epochs, report)
        return _PhaseState(phase, network, examples, recipe, setting.device, loss, learning, inputs, None)
    if stored:
        inputs = activations.inputs_from(stored, examples, setting)
    else:
        how = {"epochs": phase.epochs, "copies": recipe.copies, "report": report}
        inputs = activations.prepare(frozen, examples, setting, **how)
    optimizer = recipes.optimizer(learning.parameters(), recipe, phase.learning_rate, setting.device)
    if resumed:
        checkpoints.restore(optimizer, resumed)
    learning = distributed.parallel(learning)
    return _PhaseState(phase, network, examples, recipe, setting.device, loss, learning, inputs, optimizer)


def _learn(current: _PhaseState, epoch: int, number: int) -> dict[str, float]:
    """Learn from all examples once and validate. Its random numbers follow from the seed and its number alone."""
    _, network, examples, recipe, device, loss, learning, inputs, optimizer = current
    labels = torch.as_tensor(examples.labels[examples.train], device=device)
    half = compute.precision(device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, _FIRST_SCALE, enabled=half)
    sums = 0
    networks.training_mode(network, keep_norms=recipe.keep_norms)
    with compute.fork_rng(device), distributed.whole_batches(network):
        order = batches(np.arange(len(labels)), recipe.batch_size, seed_epoch(recipe.seed, number))
        for step, positions in enumerate(order):
            factor = learning_rate_factor(epoch * len(order) + step, current.phase.epochs * len(order))
            optimizer.param_groups[0]["lr"] = current.phase.learning_rate * factor
            own = distributed.share(positions)
            values, truth = inputs.train(epoch, own), labels[compute.to_device(own, device)]
            with compute.autocast(learning, device, learning=True):
                logits = learning(values)
            batch_loss = loss(logits, truth)
            optimizer.zero_grad(set_to_none=True)
            # Processes average their gradients: so the sum of their parts becomes the mean over the batch.
            scaler.scale(batch_loss * distributed.processes() / len(positions)).backward()
            scaler.step(optimizer)
            scaler.update()
            sums = sums + _sums(batch_loss, logits, truth)
    figures = _figures("train", distributed.total(sums))
    learned = {"learning_rate": optimizer.param_groups[0]["lr"]} | figures | _validate(current)
    if not math.isfinite(learned["train_loss"] + learned["validation_loss"]):
        remedy = f"choose a lower {current.phase.name} learning rate"
        remedy += ', or device="cpu", for this GPU computes in float16, which ends at 65,504' if half else ""
        raise FloatingPointError(f"The loss of epoch {number} is no longer a number: {remedy}")
    return learned | {"samples": int(sums[1:].sum())}


def _validate(current: _PhaseState) -> dict[str, float]:
    """The figures of the validation examples, each counted once however many processes share them."""
    labels = torch.as_tensor(current.examples.labels[current.examples.validation], device=current.device)
    sums = 0
    current.network.eval()
    for positions in batches(np.arange(len(labels)), current.recipe.batch_size):
        own = distributed.share(positions)
        with torch.inference_mode(), compute.autocast(current.learning, current.device, learning=False):
            logits = current.learning(current.inputs.validation(own))
        truth = labels[compute.to_device(own, current.device)]
        sums = sums + _sums(current.loss(logits, truth), logits, truth)
    return _figures("validation", distributed.total(sums))


def _solve(current: _PhaseState) -> dict[str, float]:
    """Put the solved head into the network; the figures are those of the features that it was solved and chosen on."""
    head, examples = stages.head_of(current.network), current.examples
    features = {}
    for split, values in current.inputs._asdict().items():
        labels = examples.labels[getattr(examples, split)]
        copies = len(values) // len(labels)
        features[split] = heads.Features(values, torch.as_tensor(np.tile(labels, copies), device=current.device))
    solution = heads.solve(**features, classes=len(head.weight), loss=current.loss, device=current.device)
    with torch.no_grad():
        head.weight.copy_(solution.weight.view_as(head.weight))
        head.bias.copy_(solution.bias)
    figures = {"learning_rate": 0.0}
    for split, (values, labels) in features.items():
        sums = 0
        for rows in batches(np.arange(len(labels)), _SOLVED_ROWS):
            logits = solution.logits(values[rows].to(current.device))
            sums = sums + _sums(current.loss(logits, labels[rows]), logits, labels[rows])
        figures |= _figures(split, sums)
    return figures | {"samples": len(current.inputs.train)}


def _sums(loss: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(1 + C * C,) on the device, so that nothing waits: the summed loss of a batch, and its confusion matrix."""
    classes = logits.shape[1]
    exact = torch.float32 if loss.device.type == "mps" else torch.float64  # which that device does not have
    cells = truth * classes + logits.argmax(1)
    confusion = torch.zeros(classes**2, dtype=exact, device=loss.device)  # bincount would wait for its largest number
    confusion.index_add_(0, cells, torch.ones_like(cells, dtype=exact))
    return torch.cat([loss.detach()[None].to(exact), confusion])


def _figures(split: str, sums: torch.Tensor) -> dict[str, float]:
    """Loss, accuracy, and macro precision, recall and F1, all weighed by sample."""
    loss, confusion = sums[0].item(), sums[1:].cpu().numpy()
    side = math.isqrt(len(confusion))
    figures = {"loss": loss / float(confusion.sum())} | evaluation.from_confusion(confusion.reshape(side, side))
    return {f"{split}_{name}": value for name, value in figures.items()}


def fit(
    architecture: str,
    weights: str,
    dataset: Dataset,
    images: Array,
    views: list[str],
    recipe: Recipe,
    device: torch.device,
    *,
    folder: Path,
    report: Report = print,
    shared: Shared | None = None,
) -> Model:
    """A new network, trained on the images of these views, and its card.

    weights: see `networks.build`. images: (N, 3, H, W) uint8, a row for each of the data set's catalog.
    folder: for checkpoint and cache; a run that is repeated goes on from there.
    Raises ValueError for a view that the data set does not have, and what `networks.build` and `train` raise.
    """
    if unknown := set(views) - set(dataset.views or [""]):
        raise ValueError(f"No view is called {', '.join(sorted(unknown))}: there are {dataset.views}")
    torch.manual_seed(recipe.seed)
    network = networks.build(architecture, len(dataset.classes), weights)
    facts = {"views": views, "size": tuple(images.shape[2:]), "weights": weights}
    card = cards.new_card(architecture, dataset, **facts, normalization=recipe.normalization)
    labels = dataset.labels()
    rows = [rows_where(dataset.catalog, split=split, view=views) for split in ("train", "validation")]
    examples, identity = Examples(images, labels, *rows), json.dumps(card)
    key = checkpoints.key_of([identity, asdict(recipe)], examples)
    files = {"cache": folder, "checkpoint": folder / f"{key[:16]}.safetensors", "identity": identity}
    history = train(network, examples, recipe, device, **files, report=report, shared=shared)
    return Model(network, card | {"training": asdict(recipe), "history": history.to_dict("records")})
