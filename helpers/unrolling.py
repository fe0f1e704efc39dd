"""Boxes of one kind, unrolled: a further view, which shows how each differs from the others.

The faces that the camera sees are drawn side by side, each as if seen from straight ahead. Then all boxes show the same
print at the same place, and what is left without their median is damage, and what is printed on each box alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers import boxes, catalog, crops
from helpers.archives import Archive, threaded
from helpers.catalog import Dataset, rows_where, spread
from helpers.images import HIDDEN
from helpers.layouts import composed
from helpers.photos import as_text, decode, encode, from_text

SUFFIX = " unrolled"  # of the new view's name
_FOR_FIT, _FEWEST = 64, 40  # training photos that a kind of boxes is learned from
_FOR_MEDIAN = 128  # of the unrolled: with 32 photos, four in a hundred answers more were wrong (docs/log.md)
_LEAST_FOUND = 0.9  # of these photos, in which a box of that kind is found
_FACE_PX = 320  # height and width of each face in the picture, margins included
_MARGIN = 0.08  # of a face's height and width, seen around it
_SHARE = (1 + 2 * _MARGIN) / _FACE_PX  # of the face, in a pixel
_TO_FACE = np.array([[_SHARE, 0, -_MARGIN], [0, _SHARE, -_MARGIN], [0, 0, 1]])  # from px to shares of the face
_CORNERS = _FACE_PX * np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)  # from the top left on, clockwise
_BATCH = 16  # photos at once
_HIGHEST_COST = 0.45  # of a box of that kind, see `boxes.Found`
_LEAST_BOX_PX = 4  # height and width that a damage box keeps, or is left out


class Unrolling(TypedDict):
    """How the photos of a view are unrolled, as a card keeps it."""

    view: str  # that is unrolled
    background: crops.Background  # against which boxes are found
    box: boxes.Box
    usual: str  # what they show as a rule: a JPEG of 320 x (320 * faces) px in base64


def learn(dataset: Dataset) -> dict[str, Unrolling]:
    """By the name of the new view, for each view whose training photos show boxes of one kind, and two faces or more.

    Labels have no part in it. A view is left as it is where fewer than 40 of 64 training photos show a thing, or the
    box is not found in nine of ten. Photos without views are not unrolled.
    """
    found = {}
    for view, background in crops.find_backgrounds(dataset).items():
        if view + SUFFIX in dataset.views:
            continue
        with Archive(dataset.path) as archive:
            some = _some(dataset, view, _FOR_FIT)
            photos = [decode(archive.read(path), path)[0] for path in some["path"]]
            pixels, masks, seen = _looked(photos, background)
            box = boxes.fit(pixels, masks, _stretch(photos)) if len(seen) >= _FEWEST else None
            if not box:
                continue
            unrolling = Unrolling(view=view, background=background, box=box, usual="")
            some = _some(dataset, view, _FOR_MEDIAN)
            pictures = [_drawn(photo, faces)[0] for _, photo, faces in _unrollable(archive, some, unrolling)]
        if len(pictures) >= _LEAST_FOUND * len(some):
            usual = Image.fromarray(np.median(pictures, 0).round().astype(np.uint8))
            found[view + SUFFIX] = unrolling | {"usual": as_text(usual)}
    return found


def add(dataset: Dataset, unrollings: dict[str, Unrolling], progress: Callable[[Iterable], Iterable] = iter) -> Dataset:
    """Write the `data.zip` anew, with a picture more for each photo in which a box of its view's kind is found.

    Raises PhotoError and ArchiveError where a photo can no longer be read, OSError where the file cannot be written.
    """
    if not unrollings:
        return dataset

    def pictures() -> Iterator[tuple[dict, bytes]]:
        with Archive(dataset.path) as archive:
            for view, unrolling in unrollings.items():
                for row, photo, faces in _unrollable(archive, dataset.catalog, unrolling, progress):
                    yield _entry(row._asdict(), photo, faces, view, unrolling)

    return catalog.extend(dataset, pictures(), views=sorted([*dataset.views, *unrollings]), unrolled=unrollings)


def unroll(photos: Sequence[Image.Image], unrolling: Unrolling) -> list[Image.Image | None]:
    """What `add` makes of photos, shrunk to the data set's size before; None where no box of that kind is found.

    A dozen at once take a third of the time that they take one by one.
    """
    found = zip(photos, _faces(photos, unrolling), strict=True)
    return [None if faces is None else _difference(photo, faces, unrolling) for photo, faces in found]


def renamed(name: str, view: str) -> str:
    """The name of what was unrolled: serial_side.jpg becomes "serial_side unrolled.jpg", and so do folders `side`."""
    path, view = PurePosixPath(composed(name)), composed(view)
    folders = [part + SUFFIX if part.lower() == view.lower() else part for part in path.parts[:-1]]
    stem = path.stem + SUFFIX if path.stem.lower().endswith(f"_{view}".lower()) else path.stem
    return PurePosixPath(*folders, f"{stem}{path.suffix}").as_posix()


def _some(dataset: Dataset, view: str, count: int) -> pd.DataFrame:
    """The rows of at most that many training photos of a view."""
    return dataset.catalog.iloc[spread(rows_where(dataset.catalog, split="train", view=view), count)]


def _stretch(photos: Sequence[Image.Image]) -> float:
    """How much higher photos are, for their width, than as they are looked at: most of them, if they differ."""
    height, width = crops.LOOK_PX
    return float(np.median([photo.height / photo.width for photo in photos]) * width / height)


def _looked(photos: Sequence[Image.Image], background: crops.Background) -> tuple[torch.Tensor, np.ndarray, list[int]]:
    """Pixels (M, 3, h, w), masks (M, h, w) and numbers of the photos in which something is found."""
    looked = [crops.look(photo, background) for photo in photos]
    seen = [number for number, (_, things) in enumerate(looked) if things.masks.any()]
    pixels = torch.cat([looked[number][0] for number in seen] or [torch.empty(0)])
    return pixels, np.concatenate([looked[number][1].masks for number in seen] or [np.empty(0)]), seen


def _unrollable(
    archive: Archive, table: pd.DataFrame, unrolling: Unrolling, progress: Callable[[Iterable], Iterable] = iter
) -> Iterator[tuple[NamedTuple, Image.Image, np.ndarray]]:
    """Row, photo and faces (F, 3, 3) of the photos of that view in which a box of that kind is found."""
    rows = progress(list(table[table["view"] == unrolling["view"]].itertuples(index=False)))
    photos = threaded(lambda row: (row, decode(archive.read(row.path), row.path)[0]), rows)
    while batch := list(islice(photos, _BATCH)):
        for (row, photo), faces in zip(batch, _faces([photo for _, photo in batch], unrolling), strict=True):
            if faces is not None:
                yield row, photo, faces


def _entry(row: dict, photo: Image.Image, faces: np.ndarray, view: str, unrolling: Unrolling) -> tuple[dict, bytes]:
    """Row of the catalog and JPEG bytes of an unrolled photo, from the photo's own row."""
    picture = _difference(photo, faces, unrolling)
    facts = {"path": renamed(row["path"], row["view"]), "view": view, "boxes": _unrolled_boxes(row["boxes"], faces)}
    return row | facts | {"width": picture.width, "height": picture.height}, encode(picture)


