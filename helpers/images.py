"""Images as tensors: decode and resize once, keep as uint8, augment and normalize whole batches on the device."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from helpers import arrays, compute
from helpers.archives import Archive, threaded
from helpers.cartons import Crop, inside
from helpers.catalog import Dataset
from helpers.photos import PhotoError, decode

_DECODING = 5  # raise it when decoding or resizing gives other pixels: then no file of before is found again
AUGMENTATIONS = {  # at most: mirroring (0 or 1), degrees, zoom, shift (of half the image), change of light and contrast
    "gentle": (1, 3.0, 0.05, 0.04, 0.15),  # whole photos: may lose a twentieth at a side, a twelfth at a corner
    "strong": (1, 12.0, 0.15, 0.06, 0.3),  # cut out with a margin: 1 % of a thing is lost on average, seldom over 5 %
}
AUGMENTATIONS |= {f"{name} unmirrored": (0, *reach) for name, (_, *reach) in AUGMENTATIONS.items()}
HIDDEN = (124, 116, 104)  # color of what is not cut out: the mean of ImageNet, no information


class Examples(NamedTuple):
    """What to learn from: images (N, 3, H, W) uint8, labels (N,) int, and which rows are for what."""

    images: arrays.Array
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray


def load_images(
    dataset: Dataset,
    height: int,
    width: int,
    progress: Callable[[Iterable], Iterable] = iter,
    memory_bytes: int = arrays.MEMORY_BYTES,
) -> arrays.Array:
    """All images of the data set, (N, 3, height, width) uint8, in the order of its catalog, decoded once.

    Where the catalog has a column crop (see `crops.with_crops`), each is what it says of the photo. They stay in memory
    up to `memory_bytes`; more go to a file in `cache/` beside the data set, found by the next run.
    Raises PhotoError and ArchiveError where a photo can no longer be read, OSError where the file cannot be written.
    """
    paths = dataset.catalog["path"].tolist()
    crops = dataset.catalog.get("crop", pd.Series([None] * len(paths))).tolist()
    shape = (len(paths), 3, height, width)
    digest = dataset.sha256 if arrays.bytes_of(shape, np.uint8) > memory_bytes else ""  # only a file needs its name
    facts = json.dumps([_DECODING, digest, *paths, *crops, *shape])
    key = hashlib.sha256(facts.encode()).hexdigest()
    file = dataset.path.parent / "cache" / f"images-{key[:32]}.npy"
    with Archive(dataset.path) as archive:

        def pixels(task: tuple[str, Crop | None]) -> torch.Tensor:
            path, crop = task
            return resize(_photo(archive, path), height, width, crop)[None]

        decoded = threaded(pixels, progress(list(zip(paths, crops, strict=True))))
        return arrays.collect(decoded, shape, np.uint8, file, memory_bytes)


def to_pixels(data: bytes, name: str, height: int, width: int) -> torch.Tensor:
    """(3, height, width) uint8 of a photo's bytes, see `resize`. Raises PhotoError where the photo cannot be used."""
    return resize(decode(data, name)[0], height, width)


def resize(photo: Image.Image, height: int, width: int, crop: Crop | None = None) -> torch.Tensor:
    """(3, height, width) uint8 of the photo, or of what is cut out of it, turned upright.

    What the crop hides, or lies beyond the photo, has the color HIDDEN. Other proportions are squeezed, not cut: damage
    may be at the edge.
    """
    if crop and crop.degrees:
        matrix = crop_to_photo(crop, height, width)
        finer = max(1, round(abs(np.linalg.det(matrix)) ** 0.5))  # drawing takes single pixels, and would skip some
        affine = (matrix[:2] @ np.diag([1 / finer, 1 / finer, 1])).ravel().tolist()
        how = {"resample": Image.Resampling.BICUBIC, "fillcolor": HIDDEN}
        photo = photo.transform((finer * width, finer * height), Image.Transform.AFFINE, affine, **how).reduce(finer)
    elif crop or photo.size != (width, height):
        photo = photo.resize((width, height), Image.Resampling.BILINEAR, box=crop and crop.box, reducing_gap=3)
    pixels = np.array(photo)
    if crop and crop.outline:
        from_photo = np.linalg.inv(crop_to_photo(crop, height, width))
        corners = np.array(crop.outline) @ from_photo[:2, :2].T + from_photo[:2, 2]
        pixels[~inside(corners, height, width)] = HIDDEN
    return torch.from_numpy(pixels).permute(2, 0, 1)


def crop_to_photo(crop: Crop, height: int, width: int) -> np.ndarray:
    """(3, 3): what takes a point (x, y, 1) of what was cut out, in px of its (height, width), to the photo's px."""
    left, top, right, bottom = crop.box
    cosine, sine = math.cos(math.radians(crop.degrees)), math.sin(math.radians(crop.degrees))
    turn = np.array([[cosine, -sine], [sine, cosine]]) * [(right - left) / width, (bottom - top) / height]
    middle = np.array([left + right, top + bottom]) / 2
    return np.block([[turn, (middle - turn @ [width / 2, height / 2])[:, None]], [np.zeros(2), np.ones(1)]])


