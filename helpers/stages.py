"""The stages of a network, in order: where it can be frozen, and what is left to learn from there on."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2

HEAD = "head"
_LINES = {  # the layers up to the last maps, and those between maps and head: their names in the network, in order
    models.ResNet: ("conv1 bn1 relu maxpool layer1 layer2 layer3 layer4", "pool flatten"),
    models.RegNet: ("stem trunk_output", "pool flatten"),
    models.ShuffleNetV2: ("conv1 maxpool stage2 stage3 stage4 conv5", "pool flatten"),
    models.MNASNet: ("layers", "pool flatten classifier"),
    models.MobileNetV2: ("features", "pool flatten classifier"),
    models.MobileNetV3: ("features", "pool flatten classifier"),
    models.EfficientNet: ("features", "pool flatten classifier"),
    models.ConvNeXt: ("features", "pool classifier"),
    models.VGG: ("features", "avgpool flatten classifier"),
    models.AlexNet: ("features", "avgpool flatten classifier"),
    models.SqueezeNet: ("features", "classifier.0 pool"),
    models.DenseNet: ("features", "relu pool flatten"),
    models.SwinTransformer: ("features", "norm permute avgpool flatten"),
    models.MaxVit: ("stem blocks", "classifier"),
}
_ADDED = {  # what those networks do in their forward function, without a layer of that name
    "pool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "relu": nn.ReLU,
}
_TRANSFORMER_STAGES = 4


def stages(network: nn.Module) -> dict[str, nn.Sequential]:
    """The network in stages, "stage 1", "stage 2" and so on, then "head": run in order, they give what it gives.

    A stage holds the layers that see the image at one size; a vision transformer has four of equally many blocks.
    What pools the last maps to features belongs to the last stage: the head is the layer that gives the logits alone.
    Where layers do not stand in line (GoogLeNet, Inception) the whole body is one stage.
    The stages share their layers with the network: what one learns, the other knows.
    """
    head = head_of(network)
    if type(network) in _LINES:
        trunk, neck = (_layers(network, names) for names in _LINES[type(network)])
        parts = _by_size(trunk)
        parts[-1] += [layer for layer in neck if layer is not head]
    elif isinstance(network, models.VisionTransformer):
        parts = _transformer_stages(network)
    elif isinstance(network, nn.Sequential):
        parts = _by_size(layer for layer in network if layer is not head)
    else:
        parts = [[_without_head(network)]]
    named = {f"stage {number}": nn.Sequential(*layers) for number, layers in enumerate(parts, 1)}
    last = [head, nn.Flatten()] if isinstance(head, nn.Conv2d) else [head]  # SqueezeNet's is a convolution of 1 x 1
    return named | {HEAD: nn.Sequential(*last)}


def split(network: nn.Module, train: str) -> tuple[nn.Sequential, nn.Sequential]:
    """(frozen, learning): the stages before the first that learns, and the others.

    train: "head", "last stage" (and the head), "all", or the name of the first stage that learns.
    Raises ValueError for another word.
    """
    parts = stages(network)
    names = list(parts)
    boundaries = {name: index for index, name in enumerate(names)} | {"last stage": len(names) - 2, "all": 0}
    if train not in boundaries:
        raise ValueError(f"There is no stage {train!r} to learn from on: choose one of {', '.join(boundaries)}")
    modules = list(parts.values())
    return nn.Sequential(*modules[: boundaries[train]]), nn.Sequential(*modules[boundaries[train] :])


def head_of(network: nn.Module) -> nn.Linear | nn.Conv2d:
    """The layer that gives the logits."""
    return network.get_submodule(head_name(network))


def head_name(network: nn.Module) -> str:
    """The name of the layer that gives the logits: the last linear one, or in SqueezeNet the last convolution."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return layers[-1][0]


def _layers(network: nn.Module, names: str) -> list[nn.Module]:
    """The layers of these names; a container stands for what it holds."""
    layers = []
    for name in names.split():
        layer = network.get_submodule(name) if hasattr(network, name.split(".")[0]) else _ADDED[name]()
        layers += layer if isinstance(layer, nn.Sequential | nn.ModuleList) else [layer]
    return layers


def _by_size(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """The layers in groups: one begins where a layer steps over pixels, and ends where one pools them."""
    parts: list[list[nn.Module]] = [[]]
    for layer in layers:
        inner = list(layer.modules())
        steps = any(
            (isinstance(one, nn.Conv2d) and max(one.stride) > 1) or isinstance(one, PatchMerging | PatchMergingV2)
            for one in inner
        )
        if steps and parts[-1]:
            parts.append([])
        parts[-1].append(layer)
        if not steps and any(isinstance(one, nn.MaxPool2d | nn.AvgPool2d) for one in inner):
            parts.append([])
    while len(parts) > 1 and not any(list(layer.parameters()) for layer in parts[-1]):
        without_weights = parts.pop()
        parts[-1] += without_weights
    return parts


def _transformer_stages(network: models.VisionTransformer) -> list[list[nn.Module]]:
    blocks = list(network.encoder.layers)
    size = -(-len(blocks) // _TRANSFORMER_STAGES)
    parts = [blocks[start : start + size] for start in range(0, len(blocks), size)]
    head = head_of(network)
    parts[0] = [_Tokens(network), *parts[0]]
    parts[-1] += [network.encoder.ln, _ClassToken(), *[layer for layer in network.heads if layer is not head]]
    return parts


class _Tokens(nn.Module):
    """A vision transformer before its blocks: (N, 3, H, W) to (N, 1 + patches, D), the class token first."""

    def __init__(self, network: models.VisionTransformer) -> None:
        super().__init__()
        self.conv_proj, self.class_token = network.conv_proj, network.class_token
        self.pos_embedding, self.dropout = network.encoder.pos_embedding, network.encoder.dropout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        first = self.class_token.expand(images.shape[0], -1, -1)  # not len: exporters would take it for a constant
        tokens = torch.cat([first, patches], 1)
        return self.dropout(tokens + self.pos_embedding)


class _ClassToken(nn.Module):
    """(N, 1 + patches, D) to (N, D)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


def _without_head(network: nn.Module) -> nn.Module:
    """The same layers, but for the head, in whose place nothing is done."""
    *path, last = head_name(network).split(".")
    body = inner = _shallow(network)
    for name in path:
        inner._modules[name] = _shallow(inner._modules[name])
        inner = inner._modules[name]
    inner._modules[last] = nn.Identity()
    return body


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = module._modules.copy()
    return twin
