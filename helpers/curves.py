"""Lines that show how figures change: over the epochs, with more images, with how sure a network is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from helpers import uncertainty
from helpers.plots import PALETTE, grid


def training(histories: dict[str, pd.DataFrame], figures: Sequence[str] = ("loss", "accuracy")) -> Figure:
    """Figures by epoch for each network: training dashed, validation solid, a dot at the epoch kept.

    histories: as `training.train` returns them.
    """
    figure, axes = grid(len(histories), len(figures), 2.6)
    for (name, history), row in zip(histories.items(), axes, strict=True):
        kept = history.loc[history["kept"]].iloc[-1]
        for axis, figure_name in zip(row, figures, strict=True):
            axis.plot(history["epoch"], history[f"train_{figure_name}"], "--", color="#888888", label="training")
            axis.plot(history["epoch"], history[f"validation_{figure_name}"], color=PALETTE[1], label="validation")
            axis.plot(kept["epoch"], kept[f"validation_{figure_name}"], "o", color=PALETTE[0], label="epoch kept")
            axis.set_xlim(0.4, len(history) + 0.6)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if history["phase"].nunique() > 1:
                _mark_phases(axis, history)
            axis.set(xlabel="epoch", ylabel=figure_name)
            axis.grid(alpha=0.25)
            if figure_name != "loss":
                axis.set_ylim(0, 1.02)
        row[0].set_title(name, loc="left", fontweight="bold")
        row[-1].legend(fontsize=8, loc="lower right")
    return figure


def accuracy_over_time(histories: dict[str, pd.DataFrame], title: str) -> Figure:
    """The validation accuracy of several networks by the seconds that their training had taken."""
    figure, axes = grid(1, 1, 3.4)
    axis = axes[0, 0]
    for index, (name, history) in enumerate(histories.items()):
        size = 4 if len(history) > 1 else 9  # a single point must not vanish behind a line
        style = {"color": PALETTE[index % len(PALETTE)], "marker": "o", "markersize": size, "label": name}
        axis.plot(history["seconds"].cumsum(), history["validation_accuracy"], **style)
    axis.set(xlabel="seconds of training", ylabel="validation accuracy", ylim=(0, 1.02), title=title, xscale="log")
    axis.xaxis.set_major_formatter(LogFormatter())  # 20 and not 2 x 10^1
    axis.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(alpha=0.25)
    return figure


def learning(
    table: pd.DataFrame, ylabel: str, title: str, fitted: Callable[[np.ndarray], np.ndarray] | None = None
) -> Figure:
    """A figure against training images a class, with its intervals, a line for each network.

    table: columns network, images, value, low, high. fitted: the value expected for numbers of images, drawn up to
    twice as many as were tried.
    """
    figure, axes = grid(1, 1, 3.6)
    axis = axes[0, 0]
    parts = list(table.groupby("network", sort=False))
    for index, (name, part) in enumerate(parts):
        aside = 1.03 ** (index - (len(parts) - 1) / 2)  # so that intervals of the same number do not hide each other
        reach = [(part["value"] - part["low"]).clip(0), (part["high"] - part["value"]).clip(0)]
        style = {"color": PALETTE[index % len(PALETTE)], "marker": "o", "capsize": 3, "label": name}
        axis.errorbar(part["images"] * aside, part["value"], reach, **style)
    if fitted:
        numbers = np.geomspace(table["images"].min(), 2 * table["images"].max(), 50)
        axis.plot(numbers, fitted(numbers), "--", color="#666666", label="fitted power law")
    ticks = sorted(set(table["images"]))
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="training images per class", ylabel=ylabel, ylim=(0, 1.02), title=title)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(alpha=0.25)
    return figure


def reliability(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """Accuracy against confidence for tables of `calibration.reliability`, two in a row; the diagonal is perfect."""
    figure, axes = grid(-(-len(tables) // 2), min(2, len(tables)), 3.6)
    figure.set_figwidth(4 * axes.shape[1])  # squares in a wide figure would lie far apart
    for axis in axes.flat[len(tables) :]:
        axis.axis("off")
    for axis, (name, table) in zip(axes.flat, tables.items(), strict=False):
        axis.plot([0, 1], [0, 1], ":", color="black")
        axis.plot(table["confidence"], table["accuracy"], "-", color=PALETTE[1])
        axis.scatter(table["confidence"], table["accuracy"], 20 + 200 * table["images"] / table["images"].sum())
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title=name, aspect="equal")
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontweight="bold")
    return figure


def costs(thresholds: pd.DataFrame, ways: pd.DataFrame, defect: str, title: str) -> Figure:
    """Cost of 1,000 items against a single threshold, and how much of the defect is found against false alarms.

    thresholds: a row for each threshold (its index), ways: a row for each way to decide (named by its index); both
    with the columns cost, found and alarms of `decisions.account`.
    """
    figure, axes = grid(1, 2, 3.6)
    cost, trade = axes[0]
    cost.plot(thresholds.index, thresholds["cost"], color=PALETTE[1], label="one threshold, no inspection")
    trade.plot(thresholds["alarms"], thresholds["found"], color=PALETTE[1], label="one threshold, no inspection")
    for index, (name, row) in enumerate(ways.iterrows()):
        color = PALETTE[(index + 2) % len(PALETTE)]
        cost.axhline(row["cost"], color=color, linestyle="--", linewidth=1.2, label=name)
        trade.plot(row["alarms"], row["found"], "o", color=color, label=name)
    cost.set(xlabel=f"threshold on the probability of {defect}", ylabel="cost of 1,000 items", xlim=(0, 1))
    cost.set_ylim(0, 1.08 * max(thresholds["cost"].max(), ways["cost"].max()))
    trade.set(xlabel=f"false alarms (share of what is not {defect})", ylabel=f"share of {defect}, found or inspected")
    trade.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    trade.legend(fontsize=8, loc="lower right")
    for axis in (cost, trade):
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontweight="bold")
    return figure


def deletion_and_insertion(curves: dict[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """The probability of the true class, not calibrated, while pixels go and while they come, most important first.

    curves: by method, both (M,) from no pixel to all of them, as the means of `faithfulness.deletion_and_insertion`,
    dashed for the method "chance".
    """
    figure, axes = grid(1, 2, 3.4)
    names = {"deletion: lower is better": "taken away", "insertion: higher is better": "put back"}
    for side, (axis, (name, done)) in enumerate(zip(axes[0], names.items(), strict=True)):
        for index, (method, both) in enumerate(curves.items()):
            share = np.linspace(0, 1, len(both[side]))
            label = f"{method}: {both[side].mean():.2f}"
            color, line = ("#888888", "--") if method == "chance" else (PALETTE[index % len(PALETTE)], "-")
            axis.plot(share, both[side], line, color=color, label=label)
        axis.set(xlabel=f"share of the pixels {done}", ylabel="probability of the true class, not calibrated")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), title=name)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, title="mean of the curve")
    figure.suptitle(title, fontweight="bold")
    return figure


def robustness(accuracy: pd.DataFrame, unfamiliar: pd.DataFrame, count: int, title: str) -> Figure:
    """Against the strength of each corruption the accuracy, with 95 % intervals, and the share that is unfamiliar.

    Both tables have a row for each kind, which gets a panel, and a column for each strength from 0 on.
    count: of items that were answered.
    """
    columns = 3
    figure, axes = grid(-(-len(accuracy) // columns), columns, 2.3)
    for axis in axes.flat[len(accuracy) :]:
        axis.axis("off")
    for axis, (kind, values) in zip(axes.flat, accuracy.iterrows(), strict=False):
        ends = [uncertainty.wilson(round(value * count), count) for value in values]
        axis.fill_between(values.index, *zip(*ends, strict=True), color=PALETTE[1], alpha=0.15, linewidth=0)
        axis.plot(values.index, values, "o-", color=PALETTE[1], markersize=4, label="accuracy")
        axis.plot(values.index, unfamiliar.loc[kind], "--", color=PALETTE[0], label="images unfamiliar")
        axis.set(ylim=(0, 1.02), title=kind, xlabel="strength (0: as it is)", ylabel="share")
        axis.set_xticks(list(values.index))
        axis.grid(alpha=0.25)
    axes.flat[0].legend(fontsize=8)
    figure.suptitle(title, fontweight="bold")
    return figure


def _mark_phases(axis: Axes, history: pd.DataFrame) -> None:
    for index, (phase, part) in enumerate(history.groupby("phase", sort=False)):
        if part["epoch"].iloc[0] > 1:
            axis.axvline(part["epoch"].iloc[0] - 0.5, color="black", linewidth=0.8, linestyle=":")
        axis.annotate(
            phase,
            (part["epoch"].iloc[0] - 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -11 * index),  # a line lower than the one before, which may last one epoch only
            textcoords="offset points",
            fontsize=8,
            va="top",
            color="#555555",
        )
