import copy
import shutil

import numpy as np
import pytest
import torch
from tiny import small
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from helpers import activations, arrays, networks, stages
from helpers.activations import Setting
from helpers.images import Examples

CPU = torch.device("cpu")
FAMILIES = {  # of each: the first stage that learns here, and the size of the images
    "mobilenet_v2": ("last stage", 64),
    "mobilenet_v3_small": ("stage 4", 64),
    "resnet18": ("last stage", 64),
    "small_cnn": ("stage 3", 32),
    "squeezenet1_1": ("last stage", 64),
    "small transformer": ("last stage", 32),
}


def photos(count, size):
    """Smooth pictures, (count, 3, size, size) uint8: like photos, they do not change much from pixel to pixel."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255).byte()


def settled(architecture, size):
    """A network whose batch statistics are those of photos, as in a trained one: no activation fades away."""
    torch.manual_seed(0)
    network = transformer() if architecture == "small transformer" else networks.build(architecture, 2, "none")
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(activations.normalize(photos(8, size), **networks.IMAGENET_NORMALIZATION))
    return network.eval()


def transformer():
    """A vision transformer of four blocks: those of torchvision have the same class, and take seconds."""
    sizes = {"num_layers": 4, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    network = VisionTransformer(image_size=32, patch_size=8, num_classes=2, **sizes)
    torch.nn.init.normal_(network.heads.head.weight)  # torchvision's start at 0
    return network


@pytest.fixture
def examples():
    return Examples(photos(10, 32), np.arange(10) % 2, np.array([0, 2, 4, 6, 8, 9]), np.array([1, 3, 5]))


@pytest.fixture
def setting(tmp_path):
    return Setting(3, "gentle", networks.IMAGENET_NORMALIZATION, CPU, tmp_path / "cache")


def prepare(frozen, examples, setting, **options):
    return activations.prepare(frozen, examples, setting, **{"epochs": 3, "report": lambda line: None} | options)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_remembered_and_live_give_the_same_logits_and_gradients(architecture, setting):
    train, size = FAMILIES[architecture]
    network = settled(architecture, size)
    networks.freeze(network, train=train)
    frozen, learning = stages.split(network, train)
    examples = Examples(photos(4, size), np.array([0, 1, 0, 1]), np.array([3, 1]), np.array([0, 2]))
    remembered, live = (prepare(frozen, examples, setting, copies=copies) for copies in (2, 0))
    results = []
    for inputs in (remembered, live):
        network.zero_grad()
        logits = learning(inputs.train(1, torch.tensor([1, 0])))  # epoch 1: augmented
        F.cross_entropy(logits, torch.tensor([1, 0])).backward()
        gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.requires_grad]
        results.append((logits.detach(), learning(inputs.validation(torch.tensor([0, 1]))).detach(), gradients))
    for one, other in zip(*(result[:2] for result in results), strict=True):
        torch.testing.assert_close(one, other, rtol=5e-3, atol=5e-3 * other.abs().max().item())
    one, other = (torch.cat([gradient.flatten() for gradient in result[2]]) for result in results)
    # Rounding to half precision turns single ReLUs on or off; another copy would differ by 0.8 and more.
    assert (one - other).norm() < 0.1 * other.norm()
    with torch.no_grad():
        plain = network(activations.normalize(examples.images[examples.validation], **setting.normalization))
    torch.testing.assert_close(results[1][1], plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())


def test_epoch_e_meets_copy_e_modulo_the_copies(examples, setting):
    frozen, _ = stages.split(small(), "stage 3")
    inputs = prepare(frozen, examples, setting, copies=2)
    rows = torch.arange(6)
    first, second, third = (inputs.train(epoch, rows) for epoch in range(3))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("copies", [2, 0])
def test_copies_go_as_far_from_the_image_as_the_setting_says(examples, setting, copies):
    frozen, _ = stages.split(small(), "stage 3")
    gentle, strong = (
        prepare(frozen, examples, setting._replace(augmentation=how), copies=copies).train(1, torch.arange(6))
        for how in ("gentle", "strong")
    )
    assert not torch.equal(gentle, strong)


def test_a_store_of_all_images_gives_each_run_its_rows_of_every_copy(examples, setting):
    frozen, _ = stages.split(small(), "stage 3")
    everything = examples._replace(train=np.arange(10), validation=np.arange(10))
    stored = activations.remember(frozen, everything, setting, 2, lambda line: None)
    assert (len(stored.train), len(stored.validation)) == (20, 10)
    own = activations.of_rows(stored, examples)
    assert torch.equal(own.train, torch.cat([stored.train[examples.train], stored.train[10 + examples.train]]))
    assert torch.equal(own.validation, stored.validation[examples.validation])


def test_where_nothing_is_frozen_one_copy_is_each_image_as_it_is(examples, setting):
    frozen, _ = stages.split(small(), "all")
    rows = torch.arange(6)
    as_they_are = activations.normalize(examples.images[examples.train], **setting.normalization)
    once, anew = (prepare(frozen, examples, setting, epochs=3, copies=copies) for copies in (1, None))
    for epoch in range(3):
        torch.testing.assert_close(once.train(epoch, rows), as_they_are)
        assert torch.equal(anew.train(epoch, rows), as_they_are) == (epoch == 0)


def test_the_code_takes_a_copy_an_epoch_up_to_its_limit(examples, setting):
    frozen, _ = stages.split(small(), "stage 3")
    for epochs, copies in ((1, 1), (3, 3), (50, activations.MOST_COPIES)):
        lines = []
        prepare(frozen, examples, setting, epochs=epochs, report=lines.append)
        (line,) = lines
        assert line.startswith(f"Running the frozen part once for {6 * copies + 3} images and copies: 0 MiB")
        assert line.endswith("of activations in memory")


def test_the_live_path_is_taken_where_asked_and_where_nothing_holds_the_copies(examples, setting, monkeypatch):
    frozen, _ = stages.split(small(), "stage 3")
    lines = []
    prepare(frozen, examples, setting, copies=0, report=lines.append)
    monkeypatch.setattr(activations, "_room", lambda folder, digest: 1000)
    monkeypatch.setattr(arrays, "MEMORY_BYTES", 0)
    prepare(frozen, examples, setting, report=lines.append)
    assert lines == [
        "The frozen part runs anew in every epoch: as asked",
        "The frozen part runs anew in every epoch: 3 copies take 0 MiB, and 0 MiB are free",
    ]
    assert not setting.cache.exists()


def test_where_nothing_is_frozen_nothing_is_said(examples, setting):
    frozen, _ = stages.split(small(), "all")
    lines = []
    inputs = prepare(frozen, examples, setting, report=lines.append)
    assert lines == []
    expected = activations.normalize(examples.images[[1, 5]], **setting.normalization)
    torch.testing.assert_close(inputs.validation(torch.tensor([0, 2])), expected)


@pytest.fixture
def on_disk(examples, setting):
    """The files in the cache after preparing a network's inputs, made and found anew, and how often it was run."""

    def run(network=None, examples=examples, copies=2, **changes):
        frozen, _ = stages.split(network or small(), "stage 3")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrays, "MEMORY_BYTES", 0)
            inputs = prepare(frozen, examples, setting._replace(**changes), copies=copies)
        return inputs, {file.name for file in setting.cache.iterdir()}

    return run


