"""The usual ways of transfer learning, as their authors show them: what our own times are compared with.

Both take a folder with train/, validation/ and test/, each with class folders, and MobileNetV2's weights from a file.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from helpers import convnets

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
EPOCHS, WORKERS = 6, 2
SMALL_BATCH = 128


def tutorial(folder: Path, weights: Path, *, frozen: bool) -> tuple[float, float, float]:
    """Seconds, best validation and test accuracy of the loop of PyTorch's transfer-learning tutorial.

    As there: random crops and flips, batches of 4, SGD with rate 0.001 and momentum 0.9, the best epoch by accuracy.
    Source: Chilamkurthy, Transfer Learning for Computer Vision Tutorial, pytorch.org.
    """
    started = time.perf_counter()
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    augmented = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *normalize])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *normalize])
    ways = {"train": augmented, "validation": plain, "test": plain}
    loaders = {
        split: DataLoader(datasets.ImageFolder(folder / split, way), 4, shuffle=split == "train", num_workers=WORKERS)
        for split, way in ways.items()
    }
    network = _mobilenet(weights)
    network.requires_grad_(not frozen)
    network.classifier[1] = nn.Linear(1280, len(loaders["train"].dataset.classes))
    criterion = nn.CrossEntropyLoss()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.001, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, best_accuracy = copy.deepcopy(network.state_dict()), 0.0
    for _ in range(EPOCHS):
        network.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            criterion(network(images), labels).backward()
            optimizer.step()
        scheduler.step()
        accuracy = _accuracy(network, loaders["validation"])
        if accuracy > best_accuracy:
            best, best_accuracy = copy.deepcopy(network.state_dict()), accuracy
    seconds = time.perf_counter() - started
    network.load_state_dict(best)
    return seconds, best_accuracy, _accuracy(network, loaders["test"])


def fastai(folder: Path, weights: Path) -> tuple[float, float, float]:
    """Seconds, last validation and test accuracy of fastai's `fine_tune`: one frozen epoch, then the others.

    Source: Howard and Gugger (2020), fastai: A Layered API for Deep Learning.
    """
    from fastai.vision import all as fast
    from fastai.vision.learner import model_meta

    started = time.perf_counter()

    def mobilenet(pretrained: bool) -> nn.Module:
        return _mobilenet(weights)

    split = lambda model: fast.L(model[0], model[1:]).map(fast.params)  # noqa: E731
    model_meta[mobilenet] = {"cut": -1, "split": split, "stats": fast.imagenet_stats}
    loaders = fast.ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="validation",
        item_tfms=fast.Resize(256),
        batch_tfms=fast.aug_transforms(size=224),
        bs=32,
        num_workers=WORKERS,
    )
    learner = fast.vision_learner(loaders, mobilenet, metrics=fast.accuracy, normalize=True)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS - 1)
        seconds = time.perf_counter() - started
        validation = learner.validate()[1]
        test = learner.dls.test_dl(fast.get_image_files(folder / "test"), with_labels=True)
        return seconds, validation, learner.validate(dl=test)[1]


def image_folder_epoch(folder: Path) -> tuple[float]:
    """Seconds of one epoch of two_convolutions on class folders of 32 x 32 px, as most scripts load them."""
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    dataset = datasets.ImageFolder(folder, normalize)
    network = convnets.two_convolutions(len(dataset.classes))
    optimizer, criterion, total = torch.optim.Adam(network.parameters(), 0.001), nn.CrossEntropyLoss(), 0.0
    started = time.perf_counter()
    for images, labels in DataLoader(dataset, SMALL_BATCH, shuffle=True, num_workers=WORKERS):
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return (time.perf_counter() - started,)


def _mobilenet(weights: Path) -> nn.Module:
    network = models.mobilenet_v2()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def _accuracy(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    with torch.no_grad():
        hits = sum((network(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return hits / len(loader.dataset)
