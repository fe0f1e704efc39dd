"""Where the thing on the belt is, found without any label, and its photo cut out around it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

_LEAST_OF_OTSU = 0.4  # Otsu's threshold finds the bright sides of a carton; its shaded ones differ less
_RIM = 1.2  # of what is cut out, over the extent of the thing in it
_SMALLEST, _LARGEST = 0.002, 0.7  # of the photo's area that a thing may have
_LEAST_CONTRAST = 10.0  # gray levels between a thing and the empty view: noise and the traces of JPEG have less than 5
_FEWEST = 5  # photos of a view in which a thing is found, for the median of them all to be empty
_SMALLEST_USUAL = 0.01  # of the photo's area: where less differs in most photos, it is a label or dirt
_MOST_UNEVEN = 6.0  # ratio of large things to small ones in the photos of one view
_LEAST_FILLED = 0.85  # of the smallest rectangle around it that a thing covers which is one; a box seen aslant: 0.75
_CLEARLY = 1.2  # times as large as in the other position, to be turned by more than the least


def carton_masks(images: torch.Tensor, empty: torch.Tensor) -> np.ndarray:
    """(N, H, W) bool: where the thing on the belt is, found without any label.

    images: (N, 3, H, W) uint8 of one view. empty: (3, H, W), the view without anything (see `empty_view`).
    A pixel belongs to the thing where no shadow, a darker copy of the empty view, explains it. Of these pixels the
    largest connected part counts, with all that its convex hull covers. So a side as gray as the belt may be missed,
    and a gray or black thing on a lighter belt is taken for a shadow.
    """
    images, empty = images.float() + 1, empty + 1
    light = (images / empty).flatten(2).median(2).values[..., None, None]  # (N, 3, 1, 1): brighter or warmer that day
    expected = empty * light
    shadow = (images / expected).amin(1, keepdim=True).clamp(max=1)
    unexplained = (images - shadow * expected).amax(1).numpy()  # (N, H, W)
    return np.stack([_largest_part(difference) for difference in unexplained])


def empty_view(images: torch.Tensor) -> torch.Tensor:
    """(3, H, W): the median of many images (N, 3, H, W) of a fixed camera, in which the things have vanished."""
    return images.float().median(0).values


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


def crop_box(mask: np.ndarray, width: float, height: float, aspect: float, *, straighten: bool) -> tuple[float, ...]:
    """(left, top, right, bottom, degrees) in px of the photo: around the thing, with a rim, and of that aspect.

    mask: (h, w) bool, the thing in the photo, seen at any size. width, height: of the photo in px. aspect: width over
    height of what is cut out. degrees: by how much that rectangle is turned about its middle, clockwise to the eye.
    straighten: turn it as the thing lies, by the least angle, or by more where the thing is then clearly larger.
    One that is not turned stays within the photo, which may cost it its aspect; a turned one may reach beyond. Where
    nothing, or hardly anything but the thing is to be seen, it is the whole photo.
    """
    if not _is_cut_out(mask):
        return 0.0, 0.0, width, height, 0.0
    corners = _corners(mask, width, height)
    degrees = _turn(corners, aspect) if straighten else 0.0
    aligned = _rotated(corners, -degrees)
    middle = _rotated((aligned.min(0) + aligned.max(0)) / 2, degrees)
    extent = _RIM * _width_for(corners, degrees, aspect) / np.array([1.0, aspect])
    if degrees:
        return (*(middle - extent / 2).tolist(), *(middle + extent / 2).tolist(), degrees)
    (left, right), (top, bottom) = map(_within, middle.tolist(), extent.tolist(), (width, height))
    return left, top, right, bottom, 0.0


def _is_cut_out(mask: np.ndarray) -> bool:
    return _SMALLEST < mask.mean() < _LARGEST


def _corners(mask: np.ndarray, width: float, height: float) -> np.ndarray:
    """(n, 2) x and y in px of the photo: the corners of the convex hull of the mask, one after the other."""
    rows, columns = np.nonzero(mask)
    points = np.concatenate([np.stack([columns + right, rows + low], 1) for right in (0, 1) for low in (0, 1)])
    return points[ConvexHull(points).vertices] * np.array([width / mask.shape[1], height / mask.shape[0]])


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
    return other if clearly else least


def _width_for(corners: np.ndarray, degrees: float, aspect: float) -> float:
    """Width in px of the smallest rectangle of that aspect, turned by that angle, around the outline."""
    across, down = np.ptp(_rotated(corners, -degrees), axis=0).tolist()
    return max(across, down * aspect)


def _within(middle: float, extent: float, limit: float) -> tuple[float, float]:
    """The ends of a stretch around the middle, moved into 0..limit, and no longer than that."""
    extent = min(extent, limit)
    start = min(max(middle - extent / 2, 0.0), limit - extent)
    return start, start + extent


def _largest_part(difference: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(difference, 1)
    threshold = _otsu(smooth)
    if threshold < _LEAST_CONTRAST:
        return np.zeros(difference.shape, bool)
    different = ndimage.binary_closing(smooth > _LEAST_OF_OTSU * threshold, iterations=2)
    parts, count = ndimage.label(ndimage.binary_opening(different, iterations=2))
    if count == 0:
        return np.zeros(difference.shape, bool)
    rows, columns = np.nonzero(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    points = np.stack([columns, rows], 1)
    outline = Image.new("1", difference.shape[::-1])
    ImageDraw.Draw(outline).polygon([tuple(point) for point in points[ConvexHull(points).vertices].tolist()], fill=1)
    return np.asarray(outline)


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
