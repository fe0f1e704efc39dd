import os
import random
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import session
from helpers.session import ParameterError

ROOT = Path(__file__).resolve().parents[2]
CELL = """# Parameters of this notebook
raw_data = "sample"  # what to read
rate = 0.1  # of learning
epochs = 3  # at most
per_view = False
views = ["side"]  # to look at
"""


def notebook(*cells, parameters=CELL):
    """What `globals()` is in the cell after these, each run in turn; the last cell is the one that checks."""
    namespace = {"In": ["", "import os", parameters, *cells, "session.check_parameters(globals())"]}
    for cell in namespace["In"][2:-1]:
        if "%" not in cell:
            exec(cell, namespace)
    return namespace


def test_parameters_come_back_as_the_notebook_declares_them():
    assert session.check_parameters(notebook()) == {
        "raw_data": "sample",
        "rate": 0.1,
        "epochs": 3,
        "per_view": False,
        "views": ["side"],
    }


def test_values_set_from_outside_count():
    found = session.check_parameters(notebook("# Parameters\nepochs = 5\nraw_data = 'a.zip'\n"))
    assert (found["epochs"], found["raw_data"]) == (5, "a.zip")


def test_an_unknown_parameter_is_answered_with_the_one_that_was_meant():
    with pytest.raises(ParameterError, match=r"Unknown parameter 'epoch': did you mean 'epochs'\?"):
        session.check_parameters(notebook("epoch = 5"))


def test_one_message_names_all_that_is_wrong_and_all_that_there_is():
    with pytest.raises(ParameterError) as caught:
        session.check_parameters(notebook("zzz = 1\nepochs = '5'\nviews = 'top'\nrte = 1"))
    assert str(caught.value).splitlines() == [
        "Unknown parameter 'rte': did you mean 'rate'?",
        "Unknown parameter 'zzz'",
        "Parameter 'epochs' must be int, not str '5'",
        "Parameter 'views' must be list, not str 'top': papermill passes lists and mappings with -y",
        "This notebook takes: raw_data, rate, epochs, per_view, views",
    ]


def test_a_whole_number_may_stand_for_a_fraction():
    assert session.check_parameters(notebook("rate = 1"))["rate"] == 1


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("epochs = 2.5", "'epochs' must be int, not float 2.5"),
        ("epochs = True", "'epochs' must be int, not bool True"),
        ("rate = True", "'rate' must be float, not bool True"),
        ("rate = None", "'rate' must be float, not NoneType None"),
        ("per_view = 1", "'per_view' must be bool, not int 1"),
        ("raw_data = 7", "'raw_data' must be str, not int 7: papermill passes text as it stands with -r"),
    ],
)
def test_a_wrong_type_is_named_with_the_value(cell, message):
    with pytest.raises(ParameterError, match=f"^Parameter {message}\n"):
        session.check_parameters(notebook(cell))


def test_several_types_are_allowed_where_the_notebook_says_so():
    namespace = notebook("raw_data = {'a': 'b'}")
    assert session.check_parameters(namespace, raw_data=(str, dict))["raw_data"] == {"a": "b"}
    with pytest.raises(ParameterError, match="'raw_data' must be str or dict, not list"):
        session.check_parameters(notebook("raw_data = []"), raw_data=(str, dict))


def test_a_parameter_may_be_one_of_some_words_or_of_a_type():
    for value in ("auto", True):
        assert session.check_parameters(notebook(f"crop = {value!r}"), crop=("auto", bool))["crop"] == value
    with pytest.raises(ParameterError, match="'crop' must be 'auto' or bool, not str 'false'"):
        session.check_parameters(notebook("crop = 'false'"), crop=("auto", bool))


def test_a_cell_with_a_magic_is_passed_over():
    assert session.check_parameters(notebook("%matplotlib inline\nodd = 1"))["epochs"] == 3


def test_the_parameters_cell_that_ran_last_declares_them():
    namespace = notebook("# Parameters of this notebook\nepochs = 1.5")
    assert session.check_parameters(namespace) == {"epochs": 1.5}


def test_a_person_may_assign_other_names_but_not_other_types(shell):
    shell(stdin=True)
    assert session.check_parameters(notebook("mine = 1"))["epochs"] == 3
    with pytest.raises(ParameterError, match="'epochs' must be int"):
        session.check_parameters(notebook("mine = 1\nepochs = 'two'"))


def test_without_a_parameters_cell_the_message_says_which_one_to_run():
    with pytest.raises(ParameterError, match="Run the parameters cell first: the one that starts with '# Parameters"):
        session.check_parameters({"In": ["", "session.check_parameters(globals())"]})


def test_the_root_is_the_clone_from_anywhere_and_else_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert session.root() == ROOT
    monkeypatch.setattr(session, "__file__", str(tmp_path / "site-packages" / "helpers" / "session.py"))
    assert session.root() == Path.cwd()


