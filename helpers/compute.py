"""How numbers are computed on a device: in which precision, in which memory order, with which layers folded."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse


def precision(module: nn.Module, device: torch.device, *, learning: bool) -> torch.dtype:
    """The fastest sound precision: bfloat16 where the hardware has it, float16 on older GPUs, else float32.

    On a CPU bfloat16 doubles the speed of inference, and of the training of networks with full convolutions; the
    training of depth-wise ones is slower in it and stays in float32 (docs/benchmarks.md).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu" or not _cpu_has_bfloat16() or (learning and _is_depth_wise(module)):
        return torch.float32
    return torch.bfloat16


def autocast(module: nn.Module, device: torch.device, *, learning: bool) -> contextlib.AbstractContextManager:
    """The context in which the module runs in its `precision`."""
    chosen = precision(module, device, learning=learning)
    return contextlib.nullcontext() if chosen == torch.float32 else torch.autocast(device.type, chosen)


def inference(module: nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The module as a fast function without gradients, from normalized images (N, 3, H, W) on the device to float32.

    It works on a copy in evaluation mode whose batch normalization is folded into the convolutions before it.
    """
    copied = fold_norms(copy.deepcopy(module).eval()).to(device, memory_format=torch.channels_last)

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(copied, device, learning=False):
            return copied(images).float()

    return run


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


def _is_depth_wise(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels for layer in module.modules())


def _cpu_has_bfloat16() -> bool:
    """In hardware: what is emulated is slower than float32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)
