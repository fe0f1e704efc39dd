"""Raw data from where it is: the built-in sample, a zip or folder of yours, or an address with its checksum."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pooch

from helpers import sample
from helpers.archives import write_zip

SAMPLE_ITEMS, SAMPLE_ANNOTATED = 300, 60


def obtain(raw_data: str, sha256: str, folder: Path, *, seed: int, sample_items: int = SAMPLE_ITEMS) -> Path:
    """The path of the raw data: a zip archive or a folder.

    raw_data: "sample" (drawn for `seed` with `sample_items` items), a path, or an http(s) address.
    sha256: checksum of what stands at the address; an address without one is refused.
    folder: where the drawn sample and downloads are kept.
    Raises FileNotFoundError for a path that is not there, ConnectionError where a download fails.
    """
    if raw_data == "sample":
        annotated = min(SAMPLE_ANNOTATED, sample_items // 5 // 2 * 2)
        pictures = sample.draw_sample(sample_items, annotated=annotated, seed=seed)
        return write_zip(folder / "sample-raw-data.zip", pictures)
    if urlsplit(raw_data).scheme in ("http", "https"):
        return download(raw_data, sha256, folder / "downloads")
    path = Path(raw_data)
    if not path.exists():
        raise FileNotFoundError(f'{path} is missing: give the path of a zip or folder, an address, or "sample"')
    return path


def download(address: str, sha256: str, folder: Path) -> Path:
    """The file at an address, whole and with that SHA-256, or an error and no file; fetched once.

    Raises ValueError where no checksum is given, and ConnectionError where the download is refused, breaks off or
    brings something else.
    """
    if not sha256:
        raise ValueError(f"{address} needs its SHA-256: a download is only as good as its checksum")
    name = Path(urlsplit(address).path).name or "raw-data.zip"
    try:
        return Path(pooch.retrieve(address, f"sha256:{sha256.lower()}", fname=name, path=folder, progressbar=False))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ConnectionError(
            f"{address} could not be fetched whole ({reason}). Nothing was kept. Try again, "
            "or download it by hand and give the path of the file"
        ) from error