def _faces(photos: Sequence[Image.Image], unrolling: Unrolling) -> list[np.ndarray | None]:
    """(F, 3, 3) for each: what takes (x, y, 1) of each face's square, in px of the picture, to px of the photo."""
    pixels, masks, seen = _looked(photos, unrolling["background"])
    faces: list[np.ndarray | None] = [None] * len(photos)
    if seen:
        height, width = crops.LOOK_PX
        for number, own, cost in zip(seen, *boxes.find(pixels, masks, unrolling["box"]), strict=True):
            if cost <= _HIGHEST_COST:
                to_photo = np.diag([photos[number].width / width, photos[number].height / height, 1])
                faces[number] = to_photo @ own @ _TO_FACE
    return faces


def _drawn(photo: Image.Image, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces side by side, (320, 320 * F, 3) uint8, and what of them the photo shows, (320, 320 * F) bool."""
    known = Image.new("L", photo.size, 255)
    pictures, shown = [], []
    for face in faces:
        across, down = finer = _finer(face, max(photo.size) / _FACE_PX)
        fine = _seen_from_ahead(photo, face, Image.Resampling.BICUBIC, across, down)
        pictures.append(np.asarray(fine.reduce(finer)))
        inside = _seen_from_ahead(known, face, Image.Resampling.NEAREST, across, down).reduce(finer)
        shown.append((np.asarray(inside) == 255) & _is_towards_the_camera(face))  # beyond the photo all is black
    return np.concatenate(pictures, 1), np.concatenate(shown, 1)


def _finer(face: np.ndarray, most: float) -> tuple[int, int]:
    """How many times finer, across and down, a face is drawn, because drawing takes single pixels, and skips some.

    most: as many as show all of the photo; a face that is seen along its own plane reaches far beyond.
    """
    corners = _places(_CORNERS, face)
    sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1) / _FACE_PX
    top, right, bottom, left = sides.clip(1, max(1, most)).round().astype(int).tolist()
    return max(top, bottom), max(left, right)


def _seen_from_ahead(
    photo: Image.Image, face: np.ndarray, how: Image.Resampling, across: int, down: int
) -> Image.Image:
    """The face, of 320 x 320 px, and so many times more of them across and down."""
    fine = face @ np.diag([1 / across, 1 / down, 1])
    size, numbers = (across * _FACE_PX, down * _FACE_PX), (fine / fine[2, 2]).ravel()[:8].tolist()
    return photo.transform(size, Image.Transform.PERSPECTIVE, numbers, how)


def _difference(photo: Image.Image, faces: np.ndarray, unrolling: Unrolling) -> Image.Image:
    """The unrolled photo without what all show: what is as usual, or not seen in the photo, has the color HIDDEN."""
    picture, known = _drawn(photo, faces)
    picture, usual, some = picture.astype(np.float32), _usual(unrolling["usual"]), known[::4, ::4]
    light = np.median((usual[::4, ::4][some] + 1) / (picture[::4, ::4][some] + 1), 0)
    apart = np.where(known[..., None], (picture + 1) * light - 1 - usual, 0)
    return Image.fromarray((apart + HIDDEN).clip(0, 255).round().astype(np.uint8))


def _unrolled_boxes(damage: list[list], faces: np.ndarray) -> list[list]:
    """Damage boxes (name, left, top, right, bottom) of a photo where they lie in the picture, on each face seen."""
    found = []
    for name, left, top, right, bottom in damage:
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
        for number, face in enumerate(faces):
            if not _is_towards_the_camera(face):
                continue
            places = _places(corners, np.linalg.inv(face)).clip(0, _FACE_PX)
            low, high = places.min(0).round().astype(int), places.max(0).round().astype(int)
            if (high - low).min() >= _LEAST_BOX_PX:
                offset = np.array([number * _FACE_PX, 0])
                found.append([name, *(low + offset).tolist(), *(high + offset).tolist()])
    return found


def _is_towards_the_camera(face: np.ndarray) -> bool:
    return bool(np.linalg.det(face / face[2, 2]) > 0)


def _places(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """(n, 2): where a homography takes points (n, 2)."""
    places = np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ homography.T
    return places[:, :2] / places[:, 2:]


@lru_cache(maxsize=16)  # views
def _usual(picture: str) -> np.ndarray:
    return np.asarray(from_text(picture), np.float32)
