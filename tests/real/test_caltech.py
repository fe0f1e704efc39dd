"""Notebook 04 on Caltech-101, cut short. Runs where the data lies beside the clone."""

import io
from pathlib import PurePosixPath

import pandas as pd
from sets import MOBILENET, SHARED, beside, run

from helpers import cards
from helpers.archives import Archive, write_zip

pytestmark = beside


def part_of_it(path):
    """Sixteen photos of each class: the others would only be tested."""
    with Archive(SHARED / "data" / "caltech101.zip") as archive:
        photos = pd.Series([name for name in archive.names if name.endswith(".jpg")])
        kept = photos.groupby(photos.map(lambda name: PurePosixPath(name).parent)).head(16)
        return write_zip(path, ((name, archive.read(name)) for name in kept))


def test_on_caltech_the_knowledge_of_imagenet_is_worth_forty_points(tmp_path):
    short = {"train_per_class": 10, "validation_per_class": 3, "head_copies": 1, "baseline_epochs": 2, "sizes": []}
    short |= {"image_height": 144, "image_width": 176}
    archive = tmp_path / "models.zip"
    options = short | {"fine_tuning_epochs": 1, "output_archive": str(archive)} | MOBILENET
    run(tmp_path, "04-BaselineVsVGG16", raw_data=str(part_of_it(tmp_path / "part.zip")), **options)
    with Archive(archive) as opened:
        recall = pd.read_csv(io.BytesIO(opened.read("comparison.csv")), index_col=0)["recall"]
    assert len(cards.chosen(cards.load_models(archive))) == 1
    assert recall["feature extraction"] > 0.8
    assert recall["feature extraction"] > recall["from scratch"] + 0.4
