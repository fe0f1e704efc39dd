"""How fast, against others: writes docs/benchmarks.md and its figure.

python benchmarks/speed.py trashnet.zip mobilenet_v2.pth --rounds 3
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import peers
import torch
from alone import alone
from captum.attr import IntegratedGradients
from pages import machine, markdown
from PIL import Image
from torch.nn import functional as F

from helpers import attribution, catalog, compute, images, networks, predict, session, training
from helpers.archives import Archive, write_zip
from helpers.images import Examples
from helpers.recipes import Phase, Recipe

CPU = torch.device("cpu")
SIZE = 224
PAGE = """# Benchmarks

{machine}. All contenders of a table ran in one go, in turn; figures are medians of the rounds stated. The others
run each in a process of its own, as their authors show them.

## Training

TrashNet, {train} photos to learn from, {validation} to validate, {test} to test; MobileNetV2 from the same weights
file, {epochs} epochs of 224 x 224 px. Seconds count from the photos on disk to the trained network.

{trained}

![Seconds of each](benchmarks.png)

What no head-only run can go below, decoding and one pass of the frozen network at its measured rate, is {floor:.1f}
s; ours takes {over:.2f} times that.

## Last block and head of VGG16

4 epochs on 400 images of 224 x 224 px, from random weights; plain: the same epochs as the usual loop, float32, the
frozen part run anew in each.

{seconds}

## Integrated Gradients

MobileNetV2, 32 photos, 50 steps; Captum's call with its defaults image by image (its default of all images and
steps at once does not fit into memory).

{errors}

## Precision on this CPU

How many times faster `helpers.compute` is in bfloat16 than in float32: depth-wise convolutions learn in float32.


{precisions}

## Memory that is kept

How many times faster a training step of MobileNetV2 is, 8 images of 270 x 480 px, where the C library keeps what
tensors give back (`session.keep_memory`): {kept:.2f}

Made by `make bench`.
"""
HEAD = Recipe([Phase("head", "head", 1)], 32, seed=0)
TUNED = Recipe([Phase("head", "head", 1), Phase("last", "last stage", peers.EPOCHS, 2e-4)], 16, seed=0)


def split_photos(archive: Archive, seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """(label, member) of each split: 80 photos a class to learn from and 20 to validate; all others test.

    A class with fewer than 150 photos gives 60 and 15.
    """
    photos = pd.DataFrame({"source": [name for name in archive.names if name.endswith(".jpg")]})
    photos["label"] = photos["source"].str.split("/").str[-2]
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    generator = np.random.default_rng(seed)
    for label, group in photos.groupby("label"):
        sources = generator.permutation(group["source"].to_numpy())
        train, validation = (80, 20) if len(sources) >= 150 else (60, 15)
        bounds = {"train": (0, train), "validation": (train, train + validation), "test": (train + validation, None)}
        for split, (start, end) in bounds.items():
            parts[split] += [(label, source) for source in sources[start:end]]
    return parts


def lay_out(archive: Archive, parts: dict[str, list[tuple[str, str]]], folder: Path) -> catalog.Dataset:
    """The photos as they are, as class folders for the others and as a data.zip for us."""
    rows, members = [], []
    for split, photos in parts.items():
        for label, source in photos:
            data, name = archive.read(source), Path(source).name
            target = folder / split / label / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            width, height = Image.open(io.BytesIO(data)).size
            rows.append((f"images/{label}/{name}", label, "", name, split, width, height, "", "[]"))
            members.append((f"images/{label}/{name}", data))
    facts = {"format_version": catalog.FORMAT_VERSION, "name": "TrashNet", "views": [], "seed": 0, "raw_sha256": ""}
    facts["classes"] = sorted({label for label, _ in parts["train"]})
    table = pd.DataFrame(rows, columns=catalog.COLUMNS).to_csv(index=False).encode()
    path = write_zip(
        folder / "data.zip", [*members, ("catalog.csv", table), ("dataset.json", json.dumps(facts).encode())]
    )
    return catalog.load(path)


def ours(dataset: catalog.Dataset, weights: Path, recipe: Recipe, work: Path) -> tuple[float, float, float]:
    """Seconds from the photos to the trained network, best validation and test accuracy."""
    shutil.rmtree(work, ignore_errors=True)
    learned = dataset.catalog["split"] != "test"
    started = time.perf_counter()
    learning = dataset._replace(catalog=dataset.catalog[learned].reset_index(drop=True))
    pixels = images.load_images(learning, SIZE, SIZE)
    model = training.fit("mobilenet_v2", str(weights), learning, pixels, [""], recipe, CPU, folder=work, report=len)
    seconds = time.perf_counter() - started
    best = [row["validation_accuracy"] for row in model.card["history"] if row["best"]][-1]
    tested = dataset._replace(catalog=dataset.catalog[~learned].reset_index(drop=True))
    pixels = images.load_images(tested, SIZE, SIZE)
    how = {"normalization": networks.IMAGENET_NORMALIZATION}
    answers = predict.probabilities(model.network, pixels, np.arange(len(pixels)), CPU, **how).argmax(1)
    return seconds, best, float((answers == tested.catalog["label"].map(dataset.classes.index)).mean())


def limit(dataset: catalog.Dataset, weights: Path) -> float:
    """Seconds that nothing can go below: decoding, and one pass of the frozen network at its measured rate."""
    learning = dataset._replace(catalog=dataset.catalog[dataset.catalog["split"] != "test"].reset_index(drop=True))
    started = time.perf_counter()
    pixels = images.load_images(learning, SIZE, SIZE)
    decoding = time.perf_counter() - started
    network = networks.build("mobilenet_v2", len(dataset.classes), str(weights)).eval()
    how = {"normalization": networks.IMAGENET_NORMALIZATION}
    return decoding + len(pixels) * predict.milliseconds_per_image(network, pixels, CPU, **how) / 1000


def vgg_epochs(pixels: torch.Tensor, *, cached: bool) -> float:
    """Seconds of 4 epochs of the last block and the head of VGG16, from random weights."""
    torch.manual_seed(0)
    network, labels = networks.build("vgg16", 2, "none"), np.arange(len(pixels)) % 2
    started = time.perf_counter()
    if cached:
        recipe = Recipe([Phase("last", "last stage", 4, 1e-4)], 32, seed=0, copies=1)
        examples = Examples(pixels, labels, np.arange(len(pixels)), np.arange(1))
        training.train(network, examples, recipe, CPU, cache=Path("none"), report=len)
        return time.perf_counter() - started
    networks.freeze(network, train="last stage")
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, 1e-4)
    for epoch in range(4):
        network.train()
        for rows in images.batches(np.arange(len(pixels)), 32, torch.Generator().manual_seed(epoch)):
            values = images.normalize(pixels[rows], **networks.IMAGENET_NORMALIZATION).contiguous()
            loss = F.cross_entropy(network(values), torch.as_tensor(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def attribution_by_captum(network: torch.nn.Module, pixels: torch.Tensor, targets: np.ndarray) -> tuple[float, float]:
    """Seconds an image and median completeness error of Captum's call with its defaults."""
    network, errors = networks.without_inplace(network).eval(), []
    started = time.perf_counter()
    for image, target in zip(pixels, targets, strict=True):
        inputs = images.normalize(image[None], **networks.IMAGENET_NORMALIZATION).contiguous()
        values, delta = IntegratedGradients(network).attribute(
            inputs, target=int(target), return_convergence_delta=True
        )
        errors.append(abs(delta.item() / (values.sum().item() - delta.item())))
    return (time.perf_counter() - started) / len(pixels), statistics.median(errors)


