import pytest
import torch

from helpers import convnets

GRADIENT = torch.arange(8.0).expand(2, 3, 8, 8)  # brighter to the right
LAYERS = [convnets.RandomFlip(), convnets.RandomRotation(20.0), convnets.RandomZoom(0.2), convnets.RandomShift(2)]
LAYERS.append(convnets.RandomCutout(3))


@pytest.mark.parametrize("name", convnets.NETWORKS)
@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=["square", "wide"])
def test_each_network_gives_a_logit_a_class_and_learns_everywhere(name, size):
    torch.manual_seed(0)
    network = convnets.NETWORKS[name](5)
    logits = network(torch.randn(3, 3, *size))
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", ["two_convolutions", "three_blocks", "fast_resnet"])
def test_those_for_small_images_take_32_px(name):
    assert convnets.NETWORKS[name](10).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_the_plain_one_has_two_convolutions_and_two_dense_layers():
    kinds = [type(layer).__name__ for layer in convnets.two_convolutions(10)]
    assert (kinds.count("Conv2d"), kinds.count("Linear")) == (2, 2)


def test_the_baseline_has_four_convolutions_each_pooled_and_dropout():
    kinds = [type(layer).__name__ for layer in convnets.baseline_cnn(10)]
    assert (kinds.count("Conv2d"), kinds.count("MaxPool2d")) == (4, 4)
    assert "Dropout" in kinds


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_augmentation_changes_images_in_training_only(layer):
    torch.manual_seed(1)
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(layer.eval()(images), images)
    changed = layer.train()(images)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_augmentation_follows_the_seed(layer):
    images = torch.rand(4, 3, 8, 8)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(layer.train()(images))
    assert torch.equal(*found)


def test_a_flip_is_the_image_or_its_mirror():
    torch.manual_seed(0)
    flipped = convnets.RandomFlip()(GRADIENT.repeat(8, 1, 1, 1))
    mirrored = [torch.equal(image, GRADIENT[0].flip(2)) for image in flipped]
    kept = [torch.equal(image, GRADIENT[0]) for image in flipped]
    assert sum(mirrored) > 0
    assert sum(kept) > 0
    assert sum(mirrored) + sum(kept) == 16


def test_a_shift_moves_by_whole_pixels_and_mirrors_the_rim():
    torch.manual_seed(0)
    rows = {tuple(image[0, 0].tolist()) for image in convnets.RandomShift(1)(GRADIENT.repeat(16, 1, 1, 1))}
    assert rows == {(0, 1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7, 6), (1, 0, 1, 2, 3, 4, 5, 6)}


def test_a_cutout_covers_one_square_of_each_image_wherever_it_may_lie():
    torch.manual_seed(0)
    covered = convnets.RandomCutout(3)(torch.ones(64, 3, 8, 8)) == 0
    assert (covered.sum((1, 2, 3)) == 3 * 9).all()
    assert (covered.any(2).sum(2) == 3).all()
    assert (covered.any(3).sum(2) == 3).all()
    assert len({tuple(one.flatten().tolist()) for one in covered[:, 0]}) > 20
    assert (convnets.RandomCutout(9)(torch.ones(2, 3, 8, 8)) == 0).all()  # larger than the image


def test_a_quarter_turn_makes_columns_rows(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.ones(*shape))  # the most that may be turned
    turned = convnets.RandomRotation(90.0)(GRADIENT.contiguous())
    torch.testing.assert_close(turned[0, 0], GRADIENT[0, 0].T.flip(0), atol=1e-4, rtol=0)


def test_a_zoom_keeps_the_middle(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.zeros(*shape))  # half of what is seen
    seen = convnets.RandomZoom(0.5)(GRADIENT.contiguous())[0, 0, 4]
    torch.testing.assert_close(seen, torch.arange(8.0) / 2 + 1.75, atol=1e-4, rtol=0)


def test_residual_adds_what_goes_in():
    block = convnets.Residual(4).eval()
    maps = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(block(maps), maps + block.body(maps))
