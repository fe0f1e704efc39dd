import json
import re
import subprocess
import sys
import types
from itertools import pairwise

import pytest
import torch

from helpers import cards, images, launch
from helpers.recipes import Phase, Recipe

RECIPE = {"phases": [["short", "all", 1, 0.01]], "keep_norms": False}
SAYS = "print('epoch   1/2', 'of torchrun', sep='\\n', flush=True); raise ValueError('no such file')"
SMALL = ["--architecture", "small_cnn", "--weights", "none", "--image-height", "16", "--image-width", "16"]
SMALL += ["--device", "cpu", "--recipe", json.dumps(RECIPE)]


@pytest.fixture
def command(dataset, tmp_path, monkeypatch):
    """Run the command on the data set, with a name for its archive and more options, and give that archive's path."""

    def run(name, *more):
        path = tmp_path / name
        monkeypatch.setattr("sys.argv", ["helpers.launch", str(dataset.path), str(path), *SMALL, *more])
        launch.main()
        return path

    return run


def test_the_command_cuts_photos_out_where_it_is_asked_to(command, tmp_path):
    path = command("cut.zip", "--crop", "top")
    assert list(cards.load_models(path)["small_cnn"].card["backgrounds"]) == ["top"]
    assert [file.name for file in tmp_path.iterdir()] == ["cut.zip"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--crop", "below"], "--crop: no view to cut out is called below; there are side, top"),
        (["--recipe", '{"batchsize": 4}'], "--recipe: no field is called batchsize; there are phases, batch_size, "),
        (["--recipe", '{"copies": -1}'], "copies=-1 must be 0 or more"),
        (["--recipe", "[1]"], "--recipe must map fields to values"),
        (["--recipe", '{"phases": [["a", "head"]]}'], "--recipe: a value is of a wrong type"),
        (["--recipe", '{"batch_size": "16"}'], "--recipe: a value is of a wrong type"),
        (["--weights", "nothing.pth"], "nothing.pth"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(command, tmp_path, options, told):
    with pytest.raises(SystemExit, match=f"^helpers.launch: .*{re.escape(told)}"):
        command("none.zip", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [FloatingPointError, MemoryError])
def test_a_training_that_fails_is_one_sentence(command, monkeypatch, error):
    def fails(*_, **__):
        raise error("choose a lower rate")

    monkeypatch.setattr(launch.training, "fit", fails)
    with pytest.raises(SystemExit, match=r"^helpers\.launch: choose a lower rate"):
        command("none.zip")


def test_the_checkpoints_of_a_notebook_stay(command, tmp_path):
    (tmp_path / "models.work").mkdir()
    (tmp_path / "models.work" / "kept.safetensors").write_bytes(b"")
    command("models.zip")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["kept.safetensors", "models.work", "models.zip"]


@pytest.mark.parametrize(
    ("weights", "phases", "keep_norms"),
    [
        ("none", [Phase("from scratch", "all", 24, 1e-3)], False),
        ("body.pth", [Phase("head", "head", 4), Phase("fine-tuning", "last stage", 12, 2e-4)], True),
    ],
)
def test_without_a_recipe_the_command_fine_tunes_what_has_weights(
    dataset, tmp_path, monkeypatch, weights, phases, keep_norms
):
    asked = {}
    monkeypatch.setattr(launch.training, "fit", lambda *what, folder: asked.update(recipe=what[5]) or sys.exit())
    options = [*SMALL[:2], "--weights", weights, *SMALL[4:-2]]
    monkeypatch.setattr("sys.argv", ["helpers.launch", str(dataset.path), str(tmp_path / "a.zip"), *options])
    with pytest.raises(SystemExit):
        launch.main()
    assert (asked["recipe"].phases, asked["recipe"].keep_norms) == (phases, keep_norms)


def test_a_notebook_hands_on_what_was_cut_out_and_tells_why_its_processes_failed(
    dataset, tmp_path, monkeypatch, capsys
):
    asked = []

    def failing(command, **options):
        asked.extend(command)
        return subprocess.Popen([sys.executable, "-c", SAYS], **options)

    monkeypatch.setattr(launch, "subprocess", types.SimpleNamespace(**vars(subprocess) | {"Popen": failing}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cut = dataset._replace(backgrounds={"top": {}})
    what = (
        "small_cnn",
        "none",
        cut,
        images.load_images(dataset, 20, 32),
        ["side", "top"],
        Recipe([Phase("short", "all", 1, 0.01)], 8, 0),
    )
    with pytest.raises(RuntimeError, match=r"(?s)in several processes failed:.*ValueError: no such file"):
        launch.fit_distributed(*what, torch.device("cpu"), folder=tmp_path)
    assert capsys.readouterr().out == "epoch   1/2\n"
    told = {"--nproc-per-node": "3", "--crop": "top", "--image-height": "20", "--image-width": "32"}
    assert told.items() <= dict(pairwise(asked)).items()


def test_checkpoints_stay_in_the_folder_that_was_given_for_them(command, tmp_path, capsys):
    path = command("first.zip", "--work", str(tmp_path / "work"))
    assert list(cards.load_models(path)["small_cnn"].card["backgrounds"]) == []
    assert "epoch   1/1" in capsys.readouterr().out
    command("again.zip", "--work", str(tmp_path / "work"))
    printed = capsys.readouterr().out
    assert "Going on after epoch 1 of an earlier run" in printed
    assert "epoch   1/1" not in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.zip", "first.zip", "work"]
