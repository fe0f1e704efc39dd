"""Checkpoints: all that an unbroken run knows after an epoch, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import nn

from helpers import archives
from helpers.images import Examples

Tensors = dict[str, torch.Tensor]


class State(NamedTuple):
    """History (one row an epoch), weights of the epoch kept, those of the last, and the optimizer's memory of it."""

    history: list[dict]
    kept: Tensors
    network: Tensors
    optimizer: dict[int, Tensors]


def key_of(facts: list, examples: Examples) -> str:
    """Digest of all that a run depends on: facts that JSON can hold, labels, and which rows are for what.

    The same network on fewer images is another run. The images are known by their data set, which stands in the facts.
    """
    digest = hashlib.sha256(json.dumps(facts).encode())
    for rows in (examples.labels, examples.train, examples.validation):
        digest.update(np.asarray(rows, np.int64).tobytes() + b";")
    return digest.hexdigest()


def save(
    file: Path,
    key: str,
    history: list[dict],
    kept: Tensors,
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Write the checkpoint whole, or leave the one before. key: see `load`."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"kept.{name}": tensor for name, tensor in kept.items()}
    for index, slots in (optimizer.state_dict()["state"] if optimizer else {}).items():
        tensors |= {f"optimizer.{index}.{slot}": tensor for slot, tensor in slots.items()}
    with archives.atomic(file) as unfinished:
        whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        safetensors.torch.save_file(whole, unfinished, {"key": key, "history": json.dumps(history)})  # no copy as bytes


def restore(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Give a new optimizer of the same parameters the memory of the one in the state."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots = {index: dict(tensors) for index, tensors in state.optimizer.items()}
    for index, tensors in slots.items():
        for slot, tensor in tensors.items():
            if tensor.shape == parameters[index].shape:  # fused steps need the memory order of the parameter
                tensors[slot] = torch.empty_like(parameters[index], requires_grad=False).copy_(tensor)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})


def load(file: Path, key: str) -> State | None:
    """The state in that file; None where there is none, or one of a run with another key, or one that broke."""
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            if metadata["key"] != key:
                return None
            # Copies: Windows does not replace a file that is mapped.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except safetensors.SafetensorError:  # a power cut, a full disk
        return None
    parts: dict[str, Tensors] = {"network": {}, "kept": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    slots: dict[int, Tensors] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    return State(json.loads(metadata["history"]), parts["kept"], parts["network"], slots)