def test_the_files_of_an_earlier_run_do_not_count_as_a_full_disk(on_disk, setting, monkeypatch):
    inputs, files = on_disk()
    held = sum((setting.cache / name).stat().st_size for name in files)
    usage = shutil.disk_usage("/")._replace(free=held)  # what they took is free no longer, and half of it must stay
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(activations, "_compute", lambda *arguments: iter([pytest.fail]))  # no tensor: breaks if used
    again, same = on_disk()
    assert same == files
    assert torch.equal(again.train(0, torch.tensor([5, 0])), inputs.train(0, torch.tensor([5, 0])))


def test_the_files_of_another_run_count_as_taken(on_disk, examples, setting, monkeypatch):
    _, files = on_disk()
    held = sum((setting.cache / name).stat().st_size for name in files)
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    def room(network, examples):
        return activations._room(
            setting.cache, activations._digest(stages.split(network, "stage 3")[0], examples, setting)
        )

    assert room(small(), examples) == 1000 + held
    assert room(changed_weight(), examples) == 1000
    assert room(small(), examples._replace(train=examples.train[:4])) == 1000


def test_a_file_that_was_cut_off_is_made_anew(on_disk, setting):
    inputs, files = on_disk()
    rows, expected = torch.tensor([5, 0]), inputs.train(1, torch.tensor([5, 0]))
    for name in files:
        (setting.cache / name).write_bytes((setting.cache / name).read_bytes()[:200])
    again, same = on_disk()
    assert same == files
    assert torch.equal(again.train(1, rows), expected)


