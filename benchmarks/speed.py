"""How fast, against others: writes the sections of docs/benchmarks.md, and its figure.

python benchmarks/speed.py trashnet.zip mobilenet_v2.pth --cifar cifar10.zip --parts training attribution
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import contenders
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import peers
import torch
from alone import alone
from contenders import CPU, HEAD, SIZE, TUNED
from pages import machine, markdown, put_section

from helpers import catalog, compute, dialog, images, networks, session, training
from helpers.archives import Archive
from helpers.images import Examples

DOCS = session.root() / "docs"
TRAINING = """\
TrashNet, {train} photos to learn from, {validation} to validate, {test} to test; MobileNetV2 from the same weights
file, {epochs} epochs of 224 x 224 px. Seconds count from the photos on disk to the trained network.

{trained}

![Seconds of each](benchmarks.png)

No head-only run can take less than {floor:.2f} s, the time for decoding and one pass of the frozen network at its
measured rate; ours takes {over:.2f} times that."""
VGG = """\
4 epochs on 400 images of 224 x 224 px, from random weights; plain: the same epochs as the usual loop, float32, the
frozen part run anew in each.

{seconds}"""
ATTRIBUTION = """\
MobileNetV2, 32 photos, 50 steps; Captum's call with its defaults image by image (its default of all images
and steps at once does not fit into memory).

{errors}"""
SMALL = """\
CIFAR-10, an epoch of `two_convolutions` on {count:,} pictures of 32 x 32 px in batches of {batch}: from memory,
and from JPEG files in class folders through torchvision's `ImageFolder` and a `DataLoader` with two workers.
Decoding all pictures once takes ours {decoding:.0f} s before the first epoch.

{epochs}"""
PRECISION = """\
How many times faster `helpers.compute` is in bfloat16 than in float32; depth-wise convolutions learn in float32.

{precisions}"""
KEPT = """\
How many times faster a training step of MobileNetV2 is, 8 images of 270 x 480 px, where the C library keeps what
tensors give back (`compute.keep_memory`): {kept:.2f}"""


class Bench(NamedTuple):
    """What the parts work with: TrashNet laid out in a folder, weights, CIFAR-10 (or None), and how many rounds."""

    dataset: catalog.Dataset
    folder: Path
    weights: Path
    cifar: Path | None
    rounds: int


def main() -> None:
    """Run the parts asked for, and write their sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="TrashNet as a zip")
    parser.add_argument("weights", type=Path, help="MobileNetV2's ImageNet weights, a state dict")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as a zip of class folders")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    wanted = parser.parse_args()
    if "small" in wanted.parts and not wanted.cifar:
        parser.error("the part small needs --cifar, or give --parts without it")
    compute.keep_memory()
    where = machine("torch", "torchvision", "captum", "fastai")
    with tempfile.TemporaryDirectory() as folder, Archive(wanted.photos) as archive:
        dataset = contenders.lay_out(archive, contenders.split_photos(archive), Path(folder))
        bench = Bench(dataset, Path(folder), wanted.weights, wanted.cifar, wanted.rounds)
        for part in wanted.parts:
            title, run, medians = PARTS[part]
            facts = f"{where}; medians of {medians.format(rounds=wanted.rounds)}"
            put_section(DOCS / "benchmarks.md", title, f"{run(bench)}\n\n{facts}.")


def compare(columns: list[str], rounds: int, runs: dict[str, Callable[[], tuple]]) -> str:
    """A table of medians of what each contender returns, taken in turn; the first one is ours."""
    return markdown(_medians(columns, rounds, runs).round(3).rename_axis(""))


