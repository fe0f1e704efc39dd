"""Training as a command: two processes on the CPU, started as a user would, against one."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import catalog, images, launch, networks, session, training
from helpers.archives import write_zip
from helpers.recipes import Phase, Recipe

# In these phases with steps nothing is stepped towards: only batch statistics change, and only rounding may differ.
PHASES = [Phase("half", "last stage", 1, 0.0), Phase("whole", "all", 2, 0.0), Phase("head", "head", 2)]
RECIPE = Recipe(PHASES, batch_size=5, seed=1, keep_norms=False, patience=9)


@pytest.fixture
def data_archive(tmp_path):
    """A data set of noise: sixteen images to learn from, eight to validate, of 20 x 32 px."""
    generator, rows, members = np.random.default_rng(0), [], []
    for number in range(26):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20, 32, 3), np.uint8)).save(buffer, "PNG")
        split = "train" if number < 16 else "validation" if number < 24 else "test"
        name = f"images/{number}.png"
        rows.append((name, "ab"[number % 2], "", str(number), split, 32, 20, "0" * 64, "[]", str(number)))
        members.append((name, buffer.getvalue()))
    facts = {"format_version": catalog.FORMAT_VERSION, "name": "noise", "classes": ["a", "b"]}
    facts |= {"views": [], "seed": 0, "raw_sha256": ""}
    table = pd.DataFrame(rows, columns=catalog.COLUMNS).to_csv(index=False).encode()
    members += [("catalog.csv", table), ("dataset.json", json.dumps(facts).encode())]
    return write_zip(tmp_path / "data.zip", members)


def test_two_processes_come_to_the_result_of_one(data_archive, tmp_path):
    dataset = catalog.load(data_archive)
    pixels = images.load_images(dataset, 20, 32)
    what = ("fast_resnet", "none", dataset, pixels, [""], RECIPE, torch.device("cpu"))
    lines = []
    one = training.fit(*what, folder=tmp_path / "one")
    two = launch.fit_together(*what, folder=tmp_path / "two", report=lines.append, processes=2)
    for row, other in zip(one.card["history"], two.card["history"], strict=True):
        assert row["samples"] == other["samples"]
        figures = ["loss"] if row["phase"] == "head" else ["loss", "accuracy"]  # noise is called by a hair's breadth
        for column in (f"{split}_{figure}" for split in ("train", "validation") for figure in figures):
            assert other[column] == pytest.approx(row[column], abs=0.02)
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], tensor, rtol=0.02, atol=0.01)
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/4", "2/4", "3/4", "4/4"]  # said once


def test_two_processes_step_as_one_does_and_do_not_train_again(data_archive, tmp_path):
    dataset = catalog.load(data_archive)
    recipe = Recipe([Phase("steps", "all", 1, 0.01)], 5, seed=1, keep_norms=False, patience=0, momentum=0.9)
    what = ("small_cnn", "none", dataset, images.load_images(dataset, 20, 32), [""], recipe, torch.device("cpu"))
    again = []
    one = training.fit(*what, folder=tmp_path / "one", report=session.quiet).network
    two = launch.fit_together(*what, folder=tmp_path / "two", report=session.quiet, processes=2).network
    repeated = launch.fit_together(*what, folder=tmp_path / "two", report=again.append, processes=2).network
    assert again == ["Going on after epoch 1 of an earlier run"]
    assert all(torch.equal(repeated.state_dict()[name], tensor) for name, tensor in two.state_dict().items())
    torch.manual_seed(recipe.seed)
    found = (networks.build("small_cnn", 2, "none"), one, two)
    start, one, two = (torch.cat([weight.detach().flatten() for weight in net.parameters()]) for net in found)
    assert (two - one).norm() < 0.25 * (one - start).norm()  # rounding to bfloat16 makes 0.09; half a gradient, 0.5


def test_processes_that_fail_say_why(data_archive, tmp_path):
    dataset = catalog.load(data_archive)
    pixels = images.load_images(dataset, 20, 32)
    what = ("small_cnn", "no such file", dataset, pixels, [""], RECIPE, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="weights='no such file' is no file: give \"imagenet\""):
        launch.fit_together(*what, folder=tmp_path / "work", processes=1)