def normalize(images: torch.Tensor, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """(N, 3, H, W) uint8, or float in 0..255, to float with the mean and deviation (per channel, in 0..1) taken out."""
    taken_out = 255 * torch.tensor([mean, deviation]).view(2, 1, 3, 1, 1)
    shift, scale = compute.to_device(taken_out, images.device)
    return (images - shift).div_(scale).contiguous(memory_format=compute.memory_format(images.device))


def normalized_batches(
    images: arrays.Array,
    rows: np.ndarray,
    normalization: dict[str, Sequence[float]],
    device: torch.device,
    batch_size: int = 32,
    corruption: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """The images (N, 3, H, W) uint8 in these rows, normalized (M, 3, H, W) on the device, a batch after the other.

    corruption: what is done to each batch of images (M, 3, H, W) uint8 before, see `corruptions.corrupt`.
    """
    for batch in batches(rows, batch_size):
        pixels = corruption(images[batch]) if corruption else images[batch]
        yield normalize(compute.to_device(pixels, device), **normalization)


def random_numbers(count: int, seed: int, copy: int) -> torch.Tensor:
    """(count, 7) random numbers in 0..1, a row for each image: how `augment` makes its `copy`.

    Copy 0 is the image as it is; every other one is different, and the same again for the same seed.
    """
    if copy == 0:
        return torch.full((count, 7), 0.5)
    return torch.rand(count, 7, generator=torch.Generator().manual_seed(seed * 10_000 + copy))


def augment(images: torch.Tensor, numbers: torch.Tensor, augmentation: str = "gentle") -> torch.Tensor:
    """Each image flipped left to right or not, turned, shifted, zoomed and lit a little anew: float in 0..255.

    images: (N, 3, H, W) uint8 or float. numbers: (N, 7) of `random_numbers`; 0.5 everywhere leaves an image as it is.
    augmentation: a name of AUGMENTATIONS, an unmirrored one where left and right tell classes apart.
    Hardly anything of a thing leaves the image, so labels stay true: what the turn uncovers is filled by mirroring.
    Raises ValueError for an unknown augmentation.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"There is no augmentation {augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}")
    if (numbers == 0.5).all():
        return images.float()
    count, _, height, width = images.shape
    mirror, turn, zoom, shift, light = AUGMENTATIONS[augmentation]
    extents = torch.tensor([mirror, turn, zoom, shift, shift, light, light])
    mirror, turn, zoom, across, down, light, contrast = ((numbers * 2 - 1) * extents).unbind(1)
    angle, zoom, flip = torch.deg2rad(turn), 1 + zoom, torch.where(mirror < 0, -1.0, 1.0)
    cosine, sine, aspect = torch.cos(angle) * zoom, torch.sin(angle) * zoom, height / width
    rows = [flip * cosine, -sine * aspect, across, flip * sine / aspect, cosine, down]
    theta = compute.to_device(torch.stack(rows, 1).view(count, 2, 3), images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Bilinear pictures are softer than those that the network will see, but older PyTorch has no other on a Mac's GPU.
    interpolation = "bilinear" if images.device.type == "mps" else "bicubic"
    moved = F.grid_sample(images.float(), grid, interpolation, padding_mode="reflection", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    light, contrast = (compute.to_device(1 + value.view(-1, 1, 1, 1), images.device) for value in (light, contrast))
    return moved.sub_(middle).mul_(contrast).add_(middle * light).clamp_(0, 255)


def batches(rows: np.ndarray, size: int, generator: torch.Generator | None = None) -> list[torch.Tensor]:
    """Row numbers in batches of at most `size`, each exactly once; shuffled where a generator is given.

    The batches are as even as can be: a last one of a single image would break batch normalization.
    Raises ValueError where there are none.
    """
    if len(rows) == 0:
        raise ValueError("There are no images to go through: is a split empty, or without one of the views?")
    rows = torch.as_tensor(np.asarray(rows))
    order = torch.randperm(len(rows), generator=generator) if generator else torch.arange(len(rows))
    return list(rows[order].tensor_split(math.ceil(len(rows) / size)))


def read_image(dataset: Dataset, path: str) -> np.ndarray:
    """One image of the data set as it is stored, (H, W, 3) uint8: for looking at, not for training."""
    with Archive(dataset.path) as archive:
        return np.asarray(_photo(archive, path))


def _photo(archive: Archive, path: str) -> Image.Image:
    try:
        return decode(archive.read(path), path)[0]
    except PhotoError as error:
        raise PhotoError(f"{archive.path}: {path}: {error}") from error
