"""Cards: what a trained network is, kept beside its weights in `models.zip`, as numbers and text that run no code."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn

from helpers import networks
from helpers.archives import Archive, ArchiveError, write_zip
from helpers.catalog import Dataset
from helpers.photos import from_text
from helpers.stages import head_of

FORMAT_VERSION = 11
_FEATURES = "features.safetensors"  # a network's member of `models.zip`, where it knows what it learned from


class Model(NamedTuple):
    """A trained network, its card, and by view (M, D) half: features of what it learned from, see `novelty.fit`."""

    network: nn.Module
    card: dict
    features: dict[str, torch.Tensor] | None = None


def new_card(
    architecture: str,
    dataset: Dataset,
    *,
    views: list[str],
    size: tuple[int, int],
    weights: str,
    normalization: dict[str, list[float]],
) -> dict[str, object]:
    """The beginnings of a network's card; what a notebook finds out about the network later comes on top of it.

    That is: training, the recipe, and history, a row for each epoch (both of `training.fit`); chosen, whether the
    notebook prefers this network; metrics, its scores (of 02 a list, a row for each view); decision (of 02), with
    defect, share, views, the thresholds of `decisions.Decision`, the costs of `decisions.Costs` and, of the chosen
    network, test, how many known items with the defect it missed; split (of 06), how the data set was divided.

    size: (height, width) in px of the input. weights: as given to `networks.build`. Logits are to be divided by the
    temperature, 1 until it is fitted; below the threshold of the highest probability the answer is "not sure". stored:
    height and width in px that photos are shrunk to fit into first, if at all. backgrounds: by view, what photos are
    cut out against (`crops.find_backgrounds`). unrolled: by view, how it is made of another (`unrolling.unroll`).
    fusing: the weight of each view (`fusing.fuse_views`). mirrored: whether each photo is looked at twice
    (`compute.as_function`). novelty_thresholds: by view, see `novelty.fit`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "classes": dataset.classes,
        "views": views,
        "input": {"height": size[0], "width": size[1]},
        "normalization": normalization,
        "stored": dataset.stored,
        "backgrounds": dataset.backgrounds or {},
        "unrolled": dataset.unrolled or {},
        "origin": networks.origin(weights),
        "temperature": 1.0,
        "threshold": 0.0,
        "fusing": {},
        "mirrored": False,
        "novelty_thresholds": {},
        "data_sha256": dataset.sha256,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "pillow")},
    }


def save_models(path: str | Path, models: dict[str, Model], comparison: pd.DataFrame) -> Path:
    """Write `models.zip`: of each its weights, card and features, and the comparison. Whole, or not at all."""

    def members() -> Iterator[tuple[str, bytes]]:
        for name, (network, card, features) in models.items():
            yield f"{name}/model.safetensors", to_bytes(network.state_dict())
            yield f"{name}/card.json", (json.dumps(card, indent=2) + "\n").encode()
            if features:
                yield f"{name}/{_FEATURES}", to_bytes({f"view {view}": own for view, own in features.items()})
        yield "comparison.csv", comparison.to_csv(lineterminator="\n").encode()

    return write_zip(path, members())


def load_models(path: str | Path, names: Iterable[str] = ()) -> dict[str, Model]:
    """The networks of a `models.zip`, all or those named, in evaluation mode on the CPU.

    Raises ArchiveError where it is no such archive or a network in it is damaged, ValueError for an unknown name.
    """
    with Archive(path) as archive:
        found = sorted(member.removesuffix("/card.json") for member in archive.names if member.endswith("/card.json"))
        if not found:
            raise ArchiveError(f"{path} holds no network: give what 02-ModelTraining or one of 04 to 06 wrote")
        unknown = set(names) - set(found)
        if unknown:
            raise ValueError(f"{path} holds no network {', '.join(sorted(unknown))}; it holds {', '.join(found)}")
        return {name: _load_model(archive, name) for name in (names or found)}


def to_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    """Tensors by name as safetensors."""
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})


def chosen(models: dict[str, Model]) -> dict[str, Model]:
    """Of a `models.zip`, the members of the network that its notebook chose; all of them where nothing was chosen."""
    return {name: model for name, model in models.items() if model.card.get("chosen")} or models


def check_classes(card: dict, classes: Sequence[str]) -> None:
    """Raise ValueError where data of these classes cannot be answered by the network of that card."""
    if list(classes) != card["classes"]:
        known, given = ", ".join(card["classes"]), ", ".join(classes)
        raise ValueError(f"The network knows {known}; the data has {given}: take data or a network that fit each other")


