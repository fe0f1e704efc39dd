"""Repeated grouped stratified cross-validation: every item is tested, by networks that have not seen it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from helpers import activations, calibration, dialog, evaluation, fusing, inference, networks, stages, training
from helpers.arrays import Array
from helpers.catalog import Dataset, rows_where
from helpers.images import Examples
from helpers.recipes import Recipe

_VALIDATION_PARTS = 7  # of the items that are not tested, one part validates: what learns is scarce


class Candidate(NamedTuple):
    """A way to be judged: a network for each group of views, trained the same way; see `training.fit`."""

    architecture: str
    weights: str
    groups: list[list[str]]
    recipe: Recipe


def divide(dataset: Dataset, folds: int, repeats: int, seed: int) -> list[tuple[int, int, Dataset]]:
    """(repeat, fold, data set) whose test split is that fold; of the other items a seventh validates.

    Where a label has fewer than seven groups left, as many parts are made as it has, so more validates. All images of
    an item, and of items that look the same, are in one split; every label has about its share of each.
    Raises ValueError for less than 3 folds, or more than a label has items that look different, for no repeats, and
    where items that look the same under several labels leave a label without items to learn from, or to validate, or
    a view is missing from a split.
    Source: Kohavi (1995), A Study of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection.
    """
    catalog = dataset.catalog
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be 1 or more")
    different = catalog.groupby("label")["group"].nunique()
    fewest = different.min()
    if fewest < 3:
        raise ValueError(
            f"The label {different.idxmin()!r} has {fewest} items that look different, and cross-validation needs 3 of "
            "each label: add photos, or set folds=0"
        )
    if not 3 <= folds <= fewest:
        raise ValueError(
            f"folds={folds} must be from 3 to {fewest}, as many as the rarest label has items that look different"
        )
    return list(_divisions(dataset, folds, repeats, seed))


def _divisions(dataset: Dataset, folds: int, repeats: int, seed: int) -> Iterator[tuple[int, int, Dataset]]:
    catalog = dataset.catalog
    for repeat in range(repeats):
        for fold, (others, tested) in enumerate(_parts(catalog, folds, seed + repeat)):
            rest = catalog.iloc[others]
            parts = min(_VALIDATION_PARTS, rest.groupby("label")["group"].nunique().min())
            validating = next(_parts(rest, parts, seed + repeat))[1] if parts > 1 else np.arange(0)
            split = np.full(len(catalog), "train", object)
            split[tested], split[others[validating]] = "test", "validation"
            learned = set(catalog["label"][split == "train"])
            if parts < 2 or learned != set(catalog["label"]):
                raise ValueError(
                    f"With folds={folds}, a label has too few items left to learn from, as items that look the same "
                    "have different labels: correct them, add photos, or set folds=0"
                )
            divided = catalog.assign(split=split)
            absent = divided.groupby("view")["split"].nunique() < 3
            if absent.any():
                raise ValueError(
                    f"With folds={folds}, the view {absent.idxmax()!r} is missing from a part, so few items have it: "
                    "add photos of it, take fewer folds, leave the view out, or set folds=0"
                )
            yield repeat, fold, dataset._replace(catalog=divided)


def _parts(catalog: pd.DataFrame, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return splitter.split(catalog, catalog["label"], catalog["group"])


def predictions(
    candidate: Candidate,
    dataset: Dataset,
    images: Array,
    device: torch.device,
    *,
    folds: int,
    repeats: int,
    folder: Path,
) -> pd.DataFrame:
    """What networks that had not seen them say of all images, and of items with their views fused, in every repeat.

    As `evaluation.predictions`, with columns repeat and fold. Each fold's validation items choose its temperature, its
    fusing weights, and whether mirror images are looked at, too. The frozen part's output, the backgrounds and what was
    unrolled are those of all folds' photos, computed once; labels have no part in them. folder: for a checkpoint of
    each fold, so that a run that was broken off goes on.
    """
    divisions = divide(dataset, folds, repeats, candidate.recipe.seed)
    shared, tables = _share(candidate, dataset, images, device, folder), []
    for repeat, fold, divided in divisions:
        own = folder / f"repeat-{repeat}-fold-{fold}"
        answered = _answers(candidate, divided, images, device, own, shared)
        weights, _ = fusing.choose(answered["validation"], dataset.classes, candidate.recipe.seed)
        table = fusing.with_fused(answered["test"], dataset.classes, weights)
        right = (evaluation.final(table)["label"] == evaluation.final(table)["predicted"]).mean()
        print(f"{candidate.architecture}, repeat {repeat + 1}, fold {fold + 1} of {folds}: {right:.3f} right")
        tables.append(table.assign(repeat=repeat, fold=fold))
    return pd.concat(tables, ignore_index=True)


def figures(predicted: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by view: a row for each fold of each repeat, and below them mean and spread (standard deviation).

    The spread is that of whole repeats where there are several, else that of folds.
    """
    right = predicted.assign(right=predicted["label"] == predicted["predicted"])
    each = right.groupby(["repeat", "fold", "view"], sort=False)["right"].mean().unstack()
    whole = right.groupby(["repeat", "view"], sort=False)["right"].mean().unstack()[each.columns]
    ends = pd.DataFrame({"mean": whole.mean(), "spread": (whole if len(whole) > 1 else each).std()}).T
    named = each.set_axis([f"repeat {repeat + 1}, fold {fold + 1}" for repeat, fold in each.index])
    return pd.concat([named, ends]).rename_axis(columns=None)


