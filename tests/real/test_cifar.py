"""Notebooks 06 and 07 on CIFAR-10, cut short. Runs where the data lies beside the clone."""

import pandas as pd
from sets import beside, part, run

from helpers import cards

pytestmark = beside


def test_on_cifar_the_loop_by_hand_and_the_helper_agree_and_the_archive_is_used(tmp_path):
    archive = tmp_path / "model.zip"
    short = {"epochs": {"two_convolutions": 1}, "shown_images": 1000, "output_archive": str(archive)}
    some = part("cifar10-images.zip", 1000, tmp_path)  # a fifth of those to learn from, and all of the test
    run(tmp_path, "06-CIFAR10-Training", **some, **short)
    table = tmp_path / "predictions.csv"
    options = {"model_archive": str(archive), "output_table": str(table)}
    run(tmp_path, "07-CIFAR10-Prediction", **some, **options)
    card = cards.load_models(archive)["two_convolutions"].card
    assert card["chosen"]
    assert card["metrics"]["tested"] == 5070
    assert card["metrics"]["accuracy"] > 0.3
    assert len(pd.read_csv(table)) == 6
