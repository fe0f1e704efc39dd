"""What the sample line is made of: the belt, the printed carton, and the three ways in which it is damaged.

Millimeters. On the belt, x runs along it, y away from the side camera and z up. The carton's own frame has the same
axes before it is turned, with the origin at its center.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HALF_SIZE = np.array([52, 30, 19], np.float32)  # half the carton's length, depth and height
FACES = ("left", "end", "front", "back", "bottom", "top")  # across x, y and z: first the one that looks backwards
BELT_WIDTH, RAIL_WIDTH = 300, 34

_ACROSS = ((1, 2), (0, 2), (0, 1))  # the two axes that run right and up on the faces across x, y and z
_TEXELS = 5  # per mm
_PAPER, _BAND, _PALE, _INK = (240, 238, 232), (24, 124, 112), (150, 208, 190), (58, 62, 70)
_INSIDE = (104, 70, 40)
PRINTED, BARE = np.float32(_BAND), np.float32((196, 142, 88))  # the carton's end outside, and cardboard within


class Dent(NamedTuple):
    """Where something round pressed into the carton: an ellipsoid's center and radii."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]


class Tear(NamedTuple):
    """Print torn off a face: center on the face, mean radius, and (height, phase) of the waves of its outline."""

    face: str
    center: tuple[float, float]
    radius: float
    waves: Sequence[tuple[float, float]]


class Flap(NamedTuple):
    """The upper part of an end that stands open: on side +1 ("end") or -1 ("left"), at an angle from the level."""

    side: int
    angle: float
    length: float


class Sticker(NamedTuple):
    """A small address label, which tells nothing about the damage."""

    face: str
    center: tuple[float, float]


Damage = Dent | Tear | Flap | None


def carton_texture(sticker: Sticker, damage: Damage) -> np.ndarray:
    """(texels, 4) uint8: red, green, blue, and 255 where the damage shows. All faces in a row; see `texels_at`."""
    faces = [face.copy() for face in _printed_faces()]
    face = faces[FACES.index(sticker.face)]
    row, column = _texel(face, *sticker.center)
    label = _sticker()
    face[row : row + label.shape[0], column : column + label.shape[1], :3] = label
    if isinstance(damage, Tear):
        _tear_off(faces[FACES.index(damage.face)], damage)
    if isinstance(damage, Flap):
        opening = faces[FACES.index("end" if damage.side > 0 else "left")][: int(damage.length * _TEXELS)]
        shade = np.linspace(0.45, 1, len(opening))[:, None, None]  # darker under the upper edge
        opening[...] = np.concatenate(
            [np.broadcast_to(_INSIDE * shade, (*opening.shape[:2], 3)), np.full((*opening.shape[:2], 1), 255)], 2
        )
    return np.concatenate([face.reshape(-1, 4) for face in faces])


def texels_at(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N,) index into `carton_texture` of points (3, N) of the carton's frame, seen as parts of these faces (N,)."""
    sizes, starts = _face_sizes()
    x, y, z = ((points + HALF_SIZE[:, None]) * _TEXELS).astype(np.int32)
    right, up = np.where(faces < 2, y, x), np.where(faces < 4, z, y)
    rows, columns = sizes[faces].T
    return starts[faces] + (rows - 1 - up).clip(0, rows - 1) * columns + right.clip(0, columns - 1)


def flap_frame(flap: Flap) -> tuple[np.ndarray, np.ndarray]:
    """(3,) the middle of a flap's hinge, and (3,) the direction in which it leaves the carton."""
    hinge = np.array([flap.side * HALF_SIZE[0], 0, HALF_SIZE[2]], np.float32)
    return hinge, np.array([flap.side * np.cos(flap.angle), 0, np.sin(flap.angle)], np.float32)


