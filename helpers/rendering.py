"""Ray by ray, what the side and the top camera see of a carton on the sample line. Millimeters, as in `scenery`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.spatial import ConvexHull

from helpers.scenery import (
    BARE,
    HALF_SIZE,
    PRINTED,
    Damage,
    Dent,
    Flap,
    Sticker,
    belt_colors,
    carton_texture,
    creases,
    flap_frame,
    texels_at,
)

WIDTH, HEIGHT = 960, 540  # px
_OFFSETS = ((0.25, 0.25), (0.75, 0.75))  # of the rays in a pixel: more than one, against jagged edges
_AMBIENT, _DIFFUSE, _SHADOW = 0.55, 0.55, 0.55


class Camera(NamedTuple):
    """Where a camera stands, which way is up in its picture, and its focal length in px. It looks at the origin."""

    position: tuple[float, float, float]
    up: tuple[float, float, float]
    focal_px: float


CAMERAS = {"side": Camera((0, -350, 190), (0, 0, 1), 1200), "top": Camera((0, 0, 440), (0, 1, 0), 1230)}


@dataclass(frozen=True)
class Scene:
    """A carton on the belt: its center and its turn in radians, the light's direction and tint, and what befell it."""

    position: tuple[float, float]
    yaw: float
    light: tuple[float, float, float]
    tint: tuple[float, float, float]
    sticker: Sticker
    damage: Damage


