"""Small networks that start from nothing: each a line of layers, to be read from the top to the bottom.

Pooling by the maximum comes before a ReLU, which gives the same as after it for a quarter of the work.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from helpers.layers import (
    Cutout,
    GlobalMaxPool,
    PoolTo,
    RandomFlip,
    RandomRotation,
    RandomShift,
    RandomZoom,
    Residual,
    Scale,
    Shift,
    Whitening,
)


def small_cnn(classes: int) -> nn.Sequential:
    """Four convolutions, each with normalization, ReLU and pooling, then one linear layer.

    Takes (N, 3, H, W) of any size from 16 px. The strongest answer anywhere in the image counts (global maximum):
    damage is small, and an average over the image would drown it.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 16, 32, 64, 128)):
        layers += _convolution(before, after)
    return nn.Sequential(*layers, GlobalMaxPool(), nn.Flatten(), nn.Linear(after, classes))


def baseline_cnn(classes: int) -> nn.Sequential:
    """Four convolutions with pooling, then two dense layers with dropout: what one builds without transfer learning.

    Takes (N, 3, H, W) of any size from 64 px. The softmax stands in the loss.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    dense = [nn.Dropout(0.5), nn.Linear(after * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)]
    return nn.Sequential(*layers, PoolTo(4), nn.Flatten(), *dense)


def two_convolutions(classes: int) -> nn.Sequential:
    """Two convolutional and two fully connected layers, with dropout between them.

    Takes (N, 3, H, W), made for 32 x 32 px; larger images are averaged down to 8 x 8 cells before the dense layers.
    Source: Krizhevsky, Sutskever and Hinton (2012) for dropout and for pooling over areas that overlap.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
        *(nn.Dropout(0.25), PoolTo(8), nn.Flatten()),
        *(nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)),
    )


def three_blocks(classes: int) -> nn.Sequential:
    """Three blocks of convolution and pooling, two dense layers with dropout, and augmentation as its first layers.

    Takes (N, 3, H, W), made for 32 x 32 px. The first three layers change images in training mode only.
    """
    layers: list[nn.Module] = [RandomFlip(), RandomRotation(8.0), RandomZoom(0.1)]
    for before, after in pairwise((3, 48, 96, 192)):
        layers += [*_convolution(before, after), nn.Dropout(0.1)]
    dense = [nn.Linear(after * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.4), nn.Linear(256, classes)]
    return nn.Sequential(*layers, PoolTo(4), nn.Flatten(), *dense)


def fast_resnet(classes: int) -> nn.Sequential:
    """A residual network for small images that learns in few epochs, with augmentation among its first layers.

    Takes (N, 3, H, W) of any size from 16 px, made for 32 x 32 px. What goes in is handed on from block to block and
    the logits begin small, so it bears large learning rates from the first step.
    Source: Jordan (2024), 94% on CIFAR-10 in 3.29 Seconds on a Single GPU; He et al. (2016) for the residual blocks.
    """
    layers: list[nn.Module] = [RandomFlip(), RandomShift(4), Whitening(), Cutout(12), nn.GELU()]
    for before, after in pairwise((24, 128, 384, 384)):
        again = nn.Conv2d(after, after, 3, padding=1, bias=False)
        layers += [_handing_on(before, after), nn.MaxPool2d(2), *_centered(after), nn.GELU()]
        layers += [Residual(nn.Sequential(again, *_centered(after))), nn.GELU()]
    return nn.Sequential(*layers, GlobalMaxPool(), nn.Flatten(), Scale(1 / 9), nn.Linear(after, classes))


NETWORKS = {
    network.__name__: network for network in (small_cnn, baseline_cnn, two_convolutions, three_blocks, fast_resnet)
}


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU()]


def _handing_on(before: int, after: int) -> nn.Conv2d:
    """A convolution that begins by giving what goes in, and new maps beside it."""
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:before])
    return convolution


def _centered(channels: int) -> list[nn.Module]:
    """Batch normalization that follows the last few batches, with a quick shift and no scale."""
    return [nn.BatchNorm2d(channels, momentum=0.4, affine=False), Shift(channels)]
