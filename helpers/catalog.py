"""The catalog, one table for a data set: scan raw photos, save and load `data.zip`."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers import splits
from helpers.archives import Archive, ArchiveError, threaded, write_zip
from helpers.checks import LEFT_OUT, check_photos
from helpers.layouts import SPLITS, LayoutError, check_names, read_layout
from helpers.photos import decode, encode, shrink

FORMAT_VERSION = 4
COLUMNS = ["path", "label", "view", "item", "split", "width", "height", "sha256", "boxes", "group"]
_TEXT = {name: str for name in COLUMNS if name not in ("width", "height")}


class Dataset(NamedTuple):
    """A set of images: the `data.zip` (or raw archive) they lie in, the catalog, and the facts of a `dataset.json`.

    In the catalog, group is shared by all images that must stand in one split; see `checks.check_photos`.
    stored: height and width in px that photos were shrunk to fit into; None where they are as they came.
    unrolled: by the view that came of it, how photos of another view were unrolled; see `unrolling.add`.
    backgrounds: by view, where the catalog says what to cut out of each photo; see `crops.with_crops`.
    sha256: digest of the archive or folder, which the models trained on it carry.
    """

    path: Path
    catalog: pd.DataFrame
    name: str
    classes: list[str]
    views: list[str]
    seed: int
    sha256: str
    stored: dict[str, int] | None = None
    unrolled: dict[str, dict] | None = None
    backgrounds: dict[str, dict] | None = None

    def labels(self) -> np.ndarray:
        """(N,): the number of each image's class, in the order of the catalog."""
        return self.catalog["label"].map(self.classes.index).to_numpy(copy=True)


def scan(
    archive: Archive, progress: Callable[[Iterable], Iterable] = iter, *, group_look_alikes: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The usable photos of a raw archive and the findings, as `checks.check_photos` gives them.

    Raises LayoutError where the names tell no labels, and what `checks.check_photos` raises.
    """
    photos, misfits = read_layout(archive.names)
    table, findings = check_photos(archive, photos, progress, group_look_alikes=group_look_alikes)
    misfit_rows = pd.DataFrame([(name, reason, LEFT_OUT) for name, reason in misfits], columns=findings.columns)
    return table, pd.concat([misfit_rows, findings], ignore_index=True)


def limit(dataset: Dataset, train: int, seed: int) -> Dataset:
    """The data set with at most so many training images of each class, drawn at random; the others have no split.

    The first n drawn for a larger number are those drawn for a smaller one: more images, not others.
    """
    learned = dataset.catalog[dataset.catalog["split"] == "train"]
    kept = learned.sample(frac=1, random_state=seed).groupby("label").head(train).index
    split = dataset.catalog["split"].where(~dataset.catalog.index.isin(learned.index.difference(kept)), "")
    return dataset._replace(catalog=dataset.catalog.assign(split=split))


def in_place(archive: Archive, photos: pd.DataFrame, *, name: str, seed: int) -> Dataset:
    """The data set of divided photos that stay in their raw archive, as they are: for sets of one's own machine."""
    table = photos.sort_values("source", kind="stable").reset_index(drop=True).rename(columns={"source": "path"})
    classes, views = sorted(table["label"].unique()), sorted(set(table["view"]) - {""})
    table = table.rename(columns={"raw_sha256": "sha256"})[COLUMNS].astype({"group": str})
    return Dataset(archive.path, table, name, classes, views, seed, archive.digest())


def save(
    archive: Archive, photos: pd.DataFrame, path: str | Path, *, name: str, height: int, width: int, seed: int
) -> Dataset:
    """Write `data.zip` from divided photos, each shrunk to fit into height x width px, and load it again.

    The same photos and parameters give the same bytes. Photos pass one by one: memory stays flat.
    """
    photos = photos.sort_values("source", kind="stable").reset_index(drop=True)
    paths = _stored_paths(photos)
    facts = []

    def members() -> Iterator[tuple[str, bytes]]:
        rows = photos.itertuples(index=False)
        stored = threaded(lambda row: _store(archive, row, height, width), rows)
        for member, (data, size, boxes) in zip(paths, stored, strict=True):
            facts.append((*size, hashlib.sha256(data).hexdigest(), json.dumps(boxes)))
            yield member, data
        table = photos.assign(path=paths)
        table[["width", "height", "sha256", "boxes"]] = facts
        description = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "classes": sorted(photos["label"].unique().tolist()),
            "views": sorted(set(photos["view"]) - {""}),
            "seed": seed,
            "raw_sha256": archive.digest(),
            "stored": {"height": height, "width": width},
        }
        yield from _described(table, description)

    return load(write_zip(path, members()))


def extend(dataset: Dataset, pictures: Iterable[tuple[dict, bytes]], **facts: object) -> Dataset:
    """Write a `data.zip` anew with further pictures and facts, and load it again.

    pictures: JPEG bytes, each with its row of the catalog but for the digest. facts: fields of Dataset.
    """
    rows = []

    def members() -> Iterator[tuple[str, bytes]]:
        with Archive(dataset.path) as archive:  # closed before it is replaced, as Windows asks for
            for path in dataset.catalog["path"]:
                yield path, archive.read(path)
            description = json.loads(archive.read("dataset.json")) | facts
        for row, data in pictures:
            rows.append(row | {"sha256": hashlib.sha256(data).hexdigest(), "boxes": json.dumps(row["boxes"])})
            yield row["path"], data
        known = dataset.catalog.assign(boxes=dataset.catalog["boxes"].map(json.dumps))
        yield from _described(pd.concat([known, pd.DataFrame(rows, columns=COLUMNS)]), description)

    return load(write_zip(dataset.path, members()))


