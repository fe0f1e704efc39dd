"""Networks: build one of any architecture with a new head, give it weights, and freeze what is not to learn."""

from __future__ import annotations

import copy
import difflib
import re
from collections import OrderedDict
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from torch import nn

from helpers import dialog
from helpers.archives import sha256
from helpers.convnets import NETWORKS
from helpers.stages import head_name, split, stages

IMAGENET_NORMALIZATION = {"mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225]}
_RENAMED = {  # layer names in the published weights of DenseNet and the vision transformers, and in the networks
    r"(denselayer\d+\.(norm|conv))\.([12])\.": r"\1\3.",
    r"\.mlp\.linear_1\.": ".mlp.0.",
    r"\.mlp\.linear_2\.": ".mlp.3.",
}
_MAXVIT_PX = 224  # height and width that it takes, which it does not say itself


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says which and what to do."""


def build(architecture: str, classes: int, weights: str) -> nn.Module:
    """A network of that architecture whose new head gives `classes` logits.

    architecture: a name of `convnets.NETWORKS`, or any of torchvision's classification models.
    weights: "imagenet" for torchvision's published ones, a path to a state dict (.pth or .safetensors), or "none".
    Raises ValueError for an unknown architecture, WeightsError where the weights cannot be had or do not fit.
    """
    if architecture in NETWORKS:
        network = NETWORKS[architecture](classes)
    elif architecture in torchvision.models.list_models(module=torchvision.models):
        network = torchvision.models.get_model(architecture, weights=None, **_options(architecture))
        _replace_head(network, classes)
    else:
        known = [*NETWORKS, *torchvision.models.list_models(module=torchvision.models)]
        close = "".join(f"did you mean {name!r}? " for name in difflib.get_close_matches(architecture, known, n=1))
        raise ValueError(f"Unknown architecture {architecture!r}: {close}There are {', '.join(known)}")
    if weights != "none":
        _load_weights(network, _state(architecture, weights), f"{weights} weights of {architecture}")
    return network


def input_size(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """(height, width) in px of the images to feed: as wanted, but for networks that take one size only.

    Raises ValueError for a size that does not suit it, such as one at which it has nothing left to pool.
    """
    if isinstance(network, torchvision.models.VisionTransformer):
        return network.image_size, network.image_size
    if isinstance(network, torchvision.models.MaxVit):
        return _MAXVIT_PX, _MAXVIT_PX
    learning = network.training
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, max(0, height), max(0, width)))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{height} x {width} px do not suit {type(network).__name__} ({_reason(error)})") from None
    finally:
        network.train(learning)
    return height, width


def freeze(network: nn.Module, *, train: str) -> None:
    """Let only that part learn: "head", "last stage" (and the head), "all", or a stage's name; see `stages.split`."""
    frozen, learning = split(network, train)
    frozen.requires_grad_(False)
    learning.requires_grad_(True)


def training_mode(network: nn.Module, *, keep_norms: bool) -> None:
    """Training mode for the stages that learn; frozen ones stay in evaluation mode, their statistics untouched.

    keep_norms: batch normalization keeps its statistics everywhere, though its scale and shift may learn. Those of a
    million photos are better than those of a small batch, and what was learned on them stays true.
    """
    network.eval()
    for stage in stages(network).values():
        stage.train(any(parameter.requires_grad for parameter in stage.parameters()))
    for layer in network.modules():
        if keep_norms and isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def count_parameters(network: nn.Module, *, trainable: bool = False) -> int:
    """How many numbers the network holds, or of these, how many learn."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad or not trainable)


def without_inplace(network: nn.Module) -> nn.Module:
    """A copy that never overwrites its activations, as explanations need; the network itself stays as it is."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False
    return network


def origin(weights: str) -> str:
    """What a card says of where the weights came from."""
    if weights == "none":
        return "none: random weights, trained from scratch"
    if weights == "imagenet":
        return f"ImageNet, published with torchvision {torchvision.__version__}"
    return f"{Path(weights).name}, sha256 {sha256(weights)}"


def load_state(network: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give the network all its tensors. MNASNet asks for their version too, which safetensors do not keep: its own."""
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata
    network.load_state_dict(state)


def _reason(error: Exception) -> str:
    """The first line of its message, or its kind where it has none, as at the end of an empty file."""
    return str(error).partition("\n")[0] or type(error).__name__


def _replace_head(network: nn.Module, classes: int) -> None:
    name = head_name(network)
    parent, _, last = name.rpartition(".")
    old = network.get_submodule(name)
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size, old.stride, old.padding)
        network.num_classes = classes
        network.classifier[2] = nn.Identity()  # a ReLU behind the head would cut the logits at 0, and can die there
    else:
        new = nn.Linear(old.in_features, classes)
    nn.init.normal_(new.weight, std=0.01)
    nn.init.zeros_(new.bias)
    setattr(network.get_submodule(parent), last, new)


def _options(architecture: str) -> dict[str, bool | int]:
    """What GoogLeNet and Inception are told: no heads beside the last, and inputs scaled as for the published weights.

    `init_weights` is said because they warn where it is not. The largest transformer gets the size of its weights.
    """
    if architecture == "vit_h_14":
        return {"image_size": 518}
    if architecture not in ("googlenet", "inception_v3"):
        return {}
    return {"aux_logits": False, "init_weights": True, "transform_input": True}


def _state(architecture: str, weights: str) -> dict[str, torch.Tensor]:
    if weights == "imagenet":
        if architecture in NETWORKS:
            raise WeightsError(f'{architecture} has no ImageNet weights: it starts from nothing, weights="none"')
        published = torchvision.models.get_model_weights(architecture).DEFAULT
        if published.transforms().mean != IMAGENET_NORMALIZATION["mean"]:
            raise WeightsError(
                f"The weights of {architecture} expect pixels scaled in another way: take another network"
            )
        try:
            return published.get_state_dict(progress=dialog.someone_can_answer(), check_hash=True)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"The ImageNet weights of {architecture} could not be fetched from {published.url} ({error}). "
                "Go online, or download that file elsewhere and give its path as weights, "
                'or start from nothing with weights="none"'
            ) from error
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(f'weights={weights!r} is no file: give "imagenet", "none" or the path of a state dict')
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each fail in their own way
        raise WeightsError(f"{path} cannot be read as a state dict: {_reason(error)}. Is it whole?") from error
    pairs = found.items() if isinstance(found, dict) else [(None, found)]
    if all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in pairs):
        return found
    within = ", ".join(repr(name) for name, value in pairs if isinstance(value, dict))
    hint = f": it holds others, under {within}. Save one of them alone" if within else ""
    raise WeightsError(f"{path} is no state dict, a dict of names and tensors{hint}")


def _load_weights(network: nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Load all but the head. Half precision becomes float; auxiliary heads are left out."""
    for then, now in _RENAMED.items():
        state = {re.sub(then, now, name): tensor for name, tensor in state.items()}
    head = head_name(network)
    own = network.state_dict()
    aside = (f"{head}.", "aux1.", "aux2.", "AuxLogits.")
    body = {name: tensor for name, tensor in state.items() if not name.startswith(aside)}
    needed = {name for name in own if not name.startswith(aside) and not name.endswith("num_batches_tracked")}
    missing, unexpected = needed - set(body), set(body) - set(own)
    shapes = {name for name in body.keys() & own.keys() if body[name].shape != own[name].shape}
    for problem, names in (("lack", missing), ("have unknown", unexpected), ("have another shape of", shapes)):
        if names:
            raise WeightsError(
                f"{what} do not fit: they {problem} {min(names)!r} and {len(names) - 1} more. "
                "Are they another architecture's?"
            )
    load_state(network, own | body)
