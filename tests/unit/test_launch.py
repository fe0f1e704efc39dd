import json

import pytest

from helpers import cards, launch

RECIPE = {"phases": [["short", "all", 1, 0.01]], "keep_norms": False}
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
    assert list(cards.load_models(path)["small_cnn"].card["empty"]) == ["top"]
    assert [file.name for file in tmp_path.iterdir()] == ["cut.zip"]
    with pytest.raises(ValueError, match="--crop: no view is called below; there are side, top"):
        command("none.zip", "--crop", "below")


def test_checkpoints_stay_in_the_folder_that_was_given_for_them(command, tmp_path, capsys):
    path = command("first.zip", "--work", str(tmp_path / "work"))
    assert list(cards.load_models(path)["small_cnn"].card["empty"]) == []
    assert "epoch   1/1" in capsys.readouterr().out
    command("again.zip", "--work", str(tmp_path / "work"))
    printed = capsys.readouterr().out
    assert "Going on after epoch 1 of an earlier run" in printed
    assert "epoch   1/1" not in printed
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.zip", "first.zip", "work"]
