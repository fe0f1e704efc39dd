"""Where the thing on the belt is, found without any label, and what to cut out of its photo."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

from helpers import backgrounds

_DARKEST_SHADOW = 0.6  # of the background's pixel values; what is darker is a thing
_GAP, _GAP_ROUGHLY = 6, 2  # px that are bridged from either side, where a thing is as bright as what lies behind it
_LEAST_OF_OTSU = 0.4  # Otsu's threshold finds the bright sides of a carton; its shaded ones differ less
_RIM = 1.2  # of what is cut out, over the extent of the thing in it
_MARGIN = 0.05  # of a thing's size (the root of its area), around it, that stays visible
_SMALLEST, _LARGEST = 0.002, 0.7  # of the photo's area that a thing may have
_LEAST_CONTRAST = 10.0  # the least Otsu's threshold, about half of what a thing differs by; noise and JPEG give < 5
_BESIDE = 0.2  # of a thing's area: a further part that is larger is another thing
_FEWEST = 5  # photos of a view in which a thing is found, for the median of them all to be the background
_SMALLEST_USUAL = 0.01  # of the photo's area: where less differs in most photos, it is a label or dirt
_MOST_UNEVEN = 6.0  # ratio of large things to small ones in the photos of one view
_LEAST_FILLED = 0.85  # of the smallest rectangle around it, by a rectangle; a box seen aslant fills 0.75
_CLEARLY = 1.2  # times as large as when turned by the smaller angle, to be turned by the larger one


class Crop(NamedTuple):
    """What to cut out of a photo, in px of it: a rectangle, turned clockwise to the eye about its middle.

    outline: corners (x, y) of the convex part that is shown, all else in the rectangle is hidden; () shows all.
    alone: False where another thing of some size lies in the photo, which is hidden, too.
    """

    left: float
    top: float
    right: float
    bottom: float
    degrees: float = 0.0
    outline: tuple[tuple[float, float], ...] = ()
    alone: bool = True

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self[:4]


class Things(NamedTuple):
    """What lies on the belt in N photos.

    masks: (N, H, W) bool, where the thing is; nowhere, where none is found. alone: (N,) bool, whether no other one lies
    beside it.
    """

    masks: np.ndarray
    alone: np.ndarray


def find_things(images: torch.Tensor, background: torch.Tensor, *, roughly: bool = False) -> Things:
    """Where the thing on the belt is in each photo, found without any label.

    images: (N, 3, H, W) uint8 of one view. background: (K, 3, H, W), the view without anything, at each position of the
    belt (see `backgrounds`); each image is compared with the one that it is most like.
    A pixel belongs to the thing where no shadow, a somewhat darker copy of the background, explains it. Of these pixels
    the largest connected part counts, with narrow gaps and all that its convex hull covers.
    roughly: where the background is a median of several positions, in which a belt has no gaps. Then a shadow may be of
    any darkness, and gaps stay open: not all of the thing is found, but nothing else. Several parts may be one thing
    then, so each counts as alone.
    """
    darkest, gap = (0.0, _GAP_ROUGHLY) if roughly else (_DARKEST_SHADOW, _GAP)
    parts = [_largest_part(_unexplained(image, background, darkest), gap) for image in images]
    masks, following = map(np.array, zip(*parts, strict=True))
    return Things(masks, roughly | (following <= _BESIDE))


def look_like_one_thing(masks: np.ndarray) -> bool:
    """Whether masks (N, H, W) of one view's photos look like one thing that lies elsewhere in each of them.

    Where things lie at a fixed place, the median of the photos holds them, and what differs from it is something else:
    a label that sits elsewhere, the damage. That is small or of very uneven size, or not found in most of the photos.
    """
    areas = masks.mean((1, 2))
    found = areas[(areas > _SMALLEST) & (areas < _LARGEST)]
    if len(found) < max(_FEWEST, len(masks) / 2):
        return False
    small, usual, large = np.percentile(found, [10, 50, 90])
    return bool(usual >= _SMALLEST_USUAL and large <= _MOST_UNEVEN * small)


def look_like_rectangles(masks: np.ndarray, width: float, height: float) -> bool:
    """Whether the things in masks (N, H, W) of one view's photos are rectangles, wherever and however they lie.

    width, height: of the photos in px. So look flat things and boxes from above; a box seen aslant has six corners.
    """
    found = [mask for mask in masks if _is_cut_out(mask)]
    filled = [_smallest_rectangle(_corners(mask, width, height))[1] for mask in found]
    return bool(filled) and float(np.median(filled)) >= _LEAST_FILLED


def crop_around(mask: np.ndarray, width: float, height: float, aspect: float, *, straighten: bool) -> Crop:
    """What to cut out: a rectangle of that aspect around the thing, and in it the thing with a margin.

    mask: (h, w) bool, the thing in the photo, seen at any size. width, height: of the photo in px. aspect: width over
    height of the rectangle. straighten: turn it as the thing lies, by the least angle, or by more where the thing is
    then clearly larger. One that is not turned stays within the photo, which may cost it its aspect; a turned one may
    reach beyond. Where nothing, or hardly anything but the thing is to be seen, it is the whole photo.
    """
    if not _is_cut_out(mask):
        return Crop(0.0, 0.0, width, height)
    corners = _corners(mask, width, height)
    degrees = _turn(corners, aspect) if straighten else 0.0
    aligned = _rotated(corners, -degrees)
    middle = _rotated((aligned.min(0) + aligned.max(0)) / 2, degrees)
    extent = _RIM * _width_for(corners, degrees, aspect) / np.array([1.0, aspect])
    both = np.concatenate([corners, 2 * middle - corners])  # a corner that was not found is shown by its opposite one
    outline = _widened(both, _MARGIN * np.sqrt(mask.mean() * width * height))
    if degrees:
        return Crop(*(middle - extent / 2).tolist(), *(middle + extent / 2).tolist(), degrees, outline)
    (left, right), (top, bottom) = map(_within, middle.tolist(), extent.tolist(), (width, height))
    return Crop(left, top, right, bottom, 0.0, outline)


def inside(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) bool: what lies inside a polygon of corners (n, 2), x and y in px."""
    picture = Image.new("1", (width, height))
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in outline.tolist()], fill=1)
    return np.array(picture)


