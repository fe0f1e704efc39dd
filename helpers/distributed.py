"""Several processes, one training run: each takes its part of every batch, and all come to the same result.

Without `torchrun` there is one process, which has the whole of every batch: nothing is shared or waited for.
Source: Goyal et al. (2017), Accurate, Large Minibatch SGD, for gradients and statistics of the whole batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torchvision.ops import StochasticDepth

_PATIENCE = timedelta(days=1)  # the first process may decode for hours; one that dies ends all of them at once

Value = TypeVar("Value")


def start(device: torch.device) -> torch.device:
    """Join the processes that `torchrun` started, and return this one's device: its own GPU, or the CPU.

    Raises ValueError where there are more processes than GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= (count := torch.cuda.device_count()):
            raise ValueError(f"Each process needs a GPU of its own, and there are {count}: --nproc-per-node {count}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    return device


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """How many take part."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that reports and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def is_first_here() -> bool:
    """Whether this is the process that writes files for all on this machine."""
    return not dist.is_initialized() or int(os.environ["LOCAL_RANK"]) == 0


def share(rows: torch.Tensor) -> torch.Tensor:
    """This process's part of the rows of a batch; the parts of all processes, in order, are the batch."""
    return rows.tensor_split(processes())[dist.get_rank()] if dist.is_initialized() else rows


def gather(part: torch.Tensor, rows: int) -> torch.Tensor:
    """(rows, ...): the parts of all processes below each other, in every process."""
    if processes() == 1:
        return part
    sizes = [len(numbers) for numbers in torch.arange(rows).tensor_split(processes())]
    padded = part.new_zeros(max(sizes), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if processes() > 1:
        dist.all_reduce(values)
    return values


def uniform(count: int, *shape: int, device: torch.device) -> torch.Tensor:
    """(count, *shape) random numbers in 0..1 for this process's part of a batch.

    Every process draws those of the whole batch and takes its own, so that each image meets the same chance however
    many processes share the batch.
    """
    if processes() == 1:
        return torch.rand(count, *shape, device=device)
    rows = int(total(torch.tensor(count, device=device)))
    return torch.rand(rows, *shape, device=device)[share(torch.arange(rows))]


def from_first(value: Value) -> Value:
    """The first process's value, in every process."""
    box = [value]
    if processes() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Go on when all have come here."""
    if processes() > 1:
        dist.barrier()


def parallel(module: nn.Module) -> nn.Module:
    """The module, its gradients averaged over all processes. They begin with the weights of the first one."""
    return nn.parallel.DistributedDataParallel(module) if processes() > 1 else module


@contextlib.contextmanager
def whole_batches(network: nn.Module) -> Iterator[None]:
    """While it lasts, what depends on the whole batch sees it: batch statistics, and the random numbers of dropout.

    So the result does not depend on how many processes share a batch. Layers change their class, not their weights.
    """
    before = {layer: type(layer) for layer in network.modules() if type(layer) in _WHOLE_BATCH}
    try:
        for layer, kind in before.items():
            layer.__class__ = _WHOLE_BATCH[kind]
        yield
    finally:
        for layer, kind in before.items():
            layer.__class__ = kind


class _Total(torch.autograd.Function):
    """The sum over all processes, through which gradients flow back: each has a part in every process's result."""

    @staticmethod
    def forward(context: object, values: torch.Tensor) -> torch.Tensor:
        return total(values.clone())

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        return total(gradient.contiguous().clone())


class _BatchNorm(nn.BatchNorm2d):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training or processes() == 1:
            return super().forward(images)
        values = images.float() - self.running_mean.view(1, -1, 1, 1)  # near 0, or their squares would lose digits
        count = torch.full_like(self.running_mean, values.numel() / values.shape[1])
        sums = torch.stack([count, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        count, mean, square = _Total.apply(sums)
        mean, square = mean / count, square / count
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * mean
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale, shift = (variance + self.eps).rsqrt(), 0.0
        if self.affine:
            scale, shift = self.weight * scale, self.bias
        return (values * scale.view(-1, 1, 1) + (shift - mean * scale).view(-1, 1, 1)).to(images.dtype)


class _Dropout(nn.Dropout):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return _drop(values, values.shape[1:], self.p) if self.training and self.p else values


class _StochasticDepth(StochasticDepth):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return _drop(values, (1,) * (values.ndim - 1), self.p) if self.training and self.p else values


_WHOLE_BATCH = {nn.BatchNorm2d: _BatchNorm, nn.Dropout: _Dropout, StochasticDepth: _StochasticDepth}


def _drop(values: torch.Tensor, shape: tuple[int, ...], probability: float) -> torch.Tensor:
    """Zero with that probability, else scaled up."""
    kept = uniform(len(values), *shape, device=values.device) >= probability
    return values * kept / max(1 - probability, 1e-6)
