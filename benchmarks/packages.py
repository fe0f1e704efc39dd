"""Accuracy and attribution on a set of packages, over several seeds: runs notebooks 01 to 03, writes docs/results.md.

python benchmarks/packages.py packages.zip --weights '{mobilenet_v2: a.pth, squeezenet1_1: b.pth}'
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pandas as pd
import papermill
import yaml
from pages import markdown, put_section

from helpers import catalog, session
from helpers.archives import Archive

NOTEBOOKS = session.root() / "notebooks"
PAGE = """The set of "Industrial Quality Control of Packages": 152 packages, each seen by two cameras; 17 of them
annotated with damage boxes, which always stand in the test split. {networks} start from ImageNet; their parameters in
notebook 02: {recipe}.

### Test accuracy, mean and spread (standard deviation) over {seeds} seeds

{accuracy}

Every seed draws another split and tests {items} items, so one item is {step:.3f} of the accuracy: differences of that
order say nothing about the networks.

### Share of the attribution inside the damage boxes

Integrated Gradients of the networks trained on all views, on the annotated test photos; mean over photos and seeds.

{attribution}

Times its area is the share of the attribution inside the box over the box's share of the area: 1 is chance.

Made by `make results`; every seed's figures stand in `results-packages.csv`.
"""


def main() -> None:
    """Run all seeds and write the page and its table into docs/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw_data", type=Path)
    parser.add_argument("--weights", type=yaml.safe_load, required=True)
    parser.add_argument("--training", type=yaml.safe_load, default={}, help="parameters of notebook 02")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--specialists", action="store_true", help="train a network for each view, too")
    parser.add_argument("--folder", type=Path, default=session.root() / "transfer" / "results")
    arguments = parser.parse_args()
    accuracy, attribution = [], []
    for per_view in (False, True) if arguments.specialists else (False,):
        for seed in range(arguments.seeds):
            tables = run(arguments, seed, per_view)
            accuracy.append(tables[0].assign(seed=seed, trained="a specialist a view" if per_view else "all views"))
            attribution += [table.assign(seed=seed) for table in tables[1:]]
    write(pd.concat(accuracy), pd.concat(attribution), arguments)


def run(arguments: argparse.Namespace, seed: int, per_view: bool) -> list[pd.DataFrame]:
    """The comparison of one run, and the attribution where one network saw all views. What was run before is kept."""
    folder = arguments.folder / f"{seed}-{'specialists' if per_view else 'shared'}"
    folder.mkdir(parents=True, exist_ok=True)
    data, models, table = (str(folder / name) for name in ("data.zip", "models.zip", "attribution.csv"))
    training = {"data_archive": data, "output_archive": models, "seed": seed, "per_view": per_view}
    training |= {"architectures": list(arguments.weights), "weights": arguments.weights} | arguments.training
    steps = [
        ("01-DataPreparation", data, {"raw_data": str(arguments.raw_data), "seed": seed, "output_archive": data}),
        ("02-ModelTraining", models, training),
    ]
    if not per_view:
        explaining = {"data_archive": data, "models_archive": models, "output_table": table, "images_per_view": 12}
        steps.append(("03-ModelInterpretability", table, explaining))
    for name, result, parameters in steps:
        if not Path(result).exists():
            print(f"seed {seed}, {folder.name}: {name}", flush=True)
            papermill.execute_notebook(
                NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb", parameters, progress_bar=False
            )
    with Archive(models) as archive:
        comparison = pd.read_csv(io.BytesIO(archive.read("comparison.csv")))
    return [comparison] if per_view else [comparison, pd.read_csv(table)]


def write(accuracy: pd.DataFrame, attribution: pd.DataFrame, arguments: argparse.Namespace) -> None:
    """docs/results.md from all runs, and the figures of each in docs/results-packages.csv."""
    docs = session.root() / "docs"
    accuracy.round(4).to_csv(docs / "results-packages.csv", index=False)
    views = [column for column in accuracy if column.startswith("accuracy ")]
    means = accuracy.groupby(["network", "trained"], sort=False)[views].agg(["mean", "std"])
    cells = {
        view.removeprefix("accuracy "): means[view].apply(lambda row: f"{row['mean']:.3f} ± {row['std']:.3f}", axis=1)
        for view in views
    }
    shares = attribution[attribution["region"] == "damage box"].groupby(["network", "view"])
    shares = shares[["attribution", "area"]].mean()
    shares["times its area"] = shares["attribution"] / shares["area"]
    tested = catalog.load(arguments.folder / "0-shared" / "data.zip").catalog.query("split == 'test'")
    items = tested["item"].nunique()
    recipe = ", ".join(f"{name} {value}" for name, value in arguments.training.items())
    page = PAGE.format(
        networks=", ".join(arguments.weights),
        recipe=recipe or "the defaults",
        seeds=arguments.seeds,
        accuracy=markdown(pd.DataFrame(cells)),
        items=items,
        step=1 / items,
        attribution=markdown(shares.round(3)),
    )
    put_section(docs / "results.md", "Real packages, seen from the side and from the top", page)


if __name__ == "__main__":
    main()
