import pytest
import torch

from helpers import convnets


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


def test_the_fast_one_hands_on_what_goes_in_and_starts_with_small_logits():
    torch.manual_seed(0)
    network = convnets.fast_resnet(10)
    convolution = next(layer for layer in network if isinstance(layer, torch.nn.Conv2d))
    maps = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(convolution(maps)[:, :24], maps)
    assert network(torch.randn(32, 3, 32, 32)).abs().max() < 1.5
