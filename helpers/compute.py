"""How numbers are computed on a device: in which precision, in which memory order, with which layers folded."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

_WITH_BFLOAT16 = (8, 0)  # compute capability: Ampere and later
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as in the C library's malloc.h


def precision(device: torch.device) -> torch.dtype:
    """The fastest sound precision: bfloat16 where the hardware says it has it, float16 on older GPUs, else float32.

    On a CPU bfloat16 makes inference and training 1.2 to 2.9 times faster (docs/benchmarks.md).
    """
    if device.type == "cuda":
        in_hardware = torch.version.hip or torch.cuda.get_device_capability(device) >= _WITH_BFLOAT16
        return torch.bfloat16 if in_hardware else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


@contextlib.contextmanager
def autocast(module: nn.Module, device: torch.device, *, learning: bool) -> Iterator[None]:
    """The context in which the module runs in the device's `precision`.

    learning: on a CPU the depth-wise convolutions stay in float32, for their gradients are slow in bfloat16.
    """
    chosen = precision(device)
    slow = learning and device.type == "cpu"
    kept = [layer for layer in module.modules() if _is_depth_wise(layer)] if slow else []
    for layer in kept:
        layer.__class__ = _FloatConv2d
    try:
        with contextlib.nullcontext() if chosen == torch.float32 else torch.autocast(device.type, chosen):
            yield
    finally:
        for layer in kept:
            layer.__class__ = nn.Conv2d


def memory_format(device: torch.device) -> torch.memory_format:
    """The memory order of networks and images: the color channels last, in which convolutions are faster.

    Not on a Mac's GPU, where gradients of normalizations in that order are wrong, and those of poolings end the process
    (PyTorch's issues 175189 and 175190).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for a GPU to finish what it was asked before: from pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fork_rng(device: torch.device) -> contextlib.AbstractContextManager:
    """A context that gives the random numbers of the CPU, and of that device if it has CUDA, back as it found them."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def keep_memory() -> None:
    """Let the memory that one tensor gives back serve the next one, for the whole process.

    The C library of Linux returns every block of more than 32 MiB to the system and gets it again page by page, which
    takes up to half of the time of training (docs/log.md). Elsewhere nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        # Older ones take 32 MiB at most, and after the next call no longer find a threshold by themselves.
        library.mallopt(_MMAP_THRESHOLD, 2**30) or library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**30)


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Raises MemoryError with the remedy where a GPU's memory ends: PyTorch's message knows no parameter of ours."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"The GPU has too little memory for this: {remedy}") from error


def as_function(
    module: nn.Module, device: torch.device, *, mirrored: bool = False
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The module as a fast function without gradients, from what it takes, on the device, to float32.

    It works on a copy in evaluation mode whose batch normalization is folded into the convolutions before it.
    mirrored: the mean of what it gives for each image and for its mirror image (Krizhevsky, Sutskever and Hinton 2012).
    """
    copied = fold_norms(copy.deepcopy(module).eval()).to(device, memory_format=memory_format(device))

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(copied, device, learning=False):
            given = copied(images).float()
            return (given + copied(images.flip(3)).float()) / 2 if mirrored else given

    return run


def milliseconds(run: Callable[[], object]) -> float:
    """What a call takes: the median of nine after a warm-up. On a GPU it must end in something on the CPU."""
    times = []
    for _ in range(10):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


def fold_norms(module: nn.Module) -> nn.Module:
    """The same function with fewer layers: each batch normalization becomes part of the convolution before it.

    module: in evaluation mode. One whose way depends on its input (a transformer with shape checks) stays as it is.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        return module
    try:
        return fuse(module)
    except (fx.proxy.TraceError, TypeError):
        return module


class _FloatConv2d(nn.Conv2d):
    """A convolution in float32, whatever precision surrounds it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def _is_depth_wise(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and 1 < layer.groups == layer.in_channels


def _cpu_has_bfloat16() -> bool:
    """In hardware: what is emulated is slower than float32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)
