"""From the answers for photos to those for items: which photos show one item, what is odd about it, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

import pandas as pd

from helpers.decisions import INSPECT, Decision, actions
from helpers.fusing import fuse_views
from helpers.layouts import composed
from helpers.photos import EXTENSIONS

NOT_SURE = "not sure"
REPEATED = "the same picture as that of another item (does the camera hang?)"
APART = "its photos lie in several folders (one serial given twice?)"


def item_and_view(name: str, views: set[str]) -> tuple[str, str]:
    """The item and the view that a photo's name says, in capitals or not.

    The name itself and "" where it says none, has no serial before the view, or is not that of a photo.
    """
    path = PurePosixPath(composed(name))
    if path.suffix and path.suffix.lower() not in EXTENSIONS:
        return name, ""
    for view in sorted(views, key=len, reverse=True):  # left_side before side
        if path.stem.lower().endswith(f"_{view}".lower()):
            serial = path.stem[: -len(view) - 1]
            return (serial, view) if serial.strip() else (name, "")
    folder = next((view for view in views if view.lower() == path.parent.name.lower()), "")
    return (path.stem, folder) if folder else (name, "")


def of_several_items(pictures: Iterable[list[str]], views: set[str]) -> set[str]:
    """The names of photos that show exactly what a photo of another item shows.

    pictures: for each picture the names of all photos that show it. views: those that the networks know.
    """
    return {name for names in pictures if len({item_and_view(name, views)[0] for name in names}) > 1 for name in names}


def from_photos(answered: pd.DataFrame, views: set[str], card: dict) -> pd.DataFrame:
    """One row an item, with its action, as `predict.decide` says it.

    answered: of `predict.answers`. views: those that the networks know. card: of one of them.
    """
    classes, decision = card["classes"], card.get("decision")
    columns = ["item", "photos", "answer", "confidence", *classes, "action", "remark", "problem"]
    told = [item_and_view(name, views) for name in answered["name"]]
    answered = answered.assign(item=[item for item, _ in told], view=[view for _, view in told], label="")
    usable = answered[answered["problem"] == ""]
    seen = answered["item"].isin(usable["item"])
    unseen = _unseen(answered[~seen]).reindex(columns=columns)
    unseen["action"] = INSPECT if decision else ""
    if usable.empty:
        return unseen
    items = fuse_views(usable.assign(group=usable["item"]), classes, card["fusing"])
    made = {view for view, one in card["unrolled"].items() if one["view"] in views}
    taken = usable[~usable["view"].isin(made)]  # what was made from them is no further photo
    items["photos"] = taken.groupby("item").size().reindex(items["item"], fill_value=0).to_numpy()
    apart = _apart(answered[seen])
    odd = items["item"].isin(apart | set(usable.loc[usable["remark"] != "", "item"]))
    items["answer"] = items["predicted"].where((items["confidence"] >= card["threshold"]) & ~odd, NOT_SURE)
    items["action"], items["problem"] = "", ""
    remarks = _remarks(answered[seen], views.union(decision["views"] if decision else []), apart)
    items["remark"] = [remarks.get(item, "") for item in items["item"]]
    if decision:
        way = Decision(decision["pass_below"], decision["reject_from"])
        items["action"] = actions(items[decision["defect"]].to_numpy(), way)
        items["action"] = items["action"].where(items["remark"] == "", INSPECT)  # it was made for whole items
    return pd.concat([items[columns], unseen], ignore_index=True)


def _folder(name: str, view: str) -> tuple[str, ...]:
    """The folders that a photo lies in, without one that is named after its view."""
    return tuple(part for part in PurePosixPath(composed(name)).parts[:-1] if part.lower() != view.lower())


def _unseen(failed: pd.DataFrame) -> pd.DataFrame:
    """From photos that cannot be used to one row an item, with what is wrong with each."""
    problems = [f"{row.view}: {row.problem}" if row.view else row.problem for row in failed.itertuples()]
    rows = failed.assign(problem=problems).groupby("item", sort=False)["problem"].agg("; ".join)
    return rows.reset_index().assign(photos=0, answer="", remark="")


def _apart(photos: pd.DataFrame) -> set[str]:
    """The items whose photos lie in several folders, and may show several things of one serial."""
    folders = zip(photos["item"], map(_folder, photos["name"], photos["view"]), strict=True)
    counts = Counter(item for item, _ in set(folders))
    return {item for item, count in counts.items() if count > 1}


def _remarks(photos: pd.DataFrame, views: set[str], apart: set[str]) -> dict[str, str]:
    """By item: which views are missing, there twice or unreadable, and what else is odd. Others are left out."""
    counts = photos.groupby(["item", "view"]).size().unstack(fill_value=0).reindex(columns=sorted(views), fill_value=0)
    odd = counts[(counts != 1).any(axis=1)]
    remarks: dict[str, list[str]] = {}
    for item, row in odd.iterrows():
        unusual = ((view, count) for view, count in row.items() if count != 1)
        remarks[item] = [f"{count} photos of {view}" if count else f"{view} is missing" for view, count in unusual]
    for row in photos[photos["problem"] != ""].itertuples():
        remarks.setdefault(row.item, []).append(f"{row.view} cannot be read: {row.problem}")
    for item in apart:
        remarks.setdefault(item, []).append(APART)
    for row in photos[photos["remark"] != ""].itertuples():
        remarks.setdefault(row.item, []).append(f"{row.view}: {row.remark}" if row.view else row.remark)
    return {item: ", ".join(said) for item, said in remarks.items()}
