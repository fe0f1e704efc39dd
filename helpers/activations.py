"""What the frozen part of a network gives: computed once for each image and augmented copy, and remembered.

The frozen part is a fixed function of the pixels. Epochs that start from what it gives touch only what learns.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from helpers import arrays, compute, distributed
from helpers.arrays import Array
from helpers.images import Examples, augment, batches, normalize, random_numbers

MOST_COPIES = 3  # of each image: more add little to what is learned, and each costs a pass of the frozen part
_BATCH_SIZE = 32
_HALF_MAX = torch.finfo(torch.float16).max
_FORMAT = 2  # raise it when the same key would give other values

Function = Callable[[torch.Tensor], torch.Tensor]


class Inputs(NamedTuple):
    """What the learning part is fed with: train(epoch, positions) and validation(positions), float, on the device.

    positions: (N,) places in `Examples.train` and `Examples.validation`.
    """

    train: Callable[[int, torch.Tensor], torch.Tensor]
    validation: Function


class Remembered(NamedTuple):
    """float16: train (copies * training images, ...), copy after copy; validation (validation images, ...)."""

    train: Array
    validation: Array


class Setting(NamedTuple):
    """How images are augmented and normalized, on which device, and where activations go that memory does not hold."""

    seed: int
    augmentation: str
    normalization: dict[str, list[float]]
    device: torch.device
    cache: Path


def prepare(
    frozen: nn.Sequential,
    examples: Examples,
    setting: Setting,
    *,
    epochs: int,
    copies: int | None = None,
    report: Callable[[str], None] = print,
) -> Inputs:
    """The inputs of the learning part for that many epochs, from remembered activations or from live images.

    copies: how many of each image to remember; 0 for the live path; None to choose: one an epoch, at most MOST_COPIES,
    and the live path where neither memory nor disk holds them or nothing is frozen. Epoch e meets copy e modulo
    copies, so with one copy each image as it is; on the live path as many as there are epochs, if not said otherwise.
    Both paths agree to half precision.
    """
    if len(frozen) == 0:
        return _live(lambda images: images, examples, setting, copies or epochs)
    wanted = copies_wanted(epochs, copies)
    run = compute.as_function(frozen, setting.device)
    needed, room = _bytes_needed(run, examples, setting, wanted), 0
    if needed > arrays.MEMORY_BYTES:
        room = distributed.from_first(_room(setting.cache, _digest(frozen, examples, setting)))
    if wanted and needed <= max(arrays.MEMORY_BYTES, room / 2):
        return inputs_from(remember(frozen, examples, setting, wanted, report), examples, setting)
    why = f"{wanted} copies take {_readable(needed)}, and {_readable(room)} are free" if wanted else "as asked"
    report(f"The frozen part runs anew in every epoch: {why}")
    return _live(run, examples, setting, copies or epochs)


def copies_wanted(epochs: int, copies: int | None) -> int:
    """How many copies of each image are remembered: as asked for, else one an epoch, at most MOST_COPIES."""
    return min(epochs, MOST_COPIES) if copies is None else copies


def fits(frozen: nn.Module, examples: Examples, setting: Setting, copies: int) -> bool:
    """Whether anything is frozen, and what it gives fits into memory."""
    if len(frozen) == 0:
        return False
    return _bytes_needed(compute.as_function(frozen, setting.device), examples, setting, copies) <= arrays.MEMORY_BYTES


def remember(
    frozen: nn.Module, examples: Examples, setting: Setting, copies: int, report: Callable[[str], None] = print
) -> Remembered:
    """What the frozen part gives for each copy of each training image (see `images.augment`) and each validation image.

    All stay in memory up to `arrays.MEMORY_BYTES`, else in files, whose names are digests of all that the values depend
    on: another weight, pixel or setting has another file. Several processes share the work.
    """
    run = compute.as_function(frozen, setting.device)
    needed = _bytes_needed(run, examples, setting, copies)
    digest = _digest(frozen, examples, setting) if needed > arrays.MEMORY_BYTES else ""
    count = copies * len(examples.train) + len(examples.validation)
    place = setting.cache if digest else "memory"
    report(
        f"Running the frozen part once for {count:,} images and copies: {_readable(needed)} of activations in {place}"
    )
    return Remembered(
        _remember(run, (examples.images, examples.train), setting, copies, digest),
        _remember(run, (examples.images, examples.validation), setting, 1, digest),
    )


def inputs_from(stored: Remembered, examples: Examples, setting: Setting) -> Inputs:
    """What remembered activations feed the learning part with: epoch e meets copy e modulo copies."""
    copies = len(stored.train) // len(examples.train)
    return Inputs(
        lambda epoch, rows: _load(stored.train, rows + epoch % copies * len(examples.train), setting),
        lambda rows: _load(stored.validation, rows, setting),
    )


def of_rows(stored: Remembered, examples: Examples) -> Remembered:
    """What these examples need of a store that holds every image, as one to train on and as one to validate on.

    So several runs on the same images, such as those of a cross-validation, share one pass of the frozen part.
    """
    count = len(examples.images)
    copies = [stored.train[torch.as_tensor(examples.train + start)] for start in range(0, len(stored.train), count)]
    return Remembered(torch.cat(copies), stored.validation[torch.as_tensor(examples.validation)])


def _live(run: Function, examples: Examples, setting: Setting, copies: int) -> Inputs:
    images = _near(examples.images, setting)
    train, validation = torch.as_tensor(examples.train), torch.as_tensor(examples.validation)
    drawn = lru_cache(1)(lambda copy: random_numbers(len(train), setting.seed, copy))

    def pixels_of(rows: torch.Tensor) -> torch.Tensor:
        there = images.device if isinstance(images, torch.Tensor) else rows.device
        return compute.to_device(images[compute.to_device(rows, there)], setting.device)

    def training_inputs(epoch: int, positions: torch.Tensor) -> torch.Tensor:
        pixels = augment(pixels_of(train[positions]), drawn(epoch % copies)[positions], setting.augmentation)
        return run(normalize(pixels, **setting.normalization))

    def validation_inputs(positions: torch.Tensor) -> torch.Tensor:
        return run(normalize(pixels_of(validation[positions]), **setting.normalization))

    return Inputs(training_inputs, validation_inputs)


def _near(images: Array, setting: Setting) -> Array:
    """The images on the device, if what activations may take there is enough. On a GPU also those that a file holds."""
    in_reach = isinstance(images, torch.Tensor) or setting.device.type == "cuda"
    return images[:].to(setting.device) if in_reach and arrays.fits_on(setting.device, images.nbytes) else images


def _remember(run: Function, source: tuple[Array, np.ndarray], setting: Setting, copies: int, digest: str) -> Array:
    """(copies * rows, ...) of rows of images, in memory or, where the frozen part's digest is given, in a file."""
    images, rows = source
    shape = (copies * len(rows), *_shape(run, images, setting))
    facts = [_FORMAT, digest, shape, setting.device.type, torch.__version__]
    parts = _compute(run, images, rows, setting, copies)
    if not digest:
        return arrays.collect(parts, shape, np.float16, setting.cache, arrays.MEMORY_BYTES)
    file = setting.cache / f"{_files_of(digest)}{_pixels_digest(images, rows, json.dumps(facts))[:32]}.npy"
    absent = not arrays.is_whole(file, shape, np.float16)
    if distributed.total(torch.tensor(int(absent), device=setting.device)):  # on this machine or on another one
        if absent and distributed.is_first_here():
            arrays.collect(parts, shape, np.float16, file, memory_bytes=0)
        else:
            deque(parts, maxlen=0)  # computes its share of what the first process writes
    distributed.wait()
    return arrays.FileArray(file, shape)


