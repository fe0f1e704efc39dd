"""Notebook 04 on Caltech-101, cut short. Runs where the data lies beside the clone."""

import io

import pandas as pd
from sets import MOBILENET, beside, raw, run

from helpers import cards, predict
from helpers.archives import Archive

pytestmark = beside


def test_on_caltech_the_knowledge_of_imagenet_is_worth_forty_points(tmp_path):
    short = {"train_per_class": 10, "validation_per_class": 3, "head_copies": 1, "baseline_epochs": 3, "sizes": []}
    short |= {"image_height": 192, "image_width": 240}
    archive = tmp_path / "models.zip"
    options = short | {"fine_tuning_epochs": 1, "output_archive": str(archive)} | MOBILENET
    run(tmp_path, "04-BaselineVsVGG16", **raw("caltech101.zip"), **options)
    with Archive(archive) as opened:
        recall = pd.read_csv(io.BytesIO(opened.read("comparison.csv")), index_col=0)["recall"]
    assert len(predict.chosen(cards.load_models(archive))) == 1
    assert recall["feature extraction"] > 0.8
    assert recall["feature extraction"] > recall["from scratch"] + 0.4
