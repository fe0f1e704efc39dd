"""Where attribution falls: inside the damage boxes, on the carton, on the belt. Arrays and tables only."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers import uncertainty

FIGURES = ("attribution", "against", "area", "photo_area", "pointed", "overlap")
_RATIOS = ("times", "times_against", "photo_times", "overlap")


def scale_boxes(catalog: pd.DataFrame, height: int, width: int) -> list[list[list]]:
    """For each image its boxes [name, xmin, ymin, xmax, ymax], in px of the image when it is `height` by `width`.

    catalog: columns boxes, width and height, as in the data set's catalog.
    """
    scaled = []
    for row in catalog.itertuples():
        across, down = width / row.width, height / row.height
        scaled.append([[name, x0 * across, y0 * down, x1 * across, y1 * down] for name, x0, y0, x1, y1 in row.boxes])
    return scaled


def box_masks(catalog: pd.DataFrame, height: int, width: int) -> np.ndarray:
    """(N, height, width) bool: the inside of each image's boxes; see `scale_boxes`."""
    masks = np.zeros((len(catalog), height, width), bool)
    for mask, boxes in zip(masks, scale_boxes(catalog, height, width), strict=True):
        for _, left, top, right, bottom in boxes:
            mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return masks


def shares(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,): which part of an image's positive attribution (N, H, W) falls inside its mask (N, H, W); 0 without any."""
    positive = maps.clip(min=0)
    total = positive.sum((1, 2))
    return (positive * masks).sum((1, 2)) / np.where(total > 0, total, 1)


def pointed(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the pixel that counts most lies inside the mask (N, H, W); where nothing counts it does not.

    Source: Zhang et al. (2018), Top-Down Neural Attention by Excitation Backprop (the pointing game), without the
    tolerance of 15 px around the box.
    """
    values = maps.reshape(len(maps), -1)
    first = values.argmax(1)
    return masks.reshape(len(maps), -1)[np.arange(len(maps)), first] & (values.max(1) > 0)


def ious(maps: np.ndarray, masks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(N,): intersection over union of the mask (N, H, W) and as many pixels as it has, those that count most.

    seen: (N, H, W) bool, the pixels that are asked: those that the network never saw count nothing, and would come
    before those that speak against the class. A pixel that counts nothing is no hit; 0 where none counts.
    """
    found = []
    for one, mask, visible in zip(maps, masks, seen, strict=True):
        values, inside = one[visible], mask[visible]
        top = np.argsort(values, kind="stable")[len(values) - inside.sum() :]
        hits = (inside & (values != 0))[top].sum() if (values > 0).any() else 0
        found.append(hits / max(2 * inside.sum() - hits, 1))
    return np.array(found)


def region_table(maps: np.ndarray, regions: dict[str, np.ndarray], seen: np.ndarray) -> pd.DataFrame:
    """For each image and region, how much of the attribution falls inside, beside the share of the area.

    maps: (N, H, W). regions: name to masks (N, H, W). seen: (N, H, W) bool, what of the photo the network saw; what a
    map has elsewhere (a coarse one at the rim, gradients of the color that hides) says nothing and is left out.
    Columns image (0 to N - 1), region, and FIGURES: `shares`, of what speaks for the class and of what speaks against
    it (NaN for methods without a sign); the region's share of what was seen (area), which an even
    look would give it, and of the whole photo (photo_area), both 0 to 1; `pointed` and `ious`. An image without
    such a region (no box) has no row; one whose region was not seen has, with an area of 0.
    """
    tables, maps = [], np.where(seen, maps, 0)
    for name, masks in regions.items():
        table = pd.DataFrame({"image": range(len(maps)), "region": name})
        area = (masks & seen).sum((1, 2)) / seen.sum((1, 2))
        both = shares(maps, masks), shares(-maps, masks) if (maps < 0).any() else np.nan
        figures = (*both, area, masks.mean((1, 2)), pointed(maps, masks), ious(maps, masks, seen))
        tables.append(table.assign(**dict(zip(FIGURES, figures, strict=True)))[masks.any((1, 2))])
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame, by: list[str], seed: int) -> pd.DataFrame:
    """Means over images for each group, with 95 % intervals: by bootstrap over groups, of the pointing game by Wilson.

    table: rows of `region_table` with the columns of `by`, and group, a number for all that shows one item or looks the
    same. Columns: by, images, attribution, area, times (chance: the share of the attribution over that of the area),
    times_against (the same of what speaks against the class), photo_times (of what speaks for it, over the region's
    share of the whole photo), pointed, overlap; and for the ratios, pointed and overlap their ends, as in "times low".
    """
    rows = []
    for names, part in table.groupby(by, sort=False):
        values = part[list(FIGURES)].to_numpy(float)

        def figures(chosen: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            attribution, against, area, photo_area, _, overlap = values[chosen].mean(0)
            seen = area or np.inf  # cut off: not seen, so not looked at
            return np.array([attribution / seen, against / seen, attribution / photo_area, overlap])

        found = figures(np.arange(len(part)))
        ends = uncertainty.bootstrap(figures, part["group"], seed)
        hits = uncertainty.wilson(part["pointed"].sum(), len(part), part["group"].nunique())
        row = dict(zip(by, names, strict=True)) | {"images": len(part)}
        row |= {"attribution": part["attribution"].mean(), "area": part["area"].mean()}
        row |= {"pointed": part["pointed"].mean(), "pointed low": hits.low, "pointed high": hits.high}
        for name, value, low, high in zip(_RATIOS, found, ends.low, ends.high, strict=True):
            row |= {name: value, f"{name} low": low, f"{name} high": high}
        rows.append(row)
    ends = [f"{name}{end}" for name in (*_RATIOS, "pointed") for end in ("", " low", " high")]
    return pd.DataFrame(rows, columns=[*by, "images", "attribution", "area", *ends])


def looked_at(summaries: pd.DataFrame, by: list[str]) -> pd.Series:
    """For each group the region that draws most attribution for its area: its name, or "nothing in particular".

    summaries: of `summary`, with region among its groups besides those of `by`. A region counts only where its whole
    interval lies above chance; "not known" where there is one item only, and so no interval.
    """
    shown = summaries[summaries["times low"] > 1]
    best = shown.loc[shown.groupby(by, sort=False)["times"].idxmax()].set_index(by)["region"]
    known = summaries.groupby(by, sort=False)["times low"].count() > 0
    without = known.map({True: "nothing in particular", False: "not known"})
    return best.reindex(known.index).fillna(without).rename("looks at")
