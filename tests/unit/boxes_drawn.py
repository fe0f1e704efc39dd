"""Photos of drawn boxes that lie as a test says, by a camera of its own."""

from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 180, 320
WIDE, LONG, HIGH = 1.1, 2.0, 0.65
FOCAL, DISTANCE, TILT = 1.6, 8.2, 0.35  # widths of the photo, lengths as above, radians

_CORNERS = {  # of each face: top left, top right, bottom right, bottom left; across, back and up
    "top": [(-0.5, 1, 1), (0.5, 1, 1), (0.5, 0, 1), (-0.5, 0, 1)],
    "front": [(-0.5, 0, 1), (0.5, 0, 1), (0.5, 0, 0), (-0.5, 0, 0)],
    "left": [(-0.5, 1, 1), (-0.5, 0, 1), (-0.5, 0, 0), (-0.5, 1, 0)],
    "right": [(0.5, 0, 1), (0.5, 1, 1), (0.5, 1, 0), (0.5, 0, 0)],
}


class Lying(NamedTuple):
    """Where a box lies: across, back, and by how many radians it is turned against the clock, seen from above."""

    across: float
    back: float
    yaw: float


def lying(count, seed):
    """So many boxes, each somewhere else."""
    generator = np.random.default_rng(seed)
    drawn = zip(*(generator.uniform(-reach, reach, count) for reach in (1.0, 0.8, 0.6)), strict=True)
    return [Lying(across, back - 0.8, yaw) for across, back, yaw in drawn]


def print_of(seed):
    """What each face shows, (64, 64, 3) uint8: patches of a few colors."""
    generator = np.random.default_rng(seed)
    patches = {name: generator.integers(60, 256, (6, 6, 3)).astype(np.uint8) for name in _CORNERS}
    return {name: patch.repeat(11, 0).repeat(11, 1)[:64, :64] for name, patch in patches.items()}


def corners(box, face):
    """(4, 2) x and y in px of a face's corners in the photo."""
    cosine, sine = np.cos(box.yaw), np.sin(box.yaw)
    places = np.array(_CORNERS[face]) * [WIDE, LONG, HIGH]
    across = cosine * places[:, 0] - sine * places[:, 1] + box.across
    back = sine * places[:, 0] + cosine * places[:, 1] + box.back
    depth = DISTANCE + np.cos(TILT) * back - np.sin(TILT) * places[:, 2]
    down = -np.sin(TILT) * back - np.cos(TILT) * places[:, 2]
    return FOCAL * WIDTH * np.stack([across, down], 1) / depth[:, None] + [WIDTH / 2, HEIGHT / 2]


def belt():
    """(180, 320, 3) uint8: gray, with stripes."""
    empty = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    empty[:, ::9] = 110
    return empty


def photograph(box, faces, seed=0):
    """(180, 320, 3) uint8 of a box on the belt, and (180, 320) bool, where it is. faces: of `print_of`."""
    photo, mask = Image.fromarray(belt()), np.zeros((HEIGHT, WIDTH), bool)
    for name, pattern in faces.items():
        places = corners(box, name)
        if np.linalg.det(np.stack([places[1] - places[0], places[3] - places[0]])) <= 0:  # it looks away
            continue
        shown = Image.fromarray(pattern)
        back = _from_photo(places, shown.size)
        how = ((WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR)
        here = Image.new("L", shown.size, 255).transform(*how)
        photo.paste(shown.transform(*how), mask=here)
        mask |= np.asarray(here) > 127
    noise = np.random.default_rng(seed).normal(0, 2, (HEIGHT, WIDTH, 3))
    return (np.asarray(photo) + noise).clip(0, 255).round().astype(np.uint8), mask


def _from_photo(places, size):
    """The eight numbers by which Pillow finds, for a place of the photo, that of the face."""
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(places, [(0, 0), (width, 0), (width, height), (0, height)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()
