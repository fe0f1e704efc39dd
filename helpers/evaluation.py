"""From probabilities to figures: per class and view, and for items whose views are fused. Arrays and tables only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from helpers import uncertainty
from helpers.layouts import FUSED

Result = TypeVar("Result")


def predictions(catalog: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """One row an image: path, item, group, view, label, predicted, confidence, and each class's probability.

    catalog: the rows predicted, in the order of probabilities (N, C). Items that look the same are of one group.
    """
    if probabilities.shape != (len(catalog), len(classes)):
        raise ValueError(f"{probabilities.shape} probabilities for {len(catalog)} images and {len(classes)} classes")
    table = catalog[["path", "item", "group", "view", "label"]].reset_index(drop=True)
    return with_answers(table, probabilities, classes)


def with_answers(table: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """The table with the most probable class as predicted, its probability as confidence, and all probabilities."""
    each = pd.DataFrame(probabilities, columns=classes)
    return pd.concat([table.assign(predicted=each.idxmax(axis=1), confidence=each.max(axis=1)), each], axis=1)


def scores(predicted: pd.DataFrame, classes: list[str], seed: int) -> pd.DataFrame:
    """For each view: accuracy, and precision, recall and F1 as the mean over classes, each with its 95 % interval.

    By bootstrap over groups, for what looks the same is answered the same; the accuracy of groups of one by Wilson, and
    that of others no narrower than Wilson's for as many cases as there are groups: a bootstrap of no mistakes has none.
    Columns view, tested (how many), and for each figure itself and its ends, as in "f1", "f1 low", "f1 high".
    """
    rows = []
    for view, part in predicted.groupby("view", sort=False):
        right = (part["label"] == part["predicted"]).sum()
        figures = from_confusion(confusion_matrix(part["label"], part["predicted"], labels=classes))
        values = _of_rows(part, classes, lambda matrix: np.array([*from_confusion(matrix).values()]))
        drawn = uncertainty.bootstrap(values, part["group"], seed)
        # Rounds that draw nothing of a rare class leave it out of the mean, which may push both ends past the figure.
        own = [*figures.values()]
        low, high = np.minimum(drawn.low, own), np.maximum(drawn.high, own)
        ends = {name: uncertainty.Interval(*pair) for name, *pair in zip(figures, low, high, strict=True)}
        ends["accuracy"] = _share_ends(right, part["group"], ends["accuracy"])
        rows.append({"view": view, "tested": len(part)} | _columns(figures, ends))
    return pd.DataFrame(rows)


def headline(predicted: pd.DataFrame, classes: list[str], seed: int) -> dict[str, float]:
    """The figures of `scores` over all rows, whatever their view. The recall is the mean class recall of papers."""
    return scores(predicted.assign(view=""), classes, seed).drop(columns="view").to_dict("records")[0]


def from_confusion(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 as the mean over the classes that they are defined for.

    matrix: (C, C), how often each true class (row) was called each class (column). Where a class stands in neither it
    has no figures, and where nothing is of it no recall; the precision of one that was never called counts as 0.
    """
    means = {name: float(np.nanmean(values)) for name, values in _by_class(matrix).items()}
    return {"accuracy": float(np.diag(matrix).sum() / matrix.sum())} | means


