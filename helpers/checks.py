"""Look at every photo once: what is unusable, unusual, or there twice, and which photos belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import defusedxml.ElementTree
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from helpers.archives import Archive, ArchiveError, threaded
from helpers.photos import MAX_BYTES, PhotoError, decode

LEFT_OUT, CORRECTED, KEPT, GROUPED = "left out", "corrected", "kept", "kept in one split"
_THUMB_PX = 16
_NEAR_MAX, _NEAR_RMS = 0.35, 0.10  # of a thumbnail's own contrast; unrelated photos of one fixed camera differ by > 0.7
_NEAR_COARSE = 0.175  # of the mean of any sixteenth of the photo
_MOST_PAIRS = 10_000_000  # of candidates, which are held in memory
_LEAF = 64  # thumbnails that a leaf of the tree holds: few pairs are near, and larger leaves find them sooner
_FLAT_CONTRAST = 4.0  # gray levels: below it a picture is a plain surface, and its noise must not be blown up


class _Look(NamedTuple):
    width: int
    height: int
    raw_sha256: str
    thumb: np.ndarray | None  # (16 * 16,), zero mean, unit contrast; None where the photo cannot be used
    boxes: list[list]
    findings: list[tuple[str, str]]  # (problem, action)


def check_photos(
    archive: Archive,
    photos: pd.DataFrame,
    progress: Callable[[Iterable], Iterable] = iter,
    *,
    group_look_alikes: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos that can be used, and all findings (source, problem, action).

    photos: the table of `layouts.read_layout`. The first table returned has besides: width and height in px,
    raw_sha256, boxes ([name, xmin, ymin, xmax, ymax] in px of the upright photo), annotated, which says whether there
    are any, and group: a number shared by all that must stand in one split, being one item or near duplicates of each
    other.
    progress: wraps the list of photos, to show how far it is. group_look_alikes: False where photos of
    different things look the same, as those of parts that lie alike under a fixed camera; then items alone group.
    Raises ValueError where too many photos look alike to be compared.
    """
    rows = list(photos.itertuples(index=False))
    looks = list(threaded(lambda row: _look(archive, row), progress(rows)))
    findings = [
        (row.source, problem, action)
        for row, look in zip(rows, looks, strict=True)
        for problem, action in look.findings
    ]
    usable = np.array([look.thumb is not None for look in looks], bool)
    looks = [look for look in looks if look.thumb is not None]
    table = photos[usable].reset_index(drop=True)
    for column in ("width", "height", "raw_sha256", "boxes"):
        table[column] = pd.Series([getattr(look, column) for look in looks], dtype=object)
    table = table.drop(columns="annotation").assign(annotated=table["boxes"].map(bool))
    thumbs = np.array([look.thumb for look in looks] if group_look_alikes else [])
    keep, group, duplicates = _group(table, thumbs)
    table = table.assign(group=group)[keep].reset_index(drop=True)
    return table, pd.DataFrame(findings + duplicates, columns=["source", "problem", "action"])


def read_boxes(data: bytes, width: int, height: int) -> list[list]:
    """[name, xmin, ymin, xmax, ymax] in px of a width x height photo, from a Pascal VOC file.

    Boxes drawn on a smaller or larger copy of the photo are scaled, and clipped to the photo.
    Raises ValueError where the file is no VOC annotation, or belongs to a photo of other proportions.
    """
    try:
        root = defusedxml.ElementTree.fromstring(data)
        if root.tag != "annotation":
            raise ValueError(f"it holds <{root.tag}>")
        sizes = [int(root.findtext(f"size/{side}") or 0) for side in ("width", "height")]
        corners = ("xmin", "ymin", "xmax", "ymax")
        found = [
            (thing.findtext("name") or "", [float(thing.findtext(f"bndbox/{corner}")) for corner in corners])
            for thing in root.iter("object")
        ]
        if not np.isfinite([box for _, box in found]).all():
            raise ValueError("a corner is not a finite number")
    except (defusedxml.ElementTree.ParseError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"not a Pascal VOC annotation ({error})") from error
    declared_width, declared_height = sizes if all(sizes) else (width, height)
    if 50 * abs(declared_width * height - width * declared_height) > width * declared_height:  # whole: no overflow
        raise ValueError(f"made for a photo of {declared_width} x {declared_height} px, this one is {width} x {height}")
    scale = np.array([width / declared_width, height / declared_height] * 2)
    limits = np.array([width, height] * 2)
    boxes = [[name, *(np.array(box) * scale).clip(0, limits).round().astype(int).tolist()] for name, box in found]
    return [box for box in boxes if box[3] > box[1] and box[4] > box[2]]


def _look(archive: Archive, row: NamedTuple) -> _Look:
    try:
        data = archive.read(row.source, MAX_BYTES)
        image, notes = decode(data, row.source)
    except (PhotoError, ArchiveError) as error:
        return _Look(0, 0, "", None, [], [(str(error), LEFT_OUT)])
    findings = [(note, CORRECTED) for note in notes]
    boxes = []
    if row.annotation:
        try:
            boxes = read_boxes(archive.read(row.annotation), image.width, image.height)
        except ValueError as error:
            findings.append((f"boxes not used: {error}", KEPT))
    return _Look(image.width, image.height, hashlib.sha256(data).hexdigest(), _thumb(image), boxes, findings)


