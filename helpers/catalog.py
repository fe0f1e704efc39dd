"""The catalog, one table for a data set: scan raw photos, split them by item, save and load `data.zip`."""

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

from helpers.archives import Archive, ArchiveError, threaded, write_zip
from helpers.checks import CORRECTED, LEFT_OUT, check_photos
from helpers.layouts import SPLITS, LayoutError, check_names, read_layout
from helpers.photos import decode, encode, shrink

FORMAT_VERSION = 2
COLUMNS = ["path", "label", "view", "item", "split", "width", "height", "sha256", "boxes", "group"]
_TEXT = {name: str for name in COLUMNS if name not in ("width", "height")}


class SplitError(ValueError):
    """Photos that cannot be divided into train, validation and test; the message says what is missing."""


class Dataset(NamedTuple):
    """A set of images: the `data.zip` (or raw archive) they lie in, the catalog, and the facts of a `dataset.json`.

    In the catalog, group is shared by all images that must stand in one split; see `checks.check_photos`.
    stored: height and width in px that photos were shrunk to fit into; None where they are as they came.
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
    backgrounds: dict[str, dict] | None = None

    def labels(self) -> np.ndarray:
        """(N,): the number of each image's class, in the order of the catalog."""
        return self.catalog["label"].map(self.classes.index).to_numpy(copy=True)


