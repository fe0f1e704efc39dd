"""A small network and small images for the tests."""

import torch

from helpers import networks

BLUE, RED = 0, 1


def small(seed=0):
    torch.manual_seed(seed)
    return networks.build("small_cnn", 2, "none")


def noise(count):
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plain(colors):
    """(N, 3, 4, 4) uint8, blue where a color is 0 and red where it is 1."""
    pixels = torch.zeros(len(colors), 3, 4, 4, dtype=torch.uint8)
    for index, color in enumerate(colors):
        pixels[index, 0 if color == RED else 2] = 255
    return pixels
