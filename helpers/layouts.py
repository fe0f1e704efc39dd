"""From file names to a table: which label, view, item and split each photo has, read off the folders alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from helpers.photos import EXTENSIONS

SPLITS = ("train", "validation", "test")
FUSED = "fused"  # the view of an item's answer, from the answers for its views
EXPECTED = """Expected one of, at any depth and under any leading folders:
  label/view/serial_view.ext    as in damaged/side/0185973818825_side.jpg (the views of one item share its serial)
  label/name.ext                as in glass/glass12.jpg (one folder for each class)
either of them also below train/, val/ and test/. Pascal VOC boxes may stand beside a photo, as name.xml."""
_SPLIT_FOLDERS = dict.fromkeys(("train", "training"), "train")
_SPLIT_FOLDERS |= dict.fromkeys(("val", "valid", "validation"), "validation")
_SPLIT_FOLDERS |= dict.fromkeys(("test", "testing"), "test")
_COLUMNS = {"path", "item", "view", "label", "predicted", "confidence", "network", "repeat", "fold", "name", "answer"}
_COLUMNS |= {"problem", "photos", "action", "remark", "image", "map", "boxes", "window"}
_COLUMNS |= {"suggested", "probability", "margin", "group", "unfamiliar", "in box"}
_NO_LABELS = _COLUMNS | {"not sure"}  # the answer where no label is sure


class LayoutError(ValueError):
    """Folders that no known layout explains; the message shows what was found and what is expected."""


class _Photo(NamedTuple):
    source: str
    folders: tuple[str, ...]  # without those that name a split or the annotated part
    stem: str
    split: str


def read_layout(names: Iterable[str]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """One row a photo (source, label, view, item, split, annotation), and (name, reason) of what fits nowhere.

    names: relative POSIX paths of all files. view is empty where the set has none; split where it is not divided;
    annotation where no .xml stands beside the photo. An item is the serial, or the photo's own path.
    Raises LayoutError where no known layout explains the folders.
    """
    names = sorted(names)
    odd = [name for name in names if not _is_plain(name)]
    names = [name for name in names if _is_plain(name)]
    photos = [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    if not photos:
        raise LayoutError(_unknown(names, f"no file is a photo ({', '.join(EXTENSIONS)})"))
    annotations = {composed(name[: -len(".xml")]): name for name in names if name.lower().endswith(".xml")}
    stems = {composed(_stem(name)) for name in photos}
    others = set(names) - set(photos) - {name for stem, name in annotations.items() if stem in stems}
    lonely = "no photo of that name stands beside it: put it beside its photo"
    unknown = "neither a photo, by its extension, nor boxes: save it as JPEG or PNG, if it is a photo"
    boxes = set(annotations.values())
    misfits = [(name, lonely if name in boxes else unknown) for name in sorted(others)]
    misfits += [(ascii(name), "its name is not in UTF-8, or holds control characters: rename it") for name in odd]

    divided = _is_divided(photos)
    parsed = [_parse(name, divided=divided) for name in photos]
    if divided:
        _check_splits(photos)
        why = "stands in none of train, val and test, which are there: put it into one"
        misfits += [(photo.source, why) for photo in parsed if _is_in_no_split(photo)]
        parsed = [photo for photo in parsed if not _is_in_no_split(photo)]
    rows, misplaced = _read_views(parsed) or _read_classes(parsed)
    table = pd.DataFrame(rows, columns=["source", "label", "view", "item", "split"])
    if table["label"].nunique() < 2:
        aside = "".join(f", and {name} {why}" for name, why in misplaced[:1])
        few = f"found {table['label'].nunique()} label folder(s), at least 2 are needed{aside}"
        raise LayoutError(_unknown(names, few))
    check_names(table["label"], table["view"])
    table["annotation"] = [annotations.get(composed(_stem(name)), "") for name in table["source"]]
    return table, misfits + misplaced


def check_names(labels: Iterable[str], views: Iterable[str]) -> None:
    """Raise LayoutError for a label with the name of a column or an answer of the tables, which have it for their own.

    Likewise for views called "fused", as the common answer is, or with a : or \\ in the name, and for labels that
    differ only in capitals or blanks: a decision about one of them would let the other pass.
    """
    if taken := sorted(_NO_LABELS & set(labels)):
        raise LayoutError(
            f"No label can be called {' or '.join(map(repr, taken))}, which means something else in tables: rename it"
        )
    by_letters = {" ".join(label.split()).casefold(): label for label in labels}
    if twice := sorted(set(labels) - set(by_letters.values())):
        other = by_letters[" ".join(twice[0].split()).casefold()]
        raise LayoutError(f"{twice[0]!r} and {other!r} differ only in capitals or blanks: give these labels one name")
    if FUSED in set(views):
        raise LayoutError(f"No view can be called {FUSED!r}, as the answer of all views is: rename it")
    if odd := sorted(view for view in set(views) if set(view) & set(":\\")):
        raise LayoutError(f"No view can be called {' or '.join(map(repr, odd))}: rename it, without : and \\")


def _read_views(photos: list[_Photo]) -> tuple[list[tuple], list[tuple[str, str]]] | None:
    """label/view/serial_view, or None where most photos are not named so."""
    fits = [photo for photo in photos if _has_view(photo)]
    labels = {photo.folders[-2] for photo in fits}
    if len(fits) <= len(photos) / 2 or len(labels) < 2:
        return None
    spelling = {photo.folders[-1].lower(): photo.folders[-1] for photo in fits}  # Side and side are one view
    rows = []
    for photo in fits:
        label, view = photo.folders[-2:]
        rows.append((photo.source, label, spelling[view.lower()], photo.stem[: -len(view) - 1], photo.split))
    return rows, [(photo.source, _misfit(photo, spelling)) for photo in photos if not _has_view(photo)]


def _misfit(photo: _Photo, views: dict[str, str]) -> str:
    """Why a photo has no view, among others that have one of these, by their names in small letters."""
    if len(photo.folders) < 2:
        return "stands in no folder view below a folder label"
    folder = photo.folders[-1]
    named = next((views[view] for view in sorted(views) if photo.stem.lower().endswith(f"_{view}")), folder)
    if named.lower() != folder.lower():
        return f"named as a photo of {named}, but stands in the folder {folder!r}: put it into label/{named}"
    return f"not named serial_{folder}" if folder.lower() in views else "not named serial_view in a folder view"


def _read_classes(photos: list[_Photo]) -> tuple[list[tuple], list[tuple[str, str]]]:
    """label/name: the folder a photo stands in is its class."""
    fits = [photo for photo in photos if photo.folders]
    _check_classes(fits, photos)
    paths = [PurePosixPath(composed(_stem(photo.source))) for photo in fits]
    prefix = _common_prefix([path.parts[:-1] for path in paths])
    rows = [
        (photo.source, photo.folders[-1], "", "/".join(path.parts[prefix:]), photo.split)
        for photo, path in zip(fits, paths, strict=True)
    ]
    return rows, [(photo.source, _no_class(photo.source)) for photo in photos if not photo.folders]


def _no_class(source: str) -> str:
    why = "stands in no class folder"
    aside = "annotated" in source.lower().split("/")
    return f"{why}: 'annotated' is none, it holds photos with boxes; give a class another name" if aside else why


def _check_classes(fits: list[_Photo], photos: list[_Photo]) -> None:
    """Classes stand side by side. Other folders may be views, days, or parts of a class: we do not guess."""
    names = [photo.source for photo in photos]
    if not fits:
        raise LayoutError(_unknown(names, "no photo stands in a class folder"))
    folders = sorted({photo.folders for photo in fits})
    by_depth = sorted(folders, key=len)
    for one, other in [*pairwise(folders), *pairwise(by_depth)]:
        within = other[: len(one)] == one
        if within or (len(one) == len(other) and one[:-1] != other[:-1]):
            found = " and in ".join(repr("/".join(parts)) for parts in (one, other))
            reason = f"photos lie in {found}, which do not stand side by side: which are the classes?"
            last, count = Counter(parts[-1] for parts in folders).most_common(1)[0]
            hint = f" If {last!r} is a view, name its photos serial_{last}" if count > 1 else ""
            raise LayoutError(_unknown(names, f"{reason}{hint}"))


def _parse(name: str, *, divided: bool) -> _Photo:
    path = PurePosixPath(composed(name))
    splits = [_SPLIT_FOLDERS[part.lower()] for part in path.parts[:-1] if part.lower() in _SPLIT_FOLDERS]
    aside = {"annotated"} | (set(_SPLIT_FOLDERS) if divided else set())
    folders = tuple(part for part in path.parts[:-1] if part.lower() not in aside)
    return _Photo(name, folders, path.stem, splits[-1] if divided and splits else "")


def _check_splits(names: list[str]) -> None:
    """Raise LayoutError where a class of a divided set is called like a split: it would be taken for one."""
    for name in names:
        folders = [part.lower() for part in PurePosixPath(name).parts[:-1]]
        found = {_SPLIT_FOLDERS[folder] for folder in folders if folder in _SPLIT_FOLDERS}
        if len(found) > 1 and folders[-1] in _SPLIT_FOLDERS:
            remedy = f"give the class {folders[-1]!r} another name"
            raise LayoutError(_unknown(names, f"{name!r} stands in two splits: {remedy}"))


def _is_divided(names: list[str]) -> bool:
    """A folder "test" alone may be a class; beside a "train" it is a split."""
    folders = {part.lower() for name in names for part in PurePosixPath(name).parts[:-1]}
    found = {_SPLIT_FOLDERS[folder] for folder in folders & set(_SPLIT_FOLDERS)}
    return "train" in found and len(found) > 1


def _has_view(photo: _Photo) -> bool:
    """Whether it is named serial_view in a folder view, in capitals or not."""
    ending = f"_{photo.folders[-1]}".lower() if len(photo.folders) >= 2 else ""
    return bool(ending) and photo.stem.lower().endswith(ending) and len(photo.stem) > len(ending)


def _is_in_no_split(photo: _Photo) -> bool:
    """Photos with boxes may stand in a folder of their own, for they are all tested."""
    if photo.split or not photo.folders:
        return False
    return all(part.lower() != "annotated" for part in PurePosixPath(photo.source).parts)


def _common_prefix(folders: list[tuple[str, ...]]) -> int:
    """How many leading folders all paths share, the class folder itself not counted."""
    shared = 0
    for parts in zip(*(path[:-1] for path in folders), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return shared


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def composed(name: str) -> str:
    """The name with each accented letter as one character, as keyboards give it; a Mac's file names have two."""
    return unicodedata.normalize("NFC", name)


def _is_plain(name: str) -> bool:
    """No control characters, nor halves of surrogate pairs, as which Python keeps bytes that mean nothing in UTF-8."""
    return not any(character < " " or "\ud800" <= character <= "\udfff" for character in name)


def _unknown(names: list[str], reason: str) -> str:
    """What was found, folder by folder with an example, and what is expected."""
    counts = Counter(str(PurePosixPath(name).parent) for name in names)
    examples = {str(PurePosixPath(name).parent): PurePosixPath(name).name for name in reversed(names)}
    lines = [f"  {folder}/{examples[folder]}  ({count} files)" for folder, count in counts.most_common(8)]
    more = f"\n  ... and {len(counts) - 8} more folders" if len(counts) > 8 else ""
    found = "\n".join(lines) if lines else "  no file at all"
    return f"Unknown layout: {reason}.\nFound:\n{found}{more}\n{EXPECTED}"
