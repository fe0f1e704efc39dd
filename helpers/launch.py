"""Start training in several processes, from a notebook that is one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from helpers import networks
from helpers.arrays import Array
from helpers.catalog import Dataset
from helpers.networks import Model
from helpers.recipes import Recipe


def fit_together(
    architecture: str,
    weights: str,
    dataset: Dataset,
    images: Array,
    views: list[str],
    recipe: Recipe,
    device: torch.device,
    *,
    folder: Path,
    report: Callable[[str], None] = print,
    processes: int | None = None,
) -> Model:
    """As `training.fit`, by as many processes as there are GPUs, or as asked for, each with its part of every batch.

    They are started anew, since a notebook that has used a GPU cannot be forked.
    Raises RuntimeError, with the end of what was printed, where they fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "together.zip"
    count = str(processes or torch.cuda.device_count())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    command += ["-m", "helpers.training", str(dataset.path), str(output), "--architecture", architecture]
    command += ["--weights", weights, "--views", *views, "--device", device.type]
    command += ["--image-height", str(images.shape[2]), "--image-width", str(images.shape[3])]
    command += ["--crop", *dataset.empty] if dataset.empty else []
    command += ["--recipe", json.dumps(asdict(recipe))]
    lines: deque[str] = deque(maxlen=200)  # torchrun says a lot of its own after an error
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout:
            lines.append(line)
            if line.startswith(("epoch", "Running", "Going")):
                report(line.rstrip())
    if running.returncode:
        raise RuntimeError("Training in several processes failed:\n" + "".join(lines))
    return networks.load_models(output)[architecture]