def _compute(run: Function, images: Array, rows: np.ndarray, setting: Setting, copies: int) -> Iterator[torch.Tensor]:
    for copy in range(copies):
        numbers = random_numbers(len(rows), setting.seed, copy)
        for positions in batches(np.arange(len(rows)), _BATCH_SIZE * distributed.processes()):
            own = distributed.share(positions)
            pixels = compute.to_device(images[rows[own.numpy()]], setting.device)
            pixels = augment(pixels, numbers[own], setting.augmentation)
            values = run(normalize(pixels, **setting.normalization)).clamp(-_HALF_MAX, _HALF_MAX).half()
            yield distributed.gather(values, len(positions)).cpu()


def _load(stored: Array, rows: torch.Tensor, setting: Setting) -> torch.Tensor:
    return compute.to_device(stored[rows], setting.device).float()


def _shape(run: Function, images: Array, setting: Setting) -> tuple[int, ...]:
    """Of what the frozen part gives for one image, such as (C, H, W)."""
    return tuple(run(normalize(images[:1].to(setting.device), **setting.normalization)).shape[1:])


def _bytes_needed(run: Function, examples: Examples, setting: Setting, copies: int) -> int:
    count = copies * len(examples.train) + len(examples.validation)
    return arrays.bytes_of((count, *_shape(run, examples.images, setting)), np.float16)


def _digest(frozen: nn.Module, examples: Examples, setting: Setting) -> str:
    """Of the layers and all their numbers, and of which images they are asked about, and how these are changed."""
    how = json.dumps([setting.seed, setting.augmentation, setting.normalization])
    digest = hashlib.sha256(f"{frozen} {how}".encode() + examples.train.tobytes() + examples.validation.tobytes())
    for name, tensor in frozen.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _pixels_digest(images: Array, rows: np.ndarray, facts: str) -> str:
    """Of the pixels of these rows, and of the facts."""
    digest = hashlib.sha256(facts.encode())
    for start in range(0, len(rows), 256):
        digest.update(images[rows[start : start + 256]].numpy().tobytes())
    return digest.hexdigest()


def _files_of(digest: str) -> str:
    """How the names of the files of a run with this digest begin."""
    return f"activations-{digest[:16]}-"


def _room(folder: Path, digest: str) -> int:
    """Bytes that are free for files in the folder, or taken by those of an earlier run with the same digest.

    So a run that goes on decides as it did when it began.
    """
    held = sum(file.stat().st_size for file in folder.glob(f"{_files_of(digest)}*"))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free + held


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
