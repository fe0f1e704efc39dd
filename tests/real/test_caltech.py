"""Notebook 04 on Caltech-101, cut short. Runs where the data lies beside the clone."""

import io

import pandas as pd
from sets import MOBILENET, beside, part, run

from helpers import cards
from helpers.archives import Archive

pytestmark = beside


def test_on_caltech_the_knowledge_of_imagenet_is_worth_forty_points(tmp_path):
    short = {"train_per_class": 8, "validation_per_class": 3, "head_copies": 1, "baseline_epochs": 1, "sizes": []}
    short |= {"image_height": 144, "image_width": 176}
    archive = tmp_path / "models.zip"
    options = short | {"fine_tuning_epochs": 1, "output_archive": str(archive)} | MOBILENET
    some = part("caltech101.zip", 13, tmp_path)  # the others would only be tested
    run(tmp_path, "04-BaselineVsVGG16", **some, **options)
    with Archive(archive) as opened:
        recall = pd.read_csv(io.BytesIO(opened.read("comparison.csv")), index_col=0)["recall"]
    assert len(cards.chosen(cards.load_models(archive))) == 1
    assert recall["feature extraction"] > 0.7
    assert recall["feature extraction"] > recall["from scratch"] + 0.4