def _described(table: pd.DataFrame, facts: dict) -> Iterator[tuple[str, bytes]]:
    """The members of a `data.zip` that say what the others are."""
    yield "catalog.csv", table[COLUMNS].to_csv(index=False, lineterminator="\n").encode()
    yield "dataset.json", (json.dumps(facts, indent=2) + "\n").encode()


def load(path: str | Path) -> Dataset:
    """Read the catalog and the facts of a `data.zip`; the images stay in it.

    Raises ArchiveError where it is no such archive, or of a format that this version does not know.
    """
    with Archive(path) as archive:
        missing = {"catalog.csv", "dataset.json"} - set(archive.names)
        if missing:
            raise ArchiveError(f"{path} holds no {' and no '.join(sorted(missing))}: make it with 01-DataPreparation")
        try:
            facts = json.loads(archive.read("dataset.json"))
            version = facts.pop("format_version")
            facts.pop("raw_sha256", "")  # for people: which raw archive it was made from
            if version != FORMAT_VERSION:
                raise ArchiveError(f"{path} has format {version}, not {FORMAT_VERSION}: run 01-DataPreparation again")
            catalog = pd.read_csv(io.BytesIO(archive.read("catalog.csv")), dtype=_TEXT, keep_default_na=False)
            catalog["boxes"] = catalog["boxes"].map(json.loads)
            if "group" not in catalog:  # made elsewhere, or by an earlier version: items alone belong together
                catalog["group"] = catalog["item"]
            dataset = Dataset(Path(path), catalog[COLUMNS], sha256=archive.digest(), **facts)
            check_names(dataset.classes, dataset.views)
            _check_consistent(dataset)
        except (ArchiveError, LayoutError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArchiveError(f"{path}: its catalog is damaged ({error}): run 01-DataPreparation again") from error
        absent = set(catalog["path"]) - set(archive.names)
    if absent:
        raise ArchiveError(f"{path} lacks {len(absent)} images of its catalog, {min(absent)!r} first: make it again")
    return dataset


def rows_where(catalog: pd.DataFrame, **allowed: str | Sequence[str]) -> np.ndarray:
    """Row numbers of the catalog whose columns have these values: rows_where(catalog, split="test", view=["top"])."""
    chosen = np.ones(len(catalog), bool)
    for column, values in allowed.items():
        chosen &= catalog[column].isin([values] if isinstance(values, str) else values).to_numpy()
    return np.flatnonzero(chosen)


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, from all over them: a catalog is sorted by label."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]


def _check_consistent(dataset: Dataset) -> None:
    """Raise ArchiveError for a catalog that was changed by hand into one that no training can rely on."""
    table = dataset.catalog
    wrong = {
        "labels that are no class": sorted(set(table["label"]) - set(dataset.classes)),
        "views that are not named": sorted(set(table["view"]) - {"", *dataset.views}),
        "splits that are none": sorted(set(table["split"]) - set(SPLITS)),
        "paths that come twice": table.loc[table["path"].duplicated(), "path"].tolist(),
        "items in two splits": splits.overlaps(table, "item"),
        "look-alikes in two splits": splits.overlaps(table, "group"),
    }
    if found := [f"{what} ({', '.join(names[:3])})" for what, names in wrong.items() if names]:
        raise ArchiveError(f"{dataset.path}: its catalog has {' and '.join(found)}: run 01-DataPreparation again")


def _stored_paths(photos: pd.DataFrame) -> list[str]:
    """images/label/view/item_view.jpg, or images/ITEM.jpg without views; a second photo of a name gets a number."""
    taken: set[str] = set()
    paths = []
    for row in photos.itertuples(index=False):
        stem = f"{row.label}/{row.view}/{row.item}_{row.view}" if row.view else row.item
        stem = "/".join(part.replace("\\", "_").replace(":", "_") for part in PurePosixPath(stem).parts)
        names = itertools.chain([stem], (f"{stem}.{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        paths.append(f"images/{name}.jpg")
    return paths


def _store(archive: Archive, row: NamedTuple, height: int, width: int) -> tuple[bytes, tuple[int, int], list[list]]:
    """JPEG bytes, (width, height) and boxes of one photo as it is stored."""
    original, _ = decode(archive.read(row.source), row.source)
    image = shrink(original, height, width)
    scale = np.array([image.width / original.width, image.height / original.height] * 2)
    corners = np.array([box[1:] for box in row.boxes]).reshape(-1, 4) * scale
    whole = np.hstack([np.floor(corners[:, :2]), np.ceil(corners[:, 2:])]).astype(int)  # a thin one stays to be seen
    boxes = [[name, *corner] for (name, *_), corner in zip(row.boxes, whole.tolist(), strict=True)]
    return encode(image), image.size, boxes
