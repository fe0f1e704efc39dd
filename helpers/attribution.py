"""What a network looks at: Integrated Gradients with its error, and other methods beside it, all through Captum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, NoiseTunnel, Occlusion, Saliency
from torch import nn

from helpers import compute, stages
from helpers.images import normalize
from helpers.networks import without_inplace

_BATCH_BYTES = 2**30  # for what one internal batch keeps for its gradients
_LARGEST_BATCH = {True: 16, False: 64}  # on a CPU more are slower, for they no longer fit into its caches
_NOISE, _NOISY_COPIES = 0.1, 8  # deviation of the noise as a share of the image's range, and how many copies
_WINDOWS = 8  # of occlusion, side by side over the image


def _gray(normalization: dict[str, list[float]], like: torch.Tensor) -> torch.Tensor:
    """The mean that the normalization takes off; where that is black, half of the range."""
    if any(normalization["mean"]):
        return torch.zeros_like(like)
    return normalize(torch.full_like(like, 127.5), **normalization)


BASELINES = {  # images without information, normalized
    "gray": _gray,
    "black": lambda normalization, like: normalize(torch.zeros_like(like), **normalization),
    "white": lambda normalization, like: normalize(torch.full_like(like, 255), **normalization),
}


class Attribution(NamedTuple):
    """What Integrated Gradients gave for N images.

    maps: (N, H, W), the sum over channels. error: (N,), |sum of a map - change of the logit| / |that change|.
    steps: (N,), how many it took. internal_batch_size: how many of them were computed at once.
    """

    maps: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    internal_batch_size: int


def integrated_gradients(
    network: nn.Module,
    images: torch.Tensor,
    targets: Sequence[int],
    baseline: str,
    *,
    steps: int,
    error_bound: float,
    normalization: dict[str, list[float]],
    device: torch.device,
) -> Attribution:
    """Share of each pixel in the logit of its target, on the way from the baseline to the image.

    images: (N, 3, H, W) uint8. targets: (N,) class numbers. baseline: a name of BASELINES.
    steps: points on the way (Gauss-Legendre). An image whose completeness error is above error_bound gets twice and
    then four times as many, of which the best counts.
    The network is left as it was: the work is done on a copy without in-place layers, its norms folded.
    Raises ValueError for an unknown baseline, less than one step, or no image.
    Source: Sundararajan, Taly and Yan (2017), Axiomatic Attribution for Deep Networks; Captum.
    """
    if baseline not in BASELINES or steps < 1:
        raise ValueError(f"baseline {baseline!r} must be one of {', '.join(BASELINES)}, and steps at least 1: {steps}")
    if len(images) == 0:
        raise ValueError("There is no image to explain")
    copied = _copy(network, device)
    inputs = normalize(images[:1].to(device), **normalization)
    start = BASELINES[baseline](normalization, inputs)
    size = internal_batch_size(copied, inputs)
    rows = []
    for image, target in zip(images, targets, strict=True):
        inputs = normalize(image[None].to(device), **normalization)
        found = []
        for count in (steps, 2 * steps, 4 * steps):
            found.append((*_integrate(copied, inputs, start, int(target), count, size), count))
            if found[-1][1] <= error_bound:
                break
        rows.append(min(found, key=lambda result: result[1]))
    maps, errors, taken = zip(*rows, strict=True)
    return Attribution(np.stack(maps), np.array(errors), np.array(taken), size)


def _integrate(
    network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int, size: int
) -> tuple[np.ndarray, float]:
    """The map (H, W) of one image (1, 3, H, W), and its completeness error."""
    values, delta = IntegratedGradients(network).attribute(
        inputs, start, target, n_steps=steps, internal_batch_size=size, return_convergence_delta=True
    )
    change = values.sum().item() - delta.item()
    return values.sum(1)[0].float().cpu().numpy(), abs(delta.item()) / max(abs(change), 1e-6)


def between_baselines(network: nn.Module, images: torch.Tensor, targets: Sequence[int], **how: object) -> np.ndarray:
    """(N, H, W): the mean of the maps of `integrated_gradients` from black and from white.

    What looks like a baseline gets nothing, so one alone shows nothing of a gray thing, or of a white one.
    how: steps, error_bound, normalization and device.
    Source: Sturmfels, Lundberg and Lee (2020), Visualizing the Impact of Feature Attribution Baselines.
    """
    maps = [integrated_gradients(network, images, targets, baseline, **how).maps for baseline in ("black", "white")]
    return np.mean(maps, axis=0)


def internal_batch_size(network: nn.Module, image: torch.Tensor) -> int:
    """How many images may be differentiated at once within a GiB: measured on one image (1, 3, H, W).

    What is kept for the way back counts once, and the network's own numbers not at all: all images share them.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = network(image.detach().clone().requires_grad_(True))
    needed = sum(kept.values())
    del output  # and with it all that was kept: until here no address was used twice
    return max(1, min(_LARGEST_BATCH[image.device.type == "cpu"], _BATCH_BYTES // max(needed, 1)))


def explain(
    method: str,
    network: nn.Module,
    images: torch.Tensor,
    targets: Sequence[int],
    baseline: str,
    *,
    steps: int,
    normalization: dict[str, list[float]],
    device: torch.device,
) -> np.ndarray:
    """(N, H, W): what counts for the logit of each image's target, by one of METHODS, summed over channels.

    Parameters as of `integrated_gradients`. Only that and the noise tunnel use `steps`; both start from the baseline,
    and occlusion fills its windows with it.
    Raises ValueError for an unknown method or baseline, and for Grad-CAM where the last stage has no convolution.
    Source: Smilkov et al. (2017), SmoothGrad; Selvaraju et al. (2017), Grad-CAM; Zeiler and Fergus (2014) for
    occlusion; Simonyan, Vedaldi and Zisserman (2014) for gradients.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if baseline not in BASELINES:
        raise ValueError(f"Unknown baseline {baseline!r}: choose one of {', '.join(BASELINES)}")
    if method == "Integrated Gradients":
        how = {"steps": steps, "error_bound": math.inf, "normalization": normalization, "device": device}
        return integrated_gradients(network, images, targets, baseline, **how).maps
    copied = _copy(network, device, folded=method != "Grad-CAM")  # which looks for the last stage by its layers
    maps = []
    for image, target in zip(images, targets, strict=True):
        inputs = normalize(image[None].to(device), **normalization).requires_grad_(True)
        start = BASELINES[baseline](normalization, inputs.detach())
        values = _OTHERS[method](copied, inputs, start, int(target), steps)
        maps.append(values.detach().sum(1)[0].float().cpu().numpy())
    return np.stack(maps)


def _copy(network: nn.Module, device: torch.device, *, folded: bool = True) -> nn.Module:
    """What explanations work on: the network without in-place layers, its norms folded."""
    copied = without_inplace(network).eval()
    copied = compute.fold_norms(copied) if folded else copied
    return copied.requires_grad_(False).to(device, memory_format=compute.memory_format(device))


def _noise_tunnel(
    network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int
) -> torch.Tensor:
    """The mean of Integrated Gradients, of a quarter of the steps, over noisy copies of the image."""
    spread = _NOISE * (inputs.max() - inputs.min()).item()
    at_once = min(8, internal_batch_size(network, inputs.detach()))
    walking = {"baselines": start, "target": target, "n_steps": max(1, steps // 4), "internal_batch_size": at_once}
    with compute.fork_rng(inputs.device):
        torch.manual_seed(0)
        tunnel = NoiseTunnel(IntegratedGradients(network))
        return tunnel.attribute(inputs, nt_samples=_NOISY_COPIES, nt_samples_batch_size=1, stdevs=spread, **walking)


def _grad_cam(network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int) -> torch.Tensor:
    """What the last maps hold, each weighed by its mean gradient, enlarged to the image; only what speaks for it."""
    values = LayerGradCam(network, _last_maps(network)).attribute(inputs, target, relu_attributions=True)
    return LayerAttribution.interpolate(values, tuple(inputs.shape[2:]), "bilinear")


def _last_maps(network: nn.Module) -> nn.Module:
    """The last layer of the body that convolves; of a body in one piece (GoogLeNet) its last child that does."""
    own = set(network.modules())
    *_, last = (stage for name, stage in stages.stages(network).items() if name != stages.HEAD)
    found = [layer for layer in last if any(isinstance(one, nn.Conv2d) for one in layer.modules())]
    if not found:
        raise ValueError("Grad-CAM needs the maps of a convolution, and the last stage of this network has none")
    if found[-1] in own:
        return found[-1]
    return [child for child in network.children() if any(isinstance(one, nn.Conv2d) for one in child.modules())][-1]


def _occlusion(network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int) -> torch.Tensor:
    """How much the logit falls where a window is covered, in steps of half a window."""
    channels, height, width = inputs.shape[1:]
    window = channels, max(2, height // _WINDOWS), max(2, width // _WINDOWS)
    strides = channels, window[1] // 2, window[2] // 2
    covered = Occlusion(network)
    return covered.attribute(inputs.detach(), window, strides, start, target, perturbations_per_eval=16)


def _gradients(network: nn.Module, inputs: torch.Tensor, start: torch.Tensor, target: int, steps: int) -> torch.Tensor:
    """The size of the gradient at the image itself."""
    return Saliency(network).attribute(inputs, target)


_OTHERS = {"noise tunnel": _noise_tunnel, "Grad-CAM": _grad_cam, "occlusion": _occlusion, "gradients": _gradients}
METHODS = ("Integrated Gradients", *_OTHERS)
