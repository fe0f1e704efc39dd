"""What the speed comparisons run of our own, and the plain ways of the same work beside it."""

from __future__ import annotations

import io
import json
import shutil
import statistics
import time
import unittest.mock
from pathlib import Path

import numpy as np
import pandas as pd
import peers
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from torch.nn import functional as F

from helpers import attribution, cards, catalog, compute, dialog, images, inference, networks, training
from helpers.archives import Archive, threaded, write_zip
from helpers.images import Examples
from helpers.recipes import Phase, Recipe

CPU = torch.device("cpu")
SIZE = 224
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
            rows.append((f"images/{label}/{name}", label, "", name, split, width, height, "", "[]", name))
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
    model = training.fit(
        "mobilenet_v2", str(weights), learning, pixels, [""], recipe, CPU, folder=work, report=dialog.quiet
    )
    seconds = time.perf_counter() - started
    best = [row["validation_accuracy"] for row in model.card["history"] if row["kept"]][-1]
    tested = dataset._replace(catalog=dataset.catalog[~learned].reset_index(drop=True))
    pixels = images.load_images(tested, SIZE, SIZE)
    answers = inference.probabilities(model, pixels, np.arange(len(pixels)), CPU).argmax(1)
    return seconds, best, float((answers == tested.labels()).mean())


def limit(dataset: catalog.Dataset, weights: Path) -> float:
    """Seconds that nothing can go below: decoding, and one pass of the frozen network at its measured rate."""
    learning = dataset._replace(catalog=dataset.catalog[dataset.catalog["split"] != "test"].reset_index(drop=True))
    started = time.perf_counter()
    pixels = images.load_images(learning, SIZE, SIZE)
    decoding = time.perf_counter() - started
    network = networks.build("mobilenet_v2", len(dataset.classes), str(weights)).eval()
    model = cards.Model(network, {"normalization": networks.IMAGENET_NORMALIZATION, "mirrored": False})
    return decoding + len(pixels) * inference.milliseconds_per_image(model, pixels, CPU) / 1000


def vgg_epochs(pixels: torch.Tensor, *, cached: bool) -> float:
    """Seconds of 4 epochs of the last block and the head of VGG16, from random weights."""
    torch.manual_seed(0)
    network, labels = networks.build("vgg16", 2, "none"), np.arange(len(pixels)) % 2
    started = time.perf_counter()
    if cached:
        recipe = Recipe([Phase("last", "last stage", 4, 1e-4)], 32, seed=0, copies=1)
        examples = Examples(pixels, labels, np.arange(len(pixels)), np.arange(1))
        training.train(network, examples, recipe, CPU, cache=Path("none"), report=dialog.quiet)
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
        compute.keep_memory()
    network = networks.build("mobilenet_v2", 2, "none").to(memory_format=torch.channels_last)
    inputs = torch.zeros(8, 3, 270, 480).contiguous(memory_format=torch.channels_last)
    return step_seconds(network, inputs, learning=True)


def lay_out_small(archive: Archive, folder: Path) -> Path:
    """The training pictures of a set of small ones, as class folders."""
    for name in archive.names:
        if "train/" in name:
            target = folder / Path(name).parent.name / Path(name).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    return folder


def epoch_from_memory(pixels: torch.Tensor, labels: np.ndarray) -> tuple[float]:
    """Seconds of one epoch of two_convolutions, validation on 100 pictures included."""
    network = networks.build("two_convolutions", int(labels.max()) + 1, "none")
    halves = {"mean": [0.5] * 3, "deviation": [0.5] * 3}
    phase = Phase("all", "all", 1, 0.001)
    recipe = Recipe([phase], peers.SMALL_BATCH, 0, 0.0, 0.0, keep_norms=False, copies=1, normalization=halves)
    examples = Examples(pixels, labels, np.arange(len(pixels)), np.arange(100))
    started = time.perf_counter()
    training.train(network, examples, recipe, CPU, cache=Path("none"), report=dialog.quiet)
    return (time.perf_counter() - started,)


def decode_small(folder: Path) -> tuple[float, torch.Tensor, np.ndarray]:
    """Seconds it took, pixels (N, 3, 32, 32) uint8 and labels (N,) of pictures in class folders."""
    started = time.perf_counter()
    with Archive(folder) as archive:
        decoded = threaded(lambda name: images.to_pixels(archive.read(name), name, 32, 32), archive.names)
        pixels = torch.stack(list(decoded))
        labels = np.unique([name.split("/")[0] for name in archive.names], return_inverse=True)[1]
    return time.perf_counter() - started, pixels, labels
