import sys
import types

import pytest

from helpers import dialog


def test_nobody_can_answer_in_a_test_or_a_headless_run(shell):
    assert not dialog.someone_can_answer()
    shell(stdin=False)
    assert not dialog.someone_can_answer()
    shell(stdin=True)
    assert dialog.someone_can_answer()


def test_what_is_there_is_not_asked_for(tmp_path):
    assert dialog.require(tmp_path, "run 01 first") == tmp_path


def test_what_is_missing_is_answered_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.zip is missing: run 01 first"):
        dialog.require(tmp_path / "data.zip", "run 01 first")


def test_colab_asks_a_person_for_what_is_missing(tmp_path, colab):
    colab.uploads["data (1).zip"] = b"uploaded"
    path = dialog.require(tmp_path / "transfer" / "data.zip", "run 01 first")
    assert path.read_bytes() == b"uploaded"
    assert [file.name for file in path.parent.iterdir()] == ["data.zip"]


def test_what_was_put_into_colabs_files_pane_is_taken_from_there(tmp_path, colab, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.zip").write_bytes(b"dropped")
    path = dialog.require(tmp_path / "transfer" / "data.zip", "run 01 first")
    assert path.read_bytes() == b"dropped"
    assert not (tmp_path / "data.zip").exists()


def test_both_archives_chosen_at_once_in_colab_are_stored_under_their_own_names(tmp_path, colab, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.zip").write_bytes(b"networks")  # Colab's own copy
    (tmp_path / "data.zip.bak").write_bytes(b"someone's")
    colab.uploads |= {"data.zip": b"photos", "models.zip": b"networks"}
    path = dialog.require(tmp_path / "transfer" / "data.zip", "run 01 first")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == colab.uploads
    assert "if it is the wrong file, delete it" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"transfer", "data.zip.bak"}


def test_several_files_of_which_none_is_the_one_asked_for_are_refused(tmp_path, colab):
    colab.uploads |= {"a.zip": b"", "b.zip": b""}
    with pytest.raises(FileNotFoundError, match=r"a\.zip, b\.zip were chosen: choose data\.zip alone \(run 01 first\)"):
        dialog.require(tmp_path / "data.zip", "run 01 first")
    assert not list(tmp_path.iterdir())


def test_a_person_in_colab_who_uploads_nothing_gets_the_remedy(tmp_path, colab):
    with pytest.raises(FileNotFoundError, match="run 01 first"):
        dialog.require(tmp_path / "data.zip", "run 01 first")


def test_a_result_is_named_with_its_size_and_handed_over_in_colab(tmp_path, colab, capsys):
    path = tmp_path / "models.zip"
    path.write_bytes(bytes(1_500_000))
    dialog.offer(path)
    assert capsys.readouterr().out == f"Written: {path} (1.5 MB)\n"
    assert colab.downloads == [str(path)]


def test_what_is_too_large_for_a_browser_stays_where_it_is(tmp_path, colab, monkeypatch, capsys):
    monkeypatch.setattr(dialog, "_BROWSER_MEGABYTES", 1)
    (tmp_path / "models.zip").write_bytes(bytes(1_000_001))
    dialog.offer(tmp_path / "models.zip")
    assert "copy it to Google Drive" in capsys.readouterr().out
    assert colab.downloads == []


def test_a_headless_run_hands_nothing_over(tmp_path, colab, shell):
    shell(stdin=False)
    path = tmp_path / "models.zip"
    path.touch()
    dialog.offer(path)
    assert colab.downloads == []
    with pytest.raises(FileNotFoundError):
        dialog.require(tmp_path / "data.zip", "run 01 first")


def test_progress_passes_every_row_on_and_leaves_one_line_in_a_log_however_short(capsys):
    assert list(dialog.progress("Reading")("abc")) == ["a", "b", "c"]
    (line,) = capsys.readouterr().out.splitlines()[-1:]
    assert line.startswith("Reading: 100%")
    assert "| 3/3 [" in line


def test_nobody_is_asked_for_photos_in_a_headless_run():
    assert dialog.ask_for_photos() is None
    assert dialog.uploaded(None) == []


def test_without_ipywidgets_there_is_a_line_in_place_of_the_button(monkeypatch, capsys):
    monkeypatch.setattr(dialog, "someone_can_answer", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert dialog.ask_for_photos() is None
    assert "pip install ipywidgets. Or give the path of your photos" in capsys.readouterr().out


def test_colab_gives_the_photos_at_once(colab):
    colab.uploads = {"mine.jpg": b"photo"}
    assert dialog.uploaded(dialog.ask_for_photos()) == [("mine.jpg", b"photo")]


def test_jupyter_shows_a_button_and_gives_the_photos_when_they_are_chosen(monkeypatch, shell):
    shown = []
    shell(stdin=True)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=shown.append))
    button = types.SimpleNamespace(value=())
    monkeypatch.setitem(sys.modules, "ipywidgets", types.SimpleNamespace(FileUpload=lambda **_: button))
    assert dialog.ask_for_photos() is button
    assert shown == [button]
    assert dialog.uploaded(button) == []
    button.value = ({"name": "mine.jpg", "content": memoryview(b"photo")},)
    assert dialog.uploaded(button) == [("mine.jpg", b"photo")]
    button.value = {"old.jpg": {"metadata": {}, "content": b"photo"}}  # ipywidgets 7
    assert dialog.uploaded(button) == [("old.jpg", b"photo")]
