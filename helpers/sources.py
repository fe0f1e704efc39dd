"""Raw data from where it is: the built-in sample, a published set, a zip or folder of yours, or an address."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pooch
from PIL import Image

from helpers import dialog, sample, session
from helpers.archives import Archive, ArchiveError, write_zip
from helpers.photos import EXTENSIONS, MAX_BYTES

Members = Iterator[tuple[str, bytes]]
Photo = tuple[str, bytes | ArchiveError]  # its name, and its bytes or why they cannot be read


class _Published(NamedTuple):
    """The addresses of one file in the order they are asked, its checksum, and how its photos are got out of it."""

    addresses: tuple[str, ...]
    checksum: str
    unpack: Callable[[Path], Members] | None = None


def obtain(raw_data: str, sha256: str, folder: Path, *, seed: int, sample_items: int = 300) -> Path:
    """The path of the raw data: a zip archive or a folder.

    raw_data: "sample" (drawn for `seed` with `sample_items` items), a name of PUBLISHED, a path, or an http(s)
    address. A published file that was downloaded by hand, under its own name, is taken as a path.
    sha256: checksum of what stands at the address, or of the file; an address without one is refused.
    folder: where the drawn sample and downloads are kept.
    Raises FileNotFoundError for a path that is not there, ArchiveError for a part of a published file or another
    checksum, ConnectionError where a download fails, ValueError for a sample of no items.
    """
    if raw_data == "sample":
        if sample_items < 1:
            raise ValueError(f"sample_items={sample_items} must be 1 or more")
        annotated = min(60, sample_items // 5 // 2 * 2)
        pictures = sample.draw_sample(sample_items, annotated=annotated, seed=seed)
        return write_zip(folder / "sample-raw-data.zip", pictures)
    if raw_data in PUBLISHED:
        return _published(raw_data, folder / "downloads")
    if is_address(raw_data):
        if not sha256:
            raise ValueError(f"{raw_data} needs its SHA-256: a download is only as good as its checksum")
        return download(raw_data, f"sha256:{sha256}", folder / "downloads")
    known = ", ".join(f'"{name}"' for name in ("sample", *PUBLISHED))
    remedy = f"give raw_data as the path of a zip or folder, an address, or one of {known}"
    path = dialog.require(session.resolve(raw_data), remedy)
    if sha256 and not (path.is_file() and pooch.hashes.hash_matches(path, sha256)):
        raise ArchiveError(f"{path} is not the file with the SHA-256 {sha256}: take that file, or give no checksum")
    for name, published in PUBLISHED.items():
        if not published.unpack or path.name != _file_name(published.addresses[0]):
            continue
        if pooch.hashes.hash_matches(path, published.checksum):
            return _unpacked(name, path, folder / "downloads")
        if not _holds_photos(path):
            raise ArchiveError(f"{path} is not the published file of {name}, or a part of it: download it again")
    return path


def local(where: str) -> list[Path]:
    """The zip, photo or folder that would be read in place: none for a name, an address or nothing."""
    named = where in ("", "sample", *PUBLISHED) or is_address(where)
    return [] if named else [session.resolve(where)]


def download(address: str, checksum: str | None, folder: Path) -> Path:
    """The file at an address, whole and with that checksum, or an error and no file; fetched once.

    checksum: as in "sha256:..." or "md5:..."; None takes what comes.
    Raises ConnectionError where the download is refused, breaks off or brings something else.
    """
    pooch.get_logger().setLevel("WARNING")  # no advice on checksums amid a notebook
    bar = dialog.someone_can_answer()
    try:
        return Path(pooch.retrieve(address, checksum, fname=_file_name(address), path=folder, progressbar=bar))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ConnectionError(
            f"{address} could not be fetched whole ({reason}). Nothing was kept. Try again, "
            "or download it by hand and give the path of the file"
        ) from error


def photos(where: str) -> Iterator[Photo]:
    """Names and bytes of photos to answer: of one file, of all in a folder or zip, or of what stands at an address.

    What cannot be read, or is no photo by its name, comes with the error in place of its bytes: the others are answered
    all the same. The boxes of a photo are passed over.
    where: a path or an http(s) address; "" gives none.
    Raises FileNotFoundError for a path that is not there, ArchiveError for a file that is neither photo nor zip,
    ConnectionError where a download fails.
    """
    if not where:
        return
    if is_address(where):
        with tempfile.TemporaryDirectory() as folder:  # fetched anew each time: what stands there may change
            yield from photos(str(download(where, None, Path(folder))))
        return
    path = Path(where).expanduser()
    if path.is_file() and (path.suffix.lower() in EXTENSIONS or not (path.suffix or zipfile.is_zipfile(path))):
        yield path.name, path.read_bytes()
        return
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ArchiveError(f"{path} is no photo and no whole zip: save a photo as JPEG or PNG, copy a zip again")
    with Archive(path) as archive:
        for name in archive.names:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix == ".xml":
                continue
            try:
                if suffix not in EXTENSIONS:
                    raise ArchiveError(f"no photo by its name ({suffix!r}): save it as JPEG or PNG, if it is one")
                data = archive.read(name, MAX_BYTES)
            except ArchiveError as error:
                data = error
            yield name, data


def locate(where: str) -> str:
    """What a parameter names for `photos`: "" or an address as it is, a path as `session.resolve` finds it.

    Raises FileNotFoundError, before any work, for a path that is not there.
    """
    if not where or is_address(where):
        return where
    path = session.resolve(where)
    if not path.exists():
        raise FileNotFoundError(f"{where} is missing: give the path of a photo, a folder or a zip, or an address")
    return str(path)


def is_address(where: str) -> bool:
    """Whether it is an http(s) address, and no path."""
    return where.lower().startswith(("http://", "https://"))


def _published(name: str, folder: Path) -> Path:
    published, failures = PUBLISHED[name], []
    for address in published.addresses:
        try:
            path = download(address, published.checksum, folder)
            return _unpacked(name, path, folder) if published.unpack else path
        except ConnectionError as error:
            failures.append(error)
    raise ConnectionError("\n".join(map(str, failures)))


def _unpacked(name: str, path: Path, folder: Path) -> Path:
    """The photos of a published file as a zip of class folders, made once; beside it, whatever that is called."""
    target = folder / f"{name}-photos.zip"
    return target if target.exists() else write_zip(target, PUBLISHED[name].unpack(path))


def _holds_photos(path: Path) -> bool:
    """Whether it is a set of one's own, whatever it is called."""
    try:
        with Archive(path) as archive:
            return any(PurePosixPath(name).suffix.lower() in EXTENSIONS for name in archive.names)
    except ArchiveError:
        return False