def test_a_path_counts_from_where_it_exists_else_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.zip").touch()
    assert session.resolve("here.zip") == tmp_path.resolve() / "here.zip"
    assert session.resolve("transfer/there.zip") == ROOT / "transfer" / "there.zip"
    assert session.resolve(tmp_path / "new.zip") == tmp_path.resolve() / "new.zip"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert session.resolve("~/mine.zip") == tmp_path.resolve() / "mine.zip"


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", ""])
def test_a_device_that_is_not_at_hand_is_named_with_those_to_choose(device):
    with pytest.raises(ParameterError, match=rf"device '{device}' is not usable \(.+\): use 'auto', 'cpu' or 'cuda'"):
        session.pick_device(device)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "cpu"), (False, False, "cpu")], ids=str
)
def test_a_gpu_is_picked_where_there_is_one_and_mps_only_when_asked_for(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert session.pick_device("auto") == torch.device(best)
    assert session.pick_device("cpu") == torch.device("cpu")


def test_a_device_is_described_with_the_name_of_its_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    assert session.describe(torch.device("cuda", 1)) == "cuda:1 (H200)"
    assert session.describe(torch.device("cpu")) == "cpu"


def test_the_seed_reaches_every_generator():
    draws = []
    for _ in range(2):
        session.set_seed(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_start_prints_versions_and_device(capsys):
    session.start()
    versions, device = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__.partition('+')[0]}" in versions
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in versions
    assert device.startswith("Device: ")


def test_a_result_has_a_place_before_any_work(tmp_path):
    assert session.output(tmp_path / "new" / "models.zip", tmp_path / "data.zip") == tmp_path / "new" / "models.zip"
    assert list((tmp_path / "new").iterdir()) == []


def test_a_result_takes_the_place_of_nothing_that_is_read(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"photos")
    (tmp_path / "link.zip").symlink_to(tmp_path / "data.zip")
    for path in (tmp_path / "data.zip", tmp_path / "link.zip", tmp_path / "x" / ".." / "data.zip"):
        with pytest.raises(
            ParameterError, match=r"\.zip is already an input or an output: give this result another path"
        ):
            session.output(path, tmp_path / "other.zip", tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == b"photos"


def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    for path, problem in (
        ("", "A path is empty: give a file or a folder"),
        (tmp_path, "is a folder: give the path of a file in it"),
        (tmp_path / "file" / "models.zip", r"models\.zip cannot be written to \(.+\): give another path"),
    ):
        with pytest.raises(ParameterError, match=problem):
            session.output(path)


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    session.write_table(tmp_path / "a.csv", pd.DataFrame({"name": ["\udcff", "b"]}))
    assert (tmp_path / "a.csv").read_text() == "name\n\\udcff\nb\n"
    with pytest.raises(RuntimeError, match="no text"):
        session.write_table(tmp_path / "a.csv", pd.DataFrame({"name": ["c", Unprintable()]}))
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert "b" in (tmp_path / "a.csv").read_text()


def test_a_text_that_a_spreadsheet_would_compute_is_written_as_text(tmp_path):
    names = ["=cmd|' !A1", "@SUM(1)", "-2+3", "\t=1", "-12", "+0.5", "a=1", "007"]
    table = pd.DataFrame({"name": names, "value": np.float32(-0.1), "=label": 1})
    session.write_table(tmp_path / "a.csv", table)
    written = pd.read_csv(tmp_path / "a.csv", dtype={"name": str, "value": str})
    assert written.columns.tolist() == ["name", "value", "'=label"]
    assert written["name"].tolist() == ["'=cmd|' !A1", "'@SUM(1)", "'-2+3", "'\t=1", "-12", "+0.5", "a=1", "007"]
    assert (written["value"] == "-0.1").all()


def test_a_result_goes_into_no_folder_that_is_read_unless_it_is_a_table(tmp_path):
    (tmp_path / "decisions.csv").touch()
    with pytest.raises(ParameterError, match=r"1\.jpg lies in .*, which is read: give this result a path elsewhere"):
        session.output(tmp_path / "1.jpg", tmp_path)
    assert session.output(tmp_path / "decisions.csv", tmp_path) == tmp_path / "decisions.csv"
    with pytest.raises(ParameterError, match="ends as the folders of checkpoints do"):
        session.output(tmp_path / "models.work")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_result_takes_the_place_of_no_pipe_or_device(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ParameterError, match="is no ordinary file: give another path"):
        session.output(tmp_path / "pipe.csv")


def test_a_home_of_nobody_is_told_with_the_path():
    with pytest.raises(ParameterError, match=r"^~nobody-of-that-name/a\.zip: "):
        session.resolve("~nobody-of-that-name/a.zip")


def test_weights_are_a_word_or_a_file_that_is_there(tmp_path):
    (tmp_path / "own.pth").touch()
    assert [session.resolve_weights(word) for word in ("imagenet", "none")] == ["imagenet", "none"]
    assert session.resolve_weights(str(tmp_path / "own.pth")) == str(tmp_path / "own.pth")
    with pytest.raises(FileNotFoundError, match='give weights as "imagenet", "none" or a path'):
        session.resolve_weights(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(ParameterError, match=f"seed={seed} must be 0 or more"):
        session.set_seed(seed)


def test_a_gpu_is_not_touched_before_each_process_has_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("took memory"))
    assert session.pick_device("cuda") == torch.device("cuda")


def test_in_colab_without_a_gpu_the_set_up_says_how_to_get_one(colab, monkeypatch, capsys):
    for there, said in ((False, True), (True, False)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(session, "pick_device", lambda _: torch.device("cpu"))
        session.start()
        assert ("Change runtime type" in capsys.readouterr().out) == said