def _medians(columns: list[str], rounds: int, runs: dict[str, Callable[[], tuple]]) -> pd.DataFrame:
    found: dict[str, list[tuple]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
            print(f"{name}, round {number + 1}:", *(f"{value:.3f}" for value in found[name][-1]), flush=True)
    medians = {name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in found.items()}
    table = pd.DataFrame.from_dict(medians, "index", columns=columns)
    return table.assign(**{"times ours": table[columns[0]] / table[columns[0]].iloc[0]})


def trained(bench: Bench) -> str:
    """Head alone and last stage, beside the tutorial's loops and fastai; also draws the figure."""
    dataset, folder, weights = bench.dataset, bench.folder, bench.weights
    figures, work = ["seconds", "validation", "test"], folder / "work"
    head = {
        "ours, head solved": lambda: contenders.ours(dataset, weights, HEAD, work),
        "tutorial, frozen": lambda: alone(peers.tutorial, folder, weights, frozen=True),
    }
    tuned = {
        "ours, last stage": lambda: contenders.ours(dataset, weights, TUNED, work),
        "fastai, fine_tune": lambda: alone(peers.fastai, folder, weights),
        "tutorial, full": lambda: alone(peers.tutorial, folder, weights, frozen=False),
    }
    table = pd.concat([_medians(figures, bench.rounds, runs) for runs in (head, tuned)])
    floor = statistics.median(contenders.limit(dataset, weights) for _ in range(3))
    draw(table)
    return TRAINING.format(
        **dataset.catalog["split"].value_counts()[["train", "validation", "test"]],
        epochs=peers.EPOCHS,
        trained=markdown(table.round(3).rename_axis("")),
        floor=floor,
        over=table["seconds"].iloc[0] / floor,
    )


def draw(table: pd.DataFrame) -> None:
    """docs/benchmarks.png: seconds of each contender."""
    figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    turned = table[::-1]
    colors = ["#0b6e99" if name.startswith("ours") else "#a8b0b8" for name in turned.index]
    axis.bar_label(axis.barh(turned.index, turned["seconds"], color=colors), fmt="%.0f s", padding=3)
    axis.set(xlabel="seconds, from photos to trained network", title="Six epochs of transfer learning on two cores")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "benchmarks.png", dpi=150)


def vgg(bench: Bench) -> str:
    """Last block and head of VGG16, remembered and plain."""
    pixels = images.load_images(bench.dataset, SIZE, SIZE)[:400]
    runs = {
        "VGG16, remembered": lambda: (contenders.vgg_epochs(pixels, cached=True),),
        "VGG16, plain": lambda: (alone(contenders.vgg_epochs, pixels, cached=False),),
    }
    return VGG.format(seconds=compare(["seconds"], bench.rounds, runs))


def attribution(bench: Bench) -> str:
    """Integrated Gradients of a trained network, ours and Captum's."""
    dataset = bench.dataset
    pixels = images.load_images(dataset, SIZE, SIZE)
    labels = dataset.labels()
    torch.manual_seed(0)
    network = networks.build("mobilenet_v2", len(dataset.classes), str(bench.weights))
    learned = [catalog.rows_where(dataset.catalog, split=split) for split in ("train", "validation")]
    training.train(
        network, Examples(pixels, labels, *learned), HEAD, CPU, cache=bench.folder / "work", report=dialog.quiet
    )
    what = (network, pixels[-32:], labels[-32:])
    runs = {
        "ours": lambda: contenders.attribution_by_us(*what),
        "Captum, its defaults": lambda: alone(contenders.attribution_by_captum, *what),
    }
    return ATTRIBUTION.format(errors=compare(["seconds an image", "median completeness error"], bench.rounds, runs))


def small(bench: Bench) -> str:
    """An epoch of a small network on small pictures, from memory and from a DataLoader."""
    with Archive(bench.cifar) as archive:
        files = contenders.lay_out_small(archive, bench.folder / "small")
    decoding, pixels, labels = contenders.decode_small(files)
    runs = {
        "ours, from memory": lambda: contenders.epoch_from_memory(pixels, labels),
        "DataLoader": lambda: alone(peers.image_folder_epoch, files),
    }
    epochs = compare(["seconds an epoch"], bench.rounds, runs)
    return SMALL.format(count=len(labels), batch=peers.SMALL_BATCH, decoding=decoding, epochs=epochs)


def precision(bench: Bench) -> str:
    """bfloat16 against float32 for some networks."""
    pixels = images.load_images(bench.dataset, SIZE, SIZE)
    return PRECISION.format(precisions=markdown(contenders.precision_table(pixels)))


def kept(bench: Bench) -> str:
    """A training step without and with memory that is kept."""
    seconds = {
        keep: [alone(contenders.large_step_seconds, kept=keep) for _ in range(bench.rounds)] for keep in (False, True)
    }
    return KEPT.format(kept=np.median(seconds[False]) / np.median(seconds[True]))


PARTS = {
    "training": ("Training", trained, "{rounds} rounds"),
    "vgg": ("Last block and head of VGG16", vgg, "{rounds} rounds"),
    "attribution": ("Integrated Gradients", attribution, "{rounds} rounds"),
    "small": ("Small pictures", small, "{rounds} rounds"),
    "precision": ("Precision on this CPU", precision, "3 steps"),
    "memory": ("Memory that is kept", kept, "3 steps in each of {rounds} rounds"),
}

if __name__ == "__main__":
    main()
