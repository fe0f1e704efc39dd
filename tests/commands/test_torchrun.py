"""Training as a command: two processes on the CPU, started as a user would, against one."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import catalog, networks
from helpers.archives import write_zip

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {"batch_size": 5, "seed": 1, "keep_norms": False, "patience": 9}
# Nothing is stepped towards: all but the batch statistics stays, so that rounding is all that may differ.
PHASES = [["head", "head", 2], ["half", "last stage", 1, 0.0], ["whole", "all", 2, 0.0]]


def trained(data_archive, folder, processes):
    command = [sys.executable, "-m", "helpers.training"]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*torchrun, *command[1:]]
    recipe = json.dumps(RECIPE | {"phases": PHASES})
    options = [
        "--architecture",
        "small_cnn",
        "--weights",
        "none",
        "--image-height",
        "20",
        "--image-width",
        "32",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, str(data_archive), str(folder / "models.zip"), *options, "--recipe", recipe],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return networks.load_models(folder / "models.zip")["small_cnn"], run.stdout


@pytest.fixture
def data_archive(tmp_path):
    """A data set of noise: sixteen images to learn from, eight to validate, of 20 x 32 px."""
    generator, rows, members = np.random.default_rng(0), [], []
    for number in range(26):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (20, 32, 3), np.uint8)).save(buffer, "PNG")
        split = "train" if number < 16 else "validation" if number < 24 else "test"
        name = f"images/{number}.png"
        rows.append((name, "ab"[number % 2], "", str(number), split, 32, 20, "0" * 64, "[]"))
        members.append((name, buffer.getvalue()))
    facts = {"format_version": 1, "name": "noise", "classes": ["a", "b"], "views": [], "seed": 0, "raw_sha256": ""}
    table = pd.DataFrame(rows, columns=catalog.COLUMNS).to_csv(index=False).encode()
    members += [("catalog.csv", table), ("dataset.json", json.dumps(facts).encode())]
    return write_zip(tmp_path / "data.zip", members)


def test_two_processes_come_to_the_result_of_one(data_archive, tmp_path):
    results = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        results.append(trained(data_archive, folder, processes))
        assert [file.name for file in folder.iterdir()] == ["models.zip"]
    (one, printed), (two, printed_by_two) = results
    for row, other in zip(one.card["history"], two.card["history"], strict=True):
        assert row["samples"] == other["samples"]
        for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert other[column] == pytest.approx(row[column], rel=0.02, abs=1e-4)
    for name, tensor in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], tensor, rtol=0.02, atol=1e-3)
    assert printed.count("epoch   1/") == printed_by_two.count("epoch   1/") == 1  # only the first process reports