def scan(
    archive: Archive, progress: Callable[[Iterable], Iterable] = iter, *, group_look_alikes: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The usable photos of a raw archive and the findings, as `checks.check_photos` gives them."""
    photos, misfits = read_layout(archive.names)
    table, findings = check_photos(archive, photos, progress, group_look_alikes=group_look_alikes)
    misfit_rows = pd.DataFrame([(name, reason, LEFT_OUT) for name, reason in misfits], columns=findings.columns)
    return table, pd.concat([misfit_rows, findings], ignore_index=True)


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise ValueError for shares of the validation and the test split that leave one of the three splits empty."""
    if not (validation_fraction > 0 and test_fraction > 0 and validation_fraction + test_fraction < 1):
        raise ValueError("validation_fraction and test_fraction must each be over 0, and together below 1")


def assign_splits(
    photos: pd.DataFrame, *, validation_fraction: float, test_fraction: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos with `split` filled, and findings on those moved from the split they came in.

    Whole groups (items with their near duplicates) are drawn at random label by label, until validation and test
    hold their fraction of each label's items. Annotated items always go to test. Splits that the set came with
    are kept, a missing one is drawn from train; a group that stood in several goes to the one most protected.
    Raises SplitError where a label cannot be in all three splits, and ValueError for impossible fractions.
    """
    check_fractions(validation_fraction, test_fraction)
    groups = photos.groupby("group").agg(
        label=("label", "first"),
        items=("item", "nunique"),
        annotated=("annotated", "any"),
        preset=("split", lambda splits: next((name for name in reversed(SPLITS) if name in set(splits)), "")),
    )
    came_divided = set(photos["split"]) - {""}
    groups["split"] = groups["preset"].where(~groups["annotated"], "test")
    moved = photos[(photos["split"] != "") & (photos["split"] != photos["group"].map(groups["split"]))]
    generator = np.random.default_rng(seed)
    draws = (("test", test_fraction, 1 if "validation" in came_divided else 2), ("validation", validation_fraction, 1))
    for label in sorted(groups["label"].unique()):
        members = groups[groups["label"] == label]
        for split, fraction, leave in draws:
            if split in came_divided:
                continue
            free = members.loc[members["split"] == ("train" if came_divided else ""), "items"]
            held = members.loc[members["split"] == split, "items"].sum()
            wanted = max(round(fraction * members["items"].sum()), 0 if held else free.min())
            groups.loc[_draw(free, wanted - held, leave, generator), "split"] = split
            members = groups[groups["label"] == label]
    groups["split"] = groups["split"].replace("", "train")
    divided = photos.assign(split=photos["group"].map(groups["split"]))
    _check_splits(divided)
    now = divided.loc[moved.index, "split"]
    reasons = [
        f"moved from {old} to {new}: its item, a copy or boxes" for old, new in zip(moved["split"], now, strict=True)
    ]
    findings = pd.DataFrame({"source": moved["source"], "problem": reasons, "action": CORRECTED})
    return divided, findings.reset_index(drop=True)


def assign_counts(photos: pd.DataFrame, *, train: int, validation: int, seed: int) -> pd.DataFrame:
    """The photos with `split` filled: so many items of each label to learn from and to choose with, the rest to test.

    Whole groups are drawn, as by `assign_splits`. Of a label with too few items at least a tenth stays for the test,
    and at most a fifth goes to validation, but never less than its smallest group.
    Raises SplitError where a label cannot be in all three splits, and ValueError for counts below 1.
    """
    if train < 1 or validation < 1:
        raise ValueError(f"train and validation must be at least 1 item of each label, not {train} and {validation}")
    groups = photos.groupby("group").agg(label=("label", "first"), items=("item", "nunique")).assign(split="test")
    generator = np.random.default_rng(seed)
    for _, members in groups.groupby("label"):
        total = members["items"].sum()
        chosen = max(min(validation, max(1, total // 5)), members["items"].min())
        learned = min(train, total - chosen - max(1, total // 10))
        drawn = _draw(members["items"], chosen, 2, generator)
        groups.loc[drawn, "split"] = "validation"
        groups.loc[_draw(members["items"].drop(drawn), learned, 1, generator), "split"] = "train"
    divided = photos.assign(split=photos["group"].map(groups["split"]))
    _check_splits(divided)
    return divided


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
        yield "catalog.csv", table[COLUMNS].to_csv(index=False, lineterminator="\n").encode()
        description = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "classes": sorted(photos["label"].unique().tolist()),
            "views": sorted(set(photos["view"]) - {""}),
            "seed": seed,
            "raw_sha256": archive.digest(),
            "stored": {"height": height, "width": width},
        }
        yield "dataset.json", (json.dumps(description, indent=2) + "\n").encode()

    return load(write_zip(path, members()))


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


def overlaps(catalog: pd.DataFrame, column: str) -> list[str]:
    """The values of a column, "item" or "group", that stand in more than one split: there must be none."""
    splits = catalog.groupby(column)["split"].nunique()
    return splits.index[splits > 1].tolist()


def _check_consistent(dataset: Dataset) -> None:
    """Raise ArchiveError for a catalog that was changed by hand into one that no training can rely on."""
    table = dataset.catalog
    wrong = {
        "labels that are no class": sorted(set(table["label"]) - set(dataset.classes)),
        "views that are not named": sorted(set(table["view"]) - {"", *dataset.views}),
        "splits that are none": sorted(set(table["split"]) - set(SPLITS)),
        "paths that come twice": table.loc[table["path"].duplicated(), "path"].tolist(),
        "items in two splits": overlaps(table, "item"),
        "look-alikes in two splits": overlaps(table, "group"),
    }
    if found := [f"{what} ({', '.join(names[:3])})" for what, names in wrong.items() if names]:
        raise ArchiveError(f"{dataset.path}: its catalog has {' and '.join(found)}: run 01-DataPreparation again")


def _draw(items: pd.Series, wanted: int, leave: int, generator: np.random.Generator) -> list[int]:
    """Groups at random, up to `wanted` items and all but `leave` groups; one too large for the rest is passed over."""
    drawn = []
    for group in generator.permutation(items.index.to_numpy(copy=True)):
        if items[group] <= wanted and len(drawn) < len(items) - leave:
            drawn.append(int(group))
            wanted -= items[group]
    return drawn


def _check_splits(photos: pd.DataFrame) -> None:
    counts = photos.groupby(["label", "split"])["item"].nunique().unstack(fill_value=0)
    counts = counts.reindex(columns=SPLITS, fill_value=0)
    if len(counts) < 2:
        raise SplitError(
            f"{len(counts)} labels are left after the checks, at least 2 are needed: see the findings. Photos that "
            "cannot be read are left out. Where numbering starts again in each label, items appear under two labels "
            "and are all left out: give each a serial of its own"
        )
    short = counts[(counts == 0).any(axis=1)]
    if len(short):
        own = photos[photos["label"].isin(short.index)]
        enough = own.groupby("label")["item"].nunique() >= len(SPLITS)  # but for what looks the same
        alike = own.groupby("group")["item"].nunique().max()
        hint = f". {alike} of their items look the same: if they are different things, set group_look_alikes=False"
        few, remedy = "3 items", "add photos"
        if own["annotated"].any():  # which are all tested
            few, remedy = "3 items, 2 of them without boxes", "add photos, remove the .xml of some items"
        raise SplitError(
            f"Too few usable items when look-alikes stay in one split:\n{short.to_string()}\n"
            f"Every label needs at least {few}: {remedy}, or leave the label out"
            + (hint if enough.any() and alike > 1 else "")
        )


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
    boxes = [[name, *np.round(np.array(box) * scale).astype(int).tolist()] for name, *box in row.boxes]
    return encode(image), image.size, boxes