def _thumb(image: Image.Image) -> np.ndarray:
    small = image.convert("L").resize((_THUMB_PX, _THUMB_PX), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values -= values.mean()
    return values / max(values.std(), _FLAT_CONTRAST)


def _group(table: pd.DataFrame, thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, str]]]:
    """keep (N,) bool, group (N,) int, and findings."""
    keep, tied, findings = _left_out(table)
    sources, items = table["source"].to_numpy(), pd.factorize(table["item"])[0]
    tied += [members for members in pd.DataFrame({"item": items}).groupby("item").indices.values() if len(members) > 1]
    links = [np.stack([members[:-1], members[1:]], 1) for members in tied]
    again = table[keep & (table["view"] != "")].groupby(["item", "view"])["source"].transform("size")
    for row, count in again[again > 1].items():
        findings.append((sources[row], f"{count} photos of this view of its item: is its serial used twice?", KEPT))
    findings += _without_a_view(table[keep & (table["view"] != "")])
    near = _near_duplicates(thumbs)
    near = near[items[near[:, 0]] != items[near[:, 1]]]
    shown = near[keep[near].all(1)]
    labels = pd.factorize(table["label"])[0]
    contradicted_first = shown[np.argsort(labels[shown[:, 0]] == labels[shown[:, 1]], kind="stable")]
    for first in np.unique(contradicted_first[:, 1], return_index=True)[1]:  # each photo once, however many are like it
        a, b = contradicted_first[first]
        findings.append((sources[b], f"looks the same as {sources[a]}{_labels_differ(table, a, b)}", GROUPED))
    pairs = np.concatenate([*links, near])
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(table), len(table)))
    return keep, connected_components(graph, directed=False)[1], findings


def _left_out(table: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray], list[tuple[str, str, str]]]:
    """keep (N,) bool, the rows of each photo that is there more than once, and findings."""
    keep, tied, findings = np.ones(len(table), bool), [], []
    sources = table["source"].to_numpy()
    torn = table.groupby("item")["label"].transform("nunique") > 1
    for source in sources[torn]:
        findings.append((source, "its item appears under two labels", LEFT_OUT))
    keep[torn] = False
    whole = table[~torn]
    for _, same in whole[whole["raw_sha256"].duplicated(keep=False)].groupby("raw_sha256"):
        first, *copies = same.sort_values("annotated", ascending=False, kind="stable").index
        if same["label"].nunique() > 1:
            reason, left = "the same photo appears under two labels: " + ", ".join(sources[same.index]), same.index
        else:
            reason, left = f"the same photo as {sources[first]}", copies
        findings += [(sources[index], reason, LEFT_OUT) for index in left]
        keep[left] = False
        tied.append(same.index.to_numpy())  # a copy that is left out still ties its item
    return keep, tied, findings


def _without_a_view(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Findings on items that were not seen in all views, each at its first photo."""
    seen, views = table.groupby("item", sort=False)["view"].agg(set), set(table["view"])
    first = table.drop_duplicates("item").set_index("item")["source"]
    missing = {item: ", ".join(sorted(views - own)) for item, own in seen.items() if own != views}
    return [(first[item], f"no usable photo of its item in the view {names}", KEPT) for item, names in missing.items()]


def _labels_differ(table: pd.DataFrame, a: int, b: int) -> str:
    first, second = table["label"][a], table["label"][b]
    return "" if first == second else f", but one is {first!r} and one {second!r}: look at them"


def _near_duplicates(thumbs: np.ndarray) -> np.ndarray:
    """(P, 2): index pairs (a < b), in order, of photos alike in every part: copies encoded, resized or lit anew.

    thumbs: (N, 256). All means of 4 x 4 pixels must be near, found by a k-d tree in about N log N, then all pixels.
    Raises ValueError where there are more candidates than memory should hold: then it is the camera that is alike.
    """
    if len(thumbs) < 2:
        return np.empty((0, 2), int)
    coarse = thumbs.reshape(-1, 4, _THUMB_PX // 4, 4, _THUMB_PX // 4).mean((2, 4)).reshape(len(thumbs), -1)
    tree, reach = KDTree(coarse, leafsize=_LEAF), {"r": _NEAR_COARSE, "p": np.inf}
    some = coarse[:: len(coarse) // 1000 + 1]
    about = (tree.query_ball_point(some, **reach, return_length=True) - 1).mean() * len(coarse) / 2
    if about > _MOST_PAIRS:
        raise ValueError(
            f"About {about:,.0f} pairs of {len(thumbs):,} photos look the same at a glance, as different things under "
            "a fixed camera may: set group_look_alikes=False"
        )
    pairs = tree.query_pairs(**reach, output_type="ndarray")
    alike = []
    for part in np.array_split(pairs, len(pairs) // 100_000 + 1):  # bounded memory
        difference = np.abs(thumbs[part[:, 0]] - thumbs[part[:, 1]])
        alike.append(part[(difference.max(1) <= _NEAR_MAX) & (np.sqrt((difference**2).mean(1)) <= _NEAR_RMS)])
    found = np.concatenate(alike)
    return found[np.lexsort((found[:, 1], found[:, 0]))]
