"""Figures of counts and scores: each function draws one from plain tables and arrays, and returns it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.metrics import confusion_matrix

from helpers.layouts import SPLITS

PALETTE = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]  # Okabe and Ito
WIDTH = 11  # inches of every figure
SPLIT_COLORS = dict(zip(SPLITS, ("#444444", "#888888", "#C4C4C4"), strict=True))
_LONGEST = 20  # letters of all labels side by side, below a confusion matrix
_REGION_LOOKS = {
    "damage box": {"fmt": "D", "color": PALETTE[0]},
    "carton": {"fmt": "o", "color": PALETTE[1]},
    "belt": {"fmt": "s", "color": "#888888"},
}


def grid(rows: int, columns: int, row_height: float) -> tuple[Figure, np.ndarray]:
    """A figure that is shown where it is returned, and not a second time at the end of the cell."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, row_height * rows + 0.3), squeeze=False, layout="constrained"
    )
    plt.close(figure)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def tiles(count: int, most_columns: int, row_height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of one size, row by row, and these panels."""
    columns = min(most_columns, count)
    figure, axes = grid(math.ceil(count / columns), columns, row_height)
    for axis in axes.flat[count:]:
        axis.axis("off")
    figure.suptitle(title, fontweight="bold")
    return figure, list(axes.flat[:count])


def note(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, axes = grid(1, 1, 0.6)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center")
    return figure


def split_counts(catalog: pd.DataFrame) -> Figure:
    """Images of each class (and view) in each split, a bar for each, its splits on each other."""
    groups = (
        catalog.groupby(["label", "view", "split"]).size().unstack(fill_value=0).reindex(columns=SPLITS, fill_value=0)
    )
    names = [f"{label}\n{view}".strip() for label, view in groups.index]
    figure, axes = grid(1, 1, 3.4 if len(names) <= 12 else 4.2)
    axis = axes[0, 0]
    left = np.zeros(len(names))
    for split in SPLITS:
        bars = axis.bar(names, groups[split], bottom=left, color=SPLIT_COLORS[split], label=split, edgecolor="white")
        if len(names) <= 24:
            axis.bar_label(bars, label_type="center", fontsize=9, color="white" if split == "train" else "black")
        left += groups[split].to_numpy()
    axis.tick_params("x", rotation=90 if len(names) > 12 else 0)
    axis.set(ylabel="images", title=f"{len(catalog)} images of {catalog['item'].nunique()} items in three splits")
    axis.legend(title="split", loc="upper left", bbox_to_anchor=(1, 1), reverse=True)  # as they lie on each other
    return figure


def confusions(predicted: pd.DataFrame, classes: Sequence[str], title: str) -> Figure:
    """One confusion matrix a view: rows are the truth, columns the answer; numbers are images (fused: items)."""
    views = list(dict.fromkeys(predicted["view"]))
    figure, axes = grid(1, len(views), 3.2 if len(classes) <= 6 else 8)
    for axis, view in zip(axes[0], views, strict=True):
        part = predicted[predicted["view"] == view]
        matrix = confusion_matrix(part["label"], part["predicted"], labels=list(classes))
        confusion(matrix, classes, axis)
        axis.set_title(f"{view}: {np.trace(matrix)} of {matrix.sum()} right".removeprefix(": "))
    figure.suptitle(title, fontweight="bold")
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], axis: Axes) -> Axes:
    """A confusion matrix (C, C) on given axes: darker is a larger share of the true class, and mistakes are orange."""
    shares, right = matrix / matrix.sum(1, keepdims=True).clip(1), np.eye(len(classes), dtype=bool)
    axis.imshow(np.where(right, shares, np.nan), cmap="Greys", vmin=0, vmax=1.3)
    axis.imshow(np.where(right, np.nan, shares**0.5), cmap="Oranges", vmin=0, vmax=1.3)  # the root shows rare ones
    ticks = range(len(classes))
    axis.set_xticks(ticks, classes, rotation=90 if len("".join(classes)) > _LONGEST else 0)
    axis.set_yticks(ticks, classes)
    axis.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 12:
        for row, column in np.ndindex(matrix.shape):
            color = "white" if row == column and shares[row, column] > 0.8 else "black"
            axis.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontweight="bold")
    return axis


def ways_to_learn(stages: int, frozen: int) -> Figure:
    """What learns and what is frozen: from scratch, feature extraction, fine-tuning.

    stages: of the body. frozen: how many of them stay frozen in fine-tuning.
    """
    ways = {
        "from scratch": ["random"] * (stages + 1),
        "feature extraction": ["frozen"] * stages + ["solved"],
        "fine-tuning": ["frozen"] * frozen + ["learned"] * (stages - frozen + 1),
    }
    looks = {
        "random": (PALETTE[0], "starts from random numbers, learns"),
        "solved": (PALETTE[3], "new, solved"),
        "learned": (PALETTE[5], "keeps learning, from ImageNet or its solution"),
        "frozen": ("#DDDDDD", "from ImageNet, frozen"),
    }
    figure, axes = grid(1, 1, 3.2)
    axis = axes[0, 0]
    for row, parts in enumerate(ways.values()):
        for column, part in enumerate(parts):
            axis.barh(row, 0.9, left=column, height=0.6, color=looks[part][0], edgecolor="black", linewidth=0.8)
            label = "head" if column == stages else f"stage {column + 1}"
            axis.text(column + 0.45, row, label, ha="center", va="center", fontsize=9)
    axis.set_yticks(range(len(ways)), list(ways))
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    handles = [Patch(facecolor=color, edgecolor="black", label=text) for color, text in looks.values()]
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False)
    axis.set_title("The image goes in at the left, the classes come out at the right")
    return figure


def gains(before: pd.Series, after: pd.Series, count: int, title: str) -> Figure:
    """The classes whose recall (0 to 1, by class) gained most and least, a line from before to after each.

    The names of both series stand in the legend.
    """
    order = (after - before).sort_values(ascending=False, kind="stable").index
    shown = order if len(order) <= 2 * count else order[:count].append(order[-count:])
    figure, axes = grid(1, 1, 0.28 * len(shown) + 0.8)
    axis = axes[0, 0]
    for row, label in enumerate(shown):
        axis.plot([before[label], after[label]], [row, row], color="#BBBBBB", linewidth=3, zorder=1)
    axis.scatter(before[shown], range(len(shown)), color=PALETTE[0], label=before.name, zorder=2)
    axis.scatter(after[shown], range(len(shown)), color=PALETTE[2], marker="D", label=after.name, zorder=2)
    if len(shown) < len(order):
        axis.axhline(count - 0.5, color="black", linestyle=":", linewidth=1)  # the classes between are left out
    axis.set_yticks(range(len(shown)), shown)
    axis.invert_yaxis()
    axis.set(xlim=(-0.03, 1.03), xlabel="recall", title=title)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def accuracies(table: pd.DataFrame, baseline: float) -> Figure:
    """Test accuracy by view for each network with its interval, against always answering the most frequent class.

    table: columns network, view, accuracy, accuracy low, accuracy high.
    """
    networks, views = list(dict.fromkeys(table["network"])), list(dict.fromkeys(table["view"]))
    figure, axes = grid(1, 1, 0.35 * len(table) + 0.8)
    axis = axes[0, 0]
    axis.axvline(baseline, color="black", linestyle=":")
    axis.text(baseline, -0.6, " most frequent class", fontsize=9)
    for row in table.to_dict("records"):
        index = networks.index(row["network"])
        place = views.index(row["view"]) + (index - (len(networks) - 1) / 2) * 0.8 / len(networks)
        value, color = row["accuracy"], PALETTE[(index + 1) % len(PALETTE)]
        reach = [[value - row["accuracy low"]], [row["accuracy high"] - value]]
        axis.errorbar(value, place, xerr=reach, fmt="o", color=color)
        axis.text(row["accuracy high"] + 0.01, place, f"{value:.2f} {row['network']}", va="center", fontsize=9)
    axis.set_yticks(range(len(views)), [view or "all" for view in views])
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.spines["bottom"].set_bounds(0, 1)
    axis.set(xlim=(0, 1.3), ylim=(len(views) - 0.4, -0.6), xlabel="accuracy, with 95 % interval")
    axis.set_title("Test accuracy by view", pad=14)
    return figure


def region_times(summary: pd.DataFrame, title: str) -> Figure:
    """How many times the attribution that chance would put there each region has, with its interval, by method.

    A panel for each network and view. summary: of `regions.summary`, by method, network, view and region.
    """
    if summary.empty:
        return note("No region is known: neither damage boxes nor a camera that stands still")
    parts, methods = summary.groupby(["network", "view"], sort=False), list(dict.fromkeys(summary["method"]))
    figure, axes = tiles(len(parts), 2, 0.3 * len(methods) + 0.8, title)
    for ((name, view), part), axis in zip(parts, axes, strict=True):
        for region, own in part.groupby("region", sort=False):
            aside = 0.22 * (list(_REGION_LOOKS).index(region) - 1)
            places = [methods.index(method) + aside for method in own["method"]]
            reach = [(own["times"] - own["times low"]).clip(0), (own["times high"] - own["times"]).clip(0)]
            axis.errorbar(own["times"], places, xerr=reach, label=region, markersize=5, **_REGION_LOOKS[region])
        axis.axvline(1, color="black", linestyle=":")
        axis.set_yticks(range(len(methods)), methods)
        axis.set(
            xlim=(0, 1.03 * max(1.1, summary[["times", "times high"]].max(axis=None))), ylim=(len(methods) - 0.4, -0.6)
        )
        axis.set(title=", ".join(filter(None, (name, view))), xlabel="times the attribution of chance")
    handles = {name: drawn for axis in axes for drawn, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure
