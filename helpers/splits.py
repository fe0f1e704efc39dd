"""Photos divided into train, validation and test, so that nothing of an item or its look-alikes is in two of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.checks import CORRECTED
from helpers.layouts import SPLITS


class SplitError(ValueError):
    """Photos that cannot be divided into train, validation and test; the message says what is missing."""


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise ValueError for shares of the validation and the test split that leave one of the three splits empty."""
    if not (validation_fraction > 0 and test_fraction > 0 and validation_fraction + test_fraction < 1):
        raise ValueError("validation_fraction and test_fraction must each be over 0, and together below 1")


def assign_splits(
    photos: pd.DataFrame, *, validation_fraction: float, test_fraction: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos with `split` filled, and findings on those moved from the split they came in.

    Whole groups (items with their near duplicates) are drawn at random label by label, until validation and test
    hold their fraction of each label's items. Items with boxes always go to test. Splits that the set came with
    are kept, a missing one is drawn from train; a group that stood in several goes to the one most protected.
    Raises SplitError where a label cannot be in all three splits, and ValueError for impossible fractions.
    """
    check_fractions(validation_fraction, test_fraction)
    groups = photos.groupby("group").agg(
        annotated=("annotated", "any"),
        preset=("split", lambda splits: next((name for name in reversed(SPLITS) if name in set(splits)), "")),
    )
    came_divided = set(photos["split"]) - {""}
    groups["split"] = groups["preset"].where(~groups["annotated"], "test")
    moved = photos[(photos["split"] != "") & (photos["split"] != photos["group"].map(groups["split"]))]
    generator = np.random.default_rng(seed)
    draws = (("test", test_fraction, 1 if "validation" in came_divided else 2), ("validation", validation_fraction, 1))
    for items in _items_by_label(photos):
        for split, fraction, leave in draws:
            if split in came_divided:
                continue
            from_split, wanted = "train" if came_divided else "", round(fraction * items.sum())
            groups["split"] = _filled(groups["split"], items, from_split, split, wanted, leave, generator)
    groups["split"] = groups["split"].replace("", "train")
    divided = photos.assign(split=photos["group"].map(groups["split"]))
    _check_splits(divided, moved)
    now = divided.loc[moved.index, "split"]
    reasons = [
        f"moved from {old} to {new}: its item, a copy or boxes" for old, new in zip(moved["split"], now, strict=True)
    ]
    findings = pd.DataFrame({"source": moved["source"], "problem": reasons, "action": CORRECTED})
    return divided, findings.reset_index(drop=True)


def assign_counts(photos: pd.DataFrame, *, train: int, validation: int, seed: int) -> pd.DataFrame:
    """The photos with `split` filled: so many items of each label to learn from and to choose with, the rest to test.

    Whole groups are drawn, as by `assign_splits`. Of a label with too few items at least a tenth stays for the test,
    and at most a fifth goes to validation, but to either part never less than its smallest group.
    Raises SplitError where a label cannot be in all three splits, and ValueError for counts below 1.
    """
    if train < 1 or validation < 1:
        raise ValueError(f"train and validation must be at least 1 item of each label, not {train} and {validation}")
    splits = pd.Series("test", photos["group"].unique())
    generator = np.random.default_rng(seed)
    for items in _items_by_label(photos):
        total = items.sum()
        chosen = max(min(validation, max(1, total // 5)), items.min())
        learned = min(train, total - chosen - max(1, total // 10))
        for split, wanted, leave in (("validation", chosen, 2), ("train", learned, 1)):
            splits = _filled(splits, items, "test", split, wanted, leave, generator)
    divided = photos.assign(split=photos["group"].map(splits))
    _check_splits(divided, photos.iloc[:0])
    return divided


def overlaps(catalog: pd.DataFrame, column: str) -> list[str]:
    """The values of a column, "item" or "group", that stand in more than one split: there must be none."""
    splits = catalog.groupby(column)["split"].nunique()
    return splits.index[splits > 1].tolist()


def _items_by_label(photos: pd.DataFrame) -> list[pd.Series]:
    """For each label how many of its items each group holds; one with items of two labels stands in both."""
    counts = photos.groupby(["label", "group"])["item"].nunique()
    return [counts[label] for label in sorted(photos["label"].unique())]


def _filled(
    splits: pd.Series,
    items: pd.Series,
    source: str,
    target: str,
    wanted: int,
    leave: int,
    generator: np.random.Generator,
) -> pd.Series:
    """The split of each group, some drawn out of `source` until `target` holds so many items, or its smallest group.

    items: how many of a label each group holds. leave: so many of its groups stay in `source`.
    """
    own = splits[items.index]
    free, held = items[own == source], items[own == target].sum()
    wanted = max(wanted, 0 if held else free.min())
    return splits.where(~splits.index.isin(_draw(free, wanted - held, leave, generator)), target)


def _draw(items: pd.Series, wanted: int, leave: int, generator: np.random.Generator) -> list[int]:
    """Groups at random, up to `wanted` items and all but `leave` groups; one too large for the rest is passed over."""
    drawn = []
    for group in generator.permutation(items.index.to_numpy(copy=True)):
        if items[group] <= wanted and len(drawn) < len(items) - leave:
            drawn.append(int(group))
            wanted -= items[group]
    return drawn


def _check_splits(photos: pd.DataFrame, moved: pd.DataFrame) -> None:
    """Raise SplitError where a label is not in all splits. moved: photos that had to leave the split they came in."""
    counts = photos.groupby(["label", "split"])["item"].nunique().unstack(fill_value=0)
    counts = counts.reindex(columns=SPLITS, fill_value=0)
    if len(counts) < 2:
        raise SplitError(
            f"{len(counts)} labels are left after the checks, at least 2 are needed: see the findings. Photos that "
            "cannot be read are left out. Where numbering starts again in each label, items appear under two labels "
            "and are all left out: give each a serial of its own"
        )
    short = counts[(counts == 0).any(axis=1)]
    if len(short):
        own = photos[photos["label"].isin(short.index)]
        enough = own.groupby("label")["item"].nunique() >= len(SPLITS)  # but for what looks the same
        alike = own.groupby("group")["item"].nunique().max()
        hint = f". {alike} of their items look the same: if they are different things, set group_look_alikes=False"
        twice = moved["item"].nunique()
        again = f". {twice} items stand in several splits: where numbering starts again in each, make serials unique"
        few, remedy = "3 items", "add photos"
        if own["annotated"].any():  # which are all tested
            few, remedy = "3 items, 2 of them without boxes", "add photos, remove the .xml of some items"
        raise SplitError(
            f"Too few usable items when look-alikes stay in one split:\n{short.to_string()}\n"
            f"Every label needs at least {few}: {remedy}, or leave the label out"
            + (hint if enough.any() and alike > 1 else "")
            + (again if twice else "")
        )