def _caltech(path: Path) -> Members:
    """The photos of the archive within the archive."""
    with zipfile.ZipFile(path) as outer:
        name = next(name for name in outer.namelist() if name.endswith("101_ObjectCategories.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:gz") as inner:
            for member in inner:
                if member.isfile() and member.name.endswith(".jpg"):
                    yield member.name.removeprefix("./"), inner.extractfile(member).read()


def _cifar(path: Path) -> Members:
    """Records of one byte for the label and 3,072 for the pixels, as PNG files."""
    with tarfile.open(path, mode="r:gz") as archive:
        members = {PurePosixPath(member.name).name: member for member in archive if member.isfile()}
        files = {name: archive.extractfile(member).read() for name, member in members.items()}
    labels = files["batches.meta.txt"].decode().split()
    parts = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
    for split, names in parts.items():
        records = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        for number, record in enumerate(records):
            pixels, buffer = record[1:].reshape(3, 32, 32).transpose(1, 2, 0), io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
            yield f"{split}/{labels[record[0]]}/{number:05d}.png", buffer.getvalue()


def _file_name(address: str) -> str:
    return Path(urlsplit(address).path).name or "raw-data.zip"


PUBLISHED = {
    "caltech-101": _Published(  # Li, Andreeto, Ranzato and Perona (2022), CaltechDATA, CC BY 4.0
        ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
        "md5:3138e1922a9193bfa496528edbbc45d0",
        _caltech,
    ),
    "trashnet": _Published(  # Yang and Thung (2016), Classification of Trash for Recyclability Status, MIT
        ("https://huggingface.co/datasets/garythung/trashnet/resolve/main/dataset-resized.zip",),
        "sha256:c060e8abfe5d6de0578ca15be1ed8ad0794a865d333c3473d53d1d9ad6e38b8c",
    ),
    "cifar-10": _Published(  # Krizhevsky (2009), Learning Multiple Layers of Features; this form holds no pickle
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
        ),
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
        _cifar,
    ),
}