def _share(
    candidate: Candidate, dataset: Dataset, images: Array, device: torch.device, folder: Path
) -> training.Shared:
    """What the frozen part of each phase gives for all images, where all of it fits into memory."""
    recipe, everything = candidate.recipe, np.arange(len(images))
    torch.manual_seed(recipe.seed)
    network = networks.build(candidate.architecture, len(dataset.classes), candidate.weights).to(device)
    depths = [len(stages.split(network, phase.train)[0]) for phase in recipe.phases]
    if depths != sorted(depths, reverse=True):
        return {}  # a later phase freezes what an earlier one has changed, differently in each fold
    examples = Examples(images, np.zeros(len(images), int), everything, everything)
    setting = activations.Setting(recipe.seed, recipe.augmentation, recipe.normalization, device, folder)
    shared = {}
    for phase in recipe.phases:
        frozen, _ = stages.split(network, phase.train)
        solved = phase.train == stages.HEAD
        copies = phase.epochs if solved else activations.copies_wanted(phase.epochs, recipe.copies)
        if copies and activations.fits(frozen, examples, setting, copies):
            shared[phase.train] = activations.remember(frozen, examples, setting, copies)
    return shared


def _answers(
    candidate: Candidate,
    dataset: Dataset,
    images: Array,
    device: torch.device,
    folder: Path,
    shared: training.Shared,
) -> dict[str, pd.DataFrame]:
    """Calibrated answers for the validation and the test images of one fold, by newly trained networks."""
    architecture, weights, groups, recipe = candidate
    labels = dataset.labels()
    parts: dict[str, list[pd.DataFrame]] = {"validation": [], "test": []}
    for views in groups:
        how = {"folder": folder, "report": dialog.quiet, "shared": shared}
        model = training.fit(architecture, weights, dataset, images, views, recipe, device, **how)
        rows = {split: rows_where(dataset.catalog, split=split, view=views) for split in parts}
        truth = labels[rows["validation"]]
        look, _ = inference.looks(model, images, rows["validation"], truth, device)
        model.card["mirrored"] = look.mirrored
        tested = inference.probabilities(model, images, rows["test"], device)
        for split, given in (("validation", look.probabilities), ("test", tested)):
            sure = calibration.with_temperature(given, look.temperature)
            parts[split].append(evaluation.predictions(dataset.catalog.iloc[rows[split]], sure, dataset.classes))
    return {split: pd.concat(tables, ignore_index=True) for split, tables in parts.items()}
