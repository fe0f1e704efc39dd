"""Photos of a fixed camera, cut out around what lies there: found by what differs from the empty view.

What is cut out gets all pixels of the network's input: damage that is small in the photo is large in them. Where things
are rectangles, what is cut out is turned, so that they lie straight and fill the input; what is then seen of an intact
one is nearly always the same.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers.cartons import carton_masks, crop_box, empty_view, look_like_one_thing, look_like_rectangles
from helpers.catalog import Dataset
from helpers.images import Crop, crop_to_photo, load_images, rows_where
from helpers.photos import encode

_LOOK_PX = (180, 320)  # height and width at which things are looked for
_FOR_EMPTY = 64  # photos of a view that its empty one is made of
_CHUNK = 64


class EmptyView(TypedDict):
    """A view without anything, as a card keeps it: by it things are found in photos, and turned or not."""

    picture: str  # a JPEG of 180 x 320 px in base64
    straighten: bool  # whether things are rectangles in it, and photos are turned until theirs lies straight


def empty_views(dataset: Dataset, *, forced: bool = False) -> dict[str, EmptyView]:
    """Each view without anything, from its training photos.

    A view without training photos has none, nor one where what differs between the photos does not look like one thing
    that moves (`cartons.look_like_one_thing`), unless forced.
    Photos without views are of one camera only where that is forced.
    """
    found = {}
    for view in dataset.views or [""] * forced:
        rows = rows_where(dataset.catalog, split="train", view=view)
        if not len(rows):
            continue
        spread = np.linspace(0, len(rows) - 1, min(_FOR_EMPTY, len(rows))).round().astype(int)  # over all labels
        some = dataset._replace(catalog=dataset.catalog.iloc[rows[spread]])
        pixels = load_images(whole(some), *_LOOK_PX)[:]
        empty = empty_view(pixels)
        masks = carton_masks(pixels, empty)
        if not (forced or look_like_one_thing(masks)):
            continue
        picture = Image.fromarray(empty.byte().permute(1, 2, 0).numpy())
        sizes = some.catalog[["width", "height"]].median()
        straighten = look_like_rectangles(masks, *sizes)
        found[view] = EmptyView(picture=base64.b64encode(encode(picture)).decode(), straighten=straighten)
    return found


def find(dataset: Dataset, empty: dict[str, EmptyView] | None, aspect: float) -> Dataset:
    """The data set whose catalog says in a column crop what to cut out, as `cartons.crop_box` says it.

    empty: of `empty_views`; a view without one keeps its whole photos, and without any the data set stays as it is.
    aspect: width over height of the input.
    """
    if not empty:
        return dataset
    sizes, views = dataset.catalog[["width", "height"]].to_numpy(float).tolist(), dataset.catalog["view"].tolist()
    boxes = [[0.0, 0.0, *size, 0.0] for size in sizes]
    for row, mask in _masks(dataset, empty):
        boxes[row] = list(crop_box(mask, *sizes[row], aspect, straighten=empty[views[row]]["straighten"]))
    return dataset._replace(catalog=dataset.catalog.assign(crop=boxes), empty=empty)


def whole(dataset: Dataset) -> Dataset:
    """The data set with its photos as they are."""
    return dataset._replace(catalog=dataset.catalog.drop(columns="crop", errors="ignore"), empty=None)


def things(dataset: Dataset, empty: dict[str, EmptyView], height: int, width: int) -> np.ndarray:
    """(N, height, width) bool: where the thing is in each whole photo; nowhere, where the view has no empty one."""
    masks = np.zeros((len(dataset.catalog), height, width), bool)
    for row, mask in _masks(dataset, empty):
        masks[row] = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return masks


def box_of(photo: Image.Image, empty: EmptyView, aspect: float) -> tuple[float, ...]:
    """What to cut out of one photo, as `find` says it for those of a data set."""
    small = photo.resize(_LOOK_PX[::-1], Image.Resampling.BILINEAR, reducing_gap=3)
    (mask,) = carton_masks(torch.from_numpy(np.array(small)).permute(2, 0, 1)[None], _pixels(empty))
    return crop_box(mask, *photo.size, aspect, straighten=empty["straighten"])


def to_photos(maps: np.ndarray, catalog: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """(N, height, width): maps (N, h, w) of what was cut out, laid where it lies in the whole photos; 0 elsewhere.

    catalog: columns crop, width and height; one without crop has maps of whole photos. The sum of a map is kept; where
    the crop is turned, but for what lies outside the photo and for rounding at the rim.
    """
    placed = np.zeros((len(maps), height, width), np.float32)
    for target, values, row in zip(placed, maps, catalog.itertuples(), strict=True):
        *corners, degrees = _crop(row)
        scales = np.array([width / row.width, height / row.height])
        corners = np.reshape(corners, (2, 2)) * scales
        corners = corners if degrees else corners.round()  # upright, each pixel then falls on one
        size = np.maximum(1, (corners[1] - corners[0]).round()).astype(int).tolist()
        picture = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX)
        crop = (*(corners / scales).ravel(), degrees)
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


def _crop(row: tuple) -> Crop:
    return getattr(row, "crop", (0, 0, row.width, row.height, 0))


def _masks(dataset: Dataset, empty: dict[str, EmptyView]) -> Iterator[tuple[int, np.ndarray]]:
    """Row number and mask of _LOOK_PX, for the photos of all views with an empty one."""
    pixels = load_images(whole(dataset), *_LOOK_PX)
    for view, without in empty.items():
        rows, nothing = rows_where(dataset.catalog, view=view), _pixels(without)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            yield from zip(chunk.tolist(), carton_masks(pixels[torch.as_tensor(chunk)], nothing), strict=True)


def _pixels(empty: EmptyView) -> torch.Tensor:
    """(3, h, w)."""
    with Image.open(io.BytesIO(base64.b64decode(empty["picture"]))) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float()