def render(scene: Scene, view: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture, (HEIGHT, WIDTH, 3) uint8, and the pixels in which damage shows, (HEIGHT, WIDTH) bool."""
    camera = CAMERAS[view]
    left, top, right, bottom = _window(scene, camera)
    rays = _rays(camera, left, top, right, bottom)
    samples = _trace(scene, camera, rays.reshape(3, -1)).reshape(*rays.shape[1:], 5).mean(0)
    picture = _belt(view) * _shadow(scene, camera)[..., None]
    picture[top:bottom, left:right] *= 1 - samples[..., 3:4]
    picture[top:bottom, left:right] += samples[..., :3]
    shows = np.zeros((HEIGHT, WIDTH), bool)
    shows[top:bottom, left:right] = samples[..., 4] > 0.5
    picture *= np.float32(scene.tint)
    np.minimum(picture[top:bottom, left:right], 255, out=picture[top:bottom, left:right])  # white paper in full light
    return picture.astype(np.uint8), shows


def _trace(scene: Scene, camera: Camera, rays: np.ndarray) -> np.ndarray:
    """(rays, 5): red, green, blue, whether the ray meets the carton, whether it meets damage; all 0 on the belt."""
    turn = _turn(scene.yaw)
    rays = turn.T @ rays  # from here on all is in the carton's frame
    origin = turn.T @ np.float32([*camera.position] - _center(scene))
    light = turn.T @ np.float32(scene.light / np.linalg.norm(scene.light))
    per_mm = 1 / rays
    middle, half = -origin[:, None] * per_mm, HALF_SIZE[:, None] * np.abs(per_mm)
    enter, leave = np.maximum.reduce([*(middle - half)]), np.minimum.reduce([*(middle + half)])
    hit = np.flatnonzero(enter < leave)
    samples = np.zeros((rays.shape[1], 5), np.float32)
    samples[hit] = _surface(scene, light, origin, rays[:, hit], enter[hit], leave[hit])
    if isinstance(scene.damage, Flap):
        _add_flap(samples, scene.damage, light, origin, rays, np.where(enter < leave, enter, np.inf))
    return samples


def _surface(
    scene: Scene, light: np.ndarray, origin: np.ndarray, rays: np.ndarray, enter: np.ndarray, leave: np.ndarray
) -> np.ndarray:
    """`_trace` for the rays that enter the carton's box; through a dent they go on to its bottom, or out again."""
    points = origin[:, None] + enter * rays
    faces = _nearest_face(points)
    facing = np.stack([-light, light], 1).ravel()[faces]  # of each face to the light
    solid = np.ones(len(faces), bool)
    damaged, cracked = ~solid, ~solid
    if isinstance(scene.damage, Dent):
        inside, bottom, normals = _press(scene.damage, origin, rays, points)
        damaged[inside] = True
        solid[inside] = bottom < leave[inside]
        points[:, inside] = origin[:, None] + bottom * rays[:, inside]
        faces[inside] = _nearest_face(points[:, inside])
        turned, cracked[inside] = creases(points[:, inside])
        facing[inside] = light @ normals - turned
    texels = carton_texture(scene.sticker, scene.damage)[texels_at(points, faces)]
    colors = np.where(cracked[:, None], BARE, texels[:, :3])
    brightness = (_AMBIENT + _DIFFUSE * facing.clip(0)) * solid
    return np.column_stack([colors * brightness[:, None], solid, damaged | (texels[:, 3] > 0)])


def _press(
    dent: Dent, origin: np.ndarray, rays: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rays enter the carton inside the ellipsoid, how far they go to leave it, and the normals (3, n) there."""
    center, radii = np.float32(dent.center)[:, None], np.float32(dent.radii)[:, None]
    x, y, z = (points - center) / radii
    inside = np.flatnonzero(x * x + y * y + z * z < 1)
    start, step = (origin[:, None] - center) / radii, rays[:, inside] / radii
    a, b, c = (step**2).sum(0), (start * step).sum(0), (start**2).sum() - 1
    leave = (-b + np.sqrt((b**2 - a * c).clip(0))) / a
    normals = -(start + leave * step) / radii
    return inside, leave, normals / np.linalg.norm(normals, axis=0)


def _nearest_face(points: np.ndarray) -> np.ndarray:
    """(N,) the face on which each point (3, N) lies, or from which it was pressed in."""
    x, y, z = np.abs(points) - HALF_SIZE[:, None]
    axis = np.where((x > y) & (x > z), 0, np.where(y > z, 1, 2))
    return 2 * axis + np.where(axis == 0, points[0] > 0, np.where(axis == 1, points[1] > 0, points[2] > 0))


def _add_flap(
    samples: np.ndarray, flap: Flap, light: np.ndarray, origin: np.ndarray, rays: np.ndarray, distance: np.ndarray
) -> None:
    """Draw the flap over what lies behind it. distance: of the carton along each ray, infinite where there is none."""
    hinge, along = flap_frame(flap)
    normal = np.float32([-along[2], 0, along[0]]) * flap.side  # up, when the flap lies level
    reach = ((hinge - origin) @ normal) / (normal @ rays)
    points = origin[:, None] + reach * rays - hinge[:, None]
    out = along @ points
    hit = (out > 0) & (out < flap.length) & (np.abs(points[1]) < HALF_SIZE[1] - 1) & (reach > 0) & (reach < distance)
    outside = (normal @ rays)[hit] < 0
    facing = np.where(outside, light @ normal, -(light @ normal)).clip(0)
    colors = np.where(outside[:, None], PRINTED, BARE) * (_AMBIENT + _DIFFUSE * facing)[:, None]
    samples[hit] = np.column_stack([colors, np.ones((len(colors), 2))])


def _shadow(scene: Scene, camera: Camera) -> np.ndarray:
    """(HEIGHT, WIDTH) factors: the carton's soft shadow on the belt."""
    light = np.float32(scene.light)
    corners = _place(scene, _corners())
    ground = corners - corners[:, 2:] / light[2] * light
    scale = 4
    outline = _project(camera, ground) / scale
    outline = outline[ConvexHull(outline).vertices]
    picture = Image.new("L", (WIDTH // scale, HEIGHT // scale))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in outline], fill=255)
    soft = picture.filter(ImageFilter.GaussianBlur(2.2)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return 1 - np.asarray(soft, np.float32) * np.float32(_SHADOW / 255)


@functools.cache
def _belt(view: str) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32: the empty line; the photo is always taken at the same link of the belt."""
    camera = CAMERAS[view]
    rays = _rays(camera, 0, 0, WIDTH, HEIGHT)
    distance = -camera.position[2] / rays[2]
    colors = belt_colors(camera.position[0] + distance * rays[0], camera.position[1] + distance * rays[1])
    rows, columns = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return colors.mean(0) * (1 - 0.18 * (rows**2 + columns**2))[..., None].astype(
        np.float32
    )  # the lens is darker outside


def _axes(camera: Camera) -> np.ndarray:
    """(3, 3): what is right, up and forward in the picture, as rows in the belt's frame."""
    forward = -np.asarray(camera.position, np.float32) / np.linalg.norm(camera.position)
    right = np.cross(forward, camera.up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), forward]).astype(np.float32)


def _rays(camera: Camera, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """(3, n, rows, columns): directions of the n rays of each pixel of a window, in the belt's frame."""
    offsets = np.float32(_OFFSETS).reshape(-1, 2, 1, 1)
    columns = np.arange(left, right, dtype=np.float32) + offsets[:, 0] - WIDTH / 2
    rows = HEIGHT / 2 - np.arange(top, bottom, dtype=np.float32)[:, None] - offsets[:, 1]
    across, upward, forward = _axes(camera)[..., None, None, None]
    return across * columns + upward * rows + forward * np.float32(camera.focal_px)


def _project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """(N, 2) px of points (N, 3)."""
    right, up, depth = _axes(camera) @ (points - camera.position).T
    return np.stack([WIDTH / 2 + camera.focal_px * right / depth, HEIGHT / 2 - camera.focal_px * up / depth], 1)


def _window(scene: Scene, camera: Camera) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in px of what the carton and its open flap can cover."""
    points = _corners()
    if isinstance(scene.damage, Flap):
        hinge, along = flap_frame(scene.damage)
        tip, half_width = hinge + along * scene.damage.length, HALF_SIZE * [0, 1, 0]
        points = np.concatenate([points, [tip - half_width, tip + half_width]])
    pixels = _project(camera, _place(scene, points))
    left, top = np.floor(pixels.min(0)).astype(int).clip(0)
    right, bottom = np.ceil(pixels.max(0)).astype(int).clip(0, (WIDTH, HEIGHT))
    return left, top, right, bottom


def _turn(yaw: float) -> np.ndarray:
    """(3, 3): from the carton's frame to the belt's."""
    return np.float32([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])


def _center(scene: Scene) -> np.ndarray:
    return np.array([*scene.position, HALF_SIZE[2]])


def _place(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Points (N, 3) of the carton's frame in the belt's."""
    return points @ _turn(scene.yaw).T + _center(scene)


def _corners() -> np.ndarray:
    return np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * HALF_SIZE
