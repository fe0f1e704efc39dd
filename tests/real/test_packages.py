"""Notebooks 01 to 03 on the real packages, with real ImageNet weights. Runs where the data lies beside the clone."""

import io

import pandas as pd
import pytest
import torch
from PIL import Image, ImageFilter
from sets import MOBILENET, beside, raw, run

from helpers import cards, catalog, predict
from helpers.archives import Archive

METHODS = ["Integrated Gradients", "Grad-CAM", "gradients"]  # the other two take most of the time

pytestmark = beside


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The archives that the three notebooks leave."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "work").mkdir()
    (folder / "work" / "not-ours.txt").touch()
    data, models = str(folder / "data.zip"), str(folder / "models.zip")
    run(folder, "01-DataPreparation", **raw("packages-raw-data.zip"), output_archive=data)
    run(
        folder,
        "02-ModelTraining",
        data_archive=data,
        output_archive=models,
        architectures=[MOBILENET["architecture"]],
        weights=MOBILENET["weights"],
        image_height=160,
        image_width=192,
        head_copies=2,
        fine_tuning_epochs=2,
        review_table=str(folder / "labels-to-review.csv"),
        folds_table=str(folder / "folds.csv"),
    )
    run(
        folder,
        "03-ModelInterpretability",
        data_archive=data,
        models_archive=models,
        output_table=str(folder / "attribution.csv"),
        methods=METHODS,
        images_per_view=1,
        tested_per_network=1,
        steps=8,
    )
    return folder


def blur(data):
    """As with a dirty lens."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).filter(ImageFilter.GaussianBlur(6)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_every_package_is_found_in_both_views_unrolled_and_annotated_ones_are_in_test(folder):
    dataset = catalog.load(folder / "data.zip")
    table = dataset.catalog
    assert table["view"].value_counts().to_dict() == {"side": 152, "side unrolled": 152, "top": 152}
    assert (table.groupby("item")["view"].nunique() == 3).all()
    assert dataset.unrolled["side unrolled"]["box"]["faces"] == ["top", "front"]
    assert set(table.loc[table["boxes"].str.len() > 0, "split"]) == {"test"}


def test_the_checkpoints_are_gone_and_nothing_of_others_is(folder):
    assert not list(folder.glob("*.work"))
    assert (folder / "work" / "not-ours.txt").exists()


def test_a_network_from_imagenet_beats_always_answering_the_same(folder):
    with Archive(folder / "models.zip") as archive:
        comparison = pd.read_csv(io.BytesIO(archive.read("comparison.csv"))).set_index("network")
    table = catalog.load(folder / "data.zip").catalog
    test = table[table["split"] == "test"].drop_duplicates("item")
    majority = test["label"].value_counts(normalize=True).max()
    assert comparison["accuracy fused"].max() >= majority + 0.15


def test_test_packages_are_familiar_and_blurred_ones_are_inspected(folder):
    test = catalog.load(folder / "data.zip").catalog.query("split == 'test' and view != 'side unrolled'")
    with Archive(folder / "data.zip") as archive:
        photos = [(f"{row.item}_{row.view}.jpg", archive.read(row.path)) for row in test.itertuples()]
    half = set(test["item"].unique()[::2])  # to be blurred: each photo takes its time
    line = cards.chosen(cards.load_models(folder / "models.zip"))
    plain, blurred = (
        predict.decide(line, given, torch.device("cpu"))
        for given in (photos, [(name, blur(data)) for name, data in photos if name.split("_")[0] in half])
    )
    assert (plain["remark"] != "").mean() < 0.2
    assert (blurred["action"] == "inspect").mean() > 0.9


def test_attribution_is_measured_by_every_method_for_all_views_in_their_regions(folder):
    table = pd.read_csv(folder / "attribution.csv")
    found = table.groupby(["network", "method", "view"])["region"].unique().map(set)
    assert len(found) == len(METHODS) * 3
    for (_, _, view), regions in found.items():
        assert regions == ({"damage box"} if view == "side unrolled" else {"damage box", "carton", "belt"})