def test_a_file_is_found_by_the_next_run_and_holds_what_memory_would(on_disk, examples, setting, monkeypatch):
    inputs, files = on_disk()
    assert len(files) == 2  # to train and to validate
    frozen, _ = stages.split(small(), "stage 3")
    inside = prepare(frozen, examples, setting, copies=2)
    monkeypatch.setattr(activations, "_compute", lambda *arguments: iter([pytest.fail]))  # no tensor: breaks if used
    again, same = on_disk()
    assert same == files
    for epoch in range(2):
        expected = inside.train(epoch, torch.tensor([5, 0]))
        assert torch.equal(again.train(epoch, torch.tensor([5, 0])), expected)
        assert torch.equal(inputs.train(epoch, torch.tensor([5, 0])), expected)
    assert torch.equal(again.validation(torch.tensor([2])), inside.validation(torch.tensor([2])))


def changed_weight():
    network = small()
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1e-3
    return network


def changed_pixel(examples):
    pixels = examples.images.clone()
    pixels[0, 0, 0, 0] += 1
    pixels[1, 0, 0, 0] += 1
    return examples._replace(images=pixels)


def test_whatever_changes_has_another_file(on_disk, examples):
    _, before = on_disk()
    changes = [
        {"network": changed_weight()},
        {"examples": changed_pixel(examples)},
        {"seed": 4},
        {"augmentation": "strong"},
        {"copies": 3},
        {"normalization": {"mean": [0.5] * 3, "deviation": [0.5] * 3}},
        {"examples": examples._replace(train=examples.train[::-1].copy(), validation=examples.validation[::-1].copy())},
    ]
    for change in changes:
        _, after = on_disk(**change)
        assert len(after - before) >= 1, change
        before = after


def test_a_head_that_changes_has_the_same_file(on_disk):
    _, before = on_disk()
    network = small()
    with torch.no_grad():
        network[-1].bias += 1
    assert on_disk(network)[1] == before


def test_the_frozen_part_is_left_as_it_was(examples, setting):
    network = small().train()
    before = copy.deepcopy(network.state_dict())
    frozen, _ = stages.split(network, "stage 3")
    prepare(frozen, examples, setting)
    assert all(layer.training for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_what_half_precision_cannot_hold_becomes_its_largest_number(setting, examples):
    network = small()
    with torch.no_grad():
        network[5].weight.fill_(1e8)  # the norm of stage 2
    frozen, _ = stages.split(network, "stage 3")
    remembered = activations.remember(frozen, examples, setting, 1, report=lambda line: None)
    assert remembered.train.dtype == torch.float16
    assert torch.isfinite(remembered.train).all()
    assert remembered.train.max() == 65504
