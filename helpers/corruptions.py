"""What goes wrong in front of a camera, at five strengths: how far may it go before the answers suffer?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from helpers.images import HIDDEN

STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(images: torch.Tensor, kind: str, strength: int) -> torch.Tensor:
    """The images (N, 3, H, W) uint8, spoilt by one of KINDS; strength: of STRENGTHS.

    The same batch comes out the same. Lengths are shares of the image's height, so that they mean the same at any size.
    What was hidden (`images.HIDDEN`) stays so: no camera spoils it.
    Raises ValueError for an unknown kind.
    Source: Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to Common Corruptions.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown corruption {kind!r}: choose one of {', '.join(KINDS)}")
    spoilt = KINDS[kind](images, strength)
    hidden = (images == torch.tensor(HIDDEN, device=images.device)[:, None, None]).all(1, keepdim=True)
    return spoilt if kind in MOVES else torch.where(hidden, images, spoilt)


def _blur(images: torch.Tensor, strength: int) -> torch.Tensor:
    deviation = 0.004 * strength * images.shape[2]  # px
    size = 2 * max(1, round(2 * deviation)) + 1
    return transforms.gaussian_blur(images, [size, size], [deviation, deviation])


def _noise(images: torch.Tensor, strength: int) -> torch.Tensor:
    """Of deviation 8 to 40, of 255."""
    generator = torch.Generator().manual_seed(strength)
    return _levels(images + 8 * strength * torch.randn(images.shape, generator=generator))


def _darkness(images: torch.Tensor, strength: int) -> torch.Tensor:
    """Down to a fourth of the pixel values."""
    return _levels(images * (1 - 0.15 * strength))


def _compression(images: torch.Tensor, strength: int) -> torch.Tensor:
    """JPEG of quality 50 down to 10."""
    return torch.stack([transforms.jpeg(image, 60 - 10 * strength) for image in images])


def _shift(images: torch.Tensor, strength: int) -> torch.Tensor:
    """Down and to the right, by 3 to 15 percent; the rim is mirrored outwards."""
    moved = round(0.03 * strength * images.shape[2])
    return F.pad(images.float(), (moved, 0, moved, 0), "reflect")[..., : images.shape[2], : images.shape[3]].byte()


def _rotation(images: torch.Tensor, strength: int) -> torch.Tensor:
    """By 4 to 20 degrees; the rim is mirrored outwards."""
    height, width = images.shape[2:]
    beyond = math.ceil(math.sin(math.radians(4.0 * strength)) * max(height, width) / 2) + 1  # px that corners reach
    rim = min(beyond, height - 1, width - 1)  # a mirror image is no larger than the image
    padded = F.pad(images.float(), (rim, rim, rim, rim), "reflect")
    turned = transforms.rotate(padded, 4.0 * strength, transforms.InterpolationMode.BILINEAR)
    return _levels(transforms.center_crop(turned, [height, width]))


def _levels(images: torch.Tensor) -> torch.Tensor:
    return images.round().clamp(0, 255).byte()


KINDS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "blur": _blur,
    "noise": _noise,
    "darkness": _darkness,
    "compression": _compression,
    "shift": _shift,
    "rotation": _rotation,
}
MOVES = ("shift", "rotation")  # of what is hidden as well
