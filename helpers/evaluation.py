"""From probabilities to figures: per class and view, and for items whose views are fused. Arrays and tables only."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from helpers import uncertainty

FUSED = "fused"


def predictions(catalog: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """One row an image: path, item, view, label, predicted, confidence, and a column of probability for each class.

    catalog: the rows predicted, in the order of probabilities (N, C).
    """
    if probabilities.shape != (len(catalog), len(classes)):
        raise ValueError(f"{probabilities.shape} probabilities for {len(catalog)} images and {len(classes)} classes")
    table = catalog[["path", "item", "view", "label"]].reset_index(drop=True)
    return _decide(table, pd.DataFrame(probabilities, columns=classes))


def fuse_views(images: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row an item, from the rows of its images: the mean of their log-probabilities, made to add up to 1.

    images: a table of `predictions`. Each view is a witness of its own, so a sure one outweighs an unsure one.
    Source: Kittler et al. (1998), On Combining Classifiers (the product rule).
    """
    logs = np.log(images[classes].clip(lower=1e-7)).groupby(images["item"]).mean()
    probabilities = np.exp(logs).div(np.exp(logs).sum(axis=1), axis=0)
    table = images.groupby("item")[["label"]].first().reset_index().assign(view=FUSED)
    return _decide(table, probabilities.loc[table["item"]].reset_index(drop=True))


def with_fused(images: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """The predictions of images, and below them those of items with all views fused, where there are views."""
    if images["view"].nunique() < 2:
        return images
    return pd.concat([images, fuse_views(images, classes)], ignore_index=True)


def scores(predicted: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """For each view: images, accuracy, and precision, recall and F1 as the mean over classes."""
    rows = []
    for view, part in predicted.groupby("view", sort=False):
        means = precision_recall_fscore_support(
            part["label"], part["predicted"], labels=classes, average="macro", zero_division=0
        )
        accuracy = accuracy_score(part["label"], part["predicted"])
        rows.append((view, len(part), accuracy, *means[:3]))
    return pd.DataFrame(rows, columns=["view", "images", "accuracy", "precision", "recall", "f1"])


def from_confusion(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 as the mean over classes, 0 where a class was never called or is absent.

    matrix: (C, C), how often each true class (row) was called each class (column).
    """
    hits, true, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision, recall, f1 = hits / called.clip(1), hits / true.clip(1), 2 * hits / (true + called).clip(1)
    means = {"precision": precision.mean(), "recall": recall.mean(), "f1": f1.mean()}
    return {"accuracy": float(hits.sum() / matrix.sum())} | {name: float(mean) for name, mean in means.items()}


def headline(predicted: pd.DataFrame, classes: list[str], seed: int) -> dict[str, float]:
    """Accuracy and mean class recall over all rows, each with the ends of its 95 % interval, and how many were tested.

    Mean class recall counts every class the same, however many images it has; the classes in the table count.
    """
    truth, called = (pd.Categorical(predicted[column], classes).codes for column in ("label", "predicted"))
    right = truth == called

    def mean_recall(rows: np.ndarray) -> float:
        counts = np.bincount(truth[rows], minlength=len(classes))
        hits = np.bincount(truth[rows], right[rows], minlength=len(classes))
        return float((hits[counts > 0] / counts[counts > 0]).mean())

    accuracy = uncertainty.wilson(right.sum(), len(right))
    recall = uncertainty.bootstrap(mean_recall, predicted["item"], seed)
    return {
        "accuracy": float(right.mean()),
        **{f"accuracy {end}": value for end, value in accuracy._asdict().items()},
        "mean class recall": mean_recall(np.arange(len(right))),
        **{f"recall {end}": value for end, value in recall._asdict().items()},
        "tested": len(right),
    }


def class_scores(predicted: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """For each view and class: precision, recall, F1, and of how many images."""
    tables = []
    for view, part in predicted.groupby("view", sort=False):
        figures = precision_recall_fscore_support(part["label"], part["predicted"], labels=classes, zero_division=0)
        table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "images"), figures, strict=True)))
        tables.append(table.assign(view=view, label=classes))
    return pd.concat(tables, ignore_index=True)[["view", "label", "precision", "recall", "f1", "images"]]


def majority_accuracy(train_labels: pd.Series, test_labels: pd.Series) -> float:
    """Accuracy of always answering the most frequent class of the train split: what any network must beat."""
    return float((test_labels == train_labels.mode()[0]).mean())


def log_loss(predicted: pd.DataFrame, classes: list[str]) -> float:
    """Mean of -log(probability of the true class), over items where their views are fused, else over images."""
    part = predicted[predicted["view"] == FUSED] if FUSED in set(predicted["view"]) else predicted
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


def _decide(table: pd.DataFrame, probabilities: pd.DataFrame) -> pd.DataFrame:
    chosen = {"predicted": probabilities.idxmax(axis=1), "confidence": probabilities.max(axis=1)}
    return pd.concat([table.assign(**chosen), probabilities], axis=1)