def attribution_by_us(network: torch.nn.Module, pixels: torch.Tensor, targets: np.ndarray) -> tuple[float, float]:
    """Seconds an image and median completeness error of ours, with as many steps at first."""
    started = time.perf_counter()
    how = {"steps": 50, "error_bound": 0.1, "normalization": networks.IMAGENET_NORMALIZATION, "device": CPU}
    found = attribution.integrated_gradients(network, pixels, targets, "gray", **how)
    return (time.perf_counter() - started) / len(pixels), float(np.median(found.error))


def precision_table(pixels: torch.Tensor) -> pd.DataFrame:
    """How many times faster bfloat16 is than float32, for inference and for training."""
    inputs, rows = images.normalize(pixels[:16], **networks.IMAGENET_NORMALIZATION), []
    for architecture in ("mobilenet_v2", "efficientnet_b0", "convnext_tiny", "resnet18", "vgg11"):
        network = networks.build(architecture, 2, "none").to(memory_format=torch.channels_last)
        row = {"network": architecture}
        for name, learning in (("inference", False), ("training", True)):
            times = []
            for bfloat16 in (False, True):
                with unittest.mock.patch("helpers.compute._cpu_has_bfloat16", return_value=bfloat16):
                    times.append(step_seconds(network, inputs, learning=learning))
            row[name] = round(times[0] / times[1], 2)
        rows.append(row)
    return pd.DataFrame(rows).set_index("network")


def step_seconds(network: torch.nn.Module, inputs: torch.Tensor, *, learning: bool) -> float:
    """Of one step: the median of three, after a warm-up."""
    times = []
    network.train(learning)
    for _ in range(4):
        started = time.perf_counter()
        with torch.set_grad_enabled(learning), compute.autocast(network, CPU, learning=learning):
            loss = network(inputs).float().sum()
        if learning:
            loss.backward()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def large_step_seconds(*, kept: bool) -> float:
    """Of one training step whose blocks of memory are large."""
    if kept:
        session.keep_memory()
    network = networks.build("mobilenet_v2", 2, "none").to(memory_format=torch.channels_last)
    inputs = torch.zeros(8, 3, 270, 480).contiguous(memory_format=torch.channels_last)
    return step_seconds(network, inputs, learning=True)


