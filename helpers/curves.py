"""Lines that show how figures change: over the epochs, with more images, with how sure a network is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, SymmetricalLogLocator

from helpers import uncertainty
from helpers.plots import PALETTE, grid, tiles


def lines(functions: Sequence[pd.Series], title: str) -> Figure:
    """A panel for each: its values over its index. Its name and that of its index stand at the axes."""
    figure, axes = grid(1, len(functions), 2.4)
    for axis, values in zip(axes[0], functions, strict=True):
        axis.plot(values.index, values, color=PALETTE[1])
        axis.set(xlabel=values.index.name, ylabel=values.name)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontweight="bold")
    return figure


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
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if history["phase"].nunique() > 1:
                _mark_phases(axis, history)
            axis.set(xlabel="epoch", ylabel=figure_name)
            axis.grid(alpha=0.25)
        row[0].set_title(name, loc="left", fontweight="bold")
    for column, figure_name in zip(axes.T, figures, strict=True):
        highest = max(axis.get_ylim()[1] for axis in column) if figure_name == "loss" else 1.02
        for axis in column:  # one scale, or the noise of a network that learns nothing looks like learning
            axis.set_ylim(0, highest)
    axes[0, -1].legend(fontsize=8)
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
    """A figure against training images a class, with its intervals, for each network; dots alone where a law is fitted.

    table: columns network, images, value, low, high. fitted: the value expected for numbers of images, drawn up to
    twice as many as were tried.
    """
    figure, axes = grid(1, 1, 3.6)
    axis = axes[0, 0]
    parts = list(table.groupby("network", sort=False))
    for index, (name, part) in enumerate(parts):
        aside = 1.03 ** (index - (len(parts) - 1) / 2)  # so that intervals of the same number do not hide each other
        reach = np.clip([part["value"] - part["low"], part["high"] - part["value"]], 0, None)
        style = {"color": PALETTE[index % len(PALETTE)], "marker": "o", "capsize": 3, "label": name}
        where = (part["images"] * aside).to_numpy(), part["value"].to_numpy()
        axis.errorbar(*where, reach, **style, linestyle="none" if fitted else "-")
    ticks = sorted(set(table["images"]))
    if fitted:
        ticks.append(2 * ticks[-1])
        numbers = np.geomspace(ticks[0], ticks[-1], 50)
        expected = fitted(numbers)
        axis.plot(numbers, expected, "--", color="#666666", label="fitted power law")
        axis.annotate(f"{expected[-1]:.2f}", (ticks[-1], expected[-1]), xytext=(4, 0), textcoords="offset points")
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="training images per class", ylabel=ylabel, title=title)
    axis.set_ylim(max(0, table["low"].min() - 0.05), 1.02)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(alpha=0.25)
    return figure


def reliability(tables: dict[str, pd.DataFrame], title: str, *, columns: int = 3) -> Figure:
    """Accuracy, with 95 % intervals, against confidence for tables of `calibration.reliability`, so many in a row.

    The diagonal is perfect; larger dots are of more images. Images that show one item or look the same count as one
    for the intervals.
    """
    figure, axes = tiles(len(tables), columns, 3.6, title)
    figure.set_figwidth(3.7 * min(columns, len(tables)))  # squares in a wide figure would lie far apart
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        axis.plot([0, 1], [0, 1], ":", color="black")
        right = (table["accuracy"] * table["images"]).round()
        ends = [uncertainty.wilson(*counts) for counts in zip(right, table["images"], table["different"], strict=True)]
        axis.vlines(table["confidence"], *zip(*ends, strict=True), color=PALETTE[1])
        areas = 20 + 200 * table["images"] / table["images"].sum()
        axis.scatter(table["confidence"], table["accuracy"], areas, color=PALETTE[1], clip_on=False)
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title=name, aspect="equal")
        axis.grid(alpha=0.25)
    return figure


def costs(thresholds: pd.DataFrame, ways: pd.DataFrame, defect: str, title: str) -> Figure:
    """Cost of 1,000 items against a single threshold, and how much of the defect is found against false alarms.

    thresholds: a row for each threshold (its index), ways: a row for each way to decide (named by its index); both
    with the columns cost, found and alarms of `decisions.account`.
    """
    figure, axes = grid(1, 2, 3.6)
    cost, trade = axes[0]
    cost.plot(thresholds.index, thresholds["cost"], color="black")
    trade.plot(thresholds["alarms"], thresholds["found"], color="black", label="one threshold, no inspection")
    for index, (name, row) in enumerate(ways.iterrows()):
        color, label = PALETTE[index % len(PALETTE)], f"{name}: {row['cost']:,.0f}"
        cost.axhline(row["cost"], color=color, linestyle="--", linewidth=1.5)
        ring = {"markersize": 14 - 3 * index, "markerfacecolor": "none", "markeredgewidth": 2}  # equal ones stay seen
        trade.plot(row["alarms"], row["found"], "o", color=color, label=label, **ring)
    every = pd.concat([thresholds["cost"], ways["cost"]])
    least = every[every > 0].min() if every.any() else 1.0
    cost.set_yscale("symlog", linthresh=least)  # 0 has a place on it
    cost.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=least, subs=[1, 2, 5]))
    cost.set_ylim(0 if every.min() == 0 else 0.7 * least, 1.4 * max(every.max(), least))
    cost.yaxis.set_major_formatter("{x:,.0f}")
    cost.set(xlabel=f"threshold on the probability of {defect}", ylabel="cost of 1,000 items", xlim=(0, 1))
    trade.set(xlabel=f"false alarms (share of what is not {defect})", ylabel=f"share of {defect} that is not passed")
    trade.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    trade.legend(fontsize=8, loc="lower right", title="cost of 1,000 items")
    for axis in (cost, trade):
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontweight="bold")
    return figure


def deletion_and_insertion(curves: dict[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """The probability of the true class, not calibrated, while pixels go and while they come, most important first.

    curves: by method, both (M,) from no pixel to all of them, as the means of `faithfulness.deletion_and_insertion`,
    dashed for the method "chance".
    """
    figure, axes = grid(1, 2, 4.2)
    names = {"deletion: lower is better": "taken away", "insertion: higher is better": "put back"}
    for side, (axis, (name, done)) in enumerate(zip(axes[0], names.items(), strict=True)):
        for index, (method, both) in enumerate(curves.items()):
            share = np.linspace(0, 1, len(both[side]))
            label = f"{method}: {both[side].mean():.2f}"
            color, line = ("#888888", "--") if method == "chance" else (PALETTE[index % len(PALETTE)], "-")
            axis.plot(share, both[side], line, color=color, label=label)
        axis.set(xlabel=f"share of the pixels {done}", ylabel="probability of the true class")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), title=name)
        axis.grid(alpha=0.25)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2, "frameon": False}  # hides no curve
        axis.legend(fontsize=8, title="mean of the curve", **below)
    figure.suptitle(title, fontweight="bold")
    return figure


def robustness(accuracy: pd.DataFrame, unfamiliar: pd.DataFrame, count: int, baseline: float, title: str) -> Figure:
    """Against the strength of each corruption the accuracy, with 95 % intervals, and the share that is unfamiliar.

    Both tables have a row for each kind, which gets a panel, and a column for each strength from 0 on.
    count: of the items that were answered, those that look different. baseline: the accuracy of always giving the
    most frequent answer.
    """
    columns = 3
    figure, axes = tiles(len(accuracy), columns, 2.3, title)
    for axis, (kind, values) in zip(axes, accuracy.iterrows(), strict=True):
        ends = [uncertainty.wilson(round(value * count), count) for value in values]
        axis.fill_between(values.index, *zip(*ends, strict=True), color=PALETTE[1], alpha=0.15, linewidth=0)
        axis.plot(values.index, values, "o-", color=PALETTE[1], markersize=4, label="accuracy of items")
        axis.plot(values.index, unfamiliar.loc[kind], "--", color=PALETTE[0], label="unfamiliar images")
        axis.axhline(baseline, color="black", linestyle=":", label="most frequent class")
        axis.set(ylim=(0, 1.02), title=kind)
        axis.set_xticks(list(values.index))
        axis.grid(alpha=0.25)
    for axis in axes[-columns:]:
        axis.set_xlabel("strength (0: as it is)")
    for axis in axes[::columns]:
        axis.set_ylabel("share")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _mark_phases(axis: Axes, history: pd.DataFrame) -> None:
    for phase, part in history.groupby("phase", sort=False):
        if part["epoch"].iloc[0] > 1:
            axis.axvline(part["epoch"].iloc[0] - 0.5, color="black", linewidth=0.8, linestyle=":")
        place = {"transform": axis.get_xaxis_transform(), "rotation": 90, "va": "bottom", "fontsize": 8}
        axis.text(part["epoch"].iloc[0] - 0.5, 0.03, phase, color="#555555", **place)
