"""What the tests on real sets share: where the sets and the weights lie, and how a notebook runs on one of them."""

from pathlib import Path, PurePosixPath

import pandas as pd
import papermill
import pytest

from helpers.archives import Archive, write_zip

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
MOBILENET = {"architecture": "mobilenet_v2", "weights": str(SHARED / "weights" / "mobilenet_v2-imagenet.pth")}

beside = pytest.mark.skipif(not (SHARED / "data").exists(), reason="the real sets are not beside the clone")


def run(folder, notebook, **parameters):
    """The notebook as executed; it lies in the folder, too."""
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    return papermill.execute_notebook(path, folder / path.name, parameters, progress_bar=False)


def raw(name):
    """Parameters that name one of the sets."""
    return {"raw_data": str(SHARED / "data" / name)}


def part(name, most, folder):
    """Parameters that name a part of one of the sets: at most so many photos of each folder, in their own archive."""
    with Archive(SHARED / "data" / name) as archive:
        photos = pd.Series([member for member in archive.names if member.endswith((".jpg", ".png"))])
        kept = photos.groupby(photos.map(lambda member: PurePosixPath(member).parent)).head(most)
        path = write_zip(folder / f"part-of-{name}", ((member, archive.read(member)) for member in kept))
    return {"raw_data": str(path)}
