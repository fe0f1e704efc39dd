"""Accuracy of notebooks 04 to 07 on the real sets: runs them and writes their sections of docs/results.md.

python benchmarks/series.py --caltech c.zip --trashnet t.zip --cifar images.zip --weights mobilenet_v2.pth
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pandas as pd
import papermill
from pages import NOTEBOOKS, machine, markdown, put_section, run

from helpers import session
from helpers.archives import Archive
from helpers.photos import EXTENSIONS

CALTECH = """{held}: {images} test photos of 101 classes that
none of the networks has seen, {train} of each class to learn from where there are enough;
MobileNetV2 from ImageNet ({recipe}), the baseline from scratch.
Seed {seed}, 95 % intervals by Wilson (accuracy) and by bootstrap (mean class recall; both, where test
photos look the same).
The proportions of the input and where fine-tuning begins were chosen after looking at test figures, too (docs/log.md).

{main}

Mean class recall with fewer photos of each class:

{by_size}

{machine}. Made by `make results-series`.
"""
TRASHNET = """{held}, divided 70/13/17 with look-alikes kept together and photos under two labels left
out; MobileNetV2 from ImageNet, all photos that the split gives (photos_per_class 0): {recipe}.

{main}

Mean of {seeds} seeds: **{mean:.3f} ± {deviation:.3f}** (standard deviation). The set's authors
report about 0.75 with a network of their own, on a split of 70/13/17. Many things were photographed
several times, which no file says: for new things all such figures are a few points too kind, and the intervals
too narrow. Size of the batches and number of copies were once chosen by test figures, which brought a point
(docs/log.md).

The head alone, by number of photos in a class, the mean over the classes (seed 0):

{by_size}

{machine}. Made by `make results-series`.
"""
CIFAR = """{held}, as JPEG files, divided as published: {images} test pictures; all networks are trained from scratch.
Seed {seed}. Dropout, patience and epochs were settled in earlier runs that showed test figures (docs/log.md).

{main}

