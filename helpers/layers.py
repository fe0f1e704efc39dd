"""Layers of the small networks: augmentation that happens in training alone, and parts that learn fast."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F

from helpers.distributed import total, uniform

_LEAST_VARIANCE = 5e-4  # of a direction of the patches, so that one without any is not blown up


class RandomFlip(nn.Module):
    """In training each image (N, C, H, W) is mirrored left to right, or not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, half of them mirrored."""
        if not self.training:
            return images
        mirrored = uniform(len(images), 1, 1, 1, device=images.device) < 0.5
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
        angle = torch.deg2rad((uniform(len(images), device=images.device) * 2 - 1) * self.degrees)
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
        scale = 1 + (uniform(len(images), device=images.device) * 2 - 1) * self.fraction
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
        down, right = (uniform(count, 2, device=images.device) * (2 * self.most_px + 1)).long().unbind(1)
        rows = (down[:, None] + torch.arange(height, device=images.device))[:, :, None]
        columns = (right[:, None] + torch.arange(width, device=images.device))[:, None, :]
        return padded[torch.arange(count, device=images.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


class Cutout(nn.Module):
    """In training a square of so many pixels is cut out of each image or map (N, C, H, W): it is 0 there.

    Its middle lies anywhere, so part of it may lie outside.
    Source: DeVries and Taylor (2017), Improved Regularization of Convolutional Neural Networks with Cutout.
    """

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, each with a hole."""
        if not self.training:
            return images
        count, _, height, width = images.shape
        down, right = uniform(count, 2, 1, 1, 1, device=images.device).unbind(1)  # (N, 1, 1, 1) each
        rows = torch.arange(height, device=images.device)[:, None] + 0.5
        columns = torch.arange(width, device=images.device) + 0.5
        high, wide = (rows - down * height).abs(), (columns - right * width).abs()
        return images.masked_fill((high < self.side_px / 2) & (wide < self.side_px / 2), 0)


class Whitening(nn.Module):
    """Each patch of 2 x 2 px as 24 numbers that do not predict each other: (N, 3, H, W) to (N, 24, H - 1, W - 1).

    Neighboring pixels are nearly the same, so what tells them apart is small and learned late. Twelve filters, found
    in the first batch of the training, bring all that differs to one scale; twelve more are their negatives, because
    an activation keeps one sign only. The filters stay as they are, and a shift learns.
    Source: Jordan (2024), 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__()
        half = nn.Conv2d(3, 12, 2).weight.detach()
        self.register_buffer("filters", torch.cat([half, -half]))
        self.register_buffer("found", torch.tensor(False))
        self.shift = nn.Parameter(torch.zeros(24))
        self._looked = False  # whether they are found, without asking the device at every step

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The filtered patches."""
        if self.training and not self._looked:
            self._looked = True
            if not self.found:
                self._find(images)
        return F.conv2d(images, self.filters, self.shift)

    def _find(self, images: torch.Tensor) -> None:
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            patches = F.unfold(images.float(), 2).transpose(1, 2).flatten(0, 1)
            moments = total(patches.T @ patches)
            count = total(torch.tensor(float(len(patches)), device=images.device))
            variances, directions = torch.linalg.eigh((moments / count).cpu())
            half = (directions / (variances + _LEAST_VARIANCE).sqrt()).T.view(12, 3, 2, 2)
            self.filters.copy_(torch.cat([half, -half]))
            self.found.fill_(True)


class Residual(nn.Module):
    """Layers whose result is added to what goes in: (N, C, H, W) to (N, C, H, W).

    Source: He et al. (2016), Deep Residual Learning for Image Recognition.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return maps + self.body(maps)


class Shift(nn.Module):
    """A number for each channel of (N, C, H, W), added to it, which learns 64 times as fast as other numbers.

    It is kept as an eighth: so its gradient is eight times as large, and each step counts eight times.
    Source: Jordan (2024), 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, section 3.4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eighth = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return maps + (8.0 * self.eighth).to(maps.dtype)  # 8 as an int stops the ONNX exporter of torch 2.11


class GlobalMaxPool(nn.Module):
    """The largest number of each channel: (N, C, H, W) to (N, C, 1, 1), as nn.AdaptiveMaxPool2d(1) gives it.

    The ONNX exporter of torch 2.11 and older does not know that layer; this one it does.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The maxima."""
        return F.max_pool2d(maps, maps.shape[2:])


class PoolTo(nn.AdaptiveAvgPool2d):
    """Averages (N, C, H, W) down to (N, C, size, size). What has that size passes as it is.

    PyTorch's own layer computes it anew, in a quarter of the time that `two_convolutions` takes to learn.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The averages."""
        return _pool_to(maps, self.output_size)


class Scale(nn.Module):
    """What goes in, times a number that does not learn."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The product."""
        return self.factor * values


@fx.wrap  # to a tracer one step, for it cannot know a size
def _pool_to(maps: torch.Tensor, size: int) -> torch.Tensor:
    return maps if maps.shape[2:] == (size, size) else F.adaptive_avg_pool2d(maps, size)


def _warp(images: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Each image (N, C, H, W) looked up through its matrix [[cosine, -sine], [sine, cosine]] (N,) each."""
    if len(images) == 0:  # of several processes, one without a part of the batch; PyTorch warps no empty batch
        return images
    zero = torch.zeros_like(cosine)
    aspect = images.shape[2] / images.shape[3]
    theta = torch.stack([cosine, -sine * aspect, zero, sine / aspect, cosine, zero], 1).view(-1, 2, 3)
    with torch.autocast(images.device.type, enabled=False):  # positions need float32
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