def creases(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pressed cardboard at points (3, N): (N,) how far its folds turn from the light, and where the print cracked."""
    x, y, z = points
    folds = np.abs(np.sin(0.42 * x + 0.31 * y - 0.36 * z)), np.abs(np.sin(0.33 * y - 0.45 * x + 0.29 * z))
    return 0.25 * folds[0] + 0.2 * folds[1], np.maximum(*folds) > 0.9


def belt_colors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., 3) float32 in 0..255: the links of the belt, the rails beside it and the floor, at ground points."""
    row = np.floor(y / 22)
    along = (x + 15 * (row % 2)) % 30 / 30  # links of 30 x 22 mm, each row moved by half a link
    across = (y / 22) % 1
    gap = (np.minimum(along, 1 - along) < 0.035 + 0.03 * (across > 0.5)) | (np.minimum(across, 1 - across) < 0.045)
    rod = np.abs(across - 0.5) < 0.06
    link = 96 + 16 * np.cos(2 * np.pi * (across - 0.35)) + 7 * np.cos(2 * np.pi * along)
    gray = np.where(gap, 42, np.where(rod, link + 12, link))
    beyond = np.abs(y) - BELT_WIDTH / 2
    rail = 150 + 70 * np.cos(np.pi * (beyond / RAIL_WIDTH - 0.35))
    gray = np.where(beyond > 0, rail, gray)
    gray = np.where((beyond > 0) & (beyond < 2), 50, gray)
    gray = np.where(beyond > RAIL_WIDTH, 74 + 20 * np.exp(-(beyond - RAIL_WIDTH) / 200), gray)
    return gray[..., None].astype(np.float32) * np.array([0.96, 1.0, 1.06], np.float32)


def _texel(face: np.ndarray, right: float, up: float) -> tuple[int, int]:
    """Row and column of a point of a face, given in mm from its center."""
    return int(face.shape[0] / 2 - up * _TEXELS), int(face.shape[1] / 2 + right * _TEXELS)


@functools.cache
def _face_sizes() -> tuple[np.ndarray, np.ndarray]:
    """(6, 2) rows and columns of each face, and (6,) where it starts in the texture."""
    sizes = np.array([(2 * HALF_SIZE[list(_ACROSS[face // 2])] * _TEXELS)[::-1] for face in range(6)]).astype(int)
    return sizes, np.concatenate([[0], sizes.prod(1).cumsum()[:-1]])


@functools.cache
def _printed_faces() -> list[np.ndarray]:
    """The intact carton's faces, each (rows, columns, 4) uint8."""
    faces = []
    for name, (rows, columns) in zip(FACES, _face_sizes()[0], strict=True):
        picture = Image.new("RGBA", (int(columns), int(rows)), (*_PAPER, 0))
        if name in _PRINTERS:  # the bottom is plain
            _PRINTERS[name](ImageDraw.Draw(picture), int(columns), int(rows))
        faces.append(np.asarray(picture))
    return faces


def _print_top(draw: ImageDraw.ImageDraw, columns: int, rows: int) -> None:
    edge = [(0.70 + 0.03 * np.sin(9 * t) + 0.10 * t, t) for t in np.linspace(0, 1, 40)]
    draw.polygon([(x * columns, y * rows) for x, y in edge] + [(columns, rows), (columns, 0)], fill=(*_BAND, 0))
    draw.line([((x - 0.02) * columns, y * rows) for x, y in edge], fill=(*_PALE, 0), width=7)
    _write(draw, (24, 26), "Linden", 66)
    _write(draw, (28, 108), "blossom tea", 30, _BAND)
    _write(draw, (28, rows - 50), "20 bags  40 g", 24)
    for petal in range(6):  # a flower, drawn with circles
        angle = petal * np.pi / 3
        x, y = 0.9 * columns + 19 * np.cos(angle), 0.5 * rows + 19 * np.sin(angle)
        draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(*_PALE, 0))
    draw.ellipse((0.9 * columns - 9, 0.5 * rows - 9, 0.9 * columns + 9, 0.5 * rows + 9), fill=(*_PAPER, 0))


def _print_long_side(draw: ImageDraw.ImageDraw, columns: int, rows: int) -> None:
    draw.rectangle((0.78 * columns, 0, columns, rows), fill=(*_BAND, 0))
    _write(draw, (24, 24), "Linden blossom tea", 34)
    for line, text in enumerate(("One bag a cup, boiling water,", "leave for five minutes.", "Keep dry.")):
        _write(draw, (26, 78 + 28 * line), text, 21)
    bars = np.random.default_rng(5).integers(2, 6, 26)
    for start, width in zip(bars.cumsum()[::2], bars[::2], strict=True):
        draw.rectangle((0.58 * columns + start, 90, 0.58 * columns + start + width - 2, 160), fill=(*_INK, 0))


def _print_end(draw: ImageDraw.ImageDraw, columns: int, rows: int) -> None:
    draw.rectangle((0, 0, columns, rows), fill=(*_BAND, 0))
    draw.rectangle((30, 96, columns - 30, rows - 22), fill=(*_PAPER, 0))
    _write(draw, (44, 102), "Lot 2214  EXP 09 28", 21)
    _write(draw, (34, 24), "Linden", 48, _PAPER)


_PRINTERS = {
    "left": _print_end,
    "end": _print_end,
    "front": _print_long_side,
    "back": _print_long_side,
    "top": _print_top,
}


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: tuple[int, int, int] = _INK
) -> None:
    draw.text(place, text, (*color, 0), ImageFont.load_default(size))


@functools.cache
def _sticker() -> np.ndarray:
    picture = Image.new("RGB", (92, 60), (250, 250, 246))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 91, 59), outline=(150, 150, 150))
    for line, width in enumerate((70, 52, 62)):
        draw.rectangle((9, 9 + 11 * line, 9 + width, 13 + 11 * line), fill=(110, 110, 116))
    draw.rectangle((9, 44, 82, 53), fill=(40, 40, 44))
    return np.asarray(picture)


def _tear_off(face: np.ndarray, tear: Tear) -> None:
    """Bare cardboard inside a ragged outline, with a white rim where the paper split."""
    rows, columns = np.mgrid[: face.shape[0], : face.shape[1]]
    row, column = _texel(face, *tear.center)
    angle = np.arctan2(rows - row, columns - column)
    outline = 1 + sum(height * np.cos((k + 2) * angle + phase) for k, (height, phase) in enumerate(tear.waves))
    depth = 1 - np.hypot(rows - row, columns - column) / (tear.radius * _TEXELS * outline)
    fibers = 0.93 + 0.07 * np.sin(0.9 * rows + 3 * np.sin(0.05 * columns))
    face[depth > 0] = (252, 250, 246, 255)
    inside = depth > 0.14
    face[inside, :3] = (BARE * fibers[..., None])[inside]