def compare(columns: list[str], contenders: dict[str, tuple[int, Callable[[], tuple]]]) -> pd.DataFrame:
    """Medians of what each contender returns in its rounds, taken in turn; the first one is ours.

    contenders: name to how many rounds, and what to run.
    """
    found: dict[str, list[tuple]] = {name: [] for name in contenders}
    for number in range(max(rounds for rounds, _ in contenders.values())):
        for name, (rounds, run) in contenders.items():
            if number < rounds:
                found[name].append(run())
                print(f"{name}, round {number + 1}:", *(f"{value:.3f}" for value in found[name][-1]), flush=True)
    medians = {name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in found.items()}
    table = pd.DataFrame.from_dict(medians, "index", columns=columns)
    table["times ours"] = table[columns[0]] / table[columns[0]].iloc[0]
    return table.assign(rounds=[rounds for rounds, _ in contenders.values()])


def main() -> None:
    """Run all comparisons and write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="TrashNet as a zip")
    parser.add_argument("weights", type=Path, help="MobileNetV2's ImageNet weights, a state dict")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument("--peer-rounds", type=int, default=3, help="of the others' fine-tuning, minutes each")
    wanted = parser.parse_args()
    session.keep_memory()
    with tempfile.TemporaryDirectory() as folder, Archive(wanted.photos) as archive:
        dataset = lay_out(archive, split_photos(archive), Path(folder))
        write(dataset, *measure(dataset, Path(folder), wanted.weights, wanted.rounds, wanted.peer_rounds))


def measure(
    dataset: catalog.Dataset, folder: Path, weights: Path, rounds: int, peer_rounds: int
) -> tuple[pd.DataFrame, float, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training, the limit in seconds, VGG16, attribution, precision."""
    figures, work = ["seconds", "validation", "test"], folder / "work"
    head = {
        "ours, head solved": (rounds, lambda: ours(dataset, weights, HEAD, work)),
        "tutorial, frozen": (rounds, lambda: alone("peers.tutorial", folder, weights, frozen=True)),
    }
    tuned = {
        "ours, last stage": (rounds, lambda: ours(dataset, weights, TUNED, work)),
        "fastai, fine_tune": (peer_rounds, lambda: alone("peers.fastai", folder, weights)),
        "tutorial, full": (peer_rounds, lambda: alone("peers.tutorial", folder, weights, frozen=False)),
    }
    trained = pd.concat([compare(figures, head), compare(figures, tuned)])
    floor = statistics.median(limit(dataset, weights) for _ in range(3))
    pixels = images.load_images(dataset, SIZE, SIZE)
    vgg = {
        "VGG16, remembered": (rounds, lambda: (vgg_epochs(pixels[:400], cached=True),)),
        "VGG16, plain": (rounds, lambda: (alone("speed.vgg_epochs", pixels[:400], cached=False),)),
    }
    labels = dataset.catalog["label"].map(dataset.classes.index).to_numpy()
    torch.manual_seed(0)
    network = networks.build("mobilenet_v2", len(dataset.classes), str(weights))
    learned = [images.rows_where(dataset.catalog, split=split) for split in ("train", "validation")]
    training.train(network, Examples(pixels, labels, *learned), HEAD, CPU, cache=work, report=len)
    explain = {
        "ours": (rounds, lambda: attribution_by_us(network, pixels[-32:], labels[-32:])),
        "Captum, its defaults": (
            rounds,
            lambda: alone("speed.attribution_by_captum", network, pixels[-32:], labels[-32:]),
        ),
    }
    errors = compare(["seconds an image", "median completeness error"], explain)
    return trained, floor, compare(["seconds"], vgg), errors, precision_table(pixels)


def write(
    dataset: catalog.Dataset,
    trained: pd.DataFrame,
    floor: float,
    vgg: pd.DataFrame,
    explained: pd.DataFrame,
    precisions: pd.DataFrame,
) -> None:
    """docs/benchmarks.md and docs/benchmarks.png."""
    docs, counts = session.root() / "docs", dataset.catalog["split"].value_counts()
    page = PAGE.format(
        machine=machine("torch", "torchvision", "captum", "fastai"),
        **counts[["train", "validation", "test"]],
        epochs=peers.EPOCHS,
        trained=markdown(trained.round(3).rename_axis("")),
        seconds=markdown(vgg.round(3).rename_axis("")),
        errors=markdown(explained.round(3).rename_axis("")),
        precisions=markdown(precisions.round(3).rename_axis("")),
        kept=alone("speed.large_step_seconds", kept=False) / alone("speed.large_step_seconds", kept=True),
        floor=floor,
        over=trained["seconds"].iloc[0] / floor,
    )
    (docs / "benchmarks.md").write_text(page, encoding="utf-8")
    figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    turned = trained[::-1]
    colors = ["#0b6e99" if name.startswith("ours") else "#a8b0b8" for name in turned.index]
    axis.bar_label(axis.barh(turned.index, turned["seconds"], color=colors), fmt="%.0f s", padding=3)
    axis.set(xlabel="seconds, from photos to trained network", title="Six epochs of transfer learning on two cores")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(docs / "benchmarks.png", dpi=150)


if __name__ == "__main__":
    main()
