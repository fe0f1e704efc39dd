"""What passes between a notebook and the person before it: archives, photos and results, in Colab and in Jupyter."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from helpers import archives

_BROWSER_MEGABYTES = 200  # that a browser still downloads well from Colab
Row = TypeVar("Row")


def in_colab() -> bool:
    """Whether this runs in Google Colab."""
    return "google.colab" in sys.modules


def ipython() -> object | None:
    """The shell that runs a notebook; None outside of one."""
    get = sys.modules.get("IPython")
    return get.get_ipython() if get else None


def someone_can_answer() -> bool:
    """Whether a person sits before the notebook: a headless run is told not to ask, and would wait for ever."""
    shell = ipython()
    return bool(shell and getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


def require(path: Path, remedy: str) -> Path:
    """The archive at `path`; in Colab, where it is missing, the file of that name in the Files pane, or an upload.

    Raises FileNotFoundError with the remedy where it is not to be had.
    """
    if not path.exists() and in_colab():
        _take_dropped(path)
        if not path.exists() and someone_can_answer():
            _ask_for_archive(path, remedy)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {remedy}")
    return path


def offer(path: Path) -> None:
    """Say where a result lies, and hand it to the browser in Colab, if it is not too large for that."""
    megabytes = path.stat().st_size / 1e6
    print(f"Written: {path} ({megabytes:.1f} MB)")
    if not (in_colab() and someone_can_answer()):
        return
    if megabytes > _BROWSER_MEGABYTES:
        print("That is much for a browser: copy it to Google Drive, or fetch it from the Files pane")
        return
    from google.colab import files

    files.download(str(path))


def ask_for_photos() -> object | None:
    """A button to upload photos with, where a person sits before the notebook; else None. See `uploaded`.

    Without ipywidgets there is no button, and a line says how else to give photos.
    """
    if not someone_can_answer():
        return None
    if in_colab():
        from google.colab import files

        return files.upload()
    try:
        import ipywidgets
    except ImportError:
        print("For a button: pip install ipywidgets. Or give the path of your photos as a parameter.")
        return None
    from IPython.display import display

    button = ipywidgets.FileUpload(accept="image/*", multiple=True, description="Choose photos")
    display(button)
    return button


def uploaded(answer: object | None) -> list[tuple[str, bytes]]:
    """Names and bytes of the photos that were chosen so far with what `ask_for_photos` gave."""
    if isinstance(answer, dict):  # Colab's
        return list(answer.items())
    if answer and isinstance(answer.value, dict):  # ipywidgets before version 8
        return [(name, bytes(file["content"])) for name, file in answer.value.items()]
    return [(file["name"], bytes(file["content"])) for file in answer.value] if answer else []


def progress(what: str) -> Callable[[Iterable[Row]], Iterable[Row]]:
    """What passes rows on and shows how far it is: a bar for a person; in a log a line each ten seconds."""
    often = 0.1 if someone_can_answer() else 10
    how = {"file": sys.stdout, "ascii": " =", "ncols": 88, "mininterval": often, "maxinterval": often}
    return partial(tqdm, desc=what, delay=1e-9, **how)  # no delay: no line at the start; longer: none at the end


def quiet(line: str) -> None:
    """What reports nothing, in the place of print."""


def _take_dropped(path: Path) -> None:
    """Move the file of that name to `path` from where Colab's Files pane puts things, if it is there."""
    places = (Path.cwd() / path.name, Path("/content") / path.name)
    if dropped := next(filter(Path.exists, places), None):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(dropped, path)


def _ask_for_archive(path: Path, remedy: str) -> None:
    """Store at `path` what is uploaded, whatever its name; of several files each beside it, by its name."""
    from google.colab import files

    print(f"{path.name} is not here: choose it on your computer ({remedy})")
    chosen = files.upload()
    if len(chosen) > 1 and path.name not in chosen:
        raise FileNotFoundError(f"{', '.join(chosen)} were chosen: choose {path.name} alone ({remedy})")
    for name, data in chosen.items():
        if (copy := Path(name)).is_file() and copy.read_bytes() == data:  # Colab's own, where the notebook runs
            copy.unlink()
        stored = path.with_name(name) if len(chosen) > 1 else path
        with archives.atomic(stored) as unfinished:
            unfinished.write_bytes(data)
        print(f"Stored as {stored}: if it is the wrong file, delete it in the Files pane and run this cell again")
