"""Accuracy and attribution on a set of packages: runs notebooks 01 to 03, writes docs/results.md.

python benchmarks/packages.py packages.zip --weights '{mobilenet_v2: a.pth}' --training '{folds: 5, repeats: 2}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml
from pages import machine, markdown, put_section, run

from helpers import crossvalidation, evaluation, fusing, regions, session, uncertainty
from helpers.unrolling import SUFFIX

PAGE = """The set of "Industrial Quality Control of Packages": {items} packages, each seen by two cameras; {annotated}
of them have damage boxes. {networks} from ImageNet; parameters of notebook 02: {recipe}.

### Every package tested, by networks that have not seen it

Accuracy in grouped stratified cross-validation; fused: one answer for a package from all views. A view that notebook
01 unrolled counts as a view; "both ways" is what such a camera tells by itself, its photo and what was unrolled of it
fused with equal weights. The spread is the standard deviation over whole repeats, or over folds where there is one
repeat: what another division of these packages may bring. The interval is Wilson's, for the mean of the repeats: what
other packages may bring. The number of epochs, the epoch that is kept, the aspect ratio of the input and how packages
are cut out and unrolled were chosen after looking at these very packages (docs/log.md), so results on new ones may be
worse. The kind of box and its median are those of the training photos of notebook 01, without their labels.

{accuracy}

Every fold:

{folds}

### Where the networks look

{explained} test photos with damage boxes. **attribution**: the share of the positive attribution that lies in the box;
**area**: the box's share of what the network saw; **times**: the first divided by the second, both means over the
photos (1 is chance); **against**: the same of the negative attribution, which speaks against damage; **photo times**:
divided by the box's share of the whole photo, most of which was cut off before the network saw it; **pointed**: the
pointing game. 95 % intervals; those of fewer than about twenty photos are too narrow (of seven, about 85 in 100 hold),
but for the pointing game's, by Wilson. Gradients have no sign, so all of them count, and nothing speaks against.

{attribution}

{machine}. Made by `make results`.
"""


def main() -> None:
    """Run the notebooks and write the section; what was run before is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw_data", type=Path)
    parser.add_argument("--weights", type=yaml.safe_load, required=True)
    parser.add_argument("--training", type=yaml.safe_load, default={}, help="parameters of notebook 02")
    parser.add_argument("--folder", type=Path, default=session.root() / "transfer" / "results")
    wanted = parser.parse_args()
    folder = wanted.folder / "packages"
    data, models, folds, table = (folder / name for name in ("data.zip", "models.zip", "folds.csv", "attribution.csv"))
    training = {"architectures": list(wanted.weights), "weights": wanted.weights} | wanted.training
    training |= {"data_archive": str(data), "output_archive": str(models), "folds_table": str(folds)}
    training |= {"review_table": str(folder / "labels-to-review.csv")}
    explaining = {"data_archive": str(data), "models_archive": str(models), "output_table": str(table)}
    run("01-DataPreparation", data, {"raw_data": str(wanted.raw_data.resolve()), "output_archive": str(data)})
    run("02-ModelTraining", models, training)
    run("03-ModelInterpretability", table, explaining | {"images_per_view": 20})
    write(pd.read_csv(folds, dtype={"item": str}), pd.read_csv(table, dtype={"item": str}), wanted)


def write(answers: pd.DataFrame, attribution: pd.DataFrame, wanted: argparse.Namespace) -> None:
    """The section of docs/results.md."""
    answers = with_both_ways(answers)
    tables = {name: crossvalidation.figures(part) for name, part in answers.groupby("network", sort=False)}
    rows = []
    first = answers[answers["repeat"] == 0]
    for (name, view), tested in first.groupby(["network", "view"], sort=False).size().items():
        mean, spread = tables[name].loc[["mean", "spread"], view]
        low, high = uncertainty.wilson(round(mean * tested), tested)
        rows.append((name, view, f"{mean:.3f} ± {spread:.3f}", f"{low:.3f} to {high:.3f}", tested))
    columns = ["network", "view", "accuracy", "95 % interval", "tested"]
    boxed = attribution[attribution["region"] == "damage box"]
    looked = evaluation.as_text(regions.summary(boxed, ["network", "view", "method"], seed=0)).replace("nan", "")
    looked = looked.drop(columns="overlap").rename(columns={"times_against": "against", "photo_times": "photo times"})
    page = PAGE.format(
        items=answers["item"].nunique(),
        annotated=boxed["item"].nunique(),
        networks=", ".join(wanted.weights),
        recipe=", ".join(f"{name} {value}" for name, value in wanted.training.items()) or "the defaults",
        accuracy=markdown(pd.DataFrame(rows, columns=columns).set_index("network")),
        folds=markdown(pd.concat(tables, axis=1).round(3).rename_axis("fold").set_axis(_named(tables), axis=1)),
        explained=boxed["path"].nunique(),
        attribution=markdown(looked.round(3).set_index("network")),
        machine=machine("torch", "torchvision", "captum", "scikit-learn"),
    )
    put_section(session.root() / "docs" / "results.md", "Real packages, seen from the side and from the top", page)


def with_both_ways(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers, and below them, for photos that were also unrolled, one answer from both pictures."""
    views, how = set(answers["view"]), ["network", "repeat", "fold"]
    tables = [answers]
    for view in sorted(view for view in views if view + SUFFIX in views):
        pairs = answers[answers["view"].isin([view, view + SUFFIX])]
        for key, part in pairs.groupby(how):
            fused = fusing.fuse_views(part, sorted(part["label"].unique()))
            tables.append(fused.assign(view=f"{view}, both ways", **dict(zip(how, key, strict=True))))
    return pd.concat(tables, ignore_index=True)


def _named(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [f"{name}, {view}" for name, table in tables.items() for view in table]


if __name__ == "__main__":
    main()
