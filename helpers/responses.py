"""What the stages of a network respond to: the places in photos at which their channels respond most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.models import SwinTransformer

from helpers import compute
from helpers.arrays import Array
from helpers.images import normalized_batches
from helpers.stages import HEAD, stages

COLUMNS = ["stage", "channel", "row", "left", "top", "right", "bottom"]
_BATCH_SIZE = 16  # the maps of the first stages are large
_STEPS = 5  # width and height of a place, in steps from one value of a map to the next


def strongest(
    network: nn.Module,
    images: Array,
    rows: np.ndarray,
    normalization: dict[str, list[float]],
    device: torch.device,
    *,
    channels: int,
    places: int,
) -> pd.DataFrame:
    """The `places` at which each of so many channels of each stage responds most, one in a photo, the strongest first.

    A row holds stage and channel, the row of the photo in images (N, 3, H, W) uint8, and the place, a square in its px.
    What lies in the square is about what the channel saw, for later stages only the middle of it. Of the channels that
    respond somewhere in at least half of the photos, those are taken whose strongest responses stand out most: by how
    many standard deviations of a photo's maximum they lie above its mean. Stages that give no maps are left out.
    Source: Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks, for the idea.
    """
    found = []
    for stage, (values, squares) in _maxima(network, images, rows, normalization, device).items():
        top = values.topk(min(places, len(values)), dim=0)
        standing_out = (top.values.mean(0) - values.mean(0)) / values.std(0, correction=0).clamp(min=1e-6)
        standing_out[(values > 0).float().mean(0) < 0.5] = -1  # a channel that hardly ever responds stands out by luck
        for channel in standing_out.topk(min(channels, len(standing_out))).indices.tolist():
            for photo in top.indices[:, channel].tolist():
                found.append((stage, channel, int(rows[photo]), *squares[photo, channel].tolist()))
    return pd.DataFrame(found, columns=COLUMNS)


def _maxima(
    network: nn.Module, images: Array, rows: np.ndarray, normalization: dict[str, list[float]], device: torch.device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By stage: (M, C), the maximum of each channel in each photo, and (M, C, 4), the square around its place."""
    runs = {name: compute.as_function(part, device) for name, part in stages(network).items() if name != HEAD}
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in runs}
    for batch in normalized_batches(images, rows, normalization, device, _BATCH_SIZE):
        given = batch
        for name, run in runs.items():
            given = run(given)
            if given.ndim == 4:  # (N, C, h, w), but for Swin transformers, which have their channels last
                maps = given.permute(0, 3, 1, 2) if isinstance(network, SwinTransformer) else given
                if maps[0, 0].numel() == 1:  # pooled over the whole photo: there is no place left
                    continue
                values, places = maps.flatten(2).max(2)
                found[name].append((values.cpu(), _squares(places.cpu(), maps.shape[2:], batch.shape[2:])))
    return {name: tuple(map(torch.cat, zip(*parts, strict=True))) for name, parts in found.items() if parts}


def _squares(places: torch.Tensor, map_size: torch.Size, image_size: torch.Size) -> torch.Tensor:
    """(..., 4) px: left, top, right and bottom of a square around each place of a map, moved into the image.

    places: (...,), each counted row by row. Sizes: (height, width).
    """
    (map_height, map_width), (height, width) = map_size, image_size
    side = min(height, width, round(_STEPS * height / map_height))
    down, across = (places // map_width + 0.5) * height / map_height, (places % map_width + 0.5) * width / map_width
    left = (across - side / 2).round().clamp(0, width - side).long()
    top = (down - side / 2).round().clamp(0, height - side).long()
    return torch.stack([left, top, left + side, top + side], -1)
