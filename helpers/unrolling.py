"""Boxes of one kind, unrolled: a further view, which shows how each differs from the others.

The faces that the camera sees are drawn side by side, each as if seen from straight ahead. Then all boxes show the same
print at the same place, and what is left without their median is damage, and what is printed on each box alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from helpers import boxes, catalog, crops
from helpers.archives import Archive, threaded
from helpers.catalog import Dataset, rows_where
from helpers.images import HIDDEN, load_images
from helpers.photos import as_text, decode, encode, from_text

SUFFIX = " unrolled"  # of the new view's name
_FOR_FIT, _FEWEST = 64, 40  # training photos that a kind of boxes is learned from
_FACE_PX = 320  # height and width of each face in the picture, margins included
_MARGIN = 0.08  # of a face's height and width, seen around it
_MOST_UNLIKE = 0.45  # cost of a box of that kind, see `boxes.Found`
_LEAST_BOX_PX = 4  # height and width that a damage box keeps, or is left out


class Unrolling(TypedDict):
    """How the photos of a view are unrolled, as a card keeps it."""

    view: str  # that is unrolled
    background: crops.Background  # against which boxes are found
    box: boxes.Box
    usual: str  # what they show as a rule: a JPEG of 320 x (320 * faces) px in base64


def learn(dataset: Dataset) -> dict[str, Unrolling]:
    """By the name of the new view, for each view whose training photos show boxes of one kind, and two faces or more.

    Labels have no part in it. Views of fewer than 40 training photos with a box are left as they are.
    """
    found = {}
    for view, background in crops.find_backgrounds(dataset).items():
        rows = rows_where(dataset.catalog, split="train", view=view)
        spread = np.linspace(0, len(rows) - 1, min(_FOR_FIT, len(rows))).round().astype(int)
        some = dataset._replace(catalog=dataset.catalog.iloc[rows[spread]].reset_index(drop=True))
        masks = crops.masks(some, {view: background}, *crops.LOOK_PX)
        seen = np.flatnonzero(masks.any((1, 2)))
        if len(seen) < _FEWEST:
            continue
        if fitted := boxes.fit(load_images(some, *crops.LOOK_PX)[torch.as_tensor(seen)], masks[seen]):
            box, poses = fitted
            typical = poses.costs <= np.median(poses.costs)
            usual = _median(dataset, some.catalog["path"].iloc[seen[typical]], poses.faces[typical])
            found[view + SUFFIX] = Unrolling(view=view, background=background, box=box, usual=usual)
    return found


def add(dataset: Dataset, unrollings: dict[str, Unrolling], progress: Callable[[Iterable], Iterable] = iter) -> Dataset:
    """Write the `data.zip` anew, with a picture more for each photo in which a box of its view's kind is found."""
    if not unrollings:
        return dataset
    by_view = {one["view"]: (new, one) for new, one in unrollings.items()}
    rows = dataset.catalog[dataset.catalog["view"].isin(by_view)].to_dict("records")

    def unrolled(row: dict) -> tuple[dict, bytes] | None:
        view, unrolling = by_view[row["view"]]
        photo, _ = decode(archive.read(row["path"]), row["path"])
        faces = _faces(photo, unrolling)
        if faces is None:
            return None
        picture = _difference(photo, faces, unrolling)
        facts = {"path": renamed(row["path"], row["view"]), "view": view, "boxes": _unrolled_boxes(row["boxes"], faces)}
        return row | facts | {"width": picture.width, "height": picture.height}, encode(picture)

    with Archive(dataset.path) as archive:
        pictures = (one for one in threaded(unrolled, progress(rows)) if one)
        return catalog.extend(dataset, pictures, views=sorted([*dataset.views, *unrollings]), unrolled=unrollings)


def unroll(photo: Image.Image, unrolling: Unrolling) -> Image.Image | None:
    """What `add` makes of a photo, shrunk to the data set's size before; None where no box of that kind is found."""
    faces = _faces(photo, unrolling)
    return None if faces is None else _difference(photo, faces, unrolling)


