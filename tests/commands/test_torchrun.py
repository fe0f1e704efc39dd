"""Training as a command: two processes on the CPU, started as a user would, against one."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import catalog, dialog, images, launch, training
from helpers.archives import write_zip
from helpers.recipes import Phase, Recipe

# While the rate is 0 nothing is stepped towards: only batch statistics change, and only rounding may differ.
STILL = [Phase("half", "last stage", 1, 0.0), Phase("whole", "all", 2, 0.0), Phase("head", "head", 2)]
RECIPE = Recipe([*STILL, Phase("steps", "all", 1, 0.01)], 5, seed=1, keep_norms=False, patience=0, momentum=0.9)


@pytest.fixture
def data_archive(tmp_path):
    """A data set of noise, of 20 x 32 px: fifteen images to learn from, seven to validate, which two cannot halve."""
    generator, rows, members = np.random.default_rng(0), [], []
    for number in range(24):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20, 32, 3), np.uint8)).save(buffer, "PNG")
        split = "train" if number < 15 else "validation" if number < 22 else "test"
        name = f"images/{number}.png"
        rows.append((name, "ab"[number % 2], "", str(number), split, 32, 20, "0" * 64, "[]", str(number)))
        members.append((name, buffer.getvalue()))
    facts = {"format_version": catalog.FORMAT_VERSION, "name": "noise", "classes": ["a", "b"]}
    facts |= {"views": [], "seed": 0, "raw_sha256": ""}
    table = pd.DataFrame(rows, columns=catalog.COLUMNS).to_csv(index=False).encode()
    members += [("catalog.csv", table), ("dataset.json", json.dumps(facts).encode())]
    return write_zip(tmp_path / "data.zip", members)


def test_two_processes_learn_what_one_does_and_go_on_where_one_was_stopped(data_archive, tmp_path, monkeypatch, capsys):
    dataset = catalog.load(data_archive)
    what = ("small_cnn", "none", dataset, images.load_images(dataset, 20, 32), [""])
    cpu = torch.device("cpu")
    before = training.fit(*what, replace(RECIPE, phases=STILL), cpu, folder=tmp_path / "before", report=dialog.quiet)
    one = training.fit(*what, RECIPE, cpu, folder=tmp_path / "one", report=dialog.quiet)

    def stop(line):
        if line.startswith("epoch   2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(*what, RECIPE, cpu, folder=tmp_path / "two", report=stop)
    capsys.readouterr()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # as many processes
    two = launch.fit_distributed(*what, RECIPE, cpu, folder=tmp_path / "two")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "Going on after epoch 1 of an earlier run"
    assert [row["samples"] for row in two.card["history"]] == [row["samples"] for row in one.card["history"]]
    for row, other in zip(before.card["history"], two.card["history"], strict=False):  # the last phase is not there
        figures = ["loss"] if row["phase"] == "head" else ["loss", "accuracy"]  # noise is called by a hair's breadth
        for column in (f"{split}_{figure}" for split in ("train", "validation") for figure in figures):
            assert other[column] == pytest.approx(row[column], abs=0.02)
    for numbers in (torch.nn.Module.parameters, torch.nn.Module.buffers):
        found = ([tensor.detach().flatten() for tensor in numbers(model.network)] for model in (before, one, two))
        start, end, other = map(torch.cat, found)
        assert (other - end).norm() < 0.25 * (end - start).norm()  # rounding to bfloat16: 0.1; half a gradient: 0.5
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == [f"{number}/5" for number in range(2, 6)]