def _is_cut_out(mask: np.ndarray) -> bool:
    return _SMALLEST < mask.mean() < _LARGEST


def _corners(mask: np.ndarray, width: float, height: float) -> np.ndarray:
    """(n, 2) x and y in px of the photo: the corners of the convex hull of the mask, one after the other."""
    rows, columns = np.nonzero(mask)
    points = np.concatenate([np.stack([columns + right, rows + low], 1) for right in (0, 1) for low in (0, 1)])
    return points[ConvexHull(points).vertices] * np.array([width / mask.shape[1], height / mask.shape[0]])


def _widened(points: np.ndarray, margin: float) -> tuple[tuple[float, float], ...]:
    """The corners of what lies within that many px of the convex hull of points (n, 2), rounded off."""
    angles = np.arange(0, 2 * np.pi, np.pi / 8)
    circle = margin * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = (points[:, None] + circle).reshape(-1, 2)
    return tuple(map(tuple, points[ConvexHull(points).vertices].tolist()))


def _rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (..., 2) about the origin, clockwise to the eye, for y points down."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _smallest_rectangle(corners: np.ndarray) -> tuple[float, float]:
    """Degrees from 0 to 90 of the smallest rectangle around a convex outline, and the share of it that is covered.

    Source: Freeman and Shapira (1975): one of its sides lies along one of the outline's.
    """
    following = np.roll(corners, -1, 0)
    area = abs(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])) / 2
    sides = following - corners
    angles = np.unique(np.degrees(np.arctan2(sides[:, 1], sides[:, 0])) % 90)
    areas = [np.ptp(_rotated(corners, -angle), axis=0).prod() for angle in angles]
    return float(angles[np.argmin(areas)]), float(area / np.min(areas))


def _turn(corners: np.ndarray, aspect: float) -> float:
    degrees, _ = _smallest_rectangle(corners)
    least, other = sorted((degrees, degrees - 90), key=abs)
    clearly = _width_for(corners, least, aspect) > _CLEARLY * _width_for(corners, other, aspect)
    return other % 180 if clearly else least  # 88 and 92 degrees are 4 apart, and not 184


def _width_for(corners: np.ndarray, degrees: float, aspect: float) -> float:
    """Width in px of the smallest rectangle of that aspect, turned by that angle, around the outline."""
    across, down = np.ptp(_rotated(corners, -degrees), axis=0).tolist()
    return max(across, down * aspect)


def _within(middle: float, extent: float, limit: float) -> tuple[float, float]:
    """The ends of a stretch around the middle, moved into 0..limit, and no longer than that."""
    extent = min(extent, limit)
    start = min(max(middle - extent / 2, 0.0), limit - extent)
    return start, start + extent


def _unexplained(image: torch.Tensor, background: torch.Tensor, darkest_shadow: float) -> np.ndarray:
    """(H, W) gray levels between an image (3, H, W) and what the background that it is most like can be in shadow."""
    image, background = image.float() + 1, background + 1
    light = backgrounds.light(image, background)
    best = backgrounds.unlikeness(backgrounds.shrink(image), backgrounds.shrink(background) * light).argmin()
    expected = background[best] * light[best]
    shadow = (image / expected).amin(0).clamp(darkest_shadow, 1)
    return (image - shadow * expected).abs().amax(0).numpy()


def _largest_part(difference: np.ndarray, gap: int) -> tuple[np.ndarray, float]:
    """(H, W) bool: the convex hull of the largest part that differs; and how large the next one is for it."""
    smooth = ndimage.gaussian_filter(difference, 1)
    threshold = _otsu(smooth)
    if threshold < _LEAST_CONTRAST:
        return np.zeros(difference.shape, bool), 0.0
    different = ndimage.binary_opening(smooth > _LEAST_OF_OTSU * threshold)
    joined = ndimage.binary_closing(np.pad(different, gap), iterations=gap)[gap:-gap, gap:-gap]
    parts, count = ndimage.label(ndimage.binary_opening(joined, iterations=2))
    if count == 0:
        return np.zeros(difference.shape, bool), 0.0
    areas = np.bincount(parts.ravel())[1:]
    rows, columns = np.nonzero(parts == areas.argmax() + 1)
    points = np.stack([columns, rows], 1)
    following, largest = np.sort([0, *areas])[-2:]
    return inside(points[ConvexHull(points).vertices], *difference.shape), following / largest


def _otsu(values: np.ndarray) -> float:
    """The threshold that parts values best in two. Source: Otsu (1979)."""
    counts, edges = np.histogram(values, 128)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    sums = (counts * centers).cumsum()
    mean_below = sums / below.clip(1)
    mean_above = (sums[-1] - sums + counts * centers) / above.clip(1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centers[between.argmax()])
