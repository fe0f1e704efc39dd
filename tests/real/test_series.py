"""Notebooks 04 to 07 on the real sets, cut short. Runs where the data and the weights lie beside the clone."""

import io
from pathlib import Path

import pandas as pd
import papermill
import pytest

from helpers import networks
from helpers.archives import Archive

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
MOBILENET = {"architecture": "mobilenet_v2", "weights": str(SHARED / "weights" / "mobilenet_v2-imagenet.pth")}

pytestmark = pytest.mark.skipif(not (SHARED / "data").exists(), reason="the real sets are not beside the clone")


def run(folder, notebook, data, **parameters):
    """Run a notebook on one of the real sets."""
    parameters = {"raw_data": str(SHARED / "data" / data)} | parameters
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    return papermill.execute_notebook(path, folder / f"{notebook}.ipynb", parameters, progress_bar=False)


def printed(notebook):
    """All that the cells of an executed notebook printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_on_caltech_the_knowledge_of_imagenet_is_worth_forty_points(tmp_path):
    short = {"train_per_class": 10, "validation_per_class": 3, "head_copies": 1, "baseline_epochs": 3, "sizes": []}
    archive = tmp_path / "models.zip"
    options = short | {"fine_tuning_epochs": 1, "output_archive": str(archive)} | MOBILENET
    run(tmp_path, "04-BaselineVsVGG16", "caltech101.zip", **options)
    with Archive(archive) as opened:
        recall = pd.read_csv(io.BytesIO(opened.read("comparison.csv")), index_col=0)["recall"]
    assert recall["feature extraction"] > 0.8
    assert recall["feature extraction"] > recall["from scratch"] + 0.4


def test_on_trashnet_a_hundred_photos_a_class_are_enough_for_four_in_five(tmp_path):
    archive = tmp_path / "model.zip"
    short = {"fine_tuning_epochs": 1, "sizes": [], "output_archive": str(archive)}
    ran = printed(run(tmp_path, "05-TrashNet", "trashnet.zip", **short, **MOBILENET))
    assert "In more than one split: 0 items or groups of look-alikes" in ran
    assert "ValueError: The train split is empty" in ran
    card = networks.load_models(archive)["mobilenet_v2"].card
    assert card["metrics"]["accuracy"] > 0.8
    assert 0.1 < card["temperature"] < 5
    assert 0 < card["threshold"] < 1


def test_on_cifar_the_loop_by_hand_and_the_helper_agree_and_the_archive_is_used(tmp_path):
    archive = tmp_path / "model.zip"
    short = {"epochs": {"two_convolutions": 2}, "output_archive": str(archive)}
    run(tmp_path, "06-CIFAR10-Training", "cifar10-images.zip", **short)
    table = tmp_path / "predictions.csv"
    options = {"model_archive": str(archive), "output_table": str(table)}
    run(tmp_path, "07-CIFAR10-Prediction", "cifar10-images.zip", **options)
    card = networks.load_models(archive)["two_convolutions"].card
    assert card["metrics"]["tested"] == 5070
    assert card["metrics"]["accuracy"] > 0.6
    assert len(pd.read_csv(table)) == 6
