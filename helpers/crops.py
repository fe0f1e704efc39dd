"""What lies before a fixed camera, cut out of its photos: found by what differs from the background.

What is cut out gets all pixels of the network's input: damage that is small in the photo is large in them, and what
lies beside it is hidden. Where things are rectangles, they are turned until they lie straight and fill the input; what
is then seen of an intact one is nearly always the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers.backgrounds import by_position, median
from helpers.cartons import Crop, Things, crop_around, find_things, inside, look_like_one_thing, look_like_rectangles
from helpers.catalog import Dataset, rows_where, spread
from helpers.images import crop_to_photo, load_images
from helpers.photos import as_text, from_text

LOOK_PX = (180, 320)  # height and width at which things are looked for
_FOR_BACKGROUND = 128  # photos of a view that its background is made of
_ROUNDS = 2  # of finding things and the background behind them, each by the other
_CHUNK = 64


class Background(TypedDict):
    """A view without anything in it, as a card keeps it: against it things are found in photos, and turned or not."""

    pictures: list[str]  # JPEGs of 180 x 320 px in base64, one for each position of the belt
    roughly: bool  # whether it is a median of many positions: the belt stops anywhere (`cartons.find_things`)
    straighten: bool  # whether things are rectangles in it, and photos are turned until theirs lies straight


def find_backgrounds(dataset: Dataset, *, forced: bool = False) -> dict[str, Background]:
    """The background of each view, from its training photos.

    A view without training photos has none, nor one where what differs between the photos does not look like one thing
    that moves (`cartons.look_like_one_thing`), unless forced; and what was unrolled has none to be cut out of.
    Photos without views are of one camera only where that is forced.
    """
    found = {}
    for view in dataset.views or [""] * forced:
        rows = rows_where(dataset.catalog, split="train", view=view)
        if not len(rows) or view in (dataset.unrolled or {}):
            continue
        some = dataset._replace(catalog=dataset.catalog.iloc[spread(rows, _FOR_BACKGROUND)])
        pixels = load_images(without_crops(some), *LOOK_PX)[:]
        usual = median(pixels)
        things = find_things(pixels, usual, roughly=True).masks
        if not (forced or look_like_one_thing(things)):
            continue
        for _ in range(_ROUNDS):
            positions = by_position(pixels, things)
            roughly = len(positions) == 0
            positions = usual if roughly else positions
            things = find_things(pixels, positions, roughly=roughly).masks
        straighten = look_like_rectangles(things, *some.catalog[["width", "height"]].median())
        pictures = [_as_text(picture) for picture in positions]
        found[view] = Background(pictures=pictures, roughly=roughly, straighten=straighten)
    return found


def with_crops(dataset: Dataset, backgrounds: dict[str, Background] | None, aspect: float) -> Dataset:
    """The data set whose catalog has a column crop, the `Crop` of each photo, as `cartons.crop_around` makes it.

    backgrounds: of `find_backgrounds`; a view without one keeps its whole photos, and without any the data set stays as
    it is. aspect: width over height of the input.
    """
    if not backgrounds:
        return dataset
    sizes, views = dataset.catalog[["width", "height"]].to_numpy(float).tolist(), dataset.catalog["view"].tolist()
    found = [Crop(0.0, 0.0, *size) for size in sizes]
    for row, mask, alone in _things(dataset, backgrounds):
        straighten = backgrounds[views[row]]["straighten"]
        found[row] = crop_around(mask, *sizes[row], aspect, straighten=straighten)._replace(alone=alone)
    return dataset._replace(catalog=dataset.catalog.assign(crop=found), backgrounds=backgrounds)


def without_crops(dataset: Dataset) -> Dataset:
    """The data set with its photos as they are."""
    return dataset._replace(catalog=dataset.catalog.drop(columns="crop", errors="ignore"), backgrounds=None)


def masks(dataset: Dataset, backgrounds: dict[str, Background], height: int, width: int) -> np.ndarray:
    """(N, height, width) bool: where the thing is in each whole photo; nowhere, where the view has no background."""
    found = np.zeros((len(dataset.catalog), height, width), bool)
    for row, mask, _ in _things(dataset, backgrounds):
        found[row] = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return found


def crop_of(photo: Image.Image, background: Background, aspect: float) -> Crop:
    """What to cut out of one photo, as `with_crops` says it for those of a data set."""
    _, things = look(photo, background)
    crop = crop_around(things.masks[0], *photo.size, aspect, straighten=background["straighten"])
    return crop._replace(alone=bool(things.alone[0]))


def look(photo: Image.Image, background: Background) -> tuple[torch.Tensor, Things]:
    """One photo as things are looked for in it, (1, 3, 180, 320) uint8, and what is found."""
    small = photo.resize(LOOK_PX[::-1], Image.Resampling.BILINEAR, reducing_gap=3)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
    return pixels, find_things(pixels, _pixels(background), roughly=background["roughly"])


def visible(catalog: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """(N, height, width) bool: what is cut out of each whole photo and not hidden; all of it, where nothing is cut out.

    catalog: as for `to_photos`.
    """
    masks = np.ones((len(catalog), height, width), bool)
    for mask, row in zip(masks, catalog.itertuples(), strict=True):
        if outline := _crop(row).outline:
            mask[:] = inside(np.array(outline) * [width / row.width, height / row.height], height, width)
    return masks


def to_photos(maps: np.ndarray, catalog: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """(N, height, width): maps (N, h, w) of what was cut out, laid where it lies in the whole photos; 0 elsewhere.

    catalog: columns crop, width and height; one without crop has maps of whole photos. The sum of a map is kept; where
    the crop is turned, but for what lies outside the photo and for rounding at the rim.
    """
    placed = np.zeros((len(maps), height, width), np.float32)
    for target, values, row in zip(placed, maps, catalog.itertuples(), strict=True):
        crop = _crop(row)
        scales = np.array([width / row.width, height / row.height])
        corners = np.reshape(crop.box, (2, 2)) * scales
        corners = corners if crop.degrees else corners.round()  # upright, each pixel then falls on one
        size = np.maximum(1, (corners[1] - corners[0]).round()).astype(int).tolist()
        picture = Image.fromarray(_averaged(values, *size[::-1]).astype(np.float32))
        crop = Crop(*(corners / scales).ravel().tolist(), crop.degrees)
        to_map = np.linalg.inv(np.diag([*scales, 1.0]) @ crop_to_photo(crop, *size[::-1]))
        affine = to_map[:2].ravel().tolist()
        laid = picture.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        target[:] = np.asarray(laid) * values.size * abs(np.linalg.det(to_map)) / np.prod(size)
    return placed


def windows(catalog: pd.DataFrame) -> np.ndarray:
    """(N, 4): left, top, right, bottom, in shares of the photo, of the part to look at: around what was cut out.

    It has the photo's own proportions and lies within it. catalog: as for `to_photos`.
    """
    found = np.zeros((len(catalog), 2, 2))
    for window, row in zip(found, catalog.itertuples(), strict=True):
        corners = crop_to_photo(_crop(row), 1, 1) @ [[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]]
        shares = (corners[:2] / [[row.width], [row.height]]).clip(0, 1)
        low, high = shares.min(1), shares.max(1)
        side = (high - low).max()
        window[0] = ((low + high - side) / 2).clip(0, 1 - side)
        window[1] = window[0] + side
    return found.reshape(-1, 4)


def _averaged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width): the mean of (h, w) values over the area of each pixel, so that all of them count the same."""
    for size in (height, width):  # the rows, then the columns as rows
        edges = np.linspace(0, len(values), size + 1)
        below = edges.astype(int).clip(max=len(values) - 1)
        sums = np.insert(values.cumsum(0, dtype=float), 0, 0, axis=0)[below] + (edges - below)[:, None] * values[below]
        values = (np.diff(sums, axis=0) * size / len(values)).T
    return values


def _crop(row: tuple) -> Crop:
    return getattr(row, "crop", Crop(0, 0, row.width, row.height))


def _things(dataset: Dataset, backgrounds: dict[str, Background]) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Row number, mask of LOOK_PX and whether the thing lies alone, for the photos of all views with a background."""
    pixels = load_images(without_crops(dataset), *LOOK_PX)
    for view, background in backgrounds.items():
        rows, positions = rows_where(dataset.catalog, view=view), _pixels(background)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            things = find_things(pixels[torch.as_tensor(chunk)], positions, roughly=background["roughly"])
            yield from zip(chunk.tolist(), things.masks, things.alone.tolist(), strict=True)


def _as_text(picture: torch.Tensor) -> str:
    pixels = picture.clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return as_text(Image.fromarray(pixels))


def _pixels(background: Background) -> torch.Tensor:
    """(K, 3, h, w)."""
    return _decoded(tuple(background["pictures"]))


@lru_cache(maxsize=16)  # views: on the line, decoding takes longer than finding the thing
def _decoded(pictures: tuple[str, ...]) -> torch.Tensor:
    opened = np.stack([np.array(from_text(picture)) for picture in pictures])
    return torch.from_numpy(opened).permute(0, 3, 1, 2).float()
