"""Notebook 05 on TrashNet, cut short. Runs where the data lies beside the clone."""

from itertools import islice
from pathlib import Path

import torch
from sets import MOBILENET, SHARED, beside, raw, run

from helpers import cards, predict, sources

pytestmark = beside


def printed(notebook):
    """All that the cells of an executed notebook printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_on_trashnet_a_hundred_photos_a_class_are_enough_for_four_in_five(tmp_path):
    archive = tmp_path / "model.zip"
    name, data = next(sources.photos(str(SHARED / "data" / "trashnet.zip")))
    own = tmp_path / Path(name).name  # one to explain, where the notebook would take four
    own.write_bytes(data)
    short = {"head_copies": 1, "fine_tuning_epochs": 1, "sizes": [], "photo": str(own), "output_archive": str(archive)}
    ran = printed(run(tmp_path, "05-TrashNet", **raw("trashnet.zip"), **short, **MOBILENET))
    assert "In more than one split: 0 items or groups of look-alikes" in ran
    assert "ValueError: The train split is empty" in ran
    model = cards.load_models(archive)["mobilenet_v2"]
    card = model.card
    assert card["metrics"]["accuracy"] > 0.8
    assert 0.1 < card["temperature"] < 5
    assert 0 < card["threshold"] < 1
    unfamiliar = {}
    for name in ("trashnet", "packages-raw-data"):
        photos = islice(sources.photos(str(SHARED / "data" / f"{name}.zip")), 0, None, 40 if name == "trashnet" else 8)
        answers = predict.answers(model, photos, torch.device("cpu"))
        unfamiliar[name] = (answers["remark"] == predict.UNFAMILIAR).mean()
    assert unfamiliar["trashnet"] < 0.1
    assert unfamiliar["packages-raw-data"] > 0.7
