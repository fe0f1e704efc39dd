"""Images as tensors: decode and resize once, keep as uint8, augment and normalize whole batches on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from helpers.archives import Archive
from helpers.catalog import Dataset
from helpers.checks import threaded
from helpers.photos import decode

MEMORY_BYTES = 8 * 2**30
_TURN_DEGREES, _SHIFT, _ZOOM, _LIGHT = 3.0, 0.04, 0.05, 0.15  # small enough that no damage leaves the image or appears


def load_images(
    dataset: Dataset, height: int, width: int, progress: Callable[[Iterator], Iterator] = iter
) -> torch.Tensor:
    """All images of the data set, (N, 3, height, width) uint8, in the order of its catalog.

    Raises MemoryError, before anything is read, where they would take more than MEMORY_BYTES.
    """
    needed = len(dataset.catalog) * 3 * height * width
    if needed > MEMORY_BYTES:
        raise MemoryError(
            f"{len(dataset.catalog):,} images of {height} x {width} px take {needed / 2**30:.1f} GiB, over the limit "
            f"of {MEMORY_BYTES / 2**30:.0f} GiB: choose a smaller image_height and image_width"
        )
    images = torch.empty(len(dataset.catalog), 3, height, width, dtype=torch.uint8)
    with Archive(dataset.path) as archive:
        decoded = threaded(lambda path: _decode(archive, path, height, width), dataset.catalog["path"])
        for index, image in enumerate(progress(decoded)):
            images[index] = image
    return images


def normalize(images: torch.Tensor, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """(N, 3, H, W) uint8, or float in 0..255, to float with the mean and deviation (per channel, in 0..1) taken out."""
    shape = (1, 3, 1, 1)
    shift = torch.tensor(mean, device=images.device).view(shape) * 255
    scale = torch.tensor(deviation, device=images.device).view(shape) * 255
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image flipped left to right or not, turned, shifted, zoomed and lit a little anew: float in 0..255.

    images: (N, 3, H, W) uint8 or float. generator: on the CPU, so that every device sees the same numbers.
    Nothing here makes a damaged thing intact or the reverse: what the turn uncovers is filled by mirroring.
    """
    count, _, height, width = images.shape

    def draw(extent: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * extent

    angle, zoom = torch.deg2rad(draw(_TURN_DEGREES)), 1 + draw(_ZOOM)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine, aspect = torch.cos(angle) * zoom, torch.sin(angle) * zoom, height / width
    rows = [flip * cosine, -sine * aspect, draw(_SHIFT), flip * sine / aspect, cosine, draw(_SHIFT)]
    light, contrast = 1 + draw(_LIGHT), 1 + draw(_LIGHT)
    theta = torch.stack(rows, 1).view(count, 2, 3).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    light, contrast = (value.view(-1, 1, 1, 1).to(images.device) for value in (light, contrast))
    return ((moved - middle) * contrast + middle * light).clamp(0, 255)


def batches(rows: np.ndarray, size: int, generator: torch.Generator | None = None) -> list[torch.Tensor]:
    """Row numbers in batches of at most `size`, each exactly once; shuffled where a generator is given.

    The batches are as even as can be: a last one of a single image would break batch normalization.
    """
    rows = torch.as_tensor(np.asarray(rows))
    order = torch.randperm(len(rows), generator=generator) if generator else torch.arange(len(rows))
    return list(rows[order].tensor_split(math.ceil(len(rows) / size)))


def rows_where(catalog: pd.DataFrame, **allowed: str | Sequence[str]) -> np.ndarray:
    """Row numbers of the catalog whose columns have these values: rows_where(catalog, split="test", view=["top"])."""
    chosen = np.ones(len(catalog), bool)
    for column, values in allowed.items():
        chosen &= catalog[column].isin([values] if isinstance(values, str) else values).to_numpy()
    return np.flatnonzero(chosen)


def read_image(dataset: Dataset, path: str) -> np.ndarray:
    """One image of the data set as it is stored, (H, W, 3) uint8: for looking at, not for training."""
    with Archive(dataset.path) as archive:
        return np.asarray(decode(archive.read(path), path)[0])


def _decode(archive: Archive, path: str, height: int, width: int) -> torch.Tensor:
    """(3, height, width) uint8. Other proportions are squeezed, not cut: damage may be at the edge."""
    image, _ = decode(archive.read(path), path)
    if image.size != (width, height):
        image = image.resize((width, height), reducing_gap=3)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
