"""Small networks that start from nothing: each a line of layers, to be read from the top to the bottom."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def small_cnn(classes: int) -> nn.Sequential:
    """Four convolutions, each with normalization, ReLU and pooling, then one linear layer.

    Takes (N, 3, H, W) of any size from 16 px. The strongest answer anywhere in the image counts (global maximum):
    damage is small, and an average over the image would drown it.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 16, 32, 64, 128)):
        layers += [*_convolution(before, after), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(after, classes))


def baseline_cnn(classes: int) -> nn.Sequential:
    """Four convolutions with pooling, then two dense layers with dropout: what one builds without transfer learning.

    Takes (N, 3, H, W) of any size from 64 px. The softmax stands in the loss.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Dropout(0.5), nn.Linear(after * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), *dense)


def two_convolutions(classes: int) -> nn.Sequential:
    """Two convolutional and two fully connected layers, with dropout between them.

    Takes (N, 3, H, W), made for 32 x 32 px; larger images are averaged down to 8 x 8 cells before the dense layers.
    Source: Krizhevsky, Sutskever and Hinton (2012) for dropout and for pooling over areas that overlap.
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Dropout(0.25), nn.AdaptiveAvgPool2d(8), nn.Flatten()),
        *(nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, classes)),
    )


def three_blocks(classes: int) -> nn.Sequential:
    """Three blocks of convolution and pooling, two dense layers with dropout, and augmentation as its first layers.

    Takes (N, 3, H, W), made for 32 x 32 px. The first three layers change images in training mode only.
    """
    layers: list[nn.Module] = [RandomFlip(), RandomRotation(8.0), RandomZoom(0.1)]
    for before, after in pairwise((3, 48, 96, 192)):
        layers += [*_convolution(before, after), nn.MaxPool2d(2), nn.Dropout(0.1)]
    dense = [nn.Linear(after * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.4), nn.Linear(256, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), *dense)


def fast_resnet(classes: int) -> nn.Sequential:
    """A residual network for small images that learns in few epochs, with augmentation as its first layers.

    Takes (N, 3, H, W), made for 32 x 32 px. Most of its work is done where the image is already small.
    Source: Page (2018), How to Train Your ResNet, with He et al. (2016) for the residual blocks.
    """
    return nn.Sequential(
        *(RandomFlip(), RandomShift(4), RandomCutout(8)),
        *_convolution(3, 32),
        *(*_convolution(32, 64), nn.MaxPool2d(2), Residual(64)),
        *(*_convolution(64, 128), nn.MaxPool2d(2), Residual(128)),
        *(*_convolution(128, 256), nn.MaxPool2d(2), Residual(256)),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(256, classes)),
    )


NETWORKS = {
    network.__name__: network for network in (small_cnn, baseline_cnn, two_convolutions, three_blocks, fast_resnet)
}


class Residual(nn.Module):
    """Two convolutions whose result is added to what goes in: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return maps + self.body(maps)


class RandomFlip(nn.Module):
    """In training each image (N, C, H, W) is mirrored left to right, or not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, half of them mirrored."""
        if not self.training:
            return images
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(mirrored, images.flip(3), images)


class RandomRotation(nn.Module):
    """In training each image (N, C, H, W) is turned by up to so many degrees; its rim is mirrored outwards."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, each turned anew."""
        if not self.training:
            return images
        angle = torch.deg2rad((torch.rand(len(images), device=images.device) * 2 - 1) * self.degrees)
        return _warp(images, torch.cos(angle), torch.sin(angle))


class RandomZoom(nn.Module):
    """In training each image (N, C, H, W) is made larger or smaller by up to that fraction, about its middle."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, each zoomed anew."""
        if not self.training:
            return images
        scale = 1 + (torch.rand(len(images), device=images.device) * 2 - 1) * self.fraction
        return _warp(images, scale, torch.zeros_like(scale))


class RandomShift(nn.Module):
    """In training each image (N, C, H, W) is moved by up to so many whole pixels; its rim is mirrored outwards."""

    def __init__(self, most_px: int) -> None:
        super().__init__()
        self.most_px = most_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, each moved anew."""
        if not self.training:
            return images
        count, _, height, width = images.shape
        padded = F.pad(images, [self.most_px] * 4, mode="reflect").permute(0, 2, 3, 1)
        starts = torch.randint(0, 2 * self.most_px + 1, (2, count, 1), device=images.device)
        rows = (starts[0] + torch.arange(height, device=images.device))[:, :, None]
        columns = (starts[1] + torch.arange(width, device=images.device))[:, None, :]
        return padded[torch.arange(count, device=images.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


class RandomCutout(nn.Module):
    """In training a square of so many px of each image (N, C, H, W) is set to 0, its mean, at a place of its own.

    Source: DeVries and Taylor (2017), Improved Regularization of Convolutional Neural Networks with Cutout.
    """

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, each with its square."""
        if not self.training:
            return images
        inside = []
        for extent in images.shape[2:]:
            start = torch.randint(0, max(1, extent - self.side_px + 1), (len(images), 1), device=images.device)
            place = torch.arange(extent, device=images.device)
            inside.append((place >= start) & (place < start + self.side_px))
        return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _warp(images: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Each image (N, C, H, W) looked up through its matrix [[cosine, -sine], [sine, cosine]] (N,) each."""
    zero = torch.zeros_like(cosine)
    aspect = images.shape[2] / images.shape[3]
    theta = torch.stack([cosine, -sine * aspect, zero, sine / aspect, cosine, zero], 1).view(-1, 2, 3)
    with torch.autocast(images.device.type, enabled=False):  # positions need all their digits
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
