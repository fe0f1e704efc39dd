"""What a network looks at: Integrated Gradients, where the attribution falls, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import nn

from helpers import compute
from helpers.images import normalize
from helpers.networks import without_inplace

MEMORY_BYTES = 2**30  # for what one internal batch keeps for its gradients
_LARGEST_BATCH = {True: 16, False: 64}  # on a CPU more are slower, for they no longer fit into its caches
_LEAST_OF_OTSU = 0.4  # Otsu's threshold finds the bright sides of a carton; its shaded ones differ less
BASELINES = {  # images without information, normalized
    "gray": lambda normalization, like: torch.zeros_like(like),
    "black": lambda normalization, like: normalize(torch.zeros_like(like), **normalization),
    "white": lambda normalization, like: normalize(torch.full_like(like, 255), **normalization),
}


class Attribution(NamedTuple):
    """What Integrated Gradients gave for N images.

    maps: (N, H, W), the sum over channels. error: (N,), |sum of a map - change of the logit| / |that change|.
    steps: (N,), how many it took. internal_batch_size: how many of them were computed at once.
    """

    maps: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    internal_batch_size: int


def integrated_gradients(
    network: nn.Module,
    images: torch.Tensor,
    targets: Sequence[int],
    baseline: str,
    *,
    steps: int,
    error_bound: float,
    normalization: dict[str, list[float]],
    device: torch.device,
) -> Attribution:
    """Share of each pixel in the logit of its target, on the way from the baseline to the image.

    images: (N, 3, H, W) uint8. targets: (N,) class numbers. baseline: a name of BASELINES.
    steps: points on the way (Gauss-Legendre). An image whose completeness error is above error_bound gets twice and
    then four times as many, of which the best counts.
    The network is left as it was: the work is done on a copy without in-place layers, its norms folded.
    Raises ValueError for an unknown baseline or less than one step.
    Source: Sundararajan, Taly and Yan (2017), Axiomatic Attribution for Deep Networks; Captum.
    """
    if baseline not in BASELINES or steps < 1:
        raise ValueError(f"baseline {baseline!r} must be one of {', '.join(BASELINES)}, and steps at least 1: {steps}")
    copied = compute.fold_norms(without_inplace(network).eval()).requires_grad_(False)
    copied.to(device, memory_format=torch.channels_last)
    inputs = normalize(images[:1].to(device), **normalization)
    start = BASELINES[baseline](normalization, inputs)
    size = internal_batch_size(copied, inputs)
    rows = []
    for image, target in zip(images, targets, strict=True):
        inputs = normalize(image[None].to(device), **normalization)
        found = []
        for count in (steps, 2 * steps, 4 * steps):
            found.append((*_integrate(copied, inputs, start, int(target), count, size), count))
            if found[-1][1] <= error_bound:
                break
        rows.append(min(found, key=lambda result: result[1]))
    maps, errors, taken = zip(*rows, strict=True)
    return Attribution(np.stack(maps), np.array(errors), np.array(taken), size)


def _integrate(
    network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int, size: int
) -> tuple[np.ndarray, float]:
    """The map (H, W) of one image (1, 3, H, W), and its completeness error."""
    values, delta = IntegratedGradients(network).attribute(
        inputs, start, target, n_steps=steps, internal_batch_size=size, return_convergence_delta=True
    )
    change = values.sum().item() - delta.item()
    return values.sum(1)[0].float().cpu().numpy(), abs(delta.item()) / max(abs(change), 1e-6)


def internal_batch_size(network: nn.Module, image: torch.Tensor, memory_bytes: int = MEMORY_BYTES) -> int:
    """How many images may be differentiated at once within `memory_bytes`: measured on one image (1, 3, H, W)."""
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(image.detach().clone().requires_grad_(True))
    return max(1, min(_LARGEST_BATCH[image.device.type == "cpu"], memory_bytes // max(kept, 1)))


def carton_masks(images: torch.Tensor, empty: torch.Tensor) -> np.ndarray:
    """(N, H, W) bool: where the thing on the belt is, found without any label.

    images: (N, 3, H, W) uint8 of one view. empty: (3, H, W), the view without anything (see `empty_view`).
    A pixel belongs to the thing where no shadow, a darker copy of the empty view, explains it. Of these pixels the
    largest connected part counts, with all that its convex hull covers. A side as gray as the belt may be missed.
    """
    images, empty = images.float() + 1, empty + 1
    light = (images / empty).flatten(2).median(2).values[..., None, None]  # (N, 3, 1, 1): brighter or warmer that day
    expected = empty * light
    shadow = (images / expected).amin(1, keepdim=True).clamp(max=1)
    unexplained = (images - shadow * expected).amax(1).numpy()  # (N, H, W)
    return np.stack([_largest_part(difference) for difference in unexplained])


def empty_view(images: torch.Tensor) -> torch.Tensor:
    """(3, H, W): the median of many images (N, 3, H, W) of a fixed camera, in which the things have vanished."""
    return images[:: max(1, len(images) // 64)].float().median(0).values


def scale_boxes(catalog: pd.DataFrame, height: int, width: int) -> list[list[list]]:
    """For each image its boxes [name, xmin, ymin, xmax, ymax], in px of the image when it is `height` by `width`.

    catalog: columns boxes, width and height, as in the data set's catalog.
    """
    scaled = []
    for row in catalog.itertuples():
        across, down = width / row.width, height / row.height
        scaled.append([[name, x0 * across, y0 * down, x1 * across, y1 * down] for name, x0, y0, x1, y1 in row.boxes])
    return scaled


def box_masks(catalog: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """(N, height, width) bool: the inside of each image's boxes; see `scale_boxes`."""
    masks = np.zeros((len(catalog), height, width), bool)
    for mask, boxes in zip(masks, scale_boxes(catalog, height, width), strict=True):
        for _, left, top, right, bottom in boxes:
            mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return masks


def shares(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,): which part of an image's absolute attribution (N, H, W) falls inside its mask (N, H, W)."""
    total = np.abs(maps).sum((1, 2))
    return (np.abs(maps) * masks).sum((1, 2)) / np.where(total > 0, total, 1)


def region_table(maps: np.ndarray, regions: dict[str, np.ndarray]) -> pd.DataFrame:
    """For each image and region: the share of the attribution inside, and the share of the area, side by side.

    maps: (N, H, W). regions: name to masks (N, H, W). Columns image (0 to N - 1), region, attribution, area; an
    image without such a region (no box) has no row.
    """
    tables = []
    for name, masks in regions.items():
        table = pd.DataFrame({"image": range(len(maps)), "region": name})
        tables.append(table.assign(attribution=shares(maps, masks), area=masks.mean((1, 2)))[masks.any((1, 2))])
    return pd.concat(tables, ignore_index=True)


def _largest_part(difference: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(difference, 1)
    parts, count = ndimage.label(
        ndimage.binary_opening(ndimage.binary_closing(smooth > 0.4 * _otsu(smooth), iterations=2), iterations=2)
    )
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
