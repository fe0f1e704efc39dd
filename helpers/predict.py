"""From photos of one's own to answers, and from the answers for an item to an action.

As a command, for all photos of a folder or a zip, however many:
python -m helpers.predict transfer/models.zip photos/ --output decisions.csv
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers import cards, compute, crops, novelty, session, sources, uncertainty
from helpers.archives import ArchiveError, threaded
from helpers.cards import Model
from helpers.decisions import INSPECT, PASS, REJECT
from helpers.images import normalize, resize
from helpers.items import NOT_SURE, REPEATED, from_photos, item_and_view, of_several_items
from helpers.layouts import FUSED
from helpers.photos import PhotoError, decode, encode, shrink
from helpers.sources import Photo
from helpers.unrolling import renamed, unroll

NOT_FOUND = "no item is found (is the belt empty, the camera dark or moved?)"
NOT_ALONE = "several things lie there, of which the largest was looked at"
NO_BOX = "no box like those that the network learned from is found"
NO_NUMBER = "the network gives no number for it on this device: take --device cpu"
UNFAMILIAR = "unlike all that the network learned from (another product, another light, or the camera moved?)"
_BATCH_SIZE = 32


class Seen(NamedTuple):
    """A photo: its name, what the network sees of it, (3, H, W) uint8, and its view.

    problem: why it cannot be used, where pixels is None. remark: what is unusual about it.
    """

    name: str
    pixels: torch.Tensor | None
    problem: str
    remark: str = ""
    view: str = ""


def answers(model: Model, photos: Iterable[Photo], device: torch.device) -> pd.DataFrame:
    """One row a photo: name, answer, confidence, the calibrated probability of each class, remark and problem.

    photos: of `sources.photos`, taken as they come. The remark says that no item was found in the photo, or that it is
    unlike all that the network learned from. Then, and where the highest probability is below the card's threshold, the
    answer is NOT_SURE. What cannot be used has no answer, and its problem says why.
    """
    run = novelty.answering(model, device)
    seen = threaded(lambda photo: _seen(*photo, model.card), photos)
    tables = [_answered([], run, model.card, device)]
    while batch := list(islice(seen, _BATCH_SIZE)):
        tables.append(_answered(batch, run, model.card, device))
    return pd.concat(tables, ignore_index=True)


def _answered(batch: list[Seen], run: novelty.Run, card: dict, device: torch.device) -> pd.DataFrame:
    """A row for each, as `answers` says it. run: of `novelty.answering`."""
    classes = card["classes"]
    found = np.full((len(batch), len(classes)), np.nan)
    remarks, problems = (np.array([getattr(one, what) for one in batch], object) for what in ("remark", "problem"))
    usable = np.array([one.pixels is not None for one in batch], bool)
    if usable.any():
        images = torch.stack([one.pixels for one in batch if one.pixels is not None])
        views = [one.view for one in batch if one.pixels is not None]
        logits, unfamiliar = run(normalize(compute.to_device(images, device), **card["normalization"]), views)
        found[usable] = (logits / card["temperature"]).softmax(1).cpu()
        remarks[usable] = np.where((remarks[usable] == "") & unfamiliar, UNFAMILIAR, remarks[usable])
        problems[usable & np.isnan(found).any(1)] = NO_NUMBER
    confidence = found.max(1)
    called = np.array(classes, object)[np.nan_to_num(found).argmax(1)]
    sure = (confidence >= card["threshold"]) & (remarks == "")
    called = np.where(np.isnan(confidence), "", np.where(sure, called, NOT_SURE))
    table = pd.DataFrame({"name": [one.name for one in batch], "answer": called, "confidence": confidence})
    notes = pd.DataFrame({"remark": remarks, "problem": problems})
    return pd.concat([table, pd.DataFrame(found, columns=classes), notes], axis=1)


def _seen(name: str, data: bytes | ArchiveError, card: dict) -> Seen:
    height, width = card["input"]["height"], card["input"]["width"]
    view = item_and_view(name, set(card["views"]) - {""})[1]
    if isinstance(data, ArchiveError):
        return Seen(name, None, str(data))
    try:
        photo = decode(data, name)[0] if view in card["unrolled"] else _stored(name, data, card)
    except PhotoError as error:
        return Seen(name, None, str(error))
    background = card["backgrounds"].get(view)
    crop = crops.crop_of(photo, background, width / height) if background else None
    remark = ""
    if crop and not crop.outline:
        remark = NOT_FOUND
    elif crop and not crop.alone:
        remark = NOT_ALONE
    return Seen(name, resize(photo, height, width, crop), "", remark, view)


def _stored(name: str, data: bytes, card: dict) -> Image.Image:
    """The photo as those that the network learned from were stored. Raises PhotoError where it cannot be used."""
    photo, _ = decode(data, name)
    return shrink(photo, **card["stored"]) if card["stored"] else photo


def _with_unrolled(photos: Iterable[Photo], card: dict, views: set[str]) -> Iterator[Photo]:
    """The photos, and now and then what was unrolled of some of them, where these views are answered.

    Passed over is what only serves to be unrolled, and what is named like an unrolled view, in a data set: it is made
    anew.
    """
    unrollings = {one["view"]: one for view, one in card["unrolled"].items() if view in views}
    left_out = set(card["unrolled"]) | (set(unrollings) - views)

    def told(photo: Photo) -> tuple[Photo, str, Image.Image | None]:
        view = item_and_view(photo[0], views | left_out)[1]
        if view not in unrollings or isinstance(photo[1], ArchiveError):
            return photo, view, None
        try:
            return photo, view, _stored(*photo, card)
        except PhotoError:  # it says so itself
            return photo, view, None

    seen = threaded(told, photos) if unrollings else map(told, photos)
    while batch := list(islice(seen, _BATCH_SIZE)):
        yield from (photo for photo, view, _ in batch if view not in left_out)
        for view, unrolling in unrollings.items():
            own = {photo[0]: picture for photo, its_view, picture in batch if its_view == view and picture}
            for name, made in zip(own, unroll(list(own.values()), unrolling), strict=True):
                yield renamed(name, view), encode(made) if made else ArchiveError(NO_BOX)


def decide(members: dict[str, Model], photos: Iterable[Photo], device: torch.device) -> pd.DataFrame:
    """One row an item: item, photos, answer, confidence, the fused probability of each class, action, remark, problem.

    members: one network for all views, or a specialist for each, as `cards.chosen` gives them. photos: of
    `sources.photos`, taken as they come. `4006381008505_side.jpg`, or `4006381008505.jpg` in a folder `side`, is the
    side view of that item; where the networks know no views, each photo is an item. The action is that of the card's
    decision, "" without one. To be inspected, with a remark that says why, is an item of which a view is missing,
    cannot be read, is there twice, shows no item, or is unlike all that the network learned from; and one whose photos
    lie in several folders, those named after their views aside: a counter that starts anew gives one serial to two.
    So are items of which a photo shows several things, or exactly what that of another item shows.
    What the card unrolls is a view as any other, made from the photo (`unrolling.unroll`).
    An item without a usable photo has a row with the problem, to be inspected, and so has a file that is no photo or
    whose view nobody knows, under its own name.
    Raises ValueError where two of the networks would answer the same photo, or were never tested together.
    """
    if len(kinds := {model.card["architecture"] for model in members.values()}) > 1:
        raise ValueError(f"{' and '.join(sorted(kinds))} were never tested together: choose one of them (--network)")
    by_view = {view: key for key, model in members.items() for view in model.card["views"]}
    if len(by_view) < sum(len(model.card["views"]) for model in members.values()):
        raise ValueError(f"{', '.join(members)} answer the same photos: choose one of them (--network)")
    views, first = set(by_view) - {""}, next(iter(members))
    card = members[first].card
    taken = {card["unrolled"][view]["view"] if view in card["unrolled"] else view for view in views}
    known = " or ".join(f"serial_{view}" for view in sorted(taken))
    unknown = f"its view is not known: name it {known}, or put it into a folder named after the view"
    runs = {key: novelty.answering(model, device) for key, model in members.items()}

    def see(photo: Photo) -> tuple[str, Seen]:
        name, data = photo
        key = by_view.get(item_and_view(name, views)[1])
        problem = str(data) if isinstance(data, ArchiveError) else unknown
        return (key, _seen(name, data, members[key].card)) if key else (first, Seen(name, None, problem))

    waiting: dict[str, list[Seen]] = {key: [] for key in members}
    tables, showing = [], defaultdict(list)
    for key, seen in threaded(see, _with_unrolled(photos, card, views)):
        if seen.pixels is not None and seen.view not in card["unrolled"] and card.get("decision"):
            showing[hashlib.blake2b(seen.pixels.numpy().tobytes(), digest_size=16).digest()].append(seen.name)
        waiting[key].append(seen)
        if len(waiting[key]) == _BATCH_SIZE:
            tables.append(_answered(waiting[key], runs[key], members[key].card, device))
            waiting[key] = []
    tables += [_answered(rest, runs[key], members[key].card, device) for key, rest in waiting.items()]
    table = pd.concat(tables, ignore_index=True)
    repeated = table["name"].isin(of_several_items(showing.values(), views)) & (table["remark"] == "")
    table.loc[repeated, "remark"] = REPEATED
    return from_photos(table, views, card)


def main() -> None:
    """Answer all photos, write the table whole or not at all, and say how fast it was and what could not be used."""
    parser = argparse.ArgumentParser(prog="helpers.predict", description=__doc__)
    parser.add_argument("models_archive", type=Path, help="what 02-ModelTraining wrote, or 04 to 06")
    parser.add_argument("photos", help="a photo, a folder or a zip, from the current folder, or an http(s) address")
    parser.add_argument("--output", type=Path, default=Path("decisions.csv"), help="where the table goes")
    parser.add_argument("--network", nargs="*", default=[], help="names in the archive; the chosen one, if not given")
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", "mps"')
    wanted = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a log may not know all letters of a file's name
    try:
        with compute.enough_memory("give --device cpu"):
            _answer_all(wanted)
    except (ValueError, OSError, MemoryError) as error:  # what a user can mend, in one sentence
        sys.exit(f"helpers.predict: {error}")


def _answer_all(wanted: argparse.Namespace) -> None:
    compute.keep_memory()
    output = session.output(wanted.output.resolve(), wanted.models_archive, Path(wanted.photos))
    where = _from_here(wanted.photos)
    models = cards.load_models(wanted.models_archive, wanted.network)
    members = models if wanted.network else cards.chosen(models)
    started = time.perf_counter()
    photos = (one for one in sources.photos(where) if os.path.realpath(Path(where, one[0])) != str(output))
    table = decide(members, photos, session.pick_device(wanted.device))
    seconds = time.perf_counter() - started
    if table.empty:
        raise ValueError(f"{where} holds no photo: nothing was written")
    session.write_table(output, table)
    try:
        print(f"Photos: {_printable(where)}")
        _tell(table, seconds, members)
        print(f"Written: {wanted.output}", flush=True)
    except BrokenPipeError:  # who read along is gone; the table is there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not table["photos"].any():
        raise ValueError(f"no photo could be used: {wanted.output} says why")


def _from_here(photos: str) -> str:
    """An address as it is; a path as an absolute one, from the current folder and never, as in notebooks, another.

    Raises FileNotFoundError where nothing is there, ParameterError for an empty path and for "~" of nobody.
    """
    if sources.is_address(photos):
        return photos
    session.resolve(photos)  # refuses what is no path
    return sources.locate(str(Path(photos).expanduser().resolve()))


def _tell(table: pd.DataFrame, seconds: float, members: dict[str, Model]) -> None:
    """Print what became of the items of `decide`, the ones that a person has to look at by name."""
    failed, remarks = table[table["problem"] != ""], table[table["remark"] != ""]
    used, decided = int(table["photos"].sum()), next(iter(members.values())).card.get("decision")
    print(f"{used} photos of {len(table) - len(failed)} items in {seconds:.1f} s: {used / seconds:.1f} images a second")
    if tested := _tested(members):
        print(tested)
    if decided and "test" in decided:
        print(_missed(decided))
    for row in failed.itertuples():
        print(f"{'Inspect' if decided else 'No answer for'} {_printable(row.item)}: {_printable(row.problem)}")
    for row in remarks.itertuples():
        print(f"Look at {_printable(row.item)}: {_printable(row.remark)}")
    if decided:
        counts = table["action"].value_counts()
        print("Actions: " + ", ".join(f"{counts.get(action, 0)} {action}" for action in (PASS, INSPECT, REJECT)))
    else:
        unsure = int((table["answer"] == NOT_SURE).sum())
        print(f"Answers: {len(table) - len(failed) - unsure} sure, {unsure} {NOT_SURE}, {len(failed)} without one")
        print("No actions: this network has no decision by cost, which 02-ModelTraining makes for a defect")


def _tested(members: dict[str, Model]) -> str:
    """How the network did in its notebook's test, as the card says it; "" where it does not."""
    known = [model.card for model in members.values()]
    metrics = known[0].get("metrics") or []
    rows = metrics if isinstance(metrics, list) else [metrics]  # 02 has one for each view, 04 to 06 have one
    views = sorted({view for card in known for view in card["views"]})
    view = views[0] if len(views) == 1 else FUSED
    names = ["tested", "accuracy", "accuracy low", "accuracy high", "recall low"]
    found = [[row.get(name) for name in names] for row in rows if row.get("view", view) == view]
    if not found or None in found[0]:
        return ""
    tested, accuracy, low, high, recall_low = found[0]
    shown = recall_low > 1 / len(known[0]["classes"])  # the mean class recall of guesses
    doubt = "" if shown else ": it was not shown to be better than guessing"
    return f"In its test, {tested:.0f} answers: accuracy {accuracy:.2f} ({uncertainty.Interval(low, high)}){doubt}"


def _missed(decided: dict) -> str:
    """How many items with the defect the decision passed in its notebook's test, and what that says of others."""
    defect, known, missed = decided["defect"], decided["test"]["known"], decided["test"]["missed"]
    different = decided["test"].get("different", known)  # which older cards lack
    if not known:
        return f"In its test, no {defect} items: what share of them it passes is not known"
    ends = uncertainty.wilson(missed, known, different)
    return f"In its test, {known} {defect} items: {missed} passed ({ends} of such items)"


def _printable(name: str) -> str:
    """The name without control characters, by which a file's name could forge a line of a log."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


if __name__ == "__main__":
    main()