def leak(card: dict, dataset: Dataset, split: dict[str, object], *, came_divided: bool) -> str:
    """Why the network of that card may have learned from test images of this data set; "" where it has not.

    split: how this set was divided just now, to be compared with the card's own. came_divided: it has a test split of
    its own, which no parameter changes.
    """
    if dataset.sha256 != card["data_sha256"]:
        return "these images are not those of the card"
    then = card.get("split") or {}
    differ = [f"{name} {value} and not {then.get(name)}" for name, value in split.items() if value != then.get(name)]
    return f"these images are divided with {', '.join(differ)}" if differ and not came_divided else ""


def _load_model(archive: Archive, name: str) -> Model:
    try:
        card = json.loads(archive.read(f"{name}/card.json"))
        if card["format_version"] != FORMAT_VERSION:
            raise ArchiveError(
                f"{archive.path}: {name} has format {card['format_version']!r}, not {FORMAT_VERSION}: make it again, "
                "with the notebook that wrote it"
            )
        network = networks.build(card["architecture"], len(card["classes"]), "none")
        networks.load_state(network, safetensors.torch.load(archive.read(f"{name}/model.safetensors")))
        features = _load_features(archive, name, network, card["novelty_thresholds"])
        _check(card, network)
    except ArchiveError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ArchiveError(
            f"{archive.path}: {name} cannot be read ({reason}): make it again, with the notebook that wrote it"
        ) from error
    return Model(network.eval(), card, features)


def _check(card: dict, network: nn.Module) -> None:
    """Raise ValueError or KeyError for a card or weights that would answer wrongly, or fail in the middle of work."""
    if missing := {"stored", "backgrounds", "unrolled", "threshold", "fusing", "mirrored"} - set(card):
        raise KeyError(f"its card lacks {', '.join(sorted(missing))}")
    classes, look, decision = card["classes"], card["normalization"], card.get("decision")
    decided = not decision or {"defect", "views", "pass_below", "reject_from"} <= set(decision)
    tested = (decision or {}).get("test", {"known": 0, "missed": 0})
    right = {
        "classes": isinstance(classes, list) and len(set(classes)) == len(classes) and all(map(str.strip, classes)),
        "views": isinstance(card["views"], list),
        "input": all(isinstance(card["input"][side], int) and card["input"][side] > 0 for side in ("height", "width")),
        "normalization": len(look["mean"]) == len(look["deviation"]) == 3 and np.isfinite(look["mean"]).all(),
        "deviation": all(0 < value < math.inf for value in look["deviation"]),
        "temperature": 0 < card["temperature"] < math.inf,
        "threshold": card["threshold"] >= 0,
        "stored": card["stored"] is None or {"height", "width"} <= set(card["stored"]),
        "backgrounds": _are_backgrounds(card["backgrounds"].values()),
        "unrolled": all({"view", "background", "box", "usual"} <= set(one) for one in card["unrolled"].values())
        and _are_backgrounds(one["background"] for one in card["unrolled"].values())
        and all(from_text(one["usual"]) for one in card["unrolled"].values()),
        "fusing": isinstance(card["fusing"], dict),
        "decision": decided and (not decision or decision["defect"] in classes),
        "test of the decision": all(0 <= tested[name] <= tested["known"] for name in tested),
        "weights": all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()),
    }
    if wrong := [name for name, holds in right.items() if not holds]:
        raise ValueError(f"{', '.join(wrong)} cannot be right")


def _are_backgrounds(parts: Iterable[dict]) -> bool:
    """Whether they are whole. Raises ValueError where a picture is none."""
    return all(
        {"pictures", "roughly", "straighten"} <= set(one) and one["pictures"] and all(map(from_text, one["pictures"]))
        for one in parts
    )


def _load_features(archive: Archive, name: str, network: nn.Module, views: Iterable[str]) -> dict[str, torch.Tensor]:
    """By view. Raises KeyError for a view without features, ValueError where they are not those of this network."""
    if not views:
        return {}
    found = safetensors.torch.load(archive.read(f"{name}/{_FEATURES}"))
    head = head_of(network)
    width = head.in_channels if isinstance(head, nn.Conv2d) else head.in_features
    features = {view: found[f"view {view}"] for view in views}
    for view, own in features.items():
        if own.shape[1:] != (width,) or not torch.isfinite(own).all():
            raise ValueError(f"features of view {view!r} are not (M, {width}), or not finite")
    return features
