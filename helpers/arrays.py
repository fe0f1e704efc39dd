"""Arrays with one row an image: in memory where they fit, else in a file that is read row by row."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from helpers import archives


def _memory_bytes(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"HELPERS_MEMORY_BYTES={text} in the environment must be a whole number of bytes")
    return int(text)


MEMORY_BYTES = _memory_bytes(os.environ.get("HELPERS_MEMORY_BYTES", str(2**30)))  # what one array may take in memory


@dataclass(frozen=True)
class FileArray:
    """An array in an `.npy` file that can be indexed by rows like a tensor; memory stays flat however large it is."""

    path: Path
    shape: tuple[int, ...]

    def __getitem__(self, rows: slice | np.ndarray | torch.Tensor) -> torch.Tensor:
        """The rows as a tensor in memory. The file is mapped anew each time, so that no page of it stays resident."""
        mapped = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(np.array(mapped[rows if isinstance(rows, slice) else np.asarray(rows)]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The type of its elements."""
        return self[:0].dtype

    @property
    def nbytes(self) -> int:
        """What its elements take on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


Array = torch.Tensor | FileArray


def collect(
    parts: Iterable[torch.Tensor], shape: tuple[int, ...], dtype: np.dtype, file: Path, memory_bytes: int
) -> Array:
    """The parts below each other, (N, ...): in memory up to `memory_bytes`, else in `file`, for the next run too.

    parts: consumed only where there is no such file yet, or a broken one. The file is written whole or not at all.
    Raises ValueError where the parts do not add up to the shape, OSError where the file cannot be written.
    """
    if bytes_of(shape, dtype) <= memory_bytes:
        array, filled = torch.from_numpy(np.empty(shape, dtype)), 0
        for part in parts:
            filled += len(part)
            if filled <= len(array):
                array[filled - len(part) : filled] = part
        _check_rows(filled, shape)
        return array
    if not is_whole(file, shape, dtype):
        try:
            _write(parts, shape, dtype, file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOSPC):
                raise
            raise OSError(
                f"{file.parent} cannot be written to ({error.strerror}): it needs room for {bytes_of(shape, dtype):,} "
                "bytes. Or keep more in memory, with a larger HELPERS_MEMORY_BYTES in the environment "
                f"({MEMORY_BYTES} now)"
            ) from error
    return FileArray(file, shape)


def is_whole(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether the file is there and holds an array of that shape and type."""
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # not there, cut off, or emptied by a power cut
        return False
    return array.shape == shape and array.dtype == dtype


def bytes_of(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """What an array of that shape takes, in memory or on disk."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def fits_on(device: torch.device, needed: int) -> bool:
    """Whether that many bytes may be kept on the device: at most MEMORY_BYTES, and a quarter of a GPU's free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return needed <= min(MEMORY_BYTES, free / 4)


def _write(parts: Iterable[torch.Tensor], shape: tuple[int, ...], dtype: np.dtype, file: Path) -> None:
    filled = 0
    with archives.atomic(file) as unfinished, unfinished.open("wb") as stream:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.numpy().astype(dtype, copy=False).tobytes())
            filled += len(part)
        _check_rows(filled, shape)


def _check_rows(filled: int, shape: tuple[int, ...]) -> None:
    if filled != shape[0]:
        raise ValueError(f"{filled} rows came where {shape[0]} were announced")
