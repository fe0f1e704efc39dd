"""The built-in sample: a small production line, drawn. Every package is seen from the side and from the top."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from helpers.rendering import CAMERAS, HEIGHT, WIDTH, Scene, render
from helpers.scenery import HALF_SIZE, Damage, Dent, Flap, Sticker, Tear

VIEWS = tuple(CAMERAS)
LABELS = ("damaged", "intact")
_VISIBLE_PX = 60  # damage on fewer pixels of a photo gets no box there
_FIRST_SERIAL = 4_006_381_000_000
# Where a dent or a crush lies: the side of the carton in x, y and z; 0 is anywhere along that axis. All four upper
# edges, two upright and one lower edge; upper corners, and one lower. Some are hidden from one of the cameras.
_EDGES = ((0, -1, 1), (0, 1, 1), (1, 0, 1), (-1, 0, 1), (0, -1, 1), (1, 0, 1), (1, -1, 0), (0, -1, -1), (-1, 1, 0))
_CORNERS = ((1, -1, 1), (1, 1, 1), (-1, -1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1), (1, -1, -1))


class Picture(NamedTuple):
    """A photo of the sample, (540, 960, 3) uint8, and the box [xmin, ymin, xmax, ymax] in px around its damage."""

    image: np.ndarray
    box: list[int] | None


def draw_item(seed: int, *, damaged: bool) -> dict[str, Picture]:
    """One package as both cameras see it. Damage that a camera cannot see has no box in its picture."""
    scene = _draw_scene(np.random.default_rng(seed), damaged)
    pictures = {}
    for view in VIEWS:
        image, shows = render(scene, view)
        pictures[view] = Picture(image, _box(shows))
    return pictures


def draw_sample(items: int, *, annotated: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The members (name, bytes) of a raw archive of `items` packages, every second one damaged.

    The last `annotated` of them come in an `annotated/` part, each photo with a Pascal VOC file beside it.
    """
    generator = np.random.default_rng(seed)
    serials = _FIRST_SERIAL + generator.integers(1, 9999, items).cumsum()
    for index, item_seed in enumerate(generator.integers(2**62, size=items)):
        label = LABELS[index % 2]
        with_boxes = index >= items - annotated
        for view, picture in draw_item(item_seed, damaged=label == "damaged").items():
            stem = f"{'annotated/' * with_boxes}{label}/{view}/{serials[index]}_{view}"
            yield f"{stem}.png", _png(picture.image)
            if with_boxes:
                yield f"{stem}.xml", _voc(f"{serials[index]}_{view}.png", picture.box)


def _draw_scene(generator: np.random.Generator, damaged: bool) -> Scene:
    direction = generator.uniform((-0.9, -0.9, 1.1), (0.9, 0.3, 1.6))
    warmth = generator.uniform(-0.05, 0.05)
    strength = generator.uniform(0.8, 1.08)
    face = generator.choice(["top", "front"])
    place = generator.uniform((-40, 0), (8, 12)) if face == "top" else generator.uniform((-45, -4), (-5, 14))
    return Scene(
        position=tuple(generator.uniform((-75, -22), (75, 28))),
        yaw=generator.uniform(-0.95, -0.15),
        light=tuple(direction),
        tint=tuple(strength * np.array([1 + warmth, 1, 1 - warmth])),
        sticker=Sticker(str(face), tuple(place)),
        damage=_draw_damage(generator) if damaged else None,
    )


def _draw_damage(generator: np.random.Generator) -> Damage:
    kind = generator.choice(["dent", "crush", "tear", "flap"], p=[0.32, 0.34, 0.2, 0.14])
    if kind == "dent":
        return _draw_dent(generator, generator.choice(_EDGES), depth=(9, 16))
    if kind == "crush":
        return _draw_dent(generator, generator.choice(_CORNERS), depth=(15, 26))
    if kind == "flap":
        side = generator.choice([1, 1, -1])
        return Flap(int(side), generator.uniform(-0.5, 0.9), generator.uniform(13, 26))
    face = generator.choice(["top", "top", "top", "front", "end"])
    reach = {"top": (36, 18), "front": (36, 8), "end": (16, 8)}[face]
    waves = list(zip(generator.uniform(0.04, 0.2, 5), generator.uniform(0, 2 * np.pi, 5), strict=True))
    return Tear(str(face), tuple(generator.uniform(-1, 1, 2) * reach), generator.uniform(7, 13), waves)


def _draw_dent(generator: np.random.Generator, sides: np.ndarray, depth: tuple[float, float]) -> Dent:
    """An ellipsoid on the edge or corner that looks to these sides, reaching `depth` mm into the carton."""
    radii = generator.uniform(depth[0], depth[1], 3) * np.where(sides == 0, generator.uniform(1.6, 2.6), 1)
    along = generator.uniform(-0.6, 0.6) * HALF_SIZE
    center = np.where(sides == 0, along, sides * (HALF_SIZE + 0.25 * radii))
    return Dent(tuple(center), tuple(radii))


def _box(shows: np.ndarray) -> list[int] | None:
    return list(Image.fromarray(shows).getbbox()) if shows.sum() >= _VISIBLE_PX else None


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _voc(filename: str, box: list[int] | None) -> bytes:
    """A Pascal VOC annotation, with one object or none."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = filename
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    if box:
        thing = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(thing, "name").text = "damage"
        bounds = ElementTree.SubElement(thing, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(bounds, name).text = str(value)
    return ElementTree.tostring(root)
