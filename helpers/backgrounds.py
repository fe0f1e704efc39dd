"""What a fixed camera sees without the things on the belt: a picture for each position of the belt."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from sklearn.cluster import AgglomerativeClustering
from torch.nn import functional as F

_AROUND = 4  # px around a thing where its shadow falls, and nothing is learned of what lies below
_MOST = 30.0  # gray levels that one pixel counts, so that a thing on the belt does not outweigh the belt
_ALIKE = 2.0  # gray levels between photos of one position: noise and the traces of JPEG
_SHARE = 0.25  # of the median difference between photos: up to this much counts as the same position
_FEWEST = 3  # photos of a position, for their median to show it
_LEAST_KNOWN = 0.75  # of the photos that positions so shown must explain: else the belt stops anywhere


def median(images: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W): the median of many images (N, 3, H, W) of a fixed camera, in which things that move vanish."""
    return images.float().median(0).values[None]


def by_position(images: torch.Tensor, masks: np.ndarray) -> torch.Tensor:
    """(K, 3, H, W): the background at each position of what moves in it, one picture where nothing does.

    images: (N, 3, H, W) uint8. masks: (N, H, W) bool, where things lie that do not belong to the background. Images
    whose backgrounds, outside the masks, are alike show one position; its picture is the median of what they show of
    it. What none of them shows is left to the median of all. Positions of fewer than three images have no picture;
    where more than a quarter of the images show such ones there is none at all (K = 0).
    Source: hierarchical clustering by mean distance (Sokal and Michener, 1958).
    """
    images = images.float()  # light in bytes would overflow at 255
    usual = median(images)
    if len(images) < _FEWEST:
        return usual[:0]
    things = torch.from_numpy(np.stack([ndimage.binary_dilation(mask, iterations=_AROUND) for mask in masks]))
    bare = (images / light(images, usual)).masked_fill(things[:, None], torch.nan)
    small = shrink(bare)
    apart = torch.stack([unlikeness(one, small) for one in small]).nan_to_num(_MOST).numpy()
    limit = max(_ALIKE, _SHARE * float(np.median(apart)))
    clusters = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=limit
    ).fit_predict(apart)
    counts = np.bincount(clusters)
    known = np.flatnonzero(counts >= _FEWEST)
    if counts[known].sum() < _LEAST_KNOWN * len(images):
        return usual[:0]
    pictures = [bare[torch.from_numpy(clusters == one)].nanmedian(0).values for one in known]
    return torch.stack([torch.where(picture.isnan(), usual[0], picture) for picture in pictures])


def light(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N, 3, 1, 1): how much brighter each channel of images (N, 3, H, W) is than in the others, at most pixels.

    Both float. One of the two may be a single image: (3, H, W) or (1, 3, H, W).
    """
    ratios = (images[..., ::4, ::4] + 1) / (others[..., ::4, ::4] + 1)  # black counts, too
    return ratios.flatten(2).median(2).values[..., None, None]


def shrink(images: torch.Tensor) -> torch.Tensor:
    """(..., 3, H / 4, W / 4): images (..., 3, H, W) to compare; unknown (nan) where any of their pixels is."""
    return F.avg_pool2d(images, 4)


def unlikeness(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(K,) mean difference in gray levels of an image (3, H, W) to others (K, 3, H, W), where neither is unknown (nan).

    A single pixel counts up to 30, so that it is the background that decides, and not what lies before it.
    """
    return (image - others).abs().clamp(max=_MOST).flatten(1).nanmean(1)