def renamed(name: str, view: str) -> str:
    """The name of what was unrolled: serial_side.jpg becomes "serial_side unrolled.jpg", and so do folders `side`."""
    path = PurePosixPath(name)
    folders = [part + SUFFIX if part.lower() == view.lower() else part for part in path.parts[:-1]]
    stem = path.stem + SUFFIX if path.stem.lower().endswith(f"_{view}".lower()) else path.stem
    return PurePosixPath(*folders, f"{stem}{path.suffix}").as_posix()


def _median(dataset: Dataset, paths: Iterable[str], poses: np.ndarray) -> str:
    """The median of unrolled photos, as a JPEG in base64."""
    with Archive(dataset.path) as archive:
        photos = [decode(archive.read(path), path)[0] for path in paths]
    pictures = [_drawn(photo, _in_photo(faces, photo))[0] for photo, faces in zip(photos, poses, strict=True)]
    return as_text(Image.fromarray(np.median(pictures, 0).round().astype(np.uint8)))


def _faces(photo: Image.Image, unrolling: Unrolling) -> np.ndarray | None:
    """(F, 3, 3): what takes (x, y, 1) of each face's square, in px of the picture, to px of the photo."""
    pixels, mask = crops.look(photo, unrolling["background"])
    if not mask.any():
        return None
    found = boxes.find(pixels, mask, unrolling["box"])
    return None if found.costs[0] > _MOST_UNLIKE else _in_photo(found.faces[0], photo)


def _in_photo(faces: np.ndarray, photo: Image.Image) -> np.ndarray:
    """From `boxes.Found`, for photos as they are looked at, to squares with a margin and the photo as it is."""
    height, width = crops.LOOK_PX
    share = (1 + 2 * _MARGIN) / _FACE_PX
    to_shares = np.array([[share, 0, -_MARGIN], [0, share, -_MARGIN], [0, 0, 1]])
    return np.diag([photo.width / width, photo.height / height, 1]) @ faces @ to_shares


def _drawn(photo: Image.Image, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(320, 320 * F, 3) uint8, the faces side by side, and (320, 320 * F) bool, what of them lies in the photo."""
    size, known = (_FACE_PX, _FACE_PX), Image.new("L", photo.size, 255)
    pictures, inside = [], []
    for face in faces:
        how = (size, Image.Transform.PERSPECTIVE, (face / face[2, 2]).ravel()[:8].tolist())
        pictures.append(np.asarray(photo.transform(*how, Image.Resampling.BICUBIC)))
        inside.append(np.asarray(known.transform(*how)) > 0)
    return np.concatenate(pictures, 1), np.concatenate(inside, 1)


def _difference(photo: Image.Image, faces: np.ndarray, unrolling: Unrolling) -> Image.Image:
    """The unrolled photo without what all show: what is as usual, or lies beyond the photo, has the color HIDDEN."""
    picture, known = _drawn(photo, faces)
    usual = _usual(unrolling["usual"])
    light = np.median((usual[known] + 1) / (picture[known] + 1.0), 0)
    apart = np.where(known[..., None], (picture + 1) * light - 1 - usual, 0)
    return Image.fromarray((apart + HIDDEN).clip(0, 255).round().astype(np.uint8))


def _unrolled_boxes(damage: list[list], faces: np.ndarray) -> list[list]:
    """Damage boxes (name, left, top, right, bottom) of a photo where they lie in the picture, on each face."""
    found = []
    for name, left, top, right, bottom in damage:
        corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]], float)
        for number, face in enumerate(faces):
            places = corners @ np.linalg.inv(face).T
            places = (places[:, :2] / places[:, 2:]).clip(0, _FACE_PX)
            low, high = places.min(0).round().astype(int), places.max(0).round().astype(int)
            if (high - low).min() >= _LEAST_BOX_PX:
                offset = np.array([number * _FACE_PX, 0])
                found.append([name, *(low + offset).tolist(), *(high + offset).tolist()])
    return found


@lru_cache(maxsize=16)  # views
def _usual(picture: str) -> np.ndarray:
    return np.asarray(from_text(picture), float)
