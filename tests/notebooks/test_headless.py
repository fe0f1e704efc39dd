"""The notebooks as a plant and as Colab run them: by papermill from anywhere, and alone in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import session

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND, *_ = sorted((ROOT / "notebooks").glob("*.ipynb"))


def papermill(python, notebook, folder, *options, **environment):
    """Run a notebook from `folder` without a display."""
    surroundings = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | environment
    command = [python, "-m", "papermill", "--no-progress-bar", str(notebook), "out.ipynb", *options]
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


def test_unknown_parameters_and_wrong_types_are_all_told_in_one_clear_sentence_each():
    source = {cell.id: cell.source for cell in nbformat.read(FIRST, as_version=4).cells}
    changes = "sead = 1\nstored_height = 'high'"  # as papermill puts them behind the parameters cell
    scope = {"In": ["", source["setup"], source["parameters"], changes, source["check"]]}
    exec(source["parameters"] + "\n" + changes, scope)
    with pytest.raises(session.ParameterError) as told:
        exec(source["check"], scope | {"session": session})
    assert "Unknown parameter 'sead': did you mean 'seed'?" in str(told.value)
    assert "Parameter 'stored_height' must be int, not str 'high'" in str(told.value)
    assert "This notebook takes: raw_data, " in str(told.value)


def test_a_run_from_anywhere_names_a_missing_archive_with_the_remedy(tmp_path):
    result = papermill(sys.executable, SECOND, tmp_path, "-p", "data_archive", str(tmp_path / "no.zip"))
    assert result.returncode != 0
    assert f"{tmp_path / 'no.zip'} is missing: run 01-DataPreparation first, or give data_archive" in result.stderr


@pytest.fixture
def fresh_python(tmp_path):
    """An environment like Colab's: torch and the rest are there, `helpers` is not."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(pytest.__file__).parents[1].iterdir():
        if "helpers" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    return str(tmp_path / "env" / "bin" / "python")


@pytest.fixture
def wheel(tmp_path):
    """The package as the set-up cell would fetch it, built without touching the clone."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "helpers"):
        (source / name).symlink_to(ROOT / name)
    build = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=True
    )
    return tmp_path / result.stdout.splitlines()[-1]


def tiny(notebook):
    """The tiny values of a notebook's parameters, as the test run takes them."""
    cells = nbformat.read(notebook, as_version=4).cells
    return next(cell.metadata["nbmake"]["mock"] for cell in cells if cell.id == "parameters")


def test_alone_in_an_empty_folder_a_notebook_gets_helpers_and_runs(tmp_path, fresh_python, wheel):
    folder = tmp_path / "content"
    folder.mkdir()
    without = subprocess.run([fresh_python, "-c", "import helpers"], stderr=subprocess.DEVNULL, cwd=folder, check=False)
    assert without.returncode != 0
    (folder / FIRST.name).write_bytes(FIRST.read_bytes())  # all begin with the same set-up (test_conventions)
    result = papermill(fresh_python, FIRST.name, folder, "-y", json.dumps(tiny(FIRST)), HELPERS_SOURCE=str(wheel))
    assert result.returncode == 0, result.stderr[-3000:]
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    shown = [out.get("data", {}) for cell in cells for out in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) >= 3
    assert (folder / "transfer" / "tiny" / "data.zip").exists()
