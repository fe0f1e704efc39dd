"""Training in several processes: the command that each of them runs, and how a notebook, which is one, starts them.

On one processor, or with `torchrun` on many, from data.zip to models.zip:
torchrun --nproc-per-node 2 -m helpers.launch transfer/data.zip transfer/models.zip --architecture resnet18
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

import pandas as pd
import torch

from helpers import cards, catalog, compute, crops, distributed, networks, session, training
from helpers.arrays import Array
from helpers.cards import Model
from helpers.catalog import Dataset
from helpers.images import load_images
from helpers.recipes import Phase, Recipe, transfer

_MENDABLE = (ValueError, OSError, ArithmeticError, MemoryError, networks.WeightsError)  # by a user
_SAID = ("epoch", "Running", "Going", "The frozen part")  # how the lines begin that training reports


def fit_distributed(
    architecture: str,
    weights: str,
    dataset: Dataset,
    images: Array,
    views: list[str],
    recipe: Recipe,
    device: torch.device,
    *,
    folder: Path,
) -> Model:
    """As `training.fit`, by as many processes as there are GPUs, each with its part of every batch.

    They are started anew, since a notebook that has used a GPU cannot be forked; so they read the data set from its
    archive, with the splits that stand there.
    Raises RuntimeError, with the end of what was printed, where they fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "together.zip"
    count = str(torch.cuda.device_count())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    command += ["-m", "helpers.launch", str(dataset.path), str(output), "--architecture", architecture]
    command += ["--weights", weights, "--views", *views, "--device", device.type]
    command += ["--image-height", str(images.shape[2]), "--image-width", str(images.shape[3])]
    command += ["--crop", *dataset.backgrounds] if dataset.backgrounds else []
    command += ["--recipe", json.dumps(dataclasses.asdict(recipe)), "--work", str(folder)]
    lines: deque[str] = deque(maxlen=200)  # torchrun says a lot of its own after an error
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout:
            lines.append(line)
            if line.startswith(_SAID):
                print(line.rstrip())
    if running.returncode:
        raise RuntimeError("Training in several processes failed:\n" + "".join(lines))
    return cards.load_models(output)[architecture]


def main() -> None:
    """Train one network as the command line says, in all processes that `torchrun` started; the first one saves it."""
    parser = argparse.ArgumentParser(prog="helpers.launch", description=__doc__)
    parser.add_argument("data_archive", type=Path, help="what 01-DataPreparation wrote")
    parser.add_argument("output_archive", type=Path, help="where the network goes")
    parser.add_argument("--architecture", required=True, help="of torchvision, or of helpers.convnets")
    parser.add_argument("--weights", default="imagenet", help='"imagenet", "none" or a path')
    parser.add_argument("--views", nargs="*", help="the views to learn from; all, if not given")
    parser.add_argument("--image-height", type=int, default=224, help="px")
    parser.add_argument("--image-width", type=int, default=224, help="px")
    parser.add_argument("--crop", nargs="+", default=[], metavar="VIEW", help="cut its photos out around what moves")
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", "mps"')
    parser.add_argument("--recipe", type=json.loads, default={}, help="fields of Recipe as JSON, as a card holds them")
    parser.add_argument("--work", type=Path, help="a folder for checkpoints, which stay; if not given, they do not")
    wanted = parser.parse_args()
    compute.keep_memory()
    try:
        device = distributed.start(session.pick_device(wanted.device))
        _fit(wanted, device)
    except _MENDABLE as error:  # in one sentence
        sys.exit(f"helpers.launch: {error}")
    distributed.stop()  # not after an error: it would wait for processes that wait for this one, and hide the reason


def _fit(wanted: argparse.Namespace, device: torch.device) -> None:
    output = session.output(wanted.output_archive.resolve(), wanted.data_archive)
    dataset = catalog.load(wanted.data_archive)
    network = networks.build(wanted.architecture, len(dataset.classes), "none")
    size = networks.input_size(network, wanted.image_height, wanted.image_width)
    found = crops.find_backgrounds(dataset, forced=True) if wanted.crop else {}
    if unknown := set(wanted.crop) - set(found):
        raise ValueError(f"--crop: no view to cut out is called {', '.join(unknown)}; there are {', '.join(found)}")
    dataset = crops.with_crops(dataset, {view: found[view] for view in wanted.crop}, size[1] / size[0])
    recipe = _recipe(wanted.weights, wanted.recipe)
    views = wanted.views or dataset.views or [""]
    session.set_seed(recipe.seed)
    folder = wanted.work or output.with_suffix(".launch.work")  # not .work: a notebook may keep its own there
    images = _load_together(dataset, *size)
    model = training.fit(wanted.architecture, wanted.weights, dataset, images, views, recipe, device, folder=folder)
    if distributed.is_first():
        kept = pd.DataFrame(model.card["history"]).query("kept").tail(1).set_axis([wanted.architecture])
        print(cards.save_models(output, {wanted.architecture: model}, kept))
    distributed.wait()
    if not wanted.work and distributed.is_first_here():
        shutil.rmtree(folder, ignore_errors=True)  # machines that share a disk share the folder


def _recipe(weights: str, fields: dict[str, object]) -> Recipe:
    """The usual one for these weights, with other fields where they are given, as a card holds them.

    Raises ValueError for a field that a recipe does not have, or of a wrong type.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"--recipe must map fields to values, as in '{{\"batch_size\": 64}}', not be {fields!r}")
    known = [one.name for one in dataclasses.fields(Recipe)]
    if unknown := set(fields) - set(known):
        raise ValueError(f"--recipe: no field is called {', '.join(unknown)}; there are {', '.join(known)}")
    epochs, rate = (24, 1e-3) if weights == "none" else (12, 2e-4)
    usual = transfer(weights, Phase("head", "head", 4), Phase("fine-tuning", "last stage", epochs, rate), 16, seed=0)
    try:
        if "phases" in fields:
            fields = fields | {"phases": [Phase(*phase) for phase in fields["phases"]]}
        return dataclasses.replace(usual, **fields)
    except TypeError as error:
        raise ValueError(f"--recipe: a value is of a wrong type ({error}): give it as a card holds it") from None


def _load_together(dataset: Dataset, height: int, width: int) -> Array:
    """The images, of which the processes of one machine share one copy, in a file."""
    if distributed.processes() == 1:
        return load_images(dataset, height, width)
    if distributed.is_first_here():
        load_images(dataset, height, width, memory_bytes=0)
    distributed.wait()
    return load_images(dataset, height, width, memory_bytes=0)


if __name__ == "__main__":
    main()
