"""The chosen network as an ONNX file, for a line that runs without PyTorch; checked against PyTorch."""

from __future__ import annotations

import importlib.util
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from helpers import archives, compute, novelty, stages
from helpers.arrays import Array
from helpers.cards import Model
from helpers.images import batches
from helpers.networks import without_inplace

OPSET = 18
_BATCH_SIZE = 32
_MOST_BYTES = 3 * 2**29  # of numbers: the exporter puts more of them into a second file


class Checked(NamedTuple):
    """The largest difference of any probability, and of any similarity (NaN where the file gives none).

    The medians of one image at a time, in milliseconds.
    """

    probabilities: float
    similarity: float
    onnx_ms: float
    torch_ms: float


class _Whole(nn.Module):
    """From pixels (N, 3, H, W) in 0..255 to what `to_onnx` promises: nothing is left to be done outside.

    A copy on the CPU; the network stays where it is.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        parts = stages.split(without_inplace(model.network).cpu().eval(), stages.HEAD)
        self.body, self.head = (compute.fold_norms(part) for part in parts)
        self.temperature, self.mirrored = model.card["temperature"], model.card["mirrored"]
        for name, value in model.card["normalization"].items():
            self.register_buffer(f"pixel_{name}", torch.tensor(value).view(1, 3, 1, 1) * 255)
        for number, known in enumerate((model.features or {}).values()):
            self.register_buffer(f"known_{number}", known.float())
        self.view_count = len(model.features or {})

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = (pixels - self.pixel_mean) / self.pixel_deviation
        features = self.body(images)
        logits = self.head(features)
        if self.mirrored:
            logits = (logits + self.head(self.body(images.flip(3)))) / 2
        probabilities = (logits / self.temperature).softmax(1)
        if not self.view_count:
            return (probabilities,)
        directions = novelty.direction(features)
        known = (self.get_buffer(f"known_{number}") for number in range(self.view_count))
        return probabilities, torch.stack([novelty.similarity(directions, own) for own in known], 1)


def available() -> bool:
    """Whether what the extra `onnx` brings is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def to_onnx(model: Model, path: str | Path) -> Path:
    """Write the network with normalization, looks, temperature and softmax, opset OPSET; whole or not at all.

    Input pixels: (N, 3, H, W) float32 in 0..255, N free, H and W as in the card, already cut out. Output
    probabilities: (N, C), calibrated. Where the network knows what it learned from, output similarity: (N, V), to that
    of each view, in the order of the card's novelty_thresholds; below the threshold of its view, an image is unfamiliar
    (`novelty.fit`).
    Raises RuntimeError where the extra is missing, or the network is too large or cannot be exported.
    """
    if not available():
        raise RuntimeError("ONNX needs more packages: pip install onnx onnxscript onnxruntime")
    path, size = Path(path), model.card["input"]
    whole = _Whole(model).eval()
    numbers = sum(tensor.nbytes for tensor in whole.state_dict().values())
    if numbers > _MOST_BYTES:
        raise RuntimeError(f"{path.name}: one ONNX file holds no network of {numbers:,} bytes: choose a smaller one")
    example = torch.zeros(2, 3, size["height"], size["width"])
    try:
        with archives.atomic(path) as unfinished, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["probabilities", "similarity"][: 1 + bool(model.features)],
                dynamic_shapes=({0: torch.export.Dim("images")},),
                verbose=False,
            )
            program.save(unfinished, external_data=False)
    except OSError:  # a full disk is no fault of the exporter
        raise
    except Exception as error:  # the exporter has many of its own
        reason = error
        while reason.__cause__:  # the outermost only says at which step of how many it failed
            reason = reason.__cause__
        reason = str(reason).strip().partition("\n")[0]
        raise RuntimeError(
            f"{path.name}: the network cannot be written as ONNX: {reason}. Newer torch and onnxscript may know how"
        ) from error
    return path


def check(path: str | Path, model: Model, images: Array, rows: np.ndarray) -> Checked:
    """ONNX Runtime beside PyTorch, both in float32 on the CPU, on these rows of the images (N, 3, H, W) uint8."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    whole = _Whole(model).eval().to(memory_format=torch.channels_last)

    def by_onnx(pixels: torch.Tensor) -> list[np.ndarray]:
        return session.run(None, {"pixels": pixels.numpy()})

    def by_torch(pixels: torch.Tensor) -> list[np.ndarray]:
        with torch.inference_mode():
            return [given.numpy() for given in whole(pixels.contiguous(memory_format=torch.channels_last))]

    parts = (images[batch].float() for batch in batches(rows, _BATCH_SIZE))
    apart = np.max(
        [[np.abs(a - b).max() for a, b in zip(by_onnx(part), by_torch(part), strict=True)] for part in parts], 0
    )
    one = images[rows[:1]].float()
    times = (compute.milliseconds(lambda run=run: run(one)) for run in (by_onnx, by_torch))
    return Checked(float(apart[0]), float(apart[1]) if len(apart) > 1 else math.nan, *times)