{machine}. Made by `make results-series`.
"""


def main() -> None:
    """Run what data are given for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--caltech", type=Path)
    parser.add_argument("--trashnet", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--weights", type=Path, help="MobileNetV2's ImageNet weights, a state dict")
    parser.add_argument("--seeds", type=int, default=3, help="of TrashNet")
    parser.add_argument("--folder", type=Path, default=session.root() / "transfer" / "results")
    wanted = parser.parse_args()
    page, where = session.root() / "docs" / "results.md", machine("torch", "torchvision", "scikit-learn")
    start = {"architecture": "mobilenet_v2", "weights": str(wanted.weights.resolve())} if wanted.weights else {}
    if wanted.caltech:
        put_section(page, "Caltech-101: a baseline and transfer learning", caltech(wanted, start, where))
    if wanted.trashnet:
        put_section(page, "TrashNet", trashnet(wanted, start, where))
    if wanted.cifar:
        put_section(page, "CIFAR-10 from scratch", cifar(wanted, where))


def held(path: Path, published: int) -> str:
    """How much of the published set an archive of photos holds."""
    with Archive(path) as archive:
        photos = sum(Path(name).suffix.lower() in EXTENSIONS for name in archive.names)
    photos = photos or published  # the published archives hold theirs in a file of another kind
    return f"{photos:,} of the {published:,} photos of the published set"


def comparison(path: Path) -> pd.DataFrame:
    """The comparison table of an archive of networks."""
    with Archive(path) as archive:
        return pd.read_csv(io.BytesIO(archive.read("comparison.csv")), index_col=0)


def caltech(wanted: argparse.Namespace, start: dict, where: str) -> str:
    """The section on notebook 04."""
    how = {"train_per_class": 22, "validation_per_class": 3, "sizes": [5, 10, 15], "seed": 0}
    how |= CALTECH_RECIPE | {"head_copies": 1, "batch_size": 16} | start
    path = wanted.folder / "caltech.zip"
    run("04-BaselineVsVGG16", path, how | {"raw_data": str(wanted.caltech.resolve()), "output_archive": str(path)})
    table = comparison(path).rename_axis("way")
    by_size = pd.read_csv(path.with_name("caltech-by-size.csv"))
    by_size["images"] = by_size["images"].round().astype(int)
    lines = by_size.apply(figure, axis=1, name="recall")
    by_size = by_size.assign(text=lines).pivot(index="network", columns="images", values="text").loc[table.index]
    shown = pd.DataFrame(
        {
            "mean class recall": table.apply(figure, axis=1, name="recall"),
            "accuracy": table.apply(figure, axis=1, name="accuracy"),
            "trainable parameters": table["trainable parameters"].map("{:,.0f}".format),
            "seconds": table["seconds"].round().astype(int),
        }
    )
    facts = {
        "held": held(wanted.caltech, 8677),
        "images": int(table["tested"].iloc[0]),
        "train": how["train_per_class"],
        "seed": how["seed"],
    }
    facts["recipe"] = ", ".join(f"{name} {value}" for name, value in CALTECH_RECIPE.items())
    return CALTECH.format(main=markdown(shown), by_size=markdown(by_size), machine=where, **facts)


def trashnet(wanted: argparse.Namespace, start: dict, where: str) -> str:
    """The section on notebook 05, over seeds."""
    how = {"raw_data": str(wanted.trashnet.resolve()), "photos_per_class": 0, **start, **TRASHNET_RECIPE}
    tables = []
    for seed in range(wanted.seeds):
        path = wanted.folder / f"trashnet-{seed}.zip"
        run("05-TrashNet", path, how | {"seed": seed, "output_archive": str(path)})
        tables.append(comparison(path).assign(seed=seed))
    table = pd.concat(tables).set_index("seed")
    text = table.apply(figure, axis=1, name="accuracy").to_frame("test accuracy")
    by_size = pd.read_csv(wanted.folder / "trashnet-0-by-size.csv")
    by_size["images"] = by_size["images"].round().astype(int)
    by_size["accuracy"] = by_size.apply(figure, axis=1, name="accuracy")
    return TRASHNET.format(
        held=held(wanted.trashnet, 2527),
        recipe=", ".join(f"{name} {value}" for name, value in TRASHNET_RECIPE.items()),
        main=markdown(text.assign(photos=table["tested"])),
        seeds=wanted.seeds,
        mean=table["accuracy"].mean(),
        deviation=table["accuracy"].std(),
        by_size=markdown(by_size.set_index("images")[["accuracy"]]),
        machine=where,
    )


def cifar(wanted: argparse.Namespace, where: str) -> str:
    """The section on notebooks 06 and 07."""
    data, paths = {"raw_data": str(wanted.cifar.resolve())}, {}
    for name, most in CIFAR_EPOCHS.items():  # each alone: a run that was broken off goes on with the next
        paths[name] = wanted.folder / f"cifar10-{name}.zip"
        how = data | {"epochs": {name: most}, "output_archive": str(paths[name])}
        run("06-CIFAR10-Training", paths[name], how)
    table = pd.concat(comparison(path) for path in paths.values())
    predicting = data | {"model_archive": str(paths["fast_resnet"])}
    answered = {"output_table": str(wanted.folder / "cifar10-predictions.csv")}
    output = wanted.folder / "07-CIFAR10-Prediction.ipynb"
    papermill.execute_notebook(NOTEBOOKS / output.name, output, predicting | answered, progress_bar=False)
    shown = table[["precision", "recall", "f1"]].round(3)
    shown.insert(0, "accuracy", table.apply(figure, axis=1, name="accuracy"))
    shown["epochs"], shown["seconds"] = table["epochs"].astype(int), table["seconds"].round().astype(int)
    facts = {"held": held(wanted.cifar, 60_000), "images": int(table["tested"].iloc[0]), "seed": 0}
    return CIFAR.format(main=markdown(shown), machine=where, **facts)


def figure(row: pd.Series, name: str) -> str:
    """A figure with the ends of its interval."""
    return f"{row[name]:.3f} ({row[f'{name} low']:.3f} to {row[f'{name} high']:.3f})"


TRASHNET_RECIPE = {"fine_tuning": "last stage", "fine_tuning_epochs": 6, "fine_tuning_rate": 0.0001}
CIFAR_EPOCHS = {"two_convolutions": 14, "three_blocks": 50, "fast_resnet": 40}
CALTECH_RECIPE = {"fine_tuning": "stage 3", "fine_tuning_epochs": 8, "fine_tuning_rate": 0.0001}

if __name__ == "__main__":
    main()
