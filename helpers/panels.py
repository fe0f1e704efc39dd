"""Figures of photos: galleries, attributions laid over photos, answers beside them, from arrays and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import ImageColor
from scipy import ndimage

from helpers.plots import WIDTH, grid, note, tiles

BOX_COLOR = "#E69F00"


def gallery(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    boxes: Sequence[list[list]] = (),
    windows: Sequence[Sequence[float]] = (),
    columns: int = 4,
    title: str = "",
) -> Figure:
    """Images (H, W, 3) uint8 in a grid, each with its title, and its boxes in its own px where there are any.

    windows: (left, top, right, bottom) in shares of each image, of the part to show; all of it, if not given.
    """
    if len(images) == 0:
        return note(title or "Nothing to show")
    height, width = images[0].shape[:2]
    row_height = WIDTH / min(columns, len(images)) * height / width + 0.35
    figure, axes = tiles(len(images), columns, row_height, title)
    for index, (axis, image) in enumerate(zip(axes, images, strict=True)):
        axis.axis("off")
        axis.imshow(image)
        axis.set_title(titles[index], fontsize=9)
        for box in boxes[index] if boxes else []:
            _draw_box(axis, box)
        if len(windows):
            _show_window(axis, image, windows[index])
    return figure


def attributions(
    rows: Sequence[pd.DataFrame],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str,
    *,
    comparable: bool,
) -> Figure:
    """A row for each photo: the photo with its boxes, then the attribution of each network laid over it.

    comparable: the maps of a row have one scale, so that a network that hardly minds any pixel gets a pale map.

    rows: for each photo a table, one line a network, with columns image (H, W, 3) uint8, map (H, W), boxes in px of
    that image, and window, as for `gallery`. captions: for each photo one for each network.
    """
    columns = 1 + max(len(table) for table in rows)
    height, width = rows[0]["image"].iloc[0].shape[:2]
    figure, axes = grid(len(rows), columns, WIDTH / columns * height / width + 0.45)
    for axis in axes.flat:
        axis.axis("off")
    for table, axis_row, name, row_captions in zip(rows, axes, titles, captions, strict=True):
        axis_row[0].imshow(table["image"].iloc[0])
        axis_row[0].set_title(name, fontsize=9)
        darkest = max(_darkest(_smooth(found)) for found in table["map"]) if comparable else None
        for axis, line, caption in zip(axis_row[1:], table.itertuples(), row_captions, strict=False):
            heat(line.image, line.map, axis, darkest)
            axis.set_title(caption, fontsize=9)
        for axis, line in zip(axis_row, [*table.head(1).itertuples(), *table.itertuples()], strict=False):
            _show_window(axis, line.image, line.window)
            for box in line.boxes:
                _draw_box(axis, box)
    figure.suptitle(title, fontweight="bold")
    return figure


def answers(
    photos: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    table: pd.DataFrame,
    classes: Sequence[str],
    threshold: float,
    title: str,
) -> Figure:
    """A row for each photo (H, W, 3): the photo, its attribution (H, W) over it, and the probability of each class.

    maps: of what counted for the class with the highest probability.
    table: columns name, answer, and a probability for each class. threshold: of being sure, dotted if from 0 to 1.
    """
    figure, axes = grid(len(photos), 3, 2.5)
    rows, marked = table.to_dict("records"), 0 < threshold <= 1
    for photo, attribution, row, (picture, heated, bars) in zip(photos, maps, rows, axes, strict=True):
        picture.imshow(photo)
        picture.set_title(row["name"], fontsize=9)
        heat(photo, attribution, heated)
        heated.set_title(f"what counted for {max(classes, key=row.get)}", fontsize=9)
        for axis in (picture, heated):
            axis.axis("off")
        values = [row[label] for label in classes]
        drawn = bars.barh(classes, values, color=["black" if value == max(values) else "#AAAAAA" for value in values])
        bars.bar_label(drawn, [f"{value:.0%}" for value in values], padding=3, fontsize=9)
        if marked:
            bars.axvline(threshold, color="black", linestyle=":", linewidth=1)
        bars.invert_yaxis()
        bars.set(xlim=(0, 1.15), xlabel="probability (dotted: sure above)" if marked else "probability")
        bars.set_title(row["answer"], fontweight="bold")
    figure.suptitle(title, fontweight="bold")
    return figure


def heat(image: np.ndarray, attribution: np.ndarray, axis: Axes, darkest: float | None = None) -> Axes:
    """The attribution (H, W) over a pale gray image (H, W, 3): red where it speaks for the answer, blue against it.

    It is smoothed a little, or red and blue grain would mix to purple. darkest: the attribution that gets the full
    color; by default nearly the largest one.
    """
    drawn = _smooth(attribution)
    scale = max(_darkest(drawn) if darkest is None else darkest, 1e-12)
    axis.imshow(255 - (255 - image.mean(2)) * 0.45, cmap="gray", vmin=0, vmax=255)
    for color, values in (("Reds", drawn), ("Blues", -drawn)):
        strength = np.clip(values / scale, 0, 1)
        axis.imshow(np.ones_like(strength), cmap=color, vmin=0, vmax=1.15, alpha=strength**0.8)
    return axis


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the image (H, W, 3) with the rim of the mask (H, W) drawn into it."""
    rim = ndimage.binary_dilation(mask, iterations=max(2, image.shape[1] // 160)) & ~mask
    copy = image.copy()
    copy[rim] = ImageColor.getrgb(BOX_COLOR)
    return copy


def _smooth(attribution: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(attribution, attribution.shape[1] / 160)


def _darkest(attribution: np.ndarray) -> float:
    return np.percentile(np.abs(attribution), 99.5)


def _show_window(axis: Axes, image: np.ndarray, window: Sequence[float]) -> None:
    height, width = image.shape[:2]
    left, top, right, bottom = np.multiply(window, [width, height, width, height]) - 0.5  # where drawn pixels begin
    axis.set(xlim=(left, right), ylim=(bottom, top))


def _draw_box(axis: Axes, box: list) -> None:
    """box: name, left, top, right, bottom."""
    _, left, top, right, bottom = box
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=BOX_COLOR, linewidth=2))
