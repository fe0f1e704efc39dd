"""What the unit tests share: a data.zip of tiny drawn images, and a network whose weights are written by hand."""

import io
import json
import os
import sys
import types

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

from helpers import catalog
from helpers.archives import write_zip

os.environ.setdefault("MPLBACKEND", "Agg")  # no window on any machine
settings.register_profile("tests", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("tests")

HEIGHT, WIDTH = 20, 32
SPLITS = ["train", "train", "train", "train", "validation", "validation", "test", "test"]  # of the items of a label


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The networks of the tests are so small that threads would only wait for each other."""
    if torch := sys.modules.get("torch"):  # not imported for tests that do without it
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    """One that is would be shown a second time at the end of its cell."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        assert pyplot.get_fignums() == []


@pytest.fixture(scope="module", autouse=True)
def full_precision():
    """Answers worked out by hand are those of float32; by module, so that other tests meet what the hardware has."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            patch.setattr("helpers.compute._cpu_has_bfloat16", lambda: False)
        yield


@pytest.fixture
def half_precision(monkeypatch):
    """As on a CPU that has bfloat16 in hardware."""
    monkeypatch.setattr("helpers.compute._cpu_has_bfloat16", lambda: True)


def write_dataset(path, pictures):
    """A `data.zip` like those of 01-DataPreparation. pictures: (label, view, item, split, image (H, W, 3) uint8)."""
    rows, members = [], []
    for label, view, item, split, image in pictures:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")  # PNG keeps every value
        name = f"images/{label}/{view}/{item}_{view}.png"
        height, width = image.shape[:2]
        rows.append((name, label, view, item, split, width, height, "0" * 64, "[]", item))
        members.append((name, buffer.getvalue()))
    facts = {"format_version": catalog.FORMAT_VERSION, "name": "tiny", "classes": sorted({row[1] for row in rows})}
    facts |= {"views": sorted({row[2] for row in rows} - {""}), "seed": 0, "raw_sha256": "1" * 64}
    table = pd.DataFrame(rows, columns=catalog.COLUMNS).to_csv(index=False).encode()
    write_zip(path, [*members, ("catalog.csv", table), ("dataset.json", json.dumps(facts).encode())])
    return catalog.load(path)


@pytest.fixture(scope="session")
def make_dataset():
    return write_dataset


@pytest.fixture(scope="session")
def dataset(make_dataset, tmp_path_factory):
    """Eight red and eight blue items seen from two sides, each picture of one color of its own, of 20 x 32 px."""
    pictures = []
    for label in ("blue", "red"):
        for number, split in enumerate(SPLITS):
            for view in ("side", "top"):
                strong, weak = 255 - 10 * number - (view == "top"), 3 * number
                color = (strong, weak, 0) if label == "red" else (weak, 0, strong)
                plain = np.full((HEIGHT, WIDTH, 3), color, np.uint8)
                pictures.append((label, view, f"{label}{number}", split, plain))
    return make_dataset(tmp_path_factory.mktemp("tiny") / "data.zip", pictures)


@pytest.fixture
def network():
    """Two layers: how red and how blue an image is on average, and a head that takes the one from the other.

    With the normalization `halves`, plain blue (0, 0, 255) has the logits (1, -1), and plain red (-1, 1): the order of
    the classes is blue, red. White and black have (0, 0).
    """
    import torch
    from torch import nn

    layers = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]]).view(2, 3, 1, 1))
        layers[4].weight.copy_(torch.tensor([[-1.0, 1], [1, -1]]))
        layers[4].bias.zero_()
    return layers.eval()


@pytest.fixture
def halves():
    """A normalization that makes 0 to -1 and 255 to 1."""
    return {"mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5]}


@pytest.fixture
def shell(monkeypatch):
    """What puts a notebook's shell there, whose front end can or cannot ask."""

    def start(*, stdin):
        kernel = types.SimpleNamespace(_allow_stdin=stdin)
        running = types.SimpleNamespace(kernel=kernel, run_line_magic=lambda *_: None)
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: running))

    return start


@pytest.fixture
def colab(monkeypatch, shell):
    """Colab with a person before it, who uploads `colab.uploads`; what is offered lands in `colab.downloads`."""
    files = types.SimpleNamespace(uploads={}, downloads=[])
    files.upload = lambda: files.uploads
    files.download = files.downloads.append
    shell(stdin=True)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    return files