def class_scores(predicted: pd.DataFrame, classes: list[str], seed: int) -> pd.DataFrame:
    """For each view and class: precision, recall and F1, each with its 95 % interval, and of how many images.

    A figure that is not defined for a class is NaN, with the interval 0 to 1.
    """
    rows = []
    for view, part in predicted.groupby("view", sort=False):
        matrix = confusion_matrix(part["label"], part["predicted"], labels=classes)
        hits, true = np.diag(matrix), matrix.sum(1)
        figures = _by_class(matrix)
        values = _of_rows(part, classes, lambda matrix: np.array([*_by_class(matrix).values()]))
        drawn = np.stack(uncertainty.bootstrap(values, part["group"], seed), -1)  # (3, C, 2)
        drawn = np.where(np.isnan(drawn), [0.0, 1.0], drawn)
        for number, label in enumerate(classes):
            ends = {name: uncertainty.Interval(*own[number]) for name, own in zip(figures, drawn, strict=True)}
            for name, column in (("precision", "predicted"), ("recall", "label")):
                ends[name] = _share_ends(hits[number], part.loc[part[column] == label, "group"], ends[name])
            own = {name: values[number] for name, values in figures.items()}
            rows.append({"view": view, "label": label} | _columns(own, ends) | {"images": true[number]})
    return pd.DataFrame(rows)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table for reading: each figure with its ends, where it has any, in one column: "0.87 (0.76 to 0.94)"."""
    shown = table.copy()
    for name in [name for name in table if f"{name} low" in table]:
        columns = zip(table[name], table[f"{name} low"], table[f"{name} high"], strict=True)
        shown[name] = [
            f"{value:.2f}" + (f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else "") for value, low, high in columns
        ]
        shown = shown.drop(columns=[f"{name} low", f"{name} high"])
    return shown


def majority_accuracy(train_labels: pd.Series, test_labels: pd.Series) -> float:
    """Accuracy of always answering the most frequent class of the train split: what any network must beat."""
    return float((test_labels == train_labels.mode()[0]).mean())


def final(predicted: pd.DataFrame) -> pd.DataFrame:
    """The answers that count: of items where their views are fused, else of images."""
    return predicted[predicted["view"] == FUSED] if FUSED in set(predicted["view"]) else predicted


def log_loss(predicted: pd.DataFrame, classes: list[str]) -> float:
    """Mean of -log(probability of the true class), over items where their views are fused, else over images."""
    part = final(predicted)
    columns = [classes.index(label) for label in part["label"]]
    return float(-np.log(part[classes].to_numpy()[np.arange(len(part)), columns].clip(1e-7)).mean())


def confused_pairs(predicted: pd.DataFrame) -> pd.DataFrame:
    """How often each class was called another one, most often first: columns label, predicted, images, share.

    share: of the images of that class.
    """
    wrong = predicted[predicted["label"] != predicted["predicted"]]
    table = wrong.groupby(["label", "predicted"]).size().rename("images").reset_index()
    table["share"] = table["images"] / table["label"].map(predicted["label"].value_counts())
    return table.sort_values("images", ascending=False, kind="stable").reset_index(drop=True)


def worst_mistakes(predicted: pd.DataFrame, count: int) -> pd.DataFrame:
    """The images (not the fused items) that were called wrong most surely, surest first."""
    wrong = predicted[(predicted["label"] != predicted["predicted"]) & (predicted["view"] != FUSED)]
    return wrong.sort_values("confidence", ascending=False, kind="stable").head(count)


def contradicted(predicted: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """The images (not the fused items) whose label the network contradicts most, worst first: to be looked at again.

    predicted: answers by networks that have not learned from these images, as of `crossvalidation.predictions`; the
    mean counts where an image has several. An image is confidently of a class where it has at least the mean
    probability that this class has among the images labeled so; it counts where it is likelier than the label. Columns
    path, item, view, label, suggested, probability (of the label), and margin: the probability of what is suggested
    less that of the label.
    Source: Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels.
    """
    facts = ["path", "item", "view", "label"]
    images = predicted[predicted["view"] != FUSED].groupby(facts, sort=False)[classes].mean().reset_index()
    usual = {label: images.loc[images["label"] == label, label].mean() for label in classes}
    confident = images[classes].where(images[classes] >= pd.Series(usual))
    images = images[confident.notna().any(axis=1)].copy()
    images["suggested"] = confident.loc[images.index].idxmax(axis=1)
    images["probability"] = [row[row["label"]] for _, row in images.iterrows()]
    images["margin"] = [row[row["suggested"]] - row[row["label"]] for _, row in images.iterrows()]
    found = images[images["margin"] > 0].sort_values("margin", ascending=False, kind="stable")
    return found[[*facts, "suggested", "probability", "margin"]].reset_index(drop=True)


def _of_rows(
    predicted: pd.DataFrame, classes: list[str], figure: Callable[[np.ndarray], Result]
) -> Callable[[np.ndarray], Result]:
    """A figure of the confusion matrix, as a function of row numbers of the table."""
    truth, called = (pd.Categorical(predicted[column], classes).codes for column in ("label", "predicted"))
    cells = truth.astype(int) * len(classes) + called

    def of_rows(rows: np.ndarray) -> Result:
        counts = np.bincount(cells[rows], minlength=len(classes) ** 2)
        return figure(counts.reshape(len(classes), len(classes)))

    return of_rows


def _by_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """(C,) each: precision, recall and F1 of every class, NaN where it has none; see `from_confusion`."""
    hits, true, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    seen = true + called > 0
    return {
        "precision": np.where(seen, hits / called.clip(1), np.nan),
        "recall": np.where(true > 0, hits / true.clip(1), np.nan),
        "f1": np.where(seen, 2 * hits / (true + called).clip(1), np.nan),
    }


def _share_ends(hits: int, groups: pd.Series, drawn: uncertainty.Interval) -> uncertainty.Interval:
    """Of the share of hits among cases of these groups; see `scores`. Of a share of nothing we know nothing."""
    if groups.empty:
        return uncertainty.Interval(0.0, 1.0)
    ends = uncertainty.wilson(hits, len(groups), groups.nunique())
    return ends if groups.is_unique else uncertainty.Interval(min(ends.low, drawn.low), max(ends.high, drawn.high))


def _columns(figures: dict[str, float], ends: dict[str, uncertainty.Interval]) -> dict[str, float]:
    """Each figure, and behind it its ends, by name."""
    table = {}
    for name, value in figures.items():
        table |= {name: float(value), f"{name} low": float(ends[name].low), f"{name} high": float(ends[name].high)}
    return table
